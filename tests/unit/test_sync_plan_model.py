"""The planner alone against a model, some 10,000 cases.

Operations on a disk give events; the events are cut into batches anywhere, so that a plan may be
carried out on a disk that is far ahead of it; what is carried out must make Redis equal to the
disk. A file keeps its signature whatever is written to it, the worst that a coarse clock can do: so
it is for the events to tell what a rename may move. A plan can be a part of what is pending, and
what was read is not sent when more events of its name came meanwhile.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import IS_CHECK

from sync.core.changes import Change, Changed, Created, Renamed, Signature, Unfinished
from sync.core.plan import SPARE, Pending, Plan, settle

EXAMPLES = 20 * int(os.environ.get("MDVP_TEST_EXAMPLES", "500"))

PATIENCE, RETRY = 0.5, 0.1
NAMES = [b"a", b"b", b"c", b"d"]
ALL = 2000
CAUGHT_UP = 100  # plans: with all names, and each in all ways, there are fewer


@dataclass(eq=False)
class Inode:
    signature: Signature
    content: int
    locked: bool = False


@dataclass
class Done:
    """How many commands of each kind were carried out."""

    sets: int = 0
    renames: int = 0
    deletes: int = 0


@dataclass
class Model:
    """A disk, a Redis, and the planner between them."""

    disk: dict[bytes, Inode] = field(default_factory=dict)
    redis: dict[bytes, tuple[Signature, int]] = field(default_factory=dict)
    events: list[Change] = field(default_factory=list)
    pending: Pending = field(default_factory=lambda: Pending(PATIENCE, RETRY))
    limit: int = ALL  # names in one plan
    now: float = 0.0
    last: int = 0  # what was written last; no two contents are the same

    @classmethod
    def mirrored(cls, names: Iterable[bytes]) -> "Model":
        """Begin with files of these names, and with a Redis that holds them."""
        model = cls()
        for name in names:
            model.write(name)
        model.catch_up()
        return model

    # What is done to the disk.

    def write(self, name: bytes) -> None:
        self.begin(name)
        self.events.append(Changed(name))

    def begin(self, name: bytes) -> None:
        """Write, and do not close."""
        self.last += 1
        if name in self.disk:
            self.disk[name].content = self.last
        else:
            self.disk[name] = Inode(Signature(self.last, 1, 1, 1), self.last)
            self.events.append(Created(name))
        self.events.append(Unfinished(name))

    def write_twice(self, name: bytes) -> None:
        """Have a writer follow another one, and not close."""
        self.write(name)
        self.begin(name)

    def lock(self, name: bytes) -> None:
        """Write under a lock, and do not close."""
        self.begin(name)
        self.disk[name].locked = True

    def unlock(self) -> None:
        for inode in self.disk.values():
            inode.locked = False

    def remove(self, name: bytes) -> None:
        if self.disk.pop(name, None):
            self.events.append(Changed(name))

    def rename(self, old: bytes, new: bytes) -> None:
        if old != new and old in self.disk:
            self.disk[new] = self.disk.pop(old)
            self.events.append(Renamed(old, new))

    def exchange(self, one: bytes, other: bytes) -> None:
        """renameat2(RENAME_EXCHANGE), which the kernel reports as two renames."""
        if one != other and {one, other} <= self.disk.keys():
            self.disk[one], self.disk[other] = self.disk[other], self.disk[one]
            self.events += [Renamed(one, other), Renamed(other, one)]

    # What the service does.

    def follow(self, count: int, pause: float, late: int = 0, turn: int = ALL) -> Done:
        """Take `count` events after a pause, and carry out what is planned.

        So many `late` events come when that was planned, and the names are not yet examined. There
        is time for so many names in this `turn`.
        """
        self.now += pause
        self._hear(count)
        plan = self.pending.take(self.now, self.limit)
        names = plan.names()
        self._check(plan)
        settled = settle(
            plan.moves,
            {name: self.redis[name][0] if name in self.redis else None for name in names},
            {name: self.disk[name].signature if name in self.disk else None for name in names},
        )
        done = Done()
        for rename in (each for group in settled.renames for each in group):
            # Redis answers with an error when there is no such key, as this does.
            self.redis[rename.new] = self.redis.pop(rename.old)
            done.renames += 1
        assert SPARE not in self.redis
        self._hear(late)
        examined = (*settled.missed, *plan.examine)
        looked_at = [*settled.moved, *examined]
        assert len(looked_at) == len(set(looked_at)), "something is done twice"
        self._examine(examined[:turn], plan.overdue, done)
        self.pending.put_back(examined[turn:], plan)
        return done

    def _hear(self, count: int) -> None:
        heard, self.events = self.events[:count], self.events[count:]
        self.pending.add(heard, self.now)

    def _check(self, plan: Plan) -> None:
        assert len(plan.moves) + len(plan.examine) <= self.limit
        assert plan.overdue <= set(plan.examine)
        assert plan.vacated <= set(plan.examine)

    def _examine(self, names: Iterable[bytes], overdue: frozenset[bytes], done: Done) -> None:
        for name in names:
            inode = self.disk.get(name)
            if inode is None:
                done.deletes += self.redis.pop(name, None) is not None
            elif inode.locked:
                self.pending.defer([name], self.now)
            elif self.pending.has_news(name) and name not in overdue:
                self.pending.hold_back([name], self.now)
            else:
                self.redis[name] = inode.signature, inode.content
                done.sets += 1

    def catch_up(self) -> None:
        self.follow(len(self.events), 0.0)
        for _ in range(CAUGHT_UP):
            due = self.pending.due
            if self.pending.is_ready:
                self.follow(0, 0.0)
            elif due is not None:
                self.follow(0, max(0.0, due - self.now))
            else:
                return
        raise AssertionError("there is no end of what is pending")

    def differences(self) -> dict[bytes, tuple[int | None, int | None]]:
        """Return what the disk and Redis have under each name, where that is not the same."""
        on_disk = {name: inode.content for name, inode in self.disk.items()}
        in_redis = {name: content for name, (_, content) in self.redis.items()}
        return {
            name: (on_disk.get(name), in_redis.get(name))
            for name in on_disk.keys() | in_redis.keys()
            if on_disk.get(name) != in_redis.get(name)
        }


Step: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]


def steps(*choices: tuple[Callable[..., object], list[list[object]]]) -> list[Step]:
    """Return all steps of these methods, each with one of each list, but none twice."""
    return [
        (method, arguments)
        for method, lists in choices
        for arguments in product(*lists)
        if len(set(arguments)) == len(arguments)
    ]


def renames(names: list[bytes]) -> list[Step]:
    return steps((Model.rename, [[*names], [*names]]))


# Three names, so that operations meet; they are also all that it takes for two to be swapped.
THREE: list[object] = [*NAMES[:3]]
ANYTHING = [
    *renames(NAMES[:3]),
    *steps(
        (Model.remove, [THREE]),
        (Model.write, [THREE]),
        (Model.begin, [THREE]),
        (Model.write_twice, [THREE]),
        (Model.lock, [THREE]),
        (Model.unlock, []),
        (Model.exchange, [THREE, THREE]),
        (Model.follow, [[1, 2, 3, 9], [0.0, RETRY, PATIENCE]]),
        (Model.follow, [[1, 3], [0.0], [2, 4]]),
        (Model.follow, [[2, 9], [0.0], [0, 1], [1]]),
    ),
]


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(
    st.lists(st.sampled_from(ANYTHING), max_size=25),
    st.integers(min_value=0, max_value=len(THREE)),
    st.sampled_from([1, 2, 3, ALL]),
)
# What is behind the lock is no value that Redis has, whatever the file's name is by then.
@example(
    [
        (Model.write, (b"a",)),
        (Model.follow, (9, 0.0)),
        (Model.lock, (b"a",)),
        (Model.follow, (9, PATIENCE)),
        (Model.rename, (b"a", b"b")),
        (Model.follow, (9, 0.0)),
    ],
    0,
    ALL,
)
# An exchange reports a rename over a file that is not gone.
@example(
    [
        (Model.write, (b"a",)),
        (Model.follow, (9, 0.0)),
        (Model.write, (b"b",)),
        (Model.exchange, (b"b", b"a")),
        (Model.follow, (9, 0.0)),
    ],
    0,
    ALL,
)
# What was written between two of them is the first file's again.
@example(
    [
        (Model.exchange, (b"a", b"b")),
        (Model.write, (b"b",)),
        (Model.exchange, (b"a", b"b")),
    ],
    2,
    ALL,
)
# Three take each other's names by twos.
@example(
    [
        (Model.exchange, (b"b", b"c")),
        (Model.write, (b"c",)),
        (Model.exchange, (b"c", b"a")),
        (Model.exchange, (b"b", b"a")),
    ],
    3,
    ALL,
)
# So they do when what came of that is taken name by name.
@example(
    [
        (Model.exchange, (b"b", b"c")),
        (Model.write, (b"c",)),
        (Model.exchange, (b"c", b"a")),
        (Model.exchange, (b"b", b"a")),
    ],
    3,
    1,
)
# What was not sent, since its name had news, is no value that Redis has: nor under the next name.
@example(
    [
        (Model.write, (b"a",)),
        (Model.rename, (b"a", b"b")),
        (Model.rename, (b"c", b"a")),
        (Model.follow, (2, 0.0, 1)),
    ],
    3,
    ALL,
)
def test_redis_ends_equal_to_the_disk_however_its_events_are_cut_into_batches(
    script: list[Step], files: int, limit: int
) -> None:
    model = Model.mirrored(NAMES[:files])
    model.limit = limit
    for method, arguments in script:
        method(model, *arguments)
    model.unlock()
    model.catch_up()
    assert model.differences() == {}


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(
    st.lists(st.sampled_from(renames(NAMES)), max_size=12),
    st.integers(min_value=0, max_value=len(NAMES)),
)
def test_renames_move_no_bytes_and_take_the_fewest_commands(script: list[Step], files: int) -> None:
    model = Model.mirrored(NAMES[:files])
    before = {content: name for name, (_, content) in model.redis.items()}

    for method, arguments in script:
        method(model, *arguments)
    done = model.follow(len(model.events), 0.0)

    assert model.differences() == {}
    moves = {
        name: before[inode.content]
        for name, inode in model.disk.items()
        if before[inode.content] != name
    }
    # A value that another takes the place of is gone by itself.
    emptied = before.values() - model.disk.keys() - set(moves.values())
    assert done == Done(sets=0, renames=len(moves) + rings(moves), deletes=len(emptied))


def rings(moves: dict[bytes, bytes]) -> int:
    """Return how often names only trade their places, which takes one rename more."""
    members: set[bytes] = set()
    count = 0
    for start in moves:
        walk = [start]
        while (old := moves.get(walk[-1])) is not None and old not in walk:
            walk.append(old)
        if old == start and start not in members:
            members.update(walk)
            count += 1
    return count
