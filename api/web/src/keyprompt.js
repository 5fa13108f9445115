/** Asks for an API key when the server wants one. It stays in this tab's session, never in an address. */

import { byId, inputOf, setText } from "./dom.js";

const STORED = "mpengine.key";

/** The key of this tab, if it has one. */
export function storedKey() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}

/** @param {string|null} key */
function keep(key) {
  try {
    if (key === null) sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, key);
  } catch {
    return;
  }
}

/** @param {(key: string) => void} onKey @returns {{ask: (refused: boolean) => void}} */
export function wireKeyprompt(onKey) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("keyprompt"));
  const field = inputOf("keyprompt-key");
  byId("keyprompt-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!key) return;
    keep(key);
    field.value = "";
    dialog.close();
    onKey(key);
  });
  byId("keyprompt-later").addEventListener("click", () => dialog.close());
  return {
    ask(refused) {
      if (dialog.open) return;
      if (refused) keep(null);
      setText(byId("keyprompt-text"), `${refused ? "The server did not take this key." : "This server wants an API key."} It is kept in this tab only, until you close it.`);
      dialog.showModal();
    },
  };
}
