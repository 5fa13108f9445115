/** The newest realised liquidations, newest first. */

import { el } from "./dom.js";
import { clock, exactUsd, price, venueName } from "./format.js";

const MOST = 40;

/** @param {HTMLElement} box @param {readonly import("../types/contract.js").Liquidation[]} events newest last @param {readonly string[]|null} venues */
export function renderTape(box, events, venues) {
  const shown = events.filter(({ venue }) => venues === null || venues.includes(venue)).slice(-MOST).reverse();
  if (!shown.length) {
    box.replaceChildren(el("p", { class: "note" }, "None since this page knows."));
    return;
  }
  const rows = shown.map((one) =>
    el("tr", { class: one.side },
      el("td", {}, clock(one.ts_ms, true)), el("td", {}, venueName(one.venue)),
      el("td", {}, el("span", { class: "side", "aria-hidden": true }, one.side === "short" ? "▲ " : "▼ "), one.side),
      el("td", {}, price(one.price)), el("td", {}, exactUsd(one.notional_usd)),
    ),
  );
  const heads = ["Time", "Venue", "Side", "Price", "USD"].map((text) => el("th", { scope: "col" }, text));
  box.replaceChildren(el("table", { id: "tape-table", class: "rows" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}
