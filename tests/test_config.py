"""Settings: defaults, order of sources, and every violation reported at once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine import config
from mpengine.config import ConfigError, load, load_file

ROOT = Path(__file__).resolve().parents[1]


def violations(text: str, env: dict[str, str] | None = None, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, env or {}, overrides)
    return caught.value.violations


@pytest.mark.covers("X-M2", "A1-L1")
def test_the_shipped_example_is_the_specified_defaults() -> None:
    assert load((ROOT / "mpengine.toml").read_text(encoding="utf-8"), {}) == load("", {})


def test_specified_symbols() -> None:
    symbols = load("", {}).symbols
    assert {name: (s.step, s.book_step, s.book_range, s.gap_tolerance_ids, s.default_mmr) for name, s in symbols.items()} == {
        "BTC": (20.0, 20.0, 0.10, 1000, 0.004),
        "ETH": (1.0, 1.0, 0.10, 50, 0.004),
        "SOL": (0.1, 0.1, 0.10, 5, 0.005),
    }


def test_adding_a_symbol_is_one_table() -> None:
    shipped = (ROOT / "mpengine.toml").read_text(encoding="utf-8")
    settings = load(shipped + "\n[symbols.DOGE]\nstep = 0.0001\ntick = 0.00001\n", {})
    assert list(settings.symbols) == ["BTC", "ETH", "SOL", "DOGE"]
    doge = settings.symbols["DOGE"]
    assert (doge.binance, doge.okx, doge.base_asset, doge.book_step) == ("DOGEUSDT", "DOGE-USDT-SWAP", "DOGE", 0.0001)


def test_later_sources_win() -> None:
    env = {"API_HOST": "10.1.1.1", "MPENGINE_API__PORT": "1000", "MPENGINE_SYMBOLS__BTC__STEP": "10.0", "MPENGINE_CONFIG": "x"}
    settings = load('[api]\nhost = "::1"\nport = 5\nworkers = 3\n', env, ["api.port=2000"])
    assert (settings.api.host, settings.api.port, settings.api.workers) == ("10.1.1.1", 2000, 3)
    assert settings.symbols["BTC"].step == 10.0


@pytest.mark.covers("S-C1", "X-H1", "E-M2")
def test_all_violations_are_reported_at_once() -> None:
    found = violations(
        '[api]\nport = 99999\nprot = 1\n[engine]\nring_units = "many"\nprice_reject_pct = nan\n[capture]\nframe_s = 0\n'
        "[symbols.BTC]\nstep = -1.0\n[symbols.'a/b']\nstep = 1.0\n[symbols.NEW]\ntick = 0.1\n[nonsense]\nx = 1\n",
        {"MPENGINE_API__WORKERS": "99"},
        ("oops",),
    )
    text = "\n".join(found)
    for part in ("api.port", "api.prot: unknown key, did you mean port?", "engine.ring_units", "price_reject_pct",
                 "capture.frame_s", "symbols.BTC.step", "symbols.a/b", "symbols.NEW.step: is required", "nonsense: unknown key",
                 "api.workers",
                 "--set oops"):  # fmt: skip
        assert part in text, part


@pytest.mark.covers("R-H1", "R-H2", "R-H3", "R-M1", "R-M2", "E-M7", "S-C1", "X-M3")
@pytest.mark.parametrize(
    "section", [f.name for f in msgspec.structs.fields(config.Settings) if f.name not in ("schema_version", "symbols", "venues")]
)
def test_both_edges_of_every_number(section: str) -> None:
    kind = next(f.type for f in msgspec.structs.fields(config.Settings) if f.name == section)
    for one in msgspec.structs.fields(kind):
        meta = getattr(one.type, "__metadata__", ())
        for bound in meta:
            number = next((v for v in (bound.ge, bound.gt) if v is not None), None)
            if number is None:
                continue
            below = number if bound.gt is not None else number - 1
            assert any(f"{section}.{one.name}" in v for v in violations(f"[{section}]\n{one.name} = {below}\n")), one.name
            if bound.le is not None:
                assert any(f"{section}.{one.name}" in v for v in violations(f"[{section}]\n{one.name} = {bound.le + 1}\n")), (
                    one.name
                )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[symbols.BTC]\nbook_range = 0.2\n", "book_range: must not be above engine.book_prune_pct"),
        ("[symbols.BTC]\ntick = 50.0\n", "tick: must not be above book_step"),
        ("[symbols.BTC]\naxis_low = 200000.0\n", "axis_low: must be below axis_high"),
        ('[symbols.BTC]\n[symbols.ETH]\nbinance = "BTCUSDT"\n', "binance name BTCUSDT is used twice"),
        ("[engine]\nring_units = 4096\n[ingest]\nflush_bytes = 262144\n", "ingest.flush_bytes: must not be above a quarter"),
        ("[supervisor]\nbackoff_first_s = 40\n", "backoff_first_s: must not be above backoff_max_s"),
        ("[simulator]\nenabled = true\nport = 8899\n", "simulator.port: must differ from api.port"),
        ("[symbols]\n", "at least one symbol"),
        ("[api]\nkeys = true\n", "api.keys, api.host: keys on an address that others can reach"),
        ('[api]\nkeys = true\nhost = "192.0.2.1"\n', "set api.behind_proxy = true"),
        ('[api]\nkeys = true\nhost = "example.net"\n', "set api.behind_proxy = true"),
        ('[api]\nkeys = true\nhost = "::1"\ncors_origins = ["*"]\n', 'api.cors_origins: "*" is only possible without api.keys'),
        ('[api]\ncors_origins = ["example.net"]\n', "api.cors_origins"),
        ('[api]\ntrusted_proxies = ["10.0.0.1/8"]\n', "api.trusted_proxies: 10.0.0.1/8 is not a network"),
        ("symbols = 3\n", "symbols: must be a table"),
        ("api = 3\n", "api: must be a table"),
        ("not toml", "not valid TOML"),
        ('[venues.binance]\nws_url = "ftp://x"\n', "venues.binance.ws_url"),
    ],
)
def test_rules_over_settings(text: str, part: str) -> None:
    assert any(part in violation for violation in violations(text))


@pytest.mark.covers("T-M7")
@pytest.mark.parametrize("where", ['host = "127.0.0.1"', 'host = "::1"', 'host = "localhost"', "behind_proxy = true"])
def test_keys_where_nobody_can_listen_in(where: str) -> None:
    assert load(f"[api]\nkeys = true\n{where}\n", {}).api.keys


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("", None),
        ("unix:/run/mpengine/admin.sock", Path("/run/mpengine/admin.sock")),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.8.0.1:1", ("127.8.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:9464", ("127.0.0.1", 9464)),
    ],
)
def test_places_of_the_admin_listener(bind: str, address: object) -> None:
    assert config.admin_address(load(f'[api]\nadmin_bind = "{bind}"\n', {}).api.admin_bind) == address


@pytest.mark.parametrize(
    "bind",
    ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "example.net:9464", "127.0.0.1", "9464", ":9464", "127.0.0.1:0",
     "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:8899", "unix:", "unix:admin.sock", "unix:/" + "x" * 100, "/run/admin.sock"],
)  # fmt: skip
def test_metrics_are_for_this_machine_only(bind: str) -> None:
    assert any("api.admin_bind: " in violation for violation in violations(f'[api]\nadmin_bind = "{bind}"\n'))


def test_the_simulator_changes_only_addresses() -> None:
    plain, simulated = load("", {}), load("[simulator]\nenabled = true\n", {})
    assert simulated.venues.binance.ws_url == "ws://127.0.0.1:8898/binance"
    assert simulated.venues.binance.rest_url == "http://127.0.0.1:8898/binance"
    same = {f: getattr(plain.venues.binance, f) for f in plain.venues.binance.__struct_fields__ if not f.endswith("url")}
    assert all(getattr(simulated.venues.binance, f) == value for f, value in same.items())


def test_children_read_back_what_the_supervisor_wrote() -> None:
    settings = load("[api]\nport = 1234\n", {})
    assert config.decode(config.encode(settings)) == settings
    assert settings.config_hash != load("", {}).config_hash
    with pytest.raises(ConfigError):
        config.decode(b'{"schema_version": 7}')


@pytest.mark.covers("E-M3")
def test_a_file_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mpengine.toml"
    path.write_text("[api]\nport = 1\n", encoding="utf-8")
    path.chmod(0o640)
    assert load_file(path, {}).api.port == 1
    path.chmod(0o646)
    with pytest.raises(ConfigError, match="everybody"):
        load_file(path, {})


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path / "absent.toml", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path / "binary", {})


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda c: st.lists(c, max_size=3)),
        max_size=4,
    )
)
def test_any_environment_is_settings_or_a_list_of_violations(values: dict[str, object]) -> None:
    env = {f"MPENGINE_API__{key.upper() or 'X'}": str(value) for key, value in values.items() if "\0" not in key}
    try:
        port = load("", env).api.port
    except ConfigError as error:
        named = len(error.violations)
    else:
        named = port
    assert named > 0


def test_paths_need_resolved_directories() -> None:
    with pytest.raises(ConfigError, match="not resolved"):
        _ = load("", {}).paths
    settings = config.resolve_directories(load("", {}), data=Path("/a"), runtime=Path("/b"))
    assert str(settings.paths.depth("BTC")) == "/a/BTC/depth.ring"
    with pytest.raises(ValueError, match="capital letters"):
        settings.paths.depth("../etc")
