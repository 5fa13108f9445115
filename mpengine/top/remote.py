"""Facts of a server anywhere, over its public API: `/health` every 2 s, `/heatmap` once per symbol, and push with resume.

The client is imported when it is first needed: the first screen does not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypedDict, TypeVar

from mpengine.top import fanout
from mpengine.top.model import Facts, Layer
from mpengine.top.text import safe

if TYPE_CHECKING:
    from mpengine.client import AsyncClient, Client, ClientError, Options, Position, Stream
    from mpengine.mphm import Heatmap
    from mpengine.top.remote_state import RemoteState

T = TypeVar("T")
_ApiLayer = Literal["liq", "depth"]

HEALTH_S: Final = 2.0
RETRY_S: Final = 3.0
TIMEOUT_S: Final = 5.0
MINUTES: Final[dict[Layer, int]] = {"map": 240, "book": 120}
"""Of history: 240 columns of each."""


class _Asked(TypedDict):
    layers: list[_ApiLayer]
    dt_s: int
    k: int


ASKED: Final[dict[Layer, _Asked]] = {
    "map": {"layers": ["liq"], "dt_s": 60, "k": 1}, "book": {"layers": ["depth"], "dt_s": 30, "k": 1},
}  # fmt: skip
NOT_READY: Final = 503
"""Before the first frame: no fault, and nothing to wait for in a request."""


class Unusable(Exception):
    """The server cannot be shown at all; the text says why."""


def _options() -> Options:
    from mpengine.client import Options, Retries

    return Options(timeout_s=TIMEOUT_S, retries=Retries(tries=1), reconnect_limit_s=RETRY_S)


def _why(url: str, error: ClientError) -> str:
    from mpengine.client import ApiError

    if isinstance(error, ApiError) and error.status in (401, 403):
        return safe(f"{url} wants a key (MPENGINE_API_KEY or --key-file): {error.detail}")
    return safe(f"{url} answers {error}" if isinstance(error, ApiError) else f"{url} does not answer: {error}")


class RemoteSource:
    """The server at an address. `read` gives what has come so far; `run` makes it come."""

    def __init__(self, url: str, key: str | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError where the address is none."""
        self._url = url
        self._key = key
        self._monotonic = monotonic
        self._state: RemoteState | None = None
        self._shown: str | None = None
        self._positions: dict[str, Position] = {}

    def _ready(self) -> RemoteState:
        from mpengine.top.remote_state import RemoteState

        if self._state is None:
            self._state = RemoteState(self._url)
        return self._state

    def _mono_ms(self) -> float:
        return self._monotonic() * 1000

    def read(self, shown: str | None, range_pct: float) -> Facts:
        """Facts of now."""
        self._shown = shown
        wall_ms = time.time_ns() // 1_000_000
        if self._state is None:
            return Facts(now_ms=wall_ms, source=self._url, trouble="connecting", shown=shown)
        return self._state.facts(shown, range_pct, self._mono_ms(), wall_ms)

    # --- once -----------------------------------------------------------------------------------------------------------

    def once(self, shown: str | None, range_pct: float, *, heat: bool) -> Facts:
        """One look by requests alone; `heat`: with the strips. Raises Unusable."""
        from mpengine.client import Client, ClientError

        state = self._ready()
        try:
            with Client(self._url, key=self._key, options=_options()) as client:
                state.health(client.health().body, self._mono_ms())
                if shown is not None and shown not in state.symbols:
                    raise Unusable(f"{shown} is not a symbol of {self._url}")
                symbol = shown or next(iter(state.symbols), None)
                if symbol is not None:
                    self._ask(client, state, symbol, heat=heat)
        except ClientError as error:
            raise Unusable(_why(self._url, error)) from error
        return state.facts(shown, range_pct, self._mono_ms(), time.time_ns() // 1_000_000)

    @staticmethod
    def _ask(client: Client, state: RemoteState, symbol: str, *, heat: bool) -> None:
        """Zones, liquidations and columns of one symbol. What is not there yet is left out."""
        from mpengine.client import ApiError

        def unless_early(ask: Callable[[], T]) -> T | None:
            try:
                return ask()
            except ApiError as error:
                if error.status != NOT_READY:
                    raise
                return None

        zones = unless_early(lambda: client.liq_zones(symbol).body)
        events = unless_early(lambda: client.liquidations(symbol).body)
        state.listed(symbol, zones, events)
        minutes = MINUTES if heat else {"map": 5, "book": 5}

        def columns(layer: Layer) -> Heatmap:
            return client.heatmap_bin(symbol, minutes=minutes[layer], **ASKED[layer]).body

        for layer in _layers(state, symbol):
            body = unless_early(partial(columns, layer))
            if body is not None:
                state.grid(symbol, layer, body)

    # --- live -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the facts up to date until cancelled; whatever the server does, it is tried again."""
        import asyncio

        from mpengine.client import AsyncClient

        state = self._ready()
        async with AsyncClient(self._url, key=self._key, options=_options()) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(client, state))
            tasks.create_task(self._follow(client, state))
            tasks.create_task(self._measure(client, state))

    async def close(self) -> None:
        """`run` closes what it opened."""

    async def _poll(self, client: AsyncClient, state: RemoteState) -> None:
        import asyncio

        from mpengine.client import ClientError

        while True:
            try:
                state.health((await client.health()).body, self._mono_ms())
            except ClientError as error:
                state.failed(_why(self._url, error))
            await asyncio.sleep(HEALTH_S)

    async def _measure(self, client: AsyncClient, state: RemoteState) -> None:
        """Fan-out, where the server gives its metrics to the public; elsewhere it is not told, and not asked for again."""
        import asyncio

        from mpengine.client import ApiError, ClientError

        meter = fanout.Meter()
        while True:
            try:
                state.fanout = meter.take((await client.metrics()).body, self._monotonic())
            except ApiError as error:
                if error.status == 404:
                    return
            except ClientError:
                pass  # `_poll` says that it does not answer
            await asyncio.sleep(fanout.EVERY_S)

    async def _follow(self, client: AsyncClient, state: RemoteState) -> None:
        """The push channels of the symbol that is shown, one subscription after the other."""
        import asyncio

        refused: set[str] = set()
        while True:
            symbol = self._wanted(state)
            if symbol is None:
                await asyncio.sleep(0.05)
                continue
            stream = asyncio.create_task(self._stream(client, state, symbol, refused))
            try:
                while not stream.done() and self._wanted(state) == symbol:
                    await asyncio.wait([stream], timeout=0.1)
            finally:
                stream.cancel()
                await asyncio.wait([stream])
            if not stream.cancelled() and stream.exception() is not None:
                await stream  # a fault of ours: not hidden

    def _wanted(self, state: RemoteState) -> str | None:
        return self._shown if self._shown in state.symbols else next(iter(state.symbols), None)

    async def _stream(self, client: AsyncClient, state: RemoteState, symbol: str, refused: set[str]) -> None:
        """One subscription until it ends; what had been received is resumed behind its position."""
        import asyncio

        from mpengine.client import ClientError, Lost, Refused

        try:
            await self._history(client, state, symbol)
            channels = [name for name in self._channels(state, symbol) if name not in refused]
            async with client.subscribe(channels, positions=self._positions) as stream:
                beats = asyncio.create_task(self._hear(stream, state))
                try:
                    async for item in stream:
                        state.item(item, self._mono_ms())
                        self._positions.update(stream.positions)
                        if isinstance(item, Lost):
                            await self._history(client, state, symbol, anew=True)
                finally:
                    beats.cancel()
        except Refused as error:
            refused.update(error.errors)
        except ClientError as error:
            state.failed(_why(self._url, error))
            await asyncio.sleep(RETRY_S)

    async def _hear(self, stream: Stream, state: RemoteState) -> None:
        """A beat is a sign of life, too."""
        import asyncio

        known = None
        while True:
            if stream.beat is not known:
                known = stream.beat
                state.heard(self._mono_ms())
            await asyncio.sleep(1.0)

    @staticmethod
    def _channels(state: RemoteState, symbol: str) -> list[str]:
        names = [f"liq.{symbol}", f"liquidations.{symbol}", f"zones.{symbol}"]
        names += [f"depth.{symbol}"] if symbol in state.books else []
        # Prices of all symbols: a book every 30 s and a minute bar each, little to send.
        return names + [f"book.{name}" for name in state.books] + [f"candles.{name}" for name in state.symbols]

    async def _history(self, client: AsyncClient, state: RemoteState, symbol: str, *, anew: bool = False) -> None:
        """Columns of the time before, once per symbol; push goes on from there."""
        from mpengine.client import ApiError

        for layer in _layers(state, symbol):
            if state.known(symbol).heats[layer].newest_ms is None or anew:
                try:
                    body = (await client.heatmap_bin(symbol, minutes=MINUTES[layer], **ASKED[layer])).body
                except ApiError as error:
                    if error.status != NOT_READY:
                        raise
                else:
                    state.grid(symbol, layer, body)


def _layers(state: RemoteState, symbol: str) -> list[Layer]:
    """Layers that a symbol has."""
    return ["map", "book"] if symbol in state.books else ["map"]
