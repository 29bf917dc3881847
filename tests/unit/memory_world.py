"""A world in memory: the service between a disk and a Redis, and a script of what others do.

The one place in which the service is put together of its parts, as `sync.cli` does.
"""

import gc
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NoReturn, TypeAlias

from pyinotify import IN_CREATE, IN_DELETE
from unit.memory import NO_LOG, Clock, Disk, Events, Server, Turns, in_memory
from unit.memory_redis import EPOCH, MANIFEST, NAMES, UPLOAD, VALUE_MAX, Pool

from sync.core.causes import ReconcileCause
from sync.core.changes import place_of
from sync.core.decision import Mode
from sync.core.errors import RedisAwayError
from sync.core.exclude import COOKIE, Excluded
from sync.core.manifest import Entries
from sync.core.schedule import Rescan
from sync.disk.files import Directory
from sync.redis.notes import Notes
from sync.redis.target import Target
from sync.redis.waits import Waits
from sync.report.board import Board
from sync.report.lines import Report
from sync.report.status import StatusFile
from sync.service.lacking import Lacking
from sync.service.mirror import Mirror
from sync.service.news import News
from sync.service.session import Session
from sync.service.skipped import Skipped
from sync.service.standing import Standing
from sync.service.streams import Streams
from sync.service.waiters import Waiters

PAUSE = 0.05  # seconds before the service connects again
REST = 8.0  # seconds in which nothing happens, and after which the service has nothing to do
EXCLUDED = Excluded(["*~"])
APPENDED = b"?"  # what no file has in it
FOREIGN = {b"foreign": b"somebody else's"}


@dataclass(frozen=True)
class Go:
    """The service goes on for so many steps, or, if that is None, until it has nothing to do."""

    steps: int | None = None


class Killed(BaseException):
    """The service is killed with SIGKILL."""


class AtRest(BaseException):
    """The service has nothing to do any more."""


class World:
    """A disk, a Redis, and the service between them.

    Attributes:
        torn: the keys and values that Redis was given although no reader should have seen them.
        restless: the keys that it was given when nothing had happened for long.
        robbed: the keys that the service removed although their files were there all the time.
        early: what Redis held when somebody who waits was told that all is there, by key, and what
            it should have held.
        answered: how many were told so.

    """

    def __init__(
        self,
        rescan: float = 0,
        *,
        has_leases: bool = True,
        rest: float = REST,
        is_tree: bool = False,
    ) -> None:
        """Let the service look at all files `rescan` seconds after it last did, or never if 0.

        It mirrors what is below directories, too, if the directory is a tree. When a script is at
        its end, the service has nothing to do in the last of `rest` seconds.
        """
        self.clock = Clock()
        self._rescan = rescan
        self._is_tree = is_tree
        self.rest = rest
        self.turns = Turns()
        self.disk = Disk(self.clock, has_leases=has_leases)
        self.server = Server(dict(FOREIGN), now=lambda: self.clock.seconds)
        self.server.on_give = self._see_given
        self.server.on_delete = self._see_deleted
        self.server.on_push = self._see_answered
        self.foreign = FOREIGN
        self.events = Events(self.disk, self.turns, self.clock)
        self.torn: list[tuple[bytes, bytes]] = []
        self.restless: list[bytes] = []
        self.robbed: list[bytes] = []
        self.early: list[tuple[bytes, bytes | None, set[bytes | None]]] = []
        self.answered = 0
        self._tokens = count()
        self._awaited: dict[bytes, dict[bytes, set[bytes | None]]] = {}
        self._fit: dict[bytes, int] = {}  # names of files that can be keys, and since which step
        self._written: dict[bytes, int] = {}  # keys, and the step in which the service wrote them
        self._pool = Pool(self.server, self.turns)
        self._target: Target
        self._skipped: Skipped
        self._board: Board
        self._out_of_memory = False
        self._script: deque[Step] = deque()
        self._left: int | None = 0
        self._ends: float | None = None

    # What a script can have happen, beside what can be done to the disk.

    def kill(self) -> None:
        raise Killed

    def stall(self, seconds: float = 1.0) -> None:
        """Freeze the service for a while, wherever it is."""
        self.clock.sleep(seconds)

    def lag(self, most: int) -> None:
        """Let at most so many events come out of one read."""
        self.disk.inotify.most = most

    def pace(self, steps: int) -> None:
        """Let the main loop have so many steps while a large file's stream has one."""
        self.turns.pace = steps

    def wait(self) -> None:
        """Have somebody wait until all that is finished by now is in Redis."""
        token = b"%016x" % next(self._tokens)
        self._awaited[token] = {
            name: set()
            for name in {*self.disk.names(), *self.server.values()} - FOREIGN.keys()
            if not self.disk.is_written(name)
        }
        for mask in (IN_CREATE, IN_DELETE):
            self.disk.inotify.tell(self.disk.root, mask, COOKIE % token)

    def lose_connection(self) -> None:
        self._pool.lose_all()

    def flush(self) -> None:
        """FLUSHALL."""
        self.server.flush()
        self.foreign = {}

    def delete_key(self, name: bytes) -> None:
        """DEL, by somebody else, or an eviction."""
        self.server.remove(name)

    def append_to_key(self, name: bytes) -> None:
        """APPEND, by somebody else, to the key of a file."""
        if name in self.server.manifest():
            self.server.append(name, APPENDED)

    def delete_own(self, key: bytes) -> None:
        """Remove one of the service's own keys.

        Two of them have the names of all that is mirrored in a directory. When both are gone,
        nobody knows which keys are those of files that vanished: that is left out here.
        """
        keys = self.server.keys
        if (
            key in {EPOCH, UPLOAD}
            or keys.get(key, {}).keys() <= keys.get(_other_record(key), {}).keys()
        ):
            self.server.remove(key)

    def lose_record(self, key: bytes) -> None:
        """Remove one of the service's own keys, whatever is lost by that."""
        self.server.remove(key)

    def expect(self, name: bytes, value: bytes | None) -> None:
        """Make sure that a reader sees this by now."""
        assert self.server.keys.get(name) == value

    def refuse(self, name: bytes) -> None:
        """Take a key's name out of what the service's user may use."""
        self.server.refused.add(name)

    def allow(self) -> None:
        self.server.refused.clear()

    def limit_memory(self, size: int | None) -> None:
        """CONFIG SET maxmemory."""
        self.server.memory_max = size

    # What runs it.

    def play(self, script: Sequence["Step"]) -> None:
        """Run the service while what the script says is done, and until it is at rest."""
        self._script.extend(script)
        self._ends = None
        self._start()
        self.turns.others = self._others
        with in_memory(self.disk, self.turns, self.clock):
            while (end := self._run()) is not AtRest:
                self._close_files()
                if end is Killed:
                    self._without_service()
                    self._start()
                else:
                    self._wait_for_redis()
            self._close_files()

    def _wait_for_redis(self) -> None:
        """Do what the service does between two sessions: nothing, while others go on."""
        self.clock.sleep(PAUSE)
        try:
            self.turns.take(idle=True)
        except Killed:
            self._without_service()
            self._start()
        except AtRest:
            return  # there is more to come

    def _run(self) -> type[BaseException]:
        """Run the service until it ends; say of what."""
        try:
            self._session()
        except RedisAwayError as error:
            self._out_of_memory = error.cause is ReconcileCause.REDIS_OUT_OF_MEMORY
            return type(error)
        except (Killed, AtRest) as error:
            self._pool.lose_all()
            self.turns.end_jobs()
            return type(error)

    def _close_files(self) -> None:
        """Do what the kernel does when a process is gone, and Python when nobody has an object."""
        if self.disk.open:
            gc.collect()  # closes what was not read to its end
        if self.turns.has_jobs:
            return  # one has a file open
        for number in tuple(self.disk.open):
            self.disk.close(number)

    def _start(self) -> None:
        """Begin with what a new process of the service knows: nothing."""
        self._target = Target(self._pool.make_connection, Entries(trimmed=False))
        self._skipped = Skipped(NO_LOG)
        self._board = Board(StatusFile(None), self._target, "memory", self._skipped)
        self._out_of_memory = False

    def _without_service(self) -> None:
        """Do what the script has until the service is to go on."""
        while self._script and not isinstance(self._script[0], Go):
            step = self._script.popleft()
            if step != KILL:
                self._do(step)

    def _session(self) -> NoReturn:
        with closing(Directory(Path("/memory"), EXCLUDED, is_tree=self._is_tree)) as directory:
            self.events = Events(self.disk, self.turns, self.clock, self.events)
            if self._is_tree:
                self.events.follow(directory)
            news, streams = News(self.events), Streams(self.turns.spawn, self.events.wake)
            mirror = Mirror(
                directory,
                self._target,
                streams,
                news,
                self._skipped,
                sparing=self._out_of_memory,
            )
            session = Session(
                directory,
                self.events,
                news,
                self._target,
                mirror,
                Report(NO_LOG, lambda: self.clock.seconds),
                self._board,
                Rescan(self._rescan, 1),
                Standing(
                    directory, self._target, Notes(self._target), None, Mode.ONE_WAY_REPLICA, 1.0
                ),
                Waiters(
                    *(self.events, news, mirror, Waits(self._target)),
                    Lacking(directory, self.events, news.tells_of, self._skipped, ()),
                ),
            )
            session.run(ReconcileCause.START, stale_first=self._out_of_memory)

    def _others(self, idle: bool) -> None:
        """Do what is next in the script, if the service has gone on for long enough."""
        if self._left is None and not idle:
            return
        if self._left:
            self._left -= 1
            return
        self._left = 0
        while self._script:
            if self.disk.is_leased and _opens_to_write(self._script[0]):
                return  # until the lease is given back
            step = self._script.popleft()
            if isinstance(step, Go):
                self._left = step.steps
                return
            self._do(step)
        if self._ends is None:
            self._mend()
            self._ends = self.clock.seconds + self.rest
        elif self.clock.seconds >= self._ends and not self.turns.has_jobs:
            raise AtRest

    def _mend(self) -> None:
        """Have nothing stand in the way any more; and nobody closes any file."""
        self.disk.unlock_all()
        self.disk.mend()
        self.allow()
        self.limit_memory(None)
        self._see_fit()
        self.events.nap = self.rest  # nobody else does anything

    def _do(self, step: "Step") -> None:
        assert not isinstance(step, Go)
        method, arguments = step
        method(self.disk if _is_of_disk(step) else self, *arguments)
        self._see_fit()
        self._see_awaited()

    def _see_fit(self) -> None:
        fit = self._mirrored().keys()
        self._fit = {name: self._fit.get(name, self.turns.steps) for name in fit}

    def _see_awaited(self) -> None:
        """Take note of what each name has had since somebody waits for it."""
        mirrored = self._mirrored()
        for names in self._awaited.values():
            for name, values in names.items():
                values.add(mirrored.get(name))

    # What must never be.

    def _see_answered(self, key: bytes) -> None:
        """Take note that somebody who waits was told that all that was finished is there."""
        names = self._awaited.pop(key.rpartition(b"/")[2], {})
        self.answered += 1
        held = self.server.values()
        self.early += [
            (name, held.get(name), values)
            for name, values in names.items()
            if held.get(name) not in values
        ]

    def _see_given(self, key: bytes, value: bytes) -> None:
        if self._ends is not None and self.clock.seconds > self._ends - self.rest / 4:
            self.restless.append(key)
        self._written[key] = self.turns.steps
        is_appended_to = APPENDED in value  # by others, before it was moved
        if not (is_appended_to or self.disk.is_whole(key, value)):
            self.torn.append((key, value))

    def _see_deleted(self, key: bytes) -> None:
        """Take note of a key that goes though its file was there before the key was."""
        if key in self._fit and self._fit[key] < self._written.get(key, 0):
            self.robbed.append(key)

    # What is to be seen in the end.

    def check_records(self) -> None:
        """Make sure that both records lead to all that is mirrored."""
        names = self.expected().keys() - self.foreign.keys()
        assert self.server.manifest().keys() == names
        assert self.server.names() == names
        places = set(filter(None, map(place_of, names)))
        for place in tuple(places):
            places |= {place[: at + 1] for at, byte in enumerate(place) if byte == ord("/")}
        for marks in self.server.marks():
            assert places <= marks, "a record cannot be found"

    def check_marks(self) -> None:
        """Make sure that no mark leads to where no directory is."""
        for marks in self.server.marks():
            assert marks <= self.disk.places()

    def _mirrored(self) -> dict[bytes, bytes]:
        """Return the content of each file that is to be a key."""
        files = {name: inode.content for name, inode in self.disk.files().items()}
        return {
            name: content
            for name, content in files.items()
            if len(content) <= VALUE_MAX
            and name not in EXCLUDED
            and (self._is_tree or b"/" not in name)
        }

    def expected(self) -> dict[bytes, bytes]:
        return self._mirrored() | self.foreign

    def sure(self) -> set[bytes]:
        """Return the names of which Redis says that it has the content of the file as it is."""
        entries = self._target.format
        manifest = self.server.manifest()
        return {
            name
            for name, inode in self.disk.files().items()
            if manifest.get(name) == entries.encode(inode.signature)
        }


def _other_record(key: bytes) -> bytes:
    """Return the key of the other record of the same directory."""
    one, other = (MANIFEST, NAMES) if key.startswith(MANIFEST) else (NAMES, MANIFEST)
    return key.replace(one, other, 1)


Operation: TypeAlias = tuple[Callable[..., None], tuple[object, ...]]
Step: TypeAlias = Operation | Go
Choice: TypeAlias = tuple[Callable[..., None], list[list[object]]]
KILL: Step = (World.kill, ())


# Those that have files open already do not matter: there is no lease for a file that is open so.
_OPENING = {
    *(Disk.write, Disk.write_back, Disk.write_elsewhere, Disk.rewrite, Disk.replace),
    *(Disk.begin, Disk.truncate, Disk.lock, Disk.lock_and_write),
}


def _opens_to_write(step: Step) -> bool:
    return not isinstance(step, Go) and step[0] in _OPENING


def _is_of_disk(step: Step) -> bool:
    return not isinstance(step, Go) and step[0].__qualname__.startswith("Disk.")
