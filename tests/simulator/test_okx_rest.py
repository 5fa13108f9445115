"""OKX's REST: books that join the channel, open interest in coins, contract sizes, limits with both statuses."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpengine.simulator.market import Market
from mpengine.simulator.okx_wire import PATH, OkxWire
from mpengine.simulator.wire import Reply
from tests.simulator.rig import SECOND_NS, market, small

CLIENT = "127.0.0.1"
INSTRUMENT = "BTC-USDT-SWAP"


def venue() -> tuple[Market, OkxWire]:
    names = {"binance": "BTCUSDT", "okx": INSTRUMENT}
    of = market(small(names=names), small("ETH", names={"okx": "ETH-USDT-SWAP"}))
    return of, OkxWire(of, np.random.default_rng(3))


def get(to: OkxWire, path: str, now_ns: int = 0, client: str = CLIENT, **query: str) -> Reply:
    return to.rest(f"/api/v5/{path}", query, client, now_ns)


def rows(reply: Reply) -> Any:
    body = json.loads(reply.body)
    assert (reply.status, body["code"], body["msg"]) == (200, "0", "")
    return body["data"]


def test_a_book_by_rest_is_the_markets_and_joins_the_channel() -> None:
    of, to = venue()
    session = to.open(PATH, {}, 0)
    assert session is not None
    to.receive(session, json.dumps({"op": "subscribe", "args": [{"channel": "books", "instId": INSTRUMENT}]}), 0)
    updates: list[Any] = []
    taken = {}
    for index, changes in enumerate(of.step(of.now_ns + 3 * SECOND_NS)):
        updates += [json.loads(m.text(False))["data"][0] for m, _ in to.publish(changes)]
        if index == 10:
            (taken,) = rows(get(to, "market/books", instId=INSTRUMENT, sz="400"))
            book = of.symbols["BTC"].book
            for name, side in (("bids", book.bids), ("asks", book.asks)):
                assert [(Fraction(level[0]), Fraction(level[1])) for level in taken[name]] == [
                    (tick * Fraction("0.1"), lots * Fraction("0.001") * 100) for tick, lots in side.top(400)
                ]
                assert len(taken[name]) == 400 and {level[2] for level in taken[name]} == {"0"}
    joining = [update for update in updates if update["prevSeqId"] <= taken["seqId"] < update["seqId"] and update["prevSeqId"] > 0]
    assert len(joining) == 1 and joining[0] is updates[11]


@pytest.mark.parametrize(("size", "levels"), [({}, 1), ({"sz": "7"}, 7), ({"sz": "400"}, 400)])
def test_a_book_has_as_many_levels_as_asked_for(size: dict[str, Any], levels: int) -> None:
    _, to = venue()
    (book,) = rows(get(to, "market/books", instId=INSTRUMENT, **size))
    assert len(book["bids"]) == len(book["asks"]) == levels


def test_open_interest_is_the_share_of_the_venue() -> None:
    of, to = venue()
    (row,) = rows(get(to, "public/open-interest", instType="SWAP", instId=INSTRUMENT))
    one = of.symbols["BTC"]
    assert one.spec.share("okx") < 1
    assert float(row["oiCcy"]) == pytest.approx(one.open_interest * one.spec.share("okx"), abs=0.001)
    assert Fraction(row["oi"]) == Fraction(row["oiCcy"]) * 100
    assert int(row["ts"]) == of.now_ns // 10**6
    assert [row["instId"] for row in rows(get(to, "public/open-interest", instType="SWAP"))] == [INSTRUMENT, "ETH-USDT-SWAP"]


def test_instruments_marks_funding_and_time() -> None:
    of, to = venue()
    listed = {row["instId"]: row for row in rows(get(to, "public/instruments", instType="SWAP"))}
    assert {"BTC-USDT-SWAP", "ETH-USDT-SWAP", "BTC-USD-SWAP", "BTC-USDC-SWAP"} < set(listed)
    assert (listed[INSTRUMENT]["ctVal"], listed[INSTRUMENT]["lotSz"], listed[INSTRUMENT]["tickSz"]) == ("0.01", "0.1", "0.1")
    assert rows(get(to, "public/instruments", instType="SWAP", instId=INSTRUMENT)) == [listed[INSTRUMENT]]
    (mark,) = rows(get(to, "public/mark-price", instType="SWAP", instId=INSTRUMENT))
    assert float(mark["markPx"]) == pytest.approx(of.symbols["BTC"].mark_price, abs=0.05)
    (funding,) = rows(get(to, "public/funding-rate", instId=INSTRUMENT))
    assert float(funding["fundingRate"]) == pytest.approx(of.symbols["BTC"].funding_rate, abs=1e-9)
    assert int(funding["nextFundingTime"]) - int(funding["fundingTime"]) == 8 * 3_600_000
    assert int(funding["fundingTime"]) * 10**6 > of.now_ns and funding["nextFundingRate"] == ""
    assert rows(get(to, "public/time")) == [{"ts": str(of.now_ns // 10**6)}]


@pytest.mark.parametrize(
    ("path", "query", "limit"),
    [
        ("public/instruments", {"instType": "SWAP"}, 20),
        ("public/open-interest", {"instType": "SWAP", "instId": INSTRUMENT}, 20),
        ("public/mark-price", {"instType": "SWAP", "instId": INSTRUMENT}, 10),
        ("public/funding-rate", {"instId": INSTRUMENT}, 10),
        ("market/books", {"instId": INSTRUMENT}, 40),
    ],
)
def test_over_a_limit_the_code_is_50011_with_either_status(path: str, query: dict[str, Any], limit: int) -> None:
    _, to = venue()
    for _ in range(limit):
        rows(get(to, path, **query))
    refused = [get(to, path, **query) for _ in range(4)]
    assert {json.loads(reply.body)["code"] for reply in refused} == {"50011"}
    assert {reply.status for reply in refused} == {429, 200}
    rows(get(to, path, client="127.0.0.2", **query))
    rows(get(to, path, now_ns=2 * SECOND_NS, **query))


def test_the_limit_of_open_interest_counts_each_instrument() -> None:
    _, to = venue()
    for _ in range(20):
        rows(get(to, "public/open-interest", instType="SWAP", instId=INSTRUMENT))
    rows(get(to, "public/open-interest", instType="SWAP", instId="ETH-USDT-SWAP"))


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("public/instruments", {}, "50014"),
        ("public/instruments", {"instType": "SPOT"}, "51000"),
        ("public/instruments", {"instType": "SWAP", "instId": "NO-USDT-SWAP"}, "51001"),
        ("public/open-interest", {"instType": "SWAP", "instId": "NO-USDT-SWAP"}, "51001"),
        ("public/funding-rate", {}, "50014"),
        ("market/books", {"instId": INSTRUMENT, "sz": "401"}, "51000"),
        ("market/books", {"instId": INSTRUMENT, "sz": "x"}, "51000"),
        ("nothing", {}, "404"),
    ],
)
def test_wrong_calls_have_a_code(path: str, query: dict[str, Any], code: str) -> None:
    assert json.loads(get(venue()[1], path, **query).body)["code"] == code
