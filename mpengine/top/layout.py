"""Where the parts of the screen are, for any size of terminal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Part = Literal["head", "venues", "streams", "map", "book", "zones", "zone_list", "liquidations", "processes", "foot", "help"]
"""`zones`: as many as there is room for; `zone_list`: all of them, to scroll in."""
View = Literal["main", "feeds", "zones", "liquidations", "processes", "help"]

HEAD: Final = 4
FOOT: Final = 2
NARROWEST, LOWEST = 60, 16
WIDE, WIDEST = 110, 160
VENUES_WIDTH: Final = 44


@dataclass(frozen=True, slots=True)
class Place:
    """A part and its cells."""

    part: Part
    x: int
    y: int
    width: int
    height: int


def places(width: int, height: int, view: View, layer: Literal["map", "book"], venues: int, processes: int) -> list[Place]:
    """The parts of a view; none in a terminal of less than 60 x 16. `layer`: of the strip where there is room for one only."""
    if width < NARROWEST or height < LOWEST:
        return []
    body = height - HEAD - FOOT
    return [
        Place("head", 0, 0, width, HEAD),
        *(_main(width, body, layer, venues, processes) if view == "main" else _single(width, body, view, venues)),
        Place("foot", 0, height - FOOT, width, FOOT),
    ]


def _single(width: int, body: int, view: View, venues: int) -> list[Place]:
    """One thing in all the room."""
    if view == "feeds":
        top = min(venues + 2, body // 2)
        return [Place("venues", 0, HEAD, width, top), Place("streams", 0, HEAD + top, width, body - top)]
    part: dict[View, Part] = {
        "zones": "zone_list", "liquidations": "liquidations", "processes": "processes", "help": "help",
    }  # fmt: skip
    return [Place(part[view], 0, HEAD, width, body)]


def _main(width: int, body: int, layer: Literal["map", "book"], venues: int, processes: int) -> list[Place]:
    left = VENUES_WIDTH if width < WIDE else min(64, width * 9 // 20)
    venue_lines = min(venues + 2, max(5, body // 3))
    if width < WIDE:
        low = min(8, body * 2 // 5)
        right = width - left - 1
        return [
            Place("venues", 0, HEAD, left, venue_lines),
            Place("zones", 0, HEAD + venue_lines, left, body - venue_lines),
            Place(layer, left + 1, HEAD, right, body - low),
            Place("liquidations", left + 1, HEAD + body - low, right, low),
        ]
    process_lines = min(processes + 2, max(4, body // 3))
    lower = body - venue_lines - process_lines
    lists = [
        Place("venues", 0, HEAD, left, venue_lines),
        Place("processes", 0, HEAD + venue_lines, left, process_lines),
    ]
    if width < WIDEST:
        low, right = min(10, body // 4), width - left - 1
        upper = (body - low + 1) // 2
        return [
            *lists,
            Place("zones", 0, HEAD + venue_lines + process_lines, left, lower),
            Place("map", left + 1, HEAD, right, upper),
            Place("book", left + 1, HEAD + upper, right, body - low - upper),
            Place("liquidations", left + 1, HEAD + body - low, right, low),
        ]
    third = 48
    middle, at = width - left - third - 2, width - third
    upper = (body + 1) // 2
    return [
        *lists,
        Place("liquidations", 0, HEAD + venue_lines + process_lines, left, lower),
        Place("map", left + 1, HEAD, middle, upper),
        Place("book", left + 1, HEAD + upper, middle, body - upper),
        Place("zones", at, HEAD, third, body),
    ]
