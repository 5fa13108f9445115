"""Token buckets: arithmetic of one worker, exactness over several real ones, what a killed worker and a reload change."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.rates import SECOND_NS, Limit, Rates, rate_headers
from shm import rate_table
from shm.rate_table import SETS, WAYS

LIMIT = Limit(20.0, 100)
KEY = 12345
T0 = 10**15
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    rate_table.create(directory / "rates", 4)
    yield directory / "rates"
    shutil.rmtree(directory)


@contextmanager
def workers(path: Path, count: int, limit: Limit = LIMIT) -> Iterator[list[Rates]]:
    with ExitStack() as stack:
        made = [Rates(limit) for _ in range(count)]
        for one in made:
            assert one.share(path)
            stack.callback(one.close)
        yield made


def take(rates: Rates, now_ns: int, cost: int = 1, key: int = KEY) -> bool:
    return rates.charge(key, cost, now_ns)[0] == 0


def drain(rates: Rates, now_ns: int, key: int = KEY) -> int:
    """Tokens that a client can take right now."""
    count = 0
    while take(rates, now_ns, key=key):
        count += 1
        assert count <= 10_000
    return count


def test_a_bucket_holds_the_burst_and_refills_with_the_rate() -> None:
    rates = Rates(LIMIT)
    assert drain(rates, T0) == 100
    assert drain(rates, T0 + SECOND_NS) == 20
    assert drain(rates, T0 + SECOND_NS + SECOND_NS // 2) == 10
    assert drain(rates, T0 + 3600 * SECOND_NS) == 100
    assert drain(rates, T0 + 3600 * SECOND_NS, key=KEY + 1) == 100


def test_costs_and_what_a_refusal_tells() -> None:
    rates = Rates(LIMIT)
    for _ in range(9):
        assert rates.charge(KEY, 10, T0)[0] == 0
    assert rates.charge(KEY, 5, T0) == (0, 95 * 50_000_000)
    wait_ns, debt_ns = rates.charge(KEY, 10, T0)
    assert (wait_ns, debt_ns) == (5 * 50_000_000, 95 * 50_000_000)  # 5 tokens are missing, 20 come in a second
    assert take(rates, T0, 5), "a refused request takes nothing"
    wait_ns, _ = rates.charge(KEY, 10, T0)
    assert not take(rates, T0 + wait_ns - 1, 10) and take(rates, T0 + wait_ns, 10)


def test_headers() -> None:
    rates = Rates(LIMIT)
    _, debt_ns = rates.charge(KEY, 43, T0)
    pairs, raw = rates.headers(debt_ns)
    assert dict(pairs) == {
        b"ratelimit-policy": b'"default";q=100;w=5', b"ratelimit": b'"default";r=57;t=2', b"x-ratelimit-limit": b"100",
        b"x-ratelimit-remaining": b"57", b"x-ratelimit-reset": b"2",
    }  # fmt: skip
    assert raw == b"".join(b"%s: %s\r\n" % pair for pair in pairs)
    drain(rates, T0)
    assert b"r=0;t=5" in rates.headers(rates.charge(KEY, 1, T0)[1])[1]
    assert rate_headers(Limit(0.1, 10), 10, 0)[0][0][1] == b'"default";q=10;w=100'
    assert Limit(1e6, 10).policy == b'"default";q=10;w=1'


def test_the_bucket_is_one_over_all_workers(path: Path) -> None:
    with workers(path, 4) as made:
        for number in range(100):
            assert take(made[number % 4], T0 + number)
        assert not any(take(one, T0 + 200) for one in made)
        at = T0 + 200 + SECOND_NS
        assert sum(drain(one, at) for one in made) == 20


def test_who_looks_after_a_long_time_finds_the_bucket_as_it_is(path: Path) -> None:
    with workers(path, 2) as (first, second):
        for number in range(1000):  # an hour, far below the rate, in the first worker only
            assert take(first, T0 + number * 3600 * SECOND_NS // 1000)
        now_ns = T0 + 3600 * SECOND_NS
        assert drain(second, now_ns) == 100, "what was paid long ago is not owed again"
        assert drain(first, now_ns) == 0
        later_ns = now_ns + 3600 * SECOND_NS
        assert drain(first, later_ns) == 100
        assert drain(second, later_ns) == 0, "a burst elsewhere counts here, however long ago the last look was"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400_000_000), st.sampled_from([1, 5, 10])), min_size=50, max_size=300))
def test_all_workers_together_give_what_one_bucket_would(steps: list[tuple[int, int, int]]) -> None:
    """Any interleaving over four workers, against one worker: never more than 5 % of the burst apart."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    try:
        rate_table.create(directory / "rates", 4)
        with workers(directory / "rates", 4) as made:
            one, now_ns, given_, wanted = Rates(LIMIT), T0, 0, 0
            for who, wait_ns, cost in steps:
                now_ns += wait_ns
                given_ += cost * take(made[who], now_ns, cost)
                wanted += cost * take(one, now_ns, cost)
                assert abs(given_ - wanted) <= 10, "half of the largest difference that 5 % of 200 tokens allow"
    finally:
        shutil.rmtree(directory)


def test_clients_are_bounded_and_full_buckets_go_first() -> None:
    rates = Rates(LIMIT)
    assert drain(rates, T0) == 100  # owes for five seconds
    for number in range(50_000):
        take(rates, T0 + number, key=10**6 + number)  # each owes for a twentieth of a second
    assert len(rates) == SETS * WAYS and rates.evicted == 50_001 - SETS * WAYS
    assert not take(rates, T0 + 50_001)


def test_a_client_that_was_forgotten_and_comes_back_is_counted_by_the_others(path: Path) -> None:
    with workers(path, 2) as (first, second):
        assert take(first, T0, 10) and take(second, T0, 10)
        crowd = [KEY + SETS * number for number in range(1, WAYS + 1)]
        for key in crowd:
            assert take(first, T0 + 1, 50, key=key)
        assert take(first, T0 + 2, 5)
        # 10 and 10 are known to both; 5 came after the first worker had forgotten its entry.
        assert second.charge(KEY, 1, T0 + 3)[1] == pytest.approx(26 * 50_000_000, abs=1_000_000)


def test_numbers_that_changed_hands_lock_nobody_out(path: Path) -> None:
    with workers(path, 2) as (first, second):
        assert take(first, T0) and take(second, T0 + 1)
        table = first._table
        table.words.store_release(table.find(0, KEY) + rate_table.SPENT, 1 << 60)
        wait_ns, _ = second.charge(KEY, 1, T0 + 2)
        assert 0 < wait_ns <= 2 * 5 * SECOND_NS
        assert take(second, T0 + 2 + wait_ns)


@pytest.mark.covers("T-H4")
def test_a_successor_goes_on_where_a_dead_worker_ended(path: Path) -> None:
    with workers(path, 1) as (other,):
        with workers(path, 1) as (dying,):
            assert drain(dying, T0) == 100
        with workers(path, 1) as (heir,):
            assert heir._table.region == 1
            assert drain(heir, T0 + 1) == 0 and drain(other, T0 + 1) == 0
            assert drain(heir, T0 + SECOND_NS) == 20 and drain(other, T0 + SECOND_NS) == 0


def test_regions_of_a_reload_and_one_too_many(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with workers(path, rate_table.regions_for(4)) as made:
        assert drain(made[0], T0) == 100 and drain(made[-1], T0 + 1) == 0
        late = Rates(LIMIT)
        assert not late.share(path) and not late.share(path)
        assert [record.message for record in caplog.records] == [
            "rate limits are counted by this worker alone: every region has an owner"
        ]
        assert drain(late, T0) == 100, "it counts for itself"
        made[3].close()
        made[3] = Rates(LIMIT)
        assert made[3].share(path)


def test_without_a_table_each_worker_counts_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rates = Rates(LIMIT)
    assert not rates.share(path.with_name("nothing")) and not rates.shared
    assert "Missing" in caplog.text
    assert drain(rates, T0) == 100
    assert rates.share(path) and rates.shared and rates.salt


def test_push_connections_are_counted_over_all_workers(path: Path) -> None:
    with workers(path, 2) as (first, second):
        assert first.hold(KEY, 3) and second.hold(KEY, 3) and first.hold(KEY, 3)
        assert not first.hold(KEY, 3) and not second.hold(KEY, 3)
        assert second.hold(KEY + 1, 3)
        crowd = [KEY + SETS * number for number in range(1, WAYS + 2)]
        for key in crowd:
            take(first, T0, 50, key=key)
        assert not second.hold(KEY, 3), "entries with connections are not given away"
        first.release(KEY)
        assert second.hold(KEY, 3) and not first.hold(KEY, 3)
        first.close()  # as if it had been killed: what it held is gone with it
        assert second.hold(KEY, 3)
        for _ in range(3):
            second.release(KEY)
        assert second._held == {KEY + 1: 1}


def test_counts_of_connections_outlive_an_entry_that_was_given_away(path: Path) -> None:
    with workers(path, 2) as (first, second):
        crowd = [KEY + SETS * number for number in range(WAYS + 1)]
        for key in crowd:  # one more than the set has room for
            assert first.hold(key, 1)
        assert not any(first.hold(key, 1) for key in crowd)
        take(first, T0, key=crowd[0])
        assert not second.hold(crowd[0], 1)
        for key in crowd:
            first.release(key)
        assert first._held == {} and all(second.hold(key, 1) for key in crowd)


CHILD = """
import json, sys, time
from pathlib import Path
from api.rates import Limit, Rates
path, per_s = sys.argv[1], float(sys.argv[2])
burst, begin, end, key = map(int, sys.argv[3:])
rates = Rates(Limit(per_s, burst))
assert rates.share(Path(path))
given = refused = first = now = 0
wait = 0
while time.monotonic_ns() < begin:
    time.sleep(0.001)
while now < end or not wait:  # to the last token
    now = time.monotonic_ns()
    first = first or now
    wait = rates.charge(key, 1, now)[0]
    if wait:
        refused += 1
        time.sleep(0.0002)
    else:
        given += 1
    if given % 64 == 0:
        print(given, flush=True)
print(json.dumps([given, refused, first, now]), flush=True)
"""


@dataclass(frozen=True)
class Taken:
    """What a worker gave and refused, and between which times."""

    given: int
    refused: int
    first_ns: int
    last_ns: int


def spawn(path: Path, limit: Limit, begin_ns: int, end_ns: int, key: int = KEY) -> subprocess.Popen[str]:
    arguments = [str(path), str(limit.per_s), str(limit.burst), str(begin_ns), str(end_ns), str(key)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Taken:
    out, _ = process.communicate(timeout=60)
    return Taken(*json.loads(out.splitlines()[-1]))


def seconds(results: list[Taken]) -> float:
    """From the first request of any worker to the last."""
    return (max(one.last_ns for one in results) - min(one.first_ns for one in results)) / SECOND_NS


@contextmanager
def ended(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.covers("T-H4", "E-H6", "E-C1")
@pytest.mark.parametrize(("count", "limit"), [(2, Limit(200.0, 100)), (4, Limit(50.0, 400))])
def test_real_workers_give_together_what_the_settings_say(path: Path, count: int, limit: Limit) -> None:
    """All of them take as fast as they can, from the first moment on: within 5 %."""
    begin_ns = time.monotonic_ns() + 2 * SECOND_NS
    processes = [spawn(path, limit, begin_ns, begin_ns + 3 * SECOND_NS) for _ in range(count)]
    with ended(processes):
        results = [result(process) for process in processes]
    assert all(one.refused > 0 for one in results)
    assert sum(one.given for one in results) == pytest.approx(limit.burst + limit.per_s * seconds(results), rel=0.05)


@pytest.mark.slow
@pytest.mark.covers("T-H4")
def test_a_killed_worker_takes_no_tokens_along_and_brings_none(path: Path) -> None:
    limit = Limit(100.0, 100)
    begin_ns = time.monotonic_ns() + SECOND_NS
    end_ns = begin_ns + 4 * SECOND_NS
    processes = [spawn(path, limit, begin_ns, end_ns) for _ in range(2)]
    with ended(processes):
        victim: Any = processes[0]
        while not victim.stdout.readline():
            pass
        while time.monotonic_ns() < begin_ns + SECOND_NS:
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        out, _ = victim.communicate(timeout=60)
        killed = max((int(line) for line in out.splitlines()), default=0)  # told every 64 tokens
        processes.append(spawn(path, limit, begin_ns, end_ns))
        results = [result(process) for process in processes[1:]]
    # What the victim gave after its last line is not known: less than 64.
    total = limit.burst + limit.per_s * seconds(results)
    assert total * 0.95 - 64 <= killed + sum(one.given for one in results) <= total * 1.05
