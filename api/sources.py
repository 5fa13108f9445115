"""What the API reads: rings, documents and the board, each opened read-only when it is there and again when it was replaced.

A file that is missing is no error: its handle has no reader, and the endpoints answer what the contract says for that. A file
that cannot be used (another version, another symbol) is logged, shows in `broken` and is tried again. A file that loses its name
is served on, with its age, until another one has the name.

Everything here belongs to the loop's thread. A build in another thread runs inside `borrowed()`: readers that were replaced in
the meantime are closed when it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from api.clock import Clock
from mpengine.config import Settings
from shm.board import BoardReader
from shm.document import DocumentReader
from shm.errors import Missing, ShmError
from shm.frame_ring import FrameReader
from shm.layout import candles_spec, depth_spec, documents_spec, feeds_spec, liquidation_spec, liquidations_spec
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE

CHECK_EVERY_NS: Final = 1_000_000_000

log = logging.getLogger("api.sources")

Stamp = tuple[int, int, int]
"""(file uuid, writer's epoch, head): as long as it is equal, whatever was read is the newest there is. (0, 0, 0): no file."""

NO_FILE: Final[Stamp] = (0, 0, 0)


class _Reader(Protocol):
    @property
    def uuid(self) -> int: ...
    def epoch(self) -> int: ...
    def replaced(self) -> bool: ...
    def close(self) -> None: ...


class _Headed(_Reader, Protocol):
    def head(self) -> int: ...


R = TypeVar("R", bound=_Reader)
H = TypeVar("H", bound=_Headed)


class Handle(Generic[R]):
    """One file. `reader` is None while it cannot be read; `broken` says that it is there and cannot be used."""

    def __init__(self, name: str, open_reader: Callable[[], R], retire: Callable[[_Reader], None]) -> None:
        self.name = name
        self.reader: R | None = None
        self.uuid = 0
        self.broken = False
        self._open = open_reader
        self._retire = retire

    def check(self) -> None:
        """Open what can be opened, open again what was replaced."""
        if self.reader is None:
            self._try_open()
        elif self._replaced(self.reader):
            old = self.reader
            if self._try_open():
                self._retire(old)

    def close(self) -> None:
        """Give the file up."""
        if self.reader is not None:
            self.reader.close()
        self.reader, self.uuid = None, 0

    def _replaced(self, reader: R) -> bool:
        try:
            return reader.replaced()
        except OSError as error:
            log.warning("%s: cannot be looked at: %s", self.name, error)
            return False

    def _try_open(self) -> bool:
        try:
            reader = self._open()
        except Missing:
            self.broken = False
            return False
        except (ShmError, OSError) as error:
            self.broken = True
            log.warning("%s: cannot be read: %s: %s", self.name, type(error).__name__, error)
            return False
        log.info("%s: attached, epoch %s", self.name, reader.epoch())
        self.reader, self.uuid, self.broken = reader, reader.uuid, False
        return True


class RingHandle(Handle[H]):
    """A ring: what it holds is known by its head."""

    def stamp(self) -> Stamp:
        """Identity of its present content."""
        # PERF: on the path of every cache hit: two loads of a word, no system call.
        reader = self.reader
        return NO_FILE if reader is None else (self.uuid, reader.epoch(), reader.head())


class DocumentHandle(Handle[DocumentReader]):
    """A documents file."""

    def stamp(self, document: int) -> Stamp:
        """Identity of the present version of one document."""
        reader = self.reader
        return NO_FILE if reader is None else (self.uuid, reader.epoch(), reader.head(document))


@dataclass(frozen=True, slots=True)
class SymbolSources:
    """Files of one symbol. `liquidation`: the map; `liquidations`: realised ones."""

    depth: RingHandle[FrameReader]
    liquidation: RingHandle[FrameReader]
    candles: RingHandle[RecordReader]
    liquidations: RingHandle[RecordReader]
    documents: DocumentHandle

    def handles(self) -> tuple[RingHandle[FrameReader] | RingHandle[RecordReader] | DocumentHandle, ...]:
        return (self.depth, self.liquidation, self.candles, self.liquidations, self.documents)


class Sources:
    """All files of one instance, by symbol, and those of the runtime directory."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._checked_ns: int | None = None
        self._retired: list[_Reader] = []
        self._borrowed = 0
        self._past_retries = 0
        self._past_lapped = 0
        paths, retire = settings.paths, self._retire

        def files_of(name: str) -> SymbolSources:
            return SymbolSources(
                RingHandle(f"{name} depth", lambda: FrameReader.open(paths.depth(name), depth_spec(name)), retire),
                RingHandle(
                    f"{name} liquidation", lambda: FrameReader.open(paths.liquidation(name), liquidation_spec(name)), retire
                ),
                RingHandle(
                    f"{name} candles",
                    lambda: RecordReader.open(paths.candles(name), CANDLE_DTYPE, candles_spec(name)),
                    retire,
                ),
                RingHandle(
                    f"{name} liquidations",
                    lambda: RecordReader.open(paths.liquidations(name), LIQUIDATION_DTYPE, liquidations_spec(name)),
                    retire,
                ),
                DocumentHandle(
                    f"{name} documents", lambda: DocumentReader.open(paths.documents(name), documents_spec(name)), retire
                ),
            )

        self.symbols: Mapping[str, SymbolSources] = {name: files_of(name) for name in settings.symbols}
        self.feeds = DocumentHandle("feeds", lambda: DocumentReader.open(paths.feeds, feeds_spec()), retire)
        self.board: Handle[BoardReader] = Handle("board", lambda: BoardReader.open(paths.board), retire)

    def check(self) -> None:
        """Look at every file, at most once a second."""
        now = self._clock.monotonic_ns()
        if self._checked_ns is not None and now - self._checked_ns < CHECK_EVERY_NS:
            return
        self._checked_ns = now
        for handle in self._handles():
            handle.check()
        self._close_retired()

    @property
    def broken(self) -> bool:
        """Whether a file is there that cannot be used."""
        return any(handle.broken for handle in self._handles())

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """While it is open no reader is closed: around the work of another thread."""
        self._borrowed += 1
        try:
            yield
        finally:
            self._borrowed -= 1
            self._close_retired()

    def retries(self) -> int:
        """Reads that met a slot in change, over all rings since the start."""
        return self._past_retries + sum(ring.retries for ring in self._rings())

    def lapped(self) -> int:
        """Reads that came too late, over all rings since the start."""
        return self._past_lapped + sum(ring.lapped for ring in self._rings())

    def close(self) -> None:
        """Unmap everything."""
        for handle in self._handles():
            handle.close()
        self._close_retired()
        self._checked_ns = None

    def _handles(self) -> Iterator[Handle[FrameReader] | Handle[RecordReader] | Handle[DocumentReader] | Handle[BoardReader]]:
        for symbol in self.symbols.values():
            yield from symbol.handles()
        yield self.feeds
        yield self.board

    def _rings(self) -> Iterator[FrameReader]:
        for handle in self._handles():
            if ring := _ring(handle.reader):
                yield ring

    def _retire(self, reader: _Reader) -> None:
        if ring := _ring(reader):
            self._past_retries += ring.retries
            self._past_lapped += ring.lapped
        self._retired.append(reader)

    def _close_retired(self) -> None:
        while self._retired and not self._borrowed:
            self._retired.pop().close()


def _ring(reader: object) -> FrameReader | None:
    if isinstance(reader, RecordReader):
        return reader.ring
    return reader if isinstance(reader, FrameReader) else None
