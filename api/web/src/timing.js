/**
 * A function that runs at once after a silence of `ms`, else once at its end, with what was given last.
 *
 * @template {unknown[]} T
 * @param {number} ms
 * @param {(...given: T) => void} run
 * @returns {(...given: T) => void}
 */
export function atMost(ms, run) {
  /** @type {T|null} */
  let waiting = null;
  let quiet = true;
  function go() {
    quiet = waiting === null;
    if (waiting === null) return;
    const given = waiting;
    waiting = null;
    setTimeout(go, ms);
    run(...given);
  }
  return (...given) => {
    waiting = given;
    if (quiet) go();
  };
}
