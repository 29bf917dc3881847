"""The settings: environment variables, checked before anything is done with them."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.core.errors import SettingsError
from sync.core.exclude import DEFAULT

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service was told.

    root        SYNC_ROOT: the directory to mirror (/foo)
    redis_url   REDIS_URL: where Redis is (the server beside it)
    password    REDIS_PASSWORD: used when the URL has none (none)
    trim        SYNC_TRIM_NEWLINE: 1 drops one final newline from every value (0)
    exclude     SYNC_EXCLUDE: patterns of what to leave out, with white space between them; none
                when it is empty (what editors drop: `exclude.DEFAULT`); `Excluded` checks them
    tree        SYNC_TREE: 1 mirrors all directories below, too (0)
    links       SYNC_LINKS: inside follows symbolic links to what is in the root (none is followed)
    prefix      SYNC_PREFIX: what all keys begin with (nothing)
    rescan      SYNC_RESCAN: seconds between two looks at the whole directory, 0 for never (60)
    rescan_share SYNC_RESCAN_CPU: percent of one core that such looks may take (1)
    status      SYNC_STATUS: file of the status, for `mdvp-sync status` (none)
    log_file    SYNC_LOG_FILE: file that gets the log too (none)
    log_level   LOG_LEVEL: the least important lines to log (INFO)
    """

    root: Path
    redis_url: str
    password: str | None
    trim: bool
    exclude: tuple[str, ...]
    tree: bool
    links: bool
    prefix: bytes
    rescan: float
    rescan_share: float
    status: Path | None
    log_file: Path | None
    log_level: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read settings from `environ`; but for SYNC_EXCLUDE, what is empty counts as not set.

        Raises SettingsError.
        """
        given = {name: value for name, value in environ.items() if value}
        level = given.get("LOG_LEVEL", "INFO").upper()
        if level not in _LEVELS:
            raise SettingsError(f"LOG_LEVEL is {level!r}: use one of {', '.join(_LEVELS)}")
        return cls(
            root=Path(given.get("SYNC_ROOT", "/foo")),
            redis_url=given.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            password=given.get("REDIS_PASSWORD"),
            trim=_switch(given, "SYNC_TRIM_NEWLINE", "to drop a final newline"),
            exclude=_exclude(environ.get("SYNC_EXCLUDE")),
            tree=_switch(given, "SYNC_TREE", "to mirror all directories below"),
            links=_links(given.get("SYNC_LINKS")),
            prefix=_prefix(given.get("SYNC_PREFIX", "")),
            rescan=_number(
                "SYNC_RESCAN",
                given.get("SYNC_RESCAN", "60"),
                *(0, 1e9, "a number of seconds, or 0 for never"),
            ),
            rescan_share=_number(
                "SYNC_RESCAN_CPU",
                given.get("SYNC_RESCAN_CPU", "1"),
                *(0.01, 100, "percent of one core, up to 100"),
            )
            / 100,
            status=_path(given, "SYNC_STATUS"),
            log_file=_path(given, "SYNC_LOG_FILE"),
            log_level=logging.getLevelNamesMapping()[level],
        )


def _exclude(given: str | None) -> tuple[str, ...]:
    return DEFAULT if given is None else tuple(given.split())


def _switch(given: Mapping[str, str], name: str, words: str) -> bool:
    value = given.get(name, "0")
    if value not in ("0", "1"):
        raise SettingsError(f"{name} is {value!r}: use 1 {words}, or 0")
    return value == "1"


def _links(given: str | None) -> bool:
    if given not in (None, "none", "inside"):
        raise SettingsError(
            f"SYNC_LINKS is {given!r}: use inside to follow symbolic links to what is in the root, "
            "or none, which is so when it is empty, too"
        )
    return given == "inside"


def _prefix(given: str) -> bytes:
    """Return what keys begin with: the service's own, which begin with a slash, stay apart."""
    prefix = os.fsencode(given)
    own = b"/mdvp-sync/"
    if prefix.startswith(own) or (prefix and own.startswith(prefix)):
        raise SettingsError(
            f"SYNC_PREFIX is {given!r}: keys that begin with /mdvp-sync/ are the service's own"
        )
    return prefix


def _number(name: str, given: str, least: float, most: float, words: str) -> float:
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise SettingsError(f"{name} is {given!r}: use {words}")
    return number


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None
