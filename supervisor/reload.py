"""New plan against old plan: what has to be done so that every child runs with the new settings. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mpengine.config import ConfigError, Settings
from supervisor.plan import Plan, Reload


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload does. all: shared files are made anew, so every child is restarted; else `restart` and `hangup` by name."""

    all: bool = False
    restart: tuple[str, ...] = ()
    hangup: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.all:
            return "everything is restarted, since the layout of the shared files changes"
        parts = [f"restart {', '.join(self.restart)}"] if self.restart else []
        parts += [f"roll {', '.join(self.hangup)}"] if self.hangup else []
        return "; ".join(parts) or "nothing changes for any child"


def compare(old: Plan, new: Plan) -> Change:
    """The least that brings the new settings to every child. Raises ConfigError where only a new supervisor could."""
    check_fixed(old.settings, new.settings)
    before = {spec.name: spec for spec in old.processes}
    if old.layout != new.layout or before.keys() != {spec.name for spec in new.processes}:
        return Change(all=True)
    restart, hangup = [], []
    for spec in new.processes:
        known = before[spec.name]
        if spec.digest != known.digest:
            restart.append(spec.name)
        elif spec.roll_digest != known.roll_digest and spec.reload is Reload.HANGUP:
            hangup.append(spec.name)
    return Change(restart=tuple(restart), hangup=tuple(hangup))


def check_fixed(old: Settings, new: Settings) -> None:
    """Raise ConfigError naming the settings that a running supervisor cannot change: its lock and its folder hang on them."""
    fixed = ("name", "data_dir", "runtime_dir")
    moved = [key for key in fixed if getattr(old.instance, key) != getattr(new.instance, key)]
    if moved:
        raise ConfigError([f"instance.{key}: cannot change in a running supervisor, stop and start it" for key in moved])
