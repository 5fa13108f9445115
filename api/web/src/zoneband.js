/** Marks of the zones at the right side: a tick each, and for the largest a line through the time to come with their amount. */

import { about } from "./format.js";
import { font, strength } from "./theme.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./axes.js").Axes} Axes */
/** @typedef {import("../types/contract.js").Zone} Zone */

const NAMED = 8;
const TICK = 9;
const TEXT = 11;

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene */
export function paintZones(context, axes, scene) {
  if (!scene.show.zones) return;
  const ratio = axes.scope.verticalPixelRatio;
  const visible = scene.zones
    .map((zone) => ({ zone, y: Math.round(axes.y(zone.price)) }))
    .filter(({ y }) => y >= 0 && y < axes.height)
    .sort((one, other) => other.zone.notional_usd - one.zone.notional_usd);
  context.globalAlpha = strength(scene.stale);
  for (const { zone, y } of visible) tick(context, axes, inkOf(scene, zone), y);
  /** @type {number[]} */
  const taken = [];
  for (const { zone, y } of visible.slice(0, NAMED)) {
    if (taken.some((other) => Math.abs(other - y) < (TEXT + 3) * ratio)) continue;
    taken.push(y);
    name(context, axes, scene, zone, y);
  }
}

/** @param {Scene} scene @param {Zone} zone */
function inkOf(scene, zone) {
  return zone.side === "long" ? scene.inks.long : scene.inks.short;
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {string} ink @param {number} y */
function tick(context, axes, ink, y) {
  const size = axes.scope.verticalPixelRatio;
  context.fillStyle = ink;
  context.beginPath();
  context.moveTo(axes.width - TICK * size, y + 0.5 * size);
  context.lineTo(axes.width, y - 3.5 * size);
  context.lineTo(axes.width, y + 4.5 * size);
  context.fill();
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {Zone} zone @param {number} y */
function name(context, axes, scene, zone, y) {
  const ratio = axes.scope.verticalPixelRatio;
  const start = Math.max(0, Math.min(axes.left(scene.newest + 1), axes.width - 90 * ratio));
  const ink = inkOf(scene, zone);
  context.strokeStyle = ink;
  context.lineWidth = ratio;
  context.setLineDash([4 * ratio, 4 * ratio]);
  context.beginPath();
  context.moveTo(start, y + 0.5 * ratio);
  context.lineTo(axes.width, y + 0.5 * ratio);
  context.stroke();
  context.setLineDash([]);
  context.font = font(TEXT * ratio);
  context.textBaseline = "bottom";
  context.lineJoin = "round";
  context.lineWidth = 3 * ratio;
  context.strokeStyle = scene.inks.back;
  context.strokeText(about(zone.notional_usd), start + 4 * ratio, y);
  context.fillStyle = ink;
  context.fillText(about(zone.notional_usd), start + 4 * ratio, y);
}
