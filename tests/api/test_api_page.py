"""The page about the API names everything that there is."""

from __future__ import annotations

import re
from pathlib import Path

from api import errors, params, protocol
from api.endpoints import routes
from tests.api.world import World

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_path_and_alias(world: World) -> None:
    app = world.app()
    for paths, _ in routes(app.context, app._health):
        row = f"| `{paths[0]}` | {f'`{paths[1]}`' if len(paths) > 1 else ''}".rstrip()
        assert row in TEXT, paths


def test_every_parameter_with_its_default_and_range() -> None:
    for row in (*params.DEPTH_HISTORY, *params.CANDLES, *params.LIQUIDATIONS, *params.ZONES_HEATMAP, *params.ZONES):
        assert f"`{row.name}`" in TEXT
        if isinstance(row, params.Integer) and row.clamp:
            line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{row.name}`"))
            assert f"{row.low} to {row.high}" in line and str(row.default) in line and "clamped" in line


def test_every_error_code() -> None:
    source = Path(errors.__file__).read_text(encoding="utf-8") + Path(protocol.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:ApiError|Refusal)\(\d{3}, "(\w+)"', source))
    assert len(codes) > 10
    assert [code for code in sorted(codes) if f"`{code}`" not in TEXT] == []
