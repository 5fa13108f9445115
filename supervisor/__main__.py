"""`python -m supervisor --config FILE`: what `mpengine start` and `mpengine demo` execute.

Exit codes: supervisor/exitcodes.py. stdout gets one line, `ready http://HOST:PORT/`; everything else goes to stderr.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from random import Random

from mpengine.config import Settings
from shm import process_log
from shm.errors import Locked
from shm.process_shell import BootFailure, run_main
from supervisor import boot, history, plan
from supervisor.exitcodes import ExitCode
from supervisor.process import Supervisor
from supervisor.runtime import InstanceLock, prepare_data_directory, prepare_runtime_directory, remove_base
from supervisor.sd_notify import Notifier

log = logging.getLogger("supervisor")


def main(argv: Sequence[str], *, build: plan.Builder = plan.build, env: Mapping[str, str] = os.environ) -> int:
    """Run the supervisor; returns its exit code. `build` lets tests put other programs in the place of ours.

    Raises what `run_main` turns into exit codes: ConfigError, ShmError, BootFailure.
    """
    arguments = boot.parse(argv)
    process_log.configure("supervisor")
    faulthandler.enable(2)
    source = boot.SettingsSource(arguments, env)
    notifier = Notifier(env)
    try:
        settings = source.read()
        logging.getLogger().setLevel(settings.log.level)
        return _locked(settings, source, build, notifier, env, arguments.history)
    finally:
        notifier.close()
        source.close()


def _locked(
    settings: Settings, source: boot.SettingsSource, build: plan.Builder, notifier: Notifier, env: Mapping[str, str], hours: float
) -> ExitCode:
    lock = _take_lock(settings)  # before the ports: a second start shall hear of the first, not of its port
    try:
        boot.check_ports(settings)
        if hours and not _build_history(settings, hours, env):
            return ExitCode.STOPPED
        folder = settings.paths.runtime
        made = prepare_runtime_directory(folder, settings.instance.name)
        supervisor = Supervisor(
            build(settings),
            environment=boot.child_environment(env),
            reread=lambda: build(source.read()),
            notifier=notifier,
            announce=lambda: _say_ready(settings),
            rng=Random(),
        )
        code = supervisor.run()
        supervisor.close()
        if made:
            remove_base(folder.parent)
        return code
    finally:
        lock.close()


def _take_lock(settings: Settings) -> InstanceLock:
    data = settings.paths.data
    try:
        prepare_data_directory(data)
        return InstanceLock(settings.paths.instance_lock)
    except Locked as error:
        holder = "another supervisor" if error.holder_pid is None else f"another supervisor, process {error.holder_pid},"
        raise BootFailure(f"{holder} uses the data directory {data}") from error
    except OSError as error:
        raise BootFailure(f"the data directory {data} cannot be used: {error.strerror}") from error


def _build_history(settings: Settings, hours: float, env: Mapping[str, str]) -> bool:
    """False where a stop signal ended it."""
    try:
        history.build(settings, hours, boot.child_environment(env), lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    except history.Interrupted:
        return False
    except OSError as error:
        raise BootFailure(f"the history could not be built: {error}") from error
    return True


def _say_ready(settings: Settings) -> None:
    try:
        sys.stdout.write(f"ready {boot.ready_url(settings)}\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning("nobody reads the ready line: %s", error.strerror)


if __name__ == "__main__":
    # `python -m supervisor` puts the current directory first on the path; children get theirs by PYTHONPATH.
    run_main(lambda: main(sys.argv[1:]))
