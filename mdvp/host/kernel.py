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

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from mdvp.core.errors import StorageError
from mdvp.core.lease import Holder
from mdvp.host import proc
from mdvp.host.proc import Process

log = logging.getLogger(__name__)

# Of white space, mountinfo escapes spaces, tabs and line ends, and no other.
_FIELD = rb"([^ \n]+) "
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_CAP_SYS_PTRACE = 19  # linux/capability.h

# A container's mounts are made when it starts, and this reading is most of the work where there are
# many containers. So what is read of a process that has been there for _SETTLED seconds is believed
# for _FRESH seconds, as long as it lives. What somebody mounts later, by hand, is seen that late.
_SETTLED = 10.0
_FRESH = 10.0


def unescape(field: bytes) -> bytes:
    r"""Undo the escapes in a field of mountinfo: a space is written `\040`."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field)


class _View(NamedTuple):
    """What a process can see: its mount namespace, and of that what is below its own root.

    The root is empty where it does not matter.
    """

    namespace: str
    root: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a process is, as read through one of its threads at `read`; known `since`."""

    thread: str
    view: _View
    since: float
    read: float


@dataclass(frozen=True, slots=True)
class _Sight:
    """Who holds what in a view, as read at `read` through a process known `since`."""

    holding: Sequence[tuple[str, Holder]]
    by: Process
    since: float
    read: float


def _holds(memory: _Place | _Sight, now: float) -> bool:
    return memory.read - memory.since >= _SETTLED and now - memory.read < _FRESH


class Kernel:
    """The kernel's view of the volumes below one directory.

    Attributes:
        blind: why it cannot be had; None when it can.

    """

    def __init__(self, root: int, now: Callable[[], float] = time.monotonic) -> None:
        """Look out for the directories in that of the descriptor `root`; `now` is in seconds."""
        self._root = root
        self._now = now
        self._lock = Lock()
        self._refused = False
        self._places: Mapping[Process, _Place] = {}
        self._sights: Mapping[_View, _Sight] = {}
        place = _whereabouts(root)
        if place is None:
            raise StorageError("the directory of volumes is no longer mounted; start mdvp again")
        self._lines, self._folder = place
        self.blind = _why_blind()
        self._host = _host()
        self._passed_over = {proc.namespace("self"), *map(proc.namespace, self._host)}
        if self.blind:
            log.warning(
                "cannot see which containers have volumes mounted: %s. Until that is mended, a "
                "volume whose container died without giving it back stays in use",
                self.blind,
            )

    def _find_root(self) -> None:
        """Look where the root is now: it is open, and stays so when somebody renames it."""
        # Its mount can be taken away, as an engine does that loses a plugin's. The directory is
        # where it was then, and who has it from there has it still.
        self._lines, self._folder = _whereabouts(self._root) or (self._lines, self._folder)

    def published(self) -> bool | None:
        """Say whether the engine has what a managed plugin shows it: the directory of volumes.

        It keeps a copy of that mount among the host's, at a place named by the plugin's id, and
        gives containers what is there. Returns None outside a managed plugin, or when we cannot
        see the host's mounts.
        """
        self._find_root()
        ours = proc.container("self")  # a managed plugin is a container
        if ours is None or not self._host or proc.namespace("self") == proc.namespace(*self._host):
            return None
        return any(
            unescape(root) == self._folder and ours.encode() in point
            for host in self._host
            for root, point in self._lines.findall(proc.read(f"/proc/{host}/mountinfo"))
        )

    def mounts(self) -> Path:
        """Return where the host's mounts are read; only when we can see them."""
        (host,) = self._host
        return Path(f"/proc/{host}/mountinfo")

    def holders(self, *, fresh: bool = False) -> Mapping[str, list[Holder]] | None:
        """Return who has each volume mounted, by the volume's name; None when we cannot see it.

        `fresh` has everything read anew: nothing is believed that was read before.
        """
        if self.blind:
            return None
        try:
            holders = self._look(fresh)
        except PermissionError as error:
            if not self._refused:  # once is enough
                log.error("cannot see which containers have volumes mounted: %s", error)
            self._refused = True
            return None
        self._refused = False
        return holders

    def _look(self, fresh: bool) -> Mapping[str, list[Holder]]:
        found: dict[str, dict[str, Holder]] = {}
        with self._lock:
            before = self._folder
            self._find_root()
            if fresh or self._folder != before:
                self._places, self._sights = {}, {}
            for view, sight in self._views().items():
                for name, holder in sight.holding:
                    holders = found.setdefault(name, {})
                    # A container can make more namespaces; it is as old as its first process.
                    key = holder.container or view.namespace
                    if holder.began < holders.setdefault(key, holder).began:
                        holders[key] = holder
        return {name: list(holders.values()) for name, holders in found.items()}

    def _views(self) -> Mapping[_View, _Sight]:
        """Return what is seen in each view that a process has, and remember that for a while."""
        now = self._now()
        alive = dict.fromkeys(proc.processes())
        places: dict[Process, _Place] = {}
        sights: dict[_View, _Sight] = {}
        for process in alive:
            # What has gone in the meantime may have left others with the same view.
            with suppress(FileNotFoundError, ProcessLookupError):
                place = self._placed(process, now)
                if place is None:
                    continue
                places[process] = place
                if place.view.namespace in self._passed_over or place.view in sights:
                    continue
                sight = self._sights.get(place.view)
                if sight is None or sight.by not in alive or not _holds(sight, now):
                    holding = self._holding(process.pid, place.thread)
                    sight = _Sight(holding, process, place.since, now)
                elif not sight.holding:
                    sights[place.view] = sight
                    continue
                # What is held must be so now: the process may have ended, or gone elsewhere.
                if _view(place.thread) != place.view:
                    del places[process]
                    continue
                sights[place.view] = sight
        self._places, self._sights = places, sights
        return sights

    def _placed(self, process: Process, now: float) -> _Place | None:
        """Return where a process is; None when we may not know, and need not."""
        known = self._places.get(process)
        if known is not None and _holds(known, now):
            return known
        try:
            thread, namespace = proc.living(process.pid)
        except PermissionError:
            if proc.container(process.pid) is None:
                return None
            raise
        root = "" if namespace in self._passed_over else proc.root(thread)
        since = now if known is None else known.since
        return _Place(thread, _View(namespace, root), since, now)

    def _holding(self, pid: str, thread: str) -> Sequence[tuple[str, Holder]]:
        mounted = self._mounted(thread)
        if not mounted:
            return ()
        container = proc.container(thread)
        if container is None:
            # Any user can make namespaces, and mount in them what they can read. Those count that
            # root has made, or who runs mdvp.
            if proc.owner_of_users(thread) not in (0, os.geteuid()):
                return ()
            # A service with a namespace of its own has copies of what the host has mounted.
            mounted = mounted.difference(*map(self._mounted, self._host))
        holder = _holder(pid, container)
        return [(name, holder) for name in {name for name, _ in mounted}]

    def _mounted(self, pid: str) -> set[tuple[str, bytes]]:
        """Return the volumes mounted in the namespace of `pid`, each with its mount point."""
        mounted = set()
        for root, point in self._lines.findall(proc.read(f"/proc/{pid}/mountinfo")):
            # A directory that was removed is "…/name//deleted", which is the volume all the same.
            name = _first_below(self._folder, unescape(root))
            if name:
                mounted.add((os.fsdecode(name), unescape(point)))
        return mounted


def _whereabouts(root: int) -> tuple[re.Pattern[bytes], bytes] | None:
    """Return where a directory is: what finds its file system's lines in mountinfo, and its path.

    The lines are given as root within the file system and mount point, and the path is within it.
    Returns None when the mount that the directory was opened through is no longer there.
    """
    path = Path(f"/proc/self/fd/{root}").readlink()
    fdinfo = proc.read(f"/proc/self/fdinfo/{root}")
    (mount_id,) = re.findall(rb"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    mount = re.search(
        rb"^" + mount_id + rb" \d+ " + 3 * _FIELD,
        proc.read("/proc/self/mountinfo"),
        re.MULTILINE,
    )
    if mount is None:
        return None
    device, mounted, point = mount.groups()
    below = path.relative_to(os.fsdecode(unescape(point)))
    lines = re.compile(rb"^\d+ \d+ " + re.escape(device) + b" " + 2 * _FIELD, re.MULTILINE)
    return lines, os.fsencode(Path(os.fsdecode(unescape(mounted))) / below)


def _first_below(folder: bytes, path: bytes) -> bytes:
    """Return the first component of `path` below `folder`; empty when it is not below it."""
    prefix = folder.rstrip(b"/") + b"/"
    return path[len(prefix) :].split(b"/", 1)[0] if path.startswith(prefix) else b""


def _why_blind() -> str | None:
    # The first process of a process namespace of our own would be us: not the host's.
    if os.getpid() == 1:
        return "mdvp does not share the host's process namespace (pidhost in the plugin's config)"
    capabilities = re.search(rb"^CapEff:\s*(\S+)$", proc.read("/proc/self/status"), re.MULTILINE)
    if capabilities is None or not int(capabilities[1], 16) >> _CAP_SYS_PTRACE & 1:
        return "mdvp may not look at the host's processes: it needs CAP_SYS_PTRACE"
    return None


def _host() -> list[str]:
    """Return a process in the host's mount namespace, if there is one that we may look at."""
    with suppress(OSError):
        proc.namespace("1")
        return ["1"]
    with suppress(OSError):  # a security module may keep us from init; the kernel's own is as good
        if proc.read("/proc/2/comm") == b"kthreadd\n":
            proc.namespace("2")
            return ["2"]
    return []


def _view(thread: str) -> _View:
    return _View(proc.namespace(thread), proc.root(thread))


def _holder(pid: str, container: str | None) -> Holder:
    command, began = proc.command_and_start(pid)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    return Holder(container, int(pid), command, datetime.now(UTC) - timedelta(seconds=age), began)
