"""The service: makes Redis equal to the directory, then follows what happens in it.

Failure model. There is one way to be right again after anything: connect, make Redis equal to the
whole directory (reconcile), follow. Redis away or refusing, and events lost, lead back to its
start; nothing is remembered from before. The watch is older than the first look at the directory,
so what happens during a reconcile is followed after it.
"""

import logging
import time
from collections.abc import Sequence
from typing import NoReturn

from sync.changes import Command, Delete, Rename, Set, shown
from sync.errors import EventsLostError, RedisAwayError
from sync.files import Directory
from sync.heartbeat import LIVE, Heartbeat
from sync.log import LINES_MAX
from sync.mirror import Mirror
from sync.plan import Pending
from sync.target import Target
from sync.watch import Watch

log = logging.getLogger(__name__)

_BEAT = 1.0  # seconds between two signs of life
_PATIENCE = 0.5  # seconds that a file may stay open before it is mirrored all the same
_BACKOFF_FIRST, _BACKOFF_MAX = 0.05, 1.0  # seconds between two tries to reach Redis


class Service:
    """Mirrors one directory to one Redis server until an exception ends it."""

    def __init__(
        self,
        directory: Directory,
        watch: Watch,
        target: Target,
        mirror: Mirror,
        heartbeat: Heartbeat,
    ) -> None:
        """Keep `target` equal to `directory`, which is under `watch`, by way of `mirror`."""
        self._directory = directory
        self._watch = watch
        self._target = target
        self._mirror = mirror
        self._heartbeat = heartbeat
        self._next_beat = 0.0

    def run(self) -> NoReturn:
        """Mirror for ever. Raises DirectoryGoneError when there is nothing left to mirror."""
        cause = "start"
        pause = _BACKOFF_FIRST
        said = ""
        while True:
            try:
                self._target.connect()
                self._reconcile(cause)
                cause, pause, said = "Redis was away", _BACKOFF_FIRST, ""
                self._follow()
            except EventsLostError as error:
                log.warning("%s: looking at the whole directory", error)
                cause = "events were lost"
            except RedisAwayError as error:
                if str(error) != said:
                    said = str(error)
                    # At the start Redis may be starting too; later something is wrong.
                    level = logging.WARNING if cause == "start" else logging.ERROR
                    log.log(level, "waiting for Redis at %s: %s", self._target, error)
                self._heartbeat.beat(f"waiting for Redis: {error}")
                time.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX)

    def _reconcile(self, cause: str) -> None:
        began = time.monotonic()
        self._watch.discard()  # what happened until now is seen by looking at the directory
        self._next_beat = 0.0
        files = removed = 0
        for suspects in (self._directory.names(), self._mirror.stale()):
            for done in self._mirror.examine(suspects):
                files += sum(isinstance(command, Set) for command in done)
                removed += sum(isinstance(command, Delete) for command in done)
                self._beat_if_due(f"reconciling, {files} files so far")
        log.info(
            "Redis at %s equals %s: %d files, %d stale keys removed, %.0f ms (%s)",
            self._target,
            self._directory.path,
            files,
            removed,
            (time.monotonic() - began) * 1e3,
            cause,
        )

    def _follow(self) -> NoReturn:
        pending = Pending(_PATIENCE)
        self._next_beat = 0.0
        while True:
            self._beat_if_due(LIVE)
            wake = self._next_beat if pending.due is None else min(self._next_beat, pending.due)
            if self._watch.wait(wake - time.monotonic()):
                pending.add(self._watch.read(), time.monotonic())
            began = time.monotonic()
            for done in self._mirror.follow(pending.take(began)):
                _report(done, time.monotonic() - began)
                self._beat_if_due(LIVE)

    def _beat_if_due(self, state: str) -> None:
        if time.monotonic() >= self._next_beat:
            self._directory.check()
            self._target.ping()  # when idle, the only way to notice that Redis is away
            self._heartbeat.beat(state)
            self._next_beat = time.monotonic() + _BEAT


def _report(done: Sequence[Command], seconds: float) -> None:
    if len(done) > LINES_MAX:
        size = sum(len(command.content) for command in done if isinstance(command, Set))
        log.info("%d changes (%d B, %.1f ms)", len(done), size, seconds * 1e3)
        return
    for command in done:
        match command:
            case Set(name, content):
                log.info("SET %s (%d B, %.1f ms)", shown(name), len(content), seconds * 1e3)
            case Delete(name):
                log.info("DEL %s", shown(name))
            case Rename(old, new):
                log.info("RENAME %s -> %s", shown(old), shown(new))
