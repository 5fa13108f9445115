/**
 * Zones kept up to date by deltas, checked by their CRC-32; and which of them are shown. Pure.
 *
 * @typedef {import("../types/contract").Zone} Zone
 * @typedef {import("../types/contract").ZonesSnapshot} ZonesSnapshot
 * @typedef {import("../types/contract").ZonesDelta} ZonesDelta
 * @typedef {ReadonlyMap<string, Zone>} ZoneTable by id
 */

import { crc32 } from "./crc32.js";

/** A zone passes a filter of tiers when these hold this share of its weight, as in `/liq_zones`. */
const TIER_SHARE = 0.01;
const ENCODER = new TextEncoder();

/**
 * CRC-32 of `id:weight%.4f;` over zones by id. Weights come with 4 decimals, so no rounding is left to differ between languages.
 *
 * @param {Iterable<Zone>} zones
 */
export function zonesCrc32(zones) {
  const ordered = [...zones].sort((one, other) => (one.id < other.id ? -1 : Number(one.id > other.id)));
  return crc32(ENCODER.encode(ordered.map((zone) => `${zone.id}:${zone.weight.toFixed(4)};`).join("")));
}

/**
 * All zones anew; null where they do not check out.
 *
 * @param {ZonesSnapshot} snapshot
 * @returns {ZoneTable | null}
 */
export function tableOf(snapshot) {
  return checked(new Map(snapshot.zones.map((zone) => [zone.id, zone])), snapshot);
}

/**
 * The table after changed and removed zones; null where it does not check out. `table` is left as it is.
 *
 * @param {ZoneTable} table
 * @param {ZonesDelta} delta
 * @returns {ZoneTable | null}
 */
export function applied(table, delta) {
  const zones = new Map(table);
  for (const id of delta.removed) zones.delete(id);
  for (const zone of delta.set) zones.set(zone.id, zone);
  return checked(zones, delta);
}

/** @param {Map<string, Zone>} zones @param {{count: number, crc32: number}} told */
function checked(zones, told) {
  return zones.size === told.count && zonesCrc32(zones.values()) === told.crc32 ? zones : null;
}

/**
 * Zones that pass, heaviest first, then by price, as `/liq_zones` orders them.
 *
 * @param {Iterable<Zone>} zones
 * @param {{tiers: readonly number[] | null, minUsd: number}} filter `tiers`: those that must hold 1 % of the weight; null: any
 * @returns {Zone[]}
 */
export function shownZones(zones, { tiers, minUsd }) {
  const held = (/** @type {Zone} */ zone) => {
    const weights = Object.entries(zone.tier_contributions).filter(([tier]) => tiers?.includes(Number(tier)));
    return weights.length > 0 && weights.reduce((sum, [, weight]) => sum + weight, 0) >= TIER_SHARE * zone.weight;
  };
  return [...zones]
    .filter((zone) => zone.notional_usd >= minUsd && (tiers === null || held(zone)))
    .sort((one, other) => other.weight - one.weight || one.price - other.price);
}
