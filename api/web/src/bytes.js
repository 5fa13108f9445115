/**
 * The two binary forms of the API as typed arrays: `MPHM` (an answer of `/heatmap`) and `MPCD` (a column that was pushed), and the
 * column of the JSON form. Pure.
 *
 * Everything that can be judged without the numbers is judged: magic, version, sizes, bounds, element types, cells and their scale.
 * What is wrong throws `FormatError` and gives nothing. The xxh3 digest of `MPHM` is not computed: the transport already checks.
 * Dense planes are views of the bytes that were given.
 */

import { CELL_HI_USD, CELL_LO_USD } from "./lut.js";

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").Column} Column */
/** @typedef {import("./types.js").LayerName} LayerName */
/** @typedef {{element: number, count: number, offset: number, size: number}} Entry */

/** The bytes are not what the API sends; the text says what is wrong. */
export class FormatError extends Error {
  /** @param {string} text */
  constructor(text) {
    super(text);
    this.name = "FormatError";
  }
}

const HEADER = 128;
const ENTRY = 32;
const MAX_CELLS = 4_000_000;
const MAX_ROWS = 16_384;
const U8LOG = 2;
const POINT_BYTES = 16;
const ELEMENTS = { cells: U8LOG, i64: 3, f64: 5, point: 6, json: 7 };
const NONE = 2n ** 64n - 1n;
const LATEST_MS = 8.64e15;
/** @type {Record<LayerName, readonly [number, number, number]>} blocks of the first side, the second, the numbers */
const BLOCKS = { liq: [1, 2, 32], tape: [3, 4, 32], projected: [5, 6, 32], depth: [7, 8, 33] };
const REALISED = 16;
const SRC = 36;
const PROVENANCE = 48;

/**
 * @param {ArrayBuffer} buffer
 * @returns {Snapshot}
 */
export function decodeHeatmap(buffer) {
  const view = new DataView(buffer);
  need(buffer.byteLength >= HEADER, `a heatmap has ${HEADER} bytes of header, got ${buffer.byteLength}`);
  need(magic(view) === "MPHM" && view.getUint8(4) === 1 && view.getUint32(8, true) === HEADER, "this is no heatmap of version 1");
  need(view.getUint8(5) === U8LOG, "the cells are not of the byte scale");
  const form = view.getUint8(6);
  need(form <= 1 && view.getUint8(7) <= 1, "form or pooling is not known here");
  const head = {
    t0Ms: Number(view.getBigInt64(16, true)),
    dtMs: view.getUint32(24, true),
    cols: view.getUint32(28, true),
    price0: view.getFloat64(32, true),
    step: view.getFloat64(40, true),
    rows: view.getUint32(48, true),
    k: view.getUint16(54, true),
    loUsd: view.getFloat32(88, true),
    hiUsd: view.getFloat32(92, true),
  };
  checkTime(head.t0Ms, head.dtMs);
  checkRows(head.price0, head.step, head.rows);
  checkScale(head.loUsd, head.hiUsd);
  need(head.cols * head.rows <= MAX_CELLS, `${head.cols} columns of ${head.rows} rows are too many cells`);
  const found = directory(view);
  const epoch = Number(view.getBigUint64(56, true));
  const { symbol, ...provenance } = provenanceOf(view, found);
  return {
    symbol,
    ...head,
    flags: view.getUint32(12, true),
    layers: layersOf(view, found, head.cols, head.rows, form === 1),
    points: pointsOf(view, found, head.cols, head.rows),
    src: floats(view, found, head.cols),
    epoch: epoch === 0 ? null : epoch,
    seqs: { liq: numberAt(view, 64), depth: numberAt(view, 72), realised: numberAt(view, 80) },
    provenance,
  };
}

/** @param {DataView} view @returns {Map<number, Entry>} */
function directory(view) {
  const count = view.getUint16(52, true);
  const end = HEADER + ENTRY * count;
  need(end <= view.byteLength, `${count} blocks do not fit ${view.byteLength} bytes`);
  /** @type {Map<number, Entry>} */
  const found = new Map();
  for (let at = HEADER; at < end; at += ENTRY) {
    const id = view.getUint8(at);
    const offset = Number(view.getBigUint64(at + 8, true));
    const size = Number(view.getBigUint64(at + 16, true));
    need(offset % 8 === 0 && offset >= end && offset + size <= view.byteLength, `block ${id} lies outside of the bytes`);
    need(!found.has(id), `block ${id} is there twice`);
    found.set(id, { element: view.getUint8(at + 1), count: view.getUint32(at + 4, true), offset, size });
  }
  return found;
}

/** @param {DataView} view @param {Map<number, Entry>} found @param {number} cols @param {number} rows @param {boolean} sparse */
function layersOf(view, found, cols, rows, sparse) {
  /** @type {Snapshot["layers"]} */
  const layers = {};
  for (const [name, [first, second, numbers]] of /** @type {[LayerName, readonly [number, number, number]][]} */ (Object.entries(BLOCKS))) {
    const blocks = [found.get(first), found.get(second)];
    if (!blocks[0] && !blocks[1]) continue;
    const seq = found.get(numbers);
    need(seq !== undefined, `the columns of ${name} are missing`);
    const [a, b] = blocks.map((block) => (block ? plane(view, block, cols, rows, sparse) : new Uint8Array(cols * rows)));
    layers[name] = { seq: numbersOf(view, seq, cols), a: /** @type {Uint8Array} */ (a), b: /** @type {Uint8Array} */ (b) };
  }
  return layers;
}

/** @param {DataView} view @param {Entry} entry @param {number} cols @param {number} rows @param {boolean} sparse */
function plane(view, entry, cols, rows, sparse) {
  const { count, offset } = entry;
  const all = cols * rows;
  check(entry, ELEMENTS.cells, count * (sparse ? 5 : 1));
  if (!sparse) {
    need(count === all, `a plane has ${count} of ${all} cells`);
    return new Uint8Array(view.buffer, offset, count);
  }
  const cells = new Uint8Array(all);
  const values = new Uint8Array(view.buffer, offset + 4 * count, count);
  let before = -1;
  for (let n = 0; n < count; n++) {
    const index = view.getUint32(offset + 4 * n, true);
    need(index > before && index < all, "the indices of a plane do not ascend inside of it");
    cells[index] = values[n] ?? 0;
    before = index;
  }
  return cells;
}

/** @param {DataView} view @param {Entry} entry @param {number} cols */
function numbersOf(view, entry, cols) {
  check(entry, ELEMENTS.i64, 8 * cols);
  return Float64Array.from({ length: cols }, (_, c) => Number(view.getBigInt64(entry.offset + 8 * c, true)));
}

/** @param {DataView} view @param {Map<number, Entry>} found @param {number} cols */
function floats(view, found, cols) {
  const entry = found.get(SRC);
  if (!entry) return new Float64Array(cols).fill(NaN);
  check(entry, ELEMENTS.f64, 8 * cols);
  return Float64Array.from({ length: cols }, (_, c) => view.getFloat64(entry.offset + 8 * c, true));
}

/** @param {DataView} view @param {Map<number, Entry>} found @param {number} cols @param {number} rows */
function pointsOf(view, found, cols, rows) {
  const entry = found.get(REALISED);
  if (!entry) return [];
  check(entry, ELEMENTS.point, POINT_BYTES * entry.count);
  return Array.from({ length: entry.count }, (_, n) => {
    const at = entry.offset + POINT_BYTES * n;
    const side = view.getUint8(at + 4);
    const point = {
      col: view.getUint16(at, true),
      row: view.getUint16(at + 2, true),
      side: /** @type {0|1} */ (side),
      venues: view.getUint8(at + 5),
      count: view.getUint16(at + 6, true),
      usd: view.getFloat32(at + 8, true),
      maxUsd: view.getFloat32(at + 12, true),
    };
    need(point.col < cols && point.row < rows && side <= 1 && point.usd >= 0, "a liquidation lies outside of the grid");
    return point;
  });
}

/** @param {DataView} view @param {Map<number, Entry>} found @returns {{symbol: string} & import("./types.js").ProvenanceOf} */
function provenanceOf(view, found) {
  const entry = found.get(PROVENANCE);
  need(entry !== undefined, "the provenance is missing");
  check(entry, ELEMENTS.json, entry.count);
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, entry.offset, entry.size));
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  need(typeof value === "object" && value !== null && typeof value.symbol === "string", "the provenance is not known here");
  return value;
}

const COLUMN_HEADER = 80;
/** @type {readonly [number, string][]} */
const COLUMN_FLAGS = [[1, "provisional"], [2, "gap"], [4, "restart"], [8, "stale"], [16, "snapshot"]]; // prettier-ignore

/**
 * @param {ArrayBuffer} buffer
 * @returns {Column}
 */
export function decodeColumn(buffer) {
  const view = new DataView(buffer);
  need(buffer.byteLength >= COLUMN_HEADER, `a column has ${COLUMN_HEADER} bytes of header, got ${buffer.byteLength}`);
  need(magic(view) === "MPCD" && view.getUint8(4) === 1 && view.getUint8(7) === 2, "this is no column of version 1");
  need(view.getUint8(6) === U8LOG, "the cells are not of the byte scale");
  const kind = view.getUint8(5);
  need(kind === 1 || kind === 2, `a column of kind ${kind} is not known here`);
  const bits = view.getUint16(10, true);
  const rows = view.getUint32(12, true);
  need(buffer.byteLength === COLUMN_HEADER + 2 * rows, `a column of ${rows} rows has ${buffer.byteLength} bytes`);
  const src = view.getFloat64(64, true);
  return checked({
    layer: kind === 1 ? "depth" : "liq",
    tMs: Number(view.getBigInt64(40, true)),
    dtMs: view.getUint32(76, true),
    price0: view.getFloat64(48, true),
    step: view.getFloat64(56, true),
    rows,
    a: new Uint8Array(buffer, COLUMN_HEADER, rows),
    b: new Uint8Array(buffer, COLUMN_HEADER + rows, rows),
    src: Number.isFinite(src) ? src : null,
    epoch: Number(view.getBigUint64(16, true)),
    seq: Number(view.getBigUint64(24, true)),
    prev: numberAt(view, 32) ?? -1,
    flags: COLUMN_FLAGS.filter(([bit]) => bits & bit).map(([, name]) => name),
    stale: (bits & 8) !== 0,
    channel: view.getUint16(8, true),
  });
}

/**
 * @param {import("../types/contract.js").Column} data
 * @param {{ch: string, epoch: number, seq: number, prev: number, stale: boolean}} envelope the message that it came in
 * @returns {Column}
 */
export function decodeColumnJson(data, envelope) {
  const layer = envelope.ch.split(".")[0];
  need(layer === "depth" || layer === "liq", "this is no channel of columns");
  checkScale(data.lo_usd, data.hi_usd);
  const [a, b] = [data.a, data.b].map(fromBase64);
  need(a?.length === data.rows && b?.length === data.rows, `a column of ${data.rows} rows has other planes`);
  return checked({
    layer: /** @type {LayerName} */ (layer),
    tMs: data.t_ms,
    dtMs: data.dt_ms,
    price0: data.price0,
    step: data.step,
    rows: data.rows,
    a: /** @type {Uint8Array} */ (a),
    b: /** @type {Uint8Array} */ (b),
    src: Number.isFinite(data.src) ? data.src : null,
    epoch: envelope.epoch,
    seq: envelope.seq,
    prev: envelope.prev,
    flags: [...data.flags],
    stale: envelope.stale,
  });
}

/** @param {string} text @returns {Uint8Array} */
function fromBase64(text) {
  let raw;
  try {
    raw = atob(text);
  } catch {
    throw new FormatError("a plane is not base64");
  }
  return Uint8Array.from(raw, (one) => one.charCodeAt(0));
}

/** @param {Column} column */
function checked(column) {
  checkTime(column.tMs, column.dtMs);
  checkRows(column.price0, column.step, column.rows);
  return column;
}

/** @param {number} t0Ms @param {number} dtMs */
function checkTime(t0Ms, dtMs) {
  need(Number.isInteger(t0Ms) && t0Ms >= 0 && t0Ms < LATEST_MS && Number.isInteger(dtMs) && dtMs > 0, "the times are none");
}

/** @param {number} price0 @param {number} step @param {number} rows */
function checkRows(price0, step, rows) {
  need(Number.isInteger(rows) && rows >= 0 && rows <= MAX_ROWS, `${rows} rows are too many`);
  const known = Number.isFinite(price0) && price0 >= 0 && Number.isFinite(step) && step > 0;
  need(known || rows === 0, "the price axis is none");
}

/** @param {number} loUsd @param {number} hiUsd */
function checkScale(loUsd, hiUsd) {
  need(loUsd === CELL_LO_USD && hiUsd === CELL_HI_USD, `cells from ${loUsd} to ${hiUsd} USD are of another scale`);
}

/** @param {Entry} entry @param {number} element @param {number} size */
function check(entry, element, size) {
  need(entry.element === element && entry.size === size, `a block of element ${entry.element} has ${entry.size} bytes, not ${size}`);
}

/** @param {DataView} view */
function magic(view) {
  return String.fromCharCode(view.getUint8(0), view.getUint8(1), view.getUint8(2), view.getUint8(3));
}

/** @param {DataView} view @param {number} at */
function numberAt(view, at) {
  const number = view.getBigUint64(at, true);
  return number === NONE ? null : Number(number);
}

/** @param {boolean} holds @param {string} text @returns {asserts holds} */
function need(holds, text) {
  if (!holds) throw new FormatError(text);
}
