"""Two hands at work, on the directory and in Redis: in turns, or both at once.

In turns each waits until all is at rest, so what must be then is known. Both at once it is not, but
what must be true of it is: see `judge`, which tells whether names are equal or listed, and whether
a value is lost that no hand has destroyed.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from threading import Event

import redis
from integration.drift import DriftError
from integration.hands import (
    FLUSH,
    DiskHand,
    RedisHand,
    disk_operations,
    redis_operations,
)
from integration.history import History
from integration.judge import Judge, Seen, marks
from integration.shape import Shape
from integration.workload import Operation
from support import eventually

from sync.core.decision import Mode, Side
from sync.redis.keys import REQUESTS

_PAUSES = (0.0, 0.0, 0.0005, 0.003)  # seconds between two operations of a hand
_TURN = 25  # operations of a hand in its turn, at most
_SHOWN = 400  # operations
_NAME_SHOWN = 30  # bytes


class TwoHands:
    """The hands, what they have done, and who judges.

    Attributes:
        may_work: whether the hands at work may go on; they wait until it is set.
        losers, conflicts: how many there have been at rest, altogether.
        slowest: how many seconds it took at most until all was at rest.

    """

    def __init__(  # noqa: PLR0913  # what makes a run
        self,
        mode: Mode,
        shape: Shape,
        root: Path,
        outside: Path,
        client: redis.Redis,
        *,
        seed: int,
        deadline: float,
    ) -> None:
        """Work in `root` and by way of `client`; all follows from `seed`, but for the time."""
        self.random = Random(seed)  # noqa: S311  # for tests
        self.history = History()
        self.files = DiskHand(root, outside, shape, self.history)
        self.keys = RedisHand(client, self.history, root)
        self.judge = Judge(mode, self.files, client, self.history)
        self.may_work = Event()
        self.may_work.set()
        self._has_lost_keys = False
        self.judge.is_flushed = lambda: self._has_lost_keys or self.keys.done[FLUSH.kind] > 0
        self.deadline = deadline
        self.losers = self.conflicts = 0
        self.slowest = 0.0
        self._mode = mode
        self._client = client
        self._on_disk = disk_operations(Random(seed + 1), shape)  # noqa: S311
        self._in_redis = redis_operations(Random(seed + 2), shape)  # noqa: S311
        self._in_turn = redis_operations(Random(seed + 3), shape, expire=True)  # noqa: S311
        self._seen = Seen()

    def close(self) -> None:
        """Close what is open."""
        self.files.close()

    @property
    def done(self) -> int:
        """How many operations could be done."""
        return self.files.done.total() + self.keys.done.total()

    # Both at once.

    def at_once(self, operations: int) -> None:
        """Have both hands do so many each, with the service at work; then judge."""
        with self.at_work(Event(), operations):
            pass
        self.comes_to_rest()

    @contextmanager
    def at_work(self, over: Event, operations: int | None = None) -> Iterator[None]:
        """Have both hands at work until it is `over`, or for so many operations each."""
        with ThreadPoolExecutor(2) as pool:
            hands = [pool.submit(self._work, *each, over, operations) for each in self._hands()]
            try:
                yield
            finally:
                if operations is None:
                    over.set()
            for hand in hands:
                hand.result()

    def _hands(self) -> Iterator[tuple[Callable[[Operation], None], Iterator[Operation], float]]:
        yield self.files.do, self._on_disk, self.random.choice(_PAUSES)
        yield self.keys.do, self._in_redis, self.random.choice(_PAUSES)

    def _work(
        self,
        do: Callable[[Operation], None],
        drawn: Iterator[Operation],
        pause: float,
        over: Event,
        operations: int | None,
    ) -> None:
        for operation in islice(drawn, operations):
            self.may_work.wait()
            do(operation)
            if over.wait(pause) if pause else over.is_set():
                return

    def comes_to_rest(
        self, also: Callable[[Seen], dict[bytes, str]] | None = None, *, is_frozen: bool = True
    ) -> Seen:
        """Wait until all is at rest, and judge.

        `also` complains of more; unless `is_frozen`, the side that the mode does not write to may
        still change by itself. Raises DriftError.
        """
        began = time.monotonic()
        self._wait_until_expired()
        frozen = self._frozen() if is_frozen else {}
        seen = self.judge.rest(self.deadline, also)
        self.slowest = max(self.slowest, time.monotonic() - began)
        if is_frozen and (changed := _changed(frozen, self._frozen())):
            raise DriftError(changed, time.monotonic() - began)
        if losses := self.judge.losses(seen):
            raise DriftError(losses, time.monotonic() - began)
        self.judge.check_store()
        self.losers += len(seen.lost - self._seen.lost)
        self.conflicts += len(seen.conflicts - self._seen.conflicts)
        self._forget(seen)
        return seen

    def _forget(self, seen: Seen) -> None:
        self._seen = seen
        if self.history.is_doubtful:
            for name, key in _digests(seen).items():
                self.history.adopt(Side.REDIS, name, key)
            for name, value in seen.files.items():
                self.history.adopt(Side.DISK, name, value)
        keys = {each.digest for each in seen.keys.values()}
        self.history.at_rest({*seen.files.values(), *seen.elsewhere, *keys})
        self.files.links.are_known()

    def _wait_until_expired(self) -> None:
        """Wait until no key is left that expires soon."""
        eventually(lambda: self.judge.look().expiring, set())

    def _frozen(self) -> Mapping[object, object]:
        """Return what the service must not change: what is outside, and a side of some modes."""
        found: dict[object, object] = {}
        for path, mark in marks(self.files.outside).items():
            # One of its other names may be within, where the service may replace it: then there is
            # one name less, which counts as a change of the file, but not of what is in it.
            found[path] = mark if self._mode.is_one_way else (*mark[:3], *mark[4:])
        top = bytes(self.files.root)
        found |= {("beside", name): 0 for name in _beside(self.files.root)}
        if self._mode.is_one_way:
            found |= {
                path: mark
                for path, mark in marks(self.files.root).items()
                if not path[len(top) + 1 :].startswith(b"marker-")
            }
        if self._mode is Mode.REDIS_TO_DISK:
            seen = self.judge.look()
            found |= {name: key.digest for name, key in seen.keys.items()}
            found |= dict.fromkeys(seen.types, 0)
        return found

    # What happens to Redis.

    @staticmethod
    def flush(random: Random) -> Operation:
        """Return what has Redis lose all keys."""
        return Operation(FLUSH.kind, size=random.randrange(2))

    def keys_are_lost(self, kept: Iterable[bytes] = ()) -> None:
        """Take note that keys are gone which nobody deleted, or back as they were.

        What is in a file must stay, and what was: `kept`; unless the mode has files follow keys.
        """
        self._has_lost_keys = True
        files = {*self.judge.look_at_files(), *kept}
        follows = self._mode in {Mode.REDIS_TO_DISK, Mode.ONE_WAY_SAFE}
        self.history.give_up(
            key
            for key, each in self.history.written.copy().items()
            if key not in files or (follows and each.side is Side.REDIS)
        )

    def keys_are_saved(self) -> None:
        """Take note that what Redis has now may be there again."""
        self.history.saved = set(self.history.known)

    # In turns.

    def in_turns(self, turns: int) -> None:
        """Have each hand in its turn do some operations, and wait for what must follow."""
        for _ in range(turns):
            side = self.random.choice(list(Side))
            operations = self.random.randint(1, _TURN)
            if side is Side.DISK:
                self._turn_of_files(operations)
            else:
                self._turn_of_keys(operations)

    def _turn_of_files(self, operations: int) -> None:
        before = self.judge.look()
        for operation in islice(self._on_disk, operations):
            self.files.do(operation)
        after = self.judge.look()
        wins = self._mode is not Mode.REDIS_TO_DISK
        self._follows(before, after.files if wins else _digests(before), after)

    def _turn_of_keys(self, operations: int) -> None:
        before = self.judge.look()
        flushes = self.keys.done[FLUSH.kind]
        for operation in islice(self._in_turn, operations):
            self.keys.do(operation)
        self._wait_until_expired()
        if self.keys.done[FLUSH.kind] != flushes:
            self.comes_to_rest()  # the service does not know any more what was equal
            return
        after = self.judge.look()
        wins = not self._mode.is_one_way
        self._follows(before, _digests(after) if wins else before.files, after)

    def _follows(self, before: Seen, expected: Mapping[bytes, bytes], after: Seen) -> None:
        """Wait until the names that were equal before, or on neither side, are as expected.

        Left out is what one of the sides cannot have, by then or at rest.
        """
        there = {*before.files, *before.keys, *before.types, *before.others}
        equal = before.equal()
        names = {*before.files, *expected, *after.files, *_digests(after)}
        names = {n for n in names if (n in equal or n not in there) and self.judge.is_fit(n)}

        def wrong(seen: Seen) -> dict[bytes, str]:
            return {
                name: f"{expected.get(name)!r} was to be there, {found!r} is"
                for name in names
                if not self._is_unfit(name, before, after, seen)
                and (found := self._sides(seen, name)) != {expected.get(name)}
            }

        self.comes_to_rest(wrong)

    def _is_unfit(self, name: bytes, *looks: Seen) -> bool:
        return any(name in seen.types or seen.is_blocked(name) for seen in looks)

    def _sides(self, seen: Seen, name: bytes) -> set[bytes | None]:
        """Return what is there under a name; on one side alone where the other is free."""
        on_disk, in_redis = seen.files.get(name), seen.key(name)
        if self._mode is Mode.ONE_WAY_SAFE and name in seen.conflicts:
            return {on_disk}
        if self._mode.is_one_way and on_disk is None:
            return {None}  # somebody's own key
        if self._mode is Mode.REDIS_TO_DISK and in_redis is None:
            return {None}  # somebody's own file
        return {on_disk, in_redis}

    # Conflicts.

    def decide(self) -> int:
        """Decide about each conflict, and wait until none is left; return how many there were."""
        seen = self.judge.look()
        conflicts = [name for name in sorted(seen.conflicts) if not self._is_unfit(name, seen)]
        if not conflicts:
            return 0
        for name in conflicts:
            side = self.random.choice(list(Side))
            loser = seen.key(name) if side is Side.DISK else seen.files.get(name)
            self.history.give_up([loser] if loser else [])
            self._client.hset(REQUESTS, name, side.value)

        def undecided(seen: Seen) -> dict[bytes, str]:
            left = seen.conflicts & set(conflicts)
            return {name: "is not decided" for name in left if not self._is_unfit(name, seen)}

        self.comes_to_rest(undecided, is_frozen=False)
        return len(conflicts)

    def story(self, names: Mapping[bytes, str]) -> str:
        """Tell what was done of late, above all with these names."""
        both = [("disk", *each) for each in self.files.log]
        both += [("redis", *each) for each in self.keys.log]
        concerned = [
            each
            for each in both
            if not names or {each[2].name, each[2].other, each[2].third} & set(names)
        ]
        lines = [
            f"{at:9.4f} s  {side:5} {_told(what)}  {prevented}"
            for side, at, what, prevented in sorted(concerned, key=lambda each: each[1])
        ]
        return "\n".join(lines[-_SHOWN:])


def _told(what: Operation) -> str:
    names = (repr(each[:_NAME_SHOWN]) for each in (what.name, what.other, what.third))
    return f"{what.kind} {' '.join(names)} {what.size}"


def _digests(seen: Seen) -> dict[bytes, bytes]:
    return {name: key.digest for name, key in seen.keys.items()}


def _beside(root: Path) -> list[str]:
    """Return what is in the directory that the root is in, and at the top of the file system.

    But for the status of the service, which is written aside there again and again.
    """
    names = [each.name for top in (root.parent, Path("/")) for each in top.iterdir()]
    return [name for name in names if not name.startswith("status-")]


def _changed(before: Mapping[object, object], after: Mapping[object, object]) -> dict[bytes, str]:
    return {
        str(each).encode(): f"was {before.get(each)}, is {after.get(each)}, by nobody's hand"
        for each in before.keys() | after.keys()
        if before.get(each) != after.get(each)
    }
