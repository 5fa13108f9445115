/** Where columns and prices lie in the pixels of one repaint, and back. Pixels are those of the device, counted from their edges. */

/** @typedef {import("../vendor/lightweight-charts.js").IChartApi} Chart */
/** @typedef {import("../vendor/lightweight-charts.js").ISeriesApi<"Line">} LineApi */
/** @typedef {{context: CanvasRenderingContext2D, bitmapSize: {width: number, height: number}, horizontalPixelRatio: number, verticalPixelRatio: number}} Scope */

/** The library's coordinates name pixels; their middle is half a pixel further. */
const HALF = 0.5;

export class Axes {
  /**
   * @param {Chart} chart
   * @param {LineApi} series whose price scale it is
   * @param {number} first column of the first bar
   * @param {Scope} scope
   * @param {boolean} log
   */
  constructor(chart, series, first, scope, log) {
    const time = chart.timeScale();
    const at = (/** @type {number} */ n) => time.logicalToCoordinate(/** @type {any} */ (n)) ?? 0;
    this.series = series;
    this.scope = scope;
    this.log = log;
    this.width = scope.bitmapSize.width;
    this.height = scope.bitmapSize.height;
    /** Pixels per column. */
    this.bar = (at(1) - at(0)) * scope.horizontalPixelRatio;
    this.origin = (at(0) + HALF) * scope.horizontalPixelRatio - this.bar * (first + HALF);
  }

  /** Left edge of a column. @param {number} col */
  left(col) {
    return this.origin + this.bar * col;
  }

  /** Column, with its fraction, at a pixel. @param {number} x */
  columnAt(x) {
    return (x - this.origin) / this.bar;
  }

  /** @param {number} price */
  y(price) {
    return ((this.series.priceToCoordinate(price) ?? 0) + HALF) * this.scope.verticalPixelRatio;
  }

  /** Price at a pixel. @param {number} y */
  price(y) {
    return Number(this.series.coordinateToPrice(y / this.scope.verticalPixelRatio - HALF) ?? NaN);
  }
}
