"""What a picture is to show, made of the answers of the API: cells, scales, candles, gaps, marks and every text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mpengine import __version__
from mpengine.cells import HI_USD, LO_USD, usd_of_u8log
from mpengine.contract import Candles, Zone
from mpengine.mphm import Block, Heatmap
from mpengine.palettes import Palette
from mpengine.plot import ticks
from mpengine.plot.layout import Badge, Legend, Mark, Wanted

HeatName = Literal["liq", "tape", "projected", "depth"]
Cells = npt.NDArray[np.uint8]
Columns = npt.NDArray[np.bool_]

MAPS: Final[tuple[HeatName, ...]] = ("liq", "tape", "projected")
HEAT: Final[tuple[HeatName, ...]] = (*MAPS, "depth")
BLOCKS: Final[dict[HeatName, tuple[Block, Block]]] = {
    "liq": (Block.LIQ_LONG, Block.LIQ_SHORT),
    "tape": (Block.TAPE_LONG, Block.TAPE_SHORT),
    "projected": (Block.PROJECTED_LONG, Block.PROJECTED_SHORT),
    "depth": (Block.DEPTH_BID, Block.DEPTH_ASK),
}
TITLES: Final[dict[HeatName, str]] = {
    "liq": "liquidation map",
    "tape": "map of realised liquidations",
    "projected": "projected liquidation map",
    "depth": "order-book map",
}
LEGENDS: Final[dict[HeatName, str]] = {
    "liq": "Liquidation map: estimated USD of exposure",
    "tape": "Tape: USD liquidated, fading",
    "projected": "Projection: estimated USD of exposure",
    "depth": "Order book: USD resting, 30 s average",
}
SIDES: Final[dict[HeatName, tuple[str, str]]] = {
    **dict.fromkeys(MAPS, ("longs", "shorts")),
    "depth": ("bids", "asks"),
}
SAMPLING: Final = {
    "largest_1s": "liquidations: largest per second (lower bound)",
    "largest_per_side_1s": "liquidations: largest per side and second (lower bound)",
    "batched_1s": "liquidations: batches of 1 s",
    "all_500ms": "liquidations: all, every 500 ms",
    "partial": "liquidations: a part (lower bound)",
    "none": "no liquidations",
}
VENUES: Final = {"binance": "Binance", "bybit": "Bybit", "okx": "OKX", "hyperliquid": "Hyperliquid"}

LOCK: Final = 0.99
"""Share of the cells with something in them that the locked top of a scale is not exceeded by, as on the page."""
LOCK_SPAN: Final = 50.0
"""A locked scale spans at least this factor, so that a quiet market still has shades."""
LOCK_LO_USD: Final = 10_000.0
ZONES_PER_SIDE: Final = 5
FRESH_S: Final = 90.0
"""No layer is stale up to this age; what the server calls stale before is its feeds of liquidations."""
CANDLE_UNITS: Final = 5.0
"""Width of a candle and its gap, at least."""
BAR_MINUTES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 240)


class Empty(ValueError):
    """There is nothing to show; the text says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """A layer. `cells`: uint8[2, cols, rows] of `mpengine.cells`, longs or bids first; `missing`: columns without a frame.

    `above`: it lies on another layer.
    """

    name: HeatName
    palette: Palette
    cells: Cells
    missing: Columns
    lo_usd: float
    hi_usd: float
    above: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A candle of [open_ms, close_ms)."""

    open_ms: int
    close_ms: int
    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True, slots=True)
class Bubble:
    """Realised liquidations of one cell and side (0 long, 1 short)."""

    col: int
    row: int
    side: int
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What was asked for. `lo_usd`, `hi_usd`: of every scale; None: locked to what is shown. `ended`: a past range."""

    symbol: str
    layers: tuple[HeatName, ...]
    realised: bool
    palette: Palette
    lo_usd: float | None
    hi_usd: float | None
    zones: bool
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A picture without its places. Rows ascend in price; row r covers `low` + r * `step` to one `step` more."""

    ask: Ask
    t0_ms: int
    dt_ms: int
    cols: int
    low: float
    step: float
    rows: int
    heats: tuple[Heat, ...]
    bars: tuple[Bar, ...]
    bubbles: tuple[Bubble, ...]
    zones: tuple[Zone, ...]
    profile: npt.NDArray[np.float64] | None
    price: float | None
    age_s: float | None
    stale: bool
    provenance: dict[str, Any]

    @property
    def t1_ms(self) -> int:
        """End of the newest column."""
        return self.t0_ms + self.cols * self.dt_ms

    @property
    def high(self) -> float:
        """Upper edge of the highest row."""
        return self.low + self.rows * self.step

    @property
    def estimated(self) -> bool:
        """Whether a layer is a model."""
        return any(heat.name in MAPS for heat in self.heats)


def compose(
    ask: Ask, heatmap: Heatmap, candles: Candles | None, zones: Iterable[Zone], *, age_s: float | None, stale: bool
) -> Scene:
    """The scene of some answers. Raises Empty."""
    header = heatmap.header
    low, high = header.price0 - header.step / 2, header.price0 + (header.rows - 0.5) * header.step
    heats = tuple(_heat(ask, name, heatmap) for name in ask.layers if BLOCKS[name][0] in heatmap.planes)
    if not heats:
        raise Empty(f"there are no frames of {ask.symbol} yet")
    if not header.cols or not header.rows or all(heat.missing.all() for heat in heats):
        raise Empty(f"there are no frames of {ask.symbol} in this range")
    t1_ms = header.t0_ms + header.cols * header.dt_ms
    return Scene(
        ask=ask, t0_ms=header.t0_ms, dt_ms=header.dt_ms, cols=header.cols, low=low, step=header.step, rows=header.rows, heats=heats,
        bars=() if candles is None else tuple(_minutes(candles, header.t0_ms, t1_ms)), bubbles=_bubbles(heatmap),
        zones=_heaviest(zones, low, high) if ask.zones else (), profile=_profile(heats[0]), price=_newest_price(heatmap),
        age_s=age_s, stale=stale, provenance=heatmap.provenance,
    )  # fmt: skip


def _heat(ask: Ask, name: HeatName, heatmap: Heatmap) -> Heat:
    cells = np.stack([heatmap.dense(block) for block in BLOCKS[name]])
    missing: Columns = heatmap.numbers["depth" if name == "depth" else "liq"] < 0
    lo, hi = scale_of(cells, ask.lo_usd, ask.hi_usd)
    # Two layers over each other need two palettes: then the book is the neutral one, as on the page.
    above = name == "depth" and len(ask.layers) > 1
    other: Palette = "viridis" if ask.palette == "mono" else "mono"
    return Heat(name, other if above else ask.palette, cells, missing, lo, hi, above)


def scale_of(cells: Cells, lo_usd: float | None, hi_usd: float | None) -> tuple[float, float]:
    """(lowest, highest) USD of a scale; what is None is locked to the cells, as the page does it. Raises Empty where lo >= hi."""
    if hi_usd is None:
        counts = np.bincount(cells[cells > 0].reshape(-1), minlength=256)
        reached = np.cumsum(counts) >= LOCK * counts.sum()
        top = float(usd_of_u8log(np.array([np.argmax(reached)], np.uint8))[0]) if counts.any() else 0.0
        hi_usd = min(HI_USD, max(_rounded(top), LO_USD * LOCK_SPAN, (lo_usd or 0.0) * LOCK_SPAN))
    lo = _rounded(min(LOCK_LO_USD, hi_usd / LOCK_SPAN)) if lo_usd is None else lo_usd
    if not LO_USD <= lo < hi_usd <= HI_USD:
        raise Empty(f"the colour scale must rise within {LO_USD:g} to {HI_USD:g} USD")
    return lo, hi_usd


def _rounded(usd: float) -> float:
    return min(HI_USD, max(LO_USD, float(f"{usd:.2g}")))


def _minutes(candles: Candles, t0_ms: int, t1_ms: int) -> Iterable[Bar]:
    for t, *prices in zip(candles.t, candles.o, candles.h, candles.l, candles.c):
        if t0_ms <= t < t1_ms:
            yield Bar(t, t + candles.interval_ms, *prices)


def bars_of(scene: Scene, pixels_per_ms: float, unit: float) -> list[Bar]:
    """Candles as wide as can be told apart: minutes put together on whole multiples of the day's minutes. Nothing where none is."""
    if not scene.bars:
        return []
    least_ms = max(scene.dt_ms, CANDLE_UNITS * unit / pixels_per_ms)
    minutes = next((some for some in BAR_MINUTES if some * ticks.MINUTE_MS >= least_ms), BAR_MINUTES[-1])
    span = minutes * ticks.MINUTE_MS
    groups: dict[int, list[Bar]] = {}
    for bar in scene.bars:
        groups.setdefault(bar.open_ms // span * span, []).append(bar)
    return [
        Bar(start, start + span, some[0].open, max(one.high for one in some), min(one.low for one in some), some[-1].close)
        for start, some in groups.items()
    ]


def _bubbles(heatmap: Heatmap) -> tuple[Bubble, ...]:
    """The largest first, so that the small ones stay visible on top of them."""
    if heatmap.points is None:
        return ()
    inside = [one for one in heatmap.points if one["col"] < heatmap.header.cols and one["row"] < heatmap.header.rows]
    found = (Bubble(int(one["col"]), int(one["row"]), int(one["side"]), float(one["usd"])) for one in inside)
    return tuple(sorted(found, key=lambda one: (-one.usd, one.col, one.row, one.side)))


def _heaviest(zones: Iterable[Zone], low: float, high: float) -> tuple[Zone, ...]:
    """The heaviest of each side in the window, heaviest first."""
    kept: list[Zone] = []
    counts = {"long": 0, "short": 0}
    for zone in sorted(zones, key=lambda one: (-one.weight, one.price)):
        if low <= zone.price < high and counts[zone.side] < ZONES_PER_SIDE:
            counts[zone.side] += 1
            kept.append(zone)
    return tuple(kept)


def _profile(heat: Heat) -> npt.NDArray[np.float64] | None:
    """float64[2, rows] USD of the newest column that has a frame."""
    there = np.flatnonzero(~heat.missing)
    return usd_of_u8log(heat.cells[:, there[-1], :]) if len(there) else None


def _newest_price(heatmap: Heatmap) -> float | None:
    known = heatmap.src[np.isfinite(heatmap.src)]
    return float(known[-1]) if len(known) else None


def wanted(scene: Scene, width: int, height: int, scale: int) -> Wanted:
    """Everything that a layout needs to know of it."""
    return Wanted(
        width=width, height=height, scale=scale, title=title_of(scene), badges=badges_of(scene), facts=facts_of(scene),
        notes=notes_of(scene), t0_ms=scene.t0_ms, t1_ms=scene.t1_ms, low=scene.low, high=scene.high, price=scene.price,
        legends=[Legend(LEGENDS[one.name], SIDES[one.name], one.lo_usd, one.hi_usd) for one in scene.heats],
        marks=_marks_of(scene),
    )  # fmt: skip


def title_of(scene: Scene) -> str:
    """`BTC liquidation map, order-book map`."""
    return f"{scene.ask.symbol} {', '.join(TITLES[heat.name] for heat in scene.heats)}"


def badges_of(scene: Scene) -> list[Badge]:
    """Whether it is an estimate, and whether the data stands still."""
    found = [Badge("ESTIMATED")] if scene.estimated else [Badge("30 s AVERAGE")]
    if scene.stale:
        old = scene.age_s is not None and scene.age_s > FRESH_S
        found.append(Badge(f"STALE {ticks.age_text(scene.age_s or 0.0)}" if old else "STALE", warns=True))
    return found


def _why_stale(scene: Scene) -> str:
    if scene.age_s is None:
        return "the newest data of the server is of unknown age"
    if scene.age_s > FRESH_S or not scene.ask.realised:
        return f"the newest data of the server is {ticks.age_text(scene.age_s)} old"
    return "no feed of liquidations is live, so realised ones may be missing"


def facts_of(scene: Scene) -> list[str]:
    """What the axes are, how old and since when the data is."""
    coverage = scene.provenance["coverage"]
    since = coverage["data_since_ms"]
    facts = [
        ticks.range_text(scene.t0_ms, scene.t1_ms),
        f"cell {ticks.span_text(scene.dt_ms)} by {scene.step:,g} USD, the largest in it",
    ]
    if scene.price is not None:
        facts.append(f"price {ticks.plain_price(scene.price)} USD")
    facts.append("data since unknown" if since is None else f"data since {ticks.moment_text(since)} UTC")
    if scene.stale:
        facts.append(f"STALE: {_why_stale(scene)}")
    elif scene.age_s is not None and not scene.ask.ended:
        facts.append(f"{ticks.age_text(scene.age_s)} old when it was drawn")
    return facts


def notes_of(scene: Scene) -> list[str]:
    """What it means, what it is based on, what it was made with."""
    notes = []
    if any(heat.name in ("liq", "projected") for heat in scene.heats):
        notes.append("Estimated exposure of openings seen in open interest: no orders, no expected liquidations")
    if any(heat.name == "depth" for heat in scene.heats):
        notes.append("Far depth of the book is partial")
    coverage = scene.provenance["coverage"]
    notes += [_venue_text(name, venue) for name, venue in coverage["venues"].items()]
    if coverage["flags"]:
        notes.append(f"newest column: {', '.join(flag.replace('_', ' ') for flag in coverage['flags'])}")
    model = f"model {scene.provenance['model']}, " if scene.estimated else ""
    notes.append(f"{model}config {scene.provenance['config_hash'][:12]}, mpengine {__version__}")
    return notes


def _venue_text(name: str, venue: dict[str, Any]) -> str:
    parts = [SAMPLING.get(venue["liquidations"], venue["liquidations"])]
    parts += [text for key, text in (("depth", "book"), ("oi", "open interest")) if venue[key]]
    if venue["state"] not in ("LIVE", None):
        parts.append(f"book {venue['state']}")
    return f"{VENUES.get(name, name)} {', '.join(parts)}"


def _marks_of(scene: Scene) -> list[Mark]:
    marks = [Mark("candle", "price; hollow: up")] if scene.bars else []
    for side, name in ((0, "long"), (1, "short")):
        some = [one.usd for one in scene.bubbles if one.side == side]
        if some:
            marks.append(Mark("long" if side == 0 else "short", f"{name}s liquidated, largest {ticks.usd_text(some[0])} USD"))
    if scene.zones:
        marks.append(Mark("zone", "heaviest zones now: price, estimated USD"))
    if scene.profile is not None and scene.profile.any():
        what = SIDES[scene.heats[0].name]
        marks.append(Mark("profile", f"newest column ({', '.join(what)}), full width {ticks.usd_text(scene.profile.max())} USD"))
    missing = (heat for heat in scene.heats if heat.missing.any())
    gaps = (Mark("gap_depth" if heat.name == "depth" else "gap_map", f"no data of the {gap_name(heat)}") for heat in missing)
    return [*marks, *gaps]


def gap_name(heat: Heat) -> str:
    """`map` or `book`."""
    return "book" if heat.name == "depth" else "map"


def stretches(columns: Columns) -> list[tuple[int, int]]:
    """[first, last + 1) of each run of columns that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], columns.astype(np.int8), [0]))))
    return [(int(edges[index]), int(edges[index + 1])) for index in range(0, len(edges), 2)]


def chunks_of(scene: Scene) -> dict[str, str]:
    """Texts that go into the file beside the picture: keyword -> text, ASCII but for the symbol."""
    since = scene.provenance["coverage"]["data_since_ms"]
    return {
        "Title": f"{title_of(scene)}, {ticks.range_text(scene.t0_ms, scene.t1_ms)}",
        "Software": f"mpengine {__version__}",
        "Symbol": scene.ask.symbol,
        "Range": f"{_iso(scene.t0_ms)}/{_iso(scene.t1_ms)}",
        "Layers": ",".join([*(heat.name for heat in scene.heats), *(["realised"] if scene.ask.realised else [])]),
        "Scales": ",".join(f"{heat.name}={heat.lo_usd:g}..{heat.hi_usd:g} USD" for heat in scene.heats),
        "Model": str(scene.provenance["model"]),
        "Config-Hash": str(scene.provenance["config_hash"]),
        "Estimated": "estimated" if scene.estimated else "measured, time-averaged",
        "Data-Since": "unknown" if since is None else _iso(since),
        "Stale": "true" if scene.stale else "false",
        "Age-Seconds": "unknown" if scene.age_s is None else f"{scene.age_s:.1f}",
    }


def _iso(t_ms: int) -> str:
    return f"{ticks.moment_text(t_ms).replace(' ', 'T')}:{t_ms // 1000 % 60:02d}Z"


def resampled(cells: Cells, size: int, axis: int) -> Cells:
    """Cells over `size` pixels of an axis: repeated where there is room, the largest of each pixel's where there is none.

    Pixel edges are those of `layout.cell_edges`.
    """
    count = cells.shape[axis]
    if count <= size:
        edges = size * np.arange(count + 1) // count
        return np.repeat(cells, np.diff(edges), axis=axis)
    starts = (np.arange(size) * count) // size
    pooled: Cells = np.maximum.reduceat(cells, starts, axis=axis)
    return pooled


def one_side(cells: Cells) -> tuple[Cells, npt.NDArray[np.intp]]:
    """(largest of both sides, which side it is) of uint8[2, ...]: a cell shows the side that holds more, longs where both do."""
    return np.maximum(cells[0], cells[1]), (cells[1] > cells[0]).astype(np.intp)


def layer_names(names: Sequence[str]) -> tuple[tuple[HeatName, ...], bool]:
    """(layers of heat, a map before the book; whether realised liquidations). Raises ValueError with what is wrong."""
    unknown = [name for name in names if name not in (*HEAT, "realised")]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join((*HEAT, 'realised'))}")
    heats = tuple(name for name in HEAT if name in names)
    if sum(name in MAPS for name in heats) > 1:
        raise ValueError("liq, tape and projected are maps of the same places: one of them")
    if not heats:
        raise ValueError("one of liq, tape, projected, depth is needed")
    return heats, "realised" in names
