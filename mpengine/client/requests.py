"""Every endpoint as a function from typed parameters to a request. Pure; both clients make their methods of these.

A parameter that is None is left out, so the server's default holds. What is out of range is for the server to say: its tables are
the only ones. The paths without a version are used; an alias answers the identical body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any, Final, Generic, Literal, SupportsIndex, TypeVar
from urllib.parse import urlencode

import msgspec

from mpengine import contract, mphm
from mpengine.client.errors import ContractError
from mpengine.wire_formats import DepthCells, unpack_depth

T = TypeVar("T")
Side = Literal["long", "short"]
Interval = Literal["1m", "5m", "15m", "1h", "4h"]
Layer = Literal["liq", "depth", "realised", "tape", "projected"]
Pool = Literal["max", "sum"]
Form = Literal["dense", "sparse"]

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain"
OK: Final = frozenset((200,))
OK_OR_NOT_READY: Final = frozenset((200, 503))


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One question. `accept`: statuses whose body `decode` understands; `keep`: whether its answer may be kept for a 304."""

    path: str
    query: tuple[tuple[str, str], ...]
    decode: Callable[[bytes], T]
    media: str = JSON
    accept: frozenset[int] = OK
    keep: bool = True

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


def _json(kind: type[T]) -> Callable[[bytes], T]:
    decoder = msgspec.json.Decoder(kind)

    def decode(body: bytes) -> T:
        try:
            return decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ContractError(f"not a {kind.__name__}: {error}") from error

    return decode


def _binary(unpacker: Callable[[bytes], T], name: str) -> Callable[[bytes], T]:
    def decode(body: bytes) -> T:
        try:
            return unpacker(body)
        except ValueError as error:
            raise ContractError(f"not a {name}: {error}") from error

    return decode


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _query(**values: object) -> tuple[tuple[str, str], ...]:
    return tuple((name, _spelled(value)) for name, value in values.items() if value is not None)


def _spelled(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, SupportsIndex):
        return str(index(value))
    if isinstance(value, Real):
        return repr(float(value))  # numpy's floats print their type
    assert isinstance(value, Iterable)
    return ",".join(map(str, value))


_HEALTH: Final = _json(contract.Health)
_LIVE: Final = _json(contract.Live)
_READY: Final = _json(contract.Ready)
_TIME: Final = _json(contract.Time)
_OI: Final = _json(contract.OpenInterest)
_MAP_V1: Final = _json(contract.LiqHeatmap)
_MAP_V2: Final = _json(contract.LiqHeatmapV2)
_MAP_HISTORY: Final = _json(contract.LiqHistory)
_MAP_STATS: Final = _json(contract.LiqStats)
_DEPTH: Final = _json(contract.DepthHeatmap)
_DEPTH_HISTORY: Final = _json(contract.DepthHistory)
_DEPTH_STATS: Final = _json(contract.DepthStats)
_DEPTH_DEBUG: Final = _json(contract.DepthDebug)
_DEPTH_BIN: Final = _binary(lambda body: unpack_depth(body, history=False), "depth answer")
_DEPTH_HISTORY_BIN: Final = _binary(lambda body: unpack_depth(body, history=True), "depth history")
_ZONES: Final = _json(contract.Zones)
_ZONES_SUMMARY: Final = _json(contract.ZonesSummary)
_ZONES_HEATMAP: Final = _json(contract.ZonesHeatmap)
_HEATMAP: Final = _json(contract.Heatmap)
_HEATMAP_BIN: Final = _binary(mphm.decode, "heatmap")
_LIQUIDATIONS: Final = _json(contract.Liquidations)
_CANDLES: Final = _json(contract.Candles)
_OPENAPI: Final = _json(dict[str, Any])


def health() -> Request[contract.Health]:
    """State of everything; while it is starting (status 503) too."""
    return Request("/health", (), _HEALTH, accept=OK_OR_NOT_READY)


def livez() -> Request[contract.Live]:
    """Whether a worker turns."""
    return Request("/livez", (), _LIVE)


def readyz() -> Request[contract.Ready]:
    """Whether this server should get requests; the answer's `status` is 503 where it should not."""
    return Request("/readyz", (), _READY, accept=OK_OR_NOT_READY)


def time() -> Request[contract.Time]:
    """The clock that ages are counted with; `clock_offset` measures with it."""
    return Request("/time", (), _TIME)


def metrics() -> Request[str]:
    """Prometheus text; only where the server gives it on this port."""
    return Request("/metrics", (), _text, TEXT)


def openapi() -> Request[dict[str, Any]]:
    """The OpenAPI document."""
    return Request("/openapi.json", (), _OPENAPI)


def oi(symbol: str = "BTC") -> Request[contract.OpenInterest]:
    """Open interest of the venues and its sum."""
    return Request("/oi", _query(symbol=symbol), _OI)


def liq_heatmap(symbol: str = "BTC") -> Request[contract.LiqHeatmap]:
    """Newest liquidation map, smoothed and stretched."""
    return Request("/liq_heatmap", _query(symbol=symbol), _MAP_V1)


def liq_heatmap_history(
    symbol: str = "BTC", *, minutes: int | None = None, stride: int | None = None
) -> Request[contract.LiqHistory]:
    """Those maps of up to 12 hours as 0..255 cells."""
    return Request("/liq_heatmap_history", _query(symbol=symbol, minutes=minutes, stride=stride), _MAP_HISTORY)


def liq_heatmap_v2(symbol: str = "BTC", *, min_notional: float | None = None) -> Request[contract.LiqHeatmapV2]:
    """Newest liquidation map as it is, with its pools (of at least `min_notional` USD) and statistics."""
    return Request("/liq_heatmap_v2", _query(symbol=symbol, min_notional=min_notional), _MAP_V2)


def liq_heatmap_v2_history(
    symbol: str = "BTC", *, minutes: int | None = None, stride: int | None = None
) -> Request[contract.LiqHistory]:
    """Those maps of up to 12 hours as 0..255 cells."""
    return Request("/liq_heatmap_v2_history", _query(symbol=symbol, minutes=minutes, stride=stride), _MAP_HISTORY)


def liq_stats(symbol: str = "BTC") -> Request[contract.LiqStats]:
    """Tape, inference, zones and calibrator in numbers."""
    return Request("/liq_stats", _query(symbol=symbol), _MAP_STATS)


def orderbook_heatmap(
    symbol: str = "BTC",
    *,
    range_pct: float | None = None,
    step: float | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
) -> Request[contract.DepthHeatmap]:
    """Newest 30 s order-book frame."""
    query = _query(symbol=symbol, range_pct=range_pct, step=step, price_min=price_min, price_max=price_max)
    return Request("/orderbook_heatmap", query, _DEPTH)


def orderbook_heatmap_bin(
    symbol: str = "BTC",
    *,
    range_pct: float | None = None,
    step: float | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
) -> Request[DepthCells]:
    """The same in binary form: arrays instead of lists."""
    query = _query(symbol=symbol, range_pct=range_pct, step=step, price_min=price_min, price_max=price_max, format="bin")
    return Request("/orderbook_heatmap", query, _DEPTH_BIN, BINARY)


def orderbook_heatmap_history(
    symbol: str = "BTC",
    *,
    minutes: int | None = None,
    stride: int | None = None,
    range_pct: float | None = None,
    step: float | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
) -> Request[contract.DepthHistory]:
    """Order-book frames of up to 12 hours."""
    query = _query(
        symbol=symbol, minutes=minutes, stride=stride, range_pct=range_pct, step=step, price_min=price_min, price_max=price_max
    )
    return Request("/orderbook_heatmap_history", query, _DEPTH_HISTORY)


def orderbook_heatmap_history_bin(
    symbol: str = "BTC",
    *,
    minutes: int | None = None,
    stride: int | None = None,
    range_pct: float | None = None,
    step: float | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
) -> Request[DepthCells]:
    """The same in binary form: arrays instead of lists."""
    query = _query(
        symbol=symbol, minutes=minutes, stride=stride, range_pct=range_pct, step=step, price_min=price_min, price_max=price_max,
        format="bin",
    )  # fmt: skip
    return Request("/orderbook_heatmap_history", query, _DEPTH_HISTORY_BIN, BINARY)


def orderbook_heatmap_stats(symbol: str = "BTC") -> Request[contract.DepthStats]:
    """Ring of order-book frames, books of the venues."""
    return Request("/orderbook_heatmap_stats", _query(symbol=symbol), _DEPTH_STATS)


def orderbook_heatmap_debug(symbol: str = "BTC") -> Request[contract.DepthDebug]:
    """The ring of order-book frames in nine numbers."""
    return Request("/orderbook_heatmap_debug", _query(symbol=symbol), _DEPTH_DEBUG)


def liq_zones(
    symbol: str = "BTC",
    *,
    side: Side | None = None,
    min_leverage: int | None = None,
    max_leverage: int | None = None,
    min_weight: float | None = None,
) -> Request[contract.Zones]:
    """Liquidation zones, heaviest first."""
    query = _query(symbol=symbol, side=side, min_leverage=min_leverage, max_leverage=max_leverage, min_weight=min_weight)
    return Request("/liq_zones", query, _ZONES)


def liq_zones_summary(symbol: str = "BTC") -> Request[contract.ZonesSummary]:
    """How many zones, and what happened to them."""
    return Request("/liq_zones_summary", _query(symbol=symbol), _ZONES_SUMMARY)


def liq_zones_heatmap(
    symbol: str = "BTC",
    *,
    min_notional: float | None = None,
    min_leverage: int | None = None,
    max_leverage: int | None = None,
    min_weight: float | None = None,
) -> Request[contract.ZonesHeatmap]:
    """Zones as levels of both sides."""
    query = _query(
        symbol=symbol, min_notional=min_notional, min_leverage=min_leverage, max_leverage=max_leverage, min_weight=min_weight
    )
    return Request("/liq_zones_heatmap", query, _ZONES_HEATMAP)


def heatmap(
    symbol: str = "BTC",
    *,
    minutes: int | None = None,
    to_ms: int | None = None,
    since_ms: int | None = None,
    layers: Iterable[Layer] | None = None,
    dt_s: int | None = None,
    k: int | None = None,
    max_cols: int | None = None,
    max_rows: int | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
    pool: Pool | None = None,
    form: Form | None = None,
    cell: Literal["u8log", "usd"] | None = None,
    min_usd: float | None = None,
    venues: Iterable[str] | None = None,
) -> Request[contract.Heatmap]:
    """Both maps and the realised liquidations on one grid."""
    query = _query(
        symbol=symbol, minutes=minutes, to_ms=to_ms, since_ms=since_ms, layers=layers, dt_s=dt_s, k=k, max_cols=max_cols,
        max_rows=max_rows, price_min=price_min, price_max=price_max, pool=pool, form=form, cell=cell, min_usd=min_usd,
        venues=venues,
    )  # fmt: skip
    return Request("/heatmap", query, _HEATMAP)


def heatmap_bin(
    symbol: str = "BTC",
    *,
    minutes: int | None = None,
    to_ms: int | None = None,
    since_ms: int | None = None,
    layers: Iterable[Layer] | None = None,
    dt_s: int | None = None,
    k: int | None = None,
    max_cols: int | None = None,
    max_rows: int | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
    pool: Pool | None = None,
    form: Form | None = None,
    cell: Literal["u8log", "f16"] | None = None,
    min_usd: float | None = None,
    venues: Iterable[str] | None = None,
) -> Request[mphm.Heatmap]:
    """The same in binary form (`MPHM`): arrays instead of lists."""
    query = _query(
        symbol=symbol, minutes=minutes, to_ms=to_ms, since_ms=since_ms, layers=layers, dt_s=dt_s, k=k, max_cols=max_cols,
        max_rows=max_rows, price_min=price_min, price_max=price_max, pool=pool, form=form, cell=cell, min_usd=min_usd,
        venues=venues, format="bin",
    )  # fmt: skip
    return Request("/heatmap", query, _HEATMAP_BIN, BINARY)


def liquidations(
    symbol: str = "BTC",
    *,
    after: int | None = None,
    before: int | None = None,
    epoch: int | None = None,
    limit: int | None = None,
    side: Side | None = None,
    venue: str | None = None,
    min_usd: float | None = None,
) -> Request[contract.Liquidations]:
    """Realised liquidations, one page; the newest ones without `after` and `before`."""
    query = _query(
        symbol=symbol, after=after, before=before, epoch=epoch, limit=limit, side=side, venue=venue, min_usd=min_usd
    )  # fmt: skip
    return Request("/liquidations", query, _LIQUIDATIONS)


def candles(
    symbol: str = "BTC", *, interval: Interval | None = None, limit: int | None = None, to_ms: int | None = None
) -> Request[contract.Candles]:
    """Closed bars as columns, oldest first."""
    return Request("/candles", _query(symbol=symbol, interval=interval, limit=limit, to_ms=to_ms), _CANDLES)
