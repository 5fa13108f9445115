/**
 * The newest columns of one layer on one price grid. Two planes of bytes, column by column, so that a new column is one copy; the
 * column of number n lies in slot n modulo the slots. Rows are absolute (`grid.js`), so columns whose grid moves join. Pure.
 *
 * There are more slots than columns, and both slots and the lowest row are whole multiples of `ALIGN`: a block of columns or rows that
 * is drawn as one (`image.js`) then never has old columns in it, and stays the same block when the grid moves.
 */

/** Largest block of columns or rows that may be drawn as one. */
export const ALIGN = 64;
/** Rows that a ring has at most; beyond them those farthest from the newest column are given up. */
export const MAX_ROWS = 4096;
/** Rows kept free on both sides of a new grid. */
const MARGIN = 32;

/**
 * Cells of rows `low`, `low` + 1, …
 *
 * @typedef {{low: number, a: Uint8Array, b: Uint8Array}} Cells
 */

export class ColumnRing {
  /**
   * @param {number} cols how many columns are kept
   * @param {number} step USD from row to row
   */
  constructor(cols, step) {
    this.cols = cols;
    this.step = step;
    this.slots = up(cols) + ALIGN;
    /** Lowest row, and how many there are. */
    this.low = 0;
    this.rows = 0;
    /** Newest column that the axis reaches, and newest that has data; -1 before any. */
    this.newest = -1;
    this.newestHeld = -1;
    /** @type {Uint8Array} */
    this.a = new Uint8Array(0);
    /** @type {Uint8Array} */
    this.b = new Uint8Array(0);
    /** Column that a slot holds, -1 none; the rows that this column covers. */
    this.at = new Float64Array(this.slots).fill(-1);
    this.from = new Int32Array(this.slots);
    this.to = new Int32Array(this.slots);
    /** What final frames left in columns that have provisional ones in them. @type {Map<number, Cells|null>} */
    this.settled = new Map();
    /** What is another one since `takeChanges`: slots, or everything. @type {Set<number>} */
    this.changed = new Set();
    this.moved = false;
  }

  /** Slots that have changed since the last call; null: every row has moved. @returns {Set<number>|null} */
  takeChanges() {
    const changed = this.moved ? null : this.changed;
    this.changed = new Set();
    this.moved = false;
    return changed;
  }

  /** Oldest column that is kept. */
  get first() {
    return Math.max(0, this.newest - this.cols + 1);
  }

  /** @param {number} col */
  slotOf(col) {
    return col % this.slots;
  }

  /** @param {number} col */
  has(col) {
    return col >= this.first && col <= this.newest && this.at[this.slotOf(col)] === col;
  }

  /** Let the axis reach `col`; what becomes too old is gone. @param {number} col */
  advance(col) {
    if (col <= this.newest) return;
    for (let passed = Math.max(this.newest + 1, col - this.slots + 1); passed <= col; passed++) this.#empty(this.slotOf(passed));
    this.newest = col;
    if (this.newestHeld < this.first) this.newestHeld = -1;
    for (const one of this.settled.keys()) if (one < this.first) this.settled.delete(one);
  }

  /**
   * A column, whole, in place of what was there; or, with `merge`, the larger of both in each cell.
   *
   * What a `provisional` one left is undone by the next of the same column.
   *
   * @param {number} col
   * @param {Cells} cells
   * @param {{merge?: boolean, provisional?: boolean}} [how]
   * @returns {boolean} false: it is too old and nothing was done
   */
  put(col, cells, { merge = false, provisional = false } = {}) {
    if (col < this.first) return false;
    this.advance(col);
    if (this.settled.has(col)) this.#restore(col);
    this.#cover(cells.low, cells.low + cells.a.length);
    if (provisional) this.settled.set(col, merge ? this.column(col) : null);
    this.#write(col, cells, merge && this.has(col));
    return true;
  }

  /** Forget a column: it is missing then. @param {number} col */
  drop(col) {
    if (!this.has(col)) return;
    this.#empty(this.slotOf(col));
    this.settled.delete(col);
    while (this.newestHeld >= this.first && !this.has(this.newestHeld)) this.newestHeld--;
    if (this.newestHeld < this.first) this.newestHeld = -1;
  }

  /** Copy of a column over the rows that it covers; null where there is none. @param {number} col @returns {Cells|null} */
  column(col) {
    if (!this.has(col)) return null;
    const slot = this.slotOf(col);
    const [low, high] = [this.from[slot] ?? 0, this.to[slot] ?? 0];
    const start = slot * this.rows - this.low;
    return { low, a: this.a.slice(start + low, start + high), b: this.b.slice(start + low, start + high) };
  }

  /** Both cells, or null where the column is missing or does not cover the row. @param {number} col @param {number} row @returns {[number, number]|null} */
  cell(col, row) {
    const slot = this.slotOf(col);
    if (!this.has(col) || row < (this.from[slot] ?? 0) || row >= (this.to[slot] ?? 0)) return null;
    const at = slot * this.rows + row - this.low;
    return [this.a[at] ?? 0, this.b[at] ?? 0];
  }

  /**
   * Count the cells of columns `fromCol`..`toCol` and rows `fromRow`..`toRow` (inclusive) by their byte, the larger of both sides,
   * into `histogram`.
   *
   * @param {Uint32Array} histogram 256 entries
   * @param {number} fromCol
   * @param {number} toCol
   * @param {number} fromRow
   * @param {number} toRow
   */
  count(histogram, fromCol, toCol, fromRow, toRow) {
    for (let col = Math.max(fromCol, this.first); col <= Math.min(toCol, this.newest); col++) {
      if (!this.has(col)) continue;
      const slot = this.slotOf(col);
      const start = slot * this.rows - this.low;
      const end = start + Math.min(toRow + 1, this.to[slot] ?? 0);
      for (let at = start + Math.max(fromRow, this.from[slot] ?? 0); at < end; at++) {
        const cell = Math.max(this.a[at] ?? 0, this.b[at] ?? 0);
        histogram[cell] = (histogram[cell] ?? 0) + 1;
      }
    }
  }

  /** @param {number} col @param {Cells} cells @param {boolean} merge */
  #write(col, cells, merge) {
    const slot = this.slotOf(col);
    if (!merge) this.#clear(slot);
    const low = Math.max(cells.low, this.low);
    const high = Math.min(cells.low + cells.a.length, this.low + this.rows);
    const start = slot * this.rows - this.low;
    for (const [plane, added] of [[this.a, cells.a], [this.b, cells.b]]) { // prettier-ignore
      if (!plane || !added || high <= low) continue;
      const part = added.subarray(low - cells.low, high - cells.low);
      if (!merge) plane.set(part, start + low);
      else part.forEach((cell, n) => (plane[start + low + n] = Math.max(cell, plane[start + low + n] ?? 0)));
    }
    this.from[slot] = merge ? Math.min(low, this.from[slot] ?? low) : low;
    this.to[slot] = merge ? Math.max(high, this.to[slot] ?? high) : Math.max(low, high);
    this.at[slot] = col;
    this.changed.add(slot);
    this.newestHeld = Math.max(this.newestHeld, col);
  }

  /** @param {number} slot */
  #clear(slot) {
    this.a.fill(0, slot * this.rows, (slot + 1) * this.rows);
    this.b.fill(0, slot * this.rows, (slot + 1) * this.rows);
  }

  /** @param {number} slot */
  #empty(slot) {
    if (this.at[slot] === -1) return;
    this.#clear(slot);
    this.at[slot] = -1;
    this.changed.add(slot);
  }

  /** @param {number} col */
  #restore(col) {
    const cells = this.settled.get(col);
    this.settled.delete(col);
    if (cells) this.#write(col, cells, false);
    else this.#empty(this.slotOf(col));
  }

  /**
   * Make room for rows `from`..`to` - 1. All that columns cover stays, unless that is more than `MAX_ROWS`.
   *
   * @param {number} from
   * @param {number} to
   */
  #cover(from, to) {
    if (from >= to || (from >= this.low && to <= this.low + this.rows)) return;
    let [low, high] = [from, to];
    for (let col = this.first; col <= this.newest; col++) {
      if (!this.has(col)) continue;
      low = Math.min(low, this.from[this.slotOf(col)] ?? low);
      high = Math.max(high, this.to[this.slotOf(col)] ?? high);
    }
    low = down(Math.max(0, low - MARGIN));
    high = up(high + MARGIN);
    if (high - low > MAX_ROWS) {
      low = down(Math.min(Math.max(low, (from + to - MAX_ROWS) / 2), high - MAX_ROWS));
      high = low + MAX_ROWS;
    }
    if (low !== this.low || high - low !== this.rows) this.#move(low, high - low);
  }

  /** @param {number} low @param {number} rows */
  #move(low, rows) {
    const from = Math.max(low, this.low);
    const to = Math.min(low + rows, this.low + this.rows);
    const [a, b] = [this.a, this.b].map((plane) => {
      const moved = new Uint8Array(this.slots * rows);
      for (let slot = 0; slot < this.slots && from < to; slot++) {
        const start = slot * this.rows - this.low;
        moved.set(plane.subarray(start + from, start + to), slot * rows - low + from);
      }
      return moved;
    });
    for (let slot = 0; slot < this.slots; slot++) {
      this.from[slot] = Math.min(Math.max(this.from[slot] ?? 0, low), low + rows);
      this.to[slot] = Math.min(Math.max(this.to[slot] ?? 0, low), low + rows);
    }
    [this.a, this.b] = [/** @type {Uint8Array} */ (a), /** @type {Uint8Array} */ (b)];
    [this.low, this.rows] = [low, rows];
    this.moved = true;
  }
}

/** @param {number} n */
function up(n) {
  return Math.ceil(n / ALIGN) * ALIGN;
}

/** @param {number} n */
function down(n) {
  return Math.floor(n / ALIGN) * ALIGN;
}
