"""Metrics of a whole live tree: everything that dashboard and alerts name is there, and the admin listener outlives its worker."""

from __future__ import annotations

import os
import signal

import pytest

from tests.api.test_admin import Unix, ask
from tests.api.test_metrics_files import Samples, named, of, samples
from tests.chaos.rig import CHILDREN, ENGINES, SYMBOLS, WORKERS, get
from tests.supervisor.rig import Tree, until

pytestmark = pytest.mark.slow


def scrape(one: Tree) -> Samples:
    """What the admin listener says; nothing while no worker serves it."""
    try:
        status, _, body = ask(Unix(one.paths.admin_socket))
    except OSError:
        return {}
    assert status == 200
    return samples(body.decode("utf-8"))


def test_what_dashboard_and_alerts_name_is_told_by_a_live_tree(real: Tree) -> None:
    # The first order-book frame, bar and map take up to two minutes.
    until("every metric has a line", lambda: named() <= {name for name, _ in scrape(real)}, deadline_s=150)
    found = scrape(real)
    assert of(found, "mpengine_scrape_errors") == 0
    for process in ("supervisor", *CHILDREN, *WORKERS):
        assert of(found, "mpengine_process_up", process=process) == 1, process
        rss = of(found, "mpengine_rss_bytes", process=process)
        assert rss is not None and 5e6 < rss < 1e9, process
    for symbol in SYMBOLS:
        assert of(found, "mpengine_ring_head", symbol=symbol, ring="candles") is not None
        age = of(found, "mpengine_checkpoint_age_seconds", symbol=symbol)
        assert age is not None and age < 60
    for kind in ("trade", "depth", "mark"):
        assert (of(found, "mpengine_events_total", venue="binance", kind=kind) or 0) > 0
    assert of(found, "mpengine_venue_state", venue="binance", state="LIVE") == 1
    assert sum(one for (name, _), one in found.items() if name == "mpengine_http_requests_total") > 0
    assert real.paths.admin_socket.stat().st_mode & 0o777 == 0o600
    assert get(real, "/metrics")[0] == 404, "not on the public port"


@pytest.mark.covers("F3")
def test_metrics_come_back_when_every_worker_is_killed(real: Tree) -> None:
    until("a scrape", lambda: scrape(real))
    before = scrape(real)
    name = "mpengine_restarts_total"
    for worker in WORKERS:
        os.kill(real.child(worker), signal.SIGKILL)

    def counted() -> bool:
        now = scrape(real)
        return all((of(now, name, process=one) or 0) > (of(before, name, process=one) or 0) for one in WORKERS)

    until("new workers in the figures", counted)
    after = scrape(real)
    fallen = [key for key in before if key[0].endswith("_total") and after.get(key, 0) < before[key]]
    assert not fallen, "no counter falls"
    assert all(of(after, name, process=one) == of(before, name, process=one) for one in ENGINES)
