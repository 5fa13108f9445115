"""The files of one symbol in shared memory: documents, frames, liquidations. Reads only; each thing when it has changed.

A file that is missing, of another layout or half made is told and tried again; nothing here raises for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np

from mpengine.cells import u8log
from mpengine.schemas import BookDocument, OiDocument, StatusDocument, ZonesDocument, decode
from mpengine.top.heat import COLUMNS, Column, HeatBook
from mpengine.top.model import LIQUIDATIONS_KEPT, ZONES_KEPT, Layer, Liquidation, Newest, Side, Symbol, Zone, strongest
from shm.document import DocumentReader
from shm.errors import Missing, ShmError
from shm.frame_ring import FrameReader
from shm.frames import decode as decode_frame
from shm.grid import price_of
from shm.liveness import WriterState
from shm.paths import Paths
from shm.record_ring import RecordReader
from shm.records import LIQUIDATION_DTYPE, DocumentId, FrameKind, PositionSide, Venue
from shm.slots import Slot

MS_NS: Final = 1_000_000
MINUTE_MS: Final = 60_000
DT_MS: Final[dict[Layer, int]] = {"map": 60_000, "book": 30_000}
CHUNK: Final = 32
"""Frames copied at a time when a symbol is first shown: 240 at once would be 4 MB."""
_STATES: Final = {
    WriterState.CLOSED: "stopped", WriterState.RETIRED: "stopped", WriterState.DEAD: "dead", WriterState.STALLED: "stalled",
}  # fmt: skip


class _Reader(Protocol):
    def replaced(self) -> bool: ...
    def close(self) -> None: ...


R = TypeVar("R", bound=_Reader)


class Handle(Generic[R]):
    """A reader that is opened when it can be, and again when its file has been replaced."""

    def __init__(self, opened: Callable[[], R]) -> None:
        self._opened = opened
        self.reader: R | None = None
        self.error: str | None = None
        self.life = 0
        """Rises whenever another file is read: what was known of the one before is void."""

    def check(self) -> R | None:
        """The reader of the file that has the name now. Costs a stat; once a second is enough."""
        if self.reader is not None and not self.reader.replaced():
            return self.reader
        self.close()
        try:
            self.reader, self.error = self._opened(), None
            self.life += 1
        except Missing:
            self.error = None
        except (ShmError, OSError) as error:
            self.error = f"{type(error).__name__}: {error}"
        return self.reader

    def close(self) -> None:
        """Unmap."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None


class FrameSource:
    """Frames of one layer: the newest one's number and time, and the columns of the newest `COLUMNS` once they are asked for."""

    def __init__(self, handle: Handle[FrameReader], layer: Layer) -> None:
        self.handle = handle
        self.layer: Layer = layer
        self.newest: Newest | None = None
        self.reference: float | None = None
        self.restarted = False
        self.book = HeatBook(layer, DT_MS[layer])
        self._seen: tuple[int, int] | None = None
        self._epoch: int | None = None
        self._drawn: tuple[int, int] | None = None

    def look(self) -> None:
        """The newest frame, where there is another one."""
        reader = self.handle.reader
        if reader is None:
            self.newest, self.restarted = None, False
            return
        seen = (self.handle.life, reader.head())
        if seen != self._seen and (slot := reader.latest()) is not None:
            self._seen = seen
            self._take(slot)
        self.restarted = self._epoch is not None and self._epoch != reader.epoch()

    def _take(self, slot: Slot) -> None:
        frame = decode_frame(slot.payload)
        self._epoch = slot.epoch
        at_ns = frame.close_ts_ns if frame.kind is FrameKind.LIQUIDATION else frame.open_ts_ns
        self.newest = Newest(seq=slot.frame_no, ts_ms=at_ns // MS_NS)
        self.reference = frame.reference

    def draw(self) -> None:
        """Take all columns that are not there yet."""
        reader = self.handle.reader
        if reader is None:
            return
        life, head = self.handle.life, reader.head()
        if self._drawn == (life, head):
            return
        start = head - COLUMNS
        if self._drawn is None or self._drawn[0] != life:
            self.book = HeatBook(self.layer, DT_MS[self.layer])
        else:
            start = max(start, self._drawn[1])
        for first in range(max(0, start), head, CHUNK):
            for slot in reader.history(first, min(first + CHUNK, head)).slots:
                self.book.add(column_of(slot))
        self._drawn = (life, head)


def column_of(slot: Slot) -> Column:
    """A frame as a column: tape and projection of a map together, as the API sums them. Raises ValueError."""
    frame = decode_frame(slot.payload)
    usd = frame.planes if frame.kind is FrameKind.DEPTH else frame.planes[:2] + frame.planes[2:]
    low, high = u8log(usd)
    return Column(frame.open_ts_ns // MS_NS, price_of(frame.origin, frame.step), frame.step, low, high)


class SymbolFiles:
    """One symbol."""

    def __init__(self, paths: Paths, name: str, *, has_book: bool) -> None:
        self.name = name
        self._has_book = has_book
        self._documents = Handle(lambda: DocumentReader.open(paths.documents(name)))
        self._maps = FrameSource(Handle(lambda: FrameReader.open(paths.liquidation(name))), "map")
        self._books = FrameSource(Handle(lambda: FrameReader.open(paths.depth(name))), "book")
        self._liquidations = Handle(lambda: RecordReader.open(paths.liquidations(name), LIQUIDATION_DTYPE))
        self._decoded: dict[DocumentId, tuple[tuple[int, int], Any]] = {}
        self._error: str | None = None
        self._listed: tuple[tuple[int, int] | None, tuple[Liquidation, ...]] = (None, ())
        self._zones: tuple[Any, tuple[Zone, ...]] = (None, ())

    def close(self) -> None:
        """Unmap everything."""
        for handle in self._handles():
            handle.close()

    def _handles(self) -> tuple[Handle[Any], ...]:
        return (self._documents, self._maps.handle, self._books.handle, self._liquidations)

    def check(self) -> None:
        """Files that came or were replaced; once a second."""
        for handle in self._handles():
            handle.check()
        self._error = next((handle.error for handle in self._handles() if handle.error is not None), None)

    def _document(self, number: DocumentId, kind: Any) -> Any:
        """The newest version, decoded once; the one before while the newest cannot be read, None before the first."""
        reader = self._documents.reader
        if reader is None or number not in reader.documents():
            return None
        stamp = (self._documents.life, reader.head(number))
        kept = self._decoded.get(number)
        if kept is None or kept[0] != stamp:
            slot = reader.latest(number)
            try:
                found = None if slot is None else decode(slot.payload, kind)
            except ValueError as error:
                self._error = str(error)
                return None
            kept = self._decoded[number] = stamp, found
        return kept[1]

    def symbol(self) -> Symbol:
        """The row of the symbol, as of now."""
        for source in (self._maps, self._books):
            try:
                source.look()
            except ValueError as error:
                self._error = str(error)
        status: StatusDocument | None = self._document(DocumentId.STATUS, StatusDocument)
        interest: OiDocument | None = self._document(DocumentId.OI, OiDocument)
        price, kind = self._price(status)
        received = [value.recv_ns // MS_NS for value in interest.venues.values()] if interest is not None else []
        wanted = [one for one, there in ((self._maps, True), (self._books, self._has_book)) if there and one.newest is not None]
        since_ns = None if status is None else status.data_since_ns
        return Symbol(
            name=self.name, engine=self._engine(status), price=price, price_kind=kind,
            maps=self._maps.handle.reader is not None, books=self._has_book, map=self._maps.newest, book=self._books.newest,
            oi_ms=max(received, default=None), zones=self._zone_count(),
            data_since_ms=None if since_ns is None else since_ns // MS_NS,
            restarted=bool(wanted) and all(one.restarted for one in wanted), error=self._error,
        )  # fmt: skip

    def _zone_count(self) -> int | None:
        """Zones of what has been decoded: their document is large, so that of a symbol that is not shown stays closed."""
        kept = self._decoded.get(DocumentId.ZONES)
        return None if kept is None or kept[1] is None else len(kept[1].zones.side)

    def _engine(self, status: StatusDocument | None) -> str:
        reader = self._documents.reader
        if reader is None or status is None:
            return "missing"
        return _STATES.get(reader.writer_state(), status.state)

    def _price(self, status: StatusDocument | None) -> tuple[float | None, str | None]:
        if status is not None:
            for price, kind in ((status.mark, "mark"), (status.mid, "mid")):
                if price is not None:
                    return price, kind
        for source in (self._books, self._maps):
            if source.reference is not None:
                return source.reference, source.layer
        return None, None

    def written_ms(self) -> int | None:
        """When the engine last published its status, which it does once a second."""
        status: StatusDocument | None = self._document(DocumentId.STATUS, StatusDocument)
        return None if status is None else status.written_ns // MS_NS

    def per_venue(self) -> dict[str, tuple[str | None, int | None, int | None]]:
        """Venue -> (state of its book, gaps of it, time of its open interest)."""
        books: BookDocument | None = self._document(DocumentId.BOOK, BookDocument)
        interest: OiDocument | None = self._document(DocumentId.OI, OiDocument)
        found: dict[str, tuple[str | None, int | None, int | None]] = {}
        for venue in {
            *(books.books if books else ()),
            *(interest.venues if interest else ()),
            *(interest.display if interest else ()),
        }:
            book = books.books.get(venue) if books else None
            value = (interest.venues.get(venue) or interest.display.get(venue)) if interest else None
            found[venue] = (
                book.state if book else None,
                book.pu_gap_count + book.u_gap_count + book.gaps_tolerated if book else None,
                value.recv_ns // MS_NS if value else None,
            )
        return found

    def zones(self, price: float | None) -> tuple[Zone, ...]:
        """The heaviest zones of each side, nearest first."""
        document: ZonesDocument | None = self._document(DocumentId.ZONES, ZonesDocument)
        if document is None:
            return ()
        if self._zones[0] is not document:
            self._zones = document, _heaviest(document)
        return strongest(list(self._zones[1]), price)

    def liquidations(self) -> tuple[Liquidation, ...]:
        """The newest ones, newest first. A ring that was never made says nothing: silence is normal."""
        reader = self._liquidations.reader
        if reader is None:
            return ()
        stamp = (self._liquidations.life, reader.head())
        if self._listed[0] != stamp:
            _, rows = reader.latest(LIQUIDATIONS_KEPT)
            self._listed = stamp, tuple(_liquidation(row) for row in rows[::-1])
        return self._listed[1]

    def layers(self) -> tuple[HeatBook, HeatBook]:
        """Columns of map and book, up to now."""
        for source in (self._maps, self._books):
            try:
                source.draw()
            except ValueError as error:
                self._error = str(error)
        return self._maps.book, self._books.book


def _liquidation(row: Any) -> Liquidation:
    side: Side = "long" if row["side"] == PositionSide.LONG else "short"
    return Liquidation(
        ts_ms=int(row["venue_ts_ns"]) // MS_NS, venue=Venue(int(row["venue"])).label, side=side, price=float(row["price"]),
        usd=float(row["notional_usd"]),
    )  # fmt: skip


def _heaviest(document: ZonesDocument) -> tuple[Zone, ...]:
    """PERF: there may be thousands of zones; only those that can be shown become objects."""
    table = document.zones
    usd = np.asarray(table.projected_usd, np.float64) + np.asarray(table.tape_usd, np.float64)
    side = np.asarray(table.side, np.int64)
    chosen: list[int] = []
    for one in (0, 1):
        mine = np.flatnonzero(side == one)
        chosen += mine[np.argsort(-usd[mine], kind="stable")[:ZONES_KEPT]].tolist()
    leverage: dict[int, tuple[float, int]] = {}
    wanted = set(chosen)
    for zone, tier, value in zip(table.tier_zone, table.tier, table.tier_value):
        if zone in wanted and value > leverage.get(zone, (0.0, 0))[0]:
            leverage[zone] = value, int(document.tiers[tier])
    sources = ("", "inference", "tape", "combined")
    return tuple(
        Zone(
            side="short" if table.side[at] else "long", price=price_of(table.bucket[at], document.step), usd=float(usd[at]),
            weight=table.weight[at], created_ms=(table.created[at] + 1) * MINUTE_MS, source=sources[table.source[at]],
            leverage=leverage[at][1] if at in leverage else None,
        )
        for at in chosen
    )  # fmt: skip
