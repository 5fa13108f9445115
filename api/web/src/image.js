/**
 * The picture of a ring: one pixel per cell, columns in the order of the slots, the highest row on top, a clear border of one pixel.
 *
 * A cell shows the side that holds more, in the colours of that side. Where a cell would be smaller than a pixel of the screen, one
 * pixel stands for a block of `kx` columns and `ky` rows and shows the largest of them, so nothing bright is lost by zooming out. Only
 * what has changed is coloured again; everything after another look, level of detail or grid.
 */

import { ALIGN } from "./ring.js";

/** @typedef {import("./ring.js").ColumnRing} ColumnRing */
/**
 * One object per look: another object is another look. `inkA`, `inkB`: a colour of each side as a text.
 *
 * @typedef {{a: Uint32Array, b: Uint32Array, inkA: string, inkB: string}} Luts
 */

/** Columns coloured together: their pixels of one row lie in one line of the processor's cache. */
const TILE = 16;

export class RingImage {
  /** @param {ColumnRing} ring @param {{cellsTouched: number}} counters */
  constructor(ring, counters) {
    this.ring = ring;
    this.counters = counters;
    this.kx = 0;
    this.ky = 0;
    /** @type {Luts|null} */
    this.luts = null;
    /** @type {OffscreenCanvas|null} */
    this.canvas = null;
    /** Pixels of the whole picture, kept for the next look. @type {ImageData|null} */
    this.whole = null;
    /** Largest cells of the blocks of a tile. */
    this.blocks = { a: new Uint8Array(0), b: new Uint8Array(0) };
  }

  /**
   * Bring the picture up to date.
   *
   * @param {Luts} luts
   * @param {number} kx power of two up to `ALIGN`
   * @param {number} ky likewise
   * @returns {OffscreenCanvas|null} null: there are no rows yet
   */
  update(luts, kx, ky) {
    const { ring } = this;
    const changed = ring.takeChanges();
    if (ring.rows === 0) return null;
    if (changed === null || this.luts !== luts || this.kx !== kx || this.ky !== ky) {
      [this.luts, this.kx, this.ky] = [luts, kx, ky];
      this.#paint(0, ring.slots / kx);
    } else {
      for (const block of new Set([...changed].map((slot) => Math.floor(slot / kx)))) this.#paint(block, 1);
    }
    return this.canvas;
  }

  /** @param {number} first @param {number} count blocks of columns */
  #paint(first, count) {
    const rows = this.ring.rows / this.ky;
    const context = this.#context(this.ring.slots / this.kx + 2, rows + 2);
    const image = this.#pixels(count, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let at = 0; at < count; at += TILE) this.#tile(pixels, first, at, Math.min(TILE, count - at), count, rows);
    context.putImageData(image, first + 1, 1);
    this.counters.cellsTouched += count * this.kx * this.ring.rows;
  }

  /** @param {Uint32Array} pixels @param {number} first @param {number} at @param {number} count @param {number} width @param {number} rows */
  #tile(pixels, first, at, count, width, rows) {
    const { a: lutA, b: lutB } = /** @type {Luts} */ (this.luts);
    const plain = this.kx === 1 && this.ky === 1;
    const { a, b } = plain ? this.ring : this.#pool(first + at, count, rows);
    const start = plain ? (first + at) * rows : 0;
    for (let row = 0; row < rows; row++) {
      const line = (rows - 1 - row) * width + at;
      for (let col = 0, from = start + row; col < count; col++, from += rows) {
        const one = a[from] ?? 0;
        const other = b[from] ?? 0;
        pixels[line + col] = (one >= other ? lutA[one] : lutB[other]) ?? 0;
      }
    }
  }

  /** Largest cells of `count` blocks of columns. @param {number} first @param {number} count @param {number} rows */
  #pool(first, count, rows) {
    if (this.blocks.a.length < TILE * rows) this.blocks = { a: new Uint8Array(TILE * rows), b: new Uint8Array(TILE * rows) };
    const { blocks, ring, kx } = this;
    blocks.a.fill(0);
    blocks.b.fill(0);
    for (let block = 0; block < count; block++) {
      const slots = Array.from({ length: kx }, (_, n) => (first + block) * kx + n);
      const newest = Math.max(...slots.map((slot) => Math.floor((ring.at[slot] ?? -1) / kx)));
      for (const slot of slots) {
        // where the ring wraps, columns of a round before lie beside the newest ones
        if (Math.floor((ring.at[slot] ?? -1) / kx) !== newest) continue;
        this.#largest(blocks.a, block * rows, ring.a, slot, rows);
        this.#largest(blocks.b, block * rows, ring.b, slot, rows);
      }
    }
    return blocks;
  }

  /** @param {Uint8Array} into @param {number} base @param {Uint8Array} plane @param {number} slot @param {number} rows */
  #largest(into, base, plane, slot, rows) {
    const { ky } = this;
    let from = slot * this.ring.rows;
    for (let at = base; at < base + rows; at++) {
      let most = into[at] ?? 0;
      for (const end = from + ky; from < end; from++) {
        const cell = plane[from] ?? 0;
        if (cell > most) most = cell;
      }
      into[at] = most;
    }
  }

  /** @param {number} count @param {number} rows */
  #pixels(count, rows) {
    if (this.whole?.width === count && this.whole.height === rows) return this.whole;
    const image = new ImageData(count, rows);
    if (count > 1) this.whole = image;
    return image;
  }

  /** @param {number} width @param {number} height */
  #context(width, height) {
    if (this.canvas === null || this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas = new OffscreenCanvas(width, height);
    }
    return /** @type {OffscreenCanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
  }
}

/**
 * How many columns or rows one pixel of a picture stands for where a cell has `size` pixels of the screen: 1 from one pixel on.
 *
 * @param {number} size
 */
export function blockOf(size) {
  let block = 1;
  while (block < ALIGN && block * size < 1) block *= 2;
  return block;
}
