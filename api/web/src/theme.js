/** Colours of the chart that are not colours of USD. */

/**
 * @typedef {object} Inks
 * @property {string} back
 * @property {string} text
 * @property {string} grid
 * @property {string} line borders, price line without candles
 * @property {string} cross cursor
 * @property {string} label behind the cursor's labels
 * @property {string} up body of a rising candle
 * @property {string} down body of a falling candle
 * @property {string} edge outline of candles, bubbles and texts over heat
 * @property {string} hatch where there is no data
 * @property {string} long
 * @property {string} short
 * @property {string} mark
 */

/** @type {Record<import("./types.js").Theme, Inks>} */
export const INKS = {
  dark: {
    back: "#0b0e14", text: "#aeb6c2", grid: "rgba(255,255,255,0.045)", line: "#2a3140", cross: "#8f9bad", label: "#39424f",
    up: "#f4f6f9", down: "#10141b", edge: "#f4f6f9", hatch: "rgba(255,255,255,0.11)", long: "#ff6b70", short: "#2fd3a4", mark: "#ffd166",
  },
  light: {
    back: "#ffffff", text: "#3c4654", grid: "rgba(0,0,0,0.06)", line: "#ccd3dc", cross: "#5b6675", label: "#4b5563",
    up: "#ffffff", down: "#11161d", edge: "#11161d", hatch: "rgba(0,0,0,0.13)", long: "#c9182f", short: "#00795c", mark: "#9a5b00",
  },
}; // prettier-ignore

const FADED = 0.45;

/**
 * A colour of `INKS` for a picture that is not up to date.
 *
 * @param {string} ink six hexadecimal digits
 * @param {boolean} stale
 */
export function faded(ink, stale) {
  return stale ? `${ink}${Math.round(255 * FADED).toString(16)}` : ink;
}

/** Opacity of everything drawn while stale. @param {boolean} stale */
export function strength(stale) {
  return stale ? FADED : 1;
}

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Ubuntu, sans-serif";
/** Font of texts in the picture. @param {number} pixels */
export function font(pixels) {
  return `${pixels}px ${FONT}`;
}

/** Options of the chart. @param {Inks} inks */
export function chartOptions(inks) {
  const cross = { color: inks.cross, labelBackgroundColor: inks.label };
  return {
    layout: { background: { color: inks.back }, textColor: inks.text, fontFamily: FONT, fontSize: 12, attributionLogo: false },
    grid: { vertLines: { color: inks.grid }, horzLines: { color: inks.grid } },
    crosshair: { mode: 0, vertLine: cross, horzLine: cross },
    timeScale: { borderColor: inks.line },
    rightPriceScale: { borderColor: inks.line },
  };
}

/** Options of the candles. @param {Inks} inks @param {boolean} stale */
export function candleOptions(inks, stale) {
  const edge = faded(inks.edge, stale);
  return {
    upColor: faded(inks.up, stale),
    downColor: faded(inks.down, stale),
    borderUpColor: edge,
    borderDownColor: edge,
    wickUpColor: edge,
    wickDownColor: edge,
  };
}
