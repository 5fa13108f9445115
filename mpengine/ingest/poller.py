"""REST of one venue: the repeated calls and single requests, by the rules of `rest_policy`.

One client per venue, closed when the poller ends, also in the middle of a request. Each repeated call has its own task, so a host
that hangs delays nothing but its own next reply.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from mpengine.config import IngestSettings
from mpengine.ingest.counts import Rarely
from mpengine.ingest.feeds import Feed
from mpengine.ingest.intake import Intake
from mpengine.ingest.merge import Key
from mpengine.ingest.rest_policy import paced
from mpengine.venues.base import RestCall, RestResult, RestVerdict
from shm.board_words import Word

CONCURRENT: Final = 32
SNAPSHOT_PLACES: Final = 2
"""Connections of the client that repeated calls never take: a snapshot does not wait behind polls that hang."""
JSON: Final = {"Content-Type": "application/json"}
CHUNK: Final = 65_536
LONGEST_SLEEP_S: Final = 3600.0
LOGGED_EVERY_S: Final = 600.0

log = logging.getLogger("mpengine.ingest.poller")


class BodyTooLarge(Exception):
    """The body of a reply is longer than `ingest.rest_body_bytes`; it was not read to its end."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    recv_ns: int


class Poller:
    """REST of one venue. `run` holds the client; outside of it every request is TRANSIENT."""

    def __init__(self, feed: Feed, base_url: str, intake: Intake, settings: IngestSettings, version: str) -> None:
        """`base_url`: scheme, host and path before each call's path. `version`: of this program, for the User-Agent."""
        self.feed = feed
        self._base_url = base_url.rstrip("/")
        self._intake = intake
        self._settings = settings
        self._agent = f"mpengine/{version}"
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(CONCURRENT)
        self._rarely = Rarely(LOGGED_EVERY_S)

    async def run(self) -> None:
        """Repeat the venue's calls until cancelled; closes the client then."""
        timeout = aiohttp.ClientTimeout(total=self._settings.rest_timeout_s)
        connector = aiohttp.TCPConnector(limit=CONCURRENT + SNAPSHOT_PLACES)
        headers = {"User-Agent": self._agent}
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
        ) as self._session:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for delay_s, call in paced(self.feed.module.polls()):
                        tasks.create_task(self._repeat(call, delay_s), name=f"{self.feed.name}/{call.name}")
                    await asyncio.Event().wait()
            finally:
                self._session = None

    async def request(self, call: RestCall) -> RestResult | None:
        """One request now, if the policy lets it; what the reply meant. None: not allowed at this time."""
        policy = self.feed.policy
        if policy.wait_ns(call, time.monotonic_ns()) != 0:
            return None
        policy.sent(call, time.monotonic_ns())
        self._intake.asked(call)
        try:
            reply, verdict = await self._exchange(call)
            policy.settle(call, verdict, time.monotonic_ns())
            if reply is not None:
                self._deliver(call, reply, verdict)
        finally:
            self._intake.answered(call)
        if verdict.result is not RestResult.OK:
            self._note_trouble(call, verdict, reply)
        return verdict.result

    async def _repeat(self, call: RestCall, delay_s: float) -> None:
        """Requests of one call, each when it is due and allowed, for as long as it can be allowed at all."""
        policy = self.feed.policy
        await asyncio.sleep(delay_s)
        while True:
            now_ns = time.monotonic_ns()
            wait_ns = policy.wait_ns(call, now_ns)
            if wait_ns is None:
                log.warning("%s: %s is off until the next start", self.feed.name, call.name)
                return
            if wait_ns == 0:
                async with self._places:
                    if await self.request(call) is None:
                        continue  # what it had to wait for came up while it waited for its place
                wait_ns = policy.next_ns(call, now_ns, time.monotonic_ns()) - time.monotonic_ns()
            await asyncio.sleep(min(LONGEST_SLEEP_S, max(0, wait_ns) / 1e9))

    async def _exchange(self, call: RestCall) -> tuple[_Reply | None, RestVerdict]:
        """Ask and judge. Everything that keeps a reply from coming is TRANSIENT."""
        self._intake.counts.add(Word.REST_REQUESTS)
        try:
            reply = await self._fetch(call)
        except (aiohttp.ClientError, OSError, TimeoutError, BodyTooLarge, ValueError) as error:
            self.feed.last_error = f"{call.name}: {type(error).__name__}"
            return None, RestVerdict(RestResult.TRANSIENT)
        return reply, self._intake.judge(self.feed, call, reply.status, reply.headers, reply.body)

    async def _fetch(self, call: RestCall) -> _Reply:
        if self._session is None:
            raise OSError("the client is closed")
        url = URL(self._base_url + call.path, encoded=True)
        method, headers = ("GET", None) if call.body is None else ("POST", JSON)
        async with self._session.request(method, url, data=call.body, headers=headers, allow_redirects=False) as response:
            body = await self._body(response)
            said = {name.lower(): value for name, value in response.headers.items()}
            return _Reply(response.status, said, body, time.time_ns())

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._settings.rest_body_bytes
        parts, size = [], 0
        async for part in response.content.iter_chunked(CHUNK):
            size += len(part)
            if size > limit:
                raise BodyTooLarge
            parts.append(part)
        return b"".join(parts)

    def _deliver(self, call: RestCall, reply: _Reply, verdict: RestVerdict) -> None:
        if verdict.result is RestResult.OK:
            self._intake.reply(self.feed, call, reply.status, reply.body, reply.recv_ns, _place(reply.headers))
        else:
            self._intake.failed_reply(self.feed, call, reply.status, reply.body, reply.recv_ns)

    def _note_trouble(self, call: RestCall, verdict: RestVerdict, reply: _Reply | None) -> None:
        feed, result = self.feed, verdict.result
        feed.rest_errors += 1
        self._intake.counts.add(Word.REST_ERRORS)
        if result in (RestResult.LIMITED, RestResult.BANNED):
            self._intake.counts.add(Word.RATE_LIMITED)
        what = feed.last_error if reply is None else f"{call.name}: status {reply.status}"
        feed.last_error = what
        held = self._rarely.admit((call.name, call.symbol, result), time.monotonic_ns())
        if held is not None:
            severe = result in (RestResult.BANNED, RestResult.BLOCKED)
            log.log(
                logging.ERROR if severe else logging.WARNING, "%s: %s is %s (%d more before)", feed.name, what, result.name, held
            )


def _place(headers: Mapping[str, str]) -> Key | None:
    """Place in the capture that the reply was served from; None where the sender does not say it."""
    recv_ns, line = headers.get("x-recv-ns", ""), headers.get("x-line", "")
    if recv_ns.isascii() and recv_ns.isdigit() and line.isascii() and line.isdigit():
        return Key(int(recv_ns), int(line))
    return None
