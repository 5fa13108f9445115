"""What tones look like. Names and numbers of ANSI colours only: the terminal's own 16, or its 256; never truecolour, no background.

Longs and bids are blue to cyan, shorts and asks brown to yellow: told apart with any colour vision, and by their place.
"""

from __future__ import annotations

from typing import Final

from rich.style import Style

TEXT: Final[dict[str, str]] = {
    "": "", "dim": "dim", "head": "bold", "title": "bold cyan", "ok": "green", "warn": "yellow", "bad": "bold red",
    "tab": "bold reverse", "badge-ok": "bold green reverse", "badge-warn": "bold yellow reverse", "badge-bad": "bold red reverse",
}  # fmt: skip
HEAT_256: Final = {
    "low": ("color(18)", "color(25)", "color(31)", "color(38)", "color(44)", "color(123)"),
    "high": ("color(52)", "color(94)", "color(130)", "color(172)", "color(214)", "color(229)"),
}
HEAT_16: Final = {
    "low": ("blue", "blue", "bright_blue", "cyan", "bright_cyan", "bright_white"),
    "high": ("red", "red", "bright_red", "yellow", "bright_yellow", "bright_white"),
}


GREY_256: Final = ("color(235)", "color(238)", "color(241)", "color(244)", "color(247)", "color(250)")
GREY_16: Final = ("bright_black", "bright_black", "bright_black", "white", "white", "bright_white")
"""Of a picture that is not to be trusted any more. Not the attribute `dim`: it does not reach the lower half of a cell."""


class Palette:
    """Styles of tones. `colours`: 256 or 16; without colour the strips have shades and need none."""

    def __init__(self, colours: int) -> None:
        ramps = HEAT_256 if colours >= 256 else HEAT_16
        greys = GREY_256 if colours >= 256 else GREY_16
        tones = [(f"{side}{level}", name, greys[level - 1]) for side, names in ramps.items() for level, name in enumerate(names, 1)]
        self._colours = {False: {tone: name for tone, name, _ in tones}, True: {tone: grey for tone, _, grey in tones}}
        self._styles: dict[tuple[str, str, bool], Style] = {}

    def style(self, tone: str, back: str, *, dim: bool) -> Style:
        """Style of a tone with another one behind it. `dim`: of a picture that is not to be trusted any more."""
        key = (tone, back, dim)
        found = self._styles.get(key)
        if found is None:
            colours = self._colours[dim]
            found = Style.parse(TEXT[tone]) + Style(dim=dim or None) if tone in TEXT else Style(color=colours[tone])
            if back:
                found += Style(bgcolor=colours[back])
            self._styles[key] = found
        return found


def colours_of(system: str | None) -> int:
    """Colours of a terminal by rich's name of its system."""
    return {"256": 256, "truecolor": 256}.get(system or "", 16)
