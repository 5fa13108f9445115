/**
 * LIVE, PAUSED or STALE with what is behind it; banners over the chart; a live region that does not chatter.
 *
 * @typedef {import("./store.js").State} State
 */

import { byId, setText } from "./dom.js";
import { age } from "./format.js";
import { atMost } from "./timing.js";

/** A live region says no more than one sentence in this time. */
export const QUIET_MS = 5000;

/**
 * Texts into a live region: at once after a silence, else the newest of them at its end.
 *
 * @param {Node} node
 * @param {number} [quietMs]
 */
export const announcer = (node, quietMs = QUIET_MS) => atMost(quietMs, (/** @type {string} */ text) => setText(node, text));

/** What of a state is worth a sentence: not that a number in it ticks. @param {State} state */
export const worthSaying = ({ badge, alsoStale, staleCodes, gap }) => [badge, alsoStale, staleCodes[0], gap?.text].join("|");

/** What stands behind the word of the badge. @param {State} state */
export function extraOf({ badge, buffered, alsoStale }) {
  if (badge !== "PAUSED") return "";
  return `+${buffered}${alsoStale ? ", also stale" : ""}`;
}

/** Ages of what is drawn. @param {State} state */
export function agesText({ ages, map, depth }) {
  const parts = [];
  if (map !== null) parts.push(`map ${age(ages.map)}`);
  if (depth) parts.push(`book ${age(ages.book)}`);
  if (!parts.length) parts.push(`last message ${age(ages.message)}`);
  return parts.join(" · ");
}

/** @param {State} state */
export function renderBadge(state) {
  const { badge, reason, alsoStale, paused, gap } = state;
  const node = byId("badge");
  node.dataset.badge = badge;
  node.title = `${reason} ${agesText(state)}, last message ${age(state.ages.message)} ago`;
  setText(byId("badge-word"), badge);
  setText(byId("badge-age"), agesText(state));
  setText(byId("badge-extra"), extraOf(state));
  const pause = byId("pause");
  pause.setAttribute("aria-pressed", String(paused));
  setText(pause, paused ? "Resume" : "Pause");
  byId("banner").hidden = badge === "LIVE" || (badge === "PAUSED" && !alsoStale);
  setText(byId("banner-text"), `${badge === "PAUSED" ? "" : "STALE. "}${reason}`);
  byId("gap").hidden = gap === null;
  setText(byId("gap-text"), gap?.text ?? "");
}
