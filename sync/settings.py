"""The settings: environment variables, checked before anything is done with them."""

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.core.access import Access
from sync.core.decision import Mode
from sync.core.endpoint import Endpoint
from sync.core.errors import SettingsError
from sync.core.exclude import DEFAULT

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("text", "json")
_IDS = re.compile("[0-9]+(:[0-9]+)?")
_DIGITS_MAX = 15
_ID_MAX = (1 << 32) - 2  # chown(2) takes one more for "leave it"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service was told: each field, the variable, what it means, and its default.

    The manual page is made of this table, without what is "here" so.

    root        SYNC_ROOT: the directory to mirror (/foo)
    mode        SYNC_MODE: which side follows which: one-way-replica, one-way-safe, two-way-safe,
                two-way-resolved or redis-to-disk (one-way-replica)
    guard       SYNC_GUARD: 0 leaves to the rescans what others do to keys of files, where Redis is
                the directory's copy (1)
    keeps_expired SYNC_EXPIRE: keep has the file of a key that expires stay, where Redis may delete
                files; delete does not (delete)
    delete_max  SYNC_DELETE_MAX: percent of the files or keys that may go at once without a word
                from somebody; here as a share of 1 (50%)
    file_mode   SYNC_FILE_MODE: permissions of a file that the service makes (0644)
    file_owner  SYNC_FILE_OWNER: numbers of the user and the group of such a file, as USER or
                USER:GROUP; here None for what is not given (the directory's)
    fsync       SYNC_FSYNC: 1 has what is written to files survive a power cut (0)
    access      REDIS_URL: where Redis is (redis://127.0.0.1:6379/0)
                REDIS_USERNAME, REDIS_PASSWORD: used when the URL has none (none)
                REDIS_SENTINEL_USERNAME, REDIS_SENTINEL_PASSWORD: the same for Sentinels (none)
                REDIS_TLS_CA_FILE: who signs the certificates of servers, for rediss:// (those whom
                the system trusts)
                REDIS_TLS_CERT_FILE, REDIS_TLS_KEY_FILE: the service's own, where the server wants
                one (none)
                REDIS_URL_FILE, REDIS_PASSWORD_FILE, REDIS_SENTINEL_PASSWORD_FILE: a file that has
                in it what the variable without _FILE would have (none)
    trim        SYNC_TRIM_NEWLINE: 1 drops one final newline from every value (0)
    exclude     SYNC_EXCLUDE: patterns of what to leave out, with white space between them; none
                when it is empty; here as given, for `Excluded` to check (what editors drop:
                `exclude.DEFAULT`)
    tree        SYNC_TREE: 1 mirrors all directories below, too (0)
    links       SYNC_LINKS: inside follows symbolic links to what is in the root (none)
    prefix      SYNC_PREFIX: what all keys begin with (none)
    rescan      SYNC_RESCAN: seconds between two looks at the whole directory, 0 for never (60)
    rescan_share SYNC_RESCAN_CPU: percent of one core that such looks may take; here as a share of 1
                (1)
    stream      SYNC_STREAM: the stream, after SYNC_PREFIX, that gets an entry for each change
                (none)
    stream_max  SYNC_STREAM_MAXLEN: about how many entries that keeps, 0 for all (100000)
    on_change   SYNC_ON_CHANGE: a command that is told the names of what has changed (none)
    status      SYNC_STATUS: file of the status, for `mdvp-sync status` (none)
    metrics     SYNC_METRICS: [ADDR:]PORT to be asked for metrics at, for Prometheus (none)
    log_file    SYNC_LOG_FILE: file that gets the log too (none)
    log_level   LOG_LEVEL: the least important lines to log (INFO)
    log_format  LOG_FORMAT: text, or json for programs: docs/logs.md (text)
    """

    root: Path
    mode: Mode
    guard: bool
    keeps_expired: bool
    delete_max: float
    file_mode: int
    file_owner: tuple[int | None, int | None]
    fsync: bool
    access: Access
    trim: bool
    exclude: tuple[str, ...]
    tree: bool
    links: bool
    prefix: bytes
    rescan: float
    rescan_share: float
    stream: bytes | None
    stream_max: int
    on_change: str | None
    status: Path | None
    metrics: Endpoint | None
    log_file: Path | None
    log_level: int
    log_format: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read settings from `environ`; but for SYNC_EXCLUDE, what is empty counts as not set.

        Raises SettingsError.
        """
        given = {name: value for name, value in environ.items() if value}
        level = given.get("LOG_LEVEL", "INFO").upper()
        if level not in _LEVELS:
            raise SettingsError(f"LOG_LEVEL is {level!r}: use one of {', '.join(_LEVELS)}")
        form = given.get("LOG_FORMAT", "text")
        if form not in _FORMATS:
            raise SettingsError(f"LOG_FORMAT is {form!r}: use one of {', '.join(_FORMATS)}")
        mode = _mode(given)
        return cls(
            root=Path(given.get("SYNC_ROOT", "/foo")),
            mode=mode,
            guard=_switch(given, "SYNC_GUARD", "to undo what others do to keys of files", "1"),
            keeps_expired=_keeps_expired(given.get("SYNC_EXPIRE", "delete")),
            delete_max=_share("SYNC_DELETE_MAX", given.get("SYNC_DELETE_MAX", "50%")),
            file_mode=_file_mode(given.get("SYNC_FILE_MODE", "0644")),
            file_owner=_file_owner(given.get("SYNC_FILE_OWNER")),
            fsync=_switch(given, "SYNC_FSYNC", "to have what is written survive a power cut"),
            access=_access(given),
            trim=_switch(given, "SYNC_TRIM_NEWLINE", "to drop a final newline"),
            exclude=_exclude(environ.get("SYNC_EXCLUDE")),
            tree=_switch(given, "SYNC_TREE", "to mirror all directories below"),
            links=_links(given.get("SYNC_LINKS"), mode),
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
            stream=_stream(given.get("SYNC_STREAM")),
            stream_max=_count("SYNC_STREAM_MAXLEN", given.get("SYNC_STREAM_MAXLEN", "100000")),
            on_change=given.get("SYNC_ON_CHANGE"),
            status=_path(given, "SYNC_STATUS"),
            metrics=_metrics(given.get("SYNC_METRICS")),
            log_file=_path(given, "SYNC_LOG_FILE"),
            log_level=logging.getLevelNamesMapping()[level],
            log_format=form,
        )

    @property
    def digests(self) -> bool:
        """Whether Redis is to remember what both sides had last, by its digest."""
        return self.mode is not Mode.ONE_WAY_REPLICA

    @property
    def listens(self) -> bool:
        """Whether it is to hear of what others change in Redis."""
        return self.digests or self.guard

    def below(self, path: str) -> bytes:
        """Return a path as one below the root: it is one, or one of the file system, or the root.

        Raises SettingsError.
        """
        parts = Path(path).parts
        if Path(path).is_absolute():
            if not Path(path).is_relative_to(self.root):
                raise SettingsError(f"{path} is not below {self.root}")
            parts = Path(path).relative_to(self.root).parts
        if ".." in parts:
            raise SettingsError(f"{path} has .. in it: name it by its path below {self.root}")
        return os.fsencode("/".join(parts))


def _access(given: Mapping[str, str]) -> Access:
    return Access(
        _secret(given, "REDIS_URL") or "redis://127.0.0.1:6379/0",
        given.get("REDIS_USERNAME"),
        _secret(given, "REDIS_PASSWORD"),
        given.get("REDIS_SENTINEL_USERNAME"),
        _secret(given, "REDIS_SENTINEL_PASSWORD"),
        *(_path(given, f"REDIS_TLS_{each}_FILE") for each in ("CA", "CERT", "KEY")),
    )


def _secret(given: Mapping[str, str], name: str) -> str | None:
    """Return a setting that may be in a file, without the newline that editors end it with."""
    at = f"{name}_FILE"
    if at not in given:
        return given.get(name)
    if name in given:
        raise SettingsError(f"{name} and {at} are both set: leave one of the two out")
    try:
        return Path(given[at]).read_text(errors="surrogateescape").removesuffix("\n") or None
    except OSError as error:
        raise SettingsError(f"{at} cannot be read: {error}") from error


def _stream(given: str | None) -> bytes | None:
    if given is None:
        return None
    stream = os.fsencode(given)
    if stream.startswith(b"/") or stream.endswith(b"/"):
        raise SettingsError(f"SYNC_STREAM is {given!r}: use a name without a slash at its ends")
    return stream


def _metrics(given: str | None) -> Endpoint | None:
    if given is None:
        return None
    try:
        return Endpoint.parse(given)
    except ValueError as error:
        raise SettingsError(
            f"SYNC_METRICS is {given!r}, which {error}: use a port, such as 9121, or an address of "
            "this machine and a port, such as 127.0.0.1:9121, [::1]:9121 or localhost:9121"
        ) from None


def _count(name: str, given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS_MAX):
        raise SettingsError(f"{name} is {given!r}: use a whole number, or 0 for no limit")
    return int(given)


def _exclude(given: str | None) -> tuple[str, ...]:
    return DEFAULT if given is None else tuple(given.split())


def _mode(given: Mapping[str, str]) -> Mode:
    value = given.get("SYNC_MODE", Mode.ONE_WAY_REPLICA.value)
    try:
        return Mode(value)
    except ValueError:
        modes = ", ".join(mode.value for mode in Mode)
        raise SettingsError(f"SYNC_MODE is {value!r}: use one of {modes}") from None


def _keeps_expired(given: str) -> bool:
    if given not in {"delete", "keep"}:
        raise SettingsError(
            f"SYNC_EXPIRE is {given!r}: use delete to have a file go when its key expires, "
            "or keep to have it stay"
        )
    return given == "keep"


def _share(name: str, given: str) -> float:
    percent = _float(given.removesuffix("%"))
    # What is below 1 could be meant as a share, if nothing says that it is percent.
    is_unclear = 0 < percent < 1 and not given.endswith("%")
    if is_unclear or not 0 <= percent <= 100:  # noqa: PLR2004  # which is what percent is
        raise SettingsError(f"{name} is {given!r}: use percent, from 0% to 100%, such as 50%")
    return percent / 100


def _file_mode(given: str) -> int:
    # No more than nine bits: what comes from Redis is nothing to run as somebody else.
    if not re.fullmatch("0?[0-7]{3}", given):
        raise SettingsError(
            f"SYNC_FILE_MODE is {given!r}: use three octal digits, such as 0644 or 600"
        )
    return int(given, 8)


def _file_owner(given: str | None) -> tuple[int | None, int | None]:
    if given is None:
        return None, None
    numbers = [int(each) for each in given.split(":")] if _IDS.fullmatch(given) else []
    if not numbers or max(numbers) > _ID_MAX:
        raise SettingsError(
            f"SYNC_FILE_OWNER is {given!r}: use the number of a user, or of a user and a group, "
            "such as 1000 or 1000:1000"
        )
    return numbers[0], numbers[1] if len(numbers) > 1 else None


def _switch(given: Mapping[str, str], name: str, words: str, default: str = "0") -> bool:
    value = given.get(name, default)
    if value not in ("0", "1"):
        raise SettingsError(f"{name} is {value!r}: use 1 {words}, or 0")
    return value == "1"


def _links(given: str | None, mode: Mode) -> bool:
    if given not in (None, "none", "inside"):
        raise SettingsError(
            f"SYNC_LINKS is {given!r}: use inside to follow symbolic links to what is in the root, "
            "or none, which is so when it is empty, too"
        )
    if given == "inside" and mode is not Mode.ONE_WAY_REPLICA:
        raise SettingsError(
            f"SYNC_LINKS is 'inside' with SYNC_MODE={mode.value}: links are followed only with "
            f"SYNC_MODE={Mode.ONE_WAY_REPLICA.value}, so leave one of the two out"
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
    number = _float(given)
    if not least <= number <= most:
        raise SettingsError(f"{name} is {given!r}: use {words}")
    return number


def _float(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        return math.nan


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None
