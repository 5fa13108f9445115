"""Facts about the tree whose breaking breaks the design: import direction, pure cores, silent imports, one path module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "shm": (),
    "mpengine": ("shm",),
    "api": (
        "shm", "mpengine.schemas", "mpengine.config", "mpengine.heatmap", "mpengine.keys", "mpengine.pictures", "mpengine.cells",
        "mpengine.wire_formats", "mpengine.mphm", "mpengine.contract",
    ),
    "supervisor": ("shm", "mpengine.config"),
}  # fmt: skip
OURS = (*ALLOWED, "bench", "tests")
IMPURE = {
    "asyncio", "socket", "threading", "multiprocessing", "subprocess", "signal", "time", "random", "os", "websockets", "falcon",
    "aiohttp", "secrets", "uvloop",
}  # fmt: skip
PURE = (
    "mpengine/venues/*.py", "mpengine/engine/*.py", "mpengine/config.py", "mpengine/schemas.py", "mpengine/clock_grid.py",
    "mpengine/heatmap.py", "mpengine/pictures.py", "mpengine/brackets.py", "mpengine/contract/*.py",
    "mpengine/cells.py", "mpengine/wire_formats.py", "mpengine/mphm.py",
    "mpengine/palettes.py", "mpengine/plot/layout.py", "mpengine/plot/scene.py", "mpengine/plot/ticks.py",
    *(f"mpengine/top/{name}.py" for name in (
        "model", "badge", "heat", "strip", "text", "view", "layout", "figures", "schema", "remote_state", "palette",
    )),
    "api/heatmap_grid.py", "api/heatmap_params.py", "api/provenance.py",
    *(f"mpengine/client/{name}.py" for name in (
        "protocol", "heal", "zones", "columns", "updates", "sse", "requests", "answers", "options", "errors",
    )),
    "mpengine/ingest/backoff.py", "mpengine/ingest/routing.py", "mpengine/ingest/watchdog.py", "mpengine/ingest/merge.py",
    "mpengine/simulator/market.py", "shm/layout.py", "shm/records.py", "shm/frames.py", "shm/grid.py", "shm/paths.py",
    "shm/board_words.py", "supervisor/plan.py", "supervisor/policy.py",
)  # fmt: skip
SHELLS = {ROOT / f"mpengine/engine/{name}.py" for name in ("process", "storage", "log_files")}


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def parsed(path: Path) -> ast.Module:
    """A source, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def covered_ids() -> dict[str, str]:
    """Ids that the markers of the test tree carry -> a file that carries them."""
    found: dict[str, str] = {}
    for path in sources("tests"):
        for node in ast.walk(parsed(path)) if "mark.covers" in path.read_text(encoding="utf-8") else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "covers":
                found |= {ast.literal_eval(argument): path.name for argument in node.args}
    return found


def test_every_required_id_has_a_test() -> None:
    """`tests/required_ids.txt`: `now` needs a test that carries the id; what has one may not be called `later`."""
    required: dict[str, str] = {}
    for line in (ROOT / "tests/required_ids.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, stage = line.split(maxsplit=1)
            required[name] = stage
    covered = covered_ids()
    assert not (unknown := covered.keys() - required.keys()), f"not in the list: {unknown}"
    assert not (bare := {name for name, stage in required.items() if stage == "now"} - covered.keys()), f"no test carries {bare}"
    late = {name for name, stage in required.items() if stage.startswith("later")} & covered.keys()
    assert not late, f"have a test now: {late}"
    assert {stage.split(":")[0] for stage in required.values()} == {"now", "later", "ci", "n/a"}


def test_imports_point_one_way() -> None:
    for package, others in ALLOWED.items():
        for path in sources(package):
            ours = [name for name in imported(path) if name.split(".")[0] in OURS]
            bad = [name for name in ours if not f"{name}.".startswith(tuple(f"{other}." for other in (package, *others)))]
            assert not bad, f"{path} imports {bad}"


def test_the_client_knows_the_contract_and_nothing_of_the_server() -> None:
    known = ("mpengine.client", "mpengine.contract", "mpengine.mphm", "mpengine.wire_formats", "mpengine.cells", "shm.grid")
    for path in sources("mpengine/client"):
        ours = {name for name in imported(path) if name.split(".")[0] in OURS} - {"mpengine.__version__"}
        assert not (bad := [name for name in ours if not f"{name}.".startswith(tuple(f"{one}." for one in known))]), (
            f"{path}: {bad}"
        )


def test_cores_touch_no_clock_socket_or_process() -> None:
    pure = {path for glob in PURE for path in ROOT.glob(glob)} - SHELLS
    assert len(pure) > 25
    for path in pure:
        bad = {name.split(".")[0] for name in imported(path)} & IMPURE
        assert not bad, f"{path} imports {bad}"


def test_imports_are_absolute() -> None:
    for path in sources(*ALLOWED, "bench"):
        for node in ast.walk(parsed(path)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"


@pytest.mark.covers("A1-H2")
def test_no_price_is_stepped_by_addition() -> None:
    for path in sources(*ALLOWED):
        if path.parent.name == "simulator":
            continue  # its steps are whole ticks
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
                assert "step" not in ast.unparse(node.value).split("."), f"{path}:{node.lineno} adds a step"


@pytest.mark.covers("A1-L18", "A1-L23")
def test_nothing_prints_outside_the_command_line() -> None:
    for path in sources(*ALLOWED):
        if path.name == "cli.py":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert any(ast.unparse(word) == "file=sys.stderr" for word in node.keywords), f"{path}:{node.lineno} prints"


@pytest.mark.covers("E-L5")
def test_text_files_name_their_encoding() -> None:
    for path in sources(*ALLOWED):
        for node in ast.walk(parsed(path)):
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
        "import shm, mpengine, mpengine.cli, mpengine.engine.core, mpengine.engine.process, mpengine.venues, mpengine.client\n"
        "import api, supervisor\n"
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


@pytest.mark.covers("X-M1", "X-L7", "X-L8", "A1-M26")
def test_no_path_of_a_machine_in_the_source() -> None:
    for path in sources(*ALLOWED):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text and "/root/" not in text, path


@pytest.mark.covers("S-M7")
def test_ids_that_cross_processes_come_from_the_system() -> None:
    for path in sources(*ALLOWED):
        names = {name.split(".")[0] for name in imported(path)}
        text = path.read_text(encoding="utf-8")
        assert "uuid1(" not in text and "uuid4(" not in text, path
        if "random" in names:
            # Jitter of reconnects, restarts and retry hints, which hits are timed; nothing of it names or numbers anything.
            jitter = {"process.py", "keeper.py", "protocol.py", "__main__.py", "sync.py", "aio.py", "push.py", "hub.py"}
            assert path.name in jitter | {"metrics.py"}, f"{path} imports random"


@pytest.mark.covers("R-H5", "R-H6", "R-M11")
def test_only_the_ends_of_processes_exit() -> None:
    ends = {"cli.py", "process_shell.py", "launch.py", "__main__.py", "pool.py", "worker.py"}
    for path in sources(*ALLOWED):
        if path.name not in ends:
            text = path.read_text(encoding="utf-8")
            assert "sys.exit" not in text and "os._exit" not in text and "SystemExit" not in text, f"{path} exits"


@pytest.mark.covers("S-L5", "E-H5")
def test_one_logging_setup_and_no_shadowed_logger() -> None:
    for path in sources(*ALLOWED):
        text = path.read_text(encoding="utf-8")
        assert "basicConfig" not in text, path
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("log", "logger"):
                assert node in tree.body, f"{path}:{node.lineno} shadows the module's logger"


@pytest.mark.covers("E-L8", "T-M4")
def test_no_file_has_grown_into_a_facade() -> None:
    for path in sources(*ALLOWED):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 700, f"{path} has {lines} lines: look for the second idea in it"


@pytest.mark.covers("X-M4", "X-M5", "X-L6")
def test_the_workflow_reads_only_audits_dependencies_and_runs_on_the_default_branch() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "permissions:\n  contents: read\n" in text and "write" not in text
    assert "pip_audit -r requirements-dev.txt" in text
    assert "branches: [main]" in text and "pull_request:" in text
    assert "package-ecosystem: pip" in (ROOT / ".github/dependabot.yml").read_text(encoding="utf-8")
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert not line or line.startswith(("#", "-r ")) or "==" in line, f"{name}: {line} is not pinned"
