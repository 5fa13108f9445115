"""Expected screens: compared as text, written anew by --update-screenshots; what differs is kept beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SCREENS = Path(__file__).parent / "screens"


@pytest.fixture
def same_screen(pytestconfig: pytest.Config, tmp_path: Path) -> Callable[[str, str], None]:
    """same_screen(name, text): the text is that of the file of this name."""

    def compare(name: str, text: str) -> None:
        path = SCREENS / name
        if pytestconfig.getoption("--update-screenshots"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.is_file(), f"{name} has never been written: --update-screenshots"
        if (expected := path.read_text(encoding="utf-8")) != text:
            actual = tmp_path / name
            actual.write_text(text, encoding="utf-8")
            number, one, two = next(
                (at, old, new)
                for at, (old, new) in enumerate(zip([*expected.splitlines(), ""], [*text.splitlines(), ""]), 1)
                if old != new
            )
            pytest.fail(f"{name} differs from line {number} on, see {actual}:\n- {one}\n+ {two}")

    return compare
