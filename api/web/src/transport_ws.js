/**
 * Push over a WebSocket, columns in their binary form.
 *
 * @typedef {import("./sequence.js").Position} Position
 *
 * @typedef {object} Hooks What a link tells its feed; after `ended` nothing more.
 * @property {() => void} opened
 * @property {(message: string | ArrayBuffer | Record<string, any>, bytes: number) => void} message text of JSON, a binary column, or an
 *   envelope, in order
 * @property {(end: End) => void} ended
 *
 * @typedef {object} End `waitMs`: when to come back, where the server said so. `unreachable`: nobody answers at all, so another way
 *   would not help. `unauthorized`: not without another key. `refused`: the server does not take these channels.
 * @property {string} reason
 * @property {number|null} [waitMs]
 * @property {boolean} [unreachable]
 * @property {boolean} [unauthorized]
 * @property {boolean} [refused]
 *
 * @typedef {object} Link One connection, or what does instead.
 * @property {(names: readonly string[], anew: readonly string[]) => void} sync follow exactly these; those `anew` from their snapshot, even
 *   if they are followed already
 * @property {(names: readonly string[]) => void} renew subscribe these anew
 * @property {() => void} close without a call of `ended`
 *
 * @typedef {object} Context
 * @property {import("./api.js").Api} api
 * @property {{heatmap(buffer: ArrayBuffer): Promise<import("./types.js").Snapshot>}} decoder
 * @property {(name: string) => Position|null} positionOf where to resume a channel
 * @property {Hooks} hooks
 */

const POLICY = 1008;

/** @param {Context} context @returns {Link} */
export function openWs({ api, positionOf, hooks }) {
  const url = new URL(api.url("ws"));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  /** @type {Set<string>} */
  const subscribed = new Set();
  /** @type {readonly string[]} */
  let wanted = [];
  let nextId = 1;
  let opened = false;
  let over = false;

  /** @param {object} command */
  const send = (command) => socket.send(JSON.stringify({ ...command, id: nextId++ }));
  /** @param {readonly string[]} names */
  const subscribe = (names) => {
    if (!names.length) return;
    for (const name of names) subscribed.add(name);
    const from = Object.fromEntries(names.flatMap((name) => {
      const held = positionOf(name);
      return held === null ? [] : [[name, [held.epoch, held.seq]]];
    }));
    send({ op: "subscribe", channels: names, encoding: "bin", ...(Object.keys(from).length ? { from } : {}) });
  };
  /** @param {readonly string[]} names */
  const unsubscribe = (names) => {
    if (!names.length) return;
    for (const name of names) subscribed.delete(name);
    send({ op: "unsubscribe", channels: names });
  };
  /** @param {readonly string[]} anew */
  const flush = (anew) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    unsubscribe([...subscribed].filter((name) => !wanted.includes(name) || anew.includes(name)));
    subscribe(wanted.filter((name) => !subscribed.has(name)));
  };
  /** @param {End} end */
  const finish = (end) => {
    if (over) return;
    over = true;
    hooks.ended(end);
  };

  socket.addEventListener("open", () => {
    if (over) return;
    opened = true;
    // A browser cannot send headers with a WebSocket; the key is the first message.
    if (api.key !== null) send({ op: "auth", key: api.key });
    hooks.opened();
    flush([]);
  });
  socket.addEventListener("message", ({ data }) => {
    if (!over) hooks.message(data, typeof data === "string" ? data.length : data.byteLength);
  });
  socket.addEventListener("close", ({ code }) => {
    if (opened || over) {
      finish({ reason: `closed with ${code}`, waitMs: code === POLICY ? 5000 : null });
      return;
    }
    // What refused it a page is not told. If the server answers otherwise, this way is barred.
    api.get("livez").then(
      () => finish({ reason: "no WebSocket" }),
      (error) => finish({ reason: "unreachable", unreachable: error.status === 0 }),
    );
  });

  return {
    sync(names, anew) {
      wanted = names;
      flush(anew);
    },
    renew(names) {
      if (socket.readyState !== WebSocket.OPEN) return;
      const again = names.filter((name) => subscribed.has(name));
      unsubscribe(again);
      subscribe(again);
    },
    close() {
      over = true;
      socket.close();
    },
  };
}
