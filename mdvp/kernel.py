"""What the kernel shows: which containers have which volumes mounted.

A container has a volume while a process of it lives in a mount namespace, other than the host's and
our own, in which the volume's directory, or something below it, is mounted. `/proc` tells: one pass
over the processes finds the distinct namespaces, and each is read through one process of it.

Source: proc_pid_mountinfo(5), proc_pid_ns(5), proc_pid_stat(5), cgroups(7).

Failure model. Processes end while we look: what is gone has nothing mounted. A container that we
may not look at could have anything mounted, so then we know nothing, and say so (None). It takes
the host's process namespace (`pidhost`) and CAP_SYS_PTRACE.

What is not seen: a volume in a namespace whose every process is in a chroot that has neither the
volume nor a mount point of it below; the kernel shows a process what it can reach by a path, alone.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mdvp.lease import Holder

log = logging.getLogger(__name__)

# Of white space, mountinfo escapes spaces, tabs and line ends, and no other.
_FIELD = rb"([^ \n]+) "
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_CONTAINER = re.compile(rb"[0-9a-f]{64}")
_CAP_SYS_PTRACE = 19  # linux/capability.h
_TICKS = os.sysconf("SC_CLK_TCK")


def unescape(field: bytes) -> bytes:
    r"""Undo the escapes in a field of mountinfo: a space is written `\040`."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field)


class Kernel:
    """The kernel's view of the volumes below one directory.

    Attributes:
        blind: why it cannot be had; None when it can.

    """

    def __init__(self, root: int) -> None:
        """Look out for the directories in that of the descriptor `root`."""
        device, self._folder = _place(root)
        # The lines of its file system: root within it, and mount point.
        self._lines = re.compile(
            rb"^\d+ \d+ " + re.escape(device) + b" " + 2 * _FIELD, re.MULTILINE
        )
        self.blind = _why_blind()
        self._host = _host()
        if self.blind:
            log.warning(
                "cannot see which containers have volumes mounted: %s. Until that is mended, a "
                "volume whose container died without giving it back stays in use",
                self.blind,
            )

    def published(self) -> bool:
        """Say whether the engine has what a managed plugin shows it: the directory of volumes.

        It keeps a copy of that mount among the host's, at a place named by the plugin's id, and
        gives containers what is there.
        """
        ours = _container("self")  # a managed plugin is a container
        if ours is None:
            return False
        with suppress(OSError):
            return any(
                unescape(root) == self._folder and ours.encode() in point
                for host in self._host
                for root, point in self._lines.findall(_read(f"/proc/{host}/mountinfo"))
            )
        return False

    def holders(self) -> Mapping[str, list[Holder]] | None:
        """Return who has each volume mounted, by the volume's name; None when we cannot see it."""
        if self.blind:
            return None
        try:
            return self._look()
        except PermissionError as error:
            log.error("cannot see which containers have volumes mounted: %s", error)
            return None

    def _look(self) -> Mapping[str, list[Holder]]:
        found: dict[str, dict[str, Holder]] = {}
        passed_over = {_namespace("self"), *map(_namespace, self._host)}
        done = set()
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            # What has gone in the meantime may have left others in its namespace.
            with suppress(FileNotFoundError, ProcessLookupError):
                try:
                    thread, namespace = _living(pid)
                except PermissionError:
                    if _container(pid) is None:
                        continue
                    raise
                if namespace in passed_over:
                    continue
                # A process in a chroot is shown only what is mounted there; others see the rest.
                view = namespace, _root(thread)
                if view in done:
                    continue
                for name, holder in self._holding(pid, thread):
                    holders = found.setdefault(name, {})
                    # A container can make more namespaces; it is as old as its first process.
                    key = holder.container or namespace
                    if holder.began < holders.setdefault(key, holder).began:
                        holders[key] = holder
                if (_namespace(thread), _root(thread)) == view:
                    done.add(view)
        return {name: list(holders.values()) for name, holders in found.items()}

    def _holding(self, pid: str, thread: str) -> list[tuple[str, Holder]]:
        mounted = self._mounted(thread)
        if not mounted:
            return []
        container = _container(thread)
        if container is None:
            # A service with a namespace of its own has copies of what the host has mounted.
            mounted = mounted.difference(*map(self._mounted, self._host))
        holder = _holder(pid, container)
        return [(name, holder) for name in {name for name, _ in mounted}]

    def _mounted(self, pid: str) -> set[tuple[str, bytes]]:
        """Return the volumes mounted in the namespace of `pid`, each with its mount point."""
        mounted = set()
        for root, point in self._lines.findall(_read(f"/proc/{pid}/mountinfo")):
            # A directory that was removed is "…/name//deleted", which is the volume all the same.
            name = _first_below(self._folder, unescape(root))
            if name:
                mounted.add((os.fsdecode(name), unescape(point)))
        return mounted


def _place(root: int) -> tuple[bytes, bytes]:
    """Return the device (`major:minor`) of a directory, and its path in the file system there."""
    path = Path(f"/proc/self/fd/{root}").readlink()
    fdinfo = _read(f"/proc/self/fdinfo/{root}")
    (mount_id,) = re.findall(rb"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    ((device, mounted, point),) = re.findall(
        rb"^" + mount_id + rb" \d+ " + 3 * _FIELD,
        _read("/proc/self/mountinfo"),
        re.MULTILINE,
    )
    below = path.relative_to(os.fsdecode(unescape(point)))
    return device, os.fsencode(Path(os.fsdecode(unescape(mounted))) / below)


def _first_below(folder: bytes, path: bytes) -> bytes:
    """Return the first component of `path` below `folder`; empty when it is not below it."""
    prefix = folder.rstrip(b"/") + b"/"
    return path[len(prefix) :].split(b"/", 1)[0] if path.startswith(prefix) else b""


def _why_blind() -> str | None:
    # The first process of a process namespace of our own would be us: not the host's.
    if os.getpid() == 1:
        return "mdvp does not share the host's process namespace (pidhost in the plugin's config)"
    capabilities = re.search(rb"^CapEff:\s*(\S+)$", _read("/proc/self/status"), re.MULTILINE)
    if capabilities is None or not int(capabilities[1], 16) >> _CAP_SYS_PTRACE & 1:
        return "mdvp may not look at the host's processes: it needs CAP_SYS_PTRACE"
    return None


def _host() -> list[str]:
    """Return a process in the host's mount namespace, if there is one that we may look at."""
    with suppress(OSError):
        _namespace("1")
        return ["1"]
    with suppress(OSError):  # a security module may keep us from init; the kernel's own is as good
        if _read("/proc/2/comm") == b"kthreadd\n":
            return ["2"]
    return []


def _living(pid: str) -> tuple[str, str]:
    """Return a thread of a process, and its namespace; the first thread may end before others."""
    with suppress(FileNotFoundError):
        return pid, _namespace(pid)
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError):
            return thread, _namespace(thread)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), pid)


def _root(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/root")  # noqa: PTH115  # as below


def _namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115  # of every process: a Path is slow


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # as above
            return file.read()
    except OSError as error:
        if error.errno == errno.EINVAL:  # a process that has ended but was not waited for
            raise ProcessLookupError(error.errno, error.strerror, path) from error
        raise


def container_in(cgroup: bytes) -> str | None:
    """Return the id of the innermost container that a `/proc/<pid>/cgroup` names, if any."""
    found = _CONTAINER.findall(cgroup)
    return found[-1].decode() if found else None


def _container(pid: str) -> str | None:
    return container_in(_read(f"/proc/{pid}/cgroup"))


def _holder(pid: str, container: str | None) -> Holder:
    stat = _read(f"/proc/{pid}/stat")
    # The command is in parentheses, and may itself have any character.
    command = stat[stat.index(b"(") + 1 : stat.rindex(b")")]
    start_time = int(stat[stat.rindex(b")") + 2 :].split()[19])  # field 22
    began = start_time / _TICKS
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    return Holder(
        container,
        int(pid),
        ascii(os.fsdecode(command))[1:-1],
        datetime.now(UTC) - timedelta(seconds=age),
        began,
    )
