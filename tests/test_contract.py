"""The Structs of the contract and what is generated from them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from mpengine import contract
from mpengine.contract import push, typescript
from mpengine.schemas import CalibratorDocument, TierDocument

TYPES = Path(__file__).resolve().parents[1] / "api" / "web" / "types" / "contract.d.ts"
KINDS = typescript.kinds()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_struct_is_frozen_documented_and_decodes(kind: type[Struct]) -> None:
    assert kind.__struct_config__.frozen
    assert len(inspect.getdoc(kind) or "") > 10 and not (kind.__doc__ or "").startswith(f"{kind.__name__}(")
    msgspec.json.Decoder(kind)
    assert kind.__struct_config__.tag is None, "a key that the contract does not have"


def test_names_are_unique() -> None:
    names = [kind.__name__ for kind in KINDS]
    assert len(set(names)) == len(names) > 70


def test_the_typescript_file_is_what_is_generated() -> None:
    assert TYPES.read_text(encoding="utf-8") == typescript.generate(), "make golden"


def test_typescript_of_every_form() -> None:
    text = typescript.generate()
    for line in (
        "  long_size_btc?: number[];", "  _mode: \"embedded\";", "  bid_u8: U8[];", "  mark: (number | null)[];",
        "  layers: Layers;", "  reset?: true;", "  schema: 1;", "  heads: Record<string, [Int, Int]>;", "  seq: Int | null;",
    ):  # fmt: skip
        assert line in text.splitlines(), line
    assert text.count("export interface ") == len(KINDS) + 1
    assert len(re.findall(r"[{}]", re.sub(r"/\*\*.*?\*/", "", text, flags=re.S))) == 2 * (len(KINDS) + 1)
    with pytest.raises(TypeError, match="no TypeScript"):
        typescript.type_of(set[int])


def test_the_calibrator_is_published_whole() -> None:
    def fields(kind: type[Struct]) -> dict[str, Any]:
        return {one.name: one.type for one in msgspec.structs.fields(kind) if one.name != "tiers"}

    assert fields(contract.Calibrator) == fields(CalibratorDocument)
    assert fields(contract.CalibratorTier) == fields(TierDocument)


def test_a_client_decodes_what_has_more_keys_and_lacks_optional_ones() -> None:
    body = {"error": "rate_limited", "detail": "x", "later": 1}
    assert msgspec.json.decode(json.dumps(body), type=contract.Error).error == "rate_limited"
    assert msgspec.json.decode(b'{"type":"bye","reason":"restart"}', type=push.Bye).reconnect_in_ms is msgspec.UNSET


def test_the_examples_of_the_push_protocol_are_messages() -> None:
    beat = b'{"type":"beat","now_ms":1,"heads":{"depth.BTC":[7,61023]},"exchanges":{"binance":0.4},"conflated":0}'
    assert msgspec.json.decode(beat, type=push.Beat).heads == {"depth.BTC": (7, 61023)}
    ack = b'{"type":"ack","id":1,"channels":{"depth.BTC":{"no":1,"epoch":7,"seq":61023}}}'
    assert msgspec.json.decode(ack, type=push.Ack).channels["depth.BTC"].no == 1
    command = b'{"op":"subscribe","id":1,"channels":["depth.BTC"],"encoding":"bin","from":{"depth.BTC":[7,61020]}}'
    assert msgspec.json.decode(command, type=push.Subscribe).from_ == {"depth.BTC": (7, 61020)}
    gap = b'{"from":3,"to":5,"reason":"slow"}'
    assert msgspec.json.decode(gap, type=push.Gap).from_ == 3


def test_every_channel_of_the_contract_has_data() -> None:
    assert list(push.CHANNELS) == ["depth", "liq", "liquidations", "zones", "levels", "oi", "candles", "book", "status"]
