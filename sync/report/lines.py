"""What the log says of the work: a line a change while changes are few, else one line a second."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sync.core.causes import ReconcileCause
from sync.core.changes import Done
from sync.report.figures import Bytes, Count, Seconds
from sync.report.log import LINES_MAX
from sync.report.tally import WORDS, change, summed

_WINDOW = 1.0  # seconds; of what happens in it LINES_MAX changes get a line each
_PROGRESS = 2.0  # seconds without a word about a reconcile

# What the line of an operation says.
_LINES = {
    "set": "SET %(key)s (%(bytes)s, %(seconds)s)",
    "delete": "DEL %(key)s",
    "rename": "RENAME %(key)s -> %(new_key)s",
    "write_file": "%(key)s written (%(bytes)s, %(seconds)s)",
    "remove_file": "%(key)s removed",
    "rename_file": "%(key)s renamed to %(new_key)s",
}


@dataclass(slots=True)
class _Summary:
    """The changes that got no line: how many of each kind, how large, from when to when."""

    began: float
    ended: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    size: int = 0  # of the values that were set

    def fields(self) -> dict[str, object]:
        total = Count(self.operations.total(), "change", "changes")
        parts = [
            f"{number:,} {word}" + (f" ({Bytes(self.size)})" if operation == "set" else "")
            for operation, word in WORDS.items()
            if (number := self.operations[operation])
        ]
        return {
            "event": "changes",
            "changes": total,
            "seconds": Seconds(self.ended - self.began),
            "_parts": ", ".join(parts),
            **{operation: self.operations[operation] for operation in WORDS},
            "bytes": self.size,
        }


class Report:
    """Writes what was done to a log, not more than can be read."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `log`; `clock` returns seconds."""
        self._log = log
        self._clock = clock
        self._window_ends = 0.0
        self._lines_left = 0
        self._summary: _Summary | None = None
        self._progress_due: float | None = None

    @property
    def due(self) -> float | None:
        """When `tick` has something to write, on the clock; None while there is nothing."""
        return self._window_ends if self._summary else None

    def done(self, commands: Sequence[Done], seconds: float) -> None:
        """Write what was carried out just now, in one transaction that took `seconds`."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        now = self._clock()
        if now >= self._window_ends:
            self.flush()
            self._window_ends, self._lines_left = now + _WINDOW, LINES_MAX
        if self._summary is None and len(commands) <= self._lines_left:
            self._lines_left -= self._write(commands, seconds)
        else:
            self._sum_up(commands, now - seconds, now)

    def tick(self) -> None:
        """Write the summary that is due. Call it once a second, or when `due` says."""
        if self._summary and self._clock() >= self._window_ends:
            self.flush()

    def flush(self) -> None:
        """Write the summary, due or not."""
        if self._summary:
            self._log.info("%(changes)s in %(seconds)s: %(_parts)s", self._summary.fields())
            self._summary = None

    def begin(self) -> None:
        """Take note that a reconcile begins."""
        self.flush()
        self._progress_due = self._clock() + _PROGRESS

    def progress(self, cause: ReconcileCause, seen: int, sets: int, deletes: int) -> None:
        """Write, when it is time, how far the reconcile is that began last.

        Of `seen` names so far `sets` were transferred, and `deletes` stale keys were removed.
        """
        if self._progress_due is None:
            self.begin()
        elif self._clock() >= self._progress_due:
            self._progress_due = self._clock() + _PROGRESS
            self._log.info(
                "reconciling: %(files)s seen, %(transferred)s transferred, %(removed)s removed so "
                "far (%(_cause)s)",
                {
                    "event": "reconciling",
                    "files": Count(seen, "file", "files"),
                    "transferred": Count(sets),
                    "removed": Count(deletes, "stale key", "stale keys"),
                    "cause": cause.slug,
                    "_cause": cause,
                },
            )

    def reconciled(  # noqa: PLR0913, PLR0917  # each is a word of the line
        self,
        target: str,
        root: Path,
        cause: ReconcileCause,
        files: int,
        sets: int,
        deletes: int,
        seconds: float,
    ) -> None:
        """Write that a reconcile has ended after `seconds`, and all is equal."""
        self.flush()
        self._progress_due = None
        self._log.info(
            "Redis at %(server)s equals %(root)s: %(files)s, %(transferred)s transferred, "
            "%(removed)s removed, %(seconds)s (%(_cause)s)",
            {
                "event": "reconciled",
                "server": target,
                "root": root,
                "files": Count(files, "file", "files"),
                "transferred": Count(sets),
                "removed": Count(deletes, "stale key", "stale keys"),
                "seconds": Seconds(seconds),
                "cause": cause.slug,
                "_cause": cause,
            },
        )

    def _write(self, commands: Sequence[Done], seconds: float) -> int:
        """Write a line for each command that is worth one; return how many."""
        lines = 0
        for command in commands:
            if done := change(command):
                size = None if done.size is None else Bytes(done.size)
                optional = {"new_key": done.new or None, "bytes": size}
                fields = {
                    "event": done.operation,
                    "key": done.name,
                    **{name: value for name, value in optional.items() if value is not None},
                    "seconds": Seconds(seconds),
                }
                self._log.info(_LINES[done.operation], fields)
                lines += 1
        return lines

    def _sum_up(self, commands: Sequence[Done], began: float, ended: float) -> None:
        operations, was_set, _ = summed(commands)
        if not operations:
            return
        if self._summary is None:
            self._summary = _Summary(began)
        self._summary.ended = ended
        self._summary.operations.update(operations)
        self._summary.size += was_set
