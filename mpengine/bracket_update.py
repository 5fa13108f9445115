"""Maintenance brackets fetched from a venue's public REST for `mpengine brackets update`. Before: `mpengine.venues.brackets`.

One client, one request at a time, each with the time-out and the body limit of `ingest`. A venue that refuses this address is not
asked again; what is wrong with one instrument does not keep the others from being asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from mpengine import __version__
from mpengine.brackets import Bracket
from mpengine.config import IngestSettings
from mpengine.venues.brackets import ASKING, Refused, Unavailable, refused_status

CHUNK: Final = 65_536


@dataclass(slots=True)
class Fetched:
    """Instrument -> rows, and instrument -> why it has none."""

    tables: dict[str, list[Bracket]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def fetch(venue: str, base_url: str, instruments: Sequence[str], limits: IngestSettings) -> Fetched:
    """Rows of a venue's instruments. `base_url`: before each path. Raises KeyError for a venue that `ASKING` does not know."""
    return asyncio.run(_fetch(venue, base_url.rstrip("/"), instruments, limits))


async def _fetch(venue: str, base_url: str, instruments: Sequence[str], limits: IngestSettings) -> Fetched:
    found, asking = Fetched(), ASKING[venue]
    timeout = aiohttp.ClientTimeout(total=limits.rest_timeout_s, connect=limits.connect_timeout_s)
    headers = {"User-Agent": f"mpengine/{__version__}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        for at, instrument in enumerate(instruments):
            try:
                steps = asking(instrument)
                path = next(steps)
                while True:
                    path = steps.send(await _body(session, base_url + path, limits.rest_body_bytes))
            except StopIteration as done:
                found.tables[instrument] = done.value
            except Unavailable as error:
                found.failures[instrument] = str(error)
                found.failures |= dict.fromkeys(instruments[at + 1 :], "not asked for any more")
                break
            except Refused as error:
                found.failures[instrument] = str(error)
    return found


async def _body(session: aiohttp.ClientSession, url: str, limit: int) -> bytes:
    """Body of a GET that was answered with 200. Raises Refused."""
    parts, size = list[bytes](), 0
    try:
        async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
            async for part in response.content.iter_chunked(CHUNK):
                size += len(part)
                if size > limit:
                    raise Unavailable(f"the reply is larger than {limit} bytes (ingest.rest_body_bytes)")
                parts.append(part)
            status, headers = response.status, _lower(response.headers)
    except TimeoutError as error:
        raise Unavailable("no reply in time (ingest.rest_timeout_s)") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"no connection, or no proper reply ({type(error).__name__})") from error
    if status != 200:
        raise refused_status(status, headers, b"".join(parts))
    return b"".join(parts)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
