"""Words and numbers: each within its width, none of them lying about what is missing."""

from __future__ import annotations

import pytest

from mpengine.top.text import Col, age, count, cut, fitting, milliseconds, money, plain, price_text, safe, since, table


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0.0 s"), (-5_000, "0.0 s"), (200, "0.2 s"), (9_949, "9.9 s"), (9_951, "10 s"), (99_400, "99 s"),
     (99_600, "2 m"), (3_600_000, "60 m"), (6_000_000, "2 h"), (47 * 3_600_000, "47 h"), (48 * 3_600_000, "2 d")],
)  # fmt: skip
def test_an_age_has_five_characters_at_most(value: int | None, shown: str) -> None:
    assert age(value) == shown and len(shown) <= 5


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0, "0"), (950.4, "950"), (999.7, "1k"), (12_345.0, "12.3k"), (311_402.5, "311k"),
                         (2_448_592.1, "2.45M"), (99_960_000.0, "100M"), (1.2e9, "1.2B")]
)  # fmt: skip
def test_money_is_short(value: float | None, shown: str) -> None:
    assert money(value) == shown and len(shown) <= 5


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (65_892.73, "65,892.7"), (99_999.96, "100,000.0"), (2513.2, "2,513.20"), (179.785, "179.785"), (10.0, "10.00"),
     (0.00001234, "0.00001234"), (0.2, "0.20")],
)  # fmt: skip
def test_prices_of_any_size_are_readable(value: float | None, shown: str) -> None:
    assert price_text(value) == shown


def test_counts_lags_and_up_time() -> None:
    assert (count(None), count(412), count(9_999), count(12_412)) == ("-", "412", "9,999", "12.4k")
    assert (milliseconds(None), milliseconds(37.6), milliseconds(-3.2), milliseconds(12_345)) == ("-", "38", "-3", "12k")
    assert (since(None), since(47_227_000), since(274_320_000)) == ("-", "13:07:07", "3d 04:12")


def test_foreign_text_brings_no_control_characters() -> None:
    assert safe("a\x1b[31mb\nc\r\x9b") == "a [31mb c  "


def test_what_is_cut_says_so() -> None:
    assert (cut("abcdef", 6), cut("abcdefg", 6), cut("abc", 1), cut("abc", 0)) == ("abcdef", "abcde…", "…", "")


def _columns() -> list[Col[int]]:
    return [
        Col("one", 4, lambda row: (str(row), "")), Col("two", 6, lambda row: (str(row * 10), "ok"), right=True),
        Col("three", 5, lambda row: ("x", ""), rank=1),
    ]  # fmt: skip


def test_a_table_drops_the_least_important_columns_and_counts_the_rows_it_cannot_show() -> None:
    wide = [plain(line) for line in table(_columns(), [1, 22], 30, 5)]
    assert wide == ["one     two three", "1        10 x    ", "22      220 x    "]
    assert [column.head for column in fitting(_columns(), 16)] == ["one", "two"]
    narrow = [plain(line) for line in table(_columns(), [1, 2, 3, 4], 11, 3)]
    assert narrow == ["one     two", "1        10", "… 3 more"]
    assert table(_columns(), [1], 11, 0) == []


def test_a_cell_never_leaves_its_column() -> None:
    (_, line) = table(_columns(), [123_456], 11, 2)
    assert plain(line) == "123… 12345…"
