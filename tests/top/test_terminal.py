"""`mpengine top` in a real pseudo-terminal: starts, takes keys, follows the size, quits, and leaves the terminal as it was."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.directories import runtime_folder
from shm.liveness import boot_id
from tests.api.world import World, depth_frame, map_frame
from tests.top.terminal import Terminal

pytestmark = pytest.mark.slow


class Instance:
    """A small world with a board, kept alive by `beat`."""

    ROWS = (RowName("supervisor", Role.SUPERVISOR, 0), RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0))

    def __init__(self, folder: Path) -> None:
        runtime = runtime_folder(folder / "run", "default", boot_id()[0])
        for one in (folder / "data", runtime):
            one.mkdir(parents=True)
        text = "[symbols.BTC]\n[symbols.ETH]\n"
        (folder / "x.toml").write_text(text)
        self.world = World(resolve_directories(load(text, {}), data=folder / "data", runtime=runtime))
        self.options = ["--config", str(folder / "x.toml"), "--set", f"instance.data_dir={folder / 'data'}",
                        "--set", f"instance.runtime_dir={folder / 'run'}", "--hz", "10"]  # fmt: skip
        self.world.clock.now_ms = time.time_ns() // 1_000_000
        self.board = Board.create(self.world.settings.paths.board, list(self.ROWS), {})
        self.board.row(0).start(Role.SUPERVISOR, 0, 1)
        self.rows = [BoardRow.attach(self.world.settings.paths.board, at) for at in (1, 2)]
        for at, row in enumerate(self.rows, 1):
            row.start(self.ROWS[at].role, 0, 1)
            self.board.supervisor_view(at).set(Word.ACTUAL, State.LIVE)
        for symbol, price, step in (("BTC", 65_892.7, 20.0), ("ETH", 2513.25, 1.0)):
            for age in (3, 2, 1):
                at_ms = self.world.clock.now_ms - age * 60_000
                self.world.add_map(map_frame(at_ms + 30_000, src=price, step=step), symbol)
                self.world.add_depth(depth_frame(at_ms + 30_000, src=price, step=step), symbol)
        self.beat()

    def beat(self) -> None:
        """What everybody says once a second."""
        now_ms = self.world.clock.now_ms = time.time_ns() // 1_000_000
        for symbol, price in (("BTC", 65_892.7), ("ETH", 2513.25)):
            self.world.add_status(symbol, mark=price, written_ns=now_ms * 1_000_000)
            self.world.documents(symbol).beat()
        self.world.add_feeds()
        for row in (self.board.row(0), *self.rows):
            row.beat()

    def close(self) -> None:
        for row in self.rows:
            row.close()
        self.board.close()
        self.world.close()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    found = Instance(tmp_path)
    yield found
    found.close()


def test_it_starts_takes_keys_follows_the_size_and_quits(instance: Instance) -> None:
    terminal = Terminal(instance.options, (80, 24))
    try:
        first = terminal.until(lambda text: "● LIVE" in text and "▀" in text, "the first screen")
        assert "binance" in first and "65,892.7" in first and "no scorecard on this server" in first
        assert b"\x1b[48;2;" not in terminal.raw and b"\x1b[38;2;" not in terminal.raw and b";38;2;" not in terminal.raw, (
            "no truecolour"
        )
        terminal.press(b"2")
        terminal.until(lambda text: "2,513.25▸" in text, "the other symbol")
        terminal.press(b"f")
        terminal.until(lambda text: "stream" in text, "feeds")
        terminal.press(b"f?")
        terminal.until(lambda text: "lower bound" in text, "help")
        terminal.press(b"?p")
        terminal.until(lambda text: "‖ PAUSED" in text, "pause")
        terminal.press(b"p")
        instance.beat()
        terminal.resize((120, 40))
        terminal.until(lambda text: "book bid/ask" in text and "supervisor" in text, "more room")
        assert max(y for y, _ in terminal.cells) == 39 and max(x for _, x in terminal.cells) <= 120
        instance.board.row(0).set(Word.PID, 1 << 22)
        terminal.until(lambda text: "▲ STALE" in text and "the supervisor is gone" in text, "the supervisor killed under it")
        instance.board.row(0).set(Word.PID, os.getpid())
        instance.beat()
        terminal.until(lambda text: "● LIVE" in text, "it is back")
        terminal.press(b"q")
        assert terminal.ended() == 0 and terminal.restored()
    finally:
        terminal.close()


def test_without_colour_with_few_colours_and_when_it_is_told_to_end(instance: Instance) -> None:
    terminals = [
        Terminal(instance.options, (80, 24), NO_COLOR="1"), Terminal(instance.options, (80, 24), TERM="xterm"),
    ]  # fmt: skip
    try:
        plain, sixteen = terminals
        plain.until(lambda text: ("LIVE" in text and "░" in text) or "▒" in text, "shades")
        assert not re.search(rb"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|9[0-7]|38;5;\d+|48;5;\d+)[;m]", plain.raw), "a colour was sent"
        sixteen.until(lambda text: "● LIVE" in text and "▀" in text, "16 colours")
        assert b"38;5;" not in sixteen.raw and b"48;5;" not in sixteen.raw and b"38;2;" not in sixteen.raw
        assert re.search(rb"\x1b\[[0-9;]*\b3[1-6][;m]", sixteen.raw), "its own colours are used"
        plain.press(b"\x03")
        sixteen.process.send_signal(signal.SIGTERM)
        assert [one.ended() for one in terminals] == [0, 0]
        assert all(one.restored() for one in terminals)
    finally:
        for one in terminals:
            one.close()
