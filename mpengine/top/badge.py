"""LIVE, PAUSED or STALE, and why (`spec: dashboard`, section 7). Pure: a table of rules over the facts.

A venue that is down is its own row's business and not STALE, as long as another one is LIVE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mpengine.top.model import Facts, Newest

SILENT_MS: Final = 15_000
MAP_STALE_MS: Final = 180_000
BOOK_STALE_MS: Final = 90_000
"""The limits of `/health` (docs/api.md), so that the terminal and the API say the same."""

Rule = Callable[[Facts, int], str | None]


@dataclass(frozen=True, slots=True)
class Badge:
    """`reasons`: why the picture is not to be trusted, the gravest first; none: it is live."""

    paused: bool
    reasons: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether there is any reason."""
        return bool(self.reasons)

    @property
    def text(self) -> str:
        """Word and sign: it is readable without colour. STALE is said while PAUSED, too."""
        words = (["‖ PAUSED"] if self.paused else []) + (["▲ STALE"] if self.reasons else [])
        return " ".join(words) or "● LIVE"

    @property
    def name(self) -> str:
        """LIVE, PAUSED, STALE or PAUSED STALE."""
        words = (["PAUSED"] if self.paused else []) + (["STALE"] if self.reasons else [])
        return " ".join(words) or "LIVE"


def badge(facts: Facts, now_ms: int, *, paused: bool = False) -> Badge:
    """The badge at `now_ms`, which may be later than the facts: a source that says nothing more ages."""
    return Badge(paused, tuple(reason for rule in RULES if (reason := rule(facts, now_ms)) is not None))


def _source(facts: Facts, _now_ms: int) -> str | None:
    return facts.trouble


def _silent(facts: Facts, now_ms: int) -> str | None:
    if facts.trouble is not None:
        return None
    if facts.heard_ms is None:
        return "nothing has been heard yet"
    silent_ms = now_ms - facts.heard_ms
    return f"nothing heard for {silent_ms // 1000} s" if silent_ms > SILENT_MS else None


def _symbol(facts: Facts, _now_ms: int) -> str | None:
    if facts.shown is not None and facts.symbol is None:
        return f"{facts.shown} is not known here"
    return None


def _engine(facts: Facts, _now_ms: int) -> str | None:
    one = facts.symbol
    if one is None or one.engine in ("live", "starting"):
        return None
    return f"engine of {one.name}: {one.engine}"


def _restarted(facts: Facts, _now_ms: int) -> str | None:
    one = facts.symbol
    return f"engine of {one.name} restarted, its first frame is to come" if one is not None and one.restarted else None


def _frames(facts: Facts, now_ms: int) -> str | None:
    """Warm-up and age of what is drawn, as `/health` judges a symbol."""
    one = facts.symbol
    if one is None:
        return None
    wanted: list[tuple[str, Newest | None, int]] = []
    if one.maps:
        wanted.append(("map", one.map, MAP_STALE_MS))
    if one.books:
        wanted.append(("book", one.book, BOOK_STALE_MS))
    missing = [name for name, newest, _ in wanted if newest is None]
    old = [
        f"newest {name} is {(now_ms - newest.ts_ms) // 1000} s old"
        for name, newest, limit_ms in wanted
        if newest is not None and now_ms - newest.ts_ms > limit_ms
    ]
    texts = ([f"warming up, no {' and no '.join(missing)} yet"] if missing else []) + old
    return ", ".join(texts) or None


def _venues(facts: Facts, _now_ms: int) -> str | None:
    if facts.venues and all(venue.state != "LIVE" for venue in facts.venues):
        return "no venue is LIVE"
    return None


def _gap(facts: Facts, _now_ms: int) -> str | None:
    return facts.lost


RULES: Final[tuple[Rule, ...]] = (_source, _silent, _symbol, _engine, _restarted, _frames, _venues, _gap)
"""The gravest first."""
