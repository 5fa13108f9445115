/**
 * The table of zones: what the picture shows, as text. Headers sort, a row takes the chart to its price.
 *
 * @typedef {import("./zone_order.js").Zone} Zone
 * @typedef {import("./zone_order.js").Key} Key
 * @typedef {import("./zone_order.js").Order} Order
 * @typedef {{zones: readonly Zone[], mark: number|null, symbol: string|null, filtered: boolean}} Shown
 * @typedef {{row: HTMLTableRowElement, button: HTMLButtonElement, cells: HTMLTableCellElement[]}} Row
 */

import { el, setText } from "./dom.js";
import { age, compact, distance, mixText, price, signedPercent, sourceText } from "./format.js";
import { clicked, ordered } from "./zone_order.js";

/** More rows than this help nobody and cost time. */
export const MOST = 100;
/** @type {readonly (readonly [Key, string, string])[]} */
const COLUMNS = [
  ["price", "Price", "USD"], ["distance", "Away", "distance from mark"], ["usd", "≈ USD", "estimated USD that the zone carries"],
  ["source", "Source", "where the USD come from"], ["age", "Age", "since it was first seen"], ["leverage", "Lev.", "leverage tier with the largest share"],
];

export class ZoneTable {
  /** @type {Order} */
  #order = { key: "usd", descending: true };
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {Shown} */
  #shown = { zones: [], mark: null, symbol: null, filtered: false };

  /** @param {HTMLElement} box @param {(price: number) => void} onJump */
  constructor(box, onJump) {
    this.onJump = onJump;
    this.caption = el("caption", {});
    this.heads = COLUMNS.map(([key, text, title]) =>
      el("th", { scope: "col", class: key, "data-key": key }, el("button", { type: "button", title, onclick: () => this.#sort(key) }, text)),
    );
    this.body = el("tbody");
    this.empty = el("p", { class: "note" });
    box.replaceChildren(
      el("table", { id: "zones-table", class: "rows" }, this.caption, el("thead", {}, el("tr", {}, ...this.heads)), this.body), this.empty,
    );
  }

  /** @param {Key} key */
  #sort(key) {
    this.#order = clicked(this.#order, key);
    this.render(this.#shown);
  }

  /** @param {Shown} shown */
  render(shown) {
    this.#shown = shown;
    const { zones, mark, symbol, filtered } = shown;
    for (const [at, [key]] of COLUMNS.entries()) {
      const sorted = key !== this.#order.key ? "none" : this.#order.descending ? "descending" : "ascending";
      this.heads[at]?.setAttribute("aria-sort", sorted);
    }
    const rows = ordered(zones, this.#order, mark).slice(0, MOST);
    const most = zones.reduce((found, zone) => Math.max(found, zone.notional_usd), 0);
    const nodes = rows.map((zone) => this.#row(zone, mark, most).row);
    if (nodes.length !== this.body.children.length || nodes.some((node, at) => this.body.children[at] !== node)) this.#place(nodes);
    const ids = new Set(rows.map((zone) => zone.id));
    for (const id of this.#rows.keys()) if (!ids.has(id)) this.#rows.delete(id);
    const more = zones.length > MOST ? `, ${MOST} shown` : "";
    setText(this.caption, `${zones.length} estimated zone${zones.length === 1 ? "" : "s"} of ${symbol ?? "this symbol"}${filtered ? ", filtered" : ""}${more}. A click goes to the price.`);
    setText(this.empty, zones.length ? "" : filtered ? "No zone passes the filters." : "No zones yet. They need a few minutes of data.");
  }

  /** Rows that stay keep the focus: moving a focused element would drop it. @param {HTMLElement[]} nodes */
  #place(nodes) {
    const focused = document.activeElement;
    const had = focused instanceof HTMLElement && this.body.contains(focused);
    this.body.replaceChildren(...nodes);
    if (had && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** @param {Zone} zone @param {number|null} mark @param {number} most @returns {Row} */
  #row(zone, mark, most) {
    const found = this.#rows.get(zone.id) ?? this.#newRow(zone);
    this.#rows.set(zone.id, found);
    const away = distance(zone.price, mark);
    const texts = [
      null, signedPercent(away), compact(zone.notional_usd), sourceText(zone.source), age(zone.age_min * 60),
      zone.dominant_leverage === null ? "–" : `${zone.dominant_leverage}×`,
    ];
    for (const [at, text] of texts.entries()) {
      const cell = found.cells[at];
      if (cell && text !== null) setText(cell, text);
    }
    setText(found.button, price(zone.price));
    found.cells[2]?.style.setProperty("--share", String(most > 0 ? zone.notional_usd / most : 0));
    found.row.title = `Leverage: ${mixText(zone.tier_contributions, 5)}`;
    return found;
  }

  /** @param {Zone} zone @returns {Row} */
  #newRow(zone) {
    const { price: at, side } = zone;
    const mark = el("span", { class: "side" }, el("span", { "aria-hidden": true }, side === "short" ? "▲" : "▼"), el("span", { class: "vh" }, `${side}s `));
    const button = el("button", { type: "button", class: "jump" });
    const cells = COLUMNS.map(([key]) => el("td", { class: key }));
    cells[0]?.append(mark, button);
    // The button's own click bubbles here, and so does Enter on it.
    const row = el("tr", { class: side, "data-zone": zone.id, onclick: () => this.onJump(at) }, ...cells);
    return { row, button, cells };
  }
}
