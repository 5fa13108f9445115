"""Answers of a server for one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mpengine.client import ApiError, Client, Options, Retries
from mpengine.client.requests import Layer
from mpengine.contract import Candles, Zone
from mpengine.plot.scene import Ask, Empty, Scene, compose
from mpengine.plot.ticks import MINUTE_MS

OPTIONS: Final = Options(timeout_s=30.0, retries=Retries(tries=3, wait_s=5.0))
COLUMNS: Final = (16, 1440)
ROWS: Final = (16, 2000)
NOTHING_YET: Final = ("no_frame", "not_ready")
CANDLES: Final = 1500
PLOT_WIDTH, PLOT_HEIGHT = 0.75, 0.55
"""Share of a picture that its plot has about: cells that are asked for have a pixel each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What part of the heatmap. `to_ms`: end, epoch ms, None: newest; `range_pct`: percent around the newest price."""

    minutes: int
    to_ms: int | None
    price_min: float | None
    price_max: float | None
    range_pct: float | None
    width: int
    height: int


def fetch(url: str, key: str | None, ask: Ask, window: Window) -> Scene:
    """The scene as the server has it now. Raises ClientError, Empty, ValueError for an address that is none."""
    with Client(url, key=key, options=OPTIONS) as client:
        return _fetched(client, ask, window)


def _fetched(client: Client, ask: Ask, window: Window) -> Scene:
    candles = _candles(client, ask, window)
    low, high = _prices(client, ask, window, candles)
    layers: tuple[Layer, ...] = (*ask.layers, "realised") if ask.realised else ask.layers
    try:
        answer = client.heatmap_bin(
            ask.symbol, minutes=window.minutes, to_ms=window.to_ms, layers=layers, price_min=low, price_max=high, form="sparse",
            cell="u8log", max_cols=_between(COLUMNS, window.width * PLOT_WIDTH),
            max_rows=_between(ROWS, window.height * PLOT_HEIGHT),
        )  # fmt: skip
    except ApiError as error:
        if error.code in NOTHING_YET:
            raise Empty(f"there are no frames of {ask.symbol} yet ({error.detail})") from None
        raise
    zones: list[Zone] = []
    if ask.zones:
        try:
            zones = client.liq_zones(ask.symbol).body.zones
        except ApiError as error:
            if error.code not in NOTHING_YET:
                raise
    return compose(ask, answer.body, candles, zones, age_s=answer.age(), stale=bool(answer.stale))


def _between(limits: tuple[int, int], value: float) -> int:
    return min(limits[1], max(limits[0], int(value)))


def _candles(client: Client, ask: Ask, window: Window) -> Candles | None:
    """Minute bars of the range; None where there is no bar yet. One more hour: columns reach a little beyond the range."""
    to_ms = None if window.to_ms is None else window.to_ms + 60 * MINUTE_MS
    try:
        return client.candles(ask.symbol, limit=min(CANDLES, window.minutes + 60), to_ms=to_ms).body
    except ApiError as error:
        if error.code in NOTHING_YET:
            return None
        raise


def _prices(client: Client, ask: Ask, window: Window, candles: Candles | None) -> tuple[float | None, float | None]:
    """Lowest and highest price to ask for; None: all there is."""
    if window.range_pct is None:
        return window.price_min, window.price_max
    inside = [] if candles is None else [
        close for t, close in zip(candles.t, candles.c) if window.to_ms is None or t < window.to_ms
    ]  # fmt: skip
    price = inside[-1] if inside else _price_of_frames(client, ask, window)
    return price * (1.0 - window.range_pct / 100.0), price * (1.0 + window.range_pct / 100.0)


def _price_of_frames(client: Client, ask: Ask, window: Window) -> float:
    try:
        src = client.heatmap_bin(ask.symbol, minutes=window.minutes, to_ms=window.to_ms, layers=ask.layers, max_rows=16).body.src
    except ApiError as error:
        if error.code in NOTHING_YET:
            raise Empty(f"there are no frames of {ask.symbol} yet ({error.detail})") from None
        raise
    known = src[src > 0]
    if not len(known):
        raise Empty(f"there is no price of {ask.symbol} in this range, so the range cannot be taken around it")
    return float(known[-1])
