"""`mpengine top` behind its options: which source, and whether it is shown once or until `q`. Textual is imported last."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mpengine.top.model import Facts

if TYPE_CHECKING:
    from mpengine.config import Settings
    from mpengine.top.recording import Recorder

KEY_VARIABLE: Final = "MPENGINE_API_KEY"
RANGE_PCT: Final = 3.0
NO_TEXTUAL: Final = (
    "the full screen needs Textual, which is not installed: pip install 'mpengine[top]' "
    "(mpengine status and mpengine top --once work without it)"
)


class TopError(Exception):
    """Nothing can be shown; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Options. One source of `settings`, `url`, `replay`; `width` of the plain text."""

    settings: Settings | None = None
    url: str | None = None
    replay: Path | None = None
    key: str | None = None
    symbol: str | None = None
    record: Path | None = None


def key_of(file: Path | None, env: Mapping[str, str]) -> str | None:
    """The API key of a file, else of the environment. Raises TopError for a file that others may read: it is a secret."""
    if file is None:
        return env.get(KEY_VARIABLE) or None
    try:
        if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise TopError(f"{file} may be read by others (chmod 600)")
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TopError(f"{file} cannot be read ({type(error).__name__})") from error
    if not text:
        raise TopError(f"{file} is empty")
    return text


def once(wanted: Wanted, *, as_json: bool) -> str:
    """One look, as text or JSON. Raises TopError."""
    facts = _facts(wanted, heat=not as_json)
    if as_json:
        from mpengine.top.schema import body_of, encode

        return encode(body_of(facts)).decode()
    return text_of(facts, *shutil.get_terminal_size((100, 40)))


def text_of(facts: Facts, width: int, height: int) -> str:
    """The overview as plain text; shades for colours."""
    from mpengine.top.badge import badge
    from mpengine.top.layout import LOWEST, NARROWEST, places
    from mpengine.top.view import Look, whole

    width, height = max(width, NARROWEST), max(height, LOWEST)
    where = places(width, height, "main", "map", len(facts.venues) or 1, len(facts.processes) or 1)
    return whole(facts, badge(facts, facts.now_ms), Look(colour=False), facts.now_ms, where)


def _facts(wanted: Wanted, *, heat: bool) -> Facts:
    if wanted.replay is not None:
        from mpengine.top.recording import Recording, RecordingError, ReplaySource

        try:
            return ReplaySource(Recording(wanted.replay), wanted.replay.name).last()
        except RecordingError as error:
            raise TopError(str(error)) from error
    if wanted.url is not None:
        from mpengine.top.remote import RemoteSource, Unusable

        try:
            return RemoteSource(wanted.url, wanted.key).once(wanted.symbol, RANGE_PCT, heat=heat)
        except (Unusable, ValueError) as error:
            raise TopError(str(error)) from error
    from mpengine.top.local import LocalSource

    with LocalSource(_settings(wanted)) as source:
        if not source.exists():
            raise TopError(source.why())
        return source.once(wanted.symbol, RANGE_PCT)


def _settings(wanted: Wanted) -> Settings:
    """Settings of the instance. Raises TopError for a symbol that they do not have."""
    assert wanted.settings is not None
    if wanted.symbol is not None and wanted.symbol not in wanted.settings.symbols:
        raise TopError(f"{wanted.symbol} is not a configured symbol")
    return wanted.settings


def screen(wanted: Wanted, *, hz: float) -> None:
    """The full screen, until `q`. Raises TopError."""
    if not (os.isatty(0) and os.isatty(1)):
        raise TopError("the full screen needs a terminal; without one: mpengine top --once")
    try:
        from mpengine.top.app import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise TopError(NO_TEXTUAL) from None
    recorder = _recorder(wanted.record)
    if wanted.replay is not None:
        from mpengine.top.recording import Recording, RecordingError, ReplaySource

        try:
            replayed = ReplaySource(Recording(wanted.replay), wanted.replay.name)
        except RecordingError as error:
            raise TopError(str(error)) from error
        app = TopApp(replayed, hz=hz, step=replayed.step)
    elif wanted.url is not None:
        from mpengine.top.remote import RemoteSource

        try:
            app = TopApp(RemoteSource(wanted.url, wanted.key), symbol=wanted.symbol, hz=hz, recorder=recorder)
        except ValueError as error:
            raise TopError(str(error)) from error
    else:
        from mpengine.top.local import LocalSource

        local = LocalSource(_settings(wanted))
        if not local.exists():
            raise TopError(local.why())
        app = TopApp(local, symbol=wanted.symbol, hz=hz, recorder=recorder)
    app.run(mouse=False)
    if app.return_code:
        raise TopError("the screen ended by a fault")


def _recorder(path: Path | None) -> Recorder | None:
    if path is None:
        return None
    from mpengine.top.recording import Recorder, RecordingError

    try:
        return Recorder(path)
    except RecordingError as error:
        raise TopError(str(error)) from error
