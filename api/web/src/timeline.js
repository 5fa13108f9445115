/** The bars of the chart: one per column on the axis, candles and prices where there are any. Follows the newest column. */

import { Bars, barTime, futureOf, whitespace } from "./candles.js";

/** @typedef {import("./types.js").Bar} Bar */
/** @typedef {import("./axes.js").LineApi} LineApi */
/** @typedef {import("../vendor/lightweight-charts.js").ISeriesApi<"Candlestick">} CandleApi */

export class Timeline {
  /** @param {{axis: LineApi, line: LineApi, candles: CandleApi}} series `axis` has no values, only times */
  constructor(series) {
    this.series = series;
    this.dtMs = 60_000;
    this.cols = 0;
    /** Columns of the first bar, of the newest one that is not in the future, and of the last one. */
    this.first = 0;
    this.newest = 0;
    this.last = 0;
    this.bars = new Bars(this.dtMs);
    /** Price of each column that has one. @type {Map<number, number>} */
    this.prices = new Map();
  }

  /**
   * Everything anew.
   *
   * @param {number} first
   * @param {number} cols
   * @param {number} dtMs
   * @param {import("../types/contract.js").Candles|null} candles
   * @param {Float64Array} src price per column from `first` on, NaN missing
   */
  load(first, cols, dtMs, candles, src) {
    [this.dtMs, this.cols, this.first, this.newest] = [dtMs, cols, first, first + cols - 1];
    this.bars = new Bars(dtMs);
    if (candles) this.bars.addAll(candles);
    this.prices = new Map([...src].flatMap((price, c) => (Number.isFinite(price) ? [[first + c, price]] : [])));
    this.#draw();
  }

  /** Nothing. */
  clear() {
    this.bars = new Bars(this.dtMs);
    this.prices.clear();
    for (const series of Object.values(this.series)) series.setData([]);
  }

  /** Forget what is older, where much is. Columns of bars change by that. @returns {boolean} whether anything was forgotten */
  trim() {
    if (this.newest - this.first < 2 * this.cols) return false;
    this.first = this.newest - this.cols + 1;
    this.#draw();
    return true;
  }

  /** Let the axis reach a column. @param {number} col */
  reach(col) {
    if (col <= this.newest) return;
    this.newest = col;
    const last = col + futureOf(this.cols);
    for (const bar of whitespace(this.last + 1, last, this.dtMs)) this.series.axis.update(bar);
    this.last = Math.max(this.last, last);
  }

  /** @param {number} col @param {number|null} price */
  putPrice(col, price) {
    if (col < this.first || price === null || !Number.isFinite(price)) return;
    this.reach(col);
    this.prices.set(col, price);
    if (!update(this.series.line, { time: barTime(col, this.dtMs), value: price })) this.#draw();
  }

  /** @param {number} tMs @param {Bar} bar */
  putBar(tMs, bar) {
    const col = this.bars.add(tMs, bar);
    if (col < this.first) return;
    this.reach(col);
    const now = this.bars.at(col);
    if (now && !update(this.series.candles, candleOf(col, this.dtMs, now))) this.#draw();
    if (!this.prices.has(col)) this.putPrice(col, bar.c);
  }

  /** Lowest, highest and newest price of columns; null where there is none. @param {number} from @param {number} to */
  range(from, to) {
    const range = this.bars.range(from, to);
    if (range) return range;
    const known = [...this.prices].filter(([col]) => col >= from && col <= to).sort(([one], [other]) => one - other);
    const prices = known.map(([, price]) => price);
    const close = prices.at(-1);
    return close === undefined ? null : { low: Math.min(...prices), high: Math.max(...prices), close };
  }

  #draw() {
    this.last = this.newest + futureOf(this.cols);
    this.bars.prune(this.first);
    for (const col of this.prices.keys()) if (col < this.first) this.prices.delete(col);
    for (const col of this.bars.columns()) if (!this.prices.has(col)) this.prices.set(col, this.bars.at(col)?.c ?? NaN);
    const prices = [...this.prices].filter(([col]) => col <= this.last).sort(([one], [other]) => one - other);
    const columns = this.bars.columns().filter((col) => col <= this.last);
    this.series.axis.setData(whitespace(this.first, this.last, this.dtMs));
    this.series.candles.setData(columns.map((col) => candleOf(col, this.dtMs, /** @type {Bar} */ (this.bars.at(col)))));
    this.series.line.setData(prices.map(([col, value]) => ({ time: barTime(col, this.dtMs), value })));
  }
}

/** @param {number} col @param {number} dtMs @param {Bar} bar */
function candleOf(col, dtMs, { o, h, l, c }) {
  return { time: barTime(col, dtMs), open: o, high: h, low: l, close: c };
}

/**
 * A bar at the end, or in the place of the one of its time.
 *
 * @template {{time: import("../vendor/lightweight-charts.js").UTCTimestamp}} Data
 * @param {{data(): readonly any[], update(bar: any, historical?: boolean): void}} series
 * @param {Data} bar
 * @returns {boolean} false: it belongs between others, where the library would put it in the place of the next one
 */
function update(series, bar) {
  const data = series.data();
  const before = bar.time < (data.at(-1)?.time ?? 0);
  if (before && !data.some(({ time }) => time === bar.time)) return false;
  series.update(bar, before);
  return true;
}
