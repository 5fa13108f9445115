"""`mpengine plot`: what was asked for becomes a file, or a sentence why not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpengine.client import ApiError, ClientError, ContractError, Unreachable
from mpengine.palettes import Palette, Theme
from mpengine.plot.fetch import Window, fetch
from mpengine.plot.layout import TooSmall, check_size
from mpengine.plot.options import KEY_VARIABLE
from mpengine.plot.scene import Ask, Empty, Scene, layer_names
from shm.atomic_file import write_atomic

FILE_MODE: Final = 0o644
INSTALL: Final = "plot needs Pillow: pip install 'mpengine[plot]' (or pip install pillow)"


class Wrong(ValueError):
    """Options that do not go together; the text says which."""


class Failed(Exception):
    """No picture; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Options of the command as they came. `size`: width, height; `*_usd` USD; `to_ms` epoch ms."""

    symbol: str
    out: Path
    url: str
    key_file: Path | None
    minutes: int
    to_ms: int | None
    layers: str
    price_min: float | None
    price_max: float | None
    range_pct: float | None
    size: tuple[int, int]
    scale: int
    theme: Theme
    palette: Palette
    lo_usd: float | None
    hi_usd: float | None
    no_zones: bool


def local_url(host: str, port: int) -> str:
    """Where an API that listens on `host` answers on this machine."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def draw(given: Given) -> str:
    """Write the picture; a line about it. Raises Wrong, Failed. A file that was there stays whole until the new one is."""
    ask, window = _ask(given), _window(given)
    try:
        from mpengine.plot.paint import painted
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise Failed(INSTALL) from None
    if not given.out.parent.is_dir():
        raise Failed(f"{given.out.parent} is not a directory")
    scene = _scene(given, ask, window)
    try:
        data = painted(scene, given.size, given.scale, given.theme)
    except TooSmall as error:
        raise Failed(str(error)) from None
    try:
        write_atomic(given.out, data, mode=FILE_MODE)
    except OSError as error:
        raise Failed(f"{given.out} cannot be written ({error.strerror or type(error).__name__})") from None
    width, height = (side * given.scale for side in given.size)
    stale = ", STALE" if scene.stale else ""
    return f"{given.out}: {scene.ask.symbol}, {scene.cols} columns, {scene.rows} rows, {width}x{height}, {len(data):,} bytes{stale}"


def _ask(given: Given) -> Ask:
    try:
        layers, realised = layer_names([name.strip() for name in given.layers.split(",")])
        check_size(*given.size, given.scale)
    except ValueError as error:
        raise Wrong(str(error)) from None
    if given.lo_usd is not None and given.hi_usd is not None and given.lo_usd >= given.hi_usd:
        raise Wrong("--lo must be below --hi")
    maps = any(name != "depth" for name in layers)
    return Ask(
        symbol=given.symbol.strip().upper(), layers=layers, realised=realised, palette=given.palette, lo_usd=given.lo_usd,
        hi_usd=given.hi_usd, zones=maps and not given.no_zones and given.to_ms is None, ended=given.to_ms is not None,
    )  # fmt: skip


def _window(given: Given) -> Window:
    if given.range_pct is not None and (given.price_min is not None or given.price_max is not None):
        raise Wrong("--range-pct, or --price-min and --price-max")
    if given.price_min is not None and given.price_max is not None and given.price_min >= given.price_max:
        raise Wrong("--price-min must be below --price-max")
    width, height = given.size
    return Window(
        minutes=given.minutes, to_ms=given.to_ms, price_min=given.price_min, price_max=given.price_max, range_pct=given.range_pct,
        width=width * given.scale, height=height * given.scale,
    )  # fmt: skip


def _scene(given: Given, ask: Ask, window: Window) -> Scene:
    try:
        return fetch(given.url, _key(given.key_file), ask, window)
    except Empty as error:
        raise Failed(str(error)) from None
    except ApiError as error:
        raise Failed(_refused(ask.symbol, error)) from None
    except Unreachable as error:
        raise Failed(f"no answer from {given.url} ({type(error.cause).__name__}): is mpengine running there?") from None
    except ContractError as error:
        raise Failed(f"{given.url} does not answer as mpengine does: {error}") from None
    except ClientError as error:
        raise Failed(str(error)) from None
    except ValueError as error:
        raise Failed(f"{given.url}: {error}") from None


def _refused(symbol: str, error: ApiError) -> str:
    if error.code == "invalid_symbol":
        return f"the server does not have {symbol}: {error.detail}"
    if error.code in ("unauthorized", "forbidden"):
        return f"the server wants a key with the scope read (${KEY_VARIABLE} or --key-file): {error.detail}"
    return f"the server refused: {error}"


def _key(file: Path | None) -> str | None:
    """First line of the file, else what the environment has."""
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read ({type(error).__name__})") from None
    if not lines or not lines[0].strip():
        raise Failed(f"{file} has no key in its first line")
    return lines[0].strip()


def given_of(url: str, options: dict[str, Any]) -> Given:
    """Options of the command line, and the server that they mean."""
    return Given(**{**options, "url": url})
