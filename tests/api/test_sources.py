"""Files that are not there, come, go, are replaced, or are something else."""

from __future__ import annotations

import logging

import pytest

from api.sources import NO_FILE, Sources
from shm.errors import LayoutMismatch
from shm.files import replace
from shm.frame_ring import FrameWriter
from shm.layout import depth_spec
from tests.api.world import NOW_MS, FakeClock, World, depth_frame


@pytest.fixture
def sources(world: World) -> Sources:
    return Sources(world.settings, world.clock.clock())


def tick(sources: Sources, clock: FakeClock) -> None:
    clock.advance(1.0)
    sources.check()


@pytest.mark.covers("S-L6")
def test_nothing_is_opened_before_it_is_looked_at(world: World, sources: Sources) -> None:
    world.add_depth(depth_frame(NOW_MS))
    handle = sources.symbols["BTC"].depth
    assert (handle.reader, handle.stamp()) == (None, NO_FILE)
    sources.check()
    assert handle.reader is not None and handle.stamp() == (handle.reader.uuid, 1, 1)
    sources.close()
    assert handle.stamp() == NO_FILE


def test_a_missing_file_is_no_error_and_is_found_within_a_second(world: World, sources: Sources) -> None:
    sources.check()
    assert not sources.broken and sources.symbols["BTC"].depth.reader is None
    world.add_depth(depth_frame(NOW_MS))
    sources.check()
    assert sources.symbols["BTC"].depth.reader is None  # looked at less than a second ago
    tick(sources, world.clock)
    assert sources.symbols["BTC"].depth.reader is not None
    sources.close()


def test_stamp_changes_with_frame_epoch_and_file(world: World, sources: Sources) -> None:
    world.add_depth(depth_frame(NOW_MS))
    sources.check()
    handle = sources.symbols["BTC"].depth
    seen = [handle.stamp()]
    world.add_depth(depth_frame(NOW_MS + 30_000))
    seen.append(handle.stamp())
    world.reopen(world.settings.paths.depth("BTC"))
    world.depth()
    seen.append(handle.stamp())
    assert seen == [(handle.uuid, 1, 1), (handle.uuid, 1, 2), (handle.uuid, 2, 2)]
    world.reopen(world.settings.paths.depth("BTC"))
    replace(world.settings.paths.depth("BTC"), depth_spec("BTC"))
    world.add_depth(depth_frame(NOW_MS))
    assert handle.stamp() == seen[-1]  # the old file is served until the new one is noticed
    tick(sources, world.clock)
    assert handle.stamp()[0] not in (seen[0][0], 0) and handle.stamp()[1:] == (1, 1)
    sources.close()


def test_a_file_that_loses_its_name_is_served_on(world: World, sources: Sources) -> None:
    world.add_depth(depth_frame(NOW_MS))
    sources.check()
    handle = sources.symbols["BTC"].depth
    before = handle.stamp()
    world.settings.paths.depth("BTC").unlink()
    tick(sources, world.clock)
    assert handle.stamp() == before and handle.reader is not None and handle.reader.latest() is not None
    sources.close()


def test_a_file_of_another_symbol_is_refused_and_shows(world: World, sources: Sources, caplog: pytest.LogCaptureFixture) -> None:
    path = world.settings.paths.depth("ETH")
    FrameWriter.open(path, depth_spec("BTC")).close()
    with caplog.at_level(logging.WARNING, "api.sources"):
        sources.check()
    assert sources.broken and sources.symbols["ETH"].depth.reader is None
    assert "IdentityMismatch" in caplog.text
    path.unlink()
    world.add_depth(depth_frame(NOW_MS, src=1931.2, step=1.0), "ETH")
    tick(sources, world.clock)
    assert not sources.broken and sources.symbols["ETH"].depth.reader is not None
    sources.close()


def test_damage_is_told_and_tried_again(world: World, sources: Sources, caplog: pytest.LogCaptureFixture) -> None:
    path = world.settings.paths.depth("BTC")
    path.parent.mkdir()
    path.write_bytes(b"rubbish")
    sources.check()
    assert sources.broken and LayoutMismatch.__name__ in caplog.text


def test_a_reader_in_use_is_closed_when_the_work_is_done(world: World, sources: Sources) -> None:
    world.add_depth(depth_frame(NOW_MS))
    sources.check()
    handle = sources.symbols["BTC"].depth
    old = handle.reader
    assert old is not None
    with sources.borrowed():
        world.reopen(world.settings.paths.depth("BTC"))
        replace(world.settings.paths.depth("BTC"), depth_spec("BTC"))
        tick(sources, world.clock)
        assert handle.reader is not old
        assert old.latest() is not None  # still mapped
    with pytest.raises(ValueError, match="released"):
        old.head()
    sources.close()


def test_counters_of_replaced_readers_are_kept(world: World, sources: Sources) -> None:
    world.add_history(3)
    sources.check()
    reader = sources.symbols["BTC"].depth.reader
    assert reader is not None
    reader.lapped += 5
    assert sources.lapped() == 5
    world.reopen(world.settings.paths.depth("BTC"))
    replace(world.settings.paths.depth("BTC"), depth_spec("BTC"))
    tick(sources, world.clock)
    assert (sources.lapped(), sources.retries()) == (5, 0)
    sources.close()
