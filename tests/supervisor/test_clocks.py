"""Timeouts and backoff hang on the monotonic clock alone; the wall clock is data (P13, F16)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.supervisor.rig import ROOT

# time_ns: stamp in children.json. sleep: waiting for the children of a killed predecessor, before the loop exists.
# history.py: where the demo's past ends, what it took, the name of what is put aside; it ends before anything is watched.
ALLOWED = {"runtime.py": {"time_ns", "monotonic", "sleep"}, "history.py": {"time_ns", "monotonic", "strftime", "gmtime"}}
FILES = sorted((ROOT / "supervisor").glob("*.py"))


@pytest.mark.covers("P13", "E-H4")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_the_monotonic_clock_decides(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }
    assert used <= ALLOWED.get(path.name, {"monotonic_ns"})
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names}
    assert "datetime" not in imported


@pytest.mark.parametrize("name", ["policy.py", "plan.py", "exitcodes.py", "reload.py"])
def test_pure_parts_touch_no_clock_socket_or_process(name: str) -> None:
    tree = ast.parse((ROOT / "supervisor" / name).read_text("utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not modules & {"os", "time", "socket", "subprocess", "threading", "random", "asyncio"}
