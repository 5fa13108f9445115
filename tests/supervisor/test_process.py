"""The supervisor as a process, over real child processes (dummies), with its times shortened. Rows of the table: P1-P14, F1-F7."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm.board_words import State, Word
from shm.liveness import WriterState
from supervisor.policy import HangReason
from tests.conftest import skip_or_fail
from tests.supervisor.rig import ROOT, Tree, gone, tree, until

pytestmark = pytest.mark.slow

CHILDREN = ("ingest", "engine-BTC", "engine-ETH", "engine-SOL", "api-master")


@pytest.fixture(scope="module")
def steady() -> Iterator[Tree]:
    """A healthy tree that survives its tests; two of its engines fall ill while the file `sick` exists."""
    settings = {"supervisor.hang_after_s": "1.5", "supervisor.restart_budget": "100"}
    with tree(settings) as one:
        one.modes(engine_ETH={"mode": "stuck"}, engine_SOL={"mode": "spin"}, ingest={"mode": "flood", "lines": 3000})
        one.start()
        yield one
        assert one.stop() == 0


def lives(one: Tree, *but: str) -> dict[str, int]:
    """Generation of every child except `but`."""
    return {name: one.word(name, Word.GENERATION) for name in CHILDREN if name not in but}


@pytest.mark.covers("P1", "P14", "F15")
@pytest.mark.parametrize("name", CHILDREN)
def test_killed_child_lives_again_and_no_other_is_touched(steady: Tree, name: str) -> None:
    others, generation = lives(steady, name), steady.word(name, Word.GENERATION)
    suspected = steady.word(name, Word.OOM_SUSPECTED)
    os.kill(steady.child(name), signal.SIGKILL)
    steady.await_new_life(name, generation)
    assert steady.word(name, Word.RESTARTS) == generation
    assert steady.word(name, Word.LAST_SIGNAL) == signal.SIGKILL
    assert steady.word(name, Word.OOM_SUSPECTED) == suspected + 1
    assert steady.word(name, Word.KILLS) == 0
    assert lives(steady, name) == others
    steady.await_log(f"{name} ended: signal 9 (SIGKILL), out of memory?")


@pytest.mark.covers("P1", "F2")
def test_all_engines_killed_at_once_come_back(steady: Tree) -> None:
    engines = [name for name in CHILDREN if name.startswith("engine")]
    before, others = lives(steady), lives(steady, *engines)
    for name in engines:
        os.kill(steady.child(name), signal.SIGKILL)
    for name in engines:
        steady.await_new_life(name, before[name])
    assert lives(steady, *engines) == others


@pytest.mark.covers("P2", "F6", "X-L4")
def test_engines_without_progress_are_dumped_killed_and_started(steady: Tree) -> None:
    """engine-ETH goes on beating and engine-SOL holds the interpreter; both have input that they leave."""
    names = ("engine-ETH", "engine-SOL")
    before, others, length = lives(steady), lives(steady, *names), len(steady.log())
    sick = steady.data / "sick"
    sick.touch()
    for name in names:
        until(f"kill of {name}", lambda name=name: steady.word(name, Word.KILLS))
    sick.unlink()
    for name in names:
        steady.await_new_life(name, before[name])
        assert steady.word(name, Word.HANG_REASON) == HangReason.NO_PROGRESS
        assert steady.word(name, Word.LAST_SIGNAL) == signal.SIGKILL
        log = steady.log()[length:]
        assert f"{name} hangs: its input advanced and its progress word did not" in log
        assert re.search(rf'"process": "{name}".*in (run|_turn)', log), "the stack dump says where it hung"
    assert lives(steady, *names) == others


@pytest.mark.covers("P3", "F5")
@pytest.mark.parametrize("name", ["ingest", "engine-BTC", "api-master"])
def test_stopped_child_is_killed_after_the_hang_time(steady: Tree, name: str) -> None:
    generation, kills, pid = steady.word(name, Word.GENERATION), steady.word(name, Word.KILLS), steady.child(name)
    os.kill(pid, signal.SIGSTOP)
    steady.await_new_life(name, generation)
    assert steady.word(name, Word.KILLS) == kills + 1
    assert steady.word(name, Word.HANG_REASON) in (HangReason.NO_BEAT, HangReason.NO_PROGRESS)
    assert gone(pid)


@pytest.mark.covers("F5")
@pytest.mark.parametrize("name", ["ingest", "engine-BTC", "api-master"])
def test_short_stop_is_absorbed(steady: Tree, name: str) -> None:
    kills, others = steady.word(name, Word.KILLS), lives(steady)
    turns, beat = steady.word("supervisor", Word.TURNS), steady.word(name, Word.BEAT_NS)
    os.kill(steady.child(name), signal.SIGSTOP)
    try:
        until("the supervisor looked twice", lambda: steady.word("supervisor", Word.TURNS) >= turns + 2)
    finally:
        os.kill(steady.child(name), signal.SIGCONT)
    until("it beats again", lambda: steady.word(name, Word.BEAT_NS) > beat)
    assert steady.word(name, Word.KILLS) == kills
    assert lives(steady) == others


@pytest.mark.covers("F17", "P2")
def test_stopped_together_with_the_supervisor_nobody_is_late(steady: Tree) -> None:
    before, pids = lives(steady), [steady.child(name) for name in CHILDREN]
    for pid in (steady.pid, *pids):
        os.kill(pid, signal.SIGSTOP)
    frozen_ns = time.monotonic_ns()
    until("longer than any hang time has gone by", lambda: time.monotonic_ns() - frozen_ns > 2_500_000_000)
    beats = {name: steady.word(name, Word.BEAT_NS) for name in CHILDREN}
    os.kill(steady.pid, signal.SIGCONT)
    steady.await_log("the supervisor itself was away for")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for name in CHILDREN:
        until(f"{name} beats", lambda name=name: steady.word(name, Word.BEAT_NS) > beats[name])
    assert lives(steady) == before


@pytest.mark.covers("F22")
def test_flood_of_output_is_cut_and_counted(steady: Tree) -> None:
    """Every life of ingest begins with 3,000 lines."""
    generation = steady.word("ingest", Word.GENERATION)
    os.kill(steady.child("ingest"), signal.SIGKILL)
    steady.await_new_life("ingest", generation)
    steady.await_log("lines of ingest were not passed on")
    assert re.search(r'"(message)": "\d+ lines of ingest were not passed on"', steady.log())


@pytest.mark.covers("F22")
def test_blocked_log_holds_up_nobody() -> None:
    """stderr is a pipe that nobody reads: full within the first lines of ingest."""
    read_end, write_end = os.pipe()
    try:
        with tree({"supervisor.restart_budget": "100"}) as one:
            one.modes(ingest={"mode": "flood", "lines": 3000})
            one.start(stderr=write_end)
            for generation in range(1, 6):
                for name in ("ingest", "engine-BTC"):
                    os.kill(one.child(name), signal.SIGKILL)
                    one.await_new_life(name, generation)
            until("losses are counted", lambda: one.word("supervisor", Word.LOG_ERRORS) > 0)
            assert one.state("engine-ETH") is State.LIVE
            assert one.stop() == 0
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.covers("P14")
def test_reason_of_the_end_is_kept_beside_the_board(steady: Tree) -> None:
    generation = steady.word("engine-BTC", Word.GENERATION)
    os.kill(steady.child("engine-BTC"), signal.SIGSEGV)
    steady.await_new_life("engine-BTC", generation)
    kept = {child["name"]: child for child in json.loads(steady.paths.children.read_bytes())["children"]}
    assert kept["engine-BTC"]["last_end"] == "signal 11 (SIGSEGV)"
    assert kept["engine-BTC"]["last_line"]


def test_every_line_of_the_log_is_an_object_and_stdout_is_silent(steady: Tree) -> None:
    assert {"time", "level", "process", "pid", "message"} <= set.intersection(*(set(line) for line in steady.lines()))
    assert steady.process is not None
    assert steady.process.stdout is not None
    os.set_blocking(steady.process.stdout.fileno(), False)
    assert steady.process.stdout.read() is None, "after the ready line stdout stays empty"


@pytest.mark.covers("T-L2", "T-L6")
def test_children_get_a_small_environment_and_their_own_group(steady: Tree) -> None:
    pid = steady.child("engine-BTC")
    names = {item.split(b"=")[0].decode() for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if item}
    assert {"MPENGINE_PARENT", "MPENGINE_DOORBELLS", "PYTHONPATH", "OPENBLAS_NUM_THREADS"} <= names
    assert not {name for name in names if name.startswith(("PYTEST", "NOTIFY"))}
    assert os.getpgid(pid) == pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text("ascii").strip() == "200"


@pytest.mark.covers("P12")
def test_usr1_dumps_all_and_usr2_rolls_the_api(steady: Tree) -> None:
    before, length = lives(steady), len(steady.log())
    os.kill(steady.pid, signal.SIGUSR1)
    for name in CHILDREN:
        steady.await_log_match(rf'"process": "{name}".*hread 0x', length)
    os.kill(steady.pid, signal.SIGUSR2)
    until("the master got SIGHUP", (steady.data / "rolled").exists)
    assert lives(steady) == before


@pytest.mark.covers("F14")
def test_without_descriptors_the_restart_waits_and_the_rest_goes_on(steady: Tree) -> None:
    generation, others = steady.word("engine-BTC", Word.GENERATION), lives(steady, "engine-BTC")
    limits = resource.prlimit(steady.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(steady.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        os.kill(steady.child("engine-BTC"), signal.SIGKILL)
        steady.await_log("engine-BTC ended: never started; restart in")
        turns = steady.word("supervisor", Word.TURNS)
        until("the loop turns", lambda: steady.word("supervisor", Word.TURNS) > turns + 5)
    finally:
        resource.prlimit(steady.pid, resource.RLIMIT_NOFILE, limits)
    steady.await_new_life("engine-BTC", generation)
    assert lives(steady, "engine-BTC") == others


@pytest.mark.covers("P10", "E-H1")
def test_second_supervisor_names_the_first_and_leaves(steady: Tree) -> None:
    before = lives(steady)
    second = Tree(steady.directory, {"api.port": "0"}, ("-m", "supervisor"), {})
    second.log_path = steady.directory / "second.log"
    second.start(wait=False)
    assert second.wait() == 3
    assert second.process is not None
    assert second.process.stdout is not None
    second.process.stdout.close()
    assert f"another supervisor, process {steady.pid}, uses the data directory" in second.log()
    assert lives(steady) == before


def test_supervisor_has_its_row(steady: Tree) -> None:
    assert steady.child("supervisor") == steady.pid
    assert steady.board.row_state(0) is WriterState.LIVE
    until("memory is measured", lambda: steady.word("supervisor", Word.RSS_BYTES) > 1 << 20)
    assert steady.word("supervisor", Word.OPEN_FDS) > 5


@pytest.mark.covers("A2-H5", "T-H2", "P11", "P9")
def test_repeated_stop_signals_stop_once_in_order_and_leave_nothing() -> None:
    with tree() as one:
        one.start()
        pids = one.pids()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(one.pid, number)
        assert one.wait() == 0
        assert all(gone(pid) for pid in pids.values())
        messages = [line["message"] for line in one.lines()]
        assert sum(message.startswith("stopping everything") for message in messages) == 1
        assert all(messages.count(f"{name} stops: SIGTERM") == 1 for name in CHILDREN)
        ends = [message.split()[0] for message in messages if " stopped: exit 0" in message]
        assert ends[0] == "api-master"
        assert ends[1] == "ingest"
        assert sorted(ends[2:]) == ["engine-BTC", "engine-ETH", "engine-SOL"]
        assert not (one.directory / "run").exists(), "the directory that it made is removed"
        assert {path.name for path in one.data.iterdir()} == {"supervisor.lock", "modes.json"}


@pytest.mark.covers("A2-H5", "P11")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_in_the_middle_of_the_start_leaves_nothing(number: int) -> None:
    with tree() as one:
        one.start(wait=False)
        one.await_log("engine-BTC started as process")
        os.kill(one.pid, number)
        assert one.wait() == 0
        assert one.pids() == {}
        assert not (one.directory / "run").exists()


@pytest.mark.covers("P11")
def test_deaf_child_is_killed_in_its_share_of_the_stop_time() -> None:
    with tree({"supervisor.stop_timeout_s": "6"}) as one:  # shares long enough for those that hear, on a busy machine too
        one.modes(**{"api_master": {"mode": "deaf"}, "engine_BTC": {"mode": "deaf"}})
        one.start()
        pids = one.pids()
        assert one.stop(signal.SIGINT) == 0
        assert all(gone(pid) for pid in pids.values())
        log = one.log()
        assert "api-master does not stop: SIGKILL" in log
        assert "engine-BTC does not stop: SIGKILL" in log
        assert "ingest stopped: exit 0" in log, "a deaf API does not cost the others their orderly end"
        assert "engine-ETH stopped: exit 0" in log


@pytest.mark.covers("P4", "P6", "F7")
def test_poisoned_children_fail_alone_and_are_tried_again() -> None:
    with tree({"supervisor.failed_retry_s": "0.5"}) as one:
        one.modes(engine_BTC={"mode": "exit", "code": 1}, engine_ETH={"mode": "exit", "code": 3})
        one.start(wait=False)
        until("a board", one.paths.board.exists)
        until("both FAILED", lambda: one.state("engine-BTC") is State.FAILED and one.state("engine-ETH") is State.FAILED)
        assert one.word("engine-BTC", Word.RESTARTS) >= 3
        assert one.word("engine-BTC", Word.LAST_EXIT) == 1
        assert one.word("engine-ETH", Word.LAST_EXIT) == 3
        assert one.word("engine-BTC", Word.FAILED_SINCE_NS) > 0
        log = one.await_log("3 restarts in 60 s are used up")
        assert "exit 3 is not healed by a restart; last line: engine-ETH has had enough" in log
        assert "ready" not in [line["message"] for line in one.lines()], "one of three engines is less than half"
        one.modes(engine_ETH={"mode": "exit", "code": 3})
        assert one.read_line().startswith("ready "), "the cure of one is enough"
        until("BTC is back", lambda: one.state("engine-BTC") is State.LIVE)
        assert {name: one.word(name, Word.GENERATION) for name in ("ingest", "engine-SOL", "api-master")} == dict.fromkeys(
            ("ingest", "engine-SOL", "api-master"), 1
        )
        generation = one.word("engine-ETH", Word.GENERATION)
        until("ETH is tried again", lambda: one.word("engine-ETH", Word.GENERATION) > generation + 1)
        assert one.stop() == 0


@pytest.mark.covers("P5")
def test_failed_ingest_is_escalated_to_the_service_manager() -> None:
    with tree({"supervisor.escalate_after_s": "0.5"}) as one:
        one.modes(ingest={"mode": "exit", "code": 3})
        one.start(wait=False)
        assert one.wait() == 10
        assert "given up: ingest has been FAILED for" in one.log()
        assert not (one.directory / "run").exists()


@pytest.mark.covers("P8", "P9", "P10", "F4", "E-H1")
def test_children_die_with_a_killed_supervisor_and_the_next_one_sweeps() -> None:
    with tree() as one:
        one.modes(engine_BTC={"mode": "deaf"})
        one.start()
        pids = one.pids()
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        for name, pid in pids.items():
            until(f"end of {name}", lambda pid=pid: gone(pid))
        left = one.board.uuid
        assert one.paths.settings.exists(), "nobody could clean up"
        one.modes()
        one.start()
        assert one.board.uuid != left
        one.await_log("files of an earlier run")
        assert one.state("engine-BTC") is State.LIVE
        assert one.stop() == 0


@pytest.mark.covers("T-H3", "P8")
def test_bug_in_the_supervisor_ends_it_with_a_traceback_and_its_children_with_it() -> None:
    with tree() as one:
        one.start()
        pids = one.pids()
        (one.data / "explode").touch()
        os.kill(one.pid, signal.SIGHUP)
        assert one.wait() == 1
        assert "RuntimeError: a bug" in one.log()
        for name, pid in pids.items():
            until(f"end of {name}", lambda pid=pid: gone(pid))


@pytest.mark.covers("P8")
def test_what_a_dead_child_leaves_behind_is_killed() -> None:
    with tree() as one:
        one.modes(api_master={"mode": "brood"})
        one.start()
        grandchild = int((one.data / "grandchild").read_text("utf-8"))
        assert not gone(grandchild)
        generation = one.word("api-master", Word.GENERATION)
        os.kill(one.child("api-master"), signal.SIGKILL)
        until("the grandchild has ended", lambda: gone(grandchild))
        one.await_new_life("api-master", generation)
        assert one.stop() == 0


@pytest.mark.covers("F15")
def test_fat_child_is_restarted_in_order_without_using_its_budget() -> None:
    with tree({"supervisor.restart_budget": "1"}) as one:
        one.modes(engine_BTC={"mode": "fat"})
        (one.data / "sick").touch()
        one.start()
        until("three planned restarts", lambda: one.word("engine-BTC", Word.RESTARTS) >= 3)
        (one.data / "sick").unlink()
        until("it stays", lambda: one.state("engine-BTC") is State.LIVE)
        assert one.word("engine-BTC", Word.HANG_REASON) == HangReason.MEMORY
        assert one.word("engine-BTC", Word.KILLS) == 0
        assert one.word("engine-BTC", Word.LAST_EXIT) == 0
        assert one.stop() == 0


@pytest.mark.covers("P2")
def test_child_that_never_becomes_live_is_dumped_and_killed() -> None:
    with tree({"supervisor.start_timeout_s": "1", "supervisor.restart_budget": "1"}) as one:
        one.modes(engine_SOL={"mode": "silent"})
        one.start(wait=False)
        until("a board", one.paths.board.exists)
        until("SOL is FAILED", lambda: one.state("engine-SOL") is State.FAILED)
        assert one.word("engine-SOL", Word.HANG_REASON) == HangReason.START_TIMEOUT
        assert one.word("engine-SOL", Word.KILLS) == 2
        assert re.search(r'"process": "engine-SOL".*in run', one.log())
        assert one.read_line().startswith("ready ")
        assert one.stop() == 0


# --- reload -----------------------------------------------------------------------------------------------------------


@pytest.mark.covers("P12", "P7")
def test_reload_checks_first_and_then_restarts_only_what_changed() -> None:
    with tree() as one:
        file = one.directory / "settings.toml"
        file.write_text('[log]\nlevel = "INFO"\n', "utf-8")
        one.start(extra=("--config", str(file)))
        first = lives(one)

        file.write_text("[ingest]\nflush_ms = -1\nflush_byte = 3\n", "utf-8")
        os.kill(one.pid, signal.SIGHUP)
        log = one.await_log("settings not reloaded: ingest.flush_byte")
        assert "settings not reloaded: ingest.flush_ms" in log
        file.write_text('[instance]\nname = "other"\n', "utf-8")
        os.kill(one.pid, signal.SIGHUP)
        one.await_log("settings not reloaded: instance.name")
        assert lives(one) == first, "refused settings touch nobody"

        file.write_text("[engine]\nprice_reject_pct = 0.4\n", "utf-8")
        os.kill(one.pid, signal.SIGHUP)
        for name in ("engine-BTC", "engine-ETH", "engine-SOL"):
            one.await_new_life(name, 1)
        until("the API is rolled", (one.data / "rolled").exists)
        assert lives(one) == {**first, "engine-BTC": 2, "engine-ETH": 2, "engine-SOL": 2}
        assert b'"price_reject_pct":0.4' in one.paths.settings.read_bytes()

        file.write_text("[engine]\nprice_reject_pct = 0.4\n[api]\nbacklog = 100\n[symbols.BTC]\n", "utf-8")
        board = one.board.uuid
        os.kill(one.pid, signal.SIGHUP)
        one.await_log("everything is restarted, since the layout of the shared files changes")
        until("a new board", lambda: one.paths.board.exists() and one.board.uuid != board)
        assert "engine-ETH" not in one.board.names()
        for name in ("ingest", "engine-BTC", "api-master"):
            until(f"{name} is live", lambda name=name: one.state(name) is State.LIVE)
        assert one.stop() == 0


# --- the service manager ----------------------------------------------------------------------------------------------


@pytest.mark.covers("X-L4")
def test_service_manager_hears_ready_watchdog_status_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with tree(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "10000000"}) as one:
            one.start()
            heard: list[str] = []
            while "WATCHDOG=1" not in heard:
                heard += manager.recv(4096).decode().splitlines()
            assert heard.index("READY=1") < heard.index("WATCHDOG=1")
            assert any(line.startswith("STATUS=") and "engine-BTC STARTING" in line for line in heard)
            assert one.stop() == 0
            while not any(line.startswith("STOPPING=1") for line in heard):
                heard += manager.recv(4096).decode().splitlines()


# --- what refuses to start --------------------------------------------------------------------------------------------


def supervise(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real supervisor to its end."""
    command = [sys.executable, "-m", "supervisor", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.covers("P6", "X-H1", "E-M3")
def test_all_violations_are_named_and_nothing_is_started(tmp_path: Path) -> None:
    ended = supervise("--no-config", "--set", "api.workers=0", "--set", "api.portt=1", "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 3
    assert "api.workers" in ended.stderr
    assert "api.portt: unknown key, did you mean port?" in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "data").exists()


@pytest.mark.covers("P6")
def test_port_in_use_is_a_boot_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = ("--data-dir", str(tmp_path / "data"), "--runtime-dir", str(tmp_path / "run"))
        ended = supervise("--no-config", "--set", "api.host=127.0.0.1", "--set", f"api.port={port}", *where)
    assert ended.returncode == 3
    assert f"api.port: 127.0.0.1 port {port} cannot be used: Address already in use" in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.covers("F13", "P6")
def test_full_runtime_directory_is_a_boot_failure(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=False).returncode:
        skip_or_fail("mounting a small tmpfs needs root")
    try:
        ended = supervise("--no-config", "--set", "api.port=0", "--data-dir", str(tmp_path / "data"), "--runtime-dir", str(small))
        assert ended.returncode == 3
        assert "NoSpace: no room for" in ended.stderr
        left = [path for path in small.rglob("*") if path.is_file()]
        assert not left, "what was made before it became full is removed"
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_usage_error_is_2() -> None:
    assert supervise().returncode == 2
    assert supervise("--no-config", "--role", "nonsense").returncode == 2


@pytest.mark.covers("P6")
def test_unusable_data_directory_is_a_boot_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = supervise("--no-config", "--set", "api.port=0", "--data-dir", str(tmp_path / "file"))
    assert ended.returncode == 3
    assert "cannot be used" in ended.stderr
