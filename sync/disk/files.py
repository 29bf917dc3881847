"""The disk's edge: looks at files by name and reads them, without trusting what is there.

Failure model. A file may vanish, grow or become something else between two looks, and a name may
lead to a link that points out of the directory or to a FIFO that blocks its reader. So names are
resolved against an open descriptor of the directory, no link is followed, and only what is a
regular file, both before and after it was opened, is read. A file that changes while it is read is
read again; one that never stops changing is taken as it was read, and looked at again later.

That a file is gone, or cannot be a value, is said only when it is known. A disk that fails, or a
right that is missing, tells nothing of the file: it is unreadable then, and no more.
"""

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from sync.core.changes import Signature, place_of, places_above
from sync.core.errors import DirectoryGoneError
from sync.core.exclude import Excluded, is_own
from sync.disk.linux import reason
from sync.disk.places import NO_NAMES, Ground, Opened, Places, too_long
from sync.disk.resolver import NotFollowedError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
# O_NONBLOCK: should a FIFO take the file's place after the look at it, opening it must not wait.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
_TRIES = 3  # reads of a file that changes meanwhile
_SMALL = 16 << 10  # bytes that are read in about the time that it takes to ask for a lock
_PIECE = 1 << 20  # bytes; larger files are read in pieces of this size
_AT_ONE_TIME = 50  # files that are read before the clock is looked at again
# ns; a writer that has a file open for longer is not waited for. Of one that was at work before the
# watch began nothing was heard.
_PATIENCE = 500_000_000
# ns; a writer can be kept from going on between emptying a file and its event, by whom it woke.
_DELAY = 50_000_000
_COARSEST = 2_000_000_000  # ns; no file system keeps times in larger steps
_CLOCK_REALTIME_COARSE = 5  # <linux/time.h>; the time module has no name for it
_new = tuple.__new__
_Entry = TypeVar("_Entry", bound=tuple[bytes, *tuple[object, ...]])
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what others give back after a while


class File(NamedTuple):
    """A regular file's content, and its signature from before it was read.

    `links` is how many names it has, here or elsewhere. It is not `steady` when it was changing,
    and it is `racy` when a write after the read might not show in its signature: the kernel's clock
    was still at the file's last change. It is `closed` when it is known that nobody had it open for
    writing just then; otherwise nobody has asked, the kernel does not tell, or it is empty.
    """

    signature: Signature
    content: bytes
    links: int
    steady: bool
    racy: bool
    closed: bool = False


class _Open(NamedTuple):
    """A file that is open, and the salt of its directory."""

    fd: int
    salt: int


class LargeFile:
    """A regular file that is read in pieces, in whichever thread. Whoever gets it closes it.

    All that it tells is of the file that was opened, whatever its name leads to by now, and as it
    was at the last look, the first of which is its construction. It never holds a lock: a writer
    must not be kept out for as long as it may take. What asks the file raises OSError when it
    cannot be read any more.

    Attributes:
        signature: from before it is read.
        size: how many bytes it has.
        links: how many names it has, here or elsewhere.
        racy: whether a write after the look might not show in the signature.

    """

    def __init__(self, fd: int, salt: int = 0) -> None:
        """Read what is open as `fd`; the salt is that of its directory."""
        self._fd = fd
        self._salt = salt
        self.look()

    def look(self) -> None:
        """Take what the file is now for what is to be read."""
        began = now()
        self._status = os.fstat(self._fd)
        self.signature = Signature.of(self._status, self._salt)
        self.size = self._status.st_size
        self.links = self._status.st_nlink
        self.racy = can_be_now(self._status.st_ctime_ns, began)

    def ends_with(self, end: bytes) -> bool:
        """Say whether these are its last bytes."""
        at = self.size - len(end)
        return at >= 0 and os.pread(self._fd, len(end), at) == end

    def pieces(self) -> Iterator[bytes]:
        """Yield the content from its start on; less when the file became shorter."""
        at, size = 0, self.size
        while at < size and (piece := os.pread(self._fd, min(_PIECE, size - at), at)):
            yield piece
            at += len(piece)

    def is_locked(self) -> bool:
        """Say whether a writer wants nobody to read it now: flock(2), LOCK_EX."""
        return _is_locked(self._fd)

    def is_unchanged(self) -> bool:
        """Say whether the file is still what it was at the last look."""
        return _is_unchanged(self._status, os.fstat(self._fd))

    def is_still(self) -> bool:
        """Say the same before it is read; if so, it is as racy as at a look just now."""
        began = now()
        if not self.is_unchanged():
            return False
        self.racy = can_be_now(self._status.st_ctime_ns, began)
        return True

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)


@dataclass(frozen=True, slots=True)
class Locked:
    """A regular file that cannot be read just now: its writer has locked it, flock(2) LOCK_EX."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A regular file that was just written to, and whose writer has not closed it yet.

    What it holds may be neither what it was nor what it will be. The close is told by an event.
    """


@dataclass(frozen=True, slots=True)
class Emptied:
    """A regular file that was emptied just now, perhaps by somebody who is about to write to it.

    The kernel does not tell whether anybody has it open, and the event of its being emptied may not
    be out yet; it is a moment later.
    """


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Nobody knows what is there; `why` completes a sentence that begins with its name."""

    why: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """What is there cannot be a value; `why` completes a sentence that begins with its name."""

    why: str


class Gone(Enum):
    """There is nothing of this name, nor anything that is left out."""

    GONE = auto()


# None: there is nothing of this name.
Found: TypeAlias = File | LargeFile | Locked | Busy | Emptied | Unreadable | Unfit | None


class Directory:
    """A directory, in which files are looked up by their paths. What is excluded is not there.

    In a flat one a path is a name, and what is below its directories is not there either. In a tree
    a directory is none of the files; the scans tell it by its place, with a slash in the end.

    It is open from its construction on; at `rest` it is not, so that it can be unmounted.

    Attributes:
        path: where it is.
        is_tree: whether it is a tree.

    """

    def __init__(
        self, path: Path, excluded: Excluded | None = None, *, is_tree: bool = False
    ) -> None:
        """Open the directory at `path`; raise DirectoryGoneError if there is none."""
        self.path = path
        self.is_tree = is_tree
        self._excluded = (excluded or Excluded()).match
        self._places = Places(self._excluded)
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self.wake()

    @property
    def handle(self) -> Path:
        """Where it is while it is open, whatever is at `path` by now."""
        return Path(f"/proc/self/fd/{self._fd}")

    @property
    def ground(self) -> Ground | None:
        """The directories that are to be watched, if the root alone is not enough."""
        return self if self.is_tree else None

    def rest(self) -> None:
        """Close it for a while, in which nothing can be looked up."""
        self._places.forget()
        os.close(self._fd)
        self._fd = -1

    def wake(self) -> None:
        """Open it again; raise DirectoryGoneError when another directory, or none, is there now.

        The kernel does not say so when something is mounted over it. When it is open that is not
        looked for.
        """
        if self._fd >= 0:
            return
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DirectoryGoneError(
                f"cannot open the directory {self.path}: {reason(error)}; mount a volume there, "
                "or name another directory in SYNC_ROOT"
            ) from error
        status = os.fstat(self._fd)
        identity = (status.st_dev, status.st_ino)
        if self._identity and identity != self._identity:
            raise DirectoryGoneError(f"{self.path} is another directory now")
        self._identity = identity
        self._places.begin(self._fd, identity)

    def forget(self) -> None:
        """Look the directories below up anew from now on: others may have taken their places."""
        self._places.forget()

    def open_at(self, place: bytes) -> Opened:
        """Return the directory at a place, open until `forget` or another look.

        Raises FileNotFoundError when there is none, and OSError when nobody knows.
        """
        if place and not self.is_tree:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._places.at(place)

    def identity(self, place: bytes) -> tuple[int, int] | None:
        """Return what tells the directory at a place from others, None when there is none."""
        try:
            return self.open_at(place).identity
        except OSError:
            return None

    def lasting_identity(self) -> bytes:
        """Return what tells the root from others, also after the machine was started anew."""
        system, inode = os.fstatvfs(self._fd).f_fsid, os.fstat(self._fd).st_ino
        return b"%x:%x" % (system, inode)

    def excludes(self, path: bytes) -> bool:
        """Say whether a path or a place is itself left out, whatever becomes of those above it."""
        return bool(self._excluded(path)) or path in self._places.left_out

    def has_place(self, place: bytes) -> bool:
        """Say whether there is a directory at a place, as far as anybody knows."""
        try:
            self.open_at(place)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def leave_out(self, place: bytes, *, really: bool = True) -> None:
        """Have nothing looked up at a place, or have it looked up again."""
        (self._places.left_out.add if really else self._places.left_out.discard)(place)

    def wants(self, place: bytes) -> bool:  # noqa: ARG002  # as `Ground`
        """Say yes: all directories of a tree are to be watched."""
        return True

    def _at(self, path: bytes) -> tuple[int, int, bytes]:
        """Return what a path leads through, as its descriptor and salt, and the name in it.

        Raises as `open_at` does.
        """
        if b"/" not in path:
            return self._fd, 0, path
        place = place_of(path)
        if too_long(path):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        fd, salt, _ = self.open_at(place)
        return fd, salt, path[len(place) :]

    def _stat(self, path: bytes) -> tuple[os.stat_result, int]:
        """Return the status of what has a path, and its directory's salt; raises OSError."""
        try:
            fd, salt, name = self._at(path) if b"/" in path else (self._fd, 0, path)
            if name in NO_NAMES:  # what Redis holds can be called anything
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return os.stat(name, dir_fd=fd, follow_symlinks=False), salt
        except ValueError as error:  # a NUL byte, which a key can have
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error

    def names(self, place: bytes = b"") -> Iterator[tuple[bytes, bool]]:
        """Yield all paths at a place, and of each whether it is known to be a regular file's.

        Raises DirectoryGoneError if that is the root, else OSError.
        """
        excluded, is_tree = self._excluded, self.is_tree
        with self._scan(place) as (entries, _):
            for entry in entries:
                name = place + entry.name.encode(_ENCODING, _ERRORS)  # os.fsencode, faster
                is_file = False
                try:
                    if not (is_file := entry.is_file(follow_symlinks=False)) and is_tree:
                        name += b"/" if entry.is_dir(follow_symlinks=False) else b""
                except OSError:  # one bad entry says nothing of the others
                    is_file = False
                if not excluded(name):
                    yield name, is_file

    def files(self, place: bytes = b"") -> Iterator[tuple[bytes, Signature | None, int]]:
        """Yield all paths at a place, with the signature of the regular file and how many names.

        What is no regular file, or is not known to be one, has None and 0. Raises as `names` does.
        """
        excluded, is_tree = self._excluded, self.is_tree
        with self._scan(place) as (entries, salt):
            for entry in entries:
                name = place + entry.name.encode(_ENCODING, _ERRORS)
                signature, links = None, 0
                try:
                    if entry.is_file(follow_symlinks=False):
                        if excluded(name):
                            continue
                        status = entry.stat(follow_symlinks=False)
                        signature, links = Signature.of(status, salt), status.st_nlink
                    elif is_tree and entry.is_dir(follow_symlinks=False):
                        name += b"/"
                except FileNotFoundError:
                    continue
                except OSError:  # one bad entry says nothing of the others
                    signature, links = None, 0
                if signature or not excluded(name):
                    yield name, signature, links

    def walk(
        self, place: bytes = b"", failed: Callable[[bytes, OSError], object] = lambda *_: None
    ) -> Iterator[tuple[bytes, Signature | None, int]]:
        """Yield what `files` does at a place and at all below; tell which cannot be listed."""
        yield from self._walk(self.files, place, failed)

    def inodes(self) -> Iterator[tuple[bytes, int]]:
        """Yield all paths, of files excluded or not, each with its inode, salted as a signature's.

        Nothing of them is looked at. Raises DirectoryGoneError.
        """
        yield from self._walk(self._inodes)

    def _inodes(self, place: bytes) -> Iterator[tuple[bytes, int]]:
        with self._scan(place) as (entries, salt):
            for entry in entries:
                name = place + os.fsencode(entry.name)
                try:
                    if self.is_tree and entry.is_dir(follow_symlinks=False):
                        name += b"/"
                except OSError:  # one bad entry says nothing of the others
                    continue
                if not is_own(name):
                    yield name, entry.inode() ^ salt

    def _walk(
        self,
        listed: Callable[[bytes], Iterator[_Entry]],
        place: bytes = b"",
        failed: Callable[[bytes, OSError], object] = lambda *_: None,
    ) -> Iterator[_Entry]:
        if not self.is_tree:
            yield from iter(()) if place else listed(b"")
            return
        places, above = [place], self._identities_above(place)
        while places:
            place = places.pop()
            below: list[bytes] = []
            try:
                # It is looked into in depth, so what is above is what was opened last.
                del above[place.count(b"/") :]
                identity = self.open_at(place).identity
                if identity in above:
                    raise OSError(errno.ELOOP, "it is one above it once more, by a mount")
                above.append(identity)
                for entry in listed(place):
                    if entry[0].endswith(b"/"):
                        below.append(entry[0])
                    yield entry
            except OSError as error:  # it was removed, or cannot be read; the others can
                failed(place, error)
            places += reversed(below)

    def _identities_above(self, place: bytes) -> list[tuple[int, int]]:
        """Return those of the directories above a place, from the root on, that are there."""
        found: list[tuple[int, int]] = []
        try:
            found += (self.open_at(above).identity for above in reversed([*places_above(place)]))
        except OSError:
            return found
        return found

    def status(self, path: bytes) -> Signature | bool:
        """Return the signature of the regular file with a path, or whether there is anything else.

        Raises OSError when nobody knows.
        """
        try:
            status, salt = self._stat(path)
        except FileNotFoundError:
            return False
        return Signature.of(status, salt) if stat.S_ISREG(status.st_mode) else True

    def can_have(self, path: bytes) -> bool:
        """Say whether a path is not excluded."""
        return not self._excluded(path)

    def has(self, path: bytes) -> bool:
        """Say whether there is anything with this path that can be a file, excluded or not.

        What is the service's own cannot: a temporary file, or a cookie.
        """
        if is_own(path):
            return False
        try:
            mode = self._stat(path)[0].st_mode
        except OSError:
            return False
        return not (self.is_tree and stat.S_ISDIR(mode))

    def size(self, path: bytes) -> int:
        """Return how many bytes what has this path has, 0 when none can be seen."""
        try:
            return self._stat(path)[0].st_size
        except OSError:
            return 0

    def links(self, path: bytes) -> tuple[int, int]:
        """Return the inode of the regular file with a path and how many names it has, or zeros.

        Here a path that is excluded is there too.
        """
        try:
            status, salt = self._stat(path)
        except OSError:
            return 0, 0
        return (status.st_ino ^ salt, status.st_nlink) if stat.S_ISREG(status.st_mode) else (0, 0)

    @contextmanager
    def _scan(self, place: bytes) -> Iterator[tuple[Iterator[os.DirEntry[str]], int]]:
        try:
            opened, salt = self._fd, 0
            if place:
                opened, salt, _ = self.open_at(place)
            # Another descriptor: how far a scan has come is kept with it, and there may be two.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=opened)
            try:
                with os.scandir(fd) as entries:
                    yield entries, salt
            finally:
                os.close(fd)
        except OSError as error:  # it was removed, or its file system has failed
            if place:
                raise
            raise DirectoryGoneError(f"cannot list {self.path}: {reason(error)}") from error

    def signature(self, path: bytes) -> Signature | None:
        """Return the signature of the regular file with a path, None when none can be seen."""
        return self.look(path)[0]

    def look(self, path: bytes) -> tuple[Signature | None, int]:
        """Return the signature of the regular file with a path, and how many names it has.

        When none can be seen, which may be for a failure of the disk, that is None and 0.
        """
        if self._excluded(path):
            return None, 0
        try:
            status, salt = self._stat(path)
        except OSError:
            return None, 0
        if not stat.S_ISREG(status.st_mode):
            return None, 0
        return Signature.of(status, salt), status.st_nlink

    def read_ordinary(
        self, names: Iterable[bytes], size_max: int, *, seen: bool
    ) -> Iterator[tuple[bytes, File | Gone | None]]:
        """Read files, each with its name, that are as nearly all are: small, and without a writer.

        What is not, or cannot be read, has None: it takes a closer look, by `read`. Files that were
        `seen` to be regular ones just now are not looked at before they are opened, and are not
        ordinary if they have changed in the last half second: perhaps nobody heard of that.

        The process must ignore SIGIO, as for `read`.
        """
        began = now()  # an earlier time than that of the read makes more files racy, and not fewer
        is_tree = self.is_tree
        for number, path in enumerate(names, 1):
            if number % _AT_ONE_TIME == 0:
                began = now()
            if not seen and not (is_regular := self._is_regular(path)):
                yield path, Gone.GONE if is_regular is None else None
                continue
            try:
                salt = 0
                if is_tree and b"/" in path:
                    at, salt, name = self._at(path)
                    fd = os.open(name, _OPEN_FLAGS, dir_fd=at)
                else:  # spelled out, as there may be very many; here it is a name
                    fd = os.open(path, _OPEN_FLAGS, dir_fd=self._fd)
            except OSError:
                yield path, None
                continue
            try:
                found = _read_ordinary(fd, size_max, began - (_PATIENCE if seen else _DELAY), salt)
                if not (found or seen):
                    found = _read_closed(fd, size_max, began, salt)
            except OSError:
                found = None
            finally:
                _close(fd)
            yield path, found

    def _is_regular(self, path: bytes) -> bool | None:
        """Say whether what has a path is a regular file; None when nothing has it."""
        if self._excluded(path):
            return False
        try:
            if b"/" in path or path in NO_NAMES:
                status, _ = self._stat(path)
            else:
                status = os.stat(path, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(status.st_mode)

    def read(
        self,
        path: bytes,
        size_max: int,
        *,
        seen: bool = False,
        later: bool = False,
        overdue: bool = False,
    ) -> Found:
        """Read what is there under a path, if it is a regular file of at most `size_max` bytes.

        A file that was `seen` to be a regular one just now is not looked at before it is opened:
        to open a FIFO or a device can have effects on others.

        One that was written to just now is not read while somebody has it open for writing, as
        far as the kernel tells: it is Busy. When it is `overdue` it is read all the same. Of a file
        that was seen in a scan perhaps no event was heard, and one that is looked at `later` than
        something was heard has perhaps the same writer still: so it counts as written to just now
        for half a second.

        The process must ignore SIGIO: the kernel sends it to who asks, when a writer comes just
        then.
        """
        try:
            if not seen:
                if self._excluded(path):
                    return None
                status, _ = self._stat(path)
                if not stat.S_ISREG(status.st_mode):
                    return self._wrong_kind(status)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _failed(error)
        try:
            at, salt, name = self._at(path)
            fd = os.open(name, _OPEN_FLAGS, dir_fd=at)
        except OSError as error:
            return _not_opened(error)
        found: Found = None
        try:
            since = now() - (_PATIENCE if seen or later else _DELAY)
            found = self._read_open(_Open(fd, salt), size_max, since, unheard=seen, overdue=overdue)
        except OSError as error:
            found = _failed(error)
        finally:
            if not isinstance(found, LargeFile):
                _close(fd)
        return found

    def _read_open(
        self, file: _Open, size_max: int, since: int, *, unheard: bool, overdue: bool
    ) -> Found:
        found = self._read_once(file, size_max)
        if not isinstance(found, File | LargeFile):
            return found
        if overdue:
            return self._read_steady(file, size_max, found)
        recent = can_be_now(found.signature.ctime, since)
        if isinstance(found, File):
            if recent or not found.steady:
                return self._read_anew(file, size_max, found, unheard=unheard)
        elif recent:
            has_writer = _has_writer(file.fd)
            if has_writer or (has_writer is None and unheard):
                return Busy()
        return found

    def _read_once(self, file: _Open, size_max: int) -> File | LargeFile | Locked | Unfit | None:
        """Read the file once, a small one with its lock, which is left to be given back."""
        if not lock(file.fd):
            return Locked()
        began = now()
        before = os.fstat(file.fd)
        size = before.st_size
        if size > _SMALL:
            _unlock(file.fd)
        if not stat.S_ISREG(before.st_mode):
            return self._wrong_kind(before)
        if size > size_max:
            return _too_large(size_max)
        if size > _PIECE:
            return LargeFile(*file)
        content = os.pread(file.fd, size, 0)
        steady = len(content) == size and _is_unchanged(before, os.fstat(file.fd))
        if size > _SMALL and _is_locked(file.fd):
            return Locked()
        racy = can_be_now(before.st_ctime_ns, began)
        return File(Signature.of(before, file.salt), content, before.st_nlink, steady, racy)

    def _read_steady(self, file: _Open, size_max: int, found: Found) -> Found:
        """Return what was `found`, or is when it is read again because it was changing."""
        for _ in range(_TRIES):
            if not isinstance(found, File) or found.steady:
                break
            _unlock(file.fd)
            found = self._read_once(file, size_max)
        return found

    def _read_anew(self, file: _Open, size_max: int, found: File, *, unheard: bool) -> Found:
        """Return what to make of a file that may be being written to, and was `found` like this.

        To ask for writers before a read, or after it, is not enough: some come and go in between.
        So it is read once more while the kernel keeps them out.
        """
        soon = now() + _COARSEST
        for _ in range(_TRIES):
            _unlock(file.fd)
            has_writer = keep_writers_out(file.fd)
            if has_writer or (has_writer is None and unheard):
                return Busy()
            if has_writer is None:
                # A time to come tells nothing: a clock was set, or is another's.
                changed = found.signature.ctime
                if not found.content and can_be_now(changed, now() - _DELAY) and changed < soon:
                    return Emptied()
                if found.steady:
                    return found
            try:
                again = self._read_once(file, size_max)
                _unlock(file.fd)  # before whoever waits is let in, and asks for it
            finally:
                were_out = has_writer is False and let_writers_in(file.fd)
            if not isinstance(again, File):
                return again
            found = again
            if were_out and found.steady:
                return found._replace(closed=_is_closed(found.content))
        return found if has_writer is None else Busy()

    def _wrong_kind(self, status: os.stat_result) -> Unfit | None:
        if self.is_tree and stat.S_ISDIR(status.st_mode):
            return None  # what is in it is mirrored
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        where = "below" if self.is_tree else "directly in"
        what = f"is {kind}: not mirrored, only files {where} {self.path} become keys"
        if stat.S_ISDIR(status.st_mode):
            what += "; with SYNC_TREE=1 all below it do"
        return Unfit(what)

    def close(self) -> None:
        """Close the directory."""
        if self._fd >= 0:
            self.rest()


def _read_ordinary(fd: int, size_max: int, began: int, salt: int) -> File | None:
    """Read a file as nearly all are: small, and last changed some time ago; None if it is not.

    This is done for each of very many files, so it is spelled out. To make named tuples in the
    usual way would take as long as two of the system calls.
    """
    if not lock(fd):
        return None
    before = os.fstat(fd)
    size, mtime, ctime = before.st_size, before.st_mtime_ns, before.st_ctime_ns
    if not (
        size <= _SMALL
        and size <= size_max
        and 0 < ctime < began
        and (ctime % 1_000_000_000 or ctime < began - _COARSEST)
        and stat.S_ISREG(before.st_mode)
    ):
        return None
    content = os.pread(fd, size, 0)
    after = os.fstat(fd)
    if (
        len(content) == size == after.st_size
        and ctime == after.st_ctime_ns
        and mtime == after.st_mtime_ns
    ):
        signature = _new(Signature, (before.st_ino ^ salt, size, mtime, ctime))
        return _new(File, (signature, content, before.st_nlink, True, False, False))
    return None


def _read_closed(fd: int, size_max: int, began: int, salt: int) -> File | None:
    """Read a small file while the kernel keeps writers out; None if it is not, or cannot be.

    So nearly all are read that have just changed. `began` is a time before that (`now`).
    """
    if os.fstat(fd).st_size > _SMALL or keep_writers_out(fd) is not False:
        return None
    try:
        if not lock(fd):
            return None
        status = os.fstat(fd)
        size = status.st_size
        if size > _SMALL or size > size_max or not stat.S_ISREG(status.st_mode):
            return None
        content = os.pread(fd, size, 0)
        _unlock(fd)  # before whoever waits is let in, and asks for it
    finally:
        were_out = let_writers_in(fd)
    if not were_out or len(content) != size:
        return None
    racy = can_be_now(status.st_ctime_ns, began)
    return File(
        Signature.of(status, salt),
        content,
        status.st_nlink,
        True,
        racy,
        closed=_is_closed(content),
    )


def _is_closed(content: bytes) -> bool:
    """Say whether what was read while writers were kept out is what the last one has left.

    A file that is created is there, and empty, a moment before its creator counts as a writer.
    """
    return bool(content)


def lock(fd: int) -> bool:
    """Keep writers out that ask for a lock; say no when one is in already."""
    try:
        fcntl.flock(fd, _SHARED)
    except BlockingIOError:
        return False
    except OSError:
        return True  # there are no locks on this file system
    return True


def _unlock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        return  # there are no locks on this file system


def _is_locked(fd: int) -> bool:
    """Say whether a writer has locked it, without keeping any out for longer than this takes."""
    if not lock(fd):
        return True
    _unlock(fd)
    return False


def _has_writer(fd: int) -> bool | None:
    """Say whether anybody has the file open for writing; None when the kernel does not tell."""
    has_writer = keep_writers_out(fd)
    if has_writer is False:
        let_writers_in(fd)
    return has_writer


def keep_writers_out(fd: int) -> bool | None:
    """Say whether anybody has the file open for writing; None when the kernel does not tell.

    If nobody has, whoever opens it for writing has to wait until they are let in: the kernel gives
    a read lease, fcntl(2), only when there is no writer.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None  # another user's file, or there are no leases on this file system
    return False


def let_writers_in(fd: int) -> bool:
    """Let writers in; say whether they were kept out until now.

    When one has to wait for very long, the kernel lets it in.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # it is closed; some file systems tell only now what went wrong with others' writes


def now() -> int:
    """Return the time by the clock of which the kernel takes a file's times, in ns.

    It goes on in steps of some milliseconds.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def can_be_now(time_of_file: int, clock: int) -> bool:
    """Say whether a change to a file when `now` was `clock` could have given it this time.

    Some file systems keep whole seconds, or two of them.
    """
    if time_of_file % 1_000_000_000:
        return time_of_file >= clock
    return time_of_file >= clock - _COARSEST


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
    )


def _too_large(size_max: int) -> Unfit:
    return Unfit(
        f"is larger than the {size_max} bytes that Redis takes as a value: not mirrored; raise "
        "proto-max-bulk-len in Redis' configuration"
    )


def _not_opened(error: OSError) -> Locked | Unreadable | Unfit | None:
    if error.errno == errno.ENOENT:
        return None
    if error.errno == errno.EAGAIN:
        return Locked()  # by a lease, fcntl(2)
    if error.errno in (errno.ELOOP, errno.ENXIO) and not isinstance(error, NotFollowedError):
        return Unfit("is no longer a regular file: not mirrored")
    return _failed(error)


def _failed(error: OSError) -> Locked | Unreadable | Unfit:
    if isinstance(error, NotFollowedError):
        return Unfit(error.why)
    if error.errno in SCARCE:
        return Locked()
    if error.errno == errno.ENAMETOOLONG:
        return Unfit("has a path or a name that no program can open (over 4096 or 255 bytes)")
    return Unreadable(f"cannot be read ({reason(error)}): its key stays as it is; tried again")
