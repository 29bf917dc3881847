"""What is measured of changes in Redis: those that become files, and those that are undone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.mirror import measures
from benchmarks.mirror.busy import Load
from benchmarks.mirror.contenders import (
    KEYSPACE,
    SYNC,
    Contender,
    Kind,
    contending,
    with_settings,
)
from benchmarks.mirror.load import name, value
from benchmarks.mirror.place import directory
from benchmarks.mirror.results import Burst, Busy, Followed, Results
from benchmarks.mirror.server import Server, serving
from benchmarks.mirror.sight import Files, Keys, looking

SAFE = with_settings("two-way-safe", SYNC_MODE="two-way-safe")
RESOLVED = with_settings("two-way-resolved", SYNC_MODE="two-way-resolved")
PULLING = (SAFE, RESOLVED, KEYSPACE)

UNGUARDED = with_settings("SYNC_GUARD=0", SYNC_GUARD="0")
PREFIXED = with_settings("SYNC_PREFIX", SYNC_PREFIX="mirror:")
ALONE = "no service"
BESIDE = (SYNC, UNGUARDED, PREFIXED)

CHANGED, DELETED = "set to another value", "deleted"
_FOREIGN = "another".ljust(len(value(0)))
_PAUSE = 0.005  # seconds after which all are idle again when a file has come
_SETTLED = 0.2  # seconds without a new name after which it is worth a look at all of them


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    samples: int  # of one key set until its file is there, of each contender
    block: int  # of these in a turn
    keys: int  # in a burst
    bursts: Mapping[Kind, int]  # how often
    mirrored: int  # files whose keys somebody changes
    undone: int  # how often, for each thing that is done to a key
    loads: Sequence[Load]  # of other clients
    repeats: int  # of each
    meanwhile: int  # files closed while such a load goes on


FULL = Plan(
    samples=2_000,
    block=20,
    keys=100_000,
    bursts={SAFE: 5, RESOLVED: 3, KEYSPACE: 3},
    mirrored=10_000,
    undone=1_000,
    loads=(Load(200_000, 1), Load(1_000_000, 16)),
    repeats=3,
    meanwhile=300,
)
QUICK = Plan(
    samples=20,
    block=10,
    keys=500,
    bursts=dict.fromkeys(PULLING, 1),
    mirrored=100,
    undone=10,
    loads=(Load(2_000, 1), Load(20_000, 16)),
    repeats=1,
    meanwhile=5,
)


class BothWays:
    """One run: where it takes place, and what was measured so far."""

    def __init__(
        self, plan: Plan, place: Path, results: Results, say: Callable[[str], None]
    ) -> None:
        """Measure what is in `plan`, and add it to `results`; tell with `say` what is going on."""
        self._plan = plan
        self._place = place
        self._compared = results.compared
        self._results = results.both_ways
        self._say = say

    def run(self) -> None:
        """Measure all there is."""
        self.one_by_one()
        self.bursts()
        self.undone()
        self.busy()

    def one_by_one(self) -> None:
        """Measure one key after the other until its file is there, all contenders in turns."""
        self._say(f"{self._plan.samples:,} single keys for each")
        with ExitStack() as stack:
            present = [stack.enter_context(self._following(kind)) for kind in PULLING]
            sights = [stack.enter_context(closing(Files(each.root))) for each in present]
            for start in range(0, self._plan.samples, self._plan.block):
                turn = range(start, start + self._plan.block)
                for contender, files in zip(present, sights, strict=True):
                    samples = self._results.visible.setdefault(contender.kind.name, [])
                    for number in turn:
                        samples.append(until_file(contender, files, number))
                        time.sleep(_PAUSE)
            for contender in present:
                self._compare("single keys", contender)

    def bursts(self) -> None:
        """Measure bursts of keys, and what a loop that only writes the files takes."""
        keys = self._plan.keys
        for kind, times in self._plan.bursts.items():
            for number in range(times):
                self._say(f"a burst of {keys:,} keys: {kind.name}, {number + 1}")
                with directory(self._place) as unwatched:
                    began, written = measures.load("write", unwatched, keys)
                self._results.writer.append(written - began)
                with self._following(kind) as contender:
                    followed = follow_keys(contender, keys)
                    self._compare(f"a burst of {keys:,} keys", contender)
                burst = Burst(keys, followed, self._compared[-1][2])
                self._results.bursts.setdefault(kind.name, []).append(burst)

    def undone(self) -> None:
        """Measure how long it is until a key has its file's content again."""
        self._say(f"{self._plan.undone:,} changes of mirrored keys by somebody else")
        with self._equal(SYNC) as contender, contender.server.monitor() as monitor:
            for turn in range(self._plan.undone):
                number = turn % self._plan.mirrored
                for done, command in (
                    (CHANGED, ("SET", name(number), _FOREIGN)),
                    (DELETED, ("DEL", name(number))),
                ):
                    answered = _do(contender.server, *command)
                    again = measures.done(monitor, value(number).decode())
                    self._results.undone.setdefault(done, []).append(max(again - answered, 0.0))
                    time.sleep(_PAUSE)
            self._compare("foreign changes", contender)

    def busy(self) -> None:
        """Measure what other clients' keys cost, them and the service, in turns."""
        with ExitStack() as stack:
            alone = stack.enter_context(self._alone())
            present = [stack.enter_context(self._equal(kind)) for kind in BESIDE]
            sights = [stack.enter_context(looking(each.server)) for each in present]
            for load in self._plan.loads:
                bare = Busy(str(load), ALONE)
                beside = [Busy(str(load), each.kind.name) for each in present]
                self._results.busy += [bare, *beside]
                for number in range(self._plan.repeats):
                    self._say(f"{load.sets:,} SETs of other keys by {load}, {number + 1}")
                    bare.rates.append(load.rate(alone))
                    for busy, contender in zip(beside, present, strict=True):
                        before = contender.cpu()
                        busy.rates.append(load.rate(contender.server))
                        time.sleep(_SETTLED)  # it may still be at it
                        busy.cpu.append((contender.cpu() - before) / load.sets)
                self._say(f"{self._plan.meanwhile:,} files meanwhile")
                for busy, contender, keys in zip(beside, present, sights, strict=True):
                    with load.going_on(contender.server):
                        busy.visible += self._meanwhile(contender, keys)
            for contender in present:
                self._compare("other clients' load", contender, contender.kind.prefix)

    def _meanwhile(self, contender: Contender, keys: Keys) -> Iterator[float]:
        first = self._plan.mirrored + len(list(contender.root.iterdir()))  # none is there twice
        for number in range(first, first + self._plan.meanwhile):
            yield until_key(contender, keys, number)
            time.sleep(_PAUSE)

    @contextmanager
    def _alone(self) -> Iterator[Server]:
        with directory(self._place) as root, serving(root.parent) as server:
            yield server

    @contextmanager
    def _following(self, kind: Kind) -> Iterator[Contender]:
        """Run a contender that follows what happens in Redis, with a new directory."""
        with self._alone() as server:
            root = server.socket.with_name("root")
            with contending(kind, root, server) as contender:
                contender.get_ready_for_keys()
                yield contender

    @contextmanager
    def _equal(self, kind: Kind) -> Iterator[Contender]:
        """Run mdvp-sync, and wait until Redis equals a new directory of many files."""
        with self._alone() as server:
            root = server.socket.with_name("root")
            measures.load("write", root, self._plan.mirrored)
            with contending(kind, root, server) as contender:
                contender.until_equal()
                yield contender

    def _compare(self, measure: str, contender: Contender, prefix: bytes | None = None) -> None:
        """Compare the two sides; with a prefix, be it none, keys that have no file are others'."""
        found = contender.server.compared(contender.root, prefix or b"")
        if prefix is not None:
            found = replace(found, extra=0)
        self._compared.append((measure, contender.kind.name, found))


def until_file(contender: Contender, files: Files, number: int) -> float:
    """Set a new key; return how long it was from the answer on until its file was seen."""
    answered = _do(contender.server, "SET", name(number), value(number))
    return max(files.until(name(number), value(number)) - answered, 0.0)


def until_key(contender: Contender, keys: Keys, number: int) -> float:
    """Close a new file; return how long it was from then on until its key was heard of."""
    key = contender.kind.prefix + name(number).encode()
    keys.get(key)
    descriptor = os.open(contender.root / name(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, value(number))
    began = time.time()
    os.close(descriptor)
    return max(keys.until(key, value(number)) - began, 0.0)


def follow_keys(contender: Contender, keys: int) -> Followed:
    """Set so many keys by pipeline; return when the directory was equal, or at rest."""
    root = contender.root
    return measures.follow(
        ("sets", contender.server.socket, keys),
        lambda: written(root, keys),
        lambda: root.stat().st_mtime_ns,
    )


def written(root: Path, files: int) -> float | None:
    """Return when the last of the files came that `load.write` writes; None if not all are there.

    A file's ctime says when it was renamed into place, or written to. So nobody has to look while
    they come: that would take time of the processors that the contender needs.
    """
    if time.time() - root.stat().st_mtime < _SETTLED:
        return None
    last = 0.0
    for number in reversed(range(files)):
        path = root / name(number)
        if not path.exists() or path.read_bytes() != value(number):
            return None
        last = max(last, path.stat().st_ctime)
    return last


def _do(server: Server, *command: str | bytes) -> float:
    """Have a command done; return when it was answered, in time()'s clock."""
    server.client.execute_command(*command)  # type: ignore[no-untyped-call]
    return time.time()
