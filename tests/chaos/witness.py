"""A reader that remembers: what it has seen once must be there for ever, as it was, with numbers without a hole."""

from __future__ import annotations

from shm.document import DocumentReader
from shm.frame_ring import FrameReader
from shm.paths import Paths
from shm.slots import Slot

RINGS = ("depth", "liquidation", "candles", "liquidations")


class Witness:
    """Follows every ring and document of one symbol. Only while no ring has gone round."""

    def __init__(self, paths: Paths, symbol: str) -> None:
        self._rings = {name: getattr(paths, name)(symbol) for name in RINGS}
        self._documents_path = paths.documents(symbol)
        self.frames: dict[str, list[Slot]] = {name: [] for name in RINGS}
        self.documents: dict[int, Slot] = {}

    def look(self) -> None:
        """Take in what is new; AssertionError for what has changed or is missing since the last look."""
        for name, path in self._rings.items():
            if path.exists():
                self._look_at(name)
        if self._documents_path.exists():
            self._look_at_documents()

    def payloads(self, name: str) -> list[bytes]:
        """Of all frames or records of a ring."""
        return [slot.payload for slot in self.frames[name]]

    def _look_at(self, name: str) -> None:
        seen = self.frames[name]
        with FrameReader.open(self._rings[name]) as reader:
            head = reader.head()
            found = reader.history(0, head)
            # A writer that died behind the stamp has committed, although the head does not say so yet.
            slots = found.slots + ([ahead] if (ahead := reader.read(head)) is not None else [])
        assert not found.missing and not found.lapped, f"{name}: no {found.missing}"
        assert [slot.frame_no for slot in slots] == list(range(len(slots)))
        assert slots[: len(seen)] == seen, f"{name}: what was seen is gone or another"
        self.frames[name] = slots

    def _look_at_documents(self) -> None:
        with DocumentReader.open(self._documents_path) as reader:
            for document in reader.documents():
                head, seen = reader.head(document), self.documents.get(document)
                found = reader.read(document, head) or reader.latest(document)
                if seen is not None:
                    assert found is not None, f"document {document} is gone"
                    assert found.frame_no >= seen.frame_no, f"document {document} went back"
                    again = reader.read(document, seen.frame_no)
                    assert again in (None, seen), f"document {document}: what was seen is another"
                    assert again is not None or found.frame_no > seen.frame_no, f"document {document}: what was seen is gone"
                if found is not None:
                    self.documents[document] = found
