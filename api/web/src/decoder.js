/** The decoding worker as promises. */

import { FormatError } from "./bytes.js";

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").Column} Column */

export class Decoder {
  /** @param {Worker} worker one that runs `decode.worker.js` */
  constructor(worker) {
    this.worker = worker;
    this.next = 0;
    /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    worker.addEventListener("message", ({ data }) => {
      const one = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.ok) one?.resolve(data.value);
      else one?.reject(new FormatError(data.error));
    });
    worker.addEventListener("error", (event) => this.#fail(new Error(event.message || "the decoder could not be started")));
  }

  /** Rejects with `FormatError`. `buffer` is gone afterwards. @param {ArrayBuffer} buffer @returns {Promise<Snapshot>} */
  heatmap(buffer) {
    return this.#ask({ kind: "heatmap", buffer }, [buffer]);
  }

  /** Rejects with `FormatError`. `buffer` is gone afterwards. @param {ArrayBuffer} buffer @returns {Promise<Column>} */
  column(buffer) {
    return this.#ask({ kind: "column", buffer }, [buffer]);
  }

  /**
   * Rejects with `FormatError`.
   *
   * @param {import("../types/contract.js").Column} data
   * @param {{ch: string, epoch: number, seq: number, prev: number, stale: boolean}} envelope
   * @returns {Promise<Column>}
   */
  columnJson(data, envelope) {
    const { ch, epoch, seq, prev, stale } = envelope;
    return this.#ask({ kind: "columnJson", data, envelope: { ch, epoch, seq, prev, stale } }, []);
  }

  close() {
    this.worker.terminate();
    this.#fail(new Error("the decoder is closed"));
  }

  /** @param {object} job @param {Transferable[]} transfer @returns {Promise<any>} */
  #ask(job, transfer) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...job }, transfer);
    });
  }

  /** @param {Error} error */
  #fail(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
