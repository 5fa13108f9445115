"""A bystander's look at an event ring."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm.board import Board, RowName
from shm.board_words import Role
from shm.errors import IdentityMismatch, Missing
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.layout import event_ring_spec
from shm.liveness import WriterState
from shm.ring_head import RingHead

SPEC = event_ring_spec("BTC", 4096)


def test_follows_the_producer_without_touching_anything(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    create_event_ring(path, SPEC)
    with RingHead.open(path) as head, EventReader.open(path, SPEC) as reader:
        assert head.head() == 0
        assert head.writer_state() is WriterState.CLOSED
        before = path.read_bytes()
        with RingHead.open(path):
            pass
        assert path.read_bytes() == before
        with EventWriter.open(path, SPEC) as writer:
            for number in range(5):
                writer.put(bytes(128), records=2, source=1, first_seq=2 * number)
                assert head.head() == writer.head == 3 * (number + 1)
            assert head.writer_state() is WriterState.LIVE
        assert reader.backlog() == 15


def test_notices_a_new_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    create_event_ring(path, SPEC)
    with RingHead.open(path) as head:
        assert not head.replaced()
        create_event_ring(path, SPEC)
        assert head.replaced()


def test_refuses_what_is_no_event_ring(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        RingHead.open(tmp_path / "ring")
    with Board.create(tmp_path / "board", [RowName("a", Role.TOOL, 0)], {}), pytest.raises(IdentityMismatch):
        RingHead.open(tmp_path / "board")
