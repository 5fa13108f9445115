"""One screen about a running instance, read from its board, documents and rings, so it works while HTTP does not. Only reads."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any, Final

from mpengine.config import Settings
from mpengine.schemas import BookDocument, Canary, FeedsDocument, OiDocument, StatusDocument, decode
from shm.board import BoardReader
from shm.board_words import State
from shm.document import DocumentReader
from shm.errors import Missing, ShmError
from shm.frame_ring import FrameReader
from shm.frames import decode as decode_frame
from shm.liveness import WriterState
from shm.paths import Paths
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE, DocumentId

SECOND_NS: Final = 1_000_000_000
_TROUBLE: Final = (
    "dropped_records", "dropped_batches", "gaps", "unknown_symbol", "refused_events", "refused_frames", "refused_documents",
    "handler_errors", "quarantined", "capture_dropped", "write_errors", "sync_errors", "log_errors", "clock_jumps", "http_5xx",
)  # fmt: skip
"""Words that stay at 0 while all is well: the screen shows them when they do not."""
_GONE: Final = frozenset({WriterState.DEAD, WriterState.CLOSED, WriterState.RETIRED})
_HIDDEN: Final = frozenset(
    ("pid", "start_ticks", "boot_hi", "boot_lo", "role", "started_ns", "state", "beat_ns", "turns", "epoch", "rss_bytes")
)


def collect(settings: Settings) -> dict[str, Any]:
    """Everything the screen shows, in JSON types. Raises ShmError where there is no board: nothing runs (or never did)."""
    paths = settings.paths
    now_ns = time.time_ns()
    with BoardReader.open(paths.board) as board:
        watched = board.row_state(0) not in _GONE
        processes = [_process(board, index, name, watched) for index, name in enumerate(board.names()) if name]
    return {
        "instance": settings.instance.name,
        "config_hash": settings.config_hash,
        "data_dir": str(paths.data),
        "now_ms": now_ns // 1_000_000,
        "processes": [one for one in processes if one["pid"]],
        "symbols": [_symbol(paths, symbol, now_ns) for symbol in settings.symbols],
        "venues": _venues(paths, now_ns),
    }


def _process(board: BoardReader, index: int, name: str, watched: bool) -> dict[str, Any]:
    """One row. `watched`: the supervisor lives; else nobody has corrected its words since, and the process itself is looked at."""
    row, alive = board.row(index), board.row_state(index)
    beat_ns = row.get("beat_ns", 0)
    # The supervisor's word is what it decided; a row that it does not watch (its own, workers) says its state itself.
    actual = State(row.get("actual", 0)) if row.get("actual", 0) in State.__members__.values() else State.NONE
    own = State(row.get("state", 0)) if row.get("state", 0) in State.__members__.values() else State.NONE
    return {
        "name": name,
        "state": (actual or own).name if watched or alive not in _GONE else "DEAD",
        "alive": alive.name.lower(),
        "pid": row.get("pid", 0),
        "epoch": row.get("epoch", 0),
        "restarts": row.get("restarts", 0),
        "beat_age_s": round((time.monotonic_ns() - beat_ns) / SECOND_NS, 1) if beat_ns else None,
        "rss_mb": round(row.get("rss_bytes", 0) / 1e6, 1),
        "words": {key: value for key, value in row.items() if value and key not in _HIDDEN},
    }


def _symbol(paths: Paths, symbol: str, now_ns: int) -> dict[str, Any]:
    found: dict[str, Any] = {"symbol": symbol, "error": None}
    for part in (_documents, _depth, _candles, _liquidations):
        try:
            found |= part(paths, symbol, now_ns)
        except (ShmError, ValueError) as error:
            found["error"] = found["error"] or f"{type(error).__name__}: {error}"
    return found


def _documents(paths: Paths, symbol: str, now_ns: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with DocumentReader.open(paths.documents(symbol)) as reader:
        found["engine"] = reader.writer_state().name.lower()
        if (slot := reader.latest(DocumentId.STATUS)) is not None:
            status = decode(slot.payload, StatusDocument)
            found |= {
                "state": status.state,
                "status_age_s": _age(status.written_ns, now_ns),
                "mid": status.mid,
                "mark": status.mark,
                "oi_base": status.open_interest_base,
                "minutes_skipped": status.minutes_skipped,
                "late": status.counters.get("late", 0),
                "canaries": {
                    venue: {"price_side": _canary(one.price_side), "return_sign": _canary(one.return_sign)}
                    for venue, one in status.canaries.items()
                },
                "cross_canary": _canary(status.cross_canary),
                "errors": [f"{row.where}: {row.error} ({row.count})" for row in status.errors[-3:]],
            }
        if (slot := reader.latest(DocumentId.BOOK)) is not None:
            books = decode(slot.payload, BookDocument).books
            found["books"] = {
                venue: {
                    "state": book.state,
                    "best_bid": book.best_bid,
                    "best_ask": book.best_ask,
                    "levels": book.levels_bid + book.levels_ask,
                    "resyncs": book.resyncs,
                    "gaps": book.pu_gap_count + book.u_gap_count + book.gaps_tolerated,
                }
                for venue, book in books.items()
            }
        if (slot := reader.latest(DocumentId.OI)) is not None:
            interest = decode(slot.payload, OiDocument).venues
            found["open_interest"] = {
                venue: {"base": value.base, "age_s": _age(value.recv_ns, now_ns)} for venue, value in interest.items()
            }
    return found


def _canary(one: Canary | None) -> dict[str, Any] | None:
    return None if one is None else {"events": one.events, "bad": one.bad, "alarm": one.alarm}


def _depth(paths: Paths, symbol: str, now_ns: int) -> dict[str, Any]:
    with FrameReader.open(paths.depth(symbol)) as depth:
        slot = depth.latest()
    if slot is None:
        return {"depth_seq": None, "depth_age_s": None}
    return {"depth_seq": slot.frame_no, "depth_age_s": _age(decode_frame(slot.payload).open_ts_ns, now_ns)}


def _candles(paths: Paths, symbol: str, now_ns: int) -> dict[str, Any]:
    with RecordReader.open(paths.candles(symbol), CANDLE_DTYPE) as candles:
        numbers, rows = candles.latest(1)
    if not rows.size:
        return {"candle_seq": None, "candle_age_s": None}
    return {"candle_seq": int(numbers[-1]), "candle_age_s": _age(int(rows[-1]["close_ts_ns"]), now_ns)}


def _liquidations(paths: Paths, symbol: str, now_ns: int) -> dict[str, Any]:
    """The newest realised liquidation. A ring that has never been made says nothing: silence is normal."""
    try:
        with RecordReader.open(paths.liquidations(symbol), LIQUIDATION_DTYPE) as ring:
            numbers, rows = ring.latest(1)
    except Missing:
        return {"liquidation_seq": None, "liquidation_age_s": None}
    if not rows.size:
        return {"liquidation_seq": None, "liquidation_age_s": None}
    return {"liquidation_seq": int(numbers[-1]), "liquidation_age_s": _age(int(rows[-1]["recv_ts_ns"]), now_ns)}


def _venues(paths: Paths, now_ns: int) -> dict[str, Any]:
    try:
        with DocumentReader.open(paths.feeds) as reader:
            gone = reader.writer_state() in _GONE
            slot = reader.latest(DocumentId.FEEDS)
            feeds = decode(slot.payload, FeedsDocument) if slot is not None else None
    except (ShmError, ValueError):
        return {}
    if feeds is None:
        return {}
    return {
        name: {
            "state": "DOWN" if gone else venue.state,
            "age_s": _age(venue.last_ms * 1_000_000, now_ns) if venue.last_ms else None,
            "reconnects": venue.reconnects,
            "parse_errors": venue.parse_errors,
            "rest_errors": venue.rest_errors,
            "rest_paused_s": round(max(0.0, venue.rest_paused_until_ms / 1000 - now_ns / SECOND_NS), 1)
            if venue.rest_paused_until_ms
            else None,
            "last_error": venue.last_error,
            "reasons": venue.reasons,
            "streams": {
                stream: {"state": one.state, "messages": one.messages, "errors": one.errors, "lag_ms": one.lag_ms}
                for stream, one in venue.streams.items()
            },
        }
        for name, venue in feeds.venues.items()
    }


def _age(then_ns: int, now_ns: int) -> float:
    """Seconds; 0 where the wall clock was set back meanwhile."""
    return round(max(0, now_ns - then_ns) / SECOND_NS, 1)


def render(found: dict[str, Any]) -> str:
    """The screen as text."""
    lines = [f"mpengine {found['instance']}   config {found['config_hash'][:12]}   data {found['data_dir']}", ""]
    lines += _table(
        ("PROCESS", "STATE", "PID", "RESTARTS", "BEAT s", "RSS MB", "EVENTS", "BACKLOG"),
        [
            (p["name"], p["state"], p["pid"], p["restarts"], p["beat_age_s"], p["rss_mb"], p["words"].get("events", 0),
             p["words"].get("backlog", 0))
            for p in found["processes"]
        ],
    )  # fmt: skip
    for process in found["processes"]:
        counted = [f"{word} {process['words'][word]}" for word in _TROUBLE if word in process["words"]]
        lines += [f"  {process['name']}: {', '.join(counted)}"] if counted else []
    lines += ["", *_table(
        ("SYMBOL", "ENGINE", "BOOK", "MID", "MARK", "LEVELS", "GAPS", "RESYNCS", "DEPTH #", "AGE s", "CANDLE #", "AGE s"),
        [_symbol_row(symbol) for symbol in found["symbols"]],
    )]  # fmt: skip
    for symbol in found["symbols"]:
        lines += _symbol_notes(symbol)
    if found["venues"]:
        lines += ["", *_table(
            ("VENUE", "STATE", "AGE s", "RECONNECTS", "PARSE ERR", "REST ERR", "LIVE/STALE/DOWN"),
            [_venue_row(name, venue) for name, venue in found["venues"].items()],
        )]  # fmt: skip
        for name, venue in found["venues"].items():
            lines += _venue_notes(name, venue)
    errors = [f"{one['symbol']}: {text}" for one in found["symbols"] for text in (one.get("errors") or [])]
    errors += [f"{one['symbol']}: {one['error']}" for one in found["symbols"] if one["error"]]
    return "\n".join([*lines, *(["", "ERRORS", *errors] if errors else [])])


def _symbol_row(one: dict[str, Any]) -> tuple[Any, ...]:
    books = one.get("books", {})
    book: dict[str, Any] = next(iter(books.values()), {})
    return (
        one["symbol"], one.get("engine", "-"), book.get("state"), one.get("mid"), one.get("mark"), book.get("levels"),
        book.get("gaps"), book.get("resyncs"), one.get("depth_seq"), one.get("depth_age_s"), one.get("candle_seq"),
        one.get("candle_age_s"),
    )  # fmt: skip


def _symbol_notes(one: dict[str, Any]) -> list[str]:
    """What the row of a symbol cannot hold: the book and the open interest of each venue, the last liquidation, canaries."""
    notes = []
    if books := one.get("books"):
        notes.append("books: " + ", ".join(f"{venue} {book['state']}" for venue, book in books.items()))
    if interest := one.get("open_interest"):
        values = (f"{venue} {_text(value['base'])} ({value['age_s']:.1f} s)" for venue, value in interest.items())
        notes.append("open interest: " + ", ".join(values))
    if one.get("liquidation_age_s") is not None:
        notes.append(f"last liquidation: {one['liquidation_age_s']:.1f} s ago")
    named = [
        (f"{venue} {name}", canary) for venue, both in one.get("canaries", {}).items() for name, canary in both.items() if canary
    ]
    if one.get("cross_canary"):
        named.append(("cross", one["cross_canary"]))
    if named:
        figures = (f"{name} {c['bad']}/{c['events']}{' ALARM' if c['alarm'] else ''}" for name, c in named)
        notes.append("canaries (bad/events): " + ", ".join(figures))
    return [f"  {one['symbol']}: {note}" for note in notes]


def _venue_row(name: str, venue: dict[str, Any]) -> tuple[Any, ...]:
    states = [stream["state"] for stream in venue["streams"].values()]
    live, late = states.count("LIVE"), states.count("STALE")
    return (
        name, venue["state"], venue["age_s"], venue["reconnects"], venue["parse_errors"], venue["rest_errors"],
        f"{live}/{late}/{len(states) - live - late}",
    )  # fmt: skip


def _venue_notes(name: str, venue: dict[str, Any]) -> list[str]:
    """What the row of a venue only counts: streams that are not live, reasons, the newest trouble."""
    notes = [f"{stream} {one['state']}" for stream, one in venue["streams"].items() if one["state"] != "LIVE"]
    if venue["rest_paused_s"]:
        notes.append(f"REST paused for {venue['rest_paused_s']:.0f} s")
    if venue["last_error"]:
        notes.append(f"last error: {venue['last_error']}")
    if venue["reasons"]:
        notes.append("counted: " + ", ".join(f"{reason} {count}" for reason, count in sorted(venue["reasons"].items())))
    return [f"  {name}: {note}" for note in notes]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Columns as wide as their widest cell; numbers to the right. A missing value is a dash."""
    texts = [tuple(map(_text, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts)]
    numeric = [all(isinstance(row[at], int | float | None) for row in rows) for at in range(len(head))]
    return [
        "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)).rstrip()
        for row in (head, *texts)
    ]


def _text(cell: Any) -> str:
    """Two decimals, or six digits where these say more (the price of a coin of few cents)."""
    if cell is None:
        return "-"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.2f}" if abs(cell) >= 1000 or round(cell, 2) == cell else f"{Decimal(f'{cell:.6g}'):f}"
