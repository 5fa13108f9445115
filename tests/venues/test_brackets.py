"""Brackets as the venues publish them: wire cases as data, statuses, and bodies that nobody would send."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpengine.brackets import MAX_ROWS, Bracket, faults_of
from mpengine.venues.brackets import ASKING, MAX_PAGES, Refused, Unavailable, refused_status
from tests.venues.cases import mutated

CASES = Path(__file__).resolve().parents[1] / "wire" / "brackets"
MUTATIONS = 150


def cases() -> list[Path]:
    found = sorted(path for path in CASES.glob("*.json") if not path.name.endswith(".expect.json"))
    assert len(found) == len(list(CASES.glob("*.expect.json"))) > 20
    return found


def ask(venue: str, instrument: str, bodies: list[bytes]) -> tuple[list[str], list[Bracket]]:
    """(paths that were asked for, rows)"""
    steps, paths, waiting = ASKING[venue](instrument), list[str](), list(bodies)
    try:
        paths.append(next(steps))
        while True:
            paths.append(steps.send(waiting.pop(0)))
    except StopIteration as done:
        return paths, done.value


@pytest.mark.parametrize("path", cases(), ids=lambda path: path.stem)
def test_wire_case(path: Path) -> None:
    wanted = json.loads(path.with_name(f"{path.stem}.expect.json").read_text(encoding="utf-8"))
    bodies = path.read_bytes().splitlines()
    if "rows" not in wanted:
        with pytest.raises(Refused) as caught:
            ask(wanted["venue"], wanted["instrument"], bodies)
        assert str(caught.value) == wanted.get("refused", wanted.get("unavailable"))
        assert isinstance(caught.value, Unavailable) == ("unavailable" in wanted)
        return
    paths, rows = ask(wanted["venue"], wanted["instrument"], bodies)
    assert paths == wanted.get("paths", paths)
    assert len(rows) == len(wanted["rows"]) and not faults_of(rows)
    for row, (cap, mmr, leverage, amount) in zip(rows, wanted["rows"], strict=True):
        assert (row.cap_usd, row.mmr, row.max_leverage) == (cap, mmr, leverage)
        assert math.isclose(row.amount_usd, amount, abs_tol=0.005)


LEAD = [(30_000, 0.004, 0.008), (60_000, 0.005, 0.01), (120_000, 0.0075, 0.015)]
"""(contracts, maintenance, initial rate) of the first tiers of BTC-USDC until August 2023, as its change was announced."""


def announced(lead: list[tuple[int, float, float]], step: float, digits: Callable[[float], float]) -> list[bytes]:
    """OKX's replies for a table made by the rule of its announcements: each tier adds `step` to both rates, down to 1x."""
    tiers = list(lead)
    while (initial := round(tiers[-1][2] + step, 6)) <= 1.0:
        tiers.append((tiers[-1][0] + lead[-1][0], round(tiers[-1][1] + step, 6), initial))
    rows = [
        {
            "instFamily": "BTC-USDC", "tier": str(at), "minSz": str(tiers[at - 2][0] + 1 if at > 1 else 0), "maxSz": str(size),
            "mmr": str(mmr), "imr": str(imr), "maxLever": f"{digits(1 / imr):.2f}".rstrip("0").rstrip("."),
        }
        for at, (size, mmr, imr) in enumerate(tiers, 1)
    ]  # fmt: skip
    contract = {"instId": "BTC-USDC-SWAP", "ctType": "linear", "ctVal": "0.001", "ctMult": "1"}
    bodies: list[list[dict[str, str]]] = [rows, [contract], [{"instId": "BTC-USDC-SWAP", "markPx": "80000"}]]
    return [json.dumps({"code": "0", "data": data}).encode() for data in bodies]


@pytest.mark.parametrize(
    "digits", [lambda value: math.floor(value * 100) / 100, lambda value: round(value, 2)], ids=["cut", "rounded"]
)
@pytest.mark.parametrize(
    ("lead", "step", "count"),
    [(LEAD, 0.005, 200), ([(15_000, 0.003, 0.006), *LEAD], 0.005, 201), (LEAD, 0.0025, 397), (LEAD, 0.001, 988)],
)
def test_tables_of_okx_are_as_long_as_its_rule_makes_them(
    lead: list[tuple[int, float, float]], step: float, count: int, digits: Callable[[float], float]
) -> None:
    _, rows = ask("okx", "BTC-USDC-SWAP", announced(lead, step, digits))
    assert len(rows) == count and not faults_of(rows)
    assert (rows[0].cap_usd, rows[0].mmr, rows[0].max_leverage) == (lead[0][0] * 80.0, lead[0][1], round(1 / lead[0][2], 6))
    assert rows[-1].max_leverage == 1.0


def test_a_table_without_end_is_refused() -> None:
    with pytest.raises(Refused, match=f"1 to {MAX_ROWS} rows"):
        ask("okx", "BTC-USDC-SWAP", announced(LEAD, 0.0005, lambda value: round(value, 2)))


def test_mutated_replies_give_sound_rows_or_a_refusal() -> None:
    rng, texts, used = random.Random(5), list[str](), 0
    for path in cases():
        bodies = path.read_bytes().splitlines()
        wanted = json.loads(path.with_name(f"{path.stem}.expect.json").read_text(encoding="utf-8"))
        if "rows" not in wanted:
            continue
        for _ in range(MUTATIONS):
            changed = list(bodies)
            at = rng.randrange(len(changed))
            changed[at] = mutated(rng, changed[at])
            try:
                _, rows = ask(wanted["venue"], wanted["instrument"], [*changed, b"{}", b"{}"])
            except Refused as error:
                texts.append(str(error))
            else:
                assert rows and not faults_of(rows)
                used += 1
    assert len(texts) > 100 and used > 100
    assert all(text.isprintable() and len(text) < 2000 for text in texts)


def test_pages_without_end_are_left() -> None:
    def page(number: int) -> bytes:
        return json.dumps({"retCode": 0, "result": {"list": [], "nextPageCursor": str(number)}}).encode()

    with pytest.raises(Refused, match="pages"):
        ask("bybit", "BTCUSDT", [page(number) for number in range(MAX_PAGES + 1)])


@pytest.mark.parametrize(
    ("status", "headers", "body", "part"),
    [
        (429, {"retry-after": "17"}, b"", "wait 17 s"),
        (429, {"retry-after": "soon\n"}, b"", "too many requests from this address"),
        (418, {}, b"", "too many requests"),
        (403, {}, b"403, access too frequent", "refuses this address"),
        (
            403,
            {},
            b"The Amazon CloudFront distribution is configured to block access from your country.",
            "does not serve this location",
        ),
        (451, {}, b"", "does not serve this location"),
        (302, {"location": "https://elsewhere.example"}, b"", "points elsewhere"),
        (503, {}, b"", "status 503"),
    ],
)
def test_other_statuses_are_told(status: int, headers: dict[str, str], body: bytes, part: str) -> None:
    error = refused_status(status, headers, body)
    assert isinstance(error, Unavailable) and part in str(error) and str(error).isprintable()


def test_words_of_a_venue_do_not_reach_the_terminal_as_they_are() -> None:
    body: Any = {"retCode": 10001, "retMsg": "\x1b[2J" + "x" * 500}
    with pytest.raises(Refused) as caught:
        ask("bybit", "BTCUSDT", [json.dumps(body).encode()])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250
