"""Doorbell: a hint. Every sleeper wakes for one ring, nobody blocks, and a lost ring costs at most the re-check."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shm import doorbell
from shm.doorbell import RECHECK_S, Waiter
from shm.frame_ring import FrameWriter
from shm.layout import depth_spec
from tests.shm.rig import Child


@pytest.fixture
def bell() -> object:
    fd = doorbell.create()
    yield fd
    os.close(fd)


def test_one_ring_wakes_every_sleeper_once(bell: int) -> None:
    with Waiter([bell]) as one, Waiter([bell]) as other:
        assert one.drain() == other.drain() == []
        doorbell.ring(bell)
        assert one.drain() == other.wait(0) == [bell]
        assert one.drain() == other.drain() == []


def test_a_ring_before_the_sleeper_was_there_is_not_lost(bell: int) -> None:
    doorbell.ring(bell)
    with Waiter([bell]) as waiter:
        assert waiter.drain() == [bell]


def test_rings_while_nobody_sleeps_are_one_wake_up(bell: int) -> None:
    with Waiter([bell]) as waiter:
        for _ in range(100):
            doorbell.ring(bell)
        assert waiter.drain() == [bell]
        assert waiter.drain() == []


def test_a_counter_at_its_limit_neither_blocks_nor_raises(bell: int) -> None:
    os.eventfd_write(bell, 2**64 - 2)
    for _ in range(3):
        doorbell.ring(bell)


def test_several_doorbells_in_one_set() -> None:
    bells = [doorbell.create() for _ in range(4)]
    with Waiter() as waiter:
        for fd in bells:
            waiter.add(fd)
        doorbell.ring(bells[1])
        doorbell.ring(bells[3])
        assert sorted(waiter.drain()) == sorted([bells[1], bells[3]])
        waiter.remove(bells[1])
        doorbell.ring(bells[1])
        doorbell.ring(bells[2])
        assert waiter.drain() == [bells[2]]
    for fd in bells:
        os.close(fd)


def test_a_doorbell_is_not_inherited_unless_passed(bell: int) -> None:
    assert not os.get_inheritable(bell)
    assert not os.get_blocking(bell)


def test_a_waiter_works_in_an_event_loop(bell: int) -> None:
    async def woken() -> list[int]:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        seen: list[int] = []
        with Waiter([bell]) as waiter:

            def on_ring() -> None:
                seen.extend(waiter.drain())
                heard.set()

            loop.add_reader(waiter.fileno(), on_ring)
            for _ in range(3):
                doorbell.ring(bell)
                await asyncio.wait_for(heard.wait(), 10)
                heard.clear()
            loop.remove_reader(waiter.fileno())
        return seen

    assert asyncio.run(woken()) == [bell] * 3


def test_an_event_loop_sees_the_set_as_not_ready_when_drained(bell: int) -> None:
    with Waiter([bell]) as waiter:
        doorbell.ring(bell)
        outer = select.epoll()
        outer.register(waiter.fileno(), select.EPOLLIN)
        assert outer.poll(0)
        waiter.drain()
        assert not outer.poll(0)
        outer.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["rung", "lost", "spurious"])
def test_eight_workers_see_every_frame(spawn: Callable[..., Child], tmpfs: Path, bell: int, case: str) -> None:
    """Rung, with every second ring lost, and with rings for nothing: the workers miss nothing, by doorbell or by re-check."""
    path, frames = tmpfs / "depth.ring", 12
    with FrameWriter.open(path, depth_spec("BTC", 64)) as writer:
        workers = [spawn("ring-watcher", path, bell, frames, pass_fds=(bell,)) for _ in range(8)]
        for worker in workers:
            worker.expect("watching")
        for n in range(frames):
            if case == "spurious":
                doorbell.ring(bell)
            writer.publish(b"x", ts_ns=0, kind=1, published_ns=time.monotonic_ns())
            if case != "lost" or n % 2:
                doorbell.ring(bell)
            time.sleep(0.02)  # spreads the frames out; nothing depends on it
        latencies = [float(word) for worker in workers for word in worker.line().split()]
    assert len(latencies) == 8 * frames, "each worker saw each frame"
    print(f"{case}: worst {max(latencies):.1f} ms, re-check every {RECHECK_S * 1000:.0f} ms")


@pytest.mark.slow
def test_a_doorbell_survives_the_process_that_rang_it(spawn: Callable[..., Child], tmpfs: Path, bell: int) -> None:
    path = tmpfs / "depth.ring"
    FrameWriter.open(path, depth_spec("BTC", 64)).close()
    watcher = spawn("ring-watcher", path, bell, 4, pass_fds=(bell,))
    watcher.expect("watching")
    for epoch in (2, 3):
        engine = spawn("ringer", path, bell, 2, pass_fds=(bell,))
        engine.expect(f"rang {epoch}")
        engine.kill()
    assert len(watcher.line().split()) == 4


def test_a_number_that_is_no_bell_is_left_out(tmp_path: Path) -> None:
    """Where bells are not handed down their numbers are those of other files; waiting for a regular one is an error."""
    bell = doorbell.create()
    try:
        with (tmp_path / "log").open("w") as other:
            found = doorbell.handed_down(f"{doorbell.listed({'BTC': bell, 'ETH': other.fileno()})},SOL=99999,XRP=x,")
        assert found == {"BTC": bell} and doorbell.handed_down("") == {}
        doorbell.Waiter(found.values()).close()
    finally:
        os.close(bell)
