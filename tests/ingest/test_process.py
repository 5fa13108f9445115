"""The ingest process against the simulator process: real sockets in, real rings out, faults in between."""

from __future__ import annotations

import itertools
import json
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpengine import config, venues
from mpengine.clock_grid import ClockGrid
from mpengine.config import Settings, VenuesSettings
from mpengine.ingest.capture_file import CaptureReader, read_capture
from mpengine.ingest.foreign import open_capture
from mpengine.ingest.recorder import capture_files
from mpengine.schemas import FeedsDocument, VenueFeed
from mpengine.schemas import decode as decode_document
from mpengine.venues.base import RestCall
from shm.board import Board, BoardReader, BoardRow, RowName
from shm.board_words import (
    VENUE_STATES,
    Role,
    State,
    Word,
    parse_errors_word,
    resync_word,
    venue_state_word,
    venue_streams_word,
)
from shm.document import DocumentReader
from shm.errors import Missing
from shm.event_ring import Batch, BatchFlag, EventReader, create_event_ring
from shm.layout import event_ring_spec
from shm.records import UNIT, Decoded, DocumentId, Kind, Venue, decode, pack_clock, units_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

INGEST_ROW, ENGINE_ROW = 0, 1


class Simulator:
    """A simulator process; `control` is its HTTP control."""

    def __init__(self, *arguments: str, port: int | None = None) -> None:
        """`port`: where the settings in the arguments let it listen; None: it chooses one and says it."""
        where = ["--port", "0"] if port is None else []
        command = [sys.executable, "-m", "mpengine.simulator.process", *where, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        try:
            self.port: int = json.loads(self.process.stdout.readline())["port"] if port is None else port
            if port is not None:
                self._wait_for_port()
        except BaseException:
            self.stop()
            raise

    def _wait_for_port(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.05)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/control/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def fault(self, **values: Any) -> None:
        self.control("POST", "faults", values)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def simulator(*arguments: str, port: int | None = None) -> Iterator[Simulator]:
    one = Simulator(*arguments, port=port)
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def market() -> Iterator[Simulator]:
    with simulator("--symbol", "BTC:100000", "--seed", "3") as one:
        yield one


def alone(*venues: str) -> list[str]:
    """Overrides that leave only these venues on."""
    return [f"venues.{name}.enabled={'true' if name in venues else 'false'}" for name in VenuesSettings.__struct_fields__]


class Stack:
    """Board, rings and ingest, with this test as the engine of BTC."""

    def __init__(
        self, folder: Path, port: int, *overrides: str, venues: Sequence[str] = ("binance",), symbols: Sequence[str] = ("BTC",)
    ) -> None:
        text = f"[simulator]\nenabled = true\nport = {port}\n" + "".join(f"[symbols.{name}]\n" for name in symbols)
        settings = config.load(text, {}, [*alone(*venues), *overrides])
        for name in ("data", "runtime"):
            (folder / name).mkdir()
        self.settings: Settings = config.resolve_directories(settings, data=folder / "data", runtime=folder / "runtime")
        self.paths = self.settings.paths
        self.paths.settings.write_bytes(config.encode(self.settings))
        rows = [RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0)]
        self._board = Board.create(self.paths.board, rows, {1: "ingest"})
        self._engine = BoardRow.attach(self.paths.board, ENGINE_ROW)
        self.board = BoardReader.open(self.paths.board)
        for name in symbols:
            create_event_ring(self.paths.events(name), event_ring_spec(name, self.settings.engine.ring_units))
        self.reader = EventReader.open(self.paths.events("BTC"))
        self.batches: list[Batch] = []
        self.records: list[Decoded] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mpengine.ingest.process", "--settings", str(self.paths.settings), "--row", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def pump(self) -> None:
        """Read what is in the ring, as an engine would."""
        while batch := self.reader.get():
            self.batches.append(batch)
            self.records += decode(batch.body)
        self.reader.release(self.reader.position)

    def until(self, condition: Callable[[], object], what: str = "the condition", limit_s: float = 30) -> None:
        deadline = time.monotonic() + limit_s
        while self.pump() or not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
            time.sleep(0.01)

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        return [one.fields for one in self.records if one.kind is kind]

    def word(self, word: Word) -> int:
        return self.board.get(INGEST_ROW, word)

    def ask_for_snapshot(self, venue: Venue = Venue.BINANCE) -> None:
        self._engine.add(resync_word(venue))

    def feed(self, venue: str = "binance") -> VenueFeed | None:
        """The venue in the newest FEEDS document."""
        try:
            reader = DocumentReader.open(self.paths.feeds)
        except Missing:
            return None
        with reader:
            slot = reader.latest(DocumentId.FEEDS)
            return None if slot is None else decode_document(slot.payload, FeedsDocument).venues[venue]

    def chained(self) -> list[int]:
        """Lengths of the unbroken runs of diffs."""
        runs, last = [0], None
        for fields in self.of(Kind.DEPTH):
            if last is not None and fields["prev_seq"] != last:
                runs.append(0)
            last = fields["seq"]
            runs[-1] += 1
        return runs

    def stop(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """SIGTERM; exit code and log."""
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        return process.returncode, log.decode()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=10)
        for part in (self.reader, self.board, self._engine, self._board):
            part.close()


@pytest.fixture
def stack(tmp_path: Path, market: Simulator) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def build(*overrides: str, port: int = market.port, venues: Sequence[str] = ("binance",)) -> Stack:
        made.append(Stack(tmp_path, port, *overrides, venues=venues))
        return made[-1]

    yield build
    for one in made:
        one.close()
    market.control("DELETE", "faults")


QUICK = ("ingest.reconnect_max_s=0.2", "ingest.watchdog_scale=0.1", "ingest.snapshot_interval_s=0.5")


def test_the_exchange_reaches_the_ring_and_a_stop_is_in_order(stack: Callable[..., Stack]) -> None:
    one = stack("capture.enabled=true")
    process = one.start()
    one.until(lambda: len(one.of(Kind.DEPTH)) > 20 and len(one.of(Kind.CLOCK)) > 8 and one.of(Kind.MARK), "events of every kind")
    one.until(lambda: len(one.of(Kind.TRADE)) > 3 and one.of(Kind.OPEN_INTEREST) and one.of(Kind.INSTRUMENT))
    assert one.board.row(INGEST_ROW)["state"] == State.LIVE
    assert len(one.chained()) == 1
    assert all(batch.source == 1 and batch.epoch == 1 for batch in one.batches)
    numbers = [(batch.first_seq, batch.records) for batch in one.batches]
    assert all(first + count == after for (first, count), (after, _) in itertools.pairwise(numbers))
    clocks = [fields["recv_ts_ns"] for fields in one.of(Kind.CLOCK)]
    assert clocks == sorted(clocks)
    feed = one.feed()
    assert feed is not None
    assert (feed.state, feed.connections, feed.reconnects, feed.parse_errors) == ("LIVE", 2, 0, 0)
    assert feed.streams["btcusdt@depth@100ms"].state == "LIVE"
    assert feed.used_weight is not None
    words = {word: one.word(word) for word in (Word.MESSAGES, Word.EVENTS, Word.BATCHES, Word.BYTES_IN, Word.REST_REQUESTS)}
    assert all(words.values())
    progress, turns = one.word(Word.PROGRESS), one.word(Word.TURNS)
    one.until(lambda: one.word(Word.PROGRESS) > progress and one.word(Word.TURNS) > turns)

    code, log = one.stop(process)
    assert code == 0, log
    assert one.board.row(INGEST_ROW)["state"] == State.STOPPED
    assert "Traceback" not in log
    assert all(json.loads(line)["process"] == "ingest" for line in log.splitlines())
    one.pump()
    assert one.records[-1].kind is Kind.GAP  # its connections ended
    [path] = capture_files(one.paths.captures)
    with CaptureReader(path) as reader:
        lines = list(reader)
        assert not reader.truncated
        assert reader.header.symbols["BTC"]["binance"] == "BTCUSDT"
        assert reader.header.config_hash == one.settings.config_hash
    directions = Counter(line.direction for line in lines)
    assert directions["in"] >= words[Word.MESSAGES]
    assert (directions["open"], directions["lost"]) == (2, 2)


@pytest.mark.covers("F1")
def test_an_engine_that_asks_gets_a_snapshot_also_when_it_asked_before(stack: Callable[..., Stack]) -> None:
    one = stack(*QUICK)
    one.ask_for_snapshot()
    one.start()
    one.until(lambda: len(one.of(Kind.SNAPSHOT)) == 1, "the answer to a request from before the start")
    one.until(lambda: one.word(Word.RESYNC_DONE) == 1)
    one.ask_for_snapshot()
    one.until(lambda: len(one.of(Kind.SNAPSHOT)) == 2)
    snapshot = one.of(Kind.SNAPSHOT)[-1]
    one.until(lambda: one.of(Kind.DEPTH)[-1]["seq"] > snapshot["seq"])
    bridging = [d for d in one.of(Kind.DEPTH) if d["first_seq"] <= snapshot["seq"] <= d["seq"] or d["prev_seq"] == snapshot["seq"]]
    assert bridging
    assert snapshot["bids"] > 10
    assert snapshot["asks"] > 10


@pytest.mark.covers("F1")
def test_a_killed_process_leaves_a_gap_and_its_successor_goes_on(stack: Callable[..., Stack]) -> None:
    one = stack(*QUICK)
    first = one.start()
    one.until(lambda: len(one.of(Kind.DEPTH)) > 5)
    messages = one.word(Word.MESSAGES)
    first.kill()
    first.communicate(timeout=10)
    one.pump()
    seen = len(one.batches)
    one.start()
    one.until(lambda: len(one.batches) > seen)
    assert one.batches[seen].flags & BatchFlag.GAP
    assert [batch.epoch for batch in one.batches[seen - 1 : seen + 1]] == [1, 2]
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 5)
    assert len(one.chained()) == 2
    one.until(lambda: one.word(Word.MESSAGES) > messages, "counters go on from where they were")
    assert one.board.get(INGEST_ROW, Word.EPOCH) == 2


@pytest.mark.covers("F10", "F9")
def test_faults_on_the_sockets_are_survived_and_seen(stack: Callable[..., Stack], market: Simulator) -> None:
    one = stack(*QUICK)
    process = one.start()
    one.until(lambda: len(one.of(Kind.DEPTH)) > 5 and one.of(Kind.MARK))

    market.fault(fault="gap", stream="*@depth*", count=3)
    one.until(lambda: len(one.chained()) == 2 and one.chained()[-1] > 3, "a hole in the chain, and the diffs behind it")
    assert one.word(Word.RECONNECTS) == 0

    market.fault(fault="garbage", count=20)
    one.until(lambda: one.word(parse_errors_word(Venue.BINANCE)) >= 10, "garbage is counted")
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 5)

    market.fault(fault="duplicate", count=30)
    market.fault(fault="reorder", stream="*@aggTrade", count=4)
    trades = [fields["seq"] for fields in one.of(Kind.TRADE)]
    one.until(lambda: len(one.of(Kind.TRADE)) > len(trades) + 30)
    numbers = [fields["seq"] for fields in one.of(Kind.TRADE)]
    assert len(numbers) == len(set(numbers))

    gaps, before = len(one.of(Kind.GAP)), one.word(Word.RECONNECTS)
    market.control("DELETE", "faults")
    market.fault(fault="disconnect")
    one.until(lambda: one.word(Word.RECONNECTS) >= before + 2, "both sockets reconnect")
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.GAP)) >= gaps + 2 and len(one.of(Kind.DEPTH)) > depth + 5)
    one.ask_for_snapshot()
    one.until(lambda: one.of(Kind.SNAPSHOT), "the book can be had again")

    code, log = one.stop(process)
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.covers("F10")
def test_a_silent_stream_is_reopened(stack: Callable[..., Stack], market: Simulator) -> None:
    one = stack(*QUICK)
    process = one.start()
    one.until(lambda: len(one.of(Kind.DEPTH)) > 5)
    before = one.word(Word.RECONNECTS)
    market.fault(fault="silence", stream="*@depth*", seconds=60)
    one.until(lambda: one.word(Word.RECONNECTS) > before, "the watchdog acts after 30 s x 0.1")
    one.until(lambda: (feed := one.feed()) is not None and "btcusdt@depth@100ms silent" in (feed.last_error or ""))
    market.control("DELETE", "faults")
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 5)
    code, log = one.stop(process)
    assert code == 0
    assert "silent for" in log


@pytest.mark.covers("F10", "T-M1")
def test_a_rate_limit_pauses_rest_and_nothing_else(stack: Callable[..., Stack], market: Simulator) -> None:
    one = stack(*QUICK, "ingest.open_interest_interval_s=0.2")
    market.fault(fault="status", stream="/fapi/v1/openInterest*", status=429, retry_after=2, count=1)
    one.start()
    one.until(lambda: one.word(Word.RATE_LIMITED) == 1)
    requests, depth = one.word(Word.REST_REQUESTS), len(one.of(Kind.DEPTH))
    one.until(lambda: (feed := one.feed()) is not None and feed.rest_paused_until_ms is not None, "the pause is published")
    one.ask_for_snapshot()
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 5, "the sockets go on")
    assert one.word(Word.REST_REQUESTS) - requests <= 5  # those that were already on their way
    one.until(lambda: one.of(Kind.OPEN_INTEREST) and one.of(Kind.SNAPSHOT), "REST goes on after the pause")


@pytest.mark.covers("F14")
def test_without_descriptors_nothing_new_is_opened_and_nothing_old_is_lost(stack: Callable[..., Stack], market: Simulator) -> None:
    one = stack(*QUICK, "ingest.open_interest_interval_s=0.2")
    process = one.start()
    one.until(lambda: len(one.of(Kind.DEPTH)) > 5 and len(one.of(Kind.OPEN_INTEREST)) > 1)
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 10, "the open sockets go on")
    before = one.word(Word.RECONNECTS)
    market.fault(fault="disconnect")
    one.until(lambda: one.word(Word.RECONNECTS) > before + 10, "tries to reconnect fail one after the other")
    clocks = len(one.of(Kind.CLOCK))
    one.until(lambda: len(one.of(Kind.CLOCK)) > clocks + 4, "the clock goes on")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    depth = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > depth + 10, "it recovers by itself")
    code, log = one.stop(process)
    assert code == 0, log
    assert len(log.splitlines()) < 150


def record(folder: Path, port: int, seconds: float) -> list[Path]:
    """Run `--record-only` for a while; the captures."""
    settings = config.load(f"[simulator]\nenabled = true\nport = {port}\n[symbols.BTC]\n", {}, alone("binance"))
    path, out = folder / "record.json", folder / "captures"
    path.write_bytes(config.encode(settings))
    command = [sys.executable, "-m", "mpengine.ingest.process", "--settings", str(path), "--record-only", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while not (out.is_dir() and any(is_enough(path, seconds) for path in capture_files(out))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0, log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=10)
    return capture_files(out)


def is_enough(path: Path, seconds: float) -> bool:
    lines = list(read_capture(path))
    return any(line.call == "depth" for line in lines) and lines[-1].recv_ns - lines[0].recv_ns > seconds * 1e9


COMPARED = frozenset({Kind.CLOCK, Kind.TRADE, Kind.DEPTH, Kind.SNAPSHOT, Kind.MARK, Kind.LIQUIDATION})
"""Kinds whose place in a served capture is fixed; repeated REST calls come when they are asked for."""


def split(body: bytes) -> Iterator[bytes]:
    """Single records of a batch."""
    offset = 0
    while offset < len(body):
        size = UNIT * units_of(body[offset], int.from_bytes(body[offset + 4 : offset + 8], "little"))
        yield body[offset : offset + size]
        offset += size


def compared(records: Iterable[bytes]) -> list[bytes]:
    """Records to compare, from the first event on: a recording begins with the opening of its sockets, a served one with a tick."""
    return list(itertools.dropwhile(lambda data: data[0] == Kind.CLOCK, (data for data in records if data[0] in COMPARED)))


def replayed(settings: Settings, files: Sequence[Path]) -> Iterator[bytes]:
    """What replay feeds the engine of BTC: the ticks of the grid before each line, then its records."""
    module = venues.build(settings)[0]
    grid = ClockGrid(settings.ingest.clock_interval_ms * 1_000_000)
    for path in files:
        for line in open_capture(path):
            yield from (pack_clock(tick) for tick in grid.until(line.recv_ns))
            if line.direction == "in":
                module.receive(line.connection, line.payload, line.recv_ns)
            elif line.direction == "rest" and line.status == 200:
                module.receive_rest(RestCall(line.call or "", line.symbol, "", 0), 200, line.payload, line.recv_ns)
            yield from (routed.data for routed in module.events() if routed.symbol == "BTC")


def assert_served_as_replayed(one: Stack, files: Sequence[Path]) -> None:
    """The simulator serves `files` with stamps; the ring must hold, byte for byte and in order, what replay feeds."""
    wanted = compared(replayed(one.settings, files))
    one.ask_for_snapshot()
    one.start()

    def got() -> list[bytes]:
        return compared(data for batch in one.batches for data in split(batch.body))

    last_ns = [line.recv_ns for line in open_capture(files[-1])][-1]
    one.until(lambda: one.records and one.records[-1].fields["recv_ts_ns"] >= last_ns - 250_000_000, "the last tick", 60)
    one.until(lambda: len(got()) >= len(wanted), f"{len(wanted)} records")
    for index, (have, want) in enumerate(zip(got(), wanted)):
        assert have == want, f"record {index} of {len(wanted)}: {next(decode(have))} for {next(decode(want))}"
    assert len(got()) == len(wanted)
    assert one.word(Word.LATE_EVENTS) == 0


def test_a_recording_served_with_stamps_gives_the_ring_what_replay_gives(
    stack: Callable[..., Stack], market: Simulator, tmp_path: Path
) -> None:
    files = record(tmp_path, market.port, 2.5)
    lines = [line for path in files for line in read_capture(path)]
    assert {line.direction for line in lines} == {"open", "in", "rest", "lost"}
    assert any(line.call == "depth" and line.status == 200 for line in lines)
    with simulator("--capture", *map(str, files), "--stamps", "--speed", "4") as server:
        assert_served_as_replayed(stack("ingest.receive_clock=sender", port=server.port), files)


@pytest.mark.captures
def test_a_foreign_capture_served_with_stamps_gives_the_ring_what_replay_gives(stack: Callable[..., Stack], captures: Path) -> None:
    files = [captures / "binance_usdm_btcusdt_20230404.gz"]
    more = ("venues.binance.depth_speed=0ms", "venues.binance.trade_stream=trade", "venues.binance.book_ticker=true")
    with simulator("--capture", *map(str, files), "--stamps", "--speed", "50") as server:
        assert_served_as_replayed(stack("ingest.receive_clock=sender", *more, port=server.port), files)


def test_a_second_ingest_is_refused(stack: Callable[..., Stack]) -> None:
    one = stack()
    one.start()
    one.until(lambda: one.batches)
    second = one.start()
    _, log = second.communicate(timeout=20)
    assert second.returncode == 3
    assert b"is held by process" in log


THREE = ("binance", "bybit", "okx")
BOOKS = tuple(f"venues.{name}.order_book=true" for name in THREE[1:])


@pytest.fixture
def three_venues(tmp_path: Path) -> Iterator[tuple[Stack, Simulator]]:
    """A stack of three venues with books, and the market that they share."""
    with of_three(tmp_path, *QUICK, *BOOKS) as found:
        yield found


@contextmanager
def of_three(folder: Path, *overrides: str, symbols: Sequence[str] = ("BTC",)) -> Iterator[tuple[Stack, Simulator]]:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    one = Stack(folder, port, *overrides, venues=THREE, symbols=symbols)
    try:
        with simulator("--settings", str(one.paths.settings), port=port) as market:
            yield one, market
    finally:
        one.close()


def venues_of(one: Stack, kind: Kind) -> set[int]:
    return {fields["venue"] for fields in one.of(kind)}


def states(one: Stack) -> list[str]:
    return [VENUE_STATES[one.word(venue_state_word(Venue[name.upper()]))] for name in THREE]


@pytest.mark.covers("F10")
def test_three_venues_reach_one_ring_and_the_board_says_how_they_are(three_venues: tuple[Stack, Simulator]) -> None:
    one, _market = three_venues
    for name in THREE:  # raised before the start: the wire venues answer by themselves
        one.ask_for_snapshot(Venue[name.upper()])
    process = one.start()
    everyone = {Venue.BINANCE, Venue.BYBIT, Venue.OKX}
    one.until(lambda: venues_of(one, Kind.SNAPSHOT) == everyone and venues_of(one, Kind.DEPTH) == everyone, "books of all")
    one.until(lambda: venues_of(one, Kind.OPEN_INTEREST) == everyone, "open interest of all")
    one.until(lambda: states(one) == ["LIVE"] * 3)
    for name in THREE:
        assert one.word(venue_streams_word(Venue[name.upper()])) & 0xFFFF >= 1
    assert one.word(Word.RECONNECTS) == 0
    one.until(lambda: one.word(Word.RESYNC_DONE) == 1, "the polled one")

    for venue in (Venue.BYBIT, Venue.OKX):
        snapshots = len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == venue])
        done = one.word(Word.RESYNC_DONE)
        one.ask_for_snapshot(venue)
        one.until(
            lambda venue=venue, snapshots=snapshots: (  # type: ignore[misc]
                len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == venue]) > snapshots
            ),
            "a new subscription brings another snapshot",
        )
        one.until(lambda done=done: one.word(Word.RESYNC_DONE) == done + 1)  # type: ignore[misc]
    assert one.word(Word.RECONNECTS) == 0

    code, log = one.stop(process)
    assert code == 0, log
    assert "Traceback" not in log


@pytest.mark.covers("F10")
def test_a_silent_book_of_a_wire_venue_is_subscribed_anew_and_then_gets_a_new_socket(
    three_venues: tuple[Stack, Simulator],
) -> None:
    one, market = three_venues
    process = one.start()
    one.until(lambda: venues_of(one, Kind.DEPTH) == {Venue.BINANCE, Venue.BYBIT, Venue.OKX}, "books of all")
    market.fault(fault="silence", venue="bybit", socket="linear", seconds=60)
    one.until(lambda: (feed := one.feed("bybit")) is not None and feed.reasons.get("resubscribed", 0) >= 1, "subscribed anew")
    one.until(lambda: (feed := one.feed("bybit")) is not None and feed.reconnects >= 1, "that did not help: a new socket")
    assert all((feed := one.feed(name)) is not None and feed.reconnects == 0 for name in ("binance", "okx"))
    market.control("DELETE", "faults")
    snapshots = len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == Venue.BYBIT])

    def brought() -> bool:
        one.ask_for_snapshot(Venue.BYBIT)  # as the engine does while its book is unsynced: the first one was swallowed
        return len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == Venue.BYBIT]) > snapshots

    one.until(brought, "the book can be had again")
    code, log = one.stop(process)
    assert code == 0
    assert "subscribed anew" in log


@pytest.mark.covers("F10")
def test_a_silent_symbol_costs_the_others_nothing_and_is_back_at_once(tmp_path: Path) -> None:
    trades = ("venues.bybit.trades=true", "venues.bybit.tickers=true", "venues.okx.trades=true", "venues.okx.mark_price=true")
    scale = "ingest.watchdog_scale=0.2"  # BTC must not be late by its limits on a machine that is busy
    with of_three(tmp_path, *QUICK, scale, *BOOKS, *trades, symbols=("BTC", "ETH")) as (one, market):
        process = one.start()
        everyone = {Venue.BINANCE, Venue.BYBIT, Venue.OKX}
        one.until(lambda: venues_of(one, Kind.DEPTH) == everyone and venues_of(one, Kind.TRADE) == everyone, "streams of all")
        streams = {"binance": "ethusdt@aggTrade", "bybit": "publicTrade.ETHUSDT", "okx": "trades:ETH-USDT-SWAP"}
        one.until(lambda: all(stream_of(one, name, theirs)["state"] == "LIVE" for name, theirs in streams.items()), "ETH trades")
        for name, theirs in (("binance", "ethusdt@*"), ("bybit", "*.ETHUSDT"), ("okx", "*ETH-USDT-SWAP")):
            market.fault(fault="silence", venue=name, stream=theirs)

        # The marks of a symbol that never rests would have cost each connection by now, after 3, 12 and 12 s.
        one.until(lambda: all(stream_of(one, name, theirs)["age_s"] > 16 for name, theirs in streams.items()), "a long silence", 60)
        feeds = {name: feed for name in THREE if (feed := one.feed(name)) is not None}
        assert {name: feed.reconnects for name, feed in feeds.items()} == dict.fromkeys(THREE, 0)
        assert all("replaced" not in feed.reasons for feed in feeds.values())
        assert all(feed.reasons["resubscribed"] >= 1 for feed in feeds.values())
        assert one.of(Kind.GAP) == []
        for venue in everyone:
            own = [fields for fields in one.of(Kind.DEPTH) if fields["venue"] == venue]
            assert all(after["prev_seq"] == before["seq"] for before, after in itertools.pairwise(own)), venue.label
        snapshots = [fields["venue"] for fields in one.of(Kind.SNAPSHOT)]
        assert sorted(snapshots) == [Venue.BYBIT, Venue.OKX], "no book of BTC had to begin anew"
        for name, feed in feeds.items():
            assert feed.state == "LIVE"
            busy = [one for stream, one in feed.streams.items() if "BTC" in stream.upper() and "iquidation" not in stream]
            assert len(busy) >= 3 and all(one.state != "DOWN" for one in busy)
            assert feed.streams[streams[name]].state == "STALE"

        market.control("DELETE", "faults")
        one.until(lambda: all(stream_of(one, name, theirs)["state"] == "LIVE" for name, theirs in streams.items()), "all are back")
        assert one.word(Word.RECONNECTS) == 0

        market.fault(fault="silence", venue="bybit", stream="orderbook*BTCUSDT", seconds=60)
        one.until(lambda: (feed := one.feed("bybit")) is not None and feed.reasons.get("replaced", 0) == 1, "BTC never rests")
        assert one.word(Word.RECONNECTS) == 0 and one.of(Kind.GAP) == []
        market.control("DELETE", "faults")
        market.fault(fault="silence", venue="bybit", socket="linear", seconds=60)
        one.until(lambda: (feed := one.feed("bybit")) is not None and feed.reconnects >= 1, "nothing comes at all")
        code, log = one.stop(process)
        assert code == 0 and "Traceback" not in log
        told = [line for line in map(json.loads, log.splitlines()) if " silent for " in line["message"]]
        assert {line["level"] for line in told if "ETH" in line["message"].upper()} == {"INFO"}, "its rest is no fault"
        assert {line["level"] for line in told if "BTC" in line["message"].upper()} == {"WARNING"}


def stream_of(one: Stack, venue: str, name: str) -> dict[str, Any]:
    """State of a stream in the newest FEEDS document, and its age there."""
    feed = one.feed(venue)
    stream = None if feed is None else feed.streams.get(name)
    if stream is None or stream.last_ms is None:
        return {"state": None, "age_s": 0.0}
    return {"state": stream.state, "age_s": time.time() - stream.last_ms / 1000}


@pytest.mark.covers("E-M6")
def test_a_stop_that_hangs_ends_all_the_same_and_says_where() -> None:
    """A task that cannot be cancelled: the loop would wait for it for ever."""
    code = (
        "import asyncio, threading, uvloop\n"
        "from mpengine.ingest import process\n"
        "async def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
        "async def main():\n"
        "    task = asyncio.create_task(stubborn())\n"
        "    await asyncio.sleep(0)\n"
        "    threading.Timer(0.2, process._give_up).start()\n"
        "uvloop.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=20)
    assert ended.returncode == -signal.SIGABRT
    assert b"uvloop" in ended.stderr


@pytest.mark.covers("F10")
def test_an_announced_end_is_answered_by_a_successor_before_it_comes(three_venues: tuple[Stack, Simulator]) -> None:
    one, market = three_venues
    process = one.start()
    one.until(lambda: Venue.OKX in venues_of(one, Kind.DEPTH))
    gaps = len([fields for fields in one.of(Kind.GAP) if fields["venue"] == Venue.OKX])

    market.fault(fault="notice", venue="okx")
    snapshots = len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == Venue.OKX])
    one.until(
        lambda: len([fields for fields in one.of(Kind.SNAPSHOT) if fields["venue"] == Venue.OKX]) > snapshots,
        "the successor brings its own snapshot",
    )
    one.until(lambda: (feed := one.feed("okx")) is not None and feed.connections == 1, "one connection is left")
    assert len([fields for fields in one.of(Kind.GAP) if fields["venue"] == Venue.OKX]) == gaps
    assert one.word(Word.RECONNECTS) == 0
    code, log = one.stop(process)
    assert code == 0
    assert "its successor is opened" in log


@pytest.mark.covers("F10")
def test_a_blocked_venue_is_left_alone_and_the_others_go_on(three_venues: tuple[Stack, Simulator]) -> None:
    one, market = three_venues
    market.fault(fault="status", venue="bybit", socket="linear", status=451)
    process = one.start()
    one.until(lambda: states(one)[1] == "GEO_BLOCKED", "Bybit refuses this address")
    one.until(lambda: states(one) == ["LIVE", "GEO_BLOCKED", "LIVE"])
    market.control("DELETE", "faults")
    tries = one.word(Word.RECONNECTS)
    okx = len(one.of(Kind.DEPTH))
    one.until(lambda: len(one.of(Kind.DEPTH)) > okx + 30, "the others go on")
    assert one.word(Word.RECONNECTS) == tries
    assert states(one)[1] == "GEO_BLOCKED"
    code, log = one.stop(process)
    assert code == 0
    assert log.count("blocked, no socket before the next start") == 1
    assert "Traceback" not in log
