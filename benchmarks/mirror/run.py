"""The run: what is measured, with how much, in which order.

Every contender has a server and a directory of its own, all in one file system, in memory where
there is one: so a disk is in no figure. What is small and idle is measured in turns, some samples
each, so that whatever drifts meanwhile drifts for all of them alike; what takes both processors is
measured one after the other.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import describe, output
from benchmarks.mirror import both_ways, existing, measures
from benchmarks.mirror.both_ways import BothWays
from benchmarks.mirror.contenders import (
    INOTIFYWAIT,
    KINDS,
    SYNC,
    WATCHDOG,
    Contender,
    Kind,
    contending,
)
from benchmarks.mirror.existing import Existing
from benchmarks.mirror.load import LARGE
from benchmarks.mirror.place import FILE_NEEDS, directory, place
from benchmarks.mirror.results import Burst, Comparison, Idle, Results, Scan
from benchmarks.mirror.server import Server, serving
from benchmarks.report import MB

_OTHER = "renamed"
_PAUSE = 0.005  # seconds after which all are idle again when a file has come


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    samples: int  # of one file closed until it is seen, of each contender
    block: int  # of these in a turn
    idle: float  # seconds
    burst: int  # files
    bursts: Mapping[Kind, int]  # how often
    scans: Mapping[int, int]  # by files, how often
    rewrites: int
    large: int  # bytes
    renames: int
    many: int  # small files, for the memory that they take
    repeats: int  # of what takes no time to speak of
    both_ways: both_ways.Plan
    existing: existing.Plan


FULL = Plan(
    samples=2_000,
    block=20,
    idle=60.0,
    burst=100_000,
    bursts={SYNC: 5, WATCHDOG: 3, INOTIFYWAIT: 1},
    scans={100_000: 5, 1_000_000: 3},
    rewrites=100_000,
    large=300 * 10**6 >> 20 << 20,
    renames=20,
    many=200_000,
    repeats=5,
    both_ways=both_ways.FULL,
    existing=existing.FULL,
)
QUICK = Plan(
    samples=20,
    block=10,
    idle=1.0,
    burst=500,
    bursts=dict.fromkeys(KINDS, 1),
    scans={1_000: 1, 5_000: 1},
    rewrites=1_000,
    large=8 << 20,
    renames=2,
    many=2_000,
    repeats=1,
    both_ways=both_ways.QUICK,
    existing=existing.QUICK,
)


def run(plan: Plan, parts: Collection[str], say: Callable[[str], None]) -> Results:
    """Measure those of PARTS in `plan` that are wanted; tell with `say` what is going on."""
    with place(max(plan.scans) * FILE_NEEDS) as here:
        run = _Run(plan, here, say)
        run.results.machine = describe(*programs(here))
        for part, measure in PARTS.items():
            if part in parts:
                measure(run)
    return run.results


class _Run:
    """One run: where it takes place, and what was measured so far."""

    def __init__(self, plan: Plan, place: Path, say: Callable[[str], None]) -> None:
        self.results = Results(large=plan.large)
        self._plan = plan
        self._place = place
        self._say = say

    def files(self) -> None:
        """Measure what comes of files."""
        self.one_by_one()
        self.bursts()
        self.scans()
        self.rewrites()
        self.memory()

    def keys(self) -> None:
        """Measure what comes of changes in Redis."""
        BothWays(self._plan.both_ways, self._place, self.results, self._say).run()

    def existing(self) -> None:
        """Measure what comes of the Redis that people run."""
        Existing(self._plan.existing, self._place, self.results, self._say).run()

    def one_by_one(self) -> None:
        """Measure one file after the other, all contenders in turns; then let them be idle."""
        self._say(f"{self._plan.samples:,} single files for each")
        with ExitStack() as stack:
            present = [stack.enter_context(self._ready(kind)) for kind in KINDS]
            monitors = [stack.enter_context(each.server.monitor()) for each in present]
            for start in range(0, self._plan.samples, self._plan.block):
                turn = range(start, start + self._plan.block)
                for contender, monitor in zip(present, monitors, strict=True):
                    samples = self.results.visible.setdefault(contender.kind.name, [])
                    for number in turn:
                        samples.append(measures.until_visible(contender, monitor, number))
                        time.sleep(_PAUSE)
            self._idle(present)
            for contender in present:
                self._compare("single files", contender)

    def _idle(self, present: Sequence[Contender]) -> None:
        self._say(f"idle for {self._plan.idle:.0f} s")
        before = [contender.cpu() for contender in present]
        time.sleep(self._plan.idle)
        for contender, cpu in zip(present, before, strict=True):
            idle = Idle(self._plan.idle, contender.cpu() - cpu, contender.resident())
            self.results.idle[contender.kind.name] = idle

    def bursts(self) -> None:
        """Measure bursts, and what the writer alone takes for the same."""
        files = self._plan.burst
        for kind, times in self._plan.bursts.items():
            for number in range(times):
                self._say(f"a burst of {files:,} files: {kind.name}, {number + 1}")
                with directory(self._place) as unwatched:
                    began, written = measures.load("write", unwatched, files)
                self.results.writer.append(written - began)
                with self._ready(kind) as contender:
                    followed = measures.follow_burst(contender, files)
                    compared = self._compare(f"a burst of {files:,} files", contender)
                burst = Burst(files, followed, compared)
                self.results.bursts.setdefault(kind.name, []).append(burst)

    def memory(self) -> None:
        """Measure the memory that many small files and a large one take, and rename that."""
        many, large = self._plan.many, self._plan.large
        self._say(f"{many:,} small files, for the memory that they take")
        with self._ready(SYNC) as contender:
            measures.follow_burst(contender, many)
            self.results.peaks[f"{many:,} small files come"] = contender.peak()
            self._compare(f"a burst of {many:,} files", contender)
        self._say(f"a file of {large / MB:.0f} MB, for the same, and its renames")
        with self._ready(SYNC) as contender:
            measures.write_large(contender, large)
            self.results.peaks[f"a file of {large / MB:.0f} MB comes"] = contender.peak()
            self._compare("a large file", contender)
            with contender.server.monitor() as monitor:
                for number in range(self._plan.renames):
                    there, back = (LARGE, _OTHER) if number % 2 == 0 else (_OTHER, LARGE)
                    seconds, received = measures.rename(contender, monitor, there, back)
                    self.results.renames.append(seconds)
                    self.results.moved.append(received)
                    time.sleep(_PAUSE)
            self._compare("renames of a large file", contender)

    def scans(self) -> None:
        """Measure how files are read that are there before, by mdvp-sync and at best."""
        with directory(self._place) as root:
            for _ in range(self._plan.repeats):
                with serving(root.parent) as server:
                    self.results.empty_start.append(self._start(root, server, "start, no files"))
        for files, times in self._plan.scans.items():
            with directory(self._place) as root:
                self._say(f"making {files:,} files")
                measures.load("write", root, files)
                protocol = root.with_name("protocol")
                measures.write_protocol(protocol, files)
                scan = self.results.scans[files] = Scan()
                for number in range(times):
                    self._say(f"first reconcile and restart with {files:,} files, {number + 1}")
                    began, ended = measures.load("read", root, files)
                    scan.read.append(ended - began)
                    with serving(root.parent) as server:
                        scan.piped.append(measures.pipe(protocol, server))
                    with serving(root.parent) as server:
                        scan.first.append(
                            self._start(root, server, f"first reconcile of {files:,} files")
                        )
                        scan.restart.append(
                            self._start(root, server, f"restart with {files:,} files")
                        )

    def _start(self, root: Path, server: Server, what: str) -> float:
        """Start mdvp-sync; return how long it was until it said that Redis equals the directory."""
        began = time.perf_counter()
        with contending(SYNC, root, server) as contender:
            contender.until_equal()
            took = time.perf_counter() - began
            self._compare(what, contender)
        return took

    def rewrites(self) -> None:
        """Measure what comes of one file that is rewritten over and over."""
        times = self._plan.rewrites
        for number in range(self._plan.repeats):
            self._say(f"rewriting one file {times:,} times, {number + 1}")
            with self._ready(SYNC) as contender, contender.server.monitor() as monitor:
                self.results.rewrites.append(measures.rewrite(contender, monitor, times))
                self._compare(f"{times:,} rewrites", contender)

    @contextmanager
    def _ready(self, kind: Kind) -> Iterator[Contender]:
        """Run a contender that follows what happens in a new directory of its own."""
        with (
            directory(self._place) as root,
            serving(root.parent) as server,
            contending(kind, root, server) as contender,
        ):
            contender.get_ready()
            yield contender

    def _compare(self, measure: str, contender: Contender) -> Comparison:
        compared = contender.server.compared(contender.root)
        self.results.compared.append((measure, contender.kind.name, compared))
        return compared


PARTS: Mapping[str, Callable[[_Run], None]] = {
    "files": _Run.files,
    "keys": _Run.keys,
    "existing": _Run.existing,
}


def programs(here: Path) -> list[str]:
    """Say which programs took part, and on what."""
    queue = Path("/proc/sys/fs/inotify/max_queued_events").read_text().strip()
    return [
        f"files on {output('stat', '--file-system', '--format=%T', str(here)).strip()}",
        f"{int(queue):,} events in an inotify queue",
        f"Redis {output('redis-server', '--version').partition('v=')[2].split()[0]}",
        f"Python {platform.python_version()}",
        f"redis-py {version('redis')}",
        f"watchdog {version('watchdog')}",
        # Its name and version are the first line of its help, which it takes for a failure.
        output("inotifywait", "--help", check=False).partition("\n")[0],
    ]
