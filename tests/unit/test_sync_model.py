"""The service between a disk and a Redis in memory, under any sequence of operations at any lag.

What runs is the service's own session with all that it is made of, on the system calls, the Redis
and the clock of `unit.memory`. A script says what others do, and for how many steps the service
goes on before they do more.
"""

import gc
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.memory import (
    NO_LOG,
    VALUE_MAX,
    Clock,
    Connection,
    Disk,
    Events,
    Server,
    Store,
    Turns,
    in_memory,
)

from sync.core.errors import RedisAwayError
from sync.core.exclude import Excluded
from sync.disk.files import Directory
from sync.report.lines import Report
from sync.report.status import StatusFile
from sync.service.mirror import Mirror
from sync.service.session import Board, Rescan, Session

EXAMPLES = 4 * int(os.environ.get("MDVP_TEST_EXAMPLES", "500"))

PAUSE = 0.05  # seconds before the service connects again
RARELY = 1000.0  # seconds; in a test there is no rescan but one that the service wants sooner
REST = 8.0  # seconds in which nothing happens, and after which the service has nothing to do
EXCLUDED = Excluded(["*~"])
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
    """A disk, a Redis, and the service between them."""

    def __init__(self, rescan: float = 0) -> None:
        """Let the service look at all files `rescan` seconds after it last did, or never if 0."""
        self.clock = Clock()
        self._rescan = rescan
        self.turns = Turns()
        self.disk = Disk(self.clock)
        self.server = Server(dict(FOREIGN))
        self.foreign = FOREIGN
        self.events = Events(self.disk, self.turns, self.clock)
        self._connection = Connection(self.server, self.turns)
        self._target: Store
        self._board: Board
        self._script: deque[Step] = deque()
        self._left: int | None = 0
        self._ends: float | None = None

    # What a script can have happen, beside what can be done to the disk.

    def kill(self) -> None:
        raise Killed

    def lose_connection(self) -> None:
        self._connection.lost = True

    def flush(self) -> None:
        """FLUSHALL."""
        self.server.keys.clear()
        self.foreign = {}

    def delete_key(self, name: bytes) -> None:
        """DEL, by somebody else."""
        self.server.keys.pop(name, None)

    def stall(self) -> None:
        """Keep the service waiting for so long that it has to look after everything again."""
        self.clock.sleep(1.0)

    def lag(self, most: int) -> None:
        """Let at most so many events come out of one read."""
        self.events.most = most

    # What runs it.

    def play(self, script: Sequence["Step"]) -> None:
        """Run the service while what the script says is done, and until it is at rest."""
        self._script.extend(script)
        self._ends = None
        self._start()
        self.turns.others = self._others
        with in_memory(self.disk, self.turns, self.clock):
            at_rest = False
            while not at_rest:
                at_rest = self._is_at_rest()
                if self.disk.open:
                    gc.collect()  # closes what was not read to its end
                self.disk.open.clear()

    def _is_at_rest(self) -> bool:
        """Run the service until it ends; say whether that was because it was at rest."""
        try:
            self._session()
        except RedisAwayError:
            self.clock.sleep(PAUSE)
        except Killed:
            self._without_service()
            self._start()
        except AtRest:
            return True
        return False

    def _start(self) -> None:
        """Begin with what a new process of the service knows: nothing."""
        self._target = Store(self._connection)
        self._board = Board(StatusFile(None), self._target)

    def _without_service(self) -> None:
        """Do what the script has until the service is to go on."""
        while self._script and not isinstance(self._script[0], Go):
            step = self._script.popleft()
            if step != KILL:
                self._do(step)

    def _session(self) -> None:
        with closing(Directory(Path("/memory"), EXCLUDED)) as directory:
            self.events = Events(self.disk, self.turns, self.clock)
            session = Session(
                directory,
                self.events,
                self._target,
                Mirror(directory, self._target, self._board.skipped),
                Report(NO_LOG, lambda: self.clock.seconds),
                self._board,
                Rescan(self._rescan, 1),
            )
            session.run("test", stale_first=False)

    def _others(self, idle: bool) -> None:
        """Do what is next in the script, if the service has gone on for long enough."""
        if self._left is None and not idle:
            return
        if self._left:
            self._left -= 1
            return
        self._left = 0
        while self._script:
            step = self._script.popleft()
            if isinstance(step, Go):
                self._left = step.steps
                return
            self._do(step)
        if self._ends is None:
            self.disk.unlock_all()  # and nobody closes any file
            self._ends = self.clock.seconds + REST
        elif self.clock.seconds >= self._ends:
            raise AtRest

    def _do(self, step: "Step") -> None:
        assert not isinstance(step, Go)
        method, arguments = step
        method(self.disk if method.__qualname__.startswith("Disk.") else self, *arguments)

    # What is to be seen in the end.

    def expected(self) -> dict[bytes, bytes]:
        files = {name: inode.content for name, inode in self.disk.files().items()}
        return {
            name: content
            for name, content in files.items()
            if len(content) <= VALUE_MAX and name not in EXCLUDED
        } | self.foreign

    def sure(self) -> set[bytes]:
        """Return the names of which Redis says that it has the content of the file as it is."""
        entries = self._target.format
        manifest = self.server.manifest()
        return {
            name
            for name, inode in self.disk.files().items()
            if manifest.get(name) == entries.encode(inode.signature)
        }


Operation: TypeAlias = tuple[Callable[..., None], tuple[object, ...]]
Step: TypeAlias = Operation | Go
Choice: TypeAlias = tuple[Callable[..., None], list[list[object]]]
KILL: Step = (World.kill, ())


def operations(*choices: Choice) -> list[Operation]:
    return [(method, arguments) for method, lists in choices for arguments in product(*lists)]


NAMES: list[object] = [b"a", b"b", b"c", b"x~"]  # few, so that operations meet
# Small ones, large ones, and one that is too large for Redis.
CONTENTS: list[object] = [b"", b"2", b"44", b"666", b"88888", b"too large"]
BOOLEANS: list[object] = [True, False]
GROUPS: list[list[Choice]] = [
    [(Disk.tick, []), (World.stall, [])],
    [(Disk.write, [NAMES, CONTENTS]), (Disk.begin, [NAMES, CONTENTS])],
    [(Disk.rewrite, [NAMES, BOOLEANS])],
    [(Disk.rewrite, [NAMES, BOOLEANS])],
    [(Disk.write_back, [NAMES, CONTENTS])],
    [(Disk.more, [CONTENTS]), (Disk.close_all, [])],
    [(Disk.lock, [NAMES, CONTENTS]), (Disk.lock_and_write, [NAMES, CONTENTS])],
    [(Disk.unlock_all, [])],
    [(Disk.link, [NAMES, NAMES])],
    [(Disk.symlink, [NAMES]), (Disk.remove, [NAMES])],
    [(Disk.rename, [NAMES, NAMES])],
    [(Disk.rename_in_halves, [NAMES, NAMES])],
    [(Disk.exchange, [NAMES, NAMES]), (Disk.swap, [NAMES, NAMES, NAMES])],
    [(Disk.replace, [NAMES, CONTENTS])],
    [(Disk.move_out, [NAMES]), (Disk.move_in, [NAMES])],
    [(World.kill, [])],
    [(Disk.overflow, []), (World.lose_connection, []), (World.flush, [])],
    [(World.lag, [[1, 2, 99]])],
]
# Two files that Redis holds, one of them from the same tick of the clock as what comes next.
MIRRORED: list[Step] = [(Disk.write, (b"b", b"44")), Go(), (Disk.write, (b"a", b"2")), Go()]


def steps() -> st.SearchStrategy[Step]:
    operation: list[st.SearchStrategy[Step]] = [
        st.sampled_from(operations(*group)) for group in GROUPS
    ]
    some = st.sampled_from([Go(steps) for steps in (1, 2, 3, 5, 8, 13, 21, 34)])
    go: list[st.SearchStrategy[Step]] = [some, some, some, some, st.just(Go()), st.just(Go())]
    # A turn of the service for every three operations.
    return st.one_of(*operation, *go)


def scripts() -> st.SearchStrategy[list[Step]]:
    # A list of lists has some 25 steps on average, and yet shrinks to none; a list would have 5.
    parts = st.lists(st.lists(steps(), max_size=10), max_size=10)
    return st.tuples(st.sampled_from([[], MIRRORED]), parts).map(
        lambda drawn: [step for each in (drawn[0], *drawn[1]) for step in each]
    )


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(scripts())
# Written to in the tick in which it was read, by a writer that keeps it open; when the service has
# had the time to confirm what it read, it is killed, before it looks again.
@example(
    [
        (Disk.write, (b"a", b"2")),
        *[Go()] * 6,
        (Disk.rewrite, (b"a", True)),
        Go(),
        (Disk.rewrite, (b"a", False)),
        *[Go()] * 4,
        (World.kill, ()),
    ]
)
# A late look at both halves of an exchange of files that are told apart by their inodes alone.
@example(
    [
        (Disk.write, (b"a", b"2")),
        (Disk.write, (b"b", b"3")),
        Go(),
        (World.lag, (1,)),
        (Disk.exchange, (b"a", b"b")),
    ]
)
# An exchange reports a rename over a file that is not gone. Redis holds nothing of the link.
@example(
    [
        (Disk.write, (b"a", b"2")),
        (Disk.symlink, (b"b",)),
        Go(),
        (Disk.write, (b"a", b"3")),
        (Disk.exchange, (b"b", b"a")),
    ]
)
# Written anew within one tick of the clock, and renamed before that is looked at.
@example(
    [
        (Disk.write, (b"a", b"2")),
        Go(),
        (Disk.rewrite, (b"a", False)),
        (Disk.rename, (b"a", b"b")),
    ]
)
# The file has its old name again, and other content with the same signature, when the first rename
# is looked at.
@example(
    [
        (Disk.write, (b"a", b"2")),
        Go(),
        (World.lag, (1,)),
        (Disk.rename, (b"a", b"b")),
        (Disk.rewrite, (b"b", True)),
        (Disk.rename, (b"b", b"a")),
    ]
)
def test_redis_ends_equal_to_the_disk_and_a_restart_has_nothing_to_do(script: list[Step]) -> None:
    # What was written through a name that was a file's for a moment only a look at all files finds.
    has_links = any(step[0] is Disk.link for step in script if not isinstance(step, Go))
    check(script, RARELY if has_links else 0)


def check(script: list[Step], rescan: float = 0) -> None:
    world = World(rescan)
    world.play(script)

    assert world.server.values() == world.expected()
    assert world.server.manifest().keys() == world.expected().keys() - world.foreign.keys()
    files = world.disk.files()
    unsure = world.server.manifest().keys() - world.sure()
    assert {name for name in unsure if not files[name].is_touched} == set()

    world.server.given.clear()
    world.play([])
    assert {name for name, _ in world.server.given} <= unsure
    assert world.server.values() == world.expected()


# From before the service does anything to after it has done everything.
ANYWHERE = [*map(Go, range(100)), Go()]


@pytest.mark.parametrize(
    ("old", "new"), [(b"44", b"55"), (b"6666", b"7777"), (b"88888", b"999"), (b"999", b"88888")]
)
def test_a_value_is_never_torn_by_a_write_wherever_the_service_is_in_its_work(
    old: bytes, new: bytes
) -> None:
    for steps in ANYWHERE:
        world = World()
        world.play([(Disk.write, (b"a", old)), steps, (Disk.tick, ()), (Disk.write, (b"a", new))])
        assert set(world.server.given) <= {(b"a", old), (b"a", new)}
        assert world.server.values() == {b"a": new, **FOREIGN}


def done(*operations: tuple[object, ...]) -> list[Step]:
    """Write operations as their names with their arguments."""
    methods = {**vars(Disk), **vars(World)}
    return [(methods[str(name)], tuple(arguments)) for name, *arguments in operations]


SMALL_FILE = done(("write", b"a", b"2"))
LARGE_FILE = done(("write", b"a", b"88888"))
THREE_FILES = done(*(("write", name, b"2") for name in (b"a", b"b", b"c")))
THREE_NAMES = [*THREE_FILES[:1], *done(("link", b"a", b"b"), ("link", b"a", b"c"))]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # In the tick in which it was read; then its event is lost.
        (SMALL_FILE, done(("rewrite", b"a", True), ("kill",))),
        (LARGE_FILE, done(("rewrite", b"a", True), ("kill",))),
        (SMALL_FILE, [*done(("rewrite", b"a", True), ("overflow",)), Go()]),
        (SMALL_FILE, done(("overflow",), ("rewrite", b"a", True), ("tick",))),
        # While it was renamed. The scan of the directory has passed its new name, or not.
        ([*THREE_FILES, Go(), KILL, *done(("write", b"c", b"44"))], done(("rename", b"c", b"a"))),
        ([*THREE_FILES, Go(), KILL, *done(("write", b"a", b"44"))], done(("rename", b"a", b"c"))),
        ([*THREE_FILES, Go(), KILL], done(("rename_in_halves", b"c", b"a"))),
        ([*THREE_FILES, Go()], done(("swap", b"a", b"b", b"d"), ("rename", b"a", b"c"))),
        ([*THREE_FILES, Go(), *done(("rename", b"a", b"d"))], done(("rename", b"d", b"a"))),
        ([*THREE_FILES, Go(), *done(("exchange", b"a", b"b"))], done(("exchange", b"a", b"b"))),
        # While a large file is on its way, something else happens to it, or to another.
        (LARGE_FILE, done(("replace", b"a", b"2"))),
        (LARGE_FILE, done(("remove", b"a"))),
        (LARGE_FILE, done(("rename", b"a", b"b"))),
        (LARGE_FILE, done(("tick",), ("write", b"a", b"666"))),
        (LARGE_FILE, done(("tick",), ("write", b"a", b"too large"))),
        (LARGE_FILE, done(("write", b"b", b"77777"))),
        ([*THREE_FILES, *done(("write", b"d", b"666"))], done(("write", b"c", b"44"))),
        # Its writer locks it, and is at work for some time.
        (SMALL_FILE, [*done(("lock", b"a", b"33")), Go(30), *done(("rename", b"a", b"b")), Go(30)]),
        (LARGE_FILE, [*done(("lock", b"a", b"99999")), *[Go()] * 3]),
        (SMALL_FILE, [*done(("lock_and_write", b"a", b"33")), *[Go()] * 5]),
        (LARGE_FILE, [*done(("lock_and_write", b"a", b"99999")), *[Go()] * 5]),
        (LARGE_FILE, [*done(("lock", b"a", b"99999")), Go(20), *done(("unlock_all",))]),
        # What has several names is written to through one of them, which goes.
        (THREE_NAMES, done(("write", b"b", b"44"))),
        ([*THREE_NAMES, Go()], done(("write", b"b", b"44"), ("remove", b"b"))),
        ([*THREE_NAMES, Go()], done(("write", b"b", b"44"), ("replace", b"b", b"2"))),
        (
            [*THREE_NAMES, *done(("write", b"d", b"666")), Go()],
            done(("write", b"b", b"44"), ("rename", b"d", b"b")),
        ),
        ([*THREE_NAMES, Go(), KILL], done(("write", b"b", b"44"), ("remove", b"b"))),
        (
            [*THREE_NAMES, Go(), *done(("rename", b"b", b"d")), Go()],
            done(("write", b"d", b"44"), ("remove", b"d")),
        ),
        (
            [*SMALL_FILE, *done(("link", b"a", b"x~")), Go(), KILL, Go()],
            done(("write", b"x~", b"44"), ("remove", b"x~")),
        ),
        # A name is no file's any more, or never was one.
        (SMALL_FILE, done(("remove", b"a"))),
        (SMALL_FILE, done(("symlink", b"foreign"))),
        # Something is lost.
        ([*THREE_FILES, Go()], [*done(("overflow",), ("remove", b"a")), Go()]),
        ([*THREE_FILES, Go(), KILL, *done(("remove", b"b"))], done(("write", b"b~", b"3"))),
        ([*THREE_FILES, Go(), KILL, *done(("remove", b"b"))], done(("remove", b"a"))),
        (THREE_FILES, done(("remove", b"a"), ("kill",))),
        # Killed when it has taken up some of the events, and has confirmed what it could.
        (
            [
                *[*SMALL_FILE, Go(), *done(("lag", 1))],
                *done(("write", b"b", b"3"), ("write", b"c", b"4"), ("write", b"d", b"5")),
                *done(("rewrite", b"a", True), ("stall",)),
            ],
            done(("kill",)),
        ),
        (THREE_FILES, done(("lose_connection",))),
        (LARGE_FILE, done(("flush",))),
        ([*THREE_FILES, Go()], done(("flush",), ("rename", b"a", b"d"))),
        ([*THREE_FILES, Go()], done(("delete_key", b"a"), ("rename", b"a", b"d"))),
    ],
)
def test_redis_ends_equal_wherever_the_service_is_when_something_happens(
    before: list[Step], after: list[Step]
) -> None:
    for steps in ANYWHERE:
        check([*before, steps, *after])


def test_what_was_written_through_a_name_of_a_moment_is_found() -> None:
    moment = done(("link", b"a", b"b"), ("write", b"b", b"44"), ("remove", b"b"))
    for steps in ANYWHERE:
        check([*SMALL_FILE, steps, *moment], rescan=RARELY)
