"""Puts values into files: whole, in their places, and never over what nobody has looked at.

Failure model. A value is written aside, in the directory that it belongs to, and renamed into its
place, so whoever reads finds what was there or what is, and a disk that fails, or is full, has
taken nothing. What the service looked at before may not be there any more, and others write while
it does. So before a file is replaced it is opened, and compared with what was looked at; as far as
the kernel tells, nobody may have it open for writing, and whoever opens it then has to wait. Then
the two trade places (renameat2(2), RENAME_EXCHANGE), and only what was looked at is removed. If it
is anything else, or somebody waits to write to it, they trade places again, as often as others
put something there meanwhile. A file that is removed gets a temporary name first, in the same way.

What is left:

- If what was taken away to be removed is not what was looked at, and somebody has made another file
  of that name meanwhile, that one stays. What was taken is removed: the newer file is over it, as
  if it had been renamed there.
- Who has found a file by its name, and is between that and the kernel's question who writes, when
  the file is unlinked, writes to a file without a name. So it is with all that replaces files.
- The kernel tells who writes only the file's owner, or who has CAP_LEASE. Otherwise what others
  write is noticed by the file's size and times alone.
- A process that dies in the moment between the exchange and the look leaves what was there under
  a temporary name; `take_leftovers` removes it.
- A file system that cannot exchange files has a last look instead, and a moment after it.

Directories are opened one from the other, without following a link. What is a link stays one.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn

from sync.core.changes import Signature, place_of, places_above
from sync.core.errors import CannotBeError, NotAsExpectedError
from sync.core.exclude import TEMPORARY, TEMPORARY_BEGINS, is_temporary
from sync.disk.files import Directory, keep_writers_out, let_writers_in, lock
from sync.disk.linux import UNSUPPORTED, Renames, birth
from sync.disk.own import Own
from sync.disk.places import Opened, too_long

_ASIDE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAME_MAX = 255  # bytes, limits(5)
_LAST = 0.1  # seconds that it is remembered whose a directory is
_TRIES = 100  # of what only somebody who does nothing else can make fail again and again
_PRIVATE = 0o600
_FOLDER_MODE = 0o755
_ACL = "system.posix_acl_access"
_NO_RIGHTS = (errno.EPERM, errno.EACCES)
# A file system that has no such names: that is only known from its refusal.
_NOT_A_NAME = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL)
# What is said of the content, and is not so of another one.
_OF_THE_CONTENT = ("security.capability", "security.ima", "security.evm")


class Draft:
    """A file that is written aside. Whoever begins one finishes or closes it.

    It may be written and closed in whichever thread.

    Attributes:
        name: the path that the file is to have.
        fd: its descriptor, for writing.
        at: its temporary name; b"" when there is none any more.
        folder: the open directory that it is in.
        identity: that of the directory.

    """

    __slots__ = ("at", "fd", "folder", "identity", "is_owner", "name")

    def __init__(
        self, name: bytes, opened: Opened, at: bytes, *, mode: int = _PRIVATE, keeps: bool = False
    ) -> None:
        """Make an empty file of the temporary name `at`; its directory may have to be kept open."""
        self.at = b""
        self.fd = os.open(at, _ASIDE, mode, dir_fd=opened.fd)
        self.name, self.at = name, at
        self.folder, self.identity, self.is_owner = opened.fd, opened.identity, False
        if keeps:
            try:
                self.folder, self.is_owner = os.dup(opened.fd), True
            except OSError:
                self.close()
                raise

    def write(self, piece: bytes) -> None:
        """Write all of it behind what was written; raises OSError."""
        written = os.write(self.fd, piece)
        while written < len(piece):
            piece = piece[written:]
            written = os.write(self.fd, piece)

    def end(self, *, fsync: bool) -> None:
        """Write no more."""
        if fsync:
            os.fsync(self.fd)
        fd, self.fd = self.fd, -1
        os.close(fd)  # some file systems tell only here that they have no room

    def close(self) -> None:
        """Discard what was not put into its place; a second time does nothing."""
        fd, self.fd = self.fd, -1
        at, self.at = self.at, b""
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
        if at:
            with suppress(OSError):
                os.unlink(at, dir_fd=self.folder)
        if self.is_owner:
            self.is_owner = False
            os.close(self.folder)


class _Looked:
    """A regular file that is as it was looked at, and open; no writer comes while it is.

    Attributes:
        fd: its descriptor.
        status: what it is.

    """

    __slots__ = ("_is_kept", "fd", "status")

    def __init__(self, fd: int, expected: Signature, salt: int) -> None:
        """Take over a descriptor; raises NotAsExpectedError."""
        self.fd = fd
        self._is_kept = False
        try:
            if not lock(fd):
                raise NotAsExpectedError("it is locked")
            has_writer = keep_writers_out(fd)
            self._is_kept = has_writer is False
            if has_writer:
                raise NotAsExpectedError("somebody writes to it")
            self.status = os.fstat(fd)  # not before that: the last one may just have closed it
            _check(self.status, salt, expected)
        except BaseException:
            self.close()
            raise

    def is_at(self, name: bytes, folder: int) -> bool:
        """Say whether it has this name now, with the same content, and nobody waits to write.

        A rename changes its ctime.
        """
        if self._is_kept and fcntl.fcntl(self.fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            return False
        status = _status(name, folder)
        return status is not None and _is_content(status, self.status)

    def close(self) -> None:
        """Let writers in."""
        if self._is_kept:
            let_writers_in(self.fd)
        os.close(self.fd)


class _Owner(NamedTuple):
    """Whose a directory is, for all files that are written to it until some time (s)."""

    identity: tuple[int, int]
    until: float
    uid: int
    gid: int


class Writer:
    """Writes the files of a directory, each at its path; in a tree, makes the directories.

    The process must ignore SIGIO: the kernel sends it when a writer comes while one is kept out.

    What cannot be done is a CannotBeError, what should not be done now a NotAsExpectedError, and
    what the disk refuses an OSError. No file has changed then; directories may have been made.

    An overwrite has some eight events of inotify(7), and a new file five: who writes many reads the
    watch in between, before the kernel's queue is full.

    Attributes:
        made: the directories that it has made, each with what tells it from others, by place;
            whoever keeps them takes them out.

    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own
        self,
        directory: Directory,
        own: Own,
        *,
        mode: int = 0o644,
        owner: tuple[int, int] | None = None,
        fsync: bool = False,
        newline: bytes = b"",
        renames: Renames | None = None,
    ) -> None:
        """Write the files of `directory`, and tell `own` of that.

        A new file gets `mode` and `owner`, which is that of its directory if it is None; -1 in it
        is that as well. What has a path is on the disk before a call returns if `fsync`. Each file
        ends with `newline`.
        """
        self._directory = directory
        self._own = own
        self._mode = mode
        self._owner = owner
        self._fsync = fsync
        self._newline = newline
        self._renames = renames or Renames()
        self._user = os.geteuid(), os.getegid()
        self._last = _Owner((-1, -1), 0.0, -1, -1)
        self._first = self._number = int.from_bytes(os.urandom(8))
        self.made: dict[bytes, bytes] = {}

    def put(self, name: bytes, content: bytes, expected: Signature | None) -> Signature:
        """Have the file with a path hold a content, and a newline, whole and at once.

        `expected` is the signature of the regular file that was looked at, None if there was none.
        Returns the signature that the file has at its place: one that is not sure if it is another
        by now. As of all that has just changed, a write in the same tick may not show in it.
        """
        base = self._base(name)
        draft, opened = self._draft(name, is_new=expected is None)
        try:
            draft.write(content)
            return self._place(draft, opened, base, expected)
        finally:
            draft.close()

    def begin(self, name: bytes) -> Draft:
        """Begin a file whose content comes in pieces."""
        self._base(name)
        return self._draft(name, keeps=True)[0]

    def finish(self, draft: Draft, expected: Signature | None) -> Signature:
        """Have the file hold what was written, as `put`; the draft is closed in any case."""
        try:
            self._directory.forget()
            opened = self._folder(place_of(draft.name))
            if opened.identity != draft.identity:
                raise NotAsExpectedError("another directory is there")
            return self._place(draft, opened, self._base(draft.name), expected)
        finally:
            draft.close()

    def remove(self, name: bytes, expected: Signature) -> None:
        """Remove the file with a path if it is the one that was looked at."""
        base = self._base(name)
        folder = (opened := self._folder(place_of(name))).fd
        looked = _look(opened, base, expected)
        try:
            at = self._temporary()
            try:
                self._renames.replace(base, folder, at, folder)
            except FileNotFoundError as error:
                raise NotAsExpectedError("it is gone") from error
            if not looked.is_at(at, folder):
                self._bring_back(at, base, folder)
                raise NotAsExpectedError("it has changed")
            self._own.took(name)
            _unlink(at, folder)
        finally:
            looked.close()
        if self._fsync:
            os.fsync(folder)

    def rename(self, old: bytes, new: bytes, expected: Signature) -> Signature:
        """Rename a file, if it is the one that was looked at and none has the new path."""
        bases = self._base(old), self._base(new)
        there = self._folder(place_of(old))
        there = there._replace(fd=os.dup(there.fd))  # another that is opened may take its own
        try:
            opened = self._open_or_make(place_of(new))
            looked = _look(there, bases[0], expected)
            try:
                self._rename_looked(looked, bases, there.fd, opened.fd)
            finally:
                looked.close()
            signature = _signature_of(looked.status, bases[1], opened)
            self._own.moved(old, new, signature.inode)
            if self._fsync:
                os.fsync(opened.fd)
                os.fsync(there.fd)
        finally:
            os.close(there.fd)
        return signature

    def take_leftovers(self, place: bytes) -> int:
        """Remove the temporary files at a place that a process left which is dead; say how many."""
        try:
            folder = self._directory.open_at(place).fd
        except OSError:
            return 0
        taken = 0
        for name in map(os.fsencode, os.listdir(folder)):
            is_one = name.startswith(TEMPORARY_BEGINS) and is_temporary(name)
            if is_one and not self._is_mine(name):
                with suppress(OSError):  # a directory of such a name stays
                    os.unlink(name, dir_fd=folder)
                    taken += 1
        return taken

    def _is_mine(self, name: bytes) -> bool:
        """Say whether this writer has used a temporary name."""
        number = int(name[len(TEMPORARY_BEGINS) :].rstrip(b"~"), 16)
        return (number - self._first) % (1 << 64) <= (self._number - self._first) % (1 << 64)

    def check(self, name: bytes) -> None:
        """Raise CannotBeError if no file can have a path."""
        self._base(name)

    def remove_empty(self, made: Mapping[bytes, bytes]) -> set[bytes]:
        """Remove those directories that were made, and are empty.

        Return the places at which they are no more, though there may be others.
        """
        gone = set()
        for place in sorted(made, key=lambda each: each.count(b"/"), reverse=True):
            self._directory.forget()  # what is removed, or was moved, is still open
            try:
                if self._lasting_identity(place) == made[place]:
                    above = self._directory.open_at(place_of(place))
                    os.rmdir(place[len(place_of(place)) : -1], dir_fd=above.fd)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    continue
            gone.add(place)
        self._directory.forget()
        return gone

    def gone(self, made: Mapping[bytes, bytes]) -> set[bytes]:
        """Return the places at which the directories that were made are no more."""
        self._directory.forget()
        gone = set()
        for place, identity in made.items():
            try:
                is_there = self._lasting_identity(place) == identity
            except FileNotFoundError:
                is_there = False
            except OSError:
                continue  # nobody knows
            if not is_there:
                gone.add(place)
        return gone

    def _lasting_identity(self, place: bytes) -> bytes:
        """Return what tells a directory from others, also from one that gets its inode later."""
        return _lasting_identity(self._directory.open_at(place).fd)

    def take_made(self) -> dict[bytes, bytes]:
        """Return the directories that it has made since the last call."""
        made, self.made = self.made, {}
        return made

    # What a path is

    def _base(self, name: bytes) -> bytes:
        """Return the last component of a path that a file can have; raises CannotBeError."""
        if (why := why_no_file(name, is_tree=self._directory.is_tree)) or self._directory.excludes(
            name
        ):
            raise CannotBeError(why or "is left out by SYNC_EXCLUDE, or is a temporary name")
        return name[name.rfind(b"/") + 1 :]

    # Directories

    def _folder(self, place: bytes) -> Opened:
        """Return the directory at a place; raises NotAsExpectedError if there is none."""
        try:
            return self._directory.open_at(place)
        except FileNotFoundError as error:
            raise NotAsExpectedError("its directory is not there") from error

    def _open_or_make(self, place: bytes) -> Opened:
        """Return the directory at a place, which is made if it is not there."""
        try:
            return self._directory.open_at(place)
        except FileNotFoundError:
            above = [*reversed([*places_above(place)][:-1]), place]
        if any(map(self._directory.excludes, above)):  # before one of them is made
            raise CannotBeError("is in a directory that SYNC_EXCLUDE leaves out")
        for each in above:
            try:
                opened = self._directory.open_at(each)
            except FileNotFoundError:
                opened = self._make(each)
        return opened

    def _make(self, place: bytes) -> Opened:
        parent = self._directory.open_at(place_of(place))
        name = place[len(place_of(place)) : -1]
        uid, gid = self._owner_in(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            return self._not_made(place, name, parent)
        if self._fsync:
            os.fsync(parent.fd)
        opened = self._folder(place)
        status = os.fstat(opened.fd)
        # Another one may have been put in its place. To that one nothing is done.
        if os.listdir(opened.fd):
            return opened
        self.made[place] = _lasting_identity(opened.fd)
        if status.st_uid == os.geteuid():
            _give(opened.fd, status, uid, gid)
            _allow(opened.fd, _FOLDER_MODE | status.st_mode & stat.S_ISGID)
        return opened

    def _not_made(self, place: bytes, name: bytes, parent: Opened) -> Opened:
        """Return what somebody else has made meanwhile, if it is a directory."""
        status = _status(name, parent.fd)
        if status and stat.S_ISLNK(status.st_mode):
            raise CannotBeError("leads through a symbolic link, which is not followed")
        if status and not stat.S_ISDIR(status.st_mode):
            raise CannotBeError("leads through what is no directory")
        return self._folder(place)

    def _owner_in(self, opened: Opened) -> tuple[int, int]:
        """Return whose what is new in a directory is to be."""
        uid, gid = self._owner or (-1, -1)
        if uid >= 0 and gid >= 0:
            return uid, gid
        now = time.monotonic()
        if self._last.identity != opened.identity or now >= self._last.until:
            folder = os.fstat(opened.fd)
            self._last = _Owner(opened.identity, now + _LAST, folder.st_uid, folder.st_gid)
        return self._last.uid if uid < 0 else uid, self._last.gid if gid < 0 else gid

    # Files

    def _draft(
        self, name: bytes, *, is_new: bool = False, keeps: bool = False
    ) -> tuple[Draft, Opened]:
        place = place_of(name)
        for _ in range(_TRIES):
            try:
                opened = self._open_or_make(place)
                # With its owner from the start it need not be kept from others until it has that.
                is_ours = is_new and self._owner_in(opened) == self._user
                mode = self._mode if is_ours else _PRIVATE
                return Draft(name, opened, self._temporary(), mode=mode, keeps=keeps), opened
            except FileExistsError:
                continue
            except FileNotFoundError:  # the directory was removed, but is still open
                self._directory.forget()
        raise NotAsExpectedError("its directory is removed again and again")

    def _temporary(self) -> bytes:
        self._number = (self._number + 1) % (1 << 64)
        return TEMPORARY % self._number

    def _place(
        self, draft: Draft, opened: Opened, base: bytes, expected: Signature | None
    ) -> Signature:
        """Give a draft its name."""
        if self._newline:
            draft.write(self._newline)
        if expected is None:
            status = self._put_new(draft, opened, base)
        else:
            looked = _look(opened, base, expected)
            try:
                status = self._put_over(looked, draft, base)
                self._own.put(draft.name, status.st_ino ^ opened.salt)
            finally:
                looked.close()
        if self._fsync:
            os.fsync(opened.fd)
        return _signature_of(status, base, opened)

    def _put_new(self, draft: Draft, opened: Opened, base: bytes) -> os.stat_result:
        status = os.fstat(draft.fd)
        _give(draft.fd, status, *self._owner_in(opened))
        if stat.S_IMODE(status.st_mode) != self._mode:
            _allow(draft.fd, self._mode)
        draft.end(fsync=self._fsync)
        at, draft.at = draft.at, b""
        try:
            self._rename_new(at, draft.folder, base, draft.folder)
        except OSError as error:
            draft.at = at
            _refuse(error, base, draft.folder)
        self._own.put(draft.name, status.st_ino ^ opened.salt)
        return status

    def _put_over(self, looked: _Looked, draft: Draft, base: bytes) -> os.stat_result:
        status = os.fstat(draft.fd)
        _dress(draft.fd, status, looked.fd, looked.status)
        draft.end(fsync=self._fsync)
        folder = draft.folder
        at, draft.at = draft.at, b""  # by and by this is another's, which must not be discarded
        try:
            self._renames.exchange(at, base, folder)
        except OSError as error:
            # Where files are elsewhere it may have been done, and only the answer was lost.
            if _identity_at(at, folder) == _identity(status):
                draft.at = at
            if error.errno not in UNSUPPORTED:
                _refuse(error, base, folder)
            self._replace(looked, draft, base)
            return status
        if not looked.is_at(at, folder):
            self._give_back(at, base, folder, status)
            raise NotAsExpectedError("it has changed")
        _unlink(at, folder)
        return status

    def _replace(self, looked: _Looked, draft: Draft, base: bytes) -> None:
        """Put a draft over a file where the two cannot be exchanged."""
        if not looked.is_at(base, draft.folder):
            raise NotAsExpectedError("it has changed")
        self._renames.replace(draft.at, draft.folder, base, draft.folder)
        draft.at = b""

    def _give_back(self, at: bytes, base: bytes, folder: int, ours: os.stat_result) -> None:
        """Exchange again what others put there, until the last of them has the name.

        What was put there over ours is newer than what ours was put over.
        """
        put: tuple[int, int] | None = _identity(ours)
        held = _identity_at(at, folder)
        for _ in range(_TRIES):
            try:
                self._renames.exchange(at, base, folder)
            except FileNotFoundError:  # somebody has removed ours, and would have removed that
                break
            found = _identity_at(at, folder)
            if found == put:
                break
            put, held = held, found
        _unlink(at, folder)

    def _bring_back(self, at: bytes, base: bytes, folder: int) -> None:
        """Give what was taken its name again, unless there is something newer of that name."""
        try:
            self._rename_new(at, folder, base, folder)
        except FileExistsError:
            _unlink(at, folder)

    def _rename_looked(
        self, looked: _Looked, bases: tuple[bytes, bytes], old_folder: int, new_folder: int
    ) -> None:
        old, new = bases
        try:
            self._rename_new(old, old_folder, new, new_folder)
        except OSError as error:
            _refuse(error, new, new_folder)
        if not looked.is_at(new, new_folder):
            with suppress(FileExistsError):  # then both stay
                self._rename_new(new, new_folder, old, old_folder)
            raise NotAsExpectedError("it has changed")

    def _rename_new(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        """Rename, and replace nothing, as far as the file system can."""
        try:
            self._renames.new(old, old_folder, new, new_folder)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            self._link_new(old, old_folder, new, new_folder)

    def _link_new(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        try:
            os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            os.unlink(old, dir_fd=old_folder)
            return
        if _status(new, new_folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._renames.replace(old, old_folder, new, new_folder)


def why_no_file(name: bytes, *, is_tree: bool) -> str:
    """Say why a name can be no file's path, in a tree or a flat directory; "" if it can."""
    if b"\0" in name:
        return "has a NUL byte, which no file name can have"
    if b"/" not in name:
        return _why_no_component(name)
    if not is_tree:
        return "has a slash, and the files of directories are mirrored only with SYNC_TREE=1"
    if too_long(name):
        return "is a path that no program can open (over 4096 bytes)"
    return next(filter(None, map(_why_no_component, name.split(b"/"))), "")


def _why_no_component(name: bytes) -> str:
    """Say why a name without a slash can be none of a file; "" if it can."""
    if name in (b"", b".", b".."):
        return "has an empty component, . or .., which no file name can be"
    if len(name) > _NAME_MAX:
        return "has a component that no file name can be (over 255 bytes)"
    return ""


def _look(opened: Opened, base: bytes, expected: Signature) -> _Looked:
    """Open the regular file that was looked at.

    Raises CannotBeError for what is no regular file, and NotAsExpectedError for another one.
    """
    status = _status(base, opened.fd)  # to open what is no file can have effects on others
    _check(status, opened.salt, expected)
    try:
        fd = os.open(base, _READ, dir_fd=opened.fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EAGAIN):
            raise NotAsExpectedError("it has changed, or somebody writes to it") from error
        raise
    return _Looked(fd, expected, opened.salt)


def _check(status: os.stat_result | None, salt: int, expected: Signature) -> None:
    if status is None:
        raise NotAsExpectedError("it is gone")
    if not stat.S_ISREG(status.st_mode):
        raise CannotBeError(_what_is_there(status))
    if Signature.of(status, salt) != expected:
        raise NotAsExpectedError("it has changed")


def _what_is_there(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link on the disk, which is neither followed nor replaced"
    if stat.S_ISDIR(status.st_mode):
        return "is a directory on the disk"
    return "is something on the disk that is no regular file"


def _refuse(error: OSError, base: bytes, folder: int) -> NoReturn:
    """Say why a file did not get its name."""
    if error.errno in (errno.ENOENT, errno.EXDEV):
        raise NotAsExpectedError("it is gone, or would have to be copied") from error
    if error.errno in _NOT_A_NAME:
        raise CannotBeError("has a name that the file system does not take") from error
    if error.errno != errno.EEXIST:
        raise error
    status = _status(base, folder)
    if status and not stat.S_ISREG(status.st_mode):
        raise CannotBeError(_what_is_there(status)) from error
    raise NotAsExpectedError("a file is there") from error


def _signature_of(status: os.stat_result, base: bytes, opened: Opened) -> Signature:
    """Return the signature of a file that has got its name: now, as a rename changes ctime."""
    found = _status(base, opened.fd)
    if found and _is_content(found, status):
        return Signature.of(found, opened.salt)
    return Signature.of(status, opened.salt).unsure()


def _is_content(one: os.stat_result, other: os.stat_result) -> bool:
    return (
        one.st_ino == other.st_ino
        and one.st_size == other.st_size
        and one.st_mtime_ns == other.st_mtime_ns
        and one.st_dev == other.st_dev
    )


def _status(name: bytes, folder: int) -> os.stat_result | None:
    """Return what is there, None if nothing is; raises OSError when nobody knows."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _identity_at(name: bytes, folder: int) -> tuple[int, int] | None:
    status = _status(name, folder)
    return _identity(status) if status else None


def _lasting_identity(fd: int) -> bytes:
    system, inode = os.fstatvfs(fd).f_fsid, os.fstat(fd).st_ino
    return b"%x:%x:%x" % (system, inode, birth(fd))


def _unlink(name: bytes, folder: int) -> None:
    with suppress(OSError):  # a directory stays; any other is a left-over
        os.unlink(name, dir_fd=folder)


def _give(fd: int, status: os.stat_result, uid: int, gid: int) -> bool:
    """Give what is open to an owner and a group, as far as there is a right to; say whether so."""
    if (status.st_uid, status.st_gid) == (uid, gid):
        return True
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        if error.errno not in _NO_RIGHTS:
            raise
        return False
    return True


def _dress(fd: int, its: os.stat_result, model: int, status: os.stat_result) -> None:
    """Give a file the owner, the attributes and the mode of another, and never more rights.

    What cannot be kept takes rights away. A program that runs with its owner's rights is not made
    of what comes from Redis.
    """
    mode = status.st_mode & 0o777
    is_given = _give(fd, its, status.st_uid, status.st_gid)
    if not is_given:
        mode = _narrowed(mode, has_group=_give(fd, its, -1, status.st_gid))
    if not _copy_attributes(fd, model, with_acl=is_given):
        mode &= 0o700
    _allow(fd, mode)


def _allow(fd: int, mode: int) -> None:
    """Give a file its mode, which was for the service alone until now; raises OSError.

    Where a file system has no modes, or refuses to change them, the file has what it has: unless
    that is more than it should.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        has = stat.S_IMODE(os.fstat(fd).st_mode)
        has_modes = has in {_PRIVATE, 0o700}  # as it was made
        if error.errno not in _NO_RIGHTS or (has_modes and has & ~mode):
            raise


def _narrowed(mode: int, *, has_group: bool) -> int:
    """Return a mode that gives nobody more rights when the owner, or the group too, is another."""
    owner, group, others = mode >> 6, mode >> 3 & 7, mode & 7
    group, others = group & owner, others & owner  # who was the owner is now one of these
    if not has_group:
        group = others = group & others
    return owner << 6 | group << 3 | others


def _copy_attributes(fd: int, model: int, *, with_acl: bool) -> bool:
    """Copy extended attributes; say no if there is an access control list that was not copied."""
    names, has_acl = _attributes(model), True
    for name in _attributes(fd):
        if name not in names:  # what a directory has new files inherit
            with suppress(OSError):
                os.removexattr(fd, name)
    for name in names:
        is_acl = name == _ACL
        if name in _OF_THE_CONTENT or (is_acl and not with_acl):
            has_acl = has_acl and not is_acl
            continue
        try:
            os.setxattr(fd, name, os.getxattr(model, name))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            has_acl = has_acl and not is_acl
    return has_acl


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:  # there are none on this file system
        return []
