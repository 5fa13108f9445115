/**
 * The heat: book over map over what the newest column of the map projects to the right.
 *
 * Each of the three is one `drawImage` per repaint, two where the ring wraps, and one more per visible price grid; a logarithmic price
 * axis is drawn in strips. Pixels are assigned to cells here, not by the browser: whole pixels of the screen are filled, and the part
 * of the picture that is read is chosen so that each gets the cell under its middle.
 */

import { blockOf } from "./image.js";
import { shown } from "./scene.js";
import { font, strength } from "./theme.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./axes.js").Axes} Axes */
/** @typedef {import("./layer.js").Layer} Layer */
/** @typedef {import("./layer.js").Epoch} Epoch */
/** @typedef {{canvas: OffscreenCanvas, ring: import("./ring.js").ColumnRing, kx: number, ky: number}} Source */
/** A span of pixels and the span of a picture that it shows. @typedef {{to: number, size: number, from: number, part: number}} Span */

const STRIPS = 64;
/** Strength of a projection beside that of the map itself. */
const PALER = 0.45;
/** Of a pixel of the picture: decides alike wherever the middle of a pixel lies on the border of two cells. */
const NUDGE = 1e-3;
const HATCH = 7;

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene */
export function paintHeat(context, axes, scene) {
  scene.counters.repaints++;
  context.imageSmoothingEnabled = false;
  const map = shown(scene, "map");
  const depth = shown(scene, "depth");
  if (map) {
    paintMissing(context, axes, scene, map, 1);
    paintLayer(context, axes, scene, map, "map");
    paintProjection(context, axes, scene, map);
  }
  if (depth) {
    paintMissing(context, axes, scene, depth, -1);
    paintLayer(context, axes, scene, depth, "depth");
  }
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {Layer} layer @param {"map"|"depth"} which */
function paintLayer(context, axes, scene, layer, which) {
  context.globalAlpha = scene.show.opacity[which] * strength(scene.stale);
  for (const epoch of layer.epochs) {
    const source = sourceOf(axes, scene, epoch, which);
    if (source === null) continue;
    const columns = columnSpans(axes, source);
    for (const y of rowSpans(axes, source)) for (const x of columns) draw(context, scene, source, x, y);
  }
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {Layer} layer */
function paintProjection(context, axes, scene, layer) {
  const newest = layer.newestHeld;
  const epoch = layer.epochs.find(({ ring }) => ring.has(newest));
  const source = epoch ? sourceOf(axes, scene, epoch, "map") : null;
  if (source === null) return;
  const to = pixel(axes.left(blockStart(newest, source.kx) + source.kx));
  if (to >= axes.width) return;
  const block = Math.floor(source.ring.slotOf(newest) / source.kx);
  const start = Math.max(0, to);
  const x = { to: start, size: axes.width - start, from: 1.25 + block, part: 0.5 };
  context.globalAlpha = scene.show.opacity.map * PALER * strength(scene.stale);
  for (const y of rowSpans(axes, source)) draw(context, scene, source, x, y);
  paintBoundary(context, axes, scene, to);
}

/** Where the past ends. @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {number} x */
function paintBoundary(context, axes, scene, x) {
  if (x <= 0) return;
  const ratio = axes.scope.horizontalPixelRatio;
  context.globalAlpha = 0.8 * strength(scene.stale);
  context.fillStyle = scene.inks.cross;
  for (let y = 0; y < axes.height; y += 8 * ratio) context.fillRect(x, y, Math.max(1, Math.floor(ratio)), 4 * ratio);
  context.font = font(10 * ratio);
  const text = "projected";
  if (axes.width - x > context.measureText(text).width + 12 * ratio) context.fillText(text, x + 6 * ratio, 14 * ratio);
}

/** @param {Axes} axes @param {Scene} scene @param {Epoch} epoch @param {"map"|"depth"} which @returns {Source|null} */
function sourceOf(axes, scene, { ring, image }, which) {
  const kx = blockOf(axes.bar);
  const ky = blockOf(rowHeight(axes, ring));
  const canvas = image.update(scene.luts[which], kx, ky);
  return canvas === null ? null : { canvas, ring, kx, ky };
}

/** Pixels of the lowest row that is visible, or the least of all visible ones. @param {Axes} axes @param {import("./ring.js").ColumnRing} ring */
function rowHeight(axes, ring) {
  const high = Math.min(ring.low + ring.rows, axes.log ? axes.price(0) / ring.step : Infinity);
  return boundary(axes, ring.step, high - 1) - boundary(axes, ring.step, high);
}

/** Where row `row` begins, from below. @param {Axes} axes @param {number} step @param {number} row */
function boundary(axes, step, row) {
  return axes.y((row - 0.5) * step);
}

/** @param {Axes} axes @param {Source} source @returns {Span[]} */
function columnSpans(axes, { ring, kx }) {
  if (ring.newestHeld < 0) return [];
  // whole blocks: a part of one may be too narrow for a pixel
  const first = Math.max(blockStart(ring.first, kx), Math.floor(axes.columnAt(0)));
  const last = Math.min(blockStart(ring.newestHeld, kx) + kx - 1, Math.floor(axes.columnAt(axes.width)));
  if (last < first) return [];
  const wrap = first - ring.slotOf(first) + ring.slots;
  const parts = wrap > last ? [[first, last + 1]] : [[first, wrap], [wrap, last + 1]]; // prettier-ignore
  return parts.flatMap(([from = 0, to = 0]) => {
    const left = axes.left(from);
    const start = Math.max(0, pixel(left));
    const size = Math.min(axes.width, pixel(axes.left(to))) - start;
    const at = ring.slotOf(from) + (start - left) / axes.bar;
    return size > 0 ? [{ to: start, size, from: 1 + at / kx, part: size / axes.bar / kx }] : [];
  });
}

/** First column of the block that a column is in. @param {number} col @param {number} kx */
function blockStart(col, kx) {
  return col - (col % kx);
}

/** @param {Axes} axes @param {Source} source @returns {Span[]} */
function rowSpans(axes, { ring, ky }) {
  const top = ring.low + ring.rows;
  const [high, low] = axes.log ? visibleRows(axes, ring) : [top, ring.low];
  const strips = axes.log ? STRIPS : 1;
  /** @type {Span[]} */
  const spans = [];
  for (let n = 0; n < strips; n++) {
    const upper = high - ((high - low) * n) / strips;
    const lower = high - ((high - low) * (n + 1)) / strips;
    const above = boundary(axes, ring.step, upper);
    const scale = (upper - lower) / (boundary(axes, ring.step, lower) - above);
    const start = Math.max(0, pixel(above));
    const size = Math.min(axes.height, pixel(boundary(axes, ring.step, lower))) - start;
    const at = upper - (start - above) * scale;
    if (size > 0) spans.push({ to: start, size, from: 1 + (top - at) / ky, part: (size * scale) / ky });
  }
  return spans;
}

/** @param {Axes} axes @param {import("./ring.js").ColumnRing} ring @returns {[number, number]} */
function visibleRows(axes, ring) {
  const top = ring.low + ring.rows;
  const at = (/** @type {number} */ y) => Math.min(top, Math.max(ring.low, axes.price(y) / ring.step + 0.5));
  return [at(0), at(axes.height)];
}

/** @param {CanvasRenderingContext2D} context @param {Scene} scene @param {Source} source @param {Span} x @param {Span} y */
function draw(context, scene, source, x, y) {
  scene.counters.drawImageCalls++;
  context.drawImage(source.canvas, x.from + NUDGE, y.from + NUDGE, x.part, y.part, x.to, y.to, x.size, y.size);
}

/** The first pixel whose middle is not left of (above) a coordinate. @param {number} at */
function pixel(at) {
  return Math.ceil(at - 0.5);
}

/** Hatch the columns up to the newest one that have no data. @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {Layer} layer @param {1|-1} slope */
function paintMissing(context, axes, scene, layer, slope) {
  const first = Math.max(scene.newest - layer.cols + 1, Math.floor(axes.columnAt(0)));
  const held = layer.newestHeld;
  const last = Math.min(held < 0 ? scene.newest : held, Math.floor(axes.columnAt(axes.width)));
  context.globalAlpha = 1;
  for (let col = first; col <= last; col++) {
    if (layer.at(col)) continue;
    let end = col;
    while (end < last && !layer.at(end + 1)) end++;
    hatch(context, axes, scene, pixel(axes.left(col)), pixel(axes.left(end + 1)), slope);
    col = end;
  }
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene @param {number} left @param {number} right @param {1|-1} slope */
function hatch(context, axes, scene, left, right, slope) {
  const [from, to] = [Math.max(0, left), Math.min(axes.width, right)];
  const gap = HATCH * axes.scope.horizontalPixelRatio;
  context.save();
  context.beginPath();
  context.rect(from, 0, to - from, axes.height);
  context.clip();
  context.beginPath();
  // anchored to the pane, so that hatching stands still while its columns move and neighbours join
  for (let x = Math.floor((from - axes.height) / gap) * gap; x < to + axes.height; x += gap) {
    context.moveTo(x, slope > 0 ? axes.height : 0);
    context.lineTo(x + axes.height, slope > 0 ? 0 : axes.height);
  }
  context.strokeStyle = scene.inks.hatch;
  context.lineWidth = axes.scope.horizontalPixelRatio;
  context.stroke();
  context.restore();
}
