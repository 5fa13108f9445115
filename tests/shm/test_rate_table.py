"""The table of what clients spent: whose region is whose, what survives a worker, who makes room for whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm import rate_table
from shm.errors import LayoutMismatch, Missing
from shm.rate_table import DEBT, HELD, SETS, SPENT, WAYS, RateTable

HOLDER = """
import sys
from pathlib import Path
from shm.rate_table import SPENT, HELD, RateTable
table = RateTable.attach(Path(sys.argv[1]))
assert table.claim()
place, _ = table.insert(77)
table.words.store_release(place + SPENT, 5)
table.words.store_release(place + HELD, 3)
print(table.region, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    rate_table.create(directory / "rates", 1)
    yield directory / "rates"
    shutil.rmtree(directory)


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has region 0, has taken 5 tokens of client 77 and keeps three connections for it."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_geometry(path: Path) -> None:
    table = RateTable.attach(path)
    assert table.regions == rate_table.regions_for(1) == 4
    assert path.stat().st_size == rate_table.HEADER_BYTES + 4 * rate_table.REGION_WORDS * 8
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= path.stat().st_size, "holes: a store into one may be SIGBUS"
    places = [table.entries(region) for region in range(4)]
    flat = [place + word for region in places for place in region for word in range(4)]
    lines = [table.line(region) + word for region in range(4) for word in range(8)]
    versions = [table.set_of(region, key) for region in range(4) for key in range(SETS)]
    everything = flat + lines + versions
    assert len(places[0]) == SETS * WAYS and len(set(everything)) == len(everything), "two things in one word"
    assert max(everything) * 8 < path.stat().st_size and min(everything) * 8 >= rate_table.HEADER_BYTES
    table.close()


def test_salts_differ(path: Path) -> None:
    first = RateTable.attach(path)
    rate_table.create(path, 1)
    second = RateTable.attach(path)
    assert len(first.salt) == 16 and first.salt != second.salt != RateTable.private().salt
    first.close()
    second.close()


def test_every_region_has_one_owner_and_a_closed_one_is_free(path: Path) -> None:
    tables = [RateTable.attach(path) for _ in range(5)]
    assert [table.claim() for table in tables] == [True, True, True, True, False]
    assert [table.region for table in tables] == [0, 1, 2, 3, None]
    assert tables[4].is_held(2)
    tables[2].close()
    assert not tables[4].is_held(2)
    assert tables[4].claim() and tables[4].region == 2 and tables[4].is_held(2) and tables[4].owner(2) == os.getpid()
    for table in (*tables[:2], *tables[3:]):
        table.close()


def test_the_region_of_a_killed_process_is_free_and_goes_on_from_its_numbers(path: Path, holder: subprocess.Popen[str]) -> None:
    reader = RateTable.attach(path)
    assert reader.is_held(0) and reader.owner(0) == holder.pid
    place = reader.find(0, 77)
    assert (reader.words.load_acquire(place + SPENT), reader.words.load_acquire(place + HELD)) == (5, 3)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not reader.is_held(0)
    heir = RateTable.attach(path)
    assert heir.claim() and heir.region == 0
    assert heir.find(0, 77) == place
    assert (heir.words.load_acquire(place + SPENT), heir.words.load_acquire(place + HELD)) == (5, 0)
    heir.close()
    reader.close()


def test_a_full_set_gives_the_entry_whose_debt_is_over_first() -> None:
    table = RateTable.private()
    keys = [7 + SETS * number for number in range(1, WAYS + 1)]
    places = {}
    for debt, key in zip((40, 20, 30, 10), keys):
        place, before = table.insert(key)
        places[key] = place
        assert before == 0
        table.words.store_release(place + DEBT, debt)
    table.words.store_release(places[keys[3]] + HELD, 1)  # whose debt is over first has a connection
    version = table.words.load_acquire(table.set_of(0, 7))
    place, before = table.insert(7)
    assert (place, before) == (places[keys[1]], keys[1])
    assert table.find(0, keys[1]) == 0 and table.find(0, 7) == place
    assert [table.words.load_acquire(place + word) for word in (SPENT, DEBT, HELD)] == [0, 0, 0]
    assert table.words.load_acquire(table.set_of(0, 7)) == version + 1
    assert table.find(0, 8) == 0


def test_files_that_are_no_table(path: Path) -> None:
    with pytest.raises(Missing):
        RateTable.attach(path.with_name("nothing"))
    good = path.read_bytes()
    for wrong in (b"", good[:20], b"X" + good[1:], good[:8] + b"\x09" + good[9:], good[:-8]):
        path.write_bytes(wrong)
        with pytest.raises(LayoutMismatch):
            RateTable.attach(path)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(LayoutMismatch):
            RateTable.attach(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
