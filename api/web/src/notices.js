/** Short notices in the corner of the page; they stay until closed or pushed out by newer ones. */

import { byId, el } from "./dom.js";

const MOST = 3;

/** @param {string} text @param {{label: string, run: () => void}} [action] */
export function notice(text, action) {
  const box = byId("notices");
  const node = el("div", { class: "notice", role: "status" }, el("p", {}, text));
  if (action) node.append(el("button", { type: "button", onclick: () => { action.run(); node.remove(); } }, action.label));
  node.append(el("button", { type: "button", "aria-label": "Close this notice", onclick: () => node.remove() }, "✕"));
  box.append(node);
  while (box.children.length > MOST) box.firstElementChild?.remove();
}
