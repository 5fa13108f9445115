/**
 * A link whose channels are those of a request, as of an event stream or of polling: other channels are another request.
 *
 * @typedef {import("./transport_ws.js").End} End
 */

import { ApiError, jittered } from "./api.js";

/**
 * @param {object} parts
 * @param {import("./transport_ws.js").Context["hooks"]} parts.hooks
 * @param {(names: readonly string[], signal: AbortSignal) => Promise<void>} parts.run until it ends or fails, with these channels
 * @param {End} parts.ended how the link ends where it just ends
 * @param {(names: readonly string[]) => void} [parts.forget] what is known of these channels
 * @returns {import("./transport_ws.js").Link}
 */
export function requested({ hooks, run, ended, forget }) {
  /** @type {AbortController|null} */
  let running = null;
  /** @type {readonly string[]} */
  let wanted = [];
  let over = false;

  function start() {
    running?.abort();
    if (!wanted.length || over) return;
    const mine = (running = new AbortController());
    run(wanted, mine.signal).then(
      () => finish(mine, ended),
      (error) => finish(mine, endOf(error)),
    );
  }

  /** @param {AbortController} mine @param {End} end */
  function finish(mine, end) {
    if (over || mine !== running) return;
    over = true;
    hooks.ended(end);
  }

  return {
    sync(names, anew) {
      if (running && !anew.length && names.length === wanted.length && names.every((name) => wanted.includes(name))) return;
      wanted = names;
      forget?.(anew);
      start();
    },
    renew(names) {
      forget?.(names);
      start();
    },
    close() {
      over = true;
      running?.abort();
    },
  };
}

/** How a request that failed ends a link. @param {unknown} error @returns {End} */
function endOf(error) {
  if (!(error instanceof ApiError)) return { reason: "unreachable", unreachable: error instanceof TypeError };
  return {
    reason: error.detail,
    waitMs: error.retryAfterS === null ? null : jittered(error.retryAfterS * 1000),
    unreachable: error.status === 0,
    unauthorized: error.status === 401,
    refused: error.status === 400,
  };
}
