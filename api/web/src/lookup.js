/** What lies under the cursor, and everything that is visible, as numbers. Pure: reads a scene. */

import { columnAt, rowAt } from "./grid.js";
import { quantile, usdOf } from "./lut.js";
import { shown } from "./scene.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").ViewColumn} ViewColumn */
/** @typedef {import("./layer.js").Layer} Layer */

/**
 * One column at one price.
 *
 * @param {Scene} scene
 * @param {number} col
 * @param {number} price
 * @returns {import("./types.js").CellsAt}
 */
export function cellsAt(scene, col, price) {
  const [map, depth] = [shown(scene, "map"), shown(scene, "depth")];
  const usd = (/** @type {Layer} */ layer) => layer.cell(col, price)?.map(usdOf) ?? [null, null];
  const [longUsd = null, shortUsd = null] = map ? usd(map) : [];
  const [bidUsd = null, askUsd = null] = depth ? usd(depth) : [];
  return {
    map: map && { longUsd, shortUsd, missing: map.at(col) === null },
    depth: depth && { bidUsd, askUsd, missing: depth.at(col) === null },
  };
}

/**
 * @param {Scene} scene
 * @param {import("./candles.js").Bars} bars
 * @param {import("./bubbles.js").Bubbles} bubbles
 * @param {{col: number, price: number, mark: number|null, nowMs: number}} at
 * @returns {import("./types.js").Readout}
 */
export function readoutAt(scene, bars, bubbles, { col, price, mark, nowMs }) {
  const map = shown(scene, "map");
  const future = col > scene.newest || (map !== null && map.newestHeld >= 0 && col > map.newestHeld);
  return {
    tMs: col * scene.dtMs,
    dtMs: scene.dtMs,
    price,
    mark,
    distancePct: mark === null ? null : (price / mark - 1) * 100,
    future,
    ...cellsAt(scene, col, price),
    previous: cellsAt(scene, col - 1, price),
    next: cellsAt(scene, col + 1, price),
    bubble: scene.show.realised ? bubbles.at(col, price) : null,
    candle: bars.at(col),
    ageS: col > scene.newest ? null : Math.max(0, nowMs - (col + 1) * scene.dtMs) / 1000,
  };
}

/** Columns of a view that are kept, first and last. @param {Scene} scene @param {View} view @returns {[number, number]} */
function columnsOf(scene, view) {
  return [Math.max(scene.first, columnAt(view.fromMs, scene.dtMs)), Math.min(scene.newest, columnAt(view.toMs - 1, scene.dtMs))];
}

/** USD that 99 % of the visible cells which hold something do not exceed. @param {Scene} scene @param {View} view @param {"map"|"depth"} which */
export function p99Of(scene, view, which) {
  const layer = shown(scene, which);
  if (layer === null) return null;
  const histogram = new Uint32Array(256);
  const [from, to] = columnsOf(scene, view);
  for (const { ring } of layer.epochs) {
    ring.count(histogram, from, to, rowAt(view.priceLow, ring.step), rowAt(view.priceHigh, ring.step));
  }
  return quantile(histogram, 0.99);
}

/**
 * @param {Scene} scene
 * @param {import("./candles.js").Bars} bars
 * @param {View} view
 * @returns {import("./types.js").CellsOfView}
 */
export function cellsOfView(scene, bars, view) {
  const [map, depth] = [shown(scene, "map"), shown(scene, "depth")];
  const [from, to] = columnsOf(scene, view);
  const columns = Array.from({ length: Math.max(0, to - from + 1) }, (_, n) => {
    const col = from + n;
    return {
      tMs: col * scene.dtMs,
      missing: { map: map !== null && map.at(col) === null, depth: depth !== null && depth.at(col) === null },
      candle: bars.at(col),
      map: columnOf(map, col, view),
      depth: columnOf(depth, col, view),
    };
  });
  const seen = ({ tMs = 0, price = 0 }) => tMs >= view.fromMs && tMs < view.toMs && price >= view.priceLow && price <= view.priceHigh;
  return { mapName: map && scene.show.map, dtMs: scene.dtMs, view, columns, bubbles: scene.show.realised ? scene.bubbles.filter(seen) : [] };
}

/** @param {Layer|null} layer @param {number} col @param {View} view @returns {ViewColumn|null} */
function columnOf(layer, col, view) {
  const ring = layer?.at(col);
  const cells = ring?.column(col);
  if (!ring || !cells) return null;
  const low = Math.max(cells.low, rowAt(view.priceLow, ring.step));
  const high = Math.max(low, Math.min(cells.low + cells.a.length, rowAt(view.priceHigh, ring.step) + 1));
  const usd = (/** @type {Uint8Array} */ plane) => Float64Array.from(plane.subarray(low - cells.low, high - cells.low), usdOf);
  return { price0: low * ring.step, step: ring.step, a: usd(cells.a), b: usd(cells.b) };
}
