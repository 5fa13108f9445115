"""Every rule of a query, at both edges of every row."""

from __future__ import annotations

from typing import Any

import pytest

from api import params
from api.errors import ApiError
from api.params import Choice, Integer, Number, Symbol, Table, parse_query

SYMBOL = Symbol(("BTC", "ETH", "SOL"))
HISTORY = Table(SYMBOL, params.DEPTH_HISTORY)
CANDLES = Table(SYMBOL, params.CANDLES)


def code(table: Table, query: bytes) -> str:
    with pytest.raises(ApiError) as error:
        table.read(query)
    assert error.value.status == 400
    return error.value.code


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"", {}),
        (b"a=1", {"a": "1"}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&&b=2&", {"a": "1", "b": "2"}),
        (b"a=%20x+y%2B", {"a": " x y+"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"%61=1", {"a": "1"}),
        (b"a=%zz", {"a": "%zz"}),
        ("a=é".encode(), {"a": "é"}),
    ],
)
def test_query_is_taken_apart(query: bytes, wanted: dict[str, str]) -> None:
    assert parse_query(query, ()) == wanted


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"symbol=BTC&symbol=ETH", "repeated_parameter"),
        (b"foo=1&foo=2", "repeated_parameter"),
        (b"symbol=BTC&%73ymbol=ETH", "repeated_parameter"),
        (b"minutes=", "invalid_parameter"),
        (b"symbol=", "invalid_parameter"),
        (b"minutes", "invalid_parameter"),
        (b"minutes=%ff", "invalid_parameter"),
        (b"x=\xff", "invalid_parameter"),
        (b"%ff=1", "invalid_parameter"),
        (b"&".join(b"a%d=1" % n for n in range(33)), "invalid_parameter"),
        (b"minutes=" + b"1" * 129, "invalid_parameter"),
        (b"symbol=" + b"B" * 1000, "invalid_symbol"),
        (b"foo=" + b"x" * 129, "invalid_parameter"),
    ],
)
def test_query_as_a_whole_is_refused(query: bytes, wanted: str) -> None:
    assert code(HISTORY, query) == wanted


def test_32_parameters_of_128_characters_are_read() -> None:
    query = b"&".join([b"a%d=1" % n for n in range(31)] + [b"b=" + b"x" * 128])
    assert len(parse_query(query, ())) == 32
    assert HISTORY.read(query)["symbol"] == "BTC"


@pytest.mark.parametrize("text", ["BTC", "btc", " BTCUSDT ", "btcusdt", "BTCUSDTUSDT", None])
def test_spellings_of_a_symbol(text: str | None) -> None:
    assert SYMBOL.read(text) == "BTC"


@pytest.mark.parametrize("text", ["DOGE", "BTC\0", "USDT", "BT C", "../BTC", "ＢＴＣ", "x" * 128])
def test_other_symbols_are_refused(text: str) -> None:
    with pytest.raises(ApiError) as error:
        SYMBOL.read(text)
    assert error.value.code == "invalid_symbol"
    assert text not in error.value.detail


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("minutes", None, 720),
        ("minutes", "5", 5),
        ("minutes", "4", 5),
        ("minutes", "0", 5),
        ("minutes", "-5", 5),
        ("minutes", "720", 720),
        ("minutes", "721", 720),
        ("minutes", "99999", 720),
        ("minutes", "+30", 30),
        ("stride", None, 1),
        ("stride", "0", 1),
        ("stride", "1", 1),
        ("stride", "30", 30),
        ("stride", "31", 30),
        ("stride", "60", 30),
        ("limit", None, 720),
        ("limit", "0", 1),
        ("limit", "1", 1),
        ("limit", "1500", 1500),
        ("limit", "1501", 1500),
    ],
)
@pytest.mark.covers("A1-L14")
def test_whole_numbers_are_clamped(name: str, text: str | None, wanted: int) -> None:
    row = {"minutes": params.MINUTES, "stride": params.STRIDE, "limit": params.LIMIT}[name]
    assert row.read(text) == wanted


@pytest.mark.parametrize("text", ["abc", "1.5", "1e3", "nan", "", " 5", "5 ", "0x10", "1_0", "１", "1" * 16, "--1", "+"])
@pytest.mark.parametrize("row", [params.MINUTES, params.STRIDE, params.LIMIT, params.TO_MS])
def test_what_is_no_whole_number(row: Integer, text: str) -> None:
    with pytest.raises(ApiError) as error:
        row.read(text)
    assert error.value.code == "invalid_parameter" and row.name in error.value.detail


@pytest.mark.parametrize(("text", "good"), [("0", False), ("-1", False), ("1", True), ("9" * 15, True)])
def test_to_ms_is_refused_and_not_clamped(text: str, good: bool) -> None:
    if good:
        assert params.TO_MS.read(text) == int(text)
    else:
        assert code(CANDLES, f"to_ms={text}".encode()) == "invalid_parameter"


@pytest.mark.parametrize(
    ("row", "text", "wanted"),
    [
        (params.RANGE_PCT, None, None),
        (params.RANGE_PCT, "1", 1.0),
        (params.RANGE_PCT, "0.02", 0.02),
        (params.RANGE_PCT, "1e-9", 1e-9),
        (params.RANGE_PCT, ".5", 0.5),
        (params.RANGE_PCT, "1.", 1.0),
        (params.RANGE_PCT, "5E-1", 0.5),
        (params.STEP, "20", 20.0),
        (params.PRICE_MIN, "1e300", 1e300),
    ],
)
def test_numbers(row: Number, text: str | None, wanted: float | None) -> None:
    assert row.read(text) == wanted


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (params.RANGE_PCT, "0"),
        (params.RANGE_PCT, "-0.1"),
        (params.RANGE_PCT, "1.0000001"),
        (params.RANGE_PCT, "1.5"),
        (params.STEP, "0"),
        (params.PRICE_MIN, "0"),
        (params.PRICE_MIN, "-1"),
        (params.PRICE_MAX, "-1"),
    ]
    + [
        (row, text)
        for row in (params.RANGE_PCT, params.STEP, params.PRICE_MIN, params.PRICE_MAX)
        for text in ("nan", "inf", "-inf", "Infinity", "1e999", "0x1p3", "1_0", "", " 1", "1,5", "e5", ".", "１")
    ],
)
def test_what_is_no_number_of_the_row(row: Number, text: str) -> None:
    with pytest.raises(ApiError) as error:
        row.read(text)
    assert error.value.code == "invalid_parameter" and row.name in error.value.detail


@pytest.mark.covers("R-L2", "R-L3")
@pytest.mark.parametrize(
    ("row", "default", "bad"),
    [(params.FORMAT, "json", ["xml", "JSON", ""]), (params.INTERVAL, "1m", ["7m", "1M", "60", "1h "])],
)
def test_words_are_of_the_list(row: Choice, default: str, bad: list[str]) -> None:
    assert row.read(None) == default
    assert [row.read(word) for word in row.words] == list(row.words)
    for text in bad:
        with pytest.raises(ApiError) as error:
            row.read(text)
        assert error.value.code == "invalid_parameter"


def test_rows_are_checked_in_the_order_of_the_table() -> None:
    with pytest.raises(ApiError) as error:
        HISTORY.read(b"format=xml&stride=x&minutes=x&symbol=DOGE")
    assert error.value.code == "invalid_symbol"
    with pytest.raises(ApiError) as error:
        HISTORY.read(b"format=xml&stride=x&minutes=x")
    assert "minutes" in error.value.detail


def test_unknown_parameters_are_ignored() -> None:
    assert HISTORY.read(b"foo=1&_=17") == HISTORY.read(b"")


@pytest.mark.parametrize("query", [b"symbol=%3Cscript%3E", b"format=%2Fetc%2Fpasswd", b"minutes=secret", b"secret=1&secret=2"])
def test_the_text_never_repeats_what_the_caller_sent(query: bytes) -> None:
    with pytest.raises(ApiError) as error:
        HISTORY.read(query)
    assert not any(word in error.value.detail for word in ("script", "passwd", "secret"))


def test_every_row_knows_its_own_name() -> None:
    rows: list[Any] = [*params.DEPTH_HISTORY, *params.CANDLES]
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
