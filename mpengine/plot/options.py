"""Options of `mpengine plot`, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from mpengine.plot.layout import check_size

KEY_VARIABLE: Final = "MPENGINE_API_KEY"
MINUTES: Final = (5, 1440)
PALETTES: Final = ("viridis", "inferno", "cividis", "mono")
"""Those of `mpengine.palettes`, which is not imported for `--help`."""


def size_of(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, int]:
    """`1600x900`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise click.BadParameter("must look like 1600x900")
    width, height = int(parts[0]), int(parts[1])
    try:
        check_size(width, height, 1)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return width, height


def moment_of(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Epoch ms, or a date or time (UTC where it names no zone)."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        found = int(text)
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise click.BadParameter("must be a time like 2027-01-31T12:00 (UTC) or epoch milliseconds") from None
        found = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 10**11 <= found < 10**14:
        raise click.BadParameter("must be a time like 2027-01-31T12:00 (UTC) or epoch milliseconds, not seconds")
    return found


_OPTIONS: Final[tuple[Callable[..., Any], ...]] = (
    click.argument("symbol"),
    click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG file to write."),
    click.option("--url", help="Server; default: the API of the settings on this machine."),
    click.option(
        "--key-file", type=click.Path(path_type=Path), help=f"File with an API key in its first line; default ${KEY_VARIABLE}."
    ),
    click.option(
        "--minutes", default=720, show_default=True, type=click.IntRange(*MINUTES), help="Length of the range; columns get wider."
    ),
    click.option("--to", "to_ms", callback=moment_of, metavar="TIME", help="End of the range: ISO time (UTC) or epoch ms."),
    click.option(
        "--layers", default="liq,realised", show_default=True, metavar="LIST", help="One of liq, tape, projected; depth; realised."
    ),
    click.option("--price-min", type=click.FloatRange(min=0.0, min_open=True), help="Lowest price, USD."),
    click.option("--price-max", type=click.FloatRange(min=0.0, min_open=True), help="Highest price, USD."),
    click.option("--range-pct", type=click.FloatRange(0.1, 50.0), help="Instead: percent up and down from the newest price."),
    click.option("--size", default="1600x900", show_default=True, callback=size_of, metavar="WxH", help="Size of the picture."),
    click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 4), help="Pixels per unit of the size."),
    click.option("--theme", default="dark", show_default=True, type=click.Choice(["dark", "light"])),
    click.option("--palette", default="viridis", show_default=True, type=click.Choice(PALETTES)),
    click.option(
        "--lo", "lo_usd", type=click.FloatRange(100.0, 1e9), help="USD below which nothing is drawn; default: locked to the data."
    ),
    click.option("--hi", "hi_usd", type=click.FloatRange(100.0, 1e9), help="USD of the last colour; default: 99 % of the cells."),
    click.option("--no-zones", is_flag=True, help="Without marks of the heaviest zones."),
)  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and options of the command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
