"""Copying what is in a volume: what is kept, what is left out, and what cuts it off."""

import errno
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest
from filesystems import file_system
from integration.mounts import only_root

from mdvp.core.volume import Means
from mdvp.disk import copy as module
from mdvp.disk import walk as walking
from mdvp.disk.copy import Copy, Progress, StoppedError

pytestmark = only_root

BOOT = "this"
KINDS = ["btrfs", "xfs", "ext4"]
NOBODY = (1 << 32) - 1
# An access control list as acl(5) has it: the owner, user 77, the group, the mask, all others.
ENTRIES = [(1, 7, NOBODY), (2, 6, 77), (4, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 1, NOBODY)]
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in ENTRIES)


@pytest.fixture(scope="module", params=KINDS)
def disk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with file_system(request.param, tmp_path_factory.mktemp("disk")) as path:
        yield path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def copy(
    source: Path, target: Path, go_on: Callable[[], bool] = lambda: True, boot: str = BOOT
) -> tuple[Progress, Means]:
    fds = [os.open(path, os.O_RDONLY) for path in (source, target)]
    try:
        with closing(Copy(fds[0], fds[1], boot, go_on)) as it:
            it.count()
            it.run()
            return it.progress, it.means
    finally:
        for fd in fds:
            os.close(fd)


def mark(source: Path, target: Path) -> None:
    """Have a copy look as if it had been cut off just before its end."""
    fd = os.open(source, os.O_RDONLY)
    try:
        os.setxattr(target, module.MARK, module.mark_of(fd, BOOT))
    finally:
        os.close(fd)


def shape(path: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is to be the same in a copy, by path."""
    return {
        str(each.relative_to(path)): (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            each.read_bytes() if stat.S_ISREG(status.st_mode) else None,
            each.readlink() if each.is_symlink() else None,
            sorted(
                (name, os.getxattr(each, name, follow_symlinks=False))
                for name in os.listxattr(each, follow_symlinks=False)
            ),
        )
        for each in [path, *path.rglob("*")]
        for status in [each.lstat()]
    }


def full(path: Path) -> None:
    """Make one of each kind in `path`, with what there is to be kept."""
    (path / "dir" / "below").mkdir(parents=True)
    (path / "dir" / "below" / "file").write_text("content")
    (path / "empty").touch()
    (path / os.fsdecode(b"\xff\n")).write_text("content")
    (path / "large").write_bytes(os.urandom(3 << 20))
    (path / "link").symlink_to("/etc/nowhere")
    os.mkfifo(path / "fifo", 0o620)
    os.chown(path / "link", 7, 8, follow_symlinks=False)
    for name, mode in (("large", 0o4751), ("empty", 0o400), ("dir", 0o2770), ("dir/below", 0o555)):
        os.chown(path / name, 1000, 1001)
        (path / name).chmod(mode)
    os.setxattr(path / "large", "user.note", b"of a file")
    os.setxattr(path / "dir", "user.note", b"of a directory")
    os.setxattr(path / "large", "system.posix_acl_access", ACL)
    os.setxattr(path / "dir", "system.posix_acl_default", ACL)
    (path / "dir" / "heir").write_text("with an inherited list")
    for name in ("large", "link", "fifo", "dir/below/file", "dir/below", "dir", "."):
        os.utime(path / name, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)


def test_all_that_can_be_kept_is_kept(disk: Path) -> None:
    source, target = disk / "whole", disk / "copy"
    for path in (source, target):
        path.mkdir()
    full(source)
    subprocess.run(["sync", "-f", source], check=True)  # or the sizes on disk are yet to come
    progress, means = copy(source, target)
    assert shape(target) == shape(source)
    assert means is (Means.COPY if disk.name == "ext4" else Means.REFLINK)
    assert (progress.files, progress.left_out, progress.changed) == (progress.files_of, {}, 0)
    assert progress.size == progress.size_of
    assert "system.posix_acl_default" in os.listxattr(target / "dir")
    assert os.listxattr(target) == os.listxattr(source)  # the mark is gone
    # A copy that goes on makes what is new as it is, and not as its finished directory would.
    (source / "dir" / "later").touch()
    os.removexattr(source / "dir" / "later", "system.posix_acl_access")
    (source / "dir" / "later").chmod(0o600)
    mark(source, target)
    copy(source, target)
    assert shape(target) == shape(source)


def test_holes_stay_holes(disk: Path) -> None:
    source, target = disk / "holes", disk / "holes-copy"
    for path in (source, target):
        path.mkdir()
    with (source / "file").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"data")
        file.truncate(128 << 20)
    copy(source, target)
    assert (target / "file").stat().st_size == 128 << 20
    assert (target / "file").stat().st_blocks * 512 < 1 << 20
    with (target / "file").open("rb") as file:
        file.seek(64 << 20)
        assert file.read(5) == b"data\0"


def test_names_of_one_file_are_names_of_one_copy(source: Path, target: Path) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "one").write_text("content")
    os.link(source / "dir" / "one", source / "two")
    copy(source, target)
    assert (target / "two").stat().st_ino == (target / "dir" / "one").stat().st_ino
    assert (target / "two").read_text() == "content"
    copy(source, target)
    assert (target / "two").stat().st_nlink == 2


def test_what_is_not_as_the_first_was_is_no_other_name_of_it(source: Path, target: Path) -> None:
    (source / "one").write_text("content")
    (source / "dir" / "below").mkdir(parents=True)
    os.link(source / "one", source / "dir" / "below" / "two")
    changed: list[int] = []

    def change() -> bool:
        if (target / "dir").exists() and not changed:  # the files beside it are copied
            changed.append((source / "one").write_text("another"))
        return True

    copy(source, target, change)
    assert (target / "one").read_text() == "content"
    assert (target / "dir" / "below" / "two").read_text() == "another"


def test_what_cannot_be_copied_is_left_out_and_counted(source: Path, target: Path) -> None:
    (source / "dir").mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(source / "dir" / "socket"))
    os.mknod(source / "d\ne", stat.S_IFCHR, os.makedev(250, 250))
    (source / "mounted").mkdir()
    (source / "file").write_text("content")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "mounted"], check=True)
    try:
        (source / "mounted" / "secret").write_text("the host's")
        progress, _ = copy(source, target)
    finally:
        subprocess.run(["umount", source / "mounted"], check=True)
    assert progress.left_out == {"sockets": 1, "devices": 1, "mount points": 1}
    assert sorted(progress.named) == [r"'d\ne'", "'dir/socket'", "'mounted'"]
    assert sorted(each.name for each in target.rglob("*")) == ["dir", "file"]


def test_no_link_in_the_source_leads_out_of_it(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("the host's")
    (source / "dir").mkdir()
    (source / "file").write_text("content")

    def exchange() -> bool:
        if (source / "file").exists() and os.listdir(target):
            (source / "dir").rmdir()
            (source / "file").unlink()
            (source / "dir").symlink_to(tmp_path / "outside")
        return True

    copy(source, target, exchange)
    assert "secret" not in {each.name for each in target.rglob("*")}
    assert (tmp_path / "outside" / "secret").read_text() == "the host's"


def test_who_exchanges_what_is_copied_leads_nobody_out_of_it(
    source: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("the host's")
    (source / "dir").mkdir()
    (source / "dir" / "file").write_text("content")
    (source / "link").symlink_to(tmp_path / "outside")
    over = Event()

    def exchange() -> None:
        names = [("dir", "spare"), ("link", "dir"), ("dir", "link"), ("spare", "dir")]
        while not over.is_set():
            for name, new_name in names:
                (source / name).rename(source / new_name)

    thread = Thread(target=exchange)
    thread.start()
    try:
        for _ in range(200):
            copy(source, target)
            assert not list(target.rglob("secret"))
    finally:
        over.set()
        thread.join()


def test_a_file_that_changes_while_it_is_copied_is_copied_again(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Copy, "_is_cloned", lambda *_: False)
    (source / "file").write_text("before")
    changes = ["after!"]

    def change(real: Callable[..., int], *args: int) -> int:
        sent = real(*args)
        if changes:
            (source / "file").write_text(changes.pop())
        return sent

    real = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda *args: change(real, *args))
    progress, _ = copy(source, target)
    assert (target / "file").read_text() == "after!"
    assert progress.changed == 0
    changes = [f"{number}" for number in range(20)]
    (target / "file").unlink()
    progress, _ = copy(source, target)
    assert (progress.changed, progress.named) == (1, ["'file'"])


def test_a_change_at_the_very_moment_may_not_show_in_the_times(source: Path) -> None:
    (source / "file").touch()
    status = (source / "file").stat()
    assert module._has_changed(status, status, status.st_ctime_ns + 5_000_000)
    assert not module._has_changed(status, status, status.st_ctime_ns + 50_000_000)
    assert not module._has_changed(status, status, status.st_ctime_ns - 50_000_000)  # a set clock


def test_not_all_is_left_to_be_written_to_the_disk_by_who_syncs_something_else(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Copy, "_is_cloned", lambda *_: False)
    monkeypatch.setattr(module, "_TICK", -1)  # it was written just now, and is not copied again
    monkeypatch.setattr(module, "_FLUSH", 3 << 20)
    monkeypatch.setattr(module, "_PIECE", 1 << 20)
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    (source / "large").write_bytes(bytes(7 << 20))
    copy(source, target)
    assert sizes == [3 << 20, 6 << 20]


class Interrupted:
    """Says no after so many questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


def many(path: Path) -> None:
    for number in range(6):
        (path / f"d{number}").mkdir()
        for name in ("one", "two"):
            (path / f"d{number}" / name).write_text(f"content {number} {name}")
            os.utime(path / f"d{number}" / name, (number, number))


def test_a_copy_goes_on_where_it_was_cut_off(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(source)
    made: list[str] = []
    real = Copy._copy_file

    def note(self: Copy, visit: walking.Visit) -> None:
        made.append(self._path(visit.name))
        real(self, visit)

    monkeypatch.setattr(Copy, "_copy_file", note)
    cuts = 0
    for after in range(26, 60, 3):  # of which the first are for the count
        try:
            copy(source, target, Interrupted(after))
        except StoppedError:
            cuts += 1
    copy(source, target)
    assert shape(target) == shape(source)
    assert cuts > 3
    assert len(made) <= 12 + cuts  # none twice, but one that was cut off


def test_after_the_machine_has_stopped_nothing_is_taken_for_whole(
    source: Path, target: Path
) -> None:
    many(source)
    with pytest.raises(StoppedError):
        copy(source, target, Interrupted(45))
    spoilt = next(each for each in target.rglob("*") if each.is_file())
    status = spoilt.stat()
    spoilt.write_bytes(b"\0" * status.st_size)  # as if its data had not been on disk
    os.utime(spoilt, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy(source, target, boot="another")
    assert shape(target) == shape(source)


def test_what_looks_as_in_another_source_is_not_taken_for_whole(
    source: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    for path, content in ((source, "content"), (tmp_path / "other", "another")):
        (path / "file").write_text(content)
        os.utime(path / "file", (1, 1))
    copy(source, target)
    mark(source, target)
    copy(tmp_path / "other", target)
    assert (target / "file").read_text() == "another"


def test_what_its_source_has_lost_or_made_another_kind_meanwhile_is_so_in_the_copy(
    source: Path, target: Path
) -> None:
    many(source)
    for after in range(26, 80):
        try:
            copy(source, target, Interrupted(after))
        except StoppedError:
            continue
        break
    mark(source, target)
    for name in ("one", "two"):
        (source / "d0" / name).unlink()
    (source / "d0" / "one").mkdir()
    for each in (source / "d1").iterdir():
        each.unlink()
    (source / "d1").rmdir()
    (source / "d1").write_text("a file")
    for name in ("one", "two"):
        (source / "d3" / name).unlink()
    (source / "d3").rmdir()
    (source / "d2" / "one").write_text("longer than before")
    copy(source, target)
    assert shape(target) == shape(source)


def test_a_full_disk_ends_it_and_names_what_did_not_fit(source: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", tmp_path / "small"], check=True
    )
    (source / "dir").mkdir()
    (source / "dir" / "large").write_bytes(b"x" * (4 << 20))
    try:
        with pytest.raises(OSError, match=r"No space left on device: 'dir/large'") as caught:
            copy(source, tmp_path / "small")
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)
    assert caught.value.errno == errno.ENOSPC


def test_a_file_that_somebody_has_a_lease_on_is_copied(source: Path, target: Path) -> None:
    (source / "file").write_text("content")
    script = (
        "import fcntl, os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print(flush=True)\n"
        "signal.sigwait({signal.SIGIO})\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n"
        "signal.pause()\n"
    )
    command = ["python3", "-c", script, str(source / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        copy(source, target)
        holder.kill()
    assert (target / "file").read_text() == "content"
