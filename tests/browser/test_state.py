"""`state.js`: the table of LIVE, PAUSED and STALE, and `store.js`."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

NOW_MS = 1_795_200_000_000
FINE = {
    "nowMs": NOW_MS, "paused": False, "buffered": 0, "overflow": False, "unauthorized": False, "fault": None, "warmup": None,
    "failed": None, "loaded": True, "lastMessageMs": NOW_MS - 4_000, "restarted": False, "unhealedGap": None,
    "map": {"shown": True, "stale": False, "ageS": 34}, "book": {"shown": True, "stale": False, "ageS": 41},
}  # fmt: skip


def verdicts(page: Page, *cases: dict[str, Any]) -> Any:
    return page.evaluate(
        "async (cases) => { const { judge } = await import('/src/state.js'); return cases.map(judge); }",
        [{**FINE, **one} for one in cases],
    )


def layer(**values: Any) -> dict[str, Any]:
    return {"shown": True, "stale": False, "ageS": 34, **values}


LIVE: tuple[dict[str, Any], ...] = (
    {},
    {"lastMessageMs": NOW_MS - 15_000},
    {"map": layer(ageS=180)},
    {"book": layer(ageS=90)},
    {"map": layer(shown=False, stale=True, ageS=4000)},
    {"book": layer(shown=False, stale=True, ageS=4000)},
)
STALE: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("map", {"map": layer(stale=True)}, "marks the newest column of the liquidation map"),
    ("map", {"map": layer(ageS=181)}, "liquidation map is 181 s old (limit 180 s)"),
    ("book", {"book": layer(stale=True)}, "marks the newest column of the order book"),
    ("book", {"book": layer(ageS=91)}, "order book is 91 s old (limit 90 s)"),
    ("silent", {"lastMessageMs": NOW_MS - 15_001}, "No message for 15 s"),
    ("silent", {"lastMessageMs": NOW_MS - 7_200_000}, "No message for 120 min"),
    ("gap", {"unhealedGap": "3 columns of the order book are missing"}, "3 columns of the order book are missing; fetching."),
    ("warmup", {"loaded": False, "warmup": {"retryInS": 4.2}}, "warming up and has no data yet; asking again every 5 s"),
    ("restarted", {"restarted": True}, "engine has restarted"),
    ("loading", {"loaded": False}, "Loading the heatmap."),
    ("failed", {"failed": "too large"}, "could not be loaded: too large."),
    ("fault", {"fault": "unknown cell type 9"}, "not drawn: unknown cell type 9."),
    ("unauthorized", {"loaded": False, "unauthorized": True}, "wants an API key"),
)


def test_live(module_page: Page) -> None:
    for inputs, found in zip(LIVE, verdicts(module_page, *LIVE), strict=True):
        assert (found["badge"], found["alsoStale"], found["dimmed"], found["codes"]) == ("LIVE", False, False, []), inputs


def test_each_cause_makes_stale_and_says_so_in_one_sentence(module_page: Page) -> None:
    for (code, inputs, text), found in zip(STALE, verdicts(module_page, *(one for _, one, _ in STALE)), strict=True):
        assert (found["badge"], found["codes"][0], found["dimmed"]) == ("STALE", code, True), inputs
        assert text in found["reason"]
        assert found["reason"].count(".") == 1
        assert found["reason"].endswith(".")


def test_stale_is_visible_while_paused(module_page: Page) -> None:
    paused = verdicts(module_page, *({"paused": True, "buffered": 12, **one} for _, one, _ in STALE))
    for (code, inputs, text), found in zip(STALE, paused, strict=True):
        assert (found["badge"], found["alsoStale"], found["dimmed"], found["buffered"]) == ("PAUSED", True, True, 12), inputs
        assert found["codes"][0] == code
        assert found["reason"].startswith("Paused by you; 12 columns waiting. Also stale: ")
        assert text in found["reason"]


def test_paused(module_page: Page) -> None:
    table = (
        (0, False, "0 columns waiting"), (1, False, "1 column waiting."), (12, False, "12 columns waiting."),
        (9, True, "a new picture is loaded"),
    )  # fmt: skip
    cases = [{"paused": True, "buffered": buffered, "overflow": overflow} for buffered, overflow, _ in table]
    for (_, _, text), found in zip(table, verdicts(module_page, *cases), strict=True):
        assert (found["badge"], found["alsoStale"], found["dimmed"]) == ("PAUSED", False, False)
        assert text in found["reason"]


def test_the_cause_that_explains_the_others_is_told_first(module_page: Page) -> None:
    inputs = {"lastMessageMs": NOW_MS - 300_000, "unhealedGap": "1 column", "map": layer(ageS=300), "restarted": True}
    (found,) = verdicts(module_page, inputs)
    assert found["codes"] == ["silent", "restarted", "gap", "map"]
    assert found["reason"].startswith("No message")


def test_listeners_hear_of_their_keys_once_per_change_and_in_order(module_page: Page) -> None:
    heard = module_page.evaluate("""async () => {
        const { createStore, DEFAULTS } = await import('/src/store.js');
        const store = createStore({ symbol: 'BTC' });
        const heard = [];
        store.subscribe(['range'], ({ range }) => { heard.push(['first', range]); if (range === '4h') store.set({ map: null }); });
        const end = store.subscribe(['range', 'map'], ({ range, map }, changed) => heard.push(['both', range, map, [...changed]]));
        store.set({ range: '4h' });
        store.set({ range: '4h', symbol: 'BTC' });
        store.set({ ages: {} });
        end();
        store.set({ map: 'tape' });
        return { heard, first: DEFAULTS.range, now: store.get().map, frozen: Object.isFrozen(store.get()) };
    }""")
    assert heard["heard"] == [["first", "4h"], ["both", "4h", None, ["range"]], ["both", "4h", None, ["map"]]]
    assert (heard["first"], heard["now"], heard["frozen"]) == ("12h", "tape", True)
