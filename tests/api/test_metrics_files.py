"""The text of a scrape, and that dashboard, alerts and page name what is in one."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from api.app import Service
from api.metrics_scrape import Scrape
from mpengine.schemas import StreamFeed
from shm.board import Board, RowName
from shm.board_words import Role, State, Word
from tests.api.world import NOW_MS, World, candle, get, venue_feed

DOCS = Path(__file__).resolve().parents[2] / "docs"
ALERTS = DOCS / "metrics" / "mpengine-alerts.yml"
DASHBOARD = DOCS / "metrics" / "mpengine-dashboard.json"
ROWS = [
    RowName("supervisor", Role.SUPERVISOR, 0), RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0),
    RowName("engine-ETH", Role.ENGINE, 1), RowName("api-0", Role.API_WORKER, 0), RowName("tool-0", Role.TOOL, 0),
]  # fmt: skip

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def text_of(app: Service, accept: str = "") -> str:
    body, _ = asyncio.run(Scrape(app.context, app._health).text(accept))
    return body.decode("utf-8")


def samples(text: str) -> Samples:
    families = parse_text(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard, its variables filled in, and of the alerts."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [one["expr"] for one in board["annotations"]["list"]]
    for name, value in (("$__rate_interval", "5m"), ("$job", ".*"), ("$instance", ".*"), ("$symbol", ".*")):
        found = [text.replace(name, value) for text in found]
    assert not [text for text in found if "$" in text]
    return found + alert_expressions()


def alert_expressions() -> list[str]:
    """Without a YAML parser: `expr: text`, or `expr: >` and the lines that are indented deeper."""
    lines = ALERTS.read_text("utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        if match := re.match(r"( *)expr: (.*)", line):
            text = match[2]
            if text == ">":
                deeper = [one.startswith(match[1] + "  ") for one in lines[number + 1 :]]
                text = " ".join(one.strip() for one in lines[number + 1 : number + 1 + deeper.index(False)])
            found.append(text)
    return found


def named() -> set[str]:
    """Metrics that dashboard and alerts name, as lines of a scrape name them."""
    board = DASHBOARD.read_text("utf-8")
    variables = re.findall(r"label_values\((mpengine_\w+)", board)
    return {name for text in [*expressions(), *variables] for name in re.findall(r"\bmpengine_\w+", text)}


@pytest.fixture
def board(world: World) -> Iterator[Board]:
    with Board.create(world.settings.paths.board, ROWS, {}) as board:
        for number, row in enumerate(ROWS[:5]):
            board.row(number).start(row.role, row.index, 1)
            board.row(number).set(Word.STATE, State.LIVE)
        yield board


@pytest.fixture
def app(world: World, board: Board) -> Service:
    """An application over something of everything."""
    world.add_history(3)
    world.add_maps(2)
    world.add_book()
    world.add_status(minutes_rolled=7, minutes_skipped=2, depth_slots_empty=3)
    world.add_oi(binance=(5.0, 4.0))
    world.add_liquidation()
    world.add_candle(candle(NOW_MS - 60_000))
    world.settings.paths.checkpoint("BTC").write_bytes(b"x")
    stream = StreamFeed(state="LIVE", messages=3, errors=0, last_ms=NOW_MS, lag_ms=250.0)
    slower = StreamFeed(state="STALE", messages=3, errors=0, last_ms=NOW_MS, lag_ms=9000.0)
    live = venue_feed(
        events={"trade": 5, "depth": 8}, streams={"a": stream, "b": slower}, reconnects=4, parse_errors=6, rest_errors=1
    )
    world.add_feeds(binance=live, okx=venue_feed("BANNED", last_ms=NOW_MS - 7000))
    app = world.app()
    get(app, "/orderbook_heatmap")
    app.turn()
    return app


def test_figures_say_what_is_there(app: Service, board: Board) -> None:
    ingest, engine = board.row(1), board.row(2)
    ingest.add(Word.DROPPED_RECORDS, 5)
    ingest.add(Word.CAPTURE_DROPPED, 2)
    engine.add(Word.GAPS, 3)
    engine.add(Word.RESYNCS, 4)
    engine.add(Word.WRITE_ERRORS, 1)
    engine.add(Word.QUARANTINED, 2)
    engine.set(Word.RSS_BYTES, 123_000_000)
    engine.set(Word.BACKLOG, 77)
    board.supervisor_view(2).set(Word.ACTUAL, State.LIVE)
    board.supervisor_view(2).set(Word.RESTARTS, 6)
    board.supervisor_view(3).set(Word.ACTUAL, State.FAILED)
    found = samples(text_of(app))
    assert of(found, "mpengine_http_requests_total", route="/orderbook_heatmap", code="200") == 1
    assert of(found, "mpengine_http_requests_total", route="/oi", code="500") == 0, "a rate needs the 0 before the first one"
    assert of(found, "mpengine_cache_misses") == 1 and of(found, "mpengine_cache_entries") == 1
    for process, up in (("engine-BTC", 1), ("engine-ETH", 0), ("ingest", 1), ("api-0", 1), ("tool-0", None)):
        assert of(found, "mpengine_process_up", process=process) == up
    assert of(found, "mpengine_restarts_total", process="engine-BTC") == 6
    assert of(found, "mpengine_rss_bytes", process="engine-BTC") == 123_000_000
    assert of(found, "mpengine_backlog_units", process="engine-BTC") == 77
    assert of(found, "mpengine_drops_total", process="ingest") == 7
    assert (
        of(found, "mpengine_gaps_total", process="engine-BTC") == 3
        and of(found, "mpengine_resyncs_total", process="engine-BTC") == 4
    )
    assert of(found, "mpengine_errors_total", process="engine-BTC", kind="quarantined") == 2
    assert of(found, "mpengine_write_errors_total", process="engine-BTC", kind="file") == 1
    assert of(found, "mpengine_write_errors_total", process="ingest", kind="log") == 0
    assert of(found, "mpengine_scrape_errors") == 0
    build = next(dict(labels) for name, labels in found if name == "mpengine_build_info")
    assert build["config_hash"] == app.settings.config_hash and build["version"] == app.context.build


def test_figures_of_symbols_and_venues(app: Service) -> None:
    found = samples(text_of(app))
    heads = {"depth": 3, "liquidation": 2, "candles": 1, "liquidations": 1}
    ages = {"depth": 30, "liquidation": 0, "candles": 0, "liquidations": 0}
    for ring, head in heads.items():
        assert of(found, "mpengine_ring_head", symbol="BTC", ring=ring) == head
        assert of(found, "mpengine_ring_age_seconds", symbol="BTC", ring=ring) == ages[ring]
        assert of(found, "mpengine_ring_age_seconds", symbol="ETH", ring=ring) is None, "missing is no line, never 0"
    assert of(found, "mpengine_symbol_stale", symbol="BTC") == 0 and of(found, "mpengine_symbol_stale", symbol="ETH") == 1
    assert of(found, "mpengine_oi_age_seconds", symbol="BTC", venue="binance") == 4
    assert of(found, "mpengine_book_synced", symbol="BTC", venue="binance") == 1
    assert (
        of(found, "mpengine_minutes_rolled_total", symbol="BTC"),
        of(found, "mpengine_minutes_skipped_total", symbol="BTC"),
    ) == (7, 2)
    assert of(found, "mpengine_depth_slots_empty_total", symbol="BTC") == 3
    for venue, state in (("binance", "LIVE"), ("okx", "BANNED")):
        states = {dict(labels)["state"]: one for (name, labels), one in found.items()
                  if name == "mpengine_venue_state" and dict(labels)["venue"] == venue}  # fmt: skip
        assert states == {one: float(one == state) for one in ("LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED")}
    assert of(found, "mpengine_feed_lag_seconds", venue="binance") == 0.25, "of live streams only"
    assert of(found, "mpengine_venue_age_seconds", venue="okx") == 7
    assert of(found, "mpengine_events_total", venue="binance", kind="depth") == 8
    assert of(found, "mpengine_reconnects_total", venue="binance") == 4
    assert (
        of(found, "mpengine_parse_errors_total", venue="binance") == 6
        and of(found, "mpengine_rest_errors_total", venue="binance") == 1
    )
    assert of(found, "mpengine_venue_streams", venue="binance", state="STALE") == 1


def test_the_histogram_is_one(app: Service) -> None:
    found = samples(text_of(app))
    buckets = [one for (name, labels), one in found.items()
               if name == "mpengine_http_seconds_bucket" and ("class", "document") in labels]  # fmt: skip
    assert buckets == sorted(buckets) and buckets[-1] == of(found, "mpengine_http_seconds_count", **{"class": "document"}) == 1


def test_both_forms_have_the_same_lines(app: Service) -> None:
    text, opened = text_of(app), text_of(app, "application/openmetrics-text;version=1.0.0")
    lines = {one.name for family in parse_open_metrics(opened) for one in family.samples}
    assert lines == {name for name, _ in samples(text)} and "# EOF" not in text
    for accept in ("garbage;;,q=x", "text/plain;version=abc", "application/openmetrics", ",", "*/*"):
        assert text_of(app, accept) == text
    assert text_of(app, "application/openmetrics-text;version=abc").endswith("# EOF\n")


def test_a_part_that_cannot_be_told_costs_no_other(app: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise OSError("a path that nobody must see")

    monkeypatch.setattr(app._health, "venues", broken)
    text = text_of(app)
    found = samples(text)
    assert of(found, "mpengine_scrape_errors") == 1 and "must see" not in text
    assert of(found, "mpengine_symbol_stale", symbol="BTC") == 0 and of(found, "mpengine_process_up", process="ingest") == 1


def test_a_scrape_before_anything_is_there(world: World) -> None:
    found = samples(text_of(world.app()))
    assert of(found, "mpengine_scrape_errors") == 0 and of(found, "mpengine_symbol_stale", symbol="BTC") == 1
    assert not [name for name, _ in found if name in ("mpengine_ring_age_seconds", "mpengine_process_up", "mpengine_venue_state")]


@pytest.mark.covers("A2-M10")
def test_labels_hold_no_path_pid_or_text_of_a_caller(app: Service, world: World) -> None:
    get(app, "/orderbook_heatmap?symbol=CALLER")
    get(app, "/caller/was/here")
    app.tell()
    text = text_of(app)
    assert "CALLER" not in text and "caller" not in text
    assert str(world.settings.paths.runtime) not in text and str(world.settings.paths.data) not in text
    labels = {name for _, held in samples(text) for name, _ in held}
    assert labels == {
        "route", "code", "class", "le", "transport", "reason", "process", "kind", "venue", "state", "symbol", "ring", "version",
        "contract", "config_hash",
    }  # fmt: skip


def test_who_asks_more_often_gets_the_same_text(app: Service, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    venues = app._health.venues
    monkeypatch.setattr(app._health, "venues", lambda now_ms: asked.append(now_ms) or venues(now_ms))

    async def main() -> None:
        scrape = Scrape(app.context, app._health)
        gone = asyncio.create_task(scrape.text(""))
        await asyncio.sleep(0)
        gone.cancel()
        several = await asyncio.gather(*(scrape.text("") for _ in range(20)))
        assert len(set(several)) == len(asked) == 1, "made once, also when the first to ask went away"
        world.clock.advance(1.1)
        assert await scrape.text("") != several[0] and len(asked) == 2

    asyncio.run(main())


def test_a_scrape_lets_requests_through_in_between(app: Service) -> None:
    async def main() -> int:
        turns, done = 0, asyncio.create_task(Scrape(app.context, app._health).text(""))
        while not done.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(main()) > len(list(parse_text(text_of(app))))


# --- files that are shipped with it -----------------------------------------------------------------------------------


def test_dashboard_and_alerts_name_metrics_that_there_are(app: Service) -> None:
    there = {name for name, _ in samples(text_of(app))}
    assert len(named()) > 40 and named() - there == set()


def test_the_page_has_every_metric_with_its_type(app: Service) -> None:
    told = {}
    for line in (DOCS / "metrics.md").read_text("utf-8").splitlines():
        if match := re.match(r"\| `(mpengine_\w+)` \| (\w+)", line):
            told[match[1]] = match[2]
    text = text_of(app)
    assert told == dict(re.findall(r"# TYPE (\S+) (\S+)", text))


def test_every_metric_has_a_panel(app: Service) -> None:
    families = {name.removesuffix("_total") for name, _ in re.findall(r"# TYPE (\S+) (\S+)", text_of(app))}
    shown = DASHBOARD.read_text("utf-8")
    assert not [name for name in families if name not in shown]


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and {one["name"] for one in board["templating"]["list"]} >= {"datasource", "job", "instance"}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"] and all(one["datasource"]["uid"] == "${datasource}" for one in panel["targets"])
    taken = []
    for place in (panel["gridPos"] for panel in board["panels"]):
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        taken += [(column, row) for column in columns for row in rows]
    assert len(set(taken)) == len(taken), "panels lie on each other"


def test_every_alert_is_whole() -> None:
    rules = ALERTS.read_text("utf-8").split("      - alert: ")[1:]
    names = [rule.splitlines()[0] for rule in rules]
    assert len(set(names)) == len(names) == len(alert_expressions()) > 25
    for rule in rules:
        assert all(f"{key}:" in rule for key in ("expr", "severity", "summary", "description")), rule
        assert rule.count("(") == rule.count(")") and "\t" not in rule


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    for path in (ALERTS, tmp_path / "panels.yml"):
        done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
