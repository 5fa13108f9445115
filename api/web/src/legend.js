/**
 * The colour scale of one layer as its own control: the ramp of both sides, two handles on it, a number field at each end.
 *
 * @typedef {import("./scale.js").Which} Which
 * @typedef {Omit<import("./lut.js").Look, "side">} Look as the picture draws the layer
 */

import { el } from "./dom.js";
import { compact, parseUsd } from "./format.js";
import { buildLut, qOf, usdOf } from "./lut.js";

const CELLS = 255;
const TICKS = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
const TEXTS = {
  map: { title: "Liquidation map", unit: "exposure, USD/cell", above: "shorts ▲", below: "longs ▼", estimated: true },
  depth: { title: "Order book", unit: "resting, USD/cell", above: "asks ▲", below: "bids ▼", estimated: false },
};

/** Where USD lie on the track, 0 to 1. @param {number} usd */
export const placeOf = (usd) => (Math.min(CELLS, Math.max(1, qOf(usd))) - 1) / (CELLS - 1);

export class Legend {
  /**
   * @param {HTMLElement} box
   * @param {Which} which
   * @param {(end: "lo"|"hi", usd: number) => void} onMove the user moved an end
   */
  constructor(box, which, onMove) {
    this.box = box;
    const { title, unit, above, below, estimated } = TEXTS[which];
    this.canvas = el("canvas", { width: CELLS, height: 2, "aria-hidden": true });
    this.sliders = { lo: this.#slider(title, "lo", onMove), hi: this.#slider(title, "hi", onMove) };
    this.fields = { lo: this.#field(title, "lo", onMove), hi: this.#field(title, "hi", onMove) };
    const ticks = el("div", { class: "ticks", "aria-hidden": true });
    for (const usd of TICKS) {
      const tick = el("span", {}, compact(usd));
      tick.style.left = `${placeOf(usd) * 100}%`;
      ticks.append(tick);
    }
    box.replaceChildren(
      el("h2", { id: `${box.id}-title` }, title, " ", estimated ? el("b", { class: "tag" }, "estimated") : "", el("small", {}, unit)),
      el("p", { class: "sides", "aria-hidden": true }, el("span", {}, above), el("span", {}, below)),
      this.fields.lo,
      el("div", { class: "track" }, this.canvas, this.sliders.lo, this.sliders.hi, ticks),
      this.fields.hi,
    );
  }

  /** @param {string} title @param {"lo"|"hi"} end @param {(end: "lo"|"hi", usd: number) => void} onMove */
  #slider(title, end, onMove) {
    const node = el("input", {
      type: "range", min: 1, max: CELLS, step: 1, class: end, "aria-label": `${title}: ${end === "lo" ? "lowest" : "highest"} colour`,
    });
    node.addEventListener("input", () => onMove(end, usdOf(node.valueAsNumber)));
    return node;
  }

  /** @param {string} title @param {"lo"|"hi"} end @param {(end: "lo"|"hi", usd: number) => void} onMove */
  #field(title, end, onMove) {
    const node = el("input", {
      type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", class: `usd ${end}`, id: `${this.box.id}-${end}`,
      "aria-label": `${title}: ${end === "lo" ? "nothing below" : "full colour from"}, USD`,
    });
    node.addEventListener("change", () => {
      const usd = parseUsd(node.value);
      node.setAttribute("aria-invalid", String(usd === null));
      if (usd !== null) onMove(end, usd);
      node.value = compact(end === "lo" ? this.look?.loUsd : this.look?.hiUsd);
    });
    return node;
  }

  /** @param {Look} look @param {boolean} shown */
  render(look, shown) {
    this.look = look;
    // The room stays, so that the chart does not move.
    this.box.classList.toggle("off", !shown);
    for (const [end, usd] of /** @type {const} */ ([["lo", look.loUsd], ["hi", look.hiUsd]])) {
      const text = compact(usd);
      this.sliders[end].value = String(qOf(usd));
      this.sliders[end].setAttribute("aria-valuetext", `${text} USD`);
      if (document.activeElement !== this.fields[end]) {
        this.fields[end].value = text;
        this.fields[end].removeAttribute("aria-invalid");
      }
    }
    this.#paint(look);
  }

  /** @param {Look} look */
  #paint(look) {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const image = context.createImageData(CELLS, 2);
    const pixels = new Uint32Array(image.data.buffer);
    for (const side of /** @type {const} */ ([0, 1])) {
      pixels.set(buildLut({ ...look, side }).subarray(1), side === 1 ? 0 : CELLS);
    }
    context.putImageData(image, 0, 0);
  }
}

/** A title line for pictures. @param {Which} which */
export const legendTitle = (which) => `${TEXTS[which].title}, ${TEXTS[which].unit}${TEXTS[which].estimated ? ", estimated" : ""}`;
