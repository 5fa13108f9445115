"""What a server has said so far, as facts. Pure: answers and updates in, facts out; `mono_ms` is a monotonic clock.

Ages that the server tells become times of its clock, and that clock goes on by ours: a wrong clock here changes no age.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mpengine.client.updates import ColumnUpdate, EventsUpdate, Item, Lost, Reset, StateUpdate, ZonesUpdate
from mpengine.contract import Health, Liquidations, SymbolHealth, Zones
from mpengine.contract import Liquidation as Event
from mpengine.contract import Zone as ZoneBody
from mpengine.contract.push import BookState, Candle
from mpengine.mphm import Block, Heatmap
from mpengine.top.figures import percentiles
from mpengine.top.heat import Column, HeatBook, Window, window_at
from mpengine.top.model import (
    LIQUIDATIONS_KEPT,
    Facts,
    FanOut,
    Layer,
    Liquidation,
    Newest,
    Process,
    Stream,
    Symbol,
    Venue,
    Zone,
    strongest,
)

DT_MS: Final[dict[Layer, int]] = {"map": 60_000, "book": 30_000}
LAGS_KEPT: Final = 30
_PLANES: Final[dict[Layer, tuple[str, Block, Block]]] = {
    "map": ("liq", Block.LIQ_LONG, Block.LIQ_SHORT), "book": ("depth", Block.DEPTH_BID, Block.DEPTH_ASK),
}  # fmt: skip
_LAYERS: Final[dict[str, Layer]] = {"liq": "map", "depth": "book"}
_KINDS: Final = ("book", "candle", "map")


@dataclass(slots=True)
class _Known:
    """One symbol. `prices`: kind -> (time, price)."""

    name: str
    heats: dict[Layer, HeatBook] = field(default_factory=lambda: {layer: HeatBook(layer, DT_MS[layer]) for layer in DT_MS})
    newest: dict[Layer, Newest] = field(default_factory=dict)
    prices: dict[str, tuple[int, float]] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    zone_count: int | None = None
    liquidations: deque[Liquidation] = field(default_factory=lambda: deque(maxlen=LIQUIDATIONS_KEPT))
    restarted: bool = False
    lost: str | None = None

    def priced(self) -> tuple[float | None, str | None]:
        """The newest price and what it is of."""
        if not self.prices:
            return None, None
        kind = max(self.prices, key=lambda one: (self.prices[one][0], -_KINDS.index(one)))
        return self.prices[kind][1], kind


class RemoteState:
    """What one server has said."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[str, _Known] = {}
        self._health: Health | None = None
        self._health_mono_ms = 0.0
        self._heard_mono_ms: float | None = None
        self._trouble: str | None = "connecting"
        self._messages: tuple[int, int] | None = None
        self._messages_s: float | None = None
        self._lags: dict[str, deque[list[float]]] = {}
        self._window: tuple[str, Window] | None = None
        self.fanout = FanOut()

    @property
    def symbols(self) -> list[str]:
        """Symbols of the server, none before its first `/health`."""
        return [] if self._health is None else list(self._health.symbols)

    @property
    def books(self) -> list[str]:
        """Those that have an order book."""
        return [] if self._health is None else [name for name, one in self._health.symbols.items() if _has_book(one)]

    def known(self, symbol: str) -> _Known:
        """What is known of a symbol."""
        return self._known.setdefault(symbol, _Known(symbol))

    def heard(self, mono_ms: float) -> None:
        """The server has said something, if only a beat."""
        self._heard_mono_ms = mono_ms

    def failed(self, why: str) -> None:
        """It does not answer, or not with what can be used."""
        self._trouble = why

    def health(self, body: Health, mono_ms: float) -> None:
        """`/health`."""
        total = sum(one.messages for venue in body.exchanges.values() for one in venue.streams.values())
        if self._messages is not None and body.now_ms > self._messages[1] and total >= self._messages[0]:
            self._messages_s = (total - self._messages[0]) * 1000 / (body.now_ms - self._messages[1])
        if self._messages is None or body.now_ms > self._messages[1]:
            self._messages = total, body.now_ms
        for name, venue in body.exchanges.items():
            lags = [one.lag_ms for one in venue.streams.values() if one.state == "LIVE" and one.lag_ms is not None]
            self._lags.setdefault(name, deque(maxlen=LAGS_KEPT)).append(lags)
        self._health, self._health_mono_ms, self._trouble = body, mono_ms, None
        self.heard(mono_ms)

    def grid(self, symbol: str, layer: Layer, body: Heatmap) -> None:
        """`/heatmap` with one layer: columns of the time before."""
        known, (name, low, high) = self.known(symbol), _PLANES[layer]
        header, lows, highs = body.header, body.dense(low), body.dense(high)
        for at, number in enumerate(body.numbers[name].tolist()):
            if number >= 0:
                t_ms = header.t0_ms + at * header.dt_ms
                known.heats[layer].add(Column(t_ms, header.price0, header.step, lows[at], highs[at]))
                src = float(body.src[at])
                self._newest(known, layer, number, t_ms, None if np.isnan(src) else src)
        known.lost = None

    def listed(self, symbol: str, zones: Zones | None, liquidations: Liquidations | None) -> None:
        """`/liq_zones` and `/liquidations`, for one look without push; None: not there yet."""
        known = self.known(symbol)
        if zones is not None:
            self._take_zones(known, zones.zones)
        if liquidations is not None:
            known.liquidations.clear()
            known.liquidations.extend(_event(one) for one in liquidations.items)

    def item(self, item: Item, mono_ms: float) -> None:
        """What a stream handed out."""
        self.heard(mono_ms)
        kind, _, symbol = item.channel.partition(".")
        if not symbol:
            return
        known = self.known(symbol)
        match item:
            case ColumnUpdate():
                layer, column = _LAYERS[kind], item.column
                known.heats[layer].add(Column(column.t_ms, column.price0, column.step, column.low, column.high))
                known.restarted = False
                self._newest(known, layer, item.seq, column.t_ms, column.src)
            case EventsUpdate():
                if item.way == "snapshot":
                    known.liquidations.clear()
                known.liquidations.extend(_event(one) for one in item.events)
            case ZonesUpdate():
                self._take_zones(known, list(item.zones.values()))
            case StateUpdate(value=BookState() as book):
                self._take_book(known, book, item.ts_ms)
            case StateUpdate(value=Candle() as candle):
                known.prices["candle"] = candle.t + DT_MS["map"], candle.c
            case Reset() if kind in _LAYERS:
                known.restarted = True
            case Lost() if kind in _LAYERS:
                known.lost = f"columns {item.first} to {item.last} of the {_LAYERS[kind]} are missing"
            case _:
                pass

    def _newest(self, known: _Known, layer: Layer, seq: int, t_ms: int, src: float | None) -> None:
        held = known.newest.get(layer)
        at_ms = t_ms + (DT_MS[layer] if layer == "map" else 0)
        if held is None or at_ms >= held.ts_ms:
            known.newest[layer] = Newest(seq=seq, ts_ms=at_ms)
            if src is not None:
                known.prices[layer] = t_ms + DT_MS[layer], src

    def _take_zones(self, known: _Known, zones: list[ZoneBody]) -> None:
        known.zone_count = len(zones)
        known.zones = tuple(
            Zone(
                side=one.side, price=one.price, usd=one.notional_usd, weight=one.weight, created_ms=one.created_at,
                source=one.source, leverage=one.dominant_leverage,
            )
            for one in strongest_bodies(zones)
        )  # fmt: skip

    @staticmethod
    def _take_book(known: _Known, book: BookState, ts_ms: int) -> None:
        for one in book.books.values():
            if one.state == "synced" and one.best_bid is not None and one.best_ask is not None:
                known.prices["book"] = one.last_update_ms or ts_ms, (one.best_bid + one.best_ask) / 2
                return

    # --- out ----------------------------------------------------------------------------------------------------------

    def facts(self, shown: str | None, range_pct: float, mono_ms: float, wall_ms: int) -> Facts:
        """Facts of now. `wall_ms`: our clock, for as long as the server has not told its own."""
        body = self._health
        if body is None:
            return Facts(now_ms=wall_ms, source=self._url, trouble=self._trouble, shown=shown)
        then_ms = body.now_ms
        now_ms = then_ms + int(mono_ms - self._health_mono_ms)
        shown = shown if shown in body.symbols else next(iter(body.symbols), None)
        symbols = tuple(self._symbol(name, one, then_ms) for name, one in body.symbols.items())
        known = None if shown is None else self.known(shown)
        price = None if known is None else known.priced()[0]
        window = None if shown is None or price is None else self._window_for(shown, price, range_pct)
        heats = {} if known is None or window is None else {layer: heat.picture(window) for layer, heat in known.heats.items()}
        heard = None if self._heard_mono_ms is None else now_ms - int(mono_ms - self._heard_mono_ms)
        return Facts(
            now_ms=now_ms, source=self._url, version=body.build, heard_ms=heard, trouble=self._trouble,
            since_ms=then_ms - int(body.uptime_s * 1000), messages_s=self._messages_s,
            processes=tuple(
                Process(name=name, role=_role(name), state=one.state, restarts=one.restarts, beat_ms=_before(then_ms, one.age_s))
                for name, one in body.processes.items()
            ),
            venues=self._venues(body, None if shown is None else body.symbols.get(shown)), symbols=symbols, shown=shown,
            zones=() if known is None else strongest(list(known.zones), price),
            liquidations=() if known is None else tuple(reversed(known.liquidations)),
            map=heats.get("map"), book=heats.get("book"), lost=None if known is None else known.lost, fanout=self._fanout(body),
        )  # fmt: skip

    def _fanout(self, body: Health) -> FanOut:
        told = self.fanout
        errors = told.errors_5xx if told.errors_5xx is not None else body.errors.get("http_5xx")
        return FanOut(
            clients=told.clients, dropped=told.dropped, bytes_s=told.bytes_s, requests_s=told.requests_s, errors_5xx=errors
        )

    def _symbol(self, name: str, one: SymbolHealth, then_ms: int) -> Symbol:
        known = self.known(name)
        price, kind = known.priced()
        told = {"map": (one.liq_seq, one.liq_age_s), "book": (one.depth_seq, one.depth_age_s)}
        newest: dict[str, Newest | None] = {}
        for layer in DT_MS:
            seq, age_s = told[layer]
            at_ms, pushed = _before(then_ms, age_s), known.newest.get(layer)
            said = None if seq is None or at_ms is None else Newest(seq=seq, ts_ms=at_ms)
            newest[layer] = pushed if said is None or (pushed is not None and pushed.ts_ms > said.ts_ms) else said
        return Symbol(
            name=name, engine=one.engine, price=price, price_kind=kind,
            # NOTE: a symbol without maps that the server does not call stale has none; one that it calls stale waits for its first.
            maps=newest["map"] is not None or one.stale, books=_has_book(one), map=newest["map"], book=newest["book"],
            oi_ms=_before(then_ms, one.oi_age_s), zones=known.zone_count, data_since_ms=one.data_since_ms,
            restarted=known.restarted,
        )  # fmt: skip

    def _venues(self, body: Health, symbol: SymbolHealth | None) -> tuple[Venue, ...]:
        found = []
        for name, one in body.exchanges.items():
            p50, p99 = percentiles([lag for lags in self._lags.get(name, ()) for lag in lags])
            oi_s = None if symbol is None else symbol.open_interest.get(name)
            found.append(Venue(
                name=name, state=one.state, lag_p50_ms=p50, lag_p99_ms=p99, reconnects=one.reconnects,
                last_ms=_before(body.now_ms, one.age_s), oi_ms=_before(body.now_ms, oi_s),
                book=None if symbol is None else symbol.books.get(name), liquidations=one.liquidations,
                streams=tuple(
                    Stream(name=stream, state=two.state, messages=two.messages, lag_ms=two.lag_ms)
                    for stream, two in one.streams.items()
                ),
                note="canary: sides contradict its prices" if one.canary.alarm else None,
            ))  # fmt: skip
        return tuple(found)

    def _window_for(self, shown: str, price: float, range_pct: float) -> Window:
        before = self._window[1] if self._window is not None and self._window[0] == shown else None
        self._window = shown, window_at(price, range_pct, before)
        return self._window[1]


def strongest_bodies(zones: list[ZoneBody]) -> list[ZoneBody]:
    """PERF: only zones that can be shown become objects of ours: the heaviest 2 x 40 of thousands."""
    found: list[ZoneBody] = []
    for side in ("long", "short"):
        found += sorted((one for one in zones if one.side == side), key=lambda one: -one.notional_usd)[:40]
    return found


def _event(one: Event) -> Liquidation:
    return Liquidation(ts_ms=one.ts_ms, venue=one.venue, side=one.side, price=one.price, usd=one.notional_usd)


def _has_book(one: SymbolHealth) -> bool:
    return one.book != "none" or one.depth_seq is not None


def _before(then_ms: int, age_s: float | None) -> int | None:
    return None if age_s is None else then_ms - int(age_s * 1000)


def _role(name: str) -> str:
    if name == "api-master":
        return "master"
    kind = name.partition("-")[0]
    return kind if kind in ("supervisor", "ingest", "engine", "api") else "other"
