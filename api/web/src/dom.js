/** Elements without markup strings: text is only ever set as text. */

/** @typedef {Record<string, string | number | boolean | null | undefined | EventListener>} Props */

/**
 * A new element. `class` and every other name are attributes (false, null and undefined leave them out, true sets an empty one),
 * `on…` are listeners.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Props} [props]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/**
 * The element of the page with this id.
 *
 * @param {string} id
 * @returns {HTMLElement}
 * @throws {Error} the page has none
 */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no #${id}`);
  return node;
}

/** @param {string} id @returns {HTMLInputElement} */
export const inputOf = (id) => /** @type {HTMLInputElement} */ (byId(id));

/** Writes only what differs, so that selections and screen readers are left alone. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Terms and what they are, as a description list.
 *
 * @param {readonly (readonly [string, string | Node])[]} rows
 */
export function facts(rows) {
  return el("dl", { class: "facts" }, ...rows.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}
