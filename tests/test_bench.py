"""What the benches measure does happen: `bench wire` applies every message, synthetic ones as recorded ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.messages import synthetic
from bench.wire import Direct, Through
from mpengine.config import load


@pytest.mark.parametrize("way", [Through.to_book, Through.through])
def test_every_synthetic_message_reaches_the_book(tmp_path: Path, way: object) -> None:
    messages, snapshot = synthetic(200)
    path = Through(load("", {}), snapshot, tmp_path)
    try:
        assert callable(way)
        way(path, messages)
        (book,) = path.core.books.values()
        assert (book.state, book.counters["applied"], book.counters["refused"]) == ("synced", 200, 0)
    finally:
        path.close()


def test_a_message_that_is_not_applied_fails_the_bench() -> None:
    messages, snapshot = synthetic(50)
    with pytest.raises(AssertionError):
        Direct(load("", {}), snapshot).to_book(messages[:20] + messages[21:])
