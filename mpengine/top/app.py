"""The full screen. Reads its source 4 times a second, draws what has changed, and never writes to what it looks at.

What comes in between two looks is one change of the screen, however much it is. Needs Textual: `pip install 'mpengine[top]'`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, Final, Protocol, get_args

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size

from mpengine.top.badge import Badge, badge
from mpengine.top.heat import RANGES_PCT
from mpengine.top.layout import LOWEST, NARROWEST, Part, Place, View, places
from mpengine.top.model import Facts
from mpengine.top.palette import Palette, colours_of
from mpengine.top.recording import Recorder, RecordingError
from mpengine.top.text import Line, span
from mpengine.top.view import Look, lines_of
from mpengine.top.widgets import Panel, ZoneTable

HZ: Final = 4.0
RANGE_PCT: Final = 3.0
STEP_MS: Final = 10_000
ZONES_MS: Final = 1000
LISTED: Final = 80
"""Rows of the zones where they have all the room; more than the screen has scroll."""
_NEVER_DIM: Final = frozenset(("head", "foot", "help", "processes"))

log = logging.getLogger("mpengine.top")


class Source(Protocol):
    """Where facts come from."""

    def read(self, shown: str | None, range_pct: float) -> Facts:
        """Facts of now; quick."""

    async def run(self) -> None:
        """What has to go on beside `read`, until cancelled."""

    async def close(self) -> None:
        """Let go of everything."""


class TopApp(App[None]):
    """The screen of one source. `look`, `facts`: what is shown; `ticks`: looks so far."""

    TITLE = "mpengine top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"symbol({number})", show=False) for number in range(1, 10)),
        *(
            Binding(key, f"view('{view}')", show=False)
            for key, view in (
                ("f", "feeds"), ("z", "zones"), ("l", "liquidations"), ("t", "processes"), ("question_mark", "help"), ("h", "help"),
            )
        ),
        Binding("escape", "view('main')", show=False), Binding("m", "layer", show=False),
        Binding("plus,equals_sign", "range(-1)", show=False), Binding("minus", "range(1)", show=False),
        Binding("p,space", "pause", show=False), Binding("comma", "step(-1)", show=False),
        Binding("full_stop", "step(1)", show=False), Binding("q,ctrl+c,ctrl+q", "quit", show=False, priority=True),
    ]  # fmt: skip

    def __init__(
        self,
        source: Source,
        *,
        symbol: str | None = None,
        hz: float = HZ,
        recorder: Recorder | None = None,
        colours: int | None = None,
        step: Callable[[int], None] | None = None,
    ) -> None:
        """`colours`: 256 or 16, found out without; `step`: moves a recording by milliseconds."""
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.source = source
        self.look = Look(colour=not self.no_color, note=None if recorder is None else "● recording")
        self.ticks = 0
        self._wanted = symbol
        self._hz = hz
        self._recorder = recorder
        self._step = step
        self._range = RANGES_PCT.index(RANGE_PCT)
        self._palette = Palette(colours_of(self.console.color_system) if colours is None else colours)
        self._panels = {part: Panel(part, self._palette) for part in get_args(Part) if part != "zone_list"}
        self._small = Panel("small", self._palette)
        self._zones = ZoneTable(self._palette)
        self._source_task: asyncio.Task[None] | None = None
        self._latest = self._read()
        self.facts = self._latest
        self._room = Size(80, 24)
        self._where: dict[Part, Place] = {}
        self._shape = (0, 0)
        self._zones_of: tuple[object, ...] = ()
        self._zones_ms = 0

    # --- life -------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield from self._panels.values()
        yield self._zones
        yield self._small

    def on_mount(self) -> None:
        """Draw, then look again and again."""
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread: nobody sends it there
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self._source_task = asyncio.get_running_loop().create_task(self._run())
        self._room = self.size
        self.arrange()
        self.set_interval(1.0 / self._hz, self.tick)

    async def _run(self) -> None:
        try:
            await self.source.run()
        except Exception:
            log.exception("the source ended")
            self.look = replace(self.look, note="▲ the source ended by a fault: restart mpengine top")

    async def on_unmount(self) -> None:
        """Let go of the source and the recording."""
        if self._source_task is not None:
            self._source_task.cancel()
            await asyncio.wait([self._source_task])
        await self.source.close()
        if self._recorder is not None:
            self._recorder.close()

    def on_resize(self, event: Resize) -> None:
        """Use the room."""
        self._room = event.size
        self.arrange()

    # --- looking ----------------------------------------------------------------------------------------------------

    def _read(self) -> Facts:
        try:
            return self.source.read(self._wanted, RANGES_PCT[self._range])
        except Exception as error:
            log.exception("the source cannot be read")
            before = getattr(self, "_latest", None) or Facts(now_ms=0, source="")
            return replace(before, trouble=f"a fault of mpengine top: {type(error).__name__}: {error}")

    def tick(self) -> None:
        """Look, and draw what has changed."""
        self.ticks += 1
        self._latest = self._read()
        self._record()
        if self.look.paused:
            self.look = replace(self.look, waiting=_frames(self._latest) - _frames(self.facts))
        else:
            self.facts = self._latest
        self.draw()

    def _record(self) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.take(self._latest)
        except RecordingError as error:
            self._recorder = None
            self.look = replace(self.look, note=f"▲ recording ended: {error}")

    @property
    def badge(self) -> Badge:
        """Of what is known now, also while what is shown is older."""
        return badge(self._latest, self._latest.now_ms, paused=self.look.paused)

    def arrange(self) -> None:
        """Give each part its room, and draw."""
        width, height = self._room
        facts, look = self.facts, self.look
        where = {
            place.part: place
            for place in places(width, height, look.view, look.layer, len(facts.venues) or 4, len(facts.processes) or 6)
        }
        parts: dict[str, Panel | ZoneTable] = {**self._panels, "zone_list": self._zones}
        for name, widget in parts.items():
            place = where.get(name)  # type: ignore[call-overload]
            widget.display = place is not None
            if place is not None:
                widget.styles.offset = (place.x, place.y)
                widget.styles.width, widget.styles.height = place.width, place.height
        self._small.display = not where
        self._small.styles.width, self._small.styles.height = max(1, width), 1
        self._shape = (len(facts.venues), len(facts.processes))
        self._where = where
        if look.view == "zones":
            self._zones.focus()
        else:
            self.set_focus(None)
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """Have the facts on the screen."""
        if (len(self.facts.venues), len(self.facts.processes)) != self._shape:
            self.arrange()
            return
        found, now_ms = self.badge, self._latest.now_ms
        look = self.look
        for part, place in self._where.items():
            dim = found.stale and part not in _NEVER_DIM
            if part == "zone_list":
                self._draw_zones(place, now_ms, dim=dim)
                continue
            lines = lines_of(part, self.facts, found, look, now_ms, place.width, place.height)
            self._panels[part].show(lines, dim=dim)
        small: list[Line] = [(span(f"the terminal must have {NARROWEST} x {LOWEST} cells or more", "bad"),)]
        self._small.show(small if not self._where else [], dim=False)

    def _draw_zones(self, place: Place, now_ms: int, *, dim: bool) -> None:
        """PERF: every distance changes with every price, and a row of this table is dear: once a second is enough for them."""
        facts = self.facts
        wanted = (facts.zones, facts.shown, place, dim)
        if wanted == self._zones_of and 0 <= now_ms - self._zones_ms < ZONES_MS:
            return
        self._zones_of, self._zones_ms = wanted, now_ms
        self._zones.show(facts, now_ms, place.width, LISTED, dim=dim)

    @property
    def redrawn(self) -> int:
        """Cells drawn again so far, of all parts."""
        return sum(panel.redrawn for panel in self._panels.values()) + self._zones.redrawn

    # --- keys -------------------------------------------------------------------------------------------------------

    def action_symbol(self, number: int) -> None:
        """Show another symbol; a pause ends, since nothing of it has been kept."""
        if number <= len(self._latest.symbols):
            self._wanted = self._latest.symbols[number - 1].name
            self.look = replace(self.look, paused=False, waiting=0)
            self.tick()

    def action_view(self, view: View) -> None:
        """Show a part in all the room; its key again goes back."""
        self.look = replace(self.look, view="main" if view == self.look.view else view)
        self.arrange()

    def action_layer(self) -> None:
        """Map or book, where there is room for one."""
        self.look = replace(self.look, layer="book" if self.look.layer == "map" else "map")
        self.arrange()

    def action_range(self, by: int) -> None:
        """A wider or narrower range of prices."""
        self._range = min(max(self._range + by, 0), len(RANGES_PCT) - 1)
        if not self.look.paused:
            self.tick()

    def action_pause(self) -> None:
        """Keep the picture, or go to the newest."""
        self.look = replace(self.look, paused=not self.look.paused, waiting=0)
        self.tick()

    def action_step(self, by: int) -> None:
        """Go back or on in a recording."""
        if self._step is not None:
            self._step(by * STEP_MS)
            self.tick()


def _frames(facts: Facts) -> int:
    """Frames of the shown symbol so far."""
    one = facts.symbol
    return 0 if one is None else sum(newest.seq for newest in (one.map, one.book) if newest is not None)
