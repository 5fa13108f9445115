/**
 * One symbol and range on screen: picture, push, gaps, pause, states.
 *
 * It follows the store: a change of `symbol`, `range`, `map`, `venues`, `tiers` or `minUsd` is a change of what is loaded or shown, so
 * `store.set({range: "4h"})` is all that a control does. It writes `badge reason alsoStale staleCodes buffered paused ages venuesHealth
 * gap provenance zonesRows events mark transport status`, and of the picture it calls `setSnapshot mergeSnapshot putColumn putCandle
 * putEvents setZones setMark setStale`; everything else of the picture (layers, scales, palette, theme) belongs to the caller.
 *
 * Events: `unauthorized` (ask for a key, then `api.setKey`; the session goes on by itself), `snapshot` (detail: the Snapshot that
 * `setSnapshot` was given), `restart` (the engine).
 */
export class Session extends EventTarget {
  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {EventTarget} parts.feed
   * @param {import("./picture.js").Picture} parts.picture
   * @param {import("./store.js").Store} parts.store `symbol` must be set before `open`
   * @param {{heatmap(buffer: ArrayBuffer): Promise<import("./types.js").Snapshot>}} parts.decoder
   */
  constructor(parts) {
    super();
    this.parts = parts;
  }

  /** Load and follow. Returns at once. */
  open() {}
  /** @param {string} symbol the same as `store.set({symbol})` */
  setSymbol(symbol) { this.parts.store.set({ symbol }); }
  /** @param {import("./store.js").Range} range the same as `store.set({range})` */
  setRange(range) { this.parts.store.set({ range }); }
  /** Freeze the view; what comes is kept and counted. */
  pause() { this.parts.store.set({ paused: true }); }
  /** Draw what has been kept, or load a new picture if that was too much. */
  resume() { this.parts.store.set({ paused: false }); }
  /** Load the picture anew. */
  reload() {}
  /** Ask `/health` again, e.g. when its panel opens. */
  refreshHealth() {}
  /** End everything: no request, timer or listener is left. */
  close() {}
}
