/** The newest column as bars at the right edge: USD by price, the longest is the largest visible one. */

import { usdOf } from "./lut.js";
import { shown } from "./scene.js";
import { strength } from "./theme.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./axes.js").Axes} Axes */

const WIDTH = 0.13;
const MOST_WIDTH = 150;

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene */
export function paintProfile(context, axes, scene) {
  const map = shown(scene, "map");
  const layer = map ?? shown(scene, "depth");
  const ring = layer?.at(layer.newestHeld);
  const column = ring?.column(layer?.newestHeld ?? -1);
  if (!scene.show.profile || !ring || !column) return;
  const lines = [column.a, column.b].map((cells) => byPixel(axes, ring.step, column.low, cells));
  const most = Math.max(1, ...lines.flatMap((one) => one.map(({ usd }) => usd)));
  const width = Math.min(MOST_WIDTH * axes.scope.horizontalPixelRatio, axes.width * WIDTH);
  context.globalAlpha = 0.8 * strength(scene.stale);
  const { inkA, inkB } = scene.luts[map ? "map" : "depth"];
  lines.forEach((line, side) => {
    context.fillStyle = side === 0 ? inkA : inkB;
    for (const { from, to, usd } of line) {
      const length = Math.ceil((width * usd) / most);
      context.fillRect(axes.width - length, from, length, to - from);
    }
  });
}

/**
 * Visible rows as spans of whole pixels; of rows that share a pixel the largest.
 *
 * @param {Axes} axes
 * @param {number} step
 * @param {number} low
 * @param {Uint8Array} cells
 * @returns {{from: number, to: number, usd: number}[]}
 */
function byPixel(axes, step, low, cells) {
  /** @type {{from: number, to: number, usd: number}[]} */
  const lines = [];
  const first = Math.max(0, Math.floor(axes.price(axes.height) / step) - low);
  const last = Math.min(cells.length - 1, Math.ceil(axes.price(0) / step) - low);
  for (let n = first; n <= last; n++) {
    const usd = usdOf(cells[n] ?? 0);
    if (usd === 0) continue;
    const from = Math.round(axes.y((low + n + 0.5) * step));
    const to = Math.round(axes.y((low + n - 0.5) * step));
    const before = lines.at(-1);
    if (before && before.from === from) before.usd = Math.max(before.usd, usd);
    else lines.push({ from, to: Math.max(from + 1, to - (to - from > 3 ? 1 : 0)), usd });
  }
  return lines;
}
