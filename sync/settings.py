"""The settings: environment variables, checked before anything is done with them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.errors import SettingsError

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service was told.

    root        SYNC_ROOT: the directory to mirror (/foo)
    redis_url   REDIS_URL: where Redis is (the server beside it)
    password    REDIS_PASSWORD: used when the URL has none (none)
    trim        SYNC_TRIM_NEWLINE: 1 drops one final newline from every value (0)
    heartbeat   SYNC_HEARTBEAT: file of the sign of life, for `mdvp-sync health` (none)
    log_file    SYNC_LOG_FILE: file that gets the log too (none)
    log_level   LOG_LEVEL: the least important lines to log (INFO)
    """

    root: Path
    redis_url: str
    password: str | None
    trim: bool
    heartbeat: Path | None
    log_file: Path | None
    log_level: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read settings from `environ`; a variable that is empty counts as not set.

        Raises SettingsError.
        """
        given = {name: value for name, value in environ.items() if value}
        trim = given.get("SYNC_TRIM_NEWLINE", "0")
        if trim not in ("0", "1"):
            raise SettingsError(
                f"SYNC_TRIM_NEWLINE is {trim!r}: use 1 to drop a final newline, or 0"
            )
        level = given.get("LOG_LEVEL", "INFO").upper()
        if level not in _LEVELS:
            raise SettingsError(f"LOG_LEVEL is {level!r}: use one of {', '.join(_LEVELS)}")
        return cls(
            root=Path(given.get("SYNC_ROOT", "/foo")),
            redis_url=given.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            password=given.get("REDIS_PASSWORD"),
            trim=trim == "1",
            heartbeat=_path(given, "SYNC_HEARTBEAT"),
            log_file=_path(given, "SYNC_LOG_FILE"),
            log_level=logging.getLevelNamesMapping()[level],
        )


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None
