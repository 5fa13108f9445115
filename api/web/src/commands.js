/**
 * What keys do.
 *
 * @typedef {import("./keys.js").Action} Action
 * @typedef {import("./keys.js").Command} Command
 */

const NEARER = 1.25;

/**
 * @param {object} parts
 * @param {import("./store.js").Store} parts.store
 * @param {import("./picture.js").Picture} parts.picture
 * @param {readonly string[]} parts.symbols
 * @param {() => void} parts.togglePause
 * @param {() => void} parts.help
 * @param {() => void} parts.close
 * @returns {(action: Action) => void}
 */
export function commands({ store, picture, symbols, togglePause, help, close }) {
  let lastMap = store.get().map ?? "liq";
  const toggle = (/** @type {"depth"|"candles"|"realised"|"heat"} */ key) => () => store.set({ [key]: !store.get()[key] });
  /** @type {Record<Command, () => void>} */
  const table = {
    pause: togglePause, help, close,
    map() {
      const { map } = store.get();
      if (map !== null) lastMap = map;
      store.set({ map: map === null ? lastMap : null });
    },
    depth: toggle("depth"), candles: toggle("candles"), realised: toggle("realised"), heat: toggle("heat"),
    recenter: () => picture.recenter(),
    newest: () => picture.toNewest(),
    zoomIn: () => picture.zoom(NEARER),
    zoomOut: () => picture.zoom(1 / NEARER),
  };
  return (action) => {
    if ("command" in action) table[action.command]();
    else if ("cursor" in action) picture.crosshairTo(...action.cursor);
    else if ("pan" in action) {
      if (action.pan[0]) picture.pan(action.pan[0]);
      if (action.pan[1]) picture.panPrice(action.pan[1]);
    } else {
      const symbol = symbols[action.symbol];
      if (symbol !== undefined) store.set({ symbol });
    }
  };
}
