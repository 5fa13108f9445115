"""Keys in a worker: same work for every wrong one, what a changed, broken or missing file does."""

from __future__ import annotations

import hmac
import logging
from pathlib import Path
from typing import Any

import pytest

from api import keys as module
from api.keys import FORBIDDEN, UNAUTHORIZED, Keys, key_of
from mpengine.keys import KeyRecord, change, new_key
from tests.api.world import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(path: Path, clock: FakeClock, *scopes: Any, expires_ms: int | None = None) -> bytes:
    record, text = new_key(clock.now_ms, list(scopes) or ["read"], expires_ms)
    change(path, lambda records: [*records, record])
    return text.encode()


def revoke(path: Path, text: bytes) -> None:
    def edit(records: list[KeyRecord]) -> list[KeyRecord]:
        return [
            KeyRecord(**{**{name: getattr(one, name) for name in one.__struct_fields__}, "revoked_ms": 1})
            if text.startswith(one.id.encode()) else one for one in records
        ]  # fmt: skip

    change(path, edit)


def good(keys: Keys, text: bytes | None, scope: str = "read") -> bool:
    return isinstance(keys.verify(text, scope), KeyRecord)


@pytest.mark.covers("T-M6")
def test_good_and_wrong_keys(path: Path, clock: FakeClock) -> None:
    first, second = add(path, clock), add(path, clock, "read", "push")
    ending = add(path, clock, expires_ms=clock.now_ms + 1000)
    ended = add(path, clock)
    revoke(path, ended)
    keys = Keys(path, lambda: clock.now_ms)
    assert good(keys, first) and good(keys, second) and good(keys, second, "push") and good(keys, ending)
    assert keys.verify(first, "push") is FORBIDDEN
    identity, secret = first.split(b".")
    other = second.split(b".")[1]
    for text in (
        None, b"", b".", identity, identity + b".", b"." + secret, identity + b"." + other, identity + b"." + secret[:-1],
        first + b"x", first.upper(), b"x" * 8000, identity + b"." + b"\xff" * 43, b"none.", ended, first + b".",
        b"none." + b"\0" * 32,
    ):  # fmt: skip
        assert keys.verify(text, "read") is UNAUTHORIZED, text
        assert keys.verify(text, "push") is UNAUTHORIZED
    clock.advance(1.0)
    assert not good(keys, ending)


@pytest.mark.covers("T-M6")
def test_every_key_goes_the_same_way(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash of the secret and one comparison in constant time, whatever is wrong with the key."""
    first = add(path, clock)
    ended = add(path, clock, expires_ms=1)
    revoked = add(path, clock)
    revoke(path, revoked)
    keys = Keys(path, lambda: clock.now_ms)
    keys.refresh()
    done: list[str] = []
    monkeypatch.setattr(module, "digest_of", lambda secret, real=module.digest_of: done.append("hash") or real(secret))

    def compare(one: bytes, other: bytes) -> bool:
        done.append("compare")
        assert len(one) == len(other) == 32
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(module, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    for text in (first, first[:-1], b"nobody." + b"x" * 43, ended, revoked, None, b"", b"garbage"):
        done.clear()
        keys.verify(text, "read")
        assert done == ["hash", "compare"], text


def test_changes_of_the_file_are_taken_at_the_next_turn(path: Path, clock: FakeClock) -> None:
    first = add(path, clock)
    keys = Keys(path, lambda: clock.now_ms)
    keys.refresh()
    second = add(path, clock)
    assert good(keys, first) and not good(keys, second)
    keys.refresh()
    assert good(keys, first) and good(keys, second) and len(keys) == 2
    revoke(path, first)
    keys.refresh()
    assert not good(keys, first) and good(keys, second)


def test_a_broken_file_changes_nothing_and_a_missing_one_ends_all(
    path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    first = add(path, clock)
    keys = Keys(path, lambda: clock.now_ms)
    keys.refresh()
    whole = path.read_bytes()
    for break_it in (lambda: path.write_bytes(b"{}"), lambda: path.chmod(0o666)):
        caplog.clear()
        break_it()
        keys.refresh()
        assert good(keys, first) and "stay in force" in caplog.text and first.decode() not in caplog.text
        path.write_bytes(whole)
        path.chmod(0o600)
        keys.refresh()
    path.unlink()
    caplog.clear()
    for _ in range(3):
        keys.refresh()
        assert not good(keys, first)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    path.write_bytes(whole)
    path.chmod(0o600)
    keys.refresh()
    assert good(keys, first)


def test_keys_are_read_when_the_first_is_asked_for(path: Path, clock: FakeClock) -> None:
    first = add(path, clock)
    assert good(Keys(path, lambda: clock.now_ms), first)
    nothing = Keys(path.with_name("other"), lambda: clock.now_ms)
    assert not good(nothing, first)


def test_where_a_request_carries_its_key() -> None:
    assert key_of(b"Bearer a.b", None) == key_of(b"bearer   a.b ", b"c.d") == key_of(None, b" a.b") == b"a.b"
    assert key_of(b"Basic xyz", b"a.b") == b"a.b"
    assert key_of(b"Basic xyz", None) is key_of(None, None) is None
    assert key_of(b"Bearer", None) == key_of(b"Bearer ", b"a.b") == b""
