"""`mpengine brackets`: fetched over real sockets from the built-in exchange, checked, merged, and used by the settings."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mpengine.brackets import Bracket, encode, faults_of, merged, parse, read, shipped, shown
from mpengine.config import ConfigError, load
from mpengine.simulator.tiers import risk_tiers
from tests.simulator.rig import Running, run, running, small

SYMBOLS = {name: {"binance": f"{name}USDT", "bybit": f"{name}USDT", "okx": f"{name}-USDT-SWAP"} for name in ("BTC", "ETH")}
ROWS = [Bracket(1000.0, 0.01, 50.0, 0.0), Bracket(5000.0, 0.02, 25.0, 10.0)]
DAY = "2026-11-21"
DEADLINE_S = 60.0


class Done(NamedTuple):
    code: int
    out: str
    err: str


async def command(*arguments: str, folder: Path) -> Done:
    """The command in a process of its own, in `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mpengine.cli", "brackets", *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None and b"Traceback" not in err
    return Done(process.returncode, out.decode(), err.decode())


async def update(one: Running, folder: Path, venue: str, *more: str, output: str = "brackets.json") -> Done:
    address = f"venues.{venue}.rest_url={one.base}/{venue}"
    return await command("update", "--venue", venue, "--set", address, "--output", output, *more, folder=folder)


def exchange(**values: Any) -> Any:
    return running(*(small(name, names=names, **values) for name, names in SYMBOLS.items()))


async def fault(one: Running, venue: str, **values: Any) -> None:
    status, body = await one.post("/control/faults", {"venue": venue, "socket": "rest", **values})
    assert status == 201, body


def test_bybits_brackets_are_fetched_merged_and_used(tmp_path: Path) -> None:
    async def test() -> None:
        async with exchange() as one:
            done = await update(one, tmp_path, "bybit", "--symbol", "BTC", "--symbol", "eth")
            assert (done.code, done.err) == (0, "")
            assert "BTC: bybit BTCUSDT, 5 rows, first 0.004 up to 400,000 USD" in done.out
            file = read(tmp_path / "brackets.json")
            wanted = [
                Bracket(tier.cap_usd, tier.mmr, tier.max_leverage, pytest.approx(tier.amount_usd)) for tier in risk_tiers(small())
            ]
            assert file.of("bybit", "BTCUSDT") == wanted and set(file.venues["bybit"]) == {"BTCUSDT", "ETHUSDT"}
            assert file.venues["binance"] == shipped().venues["binance"]
            assert one.base in file.source and shipped().source in file.source
            settings = load(f'[engine]\nbrackets_file = "{tmp_path / "brackets.json"}"\n', {})
            assert settings.symbols["BTC"].brackets["bybit"] == file.of("bybit", "BTCUSDT")
            assert settings.symbols["BTC"].brackets["binance"] == load("", {}).symbols["BTC"].brackets["binance"]
            assert "bybit" not in settings.symbols["SOL"].brackets

    run(test())


def test_okxs_tiers_are_priced_and_a_second_venue_joins_the_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with exchange() as one:
            assert (await update(one, tmp_path, "bybit", "--symbol", "BTC")).code == 0
            before = read(tmp_path / "brackets.json")
            done = await update(one, tmp_path, "okx", "--symbol", "BTC", "--symbol", "ETH")
            assert (done.code, done.err) == (0, "")
            file = read(tmp_path / "brackets.json")
            assert {venue: rows for venue, rows in file.venues.items() if venue != "okx"} == before.venues
            rows, tiers = file.of("okx", "BTC-USDT-SWAP"), risk_tiers(small())
            assert not faults_of(rows) and rows[0].amount_usd == 0.0
            assert [(row.mmr, row.max_leverage) for row in rows] == [(tier.mmr, tier.max_leverage) for tier in tiers]
            # Caps are contracts at the price of now, which has moved a little since the tiers were made.
            assert [row.cap_usd for row in rows] == pytest.approx([tier.cap_usd for tier in tiers], rel=0.05)
            assert (await update(one, tmp_path, "okx", "--symbol", "BTC")).code == 0
            assert read(tmp_path / "brackets.json").source.count("okx of ") == 1

    run(test())


@pytest.mark.parametrize(
    ("venue", "values", "part"),
    [
        ("bybit", {"status": 429, "retry_after": 7}, "too many requests from this address; it says to wait 7 s"),
        ("bybit", {"status": 403, "text": "block access from your country"}, "does not serve this location"),
        ("okx", {"status": 451}, "does not serve this location"),
        ("okx", {"status": 404}, "status 404"),
        ("bybit", {"status": 500}, "status 500"),
    ],
)
def test_a_venue_that_refuses_is_not_asked_again_and_nothing_is_written(
    tmp_path: Path, venue: str, values: dict[str, Any], part: str
) -> None:
    async def test() -> None:
        async with exchange() as one:
            await fault(one, venue, fault="status", **values)
            asked = one.server.requests
            done = await update(one, tmp_path, venue, "--symbol", "BTC", "--symbol", "ETH")
            assert done.code == 1 and part in done.err and "not asked for any more" in done.err
            assert one.server.requests == asked + 1
            assert not list(tmp_path.iterdir())

    run(test())


def test_one_symbol_that_fails_leaves_the_others_their_new_rows(tmp_path: Path) -> None:
    async def test() -> None:
        async with exchange() as one:
            done = await update(one, tmp_path, "bybit")  # SOL is configured, but this exchange does not have it
            assert done.code == 1 and "SOL: bybit SOLUSDT refused: the venue refused it (code 10001" in done.err
            assert set(read(tmp_path / "brackets.json").venues["bybit"]) == {"BTCUSDT", "ETHUSDT"}

    run(test())


def test_a_venue_that_says_nothing_or_nonsense_is_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with exchange() as one:
            await fault(one, "bybit", fault="garbage", variant="truncated")
            done = await update(one, tmp_path, "bybit", "--symbol", "BTC")
            assert done.code == 1 and "refused: the reply is not JSON" in done.err
            await one.delete("/control/faults")
            await fault(one, "bybit", fault="garbage", variant="huge")
            done = await update(one, tmp_path, "bybit", "--symbol", "BTC", "--set", "ingest.rest_body_bytes=65536")
            assert done.code == 1 and "larger than 65536 bytes" in done.err
            await one.delete("/control/faults")
            await fault(one, "bybit", fault="silence")
            done = await update(one, tmp_path, "bybit", "--symbol", "BTC", "--set", "ingest.rest_timeout_s=0.2")
            assert done.code == 1 and "no reply in time" in done.err
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = ("--venue", "okx", "--symbol", "BTC", "--output", "brackets.json", "--set", f"venues.okx.rest_url={closed}")
        done = await command("update", *arguments, folder=tmp_path)
        assert done.code == 1 and "no connection" in done.err and "brackets.json is not touched" in done.err

    run(test())


def test_a_redirection_is_told_and_not_followed(tmp_path: Path) -> None:
    paths: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async def test() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", elsewhere)
        async with TestServer(app, host="127.0.0.1") as server:
            address = f"venues.bybit.rest_url=http://127.0.0.1:{server.port}"
            arguments = ("--venue", "bybit", "--symbol", "BTC", "--set", address, "--output", "b.json")
            done = await command("update", *arguments, folder=tmp_path)
        assert done.code == 1 and "status 302: the venue points elsewhere" in done.err
        assert paths == ["/v5/market/risk-limit"]

    run(test())


def test_what_cannot_be_asked_for_or_written(tmp_path: Path) -> None:
    async def test() -> None:
        done = await command("update", "--venue", "binance", "--output", "x.json", folder=tmp_path)
        assert done.code == 1 and "signed requests" in done.err
        done = await command("update", "--venue", "bybit", "--symbol", "NOPE", "--output", "x.json", folder=tmp_path)
        assert done.code == 2 and "not configured: NOPE" in done.err
        (tmp_path / "x.json").write_text("{}", encoding="utf-8")
        done = await command("update", "--venue", "bybit", "--output", "x.json", folder=tmp_path)
        assert done.code == 1 and "x.json refused, nothing was fetched" in done.err
        async with exchange() as one:
            done = await update(one, tmp_path, "bybit", "--symbol", "BTC", output="no/such/folder.json")
            assert done.code == 1 and "cannot be written (FileNotFoundError)" in done.err
        assert (tmp_path / "x.json").read_text(encoding="utf-8") == "{}"

    run(test())


def test_show_prints_what_is_in_force(tmp_path: Path) -> None:
    async def test() -> None:
        done = await command("show", folder=tmp_path)
        assert done.code == 0 and "binance BTCUSDT" in done.out and "421,482,000.00" in done.out
        (tmp_path / "mine.json").write_bytes(encode(merged(shipped(), "okx", {"BTC-USDT-SWAP": ROWS}, "here", DAY)))
        done = await command("show", "--json", "--set", "engine.brackets_file=mine.json", folder=tmp_path)
        assert json.loads(done.out)["okx"] == {"BTC-USDT-SWAP": [[1000.0, 0.01, 50.0, 0.0], [5000.0, 0.02, 25.0, 10.0]]}
        done = await command("show", "--file", "mine.json", folder=tmp_path)
        assert "okx BTC-USDT-SWAP\n" in done.out
        done = await command("show", "--file", "absent.json", folder=tmp_path)
        assert done.code == 1 and "absent.json refused: cannot be read" in done.err

    run(test())


def test_a_merge_keeps_what_is_not_replaced() -> None:
    first = merged(shipped(), "bybit", {"A": ROWS, "B": ROWS}, "here", DAY)
    second = merged(first, "bybit", {"B": ROWS[:1]}, "there", "2026-11-22")
    assert second.venues["bybit"] == {"A": ROWS, "B": ROWS[:1]}
    assert second.source == f"{shipped().source}; bybit of 2026-11-22: there" and second.as_of == "2026-11-22"
    assert parse(encode(second)) == second
    assert merged(second, "okx", {}, "x", "2020-01-01").as_of == "2026-11-22"
    assert shown({}).startswith("no brackets")


@pytest.mark.covers("E-M3")
@pytest.mark.parametrize(
    ("content", "mode", "part"),
    [
        (None, 0o640, "cannot be read (FileNotFoundError)"),
        (b"{", 0o640, "brackets: "),
        (encode(shipped()), 0o646, "can be written by everybody"),
        (b" " * ((16 << 20) + 1), 0o640, "larger than 16 MiB"),
        (encode(merged(shipped(), "okx", {"X": [ROWS[1], ROWS[0]]}, "x", DAY)), 0o640, "brackets: okx X: row 1: amount must be 0"),
    ],
)
def test_a_bad_brackets_file_is_a_violation_that_names_it(tmp_path: Path, content: bytes | None, mode: int, part: str) -> None:
    path = tmp_path / "brackets.json"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load(f'[engine]\nbrackets_file = "{path}"\n[api]\nport = -1\n', {})
    own = [text for text in caught.value.violations if text.startswith(f"engine.brackets_file: {path}: ")]
    assert own and part in "\n".join(own) and any("api.port" in text for text in caught.value.violations)


def test_rows_in_the_settings_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(encode(merged(shipped(), "bybit", {"BTCUSDT": ROWS}, "x", DAY)))
    symbols = "[symbols.BTC]\n[symbols.ETH.brackets]\nbinance = [[1.0, 0.1, 5.0, 0.0]]\n"
    settings = load(f'[engine]\nbrackets_file = "{tmp_path / "b.json"}"\n{symbols}', {})
    assert settings.symbols["BTC"].brackets["bybit"] == ROWS
    assert settings.symbols["ETH"].brackets == {"binance": [Bracket(1.0, 0.1, 5.0, 0.0)]}
    assert settings.config_hash != load("[symbols.BTC]\n[symbols.ETH]\n", {}).config_hash
