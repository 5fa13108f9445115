"""Facts about the tree whose breaking breaks the design: import direction, pure cores, silent imports, one path module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "shm": (),
    "mpengine": ("shm",),
    "api": ("shm", "mpengine.schemas", "mpengine.config"),
    "supervisor": ("shm", "mpengine.config"),
}
OURS = (*ALLOWED, "bench", "tests")
IMPURE = {
    "asyncio", "socket", "threading", "multiprocessing", "subprocess", "signal", "time", "random", "os", "websockets", "falcon",
    "aiohttp", "secrets", "uvloop",
}  # fmt: skip
PURE = (
    "mpengine/venues/*.py", "mpengine/engine/*.py", "mpengine/config.py", "mpengine/schemas.py", "mpengine/clock_grid.py",
    "mpengine/ingest/backoff.py", "mpengine/ingest/routing.py", "mpengine/ingest/watchdog.py", "mpengine/ingest/merge.py",
    "mpengine/simulator/market.py", "shm/layout.py", "shm/records.py", "shm/frames.py", "shm/grid.py", "shm/paths.py",
    "shm/board_words.py", "supervisor/plan.py", "supervisor/policy.py",
)  # fmt: skip
SHELLS = {ROOT / "mpengine/engine/process.py", ROOT / "mpengine/engine/storage.py"}


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_one_way() -> None:
    for package, others in ALLOWED.items():
        for path in sources(package):
            ours = [name for name in imported(path) if name.split(".")[0] in OURS]
            bad = [name for name in ours if not f"{name}.".startswith(tuple(f"{other}." for other in (package, *others)))]
            assert not bad, f"{path} imports {bad}"


def test_cores_touch_no_clock_socket_or_process() -> None:
    pure = {path for glob in PURE for path in ROOT.glob(glob)} - SHELLS
    assert len(pure) > 25
    for path in pure:
        bad = {name.split(".")[0] for name in imported(path)} & IMPURE
        assert not bad, f"{path} imports {bad}"


def test_imports_are_absolute() -> None:
    for path in sources(*ALLOWED, "bench"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"


@pytest.mark.covers("A1-H2")
def test_no_price_is_stepped_by_addition() -> None:
    for path in sources(*ALLOWED):
        if path.parent.name == "simulator":
            continue  # its steps are whole ticks
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
                assert "step" not in ast.unparse(node.value).split("."), f"{path}:{node.lineno} adds a step"


@pytest.mark.covers("A1-L18", "A1-L23")
def test_nothing_prints_outside_the_command_line() -> None:
    for path in sources(*ALLOWED):
        if path.name == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert any(ast.unparse(word) == "file=sys.stderr" for word in node.keywords), f"{path}:{node.lineno} prints"


@pytest.mark.covers("E-L5")
def test_text_files_name_their_encoding() -> None:
    for path in sources(*ALLOWED):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("read_text", "write_text")
            ):
                named = any(word.arg == "encoding" for word in node.keywords)
                positional = len(node.args) == (1 if node.func.attr == "read_text" else 2)
                assert named or positional, f"{path}:{node.lineno} without an encoding"


@pytest.mark.covers("A1-L6", "S-L6")
def test_importing_opens_nothing_and_starts_nothing() -> None:
    code = (
        "import sys, threading, os\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        "import shm, mpengine, mpengine.cli, mpengine.engine.core, mpengine.engine.process, mpengine.venues, api, supervisor\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert set(os.listdir('/proc/self/fd')) <= before, 'a descriptor stayed open'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.covers("A1-L22")
def test_nothing_installs_packages_at_run_time() -> None:
    for path in sources(*ALLOWED):
        names = {name.split(".")[0] for name in imported(path)}
        assert "pip" not in names, path
        if "subprocess" in names:
            assert path.parts[-2] == "supervisor", f"{path} starts processes: only the supervisor does"


@pytest.mark.covers("X-M1", "A1-M26")
def test_no_path_of_a_machine_in_the_source() -> None:
    for path in sources(*ALLOWED):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text and "/root/" not in text, path
