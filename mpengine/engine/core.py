"""One symbol's engine: orders the calls of its parts (`spec: engine`, sections 1, 4, 18). Same records in, same outputs out.

Pure. Time is the running maximum of the receive times of the records. Before a record that carries time over a boundary is applied,
the boundary work runs: book watch and 1 s sample, 30 s depth frame, minute rollover. Parts never call each other; this file passes
results along, and it is the only place that catches: per event and per step, so that one failure stops neither the next step nor
the symbol.

A wall clock that was set wrong and then right must not stop the engine until the wrong time has come: when the records stay more
than a minute behind engine time for 5 s of their own time, engine time begins anew at theirs, with a gap in everything. A step back
of less than that only holds time still.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mpengine.config import Settings
from mpengine.engine.book import SECOND, Book, read_diff
from mpengine.engine.canary import Canaries
from mpengine.engine.candles import MINUTE_NS, MinuteBar
from mpengine.engine.depth_frames import SLOT_NS, DepthFrames
from mpengine.engine.door import Refused, check_bucket, check_positive, check_price
from mpengine.engine.ladder import BadLevels, LevelBlock
from mpengine.engine.liquidation_maps import LiquidationMaps, MapOut, Minute, SaveOut
from mpengine.engine.liquidations import REFERENCE_MARK_NS, BadEvent, Event, LiquidationOut, Liquidations
from mpengine.engine.liquidations import VENUES as LIQUIDATION_VENUES
from mpengine.engine.log_records import LogOut
from mpengine.engine.open_interest import OiMinute, OpenInterest
from mpengine.engine.prices import MARK_FRESH_NS, Prices
from mpengine.engine.wire_book import WireBook
from mpengine.schemas import BookDocument, ErrorRow, RatioValue, StatusDocument, encode
from shm.frames import Frame
from shm.records import (
    EVENT,
    HEAD,
    UNIT,
    Coverage,
    DocumentId,
    EventFlag,
    GapScope,
    Kind,
    LiquidationFlag,
    PositionSide,
    RatioKind,
    TakerSide,
    Venue,
)

STATE_SCHEMA: Final = 5
MID_STALE_NS: Final = 60 * SECOND
RECOVERED_NS: Final = 3600 * SECOND
MAX_ERRORS: Final = 32
BEHIND_NS: Final = 60 * SECOND
BEHIND_FOR_NS: Final = 5 * SECOND

_COUNTERS: Final = (
    "events", "clocks", "trades", "depth", "snapshots", "marks", "open_interest", "open_interest_shown", "liquidations",
    "liquidations_repeated", "ratios",
    "instruments", "touches", "gaps", "late", "far", "event_rejected", "refused", "unknown", "malformed", "errors",
    "clock_set_back",
)  # fmt: skip


_WITH_LEVELS: Final = frozenset((int(Kind.DEPTH), int(Kind.SNAPSHOT)))


class FrameOut(NamedTuple):
    """A depth frame to publish."""

    frame: Frame


class CandleOut(NamedTuple):
    """A finished minute bar (0-d CANDLE_DTYPE) to publish."""

    record: npt.NDArray[np.void]


class DocumentOut(NamedTuple):
    """A document version to publish."""

    document: DocumentId
    data: bytes
    ts_ns: int


class ClockOut(NamedTuple):
    """Engine time began anew at `now_ns`: what was published with a later time came from a wrong clock."""

    now_ns: int


class ErrorOut(NamedTuple):
    """A failure of ours that has not been met before, with its traceback: for the process log."""

    where: str
    traceback: str


Output = FrameOut | CandleOut | LiquidationOut | DocumentOut | ClockOut | MapOut | SaveOut | LogOut | ErrorOut


class SymbolCore:
    """The state of one symbol. `on_batch` takes, `outputs` drains; the shell publishes, saves and waits."""

    __slots__ = (
        "_bar", "_behind_since_ns", "_block", "_canaries", "_errors", "_frames", "_handlers", "_last_depth_open_ns",
        "_last_minute", "_liquidations", "_maps", "_oi", "_one", "_outputs", "_polled", "_prices", "_ratios", "_settings",
        "_totals", "books",
        "counters", "data_since_ns", "now_ns", "symbol",
    )  # fmt: skip

    def __init__(self, symbol: str, settings: Settings) -> None:
        self.symbol = symbol
        self.now_ns = 0
        self.data_since_ns: int | None = None
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self._settings = settings
        one = self._one = settings.symbols[symbol]
        self.books = _books(settings, symbol)
        self._frames = DepthFrames(one.book_step, one.book_range)
        self._bar = MinuteBar()
        self._maps = LiquidationMaps(symbol, settings)
        self._liquidations = Liquidations(self._maps.mmr)
        self._polled = _liquidation_venues(settings, symbol)  # they are also those whose open interest is polled
        self._canaries = Canaries(self._polled)
        self._oi = OpenInterest()
        self._prices = Prices(Venue[settings.engine.primary_venue.upper()])
        self._ratios: dict[RatioKind, RatioValue] = {}
        self._behind_since_ns: int | None = None
        self._last_minute: int | None = None
        self._last_depth_open_ns: int | None = None
        self._totals = dict.fromkeys(("minutes_rolled", "minutes_skipped", "depth_frames"), 0)
        self._errors: dict[tuple[str, str], ErrorRow] = {}
        self._outputs: list[Output] = []
        self._block: LevelBlock | None = None
        self._handlers: dict[int, Callable[[bytes, int], None]] = {
            Kind.CLOCK: self._on_clock,
            Kind.TRADE: self._on_trade,
            Kind.DEPTH: self._on_book,
            Kind.SNAPSHOT: self._on_book,
            Kind.MARK: self._on_mark,
            Kind.OPEN_INTEREST: self._on_open_interest,
            Kind.LIQUIDATION: self._on_liquidation,
            Kind.RATIO: self._on_ratio,
            Kind.INSTRUMENT: self._on_instrument,
            Kind.TOUCH: self._on_touch,
            Kind.GAP: self._on_gap,
        }

    # events ------------------------------------------------------------------------------------------------------------

    def on_batch(self, body: bytes, *, gap: bool = False) -> None:
        """The records of one batch in order. `gap`: records before it were lost."""
        if gap:
            self.on_feed_gap()
        offset, size = 0, len(body)
        self._block = None
        handlers, counters, unpack = self._handlers, self.counters, HEAD.unpack_from
        while offset < size:
            kind, _, _, _, count, _, recv_ns = unpack(body, offset)
            end = offset + UNIT + ((count + 3) // 4 * UNIT if kind in _WITH_LEVELS else 0)
            if end > size:
                # What follows in this batch cannot be found any more.
                counters["malformed"] += 1
                self.on_feed_gap()
                return
            if recv_ns > self.now_ns:
                self._advance(recv_ns)
            elif recv_ns < self.now_ns:
                self._look_behind(recv_ns)
            counters["events"] += 1
            handler = handlers.get(kind)
            if handler is None:
                counters["unknown"] += 1
            else:
                try:
                    handler(body, offset)
                except (Refused, BadLevels, BadEvent) as error:
                    counters["refused"] += 1
                    self._note_error(f"event.{Kind(kind).name.lower()}", error)
                except Exception as error:  # noqa: BLE001 one bad event never stops the symbol
                    self._fail(f"event.{Kind(kind).name.lower()}", error)
            offset = end

    def on_feed_gap(self) -> None:
        """Events of every kind were lost before this point: no book can go on, the minute and the slot say so."""
        self.counters["gaps"] += 1
        self._bar.gap = True
        self._frames.flag(Coverage.GAP)
        for book in self.books.values():
            book.on_gap(self.now_ns)

    def outputs(self) -> list[Output]:
        """Drains what is to be published, in order."""
        drained, self._outputs = self._outputs, []
        return drained

    def _on_clock(self, body: bytes, offset: int) -> None:
        self.counters["clocks"] += 1

    def _on_trade(self, body: bytes, offset: int) -> None:
        _, venue, side, _, _, venue_ns, _, _, _, price, qty, _ = EVENT.unpack_from(body, offset)
        self._check_price(price)
        check_positive(qty)
        self.counters["trades"] += 1
        self._count_late(venue_ns)
        self._bar.on_trade(Venue(venue), TakerSide(side), price * qty)

    def _on_book(self, body: bytes, offset: int) -> None:
        """A diff or a snapshot of a venue's book."""
        venue: Venue = body[offset + 1]  # type: ignore[assignment]  # an IntEnum key is found by its number
        book = self.books.get(venue)
        if book is None:
            raise Refused("no book for this venue")
        before, block = book.state, self._block or self._levels(body)
        try:
            if body[offset] == Kind.DEPTH:
                self.counters["depth"] += 1
                changed = book.on_record(body, offset, block, self.now_ns)
            else:
                self.counters["snapshots"] += 1
                changed = book.on_snapshot(read_diff(body, offset, block), self.now_ns)
            if changed:
                self._observe_mid(venue, book)
        finally:
            if book.state != before:
                self._book_moved(before)

    def _levels(self, body: bytes) -> LevelBlock:
        """The levels of the running batch, converted when the first record asks for them."""
        if self._block is None:
            self._block = LevelBlock(body)
        return self._block

    def _on_mark(self, body: bytes, offset: int) -> None:
        _, number, _, flags, _, venue_ns, _, _, _, price, _, funding = EVENT.unpack_from(body, offset)
        self._check_price(price)
        self.counters["marks"] += 1
        self._count_late(venue_ns)
        venue, prices = Venue(number), self._prices
        prices.on_mark(venue, price, funding if flags & EventFlag.HAS_FUNDING and math.isfinite(funding) else None, self.now_ns)
        mid = prices.mid
        if not prices.mark_leads(venue, self.now_ns):
            return
        self._canaries.on_mark(venue, price, self.now_ns)
        if mid is None or self.now_ns - mid.at_ns > MID_STALE_NS:
            self._bar.observe(price, fallback=True)

    def _on_open_interest(self, body: bytes, offset: int) -> None:
        _, venue, _, flags, _, venue_ns, _, _, _, _, qty, _ = EVENT.unpack_from(body, offset)
        check_positive(qty)
        if flags & EventFlag.DISPLAY:
            self.counters["open_interest_shown"] += 1
            self._oi.on_shown(Venue(venue), qty, self.now_ns, venue_ns)
            return
        if venue not in LIQUIDATION_VENUES:
            raise Refused("open interest of this venue is not counted")
        self.counters["open_interest"] += 1
        if not self._oi.on_value(Venue(venue), qty, self.now_ns, venue_ns):
            raise Refused("open interest jumped")
        mark = self._prices.recent_mark(self.now_ns)
        document = self._oi.document(self.symbol, self._one.base_asset, mark.value if mark else None, self.now_ns)
        self._outputs.append(DocumentOut(DocumentId.OI, encode(document), self.now_ns))

    def _on_liquidation(self, body: bytes, offset: int) -> None:
        _, venue, side, flags, _, venue_ns, recv_ns, _, _, price, qty, average = EVENT.unpack_from(body, offset)
        check_positive(qty)
        check_bucket(price, self._one.step)
        check_bucket(average, self._one.step)
        event = Event(Venue(venue), PositionSide(side), flags, venue_ns, recv_ns, price, qty, average)
        if self._liquidations.repeats(event, self.now_ns):
            self.counters["liquidations_repeated"] += 1
            return
        mark = self._prices.mark(self.now_ns)
        reference = self._liquidations.reference(mark, self.now_ns)
        realised = self._liquidations.on_event(event, reference, self.now_ns)
        if realised is None:
            self.counters["event_rejected"] += 1
            self._maps.on_rejected(event)
            self._drain_maps()
            return
        self.counters["liquidations"] += 1
        self.counters["far"] += LiquidationFlag.FAR in realised.flags
        self._count_late(venue_ns)
        self._bar.on_liquidation(event.side, realised.notional_usd)
        self._canaries.on_event(event.venue, event.side, price, venue_ns, self.now_ns)
        output = self._liquidations.out(realised, self.now_ns)
        if output is not None:
            self._outputs.append(output)
        fresh = mark.value if mark is not None and self.now_ns - mark.at_ns <= REFERENCE_MARK_NS else None
        self._maps.on_liquidation(event, realised, reference, fresh)
        self._drain_maps()

    def _drain_maps(self) -> None:
        """What the maps gave out; log lines get the engine time."""
        for output in self._maps.outputs():
            if isinstance(output, LogOut):
                self._outputs.append(LogOut(output.kind, {"ts_ns": self.now_ns, **output.record}))
            else:
                self._outputs.append(output)

    def _on_ratio(self, body: bytes, offset: int) -> None:
        _, _, which, _, _, venue_ns, _, _, _, ratio, _, _ = EVENT.unpack_from(body, offset)
        check_positive(ratio)
        self.counters["ratios"] += 1
        self._ratios[RatioKind(which)] = RatioValue(value=ratio, venue_ns=venue_ns)

    def _on_instrument(self, body: bytes, offset: int) -> None:
        _, venue, _, _, _, _, _, _, _, tick, _, _ = EVENT.unpack_from(body, offset)
        check_positive(tick)
        self.counters["instruments"] += 1
        book = self.books.get(Venue(venue))
        if book is not None:
            if tick > self._one.book_step:
                raise Refused("tick above the book step")
            before = book.state
            book.set_tick(tick, self.now_ns)
            if book.state != before:
                self._book_moved(before)

    def _on_touch(self, body: bytes, offset: int) -> None:
        self.counters["touches"] += 1

    def _on_gap(self, body: bytes, offset: int) -> None:
        venue, scope = Venue(body[offset + 1]), GapScope(body[offset + 2])
        self.counters["gaps"] += 1
        self._bar.gap = True
        if scope in (GapScope.TRADES, GapScope.LIQUIDATIONS):
            return
        # No venue: the hole is in the feed itself.
        books = [book for of, book in self.books.items() if venue in (of, Venue.NONE)]
        for book in books:
            self._frames.flag(Coverage.GAP)
            book.on_gap(self.now_ns)
        if books:
            self._book_changed()

    def _check_price(self, price: float) -> None:
        mark = self._prices.recent_mark(self.now_ns)
        check_price(price, self._one.step, None if mark is None else mark.value, self._settings.engine.price_reject_pct)

    def _count_late(self, venue_ns: int) -> None:
        # An event belongs to the minute that is open in engine time; a venue time of an earlier minute is only counted.
        if venue_ns // MINUTE_NS < self.now_ns // MINUTE_NS:
            self.counters["late"] += 1

    def _observe_mid(self, venue: Venue, book: Book) -> None:
        mid, prices = book.mid, self._prices
        if mid is None or (venue != prices.primary and not prices.leads(venue, self.books, self.now_ns)):
            return
        prices.on_mid(venue, mid, self.now_ns)
        bar = self._bar
        if mid != bar.close or bar.open is None:  # PERF: a price that is the bar's newest already changes none of its four
            bar.observe(mid)

    # time --------------------------------------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        """Engine time moves to `now_ns`; the work of every boundary on the way runs first."""
        before, first = self.now_ns, self.data_since_ns is None
        self._behind_since_ns = None
        if first:
            self.data_since_ns = now_ns
            before = now_ns
            # Nothing is known of the part of the minute before.
            self._bar.gap |= now_ns % MINUTE_NS > SECOND
        at_ns = now_ns // SECOND * SECOND
        if at_ns > before or first:
            boundary_ns = self.now_ns = now_ns if first else at_ns
            self._step("watch", self._watch, boundary_ns)
            if not first:
                self._step("depth", self._sample, boundary_ns)
                if at_ns // SLOT_NS > before // SLOT_NS:
                    self._step("book_document", self._publish_book, boundary_ns)
                if at_ns // MINUTE_NS > before // MINUTE_NS:
                    self._step("rollover", self._rollover, at_ns // MINUTE_NS, before // MINUTE_NS)
            self.now_ns = now_ns
            self._step("status_document", self._publish_status)
        self.now_ns = now_ns

    def _look_behind(self, recv_ns: int) -> None:
        """A record behind engine time: alone it is late, a stream of them means that the clock was set back."""
        if self.now_ns - recv_ns <= BEHIND_NS:
            self._behind_since_ns = None
        elif self._behind_since_ns is None or recv_ns < self._behind_since_ns:
            self._behind_since_ns = recv_ns
        elif recv_ns - self._behind_since_ns >= BEHIND_FOR_NS:
            self._set_back(recv_ns)

    def _set_back(self, now_ns: int) -> None:
        """Begin anew at an earlier time. Every age would be negative, so nothing that has one is kept."""
        self._note_error("clock", ValueError(f"engine time was {(self.now_ns - now_ns) // SECOND} s ahead and is set back"))
        self.counters["clock_set_back"] += 1
        self.now_ns = self.data_since_ns = now_ns
        self._behind_since_ns = None
        self._prices.clear()
        self._liquidations.on_clock_set_back()
        weights = self._maps.calibrator.weights_file(now_ns)
        self._maps = LiquidationMaps(self.symbol, self._settings)
        self.load_files(weights, None, now_ns)
        self._ratios.clear()
        self._last_minute = None
        self._oi = OpenInterest()
        self._bar.reset()
        self._bar.gap = True
        self._frames.restart()
        self._outputs.append(ClockOut(now_ns))
        for book in self.books.values():
            book.on_clock_set_back(now_ns)
        self._book_changed()

    def _step(self, name: str, step: Callable[..., None], *args: int) -> None:
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001 one failing step never stops the next
            self._fail(f"step.{name}", error)

    def _watch(self, at_ns: int) -> None:
        for book in self.books.values():
            before = book.state
            book.on_time(at_ns)
            if book.state != before:
                self._frames.flag(Coverage.GAP)
                self._book_changed()

    def _sample(self, at_ns: int) -> None:
        if not self.books:
            return
        mid = self._prices.mid
        reference = mid.value if mid is not None else None
        for frame in self._frames.on_second(at_ns, list(self.books.items()), reference, self._recovered(at_ns)):
            self._totals["depth_frames"] += 1
            self._last_depth_open_ns = frame.open_ts_ns
            self._outputs.append(FrameOut(frame))

    def _recovered(self, at_ns: int) -> Coverage:
        since = self.data_since_ns
        return Coverage.RECOVERED if since is not None and at_ns - since < RECOVERED_NS else Coverage.NONE

    def _rollover(self, minute: int, before: int) -> None:
        """Minutes `before` .. `minute` - 1 ended. Only the first can hold events; a later one can live on a fresh mark."""
        for ended in range(before, min(minute, before + 2)):
            self._close_minute(ended)
        self._totals["minutes_skipped"] += max(0, minute - before - 2)

    def _close_minute(self, minute: int) -> None:
        close_ns = (minute + 1) * MINUTE_NS
        mark, funding = self._prices.recent_mark(close_ns), self._prices.funding(close_ns)
        if self._bar.open is None and mark is not None and close_ns - mark.at_ns < MARK_FRESH_NS:
            self._bar.observe(mark.value, fallback=True)
        if self._bar.open is None:
            self._totals["minutes_skipped"] += 1
            self._bar.reset()
            return
        minutes = minute - self._last_minute if self._last_minute is not None else 1
        bar, self._bar = self._bar, MinuteBar()  # a bar that cannot be made is missing; it never runs on into the next minute
        oi = self._oi.on_rollover(close_ns)
        try:
            record = bar.close_at(
                close_ns,
                mark=mark.value if mark is not None else None,
                funding=funding.value if funding is not None and close_ns - funding.at_ns <= MARK_FRESH_NS else None,
                oi=oi,
                minutes=minutes,
            )
        except Exception:
            self._totals["minutes_skipped"] += 1
            raise
        self._liquidations.on_minute(float(record["src"]))
        self._outputs.append(CandleOut(record))
        self._totals["minutes_rolled"] += 1
        self._last_minute = minute
        self._roll_maps(self._ended(minute, minutes, bar, float(record["src"]), mark.value if mark is not None else None, oi))

    def _ended(self, number: int, minutes: int, bar: MinuteBar, src: float, mark: float | None, oi: OiMinute) -> Minute:
        """The minute as the maps take it."""
        (buy_usd, _), (sell_usd, _) = bar.taker[TakerSide.BUY], bar.taker[TakerSide.SELL]
        assert bar.open is not None  # a bar without is no minute
        return Minute(
            number=number, minutes=minutes, open=bar.open, high=bar.high, low=bar.low, close=bar.close, src=src, mark=mark,
            buy_usd=buy_usd, sell_usd=sell_usd, oi=oi, coverage=self._minute_coverage(number, bar, oi), venues=bar.venues,
            liquidated_usd=(bar.liquidated[PositionSide.LONG][0], bar.liquidated[PositionSide.SHORT][0]),
            venue_ns=max((book.last_venue_ns for book in self.books.values()), default=0),
        )  # fmt: skip

    def _minute_coverage(self, number: int, bar: MinuteBar, oi: OiMinute) -> Coverage:
        close_ns = (number + 1) * MINUTE_NS
        stale = any(venue not in oi.by_venue for venue in self._polled) or any(
            not book.counts_at(close_ns) for book in self.books.values()
        )
        since = self.data_since_ns
        flags = (
            (bar.gap, Coverage.GAP),
            (since is not None and since - SECOND > close_ns - MINUTE_NS, Coverage.PARTIAL),
            (stale, Coverage.STALE_SOURCE),
            (oi.delta is None, Coverage.OI_MISSING),
            (bar.fallback, Coverage.FALLBACK_PRICE),
        )
        coverage = self._recovered(close_ns)
        for holds, flag in flags:
            coverage |= flag if holds else Coverage.NONE
        return coverage

    def _roll_maps(self, minute: Minute) -> None:
        for name, step in self._maps.steps(minute):
            self._step(f"minute.{name}", step)
        self._liquidations.rates = self._maps.mmr
        self._drain_maps()

    # documents ---------------------------------------------------------------------------------------------------------

    def _book_moved(self, before: str) -> None:
        """An event changed a book's state; one that broke a synced book is a gap in the minute and the slot."""
        if before == "synced":
            self._bar.gap = True
            self._frames.flag(Coverage.GAP)
        self._book_changed()

    def _book_changed(self) -> None:
        self._publish_book(self.now_ns)

    def _publish_book(self, at_ns: int) -> None:
        stats = {
            venue.label: book.stats(
                book.ladder.total_usd() if book.ladder is not None else (0.0, 0.0), self._frames.venue_samples.get(venue, 0)
            )
            for venue, book in self.books.items()
        }
        document = BookDocument(symbol=self.symbol, written_ns=at_ns, data_since_ns=self.data_since_ns, books=stats)
        self._outputs.append(DocumentOut(DocumentId.BOOK, encode(document), at_ns))

    def _publish_status(self) -> None:
        self._outputs.append(DocumentOut(DocumentId.STATUS, encode(self.status("live")), self.now_ns))

    @property
    def missing(self) -> tuple[int, int]:
        """(minutes without a bar, depth slots without a frame) since the state began."""
        return self._totals["minutes_skipped"], self._frames.empty_slots

    def status(self, state: Any, fatal_error: str | None = None) -> StatusDocument:
        """The STATUS document of this moment."""
        prices = self._prices
        mark, mid, funding = prices.mark(self.now_ns), prices.mid, prices.funding(self.now_ns)
        book = next(iter(self.books.values()), None)
        canaries, cross_canary = self._canaries.documents()
        return StatusDocument(
            symbol=self.symbol,
            written_ns=self.now_ns,
            state=state,
            engine_ns=self.now_ns,
            data_since_ns=self.data_since_ns,
            last_minute_ns=self._last_minute * MINUTE_NS if self._last_minute is not None else None,
            last_depth_open_ns=self._last_depth_open_ns,
            mark=mark.value if mark else None,
            mark_ns=mark.at_ns if mark else None,
            mid=mid.value if mid else None,
            mid_ns=mid.at_ns if mid else None,
            price_venue=Venue(prices.mid_venue).label if prices.mid_venue is not None else None,
            funding_rate=funding.value if funding else None,
            canaries=canaries,
            cross_canary=cross_canary,
            ratios={kind.name.lower(): ratio for kind, ratio in sorted(self._ratios.items())},
            open_interest_base=self._oi.total(self.now_ns),
            tick=book.tick if book is not None else self._one.tick,
            minutes_rolled=self._totals["minutes_rolled"],
            minutes_skipped=self._totals["minutes_skipped"],
            depth_frames=self._totals["depth_frames"],
            depth_slots_empty=self._frames.empty_slots,
            counters=dict(self.counters),
            errors=list(self._errors.values()),
            fatal_error=fatal_error,
        )

    def _fail(self, where: str, error: Exception) -> None:
        """A fault of ours: counted, and told with its traceback the first time."""
        self.counters["errors"] += 1
        if self._note_error(where, error):
            self._outputs.append(ErrorOut(where, "".join(traceback.format_exception(error))))

    def _note_error(self, where: str, error: Exception) -> bool:
        """One row per distinct error, the oldest leave when there are too many. Whether it is a new one."""
        key = (where, f"{type(error).__name__}: {error}"[:200])
        known = self._errors.pop(key, None)
        first_ns, count = (known.first_ns, known.count) if known else (self.now_ns, 0)
        self._errors[key] = ErrorRow(where=where, error=key[1], count=count + 1, first_ns=first_ns, last_ns=self.now_ns)
        while len(self._errors) > MAX_ERRORS:
            self._errors.pop(next(iter(self._errors)))
        return known is None

    @property
    def last_liquidation(self) -> tuple[int, int]:
        """(number, engine time) of the last realised liquidation that was given out; -1 and 0 before the first."""
        return self._liquidations.next_number - 1, self._liquidations.last_ns

    def number_liquidations(self, number: int, after_ns: int, published_then: int) -> None:
        """See `Liquidations.number_from`."""
        self._liquidations.number_from(number, after_ns, published_then)

    # files -------------------------------------------------------------------------------------------------------------

    def files(self) -> list[SaveOut]:
        """The files of this moment: what a stop leaves beside the checkpoint."""
        return self._maps.files(self.now_ns)

    def load_files(self, weights: Mapping[str, Any] | None, zones: Mapping[str, Any] | None, now_ns: int) -> list[str]:
        """Go on from the files of an earlier run where no checkpoint of this version is. Text: what was wrong with them."""
        told = self._maps.load_files(weights, zones, now_ns // MINUTE_NS)
        self._liquidations.rates = self._maps.mmr
        return told

    # checkpoint --------------------------------------------------------------------------------------------------------

    def state_of(self) -> dict[str, Any]:
        """The whole state in plain values: what a checkpoint holds and what equal engines have equal."""
        return {
            "schema": STATE_SCHEMA,
            "symbol": self.symbol,
            "now_ns": self.now_ns,
            "behind_since_ns": self._behind_since_ns,
            "data_since_ns": self.data_since_ns,
            "counters": dict(self.counters),
            "totals": dict(self._totals),
            "prices": self._prices.state_of(),
            "ratios": [[int(kind), ratio.value, ratio.venue_ns] for kind, ratio in sorted(self._ratios.items())],
            "last_minute": self._last_minute,
            "last_depth_open_ns": self._last_depth_open_ns,
            "errors": [msgspec.to_builtins(row) for row in self._errors.values()],
            "bar": self._bar.state_of(),
            "oi": self._oi.state_of(),
            "liquidations": self._liquidations.state_of(),
            "maps": self._maps.state_of(),
            "canaries": self._canaries.state_of(),
            "frames": self._frames.state_of(),
            "books": [[int(venue), book.state_of()] for venue, book in self.books.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`. Raises ValueError, KeyError or TypeError for a state of another symbol or schema."""
        if state["schema"] != STATE_SCHEMA or state["symbol"] != self.symbol:
            raise ValueError(f"state of {state['symbol']}, schema {state['schema']}: not this engine's")
        books = {Venue(venue): _kind_of(Venue(venue)).restored(book) for venue, book in state["books"]}
        if books.keys() != self.books.keys():
            raise ValueError("state of other venues")
        self.books = books
        self.now_ns, self.data_since_ns = state["now_ns"], state["data_since_ns"]
        self._behind_since_ns = state["behind_since_ns"]
        self.counters |= state["counters"]
        self._totals |= state["totals"]
        self._prices.restore(state["prices"])
        self._ratios = {RatioKind(kind): RatioValue(value=value, venue_ns=ns) for kind, value, ns in state["ratios"]}
        self._last_minute, self._last_depth_open_ns = state["last_minute"], state["last_depth_open_ns"]
        rows = [msgspec.convert(row, ErrorRow) for row in state["errors"]]
        self._errors = {(row.where, row.error): row for row in rows}
        self._bar.restore(state["bar"])
        self._oi.restore(state["oi"])
        self._liquidations.restore(state["liquidations"])
        self._maps.restore(state["maps"])
        self._liquidations.rates = self._maps.mmr
        self._canaries.restore(state["canaries"])
        self._frames.restore(state["frames"])


def _kind_of(venue: Venue) -> type[Book]:
    """Class of a venue's book."""
    return Book if venue is Venue.BINANCE else WireBook


def _liquidation_venues(settings: Settings, symbol: str) -> list[Venue]:
    """Enabled venues that trade the symbol and publish liquidations, in venue order."""
    one = settings.symbols[symbol]
    return [v for v in LIQUIDATION_VENUES if getattr(settings.venues, v.label).enabled and getattr(one, v.label) is not None]


def _books(settings: Settings, symbol: str) -> dict[Venue, Book]:
    """A book for each enabled venue that trades the symbol and whose book is wanted, in venue order."""
    one, books = settings.symbols[symbol], dict[Venue, Book]()
    for venue in (Venue[name.upper()] for name in settings.venues.__struct_fields__):
        own = getattr(settings.venues, venue.label)
        if own.enabled and own.order_book and one.has_orderbook and getattr(one, venue.label) is not None:
            tolerance = one.gap_tolerance_ids if venue is Venue.BINANCE else 0
            books[venue] = _kind_of(venue)(one.tick, settings.engine.book_prune_pct, tolerance)
    return books
