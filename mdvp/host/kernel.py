"""The kernel's view of the host: where the root of the volumes is, and a look at all processes.

A container has a volume while a process of it lives in a mount namespace, other than the host's and
our own, in which the volume's directory, or something below it, is mounted. `/proc` tells: one pass
over the processes finds where they are, and one process of each view what is mounted there.

Failure model. Processes end while we look: what is gone has nothing mounted. A container that we
may not look at could have anything mounted, so then we know nothing, and say so (None). It takes
the host's process namespace (`pidhost`) and CAP_SYS_PTRACE.

What is not seen: a volume in a namespace whose every process is in a chroot that has neither the
volume nor a mount point of it below; the kernel shows a process what it can reach by a path, alone.
So a container is known by its cgroup, once it was seen (`mdvp.core.lease`).
"""

import logging
import os
import re
import select
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from mdvp.core.errors import StorageError
from mdvp.core.lease import Engine
from mdvp.host import proc
from mdvp.host.census import Census
from mdvp.host.look import Host, Look, Original
from mdvp.host.mountinfo import Mount, Mounts, is_in, located, moved, parse, top
from mdvp.host.scenes import Gallery, Scenes

log = logging.getLogger(__name__)

_CAP_SYS_PTRACE = 19  # linux/capability.h
_DELETED = b" (deleted)"  # what the kernel adds to the path of a directory that was removed
_REMOVED = b"//deleted"  # what mountinfo adds to it


class Kernel:
    """The kernel's view of the host, and of the volumes below one directory.

    Attributes:
        blind: why it cannot be had; None when it can.

    """

    def __init__(self, root: int, now: Callable[[], float] = time.monotonic) -> None:
        """Look out for the directories in that of the descriptor `root`; `now` is in seconds."""
        self._root = root
        self._now = now
        self._lock = Lock()
        self._refused = False
        place = _whereabouts(root)
        if place is None:
            raise StorageError("the directory of volumes is no longer mounted; start mdvp again")
        self._device, self._folder = place
        self._shown: tuple[bytes, str | None] | None = None
        self.blind = _why_blind()
        self._host = _host()
        of_host = proc.containers(self._host) if self._host else []
        passed_over = {proc.namespace(pid) for pid in ("self", self._host) if pid}
        self._census = Census(of_host, passed_over)
        self._gallery = Gallery()
        self._host_mounts = _HostMounts(self.mounts()) if self._host else None
        self._seen = Host({}, None, frozenset())
        self._current: Set[Original] = frozenset()
        if self.blind:
            log.warning(
                "cannot see which containers have volumes mounted: %(reason)s. Until that is "
                "mended, a volume whose container died without giving it back stays in use",
                {"event": "blind", "reason": self.blind},
            )

    def close(self) -> None:
        """Give up what is kept open; the kernel cannot be looked at afterwards."""
        if self._host_mounts:
            self._host_mounts.close()

    def path(self, name: str, *, removed: bool = False) -> bytes:
        """Return the path, in its file system, of the directory `name` in the root.

        It is as at the last look. With `removed`, that of one which was there and is no more.
        """
        path = self._folder.rstrip(b"/") + b"/" + os.fsencode(name)
        return path + _REMOVED if removed else path

    def paths_of(self, fd: int) -> list[bytes]:
        """Return the path, in its file system, of an open directory; none if we cannot tell.

        Of one that is outside of what was mounted when it was opened, the kernel shows the path in
        the file system. That can begin as the path of the mount does: then it is one of two.
        """
        mount, path = _shown(fd)
        if mount is None or path is None or mount.device != self._device:
            return []
        return [path, moved(path, mount.point, mount.root)] if is_in(path, mount.point) else [path]

    def _find_root(self) -> None:
        """Look where the root is now: it is open, and stays so when somebody renames it."""
        # What is so little is read at each look; a list of mounts is long where there are many.
        shown = proc.mount_of(self._root), proc.path_of(self._root)
        if shown == self._shown:
            return
        self._shown = shown
        # Its mount can be taken away, as an engine does that loses a plugin's. The directory is
        # where it was then, and who has it from there has it still.
        self._device, self._folder = _whereabouts(self._root) or (self._device, self._folder)

    def published(self) -> bool | None:
        """Say whether the engine has what a managed plugin shows it: the directory of volumes.

        Returns None outside a managed plugin, or when we cannot see the host's mounts.
        """
        places = self._published_at()
        return None if places is None else bool(places)

    def _published_at(self) -> Sequence[bytes] | None:
        """Return where on the host the engine has the directory of volumes; None as above.

        It keeps a copy of that mount among the host's, at a place named by the plugin's id, and
        gives containers what is there.
        """
        self._find_root()
        ours = proc.containers("self")  # a managed plugin is a container
        if not ours or not self._host or proc.namespace("self") == proc.namespace(self._host):
            return None
        return [
            mount.point
            for mount in self._all_mounts().values()
            if (mount.device, mount.root) == (self._device, self._folder)
            and ours[-1].encode() in mount.point
            and not mount.is_readers  # which is in that directory
        ]

    # What readers of volumes have.

    def has_view(self, root: str, below: str) -> bool:
        """Say whether the engine has the read-only view of the directory of volumes.

        It has been told of that directory as `root`; the view is mounted at `below` in that. It is
        looked for by its path: what was mounted there last is what a container gets.
        """
        places = self._published_at()
        if places is None:
            places = [os.fsencode(os.path.realpath(root))]
        return any(self._is_view(place + b"/" + os.fsencode(below)) for place in places)

    def _is_view(self, path: bytes) -> bool:
        of_host = b"/proc/" + (self._host or "self").encode() + b"/root"
        with suppress(OSError):
            fd = os.open(of_host + path, os.O_PATH | os.O_CLOEXEC)
            try:
                mounts = self._all_mounts()
                mount = mounts.get(proc.mount_of(fd))
                same = os.path.samestat(os.fstat(fd), os.fstat(self._root))
                return mount is not None and mount.is_readers and same
            finally:
                os.close(fd)
        return False

    def has_mark(self) -> bool:
        """Say whether what else shows the directory of volumes has the mark of readers."""
        return self._has_mark(self._all_mounts())

    def _has_mark(self, mounts: Mounts) -> bool:
        return any(
            mount.is_marked and not mount.is_readers and is_in(self._folder, mount.root)
            for mount in mounts.values()
            if mount.device == self._device
        )

    def _all_mounts(self) -> Mounts:
        """Return the host's mounts, or ours where we cannot see those."""
        return parse(proc.read(f"/proc/{self._host or 'self'}/mountinfo"))

    def mounts(self) -> Path:
        """Return where the host's mounts are read; only when we can see them."""
        return Path(f"/proc/{self._host}/mountinfo")

    def engine(self, pid: int | None) -> Engine | None:
        """Return who calls by the id of the process; None where that is not known."""
        with suppress(OSError):
            if pid and not self.blind:
                return Engine(pid, proc.command_and_start(str(pid))[1])
        return None

    def look(self, *, fresh: bool = False) -> Look | None:
        """Look at all processes and at what they have mounted; None when we cannot see it.

        `fresh` has everything read anew: nothing is believed that was read before.
        """
        if self.blind:
            return None
        try:
            with self._lock:
                self._find_root()
                now = self._now()
                places = self._census.take(now, fresh=fresh)
                scenes = self._gallery.see(places, self._device, now, fresh=fresh)
                host = self._see_host(scenes, fresh=fresh)
        except PermissionError as error:
            if not self._refused:  # once is enough
                log.error(
                    "cannot see which containers have volumes mounted: %(reason)s",
                    {"event": "cannot_see", "reason": error},
                )
            self._refused = True
            return None
        self._refused = False
        return Look(places, scenes, self._device, host)

    def _see_host(self, scenes: Scenes, *, fresh: bool) -> Host:
        # After all others: what was copied from it was there before.
        mounts = self._host_mounts.read(fresh=fresh) if self._host_mounts else {}
        if mounts is not self._seen.mounts:
            originals = {(mount.root, place) for mount, place in located(mounts, self._device)}
            # A copy can outlast its original.
            marks = not self._has_mark(mounts or self._all_mounts())
            self._seen = Host(mounts, top(mounts), originals | self._seen.originals, marks)
            self._current = originals
        if outlasted := self._seen.originals - self._current:
            shown = {(m.root, place) for scene in scenes.values() for m, place in scene.mounts}
            self._seen = replace(self._seen, originals=self._current | (outlasted & shown))
        return self._seen


class _HostMounts:
    """The list of the host's mounts, read when it has changed. Source: proc_pid_mounts(5)."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._fd, select.POLLPRI)
        self._mounts: Mounts | None = None

    def close(self) -> None:
        os.close(self._fd)

    def read(self, *, fresh: bool) -> Mounts:
        """Return all mounts; `fresh` has them read whether or not the kernel says they changed."""
        changed = self._changes.poll(0)  # before it is read, or a change could be missed
        if self._mounts is None or changed or fresh:
            os.lseek(self._fd, 0, os.SEEK_SET)
            with open(self._fd, "rb", buffering=0, closefd=False) as file:
                self._mounts = parse(file.read())
        return self._mounts


def _whereabouts(fd: int) -> tuple[bytes, bytes] | None:
    """Return where an open directory is: its file system (MAJOR:MINOR), and the path in that.

    Returns None when the mount that it was opened through is no longer there, or if the path is too
    long to be told.
    """
    mount, path = _shown(fd)
    if mount is None or path is None:
        return None
    return mount.device, moved(path, mount.point, mount.root)


def _shown(fd: int) -> tuple[Mount | None, bytes | None]:
    """Return the mount that a directory was opened through, and its path as the kernel shows it."""
    mount = parse(proc.read("/proc/self/mountinfo")).get(proc.mount_of(fd))
    shown = proc.path_of(fd)
    if shown is None:
        return mount, None
    path = os.fsencode(shown)
    return mount, path.removesuffix(_DELETED) + _REMOVED if path.endswith(_DELETED) else path


def _why_blind() -> str | None:
    # The first process of a process namespace of our own would be us: not the host's.
    if os.getpid() == 1:
        return "mdvp does not share the host's process namespace (pidhost in the plugin's config)"
    capabilities = re.search(rb"^CapEff:\s*(\S+)$", proc.read("/proc/self/status"), re.MULTILINE)
    if capabilities is None or not int(capabilities[1], 16) >> _CAP_SYS_PTRACE & 1:
        return "mdvp may not look at the host's processes: it needs CAP_SYS_PTRACE"
    return None


def _host() -> str | None:
    """Return a process in the host's mount namespace, if there is one that we may look at."""
    with suppress(OSError):
        proc.namespace("1")
        return "1"
    with suppress(OSError):  # a security module may keep us from init; the kernel's own is as good
        if proc.read("/proc/2/comm") == b"kthreadd\n":
            proc.namespace("2")
            return "2"
    return None
