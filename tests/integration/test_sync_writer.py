"""How values become files: whole, in their places, and never over what nobody has looked at."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
from collections import deque
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
from integration.mounts import TMPFS, mounted, only_root

from sync.core.changes import Changed, Created, Renamed, Unfinished
from sync.core.errors import CannotBeError, NotAsExpectedError
from sync.core.exclude import DEFAULT, TEMPORARY, Excluded, is_temporary
from sync.disk.files import Directory, keep_writers_out
from sync.disk.linux import Renames
from sync.disk.own import Own
from sync.disk.watch import Watch
from sync.disk.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sync.core.changes import Change, Signature

TEMP = os.fsdecode(TEMPORARY % 7)
ROUNDS = 300  # of what runs beside another one


@pytest.fixture(autouse=True)
def _no_signal() -> Iterator[None]:
    """Ignore what the kernel sends to who holds a lease when a writer comes."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


class Hooked(Renames):
    """Renames, with others' work right before or after the first one; some may be missing."""

    def __init__(self) -> None:
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        self.missing: set[str] = set()
        self.done: list[str] = []

    def _run(self, name: str, work: Callable[[], None]) -> None:
        if name in self.missing:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        before, self.before = self.before, None
        if before:
            before()
        self.done.append(name)
        work()
        after, self.after = self.after, None
        if after:
            after()

    def replace(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        self._run("replace", partial(super().replace, old, old_folder, new, new_folder))

    def new(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        self._run("new", partial(super().new, old, old_folder, new, new_folder))

    def exchange(self, one: bytes, other: bytes, folder: int) -> None:
        self._run("exchange", partial(super().exchange, one, other, folder))


class Bench:
    """A directory with a writer, a watch that knows of it, and somebody else's hands."""

    def __init__(self, root: Path, directory: Directory, watch: Watch, own: Own) -> None:
        self.root = root
        self.directory = directory
        self.watch = watch
        self.own = own
        self.renames = Hooked()
        self.writer = Writer(directory, own, renames=self.renames)

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def seen(self, name: bytes) -> Signature:
        signature = self.directory.signature(name)
        assert signature
        return signature

    def foreign(self, name: str, content: bytes = b"theirs") -> Signature:
        """Have somebody else write a file, and return what is seen of it; nothing is told."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)
        self.told()
        return self.seen(name.encode())

    def put(self, name: str, content: bytes = b"ours") -> Signature:
        signature = self.directory.signature(name.encode())
        return self.writer.put(name.encode(), content, signature)

    def told(self) -> list[Change]:
        return self.watch.read()

    def temporaries(self) -> list[str]:
        return [
            name for _, _, names in os.walk(self.root) for name in names if ".mdvp-sync" in name
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@contextmanager
def bench_of(root: Path, *, is_tree: bool) -> Iterator[Bench]:
    with closing(Directory(root, Excluded(DEFAULT), is_tree=is_tree)) as directory:
        own = Own(directory)
        with closing(Watch(directory.handle, directory.ground, own)) as watch:
            yield Bench(root, directory, watch, own)


@pytest.fixture
def flat(root: Path) -> Iterator[Bench]:
    with bench_of(root, is_tree=False) as bench:
        yield bench
        assert bench.temporaries() == []


@pytest.fixture
def tree(root: Path) -> Iterator[Bench]:
    with bench_of(root, is_tree=True) as bench:
        yield bench
        assert bench.temporaries() == []


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Have somebody else work in a loop for the time of the block."""
    ends = Event()
    failed: list[BaseException] = []

    def loop() -> None:
        try:
            while not ends.is_set():
                work()
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's own thread
            failed.append(error)

    thread = Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    if failed:
        raise failed[0]


def trade_places(one: Path, other: Path) -> None:
    fd = os.open(one.parent, os.O_RDONLY)
    try:
        Renames().exchange(os.fsencode(one.name), os.fsencode(other), fd)
    finally:
        os.close(fd)


class TestAValue:
    @pytest.mark.parametrize("content", [b"", b"1", b"x" * (3 << 20)])
    def test_is_the_content_of_a_new_file(self, flat: Bench, content: bytes) -> None:
        signature = flat.put("a", content)
        assert (flat / "a").read_bytes() == content
        assert signature == flat.seen(b"a")
        status = (flat / "a").stat()
        assert stat.S_IMODE(status.st_mode) == 0o644
        assert (status.st_uid, status.st_gid) == (
            (flat / ".").stat().st_uid,
            flat.root.stat().st_gid,
        )

    def test_replaces_that_of_a_file(self, flat: Bench) -> None:
        expected = flat.foreign("a", b"long before")
        signature = flat.writer.put(b"a", b"new", expected)
        assert (flat / "a").read_bytes() == b"new"
        assert signature == flat.seen(b"a")
        assert signature.inode != expected.inode

    @pytest.mark.parametrize("before", [None, b"before"])
    def test_has_a_newline_where_files_end_with_one(
        self, flat: Bench, before: bytes | None
    ) -> None:
        writer = Writer(flat.directory, flat.own, newline=b"\n", fsync=True)
        expected = None if before is None else flat.foreign("a", before)
        signature = writer.put(b"a", b"1", expected)
        assert (flat / "a").read_bytes() == b"1\n"
        assert signature == flat.seen(b"a")

    def test_comes_in_pieces_and_appears_at_once(self, flat: Bench) -> None:
        draft = flat.writer.begin(b"a")
        thread = Thread(target=lambda: deque(map(draft.write, [b"x" * 1000] * 1000), 0))
        thread.start()
        thread.join()
        assert not (flat / "a").exists()
        assert flat.writer.finish(draft, None) == flat.seen(b"a")
        assert (flat / "a").read_bytes() == b"x" * 1_000_000
        draft = flat.writer.begin(b"a")
        draft.write(b"new")
        assert flat.writer.finish(draft, flat.seen(b"a")) == flat.seen(b"a")
        assert (flat / "a").read_bytes() == b"new"
        assert flat.told() == []

    def test_that_does_not_come_leaves_nothing(self, flat: Bench) -> None:
        draft = flat.writer.begin(b"a")
        draft.write(b"half")
        assert len(flat.temporaries()) == 1
        draft.close()
        draft.close()
        assert os.listdir(flat.root) == []
        assert flat.told() == []

    def test_is_read_as_it_was_or_as_it_is(self, flat: Bench) -> None:
        contents = [b"a" * 100_000, b"b" * 100_000]
        flat.put("a", contents[0])

        def read() -> None:
            assert (flat / "a").read_bytes() in contents

        with meanwhile(read):
            for number in range(ROUNDS):
                flat.put("a", contents[number % 2])

    def test_is_on_the_disk_where_that_is_wanted(
        self, tree: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system, synced = os.fsync, []

        def fsync(fd: int) -> None:
            synced.append(os.fstat(fd).st_ino)
            system(fd)

        def inodes(*names: str) -> list[int]:
            return [(tree / name).stat().st_ino for name in names]

        monkeypatch.setattr(os, "fsync", fsync)
        writer = Writer(tree.directory, tree.own, fsync=True)
        signature = writer.put(b"d/e/a", b"1", None)
        assert synced == inodes(".", "d", "d/e/a", "d/e")
        synced.clear()
        signature = writer.put(b"d/e/a", b"1", signature)
        assert synced == inodes("d/e/a", "d/e")
        synced.clear()
        signature = writer.rename(b"d/e/a", b"d/a", signature)
        assert synced == inodes("d", "d/e")
        synced.clear()
        writer.remove(b"d/a", signature)
        assert synced == inodes("d")

    @only_root
    @pytest.mark.parametrize("is_new", [False, True])
    def test_is_read_by_nobody_else_before_its_owner_is_right(
        self, flat: Bench, is_new: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes = []

        def fchown(fd: int, *_: int) -> None:
            modes.append(stat.S_IMODE(os.fstat(fd).st_mode))

        if not is_new:
            flat.foreign("a")
            os.chown(flat / "a", os.geteuid() + 1, os.getegid())
        monkeypatch.setattr(os, "fchown", fchown)
        writer = Writer(flat.directory, flat.own, owner=(os.geteuid() + 1, -1))
        writer.put(b"a", b"1", None if is_new else flat.seen(b"a"))
        assert modes == [0o600]
        assert stat.S_IMODE((flat / "a").stat().st_mode) == 0o644

    def test_is_of_the_owner_and_mode_that_are_set(self, flat: Bench) -> None:
        writer = Writer(flat.directory, flat.own, mode=0o640, owner=(os.geteuid(), os.getegid()))
        writer.put(b"a", b"1", None)
        assert stat.S_IMODE((flat / "a").stat().st_mode) == 0o640


class TestAFile:
    def test_keeps_its_owner_mode_and_attributes(self, flat: Bench) -> None:
        flat.foreign("a")
        acl = acl_of((1, 6, -1), (2, 4, 12345), (4, 4, -1), (16, 4, -1), (32, 0, -1))
        os.setxattr(flat / "a", "user.note", b"mine")
        os.setxattr(flat / "a", "system.posix_acl_access", acl)
        if os.geteuid() == 0:
            os.chown(flat / "a", 123, 456)
        before = (flat / "a").stat()
        flat.put("a")
        after = (flat / "a").stat()
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        assert after.st_mode == before.st_mode
        assert os.getxattr(flat / "a", "user.note") == b"mine"
        assert os.getxattr(flat / "a", "system.posix_acl_access") == acl
        assert after.st_mtime_ns > before.st_mtime_ns

    @only_root
    def test_is_not_made_a_program_with_others_rights(self, flat: Bench) -> None:
        flat.foreign("a")
        (flat / "a").chmod(0o6755)
        os.setxattr(flat / "a", "security.capability", capability())
        flat.put("a")
        assert stat.S_IMODE((flat / "a").stat().st_mode) == 0o755
        assert os.listxattr(flat / "a") == []

    def test_gets_no_rights_that_its_directory_gives_to_new_ones(self, flat: Bench) -> None:
        flat.foreign("a")
        acl = acl_of((1, 6, -1), (2, 6, 12345), (4, 4, -1), (16, 6, -1), (32, 0, -1))
        os.setxattr(flat.root, "system.posix_acl_default", acl)
        flat.put("a")
        assert os.listxattr(flat / "a") == []

    @only_root
    @pytest.mark.parametrize(
        ("mode", "groups", "kept"),
        [
            *((0o664, (), 0o644), (0o604, (), 0o600), (0o646, (), 0o644), (0o755, (), 0o755)),
            *((0o664, (456,), 0o664), (0o644, (456,), 0o644), (0o476, (456,), 0o444)),
        ],
    )
    def test_gives_no_more_rights_when_its_owner_cannot_be_kept(
        self, flat: Bench, mode: int, groups: tuple[int, ...], kept: int
    ) -> None:
        flat.foreign("a")
        os.chown(flat / "a", 123, 456)
        (flat / "a").chmod(mode)
        put_as_another(flat, groups)
        status = (flat / "a").stat()
        assert (flat / "a").read_bytes() == b"ours"
        assert (status.st_uid, status.st_gid) == (1000, groups[0] if groups else 1000)
        assert stat.S_IMODE(status.st_mode) == kept

    @only_root
    def test_gives_no_rights_to_others_when_its_list_of_them_cannot_be_kept(
        self, flat: Bench
    ) -> None:
        flat.foreign("a")
        acl = acl_of((1, 6, -1), (2, 0, 12345), (4, 4, -1), (16, 4, -1), (32, 4, -1))
        os.setxattr(flat / "a", "system.posix_acl_access", acl)
        os.chown(flat / "a", 123, 456)
        put_as_another(flat)
        assert stat.S_IMODE((flat / "a").stat().st_mode) == 0o600
        assert os.listxattr(flat / "a") == []

    def test_that_another_name_has_too_keeps_its_content_there(self, flat: Bench) -> None:
        flat.foreign("a")
        (flat / "b").hardlink_to(flat / "a")
        flat.put("a")
        assert (flat / "a").read_bytes() == b"ours"
        assert (flat / "b").read_bytes() == b"theirs"

    def test_is_removed(self, flat: Bench) -> None:
        flat.writer.remove(b"a", flat.foreign("a"))
        assert os.listdir(flat.root) == []

    def test_is_renamed(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        signature = flat.writer.rename(b"a", b"b", expected)
        assert os.listdir(flat.root) == ["b"]
        assert signature == flat.seen(b"b")
        assert signature.is_content_of(expected)

    def test_is_renamed_from_one_directory_to_another(self, tree: Bench) -> None:
        expected = tree.foreign("d/e/a")
        signature = tree.writer.rename(b"d/e/a", b"f/g/b", expected)
        assert signature == tree.seen(b"f/g/b")
        assert not (tree / "d/e/a").exists()
        assert tree.writer.take_made().keys() == {b"f/", b"f/g/"}


def acl_of(*entries: tuple[int, int, int]) -> bytes:
    """Return an access control list of (tag, rights, id), as the kernel keeps it: acl(5)."""
    packed = (struct.pack("<HHI", tag, rights, who % (1 << 32)) for tag, rights, who in entries)
    return struct.pack("<I", 2) + b"".join(packed)


def capability() -> bytes:
    """Return CAP_NET_RAW as a file's: struct vfs_cap_data."""
    return struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def put_as_another(bench: Bench, groups: tuple[int, ...] = ()) -> None:
    """Put a value as a user who has no rights but his own."""
    os.chown(bench.root, 1000, 1000)
    expected = bench.seen(b"a")
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            os.setgroups(groups)
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
            bench.writer.put(b"a", b"ours", expected)
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def rename_over(path: Path, content: bytes = b"newer") -> None:
    aside = path.with_name("aside")
    aside.write_bytes(content)
    aside.rename(path)


class TestWhatNobodyHasLookedAt:
    """Is never lost: whoever comes before the rename, or right after it, is found out."""

    ACTS = ("put", "remove", "rename", "finish")

    def act(self, bench: Bench, act: str, expected: Signature) -> None:
        writer = bench.writer
        match act:
            case "put":
                writer.put(b"a", b"ours", expected)
            case "remove":
                writer.remove(b"a", expected)
            case "rename":
                writer.rename(b"a", b"b", expected)
            case "finish":
                draft = writer.begin(b"a")
                draft.write(b"ours")
                writer.finish(draft, expected)

    @pytest.mark.parametrize("act", ACTS)
    @pytest.mark.parametrize("change", ["write", "replace", "unlink", "append"])
    def test_before(self, flat: Bench, act: str, change: str) -> None:
        expected = flat.foreign("a")
        change_it(flat / "a", change)
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        assert contents(flat.root) == CHANGED[change]
        assert flat.renames.done == []

    @pytest.mark.parametrize("act", ACTS)
    @pytest.mark.parametrize("change", ["replace", "unlink"])
    def test_in_between(self, flat: Bench, act: str, change: str) -> None:
        expected = flat.foreign("a")
        flat.renames.before = lambda: change_it(flat / "a", change)
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        assert contents(flat.root) == CHANGED[change]
        assert b"a" in names_of(flat.told())

    @pytest.mark.parametrize("act", ACTS)
    def test_of_a_writer_who_has_opened_it(self, flat: Bench, act: str) -> None:
        expected = flat.foreign("a")
        with (flat / "a").open("rb+") as file:
            with pytest.raises(NotAsExpectedError):
                self.act(flat, act, expected)
            file.write(b"T")
        assert contents(flat.root) == {"a": b"Theirs"}

    @pytest.mark.parametrize("act", ACTS)
    def test_of_a_writer_who_has_locked_it(self, flat: Bench, act: str) -> None:
        expected = flat.foreign("a")
        with (flat / "a").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(NotAsExpectedError):
                self.act(flat, act, expected)
        assert contents(flat.root) == {"a": b"theirs"}

    @pytest.mark.parametrize("act", ACTS)
    def test_of_a_writer_who_opens_it_in_between(self, flat: Bench, act: str) -> None:
        expected = flat.foreign("a")
        writes = Thread(target=lambda: append(flat / "a"))

        def begin() -> None:
            writes.start()
            while is_alone(flat / "a"):
                assert writes.is_alive()

        flat.renames.before = begin
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        writes.join()
        assert contents(flat.root) == {"a": b"theirs, more"}

    @pytest.mark.parametrize("act", ACTS)
    def test_of_a_writer_who_has_just_closed_it(
        self, flat: Bench, act: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = flat.foreign("a")

        def ask(fd: int) -> bool | None:
            change_it(flat / "a", "write")
            return keep_writers_out(fd)

        monkeypatch.setattr("sync.disk.writer.keep_writers_out", ask)
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        assert contents(flat.root) == {"a": b"newer"}

    @pytest.mark.parametrize("act", ACTS)
    def test_that_a_directory_is_there_by_now(self, flat: Bench, act: str) -> None:
        def make_one() -> None:
            (flat / "a").unlink()
            (flat / "a/b").mkdir(parents=True)

        expected = flat.foreign("a")
        flat.renames.before = make_one
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        assert os.listdir(flat.root) == ["a"]
        assert os.listdir(flat / "a") == ["b"]

    def test_over_a_new_file(self, flat: Bench) -> None:
        flat.renames.before = lambda: (flat / "a").write_bytes(b"newer")
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", None)
        assert contents(flat.root) == {"a": b"newer"}

    def test_over_what_a_file_is_renamed_to(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        flat.renames.before = lambda: (flat / "b").write_bytes(b"newer")
        with pytest.raises(NotAsExpectedError):
            flat.writer.rename(b"a", b"b", expected)
        assert contents(flat.root) == {"a": b"theirs", "b": b"newer"}

    def test_that_is_replaced_twice_is_what_it_was_last(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        flat.renames.before = lambda: rename_over(flat / "a", b"second")
        flat.renames.after = lambda: rename_over(flat / "a", b"third")
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", expected)
        assert contents(flat.root) == {"a": b"third"}
        assert flat.renames.done == ["exchange"] * 3

    def test_that_is_replaced_and_removed_is_gone(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        flat.renames.before = lambda: rename_over(flat / "a", b"second")
        flat.renames.after = (flat / "a").unlink
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", expected)
        assert contents(flat.root) == {}

    def test_that_is_made_while_another_is_removed_stays(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        flat.renames.before = lambda: rename_over(flat / "a", b"second")
        flat.renames.after = lambda: (flat / "a").write_bytes(b"third")
        with pytest.raises(NotAsExpectedError):
            flat.writer.remove(b"a", expected)
        assert contents(flat.root) == {"a": b"third"}

    @pytest.mark.parametrize("at_once", [False, True])
    def test_stays_when_the_disk_fails_before_it_is_known_what_it_is(
        self, flat: Bench, at_once: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        expected = flat.foreign("a")
        flat.renames.before = lambda: rename_over(flat / "a")
        if at_once:
            flat.renames.after = fail
        else:
            monkeypatch.setattr("sync.disk.writer._Looked.is_at", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            flat.writer.put(b"a", b"ours", expected)
        (name,) = flat.temporaries()
        assert contents(flat.root) == {"a": b"ours", name: b"newer"}
        (flat / name).unlink()

    @pytest.mark.parametrize("act", ACTS)
    def test_is_not_opened_through_a_link(
        self, flat: Bench, act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "outside").write_bytes(b"outside")
        expected = flat.foreign("a")
        opened = []
        system = os.open

        def swap(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == b"a":
                (flat / "a").unlink()
                (flat / "a").symlink_to(tmp_path / "outside")
            fd = system(path, flags, mode, dir_fd=dir_fd)
            opened.append(Path(f"/proc/self/fd/{fd}").readlink())
            return fd

        monkeypatch.setattr(os, "open", swap)
        with pytest.raises(NotAsExpectedError):
            self.act(flat, act, expected)
        assert tmp_path / "outside" not in opened
        assert (flat / "a").is_symlink()

    def test_is_not_said_to_be_ours(self, flat: Bench) -> None:
        flat.renames.after = lambda: rename_over(flat / "a")
        signature = flat.writer.put(b"a", b"ours", None)
        assert not signature.is_sure
        assert not signature.is_content_of(flat.seen(b"a"))
        assert flat.told() != []

    def test_of_a_writer_beside_is_all_there(self, flat: Bench) -> None:
        """Each of two hands changes the file only as it has seen it: none of it is lost."""
        flat.foreign("a", b"")
        lines = 0

        def theirs() -> None:
            nonlocal lines
            if lines >= ROUNDS:  # or ours may never find it undisturbed
                return
            fd = os.open(flat / "a", os.O_WRONLY | os.O_APPEND)
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(fd), (flat / "a").stat()):
                    os.write(fd, b"theirs\n")
                    lines += 1
            finally:
                os.close(fd)

        ours = 0
        with meanwhile(theirs):
            while ours < ROUNDS:
                expected = flat.seen(b"a")
                content = (flat / "a").read_bytes()
                if flat.directory.signature(b"a") != expected:
                    continue
                with suppress(NotAsExpectedError):
                    flat.writer.put(b"a", content + b"ours\n", expected)
                    ours += 1
        found = (flat / "a").read_bytes().splitlines()
        assert found.count(b"ours") == ours
        assert found.count(b"theirs") == lines


CHANGED = {
    "write": {"a": b"newer"},
    "replace": {"a": b"newer"},
    "append": {"a": b"theirs, more"},
    "unlink": {},
}


def change_it(path: Path, change: str) -> None:
    match change:
        case "write":
            path.write_bytes(b"newer")
        case "append":
            append(path)
        case "replace":
            rename_over(path)
        case "unlink":
            path.unlink()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b", more")


def is_alone(path: Path) -> bool:
    """Say whether nobody waits to write to a file of which this process has a lease."""
    inode = path.stat().st_ino
    leases = Path("/proc/locks").read_text().splitlines()
    return not any(
        "LEASE" in line and "BREAKING" in line and f":{inode} " in line for line in leases
    )


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


class TestAFileSystemWithoutExchanges:
    @pytest.fixture
    def flat(self, flat: Bench) -> Bench:
        flat.renames.missing = {"exchange", "new"}
        return flat

    def test_has_files_written(self, flat: Bench) -> None:
        assert flat.put("a", b"1") == flat.seen(b"a")
        assert flat.put("a", b"2") == flat.seen(b"a")
        flat.writer.rename(b"a", b"b", flat.seen(b"a"))
        assert contents(flat.root) == {"b": b"2"}
        flat.writer.remove(b"b", flat.seen(b"b"))
        assert contents(flat.root) == {}

    def test_has_none_replaced(self, flat: Bench) -> None:
        flat.foreign("a")
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", None)
        assert contents(flat.root) == {"a": b"theirs"}

    def test_has_none_replaced_without_links(
        self, flat: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", link)
        flat.writer.put(b"b", b"ours", None)
        flat.foreign("a")
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", None)
        assert contents(flat.root) == {"a": b"theirs", "b": b"ours"}

    def test_has_a_last_look(self, flat: Bench) -> None:
        expected = flat.foreign("a")
        flat.renames.exchange = lambda *_: refuse_after(lambda: rename_over(flat / "a"))  # type: ignore[method-assign]
        with pytest.raises(NotAsExpectedError):
            flat.writer.put(b"a", b"ours", expected)
        assert contents(flat.root) == {"a": b"newer"}


def refuse_after(work: Callable[[], object]) -> None:
    work()
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class TestAKeyThatCannotBeAFile:
    NAMES = (b"", b".", b"..", b"a\0b", b"x" * 256, os.fsencode(TEMP), b"a~")

    @pytest.mark.parametrize("name", [*NAMES, b"/", b"/a", b"a/", b"a/b", b"../a"])
    def test_is_none(self, flat: Bench, name: bytes) -> None:
        self.assert_none(flat, name)

    @pytest.mark.parametrize(
        "name",
        [
            *(*NAMES, b"/", b"/a", b"a/", b"a//b", b"../a", b"a/../b", b"a/./b", b"a\0/b"),
            *(b"x" * 256 + b"/a", b"a/" + b"x" * 256, b"d/" * 2048, b"d/" * 2047 + b"aa"),
            *(os.fsencode(f"{TEMP}/a"), b"a~/b", b"d/a~", os.fsencode(f"d/{TEMP}")),
        ],
    )
    def test_is_none_in_a_tree(self, tree: Bench, name: bytes) -> None:
        self.assert_none(tree, name)
        assert tree.writer.made.keys() <= {b"d/", b"a/"}

    def assert_none(self, bench: Bench, name: bytes) -> None:
        there = bench.foreign("file")
        with pytest.raises(CannotBeError, match=r"^(is|has) "):
            bench.writer.put(name, b"1", None)
        with pytest.raises(CannotBeError):
            bench.writer.begin(name)
        with pytest.raises(CannotBeError):
            bench.writer.rename(b"file", name, there)
        assert contents(bench.root) == {"file": b"theirs"}

    @pytest.mark.parametrize("kind", ["directory", "link", "fifo", "socket"])
    def test_is_none_where_something_else_is(self, flat: Bench, kind: str, tmp_path: Path) -> None:
        (tmp_path / "outside").write_bytes(b"outside")
        there = flat.foreign("file")
        make(flat / "a", kind, tmp_path / "outside")
        for expected in (None, there):
            with pytest.raises(CannotBeError):
                flat.writer.put(b"a", b"1", expected)
        with pytest.raises(CannotBeError):
            flat.writer.remove(b"a", there)
        with pytest.raises(CannotBeError):
            flat.writer.rename(b"file", b"a", there)
        assert stat.S_IFMT((flat / "a").lstat().st_mode) == KINDS[kind]
        assert (tmp_path / "outside").read_bytes() == b"outside"

    @pytest.mark.parametrize("kind", ["file", "link", "fifo", "socket"])
    @pytest.mark.parametrize("name", ["a/b", "d/a/b", "d/a/b/c"])
    def test_is_none_below_what_is_no_directory(
        self, tree: Bench, kind: str, name: str, tmp_path: Path
    ) -> None:
        (tmp_path / "outside").mkdir()
        path = tree / name[: name.index("a") + 1]
        path.parent.mkdir(exist_ok=True)
        make(path, kind, tmp_path / "outside")
        with pytest.raises(CannotBeError):
            tree.writer.put(name.encode(), b"1", None)
        assert stat.S_IFMT(path.lstat().st_mode) == KINDS[kind]
        assert os.listdir(tmp_path / "outside") == []


KINDS = {
    "directory": stat.S_IFDIR,
    "file": stat.S_IFREG,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


def make(path: Path, kind: str, target: Path) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(target)
        case _:
            os.mknod(path, KINDS[kind] | 0o600)


class TestATree:
    def test_gets_the_directories_that_it_needs(self, tree: Bench) -> None:
        (tree / "d").mkdir(0o700)
        signature = tree.put("d/e/f/a")
        assert (tree / "d/e/f/a").read_bytes() == b"ours"
        assert signature == tree.seen(b"d/e/f/a")
        assert tree.writer.take_made().keys() == {b"d/e/", b"d/e/f/"}
        assert tree.writer.take_made() == {}
        modes = [stat.S_IMODE((tree / each).stat().st_mode) for each in ("d", "d/e", "d/e/f")]
        assert modes == [0o700, 0o755, 0o755]

    @only_root
    def test_gets_what_is_of_the_owner_of_the_directory_that_it_is_in(self, tree: Bench) -> None:
        (tree / "d").mkdir()
        os.chown(tree / "d", 123, 456)
        tree.put("d/e/a")
        for each in ("d/e", "d/e/a"):
            status = (tree / each).stat()
            assert (status.st_uid, status.st_gid) == (123, 456)
        (tree / "d").chmod(0o2775)
        writer = Writer(tree.directory, tree.own, owner=(7, 8))
        writer.put(b"d/g/a", b"1", None)
        assert ((tree / "d/g").stat().st_uid, (tree / "d/g/a").stat().st_gid) == (7, 8)
        assert stat.S_IMODE((tree / "d/g").stat().st_mode) == 0o2755

    def test_gives_nothing_to_what_is_put_in_the_place_of_a_new_directory(
        self, tree: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tree / "theirs/f").mkdir(parents=True)
        (tree / "theirs").chmod(0o700)
        mkdir = os.mkdir

        def swap(name: bytes, mode: int, *, dir_fd: int) -> None:
            mkdir(name, mode, dir_fd=dir_fd)
            os.rmdir(name, dir_fd=dir_fd)
            os.rename(b"theirs", name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

        monkeypatch.setattr(os, "mkdir", swap)
        tree.put("d/a")
        assert stat.S_IMODE((tree / "d").stat().st_mode) == 0o700

    def test_loses_those_that_are_empty(self, tree: Bench) -> None:
        for name in ("d/e/f/a", "d/g/a", "h/i/a"):
            tree.put(name)
        made = tree.writer.take_made()
        for path in (b"d/e/f/a", b"h/i/a"):
            tree.writer.remove(path, tree.seen(path))
        assert tree.writer.remove_empty(made) == {b"d/e/f/", b"d/e/", b"h/i/", b"h/"}
        assert os.listdir(tree.root) == ["d"]
        assert not tree.directory.has_place(b"h/")
        assert tree.writer.remove_empty({b"d/e/": b"", b"x/y/": b""}) == {b"d/e/", b"x/y/"}
        tree.put("d/e/f/a")
        assert (tree / "d/e/f/a").read_bytes() == b"ours"

    def test_loses_none_that_somebody_else_has_made(self, tree: Bench) -> None:
        for name in ("d/a", "e/a"):
            tree.put(name)
            (tree / name).unlink()
        made = tree.writer.take_made()
        (tree / "d").rmdir()
        (tree / "d").mkdir()  # most often it gets the same inode
        assert tree.writer.gone(made) == {b"d/"}
        assert tree.writer.remove_empty(made) == {b"d/", b"e/"}
        assert os.listdir(tree.root) == ["d"]
        assert tree.writer.gone(made) == {b"d/", b"e/"}

    def test_is_entered_when_a_directory_was_removed_just_now(self, tree: Bench) -> None:
        tree.put("d/a")
        (tree / "d/a").unlink()
        (tree / "d").rmdir()
        tree.put("d/a")
        assert (tree / "d/a").read_bytes() == b"ours"

    def test_has_nothing_put_into_another_directory_than_it_was_begun_in(self, tree: Bench) -> None:
        draft = tree.writer.begin(b"d/a")
        draft.write(b"ours")
        (tree / "d").rename(tree / "e")
        (tree / "d").mkdir()
        with pytest.raises(NotAsExpectedError):
            tree.writer.finish(draft, None)
        assert [path.name for path in tree.root.rglob("*") if path.is_file()] == []

    @pytest.mark.parametrize("name", ["d/a", "d/e/a", "d/e/f/a"])
    def test_has_nothing_written_outside_whoever_puts_links_in_its_way(
        self, tree: Bench, name: str, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        (outside / "e/f").mkdir(parents=True)
        for each in ("a", "e/a", "e/f/a"):
            (outside / each).write_bytes(b"outside")
        before = sorted(outside.rglob("*"))
        component = (tree / name).parent if name != "d/a" else tree / "d"
        component.mkdir(parents=True)
        link = tmp_path / "link"
        link.symlink_to(outside)
        with meanwhile(lambda: trade_places(component, link)):
            for _ in range(ROUNDS):
                tree.directory.forget()
                with suppress(NotAsExpectedError, CannotBeError):
                    tree.put(name)
                if signature := tree.directory.signature(name.encode()):
                    with suppress(NotAsExpectedError, CannotBeError):
                        tree.writer.remove(name.encode(), signature)
        assert sorted(outside.rglob("*")) == before
        assert {path.read_bytes() for path in before if path.is_file()} == {b"outside"}

    def test_has_no_directory_made_outside(self, tree: Bench, tmp_path: Path) -> None:
        outside, link = tmp_path / "outside", tmp_path / "link"
        outside.mkdir()
        (tree / "d").mkdir()
        link.symlink_to(outside)
        with meanwhile(lambda: trade_places(tree / "d", link)):
            for number in range(ROUNDS):
                with suppress(NotAsExpectedError, CannotBeError):
                    tree.put(f"d/e{number}/f/a")
                tree.writer.remove_empty({b"d/e/": b""})
        assert os.listdir(outside) == []
        assert all(path.stat().st_mode & 0o777 == 0o755 for path in (tree / "d").glob("*/f"))


@only_root
class TestADiskThatIsFull:
    @pytest.fixture
    def small(self, root: Path) -> Iterator[Bench]:
        with (
            mounted(*TMPFS, "-o", "size=256k", root),
            bench_of(root, is_tree=False) as bench,
        ):
            yield bench
            assert bench.temporaries() == []

    def test_leaves_the_file_as_it_was(self, small: Bench) -> None:
        expected = small.foreign("a")
        with pytest.raises(OSError, match="No space left") as caught:
            small.writer.put(b"a", b"x" * (1 << 20), expected)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):
            small.writer.put(b"b", b"x" * (1 << 20), None)
        assert contents(small.root) == {"a": b"theirs"}
        assert small.seen(b"a") == expected
        assert small.told() == []
        small.writer.put(b"a", b"ours", expected)

    def test_leaves_it_when_the_value_comes_in_pieces(self, small: Bench) -> None:
        draft = small.writer.begin(b"a")
        with pytest.raises(OSError, match="No space left"):
            deque(map(draft.write, [b"x" * 10_000] * 100), 0)
        draft.close()
        assert contents(small.root) == {}

    def test_leaves_it_when_it_cannot_be_written_to(self, small: Bench) -> None:
        expected = small.foreign("a")
        subprocess.run(("mount", "-o", "remount,ro", small.root), check=True)
        for act in (
            lambda: small.writer.put(b"a", b"ours", expected),
            lambda: small.writer.put(b"b", b"ours", None),
            lambda: small.writer.remove(b"a", expected),
            lambda: small.writer.rename(b"a", b"b", expected),
        ):
            with pytest.raises(OSError, match="Read-only"):
                act()
        assert contents(small.root) == {"a": b"theirs"}


class TestATemporaryFile:
    @pytest.mark.parametrize("patterns", [(), DEFAULT, ("!*~",), ("*~", "!.mdvp*")])
    @pytest.mark.parametrize("is_tree", [False, True])
    def test_is_not_there(self, root: Path, patterns: tuple[str, ...], is_tree: bool) -> None:
        (root / "d").mkdir()
        names = [TEMP, f"d/{TEMP}"] if is_tree else [TEMP]
        for name in names:
            (root / name).write_bytes(b"1")
        with closing(Directory(root, Excluded(patterns), is_tree=is_tree)) as directory:
            for path in map(os.fsencode, names):
                assert directory.read(path, 100) is None
                assert directory.signature(path) is None
                assert not directory.has(path)
                assert dict(directory.read_ordinary([path], 100, seen=False)) == {path: None}
            for place in (b"", b"d/") if is_tree else (b"",):
                assert not any(b"sync" in name for name, _ in directory.names(place))
                assert not any(b"sync" in name for name, *_ in directory.files(place))
            assert not any(b"sync" in name for name, *_ in directory.walk())
            assert not any(b"sync" in name for name, _ in directory.inodes())

    def test_is_of_exactly_that_form(self) -> None:
        assert is_temporary(TEMP.encode())
        assert is_temporary(b"d/e/" + TEMP.encode())
        for name in (TEMP[1:], TEMP[:-1], f"{TEMP}~", f"{TEMP}\n", f"x{TEMP}", f"{TEMP}/a"):
            assert not is_temporary(name.encode()), name
            assert name.encode() not in Excluded() or name.endswith("/a")

    def test_that_a_dead_process_left_is_removed(self, tree: Bench) -> None:
        kept = [".mdvp-sync-notes~", f"x{TEMP}", "a"]
        for name in (TEMP, f"d/{TEMP}", *kept):
            (tree / name).parent.mkdir(exist_ok=True)
            (tree / name).write_bytes(b"1")
        assert tree.writer.take_leftovers(b"") == 1
        assert tree.writer.take_leftovers(b"d/") == 1
        assert tree.writer.take_leftovers(b"none/") == 0
        assert sorted(os.listdir(tree.root)) == sorted([*kept, "d"])
        assert os.listdir(tree / "d") == []
        for name in kept[:2]:
            (tree / name).unlink()


class TestAnEcho:
    """Nothing is told of what the service does; all is that others do, in whichever order."""

    @pytest.fixture(params=["a", "d/a"])
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def bench(self, root: Path, name: str) -> Iterator[Bench]:
        (root / "d").mkdir()
        with bench_of(root, is_tree="/" in name) as bench:
            bench.watch.enter(b"d/")
            bench.told()
            bench.watch.read_places()
            yield bench
            assert bench.watch.read_places() == []
            assert not bench.watch.lost

    def test_is_not_told(self, bench: Bench, name: str) -> None:
        path = name.encode()
        other = path + b"2"
        acts: list[Callable[[], object]] = [
            lambda: bench.put(name, b"1"),
            lambda: bench.put(name, b"2"),
            lambda: bench.writer.rename(path, other, bench.seen(path)),
            lambda: bench.put(name, b"3"),
            lambda: bench.writer.remove(other, bench.seen(other)),
            lambda: bench.writer.remove(path, bench.seen(path)),
        ]
        for act in acts:
            act()
            assert bench.told() == []
        for act in acts[:2]:
            act()
        assert bench.told() == []
        for _ in range(100):
            bench.put(name, b"4")
        assert bench.told() == []

    def test_is_waited_for_by_nobody(
        self, bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.put(name, b"1")
        bench.put(name, b"2")
        bench.writer.remove(name.encode(), bench.seen(name.encode()))
        monkeypatch.setattr(bench.watch, "wait", fail_to_wait)
        assert bench.told() == []

    FOREIGN = ("write", "replace", "unlink", "append", "move away", "move in", "make again")

    @pytest.mark.parametrize("foreign", FOREIGN)
    @pytest.mark.parametrize("is_read", [False, True])
    @pytest.mark.parametrize("act", ["new", "over", "twice"])
    def test_is_not_what_others_do_after_it(  # noqa: PLR0913, PLR0917  # of all kinds
        self, bench: Bench, name: str, tmp_path: Path, foreign: str, is_read: bool, act: str
    ) -> None:
        if act != "new":
            bench.foreign(name)
        bench.put(name)
        if act == "twice":
            bench.put(name, b"ours again")
        if is_read:
            assert bench.told() == []
        change_more(bench / name, foreign, tmp_path)
        assert names_of(bench.told()) >= {name.encode()}

    @pytest.mark.parametrize("foreign", ["make", "move in", "make and move"])
    @pytest.mark.parametrize("is_read", [False, True])
    def test_is_not_what_others_do_after_a_removal(
        self, bench: Bench, name: str, tmp_path: Path, foreign: str, is_read: bool
    ) -> None:
        bench.writer.remove(name.encode(), bench.foreign(name))
        if is_read:
            assert bench.told() == []
        match foreign:
            case "make":
                (bench / name).write_bytes(b"theirs")
            case "move in":
                (tmp_path / "x").write_bytes(b"theirs")
                (tmp_path / "x").rename(bench / name)
            case "make and move":
                (bench / name).write_bytes(b"theirs")
                (bench / name).rename(bench / f"{name}2")
        assert names_of(bench.told()) >= {name.encode()}

    @pytest.mark.parametrize("is_read", [False, True])
    def test_is_not_the_same_rename_by_others(self, bench: Bench, name: str, is_read: bool) -> None:
        old, new = name.encode(), name.encode() + b"2"
        bench.writer.rename(old, new, bench.foreign(name))
        if is_read:
            assert bench.told() == []
        (bench / f"{name}2").rename(bench / name)
        (bench / name).rename(bench / f"{name}2")
        assert bench.told() == [Renamed(new, old), Renamed(old, new)]

    def test_is_not_what_others_move_over_what_was_renamed(
        self, bench: Bench, name: str, tmp_path: Path
    ) -> None:
        bench.writer.rename(name.encode(), f"{name}2".encode(), bench.foreign(name))
        change_more(bench / f"{name}2", "move in", tmp_path)  # the kernel tells both as one
        assert names_of(bench.told()) >= {f"{name}2".encode()}

    def test_is_remembered_until_all_was_read(self, bench: Bench, name: str) -> None:
        inode = bench.put(name).inode
        bench.own.moved(b"b", name.encode(), inode)
        assert bench.own.has_left(name.encode())
        assert bench.told() == []
        assert not bench.own.has_left(name.encode())
        assert not bench.own.has_moved(b"b", name.encode())

    def test_is_not_a_rename_back_by_others(self, bench: Bench, name: str) -> None:
        old, new = name.encode(), name.encode() + b"2"
        bench.writer.rename(old, new, bench.foreign(name))
        (bench / f"{name}2").rename(bench / name)
        assert bench.told() == [Renamed(old, new), Renamed(new, old)]

    def test_is_not_what_others_did_before_it(self, bench: Bench, name: str) -> None:
        with (bench / name).open("wb", 0) as file:
            file.write(b"1")
        bench.put(name)
        assert bench.told() == [
            Created(name.encode(), is_written=True),
            Changed(name.encode()),
        ]

    def test_ends_what_others_did_before_it(self, bench: Bench, name: str) -> None:
        path = name.encode()
        bench.foreign(name)
        os.truncate(bench / name, 1)
        bench.put(name)
        os.truncate(bench / name, 1)
        assert bench.told() == [Unfinished(path), Unfinished(path)]
        (bench / name).unlink()
        bench.told()
        os.mknod(bench / name)
        bench.put(name)
        os.truncate(bench / name, 1)
        assert bench.told() == [Created(path), Unfinished(path)]

    def test_is_not_of_a_name_that_is_like_a_temporary_one(self, bench: Bench, name: str) -> None:
        alike = (bench / name).with_name(".mdvp-sync-notes")
        alike.write_bytes(b"1")
        path = os.fsencode(alike.relative_to(bench.root))
        assert bench.told() == [Created(path, is_written=True), Changed(path)]
        alike.unlink()

    def test_is_not_a_write_to_what_was_put(self, bench: Bench, name: str) -> None:
        with (bench / name).open("wb", 0) as file:
            file.write(b"1")
        assert names_of(bench.told()) == {name.encode()}
        bench.put(name)
        with (bench / name).open("ab", 0) as file:
            file.write(b"1")
            assert bench.told() == [Unfinished(name.encode())]
        assert bench.told() == [Changed(name.encode())]

    def test_is_not_what_others_rename_from_or_to_a_temporary_name(
        self, bench: Bench, name: str
    ) -> None:
        bench.foreign(name)
        aside = (bench / name).with_name(TEMP)
        (bench / name).rename(aside)
        assert bench.told() == [Changed(name.encode())]
        aside.rename(bench / name)
        assert bench.told() == [Changed(name.encode())]

    def test_is_not_what_was_undone(self, bench: Bench, name: str) -> None:
        expected = bench.foreign(name)
        bench.renames.before = lambda: rename_over(bench / name)
        with pytest.raises(NotAsExpectedError):
            bench.writer.put(name.encode(), b"ours", expected)
        assert Changed(name.encode()) in bench.told()

    def test_is_not_that_a_directory_was_made(self, root: Path) -> None:
        with bench_of(root, is_tree=True) as bench:
            bench.put("d/e/a")
            bench.told()
            assert bench.watch.read_places() != []
            bench.watch.enter(b"d/e/")
            bench.foreign("d/e/b")
            (bench / "d/e/b").unlink()
            assert bench.told() == [Changed(b"d/e/b")]

    def test_is_a_directory_of_a_temporary_name(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "d").mkdir()
        with bench_of(root, is_tree=True) as bench:
            bench.watch.enter(b"d/")
            (root / "d").rename(root / TEMP)
            monkeypatch.setattr(bench.watch, "wait", fail_to_wait)
            assert bench.told() == []
            assert [str(each) for each in bench.watch.read_places()] == ["Vanished(place=b'd/')"]
            (root / TEMP).rename(root / "d")
            assert bench.told() == []
            assert [str(each) for each in bench.watch.read_places()] == ["Appeared(place=b'd/')"]

    def test_is_forgotten_when_there_are_too_many(
        self, bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sync.disk.own._NAMES_MAX", 2)
        for number in range(3):
            bench.put(f"{name}{number}")
        assert names_of(bench.told()) == {f"{name}0".encode(), f"{name}1".encode()}


def fail_to_wait(_: float) -> bool:
    raise AssertionError("it waits for a half of a rename")


def names_of(changes: list[Change]) -> set[bytes]:
    found: set[bytes] = set()
    for change in changes:
        match change:
            case Renamed(old, new):
                found |= {old, new}
            case _:
                found.add(change.name)
    return found


def change_more(path: Path, change: str, tmp_path: Path) -> None:
    match change:
        case "move away":
            path.rename(tmp_path / "away")
        case "move in":
            (tmp_path / "x").write_bytes(b"theirs")
            (tmp_path / "x").rename(path)
        case "make again":  # most file systems give it the same inode
            path.unlink()
            path.write_bytes(b"theirs")
        case _:
            change_it(path, change)
