"""The run: which subjects, how many volumes and containers, which operations, in which order.

All subjects take turns, some calls each, so that whatever drifts meanwhile (the processor's speed,
the disk's work, other programs) drifts for all of them alike.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import sleep

from e2e.engine import PrivateEngine

from benchmarks import REPOSITORY
from benchmarks.machine import describe, output
from benchmarks.volumes.access import HELD, NEW_CONNECTION, Access, EngineAccess, sleeper
from benchmarks.volumes.results import Cell, Results
from benchmarks.volumes.subjects import (
    LOCAL,
    PLUGIN,
    PLUGIN_NAME,
    Subject,
    engine_socket,
    subjects,
)
from benchmarks.volumes.wire import Connection, request

_AT_ONCE = 4  # containers that are started at a time
_IN_FOLDER = 1_000  # files
_FULL_VOLUME = "full"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    sizes: Sequence[int]  # volumes that are there
    rounds: int  # turns of each subject; a turn has `block` calls of an operation
    block: int
    starts: int  # of a container with a volume
    containers: int  # that run besides
    enables: int  # of the plugin
    files: int  # in the volume that is removed
    # Seconds after each mount and unmount, of any subject. rclone 1.60 stops for ever
    # when a Mount or Unmount comes before its monitor has heard of the one before: it tells
    # the monitor through a channel while it holds the lock that the monitor waits for.
    pause: float


FULL = Plan((10, 1_000, 10_000), 20, 10, 20, 100, 5, 1_000_000, pause=0.02)
QUICK = Plan((5, 20), 1, 3, 1, 2, 1, 2_000, pause=0.1)


def run(engine: PrivateEngine, plan: Plan, say: Callable[[str], None]) -> Results:
    """Measure all there is in `plan` on the engine's machine; tell with `say` what is going on."""
    say("building the plugin and starting what it is compared with")
    with subjects(engine) as present:
        run = _Run(engine, plan, present, Results(files=plan.files))
        run.results.machine = describe(*_programs(engine))
        run.results.rootfs = _size(REPOSITORY / "plugin" / "rootfs")
        for access in run.through_engine():
            access.hold()
        try:
            for size in plan.sizes:
                say(f"making {size:,} volumes of each")
                run.seed(size)
                say("measuring the operations")
                run.operations(size)
                run.starts(size, 0)
                say(f"measuring with {plan.containers} other containers")
                with _others(engine, plan.containers):
                    run.beside_others(size)
                    run.starts(size, plan.containers)
                run.memory(size)
                run.enables(size)
            say(f"removing a volume with {plan.files:,} files")
            run.removal()
        finally:
            run.unseed()
    return run.results


class _Run:
    """One run: who takes part in it, and what was measured so far."""

    def __init__(
        self, engine: PrivateEngine, plan: Plan, present: Sequence[Subject], results: Results
    ) -> None:
        self.results = results
        self._engine = engine
        self._plan = plan
        self._present = present
        self._seeds: dict[str, list[str]] = {subject.name: [] for subject in present}

    def through_engine(self) -> list[EngineAccess]:
        """Return the ways through the engine, of those subjects that the engine knows."""
        return [access for _, access in self._ways() if isinstance(access, EngineAccess)]

    def _ways(self) -> Iterator[tuple[Subject, Access]]:
        for subject in self._present:
            for access in subject.accesses:
                access.connection.ensure()
                yield subject, access

    def seed(self, size: int) -> None:
        """Make volumes that are only there, until each subject has `size`."""
        for subject in self._present:
            seeds, access = self._seeds[subject.name], subject.seeding
            access.connection.ensure()
            for number in range(len(seeds), size):
                seeds.append(f"seed-{subject.name.replace(' ', '-')}-{number:06}")
                access.connection.exchange(access.create(seeds[-1]))

    def unseed(self) -> None:
        """Remove these volumes from the engine's own driver; the others go with all they have."""
        for subject in self._present:
            if subject.name == LOCAL:
                for name in self._seeds[subject.name]:
                    subject.seeding.connection.exchange(subject.seeding.remove(name))

    def operations(self, size: int) -> None:
        """Measure each operation, with nothing else running."""
        for turn in range(self._plan.rounds):
            names = [f"turn-{turn}-{number}" for number in range(self._plan.block)]
            for subject, access in self._ways():
                for operation, messages in access.operations(names):
                    self._time(Cell(access.level, operation, subject.name, size), access, messages)

    def beside_others(self, size: int) -> None:
        """Measure once more what may take longer where other containers run."""
        for turn in range(self._plan.rounds):
            names = [f"beside-{turn}-{number}" for number in range(self._plan.block)]
            for subject, access in self._ways():
                for name in names:
                    access.connection.exchange(access.create(name))
                for operation, messages in access.uses(names):
                    cell = Cell(access.level, operation, subject.name, size, self._plan.containers)
                    self._time(cell, access, messages)
                for name in names:
                    access.connection.exchange(access.remove(name))

    def _time(self, cell: Cell, access: Access, messages: Sequence[bytes]) -> None:
        pause = self._plan.pause if "mount" in cell.operation else 0
        time = access.connection.time
        if cell.operation.endswith(NEW_CONNECTION):
            time = access.connection.time_with_connect
        for message in messages:
            self.results.add(cell, time(message))
            sleep(pause)

    def starts(self, size: int, containers: int) -> None:
        """Measure the start and the stop of a container with a volume."""
        for _ in range(self._plan.starts):
            for subject, access in self._ways():
                if isinstance(access, EngineAccess):
                    for operation, messages in access.life():
                        cell = Cell(access.level, operation, subject.name, size, containers)
                        self._time(cell, access, messages)

    def memory(self, size: int) -> None:
        """Take down what the drivers have in memory."""
        for subject in self._present:
            if (resident := subject.resident()) is not None:
                self.results.resident[subject.name, size] = resident

    def enables(self, size: int) -> None:
        """Measure how long it is from `docker plugin enable` to the first answer after it."""
        through, direct = next(s for s in self._present if s.name == PLUGIN).accesses
        connection, plugin = through.connection, f"/plugins/{PLUGIN_NAME}"
        for _ in range(self._plan.enables):
            connection.exchange(request("POST", f"{plugin}/disable?force=1"))
            enabled = connection.time(request("POST", f"{plugin}/enable?timeout=60"))
            answered = connection.time(request("GET", f"/volumes/{HELD}{PLUGIN_NAME}"))
            self.results.enable.setdefault(size, []).append(enabled + answered)
        direct.connection.ensure()

    def removal(self) -> None:
        """Measure `docker volume rm` of a volume with many files, where a driver has the files."""
        for subject, access in self._ways():
            if subject.volumes is not None and isinstance(access, EngineAccess):
                access.connection.exchange(access.create(_FULL_VOLUME))
                # The engine's own driver keeps the files one level deeper.
                below = "_data" if subject.name == LOCAL else ""
                _fill(subject.volumes / _FULL_VOLUME / below, self._plan.files)
                took = access.connection.time(access.remove(_FULL_VOLUME))
                self.results.remove[subject.name] = took


def _programs(engine: PrivateEngine) -> list[str]:
    """Say which engine, Python and rclone took part."""
    version = engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    (library,) = (REPOSITORY / "plugin/rootfs/usr/lib").glob("python3.*")
    return [
        f"Docker Engine {version}",
        f"Python {library.name.removeprefix('python')} in the plugin and "
        f"{platform.python_version()} beside it",
        f"rclone {output('rclone', 'version').split()[1]}",
    ]


@contextmanager
def _others(engine: PrivateEngine, count: int) -> Iterator[None]:
    """Have other containers run."""
    names = [f"other-{number}" for number in range(count)]

    def start(name: str) -> None:
        with closing(Connection(engine_socket(engine))) as connection:
            connection.exchange(request("POST", f"/containers/create?name={name}", sleeper()))
            connection.exchange(request("POST", f"/containers/{name}/start"))

    def end(name: str) -> None:
        with closing(Connection(engine_socket(engine))) as connection:
            connection.exchange(request("DELETE", f"/containers/{name}?force=1"))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(start, names))
        try:
            yield
        finally:
            list(pool.map(end, names))


def _fill(directory: Path, files: int) -> None:
    """Make empty files, some to a directory, with all processors."""
    folders = [
        (directory / f"{number:06}", min(_IN_FOLDER, files - number))
        for number in range(0, files, _IN_FOLDER)
    ]
    with get_context("spawn").Pool() as pool:
        pool.starmap(_fill_folder, folders)


def _fill_folder(folder: Path, files: int) -> None:
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(files):
        os.mknod(f"{number:06}", stat.S_IFREG | 0o644, dir_fd=descriptor)
    os.close(descriptor)


def _size(directory: Path) -> int:
    """Return how many bytes the files below a directory have, each counted once."""
    files = {
        (status.st_dev, status.st_ino): status.st_size
        for path in directory.rglob("*")
        if stat.S_ISREG((status := path.lstat()).st_mode)
    }
    return sum(files.values())
