"""The operator's page and the service unit say what the code does."""

from __future__ import annotations

import re
from configparser import RawConfigParser
from pathlib import Path

import pytest

from mpengine.config import SupervisorSettings
from shm.board_words import State, Word
from supervisor.plan import Stage
from supervisor.policy import HANG_TEXTS
from tests.supervisor.rig import ROOT

PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
UNIT = ROOT / "deploy/mpengine.service"


def test_every_word_of_the_board_is_explained() -> None:
    missing = [word.name.lower() for word in Word if not re.search(rf"\b{word.name.lower()}\b", PAGE)]
    assert not missing


def test_hang_reasons_are_explained() -> None:
    for reason, text in HANG_TEXTS.items():
        assert f"| {int(reason)} {reason.name} | {text} |" in PAGE


def test_every_state_is_in_the_picture() -> None:
    assert all(state.name in PAGE for state in State if state is not State.NONE)


def test_every_fault_has_a_row() -> None:
    assert all(re.search(rf"^\| .*\bF{number}\b", PAGE, re.MULTILINE) for number in range(1, 23))


def test_numbers_of_the_page_are_the_defaults() -> None:
    limits = SupervisorSettings()
    assert (limits.restart_budget, limits.restart_window_s, limits.backoff_first_s, limits.backoff_max_s) == (5, 60, 0.1, 30)
    assert (limits.healthy_after_s, limits.failed_retry_s, limits.hang_after_s, limits.stack_dump_s) == (60, 60, 3, 0.5)
    assert (limits.stop_timeout_s, limits.escalate_after_s) == (10, 120)
    shares = [f"{stage.stop_share:.0%}".replace("%", " %") for stage in (Stage.API, Stage.INGEST, Stage.ENGINES, Stage.SIMULATOR)]
    assert "API until {}, ingest {}, engines {}, simulator {}".format(*shares) in " ".join(PAGE.split())


@pytest.fixture(scope="module")
def unit() -> RawConfigParser:
    """The unit as systemd reads it: names keep their case."""
    parser = RawConfigParser(comment_prefixes=("#", ";"), delimiters=("=",), strict=True)
    parser.optionxform = lambda optionstr: optionstr  # type: ignore[method-assign,assignment]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser


@pytest.mark.covers("X-L5", "X-L3", "X-L4")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Type", "notify"), ("NotifyAccess", "main"), ("WatchdogSec", "10"), ("TimeoutAbortSec", "5"), ("TimeoutStartSec", "60"),
        ("TimeoutStopSec", "15"), ("KillMode", "mixed"), ("Restart", "always"), ("RestartSec", "1"), ("OOMPolicy", "continue"),
        ("LimitNOFILE", "1048576"), ("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("PrivateTmp", "yes"),
        ("SystemCallFilter", "@system-service"), ("RuntimeDirectory", "mpengine"), ("StateDirectory", "mpengine"),
        ("CapabilityBoundingSet", ""), ("ProtectHome", "yes"), ("MemoryDenyWriteExecute", "yes"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
    ],
)  # fmt: skip
def test_unit_is_hardened_and_finite(unit: RawConfigParser, name: str, value: str) -> None:
    assert unit["Service"][name] == value


@pytest.mark.covers("X-L5")
def test_unit_has_limits_and_restarts_are_limited(unit: RawConfigParser) -> None:
    assert unit["Unit"]["StartLimitIntervalSec"] == "300"
    assert unit["Unit"]["StartLimitBurst"] == "20"
    assert re.fullmatch(r"\d+[MG]", unit["Service"]["MemoryMax"])
    assert unit["Service"]["TasksMax"].isdigit()
    assert unit["Service"]["User"] not in ("", "root")


def test_stop_of_the_supervisor_fits_into_the_time_of_the_unit(unit: RawConfigParser) -> None:
    assert SupervisorSettings().stop_timeout_s < float(unit["Service"]["TimeoutStopSec"])


@pytest.mark.covers("X-M1", "X-L1")
def test_unit_names_no_home_and_no_secret() -> None:
    text = UNIT.read_text("utf-8")
    assert not re.search(r"/home/|/root|/Users|_KEY|_TOKEN|_SECRET|_PASSWORD|Environment=", text)


def test_command_of_the_unit_exists(unit: RawConfigParser) -> None:
    program, command, *_ = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "mpengine"
    assert command == "start"
