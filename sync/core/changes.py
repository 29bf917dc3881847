"""What happened to files, and what is to be done in Redis: the plain values that the parts pass on.

A name is a file's path below the root, as bytes: on disk that is all it is, and so it is in Redis.
In a flat directory that is its name. A place is where a directory is: its path with a slash behind
it, and b"" for the root; so the path of what is in it is the place and a name.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Changed:
    """Look at the name: closed after writing, moved in, deleted, moved out, not a file's."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Created:
    """The name is new; perhaps somebody has it open to write, or it is another one of a file."""

    name: bytes
    is_written: bool = False  # somebody has written to it since


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The file was written to, and its writer has not closed it yet."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Renamed:
    """The file has another name; a file that had that name before is gone."""

    old: bytes
    new: bytes


Change: TypeAlias = Created | Changed | Unfinished | Renamed


@dataclass(frozen=True, slots=True)
class Appeared:
    """There is a directory at the place that was not there before, with whatever is below."""

    place: bytes


@dataclass(frozen=True, slots=True)
class Vanished:
    """The directory that was at the place is not there any more."""

    place: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The directory is at another place, with all that is below."""

    old: bytes
    new: bytes


PlaceChange: TypeAlias = Appeared | Vanished | Moved


def place_of(path: bytes) -> bytes:
    """Return the place of the directory in which a file, or the directory at a place, is."""
    return path[: path.rfind(b"/", 0, -1) + 1]


def places_above(place: bytes) -> Iterator[bytes]:
    """Yield the places above one, or those that a path leads through, the root last."""
    while place:
        place = place_of(place)
        yield place


# What marks a signature as unsure in the place of a ctime. `Signature.of` gives it to no file.
UNSURE = -(1 << 63)


class Signature(NamedTuple):
    """What tells one file, and one state of it, from another: inode, bytes, times in ns.

    One with the ctime UNSURE is no file's. What has it is to be looked at again: the file was read,
    or renamed, in the tick of the kernel's clock in which it was written, and a write after that
    may have left the same signature.
    """

    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result, salt: int = 0) -> "Signature":
        """Return the signature in a file's status.

        The salt tells the inodes of one file system from those of another.
        """
        ctime = status.st_ctime_ns
        if ctime == UNSURE:  # a file system in user space may say so
            ctime += 1
        return cls(status.st_ino ^ salt, status.st_size, status.st_mtime_ns, ctime)

    def is_content_of(self, other: "Signature") -> bool:
        """Say whether both are of one content: a rename changes ctime, and nothing else."""
        return self[:3] == other[:3]

    @property
    def is_sure(self) -> bool:
        """Say whether what has it need not be looked at again."""
        return self.ctime != UNSURE

    def unsure(self) -> "Signature":
        """Return the signature as one that is to be looked at again."""
        return Signature(self.inode, self.size, self.mtime, UNSURE)


NONE = Signature(0, 0, 0, UNSURE)  # no file's


# Of these there are hundreds of thousands in a burst: a tuple is made five times as fast as a class
# of another kind.
class Set(NamedTuple):
    """SET the key to the content of the file that has this signature.

    The digest is that of the content, where Redis is to remember it.
    """

    name: bytes
    content: bytes
    signature: Signature
    digest: bytes = b""


class Delete(NamedTuple):
    """DEL the key."""

    name: bytes


class Rename(NamedTuple):
    """RENAME the key; its value is the content of the file that has this signature."""

    old: bytes
    new: bytes
    signature: Signature
    digest: bytes = b""


class Confirm(NamedTuple):
    """Leave the key: its value is the content of the file that has this signature."""

    name: bytes
    signature: Signature


class Arrive(NamedTuple):
    """Give the key the value that has come in pieces: the content of the file of this signature."""

    name: bytes
    signature: Signature
    digest: bytes = b""
    ttl: int = 0  # ms that the key has still to live; 0 for ever


class Record(NamedTuple):
    """Leave the key, and remember what both sides hold: a value, or nothing.

    signature  of the file that holds it; None to remember nothing
    digest     of the value; `manifest.NOTHING` when there is none
    pending    the same of what the service is about to put on the disk; b"" when it is not
    is_news    whether that may be another value than the one that was remembered
    """

    name: bytes
    signature: Signature | None
    digest: bytes = b""
    pending: bytes = b""
    is_news: bool = True


class Keep(NamedTuple):
    """Put the value of the key aside, under a number."""

    name: bytes
    number: int
    size: int
    at: int  # seconds since the epoch


Command: TypeAlias = Set | Arrive | Delete | Rename | Confirm | Record | Keep


class Written(NamedTuple):
    """The file has got the value of the key, of so many bytes."""

    name: bytes
    size: int


class Removed(NamedTuple):
    """The file was removed, as the key was."""

    name: bytes


class MovedFile(NamedTuple):
    """The file was renamed, as the key was."""

    old: bytes
    new: bytes


Done: TypeAlias = Command | Written | Removed | MovedFile


class Shown(str):
    """A name as people see it, which knows what name that is.

    Attributes:
        name: the name itself.

    """

    name: bytes


def shown(name: bytes) -> Shown:
    """Write a name for the log: on one line, without characters that a terminal would obey."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    written = Shown(text)
    written.name = name
    return written
