"""Command line, ports, directories and the environment of the children."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import pytest

from mpengine.config import ConfigError, load
from shm.directories import runtime_folder
from shm.liveness import boot_id
from supervisor.boot import SettingsSource, check_ports, child_environment, parse, ready_url


def arguments(*argv: str) -> argparse.Namespace:
    return parse(["--no-config", *argv])


def test_directories_of_the_service_manager_come_before_the_users(tmp_path: Path) -> None:
    managed = {"STATE_DIRECTORY": "/var/lib/mpengine:/other", "RUNTIME_DIRECTORY": "/run/mpengine"}
    settings = SettingsSource(arguments(), managed).read()
    assert settings.instance.data_dir == "/var/lib/mpengine"
    assert settings.paths.runtime == runtime_folder(Path("/run/mpengine"), "default", boot_id()[0])
    settings = SettingsSource(arguments("--set", "instance.name=b"), {}).read()
    assert settings.instance.data_dir == str(Path.home() / ".local/state/mpengine/b")
    assert settings.paths.runtime.parent == Path(f"/dev/shm/mpengine-{os.getuid()}")


def test_directories_of_the_command_line_win(tmp_path: Path) -> None:
    source = SettingsSource(arguments("--data-dir", str(tmp_path), "--runtime-dir", "/r", "--set", "instance.data_dir=/x"), {})
    settings = source.read()
    assert settings.instance.data_dir == str(tmp_path)
    assert settings.paths.runtime.parent == Path("/r")


def test_demo_is_local_and_apart() -> None:
    source = SettingsSource(arguments("--role", "demo", "--set", "simulator.port=0", "--set", "api.port=0"), {})
    settings = source.read()
    assert settings.simulator.enabled
    assert settings.api.host == "127.0.0.1"
    assert settings.instance.name == "demo"
    source.close()


def test_port_0_becomes_one_number_for_all_processes_and_all_reloads() -> None:
    source = SettingsSource(arguments("--role", "demo", "--set", "simulator.port=0", "--set", "api.port=0"), {})
    settings = source.read()
    ports = {settings.api.port, settings.simulator.port}
    assert len(ports) == 2
    assert 0 not in ports
    assert f":{settings.simulator.port}/" in settings.venues.binance.ws_url
    assert source.read() == settings
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", settings.api.port))
        other.listen()  # the held port is free for a child
        with socket.create_connection(("127.0.0.1", settings.api.port), timeout=5):
            pass
    source.close()


def test_every_port_that_cannot_be_used_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f'[api]\nhost = "192.0.2.1"\n[simulator]\nenabled = true\nport = {port}\n'
        with pytest.raises(ConfigError) as refused:
            check_ports(load(text, {}))
    assert [violation.split(":")[0] for violation in refused.value.violations] == ["api.port", "simulator.port"]
    assert "Address already in use" in refused.value.violations[1]


def test_unknown_host_is_named() -> None:
    with pytest.raises(ConfigError) as refused:
        check_ports(load('[api]\nhost = "no such host"\n', {}))
    assert refused.value.violations[0].startswith("api.host no such host")


@pytest.mark.covers("T-L2", "T-L5")
def test_children_see_only_what_they_need() -> None:
    env = {"PATH": "/bin", "LANG": "C", "AWS_SECRET": "x", "MPENGINE_API__PORT": "1", "NOTIFY_SOCKET": "/s", "PYTHONPATH": "/evil"}
    child = child_environment(env)
    assert set(child) == {"PATH", "LANG", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX", "PYTHONPATH"}
    assert (Path(child["PYTHONPATH"]) / "mpengine").is_dir()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8899/"),
        ("::", "http://[::1]:8899/"),
        ("::1", "http://[::1]:8899/"),
        ("example.org", "http://example.org:8899/"),
    ],
)
def test_ready_address_is_one_that_a_browser_takes(host: str, url: str) -> None:
    assert ready_url(load(f'[api]\nhost = "{host}"\n', {})) == url


@pytest.mark.parametrize("argv", [[], ["--config", "a", "--no-config"], ["--no-config", "--role", "x"]])
def test_wrong_command_lines_end_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
