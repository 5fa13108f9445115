/**
 * Keys of the page: one table for what they do and for the help.
 *
 * @typedef {"pause"|"map"|"depth"|"candles"|"realised"|"heat"|"recenter"|"newest"|"zoomIn"|"zoomOut"|"close"|"help"} Command
 * @typedef {{command: Command} | {symbol: number} | {cursor: readonly [number, number]} | {pan: readonly [number, number]}} Action
 * @typedef {{key: string, shiftKey: boolean, ctrlKey: boolean, altKey: boolean, metaKey: boolean}} Press
 */

/** Cells that the view moves by with Shift. */
export const FAR = 10;
/** Columns to the right, rows upwards. @type {Record<string, readonly [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
/** @type {Record<string, Command>} */
const COMMANDS = {
  " ": "pause", l: "map", b: "depth", c: "candles", o: "realised", h: "heat", r: "recenter", End: "newest", "+": "zoomIn", "=": "zoomIn",
  "-": "zoomOut", "−": "zoomOut", Escape: "close", "?": "help",
};
/** For the help: keys, what they do. @type {readonly (readonly [string, string])[]} */
export const KEYS = [
  ["Space", "pause and go on"], ["1 2 3", "symbol"], ["L", "liquidation map on or off"], ["B", "order book"], ["C", "candles"], ["O", "bubbles of realised liquidations"],
  ["H", "hide all heat"], ["← → ↑ ↓", "cross-hair by one cell"], ["Shift + arrows", `move the view by ${FAR} cells`], ["+ −", "zoom"], ["R", "re-centre"],
  ["End", "to the newest column"], ["Esc", "close what is open, drop the cross-hair"], ["?", "this help"],
];

/** What goes on while a key is held. @param {Action} action */
const repeats = (action) => !("symbol" in action) && (!("command" in action) || action.command === "zoomIn" || action.command === "zoomOut");

/**
 * What a key asks for; null: nothing of ours. With Ctrl, Alt or Meta it is the browser's.
 *
 * @param {Press} press
 * @returns {Action | null}
 */
export function actionOf({ key, shiftKey, ctrlKey, altKey, metaKey }) {
  if (ctrlKey || altKey || metaKey) return null;
  const arrow = ARROWS[key];
  if (arrow) return shiftKey ? { pan: [arrow[0] * FAR, arrow[1] * FAR] } : { cursor: arrow };
  if (/^[1-9]$/.test(key)) return { symbol: Number(key) - 1 };
  const command = COMMANDS[key.length === 1 ? key.toLowerCase() : key];
  return command ? { command } : null;
}

/**
 * Whether the focused element needs this key for itself.
 *
 * @param {Element | null} target
 * @param {string} key
 */
export function taken(target, key) {
  if (!target || key === "Escape") return false;
  if (target.closest("input[type=text], input[type=number], input[type=password], select, textarea, dialog[open]")) return true;
  const moves = key in ARROWS || key === "End";
  if (moves) return Boolean(target.closest("input, [role=tab], [role=tabpanel], [role=group], .sheet"));
  return key === " " && Boolean(target.closest("button, input, a, summary"));
}

/**
 * @param {(action: Action) => void} run
 * @param {() => boolean} single whether single keys may be used (WCAG 2.1.4)
 */
export function wireKeys(run, single) {
  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const action = actionOf(event);
    if (!action || event.defaultPrevented || taken(target, event.key)) return;
    if (event.key.length === 1 && !single()) return;
    const closes = "command" in action && action.command === "close";
    // Escape also ends dialogs and menus by itself, so it goes on.
    if (!closes) event.preventDefault();
    if (!event.repeat || repeats(action)) run(action);
  });
}
