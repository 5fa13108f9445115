"""Compressed answers of every endpoint: what is inside is the plain answer of the same moment."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from api.encodings import CODINGS
from tests.api.test_encodings import READ
from tests.api.test_push_channels import fill
from tests.api.world import Reply, World, ask, get

TARGETS = (
    "/orderbook_heatmap", "/orderbook_heatmap?format=bin", "/orderbook_heatmap_history", "/orderbook_heatmap_history?format=bin",
    "/orderbook_heatmap_stats", "/liq_heatmap", "/liq_heatmap_v2", "/liq_heatmap_history", "/liq_stats", "/liq_zones",
    "/heatmap", "/heatmap?format=bin", "/candles", "/liquidations", "/oi",
)  # fmt: skip
HUNDREDS = 200


def filled(world: World) -> None:
    fill(world)
    world.add_history(HUNDREDS)
    world.add_maps(HUNDREDS)
    world.add_zones([])
    for _ in range(60):
        world.add_liquidation()


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_inside_is_the_answer(world: World, target: str) -> None:
    """First time and from the cache, and again when its ages have moved."""
    filled(world)
    app = world.app()
    coded_at_all = False
    for _ in range(3):
        world.clock.advance(7)
        plain = get(app, target)
        assert plain.status == 200 and "content-encoding" not in plain.headers
        assert "Accept-Encoding" in plain.headers["vary"]
        for coding in CODINGS:
            found = get(app, target, headers={"Accept-Encoding": coding})
            if "content-encoding" not in found.headers:
                assert found.body == plain.body
                continue
            coded_at_all = True
            assert found.headers["content-encoding"] == coding
            assert int(found.headers["content-length"]) == len(found.body) < len(plain.body)
            assert READ[coding](found.body) == plain.body
            head = get(app, target, headers={"Accept-Encoding": coding}, method="HEAD")
            assert {name: value for name, value in head.headers.items() if name != "x-request-id"} == {
                name: value for name, value in found.headers.items() if name != "x-request-id"
            }
    assert coded_at_all == (len(plain.body) > 1100), target


@pytest.mark.parametrize("coding", CODINGS)
def test_a_weak_tag_is_the_same_in_every_coding(world: World, coding: str) -> None:
    filled(world)
    app = world.app()
    plain, found = get(app, "/liq_heatmap_v2"), get(app, "/liq_heatmap_v2", headers={"Accept-Encoding": coding})
    assert plain.headers["etag"] == found.headers["etag"]
    again = get(app, "/liq_heatmap_v2", headers={"Accept-Encoding": coding, "If-None-Match": plain.headers["etag"]})
    assert (again.status, again.body) == (304, b"") and "content-encoding" not in again.headers


@pytest.mark.parametrize("coding", CODINGS)
def test_a_strong_tag_names_its_coding(world: World, coding: str) -> None:
    filled(world)
    app = world.app()
    plain, found = (get(app, "/heatmap?format=bin", headers=headers) for headers in ({}, {"Accept-Encoding": coding}))
    assert plain.headers["etag"].startswith('"') and found.headers["etag"] == f'{plain.headers["etag"][:-1]}-{coding}"'
    for tag in (plain.headers["etag"], found.headers["etag"]):
        again = get(app, "/heatmap?format=bin", headers={"Accept-Encoding": coding, "If-None-Match": tag})
        assert (again.status, again.headers["etag"]) == (304, tag)  # a store finds by it what it has


def test_a_form_is_made_once_for_all_who_ask_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import api.bodies

    made = 0
    real = api.bodies.coded

    def counted(coding: str, parts: list[bytes | None]) -> object:
        nonlocal made
        made += 1
        return real(coding, parts)

    monkeypatch.setattr(api.bodies, "coded", counted)
    filled(world)
    app = world.app()

    async def all_at_once() -> list[Reply]:
        headers = {"Accept-Encoding": "gzip"}
        return await asyncio.gather(*(ask(app, "/orderbook_heatmap_history", headers=headers) for _ in range(20)))

    replies = asyncio.run(all_at_once())
    assert {reply.headers["content-encoding"] for reply in replies} == {"gzip"}
    assert made == 1


def test_forms_count_for_the_bound_of_the_cache(world: World) -> None:
    filled(world)
    app = world.app()
    get(app, "/orderbook_heatmap_history")
    before = app.context.cache.size
    reply = get(app, "/orderbook_heatmap_history", headers={"Accept-Encoding": "gzip"})
    assert app.context.cache.size - before == pytest.approx(len(reply.body), abs=200)
    get(app, "/orderbook_heatmap_history", headers={"Accept-Encoding": "gzip"})
    assert app.context.cache.size - before == pytest.approx(len(reply.body), abs=200)
    app.context.cache.clear()
    assert app.context.cache.size == 0


def test_an_answer_that_is_not_kept_is_not_compressed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be done anew for each response."""
    import api.bodies

    monkeypatch.setattr(api.bodies, "coded", lambda *_: pytest.fail("compressed for one response"))
    filled(world)
    limits = msgspec.structs.replace(world.settings.api, cache_body_bytes=1 << 10)
    world.settings = msgspec.structs.replace(world.settings, api=limits)
    app = world.app()
    for _ in range(2):
        reply = get(app, "/orderbook_heatmap_history", headers={"Accept-Encoding": "gzip"})
        assert reply.status == 200 and "content-encoding" not in reply.headers


def test_a_kept_answer_is_given_plain_while_memory_is_short(world: World) -> None:
    filled(world)
    app = world.app()
    plain = get(app, "/liq_heatmap_v2")
    app.context.lifetime.short_of_memory = True
    reply = get(app, "/liq_heatmap_v2", headers={"Accept-Encoding": "gzip"})
    assert (reply.status, reply.body) == (200, plain.body) and "content-encoding" not in reply.headers


def test_a_form_that_does_not_fit_does_not_push_out_its_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import api.bodies

    made: list[str] = []
    real = api.bodies.coded
    monkeypatch.setattr(api.bodies, "coded", lambda coding, parts: made.append(coding) or real(coding, parts))
    filled(world)
    roomy = world.app()
    get(roomy, "/orderbook_heatmap_history")
    limits = msgspec.structs.replace(world.settings.api, cache_bytes=roomy.context.cache.size + 100)
    world.settings = msgspec.structs.replace(world.settings, api=limits)
    app = world.app()
    for _ in range(3):
        assert get(app, "/orderbook_heatmap_history", headers={"Accept-Encoding": "gzip"}).status == 200
    assert (made, app.context.cache.misses, len(app.context.cache)) == (["gzip"], 1, 1)
