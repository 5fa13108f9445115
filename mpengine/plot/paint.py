"""A scene as a PNG, by Pillow. Its own font, so that a picture is the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from mpengine.palettes import MARKS, Colour, Theme, colours_at, lut
from mpengine.plot.layout import Box, Label, Layout, LegendPlace, MarkKind, Text, beside, cell_edges, compute, within
from mpengine.plot.scene import (
    Bar,
    Bubble,
    Heat,
    Scene,
    bars_of,
    chunks_of,
    gap_name,
    one_side,
    resampled,
    stretches,
    wanted,
)
from mpengine.plot.ticks import price_text, usd_text
from shm.grid import ndigits

HATCH_UNITS: Final = 8.0
BUBBLE_UNITS: Final = (2.2, 12.0)
"""Radius of the smallest and of the largest bubble."""
WORD_SPACE: Final = 0.15
"""Of the size of the font, added to each space."""
ZONE_SHARE: Final = 0.10
"""Of the plot that the line of a zone is long."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Colours:
    """Of everything but heat."""

    ground: Colour
    plot: Colour
    ink: Colour
    muted: Colour
    line: Colour
    grid: Colour
    plate: Colour
    on_plate: Colour
    warn: Colour
    hatch: Colour
    candle: Colour
    halo: Colour


COLOURS: Final[dict[Theme, Colours]] = {
    "dark": Colours(
        ground=(13, 17, 23), plot=(7, 10, 14), ink=(236, 240, 245), muted=(168, 178, 190), line=(62, 72, 84), grid=(28, 34, 42),
        plate=(52, 62, 76), on_plate=(240, 244, 248), warn=(179, 71, 0), hatch=(66, 74, 84), candle=(244, 247, 250),
        halo=(7, 10, 14),
    ),
    "light": Colours(
        ground=(255, 255, 255), plot=(250, 251, 252), ink=(20, 26, 34), muted=(82, 92, 104), line=(170, 178, 188),
        grid=(228, 232, 237), plate=(222, 228, 235), on_plate=(20, 26, 34), warn=(255, 190, 120), hatch=(196, 203, 211),
        candle=(18, 24, 32), halo=(255, 255, 255),
    ),
}  # fmt: skip


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels that a text is wide."""
    return math.ceil(sum(_word_widths(text, size)))


def _word_widths(text: str, size: int) -> list[float]:
    """Of each word and the space behind it. The spaces of the font are too narrow for small sizes: some is added."""
    space = _font(size).getlength(" ") + WORD_SPACE * size
    words = text.split(" ")
    return [_font(size).getlength(word) + (space if index < len(words) else 0.0) for index, word in enumerate(words, 1)]


def placed(scene: Scene, size: tuple[int, int], scale: int) -> Layout:
    """Where everything of a scene goes. Raises TooSmall, ValueError."""
    return compute(wanted(scene, *size, scale), text_width)


def painted(scene: Scene, size: tuple[int, int], scale: int, theme: Theme) -> bytes:
    """The whole file. Raises TooSmall, ValueError."""
    layout = placed(scene, size, scale)
    image = _Picture(scene, layout, theme).paint()
    info = PngImagePlugin.PngInfo()
    for keyword, text in chunks_of(scene).items():
        info.add_itxt(keyword, text) if not text.isascii() else info.add_text(keyword, text)
    out = BytesIO()
    image.save(out, "PNG", pnginfo=info, dpi=(96 * scale, 96 * scale), optimize=False)
    return out.getvalue()


class _Picture:
    """One picture while it is painted, from the back to the front."""

    def __init__(self, scene: Scene, layout: Layout, theme: Theme) -> None:
        self.scene = scene
        self.layout = layout
        self.theme = theme
        self.colours = COLOURS[theme]
        self.image = Image.new("RGB", (layout.box.width, layout.box.height), self.colours.ground)
        self.draw = ImageDraw.Draw(self.image)
        self.thin = max(1, round(layout.unit))

    def paint(self) -> Image.Image:
        """All of it."""
        plot = self.layout.plot
        self._fill(plot, self.colours.plot)
        self._fill(self.layout.profile, self.colours.plot)
        self._grid()
        for heat in self.scene.heats:  # the book lies on the map, and lets it through where it is thin
            self._heat(heat)
        for heat in self.scene.heats:
            self._gaps(heat)
        self._bars()
        self._clipped(self._bubbles)
        self._gap_labels()
        self._price_line()
        self._zones()
        self._profile()
        self._frame()
        self._axes()
        self._head()
        self._foot()
        return self.image

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _fill(self, box: Box, colour: Colour) -> None:
        self.draw.rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), fill=colour)

    def _text(self, text: Text) -> None:
        of_tone = {"ink": self.colours.ink, "muted": self.colours.muted, "plate": self.colours.on_plate}
        middle = (text.box.y0 + text.box.y1) / 2
        x = float(text.box.x0)
        for word, width in zip(text.text.split(" "), _word_widths(text.text, text.size)):
            self.draw.text((x, middle), word, of_tone[text.tone], _font(text.size), anchor="lm")
            x += width

    def _label(self, label: Label, edge: Colour) -> None:
        self._fill(label.plate, self.colours.halo)
        box = label.plate
        self.draw.rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), outline=edge, width=self.thin)
        self._text(label.text)

    def _clipped(self, paint: Callable[[], None]) -> None:
        """What `paint` draws, cut to the plot."""
        plot = self.layout.plot
        before = self.image.copy()
        paint()
        inside = self.image.crop((plot.x0, plot.y0, plot.x1, plot.y1))
        self.image.paste(before)
        self.image.paste(inside, (plot.x0, plot.y0))

    def _grid(self) -> None:
        plot = self.layout.plot
        for y, _ in self.layout.price_ticks:
            for box in (plot, self.layout.profile):
                self._fill(Box(box.x0, y, box.x1, y + self.thin), self.colours.grid)
        for x, _ in self.layout.time_ticks:
            self._fill(Box(x, plot.y0, x + self.thin, plot.y1), self.colours.grid)

    def _heat(self, heat: Heat) -> None:
        """Rows ascend in price, pixels descend: the plane is turned over."""
        plot = self.layout.plot
        cells, sides = (
            heat.cells,
            [lut(heat.palette, side, self.theme, heat.lo_usd, heat.hi_usd, above=heat.above) for side in (0, 1)],
        )
        shown = np.where(heat.missing[np.newaxis, :, np.newaxis], 0, cells)[:, :, ::-1].transpose(0, 2, 1)
        shown = resampled(resampled(shown, plot.height, 1), plot.width, 2)
        largest, side = one_side(shown)
        colours = np.stack(sides)[side, largest]
        self._over(colours, plot)

    def _over(self, colours: Pixels, box: Box) -> None:
        """uint8[height, width, 4] over what is there, rounded as `palettes.over`."""
        area = (box.x0, box.y0, box.x1, box.y1)
        ground = np.asarray(self.image.crop(area), np.float64)
        part = colours[:, :, 3:].astype(np.float64) / 255.0
        mixed = np.floor(colours[:, :, :3] * part + ground * (1.0 - part) + 0.5).astype(np.uint8)
        self.image.paste(Image.fromarray(mixed, "RGB"), area)

    def _gaps(self, heat: Heat) -> None:
        """Columns without a frame: hatched, the map one way, the book the other, so that both show."""
        edges = cell_edges(self.scene.cols, self.layout.plot.x0, self.layout.plot.x1)
        for first, last in stretches(heat.missing):
            box = Box(edges[first], self.layout.plot.y0, max(edges[first] + 1, edges[last]), self.layout.plot.y1)
            self._hatch(box, heat.name == "depth")

    def _gap_labels(self) -> None:
        """What is missing, where there is room to say it. A stretch that both layers miss is said once."""
        edges = cell_edges(self.scene.cols, self.layout.plot.x0, self.layout.plot.x1)
        said: list[Box] = []
        for heat, first, last in ((one, *ends) for one in self.scene.heats for ends in stretches(one.missing)):
            alone = len(self.scene.heats) == 1 or all(one.missing[first:last].all() for one in self.scene.heats)
            text = "no data" if alone else f"no data of the {gap_name(heat)}"
            label = within(self.layout, edges[first], edges[last], text, text_width)
            if label is not None and not any(label.plate.overlaps(one) for one in said):
                said.append(label.plate)
                self._label(label, self.colours.line)

    def _hatch(self, box: Box, falling: bool) -> None:
        period, thick = max(4, round(HATCH_UNITS * self.layout.unit)), max(1, round(1.4 * self.layout.unit))
        across, down = np.arange(box.x0, box.x1)[np.newaxis, :], np.arange(box.y0, box.y1)[:, np.newaxis]
        on = ((across - down if falling else across + down) % period) < thick
        area = (box.x0, box.y0, box.x1, box.y1)
        pixels = np.array(self.image.crop(area))
        pixels[on] = self.colours.hatch
        self.image.paste(Image.fromarray(pixels, "RGB"), area)

    def _bars(self) -> None:
        per_ms = self.layout.plot.width / (self.layout.t1_ms - self.layout.t0_ms)
        bars = bars_of(self.scene, per_ms, self.layout.unit)

        def paint() -> None:
            for bar in bars:
                self._bar(bar)

        self._clipped(paint)

    def _bar(self, bar: Bar) -> None:
        layout, thin = self.layout, self.thin
        left, right = layout.x_of(bar.open_ms), layout.x_of(bar.close_ms)
        body = max(1, int((right - left) * 0.62))
        x0 = round((left + right - body) / 2)
        middle = x0 + body // 2 - thin // 2
        top, bottom = round(layout.y_of(max(bar.open, bar.close))), round(layout.y_of(min(bar.open, bar.close)))
        bottom = max(bottom, top + thin)
        wick = Box(middle, round(layout.y_of(bar.high)), middle + thin, max(round(layout.y_of(bar.low)), bottom))
        halo = max(1, thin // 2)
        for box in (wick, Box(x0, top, x0 + body, bottom)):
            self._fill(Box(box.x0 - halo, box.y0 - halo, box.x1 + halo, box.y1 + halo), self.colours.halo)
        self._fill(wick, self.colours.candle)
        self._fill(Box(x0, top, x0 + body, bottom), self.colours.candle)
        inner = Box(x0 + thin, top + thin, x0 + body - thin, bottom - thin)
        if bar.close >= bar.open and inner.width > 0 and inner.height > 0:
            self._fill(inner, self.colours.halo)

    def _bubbles(self) -> None:
        if not self.scene.bubbles:
            return
        across = cell_edges(self.scene.cols, self.layout.plot.x0, self.layout.plot.x1)
        down = cell_edges(self.scene.rows, self.layout.plot.y0, self.layout.plot.y1)
        largest = self.scene.bubbles[0].usd
        for bubble in self.scene.bubbles:
            row = self.scene.rows - 1 - bubble.row
            x, y = (across[bubble.col] + across[bubble.col + 1]) / 2, (down[row] + down[row + 1]) / 2
            self._bubble(x, y, self._radius(bubble, largest), bubble.side)

    def _radius(self, bubble: Bubble, largest: float) -> float:
        """The area goes with the USD."""
        low, high = (units * self.layout.unit for units in BUBBLE_UNITS)
        return max(low, high * math.sqrt(bubble.usd / largest))

    def _bubble(self, x: float, y: float, radius: float, side: int) -> None:
        """Longs are discs, shorts diamonds of the same area: the side shows without colour too."""
        fill, edge = self._side(side), self.colours.halo
        if side == 0:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, edge, self.thin)
            return
        half = radius * math.sqrt(math.pi / 2)
        corners = [(x - half, y), (x, y - half), (x + half, y), (x, y + half)]
        self.draw.polygon(corners, fill, edge, self.thin)

    def _side(self, side: int) -> Colour:
        return MARKS[self.theme][side]

    def _price_line(self) -> None:
        if self.layout.price_tag is None or self.scene.price is None:
            return
        y, plot = round(self.layout.y_of(self.scene.price)), self.layout.plot
        dash = max(3, round(4 * self.layout.unit))
        for x in range(plot.x0, self.layout.profile.x1, 2 * dash):
            self._fill(Box(x, y, min(x + dash, self.layout.profile.x1), y + self.thin), self.colours.muted)

    def _zones(self) -> None:
        plot, unit = self.layout.plot, self.layout.unit
        size = max(3, round(5 * unit))
        places = [self.layout.y_of(zone.price) for zone in self.scene.zones]
        digits = ndigits(self.scene.step)
        texts = [f"{price_text(zone.price, digits)}  {usd_text(zone.notional_usd)} USD" for zone in self.scene.zones]
        labels = beside(self.layout, list(zip(places, texts)), plot.x1 - 2 * size, text_width)
        for zone, y in zip(self.scene.zones, places):
            colour, at = self._side(0 if zone.side == "long" else 1), round(y)
            for x in range(plot.x1 - round(ZONE_SHARE * plot.width), plot.x1, 3 * self.thin):
                self._fill(Box(x, at, x + 2 * self.thin, at + self.thin), colour)
            self.draw.polygon([(plot.x1 - 1, at - size), (plot.x1 - 1, at + size), (plot.x1 - 1 - size, at)], colour)
        for zone, label in zip(self.scene.zones, labels):
            if label is not None:
                self._label(label, self._side(0 if zone.side == "long" else 1))

    def _profile(self) -> None:
        box, usd = self.layout.profile, self.scene.profile
        if usd is None or not usd.any():
            return
        full = usd.max()
        down = cell_edges(self.scene.rows, box.y0, box.y1)
        for side in (0, 1):
            colour = self._side(side)
            for row in np.flatnonzero((usd[side] > 0.0) & (usd[side] >= usd[1 - side])):
                at = self.scene.rows - 1 - int(row)
                wide = round(float(usd[side, row]) / full * box.width)
                if wide:
                    self._fill(Box(box.x0, down[at], box.x0 + wide, max(down[at] + 1, down[at + 1])), colour)

    def _frame(self) -> None:
        """A border; where the data stands still one that cannot be overlooked."""
        colour = self.colours.warn if self.scene.stale else self.colours.line
        width = 3 * self.thin if self.scene.stale else self.thin
        for box in (self.layout.plot, self.layout.profile):
            self.draw.rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), outline=colour, width=width)

    def _axes(self) -> None:
        right, bottom = self.layout.profile.x1, self.layout.plot.y1
        tick = max(2, round(4 * self.layout.unit))
        for y, text in self.layout.price_ticks:
            self._fill(Box(right, y, right + tick, y + self.thin), self.colours.line)
            self._text(text)
        for x, text in self.layout.time_ticks:
            self._fill(Box(x, bottom, x + self.thin, bottom + tick), self.colours.line)
            self._text(text)
        if self.layout.price_tag is not None:
            text, plate = self.layout.price_tag
            self._fill(plate, self.colours.plate)
            self._text(text)

    def _head(self) -> None:
        self._text(self.layout.title)
        for text in self.layout.facts:
            self._text(text)
        for text, plate, warns in self.layout.badges:
            self._fill(plate, self.colours.warn if warns else self.colours.plate)
            self._text(text)

    def _foot(self) -> None:
        for heat, place in zip(self.scene.heats, self.layout.legends):
            self._legend(heat, place)
        for kind, box, text in self.layout.marks:
            self._symbol(kind, box)
            self._text(text)
        for text in self.layout.notes:
            self._text(text)

    def _legend(self, heat: Heat, place: LegendPlace) -> None:
        for side, bar in enumerate(place.bars):
            self._fill(bar, self.colours.plot)
            positions = np.linspace(0.0, 1.0, bar.width)
            colours = colours_at(heat.palette, side, self.theme, positions, above=heat.above)
            self._over(np.repeat(colours[np.newaxis], bar.height, axis=0), bar)
        below = place.bars[1].y1
        for x in place.ticks:
            self._fill(Box(x, below, x + self.thin, below + max(2, round(2 * self.layout.unit))), self.colours.muted)
        for text in place.texts:
            self._text(text)

    def _symbol(self, kind: MarkKind, box: Box) -> None:
        x, y, half = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.height / 2
        if kind in ("long", "short"):
            self._bubble(x, y, half * 0.72, 0 if kind == "long" else 1)
        elif kind == "zone":
            for side, at in ((1, y - half / 2), (0, y + half / 2)):
                self.draw.polygon([(box.x1, at - half / 2), (box.x1, at + half / 2), (box.x1 - half, at)], self._side(side))
        elif kind == "profile":
            for side, (share, at) in enumerate(((1.0, y), (0.6, y - half / 2))):
                self._fill(Box(box.x0, round(at), box.x0 + round(box.width * share), round(at + half / 2)), self._side(side))
        elif kind == "candle":
            for at, hollow in ((x - half * 0.6, True), (x + half * 0.6, False)):
                self._small_candle(at, y, half, hollow)
        else:
            self._fill(box, self.colours.plot)
            self._hatch(box, kind == "gap_depth")

    def _small_candle(self, x: float, y: float, half: float, hollow: bool) -> None:
        at, wide = round(x), max(1, round(half * 0.3))
        self._fill(Box(at, round(y - half), at + self.thin, round(y + half)), self.colours.candle)
        body = (at - wide, round(y - half / 2), at + wide, round(y + half / 2))
        self.draw.rectangle(body, self.colours.halo if hollow else self.colours.candle, self.colours.candle, self.thin)
