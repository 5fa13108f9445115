"""`/openapi.json` says what the code does, and the page shows nothing else."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from api import errors, params, protocol
from api.endpoint import BINARY, JSON
from api.endpoints import ENDPOINTS
from api.heatmap_params import Refused
from api.openapi import codes_of, schema_of
from api.openapi import document as build_document
from api.openapi_texts import ERRORS, PARAMETERS
from api.resources.description import WEB
from api.web_files import SERVED
from mpengine import contract, mphm
from mpengine.wire_formats import COLUMN_HEADER, DEPTH_HEADER
from tests.api.world import World, get
from tests.conftest import skip_or_fail

PATHS = [(path, one) for one in ENDPOINTS for path in one.paths]


@pytest.fixture
def document(world: World) -> dict[str, Any]:
    reply = get(world.app(), "/openapi.json")
    assert reply.status == 200
    return dict(reply.json)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        at: Any = document
        for key in value["$ref"].removeprefix("#/").split("/"):
            at = at[key.replace("~1", "/").replace("~0", "~")]
        value = at
    return value


def test_it_is_valid_by_the_meta_schema_and_holds_together(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    OPENAPI_31_VALIDATOR.validate(document)
    for reference in references(document):
        resolved(document, {"$ref": reference})
    used = set(references(document))
    for kind, found in document["components"].items():
        if kind not in ("securitySchemes", "headers"):
            unused = [name for name in found if f"#/components/{kind}/{name}" not in used]
            assert not unused, f"{kind} that nothing names: {unused}"


def test_it_is_kept_with_its_tag(world: World) -> None:
    app = world.app()
    first = get(app, "/openapi.json")
    assert re.fullmatch(r'"[0-9a-f]{16}"', first.headers["etag"])
    again = get(app, "/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert get(world.app(), "/openapi.json").body == first.body
    assert get(app, "/openapi.json", method="HEAD").headers["content-length"] == str(len(first.body))


def test_every_path_and_alias_is_there_with_every_parameter(document: dict[str, Any]) -> None:
    assert list(document["paths"]) == [path for path, _ in PATHS]
    for path, endpoint in PATHS:
        item = document["paths"][path]
        given = [resolved(document, one) for one in item["parameters"]]
        names = [one["name"] for one in given if one["in"] == "query"]
        rows = [row for row in endpoint.parameters if not isinstance(row, Refused)]
        assert names == [*(["symbol"] if endpoint.symbol else []), *(row.name for row in rows)], path
        assert item["get"].get("x-alias-of", path) == endpoint.path
        assert item["get"]["x-cost"] == endpoint.cost
        assert item["get"]["responses"].keys() >= {"200" if endpoint.media else "101", *map(str, codes_of(endpoint))}
        described = [one["schema"] for one in given if one["in"] == "query" and one["name"] != "symbol"]
        assert described == [schema_of(row) for row in rows], path


def test_the_table_is_what_the_resources_check(world: World) -> None:
    app = world.app()
    for endpoint in ENDPOINTS:
        resource: Any = endpoint.build(app.context, app._health)
        table = getattr(resource, "_table", None)
        assert (table is not None) == endpoint.symbol, endpoint.path
        if table is not None:
            assert table.rows is endpoint.parameters, endpoint.path


def test_a_parameter_tells_default_range_and_what_is_outside(document: dict[str, Any]) -> None:
    found = document["components"]["parameters"]
    assert found["minutes"]["schema"] == {
        "type": "integer", "format": "int64", "minimum": -(10**15 - 1), "maximum": 10**15 - 1, "x-clamped": [5, 720],
        "default": 720,
    }  # fmt: skip
    assert found["range_pct"]["schema"] == {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}
    assert found["min_notional"]["schema"] == {"type": "number", "minimum": 0.0}
    assert found["min_leverage"]["schema"] == {"type": "integer", "format": "int64", "minimum": 0, "maximum": 250}
    assert found["symbol"]["schema"] == {"type": "string", "enum": ["BTC", "ETH", "SOL", "XRP"], "default": "BTC"}
    limits = [found[name]["schema"].get("x-clamped") for name in ("limit", "limit_liquidations")]
    assert limits == [[1, 1500], [1, 1000]]
    assert "clamped" in found["minutes"]["description"] and "400" in found["range_pct"]["description"]
    with pytest.raises(TypeError, match="no description"):
        schema_of(object())


def test_every_parameter_has_its_meaning_and_no_other_has(document: dict[str, Any]) -> None:
    names = {one["name"] for one in document["components"]["parameters"].values() if one["in"] == "query"}
    assert names == PARAMETERS.keys()


def test_every_error_code_of_the_source_is_described(document: dict[str, Any]) -> None:
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (errors, protocol, params))
    codes = set(re.findall(r'(?:ApiError|Refusal)\(\d{3}, "(\w+)"', source))
    listed = {code for codes_ in contract.ERROR_CODES.values() for code in codes_}
    assert codes <= listed == ERRORS.keys()
    assert {(one["status"], one["code"]) for one in document["x-errors"]} == {
        (status, code) for status, codes_ in contract.ERROR_CODES.items() for code in codes_
    }
    for _, endpoint in PATHS:
        for status, codes_ in codes_of(endpoint).items():
            assert set(codes_) <= set(contract.ERROR_CODES[status])


def test_an_endpoint_has_its_headers_and_an_example(document: dict[str, Any]) -> None:
    for path, endpoint in PATHS:
        answers = document["paths"][path]["get"]["responses"]
        if not endpoint.media:
            continue
        ok = resolved(document, answers["200"])
        assert ok["headers"].keys() >= {"Cache-Control", "X-Request-Id", *endpoint.headers}
        assert ("304" in answers) == (endpoint.data or "ETag" in endpoint.headers)
        if endpoint.data:
            assert ok["headers"].keys() >= {"ETag", "X-Seq", "X-Epoch", "X-Age-Ms", "X-Stale", "RateLimit"}
            assert resolved(document, answers["304"])["headers"].keys() == ok["headers"].keys()
        if endpoint.body is not None:
            statuses = ["200", *map(str, endpoint.also)]
            media = [resolved(document, answers[status])["content"][JSON] for status in statuses]
            assert any(one["examples"] for one in media), path


def test_every_error_answer_shows_each_of_its_codes(document: dict[str, Any]) -> None:
    for path, endpoint in PATHS:
        for status, codes in codes_of(endpoint).items():
            answer = resolved(document, document["paths"][path]["get"]["responses"][str(status)])
            assert set(codes) <= answer["content"][JSON]["examples"].keys(), (path, status)


def test_an_open_endpoint_asks_for_no_key(document: dict[str, Any]) -> None:
    open_ = {path for path, item in document["paths"].items() if item["get"].get("security") == []}
    assert open_ == {"/livez", "/readyz", "/openapi.json", *(one.path for one in SERVED if one.open)}
    assert document["security"] == [{}, {"bearer": []}, {"apiKey": []}]


def test_it_is_of_the_settings_in_force(world: World) -> None:
    api = replace(world.settings.api, keys=True, push_bytes_per_s=512 << 10, push_connections_per_client=7)
    examples = json.loads((WEB / "examples.json").read_bytes())
    found = build_document(ENDPOINTS, replace(world.settings, api=api), examples, "1")
    assert found["security"] == [{"bearer": []}, {"apiKey": []}]
    limits = {one["limit"]: one["value"] for one in found["x-push"]["limits"]}
    assert limits["budget"].startswith("512 KiB/s") and limits["connections"] == "7 per key or address"


def test_binary_forms_are_described_as_they_are_packed(document: dict[str, Any]) -> None:
    for endpoint in ENDPOINTS:
        if BINARY in endpoint.media:
            answer = resolved(document, document["paths"][endpoint.path]["get"]["responses"]["200"])
            layout = answer["content"][BINARY]["x-layout"]
            formats = (mphm.HEADER.format, mphm.ENTRY.format) if endpoint.path == "/heatmap" else (DEPTH_HEADER.format,)
            assert all(f"`{one}`" in layout for one in formats)
    rows = document["x-push"]["binary"]
    sizes = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f32": "f", "f64": "d", "u8[4]": "4s"}
    told = struct.Struct("<" + "".join(sizes[one["type"]] for one in rows[:-1]))
    assert told.size == rows[-1]["offset"] == COLUMN_HEADER.size
    for index, one in enumerate(rows[:-1]):
        assert struct.calcsize("<" + "".join(sizes[row["type"]] for row in rows[:index])) == one["offset"], one
    assert told.format.replace("q", "Q") == COLUMN_HEADER.format.replace("q", "Q")


def test_push_is_described(document: dict[str, Any]) -> None:
    found = document["x-push"]
    assert list(found["channels"]) == ["depth.SYM", "liq.SYM", "liquidations.SYM", "zones.SYM", "levels.SYM", "oi.SYM",
                                       "candles.SYM", "book.SYM", "status"]  # fmt: skip
    assert found["binary"][-1]["offset"] == 80
    assert {"DataMessage", "Beat", "Bye", "Ack", "Subscribe", "Column"} <= document["components"]["schemas"].keys()


# the page ---------------------------------------------------------------------------------------------------------------


def test_the_page_loads_only_its_own_files_and_writes_only_text() -> None:
    html, script, style = ((WEB / name).read_text(encoding="utf-8") for name in ("docs.html", "docs.js", "docs.css"))
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address in ("data:,", "/docs/page.css", "/docs/page.js", "/openapi.json")
    assert "<style" not in html and " style=" not in html and not re.search(r"\son\w+=", html)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", html) == [""]
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc", ".style"):
        assert word not in script, word
    assert "http:" not in script and "https:" not in script and "import" not in re.sub(r"//.*", "", script)
    assert "url(" not in style and "@import" not in style
    assert 'name="viewport"' in html


def rendered(tmp_path: Path, description: str) -> dict[str, Any]:
    """What the script of the page makes of a description."""
    node = shutil.which("node")
    if node is None:
        skip_or_fail("node is not installed: the script of the page cannot be run")
    script, given = tmp_path / "page.mjs", tmp_path / "openapi.json"
    script.write_bytes((WEB / "docs.js").read_bytes())
    given.write_text(description, encoding="utf-8")
    command = [str(node), str(Path(__file__).parent / "page" / "render.mjs"), str(script), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_page_shows_every_endpoint_parameter_error_example_and_channel(document: dict[str, Any], tmp_path: Path) -> None:
    document["info"]["summary"] = "<img src=x onerror=alert(1)>"
    found = rendered(tmp_path, json.dumps(document))
    text = set(found["text"])
    assert len(set(found["ids"])) == len(found["ids"])
    for endpoint in ENDPOINTS:
        assert {endpoint.path, ", ".join(endpoint.aliases), endpoint.summary} - {""} <= text
        assert (re.sub(r"\W+", "_", endpoint.path).lstrip("_") or "root") in found["ids"]
        assert {row.name for row in endpoint.parameters if row.name != "channels"} | {"channels (required)"} <= text
    assert {one["code"] for one in document["x-errors"]} <= text
    assert {*document["x-push"]["channels"], "MPCD"} <= text
    assert {"5 to 720, clamped", "above 0 to 1", "clamped, echoed"} <= text
    assert sum(one.startswith("Example, ") for one in found["text"]) > 20
    assert {f"Keys of {name}" for name in ("LiqHeatmapV2", "Level", "Heatmap", "Column", "Bye")} <= text
    assert not {"img", "script", "style"} & set(found["tags"])
    assert {link[1:] for link in found["links"]} <= set(found["ids"])


def test_the_page_says_when_it_cannot_show_anything(tmp_path: Path) -> None:
    assert "The description cannot be shown: status 503" in rendered(tmp_path, "")["text"]


@pytest.mark.parametrize("path", ["/redoc", "/score", "/docs/nope", "/swagger", "/docs/../web/examples.json"])
def test_what_is_gone_or_later_is_not_found(world: World, path: str) -> None:
    assert get(world.app(), path).error == (404, "not_found")


def test_the_examples_are_small() -> None:
    assert len((WEB / "examples.json").read_bytes()) < 64_000
    json.loads((WEB / "examples.json").read_bytes())
