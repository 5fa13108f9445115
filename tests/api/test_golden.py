"""Every endpoint and alias, byte for byte (`tests/api/golden`), and every body as its Struct says."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.endpoints import ENDPOINTS
from mpengine.contract import ERROR_CODES, Error
from tests.api import golden
from tests.api.schema_check import difference, faults
from tests.api.world import Reply, get

BY_PATH = {one.path: one for one in ENDPOINTS}
NAMES = list(golden.requests())


@pytest.fixture(scope="module")
def found() -> dict[str, Reply]:
    return golden.bodies()


def reply_of(found: dict[str, Reply], name: str) -> tuple[Reply, Path]:
    full = f"{name}.json" if f"{name}.json" in found else f"{name}.hex"
    return found[full], golden.FOLDER / full


@pytest.mark.parametrize("name", NAMES)
def test_a_body_is_the_golden_one(found: dict[str, Reply], name: str) -> None:
    reply, path = reply_of(found, name)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".hex":
        assert golden.text_of(reply) == text
        return
    old = golden.compact(text).encode()
    assert reply.body == old, f"{difference(old, reply.body) or 'only its spelling changed'} (make golden, then review the diff)"


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_body_is_as_the_contract_says(found: dict[str, Reply], name: str) -> None:
    reply, _ = reply_of(found, name)
    if name.startswith("errors/"):
        assert faults(reply.body, Error) == []
        assert reply.json["error"] in ERROR_CODES[reply.status]
        return
    endpoint = BY_PATH[urlsplit(golden.requests()[name]).path]
    assert reply.status == 200 or reply.status in endpoint.also
    assert reply.headers["content-type"] in endpoint.media
    if reply.headers["content-type"] == "application/json":
        assert endpoint.body is not None
        assert faults(reply.body, endpoint.body) == []


def test_no_file_is_left_over(found: dict[str, Reply]) -> None:
    files = {str(path.relative_to(golden.FOLDER)) for path in golden.FOLDER.rglob("*") if path.is_file()}
    assert files == set(found)


def test_aliases_have_the_golden_bodies_too(tmpfs: Path) -> None:
    with golden.service(tmpfs) as app:
        for endpoint in ENDPOINTS:
            for alias in endpoint.aliases:
                assert get(app, alias).body == get(app, endpoint.path).body, alias


def test_the_examples_are_the_golden_bodies(found: dict[str, Reply]) -> None:
    assert golden.EXAMPLES.read_text(encoding="utf-8") == golden.examples(found), "make golden"


def test_every_error_code_has_its_example(found: dict[str, Reply]) -> None:
    examples = json.loads(golden.examples(found))["errors"]
    assert examples.keys() == {code for codes in ERROR_CODES.values() for code in codes}
    for code, body in examples.items():
        assert faults(json.dumps(body), Error) == [] and body["error"] == code


@pytest.mark.parametrize("text", ['{"a":[1,2.50,"x, {[\\"]"],"b":{},"c":[[]],"d":{"e":null}}', "[]", '"a"', "1.0e5"])
def test_spreading_adds_nothing_but_white_space(text: str) -> None:
    assert golden.compact(golden.spread(text)) == text
