"""The ring against a dictionary of columns: wrap, moving grids, joins, provisional columns, gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.browser.picture_bytes import MINUTE, T0

FIRST = T0 // MINUTE
RING = """const { ColumnRing } = await import('/src/ring.js');
  const cells = ({ low, a, b }) => ({ low, a: Uint8Array.from(a), b: Uint8Array.from(b) });
  const plain = (one) => one && { low: one.low, a: [...one.a], b: [...one.b] };"""


def run(page: Page, cols: int, script: str, argument: Any = None) -> Any:
    """What `script` returns; it sees `ring` (of `cols` columns), `cells`, `plain`, `given` and `FIRST`."""
    body = f"async (given) => {{ {RING} const FIRST = {FIRST}; const ring = new ColumnRing({cols}, 20); {script} }}"
    return page.evaluate(body, argument)


def column(seed: int, low: int = 3000, rows: int = 40) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    a, b = draw.integers(0, 256, (2, rows)).tolist()
    return {"low": low, "a": a, "b": b}


def joined(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """The larger in each cell, over the rows that either covers."""
    if one is None:
        return other
    low = min(one["low"], other["low"])
    high = max(each["low"] + len(each["a"]) for each in (one, other))
    planes = {}
    for side in "ab":
        plane = np.zeros(high - low, np.int64)
        for each in (one, other):
            span = slice(each["low"] - low, each["low"] - low + len(each[side]))
            plane[span] = np.maximum(plane[span], each[side])
        planes[side] = plane.tolist()
    return {"low": low, **planes}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_it_holds_what_a_dictionary_would(module_page: Page, seed: int) -> None:
    draw = np.random.default_rng(seed)
    cols, ops, newest, low = 100, [], FIRST, 3000
    final: dict[int, dict[str, Any]] = {}
    shown: dict[int, dict[str, Any]] = {}
    for number in range(600):
        newest += int(draw.choice([0, 1, 1, 1, 2, 70], p=[0.2, 0.3, 0.2, 0.2, 0.09, 0.01]))
        col = newest if draw.random() < 0.8 else newest - int(draw.integers(0, 140))
        low += int(draw.integers(-30, 31))
        one = column(number, low, int(draw.integers(1, 90)))
        how = {"merge": bool(draw.random() < 0.4), "provisional": bool(draw.random() < 0.3)}
        ops.append([col, one, how])
        oldest = newest - cols + 1
        if col >= oldest:
            shown[col] = joined(final.get(col), one) if how["merge"] else one
            if not how["provisional"]:
                final[col] = shown[col]
            elif not how["merge"]:
                final.pop(col, None)  # what is replaced is gone
        for held in (final, shown):
            for old in [each for each in held if each < oldest]:
                del held[old]
    found = run(
        module_page, cols,
        """for (const [col, one, how] of given) { ring.advance(col); ring.put(col, cells(one), how); }
        const held = {};
        for (let col = FIRST - 300; col <= ring.newest + 5; col++) if (ring.has(col)) held[col] = plain(ring.column(col));
        return [ring.first, ring.newest, ring.newestHeld, held];""",
        ops,
    )  # fmt: skip
    assert found[:3] == [newest - cols + 1, newest, max(shown)]
    assert {int(col): one for col, one in found[3].items()} == shown


def test_slots_are_used_again_and_old_columns_are_refused(module_page: Page) -> None:
    taken, slots, first, has, held = run(
        module_page, 60,
        """for (let n = 0; n < 500; n++) ring.put(FIRST + n, cells(given));
        return [ring.put(FIRST + 439, cells(given)), ring.slots, ring.first - FIRST, [ring.has(FIRST + 439), ring.has(FIRST + 440)],
          ring.at.filter((col) => col >= ring.first).length];""",
        column(1),
    )  # fmt: skip
    assert (taken, slots, first, has, held) == (False, 128, 440, [False, True], 60)


def test_a_passed_column_is_missing_and_its_slot_is_clear(module_page: Page) -> None:
    found = run(
        module_page, 60,
        """for (let n = 0; n < 200; n++) ring.put(FIRST + n, cells(given));
        ring.put(FIRST + 203, cells(given));
        const slot = ring.slotOf(FIRST + 201);
        return [ring.has(FIRST + 201), ring.column(FIRST + 201), ring.cell(FIRST + 201, 3010),
          Math.max(...ring.a.subarray(slot * ring.rows, (slot + 1) * ring.rows))];""",
        column(1),
    )  # fmt: skip
    assert found == [False, None, None, 0]


def test_a_new_column_changes_one_slot_and_a_grid_that_moves_all(module_page: Page) -> None:
    found = run(
        module_page, 60,
        """const changes = () => { const all = ring.takeChanges(); return all && [...all]; };
        ring.put(FIRST, cells(given[0])); const first = changes();
        ring.put(FIRST + 1, cells(given[0])); const second = changes();
        ring.put(FIRST + 2, cells(given[1])); const moved = changes();
        return [first, second, moved, changes(), ring.slotOf(FIRST + 1),
          plain(ring.column(FIRST)), ring.low % 64, ring.rows % 64];""",
        [column(1), column(2, 3400)],
    )  # fmt: skip
    assert found[0] is None and found[2] is None
    assert found[1] == [found[4]]
    assert found[3:4] + found[5:] == [[], column(1), 0, 0]


def test_what_is_outside_of_a_column_is_unknown_and_inside_zero_is_zero(module_page: Page) -> None:
    one = {"low": 3000, "a": [0, 7], "b": [0, 9]}
    script = "ring.put(FIRST, cells(given)); return [2999, 3000, 3001, 3002].map((row) => ring.cell(FIRST, row));"
    assert run(module_page, 60, script, one) == [None, [0, 0], [7, 9], None]


def test_a_grid_that_is_too_high_keeps_what_is_near_the_newest_column(module_page: Page) -> None:
    found = run(
        module_page, 60,
        """ring.put(FIRST, cells(given[0])); ring.put(FIRST + 1, cells(given[1]));
        return [ring.rows, plain(ring.column(FIRST)), plain(ring.column(FIRST + 1))];""",
        [column(1, 1000), column(2, 9000)],
    )  # fmt: skip
    assert found[0] == 4096
    assert found[1]["a"] == []
    assert found[2] == column(2, 9000)


def test_cells_are_counted_where_they_are_seen(module_page: Page) -> None:
    columns = [column(seed, 3000 + seed) for seed in range(5)]
    found = run(
        module_page, 60,
        """given.forEach((one, n) => { if (n !== 2) ring.put(FIRST + n, cells(one)); });
        const histogram = new Uint32Array(256); ring.count(histogram, FIRST - 9, FIRST + 3, 3010, 3019); return [...histogram];""",
        columns,
    )  # fmt: skip
    expected = np.zeros(256, np.int64)
    for number in (0, 1, 3):
        one = columns[number]
        cells = np.maximum(one["a"], one["b"])[3010 - one["low"] : 3020 - one["low"]]
        expected += np.bincount(cells, minlength=256)
    assert found == expected.tolist()


def test_finer_rows_are_pooled_as_the_server_pools_them(module_page: Page) -> None:
    draw = np.random.default_rng(3)
    for many, low in ((1, 3001), (2, 3001), (5, 2998), (20, 2991)):
        cells = draw.integers(0, 256, 333)
        found = module_page.evaluate(
            """async ([cells, low, many]) => { const { poolRows } = await import('/src/grid.js');
            const one = poolRows(Uint8Array.from(cells), low, many); return [one.low, [...one.cells]]; }""",
            [cells.tolist(), low, many],
        )
        rows = np.floor((low + np.arange(333)) / many + 0.5).astype(int)
        expected = np.zeros(rows[-1] - rows[0] + 1, np.int64)
        np.maximum.at(expected, rows - rows[0], cells)
        assert found == [rows[0], expected.tolist()]
    steps = [(20.0, 20.0), (20.0, 10.0), (0.5, 0.1), (10.0, 20.0), (3.0, 2.0)]
    script = (
        "async (all) => { const m = await import('/src/grid.js'); return all.map(([one, other]) => m.multipleOf(one, other)); }"
    )
    assert module_page.evaluate(script, steps) == [1, 2, 5, None, None]


LAYER = """const { Layer } = await import('/src/layer.js');
  const layer = new Layer(60, 60000, { cellsTouched: 0 });
  const put = (n, step, value, more = {}) => layer.put({ tMs: (FIRST + n) * 60000, dtMs: 60000, price0: 60000, step,
    a: new Uint8Array(50).fill(value), b: new Uint8Array(50), ...more });"""


def test_a_grid_that_does_not_divide_begins_an_epoch_and_older_columns_stay(module_page: Page) -> None:
    steps, cells, replaced, left = run(
        module_page, 60,
        f"""{LAYER}
        for (let n = 0; n < 10; n++) put(n, 20, 7);
        put(10, 10, 8);  // finer: joins
        for (let n = 11; n < 20; n++) put(n, 30, 9);
        put(9, 30, 5);
        const steps = layer.epochs.map(({{ ring }}) => ring.step);
        const seen = [0, 8, 10, 12].map((n) => layer.cell(FIRST + n, 60300));
        const replaced = [layer.cell(FIRST + 9, 60300), layer.epochs[0].ring.has(FIRST + 9)];
        for (let n = 20; n < 90; n++) put(n, 30, 9);
        return [steps, seen, replaced, layer.epochs.length];""",
    )  # fmt: skip
    assert steps == [20, 30]
    assert cells == [[7, 0], [7, 0], [8, 0], [9, 0]]
    assert replaced == [[5, 0], False]
    assert left == 1


def test_a_column_longer_than_the_axis_has_is_in_each_that_it_covers(module_page: Page) -> None:
    script = f"{LAYER} put(0, 20, 7, {{ dtMs: 180000 }}); return [0, 1, 2, 3].map((n) => layer.cell(FIRST + n, 60000));"
    assert run(module_page, 60, script) == [[7, 0], [7, 0], [7, 0], None]
