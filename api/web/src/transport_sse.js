/**
 * Push over server-sent events, read with `fetch`: `EventSource` cannot send a key.
 *
 * @typedef {import("./transport_ws.js").Context} Context
 * @typedef {import("./transport_ws.js").Link} Link
 */

import { ApiError } from "./api.js";
import { requested } from "./requested.js";

/** No event is larger. */
const MAX_EVENT_CHARS = 8 << 20;

/**
 * Events out of text in whatever pieces it comes (WHATWG's format; of each event the data, which is all that is needed, for a
 * message says itself what it is). Pure.
 */
export class SseParser {
  #rest = "";
  /** @type {string[]} */
  #data = [];

  /**
   * @param {string} piece
   * @returns {string[]} data of the events that it completes
   */
  feed(piece) {
    let text = this.#rest + piece;
    // A CR at the end may be the first half of a CR LF.
    const held = text.endsWith("\r") ? "\r" : "";
    if (held) text = text.slice(0, -1);
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? "") + held;
    /** @type {string[]} */
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    if (this.#rest.length > MAX_EVENT_CHARS) throw new Error("an event has no end");
    return events;
  }
}

/** @param {Context} context @returns {Link} */
export function openSse({ api, positionOf, hooks }) {
  /** @param {readonly string[]} names @param {AbortSignal} signal */
  async function read(names, signal) {
    const places = names.flatMap((name) => {
      const held = positionOf(name);
      return held === null ? [] : [`${name}:${held.epoch}:${held.seq}`];
    });
    const resume = /** @type {Record<string, string>} */ (places.length ? { "Last-Event-ID": places.join(";") } : {});
    const { key } = api;
    const response = await fetch(api.url("stream", { channels: names, cell: "u8log" }), {
      headers: { ...api.headers(), Accept: "text/event-stream", ...resume },
      cache: "no-store",
      signal,
    });
    if (!response.ok) throw await api.errorOf(response, key);
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || response.body === null) {
      throw new ApiError(response.status, "no_stream", "the answer is no event stream");
    }
    hooks.opened();
    const parser = new SseParser();
    const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece = await pieces.read(); !piece.done && !signal.aborted; piece = await pieces.read()) {
      for (const data of parser.feed(piece.value)) hooks.message(data, data.length);
    }
  }

  return requested({ hooks, run: read, ended: { reason: "the stream ended" } });
}
