/**
 * The chart: heat, candles, bubbles, profile and zones on one time and price axis. The only thing that other modules use of them.
 *
 * @typedef {import("./types.js").Snapshot} Snapshot
 * @typedef {import("./types.js").Column} Column
 * @typedef {import("./types.js").Layers} Layers
 * @typedef {import("./types.js").Scale} Scale
 * @typedef {import("./types.js").View} View
 * @typedef {import("../types/contract.js").Candle} Candle
 * @typedef {import("../types/contract.js").Candles} Candles
 * @typedef {import("../types/contract.js").Liquidation} Liquidation
 * @typedef {import("../types/contract.js").Zone} Zone
 */

/**
 * Events: `readout` (detail: Readout, or null when the cursor leaves) and `view` (detail: View and `atNewest`).
 *
 * Nothing here throws on data of the shapes in `types.js`: what does not fit the axis (another dt, a column older than the ring) is
 * left out, and `putColumn` says so by false.
 */
export class Picture extends EventTarget {
  /**
   * @param {HTMLElement} container the chart fills it and follows its size
   * @param {{theme?: import("./types.js").Theme, now?: () => number}} [options] `now`: epoch ms by the server's clock
   */
  constructor(container, options = {}) {
    super();
    this.container = container;
    this.options = options;
    /** Since the start: drawings of heat images, repaints, cells coloured. */
    this.counters = { drawImageCalls: 0, repaints: 0, cellsTouched: 0 };
  }

  /** @param {Snapshot} snapshot @param {Candles|null} candles */
  setSnapshot(snapshot, candles) { void snapshot; void candles; }
  /** The columns and points of an answer with `since_ms` (same dt) into what is there. @param {Snapshot} snapshot @returns {boolean} */
  mergeSnapshot(snapshot) { void snapshot; return true; }
  /** @param {Column} column @returns {boolean} */
  putColumn(column) { void column; return true; }
  /** @param {Candle} candle */
  putCandle(candle) { void candle; }
  /** @param {Liquidation[]} liquidations */
  putEvents(liquidations) { void liquidations; }
  /** @param {Zone[]} zones */
  setZones(zones) { void zones; }
  /** @param {number|null} price */
  setMark(price) { void price; }
  /** @param {Partial<Layers>} layers */
  setLayers(layers) { void layers; }
  /** @param {{map?: Partial<Scale>, depth?: Partial<Scale>}} scale */
  setScale(scale) { void scale; }
  /** @param {import("./types.js").PaletteName} name */
  setPalette(name) { void name; }
  /** Palette that a layer is drawn with now: the book has another one while a map is shown. @param {"map"|"depth"} which @returns {import("./types.js").PaletteName} */
  paletteOf(which) { void which; return "viridis"; }
  /** @param {import("./types.js").Theme} theme */
  setTheme(theme) { void theme; }
  /** @param {"linear"|"log"} mode of the price axis */
  setPriceScale(mode) { void mode; }
  /** @param {boolean} stale */
  setStale(stale) { void stale; }
  /** @param {boolean} reduced */
  setReducedMotion(reduced) { void reduced; }
  /** USD that 99 % of the visible cells which hold something do not exceed; null without any. @param {"map"|"depth"} which @returns {number|null} */
  p99(which) { void which; return null; }
  /** The default view: newest column, all of the range, price axis by itself. */
  recenter() {}
  toNewest() {}
  /** @returns {boolean} */
  atNewest() { return true; }
  /** @param {number} bars to later times, negative to earlier */
  pan(bars) { void bars; }
  /** @param {number} rows upwards */
  panPrice(rows) { void rows; }
  /** @param {number} factor above 1 nearer */
  zoom(factor) { void factor; }
  /** @param {number} factor above 1 nearer */
  zoomPrice(factor) { void factor; }
  /** @param {number} price in the middle afterwards, marked for a moment */
  jumpToPrice(price) { void price; }
  /** Keyboard cursor. @param {number} dCol @param {number} dRow */
  crosshairTo(dCol, dRow) { void dCol; void dRow; }
  clearCrosshair() {}
  resize() {}
  destroy() {}
  /** @returns {View|null} null before the first snapshot */
  visible() { return null; }
  /** @returns {import("./types.js").CellsOfView|null} null before the first snapshot */
  cells() { return null; }
  /** @returns {HTMLCanvasElement} the chart as it is, without the cursor */
  canvas() { return document.createElement("canvas"); }
}
