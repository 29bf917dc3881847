"""Is a value lost, or a file deleted that nobody deleted? Two hands at work, and faults.

Run by `scripts/test.sh faults --mode MODE`. Each episode is some seconds of random operations on
the directory and in Redis at once, while Redis, the service and its connections have faults. Then
all must come to rest, and is judged: see `integration.judge`. What a fault itself destroys is taken
off what must be there: the values that were in Redis alone when it lost them. A value that a file
had is to stay, whatever happens to Redis.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from subprocess import TimeoutExpired
from threading import Event

from faults.plan import Planned, plan, seeded
from faults.world import STREAM, Faults, World
from integration.drift import DriftError
from integration.shape import Shape
from integration.two_hands import TwoHands
from integration.workload import MIB

from sync.core.decision import Mode

DEADLINE = 20.0  # seconds until all is at rest
MEMORY_MAX = 150 * MIB
_RATES: Mapping[float, int] = {inf: 1}  # the hands have their own
_NO_LOAD = 0.1  # of the episodes
_WORKS_ON = 0.5  # of the times that keys are evicted, the hands work on
_EVICTED = (1, 5_000, 20_000, 100_000, 10_000_000)  # bytes that are to go
_SHOWN = 30  # lines


class TwoHandedWorld(World):
    """A world with two hands in it, and what can happen to a service both ways."""

    def __init__(
        self, place: Path, shape: Shape, running_all: ExitStack, mode: Mode, seed: int
    ) -> None:
        """Start everything, as `World`."""
        self.mode = mode
        environ = {"SYNC_MODE": mode.value, "SYNC_DELETE_MAX": "100%"}
        super().__init__(place, shape, running_all, environ)
        client = self.new_client()
        running_all.callback(client.close)
        outside = self.workload.outside
        self.hands = TwoHands(mode, shape, self.root, outside, client, seed=seed, deadline=DEADLINE)
        self.hands.judge.stream = STREAM
        running_all.callback(self.hands.close)

    # Redis.

    @contextmanager
    def redis_killed_and_empty(self, random: Random) -> Iterator[None]:
        with super().redis_killed_and_empty(random):
            self.hands.keys_are_lost()
            yield

    @contextmanager
    def redis_killed_and_back_as_it_was_once(self, random: Random) -> Iterator[None]:
        with super().redis_killed_and_back_as_it_was_once(random):
            self.hands.keys_are_lost()
            yield

    @contextmanager
    def redis_saved(self, random: Random) -> Iterator[None]:
        with super().redis_saved(random):
            self.hands.keys_are_saved()
            yield

    @contextmanager
    def redis_flushed(self, random: Random) -> Iterator[None]:
        self.hands.keys.do(self.hands.flush(random))
        yield

    @contextmanager
    def redis_not_answering(self, random: Random) -> Iterator[None]:
        """Have it answer nobody for a while, or nobody who writes."""
        self.redis.client.client_pause(random.randint(50, 1500), all=random.random() < 0.7)
        yield
        self.redis.client.client_unpause()

    @contextmanager
    def redis_evicting(self, random: Random) -> Iterator[None]:
        """Have it be short of memory, and remove any keys."""
        client, hands = self.redis.client, self.hands
        hands.keys.is_lossy = random.random() < _WORKS_ON
        if not hands.keys.is_lossy:
            hands.may_work.clear()
        files = hands.judge.look_at_files()
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", max(1, used - random.choice(_EVICTED)))
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            hands.keys_are_lost(files)
            hands.keys.is_lossy = False
            hands.may_work.set()

    @contextmanager
    def redis_connection_killed(self, random: Random) -> Iterator[None]:
        """Have one of the service's connections end: that which writes, or hears, or uploads."""
        which = random.choice([_writes, _hears, _does_neither])
        for each in self.redis.client.client_list():
            if each["user"] == "app" and which(each):
                self.redis.client.client_kill_filter(_id=each["id"])
        yield

    @contextmanager
    def redis_connections_killed_often(self, random: Random) -> Iterator[None]:
        """Have connections of the service end again and again, at any moment."""
        for _ in range(random.randint(2, 10)):
            with self.redis_connection_killed(random):
                time.sleep(random.uniform(0, 0.1))
        yield


def _writes(client: Mapping[str, str]) -> bool:
    return "t" in client["flags"]


def _hears(client: Mapping[str, str]) -> bool:
    return client["sub"] != "0" or client["psub"] != "0"


def _does_neither(client: Mapping[str, str]) -> bool:
    return not _writes(client) and not _hears(client)


FAULTS: Faults = {
    "redis": {
        TwoHandedWorld.redis_killed_and_empty: 2,
        TwoHandedWorld.redis_killed_and_back_as_it_was_once: 4,
        TwoHandedWorld.redis_saved: 4,
        TwoHandedWorld.redis_paused: 2,
        TwoHandedWorld.redis_not_answering: 3,
        TwoHandedWorld.redis_flushed: 2,
        TwoHandedWorld.redis_evicting: 3,
        TwoHandedWorld.redis_read_only: 1,
        TwoHandedWorld.redis_out_of_memory: 2,
        TwoHandedWorld.redis_connection_killed: 6,
        TwoHandedWorld.redis_connections_killed_often: 4,
    },
    "service": {
        TwoHandedWorld.service_killed: 6,
        TwoHandedWorld.service_ended: 2,
        TwoHandedWorld.service_paused: 4,
    },
}


class Episode:
    """One episode, on its way.

    Attributes:
        faults: what happened to the parts, and when.

    """

    def __init__(
        self, world: TwoHandedWorld, seed: int, only: Sequence[str], faults: Faults
    ) -> None:
        """Plan what is to happen to `world`, of these faults."""
        self._world = world
        self._random = seeded(seed)
        self._plan = plan(self._random, only, faults, _RATES)
        self._began = time.monotonic()
        self.faults: list[str] = []

    def __str__(self) -> str:
        """Name the faults."""
        return ", ".join(each.name for each in self._plan.faults) or "no fault"

    def run(self) -> float:
        """Return how many seconds it took until all was at rest. Raises AssertionError."""
        over = Event()
        if self._random.random() < _NO_LOAD:
            self._have_faults()
        else:
            with self._world.hands.at_work(over):
                self._have_faults()
        began = time.monotonic()
        self._world.hands.comes_to_rest()
        took = time.monotonic() - began
        self._world.hands.decide()
        self._world.consumer.comes_to_know_what_is_held(self._world.new_client, DEADLINE)
        self._world.check_service()
        memory = self._world.memory()
        assert memory < MEMORY_MAX, f"the service had {memory} bytes in memory"
        return took

    def _have_faults(self) -> None:
        due: list[tuple[float, int, Planned | None]] = [(self._plan.seconds, -1, None)]
        for number, each in enumerate(self._plan.faults):
            due += [(each.at, number, each), (each.at + each.lasts, number, each)]
        with ExitStack() as all_over:
            on: dict[int, ExitStack] = {}
            for at, number, planned in sorted(due, key=lambda each: each[:2]):
                time.sleep(max(0.0, self._began + at - time.monotonic()))
                if planned is None:
                    continue
                if number in on:
                    self._note(f"{planned.name} is over")
                    on.pop(number).close()
                else:
                    self._note(planned.name)
                    on[number] = all_over.enter_context(ExitStack())
                    on[number].enter_context(planned.fault(self._world, self._random))

    def _note(self, what: str) -> None:
        self.faults.append(f"{time.monotonic() - self._began:6.2f} s  {what}")

    def story(self, names: Mapping[bytes, str]) -> str:
        """Tell what happened, above all to these names."""
        return "\n".join(
            [
                *("faults:", *self.faults),
                f"they began at {self._began:.2f} s of:",
                *("the last operations with these names:", self._world.hands.story(names)),
                *("what the service said:", *self._world.said().splitlines()[-_SHOWN:]),
                *("where the service was:", self._world.end_where_it_is()),
            ]
        )


def run(  # noqa: PLR0913  # what the command line says
    mode: Mode,
    seconds: float,
    operations: float,
    seed: int,
    place: Path,
    *,
    only: Sequence[str],
    shapes: Sequence[Shape],
    kind: type[TwoHandedWorld] = TwoHandedWorld,
    faults: Faults = FAULTS,
) -> int:
    """Run episodes for so many seconds, or operations; return the exit status."""
    began = time.monotonic()
    slowest = 0.0
    with ExitStack() as running_all:
        worlds = [_world(kind, place, shape, running_all, mode, seed) for shape in shapes]
        hands = [world.hands for world in worlds]
        for each in count(seed):
            done = sum(both.done for both in hands)
            if time.monotonic() - began > seconds or done >= operations:
                break
            world = worlds[each % len(worlds)]
            episode = Episode(world, each, only, faults)
            print(f"seed {each}, {mode.value}, {world.shape}: ", end="", flush=True)
            try:
                took = episode.run()
            except (AssertionError, TimeoutExpired) as error:
                print(f"FAILED, in a run with --mode {mode.value} --seed {seed}: {error}")
                names = error.names if isinstance(error, DriftError) else {}
                print(episode.story(names))
                return 1
            slowest = max(slowest, took)
            more = sum(both.done for both in hands) - done
            print(
                f"{more} operations, {episode}: at rest after {took:.2f} s, "
                f"{world.memory() >> 20} MiB",
                flush=True,
            )
        done = sum(both.done for both in hands)
        took = time.monotonic() - began
        print(
            f"{each - seed} episodes from seed {seed}, nothing lost: {done} operations in "
            f"{took:.0f} s ({done / took:.0f} a second), {sum(b.conflicts for b in hands)} "
            f"conflicts, {sum(b.losers for b in hands)} losers; at rest after {slowest:.2f} s "
            "at most"
        )
    return 0


def _world(  # noqa: PLR0913, PLR0917  # what a world is made of
    kind: type[TwoHandedWorld],
    place: Path,
    shape: Shape,
    running_all: ExitStack,
    mode: Mode,
    seed: int,
) -> TwoHandedWorld:
    own = place / f"{mode.value}-{shape.name}"
    own.mkdir()
    return kind(own, shape, running_all, mode, seed)
