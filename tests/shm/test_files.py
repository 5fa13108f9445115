"""Files: complete or not there, locked, checked, never resized; what a full disk, a stranger's file or a kill leave behind."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shm import files, layout
from shm.board import Board, BoardReader
from shm.document import DocumentReader, DocumentWriter
from shm.errors import IdentityMismatch, LayoutMismatch, Locked, Missing, NoSpace, ShmError
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileState, board_spec, candles_spec, depth_spec, event_ring_spec, feeds_spec
from shm.liveness import WriterState
from shm.words import Words
from tests.shm.rig import Child, oracle, plain_spec, wait_until

SPEC = depth_spec("BTC", 8)
PLAIN = plain_spec(8, 8192)  # what the children write
Spawn = Callable[..., Child]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def fill_up(directory: Path) -> None:
    """Write until there is no room."""
    with (directory / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


class Calls:
    """Notes the order of the system calls that publish a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        for name in ("posix_fallocate", "pwrite", "fsync", "link", "unlink"):
            self._wrap(monkeypatch, os, name)
        self._wrap(monkeypatch, Path, "rename")

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        real = getattr(owner, name)

        def noted(*arguments: object, **named: object) -> object:
            target = arguments[0]
            directory = name == "fsync" and isinstance(target, int) and stat.S_ISDIR(os.fstat(target).st_mode)
            self.log.append("fsync directory" if directory else name)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, noted)


def test_a_new_file_is_allocated_written_synced_named_and_its_directory_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    assert files.create(tmp_path / "depth.ring", SPEC)
    assert [call for call in calls.log if call != "unlink"] == [
        "posix_fallocate", "pwrite", "pwrite", "fsync", "link", "fsync directory",
    ]  # fmt: skip
    assert names(tmp_path) == ["depth.ring"]


def test_a_replacement_is_complete_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.create(tmp_path / "depth.ring", SPEC)
    calls = Calls(monkeypatch)
    files.replace(tmp_path / "depth.ring", depth_spec("BTC", 16))
    assert calls.log[-4:] == ["pwrite", "fsync", "rename", "fsync directory"]
    assert names(tmp_path) == ["depth.ring"]


def test_sizes_and_modes(tmp_path: Path) -> None:
    path = tmp_path / "BTC" / "depth.ring"
    old = os.umask(0o077)
    try:
        files.create(path, SPEC)
    finally:
        os.umask(old)
    assert path.stat().st_size == SPEC.file_bytes
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) & ~0o750 == 0
    assert path.stat().st_blocks * 512 >= SPEC.file_bytes, "allocated, not a hole"


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "depth.ring"
    assert files.create(path, SPEC)
    inode = path.stat().st_ino
    assert not files.create(path, SPEC)
    assert path.stat().st_ino == inode
    assert names(tmp_path) == ["depth.ring"]


def test_only_the_last_directory_is_made(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no directory a for b"):
        files.create(tmp_path / "a" / "b" / "depth.ring", SPEC)
    with pytest.raises(Missing):
        FrameWriter.open(tmp_path / "a" / "b" / "depth.ring", SPEC)


def test_every_new_file_has_another_uuid(tmp_path: Path) -> None:
    seen = set()
    for number in range(20):
        with FrameWriter.open(tmp_path / str(number), SPEC) as writer:
            seen.add(writer.uuid)
    assert len(seen) == 20
    assert 0 not in seen


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_a_typed_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for publish in (files.create, files.replace):
        with pytest.raises(NoSpace, match=f"no room for {SPEC.file_bytes} bytes"):
            publish(tmp_path / "depth.ring", SPEC)
        assert names(tmp_path) == []


def test_another_error_while_creating_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="Input/output"):
        files.create(tmp_path / "depth.ring", SPEC)
    assert names(tmp_path) == []


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "depth.ring"
    with FrameWriter.open(path, SPEC) as writer:
        writer.publish(b"old", ts_ns=1, kind=1)

    def broken(self: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="Input/output"):
        files.replace(path, depth_spec("BTC", 16))
    assert names(tmp_path) == ["depth.ring"]
    with FrameReader.open(path, SPEC) as reader:
        slot = reader.latest()
        assert slot is not None
        assert slot.payload == b"old"
    FrameWriter.open(path, SPEC).close()


def test_a_tmpfs_that_is_too_small_refuses_at_create(small_tmpfs: Path) -> None:
    with pytest.raises(NoSpace):
        create_event_ring(small_tmpfs / "events-BTC.ring", event_ring_spec("BTC", 32_768))
    assert names(small_tmpfs) == []
    create_event_ring(small_tmpfs / "events-BTC.ring", event_ring_spec("BTC", 4096))


def test_a_tmpfs_that_fills_up_later_harms_no_ring(small_tmpfs: Path) -> None:
    path, spec = small_tmpfs / "events-BTC.ring", event_ring_spec("BTC", 4096)
    create_event_ring(path, spec)
    fill_up(small_tmpfs)
    with EventWriter.open(path, spec) as writer, EventReader.open(path, spec) as reader:
        for seq in range(1000):
            assert writer.put(oracle(seq, 64 * 20), records=20, source=1, first_seq=seq)
            batch = reader.get()
            assert batch is not None
            assert batch.body == oracle(seq, 64 * 20)
            reader.release(batch.end)
        assert writer.head > 4 * 4096


STORE_INTO_A_HOLE = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 600_000)
area = mmap.mmap(fd, 600_000)
for offset in range(0, 600_000, 4096):
    area[offset] = 1
"""


def test_a_consumer_lock_that_finds_no_room_is_a_typed_error(small_tmpfs: Path) -> None:
    path = small_tmpfs / "events-BTC.ring"
    create_event_ring(path, event_ring_spec("BTC", 64))
    files.consumer_lock(path).unlink()
    fill_up(small_tmpfs)
    before = descriptors()
    with pytest.raises(NoSpace):
        EventReader.open(path)
    assert descriptors() == before


def test_the_control_without_fallocate_dies_of_sigbus(small_tmpfs: Path) -> None:
    fill_up(small_tmpfs)
    child = subprocess.run([sys.executable, "-c", STORE_INTO_A_HOLE, str(small_tmpfs / "hole")], check=False, timeout=60)
    assert child.returncode == -signal.SIGBUS


def test_holes_of_a_copied_file_are_filled_at_attach_or_refused(small_tmpfs: Path, tmp_path: Path) -> None:
    whole = tmp_path / "depth.ring"
    FrameWriter.open(whole, SPEC).close()
    sparse = small_tmpfs / "depth.ring"
    with sparse.open("wb") as copy:
        copy.write(whole.read_bytes()[:4096])
        copy.truncate(SPEC.file_bytes)
    FrameWriter.open(sparse, SPEC).close()
    assert sparse.stat().st_blocks * 512 >= SPEC.file_bytes

    too_large = candles_spec("BTC", 8000)
    FrameWriter.open(tmp_path / "candles.ring", too_large).close()
    with (small_tmpfs / "candles.ring").open("wb") as copy:
        copy.write((tmp_path / "candles.ring").read_bytes()[:4096])
        copy.truncate(too_large.file_bytes)
    with pytest.raises(NoSpace):
        FrameWriter.open(small_tmpfs / "candles.ring", too_large)


CASES = [
    ("empty", lambda raw: b"", LayoutMismatch),
    ("shorter than a header", lambda raw: raw[:100], LayoutMismatch),
    ("header only", lambda raw: raw[:4096], LayoutMismatch),
    ("truncated by one byte", lambda raw: raw[:-1], LayoutMismatch),
    ("truncated by half", lambda raw: raw[: len(raw) // 2], LayoutMismatch),
    ("longer", lambda raw: raw + b"\0", LayoutMismatch),
    ("zeros", lambda raw: bytes(len(raw)), LayoutMismatch),
    ("magic", lambda raw: b"NOTOURS\0" + raw[8:], LayoutMismatch),
    ("version", lambda raw: raw[:8] + b"\2" + raw[9:], LayoutMismatch),
    ("uuid", lambda raw: raw[:48] + b"\xff\xff" + raw[50:], LayoutMismatch),
    ("digest kind", lambda raw: raw[:36] + b"\2" + raw[37:], IdentityMismatch),
]


@pytest.mark.parametrize(("_name", "damage", "error"), CASES, ids=[case[0] for case in CASES])
def test_a_file_that_is_not_sound_is_refused_by_reader_and_writer(
    tmp_path: Path, _name: str, damage: Callable[[bytes], bytes], error: type[ShmError]
) -> None:
    path = tmp_path / "depth.ring"
    FrameWriter.open(path, SPEC).close()
    changed = damage(path.read_bytes())
    path.write_bytes(changed)
    for attempt in (lambda: FrameReader.open(path, SPEC), lambda: FrameReader.open(path), lambda: FrameWriter.open(path, SPEC)):
        with pytest.raises(error):
            attempt()
    assert path.read_bytes() == changed, "nothing was repaired, resized or deleted"


@pytest.mark.covers("E-C2")
def test_a_thousand_failures_leak_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "depth.ring"
    FrameWriter.open(path, SPEC).close()
    path.write_bytes(path.read_bytes()[:-1])
    before = descriptors()
    for _ in range(500):
        with pytest.raises(LayoutMismatch):
            FrameReader.open(path)
        with pytest.raises(LayoutMismatch):
            FrameWriter.open(path, SPEC)
    for _ in range(200):
        with pytest.raises(Missing):
            FrameReader.open(tmp_path / "nothing")
    assert descriptors() == before


@pytest.mark.covers("E-C2")
def test_opening_and_closing_every_kind_leaks_no_descriptor(tmpfs: Path) -> None:
    ring, board = tmpfs / "events-BTC.ring", tmpfs / "board"

    def once() -> None:
        create_event_ring(ring, event_ring_spec("BTC", 64))
        with EventWriter.open(ring, event_ring_spec("BTC", 64)), EventReader.open(ring):
            pass
        with FrameWriter.open(tmpfs / "depth.ring", SPEC), FrameReader.open(tmpfs / "depth.ring"):
            pass
        with DocumentWriter.open(tmpfs / "feeds", feeds_spec()), DocumentReader.open(tmpfs / "feeds"):
            pass
        with Board.create(board, [], {}), BoardReader.open(board):
            pass

    once()
    before = descriptors()
    for _ in range(30):
        once()
    assert descriptors() == before


def test_a_file_that_lost_its_name_while_being_locked_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "depth.ring"
    files.create(path, SPEC)
    real = files._try_lock
    replaced: list[int] = []

    def slow(fd: int) -> bool:
        if not replaced:
            replaced.append(1)
            path.unlink()
            files.create(path, SPEC)
        return real(fd)

    monkeypatch.setattr(files, "_try_lock", slow)
    with FrameWriter.open(path, SPEC) as writer:
        assert os.fstat(writer.fd).st_ino == path.stat().st_ino


def test_a_file_that_went_while_being_locked_is_created_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "depth.ring"
    files.create(path, SPEC)
    real = files._try_lock
    gone: list[int] = []

    def slow(fd: int) -> bool:
        if not gone:
            gone.append(1)
            path.unlink()
        return real(fd)

    monkeypatch.setattr(files, "_try_lock", slow)
    with FrameWriter.open(path, SPEC) as writer:
        assert os.fstat(writer.fd).st_ino == path.stat().st_ino


def test_a_locked_file_that_says_no_pid(tmp_path: Path) -> None:
    path = tmp_path / "depth.ring"
    files.create(path, SPEC)
    holder = files._open_locked(path)
    with pytest.raises(Locked) as caught:
        FrameWriter.open(path, SPEC)
    os.close(holder)
    assert caught.value.holder_pid is None
    assert str(caught.value) == "depth.ring is held by another process"


def test_new_geometry_takes_the_name_and_readers_notice(place: Path) -> None:
    path = place / "depth.ring"
    with FrameWriter.open(path, SPEC) as writer:
        writer.publish(b"old", ts_ns=1, kind=1)
        with pytest.raises(Locked):
            files.replace(path, depth_spec("BTC", 16))
    with FrameReader.open(path, SPEC) as reader:
        assert not reader.replaced()
        files.replace(path, depth_spec("BTC", 16))
        assert reader.replaced()
        assert reader.writer_state() is WriterState.RETIRED
        slot = reader.latest()
        assert slot is not None
        assert slot.payload == b"old", "the old data is served until the reader opens again"
    with pytest.raises(LayoutMismatch, match="slots must be 8, was 16"):
        FrameReader.open(path, SPEC)
    with FrameReader.open(path, depth_spec("BTC", 16)) as reader:
        assert reader.latest() is None


def test_an_unlinked_file_stays_readable_and_is_told(place: Path) -> None:
    path = place / "depth.ring"
    with FrameWriter.open(path, SPEC) as writer, FrameReader.open(path) as reader:
        writer.publish(b"x", ts_ns=1, kind=1)
        path.unlink()
        assert reader.replaced()
        assert writer.publish(b"y", ts_ns=1, kind=1) == 1
        slot = reader.latest()
        assert slot is not None
        assert slot.payload == b"y"
        files.create(path, SPEC)
        assert reader.replaced(), "another file under the name is not ours"


def test_a_stranger_under_the_name_is_replaced_without_touching_it(tmp_path: Path) -> None:
    path = tmp_path / "events-BTC.ring"
    path.write_text("short")
    create_event_ring(path, event_ring_spec("BTC", 64))
    stranger = tmp_path / "board"
    stranger.write_bytes(b"x" * 10_000)
    kept = os.open(stranger, os.O_RDONLY)
    Board.create(stranger, [], {}).close()
    assert os.pread(kept, 10_000, 0) == b"x" * 10_000
    os.close(kept)


def test_a_retired_file_without_successor_can_be_attached_again(tmp_path: Path) -> None:
    """Killed between "retired" and the rename: the old file still has the name, and its writer goes on with it."""
    path = tmp_path / "depth.ring"
    with FrameWriter.open(path, SPEC) as writer:
        writer.publish(b"x", ts_ns=1, kind=1)
    raw = bytearray(path.read_bytes())
    Words(raw).store_release(layout.STATE_WORD, FileState.RETIRED)
    path.write_bytes(raw)
    with FrameReader.open(path) as reader:
        assert reader.replaced()
    with FrameWriter.open(path, SPEC) as writer, FrameReader.open(path) as reader:
        assert not reader.replaced()
        assert writer.next_no == 1


@pytest.mark.covers("T-L1")
def test_temporary_files_of_killed_creators_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "depth.ring"
    left = tmp_path / ".depth.ring.tmp-00"
    left.write_bytes(b"half")
    other = tmp_path / ".candles.ring.tmp-00"
    other.write_bytes(b"half")
    fd, living = files._new_temporary(path)
    files.create(path, SPEC)
    assert names(tmp_path) == sorted([other.name, living.name, "depth.ring"])
    os.close(fd)


def test_a_temporary_file_that_goes_while_it_is_looked_at_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_stale", lambda path: iter([tmp_path / ".depth.ring.tmp-gone"]))
    assert files.create(tmp_path / "depth.ring", SPEC)


def test_a_temporary_file_taken_for_a_stale_one_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files._try_lock
    stolen: list[int] = []

    def slow(fd: int) -> bool:
        if not stolen:
            stolen.append(1)
            next(files._stale(tmp_path / "depth.ring")).unlink()
        return real(fd)

    monkeypatch.setattr(files, "_try_lock", slow)
    assert files.create(tmp_path / "depth.ring", SPEC)
    assert names(tmp_path) == ["depth.ring"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.stress)])
def test_creators_killed_at_any_moment_leave_a_whole_file_or_none(spawn: Spawn, tmp_path: Path, kills: int) -> None:
    path = tmp_path / "depth.ring"
    for kill in range(kills):
        creator = spawn("creator", path)
        creator.expect("creating")
        wait_until(lambda n=kill: n % 5 < 1 or path.exists(), "a file", 10)  # type: ignore[misc]
        creator.kill()
        if path.exists():
            FrameReader.open(path, SPEC).close()
    FrameWriter.open(path, SPEC).close()
    files.replace(path, SPEC)
    assert names(tmp_path) == ["depth.ring"]


@pytest.mark.slow
@pytest.mark.covers("E-H1")
def test_two_creators_at_once_end_with_one_writer(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "depth.ring"
    for _ in range(5):
        path.unlink(missing_ok=True)
        both = [spawn("opener", path) for _ in range(4)]
        answers = [child.line() for child in both]
        assert sorted(answers)[-1] == "open"
        assert answers.count("open") == 1
        assert answers.count("locked") == 3
        for child in both:
            child.kill()
        assert names(tmp_path) == ["depth.ring"]


@pytest.mark.slow
@pytest.mark.covers("E-H1")
def test_a_lock_is_free_at_once_after_sigkill(spawn: Spawn, place: Path) -> None:
    path = place / "depth.ring"
    writer = spawn("frame-writer", path, 8, PLAIN.stride, 100, 1000)
    assert writer.line().startswith("attached 1 ")
    with pytest.raises(Locked) as caught:
        FrameWriter.open(path, PLAIN)
    assert caught.value.holder_pid == writer.pid
    writer.kill()
    FrameWriter.open(path, PLAIN).close()


@pytest.mark.slow
def test_a_stopped_writer_keeps_its_lock_and_a_killed_one_cannot_come_back(spawn: Spawn, tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    writer = spawn("frame-writer", path, 8, PLAIN.stride, 100, 1000)
    assert writer.line().startswith("attached 1 ")
    os.kill(writer.pid, signal.SIGSTOP)
    with pytest.raises(Locked):
        FrameWriter.open(path, PLAIN)
    os.kill(writer.pid, signal.SIGKILL)
    wait_until(lambda: _opens(path), "free after SIGKILL of a stopped process")


def _opens(path: Path) -> bool:
    try:
        FrameWriter.open(path, PLAIN).close()
    except Locked:
        return False
    return True


@pytest.mark.covers("T-M9", "T-L3")
def test_sweep_removes_only_our_files_that_nobody_holds(tmpfs: Path) -> None:
    create_event_ring(tmpfs / "events-BTC.ring", event_ring_spec("BTC", 64))
    create_event_ring(tmpfs / "events-ETH.ring", event_ring_spec("ETH", 64))
    Board.create(tmpfs / "board", [], {}).close()
    EventReader.open(tmpfs / "events-BTC.ring").close()
    (tmpfs / ".board.tmp-77").write_bytes(b"half")
    (tmpfs / "settings.json").write_text("{}")
    (tmpfs / "notes").write_text("MPRING1")
    (tmpfs / "subdirectory").mkdir()
    (tmpfs / "link").symlink_to(tmpfs / "board")
    os.mkfifo(tmpfs / "fifo")
    with EventWriter.open(tmpfs / "events-ETH.ring", event_ring_spec("ETH", 64)), EventReader.open(tmpfs / "events-ETH.ring"):
        removed = files.sweep(tmpfs)
        assert sorted(path.name for path in removed) == [
            ".board.tmp-77", "board", "events-BTC.ring", "events-BTC.ring.consumer",
        ]  # fmt: skip
        assert names(tmpfs) == [
            "events-ETH.ring", "events-ETH.ring.consumer", "fifo", "link", "notes", "settings.json", "subdirectory",
        ]  # fmt: skip
    assert len(files.sweep(tmpfs)) == 2


def test_sweep_leaves_a_file_that_was_replaced_meanwhile(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmpfs / "events-BTC.ring"
    create_event_ring(path, event_ring_spec("BTC", 64))
    real = files._try_lock

    def slow(fd: int) -> bool:
        monkeypatch.setattr(files, "_try_lock", real)
        path.unlink()
        create_event_ring(path, event_ring_spec("BTC", 64))
        return real(fd)

    monkeypatch.setattr(files, "_try_lock", slow)
    assert path not in files.sweep(tmpfs)
    assert path.exists()


def test_a_file_of_another_kind_is_refused_by_every_opener(tmpfs: Path) -> None:
    files.create(tmpfs / "board", board_spec())
    with pytest.raises(IdentityMismatch, match="kind"):
        FrameReader.open(tmpfs / "board", SPEC)
    with pytest.raises(IdentityMismatch, match="kind"):
        EventReader.open(tmpfs / "board", event_ring_spec("BTC", 64))
    with pytest.raises(IdentityMismatch, match="kind"):
        DocumentReader.open(tmpfs / "board", feeds_spec())
    assert names(tmpfs) == ["board"]
