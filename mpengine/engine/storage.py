"""Where an engine's outputs and its state go: rings, documents, the checkpoint file. A shell; used by the process and by replay.

Publication is at most once, also across a restart: a frame or bar that is not newer than the newest one in its ring was published
before the restart and is skipped (the cores repeat it bit by bit). Where engine time begins anew (`ClockOut`) the windows after
that time count as new, whatever a wrong clock has published ahead of it. Liquidations have no window: a core numbers them as the
ring does, so that a number which the ring has is a repetition. The checkpoint is written by a thread; a slow disk never holds the
engine loop up, a newer state replaces one that still waits.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec
from xxhash import xxh3_64_digest

from mpengine.config import BinanceSettings, BybitSettings, HyperliquidSettings, OkxSettings, Settings
from mpengine.engine.core import STATE_SCHEMA, CandleOut, DocumentOut, ErrorOut, FrameOut, Output
from mpengine.engine.depth_frames import SLOT_NS
from mpengine.engine.liquidation_maps import MapOut, SaveOut
from mpengine.engine.liquidations import LiquidationOut
from mpengine.engine.log_records import LogOut
from shm.atomic_file import write_atomic
from shm.document import DocumentWriter
from shm.errors import Refused
from shm.frame_ring import FrameReader, FrameWriter
from shm.frames import Frame, FrameRefused, decode, encode
from shm.layout import candles_spec, depth_spec, documents_spec, liquidation_spec, liquidations_spec
from shm.paths import Paths
from shm.record_ring import RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE, DocumentId, FrameKind

CHECKPOINT_MAGIC: Final = b"MPCKPT1\0"
CHECKPOINT_SCHEMA: Final = 1
CHECKPOINT_BYTES: Final = 256 << 20
DIRECTORY_MODE: Final = 0o750
AHEAD_NS: Final = 60 * 1_000_000_000

Item = TypeVar("Item")

log = logging.getLogger("mpengine.engine.storage")


@dataclass(slots=True)
class Published:
    """Counts of a publisher: what went out, what was refused, what a restart found published already.

    `depth_write_ns`, `depth_write_ns_sum`: time the newest depth frame, and all of them, took to encode and write.
    """

    depth: int = 0
    maps: int = 0
    candles: int = 0
    liquidations: int = 0
    documents: int = 0
    refused: int = 0
    repeated: int = 0
    depth_write_ns: int = 0
    depth_write_ns_sum: int = 0


class Publisher:
    """Sole writer of a symbol's rings and documents. `event_clock`: stamp slots with event time, so that replays are equal.

    `aside` takes log lines and files, which go to threads of their own; without it they are dropped.

    A live core must number its liquidations on from `liquidations.next_no` (`SymbolCore.number_liquidations`).
    `newest_liquidations`: engine time of the newest that were in the ring at the start, and how many they are; (0, 0) without.
    Raises what the ring writers raise: Locked, LayoutMismatch, IdentityMismatch, NoSpace.
    """

    def __init__(
        self, paths: Paths, symbol: str, *, event_clock: bool = False, aside: Callable[[LogOut | SaveOut], None] | None = None
    ) -> None:
        self.counts = Published()
        self._event_clock = event_clock
        self._aside = aside
        self._liquidations_path = paths.liquidations(symbol)
        paths.symbol_dir(symbol).mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        with ExitStack() as opened:  # one that cannot be opened gives the locks of those before it up
            self.depth = FrameWriter.open(paths.depth(symbol), depth_spec(symbol))
            opened.callback(self.depth.close)
            self.maps = FrameWriter.open(paths.liquidation(symbol), liquidation_spec(symbol))
            opened.callback(self.maps.close)
            self.candles = RecordWriter.open(paths.candles(symbol), candles_spec(symbol), CANDLE_DTYPE)
            opened.callback(self.candles.close)
            self.liquidations = RecordWriter.open(self._liquidations_path, liquidations_spec(symbol), LIQUIDATION_DTYPE)
            opened.callback(self.liquidations.close)
            self.documents = DocumentWriter.open(paths.documents(symbol), documents_spec(symbol))
            opened.callback(self.documents.close)
            self._last_depth_ns = self._believed(_newest_frame(paths.depth(symbol)), "depth")
            self._last_map_ns = self._believed(_newest_frame(paths.liquidation(symbol)), "liquidation")
            self._last_candle_ns = self._believed(_newest_candle(paths.candles(symbol)), "candles")
            newest_ns, count = _newest_liquidations(self._liquidations_path)
            believed_ns = self._believed(newest_ns, "liquidations")
            self.newest_liquidations = (believed_ns, count if believed_ns == newest_ns else 0)
            self._opened = opened.pop_all()
        self._document_versions: dict[DocumentId, int] = {}

    def _believed(self, newest_ns: int, ring: str) -> int:
        """The newest window of a ring; 0 for one that lies ahead of the clock: it would silence the ring until its time comes."""
        if self._event_clock or newest_ns <= time.time_ns() + AHEAD_NS:
            return newest_ns
        log.warning("the newest window of the %s ring lies in the future: a wrong clock published it", ring)
        return 0

    @property
    def fds(self) -> list[int]:
        """Descriptors for the sync thread."""
        return [self.depth.fd, self.maps.fd, self.candles.fd, self.liquidations.fd, self.documents.fd]

    @property
    def newest_document(self) -> int:
        """Largest version number over all documents, for the board."""
        return max(self._document_versions.values(), default=0)

    def holds_liquidation(self, number: int, at_ns: int) -> bool:
        """Whether the ring has the liquidation with this number and engine time: then the numbers of its core are the ring's.

        True for number -1, the last one of a core that has given none out.
        """
        with RecordReader.open(self._liquidations_path, LIQUIDATION_DTYPE) as reader:
            slot = reader.ring.read(number)
        return number < 0 or (slot is not None and slot.ts_ns == at_ns)

    def publish(self, outputs: Iterable[Output]) -> None:
        """Write outputs out in order; `counts` says what went out and what was refused."""
        for output in outputs:
            try:
                self._publish_one(output)
            except (Refused, FrameRefused) as error:
                self.counts.refused += 1
                log.error("%s refused: %s", type(output).__name__, error)

    def _publish_one(self, output: Output) -> None:
        if isinstance(output, ErrorOut):
            log.error("%s failed: %s", output.where, output.traceback)
        elif isinstance(output, LogOut | SaveOut):
            if self._aside is not None:
                self._aside(output)
        elif isinstance(output, MapOut):
            self._publish_map(output)
        elif isinstance(output, FrameOut):
            self._publish_depth(output.frame)
        elif isinstance(output, CandleOut):
            self._publish_candle(output)
        elif isinstance(output, LiquidationOut):
            self._publish_liquidation(output)
        elif isinstance(output, DocumentOut):
            self._publish_document(output)
        elif not self._event_clock:
            # A replay keeps to windows that are newer than all before: captures in a wrong order must not mix up a ring.
            self._last_depth_ns = self._last_map_ns = self._last_candle_ns = output.now_ns
            log.warning("the clock was set back: windows after this one are published anew")

    def _publish_depth(self, frame: Frame) -> None:
        if frame.open_ts_ns <= self._last_depth_ns:
            self.counts.repeated += 1
            return
        stamp, started_ns = frame.close_ts_ns, time.perf_counter_ns()
        self.depth.publish(
            encode(frame), ts_ns=stamp, kind=FrameKind.DEPTH, flags=int(frame.coverage) & 0xFFFF, published_ns=self._now(stamp)
        )
        self.counts.depth_write_ns = time.perf_counter_ns() - started_ns
        self.counts.depth_write_ns_sum += self.counts.depth_write_ns
        self._last_depth_ns = frame.open_ts_ns
        self.counts.depth += 1

    def _publish_candle(self, output: CandleOut) -> None:
        opened, closed = int(output.record["open_ts_ns"]), int(output.record["close_ts_ns"])
        if opened <= self._last_candle_ns:
            self.counts.repeated += 1
            return
        self.candles.append(output.record, ts_ns=closed, published_ns=self._now(closed))
        self._last_candle_ns = opened
        self.counts.candles += 1

    def _publish_liquidation(self, output: LiquidationOut) -> None:
        if self._is_published(output):
            self.counts.repeated += 1
            return
        self.liquidations.append(output.record, ts_ns=output.at_ns, published_ns=self._now(output.at_ns))
        self.counts.liquidations += 1

    def _is_published(self, output: LiquidationOut) -> bool:
        # The core of a replay counts from 0 whatever the ring holds; its times are those of the capture.
        if self._event_clock:
            return output.at_ns <= self.newest_liquidations[0]
        return output.number < self.liquidations.next_no

    def _publish_map(self, output: MapOut) -> None:
        frame, stamp = output.frame, output.frame.close_ts_ns
        if frame.open_ts_ns <= self._last_map_ns:
            self.counts.repeated += 1
            return
        payload = encode(frame)
        # The documents first: whoever finds the frame finds what belongs to it.
        for document, data in ((DocumentId.LEVELS, output.levels), (DocumentId.ZONES, output.zones)):
            self._write_document(document, data, stamp, self.maps.next_no)
        flags = int(frame.coverage) & 0xFFFF
        self.maps.publish(payload, ts_ns=stamp, kind=FrameKind.LIQUIDATION, flags=flags, published_ns=self._now(stamp))
        self._last_map_ns = frame.open_ts_ns
        self.counts.maps += 1

    def _publish_document(self, output: DocumentOut) -> None:
        link = self._frame_of(output.ts_ns) if output.document is DocumentId.BOOK else 0
        self._write_document(output.document, output.data, output.ts_ns, link)

    def _write_document(self, document: DocumentId, data: bytes, ts_ns: int, link: int) -> None:
        version = self.documents.publish(document, data, ts_ns=ts_ns, link=link, published_ns=self._now(ts_ns))
        self._document_versions[document] = version + 1
        self.counts.documents += 1

    def _frame_of(self, at_ns: int) -> int:
        """Number of the depth frame that a state at `at_ns` goes with: the one that has just ended, else the one to come."""
        return self.depth.next_no - (at_ns == self._last_depth_ns + SLOT_NS)

    def _now(self, event_ns: int) -> int:
        return event_ns if self._event_clock else time.time_ns()

    def beat(self) -> None:
        """Say to readers that the writer lives; at least every 250 ms."""
        self.depth.beat()
        self.maps.beat()
        self.candles.beat()
        self.liquidations.beat()
        self.documents.beat()

    def close(self) -> None:
        """Locks given up, state closed."""
        self._opened.close()


def _newest_frame(path: Path) -> int:
    """Start of the newest frame's window, 0 for an empty ring."""
    with FrameReader.open(path) as reader:
        slot = reader.latest()
        return decode(slot.payload).open_ts_ns if slot is not None else 0


def _newest_candle(path: Path) -> int:
    with RecordReader.open(path, CANDLE_DTYPE) as reader:
        _, rows = reader.latest(1)
        return int(rows[-1]["open_ts_ns"]) if rows.size else 0


def _newest_liquidations(path: Path) -> tuple[int, int]:
    """Engine time of the newest liquidations and how many of the ring's last records have it; (0, 0) for an empty ring."""
    with RecordReader.open(path, LIQUIDATION_DTYPE) as reader:
        ring = reader.ring
        newest = ring.latest()
        if newest is None:
            return 0, 0
        count = 1
        while (slot := ring.read(newest.frame_no - count)) is not None and slot.ts_ns == newest.ts_ns:
            count += 1
        return newest.ts_ns, count


# checkpoint ------------------------------------------------------------------------------------------------------------


class CheckpointError(Exception):
    """A checkpoint that cannot be used. `damaged`: it should have been readable; else it is of another schema or settings."""

    def __init__(self, text: str, *, damaged: bool) -> None:
        super().__init__(text)
        self.damaged = damaged


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state of a core and its place in the event stream.

    `position` belongs to the ring of `ring_uuid`; `sources`: source -> (epoch, next running number), which outlives a ring.
    """

    schema: int = CHECKPOINT_SCHEMA
    symbol: str
    config_digest: str
    ring_uuid: int
    position: int
    sources: dict[int, tuple[int, int]]
    state: dict[str, Any]


def config_digest(settings: Settings, symbol: str) -> str:
    """What a state depends on: its schema, the symbol's own settings, the engine's (with the primary venue), the venues and books
    that are on."""
    venues = {name: _switches(getattr(settings.venues, name)) for name in settings.venues.__struct_fields__}
    depends = (STATE_SCHEMA, settings.symbols[symbol], settings.engine, venues)
    parts = [msgspec.json.encode(part, order="sorted") for part in depends]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _switches(venue: BinanceSettings | BybitSettings | OkxSettings | HyperliquidSettings) -> tuple[bool, bool]:
    return venue.enabled, venue.order_book


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Magic, xxh3-64 of what follows, msgpack."""
    body = msgspec.msgpack.encode(checkpoint)
    return CHECKPOINT_MAGIC + xxh3_64_digest(body) + body


def state_digest(state: dict[str, Any]) -> str:
    """Equal for equal states; what tests and `mpengine status` compare."""
    return xxh3_64_digest(msgspec.msgpack.encode(state)).hex()


def load_checkpoint(path: Path, symbol: str, digest: str) -> Checkpoint | None:
    """The checkpoint of `symbol`, None if there is none. Raises CheckpointError for one that cannot be used."""
    try:
        if path.stat().st_size > CHECKPOINT_BYTES:
            raise CheckpointError("larger than any checkpoint", damaged=True)
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body = data[16:]
    if data[:8] != CHECKPOINT_MAGIC or xxh3_64_digest(body) != data[8:16]:
        raise CheckpointError("not a whole checkpoint", damaged=True)
    try:
        found = msgspec.msgpack.decode(body, type=Checkpoint)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"not a checkpoint of this version: {error}", damaged=False) from error
    if (found.schema, found.symbol, found.config_digest) != (CHECKPOINT_SCHEMA, symbol, digest):
        raise CheckpointError("of another schema, symbol or settings", damaged=False)
    return found


class _WriterThread(Generic[Item]):
    """Writes per name the newest item that it was given; one that still waits is dropped for it.

    `errors` counts failed writes; the old file stays and the next item tries again.
    """

    def __init__(self, name: str) -> None:
        self._wake = threading.Condition()
        self._waiting: dict[str, Item] = {}
        self._stopping = False
        self.written = 0
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _hand_over(self, name: str, item: Item) -> None:
        with self._wake:
            self._waiting[name] = item
            self._wake.notify()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Write what waits and end; False where the disk kept it longer."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._stopping:
                    self._wake.wait()
                if not self._waiting:
                    return
                waiting, self._waiting = self._waiting, {}
            for name, item in waiting.items():
                try:
                    self._write(name, item)
                except Exception:  # what cannot be encoded either must not end the thread: nothing would be saved ever after
                    self.errors += 1
                    log.exception("%s not written, the old one stays", name)
                else:
                    self.written += 1

    def _write(self, name: str, item: Item) -> None:
        """Put the item on disk. Whatever it raises is counted."""
        raise NotImplementedError


class CheckpointThread(_WriterThread[tuple[bytes, tuple[int, int]]]):
    """Writes the newest checkpoint. `done`: (ring uuid, position) of the newest one on disk, None before the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: tuple[int, int] | None = None
        super().__init__("checkpoint")

    def submit(self, data: bytes, place: tuple[int, int]) -> None:
        """Hand over an encoded checkpoint and its (ring uuid, position)."""
        self._hand_over(self._path.name, (data, place))

    def _write(self, name: str, item: tuple[bytes, tuple[int, int]]) -> None:
        data, place = item
        write_atomic(self._path, data)
        self.done = place


class SaveThread(_WriterThread[SaveOut]):
    """Writes the JSON files of an engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__("save")

    def submit(self, output: SaveOut) -> None:
        """Hand over a file."""
        self._hand_over(output.file, output)

    def _write(self, name: str, item: SaveOut) -> None:
        write_atomic(self._folder / name, item.encoded())


def load_json(path: Path) -> dict[str, Any] | None:
    """A JSON file of an earlier run, None where there is none. Raises ValueError for one that is damaged or no object."""
    try:
        if path.stat().st_size > CHECKPOINT_BYTES:
            raise ValueError("larger than any such file")
        found = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def move_aside(path: Path, now_ns: int) -> Path:
    """Rename a file that cannot be used to `<name>.bad-<seconds>`, so that it can be looked at and is never read again."""
    aside = path.with_name(f"{path.name}.bad-{now_ns // 1_000_000_000}")
    path.replace(aside)
    return aside
