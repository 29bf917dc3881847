"""Random operations on a real directory: whatever programs do to files that a watcher can see.

An `Operation` is a plain value, drawn without a look at the directory, so that a seed gives the
same operations however fast they are done. `Workload` does them; what cannot be done as things are
(the file is not there, the directory is not, the name is a directory's) is not done.

In a directory of the shape `TREE` the names are of files and directories at any depth, and more
is done to directories.

Left out is what inotify does not report to whoever watches the directory: writes through mmap; and
of a file that has another name there, writes by way of a name outside, of one that is gone already,
or of one that came and went unseen (`NewLinks`).
"""

import ctypes
import fcntl
import os
import shutil
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from integration.shape import Shape

MIB = 1 << 20
SIZES = [*[0, 1, 7, 100] * 12, *[4096, 60_000] * 4, MIB, MIB + 1, 3 * MIB]
HUGE, HUGE_SHARE = 20 * MIB, 0.0005

_OPEN = os.O_CLOEXEC | os.O_NONBLOCK  # the name may be a FIFO's
_WRITERS_MAX = 5
_LOCK_WAIT = 0.2  # seconds; whoever reads the file may have a lock on it for a moment
_REMEMBERED = 20_000  # operations
_SERIAL = count(1)  # no two contents are equal


@dataclass(frozen=True, slots=True)
class Operation:
    """Something to do: the name of a method of `Workload`, and what it may use."""

    kind: str
    name: bytes = b"a"
    other: bytes = b"b"
    third: bytes = b"c"
    size: int = 1


WEIGHTS = {
    "write": 12,
    "append": 5,
    "truncate": 4,
    "rewrite_in_place": 6,
    "rewrite_in_one_tick": 4,
    "rewrite_with_old_time": 4,
    "replace_by_rename": 5,
    "rename": 12,
    "rename_chain": 4,
    "swap": 4,
    "exchange": 3,
    "link": 6,
    "link_and_write": 4,
    "link_from_outside": 1,
    "appear_by_link": 2,
    "delete": 8,
    "make_directory": 1,
    "remove_directory": 3,
    "move_in": 4,
    "move_out": 4,
    "move_down": 2,
    "move_up": 2,
    "replace_by_symlink": 3,
    "replace_by_fifo": 2,
    "keep_open": 5,
    "write_on": 8,
    "close_one": 4,
    "lock": 4,
    "unlock": 4,
    "edit_as_vim_does": 2,
    "edit_as_emacs_does": 2,
    "write_many": 1,
    "rename_many": 1,
    "delete_many": 1,
    "wait": 6,
}
# What is done to directories where these are mirrored, too; there more must be written, for much of
# it to be there.
TREE_WEIGHTS = {
    "write": 36,
    "make_directories": 5,
    "remove_empty_directory": 2,
    "remove_while_written": 2,
    "rename_directory": 8,
    "rename_onto_empty_directory": 3,
    "rename_while_written": 2,
    "exchange_directories": 3,
    "turn_inside_out": 2,
    "move_directory_in": 2,
    "move_directory_out": 2,
    "directory_becomes_link": 3,
    "link_becomes_directory": 3,
    "unpack": 2,
}


def weights(shape: Shape) -> dict[str, int]:
    """Return which kinds of operations there are, and how often each is to be."""
    return WEIGHTS | TREE_WEIGHTS if shape.is_deep else WEIGHTS


def operations(random: Random, shape: Shape) -> Iterator[Operation]:
    """Yield random operations for ever."""
    often = weights(shape)
    while True:
        (kind,) = random.choices(list(often), list(often.values()))
        name, other, third = random.choices(shape.names, k=3)
        size = HUGE if random.random() < HUGE_SHARE else random.choice(SIZES)
        yield Operation(kind, name, other, third, size)


@dataclass(frozen=True, slots=True)
class Locked:
    """A file that is half written and locked until it is whole.

    It is open for writing as `fd`, and locked by another descriptor; they are closed in this order.
    """

    name: bytes
    fd: int
    order: tuple[int, int]
    half: bytes
    rest: bytes


@dataclass
class NewLinks:
    """Files that have got another name of late, and which of them were written to since.

    When one name is removed after that, nothing may be left to tell that the other names' file was
    changed: the kernel reports neither which file a new name is of, nor a write but by its name.
    """

    made: set[int] = field(default_factory=set)  # by inode
    written: set[int] = field(default_factory=set)

    def was_written(self, status: os.stat_result) -> None:
        if status.st_ino in self.made:
            self.written.add(status.st_ino)

    def check_removal(self, path: Path) -> None:
        """Raise PermissionError if the name, or one below, must stay until writes are followed."""
        if self.written and any(inode in self.written for inode in _inodes(path)):
            raise PermissionError

    def are_known(self) -> None:
        """Take note that all was followed."""
        self.made.clear()
        self.written.clear()


class Workload:
    """What is done to the directory `root`, and what is open in it.

    Attributes:
        done: how many operations of each kind could be done.
        links: to be told when all that was done has been followed.
        log: the last operations: when (`time.monotonic`), which, and what prevented it.

    """

    def __init__(self, root: Path, outside: Path, shape: Shape) -> None:
        """Work in `root`; files come from and go to `outside`, on the same file system."""
        self.root = root
        self.outside = outside
        self.shape = shape
        self.done: Counter[str] = Counter()
        self.log: deque[tuple[float, Operation, str]] = deque(maxlen=_REMEMBERED)
        self.links = NewLinks()
        self._writers: deque[int] = deque()
        self._locked: deque[Locked] = deque()
        self._guards: deque[int] = deque()  # what is still to be closed of files that are whole
        # Links that took a directory's place, and where the directory is.
        self._linked: deque[tuple[Path, Path]] = deque()

    def do(self, operation: Operation) -> None:
        """Do it, if it can be done."""
        began = time.monotonic()
        prevented = ""
        try:
            getattr(self, operation.kind)(operation)
            self.done[operation.kind] += 1
        except OSError as error:
            prevented = type(error).__name__  # some of its steps may have been done
        self.log.append((began, operation, prevented))

    def half_written(self) -> dict[bytes, bytes]:
        """Return the names that locked files were opened by, with what nobody is to read."""
        return {each.name: each.half for each in list(self._locked)}

    def finish_locked(self) -> None:
        """Write locked files to their end, and give back the locks."""
        while self._locked or self._guards:
            self.unlock(Operation("unlock"))

    def close(self) -> None:
        """Finish what is begun, and close all."""
        self.finish_locked()
        while self._writers:
            os.close(self._writers.popleft())

    def clear(self) -> None:
        """Close all, and empty both directories."""
        self.close()
        self._linked.clear()
        for directory in (self.root, self.outside):
            empty(directory)

    # Contents.

    def write(self, what: Operation) -> None:
        self._write(self._new(what.name), what.size)

    def append(self, what: Operation) -> None:
        self._write(self._at(what.name), what.size, os.O_APPEND)

    def truncate(self, what: Operation) -> None:
        path = self._regular(what.name)
        self._check_write(path)
        os.truncate(path, what.size)
        self.links.was_written(path.stat())

    def rewrite_in_place(self, what: Operation) -> None:
        path = self._regular(what.name)
        at = min(what.size, max(0, path.stat().st_size - 1))
        with self._opened(path, os.O_WRONLY) as fd:
            os.pwrite(fd, self._content(min(what.size, 5000) or 1), at)

    def rewrite_in_one_tick(self, what: Operation) -> None:
        path = self._new(what.name)
        for _ in range(3):
            self._write(path, min(what.size, 5000) or 1)

    def rewrite_with_old_time(self, what: Operation) -> None:
        path = self._regular(what.name)
        before = path.stat()
        with self._opened(path, os.O_WRONLY) as fd:
            os.pwrite(fd, self._content(min(before.st_size, 5000)), 0)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    # Names.

    def replace_by_rename(self, what: Operation) -> None:
        new = self._beside(what.name, b".new")
        self._write(new, what.size)
        self._put(new, what.name)

    def rename(self, what: Operation) -> None:
        self._rename(self._at(what.name), self._at(what.other))

    def rename_chain(self, what: Operation) -> None:
        self._rename(self._at(what.other), self._at(what.third))
        self._rename(self._at(what.name), self._at(what.other))

    def swap(self, what: Operation) -> None:
        with self._between() as between:
            self._rename(self._at(what.name), between)
            with suppress(OSError):
                self._rename(self._at(what.other), self._at(what.name))
            self._rename(between, self._at(what.other))

    def exchange(self, what: Operation) -> None:
        self._exchange(self._at(what.name), self._at(what.other))

    def link(self, what: Operation) -> None:
        source, target = self._at(what.name), self._at(what.other)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            new = self._beside(what.other, b".link")
            os.link(source, new, follow_symlinks=False)
            self._put(new, what.other)
        self.links.made.add(target.lstat().st_ino)

    def link_and_write(self, what: Operation) -> None:
        self.link(what)
        self.rewrite_in_place(what)

    def link_from_outside(self, what: Operation) -> None:
        source = self._fresh(what.size)
        os.link(source, self._at(what.name))

    def appear_by_link(self, what: Operation) -> None:
        with (
            self._opened(self.root, os.O_TMPFILE | os.O_WRONLY) as fd,
            self._opened(self.root, os.O_DIRECTORY) as inside,
        ):
            _write_all(fd, self._content(what.size))
            # Only with a directory's descriptor does os.link follow the first name.
            os.link(f"/proc/self/fd/{fd}", what.name, dst_dir_fd=inside, follow_symlinks=True)

    def delete(self, what: Operation) -> None:
        self._unlink(self._at(what.name), missing_ok=False)

    # What is no regular file, and what is elsewhere.

    def make_directory(self, what: Operation) -> None:
        self._at(what.name).mkdir()

    def remove_directory(self, what: Operation) -> None:
        path = self._at(what.name)
        if not stat.S_ISDIR(path.lstat().st_mode):
            path = self._at(b"below")
            path.mkdir(exist_ok=True)
        self._remove(path)

    def move_in(self, what: Operation) -> None:
        inside = self._at(what.name)
        try:
            self._rename(self._away(what.other), inside)
        except FileNotFoundError:
            self._rename(self._fresh(what.size), inside)

    def move_out(self, what: Operation) -> None:
        self._rename(self._at(what.name), self._away(what.other))

    def move_down(self, what: Operation) -> None:
        below = self._at(b"below")
        below.mkdir(exist_ok=True)
        self._rename(self._at(what.name), below / self._away(what.other).name)

    def move_up(self, what: Operation) -> None:
        below = self._at(b"below")
        for name in sorted(os.listdir(below))[:1]:
            self._rename(below / name, self._at(what.name))

    def replace_by_symlink(self, what: Operation) -> None:
        new = self._beside(what.name, b".symlink")
        target = os.fsdecode(what.other) if what.size else self._away(b"pointed at")
        new.symlink_to(target)
        self._put(new, what.name)

    def replace_by_fifo(self, what: Operation) -> None:
        self._unlink(self._at(what.name))
        os.mkfifo(self._at(what.name))

    # Directories of a tree. One that a name is in is meant, or the name's own.

    def make_directories(self, what: Operation) -> None:
        self._new(what.name).mkdir(exist_ok=True)

    def remove_empty_directory(self, what: Operation) -> None:
        self._at(what.name).rmdir()

    def remove_while_written(self, what: Operation) -> None:
        directory = self._directory(what.name)
        with self._meanwhile(lambda: self._remove(directory)):
            self._write_below(directory, what.size % 101)

    def rename_directory(self, what: Operation) -> None:
        target = self._directory(what.other) if what.size % 2 else self._new(what.other)
        self._rename(self._directory(what.name), target)

    def rename_onto_empty_directory(self, what: Operation) -> None:
        target = self._new(what.other)
        target.mkdir()
        self._rename(self._directory(what.name), target)

    def rename_while_written(self, what: Operation) -> None:
        source, target = self._directory(what.name), self._new(what.other)
        with self._meanwhile(lambda: self._rename(source, target)):
            self._write_below(source, what.size % 101)

    def exchange_directories(self, what: Operation) -> None:
        self._exchange(self._directory(what.name), self._directory(what.other))

    def turn_inside_out(self, what: Operation) -> None:
        """Put the outermost directory into that which was in it."""
        outer, inner = self._at(what.name.partition(b"/")[0]), self._directory(what.name)
        with self._between() as between:
            self._rename(inner, between)
            self._rename(outer, between / "inside")
            self._rename(between, outer)

    def move_directory_in(self, what: Operation) -> None:
        with self._prepared(what.size) as directory:
            self._rename(directory, self._new(what.name))

    def move_directory_out(self, what: Operation) -> None:
        self._rename(self._directory(what.name), self._away(what.other))

    def directory_becomes_link(self, what: Operation) -> None:
        directory = self._directory(what.name)
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise NotADirectoryError
        new = self._away(b"link-%d" % next(_SERIAL))
        new.symlink_to(self.outside if what.size % 2 else self._directory(what.other))
        self._exchange(new, directory)
        self._linked.append((directory, new))

    def link_becomes_directory(self, _: Operation) -> None:
        if not self._linked:
            raise FileNotFoundError
        link, directory = self._linked.popleft()
        try:
            self._exchange(link, directory)
        finally:
            self._clear(directory)

    def unpack(self, what: Operation) -> None:
        self._fill(self._new(what.name), what.size)

    # Writers that take their time.

    def keep_open(self, what: Operation) -> None:
        how = [os.O_TRUNC, os.O_APPEND, 0][what.size % 3]
        path = self._new(what.name)
        self._check_write(path)
        fd = os.open(path, _OPEN | os.O_CREAT | os.O_WRONLY | how)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError
        self._writers.append(fd)
        os.write(fd, self._content(min(what.size, 5000)))
        self.links.was_written(os.fstat(fd))
        if len(self._writers) > _WRITERS_MAX:
            os.close(self._writers.popleft())

    def write_on(self, what: Operation) -> None:
        if not self._writers:
            raise FileNotFoundError
        fd = self._writers[what.size % len(self._writers)]
        if self._is_unseen(fd):
            raise FileNotFoundError
        os.write(fd, self._content(min(what.size, 5000) or 1))
        self.links.was_written(os.fstat(fd))

    def close_one(self, what: Operation) -> None:
        if not self._writers:
            raise FileNotFoundError
        self._writers.rotate(what.size % len(self._writers))
        os.close(self._writers.popleft())

    def lock(self, what: Operation) -> None:
        """Lock a file and write the first half of its new content."""
        if len(self._locked) >= _WRITERS_MAX:
            raise FileExistsError
        path = self._at(what.name)
        self._check_write(path)
        guard = os.open(path, _OPEN | os.O_CREAT | os.O_RDONLY)
        try:
            if not stat.S_ISREG(os.fstat(guard).st_mode):
                raise FileNotFoundError
            _lock(guard)
            fd = os.open(f"/proc/self/fd/{guard}", _OPEN | os.O_WRONLY)
        except OSError:
            os.close(guard)
            raise
        half, rest = self._content(what.size + 10), self._content(what.size + 10)
        # Of one who only reads, there is no event when it closes the file.
        order = (fd, guard) if what.size % 2 else (guard, fd)
        self._locked.append(Locked(what.name, fd, order, half, rest))
        os.ftruncate(fd, 0)
        _write_all(fd, half)
        self.links.was_written(os.fstat(fd))

    def unlock(self, _: Operation) -> None:
        """Write a locked file to its end; give its lock back now, or by the next call."""
        if not self._locked and not self._guards:
            raise FileNotFoundError
        while self._guards:
            os.close(self._guards.popleft())
        if self._locked:
            self._finish(self._locked[0])

    def _finish(self, each: Locked) -> None:
        if not self._is_unseen(each.fd):
            with suppress(OSError):
                _write_all(each.fd, each.rest)
                self.links.was_written(os.fstat(each.fd))
        self._locked.popleft()
        first, second = each.order
        os.close(first)
        self._guards.append(second)

    def _is_unseen(self, fd: int) -> bool:
        """Say whether nobody would be told of a write by way of `fd`.

        So it is when the name that it was opened by is gone from the directory and the file has
        another one there.
        """
        links = os.fstat(fd).st_nlink
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.name.endswith(" (deleted)"):
            return links > 0
        return links > 1 and not self.shape.is_watched(self.root, path)

    # What programs do in several steps.

    def edit_as_vim_does(self, what: Operation) -> None:
        path = self._at(what.name)
        swap, backup = self._beside(what.name, b".%s.swp"), self._beside(what.name, b"%s~")
        trial = self._beside(what.name, b"4913")
        self._write(swap, 4096)
        self._write(trial, 0)
        self._unlink(trial)
        with suppress(OSError):
            self._rename(path, backup)
        self._write(path, what.size)
        with suppress(OSError):
            self._unlink(backup)
        self._unlink(swap)

    def edit_as_emacs_does(self, what: Operation) -> None:
        lock, autosave = self._beside(what.name, b".#%s"), self._beside(what.name, b"#%s#")
        with suppress(FileExistsError):
            lock.symlink_to("somebody@somewhere.1")
        self._write(autosave, what.size)
        with suppress(OSError):
            self._rename(self._at(what.name), self._beside(what.name, b"%s~"))
        self._write(self._at(what.name), what.size)
        self._unlink(autosave)
        self._unlink(lock, missing_ok=False)

    def write_many(self, what: Operation) -> None:
        for path in self._many(what):
            self._write(path, what.size % 101)

    def rename_many(self, what: Operation) -> None:
        for path in self._many(what):
            with suppress(FileNotFoundError):
                self._rename(path, path.with_suffix(".renamed"))

    def delete_many(self, what: Operation) -> None:
        for path in self._many(what):
            self._unlink(path)
            self._unlink(path.with_suffix(".renamed"))

    def wait(self, what: Operation) -> None:
        time.sleep((what.size % 101) / 5000)  # at most 20 ms

    # How it is done.

    def _at(self, name: bytes) -> Path:
        return self.root / os.fsdecode(name)

    def _away(self, name: bytes) -> Path:
        return self.outside / os.fsdecode(name.replace(b"/", b"-"))

    def _beside(self, name: bytes, pattern: bytes) -> Path:
        """Return what is in the same directory, and has another name, made of that one's."""
        path = self._at(name)
        other = pattern.replace(b"%s", os.fsencode(path.name))
        return path.with_name(os.fsdecode(other))

    def _directory(self, name: bytes) -> Path:
        """Return the directory of a name, or what has that name if this is the root."""
        path = self._at(name)
        return path if path.parent == self.root else path.parent

    def _new(self, name: bytes) -> Path:
        """Return the path of a name, and make the directories that it is in, if it is in any."""
        path = self._at(name)
        for directory in reversed(path.relative_to(self.root).parents[:-1]):
            with suppress(FileExistsError):
                (self.root / directory).mkdir()
        return path

    def _check_write(self, path: Path) -> None:
        """Raise PermissionError if nobody is told of a write that others are to see."""
        with suppress(FileNotFoundError):
            status = path.stat()
            real = Path(os.path.realpath(path))
            is_link = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
            if is_link and not self.shape.is_watched(self.root, real):
                raise PermissionError

    @contextmanager
    def _opened(self, path: Path, how: int) -> Iterator[int]:
        if how & (os.O_WRONLY | os.O_RDWR):
            self._check_write(path)
        fd = os.open(path, _OPEN | how)
        try:
            yield fd
        finally:
            self.links.was_written(os.fstat(fd))
            os.close(fd)

    def _rename(self, source: Path, target: Path) -> None:
        self.links.check_removal(target)
        if not self._is_mirrored(target):
            self.links.check_removal(source)
        source.rename(target)

    def _exchange(self, one: Path, other: Path) -> None:
        for source, target in ((one, other), (other, one)):
            if not self._is_mirrored(target):
                self.links.check_removal(source)
        exchange(one, other)

    def _is_mirrored(self, path: Path) -> bool:
        """Say whether what has this name is mirrored, if it can be."""
        name = os.fsencode(path.name)
        return self.shape.is_watched(self.root, path) and not self.shape.is_excluded(name)

    def _unlink(self, path: Path, *, missing_ok: bool = True) -> None:
        self.links.check_removal(path)
        path.unlink(missing_ok=missing_ok)

    def _remove(self, directory: Path) -> None:
        """Remove a directory and all below it, one name after the other, as `rm -rf` does."""
        for parent, directories, files in os.walk(directory, topdown=False):
            for name in directories:
                below = Path(parent, name)
                if below.is_symlink():
                    below.unlink()
                else:
                    below.rmdir()
            for name in files:
                self._unlink(Path(parent, name))
        directory.rmdir()

    @contextmanager
    def _meanwhile(self, work: Callable[[], object]) -> Iterator[None]:
        """Have a thread do some work while the block does some; both may fail."""

        def do() -> None:
            with suppress(OSError):
                work()

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(do)
            with suppress(OSError):
                yield
            done.result()

    def _write_below(self, directory: Path, size: int) -> None:
        """Write some files in a directory that is there, and in new ones that are in it."""
        for number in range(10):
            self._write(directory / f"file-{number}", size)
            self._fill(directory / f"new-{number}", size, levels=1)

    def _fill(self, directory: Path, size: int, levels: int = 5) -> None:
        """Make a directory, with files and directories in it down to some level."""
        # It may be there, but what it is in is not made: it may be the root that is away.
        with suppress(FileExistsError):
            directory.mkdir()
        for name in "abc":
            self._write(directory / name, size % 5000)
        (directory / "empty").mkdir(exist_ok=True)
        if levels:
            self._fill(directory / "d", size, levels - 1)

    def _clear(self, path: Path) -> None:
        """Remove what is left at a path, if anything is and may go."""
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                self._remove(path)
            else:
                self._unlink(path)

    @contextmanager
    def _between(self) -> Iterator[Path]:
        """Return a name for what is on its way from one name to another."""
        path = self._at(b"between")
        try:
            yield path
        finally:
            self._clear(path)

    @contextmanager
    def _prepared(self, size: int) -> Iterator[Path]:
        """Make a new directory outside, with some files at some levels, for the block."""
        path = self._away(b"tree-%d" % next(_SERIAL))
        try:
            self._fill(path, size)
            yield path
        finally:
            self._clear(path)

    def _put(self, new: Path, name: bytes) -> None:
        try:
            self._rename(new, self._at(name))
        finally:
            # A rename may fail, and does nothing when both are names of one file: rename(2).
            new.unlink(missing_ok=True)

    def _many(self, what: Operation) -> Iterator[Path]:
        first = what.name[0] * 10
        return (
            self._beside(what.name, b"file-%d" % number) for number in range(first, first + 200)
        )

    def _regular(self, name: bytes) -> Path:
        path = self._at(name)
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileNotFoundError
        return path

    def _fresh(self, size: int) -> Path:
        """Make a new file outside."""
        path = self._away(b"new-%d" % next(_SERIAL))
        self._write(path, size, os.O_EXCL)
        return path

    def _content(self, size: int) -> bytes:
        """Return content that there was none of before, if it is of 8 bytes or more."""
        unit = b"%07d\n" % next(_SERIAL)
        return (unit * (size // len(unit) + 1))[:size] if size > 4 else unit[-1 - size : -1]

    def _write(self, path: Path, size: int, how: int = os.O_TRUNC) -> None:
        with self._opened(path, os.O_CREAT | os.O_WRONLY | how) as fd:
            _write_all(fd, self._content(size))


def _inodes(path: Path) -> Iterator[int]:
    """Yield the inode of a file, or of a directory and of all that is below it."""
    with suppress(FileNotFoundError):
        yield path.lstat().st_ino
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            with suppress(FileNotFoundError):
                yield Path(parent, name).lstat().st_ino


def empty(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in list(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def exchange(one: Path, other: Path) -> None:
    """Have two names change places in one step: renameat2(2)."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_fdcwd, bytes(one), at_fdcwd, bytes(other), rename_exchange):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _lock(fd: int) -> None:
    end = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.002)
        else:
            return
