/**
 * From cell to USD to colour. The scale of cells is fixed (`docs`: 0 nothing, 1..255 logarithmic from 100 to 1e9 USD, at most 3.3 %
 * off), so threshold, gamma, palette and theme are 256 colours and one recolouring, never a new request. Pure.
 */

import { ramp } from "./palettes.js";

/** @typedef {import("./types.js").PaletteName} PaletteName */
/**
 * `over`: drawn over another layer, which only large amounts are to hide.
 *
 * @typedef {{palette: PaletteName, theme: import("./types.js").Theme, side: 0|1, over?: boolean} & import("./types.js").Scale} Look
 */

export const CELL_LO_USD = 100;
export const CELL_HI_USD = 1e9;
const STEPS = 254;
const PER_STEP = Math.log(CELL_HI_USD / CELL_LO_USD) / STEPS;

/** Position from which colours are opaque, and what is left of the lowest: faint cells let the background through. */
const OPAQUE_FROM = 0.3;
const FAINTEST = 0.3;
/** Over another layer: half way up a logarithmic scale lies the usual, which is to hide nothing. */
const OVER_POWER = 4;
/** Part of a ramp that is used on white, from weak to strong: its ends are too near to white, and to the other side's. */
const ON_WHITE = { weak: 0.94, strong: 0.18 };

const USD = Float64Array.from({ length: 256 }, (_, q) => (q === 0 ? 0 : CELL_LO_USD * Math.exp((q - 1) * PER_STEP)));

/**
 * What a cell stands for, USD.
 *
 * @param {number} q 0..255
 */
export function usdOf(q) {
  return USD[q] ?? 0;
}

/**
 * The cell that stands for an amount, as the server rounds it.
 *
 * @param {number} usd
 */
export function qOf(usd) {
  return usd < CELL_LO_USD ? 0 : 1 + Math.min(STEPS, Math.round(Math.log(usd / CELL_LO_USD) / PER_STEP));
}

/**
 * Where an amount lies on a scale: 0 to 1, or -1 below its lower end.
 *
 * @param {number} usd
 * @param {import("./types.js").Scale} scale
 */
export function positionOf(usd, { loUsd, hiUsd, gamma, log }) {
  if (usd < loUsd || usd <= 0) return -1;
  if (usd >= hiUsd) return 1;
  const part = log ? Math.log(usd / loUsd) / Math.log(hiUsd / loUsd) : (usd - loUsd) / (hiUsd - loUsd);
  return part ** gamma;
}

/**
 * Colour of each cell as bytes R, G, B, A in memory (not premultiplied); 0, clear, for nothing and below `loUsd`. More USD is never
 * nearer to the background: lighter on dark, darker on light.
 *
 * @param {Look} look
 * @returns {Uint32Array} 256 entries
 */
export function buildLut(look) {
  const bytes = new Uint8ClampedArray(4 * 256);
  const colours = ramp(look.palette, look.side);
  for (let q = 1; q < 256; q++) {
    const at = positionOf(usdOf(q), look);
    if (at >= 0) bytes.set(colourAt(colours, at, look), 4 * q);
  }
  return new Uint32Array(bytes.buffer);
}

/**
 * @param {number[]} colours
 * @param {number} at 0..1
 * @param {Look} look
 * @returns {[number, number, number, number]}
 */
function colourAt(colours, at, { theme, over = false }) {
  const last = colours.length / 3 - 1;
  const place = (theme === "light" ? ON_WHITE.weak - (ON_WHITE.weak - ON_WHITE.strong) * at : at) * last;
  const low = Math.min(Math.floor(place), last - 1);
  const part = place - low;
  const mix = (/** @type {number} */ n) => Math.round((colours[3 * low + n] ?? 0) * (1 - part) + (colours[3 * low + 3 + n] ?? 0) * part);
  const opaque = over ? at ** OVER_POWER : Math.min(1, FAINTEST + ((1 - FAINTEST) * at) / OPAQUE_FROM);
  return [mix(0), mix(1), mix(2), Math.round(255 * opaque)];
}

/**
 * Colours of a legend from `loUsd` to `hiUsd`, evenly spaced in the scale's own sense (logarithmic or linear).
 *
 * @param {Look} look
 * @param {number} [count]
 * @returns {{at: number, usd: number, css: string}[]} `at`: 0..1 between the ends
 */
export function legendStops(look, count = 24) {
  const colours = ramp(look.palette, look.side);
  return Array.from({ length: count }, (_, n) => {
    const at = n / (count - 1);
    const usd = look.log ? look.loUsd * (look.hiUsd / look.loUsd) ** at : look.loUsd + (look.hiUsd - look.loUsd) * at;
    const [r, g, b, a] = colourAt(colours, at ** look.gamma, look);
    return { at, usd, css: `rgba(${r},${g},${b},${(a / 255).toFixed(3)})` };
  });
}

/**
 * USD that a share of the cells which hold something does not exceed; null where none does.
 *
 * @param {Uint32Array} histogram cells by their byte
 * @param {number} share
 */
export function quantile(histogram, share) {
  let all = 0;
  for (let q = 1; q < 256; q++) all += histogram[q] ?? 0;
  if (all === 0) return null;
  let seen = 0;
  for (let q = 1; q < 256; q++) {
    seen += histogram[q] ?? 0;
    if (seen >= share * all) return usdOf(q);
  }
  return usdOf(255);
}
