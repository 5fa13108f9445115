"""The examples of decoding MPHM in docs/api.md give what `mpengine.mphm` gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpengine import mphm
from mpengine.mphm import Block
from tests.api.world import NOW_MS, SLOT_MS, World, depth_frame, get, map_frame

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
DRIVER = """
const fs = require("fs");
const bytes = fs.readFileSync(process.argv[2]);
const found = decode(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const cells = found.cells(7);
console.log(JSON.stringify({
  t0Ms: found.t0Ms, dtMs: found.dtMs, cols: found.cols, rows: found.rows, price0: found.price0, step: found.step,
  cells: Array.from(cells), usd: Array.from(cells, found.usd),
  missing: Array.from({length: found.cols}, (_, column) => found.missing(33, column)),
}));
"""


def example(language: str) -> str:
    """The block of the section about MPHM in one language."""
    section = PAGE.read_text(encoding="utf-8").partition("### Binary form: MPHM")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def world_with_holes(world: World) -> World:
    for at in (0, 1, 4):
        world.add_map(map_frame(NOW_MS + at * 60_000, seed=at))
        world.add_depth(depth_frame(NOW_MS + at * 60_000 - SLOT_MS, seed=at))
    return world


@pytest.mark.parametrize("query", ["", "&cell=f16", "&form=sparse", "&form=sparse&cell=f16"])
def test_python(world_with_holes: World, query: str) -> None:
    data = get(world_with_holes.app(), f"/heatmap?minutes=8&dt_s=60&k=5&format=bin{query}").body
    names: dict[str, Any] = {}
    exec(compile(example("python"), "docs/api.md", "exec"), names)
    times_ms, prices, plane, numbers = names["decode"](data)
    found = mphm.decode(data)
    header = found.header
    assert times_ms.tolist() == [header.t0_ms + 60_000 * column for column in range(8)]
    assert prices.tolist() == [header.price0 + header.step * row for row in range(header.rows)]
    for block in found.planes:
        assert plane(int(block)) == pytest.approx(found.usd(block), rel=1e-12)
        assert plane(int(block)).any()
    assert numbers(32).tolist() == found.numbers["liq"].tolist() and -1 in numbers(32)
    assert numbers(33).tolist() == found.numbers["depth"].tolist()


def test_javascript(world_with_holes: World, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    data = get(world_with_holes.app(), "/heatmap?minutes=8&dt_s=60&k=5&format=bin").body
    (tmp_path / "answer.mphm").write_bytes(data)
    (tmp_path / "example.js").write_text(example("javascript") + DRIVER, encoding="utf-8")
    command = [node, str(tmp_path / "example.js"), str(tmp_path / "answer.mphm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    body, found = json.loads(done.stdout), mphm.decode(data)
    header = found.header
    assert [body[name] for name in ("t0Ms", "dtMs", "cols", "rows", "price0", "step")] == [
        header.t0_ms, header.dt_ms, header.cols, header.rows, header.price0, header.step
    ]  # fmt: skip
    assert body["cells"] == found.dense(Block.DEPTH_BID).reshape(-1).tolist() and max(body["cells"]) > 0
    assert body["usd"] == pytest.approx(found.usd(Block.DEPTH_BID).reshape(-1), rel=1e-12)
    assert body["missing"] == np.equal(found.numbers["depth"], -1).tolist()
