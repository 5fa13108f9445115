"""Kept frames of `/heatmap`: which of a ring are shown, and that two workers show the same."""

from __future__ import annotations

import struct

import pytest

from api.heatmap_rows import MARGIN, GridFrames, decode_frames
from api.sources import SymbolSources
from shm.layout import HEAD_WORD, INTENT_WORD
from shm.records import FrameKind
from tests.api.world import NOW_MS, SLOT_MS, World, depth_frame, map_frame

SLOTS, SLOT_BYTES, HEADER_BYTES = 1536, 8192, 4096


def fill(world: World, count: int) -> None:
    for index in range(count):
        world.add_depth(depth_frame(NOW_MS + index * SLOT_MS, cells=[[index + 1.0, 0], [0, 1.0]], origin=3290))


def sources_of(world: World) -> SymbolSources:
    app = world.app()
    app.context.sources.check()
    return app.context.sources.symbols["BTC"]


def frames_of(world: World) -> GridFrames:
    return GridFrames(sources_of(world).depth, FrameKind.DEPTH)


def numbers(frames: GridFrames, since_ms: int = 0, until_ms: int = 10**15) -> list[int]:
    newest = frames.newest()
    assert newest is not None
    return [frame.number for frame in frames.window(newest, since_ms, until_ms)]


def test_a_window_has_what_lies_in_it_and_nothing_else(world: World) -> None:
    fill(world, 50)
    frames = frames_of(world)
    assert numbers(frames) == list(range(50))
    at = NOW_MS + 10 * SLOT_MS
    assert numbers(frames, at) == list(range(10, 50)), "a frame that ends at the time is before it"
    assert numbers(frames, at - 1) == list(range(9, 50))
    assert numbers(frames, at, at + 5 * SLOT_MS) == list(range(10, 15))
    assert numbers(frames, at, at + 5 * SLOT_MS + 1) == list(range(10, 16))
    assert numbers(frames, NOW_MS + 50 * SLOT_MS) == []


def test_values_of_a_frame(world: World) -> None:
    fill(world, 2)
    newest = frames_of(world).newest()
    assert newest is not None
    assert (newest.number, newest.epoch, newest.origin, newest.last, newest.step) == (1, 1, 3290, 3291, 20.0)
    assert (newest.open_ms, newest.close_ms, newest.src) == (NOW_MS + SLOT_MS, NOW_MS + 2 * SLOT_MS, 65_892.725)
    assert (newest.cells * newest.unit).tolist() == [[2.0, 0.0], [0.0, 1.0]]
    assert newest.cells.base is None, "a view would hold its whole block"


def test_no_file_and_no_frame(world: World) -> None:
    assert frames_of(world).newest() is None
    world.depth()
    assert frames_of(world).newest() is None


def test_frames_of_another_kind_are_left_out(world: World) -> None:
    fill(world, 1)
    world.add_map(map_frame(NOW_MS))
    sources = sources_of(world)
    assert sources.liquidation.reader is not None
    rows = sources.liquidation.reader.bulk(0, 1).rows
    assert len(decode_frames(rows, FrameKind.LIQUIDATION)) == 1
    assert decode_frames(rows, FrameKind.DEPTH) == [] == decode_frames(rows[:0], FrameKind.DEPTH)


@pytest.mark.parametrize("lost", [1, 40, 1536])
def test_the_newest_that_is_sound(world: World, lost: int) -> None:
    fill(world, 1600)
    with world.settings.paths.depth("BTC").open("r+b") as file:
        for number in range(1600 - lost, 1600):
            file.seek(HEADER_BYTES + number % SLOTS * SLOT_BYTES + 300)
            file.write(b"\xff" * 8)
    newest = frames_of(world).newest()
    assert (None if newest is None else newest.number) == (None if lost == 1536 else 1599 - lost)


def test_a_writer_at_work_on_the_oldest_slot_changes_nothing(world: World) -> None:
    """One worker has the oldest frames from before, the other comes while they are being overwritten."""
    fill(world, 1600)
    before = frames_of(world)
    seen = numbers(before)
    with world.settings.paths.depth("BTC").open("r+b") as file:
        assert HEAD_WORD == INTENT_WORD + 1
        file.seek(INTENT_WORD * 8)
        file.write(struct.pack("<Q", 1601))
        file.seek(HEADER_BYTES + 1600 % SLOTS * SLOT_BYTES)
        file.write(struct.pack("<Q", 2 * 1600 + 1))
    assert numbers(frames_of(world)) == numbers(before) == seen == list(range(1600 - SLOTS + 2 * MARGIN, 1600))


def test_a_ring_that_goes_on_between_two_looks_changes_nothing(world: World) -> None:
    fill(world, 1600)
    frames = frames_of(world)
    newest = frames.newest()
    assert newest is not None
    seen = [frame.number for frame in frames.window(newest, 0, 10**15)]
    for index in range(1600, 1600 + MARGIN):
        world.add_depth(depth_frame(NOW_MS + index * SLOT_MS, cells=[[1.0, 0], [0, 1.0]], origin=3290))
        assert [frame.number for frame in frames.window(newest, 0, 10**15)] == seen


def test_a_clock_that_was_set_back_hides_no_frame_of_the_window(world: World) -> None:
    """Half an hour comes again, so that more numbers than half-minutes lie behind the time asked for."""
    fill(world, 100)
    for index in range(40, 60):
        world.add_depth(depth_frame(NOW_MS + index * SLOT_MS, cells=[[1.0, 0], [0, 1.0]], origin=3290))
    found = numbers(frames_of(world), NOW_MS + 30 * SLOT_MS)
    assert found == list(range(30, 120))
