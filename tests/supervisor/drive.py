"""The supervisor with dummies in the place of every child: `drive.py ARGUMENTS...`, else as `python -m supervisor`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mpengine.config import Settings
from shm.process_shell import run_main
from supervisor import plan
from supervisor.__main__ import main

DUMMY = Path(__file__).with_name("dummy.py")


def build(settings: Settings) -> plan.Plan:
    """The real plan, other programs. The file `explode` in the data directory stands for a bug."""
    if (settings.paths.data / "explode").exists():
        raise RuntimeError("a bug")
    real = plan.build(settings)
    path = str(settings.paths.settings)

    def dummy(spec: plan.ProcessSpec) -> plan.ProcessSpec:
        return replace(spec, arguments=("-P", str(DUMMY), "--settings", path, "--row", str(spec.row), "--name", spec.name))

    return replace(real, processes=tuple(dummy(spec) for spec in real.processes))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:], build=build))
