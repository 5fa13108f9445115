"""Section 15 of the specification as a scan of the sources: what must not appear in `shm`, and what only one module may do."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shm
from shm import frame_ring, slots
from shm.board import BoardReader
from shm.document import DocumentReader
from shm.event_ring import EventReader
from shm.frame_ring import FrameReader
from shm.record_ring import RecordReader

PACKAGE = Path(shm.__file__).parent
RINGS = ["attach", "board", "counters", "digest", "disks", "document", "doorbell", "errors", "event_ring", "files", "frame_ring",
         "layout", "liveness", "record_ring", "slots", "syncer", "words"]  # fmt: skip
SOURCES = {name: (PACKAGE / f"{name}.py").read_text("utf-8") for name in RINGS}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def calls(tree: ast.AST) -> Iterator[str]:
    """Last name of everything that is called or referred to as an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FORBIDDEN_NAMES = {
    "pack_into": "clears its target first",
    "ftruncate": "leaves holes, or takes bytes from under a reader",
    "truncate": "takes bytes from under a reader",
    "resize": "in-place change of size",
    "flush": "mmap.flush() holds the GIL",
    "lockf": "POSIX record locks go with any close",
    "fork": "inherits the lock",
    "Lock": "no fence, and no locks on the data path",
    "RLock": "no fence, and no locks on the data path",
    "Semaphore": "no locks on the data path",
    "Condition": "no locks on the data path",
}


@pytest.mark.parametrize("name", RINGS)
def test_forbidden_names_do_not_appear(name: str) -> None:
    found = {call: FORBIDDEN_NAMES[call] for call in calls(TREES[name]) if call in FORBIDDEN_NAMES}
    assert not found


@pytest.mark.parametrize("name", RINGS)
def test_forbidden_modules_are_not_imported(name: str) -> None:
    for module in imports(TREES[name]):
        assert module.split(".")[0] not in {"multiprocessing", "pickle", "marshal", "shelve", "subprocess", "queue", "random"}
        assert module.split(".")[0] != "threading" or name == "syncer", "threads only where the disk is waited for"
        assert module.split(".")[0] not in {"mpengine", "api", "supervisor"}


def test_only_words_touches_a_buffer() -> None:
    for name, tree in TREES.items():
        if name != "words":
            assert "memoryview" not in {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and name not in ("slots", "event_ring")
            }
            assert "cast" not in set(calls(tree)), name
            assert "frombuffer" not in set(calls(tree)), name
    for name in ("slots", "event_ring"):
        views = re.findall(r"memoryview\((\w+)\)", SOURCES[name])
        assert views == ["copy"], "a view of a private copy is fine, of anything else it is not"


def test_only_files_maps_locks_and_names_files() -> None:
    for name, tree in TREES.items():
        used = set(calls(tree))
        assert "mmap" not in used or name in ("files", "words"), name
        assert "flock" not in used or name == "files", name
        assert not used & {"rename", "posix_fallocate", "fsync"} or name == "files", name


def test_only_layout_knows_offsets() -> None:
    """No bare number of a header offset outside layout: every access goes by a name."""
    for name in ("attach", "document", "event_ring", "frame_ring", "record_ring", "board"):
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if node.func.attr in ("load_acquire", "store_release", "copy_out", "copy_in", "copy_block"):
                    assert not isinstance(first, ast.Constant), f"{name}: {ast.unparse(node)}"


def test_nothing_spins() -> None:
    """Every `while` either consumes something per turn or opens a file again; none waits for another process's word."""
    loops = {
        (name, ast.unparse(node.test)) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.While)
    }
    assert loops == {
        ("event_ring", "(batch := read_batch(self._words, self._capacity, self.position))"),
        ("event_ring", "(batch := read_batch(self._words, self._capacity, position))"),
        ("files", "True"),
        ("syncer", "not stopping"),
    }


def test_history_has_no_loop_before_the_copy() -> None:
    """One block copy; the only Python loops over slots are over digests and over finished, private rows."""
    for function in (frame_ring.FrameReader.bulk, slots.SlotArray.copy_range):
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
        assert not [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While, ast.comprehension))]


@pytest.mark.parametrize("reader", [FrameReader, RecordReader, DocumentReader, EventReader, BoardReader])
def test_no_public_answer_can_be_a_view_of_shared_memory(reader: type[Any]) -> None:
    for name, member in inspect.getmembers(reader, inspect.isfunction):
        if not name.startswith("_"):
            assert not re.search("memoryview|mmap|Words", str(inspect.signature(member).return_annotation)), name


@pytest.mark.covers("S-L6")
def test_importing_opens_nothing() -> None:
    """Module level of every file: imports, constants, functions and classes; no call that opens, maps or starts."""
    opening = {"open", "mmap", "Popen", "Thread", "socket", "eventfd", "epoll", "CDLL", "read_text", "read_bytes"}
    for name, tree in TREES.items():
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
                called = {c for sub in ast.walk(node) if isinstance(sub, ast.Call) for c in calls(sub.func)}
                assert not called & opening, f"{name}: {ast.unparse(node)}"
