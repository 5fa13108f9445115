"""The simulator as a process: alone with a free port, and under a board; stop signals and boot failures."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from mpengine.config import encode, load, resolve_directories
from shm.board import Board, BoardReader, RowName
from shm.board_words import Role, State, Word
from tests.simulator.captures import line, message, write
from tests.simulator.rig import receive, run

MODULE = [sys.executable, "-m", "mpengine.simulator.process"]
DEADLINE_S = 30.0


@contextmanager
def process(*arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(env or {})}
    child = subprocess.Popen([*MODULE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def port_of(child: subprocess.Popen[str]) -> int:
    """The port that the process announces on its first line."""
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], DEADLINE_S)[0], "the process says nothing"
    return int(json.loads(child.stdout.readline())["port"])


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as reply:
        return json.loads(reply.read())


def test_alone_it_announces_its_port_serves_and_stops_in_order() -> None:
    arguments = ("--port", "0", "--symbol", "BTC:50000", "--symbol", "DOGE:0.2", "--seed", "3", "--speed", "5")
    with process(*arguments) as child:
        port = port_of(child)
        state = get(port, "/control/state")
        assert (set(state["symbols"]), state["speed"]) == ({"BTC", "DOGE"}, 5.0)
        assert state["symbols"]["BTC"]["mark"] == pytest.approx(50_000, rel=0.05)
        assert abs(state["market_time_ns"] - time.time_ns()) < 60e9

        async def test() -> None:
            async with websockets.connect(f"ws://127.0.0.1:{port}/binance/public/stream?streams=dogeusdt@depth@100ms") as ws:
                assert (await receive(ws))["data"]["s"] == "DOGEUSDT"

        run(test())
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE_S) == 0


def test_equal_seeds_give_equal_exchanges() -> None:
    truths = []
    for hash_seed in ("1", "2"):
        with process(
            "--port", "0", "--symbol", "BTC", "--seed", "8", "--speed", "0.0001", env={"PYTHONHASHSEED": hash_seed}
        ) as child:
            truth = get(port_of(child), "/control/truth?symbol=BTC")
            truths.append([{**row, "opened_ns": 0} for row in truth["positions"]])
    assert truths[0] == truths[1] and len(truths[0]) > 1000


def test_a_capture_is_served_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [line(n * 10**6, message("btcusdt@depth@0ms", n)) for n in range(20)])
    with process("--port", "0", "--capture", str(path), "--speed", "10", "--close-at-end", "--stamps") as child:
        port = port_of(child)

        async def test() -> None:
            async with websockets.connect(f"ws://127.0.0.1:{port}/binance/public/stream?streams=btcusdt@depth@100ms") as ws:
                got = [json.loads(text) for text in [text async for text in ws]]
            assert [m["data"]["n"] for m in got if m["stream"] != "!clock"] == list(range(20))
            assert got[-1] == {"stream": "!clock", "recv_ns": got[-2]["recv_ns"], "line": 20, "end": True}

        run(test())
        assert get(port, "/control/state")["ended"]
        child.send_signal(signal.SIGINT)
        assert child.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "0.0.0.0", "--port", "0"),
        ("--port", "0", "--symbol", "BTC:-5"),
        ("--port", "0", "--symbol", "BTC:abc"),
        ("--port", "0", "--speed", "0"),
        ("--port", "0", "--symbol", "BTC", "--symbol", "BTC"),
        ("--port", "0", "--capture", "/nonexistent/capture"),
    ],
)
def test_what_a_restart_does_not_heal_ends_with_three(arguments: tuple[str, ...]) -> None:
    with process(*arguments) as child:
        _, errors = child.communicate(timeout=DEADLINE_S)
        assert child.returncode == 3, errors
        assert "cannot start" in errors and "Traceback" not in errors


def test_a_taken_port_ends_with_three() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with process("--port", str(taken.getsockname()[1]), "--symbol", "BTC") as child:
            assert child.wait(DEADLINE_S) == 3


def test_under_a_board_it_says_live_beats_and_says_stopped(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f"""
    [simulator]
    enabled = true
    port = {port}
    seed = 4
    speed = 3.0
    [symbols.BTC]
    [symbols.XRP]
    step = 0.01
    tick = 0.0001
    axis_low = 1.0
    axis_high = 3.0
    """
    settings = resolve_directories(load(text, {}), data=tmp_path / "data", runtime=tmp_path)
    settings.paths.settings.write_bytes(encode(settings))
    board = Board.create(
        settings.paths.board, [RowName("supervisor", Role.SUPERVISOR, 0), RowName("simulator", Role.SIMULATOR, 0)], {}
    )
    try:
        with (
            process("--settings", str(settings.paths.settings), "--row", "1") as child,
            BoardReader.open(settings.paths.board) as reader,
        ):

            def wait_for(state: State) -> None:
                deadline = time.monotonic() + DEADLINE_S
                while reader.get(1, Word.STATE) != state:
                    assert time.monotonic() < deadline and (state is State.STOPPED or child.poll() is None)
                    time.sleep(0.01)

            wait_for(State.LIVE)
            first = reader.get(1, Word.BEAT_NS)
            state = get(port, "/control/state")
            assert set(state["symbols"]) == {"BTC", "XRP"}
            assert state["symbols"]["XRP"]["mark"] == pytest.approx(2.0, rel=0.1)
            deadline = time.monotonic() + DEADLINE_S
            while reader.get(1, Word.BEAT_NS) <= first:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            assert child.wait(DEADLINE_S) == 0
            wait_for(State.STOPPED)
            assert child.stdout is not None and child.stdout.read() == ""
    finally:
        board.close()


def test_it_goes_on_when_a_client_dies_in_the_middle() -> None:
    with process("--port", "0", "--symbol", "BTC", "--speed", "20") as child:
        port = port_of(child)

        async def test() -> None:
            url = f"ws://127.0.0.1:{port}/binance/public/stream?streams=btcusdt@depth@0ms"
            for _ in range(5):
                ws = await websockets.connect(url)
                await receive(ws)
                ws.transport.abort()
            async with websockets.connect(url) as ws:
                await receive(ws)
            while get(port, "/control/state")["clients"]:
                await asyncio.sleep(0.02)

        run(test())
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=DEADLINE_S)
        assert child.returncode == 0 and "Traceback" not in errors, errors
