/** Numbers, times and names as people read them. Pure. What is missing is an en dash, never 0. */

export const NONE = "–";
const MINUS = "−";
const UNITS = /** @type {const} */ ([[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]);
const MULTIPLIERS = { "": 1, k: 1e3, m: 1e6, b: 1e9, t: 1e12 };
const PRICE_DIGITS = /** @type {const} */ ([[10_000, 1], [10, 2], [1, 3], [0.1, 4], [0, 6]]);
const VENUE_NAMES = /** @type {Record<string, string>} */ ({
  binance: "Binance", bybit: "Bybit", okx: "OKX", gate: "Gate", bitget: "Bitget", hyperliquid: "Hyperliquid",
});
const VENUE_BITS = /** @type {const} */ ([[1, "binance"], [2, "bybit"], [4, "okx"], [8, "gate"], [16, "bitget"]]);
/** What a venue's public liquidation feed carries: [text, whether its sum is a lower bound]. */
const FEEDS = /** @type {Record<string, readonly [string, boolean]>} */ ({
  largest_1s: ["only the largest of each second", true],
  largest_per_side_1s: ["only the largest of each side and second", true],
  batched_1s: ["batches of one second", false],
  all_500ms: ["all, every 500 ms", false],
  partial: ["a part of them", true],
  none: ["no public liquidation feed", true],
});
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** @param {number | null | undefined} value @returns {value is number} */
const known = (value) => typeof value === "number" && Number.isFinite(value);

/**
 * `1.2M`, `340k`: `digits` significant digits.
 *
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function compact(value, digits = 2) {
  if (!known(value)) return NONE;
  const rounded = Number(value.toPrecision(digits));
  const sign = rounded < 0 ? MINUS : "";
  const size = Math.abs(rounded);
  for (const [unit, suffix] of UNITS) {
    if (size >= unit) return `${sign}${Number((size / unit).toPrecision(Math.max(digits, 3)))}${suffix}`;
  }
  return `${sign}${size}`;
}

/** An estimate in USD, two significant digits, as its cell knows it no better. @param {number | null | undefined} value */
export const about = (value) => (known(value) ? `≈ $${compact(value)}` : NONE);

/** What was measured, in whole USD. @param {number | null | undefined} value */
export const exactUsd = (value) => (known(value) ? `$${grouped(value, 0)}` : NONE);

/** @param {number} value @param {number} digits */
function grouped(value, digits) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A price in USD with the digits that its size calls for. @param {number | null | undefined} value */
export function price(value) {
  if (!known(value)) return NONE;
  const digits = PRICE_DIGITS.find(([least]) => Math.abs(value) >= least)?.[1] ?? 6;
  return grouped(value, digits);
}

/** How far `value` lies from `from`, in per cent; null where one of them is missing. @param {number | null | undefined} value @param {number | null | undefined} from */
export const distance = (value, from) => (known(value) && known(from) && from > 0 ? (value / from - 1) * 100 : null);

/** `+1.24%`. @param {number | null | undefined} value */
export function signedPercent(value) {
  if (!known(value)) return NONE;
  const digits = Math.abs(value).toFixed(2);
  return `${Number(digits) === 0 ? "" : value < 0 ? MINUS : "+"}${digits}%`;
}

/** `35%` of a share of 1. @param {number | null | undefined} value @param {number} [digits] */
export const percent = (value, digits = 0) => (known(value) ? `${(value * 100).toFixed(digits)}%` : NONE);

/** `12 s`, `4 min`, `2 h`, `3 d`. @param {number | null | undefined} seconds */
export function age(seconds) {
  if (!known(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 100) return `${whole} s`;
  if (whole < 6000) return `${Math.round(whole / 60)} min`;
  return whole < 172_800 ? `${Math.round(whole / 3600)} h` : `${Math.round(whole / 86_400)} d`;
}

/** `12 ms`, `1.4 s`; clocks may differ, so it may be negative. @param {number | null | undefined} ms */
export function lag(ms) {
  if (!known(ms)) return NONE;
  const size = Math.abs(ms);
  const text = size < 1000 ? `${Math.round(size)} ms` : `${(size / 1000).toFixed(1)} s`;
  return ms < 0 && text !== "0 ms" ? MINUS + text : text;
}

/** @param {number} value */
const two = (value) => String(value).padStart(2, "0");

/** `14:03` or `14:03:20`, UTC. @param {number | null | undefined} ms @param {boolean} [withSeconds] */
export function clock(ms, withSeconds = false) {
  if (!known(ms)) return NONE;
  const at = new Date(ms);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}${withSeconds ? `:${two(at.getUTCSeconds())}` : ""}`;
}

/** `21 Nov 14:03`, UTC. @param {number | null | undefined} ms */
export function stamp(ms) {
  if (!known(ms)) return NONE;
  const at = new Date(ms);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${clock(ms)}`;
}

/**
 * A number of USD as people type it: `250k`, `1.5 M`, `1,000,000`, `$2m`, `1e6`.
 *
 * @param {string} text
 * @returns {number | null} null: not one
 */
export function parseUsd(text) {
  const match = /^\$?\s*(\d{1,15}(?:\.\d{1,9})?(?:e\d{1,2})?)\s*([kmbt]?)$/i.exec(text.replace(/[,_\s]/g, ""));
  if (!match) return null;
  return Number(match[1]) * MULTIPLIERS[/** @type {keyof typeof MULTIPLIERS} */ ((match[2] ?? "").toLowerCase())];
}

/** @param {string} venue */
export const venueName = (venue) => VENUE_NAMES[venue] ?? venue;

/** Names of a bit set of venues. @param {number} bits */
export const venuesOfBits = (bits) => VENUE_BITS.filter(([bit]) => bits & bit).map(([, venue]) => venueName(venue));

/** Bit of a venue in such a set; 0: it sends no liquidations. @param {string} venue */
export const bitOfVenue = (venue) => VENUE_BITS.find(([, name]) => name === venue)?.[0] ?? 0;

/**
 * What a venue's liquidation feed carries. `bound`: it leaves some out, so sums are a lower bound.
 *
 * @param {string | null | undefined} sampling
 */
export function feedText(sampling) {
  const found = FEEDS[sampling ?? ""];
  return { text: found?.[0] ?? "not known yet", bound: found?.[1] ?? false, none: sampling === "none" };
}

/**
 * Shares of leverage tiers, largest first, those below 1 % left out.
 *
 * @param {Record<string, number>} contributions
 * @returns {{tier: number, share: number}[]}
 */
export function leverageMix(contributions) {
  const all = Object.entries(contributions);
  const sum = all.reduce((total, [, weight]) => total + weight, 0);
  if (!(sum > 0)) return [];
  return all
    .map(([tier, weight]) => ({ tier: Number(tier), share: weight / sum }))
    .filter((one) => one.share >= 0.01)
    .sort((one, other) => other.share - one.share || one.tier - other.tier);
}

/** `100× 95%, 125× 5%`. @param {Record<string, number>} contributions @param {number} [most] */
export function mixText(contributions, most = 3) {
  const mix = leverageMix(contributions);
  const shown = mix.slice(0, most).map(({ tier, share }) => `${tier}× ${percent(share)}`);
  if (mix.length > most) shown.push(`+${mix.length - most}`);
  return shown.join(", ") || "no tiers";
}

/** Where a zone's USD comes from. @param {string} source */
export const sourceText = (source) =>
  ({ inference: "projected", tape: "tape", combined: "both", sweep: "swept" })[source] ?? source;
