"""Binance mapper: wire cases as data, both depth paths agree, bad input is counted and never raised."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine import venues
from mpengine.config import load
from mpengine.venues.base import RestCall, RestResult
from mpengine.venues.binance import Binance
from shm.records import Decoded, GapScope, Kind, Venue, decode

WIRE = Path(__file__).resolve().parents[1] / "wire" / "binance"
CASES = sorted(path for path in WIRE.rglob("*.json") if not path.name.endswith(".expect.json"))


def binance(text: str = "") -> Binance:
    module = venues.build(load(text, {}))[0]
    assert isinstance(module, Binance)
    return module


def decoded(module: Binance) -> list[tuple[str, Decoded]]:
    return [(routed.symbol, record) for routed in module.events() for record in decode(routed.data)]


def flat(symbol: str, record: Decoded) -> dict[str, Any]:
    return {"symbol": symbol, **record.fields, "kind": record.kind.name, "bid_levels": [list(level) for level in record.bids],
            "ask_levels": [list(level) for level in record.asks]}  # fmt: skip


@pytest.mark.covers("A1-L20", "A2-L3", "R-L2")
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire_case(path: Path) -> None:
    wanted = json.loads(path.with_name(f"{path.stem}.expect.json").read_text(encoding="utf-8"))
    module = binance()
    payload = path.read_bytes().strip()
    if path.parent.name == "rest":
        module.receive_rest(RestCall(wanted["call"], wanted["for_symbol"], "", 1), 200, payload, 7)
    else:
        module.receive("market#1", payload, 7)
    found = [flat(symbol, record) for symbol, record in decoded(module)]
    assert len(found) == len(wanted["expect"])
    for got, expect in zip(found, wanted["expect"]):
        assert {key: got[key] for key in expect} == expect
        assert got["recv_ts_ns"] == 7 and got["venue"] == Venue.BINANCE
    assert module.counters.events == [0, *(sum(one["kind"] == kind.name for one in found) for kind in Kind)]
    assert list(module.counters.reasons) == ([wanted["refused"]] if "refused" in wanted else [])


def depth_message(levels: str, *, tail: str = ',"ps":"BTCUSDT","st":1', ids: tuple[int, int, int] = (10, 20, 9)) -> bytes:
    first, last, previous = ids
    return (
        f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1723161256352,"T":1723161256353,"s":"BTCUSDT",'
        f'"U":{first},"u":{last},"pu":{previous},{levels}{tail}}}}}'
    ).encode()


def by_general_path(payload: bytes) -> tuple[list[Any], bool]:
    """What the general path makes of a message that the fast path is offered first; (records, refused)."""
    module = binance()
    module._depth_fast = lambda stream, payload, recv_ns: 0  # type: ignore[method-assign]
    module.receive("public#1", payload, 5)
    return decoded(module), module.counters.refused > 0


_digits = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,4})?", fullmatch=True)
_odd = st.sampled_from(["", "-1", "1e3", "NaN", "1.2.3", "00.5", ".5", "5.", "abc", "1", "9" * 400, "0", "0.000", "Infinity"])
_number = st.one_of(_digits, _digits, _digits, _odd)
_level = st.one_of(
    st.tuples(_number, _number).map(lambda pair: f'["{pair[0]}","{pair[1]}"]'),
    st.sampled_from(['["1"]', '["1","2","3"]', '["1", "2"]', "[1,2]", "[]", '["1","2"', "null", '[["1","2"]]', '["a:1","2"]']),
)
_side = st.lists(_level, max_size=4).map(",".join)


@settings(max_examples=400)
@given(_side, _side, st.sampled_from(["", ',"st":1', ',"st":2', ',"ps":"BTCUSDT","st":1', ',"x":{"y":[1]}', "]"]))
def test_the_fast_depth_path_never_differs_from_the_general_one(bids: str, asks: str, tail: str) -> None:
    payload = depth_message(f'"b":[{bids}],"a":[{asks}]', tail=tail)
    module = binance()
    module.receive("public#1", payload, 5)
    assert (decoded(module), module.counters.refused > 0) == by_general_path(payload)


def test_the_usual_form_takes_the_fast_path() -> None:
    module = binance()
    stream = module._streams[b"btcusdt@depth@100ms"]
    assert module._depth_fast(stream, depth_message('"b":[["1.5","2"]],"a":[["3","0.000"]]'), 1)
    assert module._depth_fast(stream, depth_message('"b":[],"a":[["3","0.000"]]', ids=(21, 30, 20)), 1)
    assert module._depth_fast(stream, depth_message('"b":[["1.5","2"]],"a":[]', ids=(31, 40, 30)), 1)
    assert module._depth_fast(stream, depth_message('"b":[],"a":[]', ids=(41, 50, 40)), 1)
    assert [(len(record.bids), len(record.asks)) for _, record in decoded(module)] == [(1, 1), (0, 1), (1, 0), (0, 0)]
    assert not module._depth_fast(stream, depth_message('"b":[["1.5","2","9"]],"a":[["3","0.000"]]'), 1)


@pytest.mark.covers("R-M4", "A2-L2", "F9", "S-M5")
@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b"{}", b"5", b'"x"', b"\xff\xfe", b'{"stream":"btcusdt@aggTrade","data":null}', b'{"stream":5}',
     b'{"stream":"btcusdt@aggTrade","data":[1]}', b'{"stream":"nope@depth","data":{}}', b'{"stream":"btcusdt@aggTrade"',
     b'{"stream":"!forceOrder@arr","data":{"o":[]}}', b'{"error":{"code":2},"id":9}', b"[" * 5000, b'{"result":null,"id":1}',
     b'{"stream":"btcusdt@aggTrade","data":{"a":-1,"s":"BTCUSDT","p":"1","q":"1","T":1791391081874,"m":true}}',
     b'{"stream":"btcusdt@aggTrade","data":{"a":1,"s":"BTCUSDT","p":"1","q":"1","T":1791391081,"m":true}}',
     b'{"stream":"btcusdt@aggTrade","data":{"a":1,"s":"BTCUSDT","p":true,"q":"1","T":1791391081874,"m":true}}',
     b'{"stream":"btcusdt@aggTrade","data":{"a":1,"s":"ETHUSDT","p":"1","q":"1","T":1791391081874,"m":1}}'],
)  # fmt: skip
def test_garbage_is_counted_and_the_next_message_works(payload: bytes) -> None:
    module = binance()
    module.receive("market#1", payload, 1)
    assert (module.events(), module.counters.refused) == ([], 1)
    module.receive("market#1", CASES[0].read_bytes(), 2)
    assert len(module.events()) == 1


@pytest.mark.covers("F9")
def test_mutated_messages_never_raise_and_never_make_a_wrong_record() -> None:
    rng = random.Random(4)
    originals = [path.read_bytes().strip() for path in CASES if path.parent.name != "rest"]
    module = binance()
    for _ in range(20_000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case _:
                    data[at:at] = bytes(rng.randrange(32, 127) for _ in range(rng.randint(1, 4)))
            if not data:
                break
        module.receive("market#1", bytes(data), 1)
        for symbol, record in decoded(module):
            assert symbol in ("BTC", "ETH")
            for price, qty in (*record.bids, *record.asks):
                assert 0.0 <= price < 1e300 and 0.0 <= qty < 1e300
    assert module.counters.refused > 1000


@pytest.mark.captures
def test_every_message_of_the_captures_is_read(captures: Path) -> None:
    for name in ("binance_usdm_btcusdt_20230404.gz", "binance_usdm_ethusdt_20240719.gz"):
        module = binance('[venues.binance]\ntrade_stream = "trade"\n')
        counts: dict[Kind, int] = {}
        depth = 0
        with gzip.open(captures / name, "rb") as file:
            for line in file:
                payload = line.partition(b" ")[2].strip()
                if b'"stream"' not in payload[:12]:
                    continue
                depth += b'"depthUpdate"' in payload
                module.receive("public#1", payload, 1)
                for _, record in decoded(module):
                    counts[record.kind] = counts.get(record.kind, 0) + 1
                    if record.kind is Kind.DEPTH:
                        data = orjson.loads(payload)["data"]
                        assert record.bids == [(float(p), float(q)) for p, q in data["b"]]
                        assert record.asks == [(float(p), float(q)) for p, q in data["a"]]
                        assert (record.fields["first_seq"], record.fields["seq"], record.fields["prev_seq"]) == (
                            data["U"], data["u"], data["pu"],
                        )  # fmt: skip
        assert counts[Kind.DEPTH] == depth > 4000
        assert set(module.counters.reasons) <= {"trade_not_market"}


def test_duplicates_of_a_rotated_socket_are_dropped_once() -> None:
    module = binance()
    trade = (WIRE / "agg_trade" / "001.json").read_bytes()
    forced = (WIRE / "force_order" / "001.json").read_bytes()
    diff = (WIRE / "depth" / "001.json").read_bytes()
    for message in (trade, forced, diff):
        module.receive("market#1", message, 1)
        module.receive("market#2", message, 2)
    assert len(module.events()) == 3
    assert {key: module.counters.reasons[key] for key in ("trade_duplicate", "liq_duplicate", "depth_duplicate")} == {
        "trade_duplicate": 1, "liq_duplicate": 1, "depth_duplicate": 1,
    }  # fmt: skip


def test_a_liquidation_key_is_forgotten_after_15_minutes_and_the_memory_is_bounded() -> None:
    module = binance()
    forced = (WIRE / "force_order" / "001.json").read_bytes()
    module.receive("market#1", forced, 0)
    module.receive("market#1", forced, 16 * 60 * 10**9)
    assert len(module.events()) == 2
    for number in range(25_000):
        assert module._liquidations_seen.is_new(("BTCUSDT", "SELL", number, "1", "1"), 17 * 60 * 10**9)
    assert len(module._liquidations_seen) <= 20_000


def test_a_lost_aggregate_is_counted_and_marks_the_hole() -> None:
    module = binance()
    message = json.loads((WIRE / "agg_trade" / "001.json").read_bytes())
    for number in (10, 11, 14):
        message["data"]["a"], message["data"]["T"] = number, 1791391081874 + number
        module.receive("market#1", orjson.dumps(message), 1)
    assert module.counters.reasons == {"trade_gap": 1}
    events = [event for _, event in decoded(module)]
    assert [event.kind for event in events] == [Kind.TRADE, Kind.TRADE, Kind.GAP, Kind.TRADE]
    assert events[2].fields["side"] == GapScope.TRADES


@pytest.mark.covers("F9")
def test_one_absurd_trade_does_not_make_all_later_ones_duplicates() -> None:
    module = binance()
    message = json.loads((WIRE / "agg_trade" / "001.json").read_bytes())
    first_ms = 1791391081874
    # The second absurd time does not even fit a record.
    absurd = (10**17, 9_000_000_000_000), (10**17 + 1, 9_999_999_999_999)
    for number, at_ms in ((10, first_ms), absurd[0], (11, first_ms + 1), absurd[1], (12, first_ms + 2)):
        message["data"]["a"], message["data"]["T"] = number, at_ms
        module.receive("market#1", orjson.dumps(message), 1)
    assert [event.fields["seq"] for _, event in decoded(module) if event.kind is Kind.TRADE] == [10, 10**17, 11, 12]


def test_trades_and_aggregates_are_never_added_up() -> None:
    module = binance()
    message = json.loads((WIRE / "agg_trade" / "001.json").read_bytes())
    module.receive("market#1", orjson.dumps(message), 1)
    single = {"stream": "btcusdt@trade", "data": {**message["data"], "t": 99, "X": "MARKET"}}
    module.receive("market#1", orjson.dumps(single), 2)
    assert len(module.events()) == 1 and module.counters.reasons == {"second_trade_stream": 1}


def test_routed_urls_and_shards() -> None:
    public, market = binance().sockets()
    assert public.url == (
        "wss://fstream.binance.com/public/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms/solusdt@depth@100ms"
    )
    assert market.url.startswith("wss://fstream.binance.com/market/stream?streams=!forceOrder@arr/btcusdt@aggTrade/")
    many = "\n".join(f"[symbols.S{n}]\nstep = 1.0\ntick = 0.1" for n in range(120))
    sockets = binance(many).sockets()
    assert [socket.name for socket in sockets] == ["public", "market", "market-2"]
    assert all(len(socket.streams) <= 190 for socket in sockets)
    assert sum(len(socket.streams) for socket in sockets) == 120 + 1 + 240


def test_a_lost_socket_leaves_a_gap_in_each_of_its_symbols() -> None:
    module = binance()
    module.opened("public#1", 1)
    module.lost("public#1", 5, replaced=False)
    gaps = decoded(module)
    assert [(symbol, record.kind, record.fields["side"], record.fields["recv_ts_ns"]) for symbol, record in gaps] == [
        (symbol, Kind.GAP, GapScope.BOOK, 5) for symbol in ("BTC", "ETH", "SOL")
    ]
    module.lost("market#1", 6, replaced=True)
    assert module.events() == []


def test_probe_answers_and_stream_statistics() -> None:
    module = binance()
    module.opened("market#3", 1)
    module.receive("market#3", b'{"result":["btcusdt@aggTrade"],"id":9}', 77)
    assert module.probe_reply("market#3") == 77 and module.probe_reply("market#4") == 0
    module.receive("market#3", (WIRE / "agg_trade" / "001.json").read_bytes(), 80)
    module.receive("market#3", (WIRE / "agg_trade" / "003.json").read_bytes(), 90)
    stats = module.stats("market#3")["btcusdt@aggTrade"]
    assert (stats.messages, stats.errors, stats.last_recv_ns, stats.last_venue_ns) == (1, 1, 80, 1791391081874000000)


def test_a_stream_is_taken_anew_with_two_requests_whose_answers_are_no_errors() -> None:
    module = binance()
    assert module.resubscribe("market#1", "ethusdt@aggTrade", 1) and module.data_to_send("market#1") == [], "it is not open"
    module.opened("market#1", 1)
    assert module.resubscribe("market#1", "ethusdt@aggTrade", 2)
    texts = [orjson.loads(text) for text in module.data_to_send("market#1")]
    assert [(text["method"], text["params"]) for text in texts] == [
        ("UNSUBSCRIBE", ["ethusdt@aggTrade"]),
        ("SUBSCRIBE", ["ethusdt@aggTrade"]),
    ]
    number = texts[0]["id"]
    module.receive("market#1", orjson.dumps({"result": None, "id": number}), 3)
    assert module.counters.reasons == {} and module.probe_reply("market#1") == 0
    module.receive("market#1", orjson.dumps({"error": {"code": 2, "msg": "no"}, "id": number}), 4)
    assert module.counters.reasons == {"error_reply": 1}


@pytest.mark.parametrize(
    ("status", "headers", "body", "result", "retry", "weight"),
    [
        (200, {"x-mbx-used-weight-1m": "41"}, b"{}", RestResult.OK, None, 41),
        (429, {"retry-after": "7"}, b"", RestResult.LIMITED, 7.0, None),
        (418, {"retry-after": "120"}, b"", RestResult.BANNED, 120.0, None),
        (451, {}, b"", RestResult.BLOCKED, None, None),
        (403, {}, b"Service unavailable from a restricted location", RestResult.BLOCKED, None, None),
        (403, {}, b"WAF", RestResult.FIREWALL, None, None),
        (401, {}, b'{"code":-2014}', RestResult.UNAUTHORIZED, None, None),
        (400, {}, b'{"code":-1121}', RestResult.REFUSED, None, None),
        (400, {}, b'{"code":-2014,"msg":""}', RestResult.UNAUTHORIZED, None, None),
        (404, {}, b"", RestResult.REFUSED, None, None),
        (408, {}, b"", RestResult.TRANSIENT, None, None),
        (503, {"retry-after": "soon"}, b"", RestResult.TRANSIENT, None, None),
    ],
)
def test_judgement_of_rest_replies(
    status: int, headers: dict[str, str], body: bytes, result: RestResult, retry: float | None, weight: int | None
) -> None:
    verdict = binance().judge(RestCall("depth", "BTC", "", 20), status, headers, body)
    assert (verdict.result, verdict.retry_after_s, verdict.used_weight) == (result, retry, weight)


def test_snapshot_calls_and_polls() -> None:
    module = binance("[symbols.BTC]\n[symbols.ETH]\nhas_orderbook = false\n")
    call = module.snapshot_call("BTC")
    assert call is not None and (call.path, call.weight) == ("/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20)
    assert module.snapshot_call("ETH") is None and module.snapshot_call("XYZ") is None
    polls = module.polls()
    assert [poll.name for poll in polls].count("open_interest") == 2
    assert all(poll.budget == "futures_data" and poll.weight == 0 for poll in polls if "Ratio" in poll.name)
    assert [stream.name for stream in module.sockets()[0].streams] == ["btcusdt@depth@100ms"]


def test_the_endpoints_are_the_documented_routes() -> None:
    """The shipped table of paths against the documented ones (spec: exchanges, section 3)."""
    paths = {call.path.partition("?")[0] for call in binance().polls()}
    assert paths == {
        "/fapi/v1/exchangeInfo", "/fapi/v1/openInterest", "/futures/data/globalLongShortAccountRatio",
        "/futures/data/topLongShortAccountRatio", "/futures/data/topLongShortPositionRatio",
    }  # fmt: skip


def test_a_bad_instrument_row_spoils_no_other() -> None:
    def row(symbol: str, **change: Any) -> dict[str, Any]:
        filters = [{"filterType": "PRICE_FILTER", "tickSize": "0.10"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]
        return {"symbol": symbol, "status": "TRADING", "filters": filters, **change}

    module = binance()
    rows = [
        row("BTCUSDT", filters=[]),
        "x",
        row("BTCUSD_PERP"),
        row("ETHUSDT", status="BREAK"),
        row("SOLUSDT", st=2),
        row("SOLUSDT"),
    ]
    module.receive_rest(RestCall("instruments", None, "", 1), 200, json.dumps({"symbols": rows}).encode(), 7)
    ((symbol, record),) = decoded(module)
    assert (symbol, record.kind, record.fields["price"]) == ("SOL", Kind.INSTRUMENT, 0.1)
    assert module.counters.reasons == {"missing_field": 1, "wrong_type": 1, "not_trading": 1}
