"""Where everything of a picture goes. Pure: sizes and texts in, boxes out; how wide a text is comes as a function.

    title                                        badges
    facts, wrapped
    ┌───────────────────────────────┬─────────┐ prices
    │ plot                          │ profile │
    └───────────────────────────────┴─────────┘
    times
    legend per layer of heat        marks
    notes, wrapped

Everything in `parts` of a layout lies inside of the picture and overlaps nothing else of it, at every size that `check_size` takes.
Pixels are those of the file; `unit` is the size of one of them at 1600 x 900 and scale 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mpengine.plot import ticks

Measure = Callable[[str, int], int]
"""Width of a text in a font of some pixels."""
Tone = Literal["ink", "muted", "plate"]
MarkKind = Literal["long", "short", "zone", "candle", "profile", "gap_map", "gap_depth"]

MIN_SIZE: Final = (800, 450)
MAX_SIZE: Final = (7680, 4320)
SCALES: Final = (1, 2, 3, 4)
SEPARATOR: Final = "  ·  "
LINE: Final = 1.35
"""Height of a line in sizes of its font."""
MIN_PLOT: Final = 0.25
"""Of the height that the plot keeps at least; notes give way."""
LEGEND_UNITS: Final = 400
PROFILE_UNITS: Final = (46, 130)


class TooSmall(ValueError):
    """The texts leave no room for the plot; the text says so."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels [x0, x1) by [y0, y1)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def overlaps(self, other: Box) -> bool:
        """Whether a pixel is in both."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def inside(self, other: Box) -> bool:
        """Whether all of it is in `other`."""
        return other.x0 <= self.x0 and other.y0 <= self.y0 and self.x1 <= other.x1 and self.y1 <= other.y1


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text that fills its box from the left."""

    box: Box
    text: str
    size: int
    tone: Tone = "ink"


@dataclass(frozen=True, slots=True)
class Badge:
    """A text on a coloured plate; `warns`: something is wrong with the data."""

    text: str
    warns: bool = False


@dataclass(frozen=True, slots=True)
class Legend:
    """Scale of one layer. `sides`: names of its two bars."""

    name: str
    sides: tuple[str, str]
    lo_usd: float
    hi_usd: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A symbol and what it means."""

    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What there is to lay out. Times in epoch ms, prices in USD; `price`: the newest one, None without."""

    width: int
    height: int
    scale: int
    title: str
    badges: Sequence[Badge]
    facts: Sequence[str]
    notes: Sequence[str]
    t0_ms: int
    t1_ms: int
    low: float
    high: float
    price: float | None
    legends: Sequence[Legend]
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class LegendPlace:
    """`bars`: one per side, `ticks`: x of each label."""

    bars: tuple[Box, Box]
    ticks: tuple[int, ...]
    texts: tuple[Text, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Boxes of a picture. `price_ticks`: (y, label), `time_ticks`: (x, label); `size`: pixels of the usual font."""

    box: Box
    unit: float
    size: int
    small: int
    plot: Box
    profile: Box
    low: float
    high: float
    t0_ms: int
    t1_ms: int
    title: Text
    badges: tuple[tuple[Text, Box, bool], ...]
    facts: tuple[Text, ...]
    notes: tuple[Text, ...]
    price_ticks: tuple[tuple[int, Text], ...]
    price_tag: tuple[Text, Box] | None
    time_ticks: tuple[tuple[int, Text], ...]
    legends: tuple[LegendPlace, ...]
    marks: tuple[tuple[MarkKind, Box, Text], ...]

    def x_of(self, t_ms: float) -> float:
        """Where a time is, in pixels from the left; not cut to the plot."""
        return self.plot.x0 + (t_ms - self.t0_ms) / (self.t1_ms - self.t0_ms) * self.plot.width

    def y_of(self, price: float) -> float:
        """Where a price is, in pixels from the top; not cut to the plot."""
        return self.plot.y1 - (price - self.low) / (self.high - self.low) * self.plot.height

    def parts(self) -> Iterator[tuple[str, Box]]:
        """Everything that must not overlap anything else."""
        yield "plot", self.plot
        yield "profile", self.profile
        for text in (self.title, *self.facts, *self.notes):
            yield text.text, text.box
        for text, box, _ in self.badges:
            yield f"badge {text.text}", box
        for _, text in (*self.price_ticks, *self.time_ticks):
            yield f"tick {text.text}", text.box
        if self.price_tag is not None:
            yield "price tag", self.price_tag[1]
        for legend in self.legends:
            for box in legend.bars:
                yield "legend bar", box
            for text in legend.texts:
                yield f"legend {text.text}", text.box
        for kind, box, text in self.marks:
            yield f"mark {kind}", box
            yield f"mark {text.text}", text.box


def check_size(width: int, height: int, scale: int) -> None:
    """Raises ValueError for a size that is not laid out."""
    if not (MIN_SIZE[0] <= width <= MAX_SIZE[0] and MIN_SIZE[1] <= height <= MAX_SIZE[1]):
        raise ValueError(f"the size must be {MIN_SIZE[0]}x{MIN_SIZE[1]} to {MAX_SIZE[0]}x{MAX_SIZE[1]}")
    if scale not in SCALES or width * scale > MAX_SIZE[0] or height * scale > MAX_SIZE[1]:
        raise ValueError(f"size times scale must stay within {MAX_SIZE[0]}x{MAX_SIZE[1]}")


def unit_of(width: int, height: int, scale: int) -> float:
    """Pixels per unit. Texts grow slower than the picture: a larger one is to show more, not the same larger."""
    return scale * max(0.85, math.sqrt(min(width / 1600, height / 900)))


def cell_edges(cells: int, start: int, end: int) -> list[int]:
    """Pixels where `cells` cells side by side begin, and where the last ends."""
    return [start + (end - start) * index // cells for index in range(cells + 1)]


class _Pen:
    """Sizes in force."""

    def __init__(self, wanted: Wanted, measure: Measure) -> None:
        self.unit = unit_of(wanted.width, wanted.height, wanted.scale)
        self.measure = measure
        self.size = self.px(13)
        self.small = self.px(11.5)
        self.gap = self.px(8)
        self.margin = self.px(12)
        self.box = Box(0, 0, wanted.width * wanted.scale, wanted.height * wanted.scale)

    def px(self, units: float) -> int:
        return max(1, round(units * self.unit))

    def line(self, size: int) -> int:
        return math.ceil(size * LINE)

    def text(self, x: int, y: int, text: str, size: int, tone: Tone = "ink") -> Text:
        return Text(Box(x, y, x + self.measure(text, size), y + self.line(size)), text, size, tone)

    def centred(self, x: float, y: int, text: str, size: int, tone: Tone = "ink") -> Text:
        return self.text(round(x - self.measure(text, size) / 2), y, text, size, tone)


def wrapped(phrases: Sequence[str], width: int, size: int, measure: Measure) -> list[str]:
    """Phrases on lines of at most `width`, broken between phrases, and within one only where it does not fit a line."""
    lines: list[str] = []
    for phrase in phrases:
        if lines and measure(lines[-1] + SEPARATOR + phrase, size) <= width:
            lines[-1] += SEPARATOR + phrase
            continue
        words = phrase.split(" ")
        line = words[0]
        for word in words[1:]:
            if measure(f"{line} {word}", size) <= width:
                line = f"{line} {word}"
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return [shortened(line, width, size, measure) for line in lines]


def shortened(text: str, width: int, size: int, measure: Measure) -> str:
    """The text, cut with an ellipsis where it is wider than `width`."""
    if measure(text, size) <= width:
        return text
    while text and measure(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def compute(wanted: Wanted, measure: Measure) -> Layout:
    """The layout. Raises TooSmall, ValueError."""
    check_size(wanted.width, wanted.height, wanted.scale)
    pen = _Pen(wanted, measure)
    title, badges, facts, top = _header(wanted, pen)
    legends, marks, notes, bottom = _footer(wanted, pen)
    times_height = pen.line(pen.small) + pen.px(5)
    y0, y1 = top + pen.gap, bottom - times_height - pen.gap
    if y1 - y0 < MIN_PLOT * pen.box.height:
        raise TooSmall("the texts leave no room for the plot: a larger size is needed")
    digits, prices = _price_labels(wanted, pen, y1 - y0)
    tag = None if wanted.price is None or not wanted.low <= wanted.price <= wanted.high else ticks.plain_price(wanted.price)
    widest = max(measure(text, pen.small) for text in [*(ticks.price_text(one, digits) for one in prices), *([tag] if tag else [])])
    x1 = pen.box.x1 - pen.margin - widest - pen.px(12)
    wide = min(pen.px(PROFILE_UNITS[1]), max(pen.px(PROFILE_UNITS[0]), round(0.07 * pen.box.width)))
    profile = Box(x1 - wide, y0, x1, y1)
    plot = Box(pen.margin, y0, profile.x0 - pen.px(3), y1)

    def y_of(price: float) -> float:
        return y1 - (price - wanted.low) / (wanted.high - wanted.low) * (y1 - y0)

    price_tag = None if tag is None or wanted.price is None else _tag(tag, y_of(wanted.price), x1, plot, pen)
    return Layout(
        box=pen.box, unit=pen.unit, size=pen.size, small=pen.small, plot=plot, profile=profile, low=wanted.low, high=wanted.high,
        t0_ms=wanted.t0_ms, t1_ms=wanted.t1_ms, title=title, badges=badges, facts=facts, notes=notes,
        price_ticks=_price_ticks(prices, digits, y_of, x1, plot, price_tag, pen), price_tag=price_tag,
        time_ticks=_time_ticks(wanted, plot, pen), legends=legends, marks=marks,
    )  # fmt: skip


def _header(wanted: Wanted, pen: _Pen) -> tuple[Text, tuple[tuple[Text, Box, bool], ...], tuple[Text, ...], int]:
    """(title, badges, facts, where the header ends)."""
    large, inset = pen.px(20), pen.px(7)
    right, y = pen.box.x1 - pen.margin, pen.margin
    badges = []
    for badge in reversed(wanted.badges):
        width = pen.measure(badge.text, pen.size) + 2 * inset
        plate = Box(right - width, y, right, y + pen.line(large))
        text = pen.text(plate.x0 + inset, plate.y0 + (plate.height - pen.line(pen.size)) // 2, badge.text, pen.size, "plate")
        badges.append((text, plate, badge.warns))
        right = plate.x0 - pen.gap
    room = right - pen.gap - pen.margin
    title = pen.text(pen.margin, y, shortened(wanted.title, room, large, pen.measure), large)
    y = title.box.y1 + pen.px(2)
    lines = wrapped(wanted.facts, pen.box.width - 2 * pen.margin, pen.small, pen.measure)
    facts = tuple(
        pen.text(pen.margin, y + index * pen.line(pen.small), line, pen.small, "muted") for index, line in enumerate(lines)
    )
    return title, tuple(reversed(badges)), facts, y + len(lines) * pen.line(pen.small)


def _footer(
    wanted: Wanted, pen: _Pen
) -> tuple[tuple[LegendPlace, ...], tuple[tuple[MarkKind, Box, Text], ...], tuple[Text, ...], int]:
    """(legends, marks, notes, where the footer begins). Marks stand beside the legends where there is room, else below."""
    left, right, line = pen.margin, pen.box.x1 - pen.margin, pen.line(pen.small)
    notes = wrapped(wanted.notes, right - left, pen.small, pen.measure)
    notes_y = pen.box.y1 - pen.margin - len(notes) * line
    count = len(wanted.legends)
    wide = min(pen.px(LEGEND_UNITS), (right - left - pen.px(20) * (count - 1)) // count) if count else 0
    high = 4 * line + pen.px(3) if count else 0  # name, two bars, ticks
    marks_x = left + count * (wide + pen.px(20))
    lines = _mark_lines(wanted.marks, right - marks_x, pen) if right - marks_x > pen.px(180) else None
    beside = lines is not None and len(lines) * line <= high
    if not beside:
        marks_x = left
        lines = _mark_lines(wanted.marks, right - left, pen)
    assert lines is not None
    below = 0 if beside or not lines else len(lines) * line + pen.px(4)
    top = notes_y - pen.px(6) - below - high
    legends = tuple(_legend(one, left + index * (wide + pen.px(20)), top, wide, pen) for index, one in enumerate(wanted.legends))
    marks_y = top if beside else top + high + pen.px(4)
    placed = _marks(lines, marks_x, marks_y, pen)
    texts = tuple(pen.text(left, notes_y + index * line, text, pen.small, "muted") for index, text in enumerate(notes))
    return legends, placed, texts, top


def _legend(legend: Legend, x: int, y: int, wide: int, pen: _Pen) -> LegendPlace:
    line, bar = pen.line(pen.small), pen.px(11)
    names = max(pen.measure(name, pen.small) for name in legend.sides) + pen.px(6)
    x0 = x + names
    first, second = (y + rows * line + (line - bar) // 2 for rows in (1, 2))
    bars = (Box(x0, first, x + wide, first + bar), Box(x0, second, x + wide, second + bar))
    label = shortened(legend.name, wide, pen.small, pen.measure)
    texts = [pen.text(x, y, label, pen.small)]
    texts += [pen.text(x, y + rows * line, name, pen.small, "muted") for rows, name in enumerate(legend.sides, 1)]
    marks, labels = _legend_ticks(legend, bars[1], y + 3 * line + pen.px(3), pen)
    return LegendPlace(bars, marks, (*texts, *labels))


def _legend_ticks(legend: Legend, bar: Box, y: int, pen: _Pen) -> tuple[tuple[int, ...], tuple[Text, ...]]:
    span = math.log(legend.hi_usd / legend.lo_usd)
    marks: list[int] = []
    labels: list[Text] = []
    for usd in ticks.usd_marks(legend.lo_usd, legend.hi_usd):
        x = bar.x0 + round(math.log(usd / legend.lo_usd) / span * bar.width)
        text = f"{ticks.usd_text(usd)}+" if usd == legend.hi_usd else ticks.usd_text(usd)
        wide = pen.measure(text, pen.small)
        at = min(max(bar.x0, x - wide // 2), bar.x1 - wide)
        label = pen.text(at, y, text, pen.small)
        spaced = Box(label.box.x0 - pen.gap, label.box.y0, label.box.x1 + pen.gap, label.box.y1)
        if not any(spaced.overlaps(other.box) for other in labels):
            marks.append(min(x, bar.x1 - 1))
            labels.append(label)
    return tuple(marks), tuple(labels)


def _mark_lines(marks: Sequence[Mark], width: int, pen: _Pen) -> list[list[Mark]]:
    lines: list[list[Mark]] = []
    used = 0
    for mark in marks:
        needed = pen.px(22) + pen.measure(mark.text, pen.small)
        if not lines or used + pen.px(14) + needed > width:
            lines.append([])
            used = 0
        used += needed + (pen.px(14) if lines[-1] else 0)
        lines[-1].append(mark)
    return lines


def _marks(lines: Sequence[Sequence[Mark]], x: int, y: int, pen: _Pen) -> tuple[tuple[MarkKind, Box, Text], ...]:
    placed: list[tuple[MarkKind, Box, Text]] = []
    line = pen.line(pen.small)
    for row, marks in enumerate(lines):
        at = x
        for mark in marks:
            symbol = Box(at, y + row * line + 1, at + pen.px(17), y + (row + 1) * line - 1)
            limit = pen.box.x1 - pen.margin - symbol.x1 - pen.px(5)
            text = shortened(mark.text, limit, pen.small, pen.measure)
            label = pen.text(symbol.x1 + pen.px(5), y + row * line, text, pen.small, "muted")
            placed.append((mark.kind, symbol, label))
            at = label.box.x1 + pen.px(14)
    return tuple(placed)


def _price_labels(wanted: Wanted, pen: _Pen, height: int) -> tuple[int, list[float]]:
    """(decimals, prices)."""
    most = max(2, int(height / (2.4 * pen.line(pen.small))))
    return ticks.digits_of(ticks.round_step(wanted.high - wanted.low, most)), ticks.price_ticks(wanted.low, wanted.high, most)


def _price_ticks(
    prices: Sequence[float], digits: int, y_of: Callable[[float], float], x: int, plot: Box, tag: tuple[Text, Box] | None, pen: _Pen
) -> tuple[tuple[int, Text], ...]:
    found = []
    for price in prices:
        y = round(y_of(price))
        label = pen.text(x + pen.px(8), y - pen.line(pen.small) // 2, ticks.price_text(price, digits), pen.small, "muted")
        within = plot.y0 <= label.box.y0 and label.box.y1 <= plot.y1
        if within and (tag is None or not label.box.overlaps(tag[1])):
            found.append((y, label))
    return tuple(found)


def _tag(text: str, y: float, x: int, plot: Box, pen: _Pen) -> tuple[Text, Box]:
    """The newest price on the axis."""
    line = pen.line(pen.small)
    top = min(max(plot.y0, round(y) - line // 2), plot.y1 - line)
    label = pen.text(x + pen.px(8), top, text, pen.small, "plate")
    return label, Box(label.box.x0 - pen.px(4), label.box.y0, label.box.x1 + pen.px(4), label.box.y1)


def _time_ticks(wanted: Wanted, plot: Box, pen: _Pen) -> tuple[tuple[int, Text], ...]:
    widest = max(pen.measure(text, pen.small) for text in ("00:00", "30 Nov"))
    found: list[tuple[int, Text]] = []
    for t_ms in ticks.time_ticks(wanted.t0_ms, wanted.t1_ms, max(2, int(plot.width / (2.2 * widest)))):
        x = plot.x0 + (t_ms - wanted.t0_ms) / (wanted.t1_ms - wanted.t0_ms) * plot.width
        label = pen.centred(x, plot.y1 + pen.px(5), ticks.time_text(t_ms), pen.small, "muted")
        clear = not found or label.box.x0 >= found[-1][1].box.x1 + pen.gap
        if clear and plot.x0 <= label.box.x0 and label.box.x1 <= plot.x1:
            found.append((round(x), label))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Label:
    """A text inside of the plot on a plate of its own."""

    text: Text
    plate: Box


def beside(layout: Layout, wanted: Sequence[tuple[float, str]], right: int, measure: Measure) -> list[Label | None]:
    """Labels that end at x = `right`, each at its y, the most important first; None where one would overlap an earlier one."""
    pad, line = max(1, round(3 * layout.unit)), math.ceil(layout.small * LINE)
    placed: list[Label | None] = []
    for y, text in wanted:
        wide = measure(text, layout.small)
        top = min(max(layout.plot.y0, round(y) - line // 2), layout.plot.y1 - line)
        plate = Box(right - wide - 2 * pad, top, right, top + line)
        clear = plate.x0 >= layout.plot.x0 and not any(one is not None and plate.overlaps(one.plate) for one in placed)
        label = Text(Box(plate.x0 + pad, top, plate.x0 + pad + wide, top + line), text, layout.small)
        placed.append(Label(label, plate) if clear else None)
    return placed


def within(layout: Layout, x0: int, x1: int, text: str, measure: Measure) -> Label | None:
    """A label on top of a stretch of the plot; None where it does not fit."""
    pad, line = max(1, round(5 * layout.unit)), math.ceil(layout.size * LINE)
    wide = measure(text, layout.size)
    if wide + 4 * pad > x1 - x0:
        return None
    x, y = (x0 + x1 - wide) // 2, layout.plot.y0 + 2 * pad
    return Label(Text(Box(x, y, x + wide, y + line), text, layout.size, "muted"), Box(x - pad, y, x + wide + pad, y + line))
