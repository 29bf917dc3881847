"""Processes that have a volume mounted in a namespace of their own, as a container has.

Nothing that they mount is seen by any other process, and all of it goes with them.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support import eventually

# What a holder does: it has the first argument mounted at the second until its standard input ends.
BIND = 'mount --bind "$1" "$2" && echo ready && read -r _'

# The same, but after a line there it has that mounted no more, only a file of it open.
BIND_AND_HIDE = f'{BIND} && exec 3>>"$2/log" && umount --lazy "$2" && echo hidden && read -r _'

# A container has a root file system of its own, here a copy of the host's, and the volume in /mnt.
ROOT = """
set -e
mount -t tmpfs none "$2"
mkdir "$2/up" "$2/work" "$2/root"
mount -t overlay none -o "lowerdir=/,upperdir=$2/up,workdir=$2/work" "$2/root"
mount --bind "$1" "$2/root/mnt"
"""
PROGRAM = """
import ctypes, os, sys
print("ready", flush=True)
sys.stdin.readline()
{hide}
print("hidden", flush=True)
sys.stdin.read()
"""
# What it can do for the kernel to show no mount of the volume, which it yet may write to.
HIDE = {
    "chroot": 'os.chroot("/etc")',
    "chroot with a file open": 'log = open("/mnt/log", "w"); os.chroot("/etc")',
    "lazy unmount with a file open": (
        'log = open("/mnt/log", "w"); assert ctypes.CDLL(None).umount2(b"/mnt", 2) == 0'
    ),
}

OWN_NAMESPACE = ("unshare", "--mount", "--propagation=private", "--")

Argument = str | bytes | Path


@contextmanager
def ready(
    command: Sequence[Argument], *, container: str | None = None, ends_itself: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` until the end of the block, and all that it starts; wait until it is ready.

    It says so by its first line. With `container` it is in a cgroup such as the container of that
    id has. With `ends_itself` it is its last word, too: others whom it started live on.
    """
    with cgroup(container) as enter:
        process = subprocess.Popen(
            [*enter, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            if ends_itself:
                process.wait()
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdin.close()
            process.stdout.close()


@contextmanager
def holding(
    source: Argument, point: Argument, script: str = BIND, *, container: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has `source` mounted at `point`, a directory that is there already."""
    command = (*OWN_NAMESPACE, "sh", "-c", script, "sh", source, point)
    with ready(command, container=container) as process:
        yield process


@contextmanager
def containing(
    source: Argument, point: Argument, container: str, hide: str = "", prepare: str = ROOT
) -> Iterator[subprocess.Popen[str]]:
    """Run a container of that id, set up by `prepare`, that will `hide` when it is told to."""
    script = f'{prepare} exec chroot "$2/root" {sys.executable} -c "$3"'
    command = (*OWN_NAMESPACE, "sh", "-c", script, "sh")
    program = PROGRAM.format(hide=hide)
    with ready((*command, source, point, program), container=container) as process:
        yield process


def hide_now(process: subprocess.Popen[str]) -> None:
    """Have a holder hide that can, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "hidden\n"


def kill(process: subprocess.Popen[str]) -> None:
    """Have it die at once, as with `docker kill`."""
    process.kill()
    process.wait()


def dig(place: Path) -> int:
    """Make a directory below `place` with a path longer than the kernel tells; return it, open."""
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        below = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    return folder


def new_container_id() -> str:
    return secrets.token_hex(32)


@contextmanager
def cgroup(container: str | None) -> Iterator[Sequence[str]]:
    """Make a container's cgroup; yield the start of a command that puts itself into it."""
    if container is None:
        yield ()
        return
    cgroup = _hierarchy() / "mdvp-test" / container
    cgroup.mkdir(parents=True)
    try:
        yield ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup))
    finally:
        # Those killed last may be on their way out.
        eventually(lambda: _removed(cgroup), True)
        with suppress(OSError):  # another container of ours is beside it
            cgroup.parent.rmdir()


def _hierarchy() -> Path:
    """Return where a hierarchy of cgroups is: of version 2, or one that needs no setting up."""
    mounts = Path("/proc/self/mountinfo").read_text()
    found = re.search(r"^(?:\S+ ){4}(\S+) .* - cgroup2 ", mounts, re.MULTILINE) or re.search(
        r"^(?:\S+ ){4}(\S+) .* - cgroup .*\b(?:pids|name=systemd)\b", mounts, re.MULTILINE
    )
    assert found, "no cgroup file system is mounted"
    return Path(found[1])


def _removed(cgroup: Path) -> bool:
    with suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()
