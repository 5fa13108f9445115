"""Exit codes in words; the page of the operator has the same table."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm.process_shell import Exit
from supervisor.exitcodes import NO_RESTART, TEXTS, ExitCode, describe, markdown_table

PAGE = Path(__file__).parents[2] / "docs/operations.md"


@pytest.mark.parametrize(
    ("code", "signal", "text"),
    [
        (0, None, "exit 0 (stopped on request)"),
        (3, None, "exit 3 (cannot start: settings, layout of a file, lock or port)"),
        (77, None, "exit 77"),
        (None, 9, "signal 9 (SIGKILL)"),
        (None, 99, "signal 99 (unknown)"),
        (None, None, "never started"),
    ],
)
def test_end_of_a_process_in_words(code: int | None, signal: int | None, text: str) -> None:
    assert describe(code, signal) == text


def test_every_code_has_a_text_and_children_use_the_same_numbers() -> None:
    assert set(TEXTS) == set(ExitCode)
    assert (Exit.STOPPED, Exit.CRASHED, Exit.BOOT_FAILED) == (ExitCode.STOPPED, ExitCode.CRASHED, ExitCode.BOOT_FAILED)
    assert {ExitCode.BOOT_FAILED, ExitCode.APP_FAILED} == NO_RESTART


def test_page_of_the_operator_has_this_table() -> None:
    assert markdown_table() in PAGE.read_text("utf-8")
