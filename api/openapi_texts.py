"""Texts of `/openapi.json` that no table has: what a header says, when an error comes, what binary bytes are."""

from __future__ import annotations

from typing import Any, Final

from mpengine.mphm import ENTRY, HEADER
from mpengine.wire_formats import DEPTH_HEADER

INFO: Final[dict[str, Any]] = {
    "title": "mpengine",
    "summary": "Liquidation and order-book heatmaps of crypto perpetuals",
    "description": (
        "GET and HEAD; OPTIONS for CORS; anything else 405. Paths are case-sensitive, a trailing slash is the same resource. "
        "Unknown parameters are ignored. A parameter given twice, an empty value, more than 32 parameters, a value above 128 "
        "characters or a query that is not UTF-8: 400. Integers: an optional sign and up to 15 digits; numbers: decimal or "
        "exponent form, finite. `ts` and `*_ts` are float epoch seconds; `t`, `*_ms`, `*_ts_ms` int epoch milliseconds; "
        "`*_usd` US dollars; `*_base` base asset. USD of liquidation maps are modelled exposure, never expected liquidations. "
        "Data that stops moving is served on with its age. (epoch, seq) is the identity of data; seq alone may be used again."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

SECURITY: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`<id>.<secret>`. Only where `api.keys` is on."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`<id>.<secret>`, instead of Authorization."},
}


def _header(text: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind, **more}}


HEADERS: Final[dict[str, Any]] = {
    "ETag": _header('`W/"<epoch>-<seq>-<h>"`, pairs of several sources joined with `.`; none while there is no data.'),
    "X-Seq": _header("Frame number or document version; -1 while there is no data.", "integer"),
    "X-Epoch": _header("Fencing number of the writer; -1 while there is no data.", "integer"),
    "X-Age-Ms": _header("Age of the data; -1 while there is none.", "integer"),
    "X-Stale": _header("Whether the data is older than its kind allows.", enum=["true", "false"]),
    "Cache-Control": _header("Data: at most one second, `private` where keys are on. Errors, health, time and push: no-store."),
    "X-Content-Type-Options": _header("nosniff", enum=["nosniff"]),
    "X-Request-Id": _header("Name of this request in our log. Not on what the connection refuses (413, 414, 431, 503 overloaded)."),
    "Retry-After": _header("Seconds.", "integer"),
    "Allow": _header("GET, HEAD, OPTIONS"),
    "WWW-Authenticate": _header("Bearer"),
    "RateLimit-Policy": _header('`"default";q=<burst>;w=<seconds>`; none where limits are off.'),
    "RateLimit": _header('`"default";r=<tokens left>;t=<seconds>`.'),
    "X-RateLimit-Limit": _header("Tokens of a full bucket.", "integer"),
    "X-RateLimit-Remaining": _header("Tokens left.", "integer"),
    "X-RateLimit-Reset": _header("Seconds until the bucket is full.", "integer"),
    "Access-Control-Allow-Origin": _header("The origin of the page that asks, where `api.cors_origins` has it."),
    "Vary": _header("What else the answer depends on: Origin where CORS is on."),
    "X-Frame-Ts-Ms": _header("Binary: start of the (first) frame, epoch ms.", "integer"),
    "X-Frame-Interval-Ms": _header("Binary: 30000.", "integer"),
    "X-Data-Is-Stale": _header("Binary: as X-Stale.", enum=["true", "false"]),
    "X-Server-Send-Ts-Ms": _header("Binary: clock of this response, epoch ms.", "integer"),
    "X-First-Frame-Ts-Ms": _header("Binary history: start of the first frame, epoch ms; 0 without one.", "integer"),
    "X-Last-Frame-Ts-Ms": _header("Binary history: start of the last frame, epoch ms; 0 without one.", "integer"),
    "X-Frame-Count": _header("Binary history: rows.", "integer"),
    "X-Price-Count": _header("Binary history: columns.", "integer"),
    "X-Accel-Buffering": _header("no: a reverse proxy passes events on at once."),
    "Content-Security-Policy": _header("What the page may load: its own files."),
}

ERRORS: Final[dict[str, str]] = {
    "invalid_symbol": "symbol is none of the configured ones",
    "invalid_parameter": "a parameter is outside its range or type, empty or too long; the query is not UTF-8 or has too many",
    "repeated_parameter": "a parameter was given twice",
    "no_orderbook": "depth of a symbol that is configured without a book",
    "too_large": "more rows or cells than an answer may have",
    "unauthorized": "keys are on, and the key is missing, unknown, expired or revoked",
    "forbidden": "the key has not the scope",
    "not_found": "no such path",
    "no_frame": "order-book data before the first frame",
    "method_not_allowed": "neither GET, HEAD nor OPTIONS",
    "payload_too_large": "a body above 16 KiB; the connection is closed",
    "uri_too_long": "request line above 4,094 bytes; the connection is closed",
    "rate_limited": "no tokens left: wait for Retry-After",
    "headers_too_large": "more than 100 header fields or one above 8,190 bytes; the connection is closed",
    "internal": "our fault; the log has the id of the text",
    "not_ready": "the first value of the symbol is not there yet: wait for Retry-After",
    "overloaded": "too many connections, or shutting down: wait for Retry-After",
}

PARAMETERS: Final[dict[str, str]] = {
    "symbol": "Stripped, upper-cased, every USDT removed: btc and BTCUSDT are BTC.",
    "minutes": "How far back from the newest frame.",
    "stride": "Every n-th slot, counted from the newest.",
    "range_pct": "Share of the price around it; absent: the whole frame. 4 decimals count.",
    "step": "Price step of the answer, 1 to 100 times that of the frame; absent: the frame's.",
    "price_min": "Lowest price, snapped to the step; below price_max.",
    "price_max": "Highest price, snapped to the step; together at most 4,000 rows.",
    "format": "json, or the binary form.",
    "interval": "Length of a bar.",
    "limit": "Most rows of the answer.",
    "to_ms": "End of what is wanted, epoch ms; absent: the newest.",
    "since_ms": "Only columns from here on, epoch ms: for polling what is new.",
    "after": "Records behind this number; not with before.",
    "before": "Records before this number; not with after.",
    "epoch": "The epoch that you know: where it is another one now, the newest page with reset.",
    "side": "Case does not matter; absent: both.",
    "venue": "Case does not matter; absent: all.",
    "min_usd": "Least USD; 2 decimals count.",
    "min_notional": "Least USD of what is listed; 2 decimals count.",
    "min_leverage": "Tiers from here on; 0: no filter. At most max_leverage.",
    "max_leverage": "Tiers up to here; 0: no filter.",
    "min_weight": "Least weight; 0: no filter. 4 decimals count.",
    "layers": "What is shown; at least one.",
    "dt_s": "Width of a column, s; 0: the narrowest that fits max_cols.",
    "k": "Price steps of the symbol per row; 0: the fewest that fit max_rows.",
    "max_cols": "Most columns where dt_s is chosen for you.",
    "max_rows": "Most rows where k is chosen for you.",
    "pool": "Over price rows: the largest, or the sum. Over time always the largest.",
    "form": "All cells, or those that hold something.",
    "cell": "u8log; usd in JSON; f16 in the binary form.",
    "venues": "Filters realised liquidations only.",
    "channels": "Channels to follow, such as depth.BTC.",
    "resume": "Where you are in each channel, as Last-Event-ID says it.",
}
"""What a parameter means, by name."""

_DEPTH: Final = (
    f"Little endian. 64 bytes `{DEPTH_HEADER.format}`: version 1, encoding 0, 0, frame_ts_ms of the first frame, "
    "interval ms, rows, columns, price_min, price_max, step, src of the newest, p50, p90, p95, p99, max in thousands "
    "of USD (65,535 is or more), 0; then u8[rows * columns] bid and as many ask, row-major"
)
BINARY_FORMS: Final[dict[str, str]] = {
    "/orderbook_heatmap": f"{_DEPTH}.",
    "/orderbook_heatmap_history": f"{_DEPTH}; then u64[rows] t in ms. p50 to p99 are medians over the frames. Without "
    "frames the header alone.",
    "/heatmap": (
        f"MPHM, little endian. 128 bytes `{HEADER.format}`: magic, version 1, cell (1 f16, 2 u8log), form (0 dense, 1 "
        "sparse), pool (0 max, 1 sum), 128, coverage flags of the newest column, t0_ms, dt_ms, cols, price0, step, "
        "rows, blocks, k, epoch, seq of liq, depth and realised, lo_usd, hi_usd, zeros, xxh3_64 of all bytes from "
        f"128. Then one entry `{ENTRY.format}` per block: id, type, 0, count, offset from the start, bytes, 0. Then "
        "the blocks, 8-byte aligned: 1, 2 liq long, short; 3, 4 tape; 5, 6 projected; 7, 8 bid, ask (dense: cells "
        "time-major; sparse: u32 cell indices c * rows + r, then the cells); 16 realised (u16 col, row, u8 side, "
        "venues, u16 count, f32 usd, max_usd); 32, 33 frame number per column of liq, depth, i64, -1 missing; 34, 35 "
        "unit_usd per column, f32 (f16 only); 36 src per column, f64, NaN missing; 48 provenance, UTF-8 JSON."
    ),
}
"""What `format=bin` gives, by path."""
