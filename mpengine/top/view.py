"""The text of every part of the screen, from facts and a moment. Pure; used by the full screen and by `--once` alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from mpengine.top.badge import Badge
from mpengine.top.layout import Part, Place, View
from mpengine.top.model import Facts, Layer, Liquidation, Process, Stream, Symbol, Venue, Zone
from mpengine.top.strip import clipped, strip
from mpengine.top.text import (
    NONE,
    Col,
    Line,
    Span,
    age,
    count,
    cut,
    fitting,
    head_of,
    milliseconds,
    money,
    plain,
    price_text,
    row_of,
    safe,
    since,
    span,
    table,
)

ACCURACY: Final = "accuracy: no scorecard on this server"
KEYS: Final = "1-9 symbol  f feeds  z zones  l liquidations  t processes  m map/book  +/- range  p pause  ? help  q quit"
SHORT_KEYS: Final = "1-9 symbol f feeds z zones l liq. t proc. m map/book p pause ? help q quit"
TONES: Final = {"LIVE": "ok", "STALE": "warn", "STARTING": "warn", "STOPPING": "warn", "BACKOFF": "warn"}
"""Of a state; any other one is bad."""
HELP: Final = (
    "1 ... 9     show that symbol",
    "f  z  l  t  feeds, zones (arrows scroll), liquidations, processes; again or Esc: back",
    "m           map or book, where there is room for one",
    "+  -        narrower or wider range of prices",
    "p  Space    pause: the picture stays and ages; again: to the newest",
    ",  .        10 s back or on, of a recording",
    "q  Ctrl-C   quit",
    "",
    "LIVE: data are fresh. STALE: they are not, and the line below says why.",
    "Map and zones are estimates: modelled exposure in USD, no orders.",
    "lb: lower bound; that venue's feed does not show every liquidation.",
    "P(swept) and accuracy need a scorecard, which no server has yet.",
    "Strip: longs or bids below the price, shorts or asks above; one column a frame,",
    "the newest at the right; ╱ no frame for that time. The legend is its scale.",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the user chose. `waiting`: frames that came since the pause; `note`: about the recording; `scroll`: rows of a list."""

    view: View = "main"
    layer: Layer = "map"
    paused: bool = False
    waiting: int = 0
    note: str | None = None
    colour: bool = True


def lines_of(part: Part, facts: Facts, badge: Badge, look: Look, now_ms: int, width: int, height: int) -> list[Line]:
    """The lines of one part in its room; at most `height`, each at most `width` characters."""
    # Whatever a server calls its processes or its build: nothing of it reaches the terminal but what can be printed.
    lines = _PARTS[part](facts, badge, look, now_ms, width, height)
    return [tuple((safe(text), tone, back) for text, tone, back in line) for line in lines]


def _clock(epoch_ms: int, form: str = "%H:%M:%S") -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime(form)


def _since_ms(then_ms: int | None, now_ms: int) -> int | None:
    return None if then_ms is None else now_ms - then_ms


# --- head and foot ------------------------------------------------------------------------------------------------------


def _head(facts: Facts, badge: Badge, look: Look, now_ms: int, width: int, _height: int) -> list[Line]:
    tone = "bad" if badge.stale else "warn" if badge.paused else "ok"
    waiting = f" +{look.waiting}" if badge.paused and look.waiting else ""
    first: list[Span] = [
        span(f"mpengine {facts.version or ''}".rstrip() + "  ", "head"), span(f" {badge.text}{waiting} ", f"badge-{tone}"),
        span(f"  up {since(_since_ms(facts.since_ms, now_ms))}  "), *_counted(facts),
    ]  # fmt: skip
    return [clipped(first, width), _second(facts, badge, width), _tabs(facts, width), _shown(facts, now_ms, width)]


def _counted(facts: Facts) -> list[Span]:
    """State of ingest; engines and API workers that are LIVE, of how many."""
    spans: list[Span] = []
    for role, name in (("ingest", "ingest"), ("engine", "engines"), ("api", "api")):
        states = [one.state for one in facts.processes if one.role == role]
        live = states.count("LIVE")
        if role == "ingest":
            text, good = ("ok" if live else states[0].lower()) if states else NONE, bool(live)
        else:
            text, good = f"{live}/{len(states)}" if states else NONE, live == len(states)
        spans.append(span(f" {name} {text} ", "" if good or not states else "bad"))
    return spans


def _second(facts: Facts, badge: Badge, width: int) -> Line:
    """Why it is STALE; else what the whole thing does and costs."""
    if badge.reasons:
        return (span(cut("▲ " + "; ".join(badge.reasons), width), "bad"),)
    rss = [one.rss_bytes for one in facts.processes if one.rss_bytes is not None]
    cpu = [one.cpu_pct for one in facts.processes if one.cpu_pct is not None]
    parts = [
        # Of fixed width: what stands behind a number does not move with it.
        f"clients {count(facts.fanout.clients):<5}",
        f"{count(facts.messages_s):>5} msg/s",
        f"cpu {f'{sum(cpu):.0f}' if cpu else NONE:>3} %",
        f"rss {f'{sum(rss) / 1e6:,.0f}' if rss else NONE:>5} M",
        f"{facts.instance} " if facts.instance else "",
        facts.source,
    ]
    return (span(cut("  ".join(part for part in parts if part), width)),)


def _tabs(facts: Facts, width: int) -> Line:
    spans: list[Span] = []
    for number, one in enumerate(facts.symbols, 1):
        mine = one.name == facts.shown
        mark = f"{number} " if number < 10 else ""
        spans += [
            span(f" {mark}{one.name} ", "tab" if mine else "dim"),
            span(f"{price_text(one.price):<9} ", "head" if mine else ""),
        ]
    return clipped(spans, width)


def _shown(facts: Facts, now_ms: int, width: int) -> Line:
    """The shown symbol: age of everything, since when there are data, and that it is an estimate."""
    one = facts.symbol
    if one is None:
        return (span("no symbol", "dim"),)
    parts = [
        f"map {age(None if one.map is None else now_ms - one.map.ts_ms):<5}" if one.maps else "no maps",
        f"book {age(None if one.book is None else now_ms - one.book.ts_ms):<5}" if one.books else "no book",
        f"oi {age(_since_ms(one.oi_ms, now_ms)):<5}",
        f"zones {count(one.zones):<4}",
        f"data since {_clock(one.data_since_ms, '%d %H:%M') if one.data_since_ms else NONE} UTC",
        "estimated",
    ]
    if one.error:
        parts.insert(0, f"▲ {one.error}")
    return (span(cut("  ".join(parts), width), "bad" if one.error else ""),)


def _foot(facts: Facts, _badge: Badge, look: Look, _now_ms: int, width: int, _height: int) -> list[Line]:
    out = facts.fanout
    tail = f"   {look.note or ACCURACY}"
    text = "fan-out:"
    for part in (
        f"clients {count(out.clients):<5}", f"dropped {count(out.dropped):<5}", f"sent {money(out.bytes_s):>5} B/s",
        f"http {count(out.requests_s):>5}/s", f"5xx {count(out.errors_5xx):<5}",
    ):  # fmt: skip
        if len(text) + len(part) + 2 + len(tail) <= width:
            text += f"  {part}"
    line = text + tail
    keys = KEYS if len(KEYS) <= width else SHORT_KEYS
    lines: list[Line] = [(span(cut(line, width)),), (span(cut(keys, width), "dim"),)]
    return lines


def _help(_facts: Facts, _badge: Badge, _look: Look, _now_ms: int, width: int, height: int) -> list[Line]:
    lines: list[Line] = [(span(cut(text, width)),) for text in HELP]
    return lines[:height]


# --- lists --------------------------------------------------------------------------------------------------------------


def _venues(facts: Facts, _badge: Badge, _look: Look, now_ms: int, width: int, height: int) -> list[Line]:
    columns = [
        Col[Venue]("venue", 11, lambda one: (one.name, "")),
        Col[Venue]("state", 6, lambda one: (one.state, TONES.get(one.state, "bad"))),
        Col[Venue]("lag ms p50/99", 8, lambda one: (_lags(one), ""), right=True),
        Col[Venue]("gaps", 4, lambda one: (count(one.gaps), "warn" if one.gaps else ""), right=True),
        Col[Venue]("last", 5, lambda one: (age(_since_ms(one.last_ms, now_ms)), ""), right=True),
        Col[Venue]("oi", 5, lambda one: (age(_since_ms(one.oi_ms, now_ms)), ""), right=True),
        Col[Venue]("book", 8, lambda one: (one.book or NONE, "" if one.book in (None, "synced") else "warn"), rank=2),
        Col[Venue]("recon", 5, lambda one: (count(one.reconnects), ""), right=True, rank=1),
        Col[Venue]("liquidations", 22, lambda one: (_sampling(one), ""), rank=3),
        Col[Venue]("note", max(8, width - 95), lambda one: (one.note or "", "warn"), rank=4),
    ]
    if width < 50:
        columns[2] = Col[Venue]("lag ms", 8, columns[2].cell, right=True)
    else:
        columns[2] = Col[Venue]("lag p50/p99", 11, columns[2].cell, right=True)
    return table(columns, facts.venues, width, height)


def _lags(one: Venue) -> str:
    return f"{milliseconds(one.lag_p50_ms)}/{milliseconds(one.lag_p99_ms)}"


def _sampling(one: Venue) -> str:
    """What is missing is named: a feed that shows only some liquidations gives a lower bound."""
    if one.liquidations == "none":
        return "no public feed"
    return one.liquidations if one.liquidations == "all_500ms" else f"{one.liquidations} lb"


def _streams(facts: Facts, _badge: Badge, _look: Look, _now_ms: int, width: int, height: int) -> list[Line]:
    rows = [(venue, stream) for venue in facts.venues for stream in venue.streams]
    # What is not LIVE comes first: with hundreds of streams only that is worth the room.
    rows.sort(key=lambda row: row[1].state == "LIVE")
    columns = [
        Col[tuple[Venue, Stream]]("venue", 11, lambda row: (row[0].name, "")),
        Col[tuple[Venue, Stream]]("stream", max(20, width - 45), lambda row: (row[1].name, "")),
        Col[tuple[Venue, Stream]]("state", 6, lambda row: (row[1].state, TONES.get(row[1].state, "bad"))),
        Col[tuple[Venue, Stream]]("messages", 12, lambda row: (f"{row[1].messages:,}", ""), right=True),
        Col[tuple[Venue, Stream]]("lag ms", 6, lambda row: (milliseconds(row[1].lag_ms), ""), right=True),
    ]
    return table(columns, rows, width, height)


def _liquidations(facts: Facts, _badge: Badge, _look: Look, now_ms: int, width: int, height: int) -> list[Line]:
    partial = {venue.name for venue in facts.venues if venue.liquidations not in ("all_500ms", "none")}
    columns = [
        Col[Liquidation]("UTC", 8, lambda one: (_clock(one.ts_ms), ""))
        if width >= 38
        else Col[Liquidation]("UTC", 5, lambda one: (_clock(one.ts_ms, "%H:%M"), "")),
        Col[Liquidation]("age", 5, lambda one: (age(now_ms - one.ts_ms), ""), right=True, rank=1),
        Col[Liquidation]("venue", 7, lambda one: (one.venue, "")),
        Col[Liquidation]("side", 5, lambda one: (one.side, "low4" if one.side == "long" else "high4")),
        Col[Liquidation]("USD", 5, lambda one: (money(one.usd), ""), right=True),
        Col[Liquidation]("", 2, lambda one: ("lb" if one.venue in partial else "", "dim"), rank=2),
        Col[Liquidation]("price", 9, lambda one: (price_text(one.price), ""), right=True),
    ]
    if not facts.liquidations:
        return [head_of(fitting(columns, width)), (span("none so far", "dim"),)][:height]
    return table(columns, facts.liquidations, width, height)


def _processes(facts: Facts, _badge: Badge, _look: Look, now_ms: int, width: int, height: int) -> list[Line]:
    columns = [
        Col[Process]("process", 14, lambda one: (one.name, "")),
        Col[Process]("state", 8, lambda one: (one.state, TONES.get(one.state, "bad"))),
        Col[Process]("again", 5, lambda one: (count(one.restarts), "warn" if one.restarts else ""), right=True),
        Col[Process]("cpu", 5, lambda one: (NONE if one.cpu_pct is None else f"{one.cpu_pct:.0f} %", ""), right=True),
        Col[Process]("rss", 5, lambda one: (money(one.rss_bytes), ""), right=True),
        Col[Process]("beat", 5, lambda one: (age(_since_ms(one.beat_ms, now_ms)), ""), right=True),
        Col[Process]("trouble", max(10, width - 48), lambda one: (_trouble(one), "warn"), rank=1),
    ]
    if not facts.processes:
        return [head_of(fitting(columns, width)), (span("not told by this source", "dim"),)][:height]
    return table(columns, facts.processes, width, height)


def _trouble(one: Process) -> str:
    return ", ".join(f"{word} {value}" for word, value in one.trouble.items())


# --- zones --------------------------------------------------------------------------------------------------------------


def zone_columns(now_ms: int, price: float | None, width: int) -> list[Col[Zone]]:
    """Columns of the zone table that fit."""
    columns = [
        Col[Zone]("zones", 5, lambda one: (one.side, _side_tone(one))),
        Col[Zone]("price", 9, lambda one: (price_text(one.price), ""), right=True),
        Col[Zone]("away", 7, lambda one: (_away(one, price), ""), right=True),
        Col[Zone]("USD", 5, lambda one: (money(one.usd), ""), right=True),
        Col[Zone]("age", 5, lambda one: (age(now_ms - one.created_ms), ""), right=True),
        Col[Zone]("P(swept)", 8, lambda _: (NONE, "dim"), right=True, rank=1),
        Col[Zone]("lev", 4, lambda one: (NONE if one.leverage is None else f"{one.leverage}x", ""), right=True, rank=2),
        Col[Zone]("source", 9, lambda one: (one.source, ""), rank=3),
        Col[Zone]("weight", 7, lambda one: (f"{one.weight:.2f}", ""), right=True, rank=4),
    ]
    return fitting(columns, width)


def _side_tone(one: Zone) -> str:
    return "high4" if one.side == "short" else "low4"


def _away(one: Zone, price: float | None) -> str:
    return NONE if price is None else f"{(one.price / price - 1) * 100:+.2f}%"


def zone_ladder(facts: Facts, rows: int) -> list[Zone | None]:
    """Zones from the highest price down, None where the price is; the nearest ones, half of the rows above and half below."""
    price = None if facts.symbol is None else facts.symbol.price
    if price is None:
        return list(facts.zones[:rows])
    above = [zone for zone in facts.zones if zone.price >= price]
    below = [zone for zone in facts.zones if zone.price < price]
    room = max(0, rows - 1)
    take_above = min(len(above), max(room // 2, room - len(below)))
    take_below = min(len(below), room - take_above)
    higher, lower = above[:take_above], below[:take_below]
    return [*sorted(higher, key=lambda zone: -zone.price), None, *sorted(lower, key=lambda zone: -zone.price)]


def price_row(symbol: Symbol | None, width: int) -> str:
    """The row between the zones above and those below."""
    if symbol is None or symbol.price is None:
        return ""
    return cut(f"── {symbol.price_kind or 'price'} {price_text(symbol.price)} ──", width)


def _zones(facts: Facts, _badge: Badge, _look: Look, now_ms: int, width: int, height: int) -> list[Line]:
    symbol = facts.symbol
    columns = zone_columns(now_ms, None if symbol is None else symbol.price, width)
    if not facts.zones:
        return [head_of(columns), (span("no zones yet", "dim"),)][:height]
    ladder = zone_ladder(facts, height - 1)
    rows = [(span(price_row(symbol, width), "head"),) if zone is None else row_of(columns, zone) for zone in ladder]
    return [head_of(columns), *rows][:height]


# --- heat ---------------------------------------------------------------------------------------------------------------


def _strip(layer: Layer) -> _Maker:
    def make(facts: Facts, _badge: Badge, look: Look, now_ms: int, width: int, height: int) -> list[Line]:
        price = None if facts.symbol is None else facts.symbol.price
        heat = facts.map if layer == "map" else facts.book
        return strip(heat, price, now_ms, width, height, colour=look.colour)

    return make


_Maker = Callable[[Facts, Badge, Look, int, int, int], list[Line]]
_PARTS: Final[dict[Part, _Maker]] = {
    "head": _head, "venues": _venues, "streams": _streams, "map": _strip("map"), "book": _strip("book"), "zones": _zones,
    "zone_list": _zones,     "liquidations": _liquidations, "processes": _processes, "foot": _foot, "help": _help,
}  # fmt: skip


def whole(facts: Facts, badge: Badge, look: Look, now_ms: int, where: Sequence[Place]) -> str:
    """The screen as plain text."""
    rows = [""] * max((place.y + place.height for place in where), default=0)
    for place in sorted(where, key=lambda place: place.x):
        for at, line in enumerate(lines_of(place.part, facts, badge, look, now_ms, place.width, place.height)):
            rows[place.y + at] = rows[place.y + at].ljust(place.x) + plain(line)
    return "\n".join(row.rstrip() for row in rows)
