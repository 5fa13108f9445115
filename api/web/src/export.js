/**
 * What is visible as a file: cells as CSV, and sparse triplets with the keys that scripts for Coinglass v4 know. Pure but for `download`.
 *
 * @typedef {import("./types.js").CellsOfView} CellsOfView
 * @typedef {import("./types.js").ViewColumn} ViewColumn
 * @typedef {{symbol: string, model: string, configHash: string, version: string|null, dataSinceMs: number|null}} Origin
 * @typedef {{tMs: number, x: number, layer: string, side: string, price: number, usd: number, estimated: boolean}} Cell
 */

const SIDES = { map: ["long", "short"], depth: ["bid", "ask"] };
/** Prices of cells are centres of rows; digits beyond this are of the arithmetic. */
const PRICE_DIGITS = 8;

/** @param {number} value @param {number} digits */
const trimmed = (value, digits) => Number(value.toFixed(digits));

/**
 * Every cell that holds something, column by column, prices ascending, then realised liquidations.
 *
 * @param {CellsOfView} view
 * @returns {Generator<Cell>}
 */
export function* cellsOf(view) {
  for (const [x, { tMs, map, depth }] of view.columns.entries()) {
    if (map) yield* cellsOfColumn(map, SIDES.map, { tMs, x, layer: `map_${view.mapName ?? "liq"}`, estimated: true });
    if (depth) yield* cellsOfColumn(depth, SIDES.depth, { tMs, x, layer: "book", estimated: false });
  }
  const t0 = view.columns[0]?.tMs ?? 0;
  for (const { tMs, price, side, usd } of view.bubbles) {
    yield { tMs, x: Math.round((tMs - t0) / view.dtMs), layer: "realised", side: side === 0 ? "long" : "short", price, usd, estimated: false };
  }
}

/** @param {ViewColumn} column @param {readonly string[]} sides @param {{tMs: number, x: number, layer: string, estimated: boolean}} of */
function* cellsOfColumn({ price0, step, a, b }, sides, of) {
  for (let row = 0; row < a.length; row += 1) {
    for (const [at, plane] of [a, b].entries()) {
      const usd = plane[row] ?? 0;
      if (usd > 0) yield { ...of, side: sides[at] ?? "", price: trimmed(price0 + row * step, PRICE_DIGITS), usd };
    }
  }
}

/**
 * A comment with the origin, a header, a line per cell. Columns without data are absent, not zero.
 *
 * @param {CellsOfView} view
 * @param {Origin} origin
 */
export function csvOf(view, { symbol, model, configHash }) {
  const lines = [
    `# mpengine ${symbol}; map cells are estimated by ${model}, settings ${configHash}; every amount at most 3.3 % off; column ${view.dtMs / 1000} s`,
    "time_utc,time_ms,layer,side,price_usd,amount_usd,estimated",
  ];
  for (const { tMs, layer, side, price, usd, estimated } of cellsOf(view)) {
    lines.push([new Date(tMs).toISOString(), tMs, layer, side, price, trimmed(usd, usd < 1000 ? 2 : 0), Number(estimated)].join());
  }
  return `${lines.join("\n")}\n`;
}

/**
 * `y_axis`: prices; `liquidation_leverage_data`, `order_book_data`: [x, y, USD], both sides added; `price_candlesticks`: [s, o, h, l, c].
 *
 * @param {CellsOfView} view
 * @param {Origin} origin
 */
export function tripletsOf(view, origin) {
  const cells = [...cellsOf(view)].filter(({ layer }) => layer !== "realised");
  const yAxis = [...new Set(cells.map(({ price }) => price))].sort((one, other) => one - other);
  const rows = new Map(yAxis.map((price, y) => [price, y]));
  /** @type {Record<"map"|"book", Map<string, [number, number, number]>>} */
  const sums = { map: new Map(), book: new Map() };
  for (const { x, price, usd, layer } of cells) {
    const y = rows.get(price) ?? 0;
    const into = sums[layer === "book" ? "book" : "map"];
    into.set(`${x} ${y}`, [x, y, trimmed((into.get(`${x} ${y}`)?.[2] ?? 0) + usd, 2)]);
  }
  return {
    y_axis: yAxis,
    x_axis_ms: view.columns.map(({ tMs }) => tMs),
    liquidation_leverage_data: [...sums.map.values()],
    order_book_data: [...sums.book.values()],
    price_candlesticks: view.columns.flatMap(({ tMs, candle }) => (candle ? [[tMs / 1000, candle.o, candle.h, candle.l, candle.c]] : [])),
    missing_columns: view.columns.flatMap(({ missing }, x) => (missing.map ? [x] : [])),
    origin: { ...origin, estimated: true, map: view.mapName, column_ms: view.dtMs },
  };
}

/** `mpengine-BTC-20261121T1200Z.csv`. @param {string} symbol @param {number} tMs @param {string} suffix */
export function fileName(symbol, tMs, suffix) {
  const time = new Date(tMs).toISOString().slice(0, 16).replaceAll(/[-:]/g, "");
  return `mpengine-${symbol}-${time}Z.${suffix}`;
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads it after this task; a minute is more than it needs.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
