"""Writer states with a made-up /proc, and once with real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shm import attach, layout, liveness
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileState, depth_spec
from shm.liveness import Probe, ProcessIdentity, WriterState, boot_id, own_identity, start_ticks, writer_state
from shm.words import Words
from tests.shm.rig import Child, memory, plain_spec, wait_until

BOOT = "01234567-89ab-cdef-0123-456789abcdef"
OTHER_BOOT = "11234567-89ab-cdef-0123-456789abcdef"
WHO = ProcessIdentity(42, 777, 0x0123456789ABCDEF, 0x0123456789ABCDEF)
SPEC = depth_spec("BTC", 8)


def fake_proc(root: Path, *, boot: str = BOOT, pid: int = 42, state: str = "S", ticks: int = 777, name: str = "py") -> Path:
    random_dir = root / "sys/kernel/random"
    random_dir.mkdir(parents=True)
    (random_dir / "boot_id").write_text(boot + "\n")
    (root / str(pid)).mkdir()
    rest = " ".join(["1"] * 18)
    (root / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {rest} {ticks} 0 0\n")
    return root


def judged(root: Path, beat_age_ns: int = 0) -> WriterState:
    return writer_state(WHO, 10**12 - beat_age_ns, Probe(proc=root, monotonic_ns=lambda: 10**12))


def test_the_same_process_of_this_boot_is_live(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path)) is WriterState.LIVE


def test_another_boot_is_dead(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path, boot=OTHER_BOOT)) is WriterState.DEAD


def test_a_pid_that_is_gone_is_dead(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path, pid=43)) is WriterState.DEAD


def test_a_pid_used_again_is_dead(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path, ticks=778)) is WriterState.DEAD


@pytest.mark.parametrize("state", ["Z", "X", "x"])
def test_a_zombie_is_dead(tmp_path: Path, state: str) -> None:
    assert judged(fake_proc(tmp_path, state=state)) is WriterState.DEAD


@pytest.mark.parametrize("state", ["R", "S", "D", "T", "t", "I"])
def test_any_other_state_is_alive(tmp_path: Path, state: str) -> None:
    assert judged(fake_proc(tmp_path, state=state)) is WriterState.LIVE


def test_a_name_with_spaces_and_brackets_does_not_confuse(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path, name="a) Z (b")) is WriterState.LIVE


def test_an_old_beat_is_stalled(tmp_path: Path) -> None:
    root = fake_proc(tmp_path)
    assert judged(root, 5_000_000_000) is WriterState.LIVE
    assert judged(root, 5_000_000_001) is WriterState.STALLED


def test_dead_goes_before_stalled(tmp_path: Path) -> None:
    assert judged(fake_proc(tmp_path, ticks=1), 10**11) is WriterState.DEAD


def test_in_another_pid_namespace_only_the_beat_counts(tmp_path: Path) -> None:
    probe = Probe(proc=tmp_path / "nothing", shared_pids=False, monotonic_ns=lambda: 10**12)
    assert writer_state(WHO, 10**12, probe) is WriterState.LIVE
    assert writer_state(WHO, 0, probe) is WriterState.STALLED


def test_a_process_that_goes_while_it_is_read_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> bytes:
        raise ProcessLookupError

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert start_ticks(1) is None


def test_boot_id_is_two_words(tmp_path: Path) -> None:
    assert boot_id(fake_proc(tmp_path)) == (0x0123456789ABCDEF, 0x0123456789ABCDEF)


def test_own_identity_is_alive() -> None:
    identity = own_identity()
    assert identity.pid == os.getpid()
    assert liveness.is_alive(identity)
    assert not liveness.is_alive(ProcessIdentity(identity.pid, identity.start_ticks + 1, identity.boot_hi, identity.boot_lo))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (FileState.NEW, WriterState.CLOSED),
        (FileState.CLOSED, WriterState.CLOSED),
        (FileState.RETIRED, WriterState.RETIRED),
        (FileState.ATTACHING, WriterState.LIVE),
        (FileState.LIVE, WriterState.LIVE),
    ],
)
def test_what_the_file_says_goes_first(state: FileState, expected: WriterState) -> None:
    words = Words(memory(SPEC))
    attach.begin(words, None)
    words.store_release(layout.STATE_WORD, state)
    assert attach.state_of_writer(words, Probe()) is expected


def test_identity_and_beat_are_there_before_a_new_epoch_is_seen() -> None:
    words = Words(memory(SPEC))
    assert attach.begin(words, None) == 1
    identity = own_identity()
    assert words.load_acquire(layout.PID_WORD) == identity.pid
    assert words.load_acquire(layout.START_TICKS_WORD) == identity.start_ticks
    assert (words.load_acquire(layout.BOOT_HI_WORD), words.load_acquire(layout.BOOT_LO_WORD)) == boot_id()
    assert words.load_acquire(layout.STATE_WORD) == FileState.ATTACHING
    assert words.load_acquire(layout.ATTACHED_NS_WORD) > 0


@pytest.mark.slow
@pytest.mark.covers("F5")
def test_states_of_a_real_writer(spawn: Callable[..., Child], tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    FrameWriter.open(path, plain_spec(8, 8192)).close()
    writer = spawn("frame-writer", path, 8, 8192, 4096, 1000)
    assert writer.line() == "attached 2 0 0"
    with FrameReader.open(path) as reader:
        wait_until(lambda: reader.head() > 10, "frames")
        assert reader.writer_state() is WriterState.LIVE
        os.kill(writer.pid, 9)
        # SIGKILL takes it down to a zombie; it is reaped only at the end of the test.
        wait_until(lambda: reader.writer_state() is WriterState.DEAD, "dead, while still a zombie")
        assert Path(f"/proc/{writer.pid}/stat").exists()
