"""Directories, the lock, and what is swept."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm.board import BoardReader
from shm.counters import CounterWriter
from shm.directories import runtime_folder
from shm.doorbell import Waiter, ring
from shm.errors import Locked
from shm.event_ring import EventReader, EventWriter
from shm.layout import counters_spec, event_ring_spec
from shm.paths import Paths
from shm.process_shell import BootFailure
from supervisor.plan import Plan, build
from supervisor.runtime import (
    InstanceLock,
    Runtime,
    prepare_data_directory,
    prepare_runtime_directory,
    remove_base,
    sweep_folder,
)
from tests.supervisor.test_plan import settings


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A small plan in a temporary place."""
    folder = tmp_path / "run" / "default-00000000"
    folder.mkdir(parents=True)
    text = f"[instance]\ndata_dir = '{tmp_path / 'data'}'\nruntime_dir = '{folder}'\n[engine]\nring_units = 4096\n[symbols.BTC]\n"
    return build(settings(text))


@pytest.fixture
def runtime(plan: Plan) -> Iterator[Runtime]:
    """Its shared files."""
    one = Runtime(plan)
    yield one
    one.close()


@pytest.mark.covers("P10", "E-H1")
def test_lock_names_its_holder_and_is_free_after_it(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path / "lock")
    with pytest.raises(Locked) as refused:
        InstanceLock(tmp_path / "lock")
    assert refused.value.holder_pid == os.getpid()
    first.close()
    InstanceLock(tmp_path / "lock").close()


@pytest.mark.covers("P10")
def test_pid_in_a_lock_file_that_nobody_holds_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    InstanceLock(tmp_path / "lock").close()


def test_shared_files_are_made_for_the_plan(runtime: Runtime, plan: Plan) -> None:
    with BoardReader.open(runtime.paths.board) as board:
        assert board.names() == [row.name for row in plan.rows]
        assert board.sources() == {1: "ingest"}
    assert plan.settings.config_hash
    assert runtime.paths.settings.stat().st_mode & 0o777 == 0o640
    with Waiter([runtime.doorbells["BTC"]]) as waiter:
        waiter.drain()
        ring(runtime.doorbells["BTC"])
        assert waiter.drain() == [runtime.doorbells["BTC"]]


def test_head_of_a_ring_moves_with_its_producer_only(runtime: Runtime) -> None:
    spec = event_ring_spec("BTC", 4096)
    assert runtime.ring_head("BTC") == runtime.ring_head("") == 0
    with EventWriter.open(runtime.paths.events("BTC"), spec) as writer:
        writer.put(bytes(64), records=1, source=1, first_seq=1)
        assert runtime.ring_head("BTC") == writer.head == 2
    with EventReader.open(runtime.paths.events("BTC"), spec) as reader:
        assert reader.get() is not None
        assert runtime.ring_head("BTC") == 2


@pytest.mark.covers("P9")
def test_close_removes_everything_and_the_folder(plan: Plan) -> None:
    runtime = Runtime(plan)
    runtime.write_children([])
    folder = runtime.paths.runtime
    runtime.close()
    assert not folder.exists()
    remove_base(folder.parent)
    assert not folder.parent.exists()


@pytest.mark.covers("P9")
def test_what_a_killed_api_worker_left_goes_with_the_run(plan: Plan) -> None:
    runtime = Runtime(plan)
    spec = counters_spec("http", ["a"])
    CounterWriter.open(runtime.paths.http_counters(0), spec).close()
    runtime.paths.admin_lock.touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(runtime.paths.admin_socket))
    runtime.close()
    assert not runtime.paths.runtime.exists()


def test_what_is_not_ours_is_left_alone(plan: Plan) -> None:
    runtime = Runtime(plan)
    stranger = runtime.paths.runtime / "notes.txt"
    stranger.write_text("mine")
    runtime.close()
    assert list(runtime.paths.runtime.iterdir()) == [stranger]


@pytest.mark.covers("P9")
def test_files_of_a_living_run_are_not_swept(runtime: Runtime) -> None:
    with EventWriter.open(runtime.paths.events("BTC"), event_ring_spec("BTC", 4096)):
        sweep_folder(runtime.paths)
        assert runtime.paths.board.exists()
        assert runtime.paths.events("BTC").exists()


@pytest.mark.covers("P9")
def test_an_instance_of_the_same_name_does_not_take_the_settings_of_a_living_one(runtime: Runtime) -> None:
    runtime.write_children([])
    sweep_folder(runtime.paths)  # as a start with another data directory does, before it finds the board locked
    assert runtime.paths.settings.exists(), "without it no child of the living one can be started again"
    assert runtime.paths.children.exists()


@pytest.mark.covers("P9")
def test_folders_of_earlier_runs_go_and_those_of_others_stay(tmp_path: Path) -> None:
    base = tmp_path / "run"
    for name in ("a-0123abcd", "a-89ef0123", "b-0123abcd", "a-b-0123abcd", "a-notaboot"):
        (base / name).mkdir(parents=True)
        (base / name / ".ring.tmp-1").touch()
    assert not prepare_runtime_directory(runtime_folder(base, "a", 1 << 32), "a")
    assert {path.name for path in base.iterdir()} == {"a-00000001", "b-0123abcd", "a-b-0123abcd", "a-notaboot"}


def test_missing_base_is_made(tmp_path: Path) -> None:
    folder = runtime_folder(tmp_path / "run", "a", 1 << 32)
    assert prepare_runtime_directory(folder, "a")
    assert folder.is_dir()


def test_unsafe_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(BootFailure, match="must be a directory of user"):
        prepare_runtime_directory(runtime_folder(tmp_path / "link", "a", 0), "a")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BootFailure, match="can be written by everybody"):
        prepare_runtime_directory(runtime_folder(tmp_path / "open", "a", 0), "a")


def test_data_directory_is_made_for_its_owner_and_group(tmp_path: Path) -> None:
    prepare_data_directory(tmp_path / "a/b")
    assert (tmp_path / "a/b").stat().st_mode & 0o007 == 0


def test_failed_start_leaves_nothing(plan: Plan) -> None:
    blocker = Paths(plan.settings.paths.data, plan.settings.paths.runtime)
    blocker.settings.mkdir()
    with pytest.raises(OSError):
        Runtime(plan)
    assert {path.name for path in blocker.runtime.iterdir()} == {"settings.json"}
