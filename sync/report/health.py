"""The health: whether a service is well, by what it has said last and how long ago, in words.

Nothing else is asked, neither the service nor Redis: this is what a health check runs every few
seconds, and it may not hang when they do.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sync.report.figures import counted, duration, size
from sync.report.status import (
    HELD,
    LIVE,
    NOTIFICATIONS,
    RESCANS,
    STANDBY,
    STARTING,
    WAITING,
    Said,
    Status,
    figures,
    read,
)

FRESH = 5.0  # seconds; the loop writes every second


@dataclass(frozen=True, slots=True)
class Health:
    """The judgement on a service: `problem` is None when it is well.

    `status` is what it said last, and `at` when, on CLOCK_MONOTONIC; None when that is not known.
    """

    problem: str | None
    status: Status | None = None
    at: float | None = None

    def __str__(self) -> str:
        """Write it for people: first whether the service is well, then its figures."""
        return "\n".join([self.headline, *self._lines()])

    @property
    def headline(self) -> str:
        """Whether the service is well, in words."""
        if self.problem:
            return self.problem
        if self.status and self.status.state == STANDBY:
            return f"standby: another mdvp-sync works with the same keys: {self.status.detail}"
        but_for = " and ".join(self._but_for())
        return "live: Redis equals the directory" + (f", but for {but_for}" if but_for else "")

    def _but_for(self) -> Iterator[str]:
        status = self.status or Status()
        if status.arriving:
            yield f"{counted(status.arriving, 'large file', 'large files')} still on the way"
        if status.conflicts_count:
            yield f"{counted(status.conflicts_count, 'name', 'names')} in conflict"

    def json(self) -> str:
        """Write it for programs: an object that always has the same keys.

        They are `healthy`, `problem` (null when there is none) and those of `Status`, but for
        `lag_ms`, which is in milliseconds. Of a service of which nothing is known these are null.
        """
        known = figures(self.status or Status())
        if self.status is None:
            known = dict.fromkeys(known)
        said = {"healthy": self.problem is None, "problem": self.problem} | known
        return json.dumps(said, indent=2)

    def _lines(self) -> Iterator[str]:
        status = self.status
        if status is None or status.state == STARTING:
            return
        if status.state == STANDBY:
            yield f"mode        {status.mode}"
            return
        lag = "none yet" if status.lag is None else f"{duration(status.lag)} (the last change)"
        causes = (f"{cause}: {number:,}" for cause, number in status.reconciles.items())
        yield f"mode        {status.mode}"
        if status.heard_by == NOTIFICATIONS:
            yield "listens to  keyspace notifications: Redis has no CLIENT TRACKING"
        if status.heard_by == RESCANS:
            yield "listens to  nothing: only rescans find what others change in Redis"
        yield f"files       {status.files:,} ({size(status.bytes)})"
        yield f"commands    {status.commands:,} sent to Redis"
        yield f"lag         {lag}"
        yield f"reconciles  {', '.join(causes) or 'none yet'}"
        if status.unwatched:
            directories = counted(status.directories, "directory", "directories")
            way_out = "raise fs.inotify.max_user_watches, or see the log"
            yield f"unwatched   {status.unwatched:,} of {directories}, but for rescans: {way_out}"
        if status.undone:
            changes = counted(status.undone, "change", "changes")
            yield f"undone      {changes} that others made to keys of files"
        if status.conflicts_count:
            way_out = "`mdvp-sync resolve NAME --take disk|redis` ends one"
            yield f"conflicts   {status.conflicts_count:,}: {way_out}"
            yield from _named(status.conflicts, status.conflicts_count)
        yield f"skipped     {status.skipped_count:,}"
        yield from _named(status.skipped, status.skipped_count)


def _named(names: Mapping[str, str], count: int) -> Iterator[str]:
    for name, why in names.items():
        yield f"  {name} {why}"
    if more := count - len(names):
        yield f"  and {more:,} more"


def health(path: Path, now: float) -> Health:
    """Judge the service that writes its status to `path`.

    `now` is in seconds on CLOCK_MONOTONIC.
    """
    try:
        said = read(path)
    except FileNotFoundError:
        return Health("the sync service has not started")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return Health(f"the status at {path} cannot be read: {why}")
    return judge(said, now)


def judge(said: Said, now: float) -> Health:
    """Judge the service that has said this; `now` is in seconds on CLOCK_MONOTONIC."""
    return Health(_problem(said, now), said.status, said.at)


def _problem(said: Said, now: float) -> str | None:
    """Say what is wrong with a service that has said this; None if it is well."""
    status, at, pid = said
    doing = _doing(status)
    if not 0 <= now - at <= FRESH:  # below 0: it is from before the machine started anew
        why = "it or Redis hangs" if _is_running(pid) else "it has ended"
        return (
            f"no sign of life of the sync service (process {pid}) for over {FRESH:.0f} s: {why}; "
            f"its last was: {doing}"
        )
    if status.state == HELD:
        return f"the sync service holds, and deletes nothing: {status.detail}"
    if status.state not in {LIVE, STANDBY}:
        return f"the sync service is not in step: {doing}"
    return None


def _doing(status: Status) -> str:
    if not status.detail:
        return status.state
    return f"{status.state}{' for' if status.state == WAITING else ':'} {status.detail}"


def _is_running(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()
