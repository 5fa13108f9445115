"""OKX v5 perpetual swaps, wire format of November 2026 (`spec: exchanges`, section 5). Text in, records out.

Every quantity on the wire is in contracts. Nothing but `instruments` is subscribed before the contract sizes are known, by REST or
by that channel; a swap without a known size is refused and counted, never taken as 1. While two lives of a socket overlap, a
symbol's diffs come from the life with the newest snapshot.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson

from mpengine.config import IngestSettings, OkxSettings
from mpengine.venues.base import ConnectLimit, RestCall, RestResult, RestVerdict, Sampling, SocketPlan, StreamPlan, plan_of
from mpengine.venues.mapper import UNREADABLE, Mapper, Seen, judge_status, read_levels, rest_symbol, sample_of
from mpengine.venues.numbers import BadRow, milliseconds, number, positive
from shm.records import EventFlag, GapScope, Kind, PositionSide, TakerSide, Venue, pack_event, pack_gap, pack_levels

BOOKS_PER_SOCKET: Final = 25  # the venue wants fewer than 30
PING: Final = "ping"
PONG: Final = b"pong"
PING_S: Final = 20.0
INSTRUMENTS: Final = "instruments"
LIQUIDATIONS: Final = "liquidation-orders"
ARGS_PER_REQUEST: Final = 100  # some 6 KB, of 64 allowed
REQUESTS_PER_HOUR: Final = 400  # of the 480 that the venue allows on a connection
HOUR_NS: Final = 3600 * 10**9
SNAPSHOT_WAIT_NS: Final = 3 * 10**9
REPLAY_WINDOW_NS: Final = 10 * 10**9
REPLAY_AGE_NS: Final = 60 * 10**9
BOOK_LEVELS: Final = 400
LIMIT_CODE: Final = "50011"
UPGRADE_NOTICE: Final = "64008"
POSITIONS: Final = {"long": PositionSide.LONG, "short": PositionSide.SHORT}
ORDERS: Final = {"sell": PositionSide.LONG, "buy": PositionSide.SHORT}
TAKERS: Final = {"buy": TakerSide.BUY, "sell": TakerSide.SELL}

_Handler = Callable[[str, dict[str, Any], int], int]


@dataclass(frozen=True, slots=True)
class Contract:
    """One live linear swap. `size`: base coin per contract; `tick` USD; `lot` base coin."""

    size: float
    tick: float
    lot: float


@dataclass(slots=True)
class _Connection:
    """What a connection has asked for. `acked_ns`: book streams without a snapshot so far -> time of their acknowledgement."""

    opened_ns: int
    subscribed: bool = False
    liquidations_acked_ns: int | None = None
    acked_ns: dict[str, int] = field(default_factory=dict)
    requests_ns: deque[int] = field(default_factory=deque)


class Okx(Mapper):
    """`VenueModule` of OKX swaps. `names`: our symbol -> instId; `books`: our symbols whose book is wanted.

    `contract_values`: our symbol -> the size it is expected to have; another one is used all the same, and counted.
    """

    venue = Venue.OKX
    sampling: Sampling = "partial"
    connect_limit = ConnectLimit(burst=3, per_s=1.0)  # 3 connects a second
    wire_snapshots = True

    def __init__(
        self, settings: OkxSettings, ingest: IngestSettings, names: Mapping[str, str], books: frozenset[str],
        contract_values: Mapping[str, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self._settings = settings
        self._ingest = ingest
        self._names = dict(names)
        self._books = books
        self._expected = dict(contract_values)
        self._ours = {theirs: ours for ours, theirs in names.items()}
        self.contracts: Mapping[str, Contract] = MappingProxyType({})
        self._plans_by_name = {plan.name: plan for plan in self.sockets()}
        self._unlisted: frozenset[str] = frozenset()
        self._connections: dict[str, _Connection] = {}
        self._owners: dict[str, str] = {}
        self._funding: dict[str, tuple[float, int]] = {}
        self._trades_seen = Seen()
        self._replacements: list[str] = []
        self._handlers: dict[str, _Handler] = {
            INSTRUMENTS: self._instruments_pushed,
            LIQUIDATIONS: self._liquidations,
            "trades": self._trades,
            "mark-price": self._mark,
            "funding-rate": self._funding_rate,
            "open-interest": self._open_interest_pushed,
        }

    # plans -----------------------------------------------------------------------------------------------------------

    def sockets(self) -> list[SocketPlan]:
        """One socket per BOOKS_PER_SOCKET symbols; the venue-wide channels are on the first."""
        url = f"{self._settings.ws_url}/ws/v5/public"
        symbols = list(self._names)
        sockets = []
        for start in range(0, max(1, len(symbols)), BOOKS_PER_SOCKET):
            name = "public" if start == 0 else f"public-{start // BOOKS_PER_SOCKET + 1}"
            plans = [StreamPlan(LIQUIDATIONS, None, Kind.LIQUIDATION, 900, 1800, False)] if start == 0 else []
            for ours in symbols[start : start + BOOKS_PER_SOCKET]:
                plans += self._plans_of(ours, self._names[ours])
            texts = (_request("subscribe", [{"channel": INSTRUMENTS, "instType": "SWAP"}]),)
            sockets.append(SocketPlan(name, url, tuple(plans), texts, PING, PING_S))
        return sockets

    def _plans_of(self, ours: str, theirs: str) -> list[StreamPlan]:
        own, plans = self._settings, []
        if ours in self._books:
            # An idle book repeats its id once a minute.
            plans.append(StreamPlan(f"books:{theirs}", ours, Kind.DEPTH, 70, 90, True, "resubscribe"))
        if own.trades:
            plans.append(StreamPlan(f"trades:{theirs}", ours, Kind.TRADE, 60, 120, False, "resubscribe"))
        if own.mark_price:
            plans.append(StreamPlan(f"mark-price:{theirs}", ours, Kind.MARK, 15, 30, False, "resubscribe"))
        if own.funding:
            plans.append(StreamPlan(f"funding-rate:{theirs}", ours, Kind.MARK, 180, 300, False, "resubscribe"))
        if own.open_interest:
            plans.append(StreamPlan(f"open-interest:{theirs}", ours, Kind.OPEN_INTEREST, 60, 180, False, "resubscribe"))
        return plans

    def polls(self) -> list[RestCall]:
        """Instruments and the open interest of each symbol."""
        path = "/api/v5/public/instruments?instType=SWAP"
        calls = [RestCall("instruments", None, path, 1, interval_s=self._ingest.instruments_interval_s)]
        for ours, theirs in self._names.items():
            path = f"/api/v5/public/open-interest?instType=SWAP&instId={theirs}"
            calls.append(RestCall("open_interest", ours, path, 1, interval_s=self._ingest.open_interest_interval_s))
        return calls

    def snapshot_call(self, symbol: str) -> RestCall | None:
        """The book by REST: only for a subscription that brought none."""
        if symbol not in self._books:
            return None
        return RestCall("depth", symbol, f"/api/v5/market/books?instId={self._names[symbol]}&sz={BOOK_LEVELS}", 1)

    def snapshots_overdue(self, recv_ns: int) -> list[str]:
        """Books whose subscription was acknowledged 3 s ago and that have no snapshot."""
        overdue = []
        for connection in self._connections.values():
            for stream, acked_ns in list(connection.acked_ns.items()):
                if recv_ns - acked_ns >= SNAPSHOT_WAIT_NS:
                    del connection.acked_ns[stream]
                    self.counters.count("snapshot_overdue")
                    overdue.append(self._ours[stream.partition(":")[2]])
        return overdue

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Unsubscribe and subscribe a stream; False when the hour's requests of this connection are used up."""
        known = self._connections.get(connection)
        if known is None or not known.subscribed:
            return True
        if not self._spend(known, 2, recv_ns):
            self.counters.count("resubscribe_budget")
            return False
        arg = _arg(stream)
        self._texts[connection] += [_request(operation, [arg]) for operation in ("unsubscribe", "subscribe")]
        return True

    @staticmethod
    def _spend(connection: _Connection, requests: int, now_ns: int) -> bool:
        spent = connection.requests_ns
        while spent and spent[0] <= now_ns - HOUR_NS:
            spent.popleft()
        if len(spent) + requests > REQUESTS_PER_HOUR:
            return False
        spent.extend([now_ns] * requests)
        return True

    def unlisted(self) -> frozenset[str]:
        """Streams of swaps that are not live, or no linear contract of ours. None while no size is known at all."""
        return self._unlisted

    def replacements_wanted(self) -> list[str]:
        """Connections that the venue has announced to close for an upgrade."""
        drained, self._replacements = self._replacements, []
        return drained

    def _symbols(self) -> Iterable[str]:
        return self._names

    # connections -----------------------------------------------------------------------------------------------------

    def opened(self, connection: str, recv_ns: int) -> None:
        """A connection begins; if the sizes are known already, its streams are asked for at once."""
        super().opened(connection, recv_ns)
        self._connections[connection] = _Connection(recv_ns)
        self._subscribe_waiting(recv_ns)

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        """Forget the connection; books that only it carried have a hole, which another life of its plan is asked to fill."""
        super().lost(connection, recv_ns, replaced=replaced)
        self._connections.pop(connection, None)
        others = [name for name in self._connections if plan_of(name) == plan_of(connection)]
        for symbol in [symbol for symbol, owner in self._owners.items() if owner == connection]:
            del self._owners[symbol]
            if replaced:
                self._emit(symbol, pack_gap(self.venue, GapScope.BOOK, recv_ns))
            for other in others:
                self.resubscribe(other, f"books:{self._names[symbol]}", recv_ns)

    def _subscribe_waiting(self, recv_ns: int) -> None:
        """Ask for everything on connections that have not, once the sizes are known."""
        if not self.contracts:
            return
        for name, connection in self._connections.items():
            plan = self._plans_by_name.get(plan_of(name))
            if connection.subscribed or plan is None:
                continue
            connection.subscribed = True
            args = [_arg(stream.name) for stream in plan.streams]
            for start in range(0, len(args), ARGS_PER_REQUEST):
                self._spend(connection, 1, recv_ns)
                self._texts[name].append(_request("subscribe", args[start : start + ARGS_PER_REQUEST]))

    # wire in ---------------------------------------------------------------------------------------------------------

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """One message of a channel, an event, or the text `pong`."""
        self.counters.messages += 1
        if payload == PONG:
            self._probes[connection] = recv_ns
            return
        name = ""
        try:
            message = orjson.loads(payload)
            if not isinstance(message, dict):
                raise BadRow("not_an_object")
            if "event" in message:
                self._event(connection, message, recv_ns)
                return
            arg = message["arg"]
            channel = arg["channel"]
            if channel == "books":
                name = f"books:{arg['instId']}"
                venue_ns = self._book(connection, arg, message, recv_ns)
            else:
                handler = self._handlers.get(channel)
                if handler is None:
                    raise BadRow("unknown_stream")
                name = f"{channel}:{arg['instId']}" if "instId" in arg else channel
                venue_ns = handler(connection, message, recv_ns)
        except UNREADABLE as error:
            self._refused(connection, name, error, payload)
            return
        self._delivered(connection, name, recv_ns, venue_ns)

    def _event(self, connection: str, message: dict[str, Any], recv_ns: int) -> None:
        event = message["event"]
        if event == "notice":
            if message.get("code") == UPGRADE_NOTICE:
                self.counters.count("upgrade_notice")
                self._replacements.append(connection)
            return
        if event == "unsubscribe":
            return
        if event != "subscribe":
            raise BadRow("error_reply")
        known, arg = self._connections.get(connection), message["arg"]
        if known is None:
            return
        if arg["channel"] == LIQUIDATIONS:
            known.liquidations_acked_ns = recv_ns
        elif arg["channel"] == "books" and self._ours.get(arg["instId"]) in self._books:
            known.acked_ns[f"books:{arg['instId']}"] = recv_ns

    def _each(self, name: str, connection: str, message: dict[str, Any], read: Callable[[Any], int]) -> int:
        """Rows one by one: a bad one never costs its neighbours. Returns the newest venue time of the rows."""
        rows = message["data"]
        if not isinstance(rows, list):
            raise BadRow("not_a_list")
        newest = 0
        for row in rows:
            try:
                newest = max(newest, read(row))
            except UNREADABLE as error:
                self._refused(connection, name, error, sample_of(row))
        return newest

    def _known(self, instrument: Any) -> tuple[str, Contract] | None:
        """(our symbol, its contract); None for an instrument that is not on the list. Raises BadRow where its size is unknown."""
        symbol = self._ours.get(instrument)
        if symbol is None:
            return None
        contract = self.contracts.get(symbol)
        if contract is None:
            raise BadRow("unknown_contract")
        return symbol, contract

    def _own(self, instrument: Any) -> tuple[str, Contract]:
        known = self._known(instrument)
        if known is None:
            raise BadRow("foreign_symbol")
        return known

    # book ------------------------------------------------------------------------------------------------------------

    def _book(self, connection: str, arg: dict[str, Any], message: dict[str, Any], recv_ns: int) -> int:
        """`prevSeqId` chains; -1 marks a snapshot; `checksum` is fixed to 0 and means nothing."""
        symbol, contract = self._own(arg["instId"])
        if symbol not in self._books:
            raise BadRow("foreign_symbol")
        venue_ns = 0
        for row in message["data"]:
            venue_ns = _time(row["ts"])
            last, previous = _sequence(row["seqId"]), row["prevSeqId"]
            kind, flags = Kind.DEPTH, 0
            if message["action"] == "snapshot" or previous == -1:
                kind, previous = Kind.SNAPSHOT, 0
                self._owners[symbol] = connection
                if connection in self._connections:
                    self._connections[connection].acked_ns.pop(f"books:{arg['instId']}", None)
            elif message["action"] != "update":
                raise BadRow("unknown_type")
            elif self._owners.setdefault(symbol, connection) != connection:
                self.counters.count("depth_duplicate")
                continue
            record = self._levels(kind, flags, contract, row, venue_ns, recv_ns, last, _sequence(previous))
            self._emit(symbol, record)
        return venue_ns

    @staticmethod
    def _levels(
        kind: Kind, flags: int, contract: Contract, row: Mapping[str, Any], venue_ns: int, recv_ns: int, last: int, previous: int
    ) -> bytes:
        bids, asks = read_levels(row["bids"]), read_levels(row["asks"])
        if kind is Kind.SNAPSHOT and not (bids and asks):
            raise BadRow("empty_snapshot")
        flat = array("d", bids + asks)
        for at in range(1, len(flat), 2):
            flat[at] *= contract.size
        counts = len(bids) // 2, len(asks) // 2
        return pack_levels(kind, Venue.OKX, flags, venue_ns, recv_ns, last, last, previous, *counts, flat.tobytes())

    # trades, marks, liquidations -------------------------------------------------------------------------------------

    def _trades(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        def read(row: Any) -> int:
            symbol, contract = self._own(row["instId"])
            side = TAKERS.get(row["side"])
            if side is None:
                raise BadRow("bad_side")
            venue_ns, price = _time(row["ts"]), positive(row["px"])
            qty, identity = positive(row["sz"]) * contract.size, _sequence(_integer(row["tradeId"]))
            if not self._trades_seen.is_new((symbol, identity), recv_ns):
                self.counters.count("trade_duplicate")
                return venue_ns
            self._emit(
                symbol, pack_event(Kind.TRADE, Venue.OKX, side, EventFlag.AGGREGATE, venue_ns, recv_ns, identity, 0, price, qty)
            )
            return venue_ns

        return self._each(f"trades:{message['arg']['instId']}", connection, message, read)

    def _mark(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        def read(row: Any) -> int:
            symbol = self._ours.get(row["instId"])
            if symbol is None:
                raise BadRow("foreign_symbol")
            venue_ns, mark = _time(row["ts"]), positive(row["markPx"])
            flags, rate, next_ms = EventFlag.NONE, 0.0, 0
            if symbol in self._funding:
                flags = EventFlag.HAS_FUNDING
                rate, next_ms = self._funding[symbol]
            self._emit(symbol, pack_event(Kind.MARK, Venue.OKX, 0, flags, venue_ns, recv_ns, 0, next_ms, mark, 0.0, rate))
            return venue_ns

        return self._each(f"mark-price:{message['arg']['instId']}", connection, message, read)

    def _funding_rate(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        """Kept for the marks, which are what carries it."""

        def read(row: Any) -> int:
            symbol = self._ours.get(row["instId"])
            if symbol is None:
                raise BadRow("foreign_symbol")
            self._funding[symbol] = number(row["fundingRate"]), _integer(row["fundingTime"])
            return _time(row["ts"]) if row.get("ts") else recv_ns

        return self._each(f"funding-rate:{message['arg']['instId']}", connection, message, read)

    def _open_interest_pushed(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        """For display: pushed values never enter the sum of polled ones."""

        def read(row: Any) -> int:
            symbol = self._ours.get(row["instId"])
            if symbol is None:
                raise BadRow("foreign_symbol")
            return self._emit_interest(symbol, row, EventFlag.DISPLAY, recv_ns)

        return self._each(f"open-interest:{message['arg']['instId']}", connection, message, read)

    def _emit_interest(self, symbol: str, row: Mapping[str, Any], flag: EventFlag, recv_ns: int) -> int:
        """`oiCcy` is coins; `oi` counts contracts and is never used."""
        venue_ns, qty = _time(row["ts"]), positive(row["oiCcy"])
        self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.OKX, 0, flag, venue_ns, recv_ns, 0, 0, 0.0, qty))
        return venue_ns

    def _liquidations(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        """The channel carries all swaps: exactly ours count. Old rows that a subscription replays are dropped, late ones kept."""
        known = self._connections.get(connection)
        acked_ns = None if known is None else known.liquidations_acked_ns
        replaying = known is not None and (acked_ns is None or recv_ns - acked_ns <= REPLAY_WINDOW_NS)
        oldest_ns = known.opened_ns - REPLAY_AGE_NS if known is not None and replaying else 0

        def read_instrument(row: Any) -> int:
            swap = self._known(row["instId"])
            if swap is None:
                return 0  # the channel brings every swap: silence is not an error
            newest, counts = 0, dict[tuple[Any, ...], int]()
            for detail in row["details"]:
                try:
                    newest = max(newest, self._liquidation(row["instId"], *swap, detail, counts, oldest_ns, recv_ns))
                except UNREADABLE as error:
                    self._refused(connection, LIQUIDATIONS, error, sample_of(detail))
            return newest

        return self._each(LIQUIDATIONS, connection, message, read_instrument)

    def _liquidation(
        self, instrument: str, symbol: str, contract: Contract, row: Mapping[str, Any], counts: dict[tuple[Any, ...], int],
        oldest_ns: int, recv_ns: int,
    ) -> int:  # fmt: skip
        venue_ns, price, qty = _time(row["ts"]), positive(row["bkPx"]), positive(row["sz"]) * contract.size
        side, flags = self._side(row)
        key = instrument, row["ts"], row.get("posSide"), row.get("side"), row["sz"], row["bkPx"]
        counts[key] = counts.get(key, 0) + 1
        if venue_ns < oldest_ns:
            self.counters.count("liq_replayed")
            return venue_ns
        record = pack_event(Kind.LIQUIDATION, Venue.OKX, side, flags, venue_ns, recv_ns, 0, 0, price, qty)
        self._emit_liquidation(symbol, (*key, counts[key]), recv_ns, record)
        return venue_ns

    def _side(self, row: Mapping[str, Any]) -> tuple[PositionSide, EventFlag]:
        """`posSide` is the position's; only where it is `net` or absent the order's side decides. Raises BadRow."""
        position, order = row.get("posSide"), row.get("side")
        by_order = ORDERS.get(order) if isinstance(order, str) else None
        if position in (None, "", "net"):
            if by_order is None:
                raise BadRow("bad_side")
            return by_order, EventFlag.ORDER_SIDE
        side = POSITIONS.get(position) if isinstance(position, str) else None
        if side is None:
            raise BadRow("bad_side")
        if by_order is not None and by_order is not side:
            self.counters.count("okx_side_conflict")
        return side, EventFlag.NONE

    # instruments -----------------------------------------------------------------------------------------------------

    def _instruments_pushed(self, connection: str, message: dict[str, Any], recv_ns: int) -> int:
        self._take_instruments(message["data"], recv_ns, whole=False)
        return 0

    def _take_instruments(self, rows: Sequence[Any], recv_ns: int, *, whole: bool) -> None:
        """New sizes, exchanged as one object. `whole`: the list names every instrument, so one that it lacks is gone."""
        if not isinstance(rows, list):
            raise BadRow("not_a_list")
        if whole and not rows:
            raise BadRow("no_instruments")  # the venue has hundreds: an empty list is a fault of theirs, and the sizes stay
        contracts = {} if whole else dict(self.contracts)
        changed: list[str] = []
        for row in rows:
            instrument = row.get("instId") if isinstance(row, dict) else None
            symbol = self._ours.get(instrument) if isinstance(instrument, str) else None
            if symbol is None:
                continue
            contracts.pop(symbol, None)
            try:
                contracts[symbol] = self._contract(symbol, row)
                changed.append(symbol)
            except UNREADABLE as error:
                self._refused("", "", error, sample_of(row))
        self.contracts = MappingProxyType(contracts)
        plans = [plan for socket in self._plans_by_name.values() for plan in socket.streams if contracts]
        self._unlisted = frozenset(plan.name for plan in plans if plan.symbol is not None and plan.symbol not in contracts)
        for symbol in changed:
            one = contracts[symbol]
            self._emit(symbol, pack_event(Kind.INSTRUMENT, Venue.OKX, 0, 0, recv_ns, recv_ns, 0, 0, one.tick, one.size, one.lot))
        self._subscribe_waiting(recv_ns)

    def _contract(self, symbol: str, row: Mapping[str, Any]) -> Contract:
        if row["ctType"] != "linear":
            raise BadRow("not_linear")
        if row["state"] != "live":
            raise BadRow("not_trading")
        base = self._names[symbol].partition("-")[0]
        if row["ctValCcy"] != base:
            raise BadRow("foreign_contract_currency")
        size = positive(row["ctVal"]) * positive(row["ctMult"])
        expected = self._expected.get(symbol)
        if expected is not None and abs(size - expected) > 1e-9 * expected:
            self.counters.count("contract_value_differs")
            self.counters.samples["contract_value_differs"] = f"{symbol}: {size:g} instead of {expected:g}"
        return Contract(size, positive(row["tickSz"]), positive(row["lotSz"]) * size)

    # REST ------------------------------------------------------------------------------------------------------------

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """Body of a reply that `judge` found OK; a body that cannot be read is counted."""
        self.counters.messages += 1
        try:
            rows = orjson.loads(body)["data"]
            if call.name == "instruments":
                self._take_instruments(rows, recv_ns, whole=True)
            elif call.name == "open_interest":
                symbol = rest_symbol(call, self._ours.get(rows[0]["instId"]))
                self._emit_interest(symbol, rows[0], EventFlag.NONE, recv_ns)
            elif call.name == "depth":
                self._snapshot(call, rows[0], recv_ns)
            else:
                raise BadRow("unknown_call")
        except UNREADABLE as error:
            self._refused("", "", error, body)

    def _snapshot(self, call: RestCall, row: Mapping[str, Any], recv_ns: int) -> None:
        symbol = call.symbol
        if symbol is None or symbol not in self._books:
            raise BadRow("foreign_symbol")
        contract = self.contracts.get(symbol)
        if contract is None:
            raise BadRow("unknown_contract")
        last = _sequence(row["seqId"])
        self._emit(symbol, self._levels(Kind.SNAPSHOT, EventFlag.JOIN, contract, row, _time(row["ts"]), recv_ns, last, 0))

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """Statuses as everywhere; the body's `code` counts with any of them: over the limit comes with 429 or 200."""
        verdict = judge_status(status, headers, body)
        try:
            code = orjson.loads(body)["code"]
        except UNREADABLE:
            return verdict if status != 200 else RestVerdict(RestResult.TRANSIENT)
        if code == LIMIT_CODE:
            return RestVerdict(RestResult.LIMITED, verdict.retry_after_s)
        if status == 200 and code != "0":
            return RestVerdict(RestResult.REFUSED)
        return verdict


def _arg(stream: str) -> dict[str, str]:
    """Subscription argument of a stream name (`books:BTC-USDT-SWAP`, `liquidation-orders`)."""
    channel, _, instrument = stream.partition(":")
    return {"channel": channel, "instId": instrument} if instrument else {"channel": channel, "instType": "SWAP"}


def _request(operation: str, args: Sequence[Mapping[str, str]]) -> str:
    return orjson.dumps({"id": "1", "op": operation, "args": args}).decode()


def _integer(text: Any) -> int:
    """Integers come as decimal strings."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise BadRow("not_an_integer")


def _time(text: Any) -> int:
    return milliseconds(_integer(text))


def _sequence(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise BadRow("not_an_integer")
