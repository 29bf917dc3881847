"""A directory on a real file system, read while disks fail and others write and lock."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections import Counter
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from support import eventually

from sync.core.changes import Signature
from sync.core.errors import DirectoryGoneError
from sync.core.exclude import Excluded
from sync.disk import files
from sync.disk.files import (
    Busy,
    Directory,
    Emptied,
    File,
    Gone,
    LargeFile,
    Locked,
    Unfit,
    Unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

MAX = 1 << 29
SMALL, MIDDLE, LARGE = 1 << 14, 1 << 20, (2 << 20) + 5
ERRORS = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOTCONN, errno.EINVAL]


class Module:
    """A module of which each call is counted, and can have something happen before or after."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401  # any module
        self._module = module
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[..., object]] = {}
        self.after: dict[str, Callable[..., object]] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of the module
        real = getattr(self._module, name)
        if not callable(real):
            return real

        def call(*args: object, **others: object) -> object:
            self.calls[name] += 1
            self.before.get(name, ignore)(*args)
            result = real(*args, **others)
            self.after.get(name, ignore)(*args)
            return result

        return call

    def fails(self, call: str, number: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        self.before[call] = fail


def ignore(*_: object) -> None:
    pass


@pytest.fixture(autouse=True)
def _no_signal() -> Iterator[None]:
    """Ignore what the kernel sends to who holds a lease when a writer comes."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module(os)
    monkeypatch.setattr(files, "os", module)
    return module


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module(fcntl)
    monkeypatch.setattr(files, "fcntl", module)
    return module


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all files be older than any tick of a clock."""
    monkeypatch.setattr(files, "now", lambda: 1 << 62)


@pytest.fixture
def racy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all files be of the current tick of the clock."""
    monkeypatch.setattr(files, "now", lambda: 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def directory(root: Path) -> Iterator[Directory]:
    with closing(Directory(root, Excluded(["*~"]))) as directory:
        yield directory


@contextmanager
def writing(path: Path, content: bytes = b"") -> Iterator[int]:
    """Have the file, with this content, open for writing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def locking(path: Path) -> Iterator[None]:
    """Hold the lock of a writer; fail when somebody else holds one."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def can_lock(path: Path) -> bool:
    try:
        with locking(path):
            return True
    except BlockingIOError:
        return False


def can_write(path: Path) -> bool:
    """Say whether who opens it for writing is let in at once."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return False
    return True


def large(
    directory: Directory, name: bytes, *, overdue: bool = True
) -> AbstractContextManager[LargeFile]:
    found = directory.read(name, MAX, overdue=overdue)
    assert isinstance(found, LargeFile)
    return closing(found)


def content(found: object) -> bytes:
    assert isinstance(found, File), found
    return found.content


class TestWhatIsKnown:
    def test_only_a_name_that_is_not_there_is_nothing(self, directory: Directory) -> None:
        assert directory.read(b"a", MAX) is None
        assert directory.read(b"a", MAX, seen=True) is None

    def test_a_name_that_is_left_out_is_nothing(self, directory: Directory, root: Path) -> None:
        (root / "a~").write_bytes(b"a")
        assert directory.read(b"a~", MAX) is None

    @pytest.mark.parametrize("call", ["stat", "open", "fstat", "pread"])
    @pytest.mark.parametrize("number", [*ERRORS, errno.EPERM])
    def test_a_file_that_fails_is_unreadable_and_left_open_by_nobody(
        self, directory: Directory, root: Path, system: Module, call: str, number: int
    ) -> None:
        (root / "a").write_bytes(b"a")
        opened = os.listdir("/proc/self/fd")
        system.fails(call, number)
        whose = f" for user {os.geteuid()}" if number == errno.EACCES else ""
        assert directory.read(b"a", MAX) == Unreadable(
            f"cannot be read ({os.strerror(number)}{whose}): its key stays as it is; tried again"
        )
        assert os.listdir("/proc/self/fd") == opened

    @pytest.mark.parametrize("call", ["fstat", "pread"])
    @pytest.mark.parametrize("number", [errno.ENOENT, errno.ELOOP, errno.ENXIO])
    def test_what_an_open_file_says_tells_nothing_of_its_name(
        self, directory: Directory, root: Path, system: Module, call: str, number: int
    ) -> None:
        (root / "a").write_bytes(b"a")
        system.fails(call, number)
        assert isinstance(directory.read(b"a", MAX), Unreadable)

    @pytest.mark.parametrize("call", ["stat", "open", "fstat", "pread"])
    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
    def test_what_is_scarce_for_a_while_is_as_a_lock(
        self, directory: Directory, root: Path, system: Module, call: str, number: int
    ) -> None:
        (root / "a").write_bytes(b"a")
        system.fails(call, number)
        assert directory.read(b"a", MAX) == Locked()

    @pytest.mark.usefixtures("old")
    def test_a_lease_of_a_writer_is_as_a_lock(self, directory: Directory, root: Path) -> None:
        with writing(root / "a", b"a") as fd:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert directory.read(b"a", MAX) == Locked()

    @pytest.mark.parametrize("seen", [True, False])
    def test_a_link_is_unfit(self, directory: Directory, root: Path, *, seen: bool) -> None:
        (root / "a").symlink_to("/etc/passwd")
        assert isinstance(directory.read(b"a", MAX, seen=seen), Unfit)

    @pytest.mark.usefixtures("old")
    @pytest.mark.parametrize("seen", [True, False])
    def test_a_fifo_is_unfit(self, directory: Directory, root: Path, *, seen: bool) -> None:
        os.mkfifo(root / "a")
        assert isinstance(directory.read(b"a", MAX, seen=seen), Unfit)

    @pytest.mark.parametrize("number", [errno.ELOOP, errno.ENXIO])
    def test_what_cannot_be_opened_since_it_is_no_file_any_more_is_unfit(
        self, directory: Directory, root: Path, system: Module, number: int
    ) -> None:
        (root / "a").write_bytes(b"a")
        system.fails("open", number)
        assert isinstance(directory.read(b"a", MAX), Unfit)

    @pytest.mark.parametrize("age", ["old", "racy"])
    @pytest.mark.parametrize("size", [2, SMALL + 1, LARGE])
    def test_a_file_of_more_bytes_than_may_be_is_unfit(
        self, directory: Directory, root: Path, request: pytest.FixtureRequest, age: str, size: int
    ) -> None:
        request.getfixturevalue(age)
        (root / "a").write_bytes(bytes(size))
        assert isinstance(directory.read(b"a", size - 1), Unfit)
        assert not isinstance(directory.read(b"a", size), Unfit)

    @pytest.mark.usefixtures("old")
    def test_an_error_at_the_close_takes_nothing_from_what_was_read(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        (root / "a").write_bytes(b"a")

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "")

        system.after["close"] = fail
        assert content(directory.read(b"a", MAX)) == b"a"
        system.after.clear()


class TestScan:
    @pytest.fixture
    def bad(
        self, root: Path, system: Module, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], None]:
        """Have one call fail of the entry `b` of three, a, b and c."""
        for name in "abc":
            (root / name).write_bytes(b"")

        class Entry:
            def __init__(self, entry: os.DirEntry[str], call: str) -> None:
                self._entry, self._call = entry, call
                self.name = entry.name

            def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of an entry
                if (self.name, name) == ("b", self._call):
                    raise OSError(errno.EIO, "Input/output error")
                return getattr(self._entry, name)

        def fail(call: str) -> None:
            def scandir(fd: int) -> Any:  # noqa: ANN401  # a context of entries
                return nullcontext(Entry(entry, call) for entry in os.scandir(fd))

            monkeypatch.setattr(system, "scandir", scandir, raising=False)

        return fail

    def test_goes_on_after_an_entry_whose_kind_cannot_be_seen(
        self, directory: Directory, bad: Callable[[str], None]
    ) -> None:
        bad("is_file")
        assert sorted(directory.names()) == [(b"a", True), (b"b", False), (b"c", True)]

    @pytest.mark.parametrize("call", ["is_file", "stat"])
    def test_goes_on_after_an_entry_that_cannot_be_looked_at(
        self, directory: Directory, bad: Callable[[str], None], call: str
    ) -> None:
        bad(call)
        found = {name: (signature, links) for name, signature, links in directory.files()}
        assert found[b"b"] == (None, 0)
        assert found == {
            b"a": directory.look(b"a"),
            b"b": (None, 0),
            b"c": directory.look(b"c"),
        }

    @pytest.mark.parametrize("call", ["open", "scandir"])
    def test_a_directory_that_cannot_be_listed_is_gone(
        self, directory: Directory, system: Module, call: str
    ) -> None:
        system.fails(call, errno.EIO)
        for scan in (directory.names(), directory.files(), directory.inodes()):
            with pytest.raises(DirectoryGoneError):
                list(scan)

    def test_inodes_are_of_all_names(self, directory: Directory, root: Path) -> None:
        for name in ("a", "a~"):
            (root / name).write_bytes(b"")
        assert sorted(directory.inodes()) == [
            (b"a", (root / "a").stat().st_ino),
            (b"a~", (root / "a~").stat().st_ino),
        ]


class TestLook:
    def test_tells_the_signature_and_how_many_names_it_has(
        self, directory: Directory, root: Path
    ) -> None:
        (root / "a").write_bytes(b"a")
        os.link(root / "a", root / "b")
        expected = Signature.of((root / "a").stat())
        assert directory.look(b"a") == (expected, 2)
        assert directory.signature(b"a") == expected

    def test_tells_nothing_of_what_is_no_file_or_left_out_or_cannot_be_seen(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        (root / "d").mkdir()
        (root / "a~").write_bytes(b"")
        assert [directory.look(name) for name in (b"d", b"a~", b"none")] == [(None, 0)] * 3
        (root / "a").write_bytes(b"")
        system.fails("stat", errno.EIO)
        assert directory.look(b"a") == (None, 0)


class TestOrdinaryFile:
    @pytest.mark.usefixtures("old")
    @pytest.mark.parametrize("seen", [True, False])
    def test_takes_as_few_system_calls_as_can_be(
        self, directory: Directory, system: Module, locks: Module, *, seen: bool
    ) -> None:
        (directory.path / "a").write_bytes(b"content")
        (found,) = directory.read_ordinary([b"a"], MAX, seen=seen)
        signature = Signature.of((directory.path / "a").stat())
        assert found == (b"a", File(signature, b"content", links=1, steady=True, racy=False))
        made = {"open": 1, "fstat": 2, "pread": 1, "close": 1} | ({} if seen else {"stat": 1})
        assert (system.calls, locks.calls) == (made, {"flock": 1})

    @pytest.mark.usefixtures("old")
    def test_is_told_from_what_takes_a_closer_look(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(b"a")
        (root / "large").write_bytes(bytes(SMALL + 1))
        os.mkfifo(root / "fifo")
        (root / "a~").write_bytes(b"a")
        names = [b"a", b"large", b"fifo", b"none", b"a~"]
        found = dict(directory.read_ordinary(names, MAX, seen=False))
        assert [name for name in found if isinstance(found[name], File)] == [b"a"]
        assert [name for name in found if found[name] is Gone.GONE] == [b"none"]
        assert list(found) == names

    @pytest.mark.usefixtures("old")
    @pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, MIDDLE])
    def test_is_read_whole_and_nobody_is_asked_for(
        self, directory: Directory, root: Path, locks: Module, size: int
    ) -> None:
        whole = os.urandom(size)
        with writing(root / "a", whole):
            found = directory.read(b"a", MAX)
        assert isinstance(found, File)
        assert (found.content, found.steady, found.racy) == (whole, True, False)
        assert "fcntl" not in locks.calls

    @pytest.mark.usefixtures("old")
    def test_is_read_again_when_only_its_ctime_tells_of_a_change(
        self, directory: Directory, system: Module
    ) -> None:
        path = directory.path / "a"

        def write(content: bytes) -> int:
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
            return path.stat().st_ctime_ns

        def change(*_: object) -> None:
            del system.after["pread"]
            # Until the kernel's clock has gone on.
            eventually(lambda: write(b"two") > before, True)

        before = write(b"one")
        system.after["pread"] = change
        assert content(directory.read(b"a", MAX)) == b"two"

    @pytest.mark.usefixtures("old")
    @pytest.mark.parametrize("change", ["content", "mtime", "length"])
    def test_is_read_again_when_it_changes_meanwhile(
        self, directory: Directory, root: Path, system: Module, change: str
    ) -> None:
        path = root / "a"
        path.write_bytes(b"one")
        os.utime(path, ns=(1, 1))

        def write(*_: object) -> None:
            del system.after["pread"]
            path.write_bytes(b"three" if change == "length" else b"two")
            if change == "mtime":
                os.utime(path, ns=(2, 2))

        system.after["pread"] = write
        found = directory.read(b"a", MAX)
        assert isinstance(found, File)
        assert (found.content, found.steady) == (path.read_bytes(), True)
        assert found.signature == Signature.of(path.stat())


class TestLock:
    pytestmark = pytest.mark.usefixtures("old")

    @pytest.mark.parametrize("size", [1, SMALL + 1, LARGE])
    def test_of_a_writer_is_respected(self, directory: Directory, root: Path, size: int) -> None:
        (root / "a").write_bytes(bytes(size))
        with locking(root / "a"):
            assert directory.read(b"a", MAX) == Locked()

    @pytest.mark.parametrize(("size", "free"), [(SMALL, False), (SMALL + 1, True), (MIDDLE, True)])
    def test_is_held_only_while_a_small_file_is_read(
        self, directory: Directory, root: Path, system: Module, size: int, *, free: bool
    ) -> None:
        (root / "a").write_bytes(bytes(size))
        seen: list[bool] = []
        system.before["pread"] = lambda *_: seen.append(can_lock(root / "a"))
        assert len(content(directory.read(b"a", MAX))) == size
        assert seen == [free]
        assert can_lock(root / "a")

    def test_that_came_while_a_file_was_read_is_seen_after_it(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        (root / "a").write_bytes(bytes(SMALL + 1))
        with (root / "a").open("rb") as file:
            system.after["pread"] = lambda *_: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert directory.read(b"a", MAX) == Locked()

    def test_is_never_held_by_a_large_file(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(bytes(LARGE))
        with large(directory, b"a") as file:
            assert can_lock(root / "a")
            assert not file.is_locked()
            assert can_lock(root / "a")
            file.look()
            assert can_lock(root / "a")
            with locking(root / "a"):
                assert file.is_locked()

    def test_that_the_file_system_does_not_have_is_done_without(
        self, directory: Directory, root: Path, locks: Module
    ) -> None:
        (root / "a").write_bytes(bytes(SMALL + 1))
        locks.fails("flock", errno.ENOLCK)
        assert len(content(directory.read(b"a", MAX))) == SMALL + 1


class TestBusy:
    pytestmark = pytest.mark.usefixtures("racy")

    @pytest.mark.parametrize("size", [0, 1, SMALL + 1, LARGE])
    def test_is_a_file_that_was_just_written_to_and_is_open(
        self, directory: Directory, root: Path, size: int
    ) -> None:
        opened = os.listdir("/proc/self/fd")
        with writing(root / "a", bytes(size)):
            assert directory.read(b"a", MAX) == Busy()
        assert os.listdir("/proc/self/fd") == opened

    @pytest.mark.parametrize("size", [0, 1, SMALL + 1])
    def test_is_not_one_that_nobody_writes_to(
        self, directory: Directory, root: Path, size: int
    ) -> None:
        (root / "a").write_bytes(bytes(size))
        with (root / "a").open("rb"):
            found = directory.read(b"a", MAX)
        assert isinstance(found, File)
        assert (found.content, found.steady, found.racy) == (bytes(size), True, True)

    def test_is_not_a_large_one_that_nobody_writes_to_or_that_is_overdue(
        self, directory: Directory, root: Path
    ) -> None:
        (root / "a").write_bytes(bytes(LARGE))
        with large(directory, b"a", overdue=False) as file:
            assert file.racy
        with writing(root / "a", bytes(LARGE)), large(directory, b"a") as file:
            assert file.size == LARGE

    @pytest.mark.parametrize("size", [SMALL, MIDDLE])
    def test_keeps_writers_out_while_it_is_read_and_no_longer(
        self, directory: Directory, root: Path, system: Module, size: int
    ) -> None:
        """One that came and went between two looks would be missed, and another in the second."""
        (root / "a").write_bytes(bytes(size))
        let_in: list[bool] = []

        def come(*_: object) -> None:
            let_in.append(can_write(root / "a"))

        system.before["pread"] = system.before["close"] = come
        assert content(directory.read(b"a", MAX)) == bytes(size)
        # The first of two looks needs nobody out.
        assert let_in == [True, False, True]

    def test_is_read_again_when_its_writers_were_let_in_meanwhile(
        self, directory: Directory, root: Path, system: Module, locks: Module
    ) -> None:
        """The kernel does that when the service is frozen with a writer before the door."""
        (root / "a").write_bytes(b"one")

        def let_in(fd: int, *_: object) -> None:
            if system.calls["pread"] == 2:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                (root / "a").write_bytes(b"")

        system.before["pread"] = let_in
        assert content(directory.read(b"a", MAX)) == b""
        assert locks.calls["fcntl"] == 4

    def test_what_was_read_before_the_last_write_is_not_believed(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        """The writer is done before it can be asked for."""
        fd = os.open(root / "a", os.O_WRONLY | os.O_CREAT)

        def finish(*_: object) -> None:
            if system.calls["fstat"] == 2:  # after the read, before anybody is asked for
                os.write(fd, b"whole")
                os.close(fd)

        system.after["fstat"] = finish
        assert content(directory.read(b"a", MAX)) == b"whole"

    def test_is_one_that_changes_while_it_is_read_and_is_open(
        self, directory: Directory, root: Path, system: Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "now", lambda: 1 << 62)
        with writing(root / "a", b"one") as fd:
            system.after["pread"] = lambda *_: os.write(fd, b"more")
            assert directory.read(b"a", MAX) == Busy()

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOLCK])
    def test_is_not_known_where_there_are_no_leases(
        self, directory: Directory, root: Path, locks: Module, number: int
    ) -> None:
        locks.fails("fcntl", number)
        with writing(root / "a", b"one"):
            found = directory.read(b"a", MAX)
        assert isinstance(found, File)
        assert (found.content, found.steady, found.racy) == (b"one", True, True)

    def test_is_one_that_may_just_have_been_emptied_where_there_are_no_leases(
        self, directory: Directory, root: Path, locks: Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = root / "a"
        path.write_bytes(b"")
        monkeypatch.setattr(files, "now", lambda: path.stat().st_ctime_ns)
        locks.fails("fcntl", errno.EACCES)
        assert directory.read(b"a", MAX) == Emptied()
        assert content(directory.read(b"a", MAX, overdue=True)) == b""

    def test_is_not_an_empty_one_of_a_time_to_come(
        self, directory: Directory, root: Path, locks: Module
    ) -> None:
        locks.fails("fcntl", errno.EACCES)
        (root / "a").write_bytes(b"")
        assert content(directory.read(b"a", MAX)) == b""  # by this clock it is 1970

    def test_is_not_an_empty_one_that_is_old(
        self, directory: Directory, root: Path, locks: Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "now", lambda: 1 << 62)
        locks.fails("fcntl", errno.EACCES)
        (root / "a").write_bytes(b"")
        assert content(directory.read(b"a", MAX)) == b""

    def test_that_is_overdue_is_taken_as_it_is_and_nobody_is_asked_for(
        self, directory: Directory, root: Path, locks: Module
    ) -> None:
        with writing(root / "a", b"one"):
            found = directory.read(b"a", MAX, overdue=True)
        assert content(found) == b"one"
        assert "fcntl" not in locks.calls

    def test_that_never_holds_still_is_taken_so_where_there_are_no_leases(
        self, directory: Directory, root: Path, system: Module, locks: Module
    ) -> None:
        locks.fails("fcntl", errno.EINVAL)
        with writing(root / "a", b"one") as fd:
            system.after["pread"] = lambda *_: os.write(fd, b"+")
            found = directory.read(b"a", MAX)
        assert isinstance(found, File)
        assert not found.steady


class TestJustChanged:
    """What is small and has just changed is read at once, while writers are kept out."""

    pytestmark = pytest.mark.usefixtures("racy")

    def ordinary(self, directory: Directory) -> File | None:
        [(name, found)] = directory.read_ordinary([b"a"], MAX, seen=False)
        assert name == b"a"
        return None if found is Gone.GONE else found

    def test_is_read_once_and_nobody_is_kept_out_for_longer(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        (root / "a").write_bytes(b"one")
        let_in: list[tuple[bool, bool]] = []

        def come(*_: object) -> None:
            let_in.append((can_write(root / "a"), can_lock(root / "a")))

        system.before["pread"] = system.before["close"] = come
        found = self.ordinary(directory)
        assert found
        assert (found.content, found.steady, found.racy, found.closed) == (b"one", True, True, True)
        # A writer that was waiting may ask for the lock as soon as it is in.
        assert let_in == [(False, False), (True, True)]

    def test_that_has_a_writer_takes_a_closer_look(self, directory: Directory, root: Path) -> None:
        with writing(root / "a", b"one"):
            assert self.ordinary(directory) is None

    def test_whose_writer_was_let_in_takes_a_closer_look(
        self, directory: Directory, root: Path, system: Module
    ) -> None:
        (root / "a").write_bytes(b"one")
        system.before["pread"] = lambda fd, *_: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        assert self.ordinary(directory) is None

    @pytest.mark.parametrize("size", [SMALL + 1, LARGE])
    def test_that_is_not_small_keeps_nobody_out(
        self, directory: Directory, root: Path, locks: Module, size: int
    ) -> None:
        (root / "a").write_bytes(bytes(size))
        assert self.ordinary(directory) is None
        assert "fcntl" not in locks.calls

    def test_that_is_locked_takes_a_closer_look(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(b"one")
        with locking(root / "a"):
            assert self.ordinary(directory) is None
            assert can_write(root / "a")

    def test_that_is_empty_may_have_a_creator_that_does_not_count_yet(
        self, directory: Directory, root: Path
    ) -> None:
        (root / "a").touch()
        closer = directory.read(b"a", MAX)
        for found in (self.ordinary(directory), closer):
            assert isinstance(found, File)
            assert (found.content, found.closed) == (b"", False)


class TestAScan:
    @pytest.mark.parametrize("size", [3, LARGE])
    def test_finds_a_file_busy_for_half_a_second_after_a_write_of_which_nobody_heard(
        self, directory: Directory, root: Path, locks: Module, size: int
    ) -> None:
        def found() -> object:
            found = directory.read(b"a", MAX, seen=True)
            if isinstance(found, LargeFile):
                found.close()
            return found

        with writing(root / "a", bytes(size)):
            assert found() == Busy()
            locks.fails("fcntl", errno.EACCES)
            assert found() == Busy()
            eventually(lambda: isinstance(found(), File | LargeFile), True)


class TestLargeFile:
    def test_is_read_in_pieces(self, directory: Directory, root: Path) -> None:
        whole = os.urandom(LARGE)
        (root / "a").write_bytes(whole)
        with large(directory, b"a") as file:
            pieces = list(file.pieces())
            assert b"".join(pieces) == whole
            assert len(pieces) == 3
            assert (file.size, file.links) == (LARGE, 1)
            assert file.signature == Signature.of((root / "a").stat())
            assert file.ends_with(whole[-3:])
            assert not file.ends_with(b"x" + whole[-3:])

    def test_is_what_it_was_at_the_last_look(self, directory: Directory, root: Path) -> None:
        path = root / "a"
        path.write_bytes(bytes(LARGE))
        with large(directory, b"a") as file:
            assert file.is_unchanged()
            with path.open("ab") as more:
                more.write(b"more")
            assert not file.is_unchanged()
            assert sum(map(len, file.pieces())) == LARGE
            file.look()
            assert file.is_unchanged()
            assert sum(map(len, file.pieces())) == file.size == LARGE + 4
            assert file.signature == Signature.of(path.stat())

    def test_ends_early_when_it_became_shorter(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(bytes(LARGE))
        with large(directory, b"a") as file:
            os.truncate(root / "a", MIDDLE + 1)
            assert sum(map(len, file.pieces())) == MIDDLE + 1

    def test_goes_on_under_whatever_name(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(bytes(LARGE))
        with large(directory, b"a") as file:
            (root / "a").unlink()
            assert sum(map(len, file.pieces())) == LARGE

    def test_is_closed_once(self, directory: Directory, root: Path) -> None:
        (root / "a").write_bytes(bytes(LARGE))
        opened = os.listdir("/proc/self/fd")
        with large(directory, b"a") as file:
            file.close()
            with (root / "a").open("rb"):
                file.close()
        assert os.listdir("/proc/self/fd") == opened
