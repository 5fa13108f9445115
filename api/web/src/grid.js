/**
 * Whole numbers for times and prices: column n covers [n * dt, (n + 1) * dt) ms, row n has its centre at n * step USD. Pure.
 */

/** Relative error up to which a step counts as a multiple of another one. */
const TOLERANCE = 1e-6;

/** @param {number} tMs @param {number} dtMs */
export function columnAt(tMs, dtMs) {
  return Math.floor(tMs / dtMs);
}

/** @param {number} price @param {number} step */
export function rowAt(price, step) {
  return Math.round(price / step);
}

/**
 * How many rows of `fine` make one of `coarse`; null where it is no whole number.
 *
 * @param {number} coarse
 * @param {number} fine
 */
export function multipleOf(coarse, fine) {
  const ratio = coarse / fine;
  const whole = Math.round(ratio);
  return whole >= 1 && Math.abs(ratio - whole) <= TOLERANCE * whole ? whole : null;
}

/**
 * Cells of rows `low`, `low` + 1, … as cells of rows `many` times as high, the largest of each, placed as the server places them:
 * row I belongs to row floor(I / many + 0.5).
 *
 * @param {Uint8Array} cells
 * @param {number} low
 * @param {number} many
 * @returns {{low: number, cells: Uint8Array}}
 */
export function poolRows(cells, low, many) {
  if (many === 1) return { low, cells };
  const row = (/** @type {number} */ n) => Math.floor((low + n) / many + 0.5);
  const first = row(0);
  const pooled = new Uint8Array(cells.length === 0 ? 0 : row(cells.length - 1) - first + 1);
  for (let n = 0; n < cells.length; n++) {
    const at = row(n) - first;
    const cell = cells[n] ?? 0;
    if (cell > (pooled[at] ?? 0)) pooled[at] = cell;
  }
  return { low: first, cells: pooled };
}
