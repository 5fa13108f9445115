"""Every constant of the liquidation engine has the value of its table (`spec: engine`, sections 3, 4, 8 to 15)."""

from __future__ import annotations

from types import ModuleType

import pytest

from mpengine import brackets, heatmap, pictures
from mpengine.engine import (
    attribution,
    buckets,
    calibrator,
    estimators,
    inference,
    leverage,
    liquidation_maps,
    liquidations,
    open_interest,
    pools,
    tape,
    tracker,
    zones,
)

SECOND = 1_000_000_000

TABLE: list[tuple[ModuleType, str, object]] = [
    (liquidations, "EVENT_REJECT_PCT", 0.15), (liquidations, "EVENT_FAR_PCT", 0.025),
    (liquidations, "REFERENCE_MARK_NS", 5 * SECOND),
    (open_interest, "MAX_AGE_NS", 60 * SECOND), (open_interest, "BASELINE_AGE_NS", 120 * SECOND),
    (leverage, "MAX_TIER_WEIGHT", 0.35), (leverage, "MIN_MASS_MID", 0.25), (leverage, "MID_MAX_LEVERAGE", 25),
    (leverage, "SMALLEST_SUM", 1e-9), (leverage, "MARGIN_SHARE", 0.5), (leverage, "MAX_LOOKUPS", 20),
    (brackets, "AMOUNT_TOLERANCE_USD", 1.0),
    (inference, "OI_MIN_CHANGE_PCT", 0.00005), (inference, "MIN_SIDE_USD", 100.0), (inference, "MIN_CONTRIBUTION_USD", 100.0),
    (inference, "SWEEP_MIN_BUCKET_USD", 100.0), (inference, "LEDGER_MIN_USD", 1.0), (inference, "BUY_WEIGHT_MIN", 0.10),
    (inference, "BUY_WEIGHT_MAX", 0.90), (inference, "MAX_OI_REDUCTION_PER_MINUTE", 0.25),
    (inference, "SWEEP_REDUCTION_FACTOR", 0.70), (inference, "DECAY_PER_MINUTE", 0.995), (inference, "TAKER_MINUTES", 10),
    (buckets, "MAX_MAP_BUCKETS", 20_000), (tape, "TAPE_MIN_BUCKET_USD", 1.0),
    (heatmap, "COMBINED_SOURCE_EPS", 1e-4), (heatmap, "COMBINED_ZONE_BOOST", 1.5), (heatmap, "P99_MIN_VALUES", 20),
    (heatmap, "MAP_RANGE", 0.10),
    (pools, "CLUSTER_RADIUS_PCT", 0.005), (pools, "MIN_BUCKET_USD", 100.0), (pools, "MIN_POOL_USD", 1000.0),
    (pools, "MAX_POOLS_PER_SIDE", 20),
    (pictures, "V1_RANGE", 0.08), (pictures, "KERNEL", (0.1, 0.2, 0.4, 0.2, 0.1)), (pictures, "FLAT_SPAN", 0.01),
    (pictures, "DARK_BELOW", 0.1), (pictures, "DIGITS", 4), (pictures, "SCALE", 255),
    (calibrator, "CALIBRATION_INTERVAL_MIN", 15), (calibrator, "ANCHOR_LAMBDA", 0.10), (calibrator, "RATIO_MIN", 0.85),
    (calibrator, "RATIO_MAX", 1.20), (calibrator, "EVIDENCE_PRIOR", 5.0), (calibrator, "SAFETY_WINDOWS", 3),
    (calibrator, "WEIGHTS_SCHEMA", 3), (calibrator, "WEIGHT_DIGITS", 6),
    (attribution, "EVIDENCE_TIME_CONSTANT_MIN", 1440), (attribution, "EVIDENCE_MIN", 1.0), (attribution, "MIN_TIERS", 2),
    (attribution, "TAU_PCT_BASE", 0.0012), (attribution, "DELTA_PCT_BASE", 0.0008), (attribution, "SMALLEST_MEAN", 1e-9),
    (attribution, "MINUTE_CACHE_SIZE", 60), (attribution, "PENDING_MAX", 1000), (attribution, "MAX_EVENTS_PER_MINUTE", 10_000),
    (estimators, "WINSOR_WINDOW", 2000), (estimators, "WINSOR_MIN", 100), (estimators, "WINSOR_QUANTILE", 0.99),
    (estimators, "MMR_MIN_SAMPLES", 30), (estimators, "MMR_WINDOW", 500), (estimators, "MMR_MIN", 0.002),
    (estimators, "MMR_MAX", 0.02), (estimators, "MMR_SAMPLE_MAX", 0.05), (estimators, "BIAS_ETA", 0.10),
    (estimators, "BIAS_CAP", 0.008), (estimators, "MIN_BIAS_SAMPLES", 10), (estimators, "VOL_BASELINE", 0.0015),
    (estimators, "VOL_EWMA_ALPHA", 0.1), (estimators, "VOL_SCALE_MIN", 0.7), (estimators, "VOL_SCALE_MAX", 1.6),
    (estimators, "HIT_BUCKET_TOLERANCE", 4), (estimators, "APPROACH_PCT", 0.0075),
    (zones, "MAX_ZONE_AGE_MIN", 240), (zones, "MIN_ZONE_WEIGHT", 0.05), (zones, "MAX_ZONE_WEIGHT", 5.0),
    (zones, "EXPIRATION_PRICE_DIST_PCT", 0.02), (zones, "REINFORCEMENT_FACTOR", 0.3), (zones, "CLUSTER_DISTANCE_PCT", 0.0005),
    (zones, "ZONE_UNIT_ALPHA", 0.01), (zones, "MAX_ZONES_PER_SIDE", 2000),
    (zones, "ZONE_FACTORS",
     {5: 0.2, 10: 0.0, 20: 0.4, 25: 0.5, 50: 0.8, 75: 0.9, 100: 1.0, 125: 1.0, 150: 0.9, 200: 0.8, 250: 0.7}),
    (tracker, "MAX_SHOWN", 5), (tracker, "TTL_MIN", 10), (tracker, "ENTER_MARGIN", 0.07), (tracker, "EXIT_MARGIN", 0.05),
    (tracker, "PEAK_DROP", 0.70), (tracker, "MIN_STRENGTH", 0.01), (tracker, "MATCH_PCT", 0.0025), (tracker, "MISS_DECAY", 0.95),
    (liquidation_maps, "METRICS_MINUTES", 10),
]  # fmt: skip


@pytest.mark.covers("A1-L1")
@pytest.mark.parametrize(("module", "name", "value"), TABLE, ids=[f"{one[0].__name__.rsplit('.')[-1]}.{one[1]}" for one in TABLE])
def test_a_constant_has_the_value_of_its_table(module: ModuleType, name: str, value: object) -> None:
    assert getattr(module, name) == value
