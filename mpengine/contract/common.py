"""What several bodies share: sides, cells, and the coverage object that says what an answer is based on. Pure."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

Side = Literal["long", "short"]
U8 = Annotated[int, Meta(ge=0, le=255)]
Sampling = Literal["largest_1s", "all_500ms", "partial", "batched_1s", "largest_per_side_1s", "none"]
"""How much of a venue's liquidations its public feed shows."""

Flag = Literal["recovered", "gap", "partial_window", "stale_source", "grid_shrunk", "oi_missing", "fallback_price"]


class Error(Struct, frozen=True, kw_only=True):
    """Body of every error. `error`: a code of `ERROR_CODES`; `detail`: a fixed text, never what the caller sent."""

    error: str
    detail: str


ERROR_CODES: Final[dict[int, tuple[str, ...]]] = {
    400: ("invalid_symbol", "invalid_parameter", "repeated_parameter", "no_orderbook", "too_large"),
    401: ("unauthorized",),
    403: ("forbidden",),
    404: ("not_found", "no_frame"),
    405: ("method_not_allowed",),
    413: ("payload_too_large",),
    414: ("uri_too_long",),
    429: ("rate_limited",),
    431: ("headers_too_large",),
    500: ("internal",),
    503: ("not_ready", "overloaded"),
}
"""Status -> codes that `Error.error` may have with it. A client must take a code that it does not know for one of its status."""


class VenueCoverage(Struct, frozen=True, kw_only=True):
    """One venue in a frame. `depth`: its book counted; `oi`: its open interest was at most 60 s old at the end of the frame.

    `state` of its book: LIVE counted, STALE not counted, DOWN unsynchronised, null none; `last_ms`: its newest book update, ms.
    """

    liquidations: Sampling
    depth: bool
    oi: bool
    state: Literal["LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED"] | None
    last_ms: int | None


class Coverage(Struct, frozen=True, kw_only=True):
    """What a frame is based on, as of the frame. `*_since_ms`: epoch ms; `far_depth`: how much is known far from the price."""

    venues: dict[str, VenueCoverage]
    flags: list[Flag]
    data_since_ms: int | None
    book_synced_since_ms: int | None
    far_depth: Literal["partial"]
