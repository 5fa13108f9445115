/**
 * What the server has to say of some channels, each thing once and in order, over whichever way gets through: WebSocket, event stream,
 * polling.
 *
 * A channel is a position (epoch, seq) that outlives connections; `sequence.js` decides of every message whether it is the next one.
 * What a connection loses, the next one is asked for; what cannot be had any more is told as `gap`, before what follows it.
 *
 * Events (CustomEvent; `channel` e.g. `depth.BTC`, `symbol` its second half, `kind` its first):
 * - `column` {channel, kind, symbol, column, way}
 * - `events` {channel, symbol, items, epoch, seq, stale, way}
 * - `zones` {channel, symbol, way, data, epoch, seq, stale}
 * - `candle`, `book`, `levels`, `oi`, `status` {channel, symbol, data, epoch, seq, stale}
 * - `gap` {channel, kind, symbol, epoch, from, to}: these numbers have to be fetched
 * - `reset` {channel, kind, symbol, from, epoch}: the channel goes on in another life; its snapshot follows
 * - `beat` {nowMs, heads, exchanges, conflated}
 * - `transport` {name, state: "connecting"|"open"|"waiting", reason, retryAtMs}
 * - `fault` {channel, message}: something came that makes no sense and was left out
 *
 * @typedef {import("./sequence.js").Channel} Channel
 * @typedef {import("./transport_ws.js").Link} Link
 * @typedef {import("./transport_ws.js").End} End
 * @typedef {import("./types.js").Column} Column
 * @typedef {"ws"|"sse"|"poll"} Way
 */

import { backoffMs } from "./api.js";
import { adjust } from "./clock.js";
import { accept, channelOf, heard, skip } from "./sequence.js";
import { openPoll } from "./transport_poll.js";
import { openSse } from "./transport_sse.js";
import { openWs } from "./transport_ws.js";

const OPEN = { ws: openWs, sse: openSse, poll: openPoll };
/** @type {readonly Way[]} */
export const LADDER = ["ws", "sse", "poll"];
/** A connection that says nothing for so long is taken for dead; the server beats every 5 s. */
const SILENCE_MS = 15_000;
const WATCH_MS = 1000;
/** The server takes 10 commands a second; a change is at most two. */
const SYNC_MS = 250;
/** So often a way may fail before it has said anything until the next one is tried. */
const TRIES = 2;
/** After so long on a lower way the end of a connection is a reason to try from the top. */
const UPGRADE_MS = 600_000;

export class Feed extends EventTarget {
  #api;
  #decoder;
  #ladder;
  /** @type {Map<string, Channel>} */
  #channels = new Map();
  /** Number in binary messages -> channel, of this connection. @type {Map<number, string>} */
  #numbers = new Map();
  /** Channels that came or came back since the link was told. @type {Set<string>} */
  #fresh = new Set();
  /** Channels that the server does not have. @type {Set<string>} */
  #refused = new Set();
  /** @type {Link|null} */
  #link = null;
  /** Messages are handled one after the other, though decoding takes its time. */
  #chain = Promise.resolve();
  #rung = 0;
  #rungFailures = 0;
  #failures = 0;
  #healthy = false;
  #startedMs = 0;
  #heardMs = Date.now();
  #syncedMs = 0;
  #conflated = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #sync;
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #watch;
  #closed = false;
  /** Since the start. `old`: had been delivered before. */
  stats = { messages: 0, bytes: 0, connections: 0, old: 0, gaps: 0, resets: 0, faults: 0, conflated: 0 };

  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {{heatmap(b: ArrayBuffer): Promise<import("./types.js").Snapshot>, column(b: ArrayBuffer): Promise<Column>, columnJson(data: any, envelope: any): Promise<Column>}} parts.decoder
   * @param {readonly Way[]} [parts.ladder] ways to try, best first
   */
  constructor({ api, decoder, ladder = LADDER }) {
    super();
    this.#api = api;
    this.#decoder = decoder;
    this.#ladder = ladder;
    this.#api.addEventListener("key", this.#now);
    globalThis.addEventListener?.("online", this.#now);
  }

  /** How long nothing has come, ms. */
  get silentMs() {
    return Date.now() - this.#heardMs;
  }

  /** Way in use or being tried. */
  get way() {
    return this.#ladder[this.#rung] ?? "poll";
  }

  /** Where one stands in a channel; null before its first message. @param {string} name */
  position(name) {
    return this.#channels.get(name)?.held ?? null;
  }

  /** Follow exactly these channels; those that go on keep their place. @param {readonly string[]} names */
  subscribe(names) {
    for (const name of [...this.#channels.keys()]) if (!names.includes(name)) this.#channels.delete(name);
    for (const name of names) {
      if (this.#channels.has(name)) continue;
      this.#channels.set(name, channelOf(name));
      this.#fresh.add(name); // even if it was followed a moment ago: its snapshot has to come again
    }
    if (this.#watch === undefined && !this.#closed) {
      this.#heardMs = Date.now();
      this.#watch = setInterval(() => this.#look(), WATCH_MS);
      this.#connect();
    }
    this.#syncSoon();
  }

  /** Begin a channel anew with a snapshot. @param {string} name */
  renew(name) {
    if (!this.#channels.has(name)) return;
    this.#channels.set(name, channelOf(name));
    this.#link?.renew([name]);
  }

  /** Ends the connection; nothing is told any more. */
  close() {
    this.#closed = true;
    this.#api.removeEventListener("key", this.#now);
    globalThis.removeEventListener?.("online", this.#now);
    clearTimeout(this.#retry);
    clearTimeout(this.#sync);
    clearInterval(this.#watch);
    this.#link?.close();
    this.#link = null;
    this.#channels.clear();
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    if (!this.#closed) this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Connections

  #connect() {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#closed) return;
    const { way } = this;
    this.#numbers.clear();
    this.#healthy = false;
    this.#conflated = 0;
    this.#startedMs = Date.now();
    for (const [name, channel] of this.#channels) this.#channels.set(name, { ...channel, reset: false, behind: 0 });
    this.#tell("transport", { name: way, state: "connecting", reason: "", retryAtMs: null });
    /** @type {Link} */
    const link = OPEN[way]({
      api: this.#api,
      decoder: this.#decoder,
      positionOf: (name) => this.position(name),
      hooks: {
        opened: () => {
          if (link !== this.#link) return;
          this.stats.connections += 1;
          this.#tell("transport", { name: way, state: "open", reason: "", retryAtMs: null });
        },
        message: (message, bytes) => this.#receive(link, message, bytes),
        ended: (end) => this.#end(link, end),
      },
    });
    this.#link = link;
    link.sync(this.#wanted(), []);
    this.#fresh.clear();
  }

  /** At once, where a pause would be pointless: there is a key, or a network. */
  #now = () => {
    if (this.#watch === undefined || this.#closed) return;
    if (this.#link !== null && this.#healthy) return;
    this.#link?.close();
    this.#link = null;
    this.#failures = 0;
    this.#connect();
  };

  /** @param {Link} link @param {End} end */
  #end(link, end) {
    if (link !== this.#link || this.#closed) return;
    link.close();
    this.#link = null;
    if (end.refused) for (const name of this.#channels.keys()) if (/^(depth|book)\./.test(name)) this.#refused.add(name);
    if (this.#healthy) {
      this.#failures = this.#rungFailures = 0;
      if (end.waitMs === 0 || Date.now() - this.#startedMs > UPGRADE_MS) this.#rung = 0;
    } else {
      this.#failures += 1;
      if (!end.unreachable && !end.unauthorized && (this.#rungFailures += 1) >= TRIES) {
        this.#rung = (this.#rung + 1) % this.#ladder.length;
        this.#rungFailures = 0;
      }
    }
    if (end.unauthorized) {
      this.#api.refused();
      this.#tell("transport", { name: this.way, state: "waiting", reason: "unauthorized", retryAtMs: null });
      return; // until there is a key
    }
    const waitMs = end.waitMs ?? backoffMs(this.#failures);
    this.#tell("transport", { name: this.way, state: "waiting", reason: end.reason, retryAtMs: Date.now() + waitMs });
    this.#retry = setTimeout(() => this.#connect(), waitMs);
  }

  #look() {
    const link = this.#link;
    if (link !== null && Date.now() - Math.max(this.#heardMs, this.#startedMs) > SILENCE_MS) {
      this.#end(link, { reason: `nothing came for ${SILENCE_MS / 1000} s` });
    }
  }

  #wanted() {
    return [...this.#channels.keys()].filter((name) => !this.#refused.has(name));
  }

  #syncSoon() {
    if (this.#sync !== undefined) return;
    const sync = () => {
      this.#sync = undefined;
      this.#syncedMs = Date.now();
      this.#link?.sync(this.#wanted(), [...this.#fresh]);
      this.#fresh.clear();
    };
    const waitMs = this.#syncedMs + SYNC_MS - Date.now();
    if (waitMs <= 0) sync();
    else this.#sync = setTimeout(sync, waitMs);
  }

  // Messages

  /** @param {Link} link @param {string | ArrayBuffer | Record<string, any>} message @param {number} bytes */
  #receive(link, message, bytes) {
    if (link !== this.#link) return;
    this.#heardMs = Date.now();
    this.stats.messages += 1;
    this.stats.bytes += bytes;
    // What a connection that is over has said is not lost: the position still is before it.
    this.#chain = this.#chain.then(async () => {
      if (link !== this.#link) return;
      try {
        if (message instanceof ArrayBuffer) await this.#binary(link, message);
        else await this.#envelope(link, typeof message === "string" ? JSON.parse(message) : message);
      } catch (error) {
        this.#fault("", error);
        this.#healthy = false;
        this.#end(link, { reason: "a message that makes no sense" });
      }
    });
  }

  /** @param {string} channel @param {unknown} error */
  #fault(channel, error) {
    this.stats.faults += 1;
    this.#tell("fault", { channel, message: error instanceof Error ? error.message : String(error) });
  }

  /** @param {Link} link @param {ArrayBuffer} buffer */
  async #binary(link, buffer) {
    const number = buffer.byteLength >= 10 ? new DataView(buffer).getUint16(8, true) : -1;
    const name = this.#numbers.get(number);
    if (name === undefined) return; // unsubscribed a moment ago
    await this.#decoded(link, name, null, () => this.#decoder.column(buffer));
  }

  /**
   * A column in any form. One that cannot be read is left out and told; the position stays, so that it is fetched as a gap.
   *
   * @param {Link} link @param {string} name @param {"snapshot"|"delta"|null} way null: as its flags say
   * @param {() => Promise<Column>} decode
   */
  async #decoded(link, name, way, decode) {
    /** @type {Column} */
    let column;
    try {
      column = await decode();
    } catch (error) {
      if (link === this.#link) this.#fault(name, error);
      return;
    }
    if (link !== this.#link || !this.#channels.has(name)) return;
    this.#healthy = true;
    const place = this.#placeOf(name);
    const found = way ?? (column.flags.includes("snapshot") ? "snapshot" : "delta");
    if (column.flags.includes("provisional") || this.#accept(name, { ...column, way: found })) {
      this.#tell("column", { ...place, column, way: found });
    }
  }

  /** @param {string} name */
  #placeOf(name) {
    const [kind = "", symbol = ""] = name.split(".");
    return { channel: name, kind, symbol };
  }

  /** The sequence rule; whether to take the message. @param {string} name @param {import("./sequence.js").Message} message */
  #accept(name, message) {
    const channel = this.#channels.get(name);
    if (channel === undefined) return false;
    const { verdict, missing, channel: next } = accept(channel, message);
    this.#channels.set(name, next);
    if (verdict === "old") {
      this.stats.old += 1;
      return false;
    }
    if (verdict === "reset") {
      this.stats.resets += 1;
      this.#tell("reset", { ...this.#placeOf(name), from: channel.held, epoch: message.epoch });
    }
    if (missing !== null) this.#missing(name, message.epoch, missing);
    return true;
  }

  /** @param {string} name @param {number} epoch @param {import("./sequence.js").Missing} missing */
  #missing(name, epoch, missing) {
    this.stats.gaps += 1;
    this.#tell("gap", { ...this.#placeOf(name), epoch, ...missing });
  }

  /** @param {Link} link @param {Record<string, any>} message */
  async #envelope(link, message) {
    switch (message.type) {
      case "snapshot":
      case "delta":
        return this.#data(link, message, message.type);
      case "gap": {
        const channel = this.#channels.get(message.ch);
        if (channel === undefined) return;
        const { missing, channel: next } = skip(channel, { epoch: message.epoch, to: message.data.to });
        this.#channels.set(message.ch, next);
        if (missing !== null) this.#missing(message.ch, message.epoch, missing);
        return;
      }
      case "reset": {
        const channel = this.#channels.get(message.ch);
        if (channel !== undefined) this.#channels.set(message.ch, { ...channel, reset: true });
        return;
      }
      case "health": // of polling, which has no number
        this.#tell("status", { channel: "status", symbol: "", way: "snapshot", data: message.data, epoch: 0, seq: 0, stale: false });
        return;
      case "beat":
        return this.#beat(link, message);
      case "ack":
        return this.#ack(message);
      case "error":
        // Too many commands or channels, or one that is not understood: as good as unhealthy, but what comes still counts.
        if (message.error === "unauthorized" || message.error === "forbidden") this.#end(link, { reason: message.error, unauthorized: true });
        else this.#fault("", new Error(`the server refused a command: ${message.error}`));
        return;
      case "bye":
        return this.#end(link, {
          reason: `bye: ${message.reason}`,
          waitMs: message.reconnect_in_ms ?? null,
          unauthorized: message.reason === "unauthorized",
        });
      default: // types that are added later
    }
  }

  /** @param {Link} link @param {Record<string, any>} message @param {"snapshot"|"delta"} way */
  async #data(link, message, way) {
    const name = message.ch;
    const channel = this.#channels.get(name);
    if (channel === undefined) return;
    if (channel.kind === "columns") {
      return this.#decoded(link, name, way, async () => message.column ?? (await this.#decoder.columnJson(message.data, message)));
    }
    this.#healthy = true;
    const { epoch, seq, prev, stale, data } = message;
    if (!Number.isSafeInteger(epoch) || !Number.isSafeInteger(seq)) throw new Error(`a message of ${name} without a number`);
    const { kind, symbol } = this.#placeOf(name);
    if (channel.kind !== "events") {
      if (this.#accept(name, { way, epoch, seq, prev })) {
        this.#tell(kind === "candles" ? "candle" : kind, { channel: name, symbol, way, data, epoch, seq, stale });
      }
      return;
    }
    const held = channel.held;
    /** @type {import("../types/contract").Liquidation[]} */
    const items = data.items;
    if (!this.#accept(name, { way, epoch, seq, prev, first: items[0]?.seq ?? seq + 1 })) return;
    const after = held !== null && held.epoch === epoch ? held.seq : -1;
    const fresh = items.filter((one) => one.seq > after);
    if (fresh.length) this.#tell("events", { channel: name, symbol, way, items: fresh, epoch, seq, stale });
  }

  /** @param {Link} link @param {Record<string, any>} message */
  #beat(link, message) {
    this.#healthy = true;
    adjust(message.now_ms);
    this.stats.conflated += Math.max(0, message.conflated - this.#conflated);
    this.#conflated = message.conflated;
    const behind = [];
    for (const [name, [epoch, seq]] of /** @type {[string, [number, number]][]} */ (Object.entries(message.heads))) {
      const channel = this.#channels.get(name);
      if (channel === undefined) continue;
      const { renew, channel: next } = heard(channel, { epoch, seq });
      this.#channels.set(name, next);
      if (renew) behind.push(name);
    }
    if (behind.length) link.renew(behind);
    this.#tell("beat", {
      nowMs: message.now_ms, heads: message.heads, exchanges: message.exchanges, conflated: this.stats.conflated,
    });
  }

  /** @param {Record<string, any>} message */
  #ack(message) {
    for (const [name, one] of Object.entries(message.channels)) this.#numbers.set(one.no, name);
    for (const [name, code] of Object.entries(message.errors ?? {})) {
      if (code === "no_orderbook") this.#refused.add(name);
      else if (this.#channels.has(name)) this.#fault(name, new Error(`the server does not give ${name}: ${code}`));
    }
  }
}
