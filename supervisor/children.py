"""One child: spawn, look at, signal, reap. Decides nothing (that is `policy`); the loop (`process`) calls it.

Every spawn happens in the supervisor's main thread: PR_SET_PDEATHSIG is about the thread that started the child.
A child leads its own process group, so a terminal's ^C reaches the supervisor alone, and what a dead child leaves behind
(gunicorn's workers) is killed by the group. Signals go through the pidfd: they can never hit another process.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shm import doorbell
from shm.board import SupervisorRow
from shm.board_words import State, Word
from shm.liveness import start_ticks
from supervisor.exitcodes import ExitCode
from supervisor.output import OutputPump
from supervisor.plan import ProcessSpec, Watch, interpreter
from supervisor.policy import Ended, HangReason, History, ProgressWatch, Seen

LAUNCHER: Final = Path(__file__).with_name("launch.py")
PROC: Final = Path("/proc")

log = logging.getLogger("supervisor.children")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every child gets from the supervisor: environment, doorbells by symbol, where its output goes."""

    environment: Mapping[str, str]
    doorbells: Mapping[str, int]
    sink: Callable[[bytes, str, int], None]


@dataclass(slots=True)
class Life:
    """One run of the child's program."""

    process: subprocess.Popen[bytes]
    pidfd: int
    ticks: int
    output: OutputPump


class Child:
    """A process of the plan over all its lives. Attributes without underscore are for the loop, which sets some of them."""

    def __init__(self, spec: ProcessSpec, view: SupervisorRow) -> None:
        """view: the supervisor's words of the child's row."""
        self.spec = spec
        self.life: Life | None = None
        self.watch = ProgressWatch()
        self.history = History()
        self.since_ns = 0  # of the state
        self.spawned_ns = 0
        self.live_ns: int | None = None
        self.start_at_ns: int | None = None  # in BACKOFF and FAILED
        self.kill_at_ns: int | None = None  # in STOPPING
        self.hang = HangReason.NONE
        self.told = False  # to stop, in this life
        self.killed = False  # by us, in this life
        self.roll_wanted = False  # SIGHUP as soon as it is LIVE
        self.last_text = ""
        self.ended: Ended | None = None
        self._view = view
        self._state = State.NONE

    @property
    def state(self) -> State:
        """State as the supervisor sees it."""
        return self._state

    def enter(self, state: State, now_ns: int) -> None:
        """Change the state, here and on the board."""
        self._state, self.since_ns = state, now_ns
        self._view.set(Word.ACTUAL, state)

    @property
    def running(self) -> bool:
        """True from spawn to reap."""
        return self.life is not None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self.life.process.pid if self.life else None

    def note(self, word: Word, value: int) -> None:
        """Store a word of the supervisor's view."""
        self._view.set(word, value)

    def count(self, word: Word) -> None:
        """Raise a counter of the supervisor's view."""
        self._view.add(word)

    def read(self, word: Word) -> int:
        """A word of the child's row, its own ones too."""
        return self._view.get(word)

    def spawn(self, around: Surroundings, now_ns: int) -> None:
        """Start the program; state STARTING. Raises OSError where the system refuses (descriptors, processes, memory)."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            process = _popen(self.spec, around, write_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        pidfd = _pidfd(process, read_end)
        os.set_blocking(read_end, False)
        name, pid = self.spec.name, process.pid
        output = OutputPump(read_end, lambda line: around.sink(line, name, pid), now_ns)
        self.life = Life(process, pidfd, start_ticks(pid) or 0, output)
        self.watch = ProgressWatch()
        self.spawned_ns = now_ns
        self.live_ns = self.start_at_ns = self.kill_at_ns = None
        self.told = self.killed = self.roll_wanted = False
        if self.read(Word.GENERATION):
            self.count(Word.RESTARTS)
        self.count(Word.GENERATION)
        self.note(Word.DESIRED, State.LIVE)
        self.enter(State.STARTING, now_ns)

    def says_live(self) -> bool:
        """The row is this life's, not an earlier one's, and says LIVE."""
        life = self.life
        ours = life is not None and self.read(Word.PID) == life.process.pid and self.read(Word.START_TICKS) == life.ticks
        return ours and self.read(Word.STATE) == State.LIVE

    def seen(self, ring_head: int, now_ns: int) -> Seen:
        """What the policy wants to know of a running child. ring_head: of its event ring, where it has one."""
        if self._state is State.STARTING:
            return Seen(self._state, self.since_ns, 0, HangReason.START_TIMEOUT, self._stopped_by_signal())
        if self.spec.watch is Watch.PROGRESS:
            stalled_ns, reason = self.watch.observe(self.read(Word.PROGRESS), ring_head, now_ns), HangReason.NO_PROGRESS
        else:
            stalled_ns, reason = self.watch.observe(self.read(Word.BEAT_NS), now_ns, now_ns), HangReason.NO_BEAT
        reason = self.hang if self._state is State.HUNG else reason
        return Seen(self._state, self.since_ns, stalled_ns, reason, stalled_ns > 0 and self._stopped_by_signal())

    def send(self, number: int) -> None:
        """Send a signal to the child; nothing happens where it has ended."""
        if self.life is None:
            return
        try:
            signal.pidfd_send_signal(self.life.pidfd, number)
        except ProcessLookupError:
            pass  # ended, and about to be reaped

    def dump(self) -> None:
        """Ask for the stacks of all its threads; faulthandler writes them even from an endless loop."""
        if self.life is not None:
            self.life.output.refill()
            self.send(signal.SIGUSR1)

    def kill(self, reason: HangReason) -> None:
        """SIGKILL, with the reason on the board."""
        if self.killed:
            return
        self.killed = True
        self.hang = reason
        self.note(Word.HANG_REASON, reason)
        self.count(Word.KILLS)
        self.send(signal.SIGKILL)

    def reap(self, now_ns: int) -> Ended:
        """Collect the ended child: its group, its output, its exit status. Call it when the pidfd is readable."""
        life = self.life
        assert life is not None, "reap follows spawn"
        _kill_group(life.process.pid)
        code = life.process.wait()
        life.output.close(now_ns)
        os.close(life.pidfd)
        self.last_text = life.output.last_text
        self.life = None
        ended = Ended(signal=-code) if code < 0 else Ended(code=code)
        self._record(ended)
        return ended

    def _record(self, ended: Ended) -> None:
        self.ended = ended
        self.note(Word.LAST_EXIT, ended.code or 0)
        self.note(Word.LAST_SIGNAL, ended.signal or 0)
        # Only the kernel and people with rights send SIGKILL; when it was not us, memory is the usual reason.
        if ended.signal == signal.SIGKILL and not self.killed:
            self.count(Word.OOM_SUSPECTED)

    def refused(self, error: OSError, now_ns: int) -> Ended:
        """The system would not start it; counts as a death."""
        self.last_text = f"cannot start: {error.strerror}"
        self.live_ns = None
        self.enter(State.DEAD, now_ns)
        code = ExitCode.BOOT_FAILED if error.errno in (errno.ENOENT, errno.EACCES) else None
        self._record(Ended(code=code))
        return Ended(code=code)

    def _stopped_by_signal(self) -> bool:
        """State T or t of /proc/<pid>/stat."""
        try:
            stat = (PROC / str(self.pid) / "stat").read_bytes()
        except OSError:
            return False
        return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] in (b"T", b"t")


def _popen(spec: ProcessSpec, around: Surroundings, output: int) -> subprocess.Popen[bytes]:
    bells = {symbol: around.doorbells[symbol] for symbol in spec.doorbells}
    environment = dict(around.environment) | dict(spec.environment)
    environment["MPENGINE_PARENT"] = str(os.getpid())
    if bells:
        environment[doorbell.VARIABLE] = doorbell.listed(bells)
    python = interpreter()
    return subprocess.Popen(
        [python, "-I", "-S", str(LAUNCHER), str(os.getpid()), python, *spec.arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        pass_fds=tuple(bells.values()),
        process_group=0,
    )


def _pidfd(process: subprocess.Popen[bytes], read_end: int) -> int:
    """The pidfd, or no child at all: one that cannot be watched must not run."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        os.close(read_end)
        raise


def _kill_group(pid: int) -> None:
    """SIGKILL to what is left of the group of a dead, not yet reaped child; its number cannot have been given away."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody but the dead leader was in it
