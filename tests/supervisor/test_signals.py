"""Signals as bytes of a socket."""

from __future__ import annotations

import os
import select
import signal

from supervisor.signals import SignalQueue


def test_signals_wake_a_selector_and_come_once_each_in_order() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    queue = SignalQueue((signal.SIGUSR1, signal.SIGUSR2))
    try:
        assert queue.drain() == []
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        readable, _, _ = select.select([queue], [], [], 5)
        assert readable == [queue]
        assert queue.drain() == [signal.SIGUSR2, signal.SIGUSR1]
        assert queue.drain() == []
    finally:
        queue.close()
    assert signal.getsignal(signal.SIGUSR2) is before


def test_signals_of_others_are_not_reported() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: caught.append(number))
    queue = SignalQueue((signal.SIGUSR2,))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert queue.drain() == []
        assert caught == [signal.SIGUSR1]
    finally:
        queue.close()
        signal.signal(signal.SIGUSR1, before)
