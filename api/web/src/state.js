/**
 * LIVE, PAUSED or STALE, and one sentence why (section 7 of the dashboard's specification). Pure: a table from inputs to a badge.
 *
 * @typedef {object} LayerInput A layer that ages. `stale`: as the API says of its newest column; `ageS`: by the server's clock.
 * @property {boolean} shown
 * @property {boolean} stale
 * @property {number|null} ageS
 *
 * @typedef {object} Inputs
 * @property {number} nowMs
 * @property {boolean} paused
 * @property {number} buffered columns that wait
 * @property {boolean} overflow more came while paused than the picture holds
 * @property {boolean} unauthorized the server wants a key, or another one
 * @property {string|null} fault why the newest answer was not drawn
 * @property {{retryInS: number}|null} warmup the server has no data yet (503)
 * @property {string|null} failed why the last request of the picture failed
 * @property {boolean} loaded there is a picture of this symbol and range
 * @property {number|null} lastMessageMs when anything came last
 * @property {boolean} restarted the engine has restarted and the picture is from before
 * @property {string|null} unhealedGap what is missing
 * @property {LayerInput} map
 * @property {LayerInput} book
 *
 * @typedef {object} Verdict
 * @property {"LIVE"|"PAUSED"|"STALE"} badge
 * @property {string} reason one sentence
 * @property {boolean} alsoStale PAUSED over something that is STALE
 * @property {boolean} dimmed whether the picture is drawn dimmed
 * @property {string[]} codes every cause of STALE that holds, the one told first
 * @property {number} buffered
 */

/** Ages from which something is stale, in s; of the map from the end of its minute, of the book from the start of its column. */
export const LIMITS_S = Object.freeze({ message: 15, map: 180, book: 90 });

/**
 * Causes of STALE, the one that explains the others first.
 *
 * @type {readonly {code: string, holds: (i: Inputs) => boolean, text: (i: Inputs) => string}[]}
 */
export const CAUSES = [
  { code: "unauthorized", holds: (i) => i.unauthorized, text: () => "The server wants an API key." },
  { code: "fault", holds: (i) => i.fault !== null, text: (i) => `The newest answer is not drawn: ${i.fault}.` },
  {
    code: "warmup",
    holds: (i) => i.warmup !== null,
    text: (i) => `The server is warming up and has no data yet; asking again every ${Math.ceil(i.warmup?.retryInS ?? 1)} s.`,
  },
  {
    code: "silent",
    holds: (i) => i.loaded && i.lastMessageMs !== null && i.nowMs - i.lastMessageMs > LIMITS_S.message * 1000,
    text: (i) => `No message for ${seconds((i.nowMs - (i.lastMessageMs ?? 0)) / 1000)}; reconnecting.`,
  },
  { code: "failed", holds: (i) => i.failed !== null, text: (i) => `The heatmap could not be loaded: ${i.failed}.` },
  { code: "loading", holds: (i) => !i.loaded, text: () => "Loading the heatmap." },
  {
    code: "restarted",
    holds: (i) => i.restarted,
    text: () => "The engine has restarted; this picture is from before and a new one is being loaded.",
  },
  { code: "gap", holds: (i) => i.unhealedGap !== null, text: (i) => `${i.unhealedGap}; fetching.` },
  { code: "map", holds: (i) => isOld(i.map, LIMITS_S.map), text: (i) => old("liquidation map", i.map, LIMITS_S.map) },
  { code: "book", holds: (i) => isOld(i.book, LIMITS_S.book), text: (i) => old("order book", i.book, LIMITS_S.book) },
];

/** @param {LayerInput} layer @param {number} limitS */
function isOld(layer, limitS) {
  return layer.shown && (layer.stale || (layer.ageS !== null && layer.ageS > limitS));
}

/** @param {string} name @param {LayerInput} layer @param {number} limitS */
function old(name, layer, limitS) {
  if (layer.ageS === null) return `There is no column of the ${name} yet.`;
  if (layer.ageS > limitS) return `The newest column of the ${name} is ${seconds(layer.ageS)} old (limit ${limitS} s).`;
  return `The server marks the newest column of the ${name} as stale.`;
}

/** @param {number} value */
function seconds(value) {
  const whole = Math.max(0, Math.floor(value));
  return whole < 600 ? `${whole} s` : whole < 36_000 ? `${Math.floor(whole / 60)} min` : `${Math.floor(whole / 3600)} h`;
}

/**
 * The badge. While no message has come yet `lastMessageMs` is when the page began to wait for one.
 *
 * @param {Inputs} inputs
 * @returns {Verdict}
 */
export function judge(inputs) {
  const causes = CAUSES.filter((cause) => cause.holds(inputs));
  const codes = causes.map((cause) => cause.code);
  const why = causes[0]?.text(inputs);
  const { buffered } = inputs;
  if (inputs.paused) {
    const waiting = inputs.overflow
      ? "Paused by you; more came than fits, so a new picture is loaded when you go on."
      : `Paused by you; ${buffered} column${buffered === 1 ? "" : "s"} waiting.`;
    const reason = why === undefined ? waiting : `${waiting.slice(0, -1)}. Also stale: ${why}`;
    return { badge: "PAUSED", reason, alsoStale: why !== undefined, dimmed: why !== undefined, codes, buffered };
  }
  if (why !== undefined) return { badge: "STALE", reason: why, alsoStale: false, dimmed: true, codes, buffered };
  return { badge: "LIVE", reason: "New columns are drawn as they come.", alsoStale: false, dimmed: false, codes, buffered };
}
