"""One TOML file -> frozen, bounds-checked settings. The only place that knows a setting's name, default and range.

Order: defaults < file < environment (`MPENGINE_<SECTION>__<KEY>`, `API_HOST`) < command line (`--set section.key=value`).
A value is used as given or refused, never clamped. All violations are collected and raised together in one `ConfigError`.
The supervisor reads the settings once and hands the result (`encode`) to its children, who only `decode`.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import math
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from mpengine.brackets import Bracket, BracketFile, faults_of, shipped
from mpengine.brackets import read as read_brackets
from mpengine.engine.leverage import MAX_TIER_WEIGHT, allowed, entropy_bits, lowest_entropy_bits, make_ladder
from shm.paths import Paths, check_symbol

SCHEMA_VERSION: Final = 1
ENV_PREFIX: Final = "MPENGINE_"
UNIX_PATH_BYTES: Final = 100  # the kernel has 107

Fraction = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Url = Annotated[str, Meta(pattern=r"^(wss?|https?)://[^\s/]+(/[^\s]*)?$")]
Network = Annotated[str, Meta(pattern=r"^[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?$")]
Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)$")]
VenueSymbol = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,40}$")]


class ConfigError(Exception):
    """The settings are refused. `violations` names every one of them, `section.key: what is wrong`."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__("\n".join(violations))
        self.violations = violations


class InstanceSettings(Struct, frozen=True, kw_only=True):
    """Where this instance lives. Empty directories mean: service manager's, else the user's (`resolve_directories`)."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")] = "default"
    data_dir: Annotated[str, Meta(max_length=1024)] = ""
    runtime_dir: Annotated[str, Meta(max_length=1024)] = ""


class ApiSettings(Struct, frozen=True, kw_only=True):
    """HTTP workers and their bounds. `keys_file`, `admin_bind`: empty means the data and the runtime directory's own.

    Rates are tokens per second and client over all workers; push budgets are bytes per client.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "0.0.0.0"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8899
    workers: Annotated[int, Meta(ge=1, le=32)] = 2
    backlog: Annotated[int, Meta(ge=16, le=65_535)] = 2048
    max_connections: Annotated[int, Meta(ge=10, le=100_000)] = 4096
    request_timeout_s: Seconds = 30.0
    worker_memory_bytes: Annotated[int, Meta(ge=1 << 26, le=1 << 40)] = 1 << 30
    cache_entries: Annotated[int, Meta(ge=1, le=100_000)] = 500
    cache_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 34)] = 64 << 20
    cache_body_bytes: Annotated[int, Meta(ge=1 << 10, le=1 << 30)] = 8 << 20
    legacy_size_keys: bool = True
    keys: bool = False
    keys_file: Annotated[str, Meta(max_length=1024)] = ""
    behind_proxy: bool = False
    trusted_proxies: list[Network] = field(default_factory=list)
    cors_origins: list[Origin] = field(default_factory=list)
    rate_limits: bool = True
    rate_per_s: Annotated[float, Meta(ge=0.1, le=1e6)] = 20.0
    rate_burst: Annotated[int, Meta(ge=10, le=1_000_000)] = 100
    admin_bind: Annotated[str, Meta(max_length=255)] = ""
    public_metrics: bool = False
    push_bytes_per_s: Annotated[int, Meta(ge=1 << 10, le=1 << 30)] = 256 << 10
    push_burst_bytes: Annotated[int, Meta(ge=1 << 10, le=1 << 30)] = 1 << 20
    push_queue_bytes: Annotated[int, Meta(ge=1 << 10, le=1 << 30)] = 1 << 20
    push_stall_s: Seconds = 10.0
    push_connections_per_client: Annotated[int, Meta(ge=1, le=100_000)] = 32


class IngestSettings(Struct, frozen=True, kw_only=True):
    """Sockets, polls and batches of the one ingest process."""

    clock_interval_ms: Annotated[int, Meta(ge=10, le=1000)] = 250
    flush_bytes: Annotated[int, Meta(ge=64, le=1 << 20)] = 16_384
    flush_ms: Annotated[float, Meta(gt=0, le=100)] = 4.0
    receive_clock: Literal["local", "sender"] = "local"
    connect_timeout_s: Seconds = 10.0
    rest_timeout_s: Seconds = 10.0
    rest_body_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 26)] = 8 << 20
    message_bytes: Annotated[int, Meta(ge=1 << 12, le=1 << 24)] = 1 << 20
    open_interest_interval_s: Seconds = 15.0
    ratio_interval_s: Seconds = 60.0
    instruments_interval_s: Seconds = 3600.0
    snapshot_interval_s: Seconds = 10.0
    rotate_after_s: Annotated[float, Meta(ge=1, le=86_000)] = 82_800.0
    rotate_jitter_s: Annotated[float, Meta(ge=0, le=7200)] = 1800.0
    reconnect_max_s: Annotated[float, Meta(ge=0.1, le=300)] = 30.0
    watchdog_scale: Annotated[float, Meta(gt=0, le=100)] = 1.0


class CaptureSettings(Struct, frozen=True, kw_only=True):
    """Raw capture of every wire message (`mpengine record`)."""

    enabled: bool = False
    quota_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 50)] = 20 << 30
    file_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 40)] = 256 << 20
    frame_bytes: Annotated[int, Meta(ge=1 << 10, le=1 << 26)] = 1 << 20
    frame_s: Annotated[float, Meta(gt=0, le=60)] = 1.0


class EngineSettings(Struct, frozen=True, kw_only=True):
    """One engine process per symbol. `brackets_file`: of `mpengine brackets update`; empty: the program's data file."""

    ring_units: Annotated[int, Meta(ge=4096, le=1 << 26)] = 524_288
    checkpoint_interval_s: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    sync_interval_s: Annotated[float, Meta(ge=5, le=30)] = 10.0
    price_reject_pct: Fraction = 0.5
    book_prune_pct: Fraction = 0.12
    primary_venue: Literal["binance", "bybit", "okx"] = "binance"
    tape_weight: Annotated[float, Meta(ge=0, le=1)] = 0.35
    projection_weight: Annotated[float, Meta(ge=0, le=1)] = 0.65
    disabled_tiers: list[Annotated[int, Meta(ge=1, le=1000)]] = field(default_factory=lambda: [10])
    attribution: Literal["window", "event"] = "window"
    mmr_estimation: bool = True
    bias_correction: bool = False
    safety_entropy_min_bits: Annotated[float, Meta(gt=0, le=10)] = 1.6
    brackets_file: Annotated[str, Meta(max_length=1024)] = ""


class VenueSettings(Struct, frozen=True, kw_only=True):
    """Base addresses of a venue; only these differ between the real exchange and the simulator.

    Where a venue's own table has `order_book`, `trades` and the like: optional streams (`spec: exchanges`, section 1). Liquidations
    and polled open interest come from every enabled venue that publishes them.
    """

    enabled: bool = True
    ws_url: Url
    rest_url: Url


class BinanceSettings(VenueSettings, frozen=True, kw_only=True):
    """Binance USDⓈ-M."""

    ws_url: Url = "wss://fstream.binance.com"
    rest_url: Url = "https://fapi.binance.com"
    order_book: bool = True
    depth_speed: Literal["0ms", "100ms", "250ms", "500ms"] = "100ms"
    trade_stream: Literal["aggTrade", "trade"] = "aggTrade"
    book_ticker: bool = False


class BybitSettings(VenueSettings, frozen=True, kw_only=True):
    """Bybit linear. `book_depth`: levels per side of its book stream."""

    ws_url: Url = "wss://stream.bybit.com"
    rest_url: Url = "https://api.bybit.com"
    order_book: bool = False
    book_depth: Literal[50, 200, 1000] = 1000
    trades: bool = False
    tickers: bool = False


class OkxSettings(VenueSettings, frozen=True, kw_only=True):
    """OKX swaps."""

    ws_url: Url = "wss://ws.okx.com"
    rest_url: Url = "https://www.okx.com"
    order_book: bool = False
    trades: bool = False
    mark_price: bool = False
    funding: bool = False
    open_interest: bool = False


class HyperliquidSettings(VenueSettings, frozen=True, kw_only=True):
    """Hyperliquid: it publishes no liquidations, and its open interest is shown but never part of the sum. Off by default."""

    enabled: bool = False
    ws_url: Url = "wss://api.hyperliquid.xyz"
    rest_url: Url = "https://api.hyperliquid.xyz"
    order_book: bool = True
    fast_book: bool = True
    trades: bool = True
    contexts: bool = True


Tier = Annotated[str, Meta(pattern=r"^(5|10|20|25|50|75|100|125|150|200|250)$")]
GENERAL_LADDER: Final[dict[str, float]] = {"5": 1.0, "10": 1.0, "20": 0.9, "50": 0.5, "75": 0.25, "100": 0.10}
_FIRST_TIERS: Final = {"5": 1.0, "10": 1.0, "20": 0.9, "25": 0.7, "50": 0.35}
BTC_LADDER: Final = {**_FIRST_TIERS, "75": 0.14, "100": 0.08, "125": 0.05, "150": 0.03, "200": 0.015, "250": 0.008}
ETH_LADDER: Final = {**_FIRST_TIERS, "75": 0.18, "100": 0.10, "125": 0.07}
SOL_LADDER: Final = {**_FIRST_TIERS, "75": 0.18}
"""Raw weights of the leverage tiers (`spec: engine`, section 6.1)."""


class SymbolSettings(Struct, frozen=True, kw_only=True):
    """One symbol. Everything else in the system knows symbols only from here.

    `leverage_ladder`: tier -> raw weight. `brackets`: venue -> maintenance brackets, rows of [notional cap USD, rate, max
    leverage, amount USD]; those of `engine.brackets_file`, or of the program's data file, where the settings give none.
    """

    step: Annotated[float, Meta(gt=0, le=1e6)]
    book_step: Annotated[float, Meta(gt=0, le=1e6)]
    book_range: Fraction = 0.10
    gap_tolerance_ids: Annotated[int, Meta(ge=0, le=1_000_000)] = 50
    default_mmr: Annotated[float, Meta(gt=0, le=0.5)] = 0.005
    tick: Annotated[float, Meta(gt=0, le=1e5)]
    has_orderbook: bool = True
    base_asset: Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,20}$")]
    axis_low: Annotated[float, Meta(gt=0)] | None = None
    axis_high: Annotated[float, Meta(gt=0)] | None = None
    binance: VenueSymbol | None = None
    bybit: VenueSymbol | None = None
    okx: VenueSymbol | None = None
    okx_contract_value: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    hyperliquid: VenueSymbol | None = None
    leverage_ladder: dict[Tier, Annotated[float, Meta(ge=0, le=1e6)]] = field(default_factory=lambda: dict(GENERAL_LADDER))
    brackets: dict[Literal["binance", "bybit", "okx"], list[Bracket]] = field(default_factory=dict)


class SupervisorSettings(Struct, frozen=True, kw_only=True):
    """Promises of the supervisor in numbers (`spec: reliability`, section 1)."""

    restart_budget: Annotated[int, Meta(ge=1, le=100)] = 5
    restart_window_s: Seconds = 60.0
    backoff_first_s: Annotated[float, Meta(ge=0.01, le=60)] = 0.1
    backoff_max_s: Annotated[float, Meta(ge=0.01, le=3600)] = 30.0
    healthy_after_s: Seconds = 60.0
    failed_retry_s: Seconds = 60.0
    hang_after_s: Annotated[float, Meta(ge=0.5, le=600)] = 3.0
    stack_dump_s: Annotated[float, Meta(ge=0.05, le=30)] = 0.5
    start_timeout_s: Seconds = 20.0
    stop_timeout_s: Annotated[float, Meta(ge=0.5, le=120)] = 10.0
    escalate_after_s: Seconds = 120.0
    child_rss_bytes: Annotated[int, Meta(ge=1 << 26, le=1 << 40)] = 4 << 30


class SimulatorSettings(Struct, frozen=True, kw_only=True):
    """The built-in exchange. When enabled, the supervisor starts it and every venue's addresses point at it."""

    enabled: bool = False
    host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8898
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    speed: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    captures: list[Annotated[str, Meta(min_length=1, max_length=1024)]] = field(default_factory=list)
    stamps: bool = False


class LogSettings(Struct, frozen=True, kw_only=True):
    """Process logs: JSON lines on stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class VenuesSettings(Struct, frozen=True, kw_only=True):
    """Exchanges that ingest may talk to, in venue order."""

    binance: BinanceSettings = BinanceSettings()
    bybit: BybitSettings = BybitSettings()
    okx: OkxSettings = OkxSettings()
    hyperliquid: HyperliquidSettings = HyperliquidSettings()


DEMO_VENUES: Final = (
    "venues.bybit.order_book=true", "venues.bybit.tickers=true", "venues.okx.order_book=true", "venues.okx.mark_price=true",
    "venues.okx.funding=true", "venues.hyperliquid.enabled=true",
)  # fmt: skip
"""Overrides that turn on what the demo shows beside the defaults: every venue's book and prices. Trades stay Binance's: the
built-in exchange prints the same ones on every venue, and each would count the taker again."""


def _shipped(base: str, **values: Any) -> dict[str, Any]:
    names = {"binance": f"{base}USDT", "bybit": f"{base}USDT", "okx": f"{base}-USDT-SWAP", "hyperliquid": base}
    return {"base_asset": base, **names, **values}


SHIPPED_SYMBOLS: Final[dict[str, dict[str, Any]]] = {
    "BTC": _shipped("BTC", step=20.0, book_step=20.0, gap_tolerance_ids=1000, default_mmr=0.004, tick=0.1,
                    okx_contract_value=0.01, axis_low=85_000.0, axis_high=115_000.0, leverage_ladder=BTC_LADDER),
    "ETH": _shipped("ETH", step=1.0, book_step=1.0, gap_tolerance_ids=50, default_mmr=0.004, tick=0.01,
                    okx_contract_value=0.1, axis_low=1500.0, axis_high=5000.0, leverage_ladder=ETH_LADDER),
    "SOL": _shipped("SOL", step=0.1, book_step=0.1, gap_tolerance_ids=5, default_mmr=0.005, tick=0.01,
                    okx_contract_value=1.0, axis_low=50.0, axis_high=400.0, leverage_ladder=SOL_LADDER),
}  # fmt: skip
"""Values of the specified symbols (`spec: engine`, section 2); `tick` is the book ladder's until the venue says otherwise,
`okx_contract_value` what OKX is expected to say (another value is used, and an alarm)."""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything a process of this instance needs to know. Frozen; equal settings have equal `config_hash`."""

    schema_version: Annotated[int, Meta(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    instance: InstanceSettings = InstanceSettings()
    api: ApiSettings = ApiSettings()
    ingest: IngestSettings = IngestSettings()
    capture: CaptureSettings = CaptureSettings()
    engine: EngineSettings = EngineSettings()
    venues: VenuesSettings = VenuesSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    log: LogSettings = LogSettings()
    symbols: dict[str, SymbolSettings]

    @property
    def paths(self) -> Paths:
        """File names of this instance. Raises ConfigError while the directories are not resolved."""
        if not self.instance.data_dir or not self.instance.runtime_dir:
            raise ConfigError(["instance.data_dir, instance.runtime_dir: not resolved yet"])
        return Paths(Path(self.instance.data_dir), Path(self.instance.runtime_dir))

    @property
    def config_hash(self) -> str:
        """SHA-256 of the effective settings, hex."""
        return hashlib.sha256(encode(self)).hexdigest()


def encode(settings: Settings) -> bytes:
    """Canonical JSON of the settings: what children read and what `config_hash` is taken over."""
    return msgspec.json.encode(settings, order="sorted")


def decode(data: bytes) -> Settings:
    """Settings from `encode`. Raises ConfigError where the bytes are not settings of this version."""
    try:
        return msgspec.json.decode(data, type=Settings)
    except msgspec.MsgspecError as error:
        raise ConfigError([f"settings: {error}"]) from error


def load_file(path: Path, env: Mapping[str, str], overrides: Iterable[str] = ()) -> Settings:
    """Settings of a TOML file. Raises ConfigError: unreadable, writable by others, or any violation."""
    try:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            raise ConfigError([f"{path}: refused, the file can be written by everybody (chmod o-w)"])
        if path.stat().st_size > 1 << 20:
            raise ConfigError([f"{path}: refused, larger than 1 MiB"])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error.__class__.__name__})"]) from error
    return load(text, env, overrides)


def load(text: str, env: Mapping[str, str], overrides: Iterable[str] = ()) -> Settings:
    """Settings from TOML text, environment and `section.key=value` overrides. Raises ConfigError with every violation."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not valid TOML: {error}"]) from error
    errors: list[str] = []
    _merge_environment(raw, env, errors)
    _merge_overrides(raw, overrides, errors)
    _fill_symbols(raw, errors)
    _point_at_simulator(raw)
    values = _check_table(Settings, raw, "", errors)
    if errors:
        raise ConfigError(errors)
    settings = Settings(**values)
    if crossed := _cross_checks(settings):
        raise ConfigError(crossed)
    return settings


def resolve_directories(settings: Settings, *, data: Path, runtime: Path) -> Settings:
    """The settings with their two directories filled in where the file left them empty."""
    instance = msgspec.structs.replace(
        settings.instance,
        data_dir=settings.instance.data_dir or str(data),
        runtime_dir=settings.instance.runtime_dir or str(runtime),
    )
    return msgspec.structs.replace(settings, instance=instance)


def _merge_environment(raw: dict[str, Any], env: Mapping[str, str], errors: list[str]) -> None:
    if "API_HOST" in env:
        _put(raw, ["api", "host"], env["API_HOST"], "API_HOST", errors)
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and "__" in name:
            section, *keys = name[len(ENV_PREFIX) :].split("__")
            steps = [section.lower(), *keys]
            # Symbol names are capitals, every other key is lower case.
            steps = [s if steps[0] == "symbols" and i == 1 else s.lower() for i, s in enumerate(steps)]
            _put(raw, steps, _value(env[name]), name, errors)


def _merge_overrides(raw: dict[str, Any], overrides: Iterable[str], errors: list[str]) -> None:
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            errors.append(f"--set {text}: must be section.key=value")
            continue
        _put(raw, name.strip().split("."), _value(value.strip()), f"--set {name}", errors)


def _value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself (so that hosts and paths need no quotes)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(raw: dict[str, Any], steps: list[str], value: Any, origin: str, errors: list[str]) -> None:
    table = raw
    for step in steps[:-1]:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            errors.append(f"{origin}: {step} is not a table")
            return
    table[steps[-1]] = value


def _fill_symbols(raw: dict[str, Any], errors: list[str]) -> None:
    """No symbol tables: the shipped ones. A named table: its keys over the shipped or the general defaults."""
    tables = raw.setdefault("symbols", {name: {} for name in SHIPPED_SYMBOLS})
    if not isinstance(tables, dict):
        return
    brackets = _brackets_in_force(raw, errors)
    for name, table in list(tables.items()):
        try:
            check_symbol(name)
        except ValueError as error:
            errors.append(f"symbols.{name}: {error}")
            del tables[name]
            continue
        if isinstance(table, dict):
            merged = {**(SHIPPED_SYMBOLS.get(name) or _shipped(name)), **table}
            if "step" in merged:
                merged.setdefault("book_step", merged["step"])
            merged.setdefault("brackets", _brackets_of(merged, brackets))
            tables[name] = merged
    if not tables:
        errors.append("symbols: at least one symbol is needed")


def _brackets_in_force(raw: dict[str, Any], errors: list[str]) -> BracketFile:
    """The data file that the settings name, else the program's."""
    engine = raw.get("engine")
    name = engine.get("brackets_file") if isinstance(engine, dict) else None
    if not isinstance(name, str) or not name:
        return shipped()
    try:
        return read_brackets(Path(name))
    except ValueError as error:
        errors += [f"engine.brackets_file: {name}: {fault}" for fault in str(error).splitlines()]
        return shipped()


def _brackets_of(table: dict[str, Any], brackets: BracketFile) -> dict[str, list[Bracket]]:
    """Rows of a data file for the instruments of a symbol table."""
    names = {venue: table[venue] for venue in ("binance", "bybit", "okx") if isinstance(table.get(venue), str)}
    return {venue: rows for venue, name in names.items() if (rows := brackets.of(venue, name))}


def _point_at_simulator(raw: dict[str, Any]) -> None:
    simulator = raw.get("simulator")
    if not isinstance(simulator, dict) or simulator.get("enabled") is not True:
        return
    defaults = SimulatorSettings()
    address = f"{simulator.get('host', defaults.host)}:{simulator.get('port', defaults.port)}"
    for venue in VenuesSettings.__struct_fields__:
        table = raw.setdefault("venues", {}).setdefault(venue, {})
        if isinstance(table, dict):
            table["ws_url"] = f"ws://{address}/{venue}"
            table["rest_url"] = f"http://{address}/{venue}"


def _check_table(kind: type[Struct], table: Any, path: str, errors: list[str]) -> dict[str, Any]:
    """Checked values of one table, key by key, so that every violation of the file is reported at once."""
    if not isinstance(table, dict):
        errors.append(f"{path or 'settings'}: must be a table")
        return {}
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            errors.append(f"{where}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
            continue
        values[key] = _check_value(fields[key], value, where, errors)
    for name, one in fields.items():
        if name not in table and one.required:
            errors.append(f"{f'{path}.{name}' if path else name}: is required")
    return values


def _check_value(one: msgspec.structs.FieldInfo, value: Any, where: str, errors: list[str]) -> Any:
    kind = one.type
    if where == "symbols":
        if not isinstance(value, dict):
            errors.append("symbols: must be a table")
            return None
        return {name: _build(SymbolSettings, table, f"symbols.{name}", errors, None) for name, table in value.items()}
    if isinstance(kind, type) and issubclass(kind, Struct):
        if isinstance(value, kind):
            return value  # the default of a table that the file does not name
        # A table without its required keys starts from the default object (venue addresses), if there is one.
        base = one.default if isinstance(one.default, kind) else None
        return _build(kind, value, where, errors, base)
    try:
        checked = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        errors.append(f"{where}: {str(error)[0].lower()}{str(error)[1:]}, was {str(value)[:60]!r}")
        return None
    if isinstance(checked, float) and not math.isfinite(checked):
        errors.append(f"{where}: must be finite")
    return checked


def _build(kind: type[Struct], table: Any, where: str, errors: list[str], base: Struct | None) -> Any:
    before = len(errors)
    if base is not None and isinstance(table, dict):
        table = {**{f: getattr(base, f) for f in base.__struct_fields__}, **table}
    values = _check_table(kind, table, where, errors)
    return kind(**values) if len(errors) == before else None


def _cross_checks(settings: Settings) -> list[str]:
    """Rules over several settings: each one names the keys it compares."""
    found = [
        text for name, symbol in settings.symbols.items() for text in _symbol_checks(f"symbols.{name}", symbol, settings.engine)
    ]
    for venue in VenuesSettings.__struct_fields__:
        names = [s for symbol in settings.symbols.values() if (s := getattr(symbol, venue))]
        found += [f"symbols: {venue} name {n} is used twice" for n in sorted({n for n in names if names.count(n) > 1})]
    simulated = settings.simulator.enabled
    rules = (
        (settings.supervisor.backoff_first_s <= settings.supervisor.backoff_max_s,
         "supervisor.backoff_first_s: must not be above backoff_max_s"),
        (settings.ingest.flush_bytes <= settings.engine.ring_units * 64 // 4,
         "ingest.flush_bytes: must not be above a quarter of the event ring (engine.ring_units * 64)"),
        (settings.capture.frame_bytes <= settings.capture.file_bytes, "capture.frame_bytes: must not be above file_bytes"),
        (settings.capture.file_bytes <= settings.capture.quota_bytes, "capture.file_bytes: must not be above quota_bytes"),
        (settings.api.cache_body_bytes <= settings.api.cache_bytes, "api.cache_body_bytes: must not be above cache_bytes"),
        (not settings.api.keys or settings.api.behind_proxy or _is_loopback(settings.api.host),
         "api.keys, api.host: keys on an address that others can reach need TLS in front: set api.behind_proxy = true"),
        (not settings.api.keys or "*" not in settings.api.cors_origins,
         'api.cors_origins: "*" is only possible without api.keys'),
        (not simulated or settings.simulator.port != settings.api.port or settings.api.port == 0,
         "simulator.port: must differ from api.port"),
        (abs(settings.engine.tape_weight + settings.engine.projection_weight - 1.0) <= 1e-9,
         "engine.tape_weight, engine.projection_weight: must add up to 1"),
        (lowest_entropy_bits(MAX_TIER_WEIGHT) < settings.engine.safety_entropy_min_bits,
         f"engine.safety_entropy_min_bits: must be above {lowest_entropy_bits(MAX_TIER_WEIGHT):.4f}, or it could never act"),
    )  # fmt: skip
    found += _admin_checks(settings)
    found += [f"api.trusted_proxies: {text} is not a network" for text in settings.api.trusted_proxies if not _is_network(text)]
    return found + [text for holds, text in rules if not holds]


def admin_address(bind: str) -> Path | tuple[str, int] | None:
    """Where `api.admin_bind` points: None for the runtime directory's own socket, the path of another Unix socket, or (loopback
    address, port). Raises ValueError with what it must be."""
    if not bind:
        return None
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > UNIX_PATH_BYTES or "\0" in path:
            raise ValueError(f"unix: must be followed by an absolute path of at most {UNIX_PATH_BYTES} bytes")
        return Path(path)
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_loopback(host) or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65_535:
        raise ValueError("must be empty, unix:PATH, or a loopback host:port (metrics are for this machine only)")
    return "127.0.0.1" if host == "localhost" else host, int(port)


def _admin_checks(settings: Settings) -> list[str]:
    try:
        address = admin_address(settings.api.admin_bind)
    except ValueError as error:
        return [f"api.admin_bind: {error}"]
    taken = {settings.api.port} | ({settings.simulator.port} if settings.simulator.enabled else set())
    if isinstance(address, tuple) and address[1] in taken:
        return ["api.admin_bind: its port must differ from api.port and simulator.port"]
    return []


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _symbol_checks(where: str, symbol: SymbolSettings, engine: EngineSettings) -> list[str]:
    low, high = symbol.axis_low, symbol.axis_high
    rules = (
        (symbol.book_range <= engine.book_prune_pct, "book_range: must not be above engine.book_prune_pct"),
        (symbol.tick <= symbol.book_step, "tick: must not be above book_step"),
        ((low is None) == (high is None), "axis_low, axis_high: give both or none"),
        (low is None or high is None or low < high, "axis_low: must be below axis_high"),
    )
    return [f"{where}.{text}" for holds, text in rules if not holds] + _leverage_checks(where, symbol, engine)


def _leverage_checks(where: str, symbol: SymbolSettings, engine: EngineSettings) -> list[str]:
    found = [f"{where}.brackets.{venue}: {fault}" for venue, rows in symbol.brackets.items() for fault in faults_of(rows)]
    enabled = [tier for tier in symbol.leverage_ladder if int(tier) not in engine.disabled_tiers]
    if len(enabled) * MAX_TIER_WEIGHT < 1.0:
        return [*found, f"{where}.leverage_ladder: at least 3 tiers must be enabled (engine.disabled_tiers), was {len(enabled)}"]
    if not any(symbol.leverage_ladder[tier] > 0.0 for tier in enabled):
        return [*found, f"{where}.leverage_ladder: an enabled tier must have weight"]
    ladder = make_ladder(symbol.leverage_ladder, engine.disabled_tiers)
    entropy = entropy_bits(allowed(ladder, ladder.defaults))
    if entropy <= engine.safety_entropy_min_bits:
        found.append(f"{where}.leverage_ladder: the entropy of its weights, {entropy:.4f} bits, must be above "
                     f"engine.safety_entropy_min_bits, or the guard acts at once")  # fmt: skip
    return found
