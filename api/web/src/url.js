/**
 * The page's address as settings and back. Pure. Everything in it is checked against what exists; what is not known is left out,
 * never echoed.
 *
 * @typedef {import("./store.js").State} State
 */

import { DEFAULTS, RANGES } from "./store.js";

export const PALETTES = /** @type {const} */ (["viridis", "inferno", "cividis", "mono"]);
export const MAPS = /** @type {const} */ (["liq", "tape", "projected"]);
export const VENUES = /** @type {const} */ (["binance", "bybit", "okx", "gate", "bitget", "hyperliquid"]);
export const PANELS = /** @type {const} */ (["zones", "venues", "assumptions", "accuracy", "guide"]);
/** Bounds of the cells that the server sends, USD. */
export const USD = Object.freeze({ lo: 100, hi: 1e9 });
const MAX_TIERS = 16;
const MAX_LEVERAGE = 500;

/** @typedef {(text: string) => unknown} Read undefined: not valid */
/** @typedef {{name: string, key: keyof State, read: Read, write: (value: any) => string}} Field */

/** @param {readonly string[]} values @returns {Read} */
const oneOf = (values) => (text) => (values.includes(text) ? text : undefined);
/** @type {Read} */
const flag = (text) => (text === "1" ? true : text === "0" ? false : undefined);
/** @param {number} low @param {number} high @returns {Read} */
const number = (low, high) => (text) => {
  if (!/^\d{1,12}(\.\d{1,6})?$/.test(text)) return undefined;
  const value = Number(text);
  return value >= low && value <= high ? value : undefined;
};
/** @type {Read} */
const tiers = (text) => {
  const parts = text.split(",");
  if (parts.length > MAX_TIERS || !parts.every((part) => /^[1-9]\d{0,2}$/.test(part) && Number(part) <= MAX_LEVERAGE)) return undefined;
  return [...new Set(parts.map(Number))].sort((one, other) => one - other);
};
/** @type {Read} */
const venues = (text) => {
  const parts = text.split(",");
  if (!parts.every((part) => /** @type {readonly string[]} */ (VENUES).includes(part))) return undefined;
  return VENUES.filter((venue) => parts.includes(venue));
};
/** @param {number} value */
const digits = (value) => String(Math.round(value * 1e6) / 1e6);
/** @param {boolean} value */
const bit = (value) => (value ? "1" : "0");
const text = String;
/** @param {readonly unknown[]} values */
const list = (values) => values.join(",");

/** @type {readonly Field[]} */
const FIELDS = [
  { name: "range", key: "range", read: oneOf(RANGES), write: text },
  { name: "map", key: "map", read: (value) => (value === "none" ? null : oneOf(MAPS)(value)), write: (value) => value ?? "none" },
  .../** @type {const} */ (["depth", "candles", "realised", "zones", "profile", "heat", "log"]).map((key) => ({
    name: key, key, read: flag, write: bit,
  })),
  { name: "lock", key: "lockP99", read: flag, write: bit },
  { name: "map_opacity", key: "opacityMap", read: number(0, 1), write: digits },
  { name: "book_opacity", key: "opacityDepth", read: number(0, 1), write: digits },
  { name: "palette", key: "palette", read: oneOf(PALETTES), write: text },
  { name: "theme", key: "theme", read: oneOf(["dark", "light"]), write: text },
  { name: "map_lo", key: "mapLo", read: number(USD.lo, USD.hi), write: digits },
  { name: "map_hi", key: "mapHi", read: number(USD.lo, USD.hi), write: digits },
  { name: "book_lo", key: "bookLo", read: number(USD.lo, USD.hi), write: digits },
  { name: "book_hi", key: "bookHi", read: number(USD.lo, USD.hi), write: digits },
  { name: "gamma", key: "gamma", read: number(0.1, 10), write: digits },
  { name: "tiers", key: "tiers", read: tiers, write: list },
  { name: "venues", key: "venues", read: venues, write: list },
  { name: "min_usd", key: "minUsd", read: number(0, USD.hi), write: digits },
  { name: "alert_pct", key: "alertPct", read: number(0.01, 50), write: digits },
  { name: "alert_usd", key: "alertUsd", read: number(0, 1e12), write: digits },
  { name: "panel", key: "panel", read: oneOf(PANELS), write: text },
];

/**
 * The settings that an address carries. Of the symbols only those given, spelt as given; a scale whose low end is not below its high
 * one is none.
 *
 * @param {string} search `location.search`
 * @param {readonly string[]} symbols
 * @returns {Partial<State>}
 */
export function stateOfUrl(search, symbols) {
  const params = new URLSearchParams(search);
  /** @type {Record<string, unknown>} */
  const patch = {};
  const symbol = params.get("symbol")?.toUpperCase();
  if (symbol !== undefined && symbols.includes(symbol)) patch.symbol = symbol;
  for (const { name, key, read } of FIELDS) {
    const given = params.get(name);
    const value = given === null ? undefined : read(given);
    if (value !== undefined) patch[key] = value;
  }
  for (const [low, high] of /** @type {const} */ ([["mapLo", "mapHi"], ["bookLo", "bookHi"]])) {
    const pair = { ...DEFAULTS, ...patch };
    if (pair[low] >= pair[high]) {
      delete patch[low];
      delete patch[high];
    }
  }
  return /** @type {Partial<State>} */ (patch);
}

/**
 * The address of a state: its symbol, and what differs from the defaults.
 *
 * @param {State} state
 * @returns {string} `?…`, or nothing
 */
export function urlOfState(state) {
  const params = new URLSearchParams();
  if (state.symbol !== null) params.set("symbol", state.symbol);
  for (const { name, key, write } of FIELDS) {
    const value = state[key];
    if (!Object.is(value, DEFAULTS[key])) params.set(name, write(value));
  }
  const query = params.toString().replaceAll("%2C", ",");
  return query && `?${query}`;
}
