/** Bars of the width of the heat's columns, and the times of the axis, which has a bar for every column, missing and future ones too. Pure. */

import { columnAt } from "./grid.js";

/** @typedef {import("./types.js").Bar} Bar */

/** Candles joined to columns of `dtMs`. The same minute may come again. */
export class Bars {
  /** @param {number} dtMs */
  constructor(dtMs) {
    this.dtMs = dtMs;
    /** Column to bar; `from`, `to`: the minutes that open and close are of. @type {Map<number, Bar & {from: number, to: number}>} */
    this.byColumn = new Map();
  }

  /** Every bar of an answer of `/candles`. @param {import("../types/contract.js").Candles} candles */
  addAll({ t, o, h, l, c }) {
    t.forEach((tMs, n) => this.add(tMs, { o: o[n] ?? NaN, h: h[n] ?? NaN, l: l[n] ?? NaN, c: c[n] ?? NaN }));
  }

  /**
   * @param {number} tMs its open
   * @param {Bar} bar
   * @returns {number} the column it belongs to; -1: it has no price
   */
  add(tMs, { o, h, l, c }) {
    if (![o, h, l, c].every(Number.isFinite)) return -1;
    const col = columnAt(tMs, this.dtMs);
    const bar = this.byColumn.get(col);
    if (!bar) {
      this.byColumn.set(col, { o, h, l, c, from: tMs, to: tMs });
      return col;
    }
    if (tMs <= bar.from) [bar.o, bar.from] = [o, tMs];
    if (tMs >= bar.to) [bar.c, bar.to] = [c, tMs];
    bar.h = Math.max(bar.h, h);
    bar.l = Math.min(bar.l, l);
    return col;
  }

  /** @param {number} col @returns {Bar|null} */
  at(col) {
    const bar = this.byColumn.get(col);
    return bar ? { o: bar.o, h: bar.h, l: bar.l, c: bar.c } : null;
  }

  /** Forget what is older. @param {number} first column */
  prune(first) {
    for (const col of this.byColumn.keys()) if (col < first) this.byColumn.delete(col);
  }

  /** Columns that have a bar, oldest first. */
  columns() {
    return [...this.byColumn.keys()].sort((one, other) => one - other);
  }

  /**
   * Lowest and highest price of columns `from`..`to`, and the newest close; null without a bar.
   *
   * @param {number} from
   * @param {number} to
   * @returns {{low: number, high: number, close: number}|null}
   */
  range(from, to) {
    let [low, high, close, newest] = [Infinity, -Infinity, NaN, -1];
    for (const [col, bar] of this.byColumn) {
      if (col < from || col > to) continue;
      low = Math.min(low, bar.l);
      high = Math.max(high, bar.h);
      if (col > newest) [newest, close] = [col, bar.c];
    }
    return newest < 0 ? null : { low, high, close };
  }
}

/** Time of a column as the chart library counts it, s. @param {number} col @param {number} dtMs */
export function barTime(col, dtMs) {
  return /** @type {import("../vendor/lightweight-charts.js").UTCTimestamp} */ ((col * dtMs) / 1000);
}

/** One bar without a value per column. @param {number} first @param {number} last @param {number} dtMs */
export function whitespace(first, last, dtMs) {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, n) => ({ time: barTime(first + n, dtMs) }));
}

/** Columns shown right of the newest one. @param {number} cols */
export function futureOf(cols) {
  return Math.max(8, Math.round(cols * 0.12));
}

/** Part of the price that is shown above and below it at least, and rows that are shown at least. */
const AROUND = 0.03;
const LEAST_ROWS = 40;

/**
 * Prices of the default view: all of `range`, at least 3 % around its newest close, at least 40 rows.
 *
 * @param {{low: number, high: number, close: number}} range
 * @param {number} step USD per row
 * @returns {{low: number, high: number}}
 */
export function pricesAround({ low, high, close }, step) {
  const least = Math.max(close * AROUND, (step * LEAST_ROWS) / 2);
  return { low: Math.min(low, close - least), high: Math.max(high, close + least) };
}
