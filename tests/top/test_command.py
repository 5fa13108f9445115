"""`mpengine top` as a command: its options, its codes, its JSON, and what it does without Textual."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from click.testing import CliRunner

from mpengine.cli import main
from mpengine.top import fanout, schema
from mpengine.top.command import TopError, Wanted, key_of, screen
from mpengine.top.fanout import Meter, Scraper, sums_of
from mpengine.top.model import Facts, FanOut
from mpengine.top.recording import Recorder
from shm.board import Board, RowName
from shm.board_words import Role
from shm.directories import runtime_folder
from shm.liveness import boot_id
from tests.api.world import World
from tests.top.samples import NOW_MS, STATES, facts

TEXT = "[symbols.BTC]\n[symbols.ETH]\n"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[tuple[World, list[str]]]:
    """A world where the command looks for it, and the options that name it."""
    from mpengine.config import load, resolve_directories

    runtime = runtime_folder(tmp_path / "run", "default", boot_id()[0])
    found = resolve_directories(load(TEXT, {}), data=tmp_path / "data", runtime=runtime)
    for folder in (tmp_path / "data", runtime):
        folder.mkdir(parents=True)
    (tmp_path / "x.toml").write_text(TEXT)
    world = World(found)
    board = Board.create(found.paths.board, [RowName("supervisor", Role.SUPERVISOR, 0)], {})
    board.row(0).start(Role.SUPERVISOR, 0, 1)
    world.add_history(3)
    world.add_maps(2)
    world.add_status(mark=65_892.7)
    world.add_feeds()
    world.add_liquidation()
    options = ["--config", str(tmp_path / "x.toml")]
    for name in ("data", "run"):
        options += ["--set", f"instance.{'data' if name == 'data' else 'runtime'}_dir={tmp_path / name}"]
    yield world, options
    board.close()
    world.close()


def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, ["top", *arguments], env=env)


def test_once_is_plain_text_of_the_width_of_the_terminal(instance: tuple[World, list[str]]) -> None:
    found = run(*instance[1], "--once", env={"COLUMNS": "120", "LINES": "40"})
    assert found.exit_code == 0, found.output
    rows = found.output.splitlines()
    assert max(map(len, rows)) <= 120 and "\x1b" not in found.output
    assert "STALE" in rows[0] and "newest map" in rows[1], "the world is of another day"
    for part in ("binance", "65,892.7", "supervisor", "map est. USD", "no scorecard on this server"):
        assert part in found.output


def test_once_json_is_its_schema(instance: tuple[World, list[str]]) -> None:
    found = run(*instance[1], "--once", "--json", "--symbol", "btc")
    body = schema.decode(found.output.encode())
    assert body.schema == 1 and body.badge.state == "STALE" and body.estimated and body.accuracy is None
    assert body.facts.shown == "BTC" and body.facts.liquidations[0].usd == 500.0 and body.facts.map is None
    assert body.facts.symbols[0].map is not None and body.facts.symbols[0].map.seq == 1


@pytest.mark.parametrize("state", STATES)
def test_the_json_of_every_state_is_valid_by_its_published_schema(state: str) -> None:
    one = facts(**STATES[state])
    for heat in (False, True):
        data = schema.encode(schema.body_of(one, heat=heat))
        jsonschema_rs.validate(schema.json_schema(), json.loads(data))
        body = schema.decode(data)
        assert body == schema.body_of(one, heat=heat)
        assert (body.facts.map is not None) == heat
        assert body.badge.state == ("LIVE" if state in ("live", "venue-down") else "STALE")


def test_the_schema_refuses_what_it_does_not_have() -> None:
    text = schema.encode(schema.body_of(facts())).replace(b'"now_ms":%d' % NOW_MS, b'"now_ms":"soon"')
    with pytest.raises(msgspec.ValidationError):
        schema.decode(text)


def test_every_key_of_the_facts_is_in_the_schema() -> None:
    body = json.loads(schema.encode(schema.body_of(facts())))
    assert list(body) == ["schema", "badge", "estimated", "accuracy", "facts"]
    assert list(body["facts"]) == list(Facts.__dataclass_fields__)


@pytest.mark.parametrize("options", [["--once"], ["--once", "--json"]])
def test_without_an_instance_it_says_so_with_the_code_of_status(tmp_path: Path, options: list[str]) -> None:
    where = ["--set", f"instance.runtime_dir={tmp_path}", "--set", f"instance.data_dir={tmp_path}"]
    found = run(*where, *options)
    other = CliRunner().invoke(main, ["status", *where])
    assert found.exit_code == other.exit_code == 1
    assert found.stderr == other.stderr == "mpengine: instance default is not running here (Missing)\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--json"], "--json needs --once"), (["--url", "http://x", "--demo"], "one of --url"),
        (["--url", "http://x", "--replay", "f"], "one of"), (["--once", "--record", "f"], "--record needs"),
        (["--hz", "50"], "--hz"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options: list[str], why: str) -> None:
    found = run(*options)
    assert found.exit_code == 2 and why in found.output


def test_a_server_that_does_not_answer_and_an_address_that_is_none() -> None:
    found = run("--url", "http://127.0.0.1:1", "--once")
    assert found.exit_code == 1 and "does not answer" in found.stderr
    assert run("--url", "desk.example", "--once").exit_code == 1


def test_a_symbol_that_is_not_there_is_refused(instance: tuple[World, list[str]]) -> None:
    for options in (["--once"], ["--once", "--json"]):
        found = run(*instance[1], *options, "--symbol", "doge")
        assert (found.exit_code, found.stderr) == (1, "mpengine: DOGE is not a configured symbol\n")


def test_the_full_screen_needs_a_terminal(instance: tuple[World, list[str]]) -> None:
    found = run(*instance[1])
    assert found.exit_code == 1 and "mpengine top --once" in found.stderr


def test_without_textual_the_rest_works_and_the_screen_says_how_to_get_it(
    instance: tuple[World, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys\n"
        "sys.modules['textual'] = sys.modules['rich'] = None\n"
        "from mpengine.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'textual', 'rich', 'aiohttp'} & {name for name, module in sys.modules.items() if module is not None}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "top", *instance[1], "--once", "--json"], capture_output=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert schema.decode(done.stdout).facts.shown == "BTC"

    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("mpengine.top.app"):
            raise ModuleNotFoundError("No module named 'textual'", name="textual")
        return real(name, *rest)

    monkeypatch.setattr(os, "isatty", lambda _fd: True)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TopError, match=r"pip install 'mpengine\[top\]'"):
        screen(Wanted(url="http://127.0.0.1:1"), hz=4.0)


def test_a_recording_can_be_looked_at_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day")
    recorder.take(facts())
    recorder.close()
    found = run("--replay", str(tmp_path / "day"), "--once", "--json")
    assert schema.decode(found.output.encode()).facts.source == "replay of day"
    assert run("--replay", str(tmp_path / "none"), "--once").exit_code == 1


def test_a_key_comes_from_a_file_that_nobody_else_reads_or_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("id.secret\n")
    file.chmod(0o600)
    assert key_of(file, {"MPENGINE_API_KEY": "other"}) == "id.secret"
    assert key_of(None, {"MPENGINE_API_KEY": "id.two"}) == "id.two"
    assert key_of(None, {}) is None and key_of(None, {"MPENGINE_API_KEY": ""}) is None
    file.chmod(0o644)
    with pytest.raises(TopError, match="chmod 600"):
        key_of(file, {})
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(TopError, match="empty"):
        key_of(tmp_path / "empty", {})
    with pytest.raises(TopError, match="cannot be read"):
        key_of(tmp_path / "absent", {})
    assert not any(
        option.startswith("--key") and option != "--key-file" for one in main.commands["top"].params for option in one.opts
    )  # type: ignore[attr-defined]


METRICS = """# HELP mpengine_push_clients Open push connections
# TYPE mpengine_push_clients gauge
mpengine_push_clients{transport="sse"} 2.0
mpengine_push_clients{transport="ws"} 5.0
mpengine_push_bytes_total 1000.0
mpengine_push_conflated_total 3.0
mpengine_http_requests_total{code="200",route="/oi"} 10.0
mpengine_http_requests_total{code="503",route="/oi"} 4.0
mpengine_http_requests_total{code="x"
mpengine_other 5.0
"""


def test_fan_out_is_summed_over_labels_and_rated_over_time() -> None:
    assert sums_of(METRICS) == {"clients": 7.0, "bytes": 1000.0, "dropped": 3.0, "requests": 14.0, "5xx": 4.0}
    meter = Meter()
    first = meter.take(METRICS, 10.0)
    assert (first.clients, first.dropped, first.errors_5xx, first.bytes_s, first.requests_s) == (7, 3, 4, None, None)
    second = meter.take(METRICS.replace("total 1000.0", "total 6000.0"), 15.0)
    assert (second.bytes_s, second.requests_s) == (1000.0, 0.0)
    assert meter.take("", 20.0).clients is None


def test_the_admin_listener_is_asked_and_who_hangs_or_lies_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "TIMEOUT_S", 0.2)
    path = tmp_path / "admin.sock"
    assert Scraper(path).ask() == FanOut(), "nobody is there"
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(METRICS), METRICS.encode()),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\ncut", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        b"", b"no http", None,
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(4096).startswith(b"GET /metrics HTTP/1.1\r\n")
                    if answer is None:
                        connection.recv(1)  # says nothing until the other end has gone
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            found = [Scraper(path).ask() for _ in answers]
        finally:
            thread.join(10)
    assert found[0].clients == 7 and found[1:] == [FanOut()] * 5
