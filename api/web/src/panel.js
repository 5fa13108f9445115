/** Tabs beside the chart, as the pattern of ARIA wants them: arrows move, one tab stop. */

import { byId } from "./dom.js";
import { PANELS } from "./url.js";

const MOVES = /** @type {Record<string, (at: number) => number>} */ ({
  ArrowRight: (at) => (at + 1) % PANELS.length,
  ArrowLeft: (at) => (at + PANELS.length - 1) % PANELS.length,
  Home: () => 0,
  End: () => PANELS.length - 1,
});

/** @param {(panel: string) => void} onPick */
export function wireTabs(onPick) {
  for (const [at, panel] of PANELS.entries()) {
    const tab = byId(`tab-${panel}`);
    tab.addEventListener("click", () => onPick(panel));
    tab.addEventListener("keydown", (event) => {
      const next = PANELS[MOVES[event.key]?.(at) ?? -1];
      if (next === undefined) return;
      event.preventDefault();
      onPick(next);
      byId(`tab-${next}`).focus();
    });
  }
}

/** @param {string|null} chosen null: the first */
export function showPanel(chosen) {
  for (const panel of PANELS) {
    const on = panel === (chosen ?? PANELS[0]);
    const tab = byId(`tab-${panel}`);
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    byId(`panel-${panel}`).hidden = !on;
  }
}
