"""Where the processes of the pool get their settings from: one file, written by the supervisor, named by one variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mpengine.config import ConfigError, Settings, decode

SETTINGS_VARIABLE: Final = "MPENGINE_SETTINGS"


def settings_path() -> Path:
    """Where the environment says the settings are. Raises ConfigError where it does not say."""
    try:
        return Path(os.environ[SETTINGS_VARIABLE])
    except KeyError:
        raise ConfigError([f"{SETTINGS_VARIABLE}: is not set"]) from None


def read_settings(path: Path) -> Settings:
    """Settings that the supervisor wrote. Raises ConfigError, also where the file cannot be read."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ConfigError([f"{SETTINGS_VARIABLE}: cannot be read ({type(error).__name__})"]) from error
