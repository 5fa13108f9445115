"""`sequence.js` decides like the Python client, which has been proven against the server."""

from __future__ import annotations

import random
from typing import Any

from playwright.sync_api import Page

from mpengine.client.protocol import judge
from mpengine.client.updates import Position

TAKE = """async ([name, messages]) => {
    const s = await import('/src/sequence.js');
    let channel = s.channelOf(name);
    return messages.map((message) => {
        let found = {};
        if (message.type === 'gap') found = s.skip(channel, message);
        else if (message.type === 'reset') found = { channel: { ...channel, reset: true } };
        else if (message.type === 'beat') found = s.heard(channel, message);
        else found = s.accept(channel, message);
        channel = found.channel;
        return [found.verdict ?? null, found.missing ?? null, channel.held, found.renew ?? null];
    });
}"""


def delta(seq: int, prev: int | None = None, epoch: int = 7) -> dict[str, Any]:
    return {"type": "delta", "way": "delta", "epoch": epoch, "seq": seq, "prev": seq - 1 if prev is None else prev}


def snapshot(seq: int, epoch: int = 7, **values: Any) -> dict[str, Any]:
    return {"type": "snapshot", "way": "snapshot", "epoch": epoch, "seq": seq, "prev": -1, **values}


def gap(to: int, epoch: int = 7) -> dict[str, Any]:
    return {"type": "gap", "epoch": epoch, "to": to}


def beat(seq: int, epoch: int = 7) -> dict[str, Any]:
    return {"type": "beat", "epoch": epoch, "seq": seq}


def run(page: Page, name: str, *messages: dict[str, Any]) -> Any:
    return page.evaluate(TAKE, [name, list(messages)])


def verdicts(page: Page, name: str, *messages: dict[str, Any]) -> list[Any]:
    return [(verdict, missing) for verdict, missing, _, _ in run(page, name, *messages)]


def test_it_judges_as_the_python_client_does(module_page: Page) -> None:
    rng = random.Random(5)
    cases: list[tuple[Any, Any, bool]] = []
    for _ in range(400):
        held = None if rng.random() < 0.1 else {"epoch": rng.randint(1, 3), "seq": rng.randint(0, 5)}
        seq = rng.randint(0, 6)
        cases.append((held, {"epoch": rng.randint(1, 3), "seq": seq, "prev": rng.randint(-1, seq - 1)}, rng.random() < 0.3))
    found = module_page.evaluate(
        "async (cases) => { const { judge } = await import('/src/sequence.js'); return cases.map((one) => judge(...one)); }",
        [list(one) for one in cases],
    )
    expected = [
        judge(None if held is None else Position(held["epoch"], held["seq"]), **message, reset=reset).name.lower()
        for held, message, reset in cases
    ]
    assert found == expected
    assert set(found) == {"first", "next", "old", "gap", "reset"}


def test_columns_in_order_are_taken_once(module_page: Page) -> None:
    found = verdicts(module_page, "depth.BTC", snapshot(5), delta(6), delta(6), delta(5), delta(7))
    assert [one for one, _ in found] == ["first", "next", "old", "old", "next"]


def test_missing_numbers_are_named_once(module_page: Page) -> None:
    found = verdicts(module_page, "depth.BTC", snapshot(5), delta(9), delta(10))
    assert found == [("first", None), ("gap", {"from": 6, "to": 8}), ("next", None)]
    announced = verdicts(module_page, "depth.BTC", snapshot(5), gap(8), delta(9, prev=8), gap(8), gap(9, epoch=6))
    assert announced == [
        ("first", None), (None, {"from": 6, "to": 8}), ("next", None), (None, None), (None, None),
    ]  # fmt: skip


def test_a_snapshot_that_is_ahead_leaves_a_gap_before_it(module_page: Page) -> None:
    assert verdicts(module_page, "liq.BTC", snapshot(5), snapshot(9))[1] == ("gap", {"from": 6, "to": 8})
    assert verdicts(module_page, "liq.BTC", snapshot(5), snapshot(6))[1] == ("next", None)


def test_a_batch_of_events_is_placed_by_its_first(module_page: Page) -> None:
    found = verdicts(
        module_page, "liquidations.BTC", snapshot(50, first=1), delta(53, prev=50), snapshot(60, first=40), snapshot(99, first=70)
    )
    assert found == [("first", None), ("next", None), ("next", None), ("gap", {"from": 61, "to": 69})]


def test_states_have_no_gaps(module_page: Page) -> None:
    assert verdicts(module_page, "zones.BTC", snapshot(5), delta(11, prev=9), gap(20)) == [
        ("first", None),
        ("gap", None),
        (None, None),
    ]


def test_another_epoch_is_another_life(module_page: Page) -> None:
    found = verdicts(
        module_page, "depth.BTC", snapshot(500), delta(501, epoch=6), {"type": "reset"}, snapshot(3, epoch=8), delta(4, epoch=8)
    )
    assert [one for one, _ in found] == ["first", "old", None, "reset", "next"]
    # Numbering that began anew below: only the server can say so.
    found = verdicts(module_page, "depth.BTC", snapshot(500), {"type": "reset"}, snapshot(3, epoch=6))
    assert [one for one, _ in found] == ["first", None, "reset"]


def test_nothing_is_told_twice_whatever_comes(module_page: Page) -> None:
    rng = random.Random(11)
    for _ in range(20):
        sent = [snapshot(0)] + [delta(rng.randint(1, 40), prev=None) for _ in range(120)]
        taken: list[int] = []
        missing: set[int] = set()
        for message, (verdict, hole, _, _) in zip(sent, run(module_page, "depth.BTC", *sent), strict=True):
            if hole:
                missing |= set(range(hole["from"], hole["to"] + 1))
            if verdict != "old":
                taken.append(message["seq"])
        assert taken == sorted(set(taken))
        assert missing.isdisjoint(taken)
        assert missing | set(taken) == set(range(max(taken) + 1))


def test_a_channel_that_stays_behind_its_head_is_renewed_once(module_page: Page) -> None:
    table: tuple[tuple[list[int], list[int]], ...] = (
        ([5, 5, 5, 5, 5, 5], []),
        ([6, 6, 6], []),
        ([6, 6, 6, 6], [3]),
        ([6, 7, 8, 9, 10, 11], [3]),
    )
    for heads, renewed in table:
        found = run(module_page, "depth.BTC", snapshot(5), *map(beat, heads))[1:]
        assert [index for index, one in enumerate(found) if one[3]] == renewed, heads
        assert all(one[2] == {"epoch": 7, "seq": 5} for one in found)


def test_a_channel_that_goes_on_is_not_renewed(module_page: Page) -> None:
    messages = [snapshot(5)]
    for seq in range(6, 20):
        messages += [beat(seq), delta(seq)]
    assert not any(one[3] for one in run(module_page, "depth.BTC", *messages))
