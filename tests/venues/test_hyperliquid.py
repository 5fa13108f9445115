"""Hyperliquid mapper: wire cases as data, coins from the venue's own list, no liquidations; bad input is counted, never raised."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mpengine import venues
from mpengine.config import load
from mpengine.venues import hyperliquid as mapper
from mpengine.venues.base import RestResult
from mpengine.venues.hyperliquid import Hyperliquid
from shm.records import GapScope, Kind, Venue, decode
from tests.venues.cases import assert_sound, cases, differences, mutated

CASES = cases("hyperliquid")
T = 1_790_232_236 * 10**9


def hyperliquid(*overrides: str) -> Hyperliquid:
    wanted = ["venues.hyperliquid.enabled=true", *overrides]
    (module,) = (one for one in venues.build(load("", {}, wanted)) if isinstance(one, Hyperliquid))
    return module


def teach(module: Hyperliquid, coins: Iterable[str], delisted: Iterable[str] = ()) -> None:
    rows: list[dict[str, Any]] = [{"name": coin, "szDecimals": 3} for coin in coins]
    rows += [{"name": coin, "szDecimals": 3, "isDelisted": True} for coin in delisted]
    (call,) = module.polls()
    module.receive_rest(call, 200, json.dumps({"universe": rows}).encode(), T)


def subscribed(module: Hyperliquid, connection: str) -> list[dict[str, Any]]:
    return [json.loads(text)["subscription"] for text in module.data_to_send(connection)]


@pytest.mark.covers("A2-L3", "R-L2")
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire_case(path: Path) -> None:
    assert differences(path, hyperliquid(), Venue.HYPERLIQUID) == []


def test_a_flipped_taker_table_fails_wire_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper, "TAKERS", {"A": mapper.TAKERS["B"], "B": mapper.TAKERS["A"]})
    wrong = {path.stem for path in CASES if any(t.startswith("side:") for t in differences(path, hyperliquid(), Venue.HYPERLIQUID))}
    assert {"taker_b_bought", "taker_a_sold"} <= wrong


def test_only_listed_coins_are_subscribed_and_not_before_the_list_is_known() -> None:
    module = hyperliquid()
    module.opened("ws#1", T)
    assert module.data_to_send("ws#1") == []
    teach(module, ["BTC", "btc", "ETH"], delisted=["SOL"])
    wanted = subscribed(module, "ws#1")
    assert {one["coin"] for one in wanted} == {"BTC", "ETH"}
    assert module.counters.reasons == {"unknown_coin": 3}, "one unknown name would close the whole socket"
    assert {one["type"] for one in wanted} == {"l2Book", "trades", "activeAssetCtx"}
    assert all(one["fast"] is True for one in wanted if one["type"] == "l2Book")
    module.opened("ws#2", T)
    assert subscribed(module, "ws#2") == wanted, "a later connection asks at once"


def test_a_coin_that_is_not_listed_is_never_asked_for_and_expected_to_be_silent() -> None:
    module = hyperliquid()
    assert len(module.unlisted()) == 9, "nothing is subscribed before the list is known"
    module.opened("ws#1", T)
    teach(module, ["BTC", "ETH"], delisted=["SOL"])
    module.data_to_send("ws#1")
    assert module.unlisted() == {"l2Book:SOL", "trades:SOL", "activeAssetCtx:SOL"}
    assert module.resubscribe("ws#1", "trades:SOL", T)
    assert module.data_to_send("ws#1") == [], "it would close the whole socket"
    teach(module, ["BTC", "ETH", "SOL"])
    assert module.unlisted() == frozenset()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"universe":[]}', b'{"universe":[{"name":5}]}', b'{"universe":[5]}', b'{"universe":5}']
)
def test_an_unusable_list_is_counted_and_the_old_one_stays(body: bytes) -> None:
    module = hyperliquid()
    teach(module, ["BTC"])
    (call,) = module.polls()
    module.receive_rest(call, 200, body, T)
    assert module.counters.refused == 1
    module.opened("ws#1", T)
    assert {one["coin"] for one in subscribed(module, "ws#1")} == {"BTC"}


def test_it_shows_no_liquidations_and_says_so() -> None:
    module = hyperliquid()
    assert module.sampling == "none"
    assert all(stream.kind is not Kind.LIQUIDATION for plan in module.sockets() for stream in plan.streams)


def test_a_book_from_the_future_does_not_stop_those_of_now() -> None:
    module = hyperliquid()
    module.opened("ws#1", T)

    def book(time_ns: int) -> int:
        levels = [[{"px": "84143.0", "sz": "10.2", "n": 36}], [{"px": "84144.0", "sz": "50.6", "n": 18}]]
        data = {"coin": "BTC", "time": time_ns // 10**6, "levels": levels}
        module.receive("ws#1", json.dumps({"channel": "l2Book", "data": data}).encode(), T)
        return len(module.events())

    minute, year = 60 * 10**9, 365 * 86_400 * 10**9
    assert [book(T), book(T), book(T - 10**9)] == [1, 0, 0], "the same one again and an older one"
    assert [book(T + minute), book(T)] == [1, 0], "clocks may differ"
    assert [book(T + year), book(T + minute), book(T)] == [1, 1, 0]


def test_a_pong_is_a_probe_reply_and_a_book_that_delivers_needs_no_request() -> None:
    module = hyperliquid()
    module.opened("ws#1", T)
    teach(module, ["BTC", "ETH"])
    module.data_to_send("ws#1")
    module.receive("ws#1", b'{"channel":"pong"}', T + 3)
    assert module.probe_reply("ws#1") == T + 3
    levels = [[{"px": "84143.0", "sz": "10.2", "n": 36}], [{"px": "84144.0", "sz": "50.6", "n": 18}]]
    book = {"channel": "l2Book", "data": {"coin": "BTC", "time": T // 10**6, "levels": levels}}
    module.receive("ws#1", json.dumps(book).encode(), T)

    def said(stream: str, at_ns: int) -> list[tuple[str, str]]:
        assert module.resubscribe("ws#1", stream, at_ns)
        texts = [json.loads(text) for text in module.data_to_send("ws#1")]
        return [(text["method"], text["subscription"]["type"]) for text in texts]

    assert said("l2Book:BTC", T + 10**9) == [], "its next message is whole"
    assert said("l2Book:BTC", T + 10 * 10**9) == [("unsubscribe", "l2Book"), ("subscribe", "l2Book")], "there is none"
    assert said("l2Book:ETH", T) == [("unsubscribe", "l2Book"), ("subscribe", "l2Book")], "there was none yet"
    assert said("trades:BTC", T) == [("unsubscribe", "trades"), ("subscribe", "trades")]


def test_a_lost_socket_leaves_gaps() -> None:
    module = hyperliquid()
    module.opened("ws#1", T)
    module.lost("ws#1", T, replaced=False)
    found = {(routed.symbol, record.fields["side"]) for routed in module.events() for record in decode(routed.data)}
    assert found == {(symbol, scope) for symbol in ("BTC", "ETH", "SOL") for scope in (GapScope.BOOK, GapScope.TRADES)}


@pytest.mark.parametrize(("status", "result"), [(200, RestResult.OK), (429, RestResult.LIMITED), (500, RestResult.TRANSIENT)])
def test_what_a_reply_means(status: int, result: RestResult) -> None:
    module = hyperliquid()
    assert module.judge(module.polls()[0], status, {}, b"{}").result is result


@pytest.mark.covers("F9", "A2-L2")
@pytest.mark.parametrize("count", [20_000, pytest.param(10**6, marks=pytest.mark.stress)])
def test_mutated_messages_never_raise_and_never_make_a_wrong_record(count: int) -> None:
    rng, module = random.Random(20261121), hyperliquid()
    corpus = [line for path in CASES for line in path.read_bytes().splitlines()]
    for number in range(count):
        module.receive("ws#1", mutated(rng, rng.choice(corpus)), T + number)
        assert_sound(module.events())
    assert module.counters.messages == count and module.counters.refused > count // 10
