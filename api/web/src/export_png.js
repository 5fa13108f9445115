/**
 * The chart as a picture that explains itself: what, when, its scales, where it comes from, and whose chart library it is.
 *
 * @typedef {{title: string, loText: string, hiText: string, ramps: readonly Uint32Array[]}} Ramp `ramps`: colours of its cells from low to high, as many of either side, upper side first
 * @typedef {{chart: HTMLCanvasElement, cssWidth: number, head: string, legends: Ramp[], foot: string[], paper: string, ink: string, dim: string}} Parts
 */

const FONT = "12px system-ui, sans-serif";
const LINE = 17;
const PAD = 10;
const RAMP_HEIGHT = 10;
const RAMP_WIDTH = 510;

/**
 * @param {Parts} parts
 * @returns {HTMLCanvasElement} as wide as the chart, in device pixels
 */
export function pictureOf({ chart, cssWidth, head, legends, foot, paper, ink, dim }) {
  const ratio = chart.width / cssWidth;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser gives no canvas");
  context.font = FONT;
  const room = cssWidth - 2 * PAD;
  const headLines = wrapped(context, head, room);
  const footLines = foot.flatMap((text) => wrapped(context, text, room));
  const chartTop = 2 * PAD + headLines.length * LINE + legends.length * (LINE + RAMP_HEIGHT + PAD);
  const footTop = chartTop + chart.height / ratio + PAD;
  canvas.width = chart.width;
  canvas.height = Math.round((footTop + footLines.length * LINE + PAD) * ratio);
  context.scale(ratio, ratio);
  context.font = FONT;
  context.textBaseline = "top";
  context.fillStyle = paper;
  context.fillRect(0, 0, cssWidth, canvas.height / ratio);
  context.fillStyle = ink;
  for (const [at, text] of headLines.entries()) context.fillText(text, PAD, PAD + at * LINE);
  for (const [at, legend] of legends.entries()) {
    drawLegend(context, legend, PAD + headLines.length * LINE + at * (LINE + RAMP_HEIGHT + PAD), room);
  }
  context.drawImage(chart, 0, chartTop, cssWidth, chart.height / ratio);
  context.fillStyle = dim;
  for (const [at, text] of footLines.entries()) context.fillText(text, PAD, footTop + at * LINE);
  return canvas;
}

/** @param {CanvasRenderingContext2D} context @param {Ramp} ramp @param {number} top @param {number} room */
function drawLegend(context, { title, loText, hiText, ramps }, top, room) {
  context.fillText(`${title}: ${loText} to ${hiText}`, PAD, top, room);
  const width = ramps[0]?.length ?? 0;
  const strip = new OffscreenCanvas(width, ramps.length);
  const inner = strip.getContext("2d");
  if (!inner) return;
  const image = inner.createImageData(width, ramps.length);
  const pixels = new Uint32Array(image.data.buffer);
  for (const [at, colours] of ramps.entries()) pixels.set(colours, at * width);
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(strip, PAD, top + LINE, Math.min(room, RAMP_WIDTH), RAMP_HEIGHT);
}

/** @param {{measureText(text: string): {width: number}}} context @param {string} text @param {number} room @returns {string[]} */
export function wrapped(context, text, room) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines[lines.length - 1];
    const longer = line ? `${line} ${word}` : word;
    if (line && context.measureText(longer).width > room) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
