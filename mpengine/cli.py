"""The `mpengine` command. Heavy parts are imported by the command that needs them, so that `--help` is quick.

Exit codes: 0 done, 1 failed, 2 usage, 3 settings refused or another boot failure; of `start` those of the supervisor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mpengine import __version__
from mpengine.plot.options import options as _plot_options

if TYPE_CHECKING:
    from mpengine.brackets import Bracket, BracketFile
    from mpengine.config import Settings
    from mpengine.keys import KeyRecord, Scope

CONFIG_NAMES = ("mpengine.toml", "/etc/mpengine/mpengine.toml")
BENCHES = ("rings", "book", "minute", "heatmap", "wire", "symbols", "api", "push", "access", "top")
BROWSER_BENCHES = {"web": "web_paint"}
"""Benches that need a browser, so "all" leaves them out, and their modules."""
FAILED, BOOT_FAILED = 1, 3

_config = click.option("--config", type=click.Path(path_type=Path), help="Settings file; default ./mpengine.toml if there is one.")
_set = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mpengine")
def main() -> None:
    """Real-time liquidation and order-book heatmaps of crypto perpetuals, from the exchanges' wire to HTTP.

    Try it without any exchange:  mpengine demo
    """


def _config_file(path: Path | None) -> Path | None:
    """The settings file in force: the one that was named, $MPENGINE_CONFIG, or the first usual place that has one."""
    if path is not None:
        return path
    named = os.environ.get("MPENGINE_CONFIG")
    if named:
        return Path(named)
    return next((Path(name) for name in CONFIG_NAMES if Path(name).is_file()), None)


def _settings(config: Path | None, overrides: Sequence[str]) -> Settings:
    """Settings, or every violation on stderr and exit code 3."""
    from mpengine.config import ConfigError, load, load_file

    path = _config_file(config)
    try:
        return load_file(path, os.environ, overrides) if path is not None else load("", os.environ, overrides)
    except ConfigError as error:
        for violation in error.violations:
            click.echo(f"refused: {violation}", err=True)
        sys.exit(BOOT_FAILED)


def _fail(text: str) -> NoReturn:
    click.echo(f"mpengine: {text}", err=True)
    sys.exit(FAILED)


def _supervise(arguments: list[str]) -> NoReturn:
    """Become the supervisor: same process, so that signals and the service manager see one."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "supervisor", *arguments])


def _supervisor_arguments(config: Path | None, overrides: Sequence[str]) -> list[str]:
    """Arguments of the supervisor. Settings that it would refuse are refused here, in words for a person."""
    _settings(config, overrides)
    path = _config_file(config)
    arguments = ["--config", str(path)] if path is not None else ["--no-config"]
    for override in overrides:
        arguments += ["--set", override]
    return arguments


@main.command()
@_config
@_set
@click.option("--api-host", help="Listen address of the API (api.host).")
@click.option("--api-port", type=int, help="Port of the API (api.port).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Rings and state; survives restarts.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Shared memory of this run, on tmpfs.")
def start(
    config: Path | None,
    overrides: tuple[str, ...],
    api_host: str | None,
    api_port: int | None,
    data_dir: Path | None,
    runtime_dir: Path | None,
) -> None:
    """Run the whole engine in the foreground until SIGTERM or Ctrl-C (for systemd: see deploy/mpengine.service)."""
    named = {"api.host": api_host, "api.port": api_port, "instance.data_dir": data_dir, "instance.runtime_dir": runtime_dir}
    _supervise(
        _supervisor_arguments(config, [*overrides, *(f"{key}={value}" for key, value in named.items() if value is not None)])
    )


@main.command()
@_config
@_set
@click.option("--port", default=8899, show_default=True, help="Port of the API on 127.0.0.1.")
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True, help="Where the demo keeps its data."
)
@click.option("--seed", default=1, show_default=True, help="Of the synthetic market: same seed, same market.")
@click.option(
    "--capture",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Serve a recording instead of the synthetic market.",
)
@click.option(
    "--history", default=6.0, show_default=True, type=click.FloatRange(0, 24), help="Hours of the market's past to build first."
)
def demo(
    config: Path | None, overrides: tuple[str, ...], port: int, directory: Path, seed: int, capture: tuple[Path, ...],
    history: float,
) -> None:  # fmt: skip
    """Run the whole engine against the built-in exchange simulator on this machine; nothing leaves it."""
    from mpengine.config import DEMO_VENUES

    past = 0.0 if capture else history
    captures = "[" + ", ".join(f'"{path.resolve()}"' for path in capture) + "]"
    values = {
        "simulator.enabled": "true", "simulator.seed": seed, "simulator.captures": captures, "instance.name": "demo",
        "instance.data_dir": (directory / "data").resolve(), "api.host": "127.0.0.1", "api.port": port, "log.level": "WARNING",
        "api.rate_limits": "false",  # one person on this machine
    }  # fmt: skip
    click.echo(
        "Starting a simulated exchange, ingest, an engine per symbol and the API on this machine. Ctrl-C ends all of it.\n"
        f"{_past_text(past)}"
        "When it is ready its address appears here; the first frames follow within half a minute (each is a 30 s average):\n"
        f"  curl -s 'http://127.0.0.1:{port}/orderbook_heatmap?symbol=BTC'\n"
        f"  curl -s 'http://127.0.0.1:{port}/health'\n"
        "  mpengine status --demo        (another terminal; --set log.level=INFO here shows the log)"
    )
    arguments = _supervisor_arguments(config, [*(f"{key}={value}" for key, value in values.items()), *DEMO_VENUES, *overrides])
    _supervise([*arguments, "--history", str(past)])


def _past_text(hours: float) -> str:
    return f"First {hours:g} h of history are built, some 5 s per hour; --history 0 starts at once.\n" if hours else ""


@main.command("check-config")
@_config
@_set
@click.option("--show", is_flag=True, help="Print the effective settings as JSON.")
def check_config(config: Path | None, overrides: tuple[str, ...], show: bool) -> None:
    """Check the settings; every violation is listed at once, exit code 3."""
    from mpengine.config import encode

    settings = _settings(config, overrides)
    path = _config_file(config)
    if show:
        click.echo(encode(settings).decode())
    else:
        click.echo(f"{path or 'built-in defaults'}: ok, {len(settings.symbols)} symbols, hash {settings.config_hash[:12]}")


@main.command()
@_config
@_set
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--demo", "of_demo", is_flag=True, help="Of the demo in ./.demo.")
def status(config: Path | None, overrides: tuple[str, ...], as_json: bool, of_demo: bool) -> None:
    """One screen about the running instance, read from shared memory (works while HTTP does not)."""
    import msgspec

    from mpengine.status import collect, render
    from shm.errors import ShmError

    if of_demo:
        overrides = ("instance.name=demo", f"instance.data_dir={Path('.demo/data').resolve()}", *overrides)
    settings = _located(_settings(config, overrides))
    try:
        found = collect(settings)
    except ShmError as error:
        _fail(f"instance {settings.instance.name} is not running here ({type(error).__name__})")
    click.echo(msgspec.json.encode(found).decode() if as_json else render(found))


@main.command()
@_config
@_set
@click.option("--demo", "of_demo", is_flag=True, help="Of the demo in ./.demo.")
@click.option("--url", metavar="URL", help="A server anywhere, by its public API. Its key: $MPENGINE_API_KEY or --key-file.")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the API key (mode 600). Never on the command line.",
)
@click.option("--symbol", help="Symbol to begin with; default the first one.")
@click.option("--once", "only_once", is_flag=True, help="One look as plain text, then end. Works without Textual.")
@click.option("--json", "as_json", is_flag=True, help="With --once: one JSON object.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Keep what is shown in a new file.")
@click.option("--replay", "replayed", type=click.Path(dir_okay=False, path_type=Path), help="Show such a file.")
@click.option("--hz", default=4.0, show_default=True, type=click.FloatRange(0.5, 10), help="Looks a second.")
def top(
    config: Path | None,
    overrides: tuple[str, ...],
    of_demo: bool,
    url: str | None,
    key_file: Path | None,
    symbol: str | None,
    only_once: bool,
    as_json: bool,
    record: Path | None,
    replayed: Path | None,
    hz: float,
) -> None:
    """The running instance on one screen: feeds, heat, zones, liquidations, processes. Only reads (docs/top.md)."""
    from mpengine.top.command import TopError, Wanted, key_of, once, screen

    if as_json and not only_once:
        raise click.UsageError("--json needs --once")
    if sum((url is not None, replayed is not None, of_demo)) > 1:
        raise click.UsageError("one of --url, --replay and --demo")
    if record is not None and (only_once or replayed is not None):
        raise click.UsageError("--record needs the screen of something that runs")
    if of_demo:
        overrides = ("instance.name=demo", f"instance.data_dir={Path('.demo/data').resolve()}", *overrides)
    try:
        wanted = Wanted(
            settings=None if url is not None or replayed is not None else _located(_settings(config, overrides)),
            url=url, key=None if url is None else key_of(key_file, os.environ), replay=replayed,
            symbol=None if symbol is None else symbol.strip().upper(), record=record,
        )  # fmt: skip
        if only_once:
            click.echo(once(wanted, as_json=as_json))
        else:
            screen(wanted, hz=hz)
    except TopError as error:
        _fail(str(error))


@main.command()
@_config
@_set
@click.argument("symbol")
@click.argument("price", type=float)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--demo", "of_demo", is_flag=True, help="Of the demo in ./.demo.")
def explain(config: Path | None, overrides: tuple[str, ...], symbol: str, price: float, as_json: bool, of_demo: bool) -> None:
    """Where the liquidation map of SYMBOL at PRICE comes from: sides, tiers, minutes, venues."""
    from dataclasses import asdict

    import msgspec

    from mpengine.explain import Unexplained, render
    from mpengine.explain import explain as explained
    from shm.errors import ShmError

    if of_demo:
        overrides = ("instance.name=demo", f"instance.data_dir={Path('.demo/data').resolve()}", *overrides)
    settings = _located(_settings(config, overrides))
    if symbol not in settings.symbols:
        _fail(f"{symbol} is not a configured symbol")
    try:
        found = explained(settings.paths, symbol, settings.symbols[symbol].step, price)
    except (Unexplained, ValueError) as error:
        _fail(str(error))
    except (ShmError, OSError) as error:
        _fail(f"the data of {symbol} cannot be read ({type(error).__name__})")
    click.echo(msgspec.json.encode(asdict(found)).decode() if as_json else render(found))


def _located(settings: Settings) -> Settings:
    """Settings with the directories where the supervisor of this instance puts them."""
    import msgspec

    from mpengine.config import resolve_directories
    from shm.directories import default_data_directory, default_runtime_base, runtime_folder
    from shm.liveness import boot_id

    name = settings.instance.name
    base = Path(settings.instance.runtime_dir) if settings.instance.runtime_dir else default_runtime_base(os.environ, os.getuid())
    runtime = runtime_folder(base, name, boot_id()[0])
    data = default_data_directory(os.environ, Path.home(), name)
    # What the settings name is the base; the folder of this instance and boot in it is the supervisor's choice.
    instance = msgspec.structs.replace(settings.instance, runtime_dir="")
    return resolve_directories(msgspec.structs.replace(settings, instance=instance), data=data, runtime=runtime)


@main.group()
def brackets() -> None:
    """Maintenance margin brackets of the venues: show those in force, fetch newer ones (docs/brackets.md)."""


@brackets.command("show")
@_config
@_set
@click.option("--file", "file", type=click.Path(path_type=Path), help="Those of this file instead of those in force.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: venue, instrument, rows.")
def brackets_show(config: Path | None, overrides: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Print the maintenance brackets that engines of these settings use, or those of a file.

    Columns: up to this notional in USD, maintenance rate, largest leverage, amount in USD that is taken off.
    """
    import msgspec

    from mpengine.brackets import read, shown

    tables: dict[str, dict[str, list[Bracket]]] = {}
    if file is not None:
        try:
            tables = read(file).venues
        except ValueError as error:
            _fail(f"{file} refused: {error}")
    else:
        for symbol in _settings(config, overrides).symbols.values():
            for venue, rows in symbol.brackets.items():
                tables.setdefault(venue, {})[getattr(symbol, venue)] = rows
    click.echo(msgspec.json.encode(tables).decode() if as_json else shown(tables))


@brackets.command("update")
@_config
@_set
@click.option("--venue", type=click.Choice(["binance", "bybit", "okx"]), required=True, help="Whose brackets.")
@click.option("--symbol", "symbols", multiple=True, help="Configured symbol; may be repeated. Default: all.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write; what else it has is kept."
)
def brackets_update(
    config: Path | None, overrides: tuple[str, ...], venue: str, symbols: tuple[str, ...], output: Path
) -> None:  # fmt: skip
    """Fetch the maintenance brackets that a venue publishes, check them, and write them into a file for engine.brackets_file.

    A new file starts from the brackets in force. Exit code 1 if a symbol's could not be had: then what the file had of it stays.
    """
    from datetime import UTC, datetime

    from mpengine.bracket_update import fetch
    from mpengine.brackets import encode, merged
    from shm.atomic_file import write_atomic

    if venue == "binance":
        _fail("binance gives its brackets to signed requests only (GET /fapi/v1/leverageBracket): edit the file by hand instead")
    settings = _settings(config, overrides)
    names = _names_at(settings, venue, symbols)
    try:
        old = _brackets_before(output, settings)
    except ValueError as error:
        _fail(f"{output} refused, nothing was fetched: {error}")
    address = getattr(settings.venues, venue).rest_url
    found = fetch(venue, address, list(names.values()), settings.ingest)
    if found.tables:
        try:
            write_atomic(output, encode(merged(old, venue, found.tables, address, datetime.now(UTC).date().isoformat())))
        except OSError as error:
            _fail(f"{output} cannot be written ({type(error).__name__})")
    for symbol, name in names.items():
        if name in found.tables:
            rows = found.tables[name]
            click.echo(f"{symbol}: {venue} {name}, {len(rows)} rows, first {rows[0].mmr:g} up to {rows[0].cap_usd:,.0f} USD")
        else:
            click.echo(f"mpengine: {symbol}: {venue} {name} refused: {found.failures[name]}", err=True)
    click.echo(f"written: {output}" if found.tables else f"{output} is not touched", err=not found.tables)
    if found.failures:
        sys.exit(FAILED)


def _names_at(settings: Settings, venue: str, symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> instrument at a venue. A symbol that was asked for by name must be configured and traded there."""
    chosen = list(dict.fromkeys(symbol.strip().upper() for symbol in symbols))
    unknown = [symbol for symbol in chosen if symbol not in settings.symbols]
    if unknown:
        raise click.UsageError(f"not configured: {', '.join(unknown)} (symbols: {', '.join(settings.symbols)})")
    names = {symbol: getattr(settings.symbols[symbol], venue) for symbol in chosen or settings.symbols}
    absent = [symbol for symbol in chosen if names[symbol] is None]
    if absent:
        raise click.UsageError(f"no name at {venue}: {', '.join(absent)} (symbols.*.{venue})")
    return {symbol: name for symbol, name in names.items() if name is not None}


def _brackets_before(output: Path, settings: Settings) -> BracketFile:
    """What an update goes on from: the file itself, else the data in force. Raises ValueError for a file that is refused."""
    from mpengine.brackets import read, shipped

    if output.exists():
        return read(output)
    return read(Path(settings.engine.brackets_file)) if settings.engine.brackets_file else shipped()


@main.group()
def keys() -> None:
    """API keys: who may ask when api.keys is on (docs/operations.md). Workers take a change within two seconds."""


_expires = "Until when: a date (2027-01-31), a time (2027-01-31T12:00:00Z), or days from now (90d)."


@keys.command("add")
@_config
@_set
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["read", "push"]), help="What it is for; default both.")
@click.option("--expires", help=_expires)
@click.option("--note", default="", help="For whom it is; shown by list.")
def keys_add(config: Path | None, overrides: tuple[str, ...], scopes: tuple[Scope, ...], expires: str | None, note: str) -> None:
    """Make a key and print it, once: only the hash of its secret is kept."""
    import time

    from mpengine.keys import SCOPES, new_key

    now_ms = time.time_ns() // 1_000_000
    until_ms = None if expires is None else _epoch_ms(expires, now_ms)
    record, text = new_key(now_ms, list(dict.fromkeys(scopes)) or list(SCOPES), until_ms, note)
    _change_keys(_settings(config, overrides), lambda records: [*records, record])
    click.echo(text)
    click.echo(f"key {record.id}, scopes {', '.join(record.scopes)}. It is not shown again.", err=True)


@keys.command("list")
@_config
@_set
def keys_list(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Ids, states, scopes, expiry, notes. Never a secret, nor its hash."""
    import time

    from mpengine.keys import KeyFileError, read

    try:
        records = read(_keys_file(_settings(config, overrides))).keys
    except FileNotFoundError:
        records = []
    except KeyFileError as error:
        _fail(f"the key file {error}")
    now_ms = time.time_ns() // 1_000_000
    for one in records:
        until = "never" if one.expires_ms is None else _day(one.expires_ms)
        click.echo(
            f"{one.id}  {one.state(now_ms):7}  {','.join(one.scopes):9}  made {_day(one.created_ms)}  ends {until}  {one.note}"
        )
    click.echo(f"{len(records)} keys", err=True)


@keys.command("revoke")
@_config
@_set
@click.argument("identity", metavar="ID")
def keys_revoke(config: Path | None, overrides: tuple[str, ...], identity: str) -> None:
    """End a key for good."""
    import time

    _replace_key(_settings(config, overrides), identity, revoked_ms=time.time_ns() // 1_000_000)
    click.echo(f"{identity} revoked", err=True)


@keys.command("expire")
@_config
@_set
@click.argument("identity", metavar="ID")
@click.argument("when")
def keys_expire(config: Path | None, overrides: tuple[str, ...], identity: str, when: str) -> None:
    """Set when a key ends: a date, a time, days from now (90d), or never."""
    import time

    until_ms = None if when == "never" else _epoch_ms(when, time.time_ns() // 1_000_000)
    _replace_key(_settings(config, overrides), identity, expires_ms=until_ms)
    click.echo(f"{identity} ends {'never' if until_ms is None else _day(until_ms)}", err=True)


def _keys_file(settings: Settings) -> Path:
    return Path(settings.api.keys_file) if settings.api.keys_file else _located(settings).paths.keys


def _change_keys(settings: Settings, edit: Callable[[list[KeyRecord]], list[KeyRecord]]) -> None:
    from mpengine.keys import KeyFileError, change

    path = _keys_file(settings)
    try:
        change(path, edit)
    except KeyFileError as error:
        _fail(f"the key file {error}")
    except OSError as error:
        _fail(f"{path} cannot be written ({type(error).__name__})")


def _replace_key(settings: Settings, identity: str, **values: int | None) -> None:
    import msgspec

    def edit(records: list[KeyRecord]) -> list[KeyRecord]:
        if all(one.id != identity for one in records):
            _fail(f"there is no key {identity}")
        return [msgspec.structs.replace(one, **values) if one.id == identity else one for one in records]

    _change_keys(settings, edit)


def _epoch_ms(text: str, now_ms: int) -> int:
    """A date, a time (UTC where it names no zone) or `90d`."""
    from datetime import UTC, datetime

    if text.endswith("d") and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 7:
        return now_ms + int(text[:-1]) * 86_400_000
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} must be a date, a time or a number of days like 90d") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _day(epoch_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


@main.command()
@click.argument("ring", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--last", default=10, show_default=True, type=click.IntRange(1, 1_000_000), help="How many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, planes in USD.")
def dump(ring: Path, last: int, as_json: bool) -> None:
    """Print decoded frames, bars or documents of a ring file (depth.ring, candles.ring, documents)."""
    import msgspec

    from mpengine.dump import one_line, rows
    from shm.errors import ShmError

    try:
        for row in rows(ring, last):
            click.echo(msgspec.json.encode(row).decode() if as_json else one_line(row))
    except (ShmError, ValueError) as error:
        _fail(f"{ring.name} refused: {type(error).__name__}: {error}")


@main.command()
@_config
@_set
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--symbol", "symbols", multiple=True, help="Symbol to replay; may be repeated. Default: all configured.")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Where the rings go; created if absent.")
@click.option(
    "--partial-book", is_flag=True, help="Start the book from its first diff if the capture has no snapshot (frames say so)."
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def replay(
    config: Path | None,
    overrides: tuple[str, ...],
    files: tuple[Path, ...],
    symbols: tuple[str, ...],
    data_dir: Path,
    partial_book: bool,
    quiet: bool,
) -> None:
    """Turn captures into rings: same mappers and cores as live, no sockets, full speed.

    Reads captures of `mpengine record` and recordings of hftbacktest (Binance) and cryptofeed. The last line on stdout is a JSON
    summary. The same capture gives the same frames, byte for byte.
    """
    from mpengine.ingest.capture_file import CaptureError
    from mpengine.replay import ProgressBar, Replay, replay_files, summary_json
    from shm.errors import ShmError

    settings = _settings(config, overrides)
    chosen = [symbol.strip().upper() for symbol in symbols] or list(settings.symbols)
    unknown = [symbol for symbol in chosen if symbol not in settings.symbols]
    if unknown:
        raise click.UsageError(f"not configured: {', '.join(unknown)} (symbols: {', '.join(settings.symbols)})")
    try:
        run = Replay(settings, chosen, data_dir, partial_book=partial_book)
        summary = replay_files(files, run, None if quiet else ProgressBar("replay"))
    except (CaptureError, ShmError, OSError) as error:
        _fail(f"{type(error).__name__}: {error}")
    for name, figures in summary.symbols.items():
        if summary.depth_updates and not figures["snapshots"]:
            click.echo(f"{name}: no snapshot in the capture, so no book; --partial-book starts from the first diff", err=True)
    if summary.published < summary.frames:
        click.echo(f"{summary.frames - summary.published} frames were not newer than those in {data_dir}: skipped", err=True)
    click.echo(summary_json(summary).decode())


@main.command()
@_config
@_set
@_plot_options
def plot(config: Path | None, overrides: tuple[str, ...], url: str | None, **given: Any) -> None:
    """Draw the heatmap of SYMBOL into a PNG: scale in USD, age, coverage and model are in the picture (docs/reading-the-map.md)."""
    from mpengine.plot.command import Failed, Wrong, draw, given_of, local_url

    if url is None:
        api = _settings(config, overrides).api
        url = local_url(api.host, api.port)
    try:
        click.echo(draw(given_of(url, given)))
    except Wrong as error:
        raise click.UsageError(str(error)) from None
    except Failed as error:
        _fail(str(error))


@main.command()
@_config
@_set
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the capture files; default <data>/captures.")
def record(config: Path | None, overrides: tuple[str, ...], out: Path | None) -> None:
    """Record every wire message of the configured venues until Ctrl-C, without engines and API.

    To record beside a running engine set capture.enabled = true instead.
    """
    from mpengine.config import encode
    from shm.atomic_file import write_atomic

    settings = _located(_settings(config, (*overrides, "capture.enabled=true")))
    folder = (out or settings.paths.captures).resolve()
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = folder / "record-settings.json"
    write_atomic(path, encode(settings))
    sys.stdout.flush()
    command = ["-m", "mpengine.ingest.process", "--settings", str(path), "--record-only", "--out", str(folder)]
    os.execv(sys.executable, [sys.executable, *command])


@main.command()
@click.argument("which", type=click.Choice([*BENCHES, *BROWSER_BENCHES, "all"]))
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; noisier.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON lines.")
def bench(which: str, quick: bool, as_json: bool) -> None:
    """Measure on this machine, each with its baseline in the same run: read the ratios, not the seconds."""
    import importlib

    import msgspec

    for name in BENCHES if which == "all" else (which,):
        module: Any = importlib.import_module(f"bench.{BROWSER_BENCHES.get(name, name)}")
        found = module.run(quick)
        if as_json:
            click.echo(msgspec.json.encode({"bench": name, "results": found}).decode())


if __name__ == "__main__":
    main()
