"""`feed.js` over its three ways against a real server: nothing is missed, nothing comes twice, whatever happens in between."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Page, Route, WebSocketRoute

from mpengine.wire_formats import unpack_column
from tests.browser.backend import Backend
from tests.browser.conftest import Complaints
from tests.browser.lab import open_lab, wait

DEPTH = "depth.BTC"
CHANNELS = [DEPTH, "liq.BTC", "liquidations.BTC", "zones.BTC", "candles.BTC", "status"]
NETWORK = ("WebSocket connection to", "Failed to load resource", "ERR_")
"""What a browser says of connections that a test breaks."""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend.running(minutes={"BTC": 30, "ETH": 30}) as found:
        yield found


@pytest.fixture
def lab(open_page: Any, backend: Backend) -> Page:
    backend.calm()
    return open_lab(open_page(), backend)


def follow(page: Page, *channels: str, ladder: tuple[str, ...] = ("ws", "sse", "poll")) -> None:
    """Follow channels until the first message of each has come."""
    page.evaluate("([ladder, channels]) => lab.feed(ladder).subscribe(channels)", [ladder, list(channels)])
    wait(page, "(channels) => channels.every((one) => lab.log.some(([, detail]) => detail.channel === one))", list(channels))


def numbers(page: Page, channel: str = DEPTH) -> list[Any]:
    """What came of a channel, in order: numbers of columns and events, [from, to] of gaps."""
    found: list[Any] = page.evaluate("(channel) => lab.numbers(channel)", channel)
    return found


def told(page: Page, kind: str) -> list[Any]:
    found: list[Any] = page.evaluate("(kind) => lab.of(kind)", kind)
    return found


def wait_for(page: Page, number: int, channel: str = DEPTH, *, hurry: bool = False) -> None:
    """Until a number has come. `hurry`: time goes on fast enough for somebody who polls."""
    deadline = time.monotonic() + 20
    while hurry and time.monotonic() < deadline and number not in numbers(page, channel):
        page.clock.fast_forward(9000)
        page.wait_for_timeout(200)
    wait(page, "([channel, number]) => lab.numbers(channel).includes(number)", [channel, number])


def without_gap(found: list[int]) -> bool:
    return found == list(range(found[0], found[-1] + 1))


@pytest.mark.parametrize("way", ["ws", "sse", "poll"])
def test_each_way_tells_everything_once_and_in_order(lab: Page, backend: Backend, way: str) -> None:
    lab.clock.install()
    lab.clock.resume()
    backend.add_liquidations("BTC", 1)
    follow(lab, *CHANNELS, ladder=(way,))
    for _ in range(3):
        backend.minute("BTC")
        last = backend.depth_column()
        event = backend.add_liquidations("BTC", 2)[-1]
        wait_for(lab, last, hurry=way == "poll")
        wait_for(lab, event, "liquidations.BTC", hurry=way == "poll")
    map_head = int(backend.world.liquidation("BTC").next_no) - 1
    wait_for(lab, map_head, "liq.BTC")
    for channel, least in ((DEPTH, 7), ("liq.BTC", 4), ("liquidations.BTC", 7)):
        found = numbers(lab, channel)
        assert without_gap(found), (channel, found)
        assert len(found) >= least
    kinds = {one["channel"] for kind in ("zones", "candle", "status") for one in told(lab, kind)}
    assert kinds == {"zones.BTC", "candles.BTC", "status"}
    wait(lab, "() => lab.of('beat').length")
    assert lab.evaluate("lab.now.way") == way
    assert told(lab, "fault") == []


@pytest.mark.parametrize("way", ["ws", "sse"])
def test_columns_are_those_of_the_heatmap(lab: Page, backend: Backend, way: str) -> None:
    follow(lab, DEPTH, "liq.BTC", ladder=(way,))
    backend.minute("BTC")
    wait_for(lab, int(backend.world.depth("BTC").next_no) - 1)
    wait_for(lab, int(backend.world.liquidation("BTC").next_no) - 1, "liq.BTC")
    same = lab.evaluate("""async () => {
        const { columnsOf } = await import('/src/heal.js');
        const same = {};
        for (const [layer, dt] of [['depth', 30], ['liq', 60]]) {
            const params = { symbol: 'BTC', minutes: 5, dt_s: dt, k: 1, layers: layer, format: 'bin' };
            const answer = await lab.api.get('heatmap', params);
            const columns = columnsOf(await lab.decoder.heatmap(await answer.response.arrayBuffer()), layer);
            const pushed = lab.of('column').filter((one) => one.kind === layer);
            same[layer] = pushed.map(({ column }) => {
                const other = columns.find((one) => one.seq === column.seq);
                const shift = Math.round((column.price0 - other.price0) / other.step);
                return other.tMs === column.tMs && other.step === column.step && ['a', 'b'].every((side) =>
                    column[side].every((cell, row) => cell === other[side][row + shift]));
            });
        }
        return same;
    }""")
    assert len(same["depth"]) >= 2
    assert len(same["liq"]) >= 2
    assert all(same["depth"] + same["liq"])


@pytest.mark.parametrize("way", ["ws", "sse", "poll"])
@pytest.mark.covers("F7")
def test_a_killed_worker_costs_nothing(lab: Page, backend: Backend, complaints: Complaints, way: str) -> None:
    complaints.allow += NETWORK
    lab.clock.install()
    lab.clock.resume()
    follow(lab, DEPTH, ladder=(way,))
    for _ in range(2):
        backend.depth_column()
        backend.kill_worker()
        last = backend.depth_column()
        wait_for(lab, last, hurry=way == "poll")
    assert without_gap(numbers(lab))


def test_what_was_published_while_there_was_no_server_comes_afterwards(lab: Page, backend: Backend, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    follow(lab, DEPTH, "liquidations.BTC")
    backend.add_liquidations("BTC", 1)
    backend.stop()
    last = [backend.depth_column() for _ in range(12)][-1]
    event = backend.add_liquidations("BTC", 9)[-1]
    wait(lab, "() => lab.of('transport').some((one) => one.state === 'waiting')")
    backend.start()
    wait_for(lab, last)
    wait_for(lab, event, "liquidations.BTC")
    assert without_gap(numbers(lab))
    assert without_gap(numbers(lab, "liquidations.BTC"))
    assert lab.evaluate("lab.now.way") == "ws"  # where nobody answers at all another way would not help


def test_what_is_too_far_behind_is_named(lab: Page, backend: Backend, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    follow(lab, DEPTH)
    before = numbers(lab)[-1]
    backend.stop()
    last = [backend.depth_column() for _ in range(250)][-1]
    backend.start()
    wait_for(lab, last)
    assert numbers(lab)[-2:] == [[before + 1, last - 1], last]


def test_another_life_of_the_engine_is_told_before_its_columns(lab: Page, backend: Backend) -> None:
    follow(lab, DEPTH)
    backend.restart_engine()
    last = backend.depth_column()
    wait_for(lab, last)
    (reset,) = [one for one in told(lab, "reset") if one["channel"] == DEPTH]
    epochs = [one["column"]["epoch"] for one in told(lab, "column")]
    assert reset["epoch"] == epochs[-1] > epochs[0]
    names = lab.evaluate("lab.log.filter(([, one]) => one.channel === 'depth.BTC').map(([type]) => type)")
    assert names[-2:] == ["reset", "column"]


def test_it_goes_down_the_ladder_and_loses_nothing(lab: Page, backend: Backend, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    lab.clock.install()
    lab.clock.resume()
    follow(lab, DEPTH, "liquidations.BTC")
    assert lab.evaluate("lab.now.way") == "ws"
    # A proxy that takes no WebSocket from now on.
    lab.evaluate("() => { window.WebSocket = class extends WebSocket { constructor() { super('ws://127.0.0.1:1/'); } }; }")
    backend.kill_worker()
    last = backend.depth_column()
    wait_for(lab, last)
    assert lab.evaluate("lab.now.way") == "sse"
    lab.route("**/stream?*", lambda route: route.fulfill(status=502, body="no"))
    backend.kill_worker()
    last = backend.depth_column()
    event = backend.add_liquidations("BTC", 3)[-1]
    wait(lab, "() => lab.now.way === 'poll'")
    wait_for(lab, last)
    wait_for(lab, event, "liquidations.BTC")
    lab.clock.fast_forward(9000)
    last = backend.depth_column()
    lab.clock.fast_forward(9000)
    wait_for(lab, last)
    assert without_gap(numbers(lab))
    assert without_gap(numbers(lab, "liquidations.BTC"))


class Middle:
    """Between page and server: drops, doubles and spoils messages."""

    def __init__(self, page: Page) -> None:
        self.drop = self.double = self.spoil = self.mute = 0
        self.sent: list[dict[str, Any]] = []
        page.route_web_socket("**/ws", self._open)

    def _open(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def up(message: str | bytes) -> None:
            self.sent.append(json.loads(message))
            server.send(message)

        def down(message: str | bytes) -> None:
            if self.mute:
                return
            column = isinstance(message, bytes)
            if column and self.drop:
                self.drop -= 1
                return
            if column and self.spoil and isinstance(message, bytes):
                self.spoil -= 1
                message = message[:6] + b"\x09" + message[7:]
            for _ in range(2 if self.double else 1):
                route.send(message)

        route.on_message(up)
        server.on_message(down)


@pytest.fixture
def middle(lab: Page) -> Middle:
    return Middle(lab)


def test_a_message_that_got_lost_is_a_gap_before_the_next(lab: Page, backend: Backend, middle: Middle) -> None:
    follow(lab, DEPTH)
    first = numbers(lab)[-1]
    middle.drop = 2
    backend.depth_column()
    backend.depth_column()
    last = backend.depth_column()
    wait_for(lab, last)
    assert numbers(lab) == [first, [first + 1, first + 2], last]


def test_what_comes_twice_is_told_once(lab: Page, backend: Backend, middle: Middle) -> None:
    middle.double = 1
    follow(lab, DEPTH, "liquidations.BTC")
    last = [backend.depth_column() for _ in range(3)][-1]
    event = backend.add_liquidations("BTC", 6)[-1]
    wait_for(lab, last)
    wait_for(lab, event, "liquidations.BTC")
    assert without_gap(numbers(lab))
    assert without_gap(numbers(lab, "liquidations.BTC"))
    assert lab.evaluate("lab.now.stats.old") >= 4


def test_a_column_that_makes_no_sense_is_told_and_not_handed_on(lab: Page, backend: Backend, middle: Middle) -> None:
    follow(lab, DEPTH)
    first = numbers(lab)[-1]
    middle.spoil = 1
    spoilt = backend.depth_column()
    wait(lab, "() => lab.of('fault').length")
    (fault,) = told(lab, "fault")
    assert fault["channel"] == DEPTH
    assert fault["message"]
    last = backend.depth_column()
    wait_for(lab, last)
    assert numbers(lab) == [first, [spoilt, spoilt], last]


def test_a_silent_connection_is_replaced(lab: Page, backend: Backend, middle: Middle) -> None:
    lab.clock.install()
    lab.clock.resume()
    follow(lab, DEPTH)
    middle.mute = 1
    first = backend.depth_column()
    lab.clock.fast_forward(16_000)
    wait(lab, "() => lab.of('transport').some((one) => one.state === 'waiting' && one.reason.includes('15 s'))")
    middle.mute = 0
    last = backend.depth_column()
    wait_for(lab, last)
    assert without_gap(numbers(lab))
    assert first in numbers(lab)


def test_rapid_changes_are_few_commands_and_end_at_the_last(lab: Page, backend: Backend, middle: Middle) -> None:
    follow(lab, DEPTH)
    lab.evaluate("""async () => {
        for (let turn = 0; turn < 40; turn += 1) {
            lab.now.subscribe([`depth.${turn % 2 ? 'BTC' : 'ETH'}`, `zones.${turn % 2 ? 'BTC' : 'ETH'}`]);
            await new Promise((done) => setTimeout(done, 10));
        }
        lab.log.length = 0;
    }""")
    wait(lab, "() => lab.of('zones').some((one) => one.way === 'snapshot')")
    backend.depth_column("ETH")
    last = backend.depth_column()
    wait_for(lab, last)
    assert {one["channel"] for one in [*told(lab, "column"), *told(lab, "zones")]} == {DEPTH, "zones.BTC"}
    assert len(middle.sent) <= 12
    assert middle.sent[-1]["channels"] == [DEPTH, "zones.BTC"]


def test_nothing_is_told_after_close(lab: Page, backend: Backend, middle: Middle) -> None:
    follow(lab, DEPTH)
    before = lab.evaluate("() => { lab.now.close(); return lab.log.length; }")
    backend.depth_column()
    backend.restart()
    lab.evaluate("() => lab.api.get('livez')")
    assert lab.evaluate("lab.log.length") == before
    assert lab.evaluate("lab.now.position('depth.BTC')") is None


def test_a_minute_is_less_than_five_kilobytes_a_second(lab: Page, backend: Backend) -> None:
    follow(lab, *CHANNELS)
    before = lab.evaluate("lab.now.stats.bytes")
    backend.minute("BTC")
    backend.add_liquidations("BTC", 20)
    wait_for(lab, int(backend.world.liquidation("BTC").next_no) - 1, "liq.BTC")
    wait_for(lab, int(backend.world.depth("BTC").next_no) - 1)
    assert (lab.evaluate("lab.now.stats.bytes") - before) / 60 < 5_000


def test_the_position_is_the_one_of_the_wire(lab: Page, backend: Backend) -> None:
    frames: list[bytes] = []
    lab.on("websocket", lambda one: one.on("framereceived", lambda data: frames.append(data) if isinstance(data, bytes) else None))
    follow(lab, DEPTH)
    last = backend.depth_column()
    wait_for(lab, last)
    header, _, _ = unpack_column(frames[-1])
    assert lab.evaluate("lab.now.position('depth.BTC')") == {"epoch": header.epoch, "seq": header.seq}
    assert header.seq == last


@pytest.fixture(scope="module")
def locked() -> Iterator[tuple[Backend, str]]:
    """A server with keys, and one of them."""
    with Backend.running(minutes={"BTC": 5}) as found:
        key = found.make_key()
        found.settings = msgspec.structs.replace(found.settings, api=msgspec.structs.replace(found.settings.api, keys=True))
        found.restart()
        yield found, key


@pytest.mark.parametrize("way", ["ws", "sse", "poll"])
def test_a_server_with_keys_is_told_about_and_then_followed(
    open_page: Any, complaints: Complaints, locked: tuple[Backend, str], way: str
) -> None:
    complaints.allow += NETWORK
    backend, key = locked
    page = open_lab(open_page(), backend)
    page.evaluate("(way) => lab.feed([way]).subscribe(['depth.BTC'])", way)
    wait(page, "() => lab.of('transport').at(-1).reason === 'unauthorized'")
    assert page.evaluate("lab.of('unauthorized').length") >= 1
    assert numbers(page) == []
    page.evaluate("(key) => lab.api.setKey(key)", key)
    wait(page, "() => lab.numbers('depth.BTC').length")


def test_what_the_server_says_about_waiting_is_kept(lab: Page, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    lab.clock.install(time=0)
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            body = json.dumps({"error": "too_many_requests", "detail": "Too many requests"})
            route.fulfill(status=429, headers={"Retry-After": "7"}, content_type="application/json", body=body)
        else:
            route.fulfill(content_type="application/json", body="{}")

    lab.route("**/candles?*", refuse)
    lab.evaluate("""() => {
        lab.waits = [];
        const how = { signal: new AbortController().signal, onWait: (error, ms) => lab.waits.push([error.status, error.code, ms]) };
        lab.api.patiently(() => lab.api.json('candles', { symbol: 'BTC' }), how).then(() => { lab.done = true; });
    }""")
    wait(lab, "() => lab.waits.length")
    ((status, code, wait_ms),) = lab.evaluate("lab.waits")
    assert (status, code) == (429, "too_many_requests")
    assert 7000 <= wait_ms <= 8000
    assert 6000 < lab.evaluate("lab.api.waitMs") <= 7000
    lab.clock.run_for(6500)
    assert len(asked) == 1
    lab.clock.run_for(2000)
    wait(lab, "() => lab.done")
    assert len(asked) == 2


def test_events_out_of_a_stream_in_any_pieces(module_page: Page) -> None:
    text = (
        'retry: 2000\n\nevent: delta\nid: depth.BTC:1:2\ndata: {"a":1}\n\n:comment\n\n'
        "data: one\r\ndata: two\r\n\r\ndata:x\rdata:\r\rdata: unfinished"
    )
    expected = ['{"a":1}', "one\ntwo", "x\n"]
    found = module_page.evaluate(
        """async (text) => {
            const { SseParser } = await import('/src/transport_sse.js');
            const all = [];
            for (let size = 1; size <= text.length; size += 1) {
                const parser = new SseParser();
                const events = [];
                for (let at = 0; at < text.length; at += size) events.push(...parser.feed(text.slice(at, at + size)));
                all.push(events);
            }
            return all;
        }""",
        text,
    )
    assert all(one == expected for one in found)
