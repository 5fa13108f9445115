"""LIVE, PAUSED or STALE, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpengine.top.badge import badge
from mpengine.top.model import Newest
from tests.top.samples import NOW_MS, PRICE, STATES, facts, symbol, venue


def btc(**values: Any) -> dict[str, Any]:
    return {"symbols": (symbol("BTC", PRICE, **values),)}


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({}, ()),
        ({"heard_ms": NOW_MS - 15_000}, ()),
        ({"heard_ms": NOW_MS - 16_000}, ("nothing heard for 16 s",)),
        ({"heard_ms": None}, ("nothing has been heard yet",)),
        ({"trouble": "the supervisor is gone", "heard_ms": None}, ("the supervisor is gone",)),
        ({"shown": "DOGE"}, ("DOGE is not known here",)),
        (btc(engine="starting"), ()),
        (btc(engine="stalled"), ("engine of BTC: stalled",)),
        (btc(restarted=True), ("engine of BTC restarted, its first frame is to come",)),
        (btc(map=None), ("warming up, no map yet",)),
        (btc(map=None, book=None), ("warming up, no map and no book yet",)),
        (btc(map=None, maps=False), ()),
        (btc(book=None, books=False), ()),
        (btc(map=Newest(seq=1, ts_ms=NOW_MS - 180_000)), ()),
        (btc(map=Newest(seq=1, ts_ms=NOW_MS - 181_000)), ("newest map is 181 s old",)),
        (btc(book=Newest(seq=1, ts_ms=NOW_MS - 90_000)), ()),
        (btc(book=Newest(seq=1, ts_ms=NOW_MS - 91_000)), ("newest book is 91 s old",)),
        ({"venues": (venue("binance"), venue("bybit", "DOWN"), venue("okx", "STALE"))}, ()),
        ({"venues": (venue("binance", "STALE"), venue("bybit", "DOWN"))}, ("no venue is LIVE",)),
        ({"venues": ()}, ()),
        ({"lost": "columns 3 to 5 of the book are missing"}, ("columns 3 to 5 of the book are missing",)),
    ],
)
def test_why_it_is_stale(values: dict[str, Any], reasons: tuple[str, ...]) -> None:
    found = badge(facts(**values), NOW_MS)
    assert found.reasons == reasons
    assert found.name == ("STALE" if reasons else "LIVE")


def test_a_source_that_says_nothing_more_ages() -> None:
    assert not badge(facts(), NOW_MS + 14_000).stale
    found = badge(facts(), NOW_MS + 60_000)
    assert found.reasons == ("nothing heard for 60 s", "newest book is 102 s old")


def test_stale_is_said_while_paused_in_words_and_signs() -> None:
    texts = [badge(facts(**values), NOW_MS, paused=paused).text for values in ({}, STATES["stale"]) for paused in (False, True)]
    assert texts == ["● LIVE", "‖ PAUSED", "▲ STALE", "‖ PAUSED ▲ STALE"]


def test_the_symbol_that_is_shown_is_the_one_that_is_judged() -> None:
    eth = symbol("ETH", 2500.0, engine="dead")
    one = facts(symbols=(symbol("BTC", PRICE), eth))
    assert not badge(one, NOW_MS).stale
    assert badge(replace(one, shown="ETH"), NOW_MS).reasons == ("engine of ETH: dead",)
