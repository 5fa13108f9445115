"""The push protocol for `/openapi.json` (`x-push`), in the manner of AsyncAPI: channels, messages, commands, limits.

Numbers are those that the code acts on: constants of `api.push`, budgets of the settings.
"""

from __future__ import annotations

from typing import Any, Final

from api.push.channels import KEPT_COLUMNS, KEPT_EVENTS, SNAPSHOT_EVENTS
from api.push.hub import BEAT_S, RECONNECT_MS
from api.push.stream import CHANNELS_PER_STREAM
from api.push.websocket import AUTH_WAIT_S, CHANNELS_PER_SOCKET, COMMANDS_PER_S, MISTAKES, STRIKES
from mpengine.config import ApiSettings
from mpengine.contract import push

TEXTS: Final = {
    "depth": ("newest column", "one per 30 s", "column"),
    "liq": ("newest column (long, short)", "one per minute", "column"),
    "liquidations": (f"newest {SNAPSHOT_EVENTS} events", "batches as they come", "event"),
    "zones": ("all zones", "changed and removed zones", "state with delta"),
    "levels": ("whole value", "whole value on change", "state"),
    "oi": ("whole value", "whole value on change", "state"),
    "candles": ("whole value", "whole value on change", "state"),
    "book": ("whole value", "whole value on change", "state"),
    "status": ("whole value", "whole value on change", "state"),
}
"""Kind of channel -> its snapshot, what comes then, what kind of data that is."""

RULES: Final = (
    "Accept a message when its prev is your last seq of that channel and epoch.",
    "prev differs only after conflation, and then a gap came before it: states need nothing, columns are refetched with "
    "/heatmap?since_ms=, events with /liquidations?after=.",
    "A new epoch comes as reset and snapshot: forget what you know of the channel.",
    f"Resume with (epoch, seq) per channel: in the same epoch, still in the ring and at most {KEPT_COLUMNS} behind (events "
    f"{KEPT_EVENTS}) you get the missing messages in order; else reset and snapshot.",
    "Zones: crc32 is the CRC-32 of `id:weight%.4f;` over all zones by id after applying the delta; another value: subscribe again.",
    "Columns: price0 moves between them, so place them by absolute price. provisional marks the running window, which is replaced "
    "later; restart the first column after a restart of the engine.",
)
TRANSPORTS: Final = {
    "/stream": f"Server-sent events. channels (required, comma list, at most {CHANNELS_PER_STREAM}), cell=u8log, resume. Event "
    "name = type, data = the message, id = the state of all channels after it, `depth.BTC:7:61023;liq.BTC:7:30511`; give it back "
    "as Last-Event-ID.",
    "/ws": "WebSocket, JSON text. With encoding bin columns come as binary messages; everything else stays JSON.",
}
BINARY: Final = (
    (0, "u8[4]", "MPCD"), (4, "u8", "version 1"), (5, "u8", "kind: 1 depth, 2 liq"), (6, "u8", "cell: 1 f16, 2 u8log"),
    (7, "u8", "planes 2"), (8, "u16", "channel number of the ack"),
    (10, "u16", "flags: 1 provisional, 2 gap before, 4 restart, 8 stale, 16 snapshot"), (12, "u32", "rows"), (16, "u64", "epoch"),
    (24, "u64", "seq"), (32, "u64", "prev"), (40, "i64", "t_ms, start of the window"), (48, "f64", "price0"), (56, "f64", "step"),
    (64, "f64", "src"), (72, "f32", "unit_usd (f16)"), (76, "u32", "dt_ms"), (80, "cells", "bid or long, then ask or short"),
)  # fmt: skip


def limits(api: ApiSettings) -> list[dict[str, str]]:
    """What a client may do, and what becomes of more."""
    rate, burst, queue = (size >> 10 for size in (api.push_bytes_per_s, api.push_burst_bytes, api.push_queue_bytes))
    first, last = RECONNECT_MS
    rows = (
        (
            "inbound frame",
            "4 KiB, text, valid UTF-8 JSON",
            f"close 1009 or 1007; bad JSON or op: error, {MISTAKES} of them: close 1008",
        ),
        ("control messages", f"{COMMANDS_PER_S} per second", f"error rate_limited; {STRIKES} s in a row: close 1008"),
        ("channels", f"{CHANNELS_PER_SOCKET} per socket, {CHANNELS_PER_STREAM} per stream", "error too_many; 400"),
        ("connections", f"{api.push_connections_per_client} per key or address", "429 before the upgrade"),
        ("liveness", f"beat every {BEAT_S:g} s, server ping every 20 s; no frame or pong for 60 s", "close 1001"),
        (
            "budget",
            f"{rate} KiB/s, burst {burst} KiB, at most {queue} KiB queued",
            f"conflation, then gap; full for {api.push_stall_s:g} s: bye, close 1013",
        ),
        ("restart", f"bye with reconnect_in_ms, {first} to {last} at random", "close 1012"),
        ("authentication", f"first frame within {AUTH_WAIT_S:g} s where keys are on and no header was sent", "close 1008"),
    )
    return [{"limit": name, "value": value, "beyond": beyond} for name, value, beyond in rows]


def push_description(ref_template: str, api: ApiSettings) -> dict[str, Any]:
    """`x-push`; `ref_template`: of the schemas of the document."""

    def ref(kind: type) -> dict[str, str]:
        return {"$ref": ref_template.format(name=kind.__name__)}

    return {
        "transports": dict(TRANSPORTS),
        "channels": {
            kind if kind == "status" else f"{kind}.SYM": {
                "snapshot": TEXTS[kind][0], "then": TEXTS[kind][1], "kind": TEXTS[kind][2], "data": [ref(one) for one in structs],
            }
            for kind, structs in push.CHANNELS.items()
        },
        "messages": [ref(kind) for kind in push.MESSAGES],
        "commands": [ref(kind) for kind in push.COMMANDS],
        "rules": list(RULES),
        "binary": [{"offset": offset, "type": kind, "field": text} for offset, kind, text in BINARY],
        "limits": limits(api),
    }  # fmt: skip
