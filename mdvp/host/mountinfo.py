"""Reading a list of mounts: what is mounted in a namespace, and which directory of it each shows.

Source: proc_pid_mountinfo(5). A process is shown what it can reach from its own root directory.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

# Of white space, mountinfo escapes spaces, tabs and line ends, and no other.
_ESCAPED = re.compile(rb"\\([0-7]{3})")

# Where a mount is mounted: the file system below it, and the path of the mount point in that.
Location: TypeAlias = tuple[bytes, bytes]


class Mount(NamedTuple):
    """A line of mountinfo.

    Attributes:
        parent: the id of the mount that this one is mounted on.
        device: the file system, as MAJOR:MINOR.
        root: which directory of the file system it shows, as a path in that.
        point: where it is, as a path from the root directory of the process that was asked.
        options: those of this mount alone, and not of its file system.

    """

    id: bytes
    parent: bytes
    device: bytes
    root: bytes
    point: bytes
    options: bytes

    @property
    def is_marked(self) -> bool:
        """Whether it has the mark of readers, which all that is mounted from it has, too.

        That is an option without any effect where nothing is written to, and no remount of a mount
        takes it off by the way. Source: mount(2), MS_NODIRATIME and MS_REMOUNT.
        """
        return b",nodiratime" in self.options

    @property
    def is_readers(self) -> bool:
        """Whether it is one that a reader of a volume has: read-only, and marked."""
        return self.options.startswith(b"ro,") and self.is_marked


Mounts: TypeAlias = Mapping[bytes, Mount]


def parse(text: bytes) -> Mounts:
    """Return the mounts in the text of a mountinfo, by id."""
    mounts = {}
    for line in text.split(b"\n"):
        if line:
            number, parent, device, root, point, options, _ = line.split(b" ", 6)
            mounts[number] = Mount(
                number, parent, device, _unescape(root), _unescape(point), options
            )
    return mounts


def _unescape(field: bytes) -> bytes:
    r"""Undo the escapes in a field of mountinfo: a space is written `\040`."""
    if b"\\" not in field:
        return field
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field)


def location(mount: Mount, mounts: Mounts) -> Location | None:
    """Return where a mount is mounted; None for the one that the process' root directory is in.

    A copy of a mount, in a copy of its namespace or below another mount point, has the location of
    the original. One that somebody made for a container is in a file system of the container's.
    """
    parent = mounts.get(mount.parent)
    return parent and (parent.device, moved(mount.point, parent.point, parent.root))


def is_in(path: bytes, folder: bytes) -> bool:
    """Say whether `path` is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def moved(path: bytes, folder: bytes, to: bytes) -> bytes:
    """Return what `path`, which is in `folder`, would be called if that were `to`."""
    below = path[len(folder.rstrip(b"/")) :]
    return to.rstrip(b"/") + below or b"/"


def located(mounts: Mounts, device: bytes) -> list[tuple[Mount, Location | None]]:
    """Return the mounts of a file system, each with its location."""
    ours = [mount for mount in mounts.values() if mount.device == device]
    return [(mount, location(mount, mounts)) for mount in ours]


def top(mounts: Mounts) -> Location | None:
    """Return what is mounted at `/`: the last, where one is mounted over another."""
    roots = [(mount.device, mount.root) for mount in mounts.values() if mount.point == b"/"]
    return roots[-1] if roots else None
