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
    time is 0 where the file system does not record it.
    """

    inode: int
    born: int


class Access(Enum):
    """How many containers may have a volume at a time; the value is what `-o access=` takes."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on record, and the identity of its directory.

    `uid`, `gid` and `mode` are what the directory was given when it was made; None: as usual.
    """

    name: str
    created_at: datetime
    identity: Identity
    access: Access = Access.EXCLUSIVE
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


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
