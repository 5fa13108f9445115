"""Where an instance lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm.directories import default_data_directory, default_runtime_base, is_runtime_folder, runtime_folder


def test_directories_of_a_user() -> None:
    assert default_data_directory({}, Path("/home/a"), "x") == Path("/home/a/.local/state/mpengine/x")
    assert default_runtime_base({}, 1000) == Path("/dev/shm/mpengine-1000")


def test_directories_of_a_service_are_the_first_that_the_manager_names() -> None:
    env = {"STATE_DIRECTORY": "/var/lib/mpengine:/var/lib/other", "RUNTIME_DIRECTORY": "/run/mpengine"}
    assert default_data_directory(env, Path("/root"), "x") == Path("/var/lib/mpengine")
    assert default_runtime_base(env, 0) == Path("/run/mpengine")
    assert default_runtime_base({"RUNTIME_DIRECTORY": ""}, 0) == Path("/dev/shm/mpengine-0")


def test_runtime_folder_carries_instance_and_boot() -> None:
    assert runtime_folder(Path("/r"), "demo", 0x0123_4567_89AB_CDEF) == Path("/r/demo-01234567")
    assert runtime_folder(Path("/r"), "demo", 5) == Path("/r/demo-00000000")


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("a-01234567", True),
        ("a-b-01234567", False),
        ("a-0123456", False),
        ("a-0123456G", False),
        ("b-01234567", False),
        ("a", False),
    ],
)
def test_only_folders_of_this_instance_are_ours(name: str, is_ours: bool) -> None:
    assert is_runtime_folder(name, "a") == is_ours
