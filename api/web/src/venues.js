/**
 * Where the data comes from: each venue with its state, its delay and what it does not tell.
 *
 * @typedef {import("./store.js").State} State
 */

import { el, facts } from "./dom.js";
import { age, bitOfVenue, compact, feedText, lag, NONE, stamp, venueName } from "./format.js";
import { VENUES } from "./url.js";

const SIGNS = /** @type {Record<string, string>} */ ({ LIVE: "●", STALE: "▲", DOWN: "✕", BANNED: "✕", GEO_BLOCKED: "✕" });
export const TRANSPORTS = {
  connecting: "connecting", waiting: "waiting to try again", ws: "WebSocket", sse: "event stream", poll: "asking every few seconds",
};

/**
 * Venues in a fixed order: what the service says of them now, and what the newest frame is based on.
 *
 * @param {State} state
 */
export function venueRows({ venuesHealth, provenance, ages }) {
  /** @type {Record<string, import("../types/contract.js").VenueCoverage>} */
  const coverage = provenance?.coverage?.venues ?? {};
  return VENUES.filter((venue) => venuesHealth[venue] || coverage[venue]).map((venue) => {
    const now = venuesHealth[venue];
    const then = coverage[venue];
    return {
      venue,
      state: now?.state ?? then?.state ?? null,
      feed: feedText(now?.liquidations ?? then?.liquidations),
      ageS: ages.venues[venue] ?? now?.ageS ?? null,
      lagMs: now?.lagMs ?? null,
      depth: then?.depth ?? now?.depth ?? null,
      oi: then?.oi ?? now?.oi ?? null,
    };
  });
}

/** Bits of the venues whose sums are a lower bound. @param {State} state */
export const boundBits = (state) => venueRows(state).reduce((bits, { venue, feed }) => bits | (feed.bound ? bitOfVenue(venue) : 0), 0);

/** @param {boolean|null} value */
const yesNo = (value) => (value === null ? NONE : value ? "yes" : "no");

/** What is missing, by name. @param {ReturnType<typeof venueRows>} rows */
export function missingText(rows) {
  const names = (/** @type {typeof rows} */ some) => some.map(({ venue }) => venueName(venue)).join(", ");
  const silent = rows.filter(({ feed }) => feed.none);
  const bounds = rows.filter(({ feed }) => feed.bound && !feed.none);
  const down = rows.filter(({ state }) => state !== null && state !== "LIVE");
  const parts = [];
  if (silent.length) parts.push(`${names(silent)}: no public liquidation feed, so none of its liquidations are here.`);
  if (bounds.length) parts.push(`${names(bounds)}: not every liquidation is sent, sums are a lower bound.`);
  if (down.length) parts.push(`Not live now: ${down.map((one) => `${venueName(one.venue)} (${one.state})`).join(", ")}.`);
  return parts;
}

/** @param {HTMLElement} box @param {State} state */
export function renderVenues(box, state) {
  const rows = venueRows(state);
  const body = rows.map(({ venue, state: now, ageS, lagMs, depth, oi }) =>
    el("tr", { "data-venue": venue },
      el("th", { scope: "row" }, venueName(venue)),
      el("td", { class: `venue-${now ?? "none"}` }, el("span", { "aria-hidden": true }, `${SIGNS[now ?? ""] ?? "○"} `), now ?? NONE),
      el("td", {}, lag(lagMs)), el("td", {}, age(ageS)), el("td", {}, yesNo(depth)), el("td", {}, yesNo(oi)),
    ),
  );
  const feeds = rows.map(({ venue, feed }) => /** @type {const} */ ([venueName(venue), feed.text + (feed.bound && !feed.none ? ": lower bound" : "")]));
  const heads = [["Venue", ""], ["State", ""], ["Lag", "receive time minus the venue's"], ["Last", "since its newest message"], ["Book", "counted in the newest column"], ["OI", "open interest counted in the newest map"]];
  const { status, ages, transport } = state;
  box.replaceChildren(
    el("table", { id: "venues-table", class: "rows" },
      el("thead", {}, el("tr", {}, ...heads.map(([text, title]) => el("th", { scope: "col", title: title || null }, text ?? "")))),
      el("tbody", {}, ...body),
    ),
    el("h3", {}, "Liquidation feeds"), facts(feeds),
    el("h3", {}, "What is missing"), el("ul", {}, ...missingText(rows).map((text) => el("li", {}, text))),
    el("h3", {}, "This page"),
    facts([
      ["Service", status.service ?? NONE], ["Connection", TRANSPORTS[transport]], ["Last message", `${age(ages.message)} ago`],
      ["Received", `${compact(status.bytes)}B`], ["Left out as too slow", String(status.conflated)],
      ["Map data since", `${stamp(status.dataSinceMs)} UTC`], ["Book synced since", `${stamp(status.bookSinceMs)} UTC`],
    ]),
  );
}
