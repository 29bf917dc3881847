"""Does Redis ever drift from the directory? A load and faults, from a seed, for as long as wished.

Run by `scripts/test.sh faults`. Each episode is some seconds of random operations on the directory,
while Redis, the service and the directory have faults. Then all is as it should be again, nothing
happens any more, and Redis must become equal to the directory. In turns the directory is flat, and
the top of a tree. An episode follows from its seed, as far as time allows; the run ends at the
first that fails, with status 1.
"""

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from math import inf
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Event

from faults import hands, topology
from faults.plan import Planned, plan, seeded
from faults.world import FAULTS, Faults, World, have_own_mounts
from integration.drift import DriftError
from integration.shape import SHAPES, Shape
from integration.workload import MIB, Operation, operations

from sync.core.decision import Mode

DEADLINE = 15.0  # seconds until Redis is equal again
IDLE_DEADLINE = 6.0  # seconds; a flush is noticed within 5 when nothing else happens
MEMORY_MAX = 100 * MIB
SAMPLE = 0.1  # seconds between two looks at Redis while the load goes on
_LOG_SHOWN = 30  # lines, and operations


class Episode:
    """One episode, on its way.

    Attributes:
        faults: what happened to the parts, and when.

    """

    def __init__(
        self, world: World, seed: int, only: Sequence[str], faults: Faults = FAULTS
    ) -> None:
        """Plan what is to happen to `world`, of these faults."""
        self._world = world
        self._seed = seed
        self._plan = plan(seeded(seed), only, faults)
        self._began = time.monotonic()
        self._stopped = Event()
        self.faults: list[str] = []

    def __str__(self) -> str:
        """Name the faults."""
        return ", ".join(each.name for each in self._plan.faults) or "no fault"

    def run(self) -> float:
        """Return how many seconds it took until all was equal, when it was over.

        Raises AssertionError.
        """
        self._world.sides.put_foreign_keys()
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(self._load)
            try:
                self._have_faults(load)
            finally:
                self._stopped.set()
            load.result()
        self._world.workload.finish_locked()
        seconds = self._world.sides.become_equal(DEADLINE if self._plan.rate else IDLE_DEADLINE)
        self._world.consumer.comes_to_know(
            lambda: self._world.shape.files(self._world.root), IDLE_DEADLINE
        )
        self._world.workload.links.are_known()
        self._world.check_service()
        memory = self._world.memory()
        assert memory < MEMORY_MAX, f"the service had {memory} bytes in memory"
        return seconds

    def _load(self) -> None:
        pause = 1 / self._plan.rate if self._plan.rate else None
        for operation in operations(seeded(self._seed), self._world.shape):
            if self._stopped.wait(pause):
                return
            self._world.workload.do(operation)

    def _have_faults(self, load: "Future[None]") -> None:
        """Begin and end the faults when it is time, and stop the load."""
        due: list[tuple[float, int, Planned | None]] = [(self._plan.seconds, -1, None)]
        for number, each in enumerate(self._plan.faults):
            due += [(each.at, number, each), (each.at + each.lasts, number, each)]
        with ExitStack() as all_over:
            on: dict[int, ExitStack] = {}
            for at, number, planned in sorted(due, key=lambda each: each[:2]):
                subjects = {self._plan.faults[each].subject for each in on}
                self._wait(at, look="redis" not in subjects)
                if load.done():
                    load.result()
                if planned is None:
                    self._stopped.set()
                elif number in on:
                    self._note(f"{planned.name} is over")
                    on.pop(number).close()
                else:
                    self._note(planned.name)
                    on[number] = all_over.enter_context(ExitStack())
                    on[number].enter_context(
                        planned.fault(self._world, seeded(self._seed + number))
                    )

    def _wait(self, at: float, *, look: bool) -> None:
        while (left := self._began + at - time.monotonic()) > 0:
            if look:
                self._look()
                self._world.consumer.read_some()
            time.sleep(min(left, SAMPLE))

    def _look(self) -> None:
        """See that nothing is in Redis that is never to be there, not even for a moment."""
        sides = self._world.sides
        is_excluded = self._world.shape.is_excluded
        names = [name for name in sides.client.scan_iter(count=10_000) if is_excluded(name)]
        found = {name: "left out, but a key" for name in names if name not in sides.foreign}
        found |= dict.fromkeys(sides.torn(self._world.workload), "read while it was locked")
        if found:
            raise DriftError(found, time.monotonic() - self._began)

    def _note(self, what: str) -> None:
        self.faults.append(f"{time.monotonic() - self._began:6.2f} s  {what}")

    def story(self, names: Iterable[bytes]) -> str:
        """Tell what happened, above all to these names; to all, if there are none."""
        concerned = set(names)
        operated = [
            f"{at - self._began:6.2f} s  {operation}  {prevented}"
            for at, operation, prevented in self._world.workload.log
            if not concerned or any(_concerns(operation, name) for name in concerned)
        ]
        return "\n".join(
            [
                *("faults:", *self.faults),
                *("the last operations with these names:", *operated[-_LOG_SHOWN:]),
                *("what the service said:", *self._world.said().splitlines()[-_LOG_SHOWN:]),
                *("where the service was:", self._world.end_where_it_is()),
            ]
        )


def _concerns(operation: Operation, name: bytes) -> bool:
    """Say whether one is about this name, or about a directory that it is in."""
    about = (operation.name, operation.other, operation.third)
    return any(name == each or name.startswith(each.split(b"/")[0] + b"/") for each in about)


def run(  # noqa: PLR0913  # what the command line says
    seconds: float,
    seed: int,
    place: Path,
    *,
    only: Sequence[str],
    shapes: Sequence[Shape],
    kind: type[World] = World,
    faults: Faults = FAULTS,
) -> int:
    """Run episodes for so long, with the seeds from `seed` on; return the exit status.

    Which of the shapes an episode has follows from its seed.
    """
    end = time.monotonic() + seconds
    slowest = 0.0
    with tempfile.TemporaryDirectory(dir=place) as directory, ExitStack() as running_all:
        worlds = [_world(kind, Path(directory), shape, running_all) for shape in shapes]
        for each in count(seed):
            if time.monotonic() > end:
                break
            world = worlds[each % len(worlds)]
            episode = Episode(world, each, only, faults)
            done = world.workload.done.total()
            print(f"seed {each}, {world.shape}: ", end="", flush=True)
            try:
                took = episode.run()
            except (AssertionError, TimeoutExpired) as error:
                print(f"FAILED, in a run with --seed {seed} of {world.shape}: {error}")
                print(episode.story(error.names if isinstance(error, DriftError) else ()))
                return 1
            slowest = max(slowest, took)
            print(
                f"{world.workload.done.total() - done} operations, "
                f"{episode}: equal after {took:.2f} s, {world.memory() >> 20} MiB",
                flush=True,
            )
    print(f"{each - seed} episodes, no drift; equal after {slowest:.2f} s at most")
    return 0


def _world(kind: type[World], place: Path, shape: Shape, running_all: ExitStack) -> World:
    own = place / shape.name
    own.mkdir()
    return kind(own, shape, running_all)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/test.sh faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="of the first episode (default: a random one)")
    parser.add_argument("--place", type=Path, help="where the files are (default: in memory)")
    parser.add_argument("--only", nargs="+", default=(), help="faults that have one of the words")
    parser.add_argument(
        "--shape",
        choices=[shape.name for shape in SHAPES],
        help="that all episodes have (default: each in its turn)",
    )
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        help="have two hands at work, on the directory and in Redis, with the service in this mode",
    )
    parser.add_argument(
        "--operations", type=int, help="end after so many operations of the two hands (with --mode)"
    )
    parser.add_argument(
        "--topology",
        choices=list(topology.ONE_HAND),
        default="one",
        help="have Redis be one server, three with Sentinels, or a cluster (default: one)",
    )
    given = parser.parse_args()
    if given.mode and given.topology not in topology.TWO_HANDS:
        parser.error("--mode goes with --topology one or sentinel")
    try:
        have_own_mounts()
    except OSError as error:
        parser.error(f"cannot mount file systems ({error.strerror}): run it as root")
    seed = secrets.randbelow(10**9) if given.seed is None else given.seed
    memory = Path("/dev/shm")  # noqa: S108
    place = given.place or (memory if memory.is_dir() else Path(tempfile.gettempdir()))
    shapes = [shape for shape in SHAPES if given.shape in (None, shape.name)]
    if not given.mode:
        kind, faults = topology.ONE_HAND[given.topology]
        minutes = given.minutes * 60
        return run(minutes, seed, place, only=given.only, shapes=shapes, kind=kind, faults=faults)
    two, faults = topology.TWO_HANDS[given.topology]
    with tempfile.TemporaryDirectory(dir=place) as directory:
        return hands.run(
            Mode(given.mode),
            given.minutes * 60 if given.operations is None else inf,
            inf if given.operations is None else given.operations,
            seed,
            Path(directory),
            only=given.only,
            shapes=shapes,
            kind=two,
            faults=faults,
        )


if __name__ == "__main__":
    sys.exit(main())
