/**
 * Order of the table of zones. Pure.
 *
 * @typedef {import("../types/contract.js").Zone} Zone
 * @typedef {"price"|"distance"|"usd"|"source"|"age"|"leverage"} Key
 * @typedef {{key: Key, descending: boolean}} Order
 */

import { distance } from "./format.js";

/** What a first click on a column means: nearest, largest, youngest first, prices as on the chart. @type {Record<Key, boolean>} */
export const DESCENDING = { price: true, distance: false, usd: true, source: false, age: false, leverage: true };

/** @type {Record<Key, (zone: Zone, mark: number|null) => number|string|null>} */
const VALUES = {
  price: (zone) => zone.price,
  distance: (zone, mark) => {
    const found = distance(zone.price, mark);
    return found === null ? null : Math.abs(found);
  },
  usd: (zone) => zone.notional_usd,
  source: (zone) => zone.source,
  age: (zone) => zone.age_min,
  leverage: (zone) => zone.dominant_leverage,
};

/**
 * Sorted anew; what has no value comes last either way, equal ones by USD, largest first, then by id.
 *
 * @param {readonly Zone[]} zones
 * @param {Order} order
 * @param {number|null} mark
 * @returns {Zone[]}
 */
export function ordered(zones, { key, descending }, mark) {
  const valueOf = VALUES[key];
  return zones
    .map((zone) => ({ zone, value: valueOf(zone, mark) }))
    .sort((one, other) => {
      if (one.value !== other.value) {
        if (one.value === null) return 1;
        if (other.value === null) return -1;
        return (one.value < other.value ? -1 : 1) * (descending ? -1 : 1);
      }
      return other.zone.notional_usd - one.zone.notional_usd || (one.zone.id < other.zone.id ? -1 : 1);
    })
    .map(({ zone }) => zone);
}

/**
 * The order after a click on a header: the same column turns round, another one starts as it makes sense.
 *
 * @param {Order} order
 * @param {Key} key
 * @returns {Order}
 */
export const clicked = (order, key) => ({ key, descending: order.key === key ? !order.descending : DESCENDING[key] });

/**
 * The zone that covers a price: the nearest within `within` USD, the larger of two as near; null if there is none.
 *
 * @param {readonly Zone[]} zones
 * @param {number} price
 * @param {number} within
 * @returns {Zone|null}
 */
export function zoneAt(zones, price, within) {
  /** @type {Zone|null} */
  let found = null;
  let least = within;
  for (const zone of zones) {
    const away = Math.abs(zone.price - price);
    if (away < least || (away === least && zone.notional_usd > (found?.notional_usd ?? -1))) [found, least] = [zone, away];
  }
  return found;
}

/**
 * The nearest zones on both sides of the mark.
 *
 * @param {readonly Zone[]} zones
 * @param {number|null} mark
 * @returns {{above: Zone|null, below: Zone|null}}
 */
export function nearest(zones, mark) {
  /** @type {{above: Zone|null, below: Zone|null}} */
  const found = { above: null, below: null };
  if (mark === null) return found;
  for (const zone of zones) {
    if (zone.price > mark && zone.price < (found.above?.price ?? Infinity)) found.above = zone;
    if (zone.price < mark && zone.price > (found.below?.price ?? -Infinity)) found.below = zone;
  }
  return found;
}

/** @param {readonly Zone[]} zones @param {"long"|"short"} side @returns {Zone|null} */
export function largest(zones, side) {
  /** @type {Zone|null} */
  let found = null;
  for (const zone of zones) if (zone.side === side && zone.notional_usd > (found?.notional_usd ?? 0)) found = zone;
  return found;
}

/**
 * USD of the zones on both sides of the mark, not farther than `pct` per cent; null without a mark.
 *
 * @param {readonly Zone[]} zones
 * @param {number|null} mark
 * @param {number} pct
 */
export function sumsWithin(zones, mark, pct) {
  if (mark === null) return { above: null, below: null };
  const sums = { above: 0, below: 0 };
  for (const { price, notional_usd: usd } of zones) {
    const away = distance(price, mark) ?? Infinity;
    if (Math.abs(away) <= pct) sums[away > 0 ? "above" : "below"] += usd;
  }
  return sums;
}
