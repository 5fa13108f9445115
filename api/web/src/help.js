/** The help dialog: all keys, and the switch that turns single keys off. */

import { byId, el, inputOf } from "./dom.js";
import { KEYS } from "./keys.js";

const STORED = "mpengine.keys";

/** @returns {{open: () => void, single: () => boolean}} */
export function wireHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
  byId("help-keys").append(...KEYS.flatMap(([keys, text]) => [el("dt", {}, ...keysOf(keys)), el("dd", {}, text)]));
  const on = inputOf("keys-on");
  on.checked = read() !== "off";
  on.addEventListener("change", () => write(on.checked ? "on" : "off"));
  const open = () => {
    if (!dialog.open) dialog.showModal();
  };
  for (const node of document.querySelectorAll("#help-open, [data-help]")) node.addEventListener("click", open);
  byId("help-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return { open, single: () => on.checked };
}

/** @param {string} keys */
function keysOf(keys) {
  return keys.split(" ").map((key) => (key === "+" && keys.includes("Shift") || key === "arrows" ? ` ${key} ` : el("kbd", {}, key)));
}

/** Storage may be switched off in a browser; then the choice lasts as long as the page. */
function read() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

/** @param {string} value */
function write(value) {
  try {
    localStorage.setItem(STORED, value);
  } catch {
    return;
  }
}
