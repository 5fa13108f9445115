/**
 * The chart: heat, candles, bubbles, profile and zones on one time and price axis. The only thing that other modules use of them.
 *
 * @typedef {import("./types.js").Snapshot} Snapshot
 * @typedef {import("./types.js").Column} Column
 * @typedef {import("./types.js").LayerName} LayerName
 * @typedef {import("./types.js").PaletteName} PaletteName
 * @typedef {import("./types.js").Scale} Scale
 * @typedef {import("./scene.js").Scene} Scene
 * @typedef {import("../types/contract.js").Candle} Candle
 * @typedef {import("../types/contract.js").Candles} Candles
 * @typedef {import("../types/contract.js").Liquidation} Liquidation
 * @typedef {import("../types/contract.js").Zone} Zone
 */

import { CandlestickSeries, createChart, LineSeries } from "../vendor/lightweight-charts.js";
import { Axes } from "./axes.js";
import { Bubbles, paintBubbles } from "./bubbles.js";
import { barTime, futureOf, pricesAround } from "./candles.js";
import { price as priceText } from "./format.js";
import { columnAt, rowAt } from "./grid.js";
import { paintHeat } from "./heatmap.js";
import { Layer } from "./layer.js";
import { cellsOfView, p99Of, readoutAt } from "./lookup.js";
import { buildLut, legendStops } from "./lut.js";
import { paintProfile } from "./profile.js";
import { primitive } from "./scene.js";
import { candleOptions, chartOptions, INKS } from "./theme.js";
import { Timeline } from "./timeline.js";
import { Viewport } from "./viewport.js";
import { paintZones } from "./zoneband.js";

const SILENT = { lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false };
const DIGITS = 6;
/** Room left of the first column in the default view, as a part of all. */
const LEFT = 0.004;
/** Of the range in the default view, where data has just begun; and what is shown before its beginning. */
const LEAST_SHOWN = 1 / 12;
const MARGIN = 0.08;

/**
 * Events: `readout` (detail: Readout, or null when the cursor leaves) and `view` (detail: View and `atNewest`).
 *
 * Nothing here throws on data of the shapes in `types.js`: what does not fit the axis (a column older than all that is kept) is left
 * out, and `putColumn` says so by false.
 */
export class Picture extends EventTarget {
  /** @type {PaletteName} */
  #palette = "viridis";
  /** @type {import("./types.js").Theme} */
  #theme;
  /** @type {{map: Scale, depth: Scale}} */
  #scale = {
    map: { loUsd: 2e4, hiUsd: 2e7, gamma: 1, log: true },
    depth: { loUsd: 2e4, hiUsd: 2e7, gamma: 1, log: true },
  };
  #symbol = "";
  #step = 1;
  /** @type {number|null} */
  #mark = null;
  /** @type {import("../vendor/lightweight-charts.js").IPriceLine|null} */
  #markLine = null;
  /** Where the cursor is. @type {{col: number, price: number}|null} */
  #cursor = null;
  #viewSeen = "";
  /** How the layers are drawn, as texts: what has not changed is not coloured again. */
  #looks = { map: "", depth: "" };
  #requestUpdate = () => {};

  /**
   * @param {HTMLElement} container the chart fills it and follows its size
   * @param {{theme?: import("./types.js").Theme, now?: () => number}} [options] `now`: epoch ms by the server's clock
   */
  constructor(container, { theme = "dark", now = Date.now } = {}) {
    super();
    this.container = container;
    this.now = now;
    this.#theme = theme;
    /** Since the start: drawings of heat images, repaints, cells coloured. */
    this.counters = { drawImageCalls: 0, repaints: 0, cellsTouched: 0 };
    this.chart = createChart(container, {
      ...chartOptions(INKS[theme]),
      width: container.clientWidth,
      height: container.clientHeight,
      hoveredSeriesOnTop: false,
      localization: { locale: "en-GB", priceFormatter: priceText },
    });
    this.chart.applyOptions({
      rightPriceScale: { scaleMargins: { top: 0, bottom: 0 } },
      timeScale: {
        timeVisible: true, secondsVisible: false, minBarSpacing: 0.05, allowShiftVisibleRangeOnWhitespaceReplacement: true,
      },
    }); // prettier-ignore
    const axis = this.chart.addSeries(LineSeries, { ...SILENT, autoscaleInfoProvider: () => null });
    const candles = this.chart.addSeries(CandlestickSeries, { ...SILENT, autoscaleInfoProvider: () => null });
    const line = this.chart.addSeries(LineSeries, { ...SILENT, lineWidth: 1, autoscaleInfoProvider: () => this.#autoscale() });
    this.series = { axis, candles, line };
    this.timeline = new Timeline(this.series);
    this.viewport = new Viewport(this.chart, line);
    this.bubbles = new Bubbles(this.timeline.dtMs, this.#step);
    /** @type {Scene["show"]} */
    const show = {
      map: "liq", depth: false, candles: true, realised: true, zones: true, profile: true, heat: true,
      opacity: { map: 1, depth: 1 },
    }; // prettier-ignore
    /** @type {Scene} */
    this.scene = {
      dtMs: 0,
      first: 0,
      newest: -1,
      layers: new Map(),
      show,
      luts: this.#luts(show),
      inks: INKS[theme],
      stale: false,
      bubbles: [],
      zones: [],
      counters: this.counters,
    };
    this.#attach();
    this.#restyle();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(container);
  }

  // --- data ---------------------------------------------------------------------------------------------------------------

  /**
   * Everything anew. The view stays where it is while symbol and range do; otherwise it is the default one.
   *
   * @param {Snapshot} snapshot
   * @param {Candles|null} candles
   */
  setSnapshot(snapshot, candles) {
    const { symbol, cols, dtMs } = snapshot;
    const same = symbol === this.#symbol && cols === this.timeline.cols && dtMs === this.timeline.dtMs;
    const before = same ? this.viewport.columns() : null;
    const followed = this.atNewest() ? this.scene.newest : null;
    const first = columnAt(snapshot.t0Ms, dtMs);
    this.viewport.target = null;
    if (symbol !== this.#symbol) this.setMark(null);
    [this.#symbol, this.#step] = [symbol, snapshot.step];
    this.#cursor = null;
    this.bubbles = new Bubbles(dtMs, snapshot.step > 0 ? snapshot.step : 1);
    this.timeline.load(first, cols, dtMs, candles, snapshot.src);
    Object.assign(this.scene, { dtMs, layers: new Map() });
    this.#mergeLayers(snapshot);
    this.bubbles.load(snapshot);
    this.#settle();
    this.#precision();
    if (!before) this.recenter();
    else {
      const shift = followed === null ? 0 : this.scene.newest - followed;
      this.viewport.showColumns(before[0] + shift, before[1] + shift);
    }
  }

  /** Nothing: what was there is of something else, and must not stand under its name. */
  clear() {
    this.#symbol = "";
    this.#cursor = null;
    this.viewport.target = null;
    this.setMark(null);
    this.bubbles = new Bubbles(this.timeline.dtMs, 1);
    this.timeline.clear();
    Object.assign(this.scene, { dtMs: 0, layers: new Map(), bubbles: [], zones: [] });
    this.#requestUpdate();
  }

  /**
   * The columns and points of an answer with `since_ms` into what is there.
   *
   * @param {Snapshot} snapshot
   * @returns {boolean} false: it is of another symbol or another dt, and nothing was done
   */
  mergeSnapshot(snapshot) {
    const { dtMs, t0Ms } = snapshot;
    if (snapshot.symbol !== this.#symbol || dtMs !== this.scene.dtMs) return false;
    const first = columnAt(t0Ms, dtMs);
    this.timeline.reach(first + snapshot.cols - 1);
    snapshot.src.forEach((price, c) => this.timeline.putPrice(first + c, price));
    this.#mergeLayers(snapshot);
    // an answer that was not asked for liquidations says nothing about them
    if (snapshot.seqs.realised !== null) this.bubbles.load(snapshot);
    this.#settle();
    return true;
  }

  /**
   * A column that was pushed. One of the book that is shorter than the columns shown is joined to them, the larger in each cell.
   *
   * @param {Column} column
   * @returns {boolean} false: it is older than everything that is kept, or there is no snapshot yet
   */
  putColumn(column) {
    const { dtMs } = this.scene;
    if (dtMs === 0 || column.rows === 0) return false;
    const how = { merge: column.dtMs < dtMs, provisional: column.flags.includes("provisional") };
    const col = columnAt(column.tMs, dtMs);
    if (!this.#layer(column.layer).put(column, how)) return false;
    this.timeline.reach(columnAt(column.tMs + column.dtMs - 1, dtMs));
    this.timeline.putPrice(col, column.src);
    this.#settle();
    return true;
  }

  /** @param {Candle} candle */
  putCandle(candle) {
    if (this.scene.dtMs === 0) return;
    this.timeline.putBar(candle.t, candle);
    this.#settle();
  }

  /** Those that no snapshot has had. @param {Liquidation[]} liquidations */
  putEvents(liquidations) {
    if (this.scene.dtMs === 0) return;
    this.bubbles.add(liquidations);
    this.#settle();
  }

  /** @param {Zone[]} zones */
  setZones(zones) {
    this.scene.zones = zones;
    this.#requestUpdate();
  }

  /** @param {number|null} price */
  setMark(price) {
    this.#mark = price;
    if (this.#markLine) this.series.line.removePriceLine(this.#markLine);
    this.#markLine = null;
    if (price === null) return;
    const color = this.scene.inks.mark;
    const axisLabelTextColor = this.scene.inks.back;
    this.#markLine = this.series.line.createPriceLine({ price, color, axisLabelTextColor, lineWidth: 1, lineStyle: 1, title: "mark" });
  }

  // --- look ---------------------------------------------------------------------------------------------------------------

  /** @param {Partial<import("./types.js").Layers>} layers */
  setLayers(layers) {
    const { show } = this.scene;
    const before = this.paletteOf("depth");
    Object.assign(show, layers, { opacity: { ...show.opacity, ...layers.opacity } });
    if (this.paletteOf("depth") !== before) this.#recolour();
    this.#restyle();
  }

  /** @param {{map?: Partial<Scale>, depth?: Partial<Scale>}} scale */
  setScale({ map, depth }) {
    this.#scale = { map: { ...this.#scale.map, ...map }, depth: { ...this.#scale.depth, ...depth } };
    this.#recolour();
  }

  /** @param {PaletteName} name */
  setPalette(name) {
    this.#palette = name;
    this.#recolour();
  }

  /**
   * How a layer is drawn now, for `buildLut` and `legendStops`: over a map the book has another palette and is clear where it is weak.
   *
   * @param {"map"|"depth"} which
   * @returns {Omit<import("./lut.js").Look, "side">}
   */
  lookOf(which, { map, depth } = this.scene.show) {
    const over = which === "depth" && map !== null && depth;
    const other = this.#palette === "mono" ? "viridis" : "mono";
    return { ...this.#scale[which], palette: over ? other : this.#palette, theme: this.#theme, over };
  }

  /** @param {"map"|"depth"} which @returns {PaletteName} */
  paletteOf(which) {
    return this.lookOf(which).palette;
  }

  /** @param {import("./types.js").Theme} theme */
  setTheme(theme) {
    this.#theme = theme;
    this.scene.inks = INKS[theme];
    this.#recolour();
    this.#restyle();
    this.setMark(this.#mark);
  }

  /** The prices shown are the default ones afterwards. @param {"linear"|"log"} mode of the price axis */
  setPriceScale(mode) {
    this.viewport.log = mode === "log";
    this.chart.priceScale("right").applyOptions({ mode: mode === "log" ? 1 : 0, autoScale: true });
  }

  /** @param {boolean} stale */
  setStale(stale) {
    this.scene.stale = stale;
    this.#restyle();
  }

  /** @param {boolean} reduced */
  setReducedMotion(reduced) {
    this.chart.applyOptions({ kineticScroll: { touch: !reduced, mouse: false } });
  }

  /** USD that 99 % of the visible cells which hold something do not exceed; null without any. @param {"map"|"depth"} which @returns {number|null} */
  p99(which) {
    const view = this.visible();
    return view && p99Of(this.scene, view, which);
  }

  // --- view ---------------------------------------------------------------------------------------------------------------

  /** The default view: all of the range that there is, at least `LEAST_SHOWN` of it, and what is projected; prices around the newest one. */
  recenter() {
    this.viewport.autoPrices();
    const { newest, cols, first } = this.timeline;
    const known = newest + 1 - Math.max(first, Math.min(...this.timeline.prices.keys(), newest));
    const shown = Math.min(cols, Math.max(known * (1 + MARGIN), cols * LEAST_SHOWN));
    // the first pixel of the pane is half a pixel right of where bars begin
    this.viewport.showColumns(newest + 1 - shown * (1 + LEFT), newest + 1 + futureOf(cols) * (cols > 0 ? shown / cols : 1));
  }

  /** The newest column, as near as now. */
  toNewest() {
    const shown = this.viewport.columns();
    if (!shown) return;
    const width = shown[1] - shown[0];
    const ahead = Math.min(futureOf(this.timeline.cols), width * 0.12);
    this.viewport.showColumns(this.scene.newest + 1 + ahead - width, this.scene.newest + 1 + ahead);
  }

  /** @returns {boolean} whether the newest column is visible */
  atNewest() {
    const shown = this.viewport.columns();
    return shown === null || shown[1] > this.scene.newest;
  }

  /** @param {number} bars to later times, negative to earlier */
  pan(bars) {
    this.viewport.pan(bars);
  }

  /** @param {number} rows upwards */
  panPrice(rows) {
    this.viewport.panPrice(rows * this.#step);
  }

  /** About the newest column where it is visible, else about the middle. @param {number} factor above 1 nearer */
  zoom(factor) {
    const shown = this.viewport.columns();
    if (!shown) return;
    this.viewport.zoom(factor, this.atNewest() ? Math.max(0, (this.scene.newest + 1 - shown[0]) / (shown[1] - shown[0])) : 0.5);
  }

  /** @param {number} factor above 1 nearer */
  zoomPrice(factor) {
    this.viewport.zoomPrice(factor);
  }

  /** Into the middle, with the cursor on it. @param {number} price */
  jumpToPrice(price) {
    this.viewport.centre(price);
    this.#point(Math.min(this.scene.newest, Math.floor(this.viewport.columns()?.[1] ?? 0) - 1), price);
  }

  /** Keyboard cursor, from where the cursor is, or from the mark at the newest column. @param {number} dCol @param {number} dRow */
  crosshairTo(dCol, dRow) {
    const { first, last } = this.timeline;
    if (this.scene.dtMs === 0) return;
    const from = this.#cursor ?? { col: this.scene.newest, price: this.#mark ?? this.timeline.prices.get(this.scene.newest) ?? this.#middle() };
    const col = Math.min(last, Math.max(first, from.col + dCol));
    const price = (rowAt(from.price, this.#step) + dRow) * this.#step;
    this.viewport.reveal(col, price);
    this.#point(col, price);
  }

  clearCrosshair() {
    this.chart.clearCrosshairPosition();
    this.#tell(null);
  }

  /** Take the size of the container, at once. */
  resize() {
    const { clientWidth, clientHeight } = this.container;
    if (clientWidth > 0 && clientHeight > 0) this.chart.resize(clientWidth, clientHeight, true);
  }

  destroy() {
    this.observer.disconnect();
    this.chart.remove();
  }

  /** @returns {import("./types.js").View|null} null before the first snapshot */
  visible() {
    const [columns, prices] = [this.viewport.columns(), this.viewport.prices()];
    const { dtMs } = this.scene;
    if (!columns || !prices || dtMs === 0) return null;
    return { fromMs: columns[0] * dtMs, toMs: columns[1] * dtMs, priceLow: prices[0], priceHigh: prices[1] };
  }

  /** @returns {import("./types.js").CellsOfView|null} null before the first snapshot */
  cells() {
    const view = this.visible();
    return view && cellsOfView(this.scene, this.timeline.bars, view);
  }

  /** @returns {HTMLCanvasElement} the chart as it is, without the cursor */
  canvas() {
    return this.chart.takeScreenshot(true);
  }

  // --- inside -------------------------------------------------------------------------------------------------------------

  #attach() {
    const axes = (/** @type {import("./axes.js").Scope} */ scope) => this.#axes(scope);
    const heat = primitive("bottom", axes, (context, placed) => {
      paintHeat(context, placed, this.scene);
      this.#tellView();
    });
    heat.attached = ({ requestUpdate }) => {
      this.#requestUpdate = requestUpdate;
    };
    const over = primitive("normal", axes, (context, placed) => {
      paintBubbles(context, placed, this.scene);
      paintProfile(context, placed, this.scene);
      paintZones(context, placed, this.scene);
    });
    this.series.line.attachPrimitive(heat);
    this.series.line.attachPrimitive(over);
    this.chart.subscribeCrosshairMove(({ point, logical }) => {
      const price = point && this.series.line.coordinateToPrice(point.y);
      if (price == null || logical === undefined || this.scene.dtMs === 0) this.#tell(null);
      else this.#tell({ col: this.timeline.first + logical, price });
    });
  }

  /** @param {import("./axes.js").Scope} scope */
  #axes(scope) {
    this.viewport.target = null;
    const placeable = this.scene.dtMs > 0 && this.series.line.priceToCoordinate(1) !== null;
    return placeable ? new Axes(this.chart, this.series.line, this.timeline.first, scope, this.viewport.log) : null;
  }

  /** @param {LayerName} name */
  #layer(name) {
    const found = this.scene.layers.get(name);
    if (found) return found;
    const fresh = new Layer(this.timeline.cols, this.scene.dtMs, this.counters);
    this.scene.layers.set(name, fresh);
    return fresh;
  }

  /** @param {Snapshot} snapshot */
  #mergeLayers(snapshot) {
    for (const [name, cells] of /** @type {[LayerName, import("./types.js").LayerCells][]} */ (Object.entries(snapshot.layers))) {
      this.#layer(name).merge(snapshot, cells);
    }
  }

  /** After data: one newest column everywhere, nothing older than the axis. */
  #settle() {
    const { viewport, timeline } = this;
    const shown = viewport.columns();
    // the library moves what it shows with the newest column, but not what it is yet to show
    const shift = viewport.target && viewport.target[1] > this.scene.newest ? timeline.newest - this.scene.newest : 0;
    if (shown && (timeline.trim() || shift > 0)) {
      viewport.first = timeline.first;
      viewport.showColumns(shown[0] + shift, shown[1] + shift);
    }
    const { first, newest, cols } = timeline;
    viewport.first = first;
    this.bubbles.prune(newest - cols + 1);
    Object.assign(this.scene, { first: Math.max(first, newest - cols + 1), newest, bubbles: this.bubbles.list() });
    this.#requestUpdate();
  }

  #precision() {
    const price = this.timeline.range(this.timeline.first, this.timeline.last)?.close;
    if (price === undefined || !(price > 0)) return;
    const precision = Math.min(DIGITS, Math.max(1, 5 - Math.ceil(Math.log10(price))));
    const priceFormat = { type: /** @type {const} */ ("price"), precision, minMove: 10 ** -precision };
    for (const series of Object.values(this.series)) series.applyOptions({ priceFormat });
  }

  /** @returns {import("../vendor/lightweight-charts.js").AutoscaleInfo|null} */
  #autoscale() {
    const columns = this.viewport.columns();
    const range = columns && this.timeline.range(Math.floor(columns[0]), Math.ceil(columns[1]));
    if (!range) return null;
    const { low, high } = pricesAround(range, this.#step);
    return { priceRange: { minValue: low, maxValue: high } };
  }

  #middle() {
    const [low, high] = this.viewport.prices() ?? [0, 0];
    return (low + high) / 2;
  }

  /** @param {number} col @param {number} price */
  #point(col, price) {
    if (this.scene.dtMs === 0 || this.series.line.priceToCoordinate(price) === null) return;
    this.chart.setCrosshairPosition(price, barTime(col, this.scene.dtMs), this.series.line);
    this.#tell({ col, price });
  }

  /** @param {{col: number, price: number}|null} cursor */
  #tell(cursor) {
    this.#cursor = cursor;
    const at = cursor && { ...cursor, mark: this.#mark, nowMs: this.now() };
    const detail = at && readoutAt(this.scene, this.timeline.bars, this.bubbles, at);
    this.dispatchEvent(new CustomEvent("readout", { detail }));
  }

  /** Listeners may change the picture, so they are called after the repaint. */
  #tellView() {
    const view = this.visible();
    const detail = view && { ...view, atNewest: this.atNewest() };
    const seen = JSON.stringify(detail);
    if (!detail || seen === this.#viewSeen) return;
    this.#viewSeen = seen;
    queueMicrotask(() => this.dispatchEvent(new CustomEvent("view", { detail })));
  }

  /** @param {Scene["show"]} show */
  #luts(show) {
    const both = (/** @type {"map"|"depth"} */ which) => {
      const look = this.lookOf(which, show);
      const key = JSON.stringify(look);
      if (this.#looks[which] === key) return this.scene.luts[which];
      this.#looks[which] = key;
      const ink = (/** @type {0|1} */ side) => legendStops({ ...look, side }, 5)[3]?.css ?? "";
      return { a: buildLut({ ...look, side: 0 }), b: buildLut({ ...look, side: 1 }), inkA: ink(0), inkB: ink(1) };
    };
    return { map: both("map"), depth: both("depth") };
  }

  #recolour() {
    this.scene.luts = this.#luts(this.scene.show);
    this.#requestUpdate();
  }

  #restyle() {
    const { inks, show, stale } = this.scene;
    this.chart.applyOptions(chartOptions(inks));
    this.series.candles.applyOptions({ visible: show.candles, ...candleOptions(inks, stale) });
    this.series.line.applyOptions({ color: inks.text, lineVisible: !show.candles });
    this.#requestUpdate();
  }
}
