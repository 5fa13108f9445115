"""Recordings: what was shown comes back, from any point; what is no recording is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from mpengine.top import recording as recording_module
from mpengine.top.model import Facts
from mpengine.top.recording import EVERY_MS, Recorder, Recording, RecordingError, ReplaySource
from tests.top.samples import NOW_MS, facts, heat

WHOLE_EVERY = 12


def moments(count: int) -> list[Facts]:
    """One a second; venues change each time, the map once a minute."""
    return [
        facts(book=None, now_ms=NOW_MS + 1000 * n, messages_s=float(n), map=heat("map", 4, newest_ms=NOW_MS + 60_000 * (n // 60)))
        for n in range(count)
    ]


def record(path: Path, found: list[Facts]) -> None:
    recorder = Recorder(path)
    for one in found:
        recorder.take(one)
    recorder.close()


def test_every_line_comes_back_as_it_was_forwards_and_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "WHOLE_EVERY", WHOLE_EVERY)
    made = moments(2 * WHOLE_EVERY + 7)
    record(tmp_path / "day", made)
    recording = Recording(tmp_path / "day")
    assert len(recording) == len(made) and not recording.cut
    assert recording.times_ms == [one.now_ms for one in made]
    for at in (0, 1, WHOLE_EVERY - 1, WHOLE_EVERY, 2 * WHOLE_EVERY + 6, WHOLE_EVERY + 3, 3, 0, len(made) - 1):
        assert recording.facts(at) == made[at]


def test_lines_hold_what_changed_and_come_once_a_second(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day")
    for quarter in range(8):
        recorder.take(facts(now_ms=NOW_MS + quarter * EVERY_MS // 4))
    recorder.close()
    assert recorder.lines == 2
    plain = zstandard.ZstdDecompressor().stream_reader((tmp_path / "day").read_bytes()).read().splitlines()
    assert len(plain[1]) > 10_000 and plain[2] == b'{"now_ms":%d}' % (NOW_MS + 1000)


def test_what_a_killed_recorder_leaves_is_whole_up_to_its_last_line(tmp_path: Path) -> None:
    recorder, made = Recorder(tmp_path / "day"), moments(5)
    for one in made:
        recorder.take(one)
    written = (tmp_path / "day").read_bytes()  # never closed
    recorder.close()
    (tmp_path / "left").write_bytes(written)
    left = Recording(tmp_path / "left")
    assert len(left) == 5 and left.facts(4) == made[4]
    (tmp_path / "cut").write_bytes(written[:-3])
    assert 1 <= len(Recording(tmp_path / "cut")) < 5


@pytest.mark.parametrize("content", [b"", b"no recording", zstandard.ZstdCompressor().compress(b"{}\n{}\n")])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RecordingError, match="no recording"):
        Recording(tmp_path / "x")


def test_another_format_an_empty_recording_and_damage_are_told_apart(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    for text, why in (
        (b'{"mpengine_top":2,"version":"9"}\n{"now_ms":1}\n', "format 2"), (b'{"mpengine_top":1,"version":"9"}\n', "no line"),
        (b'{"mpengine_top":1,"version":"9"}\n{"source":"x"}\n', "damaged"),
    ):  # fmt: skip
        (tmp_path / "x").write_bytes(pack(text))
        with pytest.raises(RecordingError, match=why):
            Recording(tmp_path / "x")
    (tmp_path / "x").write_bytes(pack(b'{"mpengine_top":1,"version":"9"}\n{"now_ms":1}\n'))
    with pytest.raises(RecordingError, match="damaged"):
        Recording(tmp_path / "x").facts(0)
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording(tmp_path / "absent")


def test_nothing_is_overwritten_and_a_full_disk_is_told(tmp_path: Path) -> None:
    record(tmp_path / "day", moments(1))
    with pytest.raises(RecordingError, match="FileExistsError"):
        Recorder(tmp_path / "day")
    with pytest.raises(RecordingError, match="FileNotFoundError"):
        Recorder(tmp_path / "no" / "day")


def test_a_replay_has_its_own_pace_its_steps_and_an_end(tmp_path: Path) -> None:
    made, now = moments(30), [0]
    record(tmp_path / "day", made)
    source = ReplaySource(Recording(tmp_path / "day"), "day", lambda: now[0])
    assert source.read(None, 3.0) == replace(made[0], source="replay of day")
    now[0] += 4_500_000_000
    assert source.read(None, 3.0).now_ms == made[4].now_ms
    source.step(10_000)
    assert source.read(None, 3.0).now_ms == made[14].now_ms
    source.step(-60_000)
    assert source.read(None, 3.0).now_ms == made[0].now_ms
    source.step(60_000)
    assert source.read(None, 3.0).trouble is None
    now[0] += 3_000_000_000
    ended = source.read(None, 3.0)
    assert ended.now_ms == made[-1].now_ms and ended.trouble == "the recording ends here"
    assert source.last().trouble is None
