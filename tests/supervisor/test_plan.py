"""What is run for which settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpengine.config import ConfigError, Settings, load, resolve_directories
from shm.board_words import Role
from supervisor.plan import Plan, Reload, Stage, Watch, build, interpreter


def settings(text: str = "") -> Settings:
    """Settings with directories."""
    return resolve_directories(load(text, {}), data=Path("/data"), runtime=Path("/runtime"))


def names(plan: Plan) -> list[str]:
    return [spec.name for spec in plan.processes]


def test_children_come_in_the_order_of_the_start() -> None:
    plan = build(settings("[simulator]\nenabled = true\n"))
    assert names(plan) == ["simulator", "engine-BTC", "engine-ETH", "engine-SOL", "ingest", "api-master"]
    stages = [spec.stage.number for spec in plan.processes]
    assert stages == sorted(stages)
    assert [spec.name for spec in plan.processes if spec.waits_for] == ["simulator"]


def test_without_the_simulator_its_row_stays_free() -> None:
    plan = build(settings())
    assert "simulator" not in names(plan)
    assert "simulator" in [row.name for row in plan.rows]


def test_rows_are_in_their_fixed_order_and_each_child_has_its_own() -> None:
    plan = build(settings("[api]\nworkers = 3\n[symbols.BTC]\n[symbols.DOGE]\nstep = 1.0\ntick = 0.1\n"))
    assert [row.name for row in plan.rows] == [
        "supervisor", "ingest", "engine-BTC", "engine-DOGE", "api-master", "api-0", "api-1", "api-2", "simulator",
        "tool-0", "tool-1", "tool-2", "tool-3",
    ]  # fmt: skip
    assert all(plan.rows[spec.row].name == spec.name and plan.rows[spec.row].role is spec.role for spec in plan.processes)
    assert [row.index for row in plan.rows if row.role is Role.API_WORKER] == [0, 1, 2]


def test_commands_name_settings_row_and_symbol() -> None:
    plan = {spec.name: spec for spec in build(settings()).processes}
    where = ("--settings", "/runtime/settings.json", "--row")
    assert plan["engine-ETH"].arguments == ("-P", "-m", "mpengine.engine.process", *where, "3", "--symbol", "ETH")
    assert plan["ingest"].arguments == ("-P", "-m", "mpengine.ingest.process", *where, "1")
    assert plan["api-master"].arguments == ("-P", "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:get_app()")
    assert plan["api-master"].environment == {"MPENGINE_SETTINGS": "/runtime/settings.json"}
    assert Path(interpreter()).exists()


def test_engines_show_progress_the_others_beat() -> None:
    plan = build(settings())
    assert {spec.name for spec in plan.processes if spec.watch is Watch.PROGRESS} == {"engine-BTC", "engine-ETH", "engine-SOL"}
    assert [spec.symbol for spec in plan.processes if spec.watch is Watch.PROGRESS] == ["BTC", "ETH", "SOL"]


def test_doorbells_go_to_their_engine_and_all_of_them_to_the_api() -> None:
    plan = {spec.name: spec for spec in build(settings()).processes}
    assert plan["engine-ETH"].doorbells == ("ETH",)
    assert plan["api-master"].doorbells == ("BTC", "ETH", "SOL")
    assert plan["ingest"].doorbells == ()


def test_only_the_api_takes_settings_by_hangup() -> None:
    assert [spec.name for spec in build(settings()).processes if spec.reload is Reload.HANGUP] == ["api-master"]


def test_unresolved_directories_are_refused() -> None:
    with pytest.raises(ConfigError):
        build(load("", {}))


def test_stop_shares_rise_in_the_order_of_the_stop() -> None:
    backwards = sorted(Stage, key=lambda stage: -stage.number)
    shares = [stage.stop_share for stage in backwards]
    assert backwards[0] is Stage.API
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
