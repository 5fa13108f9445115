/**
 * One symbol and range on screen: picture, push, gaps, pause, states.
 *
 * It follows the store: a change of `symbol`, `range`, `map`, `venues`, `tiers` or `minUsd` is a change of what is loaded or shown, so
 * `store.set({range: "4h"})` is all that a control does. It writes `badge reason alsoStale staleCodes buffered paused ages venuesHealth
 * gap provenance zonesRows events mark transport status`, and of the picture it calls `clear setSnapshot mergeSnapshot putColumn
 * putCandle putEvents setZones setMark setStale`; everything else of the picture (layers, scales, palette, theme) belongs to the caller.
 *
 * The picture begins with one answer of `/heatmap` and goes on with pushes. Each layer knows the number of its newest column that is
 * drawn, so a column is drawn once, and what is missing between the answer and the pushes is a gap like any other: it is fetched with
 * `since_ms`, while later columns of the layer wait. Whatever is asked for carries the generation of its symbol and range; the answer to
 * a former one is cancelled, and thrown away if it comes all the same.
 *
 * Events: `unauthorized` (ask for a key, then `api.setKey`; the session goes on by itself), `snapshot` (detail: the Snapshot that
 * `setSnapshot` was given), `restart` (the engine).
 *
 * @typedef {import("./store.js").State} State
 * @typedef {import("./types.js").Column} Column
 * @typedef {import("./types.js").Snapshot} Snapshot
 * @typedef {import("./types.js").MapName} MapName
 * @typedef {import("../types/contract").Liquidation} Liquidation
 * @typedef {import("../types/contract").Candle} Candle
 * @typedef {import("../types/contract").Health} Health
 *
 * @typedef {object} Grid The picture on screen. `venues`: of realised liquidations, as text.
 * @property {string} symbol
 * @property {import("./store.js").Range} range
 * @property {MapName} map
 * @property {string} venues
 * @property {number} dtMs
 * @property {number} k
 * @property {number} cols
 *
 * @typedef {object} Lane A layer of the picture, as it is known, be it drawn or kept while paused.
 * @property {"liq"|"depth"} kind of the channel
 * @property {MapName|"depth"} layer of the heatmap
 * @property {number|null} epoch null: not known
 * @property {number|null} seq newest number that the picture has; null before any
 * @property {number|null} tMs start of the picture's column that holds it
 * @property {number|null} agedMs when what it says ended (map) or began (book)
 * @property {boolean} stale as the server says
 * @property {Column[]} waiting columns behind what is being fetched
 * @property {number|null} goal number up to which columns are being fetched
 * @property {boolean} holed whether that is a gap, and no layer that is never pushed
 */

import { ApiError } from "./api.js";
import { adjust, now } from "./clock.js";
import { candlesOf, newestMs } from "./heal.js";
import { judge } from "./state.js";
import { EVENTS_KEPT, RANGE_GRID } from "./store.js";
import { applied, shownZones, tableOf } from "./zone_rows.js";

const TICK_MS = 1000;
const HEALTH_MS = 60_000;
const MINUTE_MS = 60_000;
/** Changes that follow each other faster become one request. */
const SETTLE_MS = 250;
/** Until a picture that does not go with the pushes, or makes no sense, is asked for again. */
const AGAIN_MS = 2000;
const WARMUP_S = 5;
const EARLY_KEPT = 1000;
const PAGE = 1000;
const ZONE_TRIES = 3;
/** @type {import("./store.js").VenueRow} */
const NO_ROW = { state: "DOWN", ageS: null, lagMs: null, reconnects: null, liquidations: null, depth: null, oi: null };
const NAMES = { liq: "liquidation map", depth: "order book" };

export class Session extends EventTarget {
  #api;
  #feed;
  #picture;
  #store;
  #decoder;
  #opened = false;
  #over = false;
  /** Of everything that is asked for, of the picture's requests alone, and the time of the last. */
  #generation = 0;
  #abort = new AbortController();
  /** Of requests that outlive a picture. */
  #life = new AbortController();
  #loadedMs = 0;
  #loading = false;
  /** @type {Grid | null} */
  #grid = null;
  /** @type {Record<"liq"|"depth", Lane>} */
  #lanes = { liq: laneOf("liq", "liq"), depth: laneOf("depth", "depth") };
  /** Newest liquidation that the picture has, or its answer; that of the answer; that which was pushed; end of the answer. */
  #realised = -1;
  /** Newest columns that were pushed: they know how old the last column of an answer is, which may be several joined into one. */
  #newest = /** @type {Record<"liq"|"depth", Column|null>} */ ({ liq: null, depth: null });
  #counted = -1;
  #pushed = -1;
  #endMs = 0;
  #candleMs = 0;
  #filling = false;
  /** What came while the picture was being loaded. @type {(() => void)[]} */
  #early = [];
  /** What waits while paused. @type {(() => void)[]} */
  #kept = [];
  /** @type {number|null} */
  #keptFromMs = null;
  #buffered = 0;
  #overflow = false;
  /** What is said of liquidations that are being fetched; those behind them. @type {string|null} */
  #eventHole = null;
  /** @type {Liquidation[][]} */
  #eventsWaiting = [];
  /** @type {import("./zone_rows.js").ZoneTable|null} */
  #zones = null;
  #zoneMismatches = 0;
  #unauthorized = false;
  /** @type {string|null} */
  #fault = null;
  /** @type {string|null} */
  #failed = null;
  /** @type {{retryInS: number}|null} */
  #warmup = null;
  #restarted = false;
  #dimmed = false;
  #healthMs = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #later;
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #ticker;
  /** @type {(() => void)[]} */
  #ends = [];

  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {import("./feed.js").Feed} parts.feed the session closes it
   * @param {import("./picture.js").Picture} parts.picture
   * @param {import("./store.js").Store} parts.store `symbol` must be set before `open`
   * @param {{heatmap(buffer: ArrayBuffer): Promise<Snapshot>}} parts.decoder
   */
  constructor({ api, feed, picture, store, decoder }) {
    super();
    this.#api = api;
    this.#feed = feed;
    this.#picture = picture;
    this.#store = store;
    this.#decoder = decoder;
  }

  /** Load and follow. Returns at once. */
  open() {
    if (this.#opened || this.#over) return;
    this.#opened = true;
    const { symbol } = this.#store.get();
    if (symbol === null) throw new Error("a session needs a symbol");
    this.#listen();
    this.#load();
    this.refreshHealth();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
  }

  /** @param {string} symbol the same as `store.set({symbol})` */
  setSymbol(symbol) {
    this.#store.set({ symbol });
  }

  /** @param {import("./store.js").Range} range the same as `store.set({range})` */
  setRange(range) {
    this.#store.set({ range });
  }

  /** Freeze the view; what comes is kept and counted. The same as `store.set({paused: true})`. */
  pause() {
    this.#store.set({ paused: true });
  }

  /** Draw what has been kept, or load a new picture if that was too much. The same as `store.set({paused: false})`. */
  resume() {
    this.#store.set({ paused: false });
  }

  /** Load the picture anew. */
  reload() {
    if (this.#opened && !this.#over) this.#load();
  }

  /** Ask `/health` again, e.g. when its panel opens. It is asked for every minute anyway. */
  refreshHealth() {
    this.#healthMs = Date.now();
    const { signal } = this.#life;
    const sentMs = Date.now();
    this.#api.json("health", {}, { signal }).then((body) => !this.#over && this.#health(body, Date.now() - sentMs), () => {});
  }

  /** End everything: no request, timer, connection or listener is left. */
  close() {
    this.#over = true;
    this.#generation += 1;
    this.#abort.abort();
    this.#life.abort();
    clearTimeout(this.#later);
    clearInterval(this.#ticker);
    for (const end of this.#ends) end();
    this.#feed.close();
    this.#kept = [];
    this.#early = [];
  }

  #listen() {
    /** @type {(target: EventTarget, type: string, work: (detail: any) => void) => void} */
    const on = (target, type, work) => {
      const listener = (/** @type {Event} */ event) => work(/** @type {CustomEvent} */ (event).detail);
      target.addEventListener(type, listener);
      this.#ends.push(() => target.removeEventListener(type, listener));
    };
    /** Of the symbol on screen only. @param {(detail: any) => void} work */
    const own = (work) => (/** @type {any} */ detail) => {
      if (detail.symbol === this.#store.get().symbol) work(detail);
    };
    on(this.#feed, "column", own(({ kind, column }) => {
      this.#newest[/** @type {"liq"|"depth"} */ (kind)] = column;
      this.#soon(() => this.#column(kind, column));
    })); // prettier-ignore
    on(this.#feed, "events", own((detail) => this.#events(detail.items)));
    on(this.#feed, "candle", own((detail) => this.#soon(() => this.#candle(detail.data))));
    on(this.#feed, "zones", own((detail) => this.#zonesCame(detail)));
    on(this.#feed, "gap", own((detail) => this.#soon(() => this.#gap(detail))));
    on(this.#feed, "reset", own((detail) => this.#reset(detail.kind)));
    on(this.#feed, "status", (detail) => this.#statusCame(detail.data));
    on(this.#feed, "beat", (detail) => this.#beat(detail));
    on(this.#feed, "transport", (detail) => this.#transport(detail));
    on(this.#feed, "fault", (detail) => this.#setFault(detail.message));
    on(this.#api, "unauthorized", () => {
      const known = this.#unauthorized;
      this.#unauthorized = true;
      this.#judge();
      if (!known) this.dispatchEvent(new Event("unauthorized"));
    });
    on(this.#api, "key", () => {
      this.#unauthorized = false;
      this.#load();
      this.refreshHealth();
    });
    this.#ends.push(this.#store.subscribe(["symbol", "range", "map", "venues"], (state, changed) => this.#wants(state, changed)));
    this.#ends.push(this.#store.subscribe(["tiers", "minUsd"], () => this.#showZones()));
    this.#ends.push(this.#store.subscribe(["heat", "depth", "map"], () => this.#judge()));
    this.#ends.push(this.#store.subscribe(["paused"], ({ paused }) => (paused ? this.#judge() : this.#resume())));
  }

  // Loading

  /** @param {Readonly<State>} state @param {ReadonlySet<keyof State>} changed */
  #wants(state, changed) {
    if (changed.has("symbol")) {
      this.#zones = null;
      this.#newest = { liq: null, depth: null };
      this.#store.set({ zonesRows: [], events: [], mark: null, provenance: null, gap: null });
      this.#picture.clear();
    }
    const one = this.#grid;
    const same = one !== null && one.symbol === state.symbol && one.range === state.range && one.venues === String(state.venues);
    if (same && !this.#loading && (state.map === null || state.map === one.map)) return;
    this.#load();
  }

  /** Load now, or a moment after the last time. What was asked for before is void at once. */
  #load() {
    const { symbol, range } = this.#store.get();
    if (this.#over || symbol === null) return;
    const generation = (this.#generation += 1);
    this.#abort.abort();
    this.#abort = new AbortController();
    clearTimeout(this.#later);
    this.#later = undefined;
    this.#loading = true;
    this.#early = [];
    this.#dropKept();
    if (this.#grid !== null && (this.#grid.symbol !== symbol || this.#grid.range !== range)) this.#grid = null;
    this.#eventHole = null;
    this.#eventsWaiting = [];
    this.#filling = false;
    this.#feed.subscribe(["depth", "liq", "liquidations", "zones", "candles"].map((kind) => `${kind}.${symbol}`).concat("status"));
    const waitMs = this.#loadedMs + SETTLE_MS - Date.now();
    if (waitMs > 0) this.#later = setTimeout(() => this.#begin(generation), waitMs);
    else this.#begin(generation);
    this.#judge();
  }

  /** @param {number} generation */
  #begin(generation) {
    this.#loadedMs = Date.now();
    this.#fetch(generation).catch((error) => this.#failedWith(error, generation, AGAIN_MS * 5));
  }

  /**
   * Nothing more comes of what was asked for: say so, and load again in a while, which may bring another answer.
   *
   * @param {unknown} error @param {number} generation that it was asked for @param {number} waitMs
   */
  #failedWith(error, generation, waitMs) {
    if (generation !== this.#generation) return;
    if (error instanceof ApiError) this.#failed = sentence(error.detail);
    else this.#fault = String(/** @type {Error} */ (error).message);
    // Where a key is missing, the next one begins.
    if (!this.#unauthorized) this.#loadLater(waitMs);
    this.#judge();
  }

  /** @param {number} waitMs */
  #loadLater(waitMs) {
    if (this.#later !== undefined) return;
    this.#later = setTimeout(() => {
      this.#later = undefined;
      // What is frozen stays; a picture that is on its way comes.
      if (this.#store.get().paused && this.#grid !== null && !this.#loading) this.#tooMuch();
      else this.#load();
    }, waitMs);
  }

  /** @param {number} generation */
  async #fetch(generation) {
    const { symbol, range, map, venues } = this.#store.get();
    const { minutes, dtS } = RANGE_GRID[range];
    const { signal } = this.#abort;
    const layer = map ?? "liq";
    const params = { symbol, minutes, dt_s: dtS, layers: [layer, "depth", "realised"], max_cols: 1440, format: "bin", venues };
    const heatmap = this.#heatmap(params);
    const bars = this.#api.json("candles", { symbol, limit: Math.min(1500, minutes + 2) }, { signal }).catch((error) => {
      if (error instanceof ApiError && error.passing) return null; // the picture does not wait for them
      throw error;
    });
    const [snapshot, candles] = await Promise.all([heatmap, bars]);
    if (generation !== this.#generation) return;
    if (!newestMs(snapshot, layer) && !newestMs(snapshot, "depth")) {
      this.#warmup = { retryInS: WARMUP_S };
      this.#loadLater(WARMUP_S * 1000);
      this.#judge();
      return;
    }
    this.#show(snapshot, candles, layer);
  }

  /** @param {ApiError} error @param {number} waitMs */
  #onWait = (error, waitMs) => {
    const warmup = error.status === 503 && error.code !== "overloaded";
    this.#warmup = warmup ? { retryInS: waitMs / 1000 } : null;
    this.#failed = warmup ? null : sentence(error.detail);
    this.#judge();
  };

  /**
   * An answer, however long it takes; the badge says what is waited for.
   *
   * @param {string} path @param {import("./api.js").Params} params @param {(error: ApiError, waitMs: number) => void} [onWait]
   * @returns {Promise<Response>}
   */
  async #ask(path, params, onWait = this.#onWait) {
    const { signal } = this.#abort;
    const answer = await this.#api.patiently(() => this.#api.get(path, params, { signal }), { signal, onWait });
    if (answer === null) throw new Error("the server answers 304 to nothing");
    return answer.response;
  }

  /** @param {import("./api.js").Params} params */
  async #heatmap(params) {
    return this.#decoder.heatmap(await (await this.#ask("heatmap", params)).arrayBuffer());
  }

  /** @param {Snapshot} snapshot @param {import("../types/contract").Candles|null} candles @param {MapName} map */
  #show(snapshot, candles, map) {
    const { symbol, range, venues } = this.#store.get();
    if (snapshot.symbol !== symbol) throw new Error("the answer is of another symbol");
    const { dtMs, k, cols } = snapshot;
    this.#grid = { symbol: snapshot.symbol, range, map, venues: String(venues), dtMs, k, cols };
    this.#lanes = {
      liq: joined(laneOf("liq", map), snapshot, snapshot.seqs.liq, snapshot.epoch),
      depth: joined(laneOf("depth", "depth"), snapshot, snapshot.seqs.depth, null),
    };
    for (const lane of Object.values(this.#lanes)) {
      const column = this.#newest[lane.kind];
      if (column !== null && column.seq === lane.seq) this.#aged(lane, column);
    }
    this.#counted = this.#realised = snapshot.seqs.realised ?? -1;
    this.#pushed = -1;
    this.#endMs = snapshot.t0Ms + snapshot.cols * dtMs;
    this.#candleMs = candles?.t.at(-1) ?? 0;
    this.#loading = this.#restarted = this.#unauthorized = false;
    this.#warmup = this.#fault = this.#failed = null;
    // Which liquidations go on it is decided here: the answer names its newest, though those after its last column are not in it.
    this.#picture.setSnapshot({ ...snapshot, seqs: { ...snapshot.seqs, realised: null } }, candles);
    const { data_since_ms: dataSinceMs = null, book_synced_since_ms: bookSinceMs = null } = snapshot.provenance.coverage ?? {};
    const { status, mark, gap } = this.#store.get();
    const src = [...snapshot.src].filter((one) => !Number.isNaN(one)).at(-1);
    this.#store.set({
      provenance: snapshot.provenance,
      status: { ...status, dataSinceMs, bookSinceMs },
      gap: gap?.kind === "restart" ? gap : null,
    });
    this.#setMark(src ?? candles?.c.at(-1) ?? mark);
    this.#venueRows(snapshot.provenance.coverage?.venues ?? {}, ({ liquidations, depth, oi }) => ({ liquidations, depth, oi }));
    this.#showZones();
    this.dispatchEvent(new CustomEvent("snapshot", { detail: snapshot }));
    const early = this.#early;
    this.#early = [];
    for (const work of early) work();
    if (candles === null) this.#fillCandles(0);
    this.#judge();
  }

  // What comes

  /** Now, or when the picture is there that it belongs to. @param {() => void} work */
  #soon(work) {
    if (!this.#loading) {
      work();
      return;
    }
    this.#early.push(work);
    if (this.#early.length > EARLY_KEPT) this.#early.shift();
  }

  /**
   * Draw it, or keep it while paused.
   *
   * @param {() => void} work
   * @param {number} columns @param {number|null} [tMs] of the newest one
   */
  #draw(work, columns = 0, tMs = null) {
    if (!this.#store.get().paused) {
      work();
      return;
    }
    if (this.#overflow) return;
    this.#kept.push(work);
    this.#buffered += columns;
    if (tMs !== null && this.#grid !== null) {
      this.#keptFromMs ??= tMs;
      if (tMs - this.#keptFromMs >= this.#grid.cols * this.#grid.dtMs) this.#tooMuch();
    }
  }

  /** What waits is more than fits, or void: going on takes a new picture. */
  #tooMuch() {
    this.#overflow = true;
    this.#kept = [];
  }

  #dropKept() {
    this.#kept = [];
    this.#keptFromMs = null;
    this.#buffered = 0;
    this.#overflow = false;
  }

  #resume() {
    const kept = this.#kept;
    const overflow = this.#overflow;
    this.#dropKept();
    if (overflow) {
      this.#load();
      return;
    }
    for (const work of kept) work();
    this.#showZones();
    this.#judge();
  }

  /** @param {"liq"|"depth"} kind @param {Column} column */
  #column(kind, column) {
    if (this.#overflow) return; // going on loads everything anew
    const lane = this.#lanes[kind];
    if (column.flags.includes("provisional")) {
      if (lane.layer === column.layer) this.#draw(() => this.#picture.putColumn(column));
      return;
    }
    if (lane.goal !== null) {
      lane.waiting.push(column);
      return;
    }
    if (lane.epoch !== null && column.epoch !== lane.epoch) {
      if (column.epoch > lane.epoch) this.#loadLater(AGAIN_MS); // the answer was from before
      return;
    }
    if (lane.seq !== null && column.seq <= lane.seq) {
      if (column.seq === lane.seq) this.#aged(lane, column);
      else if (lane.agedMs !== null && agedOf(kind, column) > lane.agedMs) this.#loadLater(AGAIN_MS); // numbers began anew
      return;
    }
    if (lane.seq !== null && column.seq > lane.seq + 1) {
      lane.waiting.push(column);
      this.#heal(lane, column.seq - 1, true);
      return;
    }
    this.#aged(lane, column);
    lane.epoch = column.epoch;
    if (lane.layer !== column.layer) {
      this.#heal(lane, column.seq, false); // tape and projection are not pushed by themselves
      return;
    }
    lane.seq = column.seq;
    lane.tMs = column.tMs;
    this.#fault = null;
    this.#draw(() => this.#put(column), 1, column.tMs);
    this.#judge();
  }

  /** @param {Column} column */
  #put(column) {
    this.#picture.putColumn(column);
    this.#setMark(column.src ?? this.#store.get().mark);
    const { gap } = this.#store.get();
    if (gap?.kind === "restart" && !column.flags.includes("restart")) this.#store.set({ gap: null });
  }

  /** @param {Lane} lane @param {Column} column its newest */
  #aged(lane, column) {
    lane.agedMs = agedOf(lane.kind, column);
    lane.stale = column.stale;
  }

  /** @param {number|null} mark */
  #setMark(mark) {
    if (this.#store.get().paused) return;
    this.#store.set({ mark });
    this.#picture.setMark(mark);
  }

  // Gaps

  /** Numbers that will not come; of liquidations the next ones tell. @param {{kind: string, to: number}} gap */
  #gap({ kind, to }) {
    if (kind !== "liq" && kind !== "depth") return;
    const lane = this.#lanes[kind];
    if (lane.seq !== null && to > lane.seq && (lane.goal === null || to > lane.goal)) this.#heal(lane, to, true);
  }

  /**
   * Fetch the columns of a layer behind its newest one, up to number `to` at least.
   *
   * @param {Lane} lane @param {number} to @param {boolean} holed
   */
  async #heal(lane, to, holed) {
    const running = lane.goal !== null;
    lane.goal = Math.max(to, lane.goal ?? 0);
    lane.holed ||= holed;
    if (running) return;
    const generation = this.#generation;
    if (holed) this.#banner("healing", lane.kind, this.#holeOf(lane));
    this.#judge();
    try {
      while (lane.goal !== null && (lane.seq === null || lane.seq < lane.goal)) {
        const goal = lane.goal;
        const before = lane.tMs;
        const snapshot = await this.#since(lane);
        if (generation !== this.#generation) return;
        if (!this.#merge(lane, snapshot)) return;
        // The server has been asked for everything up to it: what did not come is lost.
        lane.seq = Math.max(goal, lane.seq ?? 0);
        this.#settle(lane, snapshot, before);
      }
    } catch (error) {
      this.#failedWith(error, generation, AGAIN_MS);
      return;
    }
    lane.goal = null;
    lane.holed = false;
    const waiting = lane.waiting;
    lane.waiting = [];
    for (const column of waiting) this.#column(lane.kind, column);
    this.#judge();
  }

  /** @param {Lane} lane @returns {Promise<Snapshot>} */
  #since(lane) {
    const { symbol, range, dtMs, k } = /** @type {Grid} */ (this.#grid);
    const params = {
      symbol, minutes: RANGE_GRID[range].minutes, dt_s: dtMs / 1000, k,
      since_ms: lane.tMs, layers: lane.layer, max_cols: 1440, max_rows: 2000, format: "bin",
    };
    return this.#heatmap(params);
  }

  /** @param {Lane} lane @param {Snapshot} snapshot @returns {boolean} whether it goes on the picture */
  #merge(lane, snapshot) {
    this.#warmup = this.#failed = null;
    const tMs = newestMs(snapshot, lane.layer);
    if (tMs === null || (lane.epoch !== null && snapshot.epoch !== lane.epoch)) {
      this.#loadLater(AGAIN_MS);
      return false;
    }
    const columns = Math.max(0, (snapshot.seqs[lane.kind] ?? 0) - (lane.seq ?? 0));
    this.#draw(
      () => {
        if (this.#picture.mergeSnapshot(snapshot) === false) this.#loadLater(0);
      },
      columns, tMs,
    );
    lane.seq = snapshot.seqs[lane.kind];
    lane.tMs = tMs;
    const endMs = lane.kind === "liq" ? tMs + snapshot.dtMs : tMs;
    lane.agedMs = Math.max(endMs, lane.agedMs ?? 0);
    return true;
  }

  /** Whether columns are still missing between those that are there now. @param {Lane} lane @param {Snapshot} snapshot @param {number|null} fromMs */
  #settle(lane, snapshot, fromMs) {
    const { gap } = this.#store.get();
    const seq = snapshot.layers[lane.layer]?.seq ?? new Float64Array(0);
    const lost = seq.reduce((sum, one, index) => {
      const tMs = snapshot.t0Ms + index * snapshot.dtMs;
      return sum + Number(one < 0 && tMs > (fromMs ?? 0) && tMs < (lane.tMs ?? 0));
    }, 0);
    if (lost > 0) this.#banner("lost", lane.kind, `${counted(lost, "column")} of the ${NAMES[lane.kind]} could not be had and stay empty`);
    else if (gap?.kind === "healing" && gap.channel === lane.kind) this.#store.set({ gap: null });
  }

  /** @param {Lane} lane */
  #holeOf(lane) {
    const missing = (lane.goal ?? 0) - (lane.seq ?? -1);
    return `${counted(missing, "column")} of the ${NAMES[lane.kind]} ${missing === 1 ? "is" : "are"} missing`;
  }

  /** @param {"healing"|"lost"|"restart"} kind @param {string} channel @param {string} text */
  #banner(kind, channel, text) {
    this.#store.set({ gap: { kind, channel, text: `${text}${kind === "healing" ? "; fetching" : ""}.` } });
  }

  /** Another life of a channel: what is on screen is from before. @param {string} kind */
  #reset(kind) {
    if (kind === "zones") this.#zones = null;
    if (kind !== "liq" && kind !== "depth" && kind !== "liquidations") return;
    this.#restarted = true;
    this.#banner("restart", kind, "The engine has restarted; the picture is loaded anew");
    this.dispatchEvent(new Event("restart"));
    if (this.#store.get().paused) this.#tooMuch();
    else this.#load();
    this.#judge();
  }

  // Liquidations

  /** @param {Liquidation[]} items */
  #events(items) {
    const known = new Set(this.#store.get().events.map(nameOf));
    const fresh = this.#ofVenues(items).filter((one) => !known.has(nameOf(one)));
    if (fresh.length) this.#draw(() => this.#listEvents(fresh));
    this.#soon(() => this.#placeEvents(items));
  }

  /** In the order of their numbers, for a picture counts them by these. @param {Liquidation[]} items */
  #placeEvents(items) {
    const first = items[0]?.seq ?? 0;
    if (this.#eventHole !== null) {
      this.#eventsWaiting.push(items);
    } else if (this.#realised >= 0 && first > this.#realised + 1) {
      this.#eventsWaiting.push(items);
      this.#healEvents(this.#realised, first - 1);
    } else {
      const isNew = (/** @type {Liquidation} */ one) => one.seq > this.#counted || one.ts_ms >= this.#endMs;
      const drawn = this.#ofVenues(items).filter((one) => one.seq > this.#pushed && isNew(one));
      this.#pushed = Math.max(this.#pushed, items.at(-1)?.seq ?? -1);
      this.#realised = Math.max(this.#realised, items.at(-1)?.seq ?? -1);
      if (drawn.length) this.#draw(() => this.#picture.putEvents(drawn));
    }
  }

  /** @param {Liquidation[]} items */
  #ofVenues(items) {
    const { venues } = this.#store.get();
    return venues === null ? items : items.filter((one) => venues.includes(one.venue));
  }

  /** @param {Liquidation[]} fresh */
  #listEvents(fresh) {
    const events = [...this.#store.get().events, ...fresh].sort((one, other) => one.seq - other.seq);
    this.#store.set({ events: events.slice(-EVENTS_KEPT) });
  }

  /** Events numbered behind `after` up to `to`, before those that wait. @param {number} after @param {number} to */
  async #healEvents(after, to) {
    const generation = this.#generation;
    const { symbol } = this.#store.get();
    this.#eventHole = `${counted(to - after, "liquidation")} ${to - after === 1 ? "is" : "are"} missing`;
    this.#judge();
    try {
      for (let cursor = after; cursor < to; ) {
        const params = { symbol, after: cursor, limit: PAGE };
        const body = await (await this.#ask("liquidations", params)).json();
        if (generation !== this.#generation) return;
        this.#failed = this.#warmup = null;
        const passed = /** @type {Liquidation[]} */ (body.items).filter((one) => one.seq > cursor && one.seq <= to);
        const items = this.#ofVenues(passed);
        if (items.length) {
          this.#draw(() => {
            this.#picture.putEvents(items);
            this.#listEvents(items);
          });
        }
        if (!body.has_more || body.next_after <= cursor) break;
        cursor = body.next_after;
      }
    } catch (error) {
      this.#failedWith(error, generation, AGAIN_MS);
      return;
    }
    this.#realised = this.#pushed = to;
    this.#eventHole = null;
    const waiting = this.#eventsWaiting;
    this.#eventsWaiting = [];
    for (const items of waiting) this.#placeEvents(items);
    this.#judge();
  }

  // Candles

  /** @param {Candle} candle */
  #candle(candle) {
    if (this.#candleMs > 0 && candle.t > this.#candleMs + MINUTE_MS) {
      this.#fillCandles(this.#candleMs);
      return;
    }
    if (candle.t < this.#candleMs) return;
    this.#candleMs = candle.t;
    this.#draw(() => this.#picture.putCandle(candle));
    this.#setMark(candle.mark ?? candle.c);
  }

  /** Bars behind `sinceMs`; 0: all of the range. @param {number} sinceMs */
  async #fillCandles(sinceMs) {
    if (this.#filling) return;
    this.#filling = true;
    const generation = this.#generation;
    const { symbol, range } = this.#store.get();
    const missing = sinceMs > 0 ? Math.ceil((now() - sinceMs) / MINUTE_MS) : RANGE_GRID[range].minutes;
    const params = { symbol, limit: Math.max(2, Math.min(1500, missing + 2)) };
    try {
      // The picture does without them: that they are waited for is no state of it.
      const bars = await (await this.#ask("candles", params, () => {})).json();
      if (generation !== this.#generation) return;
      const fresh = candlesOf(bars).filter((one) => one.t > sinceMs);
      this.#candleMs = Math.max(this.#candleMs, fresh.at(-1)?.t ?? 0);
      this.#draw(() => {
        for (const one of fresh) this.#picture.putCandle(one);
      });
    } catch {
      // The next bar tries again.
    }
    if (generation === this.#generation) this.#filling = false;
  }

  // Zones

  /** @param {{channel: string, way: "snapshot"|"delta", data: any}} message */
  #zonesCame({ channel, way, data }) {
    if (way === "delta" && this.#zones === null && this.#zoneMismatches > 0) return; // the snapshot that was asked for comes behind it
    const table = way === "snapshot" ? tableOf(data) : this.#zones === null ? null : applied(this.#zones, data);
    this.#zones = table;
    if (table === null) {
      this.#zoneMismatches += 1;
      if (this.#zoneMismatches <= ZONE_TRIES) this.#feed.renew(channel);
      else this.#setFault("the zones do not match their checksum");
      return;
    }
    this.#zoneMismatches = 0;
    this.#showZones();
  }

  #showZones() {
    const { paused, tiers, minUsd } = this.#store.get();
    if (paused || this.#zones === null) return;
    const zonesRows = shownZones(this.#zones.values(), { tiers, minUsd });
    this.#store.set({ zonesRows });
    this.#picture.setZones(zonesRows);
  }

  // Health

  /** @param {Health} body @param {number} tookMs */
  #health(body, tookMs) {
    adjust(body.now_ms, tookMs); // ages count from the first picture on, though the first beat is seconds away
    const { status } = this.#store.get();
    this.#venueRows(body.exchanges, ({ state, age_s: ageS, reconnects, liquidations, streams }) => {
      const lags = Object.values(streams).flatMap(({ lag_ms: lag }) => (lag === null ? [] : [lag]));
      return { state, ageS, reconnects, liquidations, lagMs: lags.length ? Math.max(...lags) : null };
    });
    const symbols = Object.fromEntries(Object.entries(body.symbols).map(([symbol, one]) => [symbol, one.stale]));
    this.#store.set({ status: { ...status, service: body.status, symbols, version: body.version } });
    this.#judge();
  }

  /**
   * What is new of venues.
   *
   * @template T
   * @param {Record<string, T>} told by venue
   * @param {(one: T) => Partial<import("./store.js").VenueRow>} pick
   */
  #venueRows(told, pick) {
    const venuesHealth = { ...this.#store.get().venuesHealth };
    for (const [venue, one] of Object.entries(told)) venuesHealth[venue] = { ...(venuesHealth[venue] ?? NO_ROW), ...pick(one) };
    this.#store.set({ venuesHealth });
  }

  /** @param {import("../types/contract").StatusState} data */
  #statusCame(data) {
    this.#venueRows(data.exchanges, (state) => ({ state }));
    this.#store.set({ status: { ...this.#store.get().status, service: data.status, symbols: data.symbols } });
  }

  /** @param {{exchanges: Record<string, number|null>, conflated: number}} beat */
  #beat({ exchanges, conflated }) {
    this.#venueRows(exchanges, (ageS) => ({ ageS }));
    const { status, ages } = this.#store.get();
    this.#store.set({ ages: { ...ages, venues: exchanges }, status: { ...status, conflated, bytes: this.#feed.stats.bytes } });
    this.#judge();
  }

  /** @param {{name: "ws"|"sse"|"poll", state: "connecting"|"open"|"waiting", retryAtMs: number|null}} detail */
  #transport({ name, state, retryAtMs }) {
    const { status } = this.#store.get();
    this.#store.set({ transport: state === "open" ? name : state, status: { ...status, retryAtMs } });
  }

  // The badge

  /** @param {string} message */
  #setFault(message) {
    this.#fault = message;
    this.#judge();
  }

  #tick() {
    if (Date.now() - this.#healthMs > HEALTH_MS) this.refreshHealth();
    this.#judge();
  }

  #judge() {
    if (this.#over) return;
    const state = this.#store.get();
    const nowMs = now();
    const { liq, depth } = this.#lanes;
    const silentMs = this.#feed.silentMs;
    const loaded = this.#grid !== null;
    const ageOf = (/** @type {Lane} */ lane) => (!loaded || lane.agedMs === null ? null : Math.max(0, (nowMs - lane.agedMs) / 1000));
    const hole = [liq, depth].find((lane) => lane.goal !== null && lane.holed);
    const ages = { ...state.ages, map: ageOf(liq), book: ageOf(depth), message: silentMs / 1000 };
    const verdict = judge({
      nowMs,
      paused: state.paused,
      buffered: this.#buffered,
      overflow: this.#overflow,
      unauthorized: this.#unauthorized,
      fault: this.#fault,
      warmup: this.#warmup,
      failed: this.#failed,
      loaded,
      lastMessageMs: nowMs - silentMs,
      restarted: this.#restarted,
      unhealedGap: hole === undefined ? this.#eventHole : this.#holeOf(hole),
      map: { shown: state.heat && state.map !== null, stale: liq.stale, ageS: ages.map },
      book: { shown: state.heat && state.depth && depth.seq !== null, stale: depth.stale, ageS: ages.book },
    });
    const { badge, reason, alsoStale, buffered, codes, dimmed } = verdict;
    const staleCodes = codes.join() === state.staleCodes.join() ? state.staleCodes : codes;
    this.#store.set({ ages, badge, reason, alsoStale, buffered, staleCodes });
    if (dimmed === this.#dimmed) return;
    this.#dimmed = dimmed;
    this.#picture.setStale(dimmed);
  }
}

/** @param {"liq"|"depth"} kind @param {MapName|"depth"} layer @returns {Lane} */
function laneOf(kind, layer) {
  return { kind, layer, epoch: null, seq: null, tMs: null, agedMs: null, stale: false, waiting: [], goal: null, holed: false };
}

/** A lane that goes on behind a snapshot. @param {Lane} lane @param {Snapshot} snapshot @param {number|null} seq @param {number|null} epoch */
function joined(lane, snapshot, seq, epoch) {
  const tMs = newestMs(snapshot, lane.layer);
  if (tMs === null) return lane;
  return { ...lane, epoch, seq, tMs, agedMs: lane.kind === "liq" ? tMs + snapshot.dtMs : tMs };
}

/** From when on a column ages: a map at the end of its minute, a book at the start of its window. @param {"liq"|"depth"} kind @param {Column} column */
function agedOf(kind, { tMs, dtMs }) {
  return kind === "liq" ? tMs + dtMs : tMs;
}

/** @param {number} count @param {string} noun */
function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Part of a sentence out of one. @param {string} text */
function sentence(text) {
  return text.replace(/\.$/, "");
}

/** @param {Liquidation} one */
function nameOf(one) {
  return `${one.seq}:${one.recv_ms}`;
}
