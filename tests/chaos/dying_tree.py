"""The supervisor, whose children die where they are told to (`dying/sitecustomize.py`): `python dying_tree.py <its arguments>`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from shm.process_shell import run_main
from supervisor import __main__ as program
from supervisor import boot

DYING = str(Path(__file__).with_name("dying"))


def child_environment(
    env: Mapping[str, str], made: Callable[[Mapping[str, str]], dict[str, str]] = boot.child_environment
) -> dict[str, str]:
    """As it is, and the order."""
    found = made(env)
    return found | {"PYTHONPATH": os.pathsep.join((DYING, found["PYTHONPATH"])), "DIE_ORDER": env["DIE_ORDER"]}


if __name__ == "__main__":
    boot.child_environment = child_environment
    run_main(lambda: program.main(sys.argv[1:]))
