"""The full screen by Textual's pilot: sizes, keys, states, and that only what changed is drawn."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mpengine.top.app import TopApp
from mpengine.top.model import Facts, HeatColumn, Newest, Symbol
from mpengine.top.recording import Recorder, Recording, ReplaySource
from mpengine.top.widgets import Panel, ZoneTable, changed
from tests.top.samples import NOW_MS, PRICE, STATES, FakeSource, driven, facts, symbol, zone

SIZES = [(80, 24), (120, 40), (200, 60)]


@asynccontextmanager
async def running(size: tuple[int, int] = (80, 24), source: FakeSource | None = None, **options: Any) -> AsyncIterator[Any]:
    """(app, pilot, source) of a screen whose own timer does not fire: the test ticks."""
    source = source or FakeSource()
    options = {"hz": 0.001, "colours": 256} | options
    app = TopApp(source, **options)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: rows(app)[-1].startswith("1-9 symbol"))
        yield app, pilot, source
    assert source.closed


async def settle(pilot: Pilot[Any]) -> None:
    """Until nothing is waiting to be drawn."""
    for _ in range(6):
        await pilot.pause(0.002)


async def until(pilot: Pilot[Any], condition: Callable[[], Any]) -> None:
    """Until it holds; fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.01)


def rows(app: TopApp) -> list[str]:
    """The screen as it is, cell by cell."""
    strips = app.screen._compositor.render_strips(app.size)
    return ["".join(segment.text for segment in strip) for strip in strips]


def picture(app: TopApp) -> str:
    """The screen as SVG, without what is made up anew each time."""
    return re.sub(r"terminal-\d+", "terminal", app.export_screenshot())


@pytest.mark.parametrize("size", SIZES)
@driven
async def test_the_screen_at_its_sizes(size: tuple[int, int], same_screen: Callable[[str, str], None]) -> None:
    async with running(size) as (app, _, _):
        found = rows(app)
        assert len(found) == size[1] and {len(row) for row in found} == {size[0]}
        same_screen(f"live-{size[0]}x{size[1]}.txt", "\n".join(row.rstrip() for row in found) + "\n")


@pytest.mark.parametrize("state", [*STATES, "paused", "no-colour", "16-colours"])
@driven
async def test_each_state_looks_as_it_did(
    state: str, same_screen: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if state == "no-colour":
        monkeypatch.setenv("NO_COLOR", "1")
    source = FakeSource(facts(**STATES.get(state, {})))
    async with running(source=source, colours=16 if state == "16-colours" else 256) as (app, pilot, _):
        if state == "paused":
            await pilot.press("p")
            source.now = replace(source.now, symbols=(symbol("BTC", PRICE, map=Newest(seq=815, ts_ms=NOW_MS)),))
            app.tick()
            await settle(pilot)
        same_screen(f"{state}.svg", picture(app))


@driven
async def test_no_color_leaves_shades_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with running(source=FakeSource(facts(**STATES["stale"]))) as (app, _, _):
        strips = app.screen._compositor.render_strips(app.size)
        filtered = [segment for strip in strips for segment in strip.apply_filter(app._filters[-1], app.background_colors[1])]
        colours = {colour for one in filtered if one.style for colour in (one.style.color, one.style.bgcolor) if colour}
        assert not [colour for colour in colours if not colour.is_default]
        text = "\n".join(rows(app))
        assert "▲ STALE" in text and "░" in text and "█" in text and "▀" not in text


@driven
async def test_all_colours_are_of_the_terminals_own_palettes() -> None:
    for colours in (16, 256):
        async with running(colours=colours) as (app, _, _):
            for strip in app.screen._compositor.render_strips(app.size):
                for segment in strip:
                    for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                        assert colour is None or colour.number is None or colour.number < colours
                        assert colour is None or colour.triplet is None, f"truecolour {colour}"


@driven
async def test_keys_choose_symbol_view_layer_and_range() -> None:
    async with running() as (app, pilot, source):
        await pilot.press("2")
        assert source.asked[-1] == ("ETH", 3.0) and app.facts.shown == "ETH"
        await pilot.press("9")
        assert source.asked[-1][0] == "ETH", "there is no ninth"
        await pilot.press("1", "plus")
        assert source.asked[-1] == ("BTC", 2.0)
        await pilot.press("minus", "minus", "minus", "minus", "minus")
        assert source.asked[-1] == ("BTC", 8.0)
        for key, words in (
            ("f", ("stream", "binance@depth", "recon")), ("z", ("weight", "inference")), ("l", ("18:39:53", "lb")),
            ("t", ("supervisor", "api-master")), ("question_mark", ("lower bound", "quit")),
        ):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda words=words: all(word in "\n".join(rows(app)) for word in words))
        await pilot.press("escape", "m")
        await until(pilot, lambda: "book USD" in "\n".join(rows(app)))
        await pilot.press("z", "z")
        assert app.look.view == "main"


@driven
async def test_the_zone_list_scrolls_where_it_has_all_the_room() -> None:
    many = tuple(sorted((zone(side, PRICE + sign * 20 * n) for n in range(1, 39) for side, sign in (("short", 1), ("long", -1))),
                        key=lambda one: abs(one.price - PRICE)))  # fmt: skip
    async with running(source=FakeSource(facts(zones=many))) as (app, pilot, _):
        table = app.query_one(ZoneTable)
        await pilot.press("z")
        await until(pilot, lambda: table.row_count == 77 and "weight" in rows(app)[4])
        first = rows(app)[5]
        await pilot.press("pagedown")
        await until(pilot, lambda: table.scroll_offset.y > 0 and rows(app)[5] != first)


@driven
async def test_a_zone_cannot_move_the_cursor_either() -> None:
    evil = replace(zone("long", PRICE - 1), source="\x1b[2J\n")
    async with running((120, 40), source=FakeSource(facts(zones=(evil,)))) as (app, pilot, _):
        await pilot.press("z")
        await until(pilot, lambda: "[2J" in "\n".join(rows(app)))
        assert all(row.isprintable() for row in rows(app))


@driven
async def test_a_pause_keeps_the_picture_counts_frames_and_still_says_stale() -> None:
    async with running() as (app, pilot, source):
        await pilot.press("p")
        held = rows(app)[4:-2]
        later = replace(source.now, now_ms=NOW_MS + 1000, venues=source.now.venues[:4], liquidations=(),
                        symbols=(symbol("BTC", PRICE, map=Newest(seq=815, ts_ms=NOW_MS)), *source.now.symbols[1:]))  # fmt: skip
        source.now = replace(later, heard_ms=NOW_MS + 1000)
        app.tick()
        await settle(pilot)
        assert "‖ PAUSED +3" in rows(app)[0]
        assert [row[44:] for row in rows(app)[4:-2]] == [row[44:] for row in held], "strip and liquidations stay"
        assert "1.2 s" in rows(app)[5], "ages go on"
        source.now = replace(later, trouble="the supervisor is gone")
        app.tick()
        await settle(pilot)
        assert "‖ PAUSED ▲ STALE +3" in rows(app)[0] and "supervisor is gone" in rows(app)[1]
        await pilot.press("space")
        await settle(pilot)
        assert "PAUSED" not in rows(app)[0] and "none so far" in "\n".join(rows(app))


@driven
async def test_a_terminal_that_is_too_small_says_what_it_needs_and_recovers() -> None:
    async with running() as (app, pilot, _):
        await pilot.resize_terminal(50, 12)
        await until(pilot, lambda: "60 x 16" in rows(app)[0])
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "LIVE" in rows(app)[0] and "book bid/ask" in "\n".join(rows(app)))
        assert len(rows(app)) == 40


@driven
async def test_a_fault_of_a_source_is_stale_with_its_reason_and_ends_by_itself() -> None:
    async with running() as (app, pilot, source):
        source.fault = ValueError("odd bytes")
        app.tick()
        await settle(pilot)
        assert "▲ STALE" in rows(app)[0] and "ValueError: odd bytes" in rows(app)[1]
        assert "binance" in rows(app)[5], "the last picture stays"
        source.fault = None
        app.tick()
        await settle(pilot)
        assert "● LIVE" in rows(app)[0]


@driven
async def test_a_source_that_ends_is_told() -> None:
    class Ending(FakeSource):
        async def run(self) -> None:
            raise RuntimeError("boom")

    async with running(source=Ending()) as (app, pilot, _):
        app.tick()
        await settle(pilot)
        assert "the source ended by a fault" in rows(app)[-2]


@driven
async def test_q_ends_it() -> None:
    async with running() as (app, pilot, _):
        await pilot.press("q")
        await settle(pilot)
        assert app.return_code == 0 and not app.is_running


# --- what is drawn ------------------------------------------------------------------------------------------------------


def test_only_the_cells_that_differ_are_found() -> None:
    before = (("abc", "", ""), ("def", "ok", ""))
    assert changed(before, before) is None
    assert changed(before, (("ab", "", ""), ("c", "", ""), ("def", "ok", ""))) is None, "other spans, same cells"
    assert changed(before, (("abX", "", ""), ("dXf", "ok", ""))) == (2, 5)
    assert changed(before, (("abc", "", ""), ("def", "bad", ""))) == (3, 6)
    assert changed(before, (("abc", "", ""),)) == (3, 6)
    assert changed((), (("  ", "", ""),)) is None


@driven
async def test_a_tick_without_a_change_draws_nothing() -> None:
    async with running((120, 40)) as (app, pilot, _):
        before = app.redrawn
        for _ in range(20):
            app.tick()
        await settle(pilot)
        assert app.redrawn == before


@driven
async def test_one_second_draws_its_ages_and_no_more() -> None:
    async with running((200, 60)) as (app, pilot, source):
        app.tick()
        before = app.redrawn
        source.now = replace(source.now, now_ms=NOW_MS + 1000, heard_ms=NOW_MS + 1000)
        app.tick()
        await settle(pilot)
        drawn = app.redrawn - before
        # 4 venues with two ages (up to 4 columns apart), 8 beats, 12 liquidations, ages in the head, two legends.
        assert 20 < drawn < 400, drawn
        assert drawn < 200 * 60 / 30


@driven
async def test_a_price_draws_its_numbers_and_no_strip() -> None:
    async with running((120, 40)) as (app, pilot, source):
        app.tick()
        strips = [app.query_one(f"#{layer}", Panel) for layer in ("map", "book")]
        before = [panel.redrawn for panel in strips]
        source.now = replace(source.now, symbols=(symbol("BTC", PRICE + 1), *source.now.symbols[1:]))
        app.tick()
        await settle(pilot)
        # The price at its line, and the distances of some axis labels to it.
        assert all(panel.redrawn - was <= 40 for panel, was in zip(strips, before))


def burst(source: FakeSource, seed: int) -> Facts:
    """What a busy second changes: liquidations, lags, counters, prices, now and then a column."""
    rng, now = random.Random(seed), source.now
    venues = tuple(replace(one, lag_p99_ms=float(rng.randrange(100, 140)), last_ms=now.now_ms) for one in now.venues)
    symbols = tuple(moved(one, rng) for one in now.symbols)
    assert now.book is not None
    last = now.book.columns[-1]
    column = HeatColumn(t_ms=last.t_ms, low=bytes(rng.sample(range(256), 120)), high=last.high)
    book = replace(now.book, columns=(*now.book.columns[:-1], column)) if seed % 10 == 0 else now.book
    event = replace(now.liquidations[0], ts_ms=now.now_ms, usd=float(rng.randrange(1000, 9_000_000)))
    return replace(
        now, now_ms=now.now_ms + 10, venues=venues, symbols=symbols, book=book, liquidations=(event, *now.liquidations[:-1])
    )


def moved(one: Symbol, rng: random.Random) -> Symbol:
    assert one.price is not None
    return replace(one, price=round(one.price * (1 + rng.uniform(-1e-4, 1e-4)), 1))


@driven
async def test_a_replayed_burst_is_one_redraw_a_tick_of_what_differs() -> None:
    source, seed = FakeSource(), 0
    async with running((120, 40), source=source) as (app, pilot, _):
        app.tick()
        drawn = []
        for _ in range(8):
            for _ in range(40):  # 40 changes between two looks
                seed += 1
                source.now = burst(source, seed)
            before = app.redrawn
            app.tick()
            drawn.append(app.redrawn - before)
            await settle(pilot)
        looks = len(source.asked)
        assert looks <= 8 + 4, "a change that nobody looks at costs nothing"
        assert max(drawn) < 120 * 40 * 0.3 and sum(drawn) / 8 < 120 * 40 * 0.2, drawn


@driven
async def test_the_terminal_gets_only_the_regions_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only counted: what the compositor hands to the terminal has just those lines."""
    async with running((120, 40)) as (app, pilot, source):
        app.tick()
        await settle(pilot)
        sent: list[Any] = []
        whole = type(app.screen._compositor).render_partial_update

        def spy(compositor: Any) -> Any:
            update = whole(compositor)
            if update is not None:
                sent.append(update)
            return update

        monkeypatch.setattr(type(app.screen._compositor), "render_partial_update", spy)
        source.now = replace(source.now, messages_s=99_000.0)
        app.tick()
        await settle(pilot)
        changes = [update for update in sent if hasattr(update, "spans")]
        assert changes and {y for update in changes for y, _, _ in update.spans} == {1}
        assert sum(stop - start for update in changes for _, start, stop in update.spans) <= 8


# --- recording ----------------------------------------------------------------------------------------------------------


@driven
async def test_what_is_shown_is_recorded_also_while_paused(tmp_path: Path) -> None:
    async with running(recorder=Recorder(tmp_path / "day")) as (app, pilot, source):
        for second in range(1, 6):
            source.now = replace(source.now, now_ms=NOW_MS + 1000 * second, messages_s=float(second))
            app.tick()
            await pilot.press("p")
        assert "recording" in rows(app)[-2]
    recording = Recording(tmp_path / "day")
    assert recording.times_ms[-1] == NOW_MS + 5000 and recording.facts(len(recording) - 1) == source.now


@driven
async def test_a_recording_that_cannot_go_on_is_told_and_the_screen_goes_on(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day")
    async with running(recorder=recorder) as (app, pilot, source):

        class Full:
            def write(self, _line: bytes) -> None:
                raise OSError(28, "no space left")

            def close(self) -> None:
                raise OSError(28, "no space left")

        recorder._packer.close()
        recorder._packer = Full()  # type: ignore[assignment]
        source.now = replace(source.now, now_ms=NOW_MS + 5000)
        app.tick()
        await settle(pilot)
        assert "recording ended" in rows(app)[-2]
        app.tick()


@driven
async def test_a_recording_is_shown_at_its_own_pace_and_says_so(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day")
    for second in range(30):
        recorder.take(facts(now_ms=NOW_MS + 1000 * second, heard_ms=NOW_MS + 1000 * second, messages_s=100.0 + second))
    recorder.close()
    now_ns = [0]
    source = ReplaySource(Recording(tmp_path / "day"), "day", lambda: now_ns[0])
    app = TopApp(source, hz=0.001, colours=256, step=source.step)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "100 msg/s" in rows(app)[1])
        assert "replay of day" in rows(app)[1] and "● LIVE" in rows(app)[0]
        await pilot.press("full_stop")
        await settle(pilot)
        assert "110 msg/s" in rows(app)[1]
        now_ns[0] += 60 * 10**9
        app.tick()
        await settle(pilot)
        assert "▲ STALE" in rows(app)[0] and "the recording ends here" in rows(app)[1]


@driven
async def test_commas_and_stops_step_through_a_recording() -> None:
    steps: list[int] = []
    async with running(step=steps.append) as (_, pilot, _):
        await pilot.press("comma", "full_stop", "full_stop")
    assert steps == [-10_000, 10_000, 10_000]


@driven
async def test_sigterm_restores_the_terminal() -> None:
    import os
    import signal

    async with running() as (app, _, _):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            while app.is_running:
                await asyncio.sleep(0.01)
