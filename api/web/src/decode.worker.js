/** Decoding beside the main thread. {id, kind, …} comes in, {id, ok, value | error, name} goes out; the bytes travel, they are not copied. */

import { decodeColumn, decodeColumnJson, decodeHeatmap } from "./bytes.js";

/**
 * @typedef {{id: number} & ({kind: "heatmap", buffer: ArrayBuffer} | {kind: "column", buffer: ArrayBuffer}
 *   | {kind: "columnJson", data: import("../types/contract.js").Column, envelope: Parameters<typeof decodeColumnJson>[1]})} Job
 */

/** @param {Job} job */
function decode(job) {
  if (job.kind === "heatmap") return decodeHeatmap(job.buffer);
  return job.kind === "column" ? decodeColumn(job.buffer) : decodeColumnJson(job.data, job.envelope);
}

/** @param {ReturnType<typeof decode>} value @returns {ArrayBuffer[]} what the value is made of, each once */
function buffersOf(value) {
  const arrays = "a" in value ? [value.a, value.b] : [value.src, ...Object.values(value.layers).flatMap((one) => [one.seq, one.a, one.b])];
  return [...new Set(arrays.map((one) => /** @type {ArrayBuffer} */ (one.buffer)))];
}

addEventListener("message", (/** @type {MessageEvent<Job>} */ event) => {
  const { id } = event.data;
  try {
    const value = decode(event.data);
    postMessage({ id, ok: true, value }, { transfer: buffersOf(value) });
  } catch (error) {
    postMessage({ id, ok: false, error: error instanceof Error ? error.message : String(error) });
  }
});
