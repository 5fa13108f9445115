/**
 * Colours of USD. Each palette has two ramps of rising lightness, the first for longs and bids, the second for shorts and asks, told
 * apart by hue also at their bright ends: longs warm, shorts cool in all of them, as are their marks (`theme.js`). Pure data.
 *
 * viridis, inferno, magma: Smith and van der Walt (CC0); cividis: Nuñez, Anderton and Renslow, doi:10.1371/journal.pone.0199239.
 */

/** @typedef {import("./types.js").PaletteName} PaletteName */

/** @type {Record<PaletteName, readonly [string, string]>} six hexadecimal digits per colour, darkest first */
const RAMPS = {
  viridis: [
    "2a0a3e 440f76 721f81 9e2f7f cd4071 f1605d fd9668 feb47b feca8d ffe6d5",
    "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
  ],
  inferno: [
    "1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
    "0d1b3d 15305f 1b4a7f 1f669a 2384ad 31a3ba 58c2c4 93ddd0 d6f5ea",
  ],
  cividis: [
    "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
    "3a1d06 56320f 6f4a24 80643f 8c7d62 959688 9fafae aac8d3 bde0f4 e2f4ff",
  ],
  mono: ["241b13 493829 715a44 987d63 bca48b dccbb8 fff8ee", "141b24 2c3a49 4a5d71 6f8598 9aadbc c6d3dd f4faff"],
};

/** @type {readonly PaletteName[]} */
export const PALETTES = ["viridis", "inferno", "cividis", "mono"];

/**
 * Red, green and blue of a ramp, three numbers (0 to 255) per colour.
 *
 * @param {PaletteName} palette
 * @param {0|1} side
 * @returns {number[]}
 */
export function ramp(palette, side) {
  return RAMPS[palette][side].split(" ").flatMap((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
}
