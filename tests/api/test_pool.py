"""Slots, listening sockets and the worker's row, without a gunicorn."""

from __future__ import annotations

import errno
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from api.pool import PoolLogger, bind_address, board_row, choose_slot, connections_per_worker, listeners, worker_name
from api.worker import Presence
from mpengine.config import ApiSettings
from shm.board import Board, RowName
from shm.board_words import Role, State, Word
from shm.liveness import start_ticks
from tests.api.world import World


@pytest.mark.parametrize(
    ("taken", "slots", "wanted"),
    [
        ([], 1, 0),
        ([], 3, 0),
        ([0], 3, 1),
        ([0, 1, 2], 3, 0),  # a reload: every slot once more, in order
        ([0, 1, 2, 0], 3, 1),
        ([0, 2], 3, 1),  # the worker of slot 1 was killed
        ([1, 2, 1], 3, 0),
        ([5], 2, 0),
    ],
)
def test_a_new_worker_takes_the_emptiest_slot(taken: list[int], slots: int, wanted: int) -> None:
    assert choose_slot(taken, slots) == wanted


@pytest.mark.parametrize(
    ("connections", "workers", "wanted"), [(4096, 2, 2048), (10, 3, 4), (4096, 1, 4096), (100_000, 32, 3125)]
)  # fmt: skip
def test_connections_are_shared_out(connections: int, workers: int, wanted: int) -> None:
    assert connections_per_worker(ApiSettings(max_connections=connections, workers=workers)) == wanted


@pytest.mark.parametrize(("host", "wanted"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("localhost", "localhost:80")])
def test_spelling_of_addresses(host: str, wanted: str) -> None:
    assert bind_address(host, 80) == wanted


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, port: int = 0, slots: int = 3, host: str = "127.0.0.1") -> list[socket.socket]:
    found = listeners(host, port, slots, 128)
    for one in found:
        stack.enter_context(one)
    return found


def test_one_socket_per_slot_on_one_port(opened: ExitStack) -> None:
    found = listen(opened)
    assert len({one.getsockname() for one in found}) == 1 and len({one.fileno() for one in found}) == 3
    assert all(not one.get_inheritable() and not one.getblocking() for one in found)


def test_connections_that_wait_are_spread_and_survive_their_acceptor(opened: ExitStack) -> None:
    found = listen(opened)
    clients = [opened.enter_context(socket.create_connection(found[0].getsockname(), timeout=5)) for _ in range(60)]
    accepted = []
    for one in found:
        copy = opened.enter_context(one.dup())  # what a worker holds; the queue belongs to the socket, not to it
        copy.close()
        count = 0
        while True:
            try:
                connection, _ = one.accept()
            except BlockingIOError:
                break
            opened.enter_context(connection)
            connection.sendall(b"x")
            count += 1
        accepted.append(count)
    assert sum(accepted) == 60 and all(accepted)
    assert all(client.recv(1) == b"x" for client in clients)


@pytest.mark.parametrize("share", [False, True])
def test_a_taken_port_is_refused_even_where_it_could_be_shared(opened: ExitStack, share: bool) -> None:
    other = opened.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=share))
    with pytest.raises(OSError) as error:
        listen(opened, other.getsockname()[1])
    assert error.value.errno == errno.EADDRINUSE


def test_ipv6(opened: ExitStack) -> None:
    try:
        found = listen(opened, host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    opened.enter_context(socket.create_connection(found[0].getsockname()[:2], timeout=5))


def test_gunicorns_lines_go_to_the_process_log() -> None:
    class Configuration:
        loglevel = "warning"

    logger = PoolLogger.__new__(PoolLogger)
    logger.error_log, logger.access_log = logging.getLogger("test.error"), logging.getLogger("test.access")
    logger.error_log.addHandler(logging.NullHandler())
    logger.setup(Configuration())
    assert logger.error_log.handlers == [] and logger.error_log.propagate and logger.error_log.level == logging.WARNING


def test_board_row_by_name(world: World) -> None:
    path = world.settings.paths.board
    assert board_row("api-0", path) is None
    with Board.create(path, [RowName("supervisor", Role.SUPERVISOR, 0), RowName("api-0", Role.API_WORKER, 0)], {}):
        assert (board_row("api-0", path), board_row("api-7", path)) == (1, None)


# --- the worker's row -----------------------------------------------------------------------------------------------------


@pytest.fixture
def board(world: World) -> Iterator[Board]:
    names = [RowName("supervisor", Role.SUPERVISOR, 0), RowName(worker_name(0), Role.API_WORKER, 0)]
    with Board.create(world.settings.paths.board, names, {}) as made:
        yield made


def row(board: Board) -> Any:
    return board.supervisor_view(1)


def test_a_worker_beats_and_adds_its_counts(world: World, board: Board) -> None:
    presence = Presence(world.settings.paths.board, 0, [])
    presence.turn({Word.HTTP_REQUESTS: 5}, {Word.CACHE_ENTRIES: 9})
    presence.turn({Word.HTTP_REQUESTS: 7}, {Word.CACHE_ENTRIES: 3})
    seen = row(board)
    assert (seen.get(Word.STATE), seen.get(Word.EPOCH), seen.get(Word.TURNS)) == (State.LIVE, 1, 2)
    assert (seen.get(Word.ROLE), seen.get(Word.HTTP_REQUESTS), seen.get(Word.CACHE_ENTRIES)) == (5000, 7, 3)
    assert seen.get(Word.BEAT_NS) and seen.get(Word.RSS_BYTES) and seen.get(Word.OPEN_FDS)
    presence.close()
    assert seen.get(Word.STATE) == State.STOPPED
    presence.close()


def test_counters_go_on_with_the_next_worker_of_the_slot(world: World, board: Board) -> None:
    for epoch in (1, 2, 3):
        presence = Presence(world.settings.paths.board, 0, [])
        presence.turn({Word.HTTP_REQUESTS: 10}, {})
        assert (row(board).get(Word.EPOCH), row(board).get(Word.HTTP_REQUESTS)) == (epoch, 10 * epoch)
        presence.close()


def test_a_row_is_taken_over_only_when_the_worker_before_has_ended(world: World, board: Board) -> None:
    before = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        presence = Presence(world.settings.paths.board, 0, [(before.pid, start_ticks(before.pid))])
        presence.turn({Word.HTTP_REQUESTS: 3}, {})
        assert row(board).get(Word.PID) == 0
        before.kill()
        before.wait()
        presence.turn({Word.HTTP_REQUESTS: 4}, {})
        assert row(board).get(Word.PID) != 0 and row(board).get(Word.HTTP_REQUESTS) == 4  # nothing was lost meanwhile
        presence.close()
    finally:
        before.kill()
        before.communicate()


@pytest.mark.parametrize("slot", [0, 7])
def test_without_a_board_or_a_row_a_worker_works_all_the_same(world: World, slot: int) -> None:
    presence = Presence(world.settings.paths.board, slot, [(1, None)])
    presence.turn({Word.HTTP_REQUESTS: 3}, {})
    presence.close()


def test_a_board_that_cannot_be_read_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.settings.paths.board.write_bytes(b"rubbish")
    presence = Presence(world.settings.paths.board, 0, [])
    presence.turn({}, {})
    assert "cannot take row api-0" in caplog.text
    presence.close()
