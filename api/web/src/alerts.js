/**
 * Tells when price comes near a large zone: a notice of the system where the user allowed it, else one in the page.
 *
 * @typedef {import("../types/contract.js").Zone} Zone
 */

import { distance, price, signedPercent, about } from "./format.js";

/** Each zone at most once in this time. */
export const AGAIN_MS = 15 * 60_000;
/** What a switch in the page turns on, until the user says otherwise. */
export const DEFAULT_ALERT = { alertPct: 0.5, alertUsd: 1_000_000 };

/**
 * Zones to tell of now, nearest first. `told` (id -> when, ms) is brought up to date. Pure but for that.
 *
 * @param {object} given
 * @param {readonly Zone[]} given.zones
 * @param {number|null} given.mark
 * @param {number|null} given.pct
 * @param {number|null} given.usd
 * @param {Map<string, number>} given.told
 * @param {number} given.nowMs
 * @returns {Zone[]}
 */
export function due({ zones, mark, pct, usd, told, nowMs }) {
  for (const [id, at] of told) if (nowMs - at >= AGAIN_MS) told.delete(id);
  if (mark === null || pct === null) return [];
  const away = (/** @type {Zone} */ zone) => Math.abs(distance(zone.price, mark) ?? Infinity);
  const found = zones.filter((zone) => zone.notional_usd >= (usd ?? 0) && away(zone) <= pct && !told.has(zone.id));
  for (const zone of found) told.set(zone.id, nowMs);
  return found.sort((one, other) => away(one) - away(other));
}

/** @param {string} symbol @param {Zone} zone @param {number|null} mark */
export function alertText(symbol, zone, mark) {
  const side = zone.side === "short" ? "shorts above" : "longs below";
  return `${symbol} ${price(mark)}: ${about(zone.notional_usd)} of ${side} at ${price(zone.price)} (${signedPercent(distance(zone.price, mark))}), estimated`;
}

/** Asks only in answer to a click. @returns {Promise<NotificationPermission | "missing">} */
export async function askPermission() {
  if (!("Notification" in window)) return "missing";
  return Notification.permission === "default" ? Notification.requestPermission() : Notification.permission;
}

/** @param {NotificationPermission | "missing"} permission */
export function permissionText(permission) {
  if (permission === "granted") return "Notices come from your system while this page is open.";
  return "Notices appear in this page while it is open; your browser does not allow more.";
}

/** A notice of the system. @param {string} text @param {string} id of the zone: a new notice takes the place of its old one @returns {boolean} false: not possible */
export function notify(text, id) {
  if (!("Notification" in window) || Notification.permission !== "granted") return false;
  try {
    new Notification("mpengine", { body: text, tag: id });
    return true;
  } catch {
    // Some browsers on phones only let service workers do this.
    return false;
  }
}
