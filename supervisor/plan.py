"""Settings -> what to run: one frozen `ProcessSpec` per child, the rows of the board, the rings. Pure.

Stages are the order of the start; the stop goes backwards: API, ingest, engines, simulator.

    0 simulator (the others wait until it is LIVE) | 1 engines | 2 ingest | 3 gunicorn with its workers
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import msgspec

from mpengine.config import Settings
from shm.board import RowName
from shm.board_words import Role

SPARE_ROWS: Final = 4
API_APPLICATION: Final = "api.app:get_app()"
API_SETTINGS: Final = "python:api.gunicorn_conf"
SETTINGS_VARIABLE: Final = "MPENGINE_SETTINGS"
SOURCES: Final = {1: "ingest"}
"""Names of feed shards by the id that they put into batches; there is one (`mpengine/ingest/rings.py`)."""


class Watch(Enum):
    """By what a child shows that it does not hang."""

    PROGRESS = "progress"  # word PROGRESS advances while its event ring fills
    BEAT = "beat"  # word BEAT_NS advances, input or not


class Reload(Enum):
    """How new settings reach a running child."""

    RESTART = "restart"
    HANGUP = "hangup"  # SIGHUP: gunicorn starts new workers and lets the old ones finish


class Stage(Enum):
    """Order of the start, with the share of the stop time that a stage may have used up when it is over.

    The API has most: clients are told and drained. What a stage leaves goes to the ones behind it.
    """

    SIMULATOR = (0, 1.0)
    ENGINES = (1, 0.95)
    INGEST = (2, 0.75)
    API = (3, 0.55)

    @property
    def number(self) -> int:
        """Position in the order of the start."""
        return self.value[0]

    @property
    def stop_share(self) -> float:
        """Part of `stop_timeout_s`, from its begin, after which the stage is killed."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One child. `arguments` are those of the interpreter; `digest` is over the settings that it must be restarted for.

    doorbells: symbols whose eventfd it gets. symbol: whose event ring tells whether it has input. waits_for: the later
    stages start when it is LIVE or FAILED.
    """

    name: str
    role: Role
    row: int
    stage: Stage
    arguments: tuple[str, ...]
    watch: Watch = Watch.BEAT
    reload: Reload = Reload.RESTART
    symbol: str = ""
    doorbells: tuple[str, ...] = ()
    waits_for: bool = False
    digest: str = ""
    roll_digest: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the supervisor runs and makes. Plans with equal `layout` can share board, rings and doorbells."""

    settings: Settings
    processes: tuple[ProcessSpec, ...]
    rows: tuple[RowName, ...]
    sources: Mapping[int, str]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in the order of the settings."""
        return tuple(self.settings.symbols)

    @property
    def layout(self) -> tuple[Any, ...]:
        """What the shared files of the runtime folder are made from; a change of it restarts everything."""
        return self.rows, self.symbols, self.settings.engine.ring_units


Builder = Callable[[Settings], Plan]


def build(settings: Settings) -> Plan:
    """The plan of the settings, whose directories are resolved. Raises ConfigError where they are not."""
    rows = rows_of(settings)
    number = {row.name: index for index, row in enumerate(rows)}
    path = str(settings.paths.settings)
    simulator = [_simulator(settings, number["simulator"], path)] if settings.simulator.enabled else []
    engines = [_engine(settings, symbol, number[f"engine-{symbol}"], path) for symbol in settings.symbols]
    processes = (*simulator, *engines, _ingest(settings, number["ingest"], path), _api(settings, number["api-master"], path))
    return Plan(settings, processes, rows, SOURCES)


def rows_of(settings: Settings) -> tuple[RowName, ...]:
    """Rows of the board in their fixed order. Gunicorn's workers find theirs by name."""
    return (
        RowName("supervisor", Role.SUPERVISOR, 0),
        RowName("ingest", Role.INGEST, 0),
        *(RowName(f"engine-{symbol}", Role.ENGINE, index) for index, symbol in enumerate(settings.symbols)),
        RowName("api-master", Role.API_MASTER, 0),
        *(RowName(f"api-{index}", Role.API_WORKER, index) for index in range(settings.api.workers)),
        RowName("simulator", Role.SIMULATOR, 0),
        *(RowName(f"tool-{index}", Role.TOOL, index) for index in range(SPARE_ROWS)),
    )


def _module(module: str, *arguments: str) -> tuple[str, ...]:
    return ("-P", "-m", module, *arguments)


def _simulator(settings: Settings, row: int, path: str) -> ProcessSpec:
    return ProcessSpec(
        name="simulator",
        role=Role.SIMULATOR,
        row=row,
        stage=Stage.SIMULATOR,
        arguments=_module("mpengine.simulator.process", "--settings", path, "--row", str(row)),
        waits_for=True,
        digest=_digest(settings.simulator, settings.symbols, settings.log),
    )


def _engine(settings: Settings, symbol: str, row: int, path: str) -> ProcessSpec:
    return ProcessSpec(
        name=f"engine-{symbol}",
        role=Role.ENGINE,
        row=row,
        stage=Stage.ENGINES,
        arguments=_module("mpengine.engine.process", "--settings", path, "--row", str(row), "--symbol", symbol),
        watch=Watch.PROGRESS,
        symbol=symbol,
        doorbells=(symbol,),
        digest=_digest(settings.engine, settings.symbols[symbol], settings.log),
    )


def _ingest(settings: Settings, row: int, path: str) -> ProcessSpec:
    return ProcessSpec(
        name="ingest",
        role=Role.INGEST,
        row=row,
        stage=Stage.INGEST,
        arguments=_module("mpengine.ingest.process", "--settings", path, "--row", str(row)),
        digest=_digest(settings.ingest, settings.capture, settings.venues, settings.symbols, settings.log),
    )


def _api(settings: Settings, row: int, path: str) -> ProcessSpec:
    # What the master holds itself (address, backlog) needs a new master; everything else reaches it by rolling its workers.
    api = settings.api
    return ProcessSpec(
        name="api-master",
        role=Role.API_MASTER,
        row=row,
        stage=Stage.API,
        arguments=_module("gunicorn", "-c", API_SETTINGS, API_APPLICATION),
        reload=Reload.HANGUP,
        doorbells=tuple(settings.symbols),
        digest=_digest(api.host, api.port, api.backlog, api.workers),
        roll_digest=settings.config_hash,
        environment={SETTINGS_VARIABLE: path},
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def interpreter() -> str:
    """The Python that runs the children: the supervisor's own."""
    return sys.executable
