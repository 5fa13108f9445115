"""Colours: the same as on the page, monotone, told apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mpengine.cells import usd_of_u8log
from mpengine.palettes import (
    ABOVE,
    FAINTEST,
    MARKS,
    OPAQUE_FROM,
    OVER_POWER,
    PALETTES,
    RAMPS,
    STRONG_ON_WHITE,
    THEMES,
    WEAK_ON_WHITE,
    colours_at,
    lut,
    over,
    ramp,
)
from mpengine.plot.options import PALETTES as OFFERED

PAGE = Path(__file__).resolve().parents[2] / "api/web/src"


def lightness(colour: tuple[int, int, int]) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (one / 255 for one in colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_the_page_and_the_picture_have_the_same_colours() -> None:
    text = (PAGE / "palettes.js").read_text(encoding="utf-8")
    table = text[text.index("const RAMPS") : text.index("};", text.index("const RAMPS"))]
    found = {
        name: tuple(re.findall(r'"([0-9a-f ]{20,})"', body)) for name, body in re.findall(r"(\w+): \[(.*?)\]", table, re.DOTALL)
    }
    assert found == RAMPS
    text = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("lut.js", "store.js"))
    for pattern, value in (
        (r"OPAQUE_FROM = ([\d.]+)", OPAQUE_FROM),
        (r"FAINTEST = ([\d.]+)", FAINTEST),
        (r"OVER_POWER = ([\d.]+)", OVER_POWER),
        (r"opacityDepth: ([\d.]+)", ABOVE),
        (r"weak: ([\d.]+)", WEAK_ON_WHITE),
        (r"strong: ([\d.]+)", STRONG_ON_WHITE),
    ):
        assert (number := re.search(pattern, text)) is not None and float(number[1]) == value, pattern
    text = (PAGE / "theme.js").read_text(encoding="utf-8")
    marks = re.findall(r'long: "#(\w{6})", short: "#(\w{6})"', text)
    assert marks == [tuple("".join(f"{one:02x}" for one in colour) for colour in MARKS[theme]) for theme in THEMES]
    assert tuple(OFFERED) == PALETTES == tuple(RAMPS)


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("side", [0, 1])
def test_more_is_never_nearer_to_the_background(palette: object, theme: object, side: int) -> None:
    ground = (0, 0, 0) if theme == "dark" else (255, 255, 255)
    shades = colours_at(palette, side, theme, np.linspace(0, 1, 200))  # type: ignore[arg-type]
    found = [lightness(over(one, ground)) for one in shades.tolist()]
    steps = np.diff(found) * (1 if theme == "dark" else -1)
    assert steps.min() > -0.006 and abs(found[-1] - found[0]) > 0.6


@pytest.mark.parametrize("palette", PALETTES)
def test_the_sides_differ(palette: object) -> None:
    for theme in THEMES:
        one, other = (colours_at(palette, side, theme, np.linspace(0.3, 1, 20))[:, :3].astype(float) for side in (0, 1))  # type: ignore[arg-type]
        assert np.abs(one - other).max(axis=1).min() >= 12, theme


def test_ends_of_a_scale_are_the_ends_of_the_ramp() -> None:
    table = lut("viridis", 0, "dark", 1e4, 1e6)
    usd = usd_of_u8log(np.arange(256, dtype=np.uint8))
    assert not table[usd < 1e4].any() and (table[usd >= 1e4][:, 3] > 0).all()
    assert table[255].tolist() == [*ramp("viridis", 0)[-1].tolist(), 255]
    assert table[np.argmax(usd >= 1e6)].tolist() == [*ramp("viridis", 0)[-1].tolist(), 255]
    on_white = lut("viridis", 0, "light", 1e4, 1e6)[255].tolist()
    assert lightness(tuple(on_white[:3])) < 0.1 and on_white[3] == 255


def test_a_layer_on_top_lets_the_other_one_through_where_it_is_thin() -> None:
    opacity = colours_at("mono", 0, "dark", np.array([0.0, 0.5, 1.0]), above=True)[:, 3]
    assert opacity.tolist() == [0, 10, 153]


def test_the_lowest_colour_lets_the_background_through() -> None:
    assert over((200, 100, 0, 0), (1, 2, 3)) == (1, 2, 3)
    assert over((200, 100, 0, 255), (1, 2, 3)) == (200, 100, 0)
    assert colours_at("mono", 0, "dark", np.array([0.0]))[0, 3] == 77  # 30 %, rounded as the page does
