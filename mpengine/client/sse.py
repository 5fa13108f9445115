"""Server-sent events from bytes, in whatever pieces they come (`spec: api`, section 13.1; the format is WHATWG's). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mpengine.client.errors import ContractError

MAX_EVENT_BYTES: Final = 8 << 20
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name (`message` without one), data, and the last id that was given up to here."""

    name: str
    data: str
    id: str


class SseParser:
    """`feed` takes bytes and returns the events that they complete; what has no end yet is kept.

    An event that a connection does not finish is never returned: make a new parser for each connection. `retry` is for browsers
    and ignored: when to come back is told by `bye`, or found out by backing off.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._began = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Events, oldest first. Raises ContractError where one is larger than 8 MiB."""
        buffer = self._rest + piece
        if not self._began:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = buffer
                return []
            buffer = buffer.removeprefix(_BOM)
            self._began = True
        # A CR at the end may be the first half of a CR LF.
        whole, held = (buffer[:-1], buffer[-1:]) if buffer.endswith(b"\r") else (buffer, b"")
        lines = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        events: list[ServerEvent] = []
        for line in lines:
            if line:
                self._line(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise ContractError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def _line(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
                self._size += len(line)
            case "id" if "\0" not in value:
                self._id = value
            case _:
                pass  # comments, `retry`, and fields that nobody knows

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        return ServerEvent(name or "message", "\n".join(data), self._id) if data else None
