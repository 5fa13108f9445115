/**
 * What lies under the cross-hair; without one, what lies next to price.
 *
 * @typedef {import("./types.js").Readout} Readout
 * @typedef {import("./types.js").CellsAt} CellsAt
 * @typedef {import("../types/contract.js").Zone} Zone
 * @typedef {{readout: Readout|null, zones: readonly Zone[], mark: number|null, step: number, bounds: number}} Shown `step`: of the rows, USD;
 *   `bounds`: bits of the venues that leave liquidations out
 */

import { el, facts } from "./dom.js";
import { about, age, compact, distance, exactUsd, mixText, NONE, price, signedPercent, sourceText, stamp, venuesOfBits } from "./format.js";
import { largest, nearest, sumsWithin, zoneAt } from "./zone_order.js";

const NEAR_PCT = 2;

/** @typedef {[name: string, className: string, layer: "map"|"depth", read: (cells: CellsAt) => number|null|undefined]} Line */
/** @type {readonly Line[]} */
const LINES = [
  ["Shorts", "short", "map", (cells) => cells.map?.shortUsd],
  ["Longs", "long", "map", (cells) => cells.map?.longUsd],
  ["Asks", "book", "depth", (cells) => cells.depth?.askUsd],
  ["Bids", "book", "depth", (cells) => cells.depth?.bidUsd],
];

/** @param {HTMLElement} box @param {Shown} shown */
export function renderReadout(box, shown) {
  box.replaceChildren(...(shown.readout ? under(shown.readout, shown) : idle(shown)));
}

/** One sentence for the cross-hair of the keyboard. @param {Readout} readout */
export function spoken({ price: at, tMs, map, depth, distancePct }) {
  const parts = [price(at), signedPercent(distancePct), stamp(tMs)];
  if (map?.missing) parts.push("map: no data");
  else if (map) parts.push(`shorts ${about(map.shortUsd)}, longs ${about(map.longUsd)}`);
  if (depth?.missing) parts.push("book: no data");
  else if (depth) parts.push(`asks ${about(depth.askUsd)}, bids ${about(depth.bidUsd)}`);
  return parts.join("; ");
}

/** @param {Readout} readout @param {Shown} shown */
function under(readout, { zones, step, bounds }) {
  const { tMs, price: at, distancePct, bubble, candle, ageS, future } = readout;
  const when = future ? "projected to the right" : `${age(ageS)} old`;
  const zone = zoneAt(zones, at, step / 2);
  /** @type {[string, string][]} */
  const rows = [["Zone here", zone ? zoneText(zone) : "none at this price"]];
  // One or the other: the box keeps its height.
  if (bubble) rows.push([bubble.side === 0 ? "Longs closed" : "Shorts closed", bubbleText(bubble, bounds)]);
  else rows.push(["Candle", candle ? [candle.o, candle.h, candle.l, candle.c].map(price).join(" · ") : "–"]);
  return [
    el("p", { class: "lead" }, el("b", {}, price(at)), ` ${signedPercent(distancePct)} from mark`),
    el("p", { class: "when" }, `${stamp(tMs)} UTC, ${when}`),
    cellsTable(readout),
    facts(rows),
  ];
}

/** @param {Readout} readout */
function cellsTable(readout) {
  const columns = [readout.previous, readout, readout.next];
  const lines = LINES.filter(([, , layer]) => readout[layer]).map(([name, side, layer, read]) =>
    el("tr", { class: side }, el("th", { scope: "row" }, name), ...columns.map((cells, at) => {
      const text = cells[layer]?.missing ? "no data" : read(cells) === 0 ? "0" : about(read(cells));
      return el("td", { class: at === 1 ? "here" : "" }, text);
    })),
  );
  const head = ["", "Before", "Here", "After"].map((text) => el("th", { scope: "col" }, text));
  return el("table", { class: "cells" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines));
}

/** @param {Zone} zone */
export function zoneText(zone) {
  return `≈ $${compact(zone.notional_usd)} ${zone.side}s, ${sourceText(zone.source)}, ${age(zone.age_min * 60)}; ${mixText(zone.tier_contributions)}`;
}

/** @param {import("./types.js").Bubble} bubble @param {number} bounds */
function bubbleText({ usd, count, maxUsd, venues }, bounds) {
  const many = count === 1 ? "one event" : `${count >= 65_535 ? "65,535 or more" : count} events, largest ${exactUsd(maxUsd)}`;
  return `${venues & bounds ? "at least " : ""}${exactUsd(usd)}, ${many}; ${venuesOfBits(venues).join(", ")}`;
}

/** @param {Shown} shown */
function idle({ zones, mark }) {
  const { above, below } = nearest(zones, mark);
  const near = sumsWithin(zones, mark, NEAR_PCT);
  /** @param {Zone|null} zone */
  const text = (zone) => (zone ? `${price(zone.price)} (${signedPercent(distance(zone.price, mark))}) ≈ $${compact(zone.notional_usd)}` : NONE);
  const sum = (/** @type {number|null} */ usd) => (usd === null ? NONE : `${about(usd)} of zones`);
  return [
    el("p", { class: "lead" }, el("b", {}, price(mark)), " mark"),
    el("p", { class: "when" }, "Point at the chart, or use the arrow keys on it."),
    facts([
      ["▲ Next above", text(above)], ["▲ Largest shorts", text(largest(zones, "short"))], [`▲ Within ${NEAR_PCT}%`, sum(near.above)],
      ["▼ Next below", text(below)], ["▼ Largest longs", text(largest(zones, "long"))], [`▼ Within ${NEAR_PCT}%`, sum(near.below)],
    ]),
  ];
}
