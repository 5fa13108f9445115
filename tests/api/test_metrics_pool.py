"""Two real workers: sums equal what was sent, whoever is asked, over reloads and kills; the admin listener outlives its worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import lane_count
from shm.board_words import Word
from tests.api.test_admin import Unix, ask
from tests.api.test_serving import Load, Pool, pool, until  # noqa: F401  pool is a fixture

pytestmark = pytest.mark.slow

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode("utf-8"))
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """Sum of the lines that carry these labels."""
    return sum(one for (of, held), one in found.items() if of == name and labels.items() <= dict(held).items())


def scrape(running: Pool) -> Samples:
    status, _, body = ask(Unix(running.settings.paths.admin_socket))
    assert status == 200
    return parsed(body)


def holder(running: Pool) -> int | None:
    """Pid of the worker that serves the admin listener, by whom the lock belongs to."""
    inode = running.settings.paths.admin_lock.stat().st_ino
    for line in Path("/proc/locks").read_text("ascii").splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def listening(running: Pool) -> bool:
    try:
        return ask(Unix(running.settings.paths.admin_socket), "/livez")[0] == 200
    except OSError:
        return False


def send(running: Pool, count: int) -> None:
    """`count` requests of each kind: hits and one miss per worker, a bad parameter, no such path. A connection each."""
    for _ in range(count):
        running.ask("/orderbook_heatmap")
        running.ask("/v1/oi?symbol=DOGE")
        running.ask("/nope")


def counted(found: Samples) -> tuple[float, float, float]:
    name = "mpengine_http_requests_total"
    return (
        value(found, name, route="/orderbook_heatmap", code="200"), value(found, name, route="/oi", code="400"),
        value(found, name, route="other", code="404"),
    )  # fmt: skip


def wait_for(running: Pool, sent: int) -> Samples:
    """A scrape in which every request that was sent is counted, and none twice."""

    def complete() -> Samples | None:
        found = scrape(running)
        assert max(counted(found)) <= sent, "counted more than was sent"
        return found if counted(found) == (sent, sent, sent) else None

    found: Samples = until(complete, f"{sent} requests of each kind in the figures")
    return found


@pytest.fixture
def served(pool: Pool) -> Pool:  # noqa: F811
    until(lambda: listening(pool), "the admin listener")
    return pool


@pytest.mark.covers("T-M13")
def test_sums_over_two_workers_are_what_was_sent(served: Pool) -> None:
    send(served, 30)
    found = wait_for(served, 30)
    assert value(found, "mpengine_http_seconds_count", **{"class": "document"}) == 60
    assert value(found, "mpengine_http_seconds_bucket", **{"class": "document", "le": "+Inf"}) == 60
    assert 0 < value(found, "mpengine_http_seconds_sum", **{"class": "document"}) < 60
    hits, misses = value(found, "mpengine_cache_hits"), value(found, "mpengine_cache_misses")
    assert hits + misses == 30 and 1 <= misses <= 2 and value(found, "mpengine_cache_entries") == misses
    assert value(found, "mpengine_process_up", process="api-0") == value(found, "mpengine_process_up", process="api-1") == 1
    assert len(list(served.settings.paths.runtime.glob("http-*.counters"))) == lane_count(2)
    # The row of each worker holds a part of it.
    rows = [served.word(row, Word.HTTP_REQUESTS) for row in (2, 3)]
    assert sum(rows) == value(found, "mpengine_http_requests_total") and all(rows)


def test_push_connections_are_told_while_they_are_open_and_when_they_end(served: Pool) -> None:
    connection = served.connect()
    try:
        connection.request("GET", "/stream?channels=depth.BTC")
        response = connection.getresponse()
        assert response.status == 200 and response.readline()
        until(lambda: value(scrape(served), "mpengine_push_clients", transport="sse") == 1, "the open stream in the figures")
        until(lambda: value(scrape(served), "mpengine_push_bytes_total") > 0, "what it was sent")
        found = scrape(served)
        assert value(found, "mpengine_push_closed_total") == 0
        assert value(found, "mpengine_http_requests_total", route="/stream", code="200") == 1
        response.close()
    finally:
        connection.close()
    until(lambda: value(scrape(served), "mpengine_push_closed_total", reason="client") == 1, "its end in the figures")
    assert value(scrape(served), "mpengine_push_clients") == 0


def test_a_reload_loses_no_count_and_counts_nothing_twice(served: Pool) -> None:
    send(served, 10)
    for round_ in (2, 3):
        served.roll()
        send(served, 10)
        until(lambda: listening(served), "the admin listener of a new worker")
        found = wait_for(served, 10 * round_)
    assert value(found, "mpengine_restarts_total", process="api-0") == 2


def test_counters_never_fall_while_workers_are_replaced_under_load(served: Pool) -> None:
    seen = [0.0]

    def look() -> None:
        if listening(served):
            seen.append(counted(scrape(served))[0])

    with Load(served) as load:
        for _ in range(2):
            served.roll()
            load.answered_again()
            look()
    until(lambda: listening(served), "the admin listener of a new worker")
    answers = sum(client.answers for client in load.clients)
    until(lambda: look() or seen[-1] == answers, "every answer in the figures")
    assert seen == sorted(seen) and load.lost == []


@pytest.mark.covers("F3")
def test_kill_9_of_a_worker_costs_at_most_its_last_second(served: Pool) -> None:
    send(served, 20)
    wait_for(served, 20)  # published: from here on it cannot be lost
    victim = holder(served)
    assert victim in served.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: holder(served) not in (victim, None) and listening(served), "the admin listener of another worker")
    assert counted(scrape(served)) == (20, 20, 20), "nothing that was published is gone, nothing came twice"
    until(served.workers, "both workers")
    send(served, 5)
    found = wait_for(served, 25)
    assert value(found, "mpengine_restarts_total", process="api-0") + value(found, "mpengine_restarts_total", process="api-1") == 1
    served.process.terminate()
    served.process.wait(20)
    assert not served.settings.paths.admin_socket.exists()
