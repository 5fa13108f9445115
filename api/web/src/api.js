/** Requests to the server that the page came from: key, ETag, waiting when the server says so, errors with their code. */


/** So long one try may take. */
const TRY_MS = 15_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_LIMIT_MS = 30_000;
const RETRY_LIMIT_S = 120;
/** Statuses that end by themselves. 0: no answer. */
const PASSING = new Set([0, 408, 425, 429, 500, 502, 503, 504]);

/** An answer that is not data. `status` 0: there was none; `code` and `detail` as the server says, `retryAfterS` null where it does not. */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} detail @param {number|null} [retryAfterS] */
  constructor(status, code, detail, retryAfterS = null) {
    super(`${status || "no answer"} ${code}: ${detail}`);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return PASSING.has(this.status);
  }
}

/** @typedef {Record<string, string | number | readonly string[] | null | undefined>} Params null and undefined are left out */
/** @typedef {{signal?: AbortSignal, etag?: string | null}} How `etag`: of what one has; the answer is then null if it is the same */
/** @typedef {{response: Response, etag: string | null}} Answer */

/**
 * Events: `unauthorized` when the server wants a key or another one; `key` when there is a new one.
 */
export class Api extends EventTarget {
  /** @type {string|null} */
  #key;
  /** No request before this (`Retry-After` of a 429 holds for all of them). `Date.now` */
  #notBeforeMs = 0;

  /** @param {{base?: string, key?: string|null}} [options] `base`: URL that paths are relative to, default the page's */
  constructor({ base = new URL("./", document.baseURI).href, key = null } = {}) {
    super();
    this.base = base;
    this.#key = key;
  }

  get key() {
    return this.#key;
  }

  /** @param {string|null} key `<id>.<secret>` */
  setKey(key) {
    this.#key = key;
    this.dispatchEvent(new Event("key"));
  }

  /** @param {string} path without the slash @param {Params} [params] */
  url(path, params = {}) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(params)) {
      if (value !== null && value !== undefined) url.searchParams.set(name, String(value));
    }
    return url.href.replaceAll("%2C", ",");
  }

  /** @returns {Record<string, string>} */
  headers() {
    return this.#key === null ? {} : { Authorization: `Bearer ${this.#key}` };
  }

  /** The server wants a key. */
  refused() {
    this.dispatchEvent(new Event("unauthorized"));
  }

  /** How long one has to wait before the next request, ms. */
  get waitMs() {
    return Math.max(0, this.#notBeforeMs - Date.now());
  }

  /**
   * One try. Null: the same as `etag`. Throws ApiError, and AbortError when `signal` says so.
   *
   * @param {string} path
   * @param {Params} [params]
   * @param {How} [how]
   * @returns {Promise<Answer | null>}
   */
  async get(path, params = {}, { signal, etag = null } = {}) {
    if (this.waitMs > 0) await sleep(this.waitMs, signal);
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), TRY_MS);
    const abort = () => timeout.abort();
    signal?.addEventListener("abort", abort);
    try {
      signal?.throwIfAborted();
      const key = this.#key;
      const known = /** @type {Record<string, string>} */ (etag === null ? {} : { "If-None-Match": etag });
      const response = await fetch(this.url(path, params), {
        headers: { ...this.headers(), ...known },
        signal: timeout.signal,
        cache: "no-store",
        credentials: "same-origin",
      });
      if (response.status === 304) return null;
      if (!response.ok) throw await this.errorOf(response, key);
      // Read inside of the time limit: a body may stall too.
      const body = await response.arrayBuffer();
      return { response: new Response(body, { headers: response.headers }), etag: response.headers.get("ETag") };
    } catch (error) {
      if (error instanceof ApiError) throw error;
      signal?.throwIfAborted();
      throw new ApiError(0, timeout.signal.aborted ? "timeout" : "unreachable", "the server does not answer");
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * The error of an answer; a 401 is told, a 429 holds back what follows.
   *
   * @param {Response} response
   * @param {string|null} key with which it was asked for: what another one was refused says nothing about the one there is now
   * @returns {Promise<ApiError>}
   */
  async errorOf(response, key) {
    const retryAfterS = secondsOf(response.headers.get("Retry-After"));
    /** @type {unknown} */
    const body = await response.json().catch(() => null);
    const { error, detail } = /** @type {{error?: unknown, detail?: unknown}} */ (typeof body === "object" && body !== null ? body : {});
    const found = new ApiError(
      response.status, typeof error === "string" ? error : "error",
      typeof detail === "string" ? detail : `status ${response.status}`, retryAfterS,
    );
    if (found.status === 401 && key === this.#key) this.refused();
    if (found.status === 429) this.#notBeforeMs = Date.now() + (retryAfterS ?? 1) * 1000;
    return found;
  }

  /**
   * JSON of one try; throws as `get`.
   *
   * @param {string} path @param {Params} [params] @param {How} [how]
   * @returns {Promise<any>}
   */
  async json(path, params, how) {
    const answer = await this.get(path, params, how);
    return answer === null ? null : answer.response.json();
  }

  /**
   * Tries until there is an answer, waiting as the server says, else longer each time. Throws ApiError where another try would not
   * help, AbortError.
   *
   * @template T
   * @param {() => Promise<T>} ask
   * @param {{signal: AbortSignal, onWait?: (error: ApiError, waitMs: number) => void}} how
   * @returns {Promise<T>}
   */
  async patiently(ask, { signal, onWait }) {
    for (let failures = 0; ; failures += 1) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof ApiError) || !error.passing) throw error;
        const waitMs = error.retryAfterS === null ? backoffMs(failures) : jittered(error.retryAfterS * 1000);
        onWait?.(error, waitMs);
        await sleep(waitMs, signal);
      }
    }
  }
}

/** Between nothing and a limit that doubles with each failure, so that many pages do not come back at once. @param {number} failures */
export function backoffMs(failures) {
  return Math.random() * Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** Math.min(failures, 10));
}

/** @param {number} ms at least, and up to a tenth (one second at least) more */
export function jittered(ms) {
  return ms + Math.random() * Math.max(1000, ms / 10);
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends it with AbortError
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const over = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", over);
      resolve();
    }, ms);
    signal?.addEventListener("abort", over, { once: true });
  });
}

/** @param {string|null} text */
function secondsOf(text) {
  return text !== null && /^\d{1,6}$/.test(text) ? Math.min(RETRY_LIMIT_S, Number(text)) : null;
}
