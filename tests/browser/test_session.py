"""`session.js` with a picture that only notes what it is given: whatever happens, it holds what a fresh answer would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from playwright.sync_api import Page, Request, Route, WebSocketRoute

from tests.browser.backend import Backend
from tests.browser.conftest import Complaints
from tests.browser.lab import open_lab, wait

NETWORK: Final = ("WebSocket connection to", "Failed to load resource", "ERR_")
PICTURE: Final = """async () => {
    const [{ Session }, { createStore }, { columnsOf }] = await Promise.all(
        ['session', 'store', 'heal'].map((name) => import(`/src/${name}.js`)));
    class Picture extends EventTarget {
        snapshots = []; merges = 0; puts = 0; stale = []; zones = []; mark = null;
        layers = {}; candles = new Map(); events = []; bubbles = new Map(); counted = -1;
        #point(t, price, side, count) {
            const key = `${Math.floor(t / this.dt)}:${Math.floor(price / this.step + 0.5)}:${side}`;
            this.bubbles.set(key, (this.bubbles.get(key) ?? 0) + count);
        }
        /** As the real one: an answer takes the place of all in its columns, and later numbers are added once. */
        #points(snapshot) {
            const first = snapshot.t0Ms / this.dt;
            for (const key of this.bubbles.keys()) if (Number(key.split(':')[0]) >= first) this.bubbles.delete(key);
            this.counted = Math.max(this.counted, snapshot.seqs.realised ?? -1);
            for (const { col, row, side, count } of snapshot.points) {
                this.#point(snapshot.t0Ms + col * this.dt, snapshot.price0 + row * snapshot.step, side, count);
            }
        }
        #place(column, pooled) {
            const t = Math.floor(column.tMs / this.dt) * this.dt;
            const cells = ((this.layers[column.layer] ??= new Map()).get(t) ?? new Map());
            const found = pooled ? cells : new Map();
            for (let row = 0; row < column.rows; row += 1) {
                if (!column.a[row] && !column.b[row]) continue;
                const price = Math.round((column.price0 + row * column.step) / column.step);
                const [a, b] = found.get(price) ?? [0, 0];
                found.set(price, [Math.max(a, column.a[row]), Math.max(b, column.b[row])]);
            }
            this.layers[column.layer].set(t, found);
        }
        setSnapshot(snapshot, candles) {
            this.snapshots.push(`${snapshot.symbol} ${snapshot.cols}`);
            this.dt = snapshot.dtMs;
            this.layers = {};
            this.step = snapshot.step;
            this.events = [];
            this.bubbles = new Map();
            this.counted = -1;
            this.#points(snapshot);
            this.candles = new Map(candles?.t.map((t, index) => [t, candles.c[index]]));
            for (const layer of Object.keys(snapshot.layers)) for (const one of columnsOf(snapshot, layer)) this.#place(one, false);
        }
        mergeSnapshot(snapshot) {
            this.merges += 1;
            for (const layer of Object.keys(snapshot.layers)) for (const one of columnsOf(snapshot, layer)) this.#place(one, false);
            return true;
        }
        putColumn(column) { this.puts += 1; this.#place(column, true); return true; }
        putCandle(candle) { this.candles.set(candle.t, candle.c); }
        putEvents(items) {
            this.events.push(...items.map((one) => one.seq));
            for (const one of items.filter(({ seq }) => seq > this.counted)) {
                this.counted = one.seq;
                this.#point(one.ts_ms, one.price, one.side === 'long' ? 0 : 1, 1);
            }
        }
        clear() { this.snapshots.push('nothing'); this.layers = {}; this.zones = []; this.mark = null; }
        setZones(zones) { this.zones = zones.map((one) => one.id); }
        setMark(mark) { this.mark = mark; }
        setStale(stale) { this.stale.push(stale); }
    }
    /** Columns in which it differs from a fresh answer, and bars. */
    lab.differences = async () => {
        const { symbol, range, map } = lab.store.get();
        const minutes = { '1h': 60, '4h': 240, '12h': 720, '1d': 1440 }[range];
        const dt = range === '1d' ? 120 : 60;
        const params = { symbol, minutes, dt_s: dt, k: 1, max_cols: 1440, layers: [map, 'depth', 'realised'], format: 'bin' };
        const answer = await lab.api.get('heatmap', params);
        const snapshot = await lab.decoder.heatmap(await answer.response.arrayBuffer());
        const wrong = [];
        for (const layer of [map, 'depth']) {
            for (const one of columnsOf(snapshot, layer)) {
                const known = lab.picture.layers[layer].get(one.tMs);
                const cells = new Map();
                for (let row = 0; row < one.rows; row += 1) {
                    const price = Math.round((one.price0 + row * one.step) / one.step);
                    if (one.a[row] || one.b[row]) cells.set(price, [one.a[row], one.b[row]]);
                }
                const same = known && known.size === cells.size
                    && [...cells].every(([price, [a, b]]) => known.get(price)?.[0] === a && known.get(price)?.[1] === b);
                if (!same) wrong.push([layer, one.tMs]);
            }
        }
        for (const { col, row, side, count } of snapshot.points) {
            const t = snapshot.t0Ms / (dt * 1000) + col;
            const key = `${t}:${Math.round((snapshot.price0 + row * snapshot.step) / snapshot.step)}:${side}`;
            if (lab.picture.bubbles.get(key) !== count) wrong.push(['bubble', key, count]);
        }
        const bars = await lab.api.json('candles', { symbol, limit: minutes });
        bars.t.forEach((t, index) => {
            if (t >= snapshot.t0Ms && lab.picture.candles.get(t) !== bars.c[index]) wrong.push(['candle', t]);
        });
        return wrong;
    };
    lab.open = (state) => {
        lab.store = createStore({ symbol: 'BTC', range: '1h', ...state });
        lab.picture = new Picture();
        lab.badges = [];
        lab.banners = [];
        lab.store.subscribe(['badge', 'staleCodes'], ({ badge, staleCodes }) => lab.badges.push([badge, ...staleCodes].join(' ')));
        lab.store.subscribe(['gap'], ({ gap }) => lab.banners.push(gap?.kind ?? null));
        lab.session = new Session({ api: lab.api, feed: lab.feed(), picture: lab.picture, store: lab.store, decoder: lab.decoder });
        for (const type of ['unauthorized', 'restart', 'snapshot']) {
            lab.session.addEventListener(type, () => lab.log.push([`session ${type}`, {}]));
        }
        lab.session.open();
    };
}"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend.running(minutes={"BTC": 62, "ETH": 40}) as found:
        yield found


@pytest.fixture
def lab(open_page: Any, backend: Backend) -> Page:
    backend.calm()
    page: Page = open_page()
    return prepared(page, backend)


def prepared(page: Page, backend: Backend) -> Page:
    open_lab(page, backend)
    page.evaluate(PICTURE)
    return page


def begin(page: Page, **state: Any) -> None:
    """A session that is LIVE and has heard of every channel."""
    page.evaluate("(state) => lab.open(state)", state)
    wait(page, "() => lab.store.get().badge === 'LIVE' && lab.of('column').length >= 2 && lab.store.get().zonesRows.length")


def get(page: Page, key: str) -> Any:
    return page.evaluate("(key) => lab.store.get()[key]", key)


def caught_up(page: Page, backend: Backend, symbol: str = "BTC") -> None:
    """Until the newest columns have come, no matter which way, and nothing is being fetched."""
    heads = [int(ring.next_no) - 1 for ring in (backend.world.depth(symbol), backend.world.liquidation(symbol))]
    wait(page, """([symbol, heads]) => ['depth', 'liq'].every((kind, index) =>
        lab.session && lab.now.position(`${kind}.${symbol}`)?.seq === heads[index])""", [symbol, heads])  # fmt: skip
    deadline = time.monotonic() + 20
    while (found := page.evaluate("lab.differences()")) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert found == []


def until_code(page: Page, code: str) -> None:
    wait(page, "(code) => lab.store.get().staleCodes.includes(code)", code)


class Held:
    """Requests of a kind wait until they are let go."""

    def __init__(self, page: Page, pattern: str) -> None:
        self.urls: list[str] = []
        self.routes: list[Route] = []
        self.open = False
        page.route(pattern, self._take)

    def _take(self, route: Route) -> None:
        self.urls.append(route.request.url)
        if self.open:
            route.continue_()
        else:
            self.routes.append(route)

    def release(self) -> None:
        self.open = True
        routes, self.routes = self.routes, []
        for route in routes:
            route.continue_()


class Middle:
    """Between page and server: drops binary columns, spoils zones, says nothing."""

    def __init__(self, page: Page) -> None:
        self.drop = self.spoil_zones = 0
        self.drop_events = self.mute = False
        page.route_web_socket("**/ws", self._open)

    def _open(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        route.on_message(server.send)

        def down(message: str | bytes) -> None:
            if self.mute:
                return
            if isinstance(message, bytes):
                if self.drop:
                    self.drop -= 1
                    return
            elif self.drop_events and '"liquidations.' in message and '"type":"delta"' in message:
                return
            elif self.spoil_zones and '"zones.' in message and '"type":"delta"' in message:
                self.spoil_zones -= 1
                body = json.loads(message)
                body["data"]["crc32"] ^= 1
                message = json.dumps(body)
            route.send(message)

        server.on_message(down)


def test_it_begins_with_four_requests(lab: Page, backend: Backend) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/src/" not in request.url:
            asked.append(request.url.removeprefix(backend.origin).partition("?")[0])

    lab.on("request", note)
    lab.on("websocket", lambda _: asked.append("/ws"))
    begin(lab)
    assert sorted(asked) == ["/candles", "/health", "/heatmap", "/ws"]
    state = lab.evaluate("lab.store.get()")
    assert (state["badge"], state["transport"], state["alsoStale"], state["gap"]) == ("LIVE", "ws", False, None)
    assert lab.evaluate("lab.picture.snapshots") == ["BTC 60"]
    assert state["provenance"]["estimated"] is True
    wait(lab, "() => lab.store.get().venuesHealth.binance?.lagMs === 12.5")
    assert get(lab, "venuesHealth")["hyperliquid"]["liquidations"] == "none"
    assert get(lab, "mark") > 0
    assert lab.evaluate("lab.differences()") == []
    assert lab.evaluate("lab.picture.stale.at(-1)") is False


@pytest.mark.parametrize("state", [{"range": "1h"}, {"range": "1d"}, {"map": "tape"}, {"map": "projected", "range": "4h"}])
def test_what_is_pushed_makes_the_picture_that_a_fresh_answer_is(lab: Page, backend: Backend, state: dict[str, Any]) -> None:
    begin(lab, **state)
    for _ in range(3):
        backend.minute("BTC")
        backend.depth_column()
    numbers = backend.add_liquidations("BTC", 5)
    caught_up(lab, backend)
    wait(lab, "(last) => lab.picture.events.includes(last)", numbers[-1])
    assert lab.evaluate("lab.picture.events") == sorted(set(lab.evaluate("lab.picture.events")))
    assert [one["seq"] for one in get(lab, "events")][-5:] == numbers
    assert lab.evaluate("lab.picture.snapshots.length") == 1
    assert (lab.evaluate("lab.picture.merges") > 0) is (state.get("map", "liq") != "liq")
    zones = backend.json("/liq_zones?symbol=BTC")["zones"]
    assert lab.evaluate("lab.picture.zones") == [one["id"] for one in zones]
    assert get(lab, "gap") is None
    assert get(lab, "badge") == "LIVE"


def test_tiers_and_least_usd_filter_zones_without_a_request(lab: Page, backend: Backend) -> None:
    begin(lab)
    held = Held(lab, "**/*")
    rows = get(lab, "zonesRows")
    least = sorted(one["notional_usd"] for one in rows)[len(rows) // 2]
    lab.evaluate("(minUsd) => lab.store.set({ minUsd })", least)
    assert [one["id"] for one in get(lab, "zonesRows")] == [one["id"] for one in rows if one["notional_usd"] >= least]
    lab.evaluate("() => lab.store.set({ minUsd: 0, tiers: [77] })")
    assert get(lab, "zonesRows") == []
    assert [one for one in held.urls if "/health" not in one] == []


@pytest.mark.covers("F7")
def test_a_killed_worker_is_no_reason_to_load_again(lab: Page, backend: Backend, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    begin(lab)
    backend.kill_worker()
    backend.minute("BTC")
    caught_up(lab, backend)
    assert lab.evaluate("lab.picture.snapshots.length") == 1
    assert get(lab, "badge") == "LIVE"


def test_while_paused_columns_wait_and_are_counted(lab: Page, backend: Backend) -> None:
    begin(lab)
    before = lab.evaluate("[lab.picture.puts, lab.picture.events.length, lab.picture.mark]")
    lab.evaluate("() => lab.session.pause()")
    backend.minute("BTC")
    backend.minute("BTC")
    backend.add_liquidations("BTC", 2)
    wait(lab, "() => lab.store.get().buffered === 6")
    wait(lab, "() => lab.of('events').length")
    assert get(lab, "badge") == "PAUSED"
    assert "6 columns waiting" in get(lab, "reason")
    assert get(lab, "alsoStale") is False
    assert lab.evaluate("[lab.picture.puts, lab.picture.events.length, lab.picture.mark]") == before
    lab.evaluate("() => lab.session.resume()")
    assert lab.evaluate("lab.picture.puts") == before[0] + 6
    caught_up(lab, backend)
    assert (get(lab, "badge"), get(lab, "buffered")) == ("LIVE", 0)
    assert lab.evaluate("lab.picture.snapshots.length") == 1


def test_beyond_the_ring_going_on_takes_a_new_picture(lab: Page, backend: Backend) -> None:
    begin(lab)
    lab.evaluate("() => lab.session.pause()")
    for _ in range(62):
        backend.minute("BTC")
    wait(lab, "() => lab.store.get().reason.includes('a new picture is loaded')")
    assert lab.evaluate("lab.picture.puts") == 0
    lab.evaluate("() => lab.session.resume()")
    wait(lab, "() => lab.picture.snapshots.length === 2")
    caught_up(lab, backend)
    assert get(lab, "badge") == "LIVE"


def test_a_gap_is_stale_until_it_is_fetched(lab: Page, backend: Backend) -> None:
    middle = Middle(lab)
    begin(lab)
    held = Held(lab, "**/heatmap?*")
    middle.drop = 4
    for _ in range(3):
        backend.minute("BTC")
        backend.add_liquidations("BTC", 2)
    until_code(lab, "gap")
    assert get(lab, "badge") == "STALE"
    assert "missing" in get(lab, "reason")
    assert get(lab, "gap")["kind"] == "healing"
    assert lab.evaluate("lab.picture.stale.at(-1)") is True
    held.release()
    caught_up(lab, backend)
    wait(lab, "() => lab.store.get().badge === 'LIVE'")
    assert get(lab, "gap") is None
    assert lab.evaluate("lab.picture.snapshots.length") == 1
    assert all("since_ms=" in url for url in held.urls if "max_rows=2000" in url)


def test_missing_liquidations_are_fetched_once(lab: Page, backend: Backend) -> None:
    middle = Middle(lab)
    begin(lab)
    middle.drop_events = True
    missed = backend.add_liquidations("BTC", 7)
    lab.evaluate("() => lab.api.get('livez')")
    backend.depth_column()  # behind them on the wire
    wait(lab, "(head) => lab.now.position('depth.BTC').seq === head", int(backend.world.depth("BTC").next_no) - 1)
    middle.drop_events = False
    came = backend.add_liquidations("BTC", 2)
    wait(lab, "(number) => lab.picture.events.includes(number)", missed[-1])
    wait(lab, "(number) => lab.picture.events.includes(number)", came[-1])
    caught_up(lab, backend)
    found = [one for one in lab.evaluate("lab.picture.events") if one >= missed[0]]
    assert found == [*missed, *came]
    assert [one["seq"] for one in get(lab, "events")][-9:] == [*missed, *came]


def test_a_restarted_engine_is_stale_until_there_is_a_new_picture(lab: Page, backend: Backend) -> None:
    begin(lab)
    held = Held(lab, "**/heatmap?*")
    backend.restart_engine()
    backend.minute("BTC")
    until_code(lab, "restarted")
    assert (get(lab, "badge"), get(lab, "gap")["kind"]) == ("STALE", "restart")
    assert lab.evaluate("lab.of('session restart').length") >= 1
    held.release()
    wait(lab, "() => lab.store.get().badge === 'LIVE'")
    caught_up(lab, backend)
    backend.depth_column()
    wait(lab, "() => lab.store.get().gap === null")


def test_age_makes_stale_also_while_paused(lab: Page, backend: Backend) -> None:
    begin(lab)
    backend.advance(100)
    lab.evaluate("() => lab.session.refreshHealth()")
    until_code(lab, "book")
    assert "map" not in get(lab, "staleCodes")
    assert "order book" in get(lab, "reason")
    lab.evaluate("() => lab.session.pause()")
    assert (get(lab, "badge"), get(lab, "alsoStale")) == ("PAUSED", True)
    backend.advance(100)
    lab.evaluate("() => lab.session.refreshHealth()")
    until_code(lab, "map")
    lab.evaluate("() => lab.session.resume()")
    assert get(lab, "badge") == "STALE"
    assert lab.evaluate("lab.picture.stale.at(-1)") is True
    lab.evaluate("() => lab.store.set({ map: null, depth: false })")
    assert get(lab, "badge") == "LIVE"  # what is not shown does not count


def test_silence_makes_stale_and_is_over_with_the_next_message(lab: Page, backend: Backend) -> None:
    lab.clock.install()
    lab.clock.resume()
    middle = Middle(lab)
    begin(lab)
    middle.mute = True
    lab.clock.fast_forward(17_000)
    until_code(lab, "silent")
    assert get(lab, "badge") == "STALE"
    middle.mute = False
    lab.clock.fast_forward(3000)
    wait(lab, "() => lab.store.get().badge === 'LIVE'")
    assert lab.evaluate("lab.picture.snapshots.length") == 1


def test_a_wide_column_is_as_old_as_the_newest_frame_in_it(lab: Page, backend: Backend) -> None:
    """Two minutes are one column of a day: counted from its start, the book would be stale although it is seconds old."""
    for _ in range(2):  # wherever in its column the newest frame lies
        lab.evaluate("() => lab.open({ range: '1h' })")
        wait(lab, "() => lab.picture.snapshots.length")
        caught_up(lab, backend)
        before = lab.evaluate("lab.store.get().ages.book")
        lab.evaluate("() => lab.session.setRange('1d')")
        wait(lab, "() => lab.picture.snapshots.length === 2")
        wait(lab, "() => lab.store.get().badge !== 'STALE' || lab.store.get().staleCodes.join() === 'book'")
        assert lab.evaluate("lab.store.get().ages.book") == pytest.approx(before, abs=8)
        lab.evaluate("() => lab.session.close()")
        backend.minute()


def test_one_venue_down_is_not_stale(lab: Page, backend: Backend) -> None:
    begin(lab)
    backend.set_venue("okx", state="DOWN", silent_s=130)
    wait(lab, "() => lab.store.get().venuesHealth.okx.state === 'DOWN'")
    lab.evaluate("() => lab.session.refreshHealth()")
    wait(lab, "() => lab.store.get().venuesHealth.okx.ageS > 120")
    assert get(lab, "badge") == "LIVE"


def test_late_answers_are_not_those_of_another_symbol(lab: Page, backend: Backend) -> None:
    held = Held(lab, "**/heatmap?*")
    lab.evaluate("() => lab.open({})")
    wait_for_requests(lab, held.urls, 1)
    lab.evaluate("() => lab.session.setSymbol('ETH')")
    wait_for_requests(lab, held.urls, 2)
    for range_ in ("4h", "12h", "1h", "4h"):
        lab.evaluate("(range) => lab.session.setRange(range)", range_)
    held.release()
    wait(lab, "() => lab.picture.snapshots.length === 2")
    backend.minute()
    caught_up(lab, backend, "ETH")
    assert lab.evaluate("lab.picture.snapshots") == ["nothing", "ETH 240"]
    assert {one["symbol"] for one in lab.evaluate("lab.of('column').slice(-2)")} == {"ETH"}
    assert len(held.urls) <= 5  # of which one each is for the comparison
    wait(lab, "() => lab.store.get().zonesRows.every((one) => one.price < 10_000)")


def wait_for_requests(page: Page, urls: list[str], count: int) -> None:
    for _ in range(1000):
        if len(urls) >= count:
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"only {len(urls)} requests")


def test_hopping_between_symbols_ends_right_and_leaves_nothing(lab: Page, backend: Backend) -> None:
    begin(lab)
    lab.evaluate("""async () => {
        for (let turn = 0; turn < 30; turn += 1) {
            lab.session.setSymbol(turn % 2 ? 'BTC' : 'ETH');
            lab.session.setRange(turn % 3 ? '1h' : '4h');
            lab.store.set({ map: ['liq', 'tape', null][turn % 3] });
            await new Promise((done) => setTimeout(done, 7));
        }
        lab.session.setRange('1h');
        lab.store.set({ map: 'liq' });
    }""")
    wait(lab, "() => lab.store.get().badge === 'LIVE' && lab.store.get().zonesRows.length")
    backend.minute()
    caught_up(lab, backend)
    assert lab.evaluate("lab.picture.snapshots.at(-1)") == "BTC 60"
    asked: list[str] = []
    lab.evaluate("() => lab.session.close()")
    lab.on("request", lambda one: asked.append(one.url))
    before = lab.evaluate("[lab.picture.puts, lab.log.length, lab.badges.length]")
    backend.minute()
    lab.evaluate("() => { lab.store.set({ range: '12h' }); lab.session.resume(); }")
    lab.evaluate("() => lab.api.get('livez')")
    assert lab.evaluate("[lab.picture.puts, lab.log.length, lab.badges.length]") == before
    assert [url for url in asked if "/livez" not in url] == []


def test_an_answer_that_makes_no_sense_is_told_and_not_drawn(lab: Page, backend: Backend) -> None:
    lab.clock.install()
    lab.clock.resume()

    def spoil(route: Route) -> None:
        answer = route.fetch()
        body = bytearray(answer.body())
        body[5] = 9  # the type of its cells
        route.fulfill(response=answer, body=bytes(body))

    lab.route("**/heatmap?*", spoil)
    lab.evaluate("() => lab.open({})")
    until_code(lab, "fault")
    assert get(lab, "badge") == "STALE"
    assert "not drawn" in get(lab, "reason")
    assert lab.evaluate("lab.picture.snapshots") == []
    lab.unroute("**/heatmap?*")
    lab.clock.fast_forward(11_000)
    wait(lab, "() => lab.store.get().badge === 'LIVE'")
    assert lab.evaluate("lab.differences()") == []


def test_the_picture_does_not_wait_for_candles(lab: Page, backend: Backend, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    body = json.dumps({"error": "not_ready", "detail": "The first bar is not there yet"})
    refused: list[str] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=503, headers={"Retry-After": "1"}, content_type="application/json", body=body)

    lab.route("**/candles?*", refuse)
    begin(lab)
    wait_for_requests(lab, refused, 2)
    assert get(lab, "badge") == "LIVE"
    assert lab.evaluate("lab.picture.candles.size") <= 1  # that which is pushed
    lab.unroute("**/candles?*")
    caught_up(lab, backend)
    assert lab.evaluate("lab.picture.candles.size") >= 60


def test_zones_that_do_not_check_out_are_asked_for_anew(lab: Page, backend: Backend) -> None:
    middle = Middle(lab)
    begin(lab)
    middle.spoil_zones = 1
    backend.minute("BTC")
    wait(lab, "() => lab.of('zones').length >= 3")
    zones = backend.json("/liq_zones?symbol=BTC")["zones"]
    wait(lab, "(ids) => JSON.stringify(lab.picture.zones) === JSON.stringify(ids)", [one["id"] for one in zones])
    assert [one["way"] for one in lab.evaluate("lab.of('zones')")] == ["snapshot", "delta", "snapshot"]
    assert get(lab, "badge") == "LIVE"


def test_a_server_without_data_is_warming_up(open_page: Any, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    with Backend.running(minutes={}) as empty:
        page = prepared(open_page(), empty)
        page.clock.install()
        page.clock.resume()
        page.evaluate("() => lab.open({ depth: false })")
        until_code(page, "warmup")
        assert "warming up" in get(page, "reason")
        assert page.evaluate("lab.picture.snapshots") == []
        filled = threading.Thread(target=empty.fill, args=("BTC", 20))
        filled.start()
        filled.join()
        page.clock.fast_forward(10_000)
        wait(page, "() => lab.picture.snapshots.length === 1")
        wait(page, "() => lab.store.get().badge === 'LIVE'")


def test_a_key_is_asked_for_once_and_then_everything_comes(open_page: Any, complaints: Complaints) -> None:
    complaints.allow += NETWORK
    with Backend.running(minutes={"BTC": 10}) as locked:
        key = locked.make_key()
        locked.settings = msgspec.structs.replace(locked.settings, api=msgspec.structs.replace(locked.settings.api, keys=True))
        locked.restart()
        page = prepared(open_page(), locked)
        page.evaluate("() => lab.open({})")
        until_code(page, "unauthorized")
        wait(page, "() => lab.of('transport').at(-1).reason === 'unauthorized'")
        assert page.evaluate("lab.of('session unauthorized').length") == 1
        page.evaluate("(key) => lab.api.setKey(key)", key)
        wait(page, "() => lab.store.get().badge === 'LIVE' && lab.store.get().transport === 'ws'")
