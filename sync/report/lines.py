"""What the log says of the work: a line a change while changes are few, else one line a second."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sync.core.changes import (
    Arrive,
    Confirm,
    Delete,
    Done,
    Keep,
    MovedFile,
    Record,
    Removed,
    Rename,
    Set,
    Written,
    shown,
)
from sync.report.figures import counted, duration, size
from sync.report.log import LINES_MAX

_WINDOW = 1.0  # seconds; of what happens in it LINES_MAX changes get a line each
_PROGRESS = 2.0  # seconds without a word about a reconcile

_KINDS: dict[type[Done], str] = {  # in the summary's order
    Set: "SET",
    Arrive: "SET",
    Delete: "DEL",
    Rename: "RENAME",
    Written: "file written",
    Removed: "file removed",
    MovedFile: "file renamed",
}


@dataclass(slots=True)
class _Summary:
    """The changes that got no line: how many of each kind, how large, from when to when."""

    began: float
    ended: float = 0.0
    kinds: Counter[type[Done]] = field(default_factory=Counter)
    size: int = 0

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for kind, word in _KINDS.items():
            counts[word] = counts.get(word, 0) + self.kinds[kind]
        parts = [
            f"{number:,} {word}" + (f" ({size(self.size)})" if word == "SET" else "")
            for word, number in counts.items()
            if number
        ]
        total = counted(sum(counts.values()), "change", "changes")
        return f"{total} in {duration(self.ended - self.began)}: {', '.join(parts)}"


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
            self._log.info("%s", self._summary)
            self._summary = None

    def begin(self) -> None:
        """Take note that a reconcile begins."""
        self.flush()
        self._progress_due = self._clock() + _PROGRESS

    def progress(self, cause: str, seen: int, sets: int, deletes: int) -> None:
        """Write, when it is time, how far the reconcile is that began last.

        Of `seen` names so far `sets` were transferred, and `deletes` stale keys were removed.
        """
        if self._progress_due is None:
            self.begin()
        elif self._clock() >= self._progress_due:
            self._progress_due = self._clock() + _PROGRESS
            self._log.info(
                "reconciling: %s seen, %s transferred, %s removed so far (%s)",
                counted(seen, "file", "files"),
                f"{sets:,}",
                counted(deletes, "stale key", "stale keys"),
                cause,
            )

    def reconciled(  # noqa: PLR0913, PLR0917  # each is a word of the line
        self,
        target: str,
        root: Path,
        cause: str,
        files: int,
        sets: int,
        deletes: int,
        seconds: float,
    ) -> None:
        """Write that a reconcile has ended after `seconds`, and all is equal."""
        self.flush()
        self._progress_due = None
        self._log.info(
            "Redis at %s equals %s: %s, %s transferred, %s removed, %s (%s)",
            target,
            root,
            counted(files, "file", "files"),
            f"{sets:,}",
            counted(deletes, "stale key", "stale keys"),
            duration(seconds),
            cause,
        )

    def _write(self, commands: Sequence[Done], seconds: float) -> int:
        """Write a line for each command that is worth one; return how many."""
        lines = 0
        for command in commands:
            match command:
                case Set(name, content):
                    self._write_set(name, len(content), seconds)
                case Arrive(name, signature):
                    self._write_set(name, signature.size, seconds)
                case Delete(name):
                    self._log.info("DEL %s", shown(name))
                case Rename(old, new):
                    self._log.info("RENAME %s -> %s", shown(old), shown(new))
                case Written(name, bytes_):
                    self._log.info(
                        "%s written (%s, %s)", shown(name), size(bytes_), duration(seconds)
                    )
                case Removed(name):
                    self._log.info("%s removed", shown(name))
                case MovedFile(old, new):
                    self._log.info("%s renamed to %s", shown(old), shown(new))
                case Confirm() | Record() | Keep():
                    continue
            lines += 1
        return lines

    def _write_set(self, name: bytes, bytes_: int, seconds: float) -> None:
        self._log.info("SET %s (%s, %s)", shown(name), size(bytes_), duration(seconds))

    def _sum_up(self, commands: Sequence[Done], began: float, ended: float) -> None:
        # A burst has some 100,000 commands a second: only what C does with all of them at once.
        kinds = Counter(map(type, commands))
        for silent in (Confirm, Record, Keep):
            del kinds[silent]
        if not kinds:
            return
        if self._summary is None:
            self._summary = _Summary(began)
        self._summary.ended = ended
        self._summary.kinds += kinds
        self._summary.size += sum([len(each.content) for each in commands if type(each) is Set])
        if kinds[Arrive]:
            self._summary.size += sum(_arrived(commands))


def _arrived(commands: Sequence[Done]) -> Iterator[int]:
    return (each.signature.size for each in commands if isinstance(each, Arrive))
