"""An exhaustive weak machine: every order of loads and stores that the constraints allow, every interleaving of the processes.

A step is a store (place, value), a load (place) or a step of a lock (None). Memory is one (multi-copy atomic, as on aarch64 and
x86-64); each process performs its steps in any order that keeps `before`: pairs (i, j) of positions, i before j.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

Step = tuple[str, int] | str | None
Before = frozenset[tuple[int, int]]
Outcome = tuple[int, ...]


def place(step: Step) -> str | None:
    """Location of a step."""
    return step[0] if isinstance(step, tuple) else step


@dataclass(frozen=True)
class Process:
    """Steps and what keeps them in order; every machine keeps accesses to one location in order."""

    steps: tuple[Step, ...]
    before: Before = frozenset()

    def ordered(self, *more: Before) -> Process:
        """The same steps with more order."""
        return replace(self, before=self.before.union(*more))

    def needs(self) -> list[int]:
        """Bit set of the steps that must be done before each one."""
        places = [place(step) for step in self.steps]
        same = {(i, j) for j in range(len(places)) for i in range(j) if places[i] == places[j] is not None}
        return [sum(1 << i for i, j in self.before | same if j == step) for step in range(len(places))]


def outcomes(*processes: Process) -> set[Outcome]:
    """Every combination of values that the loads of all processes, in the order they are written down, can see."""
    places = sorted({name for process in processes for name in map(place, process.steps) if name})
    index = {name: number for number, name in enumerate(places)}
    steps = [(who, at, step) for who, process in enumerate(processes) for at, step in enumerate(process.steps)]
    needs = [process.needs() for process in processes]
    everything = tuple((1 << len(process.steps)) - 1 for process in processes)
    open_states = [((0,) * len(processes), (0,) * len(places), (0,) * len(steps))]
    seen, found = set(open_states), set()
    while open_states:
        done, memory, values = open_states.pop()
        if done == everything:
            found.add(values)
        for number, (who, at, step) in enumerate(steps):
            if done[who] >> at & 1 or needs[who][at] & ~done[who]:
                continue
            stored = _with(memory, index[step[0]], step[1]) if isinstance(step, tuple) else memory
            loaded = _with(values, number, memory[index[step]]) if isinstance(step, str) else values
            state = (_with(done, who, done[who] | 1 << at), stored, loaded)
            if state not in seen:
                seen.add(state)
                open_states.append(state)
    loads = [number for number, (_, _, step) in enumerate(steps) if isinstance(step, str)]
    return {tuple(outcome[number] for number in loads) for outcome in found}


def _with(values: Outcome, index: int, value: int) -> Outcome:
    return (*values[:index], value, *values[index + 1 :])


def release(positions: Iterable[int]) -> Before:
    """Nothing before these moves behind them."""
    return frozenset((earlier, at) for at in positions for earlier in range(at))


def acquire(positions: Iterable[int], count: int) -> Before:
    """Nothing behind these moves before them."""
    return frozenset((at, later) for at in positions for later in range(at + 1, count))


def program_order(count: int) -> Before:
    """Every access stays where it is: x86-64 for stores among themselves and for loads among themselves."""
    return acquire(range(count), count)


def with_lock(process: Process, fences: Iterable[int], inside: Iterable[int] = ()) -> Process:
    """The process with `with lock: pass` before each position in `fences`, and the steps in `inside` under the lock.

    Taking a lock is an acquire, giving it back a release: neither stops what is outside from moving in.
    """
    steps: list[tuple[str, Step]] = []
    for position, step in enumerate(process.steps):
        if position in set(fences):
            steps += [("take", None), ("give", None)]
        steps += [("take", None), ("do", step), ("give", None)] if position in set(inside) else [("do", step)]
    kinds = [kind for kind, _ in steps]
    before = frozenset(
        (i, j)
        for j in range(len(kinds))
        for i in range(j)
        if kinds[i] == "take" or kinds[j] == "give" or "do" not in (kinds[i], kinds[j])
    )
    return Process(tuple(step for _, step in steps), before)
