"""Every answer that is an error: status, code and a fixed text, and the one way in which it becomes a body.

    ApiError
    ├── invalid(name, range)   400 invalid_parameter
    ├── ...                    one function per row of the error table
    └── internal(error_id)     500

A text names the parameter and its range; it never holds what the caller sent, text of an exception, a path or a pid.
"""

from __future__ import annotations

from typing import Final

import orjson

NO_STORE: Final = "no-store"
ALLOWED_METHODS: Final = "GET, HEAD, OPTIONS"


class ApiError(Exception):
    """An answer that is not data. `headers` are added to those that every error has."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}

    def body(self) -> bytes:
        """`{"error": code, "detail": text}`."""
        return error_body(self.code, self.detail)


def error_body(code: str, detail: str) -> bytes:
    """JSON of an error answer."""
    return orjson.dumps({"error": code, "detail": detail})


def invalid(name: str, expected: str) -> ApiError:
    """A parameter outside its table row: `invalid("stride", "an integer")`."""
    return ApiError(400, "invalid_parameter", f"{name} must be {expected}")


def invalid_query(detail: str) -> ApiError:
    """The query as a whole breaks the rules."""
    return ApiError(400, "invalid_parameter", detail)


def invalid_symbol(symbols: str) -> ApiError:
    """`symbols`: the configured ones, as one text."""
    return ApiError(400, "invalid_symbol", f"symbol must be one of {symbols}")


def repeated(name: str | None) -> ApiError:
    """A parameter was given twice; `name` only where it is one of ours."""
    return ApiError(400, "repeated_parameter", f"{name or 'a parameter'} must be given once")


def no_orderbook(symbol: str) -> ApiError:
    """A symbol that is configured without a book."""
    return ApiError(400, "no_orderbook", f"{symbol} is configured without an order book")


def too_large(detail: str) -> ApiError:
    """More cells or rows than an answer may have."""
    return ApiError(400, "too_large", detail)


def not_found() -> ApiError:
    """No such path."""
    return ApiError(404, "not_found", "There is no such resource")


def no_frame(symbol: str) -> ApiError:
    """The first order-book frame has not been published yet."""
    return ApiError(404, "no_frame", f"There is no order-book frame of {symbol} yet")


def method_not_allowed() -> ApiError:
    """Neither GET nor HEAD."""
    return ApiError(405, "method_not_allowed", f"Allowed methods: {ALLOWED_METHODS}", {"Allow": ALLOWED_METHODS})


def not_ready(what: str, retry_after_s: int) -> ApiError:
    """The first value has not been published yet."""
    return ApiError(503, "not_ready", f"{what} is not there yet", {"Retry-After": str(retry_after_s)})


def internal(error_id: str) -> ApiError:
    """Our fault; the log has the id."""
    return ApiError(500, "internal", f"Internal error, id {error_id}")
