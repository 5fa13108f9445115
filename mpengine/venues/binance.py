"""Binance USDⓈ-M futures, wire format of November 2026 (`spec: exchanges`, section 3). Text in, records out.

Routed sockets: books and touch on `/public`, trades, marks and forced orders on `/market`; a stream on the wrong route opens and
stays silent. Since 2026-06-30 array streams and REST carry COIN-M as well: rows count only with `st` absent or 1 and an exact
symbol. Both lives of a rotated socket may deliver the same rows: trades and diffs are dropped by id, forced orders by their
(s, S, T, p, z). A diff with one unreadable level is refused whole: the broken chain makes the book resync, a guess would not.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from mpengine.config import BinanceSettings, IngestSettings
from mpengine.venues.base import ConnectLimit, RestCall, RestResult, RestVerdict, Sampling, SocketPlan, StreamPlan
from mpengine.venues.mapper import UNREADABLE, Mapper, judge_status, read_levels, rest_symbol, sample_of
from mpengine.venues.numbers import BadRow, integer, milliseconds, number, positive, quantity
from shm.records import (
    EventFlag,
    GapScope,
    Kind,
    PositionSide,
    RatioKind,
    TakerSide,
    Venue,
    pack_event,
    pack_gap,
    pack_levels,
    pack_touch,
)

STREAMS_PER_SOCKET: Final = 190  # three sockets with 571x2 streams dropped six times in 21 min: stay under 200
PROBE_ID: Final = 9
PROBE: Final = f'{{"method":"LIST_SUBSCRIPTIONS","id":{PROBE_ID}}}'
REQUEST_ID: Final = 10
SNAPSHOT_LIMIT: Final = 1000
RECENT_DIFFS: Final = 256  # 25 s of 100 ms diffs: longer than two lives of a socket overlap
RECENT_TRADES: Final = 100_000  # ids further back are a venue that began anew, or end the reign of one absurd id
DEPTH_SPEEDS: Final = ("", "@0ms", "@100ms", "@250ms", "@500ms")
RATIOS: Final = {
    "globalLongShortAccountRatio": RatioKind.GLOBAL_ACCOUNTS,
    "topLongShortAccountRatio": RatioKind.TOP_ACCOUNTS,
    "topLongShortPositionRatio": RatioKind.TOP_POSITIONS,
}

_ID: Final = rb"(0|[1-9]\d{0,17})"
_HEADER: Final = re.compile(rb'"E":[1-9]\d{12},"T":([1-9]\d{12}),"s":"([^"\\]+)","U":%b,"u":%b,"pu":%b,"b":\[' % (_ID, _ID, _ID))
_ASKS: Final = b'],"a":['
_PAIR: Final = b'["",""],'
_PAIRS: Final = _PAIR * 4096
_DIGITS: Final = b"0123456789."
_NOT_NUMBER: Final = b'"[]a:'
_PREFIX: Final = b'{"stream":"'

_DEPTH: Final = int(Kind.DEPTH)  # PERF: packing an enum member costs three times as much as packing its number
_BINANCE: Final = int(Venue.BINANCE)

_Handler = Callable[[dict[str, Any], int], int]


@dataclass(frozen=True, slots=True)
class _Stream:
    """What to do with the messages of one stream name.

    `diff_head`, `diff_tails`: how a diff of it begins, and how it may end, in the usual form; empty for other streams.
    """

    name: str
    handle: _Handler
    symbol: str = ""
    venue_symbol: bytes = b""
    diff_head: bytes = b""
    diff_tails: frozenset[bytes] = frozenset()


class Binance(Mapper):
    """`VenueModule` of Binance USDⓈ-M. `names`: our symbol -> theirs; `books`: our symbols that want a book."""

    venue = Venue.BINANCE
    sampling: Sampling = "largest_1s"
    connect_limit = ConnectLimit(burst=10, per_s=1.0)  # 300 attempts in 5 min
    wire_snapshots = False

    def __init__(self, settings: BinanceSettings, ingest: IngestSettings, names: Mapping[str, str], books: frozenset[str]) -> None:
        super().__init__()
        self._settings = settings
        self._ingest = ingest
        self._names = dict(names)
        self._books = books
        self._ours = {theirs: ours for ours, theirs in names.items()}
        self._streams = self._known_streams()
        self._recent_diffs: dict[str, deque[int]] = {ours: deque([0], RECENT_DIFFS) for ours in names}
        self._last_trade: dict[str, tuple[str, int, int]] = {}

    # plans -----------------------------------------------------------------------------------------------------------

    def sockets(self) -> list[SocketPlan]:
        """Two routes, split into sockets of at most STREAMS_PER_SOCKET streams."""
        return self._shard("public", self._public_plans()) + self._shard("market", self._market_plans())

    def _public_plans(self) -> list[StreamPlan]:
        plans = []
        for ours, theirs in self._names.items():
            low = theirs.lower()
            if ours in self._books:
                name = f"{low}@depth@{self._settings.depth_speed}"
                plans.append(StreamPlan(name, ours, Kind.DEPTH, 5, 30, True))
            if self._settings.book_ticker:
                plans.append(StreamPlan(f"{low}@bookTicker", ours, Kind.TOUCH, 30, 120, False))
        return plans

    def _market_plans(self) -> list[StreamPlan]:
        # Forced orders may be silent for minutes; the wrong-route rule of ingest (300 s while trades flow) watches them.
        plans = [StreamPlan("!forceOrder@arr", None, Kind.LIQUIDATION, 120, None, False)]
        for ours, theirs in self._names.items():
            low = theirs.lower()
            plans.append(StreamPlan(f"{low}@{self._settings.trade_stream}", ours, Kind.TRADE, 30, 60, False))
            plans.append(StreamPlan(f"{low}@markPrice@1s", ours, Kind.MARK, 5, 15, True))
        return plans

    def _shard(self, route: str, plans: list[StreamPlan]) -> list[SocketPlan]:
        sockets = []
        for start in range(0, len(plans), STREAMS_PER_SOCKET):
            part = tuple(plans[start : start + STREAMS_PER_SOCKET])
            name = route if start == 0 else f"{route}-{start // STREAMS_PER_SOCKET + 1}"
            streams = "/".join(quote(plan.name, safe="!@") for plan in part)
            sockets.append(SocketPlan(name, f"{self._settings.ws_url}/{route}/stream?streams={streams}", part, probe=PROBE))
        return sockets

    def polls(self) -> list[RestCall]:
        """Open interest, ratios (no REST weight but 1,000 requests in 5 min) and instruments."""
        ingest = self._ingest
        calls = [RestCall("instruments", None, "/fapi/v1/exchangeInfo", 1, interval_s=ingest.instruments_interval_s)]
        for ours, theirs in self._names.items():
            name = quote(theirs)
            path = f"/fapi/v1/openInterest?symbol={name}"
            calls.append(RestCall("open_interest", ours, path, 1, interval_s=ingest.open_interest_interval_s))
            for ratio in RATIOS:
                path = f"/futures/data/{ratio}?symbol={name}&period=5m&limit=1"
                calls.append(RestCall(ratio, ours, path, 0, "futures_data", ingest.ratio_interval_s))
        return calls

    def snapshot_call(self, symbol: str) -> RestCall | None:
        """REST depth, 1,000 levels a side, weight 20."""
        if symbol not in self._books or symbol not in self._names:
            return None
        return RestCall("depth", symbol, f"/fapi/v1/depth?symbol={quote(self._names[symbol])}&limit={SNAPSHOT_LIMIT}", 20)

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Unsubscribe and subscribe a stream: two of the ten messages that the venue takes in a second."""
        if connection in self._texts:
            requests = [{"method": method, "params": [stream], "id": REQUEST_ID} for method in ("UNSUBSCRIBE", "SUBSCRIBE")]
            self._texts[connection] += [orjson.dumps(request).decode() for request in requests]
        return True

    def _symbols(self) -> Iterable[str]:
        return self._names

    # wire in ---------------------------------------------------------------------------------------------------------

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """One combined-stream message `{"stream":…,"data":{…}}`, or the answer to a probe."""
        self.counters.messages += 1
        stream = self._streams.get(payload[11 : payload.find(b'"', 11)]) if payload.startswith(_PREFIX) else None
        try:
            if stream is None:
                self._other(connection, payload, recv_ns)
                return
            # PERF: a depth message in its usual form never becomes Python strings (bench wire: 1.5x the general path).
            venue_ns = self._depth_fast(stream, payload, recv_ns) if stream.diff_head else 0
            if not venue_ns:
                venue_ns = stream.handle(orjson.loads(payload)["data"], recv_ns)
        except UNREADABLE as error:
            self._refused(connection, stream.name if stream else "", error, payload)
            return
        self._delivered(connection, stream.name, recv_ns, venue_ns)

    def _other(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """Anything that is not a known stream: answers to what we ask pass, the rest is counted."""
        message = orjson.loads(payload)
        if not isinstance(message, dict):
            raise BadRow("not_an_object")
        if "stream" in message:
            raise BadRow("unknown_stream")
        if message.get("id") == PROBE_ID and "result" in message:
            self._probes[connection] = recv_ns
            return
        if message.get("id") == REQUEST_ID and message.get("result", False) is None:
            return
        raise BadRow("error_reply" if "error" in message else "not_combined")

    def _known_streams(self) -> dict[bytes, _Stream]:
        known = [_Stream("!forceOrder@arr", self._force_order)]
        for ours, theirs in self._names.items():
            low = theirs.lower()
            if ours in self._books:
                tails = frozenset((b"]}}", b'],"st":1}}', f'],"ps":"{theirs}","st":1}}}}'.encode()))
                for speed in DEPTH_SPEEDS:
                    name = f"{low}@depth{speed}"
                    head = f'{{"stream":"{name}","data":{{"e":"depthUpdate",'.encode()
                    known.append(_Stream(name, self._depth, ours, theirs.encode(), head, tails))
            known += [
                _Stream(f"{low}@aggTrade", self._agg_trade, ours),
                _Stream(f"{low}@trade", self._trade, ours),
                _Stream(f"{low}@markPrice", self._mark, ours),
                _Stream(f"{low}@markPrice@1s", self._mark, ours),
                _Stream(f"{low}@bookTicker", self._book_ticker, ours),
                _Stream(f"{low}@forceOrder", self._force_order, ours),
            ]
        return {stream.name.encode(): stream for stream in known}

    def _symbol(self, row: Mapping[str, Any]) -> str | None:
        """Our symbol of a row; None for COIN-M rows and symbols that are not on the list."""
        if row.get("st", 1) != 1:
            return None
        return self._ours.get(row["s"])

    def _own_symbol(self, row: Mapping[str, Any]) -> str:
        symbol = self._symbol(row)
        if symbol is None:
            raise BadRow("foreign_symbol")
        return symbol

    # depth -----------------------------------------------------------------------------------------------------------

    def _depth_fast(self, stream: _Stream, payload: bytes, recv_ns: int) -> int:
        """A diff in the exact form that Binance sends it; 0 (and nothing done) for any other form, which `_depth` then judges.

        The digits are cut out of the level lists: what remains must be the skeleton of whole pairs, so that no row of another
        shape can shift the pairing. What is left of the text without brackets and quotes is one flat JSON list of numbers.
        """
        if not payload.startswith(stream.diff_head):
            return 0
        header = _HEADER.match(payload, len(stream.diff_head))
        end = payload.rfind(b"]")
        if header is None or payload[end:] not in stream.diff_tails:
            return 0
        levels = payload[header.end() : end]
        skeleton = levels.translate(None, _DIGITS)
        split = skeleton.find(_ASKS)
        bids, asks = (split + 1) // 8, (len(skeleton) - split - 6) // 8
        # n pairs take 8 n - 1 characters, none for an empty side.
        if split < 0 or skeleton != _PAIRS[: max(0, 8 * bids - 1)] + _ASKS + _PAIRS[: max(0, 8 * asks - 1)]:
            return 0
        traded_ms, symbol, first, last, previous = header.groups()
        first_id, last_id = int(first), int(last)
        if symbol != stream.venue_symbol or first_id > last_id:
            return 0
        try:
            # An empty side leaves its comma at the end.
            flat = orjson.loads(b"[" + levels.translate(None, _NOT_NUMBER).strip(b",") + b"]")
        except orjson.JSONDecodeError:
            return 0
        if len(flat) != 2 * (bids + asks):
            return 0
        venue_ns = int(traded_ms) * 1_000_000
        if self._is_new_diff(stream.symbol, last_id):
            packed = array("d", flat).tobytes()
            record = pack_levels(_DEPTH, _BINANCE, 0, venue_ns, recv_ns, first_id, last_id, int(previous), bids, asks, packed)
            self._emit(stream.symbol, record)
        return venue_ns

    def _depth(self, row: dict[str, Any], recv_ns: int) -> int:
        symbol = self._own_symbol(row)
        first, last, previous = integer(row["U"]), integer(row["u"]), integer(row["pu"])
        if first > last:
            raise BadRow("ids_reversed")
        venue_ns = milliseconds(row["T"])
        bids, asks = read_levels(row["b"]), read_levels(row["a"])
        if not self._is_new_diff(symbol, last):
            return venue_ns
        levels = array("d", bids + asks).tobytes()
        self._emit(
            symbol,
            pack_levels(
                Kind.DEPTH, Venue.BINANCE, 0, venue_ns, recv_ns, first, last, previous, len(bids) // 2, len(asks) // 2, levels
            ),
        )
        return venue_ns

    def _is_new_diff(self, symbol: str, last: int) -> bool:
        """False for a diff that the other life of a rotated socket already brought. A real step back passes to the book."""
        recent = self._recent_diffs[symbol]
        if last > recent[-1] or last not in recent:
            recent.append(last)
            return True
        self.counters.count("depth_duplicate")
        return False

    # trades, marks, touch ----------------------------------------------------------------------------------------------

    def _agg_trade(self, row: dict[str, Any], recv_ns: int) -> int:
        return self._any_trade(row, "a", EventFlag.AGGREGATE, recv_ns)

    def _trade(self, row: dict[str, Any], recv_ns: int) -> int:
        # `X` names what made the fill; insurance-fund and ADL fills are no taker flow. Older captures have MARKET only.
        if row.get("X", "MARKET") != "MARKET":
            self.counters.refuse("trade_not_market")
            return milliseconds(row["T"])
        return self._any_trade(row, "t", EventFlag.NONE, recv_ns)

    def _any_trade(self, row: dict[str, Any], id_field: str, flag: EventFlag, recv_ns: int) -> int:
        symbol = self._own_symbol(row)
        number_id, venue_ns = integer(row[id_field]), milliseconds(row["T"])
        price, qty = positive(row["p"]), positive(row["q"])
        maker_bought = row["m"]
        if not isinstance(maker_bought, bool):
            raise BadRow("bad_side")
        if self._is_new_trade(symbol, id_field, number_id, venue_ns, recv_ns):
            # m true: the buyer was the maker, so the taker sold. `q` includes retail fills, which is the taker's volume.
            side = TakerSide.SELL if maker_bought else TakerSide.BUY
            self._emit(symbol, pack_event(Kind.TRADE, Venue.BINANCE, side, flag, venue_ns, recv_ns, number_id, 0, price, qty))
        return venue_ns

    def _is_new_trade(self, symbol: str, id_field: str, number_id: int, venue_ns: int, recv_ns: int) -> bool:
        """False for a trade that the other life of a rotated socket already brought; trades and aggregates never mix.

        Ids of aggregates have no holes, so a jump is trades that were lost, whatever lost them: marked before this one.
        """
        known, last, last_ns = self._last_trade.get(symbol, (id_field, 0, 0))
        if known != id_field:
            self.counters.refuse("second_trade_stream")
            return False
        if last - RECENT_TRADES < number_id <= last and venue_ns <= last_ns:
            self.counters.count("trade_duplicate")
            return False
        if last and id_field == "a" and number_id > last + 1:
            self.counters.count("trade_gap")
            self._emit(symbol, pack_gap(self.venue, GapScope.TRADES, recv_ns))
        self._last_trade[symbol] = (id_field, number_id, venue_ns)
        return True

    def _mark(self, row: dict[str, Any], recv_ns: int) -> int:
        symbol = self._own_symbol(row)
        venue_ns, mark = milliseconds(row["E"]), positive(row["p"])
        flags, funding, index, next_ms = EventFlag.NONE, 0.0, 0.0, 0
        if row.get("r"):  # "" on dated contracts
            flags |= EventFlag.HAS_FUNDING
            funding = number(row["r"])
            next_ms = integer(row.get("T", 0))
        if row.get("i"):
            flags |= EventFlag.HAS_INDEX
            index = positive(row["i"])
        self._emit(symbol, pack_event(Kind.MARK, Venue.BINANCE, 0, flags, venue_ns, recv_ns, 0, next_ms, mark, index, funding))
        return venue_ns

    def _book_ticker(self, row: dict[str, Any], recv_ns: int) -> int:
        symbol = self._own_symbol(row)
        venue_ns = milliseconds(row["T"])
        touch = positive(row["b"]), quantity(row["B"]), positive(row["a"]), quantity(row["A"])
        self._emit(symbol, pack_touch(Venue.BINANCE, venue_ns, recv_ns, integer(row["u"]), *touch))
        return venue_ns

    # liquidations ----------------------------------------------------------------------------------------------------

    def _force_order(self, row: dict[str, Any], recv_ns: int) -> int:
        """`S` is the side of the order: SELL closes a long. `z` filled total; `p` near bankruptcy; `ap` average fill."""
        order = row["o"]
        venue_ns = milliseconds(order["T"])
        symbol = self._symbol(order)
        if symbol is None:
            return venue_ns  # the array stream brings every symbol of both markets: silence is not an error
        side = {"SELL": PositionSide.LONG, "BUY": PositionSide.SHORT}.get(order["S"])
        if side is None:
            raise BadRow("bad_side")
        price, qty, average = positive(order["p"]), positive(order["z"]), quantity(order.get("ap", "0"))
        key = order["s"], order["S"], order["T"], order["p"], order["z"]
        record = pack_event(
            Kind.LIQUIDATION, Venue.BINANCE, side, EventFlag.ORDER_SIDE, venue_ns, recv_ns, 0, 0, price, qty, average
        )
        self._emit_liquidation(symbol, key, recv_ns, record)
        return venue_ns

    # REST ------------------------------------------------------------------------------------------------------------

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """Body of a reply that `judge` found OK; a body that cannot be read is counted."""
        self.counters.messages += 1
        try:
            reply = orjson.loads(body)
            if call.name == "depth":
                self._snapshot(call, reply, recv_ns)
            elif call.name == "open_interest":
                self._open_interest(call, reply, recv_ns)
            elif call.name == "instruments":
                self._instruments(reply, recv_ns)
            elif call.name in RATIOS:
                self._ratio(call, reply, recv_ns)
            else:
                raise BadRow("unknown_call")
        except UNREADABLE as error:
            self._refused("", "", error, body)

    def _snapshot(self, call: RestCall, reply: dict[str, Any], recv_ns: int) -> None:
        if call.symbol not in self._books:
            raise BadRow("foreign_symbol")
        last = integer(reply["lastUpdateId"])
        venue_ns = milliseconds(reply["T"]) if "T" in reply else recv_ns
        bids, asks = read_levels(reply["bids"]), read_levels(reply["asks"])
        if not bids or not asks:
            raise BadRow("empty_snapshot")
        self._emit(
            call.symbol,
            pack_levels(
                Kind.SNAPSHOT, Venue.BINANCE, 0, venue_ns, recv_ns, 0, last, 0, len(bids) // 2, len(asks) // 2,
                array("d", bids + asks).tobytes(),
            ),
        )  # fmt: skip

    def _open_interest(self, call: RestCall, reply: dict[str, Any], recv_ns: int) -> None:
        """`openInterest` is base coin, one-sided."""
        symbol = rest_symbol(call, self._ours.get(reply["symbol"]))
        venue_ns, qty = milliseconds(reply["time"]), positive(reply["openInterest"])
        self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.BINANCE, 0, 0, venue_ns, recv_ns, 0, 0, 0.0, qty))

    def _ratio(self, call: RestCall, reply: list[dict[str, Any]], recv_ns: int) -> None:
        newest = reply[-1]
        symbol = rest_symbol(call, self._ours.get(newest["symbol"]))
        value = positive(newest["longShortRatio"])
        venue_ns = milliseconds(newest["timestamp"] if isinstance(newest["timestamp"], int) else int(newest["timestamp"]))
        self._emit(symbol, pack_event(Kind.RATIO, Venue.BINANCE, RATIOS[call.name], 0, venue_ns, recv_ns, 0, 0, value, 0.0))

    def _instruments(self, reply: dict[str, Any], recv_ns: int) -> None:
        """Tick and lot size of each configured symbol that trades; the others' rows are ignored, a bad row spoils no other."""
        for row in reply["symbols"]:
            try:
                self._instrument(row, recv_ns)
            except (BadRow, KeyError, TypeError, AttributeError) as error:
                self._refused("", "", error, sample_of(row))

    def _instrument(self, row: dict[str, Any], recv_ns: int) -> None:
        symbol = self._symbol({"st": row.get("st", 1), "s": row["symbol"]})
        if symbol is None:
            return
        if row["status"] != "TRADING":
            raise BadRow("not_trading")
        filters = {one["filterType"]: one for one in row["filters"]}
        tick, lot = positive(filters["PRICE_FILTER"]["tickSize"]), positive(filters["LOT_SIZE"]["stepSize"])
        self._emit(symbol, pack_event(Kind.INSTRUMENT, Venue.BINANCE, 0, 0, recv_ns, recv_ns, 0, 0, tick, 1.0, lot))

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """Statuses of `spec: exchanges`, section 11."""
        used = headers.get("x-mbx-used-weight-1m", "")
        weight = int(used) if used.isascii() and used.isdigit() else None
        verdict = judge_status(status, headers, body)
        if status != 200 and b'"code":-2014' in body:
            verdict = RestVerdict(RestResult.UNAUTHORIZED)
        return replace(verdict, used_weight=weight)
