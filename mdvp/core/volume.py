"""What a volume is: its name, its directory's identity, and how both are shown."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from mdvp.core.errors import BadRequestError

# What Docker accepts as a volume's name (moby, volume/names), which its engine does not check for a
# plugin: "../../etc" arrives as it is. A name is one path component, so 255 bytes is NAME_MAX.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_NAME_MAX = 255
_SHOWN_MAX = 64


class Identity(NamedTuple):
    """What tells one directory from any other, whatever its name: inode, and time of birth in ns.

    The inode alone does not: the next directory that is made may get that of one just deleted. The
    time is 0 where the file system does not record it. A subvolume of btrfs has its own number for
    an inode (`mdvp.disk.entry`), as all of them have the same, and a snapshot the time of birth of
    what it was made of.
    """

    inode: int
    born: int


class Access(Enum):
    """How many containers may have a volume at a time; the value is what `-o access=` takes."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Fate(Enum):
    """What becomes of the content of a volume that is removed; the value is what is asked for."""

    DELETE = "delete"
    KEEP = "keep"  # the directory stays where it is
    TRASH = "trash"  # it can be restored for a time


@dataclass(frozen=True, slots=True)
class OnRemove:
    """What a Remove does; `seconds` is for how long what is in the trash can be restored."""

    fate: Fate
    seconds: int = 0


DELETE = OnRemove(Fate.DELETE)


class Means(Enum):
    """How a volume got the content of another."""

    SNAPSHOT = "snapshot"  # of a btrfs subvolume: all of it as it was at one instant
    REFLINK = "reflink"  # file by file: each as it was at one instant
    COPY = "copy"  # file by file: one that was written to meanwhile may be of several instants


# The identity of what has no directory of its own: a volume that shows that of another.
NO_DIRECTORY = Identity(0, 0)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on record, and the identity of its directory.

    What is None was not asked for, and is as usual.

    Attributes:
        uid: the number of the directory's owner, as it was given when it was made.
        gid: that of its group.
        mode: its permissions.
        on_remove: what becomes of the content; None: what is the setting when it is removed.
        protect: whether it is not to be removed; None is no.
        wait: for how many seconds a Mount waits for its turn.
        size: the limit in bytes of what is in it.
        reader_of: the volume whose directory it shows, read-only.
        origin: the volume that it had its content from, when it was made.
        live: whether that volume might be in use meanwhile.
        means: how it got that content; None with an `origin`: that is under way.

    """

    name: str
    created_at: datetime
    identity: Identity
    access: Access = Access.EXCLUSIVE
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    on_remove: OnRemove | None = None
    protect: bool | None = None
    wait: int | None = None
    size: int | None = None
    reader_of: str | None = None
    origin: str | None = None
    live: bool | None = None
    means: Means | None = None

    @property
    def is_being_filled(self) -> bool:
        """Whether the content of another is still being copied into it."""
        return self.origin is not None and self.means is None


def check_name(name: str) -> str:
    """Return `name` if a volume may be called so; raise BadRequestError if not."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            f"{shown(name)} cannot be a volume's name: use letters, digits, '_', '.' and '-', "
            "and begin with a letter or a digit"
        )
    if len(name) > _NAME_MAX:
        raise BadRequestError(
            f"{shown(name)} cannot be a volume's name: it has {len(name)} bytes, "
            f"{_NAME_MAX} is the most"
        )
    return name


def shown(text: str) -> str:
    """Quote hostile text for a message: escaped, and cut when it is long."""
    return ascii(text) if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]!a}..."


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the second, as the engine shows it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
