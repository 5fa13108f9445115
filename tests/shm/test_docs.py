"""Tables of docs/shared-memory.md against the code that defines them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shm import layout
from shm.layout import (
    HEADER_FIELDS,
    board_spec,
    candles_spec,
    depth_spec,
    documents_spec,
    event_ring_spec,
    feeds_spec,
    liquidation_spec,
    liquidations_spec,
)

PAGE = Path(__file__).parents[2] / "docs" / "shared-memory.md"


def rows(heading: str) -> Iterator[list[str]]:
    """Cells of the first table under a heading, without its head."""
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return ([cell.strip() for cell in line.strip("|").split("|")] for line in table)


def test_header_fields_and_their_writers() -> None:
    told = [(int(offset), name, int(size), writer) for offset, name, size, writer in rows("Header page")]
    assert told == [(field.offset, field.name, field.size, field.owner.value) for field in HEADER_FIELDS]


def test_slot_and_batch_fields() -> None:
    told = {name: int(offset) for offset, name, _ in rows("Slot (frame rings, record rings, documents)")}
    assert told == layout.SLOT_FIELDS
    assert {name: int(offset) for offset, name, _ in rows("Batch (event ring)")} == layout.BATCH_FIELDS


def test_sizes_of_files() -> None:
    specs = [event_ring_spec("SYM"), board_spec(), feeds_spec(), depth_spec("SYM"), liquidation_spec("SYM"), candles_spec("SYM"),
             liquidations_spec("SYM"), documents_spec("SYM")]  # fmt: skip
    assert [int(cells[3].replace(",", "")) for cells in rows("Files")] == [spec.file_bytes for spec in specs]
