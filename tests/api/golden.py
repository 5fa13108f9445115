"""Golden bodies: what the API answers on `golden_world`, byte for byte. `python -m tests.api.golden` (`make golden`) writes them.

A `.json` file is the body with line breaks between its tokens and nothing else changed (`compact` gives the bytes back), a `.hex`
file is a binary body, 32 bytes a line. The hash of the settings, which holds the directories of the run, is replaced by zeros, and
the checksum of a binary body with it.
Also written: `api/web/examples.json`, the same bodies as examples of `/openapi.json`.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from api import protocol
from api.access import rate_limited
from api.app import Service
from api.endpoints import ENDPOINTS
from api.errors import internal, method_not_allowed
from api.keys import FORBIDDEN, UNAUTHORIZED
from api.rates import SECOND_NS
from tests.api.golden_world import fill, make_board, settings_in
from tests.api.world import Reply, World, get

FOLDER = Path(__file__).with_name("golden")
EXAMPLES = Path(__file__).resolve().parents[2] / "api" / "web" / "examples.json"
WIDTH = 120

VARIANTS = {
    "empty/health": "/health?empty",
    "empty/orderbook_heatmap_stats": "/orderbook_heatmap_stats?symbol=ETH",
    "empty/orderbook_heatmap_history": "/orderbook_heatmap_history?symbol=ETH",
    "empty/liq_heatmap_history": "/liq_heatmap_history?symbol=ETH",
    "empty/liquidations": "/liquidations?symbol=ETH",
    "filtered/liq_zones": "/liq_zones?side=long&min_leverage=100&min_weight=0.1",
    "filtered/liq_heatmap_v2": "/liq_heatmap_v2?min_notional=100000",
    "filtered/orderbook_heatmap": "/orderbook_heatmap?range_pct=0.03&step=2000",
    "filtered/orderbook_heatmap_empty": "/orderbook_heatmap?price_min=1000&price_max=2000",
    "filtered/liquidations": "/liquidations?after=0&side=long&min_usd=1000",
    "filtered/liquidations_reset": "/liquidations?after=0&epoch=99",
    "filtered/heatmap_sparse": "/heatmap?minutes=5&form=sparse&cell=usd&layers=liq,tape,projected,realised&k=2&min_usd=40000",
    "filtered/heatmap_depth": "/heatmap?minutes=5&dt_s=30&layers=depth&price_min=64000&price_max=67000&pool=sum",
    "empty/heatmap": "/heatmap?minutes=5&symbol=ETH",
    "binary/heatmap": "/heatmap?minutes=5&format=bin",
    "binary/heatmap_sparse_f16": "/heatmap?minutes=5&format=bin&form=sparse&cell=f16&layers=liq,depth",
    "binary/orderbook_heatmap": "/orderbook_heatmap?format=bin",
    "binary/orderbook_heatmap_history": "/orderbook_heatmap_history?format=bin",
    "binary/orderbook_heatmap_history_empty": "/orderbook_heatmap_history?format=bin&symbol=ETH",
    "errors/invalid_symbol": "/oi?symbol=DOGE",
    "errors/invalid_parameter": "/liq_heatmap_history?minutes=abc",
    "errors/invalid_parameter_range": "/orderbook_heatmap?range_pct=1.5",
    "errors/repeated_parameter": "/oi?symbol=BTC&symbol=ETH",
    "errors/no_orderbook": "/orderbook_heatmap?symbol=XRP",
    "errors/too_large": "/orderbook_heatmap?price_min=1&price_max=9000000",
    "errors/not_found": "/nope",
    "errors/no_frame": "/orderbook_heatmap?symbol=ETH",
    "errors/not_ready": "/liq_heatmap?symbol=ETH",
    "errors/not_ready_oi": "/oi?symbol=ETH",
}
"""File name -> request, beside one file per endpoint."""

ELSEWHERE = (
    UNAUTHORIZED, FORBIDDEN, method_not_allowed(), rate_limited(SECOND_NS), internal("7f3a91c2"),
    protocol.PAYLOAD_TOO_LARGE, protocol.URI_TOO_LONG, protocol.HEADERS_TOO_LARGE, protocol.OVERLOADED,
)  # fmt: skip
"""Errors that come before a resource: examples only; each is tested where it comes from."""

PLAIN = {"/heatmap": "/heatmap?minutes=5"}
"""Requests of the file per endpoint that are not the path alone: its body would be too large to read."""


def requests() -> dict[str, str]:
    """File name without its ending -> request, every endpoint first."""
    return {
        **{one.path.strip("/").replace("/", "_"): PLAIN.get(one.path, one.path) for one in ENDPOINTS if one.body is not None},
        **VARIANTS,
    }


@contextmanager
def service(folder: Path, *, filled: bool = True) -> Iterator[Service]:
    """The application over the golden input, or over nothing."""
    world = World(settings_in(folder))
    board = make_board(world) if filled else None
    try:
        if filled:
            fill(world)
        yield world.app()
    finally:
        world.close()
        if board is not None:
            board.close()


def ask(app: Service, empty: Service, target: str) -> Reply:
    """The answer to one of `requests`; `?empty` asks the application that has nothing."""
    reply = get(empty if target.endswith("?empty") else app, target)
    body = re.sub(rb'"config_hash":"[0-9a-f]+"', b'"config_hash":"' + b"0" * 64 + b'"', reply.body)
    if body.startswith(b"MPHM"):
        assert reply.body[120:128] == _sum(reply.body), "the checksum is not that of the body"
        body = body[:120] + _sum(body) + body[128:]
    return Reply(reply.status, reply.headers, body)


def _sum(body: bytes) -> bytes:
    """Bytes 120 to 127 of an MPHM body."""
    return xxhash.xxh3_64_intdigest(body[128:]).to_bytes(8, "little")


def bodies() -> dict[str, Reply]:
    """File name with its ending -> answer."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as first,
        tempfile.TemporaryDirectory(dir="/dev/shm") as second,
        service(Path(first)) as app,
        service(Path(second), filled=False) as empty,
    ):
        found = {name: ask(app, empty, target) for name, target in requests().items()}
    return {f"{name}.{'hex' if _binary(reply) else 'json'}": reply for name, reply in found.items()}


def _binary(reply: Reply) -> bool:
    return reply.headers["content-type"] == "application/octet-stream"


def text_of(reply: Reply) -> str:
    """What the file of an answer holds."""
    if _binary(reply):
        lines = [reply.body[at : at + 32].hex() for at in range(0, len(reply.body), 32)]
        return "\n".join(lines) + "\n"
    return spread(reply.body.decode()) + "\n"


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^{}\[\],:"]+')


def spread(body: str) -> str:
    """Compact JSON over lines: what fits into a line stays in one. Only white space between tokens is added."""
    tokens = _TOKEN.findall(body)
    assert "".join(tokens) == body
    text, at = _value(tokens, 0, "")
    assert at == len(tokens)
    return text


def _value(tokens: list[str], at: int, indent: str) -> tuple[str, int]:
    """(text of the value at `at`, index behind it)."""
    opening = tokens[at]
    if opening not in "{[":
        return opening, at + 1
    items, deeper, at = [], indent + " ", at + 1
    while tokens[at] not in "}]":
        if tokens[at] == ",":
            at += 1
        key = ""
        if opening == "{":
            key, at = f"{tokens[at]}:", at + 2
        item, at = _value(tokens, at, deeper)
        items.append(key + item)
    plain = f"{opening}{','.join(items)}{tokens[at]}"
    if "\n" not in plain and len(indent) + len(plain) <= WIDTH and indent:
        return plain, at + 1
    lines = _filled(items, WIDTH - len(deeper)) if opening == "[" else items
    return f"{opening}\n" + ",\n".join(f"{deeper}{line}" for line in lines) + f"\n{indent}{tokens[at]}", at + 1


def _filled(items: list[str], width: int) -> list[str]:
    """Short items of an array joined to lines."""
    lines: list[str] = []
    for item in items:
        if lines and "\n" not in item and "\n" not in lines[-1] and len(lines[-1]) + len(item) < width and len(item) < 30:
            lines[-1] += f",{item}"
        else:
            lines.append(item)
    return lines


def compact(text: str) -> str:
    """The bytes that `spread` was given."""
    return "".join(token if token.startswith('"') else "".join(token.split()) for token in _TOKEN.findall(text))


def examples(found: dict[str, Reply]) -> str:
    """`api/web/examples.json`: path -> status -> body, and error code -> body."""
    paths: dict[str, dict[str, object]] = {}
    errors: dict[str, object] = {}
    for name, target in requests().items():
        reply = found.get(f"{name}.json")
        if reply is None:
            continue
        if name.startswith("errors/"):
            errors.setdefault(reply.error[1], reply.json)
        else:
            paths.setdefault(target.partition("?")[0], {}).setdefault(str(reply.status), reply.json)
    errors |= {one.code: {"error": one.code, "detail": one.detail} for one in ELSEWHERE}
    return json.dumps({"paths": paths, "errors": errors}, separators=(",", ":")) + "\n"


def main() -> None:
    """Write every file anew; files that no request has are removed."""
    found = bodies()
    for old in FOLDER.rglob("*"):
        if old.is_file():
            old.unlink()
    for name, reply in found.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(reply), encoding="utf-8")
    EXAMPLES.write_text(examples(found), encoding="utf-8")
    sys.stdout.write(f"{len(found)} bodies in {FOLDER.name}/\n")


if __name__ == "__main__":
    main()
