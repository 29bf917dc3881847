"""The run: a volume with very many files on each file system, and all that can be done with it.

mdvp runs as a process beside the engine, on file systems of their own, each in a file on a loop
device; it is asked on its socket, as the engine and `mdvp ls` do. What else there is for the same
works on the same files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import monotonic, perf_counter, sleep

from e2e.engine import PrivateEngine
from filesystems import file_system

from benchmarks import REPOSITORY, BenchmarkError
from benchmarks.life.results import (
    CLONE,
    COMMAND,
    CP,
    DOCKER_CP,
    DU,
    LIST,
    LIST_MEANWHILE,
    REMOVE,
    RESTORE,
    RM,
    STATUS,
    STATUS_MEANWHILE,
    Results,
)
from benchmarks.machine import describe, output
from benchmarks.volumes.access import IMAGE
from benchmarks.volumes.wire import Connection, request

KINDS = ("btrfs", "xfs", "ext4")
_VOLUME = "vol"
_IN_FOLDER = 1_000  # files
_PAUSE = 0.2  # seconds between two looks at how far a clone is
_DEADLINE = 60.0  # seconds, for mdvp to answer
_COPIED_WITHIN = 3_600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    files: int
    size: int  # bytes of each
    turns: int  # into the trash and back
    clones: int  # where the file system can take a snapshot; else one
    shown: int  # how often a volume is shown, and all are listed
    commands: int
    disk: int  # bytes that each file system has


FULL = Plan(1_000_000, 1_024, 50, 5, 500, 20, disk=64 << 30)
QUICK = Plan(300, 100, 2, 1, 3, 1, disk=1 << 30)

Say = Callable[[str], None]


def run(plan: Plan, say: Say) -> Results:
    """Measure all there is in `plan`, on each file system; tell with `say` what is going on."""
    results = Results(files=plan.files, size=plan.size)
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with ExitStack() as stack:
        # Not below /tmp, of which the engine's machine has its own.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=REPOSITORY / "build")))
        disks = {kind: stack.enter_context(file_system(kind, place, plan.disk)) for kind in KINDS}
        # After the disks, as it may not get to see what is mounted later.
        engine = stack.enter_context(PrivateEngine())
        _make_image(engine)
        results.machine = describe(*_programs(engine))
        for kind, disk in disks.items():
            say(f"making {plan.files:,} files on {kind}")
            with _serving(disk) as mdvp:
                _Run(plan, kind, disk, mdvp, results, say).all(engine)
    return results


def _make_image(engine: PrivateEngine) -> None:
    subprocess.run(
        [REPOSITORY / "scripts" / "base_image.sh", IMAGE],
        env={"MDVP_CACHE": str(REPOSITORY / ".cache"), **engine.environ},
        check=True,
        capture_output=True,
    )


def _programs(engine: PrivateEngine) -> list[str]:
    version = engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    python = f"Python {sys.version.split()[0]}"
    return [f"Docker Engine {version}", python, output("cp", "--version").split("\n", 1)[0]]


@contextmanager
def _serving(root: Path) -> Iterator[Path]:
    """Run mdvp; yield its socket."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "mdvp.sock"
        command = [sys.executable, "-m", "mdvp", "serve", f"--root={root}", f"--socket={socket}"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            _until(lambda: _listens(socket) or process.poll() is not None, _DEADLINE)
            yield socket
        finally:
            process.kill()  # it would go on to delete what was removed
            process.wait()


def _listens(socket: Path) -> bool:
    with suppress(OSError):
        Connection(socket).close()
        return True
    return False


def _until(probe: Callable[[], bool], seconds: float, pause: float = 0.01) -> None:
    end = monotonic() + seconds
    while not probe():
        if monotonic() > end:
            raise BenchmarkError(f"it takes longer than {seconds:,.0f} s")
        sleep(pause)


class _Run:
    """One run on one file system."""

    def __init__(  # noqa: PLR0913, PLR0917  # what it is about
        self, plan: Plan, kind: str, disk: Path, socket: Path, results: Results, say: Say
    ) -> None:
        self._plan = plan
        self._kind = kind
        self._disk = disk
        self._socket = socket
        self._results = results
        self._say = say

    def all(self, engine: PrivateEngine) -> None:
        with closing(Connection(self._socket)) as connection:
            self._make(connection)
            self._say("into the trash and back")
            self._trash(connection)
            self._show(connection, STATUS, LIST, self._plan.shown)
            self._command()
            self._say("cloning it")
            self._clones(connection)
        self._say("what else there is for the same")
        self._others(engine)

    def _make(self, connection: Connection) -> None:
        connection.exchange(_create(_VOLUME, **{"on-remove": "trash"}))
        fill(self._disk / _VOLUME, self._plan.files, self._plan.size)
        os.sync()  # of which nothing is to be in the figures

    def _trash(self, connection: Connection) -> None:
        for _ in range(self._plan.turns):
            self._add(REMOVE, connection.time(_call("Remove", Name=_VOLUME)))
            self._add(RESTORE, connection.time(_create(_VOLUME, restore=_VOLUME)))

    def _show(self, connection: Connection, status: str, listing: str, times: int) -> None:
        for _ in range(times):
            self._add(status, connection.time(_call("Get", Name=_VOLUME)))
            self._add(listing, connection.time(request("POST", "/Mdvp.List", {})))

    def _command(self) -> None:
        command = [sys.executable, "-m", "mdvp", "ls", f"--socket={self._socket}"]
        for _ in range(self._plan.commands):
            self._add(COMMAND, _timed(command))

    def _clones(self, connection: Connection) -> None:
        for number in range(self._plan.clones):
            name = f"clone-{number}"
            begin = perf_counter()
            connection.exchange(_create(name, **{"from": _VOLUME}))
            while "filling" in (status := self._status(connection, name)):
                self._show(connection, STATUS_MEANWHILE, LIST_MEANWHILE, 1)
                sleep(_PAUSE)
            self._add(CLONE, perf_counter() - begin)
            self._check(self._disk / name)
            self._results.means[self._kind] = means = str(status["means"])
            if means != "snapshot":
                break

    def _status(self, connection: Connection, name: str) -> Mapping[str, object]:
        answer = json.loads(connection.exchange(_call("Get", Name=name)))
        status: Mapping[str, object] = answer["Volume"]["Status"]
        return status

    def _others(self, engine: PrivateEngine) -> None:
        source, copy = self._disk / _VOLUME, self._disk / "by-cp"
        self._add(DU, _timed(["du", "-s", str(source)]))
        self._add(CP, _timed(["cp", "-a", str(source), str(copy)]))
        self._check(copy)
        self._add(RM, _timed(["rm", "-rf", str(copy)]))
        copy = self._disk / "by-docker"
        copy.mkdir()
        begin = perf_counter()
        engine.docker(
            *("run", "--rm", "--volume", f"{source}:/from:ro", "--volume", f"{copy}:/to", IMAGE),
            *("cp", "-a", "/from/.", "/to/"),
            timeout=_COPIED_WITHIN,
        )
        self._add(DOCKER_CP, perf_counter() - begin)
        self._check(copy)

    def _add(self, operation: str, seconds: float) -> None:
        self._results.add(operation, self._kind, seconds)

    def _check(self, copy: Path) -> None:
        """Raise BenchmarkError when a copy is not whole."""
        folders = list(copy.iterdir())
        files = sum(len(os.listdir(folder)) for folder in folders)
        if files != self._plan.files:
            raise BenchmarkError(f"{copy} has {files:,} of {self._plan.files:,} files")


def _timed(command: Sequence[str]) -> float:
    begin = perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return perf_counter() - begin


def _call(operation: str, **message: object) -> bytes:
    return request("POST", f"/VolumeDriver.{operation}", message)


def _create(name: str, **options: str) -> bytes:
    return _call("Create", Name=name, Opts=options)


def fill(directory: Path, files: int, size: int) -> None:
    """Make files of `size` bytes, some to a directory, with all processors."""
    folders = [
        (directory / f"{number:06}", min(_IN_FOLDER, files - number), size)
        for number in range(0, files, _IN_FOLDER)
    ]
    with get_context("spawn").Pool() as pool:
        pool.starmap(_fill_folder, folders)


def _fill_folder(folder: Path, files: int, size: int) -> None:
    folder.mkdir()
    content = os.urandom(size)
    for number in range(files):
        (folder / f"{number:06}").write_bytes(content)
