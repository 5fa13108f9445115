"""Where the numbers of a heatmap come from (`spec: api`, section 11.4). Pure.

The assumptions are those of the newest minute: weights in force change every quarter of an hour at most, and only the newest
document has them.
"""

from __future__ import annotations

from typing import Any, Final

from api.coverage import flag_names
from mpengine.heatmap import MAP_RANGE
from mpengine.schemas import LevelsDocument
from shm.records import Coverage

MODEL: Final = "oi-taker-ladder/1"
FORMULA: Final = "isolated_linear"
ENTRY_PRICE: Final = "ohlc4_minute"
OI_SPLIT: Final = "taker_share"
NS_PER_MS: Final = 1_000_000


def assumptions(levels: LevelsDocument) -> dict[str, Any]:
    """With what the newest map was made."""
    config = levels.config
    valid_from = config.weights_valid_from_ns
    return {
        "leverage_weights": levels.weights,
        "disabled_tiers": config.disabled_tiers,
        "mmr": config.mmr,
        "formula": FORMULA,
        "entry_price": ENTRY_PRICE,
        "oi_split": OI_SPLIT,
        "tape_weight": config.tape_weight,
        "projection_weight": config.projection_weight,
        "decay_per_min": config.decay_per_min,
        "sweep_reduction": config.sweep_reduction,
        "range_pct": MAP_RANGE,
        "valid_from_ms": None if valid_from is None else valid_from // NS_PER_MS,
    }


def provenance(
    levels: LevelsDocument | None, coverage: dict[str, Any], flags: int, config_hash: str, *, estimated: bool
) -> dict[str, Any]:
    """The block of an answer. `levels`: of the newest map, None without one; `flags`: coverage flags of the newest column;
    `estimated`: whether a layer is a map."""
    return {
        "model": MODEL,
        "estimated": estimated,
        "config_hash": config_hash,
        "assumptions": None if levels is None else assumptions(levels),
        "coverage": {**coverage, "flags": flag_names(Coverage(flags))},
    }
