"""A market as a capture: `python day.py FILE MINUTES`. A process of its own, so that its memory is not that of what replays it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from mpengine.ingest.capture_file import CaptureFile, CaptureHeader, CaptureLine, encode_line, pack_frame
from shm.records import EVENT, Kind, PositionSide, TakerSide, offsets
from tests.engine.events import T0
from tests.engine.known_market import KnownMarket
from tests.engine.test_truth import MIX

MS_NS = 1_000_000
FRAME_LINES = 2000


class Book:
    """Levels that rest around a price and are left behind by it: about 20 changes in a diff."""

    def __init__(self, price: float) -> None:
        self._rng, self._last_id = random.Random(11), 1000
        self._resting = {1: {round(price * 10) - 1}, -1: {round(price * 10) + 1}}

    def snapshot(self, ms: int) -> bytes:
        bid, ask = (next(iter(self._resting[side])) / 10 for side in (1, -1))
        return b'{"lastUpdateId":1000,"E":%d,"T":%d,"bids":[["%.1f","1"]],"asks":[["%.1f","1"]]}' % (ms, ms, bid, ask)

    def diff(self, price: float, ms: int) -> str:
        rng, tick = self._rng, round(price * 10)
        texts = []
        for side, sign in ((1, -1), (-1, 1)):
            resting = self._resting[side]
            gone = {at for at in resting if (at - tick) * sign <= 0} | set(rng.sample(sorted(resting), len(resting) // 10))
            new = {tick + sign * (1 + int(rng.expovariate(0.01))) for _ in range(10)} - gone
            self._resting[side] = (resting - gone) | new
            levels = [f'["{at / 10:.1f}","0"]' for at in sorted(gone)]
            texts.append(",".join(levels + [f'["{at / 10:.1f}","{rng.randint(1, 9)}.5"]' for at in sorted(new)]))
        previous, self._last_id = self._last_id, self._last_id + rng.randint(2, 5000)
        ids = f'"U":{previous},"u":{self._last_id},"pu":{previous}'
        data = f'"e":"depthUpdate","E":{ms},"T":{ms},"s":"BTCUSDT",{ids},"b":[{texts[0]}],"a":[{texts[1]}]'
        return f'{{"stream":"btcusdt@depth@500ms","data":{{{data}}}}}'


def split(body: bytes) -> list[bytes]:
    return [body[start:end] for start, end in offsets(body)]


def line_of(record: bytes, number: int) -> CaptureLine:
    """What the venue says where `KnownMarket` has a record."""
    kind, _, side, _, _, _, recv_ns, _, _, price, qty, _ = EVENT.unpack_from(record)
    ms = recv_ns // MS_NS
    if kind == Kind.OPEN_INTEREST:
        body = f'{{"openInterest":"{qty:.3f}","symbol":"BTCUSDT","time":{ms}}}'
        return CaptureLine(recv_ns, "binance", "rest", "rest", body.encode(), "open_interest", "BTC", 200)
    if kind == Kind.MARK:
        stream = "btcusdt@markPrice@1s"
        data = f'"e":"markPriceUpdate","E":{ms},"s":"BTCUSDT","p":"{price:.8f}","r":"0.0001","T":0'
    elif kind == Kind.TRADE:
        stream, sold = "btcusdt@aggTrade", str(side == TakerSide.SELL).lower()
        data = (
            f'"e":"aggTrade","E":{ms},"a":{number},"s":"BTCUSDT","p":"{price:.1f}","q":"{qty:.3f}","f":1,"l":1,"T":{ms},"m":{sold}'
        )
    else:
        stream, order = "!forceOrder@arr", "SELL" if side == PositionSide.LONG else "BUY"
        data = (
            f'"e":"forceOrder","E":{ms},"o":{{"s":"BTCUSDT","S":"{order}","o":"LIMIT","f":"IOC","q":"{qty:.3f}","p":"{price:.2f}",'
            f'"ap":"{price:.2f}","X":"FILLED","l":"{qty:.3f}","z":"{qty:.3f}","T":{ms}}}'
        )
    return CaptureLine(recv_ns, "binance", "market#1", "in", f'{{"stream":"{stream}","data":{{{data}}}}}'.encode())


def lines(minutes: int) -> Iterator[CaptureLine]:
    """A market with a book, trades, liquidations and open interest; its last line lies behind the end of the last minute."""
    market, book, number = KnownMarket(1, MIX), Book(100_000.0), 0
    yield CaptureLine(T0, "binance", "public#1", "open", b"")
    yield CaptureLine(T0, "binance", "rest", "rest", book.snapshot(T0 // MS_NS), "depth", "BTC", 200)
    for _ in range(minutes):
        for record in split(market.minute()):
            number += record[0] == Kind.TRADE
            if record[0] == Kind.CLOCK:
                continue
            line = line_of(record, number)
            yield line
            if record[0] == Kind.MARK:
                for late_ms in (1, 500):
                    ms = line.recv_ns // MS_NS + late_ms
                    text = book.diff(EVENT.unpack_from(record)[9], ms)
                    yield CaptureLine(ms * MS_NS, "binance", "public#1", "in", text.encode())
    yield line_of(split(market.minute())[0], number)


def record(path: Path, minutes: int) -> None:
    """Write the capture."""
    header = CaptureHeader(created_ns=T0, instance="test", symbols={"BTC": {"binance": "BTCUSDT"}}, config_hash="")
    file = CaptureFile(path, header)
    waiting: list[bytes] = []
    for line in lines(minutes):
        waiting.append(encode_line(line))
        if len(waiting) == FRAME_LINES:
            file.append(pack_frame(b"".join(waiting)))
            waiting.clear()
    file.append(pack_frame(b"".join(waiting)))
    file.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]), int(sys.argv[2]))
