/**
 * How the picture looks: layers, colours, scales and the legends that show them. All of it follows from the store.
 *
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./store.js").State} State
 * @typedef {import("./picture.js").Picture} Picture
 * @typedef {import("./scale.js").Which} Which
 */

import { showing } from "./controls.js";
import { byId } from "./dom.js";
import { Legend } from "./legend.js";
import { follow, pinned, scalesOf } from "./scale.js";
import { atMost } from "./timing.js";

const LEGENDS = /** @type {const} */ ([["map", "legend-map"], ["depth", "legend-book"]]);
const LAYERS = /** @type {const} */ (["map", "depth", "candles", "realised", "zones", "profile", "heat", "opacityMap", "opacityDepth"]);
/** Zooming asks for the 99th percentile again and again. */
const LOOK_MS = 500;
const LIGHT = matchMedia("(prefers-color-scheme: light)");
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/** @param {State} state @returns {import("./types.js").Theme} */
export const themeOf = ({ theme }) => theme ?? (LIGHT.matches ? "light" : "dark");

export class Look {
  /** @type {import("./scale.js").Tops} */
  #tops = { map: null, depth: null };
  /** @type {import("./types.js").PaletteName|null} */
  #palette = null;
  /** Follows the view, calmly. */
  follow = atMost(LOOK_MS, () => this.#follow());

  /** @param {Store} store @param {Picture} picture */
  constructor(store, picture) {
    this.store = store;
    this.picture = picture;
    this.legends = LEGENDS.map(([which, id]) => ({
      which, legend: new Legend(byId(id), which, (end, usd) => store.set(pinned(this.scales(), which, end, usd))),
    }));
    showing(store, LAYERS, (state) => this.#layers(state));
    showing(store, ["theme"], (state) => this.#theme(state));
    store.subscribe(["palette", "map", "depth", "heat", "mapLo", "mapHi", "bookLo", "bookHi", "gamma", "log", "lockP99"], () => this.#colours());
    LIGHT.addEventListener("change", () => this.#theme(store.get()));
    CALM.addEventListener("change", () => picture.setReducedMotion(CALM.matches));
    picture.setReducedMotion(CALM.matches);
  }

  /** Scales in force. */
  scales() {
    return scalesOf(this.store.get(), this.#tops);
  }

  /** Another picture: what the old one held says nothing of it. */
  forget() {
    this.#tops = { map: null, depth: null };
    this.#follow();
  }

  #follow() {
    const tops = follow(this.#tops, { map: this.picture.p99("map"), depth: this.picture.p99("depth") });
    if (tops === this.#tops) return;
    this.#tops = tops;
    this.#colours();
  }

  /** @param {State} state */
  #layers({ map, depth, candles, realised, zones, profile, heat, opacityMap, opacityDepth }) {
    this.picture.setLayers({ map, depth, candles, realised, zones, profile, heat, opacity: { map: opacityMap, depth: opacityDepth } });
    this.follow();
  }

  /** @param {State} state */
  #theme(state) {
    if (state.theme === null) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = state.theme;
    this.picture.setTheme(themeOf(state));
    this.#colours();
  }

  #colours() {
    const state = this.store.get();
    if (state.palette !== this.#palette) this.picture.setPalette((this.#palette = state.palette));
    this.picture.setScale(this.scales());
    for (const { which, legend } of this.legends) legend.render(this.picture.lookOf(which), isShown(state, which));
  }
}

/** Whether anything is drawn by this scale. @param {State} state @param {Which} which */
export const isShown = ({ heat, map, depth }, which) => heat && (which === "map" ? map !== null : depth);
