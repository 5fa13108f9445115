"""Settings of the HTTP pool: what gunicorn reads. The hooks are in `api.pool`, the worker in `api.worker`.

The supervisor starts exactly this, as one child, board row `api-master`::

    python -m gunicorn -c python:api.gunicorn_conf 'api.app:get_app()'

with `MPENGINE_SETTINGS` = path of the settings written by `mpengine.config.encode`; nothing else is read from the environment.

Signals of the master: TERM stops in order (workers drain at most 5 s, SIGKILL after 10 s), INT and QUIT stop at once, HUP rolls
the workers without refusing a connection and lets them read the settings file again, USR1 dumps the stacks of all processes.
TTIN, TTOU, USR2 and WINCH do nothing: the number of processes is the supervisor's business. `api.host`, `api.port` and
`api.workers` are read once, at start; a change of these needs a new master.

Exit codes: 0 stopped, 3 boot failed (settings, port in use, a worker that cannot start), 4 the application cannot be loaded.

Board rows: `api-master` beats from an interval timer of the master's main thread; `api-0` .. `api-<workers-1>` beat once a second
from the loop of the worker that holds the slot. The master has the same life as its workers: they are killed by the kernel when
it ends, whatever ended it.
"""

from __future__ import annotations

from api import pool
from api.pool import on_exit, on_starting, post_fork, pre_fork, when_ready

__all__ = ["on_exit", "on_starting", "post_fork", "pre_fork", "when_ready"]

_api = pool.settings().api

bind = [pool.bind_address(_api.host, _api.port)]
workers = _api.workers
backlog = _api.backlog
worker_class = "api.worker.Worker"
worker_connections = pool.connections_per_worker(_api)
worker_tmp_dir = pool.settings().instance.runtime_dir  # tmpfs: touching the heartbeat file must never wait for a disk
logger_class = "api.pool.PoolLogger"
loglevel = pool.settings().log.level.lower()

# The master opens one SO_REUSEPORT socket per slot itself (`api.pool.on_starting`): with gunicorn's own reuse_port each worker
# opens its socket, and closing that at a reload resets whatever the kernel had queued on it.
reuse_port = False

preload_app = False
max_requests = 0
keepalive = 75
# timeout > timeout / 2 + timeout_graceful_shutdown (5, see api.worker): a worker sends no heartbeat while it drains.
timeout = 30
graceful_timeout = 10
control_socket_disable = True
proc_name = "mpengine-api"
