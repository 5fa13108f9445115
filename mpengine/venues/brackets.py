"""Maintenance brackets as Bybit and OKX publish them -> rows of `mpengine.brackets`. Pure: paths out, bodies in.

A venue's rows are asked for by a generator: it yields the path of a GET below the venue's REST address, is sent the body of its
reply (status 200) and returns the rows. What cannot be used as it is raises Refused: nothing is guessed, rounded into shape or
left out.

Bybit (`GET /v5/market/risk-limit`): caps in USD, rates as fractions, and with `mmDeduction` the amount that the specification
calls c; "" stands for one that follows from the rows below, and is computed.

OKX (`GET /api/v5/public/position-tiers`): caps in contracts, and no amount: the tier that a position's size falls into gives the
rate of all of it. A row needs USD and an amount, so

* cap_usd = maxSz x ctVal x ctMult x mark price at the time of asking: true at that price, and as far off as the price has moved;
* amounts make maintenance continuous, c_n = c_(n-1) + cap_(n-1) (r_n - r_(n-1)). Above the first tier that is less than OKX asks
  for: liquidation prices of positions of that size come out farther from their entry than they are. The first row is exact, and
  the maps use no other (`spec: engine`, section 6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import orjson

from mpengine.brackets import Bracket, faults_of
from mpengine.venues.numbers import BadRow, positive, quantity

BYBIT_LIMIT_CODES: Final = (10006, 10018)
OKX_LIMIT_CODE: Final = "50011"
MAX_PAGES: Final = 20
SAID: Final = 120
SWAP: Final = "-SWAP"
GEO_WORDS: Final = (b"country", b"region", b"location")
LEVERAGE_ROUNDING: Final = 0.011  # venues print the leverage with two decimals, some cut and some rounded
RATE_ROUNDING: Final = 1e-4  # and rates in percent with two: 0.0666 beside 15x

Asking = Generator[str, bytes, list[Bracket]]


class Refused(Exception):
    """A venue's rows of one instrument cannot be had or cannot be used; the text says why."""


class Unavailable(Refused):
    """The venue does not answer this address at all now: asking for a further instrument would make it worse."""


class _Tier(NamedTuple):
    """`amount_usd` is None where the venue gives none."""

    cap_usd: float
    mmr: float
    imr: float
    max_leverage: float
    amount_usd: float | None


def bybit_rows(instrument: str) -> Asking:
    """Rows of a linear contract of Bybit ("BTCUSDT")."""
    tiers: list[_Tier] = []
    query = {"category": "linear", "symbol": instrument}
    for _ in range(MAX_PAGES):
        result = _bybit_result((yield f"/v5/market/risk-limit?{urlencode(query)}"))
        own = [row for row in _objects(result.get("list")) if row.get("symbol") == instrument]
        tiers += [_read(number, row, _bybit_tier) for number, row in enumerate(own, len(tiers) + 1)]
        cursor = result.get("nextPageCursor")
        if not cursor:
            return _rows(instrument, tiers)
        if not isinstance(cursor, str) or cursor == query.get("cursor"):
            raise Refused("the cursor of the reply leads nowhere")
        query["cursor"] = cursor
    raise Refused(f"more than {MAX_PAGES} pages")


def okx_rows(instrument: str) -> Asking:
    """Rows of a linear swap of OKX ("BTC-USDT-SWAP"). Asks for its tiers, its contract and its mark price."""
    family = instrument.removesuffix(SWAP)
    if family == instrument:
        raise Refused(f"{instrument} is no swap")
    query = {"instType": "SWAP", "tdMode": "isolated", "instFamily": family}
    found = _okx_data((yield f"/api/v5/public/position-tiers?{urlencode(query)}"))
    own = [row for row in found if family in (row.get("instFamily"), row.get("uly"))]
    one = urlencode({"instType": "SWAP", "instId": instrument})
    base = _contract_base(instrument, _okx_data((yield f"/api/v5/public/instruments?{one}")))
    mark = _okx_data((yield f"/api/v5/public/mark-price?{one}"))
    contract_usd = base * _price(instrument, mark)
    own.sort(key=lambda row: _ordinal(row.get("tier")))
    if [_ordinal(row.get("tier")) for row in own] != list(range(1, len(own) + 1)):
        raise Refused("its tiers are not numbered from 1 on")
    if own and _read(1, own[0], lambda row: quantity(row.get("minSz"))) != 0.0:
        raise Refused("its first tier does not begin at 0")
    return _rows(instrument, [_read(at, row, lambda one: _okx_tier(one, contract_usd)) for at, row in enumerate(own, 1)])


ASKING: Final[Mapping[str, Callable[[str], Asking]]] = {"bybit": bybit_rows, "okx": okx_rows}
"""Venues that publish their brackets to everybody -> how to ask for an instrument's."""


def refused_status(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """What a reply with another status than 200 means (`spec: exchanges`, section 11). Header names are lower case."""
    match status:
        case 429 | 418:
            wait = headers.get("retry-after", "")
            after = f"; it says to wait {wait} s" if wait.isascii() and wait.isdigit() and len(wait) < 7 else ""
            return Unavailable(f"status {status}: too many requests from this address{after}")
        case 451:
            return Unavailable("status 451: the venue does not serve this location")
        case 403 if any(word in body.lower() for word in GEO_WORDS):
            return Unavailable("status 403: the venue does not serve this location")
        case 403:
            return Unavailable("status 403: the venue refuses this address (its location, or asked too often: wait ten minutes)")
        case _ if 300 <= status < 400:
            return Unavailable(f"status {status}: the venue points elsewhere, which is not followed (venues.*.rest_url)")
        case _:
            return Unavailable(f"status {status}")


def _rows(instrument: str, tiers: list[_Tier]) -> list[Bracket]:
    """Rows, smallest cap first. Raises Refused with every fault of theirs."""
    if not tiers:
        raise Refused(f"the venue has no tiers of {instrument}")
    tiers = sorted(tiers, key=lambda tier: tier.cap_usd)
    # A rate in percent, or a leverage that is a margin, would be in bounds; the two together are not.
    if faults := [f"row {at}: rates and leverage do not fit" for at, tier in enumerate(tiers, 1) if not _fits(tier)]:
        raise Refused("; ".join(faults))
    amounts = [tiers[0].amount_usd or 0.0]
    for low, high in pairwise(tiers):
        due = round(amounts[-1] + low.cap_usd * (high.mmr - low.mmr), 2)
        amounts.append(due if high.amount_usd is None else high.amount_usd)
    rows = [Bracket(tier.cap_usd, tier.mmr, _leverage(tier), amount) for tier, amount in zip(tiers, amounts, strict=True)]
    if faults := faults_of(rows):
        raise Refused("; ".join(faults))
    return rows


def _fits(tier: _Tier) -> bool:
    return 0.5 <= tier.imr * tier.max_leverage <= 2.0 and tier.mmr <= tier.imr


def _leverage(tier: _Tier) -> float:
    """The largest leverage without its rounding: of tiers near 1x, several print the same two decimals.

    A whole one is exact if the rate beside it is its rounded inverse (15x, 0.0666); 1.00 beside 0.995 is 1.005 cut short.
    """
    exact, printed = 1.0 / tier.imr, tier.max_leverage
    whole = printed.is_integer() and abs(1.0 / printed - tier.imr) < RATE_ROUNDING
    if whole or abs(exact - printed) > LEVERAGE_ROUNDING:
        return printed
    return max(1.0, round(exact, 6))


def _read(number: int, row: Mapping[str, Any], of: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return of(row)
    except BadRow as error:
        raise Refused(f"tier {number} cannot be read ({error})") from error


def _bybit_tier(row: Mapping[str, Any]) -> _Tier:
    amount = row.get("mmDeduction")
    return _Tier(
        positive(row.get("riskLimitValue")),
        positive(row.get("maintenanceMargin")),
        positive(row.get("initialMargin")),
        positive(row.get("maxLeverage")),
        None if amount in ("", None) else quantity(amount),
    )


def _okx_tier(row: Mapping[str, Any], contract_usd: float) -> _Tier:
    cap_usd = round(positive(row.get("maxSz")) * contract_usd, 2)
    return _Tier(cap_usd, positive(row.get("mmr")), positive(row.get("imr")), positive(row.get("maxLever")), None)


def _contract_base(instrument: str, found: list[dict[str, Any]]) -> float:
    """Base coin per contract."""
    for row in found:
        if row.get("instId") == instrument and row.get("ctType") == "linear":
            try:
                return positive(row.get("ctVal")) * positive(row.get("ctMult"))
            except BadRow as error:
                raise Refused(f"its contract size cannot be read ({error})") from error
    raise Refused(f"the venue has no linear contract {instrument}")


def _price(instrument: str, found: list[dict[str, Any]]) -> float:
    for row in found:
        if row.get("instId") == instrument:
            try:
                return positive(row.get("markPx"))
            except BadRow as error:
                raise Refused(f"its mark price cannot be read ({error})") from error
    raise Refused(f"the venue has no mark price of {instrument}")


def _ordinal(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 5:
        return int(value)
    raise Refused("a tier without its number")


def _bybit_result(body: bytes) -> dict[str, Any]:
    reply = _object(body)
    code = reply.get("retCode")
    if code in BYBIT_LIMIT_CODES:
        raise Unavailable(f"too many requests from this address (code {code})")
    if code != 0 or not isinstance(reply.get("result"), dict):
        raise Refused(f"the venue refused it (code {_said(code)}: {_said(reply.get('retMsg'))})")
    return dict(reply["result"])


def _okx_data(body: bytes) -> list[dict[str, Any]]:
    reply = _object(body)
    code = reply.get("code")
    if code == OKX_LIMIT_CODE:
        raise Unavailable(f"too many requests from this address (code {code})")
    if code != "0":
        raise Refused(f"the venue refused it (code {_said(code)}: {_said(reply.get('msg'))})")
    return _objects(reply.get("data"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused("the reply is not JSON") from error
    if not isinstance(reply, dict):
        raise Refused("the reply is not an object")
    return reply


def _objects(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise Refused("the reply has no list of rows")
    return found


def _said(value: Any) -> str:
    """Words of a stranger, fit for a terminal."""
    return "".join(letter for letter in str(value)[:SAID] if letter.isprintable())
