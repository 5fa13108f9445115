/**
 * Filling gaps by requests: which one, and what an answer holds. Pure.
 *
 * @typedef {import("./types.js").Column} Column
 * @typedef {import("./types.js").Snapshot} Snapshot
 * @typedef {import("./types.js").LayerName} LayerName
 * @typedef {import("../types/contract").Candle} Candle
 * @typedef {import("../types/contract").Candles} Candles
 */

/**
 * Columns of one layer of an answer that have data, oldest first.
 *
 * @param {Snapshot} snapshot
 * @param {LayerName} layer
 * @returns {Column[]}
 */
export function columnsOf(snapshot, layer) {
  const cells = snapshot.layers[layer];
  if (cells === undefined) return [];
  const { rows, dtMs, t0Ms, price0, step } = snapshot;
  /** @type {Column[]} */
  const columns = [];
  cells.seq.forEach((seq, index) => {
    if (seq < 0) return;
    const src = snapshot.src[index];
    columns.push({
      layer, tMs: t0Ms + index * dtMs, dtMs, price0, step, rows, seq, prev: seq - 1,
      a: cells.a.slice(index * rows, (index + 1) * rows), b: cells.b.slice(index * rows, (index + 1) * rows),
      src: src === undefined || Number.isNaN(src) ? null : src, epoch: snapshot.epoch ?? 0, flags: [], stale: false,
    });
  });
  return columns;
}

/**
 * Start of the newest column of a layer that has data; null without any.
 *
 * @param {Snapshot} snapshot
 * @param {LayerName} layer
 */
export function newestMs(snapshot, layer) {
  const seq = snapshot.layers[layer]?.seq ?? new Float64Array(0);
  for (let index = seq.length - 1; index >= 0; index -= 1) {
    if (/** @type {number} */ (seq[index]) >= 0) return snapshot.t0Ms + index * snapshot.dtMs;
  }
  return null;
}

/** @param {Candles} bars @returns {Candle[]} oldest first */
export function candlesOf(bars) {
  return bars.t.map((t, index) => {
    const one = Object.entries(bars).flatMap(([key, value]) => (Array.isArray(value) ? [[key, value[index]]] : []));
    return /** @type {Candle} */ (/** @type {unknown} */ ({ ...Object.fromEntries(one), t }));
  });
}
