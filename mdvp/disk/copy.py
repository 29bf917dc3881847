"""Copying all that is in one directory to another that nobody else can reach.

Failure model. Users may work in the source meanwhile: nothing of theirs leads us elsewhere
(`mdvp.disk.walk`), no FIFO, device or lease is waited for, and a file that grows is copied as far
as it went when it was begun. The target is root's alone until the copy has ended.

A file has its times last, so one of another size, time, owner or mode than its source is not whole.
A copy that was cut off goes on: what is whole stays. After the machine itself has stopped, what
looks whole need not be on disk, so a mark on the target has the boot in which it was made, and in
another all is copied again; as it is of another source.

Of a file that is cloned (FICLONE) the content is of one instant. One whose bytes are copied is
copied again if it changed meanwhile, some times; then it is named. Sockets, devices and what is
mounted are left out, and counted, as is what would need a capability that we lack: the bit for the
group's identity on what is another group's, and attributes of the kernel. What cannot be read, or
written, ends the copy with its OSError, which names it.
"""

import errno
import fcntl
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from mdvp.core.volume import Means
from mdvp.disk import record
from mdvp.disk.deletion import delete
from mdvp.disk.entry import identity, listed
from mdvp.disk.linux import open_beneath
from mdvp.disk.walk import Visit, What, walk

MARK = (
    "user.mdvp.copy"  # on the target: the boot in which it is made, and whether bytes were copied
)
_COPIED = b" copied"
_CLONE = 0x40049409  # FICLONE: ioctl_ficlone(2)
_PIECE = 16 << 20  # bytes that are copied at a time
# Bytes after which those copied are written to the disk. Else whoever syncs anything on it, such as
# the state database for a Create, waits for all of them (ext4, data=ordered).
_FLUSH = 64 << 20
_TRIES = 3  # for a file that changes
_TICK = 10_000_000  # ns: what the kernel's time of a change may be behind
_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE: what the times of files are taken from
_NAMED_MAX = 10  # of each kind, in messages
# Of files with several names that are remembered: how many, and how many bytes the paths have.
_LINKS_MAX = 1_000_000
_LINKS_SIZE = 256 << 20
_PATH_MAX = 4096  # bytes of a path that the kernel takes
_LEASED = 0.02  # seconds until a file is tried again that somebody has a lease on
_DEFAULT_ACL = "system.posix_acl_default"
# The lists once more, as XFS shows them to who has CAP_SYS_ADMIN.
_LISTS_OF_XFS = ("trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT")
# At once, or by us at all.
_NOT_TO_BE_SET = (record.ATTRIBUTE, MARK, _DEFAULT_ACL, *_LISTS_OF_XFS)
# Not each file can be cloned; and where none can, there is no use in asking again.
_NO_CLONE = (errno.EINVAL, errno.ETXTBSY, errno.EPERM)
_NO_CLONES = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV)
_NO_ATTRIBUTE = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)
_MOVED = (errno.ESTALE, errno.ENOTDIR, errno.ELOOP)


_Attributes: TypeAlias = Iterable[tuple[str, bytes]]


class StoppedError(Exception):
    """The copy was told to end."""


@dataclass(slots=True)
class Progress:
    """How far a copy is. Read by any thread, while one writes.

    Attributes:
        files: what is copied of what is no directory.
        size: how many bytes that has on disk.
        files_of: how many files there are; 0 until they are counted.
        size_of: how many bytes these have.
        left_out: how many of each kind were left out.
        changed: the files that changed again and again while they were copied.
        named: some of what was left out, or changed: its path, quoted, as users name it.

    """

    files: int = 0
    size: int = 0
    files_of: int = 0
    size_of: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    named: list[str] = field(default_factory=list)

    @property
    def percent(self) -> int | None:
        """How much is done, 99 at most as long as it is not all; None until that is known."""
        done, of = (self.size, self.size_of) if self.size_of else (self.files, self.files_of)
        return min(99, done * 100 // of) if of else None

    def name(self, path: str) -> None:
        """Name a path in messages, if not too many are."""
        if len(self.named) < _NAMED_MAX:
            self.named.append(ascii(path))


@dataclass(frozen=True, slots=True)
class _Link:
    """A file with several names: where its copy is, and which content it had."""

    path: bytes
    content: tuple[int, int]


@dataclass(slots=True)
class _Level:
    """A directory on the way down from the top, as the source has it.

    There may be many, so what takes room is not kept here.

    Attributes:
        path: its path in the target; None if that is longer than any can be.
        default: what it hands on of access control to what is made in it.
        fresh: whether there was none in the target.

    """

    name: str
    status: os.stat_result
    path: bytes | None
    default: bytes | None
    fresh: bool


class Copy:
    """A copy of what is in one open directory to another, of which a part may be there.

    Attributes:
        progress: how far it is.

    """

    def __init__(self, source: int, target: int, boot: str, go_on: Callable[[], bool]) -> None:
        """Copy to `target`, the caller's, in the present `boot`, as long as `go_on` says so."""
        self.progress = Progress()
        self._source = source
        self._top = target
        self._here = os.dup(target)
        self._go_on = go_on
        self._mark = mark_of(source, boot)
        mark = _attribute(target, MARK)
        self._continues = mark in (self._mark, self._mark + _COPIED)
        self._copied = mark == self._mark + _COPIED
        self._cloned = False
        self._clones = True  # as far as is known
        self._unflushed = 0
        self._links: dict[tuple[int, int], _Link] = {}
        self._links_size = 0
        default = _attribute(source, _DEFAULT_ACL)
        self._levels = [_Level("", os.fstat(source), b"", default, fresh=False)]

    def close(self) -> None:
        """Close what is open."""
        os.close(self._here)

    @property
    def means(self) -> Means:
        """How the content was got: REFLINK only if that of each file was."""
        return Means.REFLINK if self._cloned and not self._copied else Means.COPY

    def count(self) -> None:
        """Count what there is to be copied."""
        files = size = 0
        with closing(walk(self._source)) as visits:
            for visit in visits:
                self._check()
                if visit.what is What.FOUND and visit.status is not None:
                    files += 1
                    size += _on_disk(visit.status)
        self.progress.files_of, self.progress.size_of = files, size

    def run(self) -> None:
        """Copy all; raises StoppedError when `go_on` said no before the end."""
        if not self._continues:
            self._set_mark()
        _make_ours(self._here)
        self._set_attributes(self._here, _attributes(self._source), "")
        self._prune(self._source)
        with closing(walk(self._source)) as visits:
            for visit in visits:
                self._check()
                with self._naming(visit.name):
                    self._take(visit)
        with suppress(OSError):
            os.removexattr(self._here, MARK)
        self._finish(self._levels[0])

    def _check(self) -> None:
        if not self._go_on():
            raise StoppedError

    def _set_mark(self) -> None:
        # Without attributes, what is cut off is begun again.
        with suppress(OSError):
            os.setxattr(self._top, MARK, self._mark + (_COPIED if self._copied else b""))

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = self._path(name)
            error.filename2 = None
            raise

    def _path(self, name: str) -> str:
        """Return the path of what is in the present directory, for a message."""
        path = _below(self._levels[-1].path, name)
        return f"\N{HORIZONTAL ELLIPSIS}/{name}" if path is None else os.fsdecode(path)

    def _take(self, visit: Visit) -> None:
        match visit:
            case Visit(What.LEFT):
                self._leave()
            case Visit(What.MISSED, error=OSError() as error):
                self._miss(visit.name, error)
            case Visit(What.ENTERED, status=os.stat_result() as status):
                self._enter(visit, status)
            case Visit(status=os.stat_result() as status):
                self._found(visit, status)
                self.progress.files += 1

    def _miss(self, name: str, error: OSError) -> None:
        if error.errno == errno.EXDEV:
            self._leave_out("mount points", name)
        elif error.errno in _MOVED:
            self._leave_out("directories that were moved meanwhile", name)
        else:
            raise error

    def _leave_out(self, kind: str, name: str) -> None:
        self.progress.left_out[kind] += 1
        self.progress.name(self._path(name))

    # Directories.

    def _enter(self, visit: Visit, status: os.stat_result) -> None:
        fresh = self._make_directory(visit.name)
        fd = os.open(
            visit.name,
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=self._here,
        )
        self._move(fd)
        if not fresh:
            _make_ours(fd)
        self._set_attributes(fd, _attributes(visit.fd), visit.name)
        path = _below(self._levels[-1].path, visit.name)
        default = _attribute(visit.fd, _DEFAULT_ACL)
        self._levels.append(_Level(visit.name, status, path, default, fresh))
        if not fresh:
            self._prune(visit.fd)

    def _make_directory(self, name: str) -> bool:
        """Make a directory in the target; return False for one that is there."""
        try:
            os.mkdir(name, 0o700, dir_fd=self._here)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=self._here, follow_symlinks=False).st_mode):
                return False
            os.unlink(name, dir_fd=self._here)
            os.mkdir(name, 0o700, dir_fd=self._here)
        return True

    def _prune(self, source: int) -> None:
        """Delete from a directory that was there what its source does not have any more."""
        with listed(self._here) as entries:
            for entry in entries:
                self._check()
                try:
                    os.close(open_beneath(entry.name, source, os.O_PATH | os.O_NOFOLLOW))
                except FileNotFoundError:
                    delete(self._here, entry.name)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise

    def _leave(self) -> None:
        self._finish(self._levels.pop())
        self._move(os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._here))

    def _finish(self, level: _Level) -> None:
        status = level.status
        if level.default is not None:
            self._set_attributes(self._here, [(_DEFAULT_ACL, level.default)], level.name)
        # While it is ours: else a bit for the group's identity is lost.
        os.fchmod(self._here, stat.S_IMODE(status.st_mode))
        os.fchown(self._here, status.st_uid, status.st_gid)
        os.utime(self._here, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _move(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd

    # What is no directory.

    def _found(self, visit: Visit, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR):
            self._leave_out("sockets" if kind == stat.S_IFSOCK else "devices", visit.name)
            return
        if self._continues and not self._levels[-1].fresh and self._is_whole(visit.name, status):
            self.progress.size += _on_disk(status)
            self._remember(visit.name, status)
            if stat.S_ISREG(status.st_mode) and status.st_size:
                self._cloned = True  # or the mark says that bytes were copied
        elif self._is_linked(visit.name, status):
            self.progress.size += _on_disk(status)
        else:
            try:
                self._make(visit, status)
            except FileExistsError:
                delete(self._here, visit.name)
                self._make(visit, status)

    def _make(self, visit: Visit, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            self._copy_file(visit)
            self._remember(visit.name, status)
            return
        self.progress.size += _on_disk(status)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink("", dir_fd=visit.fd), visit.name, dir_fd=self._here)
        else:
            os.mkfifo(visit.name, 0o600, dir_fd=self._here)
        os.chown(visit.name, status.st_uid, status.st_gid, dir_fd=self._here, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(visit.name, stat.S_IMODE(status.st_mode), dir_fd=self._here)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(visit.name, ns=times, dir_fd=self._here, follow_symlinks=False)

    def _is_whole(self, name: str, status: os.stat_result) -> bool:
        """Say whether a file is there as it was made to the end from what is there to be copied."""
        try:
            there = os.stat(name, dir_fd=self._here, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if _looks(there) != _looks(status):
            return False
        link = self._links.get((status.st_dev, status.st_ino))
        if link is None:
            return True
        with suppress(OSError):
            return (
                os.stat(link.path, dir_fd=self._top, follow_symlinks=False).st_ino == there.st_ino
            )
        return True

    def _is_linked(self, name: str, status: os.stat_result) -> bool:
        """Give a file that is there by another name this one, too; return False if it is not."""
        link = self._links.get((status.st_dev, status.st_ino))
        if link is None or link.content != _content(status):
            return False
        delete(self._here, name)
        try:
            os.link(
                link.path, name, src_dir_fd=self._top, dst_dir_fd=self._here, follow_symlinks=False
            )
        except OSError as error:  # of too many names, or at a path that is too long
            if error.errno in (errno.ENOENT, errno.EMLINK, errno.ENAMETOOLONG, errno.EXDEV):
                return False
            raise
        return True

    def _remember(self, name: str, status: os.stat_result) -> None:
        """Take note of where the copy of a file is that may have other names yet to be seen."""
        key = status.st_dev, status.st_ino
        if status.st_nlink == 1 or not stat.S_ISREG(status.st_mode) or key in self._links:
            return
        path = _below(self._levels[-1].path, name)
        # Users make paths as long, and names as many, as they like; there is not memory for all.
        if path is None or len(self._links) >= _LINKS_MAX or self._links_size >= _LINKS_SIZE:
            self._leave_out("hard links", name)
            return
        self._links_size += len(path)
        self._links[key] = _Link(path, _content(status))

    # The content of a file.

    def _copy_file(self, visit: Visit) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(visit.name, flags, 0o600, dir_fd=self._here)
        try:
            source = self._open_again(visit.fd)
            try:
                status = self._copy_content(source, out, visit.name)
                self._dress(out, status, _attributes(source), visit.name)
            finally:
                os.close(source)
        finally:
            os.close(out)

    def _open_again(self, fd: int) -> int:
        """Open a file for reading, for the caller to close."""
        while True:
            try:
                return _reopened(fd)
            except BlockingIOError:  # somebody has a lease on it, and has been told to give that up
                self._check()
                time.sleep(_LEASED)  # the kernel ends it: lease-break-time in proc(5)

    def _copy_content(self, source: int, out: int, name: str) -> os.stat_result:
        """Copy what is in a file; return what it was when that was begun."""
        before, done = os.fstat(source), self.progress.size
        if before.st_size and not self._is_cloned(source, out):
            if not self._copied:
                self._copied = True
                self._set_mark()
            for left in reversed(range(_TRIES)):
                began = time.clock_gettime_ns(_FILE_CLOCK)
                before = os.fstat(source)
                self.progress.size = done
                self._copy_bytes(source, out, before.st_size)
                if not _has_changed(before, os.fstat(source), began):
                    break
                if not left:
                    self.progress.changed += 1
                    self.progress.name(self._path(name))
                else:
                    time.sleep(_TICK / 1e9)  # a change just now has a time of its own then
        self.progress.size = done + _on_disk(before)
        return before

    def _is_cloned(self, source: int, out: int) -> bool:
        if not self._clones:
            return False
        try:
            fcntl.ioctl(out, _CLONE, source)
        except OSError as error:
            if error.errno in _NO_CLONES:
                self._clones = False
            elif error.errno not in _NO_CLONE:
                raise
            return False
        self._cloned = True
        return True

    def _copy_bytes(self, source: int, out: int, size: int) -> None:
        os.ftruncate(out, 0)
        for begin, end in _data(source, size):
            os.lseek(out, begin, os.SEEK_SET)
            at = begin
            while at < end:
                self._check()
                sent = os.sendfile(out, source, at, min(_PIECE, end - at))
                if not sent:  # it was cut meanwhile
                    break
                at += sent
                self.progress.size += sent
                self._unflushed += sent
                if self._unflushed >= _FLUSH:
                    self._unflushed = 0
                    os.fdatasync(out)
        os.ftruncate(out, size)

    # What is said of a file besides its content.

    def _dress(self, out: int, status: os.stat_result, attributes: _Attributes, name: str) -> None:
        made = os.fstat(out)
        if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(out, status.st_uid, status.st_gid)
        self._set_attributes(out, attributes, name)
        mode = stat.S_IMODE(status.st_mode)
        os.fchmod(out, mode)  # to give it to another takes bits off
        if mode & stat.S_ISGID and not os.fstat(out).st_mode & stat.S_ISGID:
            self._leave_out("permissions to act as the group", name)
        os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _set_attributes(self, out: int, attributes: _Attributes, name: str) -> None:
        for attribute, value in attributes:
            try:
                if _attribute(out, attribute) != value:
                    os.setxattr(out, attribute, value)
            except OSError as error:
                if error.errno not in _NO_ATTRIBUTE:
                    raise
                self._leave_out("attributes", name)


def mark_of(source: int, boot: str) -> bytes:
    """Return what marks a copy of an open directory that is made in a boot."""
    which = identity(source)
    return f"{boot} {which.inode} {which.born}".encode()


def _reopened(fd: int) -> int:
    """Open for reading what is open for a look, a file; it is that one whatever its name is now."""
    path, flags = f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # to say that we have not read it is not ours everywhere
        return os.open(path, flags)


def _below(folder: bytes | None, name: str) -> bytes | None:
    """Return the path of `name` in a folder; None if it is longer than any can be."""
    if folder is None:
        return None
    path = b"/".join(filter(None, (folder, os.fsencode(name))))
    return path if len(path) < _PATH_MAX else None


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where the data of a file is that may have holes, up to `size`: each begin and end."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = min(size, os.lseek(fd, begin, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is none any more
                return
            raise
        if begin < at:
            yield begin, at


def _has_changed(before: os.stat_result, after: os.stat_result, began: int) -> bool:
    """Say whether a file may have changed since it was `before`, or at that very moment."""
    if abs(before.st_ctime_ns - began) <= _TICK:
        return True
    return (*_content(before), before.st_ctime_ns) != (*_content(after), after.st_ctime_ns)


def _content(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _looks(status: os.stat_result) -> tuple[int, ...]:
    return (*_content(status), status.st_mode, status.st_uid, status.st_gid)


def _on_disk(status: os.stat_result) -> int:
    return status.st_blocks * 512


def _make_ours(fd: int) -> None:
    """Take a directory of the target over from who is to have it, until it is finished."""
    os.fchown(fd, os.geteuid(), os.getegid())
    os.fchmod(fd, 0o700)
    with suppress(OSError):
        os.removexattr(fd, _DEFAULT_ACL)  # or all that is made in it would get that


def _attribute(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            return None
        raise


def _attributes(fd: int) -> Iterator[tuple[str, bytes]]:
    """Yield the attributes of an open file, but for our own.

    With the list of who has access, but not what a directory hands on of that. Each may have 64
    KiB, and there may be thousands.
    """
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    for name in names:
        if name not in _NOT_TO_BE_SET and (value := _attribute(fd, name)) is not None:
            yield name, value
