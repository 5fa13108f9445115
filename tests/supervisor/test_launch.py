"""The trampoline: the child dies with whoever started it, and becomes the program with the same pid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import supervisor.launch
from tests.supervisor.rig import gone, until

LAUNCHER = supervisor.launch.__file__
STATUS = "import os; print(os.getpid(), open('/proc/self/oom_score_adj').read().strip(), flush=True)"


def launch(parent: int, *program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", LAUNCHER, str(parent), *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_program_runs_with_the_same_pid_as_a_better_victim() -> None:
    command = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), sys.executable, "-c", STATUS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=30)
        assert output.split() == [str(process.pid), "200"]
        assert process.returncode == 0


@pytest.mark.covers("P8")
def test_started_by_somebody_who_is_gone_it_does_not_become_the_program() -> None:
    ended = launch(os.getppid(), sys.executable, "-c", "print('ran')")
    assert ended.returncode == 3
    assert ended.stdout == ""


@pytest.mark.covers("T-L7")
def test_missing_program_is_a_boot_failure_in_words() -> None:
    ended = launch(os.getpid(), "/no/such/program")
    assert ended.returncode == 3
    assert ended.stderr == "cannot execute /no/such/program: No such file or directory\n"


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), sys.executable, "-c",
                          "print('up', flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.covers("P8")
def test_child_dies_with_its_killed_parent() -> None:
    command = [sys.executable, "-c", PARENT, LAUNCHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait(30)
    until("the end of the child", lambda: gone(child))


def test_it_stands_alone() -> None:
    """With -I -S there are no packages: it may import nothing but the standard library."""
    lines = Path(LAUNCHER).read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith(("import ", "from "))] == ["import ctypes", "import os", "import sys"]
