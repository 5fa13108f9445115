"""Status board: each word has one writer, any number of readers; nothing queues, so nothing is lost but older values (section 8).

The supervisor creates the file, holds its lock and tells every child the number of its row. A process writes lines 0-12 of its
own row, the supervisor lines 13-15. Counters only rise, also over restarts of a process (its epoch says that it restarted), so
that a request and its answer, two counters in two rows, never run apart. Labels are in the file: a reader needs no other list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from shm import attach, files
from shm.attach import Attachment, WriterAttachment
from shm.board_words import ROW_WORDS, SUPERVISOR_FIRST, Role, State, Word
from shm.errors import LayoutMismatch, Refused
from shm.layout import BOARD_TEXT_BYTES, HEADER_BYTES, FileKind, FileSpec, board_spec
from shm.liveness import Probe, ProcessIdentity, WriterState, own_identity, writer_state
from shm.words import Words

ROLE_FACTOR: Final = 1000  # word ROLE is role * 1000 + index


@dataclass(frozen=True, slots=True)
class RowName:
    """Whose row it is; written into the label text."""

    name: str
    role: Role
    index: int


def label(word: int) -> str:
    """Label of a word as the board text has it: `Word.BEAT_NS` is "beat_ns"."""
    return Word(word).name.lower()


def board_text(rows: Sequence[RowName], sources: Mapping[int, str]) -> bytes:
    """Label text of a board, JSON. Raises Refused where it does not fit its 8 KiB."""
    text = json.dumps(
        {
            "words": {label(word): int(word) for word in Word},
            "rows": [[row.name, int(row.role), row.index] for row in rows],
            "sources": {str(key): name for key, name in sources.items()},
        },
        separators=(",", ":"),
    ).encode()
    if len(text) > BOARD_TEXT_BYTES:
        raise Refused(f"label text must be at most {BOARD_TEXT_BYTES} bytes, was {len(text)}")
    return text


class Board(WriterAttachment):
    """The supervisor's hold on the board. Row 0 is its own: `row(0)`."""

    def __init__(self, mapped: files.Mapped, rows: int) -> None:
        """`create` is the way here."""
        super().__init__(mapped.words)
        self._mapped = mapped
        self._rows = rows
        self.epoch = attach.begin(mapped.words, None)
        attach.live(mapped.words)

    @classmethod
    def create(cls, path: Path, rows: Sequence[RowName], sources: Mapping[int, str]) -> Self:
        """Create the board anew, in place of one that nobody holds, and hold its lock for life.

        `rows`: row i belongs to rows[i]; the file always has 64 rows or more. `sources`: names of feed shards by id.
        Raises Locked, NoSpace, Missing (no runtime directory), Refused (too much text).
        """
        spec = board_spec(max(64, len(rows)))
        files.replace(path, spec, board_text(rows, sources))
        return cls(files.open_writer(path, spec), spec.slots)

    def supervisor_view(self, row: int) -> SupervisorRow:
        """The supervisor's words of `row`."""
        return SupervisorRow(self._words, check_row(row, self._rows))

    def row(self, row: int = 0) -> BoardRow:
        """The supervisor's own row, through the board's own map."""
        return BoardRow(self._words, check_row(row, self._rows))

    def unlink(self) -> None:
        """Remove the name, if it is still this board's. Readers that map it keep it until they notice."""
        if self._mapped and not self._mapped.replaced():
            self._mapped.path.unlink()


class SupervisorRow:
    """Lines 13-15 of one row: what the supervisor knows and wants of that process."""

    __slots__ = ("_base", "_words")

    def __init__(self, words: Words, row: int) -> None:
        self._words = words
        self._base = row_base(row)

    def set(self, word: int, value: int) -> None:
        """Store a word. Raises ValueError for a word that is not the supervisor's."""
        self._words.store_release(self._base + _supervised(word), value)

    def add(self, word: int, n: int = 1) -> None:
        """Raise a counter of the supervisor's."""
        index = self._base + _supervised(word)
        self._words.store_release(index, self._words.load_acquire(index) + n)

    def get(self, word: int) -> int:
        """Any word of the row, the process's words too."""
        return self._words.load_acquire(self._base + word)


class BoardRow(Attachment):
    """Lines 0-12 of the own row of a process. One thread of it writes."""

    def __init__(self, words: Words, row: int) -> None:
        """Words of a mapped board; `attach` is the way to a file."""
        super().__init__(words)
        self._base = row_base(row)

    @classmethod
    def attach(cls, path: Path, row: int) -> Self:
        """Map the board to write the own row. Raises Missing, LayoutMismatch, ValueError for a row that is not there."""
        mapped = files.open_shared(path, None)
        try:
            spec = _board(mapped)
            board_row = cls(mapped.words, check_row(row, spec.slots))
        except BaseException:
            mapped.close()
            raise
        board_row._mapped = mapped
        return board_row

    def start(self, role: Role, index: int, epoch: int) -> None:
        """Write who this process is, state STARTING. Counters go on from where the process before left them."""
        identity = own_identity()
        self.beat()
        self.set(Word.STATE, State.STARTING)
        self.set(Word.PID, identity.pid)
        self.set(Word.START_TICKS, identity.start_ticks)
        self.set(Word.BOOT_HI, identity.boot_hi)
        self.set(Word.BOOT_LO, identity.boot_lo)
        self.set(Word.ROLE, role * ROLE_FACTOR + index)
        self.set(Word.STARTED_NS, time.time_ns())
        self.set(Word.EPOCH, epoch)

    def set(self, word: int, value: int) -> None:
        """Store a word. Raises ValueError for a word that is the supervisor's."""
        if not 0 <= word < SUPERVISOR_FIRST:
            raise ValueError(f"word must be 0 to {SUPERVISOR_FIRST - 1}, was {word}")
        self._words.store_release(self._base + word, value)

    def add(self, word: int, n: int = 1) -> None:
        """Raise a counter. Load and store, not atomic: the row has one writing thread."""
        self.set(word, self.get(word) + n)

    def get(self, word: int) -> int:
        """Any word of the row, the supervisor's words too."""
        return self._words.load_acquire(self._base + word)

    def beat(self, monotonic_ns: int | None = None) -> None:
        """Say that this process turns; monotonic clock, now if None."""
        self.set(Word.BEAT_NS, time.monotonic_ns() if monotonic_ns is None else monotonic_ns)


class BoardReader(attach.ReaderAttachment):
    """Reads any board, also one of another version: words are found by the labels in the file."""

    def __init__(self, mapped: files.Mapped, probe: Probe | None) -> None:
        """`open` is the way here. Raises LayoutMismatch for a board without readable text."""
        super().__init__(mapped.words, probe)
        self._rows = _board(mapped).slots
        raw = mapped.words.copy_out(HEADER_BYTES + self._rows * ROW_WORDS * 8, BOARD_TEXT_BYTES)
        self._labels, self._names, self._sources = parse_text(raw)
        self._mapped = mapped

    @classmethod
    def open(cls, path: Path, *, probe: Probe | None = None) -> Self:
        """Map read-only. Raises Missing, LayoutMismatch."""
        mapped = files.open_reader(path, None)
        try:
            return cls(mapped, probe)
        except BaseException:
            mapped.close()
            raise

    def names(self) -> list[str]:
        """Name of each row, in order."""
        return [row.name for row in self._names]

    def rows(self) -> list[RowName]:
        """Name, role and index of each row, in order."""
        return list(self._names)

    def row_of(self, name: str) -> int | None:
        """Number of the row called `name`."""
        return next((number for number, row in enumerate(self._names) if row.name == name), None)

    def labels(self) -> dict[str, int]:
        """Word index by label."""
        return dict(self._labels)

    def sources(self) -> dict[int, str]:
        """Name of each feed shard by id."""
        return dict(self._sources)

    def get(self, row: int, word: int) -> int:
        """One word. Raises ValueError for a row or word that is not there."""
        if not 0 <= word < ROW_WORDS:
            raise ValueError(f"word must be 0 to {ROW_WORDS - 1}, was {word}")
        return self._words.load_acquire(row_base(check_row(row, self._rows)) + word)

    def row(self, row: int) -> dict[str, int]:
        """Every labelled word of a row; each is read by itself, they are not one moment."""
        return {name: self.get(row, word) for name, word in self._labels.items()}

    def row_state(self, row: int) -> WriterState:
        """State of the process of `row`: closed (none yet, or stopped), dead, stalled or live."""
        pid = self.get(row, Word.PID)
        if pid == 0 or self.get(row, Word.STATE) == State.STOPPED:
            return WriterState.CLOSED
        ticks, high, low = (self.get(row, word) for word in (Word.START_TICKS, Word.BOOT_HI, Word.BOOT_LO))
        return writer_state(ProcessIdentity(pid, ticks, high, low), self.get(row, Word.BEAT_NS), self._probe)


def parse_text(raw: bytes) -> tuple[dict[str, int], list[RowName], dict[int, str]]:
    """(labels, rows, sources) of a label text. Raises LayoutMismatch where it is not one."""
    try:
        text: dict[str, Any] = json.loads(raw.rstrip(b"\0"))
        labels = {str(name): int(word) for name, word in text["words"].items() if 0 <= int(word) < ROW_WORDS}
        rows = [RowName(str(name), Role(role), int(index)) for name, role, index in text["rows"]]
        return labels, rows, {int(key): str(name) for key, name in text["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LayoutMismatch(f"the label text of the board is not readable: {error}") from error


def row_base(row: int) -> int:
    """Index of the first word of a row."""
    return HEADER_BYTES // 8 + row * ROW_WORDS


def check_row(row: int, rows: int) -> int:
    """The row itself. Raises ValueError where the board has no such row."""
    if not 0 <= row < rows:
        raise ValueError(f"row must be 0 to {rows - 1}, was {row}")
    return row


def _supervised(word: int) -> int:
    if not SUPERVISOR_FIRST <= word < ROW_WORDS:
        raise ValueError(f"word must be {SUPERVISOR_FIRST} to {ROW_WORDS - 1}, was {word}")
    return word


def _board(mapped: files.Mapped) -> FileSpec:
    spec = mapped.header.spec
    if spec.kind is not FileKind.BOARD:
        raise LayoutMismatch(f"the file must be a board, was {spec.kind.name}")
    return spec
