"""Every parameter of every endpoint from `/openapi.json`: no 5xx, every answer as it is described, nothing invalid taken.

In process, on a world of small grids in which every answer is there. Streams have no end and metrics are for scrapers, so both stay
out. An alias is the same resource (`test_app.py`), so only the paths themselves are fuzzed.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import Service
from api.endpoints import ENDPOINTS
from mpengine.config import load, resolve_directories
from mpengine.contract import Error
from tests.api.golden_world import fill
from tests.api.schema_check import faults
from tests.api.world import World, ask, get

OUT = ("/stream", "/ws", "/metrics")
FUZZED = [one for one in ENDPOINTS if one.path not in OUT]
WITH_PARAMETERS = [one.path for one in FUZZED if one.symbol or one.parameters]
# Values that are each allowed may contradict each other (price_min above price_max), so refusing them is no fault here.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance, negative_data_rejection]  # fmt: skip
TEXT = """
[api]
rate_limits = false
cache_entries = 50
cache_bytes = 4000000
cache_body_bytes = 1000000
[symbols.BTC]
step = 1000.0
book_step = 1000.0
[symbols.ETH]
step = 1000.0
book_step = 1000.0
"""
EXAMPLES = 12
REQUESTS = 100_000
RSS_BYTES = 48 << 20


@pytest.fixture(scope="module")
def app() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    for name in ("data", "run"):
        (folder / name).mkdir()
    world = World(resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run"))
    try:
        for symbol in ("BTC", "ETH"):
            fill(world, symbol)
        yield world.app()
    finally:
        world.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def described(app: Service) -> Any:
    """The interface as schemathesis reads it."""
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def fuzz(described: Any, path: str, mode: GenerationMode, examples: int) -> None:
    operation = described[path]["GET"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate])  # fmt: skip
    def run(case: Any) -> None:
        response = case.call()
        case.validate_response(response, checks=CHECKS)

    run()


@pytest.mark.parametrize("path", [one.path for one in FUZZED])
def test_what_is_allowed_is_answered_as_described(described: Any, path: str) -> None:
    fuzz(described, path, GenerationMode.POSITIVE, EXAMPLES)


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_what_is_not_allowed_is_refused_as_described(described: Any, path: str) -> None:
    fuzz(described, path, GenerationMode.NEGATIVE, EXAMPLES)


def test_fuzzing_finds_a_body_that_is_not_as_described(app: Service) -> None:
    for path, name, field, value in (("/oi", "OpenInterest", "properties", {"seq": {"type": "string"}}),
                                     ("/time", "Time", "required", ["later"])):  # fmt: skip
        document = get(app, "/openapi.json").json
        document["components"]["schemas"][name][field] = value
        wrong = schemathesis.openapi.from_dict(document)
        wrong.app = app
        with pytest.raises(BaseException, match=r"(?i)schema"):
            fuzz(wrong, path, GenerationMode.POSITIVE, 2)


NUMBERS = (-(10**15), -1, 0, 1, 2, 5, 6, 16, 30, 50, 250, 251, 720, 721, 1000, 1440, 2000, 2001, 10**15 - 1, 10**15, -0.5, 1e-9,
           0.25, 0.9999, 1.0, 1.0001, 4.9999, 5.0, 5.0001, 1e6)  # fmt: skip


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_a_number_is_taken_exactly_when_its_schema_takes_it(app: Service, path: str) -> None:
    document = get(app, "/openapi.json").json
    for one in document["paths"][path]["parameters"]:
        parameter = document["components"]["parameters"][one["$ref"].rpartition("/")[2]]
        schema = parameter["schema"]
        if schema.get("type") not in ("integer", "number") or parameter["name"] == "step":  # a multiple of the frame's step
            continue
        allowed = jsonschema_rs.validator_for({key: value for key, value in schema.items() if key != "format"})
        for value in NUMBERS:
            if isinstance(value, float) and schema["type"] == "integer":
                continue  # "5.0" is an integer for a schema, but not spelled as one
            status = get(app, f"{path}?{parameter['name']}={value!r}").status
            assert status == (200 if allowed.is_valid(value) else 400), (parameter["name"], value)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_fuzzing_for_long(described: Any, path: str, mode: GenerationMode) -> None:
    fuzz(described, path, mode, 300)


# many valid requests ----------------------------------------------------------------------------------------------------


def drawn(schema: dict[str, Any], rng: random.Random) -> str:
    """A value that the schema of a parameter allows, at its edges more often than by chance."""
    if "enum" in schema:
        return str(rng.choice(schema["enum"]))
    if schema["type"] == "array":
        words = schema["items"]["enum"]
        return ",".join(rng.sample(words, rng.randint(1, len(words))))
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if schema["type"] == "integer":
        clamped = schema.get("x-clamped")
        return str(rng.choice([low, high, rng.randint(*(clamped or (low, high)))]))
    top = 200_000.0 if high is None else high
    edges = [top, top / 2, *([low] if "minimum" in schema else [])]
    return repr(float(rng.choice([*edges, rng.uniform(low, top) or top])))


def requests_of(document: dict[str, Any], rng: random.Random) -> Callable[[], str]:
    """Makes random requests, each of which is valid parameter by parameter."""
    known = document["components"]["parameters"]
    tables = {
        path: [known[one["$ref"].rpartition("/")[2]] for one in document["paths"][path]["parameters"]] for path in WITH_PARAMETERS
    }

    def request() -> str:
        path = rng.choice(WITH_PARAMETERS)
        chosen = [one for one in tables[path] if one["in"] == "query" and rng.random() < 0.4]
        query = "&".join(f"{one['name']}={quote(drawn(one['schema'], rng))}" for one in chosen)
        return f"{path}?{query}" if query else path

    return request


async def send_many(app: Service, request: Callable[[], str], count: int, watch: Callable[[int], None]) -> dict[int, int]:
    """Statuses of `count` requests; `watch(n)` after each thousand."""
    statuses: dict[int, int] = {}
    for number in range(1, count + 1):
        target = request()
        reply = await ask(app, target)
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if reply.status != 200:
            assert reply.status == 400, (target, reply.body)
            assert faults(reply.body, Error) == []
        if number % 1000 == 0:
            watch(number)
    return statuses


def within_bounds(app: Service) -> None:
    """The cache keeps what the settings allow, whatever is asked."""
    cache, api = app.context.cache, app.settings.api
    assert len(cache) <= api.cache_entries and cache.size <= api.cache_bytes
    assert cache.spellings <= 8 * api.cache_entries


@pytest.mark.covers("A2-H4")
def test_random_valid_requests_stay_within_the_cache(app: Service) -> None:
    request = requests_of(get(app, "/openapi.json").json, random.Random(5))
    statuses = asyncio.run(send_many(app, request, 1000, lambda _: within_bounds(app)))
    assert statuses[200] > 400 and set(statuses) <= {200, 400}
    assert len(app.context.cache) == app.settings.api.cache_entries


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.covers("A2-H4")
def test_a_hundred_thousand_random_requests_in_bounded_memory(app: Service) -> None:
    process, resident = psutil.Process(), []

    def watch(_number: int) -> None:
        within_bounds(app)
        memory = process.memory_info()
        resident.append(memory.rss - memory.shared)  # rings are mapped: their pages count with whoever has touched them

    request = requests_of(get(app, "/openapi.json").json, random.Random(6))
    statuses = asyncio.run(send_many(app, request, REQUESTS, watch))
    assert sum(statuses.values()) == REQUESTS and statuses[200] > REQUESTS * 0.4
    # The first tenth fills cache, kept rows and pools of the allocator; after that nothing may grow with the number of requests.
    settled = resident[REQUESTS // 10_000 - 1]
    assert max(resident) - settled < RSS_BYTES, [value >> 20 for value in resident]
