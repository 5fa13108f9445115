"""Templates with holes, numbers that JSON cannot hold, tags and their comparison."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from api import bodies
from api.bodies import (
    BINARY,
    JSON,
    Answer,
    Chunked,
    Freshness,
    Identity,
    Moment,
    NotFinite,
    Template,
    dumps,
    etag,
    etag_matches,
    json_template,
    wire,
)

NOW = Moment(received_ms=1000, now_ms=1010, age_ms=12_340, stale=False)


def text(template: Template, moment: Moment = NOW) -> bytes:
    return b"".join(template.fill(moment))


def answer(template: Template, **values: Any) -> Answer:
    defaults: dict[str, Any] = {
        "content_type": JSON,
        "identity": Identity((7, 61022)),
        "freshness": Freshness(0, 90_000),
        "tag": b'W/"7-61022-9f2c0011"',
    }
    return Answer(template, **{**defaults, **values})


@pytest.mark.covers("S-L3")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_an_error_and_never_null(number: float) -> None:
    places: list[Any] = [number, [1.0, number], {"a": {"b": number}}, np.array([1.0, number]), ((1.0, number),)]
    for value in places:
        with pytest.raises(NotFinite):
            dumps(value)
    with pytest.raises(NotFinite):
        json_template([("a", 1), ("b", (("c", number),))])


def test_floats_stay_floats_and_counts_stay_whole() -> None:
    assert dumps({"step": 20.0, "n": 20, "p": np.array([60620.0, 0.1]), "u": np.array([0, 255], np.uint8)}) == (
        b'{"step":20.0,"n":20,"p":[60620.0,0.1],"u":[0,255]}'
    )


def test_holes_are_filled_per_response_and_keys_keep_their_order() -> None:
    template = json_template(
        [
            ("z", 1),
            ("age_s", bodies.age_s),
            ("inner", (("recv", bodies.received_ms), ("sent", bodies.now_ms), ("s", bodies.now_s))),
            ("empty", ()),
            ("stale", bodies.stale),
            ("since", bodies.seconds_since(510)),
            ("a", "last"),
        ]
    )
    assert text(template) == (
        b'{"z":1,"age_s":12.3,"inner":{"recv":1000,"sent":1010,"s":1.010},"empty":{},"stale":false,"since":0.5,"a":"last"}'
    )
    later = Moment(received_ms=2000, now_ms=2000, age_ms=None, stale=True)
    assert json.loads(text(template, later)) == {
        "z": 1, "age_s": None, "inner": {"recv": 2000, "sent": 2000, "s": 2.0}, "empty": {}, "stale": True, "since": 1.5,
        "a": "last",
    }  # fmt: skip
    assert text(template) == text(template)


@pytest.mark.covers("A1-M23")
def test_segments_are_shared_and_never_changed() -> None:
    large = b"x" * (bodies.JOIN_BELOW + 1)
    template = json_template([("t", bodies.now_ms), ("a", Chunked([large])), ("b", 1)])
    first, second = template.fill(NOW), template.fill(NOW)
    assert first == second
    assert any(one is two and len(one) == len(large) for one, two in zip(first, second))
    first.clear()
    assert template.fill(NOW) == second


def test_chunked_arrays_are_joined() -> None:
    template = json_template([("a", Chunked([b"1,2", b"3", b"4,5"])), ("b", Chunked([]))])
    assert text(template) == b'{"a":[1,2,3,4,5],"b":[]}'
    assert template.fixed


@pytest.mark.parametrize(
    ("origin_ms", "now_ms", "age", "stale"),
    [(1000, 91_000, 90_000, False), (1000, 91_001, 90_001, True), (1000, 900, 0, False), (None, 5, None, True)],
)
def test_age_and_staleness_at_the_edge(origin_ms: int | None, now_ms: int, age: int | None, stale: bool) -> None:
    moment = Freshness(origin_ms, 90_000).moment(now_ms, now_ms)
    assert (moment.age_ms, moment.stale) == (age, stale)


def test_tag_says_epoch_and_sequence_of_every_source() -> None:
    one = etag(Identity((7, 61022)), "/a", "key", weak=True)
    assert one is not None and one.startswith(b'W/"7-61022-') and len(one) == len(b'W/"7-61022-"') + 8
    assert etag(Identity((7, 61022)), "/a", "key", weak=False) == one.removeprefix(b"W/")
    two = etag(Identity((7, 61022), ((3, 9),)), "/a", "key", weak=True)
    assert two is not None and two.startswith(b'W/"7-61022.3-9-')
    others = {etag(Identity((7, 61022)), route, key, weak=True) for route in ("/a", "/b") for key in ("key", "other")}
    assert len(others) == 4
    assert etag(Identity(None, ((3, 9),)), "/a", "key", weak=True) is None


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (b'W/"7-1-ab"', True),
        (b'"7-1-ab"', True),
        (b'"x", W/"7-1-ab" ,"y"', True),
        (b"*", True),
        (b" * ", True),
        (b'"7-1-abc"', False),
        (b'W/"17-1-ab"', False),
        (b'"7-1-ab', False),
        (b"7-1-ab", False),
        (b"", False),
        (b'\xff\x00garbage,,"', False),
    ],
)
def test_if_none_match_is_compared_weakly_and_garbage_is_ignored(header: bytes, same: bool) -> None:
    assert etag_matches(header, b'W/"7-1-ab"') is same
    assert etag_matches(header, b'"7-1-ab"') is same


def test_304_has_all_headers_of_the_200() -> None:
    made = answer(json_template([("age_s", bodies.age_s)]))
    full, short = made.respond(5000, 5000, b'"other"'), made.respond(5000, 5000, made.tag)
    assert (full.status, short.status, short.chunks) == (200, 304, [])
    assert dict(full.headers) == {**dict(short.headers), b"content-length": b"13"}
    assert dict(short.headers)[b"x-age-ms"] == b"5000" and dict(short.headers)[b"x-stale"] == b"false"


def test_without_data_there_is_no_tag_and_never_a_304() -> None:
    made = answer(json_template([("seq", None)]), identity=Identity(None), freshness=Freshness(None, 1), tag=None)
    full = made.respond(1, 1, b"*")
    assert full.status == 200
    headers = dict(full.headers)
    assert b"etag" not in headers
    assert (headers[b"x-seq"], headers[b"x-epoch"], headers[b"x-age-ms"], headers[b"x-stale"]) == (b"-1", b"-1", b"-1", b"true")


def test_binary_answers_have_the_old_headers() -> None:
    made = answer(Template([b"abc"]), content_type=BINARY, extra=((b"x-frame-ts-ms", b"5"),), binary=True)
    headers = dict(made.respond(100_000, 100_001, None).headers)
    assert headers[b"x-frame-ts-ms"] == b"5"
    assert headers[b"x-data-is-stale"] == headers[b"x-stale"] == b"true"
    assert headers[b"x-server-send-ts-ms"] == b"100001"


def test_small_bodies_are_one_write_and_large_ones_their_segments() -> None:
    small = answer(json_template([("a", 1), ("age_s", bodies.age_s)])).respond(1, 1, None)
    assert len(wire(small, [], body=True)) == 1
    pieces = [b"1" * bodies.JOIN_BELOW, b"2"]
    large = answer(json_template([("a", Chunked(pieces))])).respond(1, 1, None)
    assert len(wire(large, [], body=True)) > 1
    assert b"".join(large.chunks) == b'{"a":[' + b",".join(pieces) + b"]}"
    assert dict(large.headers)[b"content-length"] == b"%d" % sum(map(len, large.chunks))


def test_on_the_wire_a_response_is_what_it_is_in_asgi() -> None:
    response = answer(json_template([("a", 1)])).respond(1, 1, None)
    head, body = b"".join(wire(response, [(b"date", b"now")], body=True)).split(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK" and body == b'{"a":1}'
    assert [tuple(line.split(b": ", 1)) for line in lines[1:]] == [*response.headers, (b"date", b"now")]
    assert b"".join(wire(response, [], body=False)).endswith(b"\r\n\r\n")
