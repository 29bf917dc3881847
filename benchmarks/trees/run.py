"""The run: what is measured of trees, with how much, in which order.

Servers and directories are as in the mirror's benchmark: each contender has its own, all in one
file system, in memory where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.machine import describe, output
from benchmarks.mirror.contenders import SYNC, Contender, Kind, contending
from benchmarks.mirror.measures import load, until_visible
from benchmarks.mirror.place import FILE_NEEDS, directory, place
from benchmarks.mirror.results import Burst, Comparison
from benchmarks.mirror.run import programs
from benchmarks.mirror.server import Server, serving
from benchmarks.trees import measures
from benchmarks.trees.contenders import LSYNCD, PEERS, TREE, WATCHMAN, get_ready, is_there, mirrored
from benchmarks.trees.results import Memory, Renames, Results, Tree, Walks

DEPTH = 10  # directories above the deepest file
FLAT, TOP, DEEP = "flat, without SYNC_TREE", "at the top of a tree", f"at depth {DEPTH} in a tree"
_OLD, _NEW = "old", "new"
_LARGER = 1 << 10  # bytes of a file that is renamed: more than a name and an entry take
_RANGE = 1_000_000  # numbers of files for each place
_PAUSE = 0.005  # seconds after which all are idle again when a file has come


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    walk: Tree  # that is there before
    walks: int  # how often
    burst: Tree
    bursts: Mapping[Kind, int]  # how often
    beside: Tree  # that is there when single files come
    samples: int  # of one file closed until it is seen, of each place
    block: int  # of these in a turn
    renamed: int  # files in the directory
    renames: int
    memory: Tree
    rest: float  # seconds after which it is at rest

    def scaled(self, share: float) -> Plan:
        """Return the same with a share of the files, as many of them in a directory."""
        return replace(
            self,
            walk=self.walk.scaled(share),
            burst=self.burst.scaled(share),
            beside=self.beside.scaled(share),
            renamed=max(int(self.renamed * share), 1),
            memory=self.memory.scaled(share),
        )


FULL = Plan(
    walk=Tree(1_000_000, 100),
    walks=3,
    burst=Tree(100_000, 10),
    bursts={TREE: 5, **dict.fromkeys(PEERS, 3)},
    beside=Tree(10_000, 10),
    samples=2_000,
    block=20,
    renamed=10_000,
    renames=10,
    memory=Tree(1_000_000, 10),
    rest=5.0,
)
QUICK = replace(
    FULL.scaled(0.005),
    walks=1,
    bursts=dict.fromkeys((TREE, *PEERS), 1),
    samples=20,
    block=10,
    renames=2,
    rest=1.0,
)


def run(plan: Plan, parts: Collection[str], say: Callable[[str], None]) -> Results:
    """Measure those of PARTS in `plan` that are wanted; tell with `say` what is going on."""
    with place(max(plan.walk.files, plan.memory.files) * FILE_NEEDS) as here:
        run = _Run(plan, here, say)
        run.results.machine = describe(*programs(here), *_peers())
        for part, measure in PARTS.items():
            if part in parts:
                measure(run)
    return run.results


class _Run:
    """One run: where it takes place, and what was measured so far."""

    def __init__(self, plan: Plan, place: Path, say: Callable[[str], None]) -> None:
        self.results = Results()
        self._plan = plan
        self._place = place
        self._say = say

    def reconcile(self) -> None:
        """Measure how a tree is read that is there before, by mdvp-sync and at best."""
        tree = self._plan.walk
        walks = self.results.walks = Walks(tree)
        with directory(self._place) as root:
            self._grow(root, tree)
            for number in range(self._plan.walks):
                self._say(f"first reconcile and restart with {tree}, {number + 1}")
                began, ended = load("walk", root)
                walks.walked.append(ended - began)
                with serving(root.parent) as server:
                    walks.first.append(self._start(root, server, f"first reconcile of {tree}"))
                    walks.restart.append(self._start(root, server, f"restart with {tree}"))

    def _start(self, root: Path, server: Server, what: str) -> float:
        """Start mdvp-sync; return how long it was until it said that Redis equals the tree."""
        began = time.perf_counter()
        with contending(TREE, root, server) as contender:
            contender.until_equal()
            took = time.perf_counter() - began
            self._compare(what, contender)
        return took

    def bursts(self) -> None:
        """Measure bursts of new directories, and what the writer alone takes for the same."""
        tree = self.results.burst = self._plan.burst
        for kind, times in self._plan.bursts.items():
            if not is_there(kind):
                self.results.left_out.append(kind.name)
                continue
            for number in range(times):
                self._say(f"a burst of {tree}: {kind.name}, {number + 1}")
                with directory(self._place) as unwatched:
                    began, written = load("tree", unwatched, tree.files, tree.each)
                self.results.writer.append(written - began)
                with self._ready(kind) as contender:
                    followed = measures.follow_burst(contender, tree)
                    compared = self._compare(f"a burst of {tree}", contender)
                burst = Burst(tree.files, followed, compared)
                self.results.bursts.setdefault(kind.name, []).append(burst)

    def visible(self) -> None:
        """Measure one file after the other, in turns where it is: flat, or how deep in a tree."""
        beside, deep = self._plan.beside, "/".join(map(str, range(DEPTH)))
        self._say(f"{self._plan.samples:,} single files for each place, beside {beside}")
        with ExitStack() as stack:
            flat = stack.enter_context(
                self._equal(SYNC, lambda root: load("write", root, beside.files))
            )
            tree = stack.enter_context(self._equal(TREE, lambda root: self._grow(root, beside)))
            (tree.root / deep).mkdir(parents=True)
            monitors = {each: stack.enter_context(each.server.monitor()) for each in (flat, tree)}
            places = {FLAT: (flat, ""), TOP: (tree, ""), DEEP: (tree, deep)}
            for start in range(0, self._plan.samples, self._plan.block):
                for index, (where, (contender, below)) in enumerate(places.items(), 1):
                    first = index * _RANGE + start
                    for number in range(first, first + self._plan.block):
                        seen = until_visible(contender, monitors[contender], number, below)
                        self.results.visible.setdefault(where, []).append(seen)
                        time.sleep(_PAUSE)
            self._compare("single files, flat", flat)
            self._compare("single files in a tree", tree)

    def renames(self) -> None:
        """Measure the rename of a directory, there and back again and again."""
        files = self._plan.renamed
        self._say(f"renames of a directory of {files:,} files")
        renames = self.results.renames = Renames(files, _LARGER)
        with self._equal(TREE, lambda root: _fill(root / _OLD, files)) as contender:
            for number in range(self._plan.renames):
                there, back = (_OLD, _NEW) if number % 2 == 0 else (_NEW, _OLD)
                seconds, received = measures.rename(contender, there, back, files, _LARGER)
                renames.seconds.append(seconds)
                renames.received.append(received)
            self._compare(f"renames of a directory of {files:,} files", contender)

    def memory(self) -> None:
        """Measure the memory that a tree takes once it is mirrored."""
        tree = self._plan.memory
        self._say(f"{tree}, for the memory that they take")
        with self._equal(TREE, lambda root: self._grow(root, tree)) as contender:
            time.sleep(self._plan.rest)
            self.results.memory = Memory(tree, contender.resident(), contender.peak())
            self._compare(f"start with {tree}", contender)

    def _grow(self, root: Path, tree: Tree) -> None:
        self._say(f"making {tree}")
        load("tree", root, tree.files, tree.each)

    @contextmanager
    def _equal(self, kind: Kind, fill: Callable[[Path], object]) -> Iterator[Contender]:
        """Run mdvp-sync, and wait until Redis equals a new directory that was filled before."""
        with directory(self._place) as root:
            fill(root)
            with serving(root.parent) as server, contending(kind, root, server) as contender:
                contender.until_equal()
                yield contender

    @contextmanager
    def _ready(self, kind: Kind) -> Iterator[Contender]:
        """Run a contender that follows what happens in a new directory of its own, and below."""
        with (
            directory(self._place) as root,
            serving(root.parent) as server,
            contending(kind, root, server) as contender,
        ):
            get_ready(contender)
            yield contender

    def _compare(self, measure: str, contender: Contender) -> Comparison:
        compared = mirrored(contender).compared(contender.root)
        self.results.compared.append((measure, contender.kind.name, compared))
        return compared


PARTS: Mapping[str, Callable[[_Run], None]] = {
    "reconcile": _Run.reconcile,
    "burst": _Run.bursts,
    "visible": _Run.visible,
    "rename": _Run.renames,
    "memory": _Run.memory,
}


def _fill(path: Path, files: int) -> None:
    path.mkdir()
    load("write", path, files, _LARGER)


def _peers() -> Iterator[str]:
    """Say which of the programs that Debian may not have took part."""
    if is_there(WATCHMAN):
        yield f"watchman {output('watchman', '--version').strip()}"
    if is_there(LSYNCD):
        yield f"lsyncd {output('lsyncd', '-version').split()[-1]}"
