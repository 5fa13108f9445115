"""What the server packs comes out of the page's decoder cell for cell; anything else is a FormatError, never a guess."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from mpengine.mphm import ENTRY, HEADER, Block, Element, Form, Packed, decode, encode
from mpengine.wire_formats import CellType, ColumnFlag, ColumnHeader, ColumnKind, pack_column
from tests.browser.picture_bytes import T0, answer, blocks, header, random_pair, text

COLS, ROWS = 13, 37
POINTS = [(2, 36, 1, 3, 2, 15_704.9, 12_011.0), (12, 0, 0, 16, 65_535, 1e7, 1e6)]

SNAPSHOT = """async (data) => {
  const { decodeHeatmap } = await import('/src/bytes.js');
  const raw = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer;
  try {
    const s = decodeHeatmap(raw(data));
    for (const one of Object.values(s.layers)) for (const key of ['seq', 'a', 'b']) one[key] = [...one[key]];
    return { ...s, src: [...s.src].map((one) => (Number.isNaN(one) ? null : one)) };
  } catch (error) { return error.name; }
}"""
COLUMN = """async (data) => {
  const { decodeColumn } = await import('/src/bytes.js');
  try {
    const c = decodeColumn(Uint8Array.from(atob(data), (one) => one.charCodeAt(0)).buffer);
    return { ...c, a: [...c.a], b: [...c.b] };
  } catch (error) { return error.name; }
}"""


@pytest.mark.parametrize("form", list(Form))
def test_an_answer_comes_back_as_the_other_reader_reads_it(module_page: Page, form: Form) -> None:
    layers = {name: random_pair(seed, COLS, ROWS) for seed, name in enumerate(("liq", "tape", "projected", "depth"))}
    src = np.linspace(65_000, 66_000, COLS)
    src[4] = np.nan
    data = answer(header(COLS, ROWS, form=form), layers, missing=(0, 5), points=POINTS, src=src)
    other = decode(data)
    found = module_page.evaluate(SNAPSHOT, text(data))
    head = other.header
    assert [found[key] for key in ("t0Ms", "dtMs", "cols", "price0", "step", "rows", "k", "flags")] == [
        head.t0_ms, head.dt_ms, head.cols, head.price0, head.step, head.rows, head.k, head.flags,
    ]  # fmt: skip
    assert (found["loUsd"], found["hiUsd"], found["epoch"], found["symbol"]) == (100, 1e9, 7, "BTC")
    assert found["seqs"] == {"liq": 900, "depth": None, "realised": 40}
    assert found["provenance"] == {key: value for key, value in other.provenance.items() if key != "symbol"}
    assert found["src"] == [None if np.isnan(one) else one for one in src]
    assert list(found["layers"]) == list(layers)
    for number, name in enumerate(layers):
        for side, key in enumerate("ab"):
            cells = other.dense(Block(1 + 2 * number + side))
            assert (np.array(found["layers"][name][key]).reshape(COLS, ROWS) == cells).all()
            assert (cells == layers[name][side]).all()
        assert found["layers"][name]["seq"] == other.numbers["depth" if name == "depth" else "liq"].tolist()
    assert other.points is not None
    assert [list(one.values()) for one in found["points"]] == [list(one) for one in other.points.tolist()]


def test_without_data_there_is_neither_epoch_nor_number(module_page: Page) -> None:
    head = header(0, 0, epoch=0, liq_seq=None, realised_seq=None, price0=0.0)
    found = module_page.evaluate(SNAPSHOT, text(answer(head, {})))
    assert (found["epoch"], found["layers"], found["points"]) == (None, {}, [])
    assert found["seqs"] == {"liq": None, "depth": None, "realised": None}


def _packed(change: Callable[[list[Packed]], list[Packed]], **head: Any) -> bytes:
    one = header(COLS, ROWS, **head)
    return b"".join(encode(one, change(blocks(one, {"liq": random_pair(1, COLS, ROWS)}, points=POINTS))))


def _without(block: Block) -> Callable[[list[Packed]], list[Packed]]:
    return lambda all_of: [one for one in all_of if one.block != block]


def _changed(block: Block, **changes: Any) -> Callable[[list[Packed]], list[Packed]]:
    return lambda all_of: [replace(one, **changes) if one.block == block else one for one in all_of]


def _patched(at: int, packed: bytes) -> bytes:
    data = bytearray(_packed(lambda all_of: all_of))
    data[at : at + len(packed)] = packed
    return bytes(data)


def _sparse(indices: list[int]) -> bytes:
    parts = (np.array(indices, "<u4").tobytes(), b"\1" * len(indices))
    return _packed(
        lambda all_of: [
            Packed(one.block, one.element, len(indices), parts) if one.block <= Block.LIQ_SHORT else one for one in all_of
        ],
        form=Form.SPARSE,
    )


WRONG = {
    "empty": b"",
    "a header and no more": _packed(lambda all_of: all_of)[: HEADER.size],
    "cut": _packed(lambda all_of: all_of)[:-8],
    "magic": _patched(0, b"MPHN"),
    "version": _patched(4, b"\2"),
    "float16": _patched(5, b"\1"),
    "form": _patched(6, b"\2"),
    "pool": _patched(7, b"\2"),
    "header bytes": _patched(8, struct.pack("<I", 136)),
    "no width": _patched(24, struct.pack("<I", 0)),
    "no step": _patched(40, struct.pack("<d", 0.0)),
    "a price that is none": _patched(32, struct.pack("<d", float("nan"))),
    "too many cells": _patched(28, struct.pack("<I", 2**31)),
    "more columns than cells": _patched(28, struct.pack("<I", COLS + 1)),
    "lower end": _patched(88, struct.pack("<f", 10.0)),
    "upper end": _patched(92, struct.pack("<f", 1e8)),
    "blocks": _patched(52, struct.pack("<H", 60_000)),
    "outside": _patched(HEADER.size + 8, struct.pack("<Q", 2**40)),
    "across": _patched(HEADER.size + 8, struct.pack("<Q", HEADER.size)),
    "odd": _patched(HEADER.size + 8, struct.pack("<Q", HEADER.size + 7 * ENTRY.size + 4)),
    "twice": _patched(HEADER.size, b"\2"),
    "element": _packed(_changed(Block.LIQ_LONG, element=Element.F16)),
    "count": _packed(_changed(Block.LIQ_SEQ, count=COLS - 1, parts=(b"\0" * 8 * (COLS - 1),))),
    "no numbers": _packed(_without(Block.LIQ_SEQ)),
    "no provenance": _packed(_without(Block.PROVENANCE)),
    "provenance": _packed(_changed(Block.PROVENANCE, count=4, parts=(b"null",))),
    "json": _packed(_changed(Block.PROVENANCE, count=1, parts=(b"{",))),
    "point": _packed(_changed(Block.REALISED, count=1, parts=(struct.pack("<HHBBHff", COLS, 0, 0, 1, 1, 1.0, 1.0),))),
    "side": _packed(_changed(Block.REALISED, count=1, parts=(struct.pack("<HHBBHff", 0, 0, 2, 1, 1, 1.0, 1.0),))),
    "index beyond": _sparse([0, COLS * ROWS]),
    "indices that do not ascend": _sparse([5, 5]),
}


def test_what_is_no_heatmap_is_refused(module_page: Page) -> None:
    found = {name: module_page.evaluate(SNAPSHOT, text(data)) for name, data in WRONG.items()}
    assert found == dict.fromkeys(WRONG, "FormatError")


def test_every_cut_is_refused(module_page: Page) -> None:
    data = _packed(lambda all_of: all_of)
    kinds = module_page.evaluate(
        f"async ([data, cuts]) => {{ const read = {SNAPSHOT}; const raw = atob(data); const found = new Set();"
        " for (const cut of cuts) found.add(await read(btoa(raw.slice(0, cut)))); return [...found]; }",
        [text(data), [*range(0, len(data) - 8, 11), len(data) - 8]],
    )
    assert kinds == ["FormatError"]


def _column(kind: ColumnKind = ColumnKind.LIQ, flags: int = 0, prev: int = 4) -> tuple[ColumnHeader, bytes]:
    head = ColumnHeader(kind, CellType.U8LOG, 3, ColumnFlag(flags), ROWS, 7, 5, prev, T0, 60_000, 65_000.0, 20.0, 65_432.5)
    first, second = random_pair(2, 1, ROWS)
    return head, pack_column(head, (first, second))


@pytest.mark.parametrize("kind", list(ColumnKind))
def test_a_column_comes_back(module_page: Page, kind: ColumnKind) -> None:
    flags = ColumnFlag.PROVISIONAL | ColumnFlag.STALE | ColumnFlag.SNAPSHOT
    head, data = _column(kind, flags, prev=-1)
    first, second = random_pair(2, 1, ROWS)
    assert module_page.evaluate(COLUMN, text(data)) == {
        "layer": "liq" if kind == ColumnKind.LIQ else "depth", "tMs": T0, "dtMs": 60_000, "price0": head.price0, "step": head.step,
        "rows": ROWS, "a": first[0].tolist(), "b": second[0].tolist(), "src": head.src, "epoch": 7, "seq": 5, "prev": -1,
        "flags": ["provisional", "stale", "snapshot"], "stale": True, "channel": 3,
    }  # fmt: skip


def test_the_column_of_the_json_form_is_the_same(module_page: Page) -> None:
    head, data = _column()
    body = {
        "t_ms": T0, "dt_ms": 60_000, "price0": head.price0, "step": head.step, "rows": ROWS, "src": head.src, "flags": [],
        "lo_usd": 100.0, "hi_usd": 1e9, "a": text(data[80 : 80 + ROWS]), "b": text(data[80 + ROWS :]),
    }  # fmt: skip
    envelope = {"ch": "liq.BTC", "type": "delta", "epoch": 7, "seq": 5, "prev": 4, "ts_ms": T0, "stale": False, "data": body}
    script = """async ([data, envelope]) => {
      const { decodeColumnJson } = await import('/src/bytes.js');
      try {
        const c = decodeColumnJson(data, envelope);
        return { ...c, a: [...c.a], b: [...c.b] };
      } catch (error) { return error.name; }
    }"""
    expected = module_page.evaluate(COLUMN, text(data))
    del expected["channel"]
    assert module_page.evaluate(script, [body, envelope]) == expected
    for wrong in ({"lo_usd": 1.0}, {"a": body["a"][:-4]}, {"b": "?"}, {"rows": 10**9}, {"step": 0}, {"t_ms": -1}, {"a": None}):
        assert module_page.evaluate(script, [body | wrong, envelope]) == "FormatError"
    assert module_page.evaluate(script, [body, envelope | {"ch": "oi.BTC"}]) == "FormatError"


def test_what_is_no_column_is_refused(module_page: Page) -> None:
    wrong = {0: b"X", 4: b"\2", 5: b"\3", 6: b"\1", 7: b"\1", 12: b"\0", 56: bytes(8), 76: bytes(4), 47: b"\x7f"}
    for at, packed in wrong.items():
        data = bytearray(_column()[1])
        data[at : at + len(packed)] = packed
        assert module_page.evaluate(COLUMN, text(bytes(data))) == "FormatError", at
    assert module_page.evaluate(COLUMN, text(_column()[1][:-1])) == "FormatError"


def test_the_worker_decodes_and_says_what_is_wrong(module_page: Page) -> None:
    pair = random_pair(1, COLS, ROWS)
    script = """async ([heatmap, column, wrong]) => {
      const { Decoder } = await import('/src/decoder.js');
      const raw = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer;
      const decoder = new Decoder(new Worker('/src/decode.worker.js', { type: 'module' }));
      const given = raw(heatmap);
      const refused = decoder.heatmap(raw(wrong)).catch((e) => e);
      const [snapshot, one, error] = await Promise.all([decoder.heatmap(given), decoder.column(raw(column)), refused]);
      decoder.close();
      return [[...snapshot.layers.liq.a], one.rows, error.name, error.message, given.byteLength];
    }"""
    cells, rows, name, told, left = module_page.evaluate(
        script, [text(answer(header(COLS, ROWS), {"liq": pair})), text(_column()[1]), text(WRONG["float16"])]
    )
    assert cells == pair[0].reshape(-1).tolist()
    assert (rows, name, told, left) == (ROWS, "FormatError", "the cells are not of the byte scale", 0)
