"""`export.js` and `export_png.js`: cells as CSV and triplets, the explaining lines of a picture."""

from __future__ import annotations

import csv
import io
from typing import Any

from playwright.sync_api import Page

T0 = 1_795_200_000_000
ORIGIN = {"symbol": "BTC", "model": "oi-taker-ladder/1", "configHash": "9f2c", "version": "1.0", "dataSinceMs": T0 - 60_000}
# Typed arrays do not travel; the page makes them of lists.
_VIEW = """(view) => ({...view, columns: view.columns.map((one) => {
  const typed = (layer) => layer && {...layer, a: Float64Array.from(layer.a), b: Float64Array.from(layer.b)};
  return {...one, map: typed(one.map), depth: typed(one.depth)};
})})"""


def column(at: int, map_: dict[str, Any] | None, depth: dict[str, Any] | None = None, candle: bool = True) -> dict[str, Any]:
    return {
        "tMs": T0 + at * 60_000, "missing": {"map": map_ is None, "depth": depth is None}, "map": map_, "depth": depth,
        "candle": {"o": 100, "h": 101.5, "l": 99, "c": 101} if candle else None,
    }  # fmt: skip


VIEW = {
    "mapName": "liq",
    "dtMs": 60_000,
    "view": {"fromMs": T0, "toMs": T0 + 180_000, "priceLow": 99, "priceHigh": 101},
    "columns": [
        column(0, {"price0": 99.9, "step": 0.1, "a": [1500.4, 0, 0], "b": [0, 0, 2e6]}),
        column(1, None, {"price0": 99.9, "step": 0.1, "a": [0, 120.5, 0], "b": [0, 30, 0]}, candle=False),
        column(2, {"price0": 100.0, "step": 0.1, "a": [7000, 0, 0], "b": [500, 0, 0]}),
    ],
    "bubbles": [{"tMs": T0 + 120_000, "price": 100.1, "side": 1, "venues": 1, "count": 1, "usd": 4321, "maxUsd": 4321}],
}


def exported(page: Page, name: str, view: dict[str, Any]) -> Any:
    return page.evaluate(
        f"async ([name, view, origin]) => (await import('/src/export.js'))[name](({_VIEW})(view), origin)", [name, view, ORIGIN]
    )


def test_csv_has_a_line_per_cell_that_holds_something(module_page: Page) -> None:
    comment, _, rest = exported(module_page, "csvOf", VIEW).partition("\n")
    assert comment.startswith("# mpengine BTC; map cells are estimated by oi-taker-ladder/1")
    rows = list(csv.DictReader(io.StringIO(rest)))
    names = ("layer", "side", "price_usd", "amount_usd", "estimated")
    assert [(int(row["time_ms"]) - T0, *(row[name] for name in names)) for row in rows] == [
        (0, "map_liq", "long", "99.9", "1500", "1"),
        (0, "map_liq", "short", "100.1", "2000000", "1"),
        (60_000, "book", "bid", "100", "120.5", "0"),
        (60_000, "book", "ask", "100", "30", "0"),
        (120_000, "map_liq", "long", "100", "7000", "1"),
        (120_000, "map_liq", "short", "100", "500", "1"),
        (120_000, "realised", "short", "100.1", "4321", "0"),
    ]
    assert rows[0]["time_utc"] == "2026-11-20T18:40:00.000Z"


def test_triplets_add_the_sides_and_tell_absent_columns_from_empty_ones(module_page: Page) -> None:
    found = exported(module_page, "tripletsOf", VIEW)
    assert found["y_axis"] == [99.9, 100, 100.1]
    assert found["liquidation_leverage_data"] == [[0, 0, 1500.4], [0, 2, 2e6], [2, 1, 7500]]
    assert found["order_book_data"] == [[1, 1, 150.5]]
    assert found["price_candlesticks"] == [[T0 / 1000, 100, 101.5, 99, 101], [T0 / 1000 + 120, 100, 101.5, 99, 101]]
    assert found["missing_columns"] == [1]
    assert found["origin"]["estimated"] is True
    assert found["origin"]["model"] == "oi-taker-ladder/1"


def test_an_empty_view_is_a_header_alone(module_page: Page) -> None:
    empty = {**VIEW, "columns": [], "bubbles": []}
    assert len(exported(module_page, "csvOf", empty).splitlines()) == 2
    assert exported(module_page, "tripletsOf", empty)["liquidation_leverage_data"] == []


def test_names_of_files_carry_symbol_and_time(module_page: Page) -> None:
    name = module_page.evaluate(f"async () => (await import('/src/export.js')).fileName('BTC', {T0}, 'csv')")
    assert name == "mpengine-BTC-20261120T1840Z.csv"


def test_lines_of_a_picture_are_broken_between_words_and_nothing_is_lost(module_page: Page) -> None:
    lines = module_page.evaluate(
        """async () => {
          const { wrapped } = await import('/src/export_png.js');
          const ruler = { measureText: (text) => ({ width: text.length }) };
          const lines = (text, room) => wrapped(ruler, text, room);
          return [lines('Charts: TradingView Lightweight Charts', 20), lines('averyveryverylongword x', 5), lines('', 5)];
        }"""
    )
    assert lines == [["Charts: TradingView", "Lightweight Charts"], ["averyveryverylongword", "x"], [""]]


def test_a_picture_has_the_chart_and_room_for_what_explains_it(module_page: Page) -> None:
    found = module_page.evaluate(
        """async () => {
          const { pictureOf } = await import('/src/export_png.js');
          const chart = document.createElement('canvas');
          chart.width = 600;
          chart.height = 200;
          const context = chart.getContext('2d');
          context.fillStyle = 'rgb(1, 200, 3)';
          context.fillRect(0, 0, 600, 200);
          const ramps = [0xff0000ff, 0xffff0000].map((colour) => new Uint32Array(40).fill(colour));
          const legends = [{ title: 'Map', loText: '$1k', hiText: '$1M', ramps }];
          const made = pictureOf({ chart, cssWidth: 300, head: 'BTC', legends,
            foot: ['estimated', 'Charts'], paper: 'rgb(10, 20, 30)', ink: '#fff', dim: '#999' });
          const pixels = made.getContext('2d').getImageData(0, 0, made.width, made.height).data;
          const rows = { chart: 0, red: 0, blue: 0 };
          for (let y = 0; y < made.height; y += 1) {
            const [r, g, b] = pixels.slice(4 * (y * made.width + 60), 4 * (y * made.width + 60) + 3);
            if (r === 1 && g === 200) rows.chart += 1;
            if (r === 255 && b === 0) rows.red += 1;
            if (r === 0 && b === 255) rows.blue += 1;
          }
          return { width: made.width, height: made.height, corner: [...pixels.slice(0, 3)], rows };
        }"""
    )
    assert found["width"] == 600
    assert found["corner"] == [10, 20, 30]
    assert found["rows"] == {"chart": 200, "red": 10, "blue": 10}, "the whole chart, and both sides of the scale"
    assert found["height"] > 200 + 4 * 17 * 2
