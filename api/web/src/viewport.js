/** What part of time and price the chart shows, and moving it. Columns and prices instead of the library's logical indices. */

/** @typedef {import("../vendor/lightweight-charts.js").IChartApi} Chart */
/** @typedef {import("./axes.js").LineApi} LineApi */

const LEAST_BARS = 5;
/** The library takes ranges of its logarithmic scale in the units of that scale. */
const LOG_SHIFT = 1e-4;
const LOG_RAISED = 4;

export class Viewport {
  /** @param {Chart} chart @param {LineApi} series whose prices they are */
  constructor(chart, series) {
    this.chart = chart;
    this.series = series;
    /** Column of the first bar. */
    this.first = 0;
    this.log = false;
    /** Columns that the next paint will show; the library still tells the old ones. @type {[number, number]|null} */
    this.target = null;
  }

  /** Columns at both edges, with their fractions; bar n reaches from n to n + 1. @returns {[number, number]|null} */
  columns() {
    if (this.target) return this.target;
    const range = this.chart.timeScale().getVisibleLogicalRange();
    return range && [range.from + 0.5 + this.first, range.to + 0.5 + this.first];
  }

  /** @param {number} from @param {number} to */
  showColumns(from, to) {
    if (to - from < LEAST_BARS) return;
    this.target = [from, to];
    this.chart.timeScale().setVisibleLogicalRange({ from: from - 0.5 - this.first, to: to - 0.5 - this.first });
  }

  /** Prices at both edges. @returns {[number, number]|null} */
  prices() {
    const { height } = this.chart.paneSize();
    const [low, high] = [height - 1, 0].map((y) => this.series.coordinateToPrice(y));
    return low == null || high == null || height === 0 ? null : [Number(low), Number(high)];
  }

  /** From now on these prices, whatever is visible. @param {number} from @param {number} to */
  showPrices(from, to) {
    const scaled = (/** @type {number} */ price) => (this.log ? Math.log10(price + LOG_SHIFT) + LOG_RAISED : price);
    if (to > from && to > 0) this.chart.priceScale("right").setVisibleRange({ from: scaled(from), to: scaled(to) });
  }

  /** From now on the prices that suit what is visible. */
  autoPrices() {
    this.chart.priceScale("right").setAutoScale(true);
  }

  /** @param {number} bars */
  pan(bars) {
    const shown = this.columns();
    if (shown) this.showColumns(shown[0] + bars, shown[1] + bars);
  }

  /** @param {number} usd */
  panPrice(usd) {
    const shown = this.prices();
    if (shown) this.showPrices(shown[0] + usd, shown[1] + usd);
  }

  /** @param {number} factor above 1 nearer @param {number} share 0 the left edge stays, 1 the right one */
  zoom(factor, share) {
    const shown = this.columns();
    if (!shown) return;
    const [from, to] = shown;
    const fixed = from + (to - from) * share;
    this.showColumns(fixed - (fixed - from) / factor, fixed + (to - fixed) / factor);
  }

  /** @param {number} factor above 1 nearer */
  zoomPrice(factor) {
    const shown = this.prices();
    if (!shown) return;
    const [middle, half] = [(shown[0] + shown[1]) / 2, (shown[1] - shown[0]) / 2 / factor];
    this.showPrices(Math.max(0, middle - half), middle + half);
  }

  /** Into the middle, as much of the axis as now. @param {number} price */
  centre(price) {
    const shown = this.prices();
    if (shown) this.panPrice(price - (shown[0] + shown[1]) / 2);
  }

  /** Scroll just as far as is needed to see a column and a price. @param {number} col @param {number} price */
  reveal(col, price) {
    const [columns, prices] = [this.columns(), this.prices()];
    if (columns && col < columns[0]) this.pan(col - columns[0]);
    if (columns && col + 1 > columns[1]) this.pan(col + 1 - columns[1]);
    if (prices && price < prices[0]) this.panPrice(price - prices[0]);
    if (prices && price > prices[1]) this.panPrice(price - prices[1]);
  }
}
