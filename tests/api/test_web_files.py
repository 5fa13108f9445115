"""The dashboard as files: what browsers may keep, in which coding it comes, and what a page may load."""

from __future__ import annotations

import gzip
import html
import json
import re
from pathlib import Path

import pytest
import zstandard
from falcon import testing

from api.resources.web import FOR_EVER, POLICY
from api.web_files import PLACEHOLDER, SERVED, WEB, Served, WebFiles
from tests.api.world import World


@pytest.fixture
def client(world: World) -> testing.TestClient:
    return testing.TestClient(world.app()._falcon)


def versioned(client: testing.TestClient) -> dict[str, str]:
    """Paths that the page names, with their `v`."""
    return dict(re.findall(r'"(static/[\w./-]+)\?v=(\w+)"', client.simulate_get("/").text))


def test_the_page_names_its_files_with_the_hash_of_all(client: testing.TestClient) -> None:
    named = versioned(client)
    assert {"static/app.js", "static/app.css", "static/icon.svg"} <= set(named)
    assert len(set(named.values())) == 1
    for path, version in named.items():
        answer = client.simulate_get("/" + path, query_string=f"v={version}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, FOR_EVER)


def test_the_script_carries_the_licence_of_what_it_contains(client: testing.TestClient) -> None:
    assert "TradingView Lightweight Charts" in client.simulate_get("/static/app.js").text
    for name in ("LICENSE", "NOTICE"):
        assert client.simulate_get(f"/static/vendor/{name}").status_code == 200


@pytest.mark.parametrize("query", ["", "v=0123", "v="])
def test_what_is_asked_for_without_the_hash_is_asked_for_again(client: testing.TestClient, query: str) -> None:
    answer = client.simulate_get("/static/app.css", query_string=query)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


def test_the_page_itself_is_always_asked_for_again(client: testing.TestClient) -> None:
    (version,) = set(versioned(client).values())
    first = client.simulate_get("/", query_string=f"v={version}")
    assert first.headers["cache-control"] == "no-cache"
    again = client.simulate_get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("served", SERVED, ids=lambda one: one.path)
def test_every_coding_is_the_same_file(client: testing.TestClient, served: Served) -> None:
    path = served.path
    plain = client.simulate_get(path)
    assert plain.status_code == 200
    tags = {plain.headers["etag"]}
    for coding in ("gzip", "zstd"):
        coded = client.simulate_get(path, headers={"Accept-Encoding": coding})
        assert coded.headers["vary"] == "Accept-Encoding"
        if coded.headers.get("content-encoding") is None:
            assert coded.content == plain.content  # too small to be worth it
            continue
        assert coded.headers["content-encoding"] == coding
        body = gzip.decompress(coded.content) if coding == "gzip" else zstandard.ZstdDecompressor().decompress(coded.content)
        assert body == plain.content
        assert len(coded.content) < len(plain.content)
        assert coded.headers["etag"] not in tags, "strong tags differ where bytes do"
        tags.add(coded.headers["etag"])
    for tag in tags:
        assert client.simulate_get(path, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("served", SERVED, ids=lambda one: one.path)
def test_nothing_but_our_own_files_may_be_loaded(client: testing.TestClient, served: Served) -> None:
    answer = client.simulate_get(served.path)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.simulate_head(served.path).headers["etag"] == answer.headers["etag"]


def test_the_page_knows_the_symbols_and_they_cannot_break_out_of_it() -> None:
    files = WebFiles({"symbols": ["BTC", '"><script>alert(1)</script>'], "version": "1", "keys": False})
    body = files["/"].body.decode("utf-8")
    assert "<script>alert" not in body
    (told,) = re.findall(r'<meta name="mpengine" content="([^"]*)"', body)
    assert json.loads(html.unescape(told))["symbols"][1] == '"><script>alert(1)</script>'
    assert PLACEHOLDER.decode() not in body


def test_another_build_is_another_hash(tmp_path: Path) -> None:
    for one in SERVED:
        (tmp_path / one.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one.name).write_bytes((WEB / one.name).read_bytes())
    before = WebFiles({}, tmp_path).hash
    assert WebFiles({}, tmp_path).hash == before
    with (tmp_path / "app.css").open("ab") as file:
        file.write(b"\n")
    assert WebFiles({}, tmp_path).hash != before


def test_no_file_beside_them_can_be_had(client: testing.TestClient) -> None:
    for path in ("/static/", "/static/src/app.js", "/static/../app.py", "/static/examples.json", "/static/types/contract.d.ts"):
        assert client.simulate_get(path).status_code == 404
