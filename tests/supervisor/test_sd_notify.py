"""Messages to the service manager, over real datagram sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.sd_notify import Notifier


def test_messages_arrive_as_one_datagram_each(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        notifier.send("READY=1", "STATUS=two\nlines")
        notifier.send("WATCHDOG=1")
        assert manager.recv(100) == b"READY=1\nSTATUS=two lines"
        assert manager.recv(100) == b"WATCHDOG=1"
        notifier.close()
        notifier.send("READY=1")
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_abstract_address() -> None:
    name = f"mpengine-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.send("READY=1")
        assert manager.recv(100) == b"READY=1"
        notifier.close()


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000"})
    notifier.send("READY=1")
    assert not notifier.watchdog
    assert notifier.lost == 0
    notifier.close()


@pytest.mark.covers("F22")
def test_a_manager_that_is_away_or_does_not_read_never_blocks(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.send("READY=1")
    assert notifier.lost == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        for _ in range(10_000):
            notifier.send("WATCHDOG=1")
    assert notifier.lost > 1
    notifier.close()


@pytest.mark.parametrize(
    ("env", "watchdog"),
    [
        ({"WATCHDOG_USEC": "10000000"}, True),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({}, False),
    ],
)
def test_watchdog_only_where_it_is_meant_for_this_process(env: dict[str, str], watchdog: bool, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), **env})
    assert notifier.watchdog == watchdog
    notifier.close()
