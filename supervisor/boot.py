"""From the command line to a plan: settings with directories and ports filled in, ports that can be bound, the environment.

Everything that can be wrong before the first child starts is found here and reported together.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

import mpengine.config
from mpengine.config import DEMO_VENUES, ConfigError, Settings, load, load_file
from shm.directories import default_data_directory, default_runtime_base, runtime_folder
from shm.liveness import boot_id

ROLES: Final = {
    "start": (),
    # Everything local, and apart from a real instance of the same user.
    "demo": ("instance.name=demo", "simulator.enabled=true", "api.host=127.0.0.1", *DEMO_VENUES),
}
HISTORY_HOURS: Final = 24.0
PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line of `python -m supervisor`. Ends the process with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="supervisor", description="Starts mpengine's processes and keeps them alive.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
    source.add_argument("--no-config", action="store_true", help="the shipped defaults")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="instance.data_dir")
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="instance.runtime_dir")
    parser.add_argument("--history", type=_hours, default=0.0, metavar="HOURS", help="a past for the simulator's market, 0 none")
    parser.add_argument("--role", choices=sorted(ROLES), default="start")
    return parser.parse_args(argv)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours <= HISTORY_HOURS:
        raise argparse.ArgumentTypeError(f"must be 0 to {HISTORY_HOURS:g} hours")
    return hours


class SettingsSource:
    """Reads the settings at start and at every reload, each time with the same ports in place of 0."""

    def __init__(self, arguments: argparse.Namespace, env: Mapping[str, str]) -> None:
        """`env` names settings and the service manager's directories; it is not looked at later than here."""
        self._arguments = arguments
        self._env = dict(env)
        self._ports: list[str] = []
        self._held: list[socket.socket] = []

    def read(self) -> Settings:
        """The effective settings. Raises ConfigError with every violation."""
        settings = self._load()
        if wanted := self._free_ports(settings):
            self._ports += wanted
            settings = self._load()
        return self._with_directories(settings)

    def close(self) -> None:
        """Give the held ports back."""
        for held in self._held:
            held.close()

    def _load(self) -> Settings:
        overrides = [*ROLES[self._arguments.role], *self._arguments.set, *self._ports]
        if self._arguments.no_config:
            return load("", self._env, overrides)
        return load_file(self._arguments.config, self._env, overrides)

    def _free_ports(self, settings: Settings) -> list[str]:
        """Overrides that put a port of the system's choice in place of each 0: all processes must know the same one."""
        found = []
        if settings.api.port == 0:
            found.append(f"api.port={self._hold(settings.api.host)}")
        if settings.simulator.enabled and settings.simulator.port == 0:
            found.append(f"simulator.port={self._hold(settings.simulator.host)}")
        return found

    def _hold(self, host: str) -> int:
        # NOTE: bound but not listening: nobody else is given the port, nothing connects to us, and a socket with
        # SO_REUSEADDR or SO_REUSEPORT of a child may still bind and listen.
        family, address = resolve(host, 0)
        held = socket.socket(family, socket.SOCK_STREAM)
        self._held.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
        return int(held.getsockname()[1])

    def _with_directories(self, settings: Settings) -> Settings:
        instance = settings.instance
        data = self._arguments.data_dir or instance.data_dir or default_data_directory(self._env, Path.home(), instance.name)
        base = self._arguments.runtime_dir or instance.runtime_dir or default_runtime_base(self._env, os.getuid())
        folder = runtime_folder(Path(base).absolute(), instance.name, boot_id()[0])
        placed = msgspec.structs.replace(instance, data_dir=str(Path(data).absolute()), runtime_dir=str(folder))
        return msgspec.structs.replace(settings, instance=placed)


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and socket address of a host. Raises ConfigError for one that this machine does not have."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError([f"host {host}: {error.strerror}"]) from error
    return family, (str(address[0]), int(address[1]))


def check_ports(settings: Settings) -> None:
    """Raise ConfigError naming every port that a child could not bind: found now it is one clear line, later a crash loop."""
    wanted = {"api": (settings.api.host, settings.api.port)}
    if settings.simulator.enabled:
        wanted["simulator"] = (settings.simulator.host, settings.simulator.port)
    violations = [text for section, (host, port) in wanted.items() if (text := _unusable(section, host, port))]
    if violations:
        raise ConfigError(violations)


def _unusable(section: str, host: str, port: int) -> str | None:
    try:
        family, address = resolve(host, port)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except ConfigError as error:
        return f"{section}.{error.violations[0]}"
    except OSError as error:
        return f"{section}.port: {host} port {port} cannot be used: {error.strerror}"
    return None


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child: a few harmless names, where our packages are, one thread per process.

    Without the limits numpy starts a thread per core in every process, for matrix work that none of them does.
    """
    root = str(Path(mpengine.config.__file__).parents[1])
    return {name: env[name] for name in PASSED_ON if name in env} | ONE_THREAD | {"PYTHONPATH": root}


def ready_url(settings: Settings) -> str:
    """Where a browser on this machine finds the API."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api.host, settings.api.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api.port}/"
