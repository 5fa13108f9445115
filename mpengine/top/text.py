"""Words and numbers of the terminal view, each within a width; tables of fixed columns. Pure.

A line is spans of (text, tone, tone behind it). A tone is a meaning (`ok`, `warn`, `bad`, `dim`, `head`) or a level of heat
(`low3`, `high6`); what it looks like is the business of who draws it. Every character is one cell wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

Span = tuple[str, str, str]
Line = tuple[Span, ...]
NONE: Final = "-"


def span(text: str, tone: str = "") -> Span:
    """A span without a tone behind it."""
    return (text, tone, "")


def plain(line: Line) -> str:
    """The text of a line."""
    return "".join(text for text, _, _ in line)


def cut(text: str, width: int) -> str:
    """At most `width` characters; one that is cut ends with an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"[: max(0, width)]


def safe(text: str) -> str:
    """Text of others (errors of venues, answers of servers) without control characters, on one line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def age(milliseconds: float | None) -> str:
    """At most 5 characters: `0.2 s`, `34 s`, `12 m`, `5 h`, `3 d`; a clock set back gives 0."""
    if milliseconds is None:
        return NONE
    seconds = max(0.0, milliseconds / 1000)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((99.5, 1, "s"), (99.5 * 60, 60, "m"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def since(milliseconds: float | None) -> str:
    """Up-time: `3d 04:12`, `04:12:07`."""
    if milliseconds is None:
        return NONE
    minutes, seconds = divmod(max(0, int(milliseconds / 1000)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}" if days else f"{hours:02}:{minutes:02}:{seconds:02}"


def price_text(price: float | None) -> str:
    """Six or seven digits, whatever the size: `65,892.7`, `179.785`, `0.0000123`."""
    if price is None:
        return NONE
    if price >= 10_000:
        return f"{price:,.1f}"
    if price >= 1000:
        return f"{price:,.2f}"
    decimals = 0
    while decimals < 10 and price * 10**decimals < 99_999.5 and round(price, decimals) != price:
        decimals += 1
    return f"{price:.{max(2, decimals)}f}"


def money(usd: float | None) -> str:
    """At most 5 characters: `950`, `12.3k`, `311k`, `2.45M`."""
    if usd is None:
        return NONE
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if usd >= size * 0.9995:
            value = usd / size
            return f"{value:.0f}{name}" if value >= 99.95 else f"{value:.3g}{name}"
    return f"{usd:.0f}"


def count(value: float | None) -> str:
    """A number of things: `412`, `12.4k`."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value < 9_999.5 else money(value)


def milliseconds(value: float | None) -> str:
    """A lag: `38`, `-3`, `12k`."""
    if value is None:
        return NONE
    return f"{value:.0f}" if abs(value) < 9_999.5 else f"{value / 1000:.0f}k"


@dataclass(frozen=True)  # no slots: a frozen generic with slots cannot be called with its type before Python 3.12
class Col(Generic[T]):
    """A column of a table: its text is cut or padded to `width`. `rank`: the highest go first where the room is small."""

    head: str
    width: int
    cell: Callable[[T], tuple[str, str]]
    right: bool = False
    rank: int = 0

    def place(self, text: str) -> str:
        """The text in its width."""
        text = cut(safe(text), self.width)
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def fitting(columns: Sequence[Col[T]], width: int) -> list[Col[T]]:
    """The columns that fit `width` with a blank between each two."""
    kept = list(columns)
    while kept and sum(column.width + 1 for column in kept) - 1 > width:
        kept.remove(max(kept, key=lambda column: column.rank))
    return kept


def row_of(columns: Sequence[Col[T]], row: T) -> Line:
    """One row."""
    spans: list[Span] = []
    for at, column in enumerate(columns):
        text, tone = column.cell(row)
        spans += [span(" ")] * (at > 0) + [span(column.place(text), tone)]
    return tuple(spans)


def head_of(columns: Sequence[Col[T]]) -> Line:
    """The names of the columns."""
    return (span(" ".join(column.place(column.head) for column in columns), "title"),)


def table(columns: Sequence[Col[T]], rows: Iterable[T], width: int, height: int) -> list[Line]:
    """Head and rows in `height` lines; what does not fit is counted in the last one."""
    kept, found = fitting(columns, width), list(rows)
    room = height - 1
    lines = [head_of(kept)] + [row_of(kept, row) for row in found[:room]]
    if len(found) > room > 0:
        lines[-1] = (span(cut(f"… {len(found) - room + 1} more", width), "dim"),)
    return lines[: max(0, height)]
