"""Where the data directory may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm.disks import LOCAL, REFUSED, WARNED, check_data_directory, filesystem_type
from shm.errors import Missing, NotLocalDisk


@pytest.mark.parametrize("kind", LOCAL)
def test_local_disks_pass_without_a_word(tmp_path: Path, kind: int) -> None:
    assert check_data_directory(tmp_path, probe=lambda _: kind) == []


@pytest.mark.parametrize("kind", REFUSED)
def test_network_file_systems_are_refused_by_name(tmp_path: Path, kind: int) -> None:
    with pytest.raises(NotLocalDisk, match=rf"must be on a local disk \(ext4, xfs\), was {REFUSED[kind]}"):
        check_data_directory(tmp_path, probe=lambda _: kind)


@pytest.mark.parametrize("kind", WARNED)
def test_overlay_copy_on_write_and_memory_are_warned_about(tmp_path: Path, kind: int) -> None:
    assert check_data_directory(tmp_path, probe=lambda _: kind) == [WARNED[kind]]


def test_an_unknown_type_is_warned_about_with_its_number(tmp_path: Path) -> None:
    assert check_data_directory(tmp_path, probe=lambda _: 0xABCDEF) == [
        "file system type 0xabcdef has not been tried; ext4 and xfs have"
    ]


def test_no_directory_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("nothing", "file"):
        with pytest.raises(Missing, match="there is no data directory"):
            check_data_directory(tmp_path / name)


def test_the_type_comes_from_the_kernel() -> None:
    assert filesystem_type(Path("/dev/shm")) == 0x01021994
    assert filesystem_type(Path("/proc")) == 0x9FA0
    with pytest.raises(FileNotFoundError):
        filesystem_type(Path("/nothing/here"))
