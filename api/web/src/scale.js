/**
 * The colour scale in force: pinned by the user, or its top locked to the 99th percentile of what is visible. Pure.
 *
 * @typedef {import("./store.js").State} State
 * @typedef {import("./types.js").Scale} Scale
 * @typedef {"map"|"depth"} Which
 * @typedef {{map: number|null, depth: number|null}} Tops USD; null: unknown
 */

import { USD } from "./url.js";

/** State keys of each layer's scale, low then high. */
export const SCALE_KEYS = /** @type {const} */ ({ map: ["mapLo", "mapHi"], depth: ["bookLo", "bookHi"] });
/** A locked scale spans at least this factor, so that a quiet market still has shades. */
const SPAN = 50;
/** The lock follows only what differs by more, so that colours do not flicker. */
const SLACK = 0.1;

/** Two significant digits, as legends show them. @param {number} usd */
const rounded = (usd) => Math.min(USD.hi, Math.max(USD.lo, Number(usd.toPrecision(2))));

/**
 * Tops after a new look at the view.
 *
 * @param {Tops} before
 * @param {Tops} seen
 * @returns {Tops} `before` itself where nothing moved enough
 */
export function follow(before, seen) {
  const next = { map: followed(before.map, seen.map), depth: followed(before.depth, seen.depth) };
  return next.map === before.map && next.depth === before.depth ? before : next;
}

/** @param {number|null} before @param {number|null} seen */
function followed(before, seen) {
  if (seen === null || !(seen > 0)) return before;
  return before !== null && Math.abs(seen / before - 1) <= SLACK ? before : rounded(seen);
}

/**
 * @param {State} state
 * @param {Tops} tops
 * @returns {Record<Which, Scale>}
 */
export function scalesOf(state, tops) {
  return { map: scaleOf(state, "map", tops.map), depth: scaleOf(state, "depth", tops.depth) };
}

/** @param {State} state @param {Which} which @param {number|null} top @returns {Scale} */
function scaleOf(state, which, top) {
  const [low, high] = SCALE_KEYS[which];
  const { gamma, log } = state;
  if (!state.lockP99 || top === null) return { loUsd: state[low], hiUsd: state[high], gamma, log };
  const hiUsd = Math.max(top, USD.lo * SPAN);
  return { loUsd: rounded(Math.min(state[low], hiUsd / SPAN)), hiUsd, gamma, log };
}

/**
 * The state's scales pinned to what is shown now, one end of one of them moved. Ends do not cross.
 *
 * @param {Record<Which, Scale>} shown
 * @param {Which} which
 * @param {"lo"|"hi"} end
 * @param {number} usd
 * @returns {Partial<State>}
 */
export function pinned(shown, which, end, usd) {
  const scale = { ...shown[which] };
  const value = rounded(usd);
  if (end === "lo") scale.loUsd = Math.min(value, rounded(scale.hiUsd / 1.2));
  else scale.hiUsd = Math.max(value, rounded(scale.loUsd * 1.2));
  const all = { ...shown, [which]: scale };
  return {
    lockP99: false,
    mapLo: all.map.loUsd, mapHi: all.map.hiUsd,
    bookLo: all.depth.loUsd, bookHi: all.depth.hiUsd,
  };
}
