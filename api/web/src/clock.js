/** The one "now" of the page: this machine's clock, corrected by the server's. */

/** Corrections that the way of a message may explain are not applied, so that ages do not jitter. */
const NOISE_MS = 250;

let offsetMs = 0;

/** Epoch ms by the server's clock, as far as it is known. */
export function now() {
  return Date.now() + offsetMs;
}

/**
 * The server has just said what time it is.
 *
 * @param {number} serverMs epoch ms
 * @param {number} [roundTripMs] how long question and answer took together
 */
export function adjust(serverMs, roundTripMs = 0) {
  const found = serverMs + roundTripMs / 2 - Date.now();
  if (Math.abs(found - offsetMs) > NOISE_MS) offsetMs = found;
}
