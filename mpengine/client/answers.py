"""One question and its answer, without I/O: kept bodies, error bodies, retries, ages, clock offset. Pure.

A client asks like this, whatever it does its I/O with:

    exchange = Exchange(request, kept, retries, draw)
    loop: send exchange.headers() -> reply -> exchange.take(reply): an Answer, or seconds to wait before the next try
                                  -> no reply -> exchange.broke(error): seconds to wait

`draw` gives numbers of [0, 1), `now_s` is a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Generic, TypeVar

import msgspec

from mpengine.client.errors import ApiError, ContractError, Unreachable
from mpengine.client.kept import Kept
from mpengine.client.requests import Request
from mpengine.contract import ERROR_CODES, Error

T = TypeVar("T")
Draw = Callable[[], float]

NOT_MODIFIED: Final = 304
RETRIED: Final = frozenset((429, 502, 503, 504))
"""Worth another try: too many requests, not ready or overloaded, and what a proxy says while the server restarts."""
DETAIL_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """What came over the wire. Header names in lower case; `body` decompressed; `now_s`: when it was complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now_s: float


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A body and how old its data is.

    After a 304 (`not_modified`) the body is the one that was kept: ages and `stale` inside it are those of its own response, `age`
    and `stale` here are those of now. A kept body is shared between answers and not to be changed.

    `epoch`, `seq`: identity of the data, None without data. `stale`: as the server said, None for answers that are not data.
    """

    body: T
    status: int
    epoch: int | None
    seq: int | None
    etag: str | None
    stale: bool | None
    not_modified: bool
    request_id: str | None
    headers: Mapping[str, str] = field(repr=False)
    received_s: float = field(repr=False)
    age_then_s: float | None = field(repr=False)
    _now_s: Callable[[], float] = field(repr=False)

    def age(self) -> float | None:
        """Age of the data now, s; None for answers that are not data, and without data."""
        if self.age_then_s is None:
            return None
        return self.age_then_s + self._now_s() - self.received_s


@dataclass(frozen=True, slots=True)
class Retries:
    """When to ask again: at most `tries` times and `wait_s` of waiting in all; `first_s`, `limit_s`: of the backoff."""

    tries: int = 4
    wait_s: float = 15.0
    first_s: float = 0.25
    limit_s: float = 8.0

    def pause_s(self, failures: int, waited_s: float, retry_after_s: float | None, *, at_once: bool, draw: Draw) -> float | None:
        """Seconds before the next try; None: no more. `at_once`: the first failure was a broken connection, likely an old one.

        A time that the server named is kept and a little added, so that not everybody comes back in the same moment; otherwise
        full jitter over a doubling limit.
        """
        if failures >= self.tries:
            return None
        if retry_after_s is not None:
            pause = retry_after_s + draw() * max(0.25, 0.1 * retry_after_s)
        elif at_once and failures == 1:
            return 0.0
        else:
            pause = draw() * min(self.limit_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return pause if waited_s + pause <= self.wait_s else None


class Exchange(Generic[T]):
    """One request until it is answered or given up."""

    def __init__(self, request: Request[T], kept: Kept, retries: Retries, draw: Draw, now_s: Callable[[], float]) -> None:
        self._request = request
        self._held = kept.find(request.target) if request.keep else None
        self._kept = kept
        self._retries = retries
        self._draw = draw
        self._now_s = now_s
        self._failures = 0
        self._waited_s = 0.0

    def headers(self) -> dict[str, str]:
        """Headers that this request needs."""
        headers = {"Accept": self._request.media}
        if self._held is not None:
            headers["If-None-Match"] = self._held.etag
        return headers

    def take(self, reply: Reply) -> Answer[T] | float:
        """The answer, or seconds to wait before the next try. Raises ApiError, ContractError."""
        if reply.status == NOT_MODIFIED:
            if self._held is None:
                raise ContractError("304 for a request without If-None-Match")
            return self._answer(reply, self._held.body)
        if reply.status not in self._request.accept:
            return self._again(error_of(reply), RETRIED)
        media = reply.headers.get("content-type", "").partition(";")[0].strip()
        if media != self._request.media:
            # A 503 of /health has a body of its own, a 503 of a proxy or of a full server has not.
            raise ContractError(f"{self._request.path} answered {reply.status} with {media or 'no type'}")
        try:
            body = self._request.decode(reply.body)
        except ContractError:
            if reply.status in RETRIED:
                return self._again(error_of(reply), RETRIED)
            raise
        etag = reply.headers.get("etag")
        if etag is not None and self._request.keep:
            self._kept.keep(self._request.target, etag, body, len(reply.body))
        return self._answer(reply, body)

    def broke(self, error: BaseException) -> float:
        """Seconds to wait before the next try after one that got no reply. Raises Unreachable."""
        return self._pause(Unreachable(self._request.path, error), None, at_once=True)

    def _again(self, error: ApiError, retried: frozenset[int]) -> float:
        if error.status not in retried:
            raise error
        return self._pause(error, error.retry_after_s, at_once=False)

    def _pause(self, error: ApiError | Unreachable, retry_after_s: float | None, *, at_once: bool) -> float:
        self._failures += 1
        pause = self._retries.pause_s(self._failures, self._waited_s, retry_after_s, at_once=at_once, draw=self._draw)
        if pause is None:
            raise error
        self._waited_s += pause
        return pause

    def _answer(self, reply: Reply, body: T) -> Answer[T]:
        headers = reply.headers
        age_ms, seq, epoch = (_number(headers.get(name)) for name in ("x-age-ms", "x-seq", "x-epoch"))
        stale = headers.get("x-stale")
        return Answer(
            body=body,
            status=reply.status,
            epoch=epoch,
            seq=seq,
            etag=headers.get("etag"),
            stale=None if stale is None else stale == "true",
            not_modified=reply.status == NOT_MODIFIED,
            request_id=headers.get("x-request-id"),
            headers=headers,
            received_s=reply.now_s,
            age_then_s=None if age_ms is None else age_ms / 1000,
            _now_s=self._now_s,
        )


def _number(text: str | None) -> int | None:
    """A header's whole number; None where there is none, and for -1, which says "no data"."""
    try:
        value = int(text or "")
    except ValueError:
        return None
    return None if value < 0 else value


def error_of(reply: Reply) -> ApiError:
    """The error of a reply that is not an answer, also where a proxy wrote it."""
    try:
        error = msgspec.json.decode(reply.body, type=Error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        code = ERROR_CODES.get(reply.status, ("http_error",))[-1]
        error = Error(error=code, detail=reply.body[:DETAIL_CHARACTERS].decode("utf-8", "replace").strip())
    return ApiError(reply.status, error.error, error.detail, retry_after_s(reply.headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds; a date is counted from the server's own `Date`. None where it is absent or unreadable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Server's wall clock minus ours, ms, and how far off that can be (half the fastest round trip)."""

    offset_ms: float
    error_ms: float


def clock_offset(samples: Iterable[tuple[float, int, float]]) -> ClockOffset:
    """Offset from samples of (ours before ms, the server's ms, ours after ms): the fastest round trip tells most.

    Raises ValueError without samples.
    """
    before, server, after = min(samples, key=lambda sample: sample[2] - sample[0])
    return ClockOffset(server + 0.5 - (before + after) / 2, (after - before) / 2 + 0.5)
