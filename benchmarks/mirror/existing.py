"""What is measured of the Redis that people run: a cluster, Sentinels, and what is built on it.

All of it beside one server that is reached in the same way, over TCP, by a service that has the
same prefix; and with a stream of changes beside without. What takes both processors is measured in
turns, too: whatever else goes on drifts for all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import REPOSITORY, BenchmarkError
from benchmarks.mirror import measures
from benchmarks.mirror.contenders import Contender, Kind, contending, elsewhere
from benchmarks.mirror.deployments import ALL, TAG, Deployment, alone
from benchmarks.mirror.failover import fail_over
from benchmarks.mirror.load import name, value
from benchmarks.mirror.place import directory
from benchmarks.mirror.results import Burst, Results, Waits, Work

STREAM = "changes"
STREAMED = f", SYNC_STREAM={STREAM}"
_RANGE = 1_000_000  # numbers of files for each contender: they may share a server
_PAUSE = 0.005  # seconds after which all are idle again when a file has come


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    samples: int  # of one file closed until it is seen, of each contender
    block: int  # of these in a turn
    burst: int  # files
    bursts: int  # of each contender
    waits: int  # in one process, without a file before and with one
    commands: int
    failovers: int  # of each kind
    busy: float  # seconds for which files come before a failover


FULL = Plan(
    samples=2_000,
    block=20,
    burst=100_000,
    bursts=3,
    waits=1_000,
    commands=100,
    failovers=10,
    busy=2.0,
)
QUICK = Plan(samples=20, block=10, burst=500, bursts=1, waits=10, commands=2, failovers=1, busy=0.1)


class Existing:
    """One run: where it takes place, and what was measured so far."""

    def __init__(
        self, plan: Plan, place: Path, results: Results, say: Callable[[str], None]
    ) -> None:
        """Measure what is in `plan`, and add it to `results`; tell with `say` what is going on."""
        self._plan = plan
        self._place = place
        self._compared = results.compared
        self._results = results.existing
        self._say = say

    def run(self) -> None:
        """Measure all there is."""
        began = os.getloadavg()[0]
        with self._running(alone) as deployment:
            self.waits(deployment)
        with ExitStack() as stack:
            self._say("starting a cluster, Sentinels, and servers beside them")
            present = [stack.enter_context(self._running(each)) for each in ALL]
            self.one_by_one(present)
            self.bursts(present)
            for deployment in present:
                if deployment.fails_over:
                    self.failovers(deployment)
        self._results.load = (began, os.getloadavg()[0])

    def one_by_one(self, present: Sequence[Deployment]) -> None:
        """Measure one file after the other, all contenders in turns."""
        self._say(f"{self._plan.samples:,} single files for each")
        with ExitStack() as stack:
            contenders = [
                stack.enter_context(self._equal(deployment, kind))
                for deployment in present
                for kind in kinds(deployment)
            ]
            monitors = [stack.enter_context(each.server.monitor()) for each in contenders]
            for start in range(0, self._plan.samples, self._plan.block):
                for index, contender in enumerate(contenders):
                    samples = self._results.visible.setdefault(contender.kind.name, [])
                    first, before = index * _RANGE + start, _worked(contender)
                    for number in range(first, first + self._plan.block):
                        seen = measures.until_visible(contender, monitors[index], number)
                        samples.append(seen)
                        time.sleep(_PAUSE)
                    work = _work(before, _worked(contender), self._plan.block)
                    self._results.turns.setdefault(contender.kind.name, []).append(work)
            for contender in contenders:
                self._compare("single files", contender)

    def bursts(self, present: Sequence[Deployment]) -> None:
        """Measure bursts, all contenders in turns."""
        files = self._plan.burst
        for number in range(self._plan.bursts):
            for deployment in present:
                for kind in kinds(deployment):
                    self._say(f"a burst of {files:,} files: {kind.name}, {number + 1}")
                    deployment.empty()
                    with self._equal(deployment, kind) as contender:
                        before = _worked(contender)
                        followed = measures.follow_burst(contender, files)
                        work = _work(before, _worked(contender), 1)
                        self._results.works.setdefault(kind.name, []).append(work)
                        self._compare(f"a burst of {files:,} files", contender)
                    burst = Burst(files, followed, self._compared[-1][2])
                    self._results.bursts.setdefault(kind.name, []).append(burst)

    def waits(self, deployment: Deployment) -> None:
        """Measure `mdvp-sync wait` beside a service that has nothing else to do."""
        self._say(f"{self._plan.waits:,} waits, {self._plan.commands:,} commands that wait")
        kind = kinds(deployment)[0]
        with self._equal(deployment, kind) as contender:
            waits = self._results.waits[kind.name] = Waits()
            environ = {**os.environ, **settings(deployment), "SYNC_ROOT": str(contender.root)}
            with _waiting(environ) as wait:
                wait()  # it has loaded all that it needs then
                for number in range(self._plan.waits):
                    waits.nothing.append(wait())
                    time.sleep(_PAUSE)
                    waits.file.append(_written(contender, number, wait))
                    time.sleep(_PAUSE)
            for number in range(self._plan.waits, self._plan.waits + self._plan.commands):
                waits.interpreter.append(_run(("-c", ""), environ))
                waits.command.append(
                    _written(contender, number, lambda: _run(("-m", "sync", "wait"), environ))
                )
            self._compare("waits", contender)

    def failovers(self, deployment: Deployment) -> None:
        """Measure how long nothing is written when the server that has the keys dies."""
        kind = kinds(deployment)[0]
        for number in range(self._plan.failovers):
            self._say(f"a server dies: {kind.name}, {number + 1}")
            deployment.empty()
            with self._equal(deployment, kind) as contender:
                failover = fail_over(deployment, contender, self._plan.busy)
                self._results.failovers.setdefault(kind.name, []).append(failover)
                deployment.mend()
                with closing(deployment.server()) as server:
                    self._compare("a failover", replace(contender, server=server))

    @contextmanager
    def _running(
        self, run: Callable[[Path], AbstractContextManager[Deployment]]
    ) -> Iterator[Deployment]:
        with directory(self._place) as place, run(place) as deployment:
            yield deployment

    @contextmanager
    def _equal(self, deployment: Deployment, kind: Kind) -> Iterator[Contender]:
        """Run mdvp-sync with a new directory, until that and Redis are equal."""
        with (
            directory(self._place) as root,
            closing(deployment.server()) as server,
            contending(kind, root, server) as contender,
        ):
            contender.until_equal()
            yield contender

    def _compare(self, measure: str, contender: Contender) -> None:
        server, kind = contender.server, contender.kind
        found = server.compared(contender.root, kind.prefix)
        if is_streamed(kind):
            told = int(server.client.xlen(kind.key(STREAM)))
            if told < found.files:
                raise BenchmarkError(f"{kind.name}: {told:,} changes told of {found.files:,} files")
            found = replace(found, extra=found.extra - 1)  # the stream
        self._compared.append((measure, contender.kind.name, found))


def kinds(deployment: Deployment) -> Sequence[Kind]:
    """Return mdvp-sync with these servers, without a stream of changes and with one."""
    streamed = settings(deployment, SYNC_PREFIX=_prefix("b"), SYNC_STREAM=STREAM)
    return (
        elsewhere(f"to {deployment.name}", settings(deployment)),
        elsewhere(f"to {deployment.name}{STREAMED}", streamed),
    )


def settings(deployment: Deployment, **more: str) -> Mapping[str, str]:
    """Return what mdvp-sync is told for these servers."""
    return {**deployment.environ, "SYNC_PREFIX": _prefix("a"), **more}


def is_streamed(kind: Kind) -> bool:
    """Say whether a contender tells a stream of changes."""
    return kind.name.endswith(STREAMED)


def _worked(contender: Contender) -> Work:
    """Return the processor time that a contender and its server have used so far."""
    return Work(contender.cpu(), contender.server.cpu())


def _work(before: Work, after: Work, parts: int) -> Work:
    service, server = after.service - before.service, after.server - before.server
    return Work(service / parts, server / parts)


def _prefix(which: str) -> str:
    return f"{TAG.decode()}{which}:"


@contextmanager
def _waiting(environ: Mapping[str, str]) -> Iterator[Callable[[], float]]:
    """Run a process that waits whenever it is told to; yield what tells it, and its time."""
    with subprocess.Popen(
        (sys.executable, "-m", "benchmarks.mirror.waiter"),
        cwd=REPOSITORY,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:

        def wait() -> float:
            assert process.stdin is not None  # noqa: S101  # they are pipes
            assert process.stdout is not None  # noqa: S101
            process.stdin.write("\n")
            try:
                return float(process.stdout.readline())
            except ValueError as error:
                raise BenchmarkError("a wait failed: what it said is above") from error

        try:
            yield wait
        finally:
            process.kill()


def _written(contender: Contender, number: int, wait: Callable[[], float]) -> float:
    """Close a new file, and wait; return how long that took. It must be in Redis then."""
    (contender.root / name(number)).write_bytes(value(number))
    took = wait()
    if contender.server.value(contender.kind.key(name(number))) != value(number):
        raise BenchmarkError(f"a wait has ended, and {name(number)} is not in Redis")
    return took


def _run(arguments: Sequence[str], environ: Mapping[str, str]) -> float:
    """Run Python with these arguments; return how long it took."""
    began = time.perf_counter()
    subprocess.run((sys.executable, *arguments), cwd=REPOSITORY, env=environ, check=True)
    return time.perf_counter() - began
