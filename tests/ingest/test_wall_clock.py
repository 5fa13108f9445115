"""A set wall clock is seen; a slow or steady one is not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mpengine.ingest import wall_clock
from mpengine.ingest.wall_clock import JumpWatch

HOUR = 3600 * 10**9


@pytest.mark.covers("P13", "F16")
@pytest.mark.parametrize("jump_ns", [HOUR, -HOUR, 1_000_000_001])
def test_a_jump_is_counted_once(jump_ns: int) -> None:
    watch = JumpWatch(50 * HOUR, 7)
    assert watch.look(50 * HOUR + 10, 17) == 0
    assert watch.look(50 * HOUR + 20 + jump_ns, 27) == jump_ns
    assert watch.look(50 * HOUR + 30 + jump_ns, 37) == 0
    assert watch.jumps == 1


@pytest.mark.covers("P13", "F16")
def test_drift_is_no_jump() -> None:
    watch = JumpWatch(0, 0)
    for second in range(1, 100_000):
        assert watch.look(int(second * 1e9 * 1.001), int(second * 1e9)) == 0
    assert watch.jumps == 0


@pytest.mark.covers("P13")
def test_no_timer_of_ingest_can_follow_the_wall_clock() -> None:
    """Wall time is data: it is only ever read as nanoseconds, and never in a comparison, a timeout or a sleep."""
    for path in Path(wall_clock.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                assert node.attr in ("time_ns", "monotonic", "monotonic_ns"), f"{path.name} uses time.{node.attr}"
            if isinstance(node, ast.Compare):
                assert "time_ns" not in ast.unparse(node).replace("monotonic_ns", ""), f"{path.name} compares the wall clock"
