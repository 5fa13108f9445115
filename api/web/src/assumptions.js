/**
 * With what the map was made: the model, its tiers and rates, since when.
 *
 * @typedef {import("./types.js").ProvenanceOf} ProvenanceOf
 */

import { el, facts } from "./dom.js";
import { percent, stamp, venueName } from "./format.js";

const FORMULAS = /** @type {Record<string, string>} */ ({ isolated_linear: "isolated margin, linear contract", ohlc4_minute: "mean of open, high, low and close of the minute", taker_share: "by the takers' share of the minute" });
/** @param {string} name */
const inWords = (name) => FORMULAS[name] ?? name;

/** @param {HTMLElement} box @param {ProvenanceOf|null} provenance @param {string|null} version of the server */
export function renderAssumptions(box, provenance, version) {
  const given = provenance?.assumptions;
  if (!provenance || !given) {
    box.replaceChildren(el("p", { class: "note" }, "There is no map yet, so nothing has been assumed."));
    return;
  }
  const weights = Object.entries(given.leverage_weights).sort(([one], [other]) => Number(one) - Number(other));
  const most = Math.max(...weights.map(([, weight]) => weight), 0.01);
  const tiers = weights.map(([tier, weight]) => {
    const off = given.disabled_tiers.includes(Number(tier));
    const bar = el("td", { class: "bar" }, off ? "off" : percent(weight, 1));
    bar.style.setProperty("--share", String(off ? 0 : weight / most));
    return el("tr", {}, el("th", { scope: "row" }, `${tier}×`), bar);
  });
  box.replaceChildren(
    el("p", {}, el("b", { class: "tag" }, "estimated"), " Positions are not public. These numbers turn open interest into levels."),
    facts([
      ["Model", provenance.model], ["Weights in force", given.valid_from_ms === null ? "since the beginning" : `since ${stamp(given.valid_from_ms)} UTC`],
      ["Server", version ?? "–"], ["Settings", el("code", { title: provenance.config_hash }, provenance.config_hash.slice(0, 12))],
    ]),
    el("h3", {}, "Share of each leverage tier"),
    el("table", { id: "tiers-table", class: "rows tiers" }, el("tbody", {}, ...tiers)),
    el("h3", {}, "Maintenance margin rate"),
    facts(Object.entries(given.mmr).map(([venue, rate]) => [venueName(venue), percent(rate, 2)])),
    el("h3", {}, "Rules"),
    facts([
      ["Liquidation price", inWords(given.formula)], ["Entry price", inWords(given.entry_price)], ["Sides of new interest", inWords(given.oi_split)],
      ["Combined map", `${percent(given.tape_weight)} tape, ${percent(given.projection_weight)} projected`],
      ["Fades a minute", percent(1 - given.decay_per_min, 2)], ["Loses when price passes", percent(given.sweep_reduction)], ["Reaches", `±${percent(given.range_pct)} of price`],
    ]),
  );
}
