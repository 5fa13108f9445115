/**
 * Shapes that the parts of the page hand to each other. Nothing runs here.
 *
 * Times are epoch ms, prices and cells USD. Of two sides the first (`a`) is long or bid, the second (`b`) short or ask. Cells are
 * bytes on the scale of `lut.js`: 0 nothing. What is missing is null, NaN or number -1, never 0.
 *
 * @typedef {"liq"|"tape"|"projected"} MapName
 * @typedef {MapName|"depth"} LayerName
 * @typedef {"viridis"|"inferno"|"cividis"|"mono"} PaletteName
 * @typedef {"dark"|"light"} Theme
 *
 * @typedef {object} Column One column of one layer. Row r has its centre at `price0` + r * `step`. `src`: price of the column.
 *   `seq`, `prev`: number of this message and of the one before it in its channel, -1 without. `stale`: as the server judged it.
 * @property {LayerName} layer
 * @property {number} tMs
 * @property {number} dtMs
 * @property {number} price0
 * @property {number} step
 * @property {number} rows
 * @property {Uint8Array} a
 * @property {Uint8Array} b
 * @property {number|null} src
 * @property {number} epoch
 * @property {number} seq
 * @property {number} prev
 * @property {string[]} flags `provisional`, `gap`, `restart`, `stale`, `snapshot` and the coverage flags of the contract
 * @property {boolean} stale
 * @property {number} [channel] number of the channel as of the ack, in binary messages
 *
 * @typedef {object} LayerCells `a`, `b`: cell [column * rows + row]. `seq`: number of the frame of each column, -1 missing.
 * @property {Float64Array} seq
 * @property {Uint8Array} a
 * @property {Uint8Array} b
 *
 * @typedef {object} Point Realised liquidations of one cell. `side`: 0 long, 1 short. `venues`: bits (1 Binance, 2 Bybit, 4 OKX,
 *   8 Gate, 16 Bitget). `count`: 65,535 says "or more".
 * @property {number} col
 * @property {number} row
 * @property {0|1} side
 * @property {number} venues
 * @property {number} count
 * @property {number} usd
 * @property {number} maxUsd
 *
 * @typedef {object} ProvenanceOf As of the newest frame; `assumptions` null without a map.
 * @property {string} model
 * @property {boolean} estimated
 * @property {string} config_hash
 * @property {import("../types/contract.js").Assumptions|null} assumptions
 * @property {import("../types/contract.js").Coverage} coverage
 *
 * @typedef {object} Snapshot An answer of `/heatmap`. Column c covers [`t0Ms` + c * `dtMs`, + `dtMs`), row r has its centre at
 *   `price0` + r * `step`; `k` symbol steps per row. `flags`: coverage bits of the newest column. `src`: price per column, NaN
 *   missing. `epoch` null without any data.
 * @property {string} symbol
 * @property {number} t0Ms
 * @property {number} dtMs
 * @property {number} cols
 * @property {number} price0
 * @property {number} step
 * @property {number} rows
 * @property {number} k
 * @property {number} loUsd
 * @property {number} hiUsd
 * @property {number} flags
 * @property {Partial<Record<LayerName, LayerCells>>} layers
 * @property {Point[]} points
 * @property {Float64Array} src
 * @property {number|null} epoch
 * @property {{liq: number|null, depth: number|null, realised: number|null}} seqs
 * @property {ProvenanceOf} provenance
 *
 * @typedef {object} Scale What of the USD scale is shown, and how: nothing below `loUsd`, everything from `hiUsd` on alike; between
 *   them position ** `gamma`, the position logarithmic or linear.
 * @property {number} loUsd
 * @property {number} hiUsd
 * @property {number} gamma
 * @property {boolean} log
 *
 * @typedef {object} Layers What is drawn. `map`: which of the maps, null none. `heat`: false hides map and book together.
 * @property {MapName|null} map
 * @property {boolean} depth
 * @property {boolean} candles
 * @property {boolean} realised
 * @property {boolean} zones
 * @property {boolean} profile
 * @property {boolean} heat
 * @property {{map: number, depth: number}} opacity
 *
 * @typedef {object} Bar
 * @property {number} o
 * @property {number} h
 * @property {number} l
 * @property {number} c
 *
 * @typedef {object} Bubble Realised liquidations of one cell and side; `price` its centre, `tMs` start of its column.
 * @property {number} tMs
 * @property {number} price
 * @property {0|1} side
 * @property {number} venues
 * @property {number} count
 * @property {number} usd
 * @property {number} maxUsd
 *
 * @typedef {object} MapCell USD; null where the column covers the price but holds nothing is 0, outside of what it covers null.
 * @property {number|null} longUsd
 * @property {number|null} shortUsd
 * @property {boolean} missing the column has no data
 *
 * @typedef {object} DepthCell
 * @property {number|null} bidUsd
 * @property {number|null} askUsd
 * @property {boolean} missing
 *
 * @typedef {object} CellsAt One column at one price; null: the layer is not shown.
 * @property {MapCell|null} map
 * @property {DepthCell|null} depth
 *
 * @typedef {object} Readout What lies under the cursor. `previous`, `next`: same price, the columns beside it. `distancePct`: of the
 *   price from the mark. `ageS`: since the end of the column, 0 in the running one; null in the future.
 * @property {number} tMs
 * @property {number} dtMs
 * @property {number} price
 * @property {number|null} mark
 * @property {number|null} distancePct
 * @property {boolean} future right of the newest column: what the map shows there is its newest column, projected
 * @property {MapCell|null} map
 * @property {DepthCell|null} depth
 * @property {CellsAt} previous
 * @property {CellsAt} next
 * @property {Bubble|null} bubble
 * @property {Bar|null} candle
 * @property {number|null} ageS
 *
 * @typedef {object} View
 * @property {number} fromMs
 * @property {number} toMs
 * @property {number} priceLow
 * @property {number} priceHigh
 *
 * @typedef {object} ViewColumn USD of the visible rows of one layer's column; row r has its centre at `price0` + r * `step`.
 * @property {number} price0
 * @property {number} step
 * @property {Float64Array} a
 * @property {Float64Array} b
 *
 * @typedef {object} CellsOfView What is visible, for exports. `map`, `depth`: null where the layer is off or the column is missing.
 * @property {MapName|null} mapName
 * @property {number} dtMs
 * @property {View} view
 * @property {{tMs: number, missing: {map: boolean, depth: boolean}, candle: Bar|null, map: ViewColumn|null, depth: ViewColumn|null}[]} columns
 * @property {Bubble[]} bubbles
 */

export {};
