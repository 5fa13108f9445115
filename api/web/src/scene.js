/**
 * What the painters draw: one object, changed by the picture, read at each repaint.
 *
 * @typedef {import("./types.js").LayerName} LayerName
 *
 * @typedef {object} Scene
 * @property {number} dtMs
 * @property {number} first column of the first bar
 * @property {number} newest newest column that anything belongs to
 * @property {Map<LayerName, import("./layer.js").Layer>} layers
 * @property {import("./types.js").Layers} show
 * @property {{map: import("./image.js").Luts, depth: import("./image.js").Luts}} luts
 * @property {import("./theme.js").Inks} inks
 * @property {boolean} stale
 * @property {import("./types.js").Bubble[]} bubbles
 * @property {import("../types/contract.js").Zone[]} zones
 * @property {{drawImageCalls: number, repaints: number, cellsTouched: number}} counters
 */

import { Axes } from "./axes.js";

/** The layer that is shown as map or book; null where it is off. @param {Scene} scene @param {"map"|"depth"} which */
export function shown(scene, which) {
  const { show } = scene;
  const name = which === "map" ? show.map : show.depth ? "depth" : null;
  return name !== null && show.heat ? (scene.layers.get(name) ?? null) : null;
}

/**
 * A primitive of the chart library that paints in pixels of the device.
 *
 * @param {"bottom"|"normal"} zOrder
 * @param {(scope: import("./axes.js").Scope) => Axes|null} axes null: there is nothing to place by
 * @param {(context: CanvasRenderingContext2D, axes: Axes) => void} paint
 * @returns {import("../vendor/lightweight-charts.js").ISeriesPrimitive}
 */
export function primitive(zOrder, axes, paint) {
  /** @type {import("../vendor/lightweight-charts.js").IPrimitivePaneRenderer} */
  const renderer = {
    draw(target) {
      target.useBitmapCoordinateSpace((scope) => {
        const placed = axes(scope);
        if (placed === null) return;
        scope.context.save();
        paint(scope.context, placed);
        scope.context.restore();
      });
    },
  };
  const views = [{ zOrder: () => zOrder, renderer: () => renderer }];
  return { paneViews: () => views };
}
