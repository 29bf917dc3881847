"""How each thing is measured, on a contender that is ready. Times are in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.client import Monitor

from benchmarks import REPOSITORY, BenchmarkError
from benchmarks.mirror.contenders import Contender
from benchmarks.mirror.load import LARGE, name, set_command, value
from benchmarks.mirror.results import Followed, Rewrites
from benchmarks.mirror.server import DEADLINE, Server, until

_LOOK = 0.01  # between two looks at a burst
_QUIET = 3.0  # without a change in Redis after which none is to come


def until_visible(contender: Contender, monitor: Monitor, number: int, below: str = "") -> float:
    """Close a new file; return how long it was from then on until Redis had its content."""
    content, path = value(number), contender.root / below / name(number)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, content)
    began = time.time()
    os.close(descriptor)
    # Who reads the file as soon as it is written to may have it before.
    return max(done(monitor, content.decode()) - began, 0.0)


def done(monitor: Monitor, *words: str) -> float:
    """Return when a command was done that has one of these words in it.

    A client that asks for a key in a loop would take one of the machine's few cores, and much of
    the server's time, from the contender whose speed is measured. One that sleeps until the server
    notifies it adds the time that it takes to be woken. The server's monitor says of each command
    when it was done, to the microsecond and by the clock of time(): that is when every client can
    see what came of it, whenever we read of it.
    """
    end = time.time() + DEADLINE
    try:
        while True:
            command = monitor.next_command()  # type: ignore[no-untyped-call]
            if any(each in command["command"] for each in words):
                return float(command["time"])
            if command["time"] > end:  # there is no end of signs of life
                break
    except redis.TimeoutError:
        pass  # there was none for as long
    raise BenchmarkError(f"nothing came of {' or '.join(words)}")


def follow_burst(contender: Contender, files: int) -> Followed:
    """Write so many files; return when Redis was equal to the directory, or at rest."""
    server, prefix = contender.server, contender.kind.prefix
    return follow(
        ("write", contender.root, files),
        lambda: server.holds(files, prefix=prefix),
        server.changes,
    )


def follow(
    work: tuple[str, Path, *tuple[int, ...]],
    holds: Callable[[], float | None],
    changes: Callable[[], int],
    quiet: float = _QUIET,
) -> Followed:
    """Run a load; return when `holds` had a time at which all was there, or `changes` was at rest.

    At rest is what has not changed for `quiet` seconds.

    Whether it is equal is not asked before the writer is done: it cannot be, and each look takes
    time of the processors that the writer and the contender need.
    """
    counted, changed = -1, 0.0
    with _loading(*work) as writer:
        began, written = _times(writer)
        while (equal := holds()) is None:
            if (count := changes()) != counted:
                counted, changed = count, time.time()
            if time.time() - max(changed, written) > quiet:
                break
            time.sleep(_LOOK)
    return Followed(written - began, equal and equal - began, (equal or changed) - began)


def rewrite(contender: Contender, monitor: Monitor, times: int) -> Rewrites:
    """Rewrite one file so often; see what the server had to do, and when it had the last."""
    before = contender.server.commands()
    began, closed = load("rewrite", contender.root, times)
    last = max(done(monitor, value(times - 1).decode()) - closed, 0.0)
    commands = contender.server.commands() - before - 1  # the count before is one itself
    return Rewrites(times, closed - began, last, commands)


def write_large(contender: Contender, size: int) -> None:
    """Write a large file, and wait until it is in Redis."""
    load("large", contender.root, size)
    until(lambda: contender.server.client.strlen(LARGE) == size)


def rename(contender: Contender, monitor: Monitor, old: str, new: str) -> tuple[float, int]:
    """Rename a large file; return how long it was until Redis had it by its new name, in seconds.

    And how many bytes the server got meanwhile, of all its clients: that tells whether the value
    was brought anew.
    """
    server, root = contender.server, contender.root
    before, began = server.received(), time.time()
    (root / old).rename(root / new)
    took = done(monitor, f"RENAME {old} {new}", f"SET {new} ") - began
    return took, server.received() - before


def pipe(protocol: Path, server: Server) -> float:
    """Have `redis-cli --pipe` send the commands in a file; return how long it took."""
    with protocol.open("rb") as commands:
        began = time.perf_counter()
        done = subprocess.run(
            ("redis-cli", "-s", str(server.socket), "--pipe"),  # noqa: S607  # on the PATH
            stdin=commands,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - began
    if "errors: 0," not in done.stdout:
        raise BenchmarkError(f"redis-cli --pipe failed: {done.stdout}{done.stderr}")
    return took


def write_protocol(path: Path, files: int) -> None:
    """Write the commands for `pipe` that set the keys of so many small files."""
    with path.open("wb") as commands:
        commands.writelines(map(set_command, range(files)))


def load(work: str, root: Path, *amounts: int) -> tuple[float, float]:
    """Run a load of load.py to its end; return when it began and ended, in time()'s clock."""
    with _loading(work, root, *amounts) as process:
        return _times(process)


def _loading(work: str, root: Path, *amounts: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-m", "benchmarks.mirror.load", work, str(root), *map(str, amounts)),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def _times(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Wait for the times that a load prints, and not for the end of its interpreter."""
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    try:
        began, ended = map(float, process.stdout.readline().split())
    except ValueError as error:
        raise BenchmarkError("a load failed: what it said is above") from error
    return began, ended
