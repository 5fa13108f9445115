/**
 * Colours of both sides for text and signs: of the palette's own ramps, but always readable. Pure.
 *
 * @typedef {import("./types.js").PaletteName} PaletteName
 * @typedef {import("./types.js").Theme} Theme
 */

import { ramp } from "./palettes.js";

/** What text stands on; as in app.css (`--panel`). @type {Record<Theme, readonly [number, number, number]>} */
export const PANEL = { dark: [21, 27, 34], light: [255, 255, 255] };
/** WCAG 2.2 AA for text is 4.5. */
const LEAST_CONTRAST = 5;
/** Of the ramp, where its hue shows best. */
const MIDDLE = 0.62;

/** @param {readonly number[]} rgb 0..255 */
export function luminance(rgb) {
  const [r = 0, g = 0, b = 0] = rgb.map((byte) => {
    const part = byte / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** @param {readonly number[]} one @param {readonly number[]} other */
export function contrast(one, other) {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((first, second) => first - second);
  return (high + 0.05) / (low + 0.05);
}

/**
 * The colour nearest to the middle of a ramp that can be read on a panel.
 *
 * @param {PaletteName} palette
 * @param {0|1} side
 * @param {Theme} theme
 * @returns {[number, number, number]}
 */
export function inkOf(palette, side, theme) {
  const all = ramp(palette, side);
  const last = all.length / 3 - 1;
  const colours = Array.from({ length: last + 1 }, (_, n) => ({ away: Math.abs(n / last - MIDDLE), rgb: all.slice(3 * n, 3 * n + 3) }));
  const found = colours.filter(({ rgb }) => contrast(rgb, PANEL[theme]) >= LEAST_CONTRAST).sort((one, other) => one.away - other.away)[0];
  const [r, g, b] = found?.rgb ?? (theme === "dark" ? [255, 255, 255] : [0, 0, 0]);
  return [r ?? 0, g ?? 0, b ?? 0];
}
