"""Bodies and answers: what is encoded once per sequence, and what is filled in per response. Pure.

A body is a tuple of byte segments with holes between them: ages, `stale`, server times. Segments are shared by every response
and never change; a response is the segments with its own few bytes in the holes. An `Answer` is a body with everything that its
headers need, and `respond` makes the response of one moment from it, for GET, HEAD and a matching `If-None-Match` alike.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import numpy as np
import orjson

from api.encodings import CODINGS, Coded, coded

CONTRACT: Final = "3.1"
JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
CACHE_CONTROL: Final = b"public, max-age=1, must-revalidate"
JOIN_BELOW: Final = 64 << 10  # a smaller body is joined: one write; a larger one is sent in its shared segments

VARY: Final = (b"vary", b"Accept-Encoding")
VARY_LINE: Final = b"vary: "
TAG_CODINGS: Final = (None, *CODINGS)
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY

Headers = list[tuple[bytes, bytes]]


class NotFinite(ValueError):
    """A number that JSON cannot hold is about to be published: a bug of ours, so a 500 and never `null`."""


def dumps(value: Any) -> bytes:
    """Compact JSON of plain values and numpy arrays. Raises NotFinite: orjson alone would write `null`."""
    check_finite(value)
    return orjson.dumps(value, option=_OPTIONS)


def check_finite(value: Any) -> None:
    """Raise NotFinite where a float in `value` is not finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotFinite("a number of the answer is not finite")
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise NotFinite("an array of the answer is not finite")
    elif isinstance(value, dict):
        for item in value.values():
            check_finite(item)
    elif isinstance(value, list | tuple):
        for item in value:
            check_finite(item)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a response is made: wall clock of the request and of the answer, and what the age of the data is by then."""

    received_ms: int
    now_ms: int
    age_ms: int | None
    stale: bool


Hole = Callable[[Moment], bytes]


def _seconds(milliseconds: int) -> bytes:
    return b"%.1f" % (milliseconds / 1000)


def age_s(moment: Moment) -> bytes:
    """Age of the data in seconds, 1 decimal; null without data."""
    return b"null" if moment.age_ms is None else _seconds(moment.age_ms)


def stale(moment: Moment) -> bytes:
    """Whether the data is older than its kind allows."""
    return b"true" if moment.stale else b"false"


def received_ms(moment: Moment) -> bytes:
    """Wall clock at which the request arrived."""
    return b"%d" % moment.received_ms


def now_ms(moment: Moment) -> bytes:
    """Wall clock at which the answer is made."""
    return b"%d" % moment.now_ms


def now_s(moment: Moment) -> bytes:
    """The same in float seconds."""
    return b"%.3f" % (moment.now_ms / 1000)


def seconds_since(origin_ms: int) -> Hole:
    """Age of something that has its own time, in seconds, 1 decimal."""
    return lambda moment: _seconds(max(0, moment.now_ms - origin_ms))


class Template:
    """A body with holes. `size`: bytes of its segments."""

    __slots__ = ("_holes", "_parts", "size")

    def __init__(self, parts: Sequence[bytes | Hole]) -> None:
        self._parts: list[bytes] = [part if isinstance(part, bytes) else b"" for part in parts]
        self._holes = tuple((index, part) for index, part in enumerate(parts) if not isinstance(part, bytes))
        self.size = sum(map(len, self._parts))

    @property
    def fixed(self) -> bool:
        """Whether nothing in it moves."""
        return not self._holes

    @property
    def parts(self) -> list[bytes | None]:
        """Its segments, None for each hole."""
        holes = {index for index, _ in self._holes}
        return [None if index in holes else part for index, part in enumerate(self._parts)]

    def fill(self, moment: Moment) -> list[bytes]:
        """Segments of one response."""
        parts = self._parts.copy()
        for index, hole in self._holes:
            parts[index] = hole(moment)
        return parts


@dataclass(frozen=True, slots=True)
class Chunked:
    """An array value that is encoded already, in pieces: `parts` joined with commas are its elements."""

    parts: list[bytes]


Pairs = Sequence[tuple[str, Any]]


def json_template(pairs: Pairs) -> Template:
    """Body of a JSON object from (key, value) pairs in their order. A value may be a hole, `Chunked`, or pairs again (a tuple).

    Raises NotFinite.
    """
    return Template(_merged(_object(pairs)))


def _object(pairs: Pairs) -> Iterable[bytes | Hole]:
    yield b"{"
    for number, (key, value) in enumerate(pairs):
        yield b"%s%s:" % (b"," if number else b"", orjson.dumps(key))
        if isinstance(value, Chunked):
            # PERF: joined here, once per sequence: a response of a hundred segments is a fifth slower than one of five.
            yield b"["
            yield b",".join(value.parts)
            yield b"]"
        elif isinstance(value, tuple):
            yield from _object(value)
        elif callable(value):
            yield value
        else:
            yield dumps(value)
    yield b"}"


def _merged(parts: Iterable[bytes | Hole]) -> list[bytes | Hole]:
    """Neighbouring small segments as one; large ones stay by themselves so that nothing large is copied."""
    merged: list[bytes | Hole] = []
    small: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes) and len(part) < JOIN_BELOW:
            small.append(part)
            continue
        if small:
            merged.append(b"".join(small))
            small = []
        merged.append(part)
    if small:
        merged.append(b"".join(small))
    return merged


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer was made from. `lead`: (epoch, sequence) of the data it is about, None while there is none; `others`: the
    same of everything else that was read."""

    lead: tuple[int, int] | None
    others: tuple[tuple[int, int], ...] = ()

    @property
    def epoch(self) -> int | None:
        return None if self.lead is None else self.lead[0]

    @property
    def seq(self) -> int | None:
        return None if self.lead is None else self.lead[1]


def etag(identity: Identity, route: str, key: object, *, weak: bool) -> bytes | None:
    """`W/"<epoch>-<seq>-<h>"`, pairs of several sources joined with `.`; h covers route, canonical parameters and contract.

    None while there is no data: what such an answer looks like is not told by any number.
    """
    if identity.lead is None:
        return None
    digest = hashlib.blake2s(repr((CONTRACT, route, key)).encode(), digest_size=4).hexdigest()
    pairs = ".".join(f"{epoch}-{seq}" for epoch, seq in (identity.lead, *identity.others))
    return f'{"W/" if weak else ""}"{pairs}-{digest}"'.encode("ascii")


def etag_matches(header: bytes, tag: bytes) -> bool:
    """Weak comparison of `If-None-Match` with our tag. Anything that is not a list of tags matches nothing."""
    opaque = tag.removeprefix(b"W/")
    if opaque not in header:  # no tag of ours holds a comma or a quote, so this alone decides the usual case
        return header.strip() == b"*"
    return any(item.strip().removeprefix(b"W/") == opaque for item in header.split(b","))


def tag_in(tag: bytes, coding: str | None) -> bytes:
    """The tag of a body in a coding. A weak one says that bodies mean the same, a strong one that their bytes are the same."""
    return tag if coding is None or tag.startswith(b"W/") else b'%s-%s"' % (tag[:-1], coding.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Freshness:
    """Age is counted from `origin_ms` (None: no data, which is stale); stale when older than `stale_after_ms`.

    `told`: whether it is stale where something else than its age says so.
    """

    origin_ms: int | None
    stale_after_ms: int
    told: bool | None = None

    def moment(self, received_ms: int, now_ms: int) -> Moment:
        if self.origin_ms is None:
            return Moment(received_ms, now_ms, None, True if self.told is None else self.told)
        age = max(0, now_ms - self.origin_ms)  # the clock of the venue may be ahead of ours
        return Moment(received_ms, now_ms, age, age > self.stale_after_ms if self.told is None else self.told)


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers without those that every response has, and the body in chunks (empty for 304)."""

    status: int
    headers: Headers
    chunks: list[bytes]


STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus if status >= 200
}


def wire(response: Response, more: Headers, *, body: bool, raw: bytes = b"") -> list[bytes]:
    """A response as it goes over the wire, small segments joined. `more`, `raw`: headers to add, the latter as bytes of the head;
    `body` False for HEAD."""
    head, headers = [STATUS_LINES[response.status]], response.headers
    if VARY_LINE in raw:  # one header says all of it
        raw = raw.replace(VARY_LINE, b"%s%s, " % (VARY_LINE, VARY[1]), 1)
        headers = [pair for pair in headers if pair != VARY]
    head += [b"%s: %s\r\n" % pair for pair in headers]
    head += [b"%s: %s\r\n" % pair for pair in more]
    head.append(raw)
    head.append(b"\r\n")
    chunks = response.chunks if body else []
    if sum(map(len, chunks)) < JOIN_BELOW:
        return [b"".join(head + chunks)]
    return [b"".join(head), *chunks]


@dataclass(frozen=True, slots=True)
class Answer:
    """A data answer, good for any number of responses. `binary`: with the headers of the old binary format."""

    template: Template
    content_type: bytes
    identity: Identity
    freshness: Freshness
    tag: bytes | None
    extra: tuple[tuple[bytes, bytes], ...] = ()
    binary: bool = False
    forms: dict[str, Coded | None] = field(default_factory=dict)
    """Coded bodies that are there, by coding; None where one would not be worth it."""
    _fixed_headers: Headers = field(init=False)

    def __post_init__(self) -> None:
        seq, epoch = self.identity.seq, self.identity.epoch
        headers: Headers = [
            (b"content-type", self.content_type),
            (b"cache-control", CACHE_CONTROL),
            VARY,
            (b"x-seq", b"%d" % (-1 if seq is None else seq)),
            (b"x-epoch", b"%d" % (-1 if epoch is None else epoch)),
            *self.extra,
        ]
        object.__setattr__(self, "_fixed_headers", headers)

    @property
    def size(self) -> int:
        """Bytes that keeping this answer costs, about."""
        return self.template.size + sum(form.size for form in self.forms.values() if form is not None) + 2048

    def encoded(self, coding: str) -> Coded | None:
        """The body in a coding, None where that is not worth it; to be put into `forms`. In any thread."""
        return coded(coding, self.template.parts)

    def _known(self, if_none_match: bytes, own: bytes) -> bytes | None:
        """The tag by which a client knows this body: that of the coding it gets, or else of another one."""
        assert self.tag is not None
        for tag in (own, *(tag_in(self.tag, one) for one in TAG_CODINGS)):
            if etag_matches(if_none_match, tag):
                return tag
        return None

    def respond(self, received_ms: int, now_ms: int, if_none_match: bytes | None, coding: str | None = None) -> Response:
        """The response of this moment; in `coding` if that form is there."""
        form = None if coding is None else self.forms.get(coding)
        moment = self.freshness.moment(received_ms, now_ms)
        headers = self._fixed_headers.copy()
        is_stale = stale(moment)
        headers.append((b"x-age-ms", b"%d" % (-1 if moment.age_ms is None else moment.age_ms)))
        headers.append((b"x-stale", is_stale))
        if self.binary:
            headers.append((b"x-data-is-stale", is_stale))
            headers.append((b"x-server-send-ts-ms", b"%d" % now_ms))
        if self.tag is not None:
            headers.append((b"etag", self.tag if form is None else tag_in(self.tag, coding)))
            if if_none_match is not None and (known := self._known(if_none_match, headers[-1][1])) is not None:
                headers[-1] = (b"etag", known)  # a store has to find the response that is still good by it
                return Response(304, headers, [])
        chunks = self.template.fill(moment)
        if form is not None:
            assert coding is not None
            chunks = form.chunks(chunks)
            headers.append((b"content-encoding", coding.encode("ascii")))
        length = sum(map(len, chunks))
        headers.append((b"content-length", b"%d" % length))
        return Response(200, headers, chunks)
