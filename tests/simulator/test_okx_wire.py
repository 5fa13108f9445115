"""OKX's socket: the captured shapes, books that a plain client follows, forced orders told once and on the right side, errors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpengine.simulator.market import Changes, ForcedOrder, Market, SymbolMarket
from mpengine.simulator.okx_rest import Swap, contract_value
from mpengine.simulator.okx_wire import LATE_NS, PATH, REPLAY_NS, REPORT_NS, REQUESTS_PER_HOUR, SPREAD_NS, OkxWire, is_net
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Session
from shm.records import PositionSide
from tests.simulator.rig import SECOND_NS, market, small

CONTRACT = {"BTC-USDT-SWAP": Fraction(1, 100), "ETH-USDT-SWAP": Fraction(1, 10), "SOL-USDT-SWAP": Fraction(1)}
LIQUIDATIONS = {"channel": "liquidation-orders", "instType": "SWAP"}
# exchanges.md 5.2: a liquidation captured 2026-10-09 and the book update of the official page
LIQUIDATION = json.loads(
    '{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkLoss":"0","bkPx":"82655.7","ccy":"",'
    '"posSide":"long","side":"sell","sz":"8.55","ts":"1791565600771"}],"instFamily":"BTC-USDT","instId":"BTC-USDT-SWAP",'
    '"instType":"SWAP","uly":"BTC-USDT"}]}'
)
BOOK = json.loads(
    '{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"update","data":[{"asks":[["8476.98","415","0","13"]],'
    '"bids":[["8476.97","256","0","12"]],"ts":"1597026383085","checksum":0,"prevSeqId":123456,"seqId":123457}]}'
)


def swaps(*symbols: str, **values: Any) -> Market:
    names = {s: {"binance": f"{s}USDT", "okx": f"{s}-USDT-SWAP"} for s in symbols}
    return market(*[small(s, names=names[s], **values) for s in symbols], seed=3)


def wire(of: Market) -> OkxWire:
    return OkxWire(of, np.random.default_rng(3))


def opened(to: OkxWire) -> Session:
    session = to.open(PATH, {}, 0)
    assert session is not None
    return session


def ask(to: OkxWire, session: Session, operation: str, *args: Any, now_ns: int = 0) -> list[Any]:
    to.receive(session, json.dumps({"id": "1", "op": operation, "args": args}), now_ns)
    replies, session.outbox[:] = [json.loads(text) for text in session.outbox], []
    return replies


def of_swap(channel: str, instrument: str = "BTC-USDT-SWAP") -> dict[str, str]:
    return {"channel": channel, "instId": instrument}


def delivered(to: OkxWire, changes: list[Changes], session: Session) -> list[Any]:
    """What one step brings a session."""
    return [json.loads(message.text(False)) for message, sessions in to.publish(changes) if session in sessions]


def messages(of: Market, to: OkxWire, session: Session, seconds: float) -> Iterator[Any]:
    for changes in of.step(of.now_ns + int(seconds * SECOND_NS)):
        yield from delivered(to, changes, session)


class Client:
    """A book of plain dicts, built as the venue's documentation says."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[Fraction, Fraction]] = {}
        self.last = 0
        self.ids: list[int] = []

    def take(self, message: Any) -> None:
        (row,) = message["data"]
        if message["action"] == "snapshot":
            assert row["prevSeqId"] == -1
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert row["prevSeqId"] == self.last
        assert row["checksum"] == 0
        self.last = row["seqId"]
        self.ids.append(self.last)
        for name, side in self.sides.items():
            for price, contracts, zero, orders in row[name]:
                assert zero == "0" and int(orders) >= (contracts != "0")
                if contracts == "0":
                    del side[Fraction(price)]
                else:
                    side[Fraction(price)] = Fraction(contracts)


def top(of: SymbolMarket, instrument: str) -> dict[str, dict[Fraction, Fraction]]:
    """The best 400 levels of the market, in contracts."""
    tick, lot = (Fraction(str(value)) for value in (of.spec.tick, of.spec.lot))
    sides = {"bids": of.book.bids.top(400), "asks": of.book.asks.top(400)}
    return {name: {t * tick: n * lot / CONTRACT[instrument] for t, n in levels} for name, levels in sides.items()}


@pytest.mark.parametrize("symbol", ["BTC", "ETH", "SOL"])
def test_a_plain_client_has_the_best_400_levels_at_every_moment(symbol: str) -> None:
    of = swaps(symbol, volatility=4.0)
    to, instrument = wire(of), f"{symbol}-USDT-SWAP"
    session, client = opened(to), Client()
    ask(to, session, "subscribe", of_swap("books", instrument))
    for steps, changes in enumerate(of.step(of.now_ns + 20 * SECOND_NS)):
        for message in delivered(to, changes, session):
            client.take(message)
        assert client.sides == top(of.symbols[symbol], instrument)
        if steps == 100:
            replies = ask(to, session, "unsubscribe", of_swap("books", instrument))
            replies += ask(to, session, "subscribe", of_swap("books", instrument))
            assert [reply["event"] for reply in replies] == ["unsubscribe", "subscribe"]
            client = Client()
    assert client.ids == sorted(client.ids) and any(two > one + 1 for one, two in pairwise(client.ids))
    assert [len(side) for side in client.sides.values()] == [400, 400]


def test_a_second_listener_starts_with_a_snapshot_and_continues_the_first_ones_chain() -> None:
    of = swaps("BTC")
    to = wire(of)
    first, second = opened(to), opened(to)
    one, two = Client(), Client()
    ask(to, first, "subscribe", of_swap("books"))
    for index, changes in enumerate(of.step(of.now_ns + 3 * SECOND_NS)):
        if index == 10:
            ask(to, second, "subscribe", of_swap("books"))
        texts = [(message.text(False), list(sessions)) for message, sessions in to.publish(changes)]
        for text, sessions in texts:
            for session, client in ((first, one), (second, two)):
                if session in sessions:
                    client.take(json.loads(text))
        if index > 10:
            assert [sessions for _, sessions in texts] == [[first, second]]
    assert one.sides == two.sides and one.ids[10:] == two.ids


def test_an_idle_book_repeats_its_id_once_a_minute() -> None:
    of = swaps("BTC")
    to, client = wire(of), Client()
    session = opened(to)
    ask(to, session, "subscribe", of_swap("books"))
    for message in messages(of, to, session, 1):
        client.take(message)
    told = []
    for second in range(1, 150):
        still = Changes(of.symbols["BTC"], of.now_ns + second * SECOND_NS, [], [], [], None)
        told += [(second, message) for message in delivered(to, [still], session)]
    assert [second for second, _ in told] == [60, 120]
    for _, message in told:
        (row,) = message["data"]
        assert row["prevSeqId"] == row["seqId"] == client.last and row["bids"] == row["asks"] == []


def test_after_a_maintenance_ids_are_lower_and_chain_all_the_same() -> None:
    of = swaps("BTC")
    to, client = wire(of), Client()
    session = opened(to)
    ask(to, session, "subscribe", of_swap("books"))
    for message in messages(of, to, session, 1):
        client.take(message)
    to.rewind_sequence()
    for message in messages(of, to, session, 1):
        client.take(message)
    assert client.ids[10] < client.ids[9] and client.sides == top(of.symbols["BTC"], "BTC-USDT-SWAP")


def position(detail: Any) -> PositionSide:
    """exchanges.md, table 2.1: posSide is the position's side; net or absent: the order's side decides."""
    by_order = {"sell": PositionSide.LONG, "buy": PositionSide.SHORT}[detail["side"]]
    return {"long": PositionSide.LONG, "short": PositionSide.SHORT, "net": by_order}[detail["posSide"]]


def told(reports: list[Any], instrument: str) -> Counter[tuple[Any, ...]]:
    """(time, side, price, base quantity) of every row of an instrument."""
    return Counter(
        (int(d["ts"]), position(d), Fraction(d["bkPx"]), Fraction(d["sz"]) * CONTRACT[instrument])
        for row in reports
        if row["instId"] == instrument
        for d in row["details"]
    )


def truth(orders: list[ForcedOrder], of: SymbolMarket) -> Counter[tuple[Any, ...]]:
    """The same of the market's own orders."""
    price = f"%.{1 if of.spec.tick == 0.1 else 2}f"
    lot = Fraction(str(of.spec.lot))
    return Counter((o.ts_ns // 10**6, o.side, Fraction(price % o.mark), o.filled_lots * lot) for o in orders if o.venue == "okx")


def liquidating(of: Market, to: OkxWire, session: Session, seconds: int) -> tuple[dict[str, list[ForcedOrder]], list[Any]]:
    """Forced orders of the time, by symbol, and the rows told of them with the market time of their message; then the late ones."""
    orders: dict[str, list[ForcedOrder]] = {symbol: [] for symbol in of.symbols}
    rows = []
    for second in range(seconds):
        if second % 10 == 0:
            for symbol in of.symbols.values():
                symbol.force(PositionSide.LONG if second % 20 else PositionSide.SHORT, 3e6)
        for changes in of.step(of.now_ns + SECOND_NS):
            for one in changes:
                orders[one.symbol.spec.symbol] += one.forced
            rows += [{**row, "told_ns": of.now_ns} for m in delivered(to, changes, session) for row in m["data"]]
    until_ns = of.now_ns + LATE_NS + REPORT_NS + SPREAD_NS + SECOND_NS
    while of.now_ns < until_ns:
        # Nobody is liquidated any more: only what is under way is told.
        of.skip(of.now_ns + of.step_ns)
        quiet = [Changes(one, of.now_ns, [], [], [], None) for one in of.symbols.values()]
        rows += [{**row, "told_ns": of.now_ns} for m in delivered(to, quiet, session) for row in m["data"]]
    return orders, rows


def test_each_forced_order_of_the_venue_is_told_once_with_the_side_of_its_position() -> None:
    of = swaps("BTC", "ETH", "SOL", positions=400, volatility=4.0)
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", LIQUIDATIONS)
    orders, rows = liquidating(of, to, session, 400)
    for symbol, one in of.symbols.items():
        expected = truth(orders[symbol], one)
        assert told(rows, f"{symbol}-USDT-SWAP") == expected and expected.total() > 20
        assert {side for _, side, _, _ in expected} == {PositionSide.LONG, PositionSide.SHORT}
    # The same rows with one side turned are not the truth: the comparison above sees a flip.
    for row in rows:
        for d in row["details"]:
            d["posSide"] = {"long": "short", "short": "long", "net": "net"}[d["posSide"]]
    assert told(rows, "BTC-USDT-SWAP") != truth(orders["BTC"], of.symbols["BTC"])

    details = [d for row in rows if row["instId"] in CONTRACT for d in row["details"]]
    net = sum(d["posSide"] == "net" for d in details)
    assert len(details) / 5 < net < len(details) / 2
    assert any("." in d["sz"] for d in details)
    times = [int(d["ts"]) for d in details]
    assert times != sorted(times)
    lags_ns = [row["told_ns"] - int(d["ts"]) * 10**6 for row in rows if row["instId"] in CONTRACT for d in row["details"]]
    assert any(lag > LATE_NS for lag in lags_ns) and min(lags_ns) >= REPORT_NS
    assert sum(lag > LATE_NS for lag in lags_ns) < len(lags_ns) / 5


def test_rows_of_swaps_nobody_asked_for_come_along() -> None:
    of = swaps("BTC", activity=0.05)
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", LIQUIDATIONS)
    foreign = {row["instId"] for m in messages(of, to, session, 300) for row in m["data"] if row["instId"] not in CONTRACT}
    assert foreign == {"BTC-USD-SWAP", "BTC-USDC-SWAP"}


def test_a_subscription_begins_with_rows_that_were_told_before() -> None:
    of = swaps("BTC", positions=400)
    to = wire(of)
    early = opened(to)
    ask(to, early, "subscribe", LIQUIDATIONS)
    _, rows = liquidating(of, to, early, 100)
    late = opened(to)
    ask(to, late, "subscribe", LIQUIDATIONS)
    (changes,) = of.step(of.now_ns + of.step_ns)
    first, *more = delivered(to, changes, late)
    assert not more and first["arg"] == LIQUIDATIONS
    known = told(rows, "BTC-USDT-SWAP")
    replayed = told(first["data"], "BTC-USDT-SWAP")
    assert replayed and all(known[row] >= count for row, count in replayed.items())
    newest_ns = min(int(d["ts"]) for row in first["data"] for d in row["details"]) * 10**6
    assert newest_ns > of.now_ns - REPLAY_NS
    assert any(int(d["ts"]) * 10**6 < of.now_ns - 60 * SECOND_NS for row in first["data"] for d in row["details"])


def test_reports_under_way_reach_who_subscribes_meanwhile() -> None:
    """Whoever comes between an order and its report is told it, live or in the replay."""
    of = swaps("BTC", positions=400)
    to, rows = wire(of), list[Any]()
    session = opened(to)
    orders: list[ForcedOrder] = []
    of.symbols["BTC"].force(PositionSide.LONG, 3e6)
    while not any(order.venue == "okx" for order in orders):
        for changes in of.step(of.now_ns + of.step_ns):
            orders += changes[0].forced
    ask(to, session, "subscribe", LIQUIDATIONS)
    expected = truth(orders, of.symbols["BTC"])
    for message in messages(of, to, session, (LATE_NS + REPORT_NS + SPREAD_NS) / SECOND_NS):
        rows += message["data"]
    assert expected and not expected - told(rows, "BTC-USDT-SWAP")


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, keys(part)) for key, part in value.items()]
    return [keys(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_messages_have_the_fields_of_captured_ones() -> None:
    of = swaps("BTC", positions=400)
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", of_swap("books"), LIQUIDATIONS)
    of.symbols["BTC"].force(PositionSide.LONG, 3e6)
    seen = set()
    for message in messages(of, to, session, 60):
        channel = message["arg"]["channel"]
        if channel == "books" and (
            message["action"] == "snapshot" or not (message["data"][0]["bids"] and message["data"][0]["asks"])
        ):
            continue
        assert keys(message) == keys(LIQUIDATION if channel == "liquidation-orders" else BOOK)
        seen.add(channel)
    assert seen == {"books", "liquidation-orders"}


def test_trades_are_the_markets_in_contracts_with_the_takers_side() -> None:
    of = swaps("ETH")
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", of_swap("trades", "ETH-USDT-SWAP"))
    rows, trades = [], []
    for changes in of.step(of.now_ns + 10 * SECOND_NS):
        trades += changes[0].trades
        rows += [row for m in delivered(to, changes, session) for row in m["data"]]
    lot = Fraction("0.001")
    assert len(rows) == len(trades) > 20
    for row, trade in zip(rows, trades, strict=True):
        assert int(row["tradeId"]) == trade.number and row["side"] == ("buy" if trade.buy else "sell")
        assert Fraction(row["sz"]) * CONTRACT["ETH-USDT-SWAP"] == trade.lots * lot
        assert Fraction(row["px"]) == trade.tick * Fraction("0.01") and int(row["ts"]) == trade.ts_ns // 10**6


@pytest.mark.parametrize(
    ("channel", "shortest_s", "longest_s"), [("mark-price", 0.2, 2), ("funding-rate", 30, 91), ("open-interest", 3, 200)]
)
def test_states_come_at_once_and_then_at_their_pace(channel: str, shortest_s: float, longest_s: float) -> None:
    of = swaps("BTC")
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", of_swap(channel))
    rows = [row for m in messages(of, to, session, 400) for row in m["data"]]
    times = [int(row["ts"]) for row in rows]
    assert times[0] * 10**6 == of.now_ns - 400 * SECOND_NS + of.step_ns
    gaps = [(two - one) / 1000 for one, two in pairwise(times)]
    assert shortest_s <= min(gaps) and max(gaps) <= longest_s
    assert {row["instId"] for row in rows} == {"BTC-USDT-SWAP"}


def test_open_interest_is_the_venues_share_in_contracts_coins_and_usd() -> None:
    of = swaps("BTC")
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", of_swap("open-interest"))
    (changes,) = of.step(of.now_ns + of.step_ns)
    (message,) = delivered(to, changes, session)
    (row,) = message["data"]
    one = of.symbols["BTC"]
    assert float(row["oiCcy"]) == pytest.approx(one.open_interest * one.spec.share("okx"), abs=one.spec.lot)
    assert Fraction(row["oi"]) * CONTRACT["BTC-USDT-SWAP"] == Fraction(row["oiCcy"])
    assert float(row["oiUsd"]) == pytest.approx(float(row["oiCcy"]) * one.mark_price, rel=1e-6)


def test_instruments_come_whole_with_the_subscription_and_only_then() -> None:
    of = swaps("BTC", "ETH", "SOL")
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", {"channel": "instruments", "instType": "SWAP"})
    (message,) = messages(of, to, session, 5)
    rows = {row["instId"]: row for row in message["data"]}
    for instrument, value in CONTRACT.items():
        assert Fraction(rows[instrument]["ctVal"]) * Fraction(rows[instrument]["ctMult"]) == value
        assert rows[instrument]["ctType"] == "linear" and rows[instrument]["state"] == "live"
    inverse = rows["BTC-USD-SWAP"]
    assert (inverse["ctType"], inverse["ctVal"], inverse["ctValCcy"]) == ("inverse", "100", "USD")
    assert rows["BTC-USDC-SWAP"]["settleCcy"] == "USDC"
    assert any(row["state"] != "live" for row in rows.values())


@pytest.mark.parametrize(
    ("instrument", "lot", "value"),
    [("BTC-USDT-SWAP", 0.001, 0.01), ("SOL-USDT-SWAP", 0.01, 1.0), ("BTC-USDT-SWAP", 1e-7, 1e-6), ("DOGE-USDT-SWAP", 10.0, 100.0)],
)
def test_every_lot_is_a_size_in_contracts(instrument: str, lot: float, value: float) -> None:
    assert contract_value(instrument, lot) == pytest.approx(value)
    symbol = instrument.partition("-")[0]
    of = market(small(symbol, price=100_000.0 if lot < 1 else 0.2, lot=lot, names={"okx": instrument}))
    swap = Swap(of.symbols[symbol], instrument)
    for lots in (1, 7, 12_345, 99_999_999):
        assert Fraction(swap.contracts(lots)) * Fraction(f"{value:.7f}") == lots * Fraction(f"{lot:.7f}")


def test_requests_are_acknowledged_arg_by_arg() -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    replies = ask(to, session, "subscribe", LIQUIDATIONS, of_swap("nonsense"), of_swap("books"))
    assert [reply["event"] for reply in replies] == ["subscribe", "error", "subscribe"]
    assert replies[0]["arg"] == LIQUIDATIONS and replies[2]["arg"] == of_swap("books")
    assert set(replies[0]) == {"event", "arg", "connId"} and len({reply["connId"] for reply in replies}) == 1
    (reply,) = ask(to, session, "unsubscribe", of_swap("books"))
    assert (reply["event"], reply["arg"]) == ("unsubscribe", of_swap("books"))
    assert to.channels.wanted == ["liquidation-orders"]


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ({"channel": "liquidation-orders", "instId": "BTC-USDT-SWAP"}, "60018"),
        ({"channel": "books", "instId": "BTC-USDT"}, "60018"),
        ({"channel": "books", "instId": ["BTC-USDT-SWAP"]}, "60018"),
        ({"channel": ["books"], "instId": "BTC-USDT-SWAP"}, "60018"),
        ({"channel": "books-l2-tbt", "instId": "BTC-USDT-SWAP"}, "64003"),
        ("books", "60018"),
    ],
)
def test_wrong_args_get_an_error_and_nothing_else(arg: Any, code: str) -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    (reply,) = ask(to, session, "subscribe", arg)
    assert (reply["event"], reply["code"]) == ("error", code)
    assert to.channels.wanted == [] and session.close_code is None


def test_an_instrument_beside_the_type_is_dropped_silently() -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    (reply,) = ask(to, session, "subscribe", {**LIQUIDATIONS, "instId": "BTC-USDT-SWAP"})
    assert reply["arg"] == LIQUIDATIONS and to.channels.wanted == ["liquidation-orders"]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '"ping"', '{"op":"dance","args":[]}', '{"op":"subscribe","args":{}}', '{"op":"subscribe"}']
)
def test_bad_requests_are_errors(text: str) -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    to.receive(session, text, 0)
    assert json.loads(session.outbox.pop())["code"] == "60012" and session.close_code is None


def test_a_request_of_more_than_64_kb_is_refused() -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    (reply,) = ask(to, session, "subscribe", *[of_swap("books")] * 1500)
    assert reply["code"] == "60012" and to.channels.wanted == []


def test_text_pings_are_answered_with_text() -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    to.receive(session, "ping", 0)
    assert session.outbox == ["pong"]


def test_more_requests_an_hour_than_allowed_end_the_connection() -> None:
    to = wire(swaps("BTC"))
    session, other = opened(to), opened(to)
    for number in range(REQUESTS_PER_HOUR):
        ask(to, session, "subscribe" if number % 2 else "unsubscribe", of_swap("books"), now_ns=number * SECOND_NS)
        to.receive(session, "ping", number * SECOND_NS)
        session.outbox.clear()
    codes = [session.close_code]
    (reply,) = ask(to, session, "subscribe", of_swap("trades"), now_ns=3599 * SECOND_NS)
    codes.append(session.close_code)
    assert reply["event"] == "error" and codes == [None, 1008]
    assert ask(to, other, "subscribe", of_swap("trades"))[0]["event"] == "subscribe"


def test_a_connection_at_its_limit_may_ask_again_an_hour_later() -> None:
    to = wire(swaps("BTC"))
    session = opened(to)
    for _ in range(REQUESTS_PER_HOUR):
        ask(to, session, "subscribe", of_swap("books"))
    assert ask(to, session, "subscribe", of_swap("trades"), now_ns=3600 * SECOND_NS)[0]["event"] == "subscribe"
    assert session.close_code is None


def test_an_upgrade_is_announced_to_every_open_socket_once() -> None:
    of = swaps("BTC")
    to = wire(of)
    sessions = [opened(to), opened(to), opened(to)]
    to.announce_upgrade()
    to.closed(sessions[2])
    (changes,) = of.step(of.now_ns + of.step_ns)
    got = [(json.loads(message.text(False)), list(listening)) for message, listening in to.publish(changes)]
    assert [listening for _, listening in got] == [[sessions[0]], [sessions[1]]]
    assert all((notice["event"], notice["code"]) == ("notice", "64008") for notice, _ in got)
    assert list(messages(of, to, sessions[0], 1)) == []


@pytest.mark.parametrize("path", ["/", "/ws", "/ws/v5/business", "/ws/v5/private", "/ws/v5/public/"])
def test_other_addresses_are_no_endpoints(path: str) -> None:
    assert wire(swaps("BTC")).open(path, {}, 0) is None


def test_closed_sockets_get_nothing_and_leave_nothing() -> None:
    of = swaps("BTC")
    to = wire(of)
    session = opened(to)
    ask(to, session, "subscribe", of_swap("books"), of_swap("trades"), LIQUIDATIONS)
    to.closed(session)
    assert list(messages(of, to, session, 1)) == [] and to.channels.wanted == []


def test_nothing_is_made_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    of = swaps("BTC")
    to = wire(of)
    monkeypatch.setattr(Swap, "levels", lambda *_: pytest.fail("a book was printed"))
    session = opened(to)
    ask(to, session, "subscribe", of_swap("trades"))
    assert len(list(messages(of, to, session, 2))) > 0


def test_one_way_accounts_are_about_a_third() -> None:
    of = market(small(positions=2000, volatility=8.0), seed=3)
    orders = [order for changes in of.step(of.now_ns + 60 * SECOND_NS) for order in changes[0].forced]
    assert len(orders) > 30 and 0.15 < sum(map(is_net, orders)) / len(orders) < 0.5
    assert any(order.side is LONG for order in orders)


def test_two_wires_over_equal_markets_say_the_same_bytes() -> None:
    texts = []
    for _ in range(2):
        of = swaps("BTC", "SOL", volatility=4.0)
        to = wire(of)
        session = opened(to)
        ask(to, session, "subscribe", of_swap("books"), of_swap("funding-rate", "SOL-USDT-SWAP"), LIQUIDATIONS)
        texts.append([m.text(False) for changes in of.step(of.now_ns + 20 * SECOND_NS) for m, _ in to.publish(changes)])
    assert texts[0] == texts[1] and len(texts[0]) > 100
