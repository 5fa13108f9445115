"""Typed client of the HTTP and push contract: `Client` for plain programs, `AsyncClient` for those with an event loop.

    requests, answers    what is asked, what an answer is; kept bodies, retries          pure
    protocol, heal       push: sequence rule, gaps, resets, zones, columns               pure
    sync, aio, push, bridge                                                              shells around them

It reads what the API serves and imports nothing of the server: arrow before, `mpengine.contract` and the byte layouts.
docs/client.md has examples that are run as tests.
"""

from __future__ import annotations

from mpengine.client.aio import AsyncClient
from mpengine.client.answers import Answer, ClockOffset, Retries
from mpengine.client.bridge import SyncStream
from mpengine.client.columns import Column
from mpengine.client.errors import ApiError, ClientError, ContractError, Refused, SlowConsumer, Unreachable
from mpengine.client.options import Options
from mpengine.client.push import Stream
from mpengine.client.sync import Client
from mpengine.client.updates import (
    ColumnUpdate,
    EventsUpdate,
    Item,
    Lost,
    Position,
    Reset,
    StateUpdate,
    Update,
    ZonesUpdate,
)

__all__ = [
    "Answer", "ApiError", "AsyncClient", "Client", "ClientError", "ClockOffset", "Column", "ColumnUpdate", "ContractError",
    "EventsUpdate", "Item", "Lost", "Options", "Position", "Refused", "Reset", "Retries", "SlowConsumer", "StateUpdate", "Stream",
    "SyncStream", "Unreachable", "Update", "ZonesUpdate",
]  # fmt: skip
