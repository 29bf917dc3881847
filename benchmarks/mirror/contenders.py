"""Who takes part: each a command that mirrors a directory to a Redis server, seen from outside.

Failure model. A contender that ends by itself, or that does not get ready, is a `BenchmarkError`
with the last of what it said.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import REPOSITORY, BenchmarkError
from benchmarks.mirror.server import Server, until

_HERE = Path(__file__).parent
_NS = 1e-9
_EQUALS = " equals "  # mdvp-sync's log has this when all is as in the directory
_PATIENCE = 600.0  # seconds, for the longest reconcile
_SAID = 2_000  # characters of its output that a message has


@dataclass(frozen=True, slots=True)
class Kind:
    """What a contender is: its name, and its command for a directory and a server's socket.

    All its keys begin with `prefix`.
    """

    name: str
    command: Callable[[Path, Path], Sequence[str]]
    prefix: bytes = b""

    def key(self, name: str) -> str:
        """Return the key of a file."""
        return self.prefix.decode() + name


SYNC = Kind(
    "mdvp-sync",
    lambda root, socket: (
        *("env", f"SYNC_ROOT={root}", f"REDIS_URL=unix://{socket}"),
        *(sys.executable, "-m", "sync", "run"),
    ),
)
WATCHDOG = Kind(
    "watchdog script",
    lambda root, socket: (
        sys.executable,
        str(_HERE / "watchdog_script.py"),
        str(root),
        str(socket),
    ),
)
INOTIFYWAIT = Kind(
    "inotifywait loop",
    lambda root, socket: (str(_HERE / "inotifywait_loop.sh"), str(root), str(socket)),
)
KINDS = (SYNC, WATCHDOG, INOTIFYWAIT)


def with_settings(words: str, **settings: str) -> Kind:
    """Return mdvp-sync with more settings, which the words are for."""
    return Kind(
        f"{SYNC.name} {words}",
        lambda root, socket: ("env", *_given(settings), *SYNC.command(root, socket)),
        settings.get("SYNC_PREFIX", "").encode(),
    )


def elsewhere(words: str, settings: Mapping[str, str]) -> Kind:
    """Return mdvp-sync with a server that is where its settings say, and at no socket."""
    return Kind(
        f"{SYNC.name} {words}",
        lambda root, _: (
            *("env", *_given(settings), f"SYNC_ROOT={root}"),
            *(sys.executable, "-m", "sync", "run"),
        ),
        settings.get("SYNC_PREFIX", "").encode(),
    )


def _given(settings: Mapping[str, str]) -> Sequence[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def is_ours(name: str) -> bool:
    """Say whether a contender of this name is mdvp-sync, with whatever settings."""
    return name.partition(" ")[0] == SYNC.name


KEYSPACE = Kind(
    "keyspace script",
    lambda root, socket: (
        sys.executable,
        str(_HERE / "keyspace_script.py"),
        str(root),
        str(socket),
    ),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender that runs."""

    kind: Kind
    root: Path
    server: Server
    process: subprocess.Popen[bytes]
    log: Path

    def says(self, words: str) -> bool:
        """Say whether its output so far has these words in it; it must not have ended."""
        if self.process.poll() is not None:
            said = self.log.read_text(errors="replace")[-_SAID:]
            raise BenchmarkError(f"{self.kind.name} ended by itself: {said}")
        return words in self.log.read_text(errors="replace")

    def until_equal(self) -> None:
        """Wait until it, which is mdvp-sync, says that Redis equals the directory."""
        until(lambda: self.says(_EQUALS), _PATIENCE)

    def get_ready(self) -> None:
        """Wait until it follows what happens: until a file comes, and goes."""
        probe, get = self.root / "ready", self.server.client.get
        key = self.kind.key(probe.name)

        def came() -> bool:
            self.says("")
            probe.write_bytes(b"yes")  # again: it may not have been watching yet
            return get(key) == b"yes"

        until(came, pause=0.05)
        probe.unlink()
        until(lambda: get(key) is None)

    def get_ready_for_keys(self) -> None:
        """Wait until it follows what happens in Redis: until a key comes, and goes."""
        probe, client = self.root / "ready", self.server.client

        def came() -> bool:
            self.says("")
            client.set(probe.name, b"yes")  # again: it may not have been listening yet
            return probe.exists() and probe.read_bytes() == b"yes"

        until(came, pause=0.05)
        client.delete(probe.name)
        until(lambda: not probe.exists())

    def resident(self) -> int:
        """Return how many bytes its processes have in memory."""
        return sum(_status(pid, "VmRSS") for pid in self._processes())

    def peak(self) -> int:
        """Return how many bytes its processes had in memory at most."""
        return sum(_status(pid, "VmHWM") for pid in self._processes())

    def cpu(self) -> float:
        """Return the seconds of processor time that the threads it has now have used.

        From schedstat, which counts nanoseconds; `stat` counts in hundredths of a second.
        """
        return sum(
            int(task.read_text().split()[0]) * _NS
            for pid in self._processes()
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat")
        )

    def _processes(self) -> Iterator[int]:
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if os.getpgid(int(entry.name)) == self.process.pid:
                    yield int(entry.name)


@contextmanager
def contending(kind: Kind, root: Path, server: Server) -> Iterator[Contender]:
    """Run a contender, which mirrors `root` to `server`; it has its own process group."""
    log = root.with_name("contender.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            kind.command(root, server.socket),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Contender(kind, root, server, process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
        with suppress(ProcessLookupError):  # those that did not end
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _status(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) << 10
