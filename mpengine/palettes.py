"""Colours of USD, the same in a plotted picture as on the page (`api/web/src/palettes.js`, `lut.js`; a test compares them). Pure.

Each palette has two ramps of rising lightness, the first for longs and bids, the second for shorts and asks, told apart by hue also
at their bright ends: longs are warm, shorts cool. Anchors of viridis, inferno and magma: Smith and van der Walt (CC0); cividis:
Nunez, Anderton and Renslow, doi:10.1371/journal.pone.0199239; the others are our own.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mpengine.cells import usd_of_u8log

Palette = Literal["viridis", "inferno", "cividis", "mono"]
Theme = Literal["dark", "light"]
Colour = tuple[int, int, int]

PALETTES: Final[tuple[Palette, ...]] = ("viridis", "inferno", "cividis", "mono")
THEMES: Final[tuple[Theme, ...]] = ("dark", "light")

RAMPS: Final[dict[Palette, tuple[str, str]]] = {
    "viridis": (
        "2a0a3e 440f76 721f81 9e2f7f cd4071 f1605d fd9668 feb47b feca8d ffe6d5",
        "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
    ),
    "inferno": (
        "1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
        "0d1b3d 15305f 1b4a7f 1f669a 2384ad 31a3ba 58c2c4 93ddd0 d6f5ea",
    ),
    "cividis": (
        "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
        "3a1d06 56320f 6f4a24 80643f 8c7d62 959688 9fafae aac8d3 bde0f4 e2f4ff",
    ),
    "mono": ("241b13 493829 715a44 987d63 bca48b dccbb8 fff8ee", "141b24 2c3a49 4a5d71 6f8598 9aadbc c6d3dd f4faff"),
}
"""Six hexadecimal digits per colour, darkest first."""

OPAQUE_FROM: Final = 0.3
"""Position from which colours are opaque."""
FAINTEST: Final = 0.3
"""Opacity of the lowest position: faint cells let the background through."""
OVER_POWER: Final = 4
"""Over another layer: half way up a logarithmic scale lies the usual, which is to hide nothing."""

ABOVE: Final = 0.6
"""Opacity of the highest position of a layer that lies on another one."""
WEAK_ON_WHITE: Final = 0.94
STRONG_ON_WHITE: Final = 0.18
"""Part of a ramp that is used on white: its ends are too near to white, and to the other side's."""
MARKS: Final[dict[Theme, tuple[Colour, Colour]]] = {
    "dark": ((0xFF, 0x6B, 0x70), (0x2F, 0xD3, 0xA4)),
    "light": ((0xC9, 0x18, 0x2F), (0x00, 0x79, 0x5C)),
}
"""Of marks and lines of a side, whatever the palette (`theme.js` of the page)."""

Lut = npt.NDArray[np.uint8]


def ramp(palette: Palette, side: int) -> npt.NDArray[np.float64]:
    """float64[anchors, 3], 0..255. `side`: 0 longs and bids, 1 shorts and asks."""
    colours = [[int(text[at : at + 2], 16) for at in (0, 2, 4)] for text in RAMPS[palette][side].split()]
    return np.array(colours, np.float64)


def colours_at(palette: Palette, side: int, theme: Theme, positions: npt.NDArray[np.float64], *, above: bool = False) -> Lut:
    """uint8[n, 4] (R, G, B, A) of positions 0..1. More is never nearer to the background: lighter on dark, darker on light.

    `above`: of a layer on top of another one, which is to show through what is faint.
    """
    anchors = ramp(palette, side)
    places = (WEAK_ON_WHITE - (WEAK_ON_WHITE - STRONG_ON_WHITE) * positions if theme == "light" else positions) * (len(anchors) - 1)
    low = np.minimum(places.astype(np.int64), len(anchors) - 2)
    part = (places - low)[:, np.newaxis]
    colours = anchors[low] * (1.0 - part) + anchors[low + 1] * part
    opacity = 255.0 * (
        ABOVE * positions**OVER_POWER if above else np.minimum(1.0, FAINTEST + (1.0 - FAINTEST) * positions / OPAQUE_FROM)
    )
    return np.floor(np.column_stack([colours, opacity]) + 0.5).astype(np.uint8)


def lut(palette: Palette, side: int, theme: Theme, lo_usd: float, hi_usd: float, *, above: bool = False) -> Lut:
    """uint8[256, 4]: colour of each u8log cell on a logarithmic scale of `lo_usd` to `hi_usd`; clear for nothing and below it."""
    usd = usd_of_u8log(np.arange(256, dtype=np.uint8))
    shown = usd >= lo_usd
    shown[0] = False
    found = np.zeros((256, 4), np.uint8)
    positions = np.clip(np.log(usd[shown] / lo_usd) / math.log(hi_usd / lo_usd), 0.0, 1.0)
    found[shown] = colours_at(palette, side, theme, positions, above=above)
    return found


def over(colour: Any, ground: Colour) -> Colour:
    """What an (R, G, B, A) looks like on an opaque ground."""
    part = int(colour[3]) / 255.0
    red, green, blue = (math.floor(int(one) * part + below * (1.0 - part) + 0.5) for one, below in zip(colour[:3], ground))
    return red, green, blue
