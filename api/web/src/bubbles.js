/**
 * Realised liquidations: those of a snapshot and those that come live, joined by column, row and side; the larger the amount the
 * larger the disc. Longs are full, shorts hollow, so that colour is not the only difference.
 */

import { columnAt, rowAt } from "./grid.js";
import { strength } from "./theme.js";

/** @typedef {import("./types.js").Bubble} Bubble */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./axes.js").Axes} Axes */

/** @type {Record<string, number>} */
const VENUE_BITS = { binance: 1, bybit: 2, okx: 4, gate: 8, bitget: 16 };
const MOST = 65_535;
const LEAST_RADIUS = 1.8;
const MOST_RADIUS = 22;
/** USD of a disc of one pixel more: its area grows with the amount. */
const USD_PER_SQUARE = 14_400;

/** Pure: what there is to draw. */
export class Bubbles {
  /** @param {number} dtMs @param {number} step USD per row */
  constructor(dtMs, step) {
    this.dtMs = dtMs;
    this.step = step;
    /** Newest event that a snapshot has counted already. */
    this.counted = -1;
    /** @type {Map<string, Bubble & {col: number}>} */
    this.byCell = new Map();
  }

  /** Those of a snapshot, in place of all in its columns. @param {import("./types.js").Snapshot} snapshot */
  load(snapshot) {
    const first = columnAt(snapshot.t0Ms, this.dtMs);
    for (const [key, one] of this.byCell) if (one.col >= first) this.byCell.delete(key);
    this.counted = Math.max(this.counted, snapshot.seqs.realised ?? -1);
    for (const { col, row, ...point } of snapshot.points) {
      this.#join(first + col, rowAt(snapshot.price0 + row * snapshot.step, this.step), point);
    }
  }

  /** Those not yet counted. @param {import("../types/contract.js").Liquidation[]} liquidations */
  add(liquidations) {
    for (const one of liquidations) {
      if (one.seq <= this.counted) continue;
      this.counted = one.seq;
      const [usd, venues, side] = [one.notional_usd, VENUE_BITS[one.venue] ?? 0, one.side === "long" ? 0 : 1];
      const point = { side: /** @type {0|1} */ (side), venues, count: 1, usd, maxUsd: usd };
      this.#join(columnAt(one.ts_ms, this.dtMs), rowAt(one.price, this.step), point);
    }
  }

  /** Forget what is older. @param {number} first column */
  prune(first) {
    for (const [key, one] of this.byCell) if (one.col < first) this.byCell.delete(key);
  }

  /** The larger of both sides in a cell. @param {number} col @param {number} price @returns {Bubble|null} */
  at(col, price) {
    const row = rowAt(price, this.step);
    const found = [0, 1].flatMap((side) => this.byCell.get(`${col}:${row}:${side}`) ?? []);
    return found.sort((one, other) => other.usd - one.usd)[0] ?? null;
  }

  /** Largest first, so that small ones lie on top. @returns {(Bubble & {col: number})[]} */
  list() {
    return [...this.byCell.values()].sort((one, other) => other.usd - one.usd);
  }

  /** @param {number} col @param {number} row @param {Omit<import("./types.js").Point, "col"|"row">} point */
  #join(col, row, { side, venues, count, usd, maxUsd }) {
    const key = `${col}:${row}:${side}`;
    const one = this.byCell.get(key);
    if (!one) {
      this.byCell.set(key, { col, tMs: col * this.dtMs, price: row * this.step, side, venues, count, usd, maxUsd });
      return;
    }
    one.venues |= venues;
    one.count = Math.min(MOST, one.count + count);
    one.usd += usd;
    one.maxUsd = Math.max(one.maxUsd, maxUsd);
  }
}

/** Radius of a disc, pixels of the page. @param {number} usd */
export function radiusOf(usd) {
  return Math.min(MOST_RADIUS, LEAST_RADIUS + Math.sqrt(usd / USD_PER_SQUARE));
}

/** @param {CanvasRenderingContext2D} context @param {Axes} axes @param {Scene} scene */
export function paintBubbles(context, axes, scene) {
  if (!scene.show.realised) return;
  const ratio = axes.scope.horizontalPixelRatio;
  context.lineWidth = 1.25 * ratio;
  for (const { tMs, price, usd, side } of scene.bubbles) {
    const x = axes.left(columnAt(tMs, scene.dtMs) + 0.5);
    const y = axes.y(price);
    const radius = radiusOf(usd) * ratio;
    if (x < -radius || x > axes.width + radius || y < -radius || y > axes.height + radius) continue;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = side === 0 ? scene.inks.long : scene.inks.short;
    context.strokeStyle = side === 0 ? scene.inks.back : scene.inks.short;
    context.globalAlpha = (side === 0 ? 0.72 : 0.22) * strength(scene.stale);
    context.fill();
    context.globalAlpha = 0.95 * strength(scene.stale);
    context.stroke();
  }
}
