"""Runs somebody's command when something has changed, and tells it what.

The command reads the names from its standard input, each with a zero byte behind it. One runs at a
time, and what changes meanwhile is told to the next, each name once. When there is more than is
remembered nothing is read: everything may have changed.

Failure model. A thread waits for the command, so that nothing else does, however long it takes.
How it ends is its own affair: a failure is logged, and the names are not told again. What runs ends
with the service. What a service that has ended did not tell any more is told by nobody.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from threading import Condition, Lock, Thread

from sync.core.changes import (
    Arrive,
    Delete,
    Done,
    MovedFile,
    Removed,
    Rename,
    Set,
    Written,
)
from sync.report.figures import counted

log = logging.getLogger(__name__)

_NAMES_MAX = 100_000  # names remembered, some 10 MB
_ENDS = 0.3  # seconds that a command has to end with the service, before it is killed
_AGAIN = 60.0  # seconds until a failure is logged again that was logged before
_SHELL = "/bin/sh"


class Hook:
    """A command, and the names that it is to be told."""

    def __init__(
        self, command: str, environ: Mapping[str, str], names_max: int = _NAMES_MAX
    ) -> None:
        """Run `command` by the shell, with an environment, and tell it at most so many names."""
        self._command = command
        self._environ = environ
        self._names_max = names_max
        self._names: dict[bytes, None] = {}
        self._is_all = False  # whether more has changed than is remembered
        self._ends = False
        self._has_news = Condition()
        self._starts = Lock()
        self._process = 0  # the number of the one that runs, and of its group
        self._thread: Thread | None = None
        self._said = ""
        self._said_at = 0.0

    def changed(self, done: Sequence[Done]) -> None:
        """Have the command run, now or later, for what was carried out."""
        names = dict.fromkeys(_names(done))
        if not names:
            return
        with self._has_news:
            if not self._is_all:
                self._names |= names
            if len(self._names) > self._names_max:
                self._names, self._is_all = {}, True
            self._has_news.notify()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="SYNC_ON_CHANGE", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End what runs, soon, and run nothing any more."""
        with self._has_news:
            self._ends = True
            self._has_news.notify()
        if self._thread is None:
            return
        with self._starts:
            process = self._process  # it is not reaped any more
        if process:
            with suppress(PermissionError):  # all of it runs as others by now
                os.killpg(process, signal.SIGTERM)
                time.sleep(_ENDS)  # the shell may end at once, and what it has started not
                os.killpg(process, signal.SIGKILL)
        self._thread.join(_ENDS)
        if process:
            os.waitpid(process, os.WNOHANG)

    def _run(self) -> None:
        while True:
            with self._has_news:
                self._has_news.wait_for(lambda: self._ends or self._names or self._is_all)
                if self._ends:
                    return
                names, self._names, self._is_all = self._names, {}, False
            try:
                self._say(self._tell(names), len(names))
            except OSError as error:
                self._say(f"cannot be run: {error}", len(names))

    def _tell(self, names: Mapping[bytes, None]) -> str:
        """Run the command for names, and wait for it; return words for how it failed, if it did."""
        with closing(_Input(names)) as given, self._starts:
            if self._ends:
                return ""
            self._process = process = os.posix_spawn(
                _SHELL,
                ["sh", "-c", self._command],
                self._environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, given.fd, 0), *_closings()],
                setpgroup=0,  # it ends with all that it starts
                setsigdef=_ignored(),
                setsigmask=(),
            )
        # Until it is reaped no other group gets its number.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        with self._starts:
            if self._ends:
                return ""
            self._process = 0
            _, status = os.waitpid(process, 0)
        return _failure(status)

    def _say(self, failure: str, count: int) -> None:
        now = time.monotonic()
        if failure and (failure != self._said or now >= self._said_at + _AGAIN):
            self._said_at = now
            what = counted(count, "name", "names") if count else "more names than are remembered"
            log.error(
                "SYNC_ON_CHANGE %(reason)s; it was told of %(_what)s",
                {"event": "hook_failed", "reason": failure, "_what": what, "names": count or None},
            )
        self._said = failure


class _Input:
    """What a command reads: a file, which takes all of it whoever reads it, or nobody."""

    def __init__(self, names: Mapping[bytes, None]) -> None:
        self.fd = os.memfd_create("names")
        with open(self.fd, "wb", closefd=False) as file:
            file.writelines(name + b"\0" for name in names)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.fd)


def _names(done: Sequence[Done]) -> Iterator[bytes]:
    """Yield the names of files that were changed, or their keys; not those of the service's own."""
    for each in done:
        match each:
            case Set() | Arrive() | Delete() | Written() | Removed():
                yield each.name
            case Rename() | MovedFile():
                yield from (name for name in (each.old, each.new) if not name.startswith(b"/"))


def _closings() -> list[tuple[int, int]]:
    """Return what closes all that a command would inherit but for its input and its outputs."""
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    closings = []
    for fd in found:
        with suppress(OSError):  # that of the list itself is closed by now
            if fd > 2 and os.get_inheritable(fd):  # noqa: PLR2004  # standard error
                closings.append((os.POSIX_SPAWN_CLOSE, fd))
    return closings


def _ignored() -> list[int]:
    """Return the signals that this process ignores; no command expects them to be.

    Python ignores some for itself, and the service one more.
    """
    return [
        number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN
    ]


def _failure(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"
    return f"ended with status {code}" if code else ""
