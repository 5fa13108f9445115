/**
 * Everything that sets something: symbols, range, layers, look, filters. Controls write the store and show what it says.
 *
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./store.js").State} State
 * @typedef {keyof State} Key
 */

import { byId, el, inputOf, setText } from "./dom.js";
import { bitOfVenue, compact, NONE, parseUsd, venueName } from "./format.js";
import { RANGES } from "./store.js";
import { PALETTES, VENUES } from "./url.js";

const MAPS = /** @type {const} */ ([["liq", "Combined"], ["tape", "Tape"], ["projected", "Projected"], [null, "Off"]]);
const RANGE_NAMES = { "1h": "1 hour", "4h": "4 hours", "12h": "12 hours", "1d": "1 day" };
const THEMES = /** @type {const} */ ([[null, "As the system"], ["dark", "Dark"], ["light", "Light"]]);
const TOGGLES = /** @type {const} */ ([
  ["depth", "Book", "B"], ["candles", "Candles", "C"], ["realised", "Bubbles", "O"], ["zones", "Zones", ""], ["profile", "Profile", ""], ["heat", "Heat", "H"],
]);

/** @param {Store} store @param {readonly string[]} symbols */
export function wireControls(store, symbols) {
  radios(store, "symbols", "symbol", symbols.map((symbol, at) => [symbol, symbol, at < 9 ? String(at + 1) : ""]));
  radios(store, "ranges", "range", RANGES.map((range) => [range, range, "", RANGE_NAMES[range]]));
  radios(store, "maps", "map", MAPS.map(([value, text]) => [value, text, ""]));
  byId("maps").setAttribute("aria-keyshortcuts", "L");
  for (const [key, text, shortcut] of TOGGLES) byId("toggles").append(toggle(store, key, text, shortcut));
  select(store, "palette", PALETTES.map((name) => [name, name[0]?.toUpperCase() + name.slice(1)]));
  select(store, "theme", THEMES);
  slider(store, "opacity-map", "opacityMap", 100, (value) => `${value}%`);
  slider(store, "opacity-depth", "opacityDepth", 100, (value) => `${value}%`);
  slider(store, "gamma", "gamma", 1, String);
  checkbox(store, inputOf("lock"), "lockP99");
  checkbox(store, inputOf("log"), "log");
  usdField(store, "min-usd", "minUsd", 0);
  usdField(store, "alert-usd", "alertUsd", 0);
  alertFields(store);
  tierChips(store);
  listChips(store, "venues", "venues", VENUES.filter(bitOfVenue).map((venue) => [venue, venueName(venue)]));
}

/** Runs now and whenever one of the keys changes. @param {Store} store @param {readonly Key[]} keys @param {(state: Readonly<State>) => void} show */
export function showing(store, keys, show) {
  store.subscribe(keys, show);
  show(store.get());
}

/** @param {Store} store @param {Key} key @param {unknown} value */
const put = (store, key, value) => store.set({ [key]: value });

/**
 * @param {Store} store
 * @param {string} id of the fieldset
 * @param {Key} key
 * @param {readonly (readonly [value: string|null, text: string, shortcut: string, name?: string])[]} options
 */
function radios(store, id, key, options) {
  const inputs = options.map(([value, text, shortcut, name]) => {
    const input = el("input", {
      type: "radio", name: id, value: value ?? "none", id: `${id}-${value ?? "none"}`, "aria-keyshortcuts": shortcut || null,
      "aria-label": name ?? null, onchange: () => put(store, key, value),
    });
    byId(id).append(el("label", { title: shortcut ? `${text} (${shortcut})` : null }, input, el("span", {}, text)));
    return { input, value };
  });
  showing(store, [key], (state) => {
    for (const { input, value } of inputs) input.checked = state[key] === value;
  });
}

/** @param {Store} store @param {Key} key @param {string} text @param {string} shortcut */
function toggle(store, key, text, shortcut) {
  const input = el("input", { type: "checkbox", id: `layer-${key}`, "aria-keyshortcuts": shortcut || null });
  checkbox(store, input, key);
  return el("label", { title: shortcut ? `${text} (${shortcut})` : null }, input, el("span", {}, text));
}

/** @param {Store} store @param {HTMLInputElement} input @param {Key} key */
function checkbox(store, input, key) {
  input.addEventListener("change", () => put(store, key, input.checked));
  showing(store, [key], (state) => {
    input.checked = Boolean(state[key]);
  });
}

/** @param {Store} store @param {"palette"|"theme"} key @param {readonly (readonly [string|null, string])[]} options */
function select(store, key, options) {
  const node = /** @type {HTMLSelectElement} */ (byId(key));
  node.append(...options.map(([value, text]) => el("option", { value: value ?? "" }, text)));
  node.addEventListener("change", () => put(store, key, node.value || null));
  showing(store, [key], (state) => {
    node.value = state[key] ?? "";
  });
}

/** @param {Store} store @param {string} id @param {"opacityMap"|"opacityDepth"|"gamma"} key @param {number} scale @param {(value: string) => string} textOf */
function slider(store, id, key, scale, textOf) {
  const node = inputOf(id);
  node.addEventListener("input", () => put(store, key, node.valueAsNumber / scale));
  showing(store, [key], (state) => {
    node.value = String(Math.round(state[key] * scale * 100) / 100);
    node.setAttribute("aria-valuetext", textOf(node.value));
  });
}

/** @param {Store} store @param {string} id @param {"minUsd"|"alertUsd"} key @param {number} least */
function usdField(store, id, key, least) {
  const node = inputOf(id);
  const show = () => {
    const value = store.get()[key];
    node.value = value === null ? "" : compact(value, 3);
  };
  node.addEventListener("change", () => {
    const value = parseUsd(node.value);
    const valid = value !== null && value >= least && value <= 1e9;
    node.setAttribute("aria-invalid", String(!valid));
    if (valid) put(store, key, value);
    show();
  });
  showing(store, [key], show);
}

/** @param {Store} store */
function alertFields(store) {
  const node = inputOf("alert-pct");
  node.addEventListener("change", () => {
    if (node.validity.valid && node.value) store.set({ alertPct: node.valueAsNumber });
  });
  showing(store, ["alertPct"], ({ alertPct }) => {
    node.value = alertPct === null ? "" : String(alertPct);
    inputOf("alert-on").checked = alertPct !== null;
    node.disabled = inputOf("alert-usd").disabled = alertPct === null;
  });
}

/** Tiers of the model, of the zones and of the address. @param {Store} store */
function tierChips(store) {
  let known = "";
  /** @type {Set<number>} */
  const seen = new Set();
  showing(store, ["provenance", "tiers", "zonesRows"], ({ provenance, tiers, zonesRows }) => {
    /** @type {Record<string, number>[]} */
    const told = [provenance?.assumptions?.leverage_weights ?? {}, ...zonesRows.map((zone) => zone.tier_contributions)];
    for (const tier of [...told.flatMap(Object.keys).map(Number), ...(tiers ?? [])]) seen.add(tier);
    const found = [...seen].sort((one, other) => one - other);
    if (found.join() === known) return;
    known = found.join();
    byId("tiers").replaceChildren();
    listChips(store, "tiers", "tiers", found.map((tier) => [tier, `${tier}×`]));
    if (!found.length) setText(byId("tiers"), NONE);
  });
}

/**
 * Several of a list, or all (null). The last one cannot be switched off: nothing is never what was meant.
 *
 * @param {Store} store
 * @param {string} id
 * @param {"tiers"|"venues"} key
 * @param {readonly (readonly [value: string|number, text: string])[]} options
 */
function listChips(store, id, key, options) {
  const inputs = options.map(([value, text]) => {
    const input = el("input", { type: "checkbox", id: `${id}-${value}` });
    byId(id).append(el("label", {}, input, el("span", {}, text)));
    input.addEventListener("change", () => {
      const chosen = inputs.filter((one) => one.input.checked).map((one) => one.value);
      if (chosen.length === 0) input.checked = true;
      else put(store, key, chosen.length === inputs.length ? null : chosen);
    });
    return { input, value };
  });
  const show = () => {
    const chosen = /** @type {readonly (string|number)[]|null} */ (store.get()[key]);
    for (const { input, value } of inputs) input.checked = chosen === null || chosen.includes(value);
  };
  const end = store.subscribe([key], () => (inputs[0]?.input.isConnected === false ? end() : show()));
  show();
}

/** On a narrow page the layers are one of the settings, so that the chart comes first. */
export function wireLayersPlace() {
  const narrow = matchMedia("(max-width: 699px)");
  const place = () => {
    if (narrow.matches) byId("set-look").before(byId("layers"));
    else byId("stage").prepend(byId("layers"));
  };
  narrow.addEventListener("change", place);
  place();
}
