"""Old file or new file, never a part of either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shm.atomic_file import remove_leftovers, write_atomic


def test_replaces_the_file_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.covers("A1-L4")
def test_flushes_the_file_before_the_name_and_the_directory_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(fd: int) -> None:
        order.append("fsync directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "fsync file")  # noqa: PTH112
        fsync(fd)

    def recorded_replace(self: Path, target: Path) -> Path:
        order.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write_atomic(tmp_path / "state.json", b"x")
    assert order == ["fsync file", "replace", "fsync directory"]


@pytest.mark.covers("A1-H1", "E-M5", "X-H2")
@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_failure_at_any_step_keeps_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "state.json", b"x")


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"whole")
    left = [tmp_path / ".state.json.tmp-1", tmp_path / ".state.json.tmp-2"]
    others = [tmp_path / ".state.tmp-1", tmp_path / "state.json.bad-7", tmp_path / ".other.json.tmp-1"]
    for one in (*left, *others):
        one.write_bytes(b"half")
    assert sorted(remove_leftovers(path)) == left
    assert sorted(tmp_path.iterdir()) == sorted((path, *others))
    assert path.read_bytes() == b"whole"
