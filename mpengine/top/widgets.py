"""Widgets of the full screen: lines that redraw only the cells that have changed, and the table of zones. Needs Textual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.segment import Segment
from rich.text import Text
from textual.coordinate import Coordinate
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import DataTable

from mpengine.top.model import Facts, Zone
from mpengine.top.palette import Palette
from mpengine.top.text import Col, Line, price_text
from mpengine.top.view import zone_columns, zone_ladder

_PRICE_ROW: Final = "──"


def cells_of(line: Line) -> list[tuple[str, str, str]]:
    """A line cell by cell."""
    return [(char, tone, back) for text, tone, back in line for char in text]


def changed(before: Line, after: Line) -> tuple[int, int] | None:
    """(first, stop) of the cells that differ; None where the lines are the same."""
    if before == after:
        return None
    old, new = cells_of(before), cells_of(after)
    width = max(len(old), len(new))
    blank = (" ", "", "")
    old += [blank] * (width - len(old))
    new += [blank] * (width - len(new))
    differ = [at for at in range(width) if old[at] != new[at]]
    return (differ[0], differ[-1] + 1) if differ else None


class Panel(Widget):
    """Lines of text. `redrawn`: cells that have been drawn again so far."""

    DEFAULT_CSS = "Panel { position: absolute; width: 1; height: 1; }"

    def __init__(self, part: str, palette: Palette) -> None:
        super().__init__(id=part)
        self._palette = palette
        self._lines: list[Line] = []
        self._dim = False
        self.redrawn = 0

    def show(self, lines: list[Line], *, dim: bool) -> None:
        """Have these lines on the screen; only what differs is drawn."""
        before, self._lines = self._lines, lines
        if dim != self._dim:
            self._dim = dim
            self.redrawn += self.size.area
            self.refresh()
            return
        regions = list(self._differing(before, lines))
        if regions:
            self.redrawn += sum(region.area for region in regions)
            self.refresh(*regions)

    def _differing(self, before: Sequence[Line], after: Sequence[Line]) -> Iterator[Region]:
        for y in range(min(self.size.height, max(len(before), len(after)))):
            span = changed(before[y] if y < len(before) else (), after[y] if y < len(after) else ())
            if span is not None:
                yield Region(span[0], y, span[1] - span[0], 1)

    def render_line(self, y: int) -> Strip:
        """One line, as wide as the widget."""
        line = self._lines[y] if y < len(self._lines) else ()
        segments = [Segment(text, self._palette.style(tone, back, dim=self._dim)) for text, tone, back in line if text]
        return Strip(segments).adjust_cell_length(self.size.width)


class ZoneTable(DataTable[Text]):
    """All zones, to scroll in. Columns have fixed widths: measuring them at every change is what made such tables slow
    (textual#6457). Even so a changed cell draws its whole row again, at ten times the cost of a panel's: so the overview, where
    every distance changes every second, has a panel of them."""

    DEFAULT_CSS = """
    ZoneTable { position: absolute; width: 1; height: 1; background: ansi_default; overflow-x: hidden; scrollbar-size: 1 1; }
    ZoneTable > .datatable--header { background: ansi_default; color: ansi_cyan; text-style: bold; }
    ZoneTable > .datatable--cursor { background: ansi_default; }
    ZoneTable:focus { background-tint: ansi_default 0%; }
    """

    def __init__(self, palette: Palette) -> None:
        super().__init__(id="zone_list", cell_padding=0, show_cursor=False, zebra_stripes=False)
        self._palette = palette
        self._names: tuple[str, ...] = ()
        self._shown: list[list[tuple[str, str]]] = []
        self._dim = False
        self.redrawn = 0

    def show(self, facts: Facts, now_ms: int, width: int, rows: int, *, dim: bool) -> None:
        """Have the zones in the table; only cells that differ are drawn. `width`: of the table, in cells."""
        symbol = facts.symbol
        price = None if symbol is None else symbol.price
        columns = zone_columns(now_ms, price, width)
        names = tuple(column.head for column in columns)
        wanted = [self._row(columns, zone, facts) for zone in zone_ladder(facts, rows)] if facts.zones else []
        if names != self._names or len(wanted) != len(self._shown) or dim != self._dim:
            self._build(columns, wanted, names, dim=dim)
            return
        for y, (old, new) in enumerate(zip(self._shown, wanted)):
            for x, (before, after) in enumerate(zip(old, new)):
                if before != after:
                    self.update_cell_at(Coordinate(y, x), self._text(*after))
                    self.redrawn += columns[x].width + 1
        self._shown = wanted

    @staticmethod
    def _row(columns: Sequence[Col[Zone]], zone: Zone | None, facts: Facts) -> list[tuple[str, str]]:
        if zone is not None:
            return [(column.place(text), tone) for column in columns for text, tone in (column.cell(zone),)]
        symbol = facts.symbol
        texts = {"zones": _PRICE_ROW, "price": price_text(None if symbol is None else symbol.price)}
        texts["away"] = "" if symbol is None else symbol.price_kind or ""
        return [(column.place(texts.get(column.head, "")), "head") for column in columns]

    def _text(self, text: str, tone: str) -> Text:
        return Text(text, style=self._palette.style(tone, "", dim=self._dim))

    def _build(
        self, columns: Sequence[Col[Zone]], wanted: list[list[tuple[str, str]]], names: tuple[str, ...], *, dim: bool
    ) -> None:
        self._names, self._shown, self._dim = names, wanted, dim
        self.clear(columns=True)
        for at, column in enumerate(columns, 1):
            self.add_column(Text(column.place(column.head)), width=column.width + (at < len(columns)), key=column.head)
        for row in wanted:
            self.add_row(*(self._text(*cell) for cell in row))
        self.redrawn += self.size.area
