/**
 * The three exports of what is visible.
 *
 * @typedef {import("./store.js").State} State
 * @typedef {import("./picture.js").Picture} Picture
 */

import { now } from "./clock.js";
import { byId } from "./dom.js";
import { csvOf, download, fileName, tripletsOf } from "./export.js";
import { pictureOf } from "./export_png.js";
import { compact, price, stamp } from "./format.js";
import { legendTitle } from "./legend.js";
import { isShown } from "./look.js";
import { buildLut, qOf } from "./lut.js";
import { notice } from "./notices.js";

const MAP_NAMES = { liq: "liquidation map, combined", tape: "liquidation map, tape only", projected: "liquidation map, projected only" };

/** @param {() => State} get @param {Picture} picture */
export function wireExports(get, picture) {
  const save = (/** @type {() => void} */ run) => () => {
    byId("export-menu").hidePopover();
    if (picture.cells() === null) notice("There is nothing to export before the first picture.");
    else run();
  };
  byId("export-png").addEventListener("click", save(() => savePng(get(), picture)));
  byId("export-csv").addEventListener("click", save(() => saveCells(get(), picture, "csv")));
  byId("export-triplets").addEventListener("click", save(() => saveCells(get(), picture, "json")));
}

/** @param {State} state */
function originOf({ symbol, provenance, status }) {
  return {
    symbol: symbol ?? "", model: provenance?.model ?? "unknown model", configHash: provenance?.config_hash ?? "", version: status.version,
    dataSinceMs: status.dataSinceMs,
  };
}

/** @param {State} state @param {Picture} picture @param {"csv"|"json"} form */
function saveCells(state, picture, form) {
  const view = picture.cells();
  if (!view) return;
  const origin = originOf(state);
  const [text, type] = form === "csv" ? [csvOf(view, origin), "text/csv"] : [JSON.stringify(tripletsOf(view, origin)), "application/json"];
  download(new Blob([text], { type }), fileName(origin.symbol, now(), form));
}

/** @param {Picture} picture @param {import("./scale.js").Which} which @returns {import("./export_png.js").Ramp} */
function legendOf(picture, which) {
  const look = picture.lookOf(which);
  const ramps = /** @type {const} */ ([1, 0]).map((side) => buildLut({ ...look, side }).subarray(qOf(look.loUsd), qOf(look.hiUsd) + 1));
  return { title: legendTitle(which), loText: `$${compact(look.loUsd)}`, hiText: `$${compact(look.hiUsd)}`, ramps };
}

/** @param {State} state @param {Picture} picture */
function savePng(state, picture) {
  const { symbol, model, configHash, version, dataSinceMs } = originOf(state);
  const view = picture.visible();
  const shown = [state.map === null ? "" : MAP_NAMES[state.map], state.depth ? "order book" : ""].filter(Boolean).join(" and ");
  const legends = /** @type {const} */ (["map", "depth"]).filter((which) => isShown(state, which)).map((which) => legendOf(picture, which));
  const style = getComputedStyle(document.documentElement);
  const { backgroundColor: paper, color: ink } = getComputedStyle(document.body);
  const canvas = pictureOf({
    chart: picture.canvas(), cssWidth: byId("chart").clientWidth, legends, paper, ink, dim: style.getPropertyValue("--dim-ink") || ink,
    head: `${symbol}  ${shown}, ${state.range}; ${stamp(view?.fromMs)} to ${stamp(view?.toMs)} UTC; mark ${price(state.mark)} USD${state.badge === "LIVE" ? "" : `; ${state.badge}`}`,
    foot: [
      `Map levels are estimated: model ${model}, settings ${configHash.slice(0, 12)}, data since ${stamp(dataSinceMs)} UTC. mpengine ${version ?? ""}`.trim(),
      `${byId("credit").textContent?.trim()} https://www.tradingview.com/`,
    ],
  });
  canvas.toBlob((blob) => {
    if (blob) download(blob, fileName(symbol, now(), "png"));
    else notice("This browser could not make the picture.");
  }, "image/png");
}
