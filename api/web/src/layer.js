/**
 * One layer of heat: a ring with its picture per price grid. A column of another grid that does not divide into the rows of the newest
 * ring begins a new one; the older ones keep their columns as long as these are kept at all.
 */

import { columnAt, multipleOf, poolRows, rowAt } from "./grid.js";
import { RingImage } from "./image.js";
import { ColumnRing } from "./ring.js";

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").LayerCells} LayerCells */
/** @typedef {Pick<import("./types.js").Column, "tMs"|"dtMs"|"price0"|"step"|"a"|"b">} Placed */
/** @typedef {{ring: ColumnRing, image: RingImage}} Epoch */

/** Price grids at once; the oldest is given up beyond that. */
const MAX_EPOCHS = 8;

export class Layer {
  /** @param {number} cols columns kept @param {number} dtMs @param {{cellsTouched: number}} counters */
  constructor(cols, dtMs, counters) {
    this.cols = cols;
    this.dtMs = dtMs;
    this.counters = counters;
    /** Oldest first. @type {Epoch[]} */
    this.epochs = [];
  }

  /** The ring that new columns go to. @returns {ColumnRing|null} */
  get ring() {
    return this.epochs.at(-1)?.ring ?? null;
  }

  /** Newest column that has data, -1 without any. */
  get newestHeld() {
    return Math.max(-1, ...this.epochs.map(({ ring }) => ring.newestHeld));
  }

  /** Columns of an answer into what is there; missing ones change nothing. @param {Snapshot} snapshot @param {LayerCells} cells */
  merge(snapshot, cells) {
    const { rows, t0Ms, dtMs, price0, step } = snapshot;
    cells.seq.forEach((seq, c) => {
      if (seq < 0) return;
      const [a, b] = [cells.a, cells.b].map((plane) => plane.subarray(c * rows, (c + 1) * rows));
      this.put({ tMs: t0Ms + c * dtMs, dtMs, price0, step, a: /** @type {Uint8Array} */ (a), b: /** @type {Uint8Array} */ (b) });
    });
    this.advance(columnAt(t0Ms, dtMs) + snapshot.cols - 1);
  }

  /**
   * @param {Placed} column longer than `dtMs`: it is in each column that it covers
   * @param {{merge?: boolean, provisional?: boolean}} [how] as of `ColumnRing.put`
   * @returns {boolean} false: too old
   */
  put(column, how = {}) {
    const ring = this.#ringOf(column.step);
    const many = multipleOf(ring.step, column.step) ?? 1;
    const low = rowAt(column.price0, column.step);
    const a = poolRows(column.a, low, many);
    const cells = { low: a.low, a: a.cells, b: poolRows(column.b, low, many).cells };
    const first = columnAt(column.tMs, this.dtMs);
    const last = Math.max(first, columnAt(column.tMs + column.dtMs - 1, this.dtMs));
    let taken = false;
    for (let col = first; col <= last; col++) {
      if (!ring.put(col, cells, how)) continue;
      taken = true;
      for (const { ring: other } of this.epochs) if (other !== ring) other.drop(col);
    }
    this.advance(last);
    return taken;
  }

  /** Let the axis reach `col`. @param {number} col */
  advance(col) {
    for (const { ring } of this.epochs) ring.advance(col);
    if (this.epochs.length > 1) {
      this.epochs = this.epochs.filter(({ ring }, n) => n === this.epochs.length - 1 || ring.newestHeld >= 0).slice(-MAX_EPOCHS);
    }
  }

  /** Ring that holds a column. @param {number} col @returns {ColumnRing|null} */
  at(col) {
    return this.epochs.find(({ ring }) => ring.has(col))?.ring ?? null;
  }

  /** Both cells at a price; null where the column is missing or does not reach it. @param {number} col @param {number} price */
  cell(col, price) {
    const ring = this.at(col);
    return ring === null ? null : ring.cell(col, rowAt(price, ring.step));
  }

  /** @param {number} step */
  #ringOf(step) {
    const { ring } = this;
    if (ring !== null && multipleOf(ring.step, step) !== null) return ring;
    const fresh = new ColumnRing(this.cols, step);
    if (ring !== null) fresh.advance(ring.newest);
    this.epochs.push({ ring: fresh, image: new RingImage(fresh, this.counters) });
    return fresh;
  }
}
