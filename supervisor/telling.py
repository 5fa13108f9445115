"""What the supervisor tells others about itself and its children: board row, service manager, children.json, the ready line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from shm import process_log
from shm.board import BoardRow
from shm.board_words import Role, State, Word
from shm.process_shell import measure_into
from supervisor import policy
from supervisor.children import Child
from supervisor.exitcodes import describe
from supervisor.keeper import Keeper
from supervisor.runtime import Runtime
from supervisor.sd_notify import Notifier

WATCHDOG_NS: Final = 3_000_000_000
MEASURE_NS: Final = 1_000_000_000

log = logging.getLogger("supervisor")


class OwnRow:
    """Row 0 of the board."""

    def __init__(self, row: BoardRow) -> None:
        """A fresh board: state LIVE at once, the epoch starts at 1."""
        self._row = row
        self._measured_ns = 0
        row.start(Role.SUPERVISOR, 0, row.get(Word.EPOCH) + 1)
        row.set(Word.STATE, State.LIVE)

    def state(self, state: State) -> None:
        """Store the own state."""
        self._row.set(Word.STATE, state)

    def beat(self, now_ns: int) -> None:
        """Once per turn; memory, descriptors and log losses once per second."""
        self._row.beat(now_ns)
        self._row.add(Word.TURNS)
        if now_ns - self._measured_ns < MEASURE_NS:
            return
        self._measured_ns = now_ns
        measure_into(self._row)
        if handler := process_log.current():
            self._row.set(Word.LOG_ERRORS, handler.errors + handler.dropped)


class Teller:
    """Speaks to the service manager and to whoever waits for the ready line; every call may come on every turn."""

    def __init__(self, notifier: Notifier, announce: Callable[[], None]) -> None:
        """announce: called once, when the first round is over."""
        self.ready = False
        self._notifier = notifier
        self._announce = announce
        self._fed_ns = 0
        self._status = ""

    def running(self, keeper: Keeper, now_ns: int) -> None:
        """While the supervisor keeps its children: readiness, watchdog, status."""
        if not self.ready and serving(keeper):
            self.ready = True
            self._notifier.send("READY=1")
            self._announce()
            log.info("ready")
        if self.ready and self._notifier.watchdog and now_ns - self._fed_ns >= WATCHDOG_NS and worth_feeding(keeper):
            self._fed_ns = now_ns
            self._notifier.send("WATCHDOG=1")
        self.status(keeper)

    def status(self, keeper: Keeper) -> None:
        """One line for `systemctl status`, when it has changed."""
        live = sum(child.state is State.LIVE for child in keeper.children)
        others = [f"{child.spec.name} {child.state.name}" for child in keeper.children if child.state is not State.LIVE]
        status = ", ".join([f"{live} of {len(keeper.children)} processes live", *others])
        if status != self._status:
            self._status = status
            self._notifier.send(f"STATUS={status}")

    def stopping(self, reason: str) -> None:
        """The ordered stop has begun."""
        self._notifier.send("STOPPING=1", f"STATUS=stopping: {reason}")


def serving(keeper: Keeper) -> bool:
    """The first round is over and what is up deserves to be called started; a bad symbol does not stand against it."""
    if not all(child.state in (State.LIVE, State.FAILED) for child in keeper.children):
        return False
    others = (child for child in keeper.children if child.spec.role is not Role.ENGINE)
    return all(child.state is State.LIVE for child in others) and keeper.workers.answers() and worth_feeding(keeper)


def worth_feeding(keeper: Keeper) -> bool:
    """Ingest and at least half of the engines progress: a child that does not is HUNG after `hang_after_s`, not LIVE."""
    engines = keeper.of(Role.ENGINE)
    moving = sum(child.state is State.LIVE for child in engines)
    ingest = all(child.state is State.LIVE for child in keeper.of(Role.INGEST))
    return policy.worth_feeding(ingest, moving, len(engines))


class ChildrenFile:
    """children.json: what has no place in words. Written when a life has ended, not once per turn."""

    def __init__(self) -> None:
        self._lives = -1

    def keep(self, keeper: Keeper, runtime: Runtime) -> None:
        """Write the file where a life has ended since the last call."""
        if keeper.lives == self._lives:
            return
        self._lives = keeper.lives
        try:
            runtime.write_children(_told(child) for child in keeper.children)
        except OSError as error:
            log.error("children.json cannot be written: %s", error.strerror)


def _told(child: Child) -> dict[str, Any]:
    end = describe(child.ended.code, child.ended.signal) if child.ended else None
    hang = policy.HANG_TEXTS[child.hang] if child.hang else None
    return {
        "name": child.spec.name,
        "row": child.spec.row,
        "last_end": end,
        "last_kill": hang,
        "last_line": child.last_text or None,
    }
