"""The status: the service says what it is doing, and `mdvp-sync status` reads it elsewhere.

It is a small file of JSON, replaced as a whole. The time in it is CLOCK_MONOTONIC, which all
processes of a machine share and which no one sets. It is written only by the service's own loop,
which asks Redis before it says that it is live, so that it grows old when either of the two hangs.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sync.core.decision import Mode
from sync.core.errors import SettingsError
from sync.report.tally import Change

STARTING = "starting"
LIVE = "live"
RECONCILING = "reconciling"
WAITING = "waiting"
HELD = "held"
STANDBY = "standby"

TRACKING = "tracking"
NOTIFICATIONS = "keyspace notifications"
RESCANS = "rescans"

NAMED_MAX = 100  # names of a kind that are in the status; it is written every second
_SECONDS_MAX, _COUNT_MAX = 1e15, 2**63  # more than there can be of either
# What is raised for what no service has written.
_STRANGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Status:
    """What the service is doing, and what it has done since it started.

    state           LIVE, RECONCILING, WAITING, HELD or STANDBY; STARTING until the first of them
    since           when that began, in seconds since the epoch; 0 while STARTING
    detail          words for what it waits for, how far it is, why it holds and what the way out
                    is, or who works while it stands by; "" when live
    mode            SYNC_MODE
    root            the directory
    server          where Redis is, as far as is known by now
    started         when the service began, in seconds since the epoch
    heard_by        by what it hears of changes in Redis: "tracking", "keyspace notifications" or
                    "rescans"; "" when it does not listen
    files           how many names Redis holds content of
    bytes           how large their files are together
    commands        how many commands were sent to Redis
    pending         how many names wait to be looked at
    operations      what was done -> how many times: the values of `tally.OPERATIONS`
    moved           bytes of values that went from one side to the other
    recent          the last changes, the last of all at the end
    lags            how many lags were in each class of `tally.LAG_BOUNDS`, and above
    lag_sum         seconds, of all lags together
    lag             seconds from the arrival of the oldest change of the last batch to its being
                    in Redis; None before the first
    arriving        how many large files are on their way to Redis, or wait for their turn
    directories     how many there are, with the root
    unwatched       of how many of them nothing is heard: they are followed by rescans only
    reconciles      cause -> how many
    undone          how many changes that others made to keys of files were undone
    conflicts       a name, as `changes.shown` writes it -> what each side has, in words that
                    complete a sentence about it; at most NAMED_MAX of them
    conflicts_count how many there are altogether
    skipped         a name -> why; at most NAMED_MAX of them
    skipped_count   how many there are altogether
    """

    state: str = STARTING
    since: float = 0.0
    detail: str = ""
    mode: str = Mode.ONE_WAY_REPLICA.value
    root: str = ""
    server: str = ""
    started: float = 0.0
    heard_by: str = ""
    files: int = 0
    bytes: int = 0
    commands: int = 0
    pending: int = 0
    operations: Mapping[str, int] = field(default_factory=dict)
    moved: int = 0
    recent: Sequence[Change] = ()
    lags: Sequence[int] = ()
    lag_sum: float = 0.0
    lag: float | None = None
    arriving: int = 0
    directories: int = 1
    unwatched: int = 0
    reconciles: Mapping[str, int] = field(default_factory=dict)
    undone: int = 0
    conflicts: Mapping[str, str] = field(default_factory=dict)
    conflicts_count: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    skipped_count: int = 0


class Said(NamedTuple):
    """A status, and who said it when.

    status  the status
    at      when, in seconds on CLOCK_MONOTONIC
    pid     the service's process
    """

    status: Status
    at: float
    pid: int


class StatusFile:
    """Writes the status to a file; to none when the path is None.

    Attributes:
        last: what was to be written last, even if there is no file; another thread may read it.
        found: what others find in the file, which is what was written last; if there is none, what
            they would find in it.

    """

    def __init__(self, path: Path | None) -> None:
        """Write to `path` that the service is starting.

        Raises SettingsError if that cannot be done.
        """
        self._path = path
        self._new = path and path.with_name(path.name + ".new")
        self._pid = os.getpid()
        self.last = self.found = self._said(Status())
        try:
            self._write(self.last)
        except OSError as error:
            raise SettingsError(f"SYNC_STATUS cannot be written: {error}") from error

    def write(self, status: Status) -> None:
        """Replace the status by this one.

        A full disk does not end the service: the status grows old then, and is red by itself.
        """
        self.last = self._said(status)
        with suppress(OSError):
            self._write(self.last)
            self.found = self.last

    def _said(self, status: Status) -> Said:
        return Said(status, time.monotonic(), self._pid)

    def _write(self, said: Said) -> None:
        if self._path is None or self._new is None:
            return
        written = figures(said.status) | {"pid": said.pid, "at": said.at}
        self._new.write_text(json.dumps(written))
        self._new.replace(self._path)


def read(path: Path) -> Said:
    """Return what was written to a file last.

    Raises OSError, and ValueError for what no service has written.
    """
    try:
        said = json.loads(path.read_text())
        return Said(_status(said), float(said["at"]), _count(said["pid"]))
    except _STRANGE as error:
        raise ValueError(repr(error)) from error


def figures(status: Status) -> dict[str, object]:
    """Return a status as it is in the file, and as `mdvp-sync status --json` says it."""
    return {
        "state": status.state,
        "since": status.since,
        "detail": status.detail,
        "mode": status.mode,
        "root": status.root,
        "server": status.server,
        "started": status.started,
        "heard_by": status.heard_by,
        "files": status.files,
        "bytes": status.bytes,
        "commands": status.commands,
        "pending": status.pending,
        "operations": dict(status.operations),
        "moved": status.moved,
        "recent": [each._asdict() for each in status.recent],
        "lags": list(status.lags),
        "lag_sum": status.lag_sum,
        "lag_ms": None if status.lag is None else round(status.lag * 1e3, 3),
        "arriving": status.arriving,
        "directories": status.directories,
        "unwatched": status.unwatched,
        "reconciles": dict(status.reconciles),
        "undone": status.undone,
        "conflicts": dict(status.conflicts),
        "conflicts_count": status.conflicts_count,
        "skipped": dict(status.skipped),
        "skipped_count": status.skipped_count,
    }


def _status(said: Mapping[str, Any]) -> Status:
    lag_ms = said["lag_ms"]
    return Status(
        state=str(said["state"]),
        since=_seconds(said["since"]),
        detail=str(said["detail"]),
        mode=str(said["mode"]),
        root=str(said["root"]),
        server=str(said["server"]),
        started=_seconds(said["started"]),
        heard_by=str(said["heard_by"]),
        files=_count(said["files"]),
        bytes=_count(said["bytes"]),
        commands=_count(said["commands"]),
        pending=_count(said["pending"]),
        operations={str(what): _count(number) for what, number in said["operations"].items()},
        moved=_count(said["moved"]),
        recent=tuple(_change(each) for each in said["recent"]),
        lags=tuple(_count(each) for each in said["lags"]),
        lag_sum=_seconds(said["lag_sum"]),
        lag=None if lag_ms is None else _seconds(lag_ms) / 1e3,
        arriving=_count(said["arriving"]),
        directories=_count(said["directories"]),
        unwatched=_count(said["unwatched"]),
        reconciles={str(cause): _count(number) for cause, number in said["reconciles"].items()},
        undone=_count(said["undone"]),
        conflicts={str(name): str(what) for name, what in said["conflicts"].items()},
        conflicts_count=_count(said["conflicts_count"]),
        skipped={str(name): str(why) for name, why in said["skipped"].items()},
        skipped_count=_count(said["skipped_count"]),
    )


def _seconds(given: str | float) -> float:
    """Return what is some seconds, or milliseconds, for whoever calculates with it."""
    seconds = float(given)
    if not 0 <= seconds <= _SECONDS_MAX:  # which NaN is not
        raise ValueError("a time is none")
    return seconds


def _count(given: str | float) -> int:
    count = int(given)
    if not 0 <= count <= _COUNT_MAX:
        raise ValueError("a number is none of anything")
    return count


def _change(said: Mapping[str, Any]) -> Change:
    size_ = said["size"]
    return Change(
        at=_seconds(said["at"]),
        operation=str(said["operation"]),
        name=str(said["name"]),
        new=str(said["new"]),
        size=None if size_ is None else _count(size_),
    )
