/**
 * What pushes say, asked for: where nothing else gets through. Columns by `/heatmap?since_ms=`, events by `/liquidations?after=`, states
 * as a whole, all with ETag. The answers become the same envelopes as pushes, so that one rule of numbers holds for all. Channels
 * `levels`, `oi` and `book` are not asked for.
 *
 * @typedef {import("./transport_ws.js").Context} Context
 * @typedef {import("./transport_ws.js").Link} Link
 * @typedef {import("./types.js").Column} Column
 * @typedef {import("./types.js").Snapshot} Snapshot
 */

import { ApiError, sleep } from "./api.js";
import { columnsOf } from "./heal.js";
import { requested } from "./requested.js";
import { zonesCrc32 } from "./zone_rows.js";

const PERIOD_MS = 8000;
/** So long until the better ways are tried again. */
const UPGRADE_MS = 120_000;
const MINUTES = 10;
const COLUMN_S = /** @type {const} */ ({ depth: 30, liq: 60 });

/** @param {Context} context @returns {Link} */
export function openPoll({ api, decoder, positionOf, hooks }) {
  const startedMs = Date.now();
  /** URL -> what one has. @type {Map<string, string|null>} */
  const tags = new Map();
  /** Channel -> start of its newest column. @type {Map<string, number>} */
  const newest = new Map();

  /**
   * An answer, or null where it is the one that we have, or there is none yet.
   *
   * @param {string} name channel that the tag belongs to
   * @param {string} path @param {import("./api.js").Params} params @param {AbortSignal} signal
   */
  async function ask(name, path, params, signal) {
    const id = `${name} ${api.url(path, params)}`;
    try {
      const answer = await api.get(path, params, { signal, etag: tags.get(id) ?? null });
      if (answer === null) return null;
      for (const known of tags.keys()) if (known.startsWith(`${name} `)) tags.delete(known);
      tags.set(id, answer.etag);
      return answer.response;
    } catch (error) {
      if (error instanceof ApiError && (error.code === "no_frame" || error.code === "not_ready")) return null;
      throw error;
    }
  }

  /** @param {Record<string, any>} envelope @param {number} bytes */
  const tell = (envelope, bytes) => hooks.message({ ts_ms: Date.now(), stale: false, ...envelope }, bytes);
  /** @param {Response} response */
  const staleOf = (response) => response.headers.get("X-Stale") === "true";

  /** @param {"depth"|"liq"} kind @param {string} name @param {string} symbol @param {AbortSignal} signal */
  async function columns(kind, name, symbol, signal) {
    const params = {
      symbol, minutes: MINUTES, layers: kind, dt_s: COLUMN_S[kind], k: 1, max_rows: 2000, format: "bin", since_ms: newest.get(name),
    };
    const response = await ask(name, "heatmap", params, signal);
    if (response === null) return;
    const buffer = await response.arrayBuffer();
    const bytes = buffer.byteLength;
    const snapshot = await decoder.heatmap(buffer);
    const held = positionOf(name);
    const found = columnsOf(snapshot, kind).filter((one) => held === null || one.epoch !== held.epoch || one.seq > held.seq);
    const last = found.at(-1);
    if (last === undefined) return;
    newest.set(name, last.tMs);
    const anew = held === null || held.epoch !== last.epoch;
    for (const one of anew ? [last] : found) {
      const stale = one === last && staleOf(response);
      const column = { ...one, stale };
      const way = anew ? "snapshot" : "delta";
      if (held !== null && anew) tell({ ch: name, type: "reset", epoch: last.epoch, seq: last.seq, prev: -1, data: {} }, 0);
      tell({ ch: name, type: way, epoch: one.epoch, seq: one.seq, prev: one.seq - 1, stale, column }, one === last ? bytes : 0);
    }
  }

  /** @param {string} name @param {string} symbol @param {AbortSignal} signal */
  async function events(name, symbol, signal) {
    const held = positionOf(name);
    const place = held === null ? { limit: 50 } : { after: held.seq, epoch: held.epoch, limit: 1000 };
    const response = await ask(name, "liquidations", { symbol, ...place }, signal);
    if (response === null) return;
    const text = await response.text();
    const body = JSON.parse(text);
    if (!body.items.length) return;
    const { epoch, last_seq: seq } = body;
    const type = held === null || body.reset === true ? "snapshot" : "delta";
    if (body.reset === true) tell({ ch: name, type: "reset", epoch, seq, prev: -1, data: {} }, 0);
    const prev = type === "snapshot" ? -1 : body.gap ? body.oldest_seq - 1 : held?.seq;
    tell({ ch: name, type, epoch, seq, prev, stale: staleOf(response), data: { items: body.items } }, text.length);
  }

  /**
   * A state: the whole value as a snapshot.
   *
   * @param {string} name @param {string} path @param {import("./api.js").Params} params @param {AbortSignal} signal
   * @param {(body: any) => unknown} dataOf
   */
  async function state(name, path, params, signal, dataOf) {
    const response = await ask(name, path, params, signal);
    if (response === null) return;
    const text = await response.text();
    const body = JSON.parse(text);
    const data = dataOf(body);
    if (data === null) return;
    tell({ ch: name, type: "snapshot", epoch: body.epoch, seq: body.seq, prev: -1, stale: staleOf(response), data }, text.length);
  }

  /** @param {readonly string[]} names @param {AbortSignal} signal */
  async function health(names, signal) {
    const body = await api.json("health", {}, { signal }).catch((error) => {
      if (error instanceof ApiError && error.status === 503) return api.json("time", {}, { signal });
      throw error;
    });
    const venues = /** @type {[string, {state: string, age_s: number|null}][]} */ (Object.entries(body.exchanges ?? {}));
    const data = {
      status: body.status ?? "starting",
      exchanges: Object.fromEntries(venues.map(([venue, one]) => [venue, one.state])),
      symbols: Object.fromEntries(Object.entries(body.symbols ?? {}).map(([symbol, one]) => [symbol, one.stale])),
    };
    if (names.includes("status")) tell({ type: "health", data }, 0);
    const exchanges = Object.fromEntries(venues.map(([venue, one]) => [venue, one.age_s]));
    tell({ type: "beat", now_ms: body.now_ms, heads: {}, exchanges, conflated: 0 }, JSON.stringify(body).length);
  }

  /** @param {string} name @param {AbortSignal} signal */
  async function poll(name, signal) {
    const [kind = "", symbol = ""] = name.split(".");
    if (kind === "depth" || kind === "liq") await columns(kind, name, symbol, signal);
    else if (kind === "liquidations") await events(name, symbol, signal);
    else if (kind === "zones") await state(name, "liq_zones", { symbol }, signal, zonesOf);
    else if (kind === "candles") await state(name, "candles", { symbol, limit: 1 }, signal, lastCandle);
  }

  /** @param {readonly string[]} names @param {AbortSignal} signal */
  async function run(names, signal) {
    for (let first = true; ; first = false) {
      for (const name of names) await poll(name, signal);
      await health(names, signal);
      if (first) hooks.opened();
      if (Date.now() - startedMs > UPGRADE_MS) return;
      await sleep(PERIOD_MS, signal);
    }
  }

  /** @param {readonly string[]} names */
  function forget(names) {
    for (const id of [...tags.keys()]) if (names.some((name) => id.startsWith(`${name} `))) tags.delete(id);
  }

  return requested({ hooks, run, ended: { reason: "to try a better way", waitMs: 0 }, forget });
}

/** @param {import("../types/contract").Zones} body */
function zonesOf(body) {
  return { zones: body.zones, count: body.zones.length, crc32: zonesCrc32(body.zones) };
}

/**
 * The newest bar of `/candles` as the push has it.
 *
 * @param {any} body
 */
function lastCandle(body) {
  const last = body.count - 1;
  if (last < 0) return null;
  return Object.fromEntries(Object.entries(body).flatMap(([key, value]) => (Array.isArray(value) ? [[key, value[last]]] : [])));
}
