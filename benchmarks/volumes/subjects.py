"""What is measured: the plugin, the same program as a plain process, the engine's driver, rclone.

All but the engine's own driver run on the machine of a `PrivateEngine`, on one disk. Each subject
is a context manager that takes away what it has made, so that an engine can be used on.

rclone is Debian's, with its own defaults but for the backend, which is a local directory. Its
volumes share that directory: it makes none for a volume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.engine import PrivateEngine

from benchmarks import REPOSITORY
from benchmarks.volumes.access import Access, EngineAccess, SocketAccess
from benchmarks.volumes.wire import Connection, WireError

LOCAL, PLUGIN, PROCESS, RCLONE = "local", "mdvp", "mdvp serve", "rclone"
PLUGIN_NAME = "mdvp-bench"
_DEADLINE = 60.0  # seconds, for a program to answer


@dataclass(frozen=True, slots=True)
class Subject:
    """A driver, the ways to it, and where its volumes are on the disk (None: it makes none)."""

    name: str
    accesses: Sequence[Access]
    volumes: Path | None = None

    @property
    def seeding(self) -> Access:
        """The way on which volumes are made that only have to be there: the quickest."""
        return self.accesses[-1]

    def resident(self) -> int | None:
        """Return how many bytes the driver's process has in memory; None when it has no process."""
        if not isinstance(self.seeding, SocketAccess):
            return None
        status = Path(f"/proc/{self.seeding.connection.peer}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10


@contextmanager
def subjects(engine: PrivateEngine) -> Iterator[list[Subject]]:
    """Yield all subjects on the engine's machine, ready to answer."""
    with ExitStack() as stack:
        yield [stack.enter_context(make(engine)) for make in (_local, _plugin, _process, _rclone)]


def engine_socket(engine: PrivateEngine) -> Path:
    """Return the socket of the engine's API, as we see it."""
    return Path(engine.environ["DOCKER_HOST"].removeprefix("unix://"))


@contextmanager
def _local(engine: PrivateEngine) -> Iterator[Subject]:
    data = engine.tmp.with_name("data") / "volumes"
    with closing(EngineAccess(engine_socket(engine), "local", {})) as access:
        yield Subject(LOCAL, [access], data)


@contextmanager
def _plugin(engine: PrivateEngine) -> Iterator[Subject]:
    data = engine.tmp.with_name("benchmark-plugin")
    data.mkdir()
    build = subprocess.run(
        [REPOSITORY / "scripts/build_plugin.sh"],
        env={
            "MDVP_CACHE": str(REPOSITORY / ".cache"),
            **engine.environ,
            "PLUGIN_NAME": PLUGIN_NAME,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if build.returncode:
        raise WireError(f"the plugin cannot be built:\n{build.stdout}{build.stderr}")
    engine.docker("plugin", "set", PLUGIN_NAME, f"data.source={data}")
    engine.docker("plugin", "enable", PLUGIN_NAME)
    inspected = engine.docker("plugin", "inspect", "--format", "{{.Id}}", PLUGIN_NAME)
    identity = inspected.stdout.strip()
    socket = _on_machine(engine, f"run/docker/plugins/{identity}/mdvp.sock")
    try:
        with (
            closing(SocketAccess(socket, {})) as direct,
            closing(EngineAccess(engine_socket(engine), f"{PLUGIN_NAME}:latest", {})) as access,
        ):
            yield Subject(PLUGIN, [access, direct], data)
    finally:
        engine.docker("plugin", "rm", "--force", PLUGIN_NAME, check=False)


@contextmanager
def _process(engine: PrivateEngine) -> Iterator[Subject]:
    data = engine.tmp.with_name("benchmark-process")
    data.mkdir()
    # Not among the sockets of the engine's plugins, where the engine would ask it, too.
    command = [
        *(".venv/bin/python", "-m", "mdvp", "serve"),
        *(f"--root={data}", "--socket=/run/benchmark.sock"),
    ]
    socket = _on_machine(engine, "run/benchmark.sock")
    with _listening(engine, command, socket), closing(SocketAccess(socket, {})) as direct:
        yield Subject(PROCESS, [direct], data)


@contextmanager
def _rclone(engine: PrivateEngine) -> Iterator[Subject]:
    place = engine.tmp.with_name("benchmark-rclone")
    (place / "remote").mkdir(parents=True)
    options: Mapping[str, str] = {"type": "local", "path": str(place / "remote")}
    command = [
        *("rclone", "serve", "docker", "--socket-addr=/run/docker/plugins/rclone.sock"),
        *(f"--base-dir={place / 'mounts'}", f"--cache-dir={place / 'cache'}"),
        f"--config={place / 'rclone.conf'}",
    ]
    _on_machine(engine, "run/docker/plugins").mkdir(parents=True, exist_ok=True)
    socket = _on_machine(engine, "run/docker/plugins/rclone.sock")
    with (
        _listening(engine, command, socket),
        closing(SocketAccess(socket, options)) as direct,
        closing(EngineAccess(engine_socket(engine), "rclone", options)) as access,
    ):
        yield Subject(RCLONE, [access, direct])


def _on_machine(engine: PrivateEngine, path: str) -> Path:
    return Path(f"/proc/{engine.pid}/root") / path


@contextmanager
def _listening(engine: PrivateEngine, command: Sequence[str], socket: Path) -> Iterator[None]:
    """Run a program on the engine's machine, from when it answers on `socket`."""
    enter = ["nsenter", f"--target={engine.pid}", "--mount", "--net", "--pid", "--"]
    log = engine.log.with_name(f"{Path(command[0]).name}.log")
    with log.open("wb") as output:
        program = subprocess.Popen(
            [*enter, "env", "--chdir=/run/repository", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + _DEADLINE
    while (connection := _connected(socket)) is None:
        if program.poll() is not None or time.monotonic() > deadline:
            raise WireError(f"{command[0]} does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.02)
    with closing(connection):
        pid = connection.peer  # nsenter is its parent, and does not pass a signal on
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it died by itself
            os.kill(pid, signal.SIGKILL)
        program.wait(_DEADLINE)
        # An engine asks every plugin that has a socket, for half a minute if it does not answer.
        socket.unlink(missing_ok=True)


def _connected(socket: Path) -> Connection | None:
    with suppress(OSError):
        return Connection(socket)
    return None
