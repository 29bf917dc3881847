"""The settings: environment variables, which `docker plugin set` and a systemd unit can set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mdvp.core import options
from mdvp.core.errors import SettingsError
from mdvp.core.volume import DELETE, OnRemove
from mdvp.log import FORMATS, LEVELS

_GRACE_MAX = 86400  # a day


@dataclass(frozen=True, slots=True)
class Settings:
    """What mdvp was told: each field, the variable, what it means, and its default.

    The manual page is made of this table.

    log_level         LOG_LEVEL: the least important lines to log (INFO)
    log_format        LOG_FORMAT: text, or json for programs: docs/logs.md (text)
    grace             GRACE: for how many seconds the engine may leave no trace in a volume that it
                      has asked for, before that counts as given up (60)
    lock_directories  LOCK_DIRECTORIES: 1 keeps systemd-tmpfiles from cleaning volumes (1)
    on_remove         ON_REMOVE: what becomes of the content of a removed volume that does not say:
                      delete, keep, trash or trash:12h (delete)
    metrics_dir       METRICS_DIR: where to write mdvp.prom for node_exporter (nowhere)
    """

    log_level: str
    log_format: str
    grace: float
    lock_directories: bool
    on_remove: OnRemove = DELETE
    metrics_dir: Path | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read settings from `environ`; a variable that is empty counts as not set.

        Raises SettingsError.
        """
        given = {name: value for name, value in environ.items() if value}
        level = given.get("LOG_LEVEL", "INFO").upper()
        if level not in LEVELS:
            raise SettingsError(f"LOG_LEVEL is {level!r}: use one of {', '.join(LEVELS)}")
        form = given.get("LOG_FORMAT", "text")
        if form not in FORMATS:
            raise SettingsError(f"LOG_FORMAT is {form!r}: use one of {', '.join(FORMATS)}")
        grace = given.get("GRACE", "60")
        if not (grace.isascii() and grace.isdecimal() and 1 <= int(grace) <= _GRACE_MAX):
            raise SettingsError(
                f"GRACE is {grace!r}: use a number of seconds from 1 to {_GRACE_MAX}, such as 60"
            )
        lock = given.get("LOCK_DIRECTORIES", "1")
        if lock not in ("0", "1"):
            raise SettingsError(f"LOCK_DIRECTORIES is {lock!r}: use 1 to lock, or 0")
        fate = given.get("ON_REMOVE", "delete")
        try:
            on_remove = options.on_remove(fate)
        except ValueError:
            raise SettingsError(
                f"ON_REMOVE is {fate!r}: use delete, keep, trash, or trash:12h for another time "
                "than 7 days"
            ) from None
        directory = given.get("METRICS_DIR")
        metrics_dir = Path(directory) if directory else None
        return cls(level, form, float(grace), lock == "1", on_remove, metrics_dir)
