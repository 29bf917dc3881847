"""What happened to files, and what is to be done in Redis: the plain values that the parts pass on.

A name is a file's name in the directory, as bytes: on disk that is all it is, and so it is in
Redis.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Changed:
    """The file is there with new content: closed after writing, linked, or moved in."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The file was created or written to, and its writer has not closed it yet."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Removed:
    """The file was deleted or moved out."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Renamed:
    """The file has another name; a file that had that name before is gone."""

    old: bytes
    new: bytes


Change: TypeAlias = Changed | Unfinished | Removed | Renamed


class Signature(NamedTuple):
    """What tells one file, and one state of it, from another: inode, bytes, mtime in ns.

    A rename changes none of these (it does change ctime, which is why that is not among them).
    """

    inode: int
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Set:
    """SET the key to the content of the file that has this signature."""

    name: bytes
    content: bytes
    signature: Signature


@dataclass(frozen=True, slots=True)
class Delete:
    """DEL the key."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME the key; its value is the content of the file that has this signature."""

    old: bytes
    new: bytes
    signature: Signature


Command: TypeAlias = Set | Delete | Rename


def shown(name: bytes) -> str:
    """Write a name for the log: on one line, without characters that a terminal would obey."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
