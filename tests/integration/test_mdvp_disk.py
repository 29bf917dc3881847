"""The driver on a real disk and a real database: what is in the way, and what a crash leaves."""

import errno
import json
import os
import signal
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, repeat
from pathlib import Path
from threading import Event, current_thread, main_thread
from unittest.mock import patch

import pytest

from mdvp.core import options
from mdvp.core.errors import ConflictError, NoSuchVolumeError, StorageError
from mdvp.core.lease import Engine, Holder
from mdvp.core.options import Options, written
from mdvp.core.volume import NO_DIRECTORY, Access, Identity, Means, Volume
from mdvp.disk.record import ATTRIBUTE
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.driver import Driver
from mdvp.host import clock
from mdvp.host.kernel import Kernel
from mdvp.overview import Overview


def no_end() -> None:
    raise AssertionError


@contextmanager
def driver_on(
    path: Path,
    root_class: type[Root] = Root,
    store_class: type[Store] = Store,
    *,
    lock_directories: bool = True,
) -> Iterator[Driver]:
    with (
        closing(root_class(path, lock_directories=lock_directories)) as root,
        closing(store_class(root.database, root.volumes)) as store,
        closing(Driver(root, store, Kernel(root.descriptor), GRACE, end=no_end)) as driver,
    ):
        yield driver


def in_the_way(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("somebody's")
        case "directory":
            path.mkdir()
        case "link to a directory":
            target = path.with_name("target")
            target.mkdir()
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to("nowhere")


GRACE = 60.0
_NO_OPTIONS = Options()
KINDS = ["file", "directory", "link to a directory", "dangling link"]


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """Return a directory on the repository's file system, as /tmp may be in memory."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as path:
        yield Path(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_a_volumes_place_already_is_left_alone(tmp_path: Path, kind: str) -> None:
    in_the_way(tmp_path / "vol", kind)
    before = os.lstat(tmp_path / "vol")
    with driver_on(tmp_path) as driver:
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("vol")
        assert driver.list() == []
    assert os.lstat(tmp_path / "vol") == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_taken_a_volumes_place_is_not_mounted_and_not_removed(
    tmp_path: Path, kind: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol").rename(tmp_path / "elsewhere")
        in_the_way(tmp_path / "vol", kind)
        before = os.lstat(tmp_path / "vol")
        with pytest.raises(ConflictError, match="is not the directory that mdvp made"):
            driver.mount("vol", "id")
        assert driver.get("vol").claims.free
        driver.remove("vol")
        assert driver.list() == []
    assert os.lstat(tmp_path / "vol") == before


def gets_the_inode(path: Path, of: int, tries: int = 100) -> None:
    """Make a directory at `path` with the inode of one just deleted; file systems re-use them."""
    for _ in range(tries):
        path.mkdir()
        if path.stat().st_ino == of:
            return
        path.rmdir()
    pytest.skip("this file system does not use an inode again")


def test_a_directory_with_the_inode_of_a_vanished_one_is_told_from_it(on_disk: Path) -> None:
    # An open directory keeps its inode, so no other can have it.
    with driver_on(on_disk, lock_directories=False) as driver:
        driver.create("vol")
        inode = (on_disk / "vol").stat().st_ino
        (on_disk / "vol").rmdir()
        gets_the_inode(on_disk / "vol", inode)
        (on_disk / "vol" / "file").write_text("somebody's")
        with pytest.raises(ConflictError, match="is not the directory that mdvp made"):
            driver.mount("vol", "id")
        driver.remove("vol")
    assert (on_disk / "vol" / "file").read_text() == "somebody's"


def test_vanished_directories_are_in_no_other_volumes_way(on_disk: Path) -> None:
    with driver_on(on_disk, lock_directories=False) as driver:
        for name in ("one", "two"):
            driver.create(name)
            (on_disk / name).rmdir()
        driver.create("three")
        for name in ("one", "two", "three"):
            driver.mount(name, f"id-{name}")
            assert (on_disk / name).is_dir()


def test_a_directory_that_has_vanished_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o1777)  # where whose directory it is matters
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol").rmdir()
        assert driver.mount("vol", "id") == str(tmp_path / "vol")
        assert (tmp_path / "vol").is_dir()
        driver.unmount("vol", "id")
        driver.mount("vol", "id")  # its new directory is known by now
    assert "had vanished" in caplog.text
    assert "is not its directory" not in caplog.text


class Overtaken(Root):
    """A root in which somebody takes a volume's place between the look at it and the rename."""

    def make(self, name: str, options: Options) -> tuple[Aside, Identity]:
        made = super().make(name, options)
        (self.path / name).write_text("somebody's")
        return made


def test_a_place_taken_at_the_last_moment_leaves_no_volume_and_nothing_aside(
    tmp_path: Path,
) -> None:
    with driver_on(tmp_path, Overtaken) as driver:
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("vol")
        assert driver.list() == []
        assert_nothing_is_left_aside(tmp_path)
    assert (tmp_path / "vol").read_text() == "somebody's"


def test_a_vanished_place_taken_at_the_last_moment_is_refused_and_can_be_mended(
    tmp_path: Path,
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
    (tmp_path / "vol").rmdir()
    with driver_on(tmp_path, Overtaken) as driver:
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.mount("vol", "id")
        assert driver.get("vol").claims.free
        assert_nothing_is_left_aside(tmp_path)
    (tmp_path / "vol").unlink()
    with driver_on(tmp_path) as driver:
        driver.mount("vol", "id")


class OvertakenLater(Root):
    """A root in which somebody makes a directory in a volume's place right before the rename."""

    def place(self, aside: Aside, name: str) -> None:
        (self.path / name).mkdir()
        super().place(aside, name)


def test_not_even_an_empty_directory_of_somebody_is_replaced(tmp_path: Path) -> None:
    with driver_on(tmp_path, OvertakenLater) as driver:
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("vol")
        assert driver.list() == []
        theirs = (tmp_path / "vol").stat()
        assert_nothing_is_left_aside(tmp_path)
    with driver_on(tmp_path):
        assert (tmp_path / "vol").stat() == theirs


class Exchanged(Root):
    """A root in which the owner of a volume's directory exchanges it right before the rename."""

    kind = ""

    def set_aside(self, name: str, sought: Identity, *, to_stay: bool = False) -> Aside | None:
        (self.path / name).rename(self.path / "elsewhere")
        in_the_way(self.path / name, self.kind)
        return super().set_aside(name, sought, to_stay=to_stay)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_volumes_directory_is_ever_moved_into_the_trash(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchanged = type("ExchangedFor", (Exchanged,), {"kind": kind})
    with driver_on(tmp_path, exchanged) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
        driver.remove("vol")
        assert driver.list() == []
        there = os.lstat(tmp_path / "vol")
    with driver_on(tmp_path):
        assert os.lstat(tmp_path / "vol").st_ino == there.st_ino
        assert_nothing_is_left_aside(tmp_path)
    assert (tmp_path / "elsewhere" / "file").read_text() == "content"
    assert "is no longer at" in caplog.text
    assert "and what is there now stays" in caplog.text


def test_what_was_exchanged_again_and_again_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Restless(Exchanged):
        kind = "directory"

        def place(self, aside: Aside, name: str) -> None:
            in_the_way(self.path / name, "file")
            super().place(aside, name)

    with driver_on(tmp_path) as driver:
        driver.create("vol")
    inode = (tmp_path / "vol").stat().st_ino
    with driver_on(tmp_path, Restless) as driver:
        driver.remove("vol")
    trash = tmp_path / ".mdvp" / "trash"
    with driver_on(tmp_path):
        pass
    (kept,) = trash.iterdir()
    assert f"it is kept as {kept}, for you to look at" in caplog.text
    assert kept.is_dir()
    # Nor is it in the way of the next with that inode, as a crash right here would have left it.
    kept.rename(trash / str(inode))
    with driver_on(tmp_path) as driver:
        driver.create("another")
    assert [path.name.partition("-")[0] for path in trash.iterdir()] == ["kept"]


def test_what_a_crash_has_left_in_the_way_of_a_removal_is_kept(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        trash = tmp_path / ".mdvp" / "trash"
        (trash / str((tmp_path / "vol").stat().st_ino)).mkdir()
        driver.remove("vol")
        assert driver.list() == []
    assert [path.name.partition("-")[0] for path in trash.iterdir()] == ["kept"]


def litter(folder: Path) -> None:
    for kind in KINDS:
        in_the_way(folder / kind, kind)
    os.mkfifo(folder / "fifo")
    (folder / "full" / "sub").mkdir(parents=True)
    (folder / "12").mkdir()  # as a removed volume is called, but for the number
    (folder / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "mounted"], check=True)


def test_whatever_is_aside_is_in_the_way_of_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        driver.create("crashed")
    folders = [tmp_path / ".mdvp" / name for name in ("new", "trash")]
    inode = (tmp_path / "crashed").stat().st_ino
    (tmp_path / "crashed").rename(folders[1] / str(inode))
    try:
        for folder in folders:
            litter(folder)
        with driver_on(tmp_path) as driver:
            assert (tmp_path / "crashed").is_dir()
            driver.mount("vol", "id")
        new, trash = (sorted(os.listdir(folder)) for folder in folders)
        assert new == ["mounted"]
        assert trash[0].startswith("kept-")
        assert trash[1:] == ["mounted"]
        assert caplog.text.count("cannot delete all") == 2  # each of them, once
    finally:
        for folder in folders:
            subprocess.run(["umount", folder / "mounted"], check=True)
    with driver_on(tmp_path):
        pass
    assert [os.listdir(folder) for folder in folders] == [[], trash[:1]]


def test_a_volume_that_cannot_go_back_to_its_place_waits_for_it(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
    inode = (tmp_path / "vol").stat().st_ino
    (tmp_path / "vol").rename(tmp_path / ".mdvp" / "trash" / str(inode))
    (tmp_path / "vol").mkdir()
    with driver_on(tmp_path) as driver:
        with pytest.raises(ConflictError, match="is not the directory"):
            driver.mount("vol", "id")
        (tmp_path / "vol").rmdir()
        driver.mount("vol", "id")
        driver.create("other")
        driver.remove("other")
    assert (tmp_path / "vol" / "file").read_text() == "content"


def test_a_volume_that_could_not_be_put_back_has_not_vanished(tmp_path: Path) -> None:
    class Failing(Root):
        def left(self, sought: Identity) -> Aside | None:
            raise OSError(errno.EMFILE, f"no descriptor for {sought.inode}")

    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
    inode = (tmp_path / "vol").stat().st_ino
    (tmp_path / "vol").rename(tmp_path / ".mdvp" / "trash" / str(inode))
    with driver_on(tmp_path, Failing) as driver:
        for operation in (lambda: driver.mount("vol", "id"), lambda: driver.remove("vol")):
            with pytest.raises(OSError, match="no descriptor"):
                operation()
    with driver_on(tmp_path) as driver:
        driver.mount("vol", "id")
    assert (tmp_path / "vol" / "file").read_text() == "content"


def test_a_volume_that_was_moved_into_another_is_not_deleted_with_it(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        for name in ("one", "two"):
            driver.create(name, Options(uid=1000))
        (tmp_path / "two" / "file").write_text("precious")
        before = (tmp_path / "two").stat()
        (tmp_path / "one" / "sub").mkdir()
        (tmp_path / "two").rename(tmp_path / "one" / "sub" / "moved")
        driver.remove("one")
    trash = tmp_path / ".mdvp" / "trash"
    assert [path.name for path in trash.iterdir()] == [str(before.st_ino)]
    with driver_on(tmp_path) as driver:
        driver.mount("two", "id")
    assert (tmp_path / "two" / "file").read_text() == "precious"
    assert (tmp_path / "two").stat().st_uid == 1000
    assert_nothing_is_left_aside(tmp_path)


def test_a_directory_that_could_not_be_recorded_keeps_its_owner(tmp_path: Path) -> None:
    class Full(Store):
        def add(self, volume: Volume, due: Options = _NO_OPTIONS) -> None:
            assert due.uid == 1000
            raise sqlite3.OperationalError(f"no room for {volume.name}")

    (tmp_path / "there").mkdir()
    with driver_on(tmp_path, store_class=Full) as driver:
        with pytest.raises(sqlite3.OperationalError, match="no room for there"):
            driver.create("there", Options(adopt=True, uid=1000))
        assert driver.list() == []
    assert (tmp_path / "there").stat().st_uid == os.geteuid()
    with driver_on(tmp_path) as driver:
        driver.create("there", Options(adopt=True, uid=1000))
    assert (tmp_path / "there").stat().st_uid == 1000


def test_a_vanished_volume_is_removed_from_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], check=True)
    try:
        tmp_path.chmod(0o755)
        with driver_on(tmp_path, lock_directories=False) as driver:
            driver.create("vol")
            driver.create("full")
            (tmp_path / "vol").rmdir()
            with (tmp_path / "full" / "file").open("wb", buffering=0) as file:
                for size in (1 << 16, 1):
                    with pytest.raises(OSError, match="No space left"):
                        file.writelines(repeat(b"x" * size))
            driver.remove("vol")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_volume_whose_directory_has_vanished_can_be_removed(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol").rmdir()
        driver.remove("vol")
        assert driver.list() == []


def test_a_volume_that_somebody_has_made_a_mount_point_is_not_removed(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
        subprocess.run(["mount", "--bind", tmp_path / "vol", tmp_path / "vol"], check=True)
        try:
            for operation in (driver.remove, lambda name: driver.mount(name, "id")):
                with pytest.raises(ConflictError, match="is a mount point on the host: unmount"):
                    operation("vol")
            assert (tmp_path / "vol" / "file").read_text() == "content"
        finally:
            subprocess.run(["umount", tmp_path / "vol"], check=True)
        driver.remove("vol")


def test_remove_does_not_wait_for_the_files_to_be_deleted(tmp_path: Path) -> None:
    with driver_on(tmp_path, Sluggish) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
        driver.remove("vol")
        assert not (tmp_path / "vol").exists()
        assert driver.list() == []
        driver.create("vol")
        assert len(os.listdir(tmp_path / ".mdvp" / "trash")) == 1
        Sluggish.may_delete.set()
    assert_nothing_is_left_aside(tmp_path)


class Sluggish(Root):
    """A root in which deleting takes until it may."""

    may_delete = Event()

    def delete(
        self,
        aside: Aside,
        go_on: Callable[[], bool] = lambda: True,
        spared: Callable[[Identity], bool] = lambda _: False,
    ) -> bool:
        assert self.may_delete.wait(60)
        return super().delete(aside, go_on, spared)


def test_a_root_in_which_everyone_can_rename_everything_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StorageError, match=r"`chmod \+t` or `chmod o-w` it"):
        Root(tmp_path)
    tmp_path.chmod(0o1777)
    Root(tmp_path).close()


def test_a_state_folder_that_has_been_opened_to_others_is_refused(tmp_path: Path) -> None:
    Root(tmp_path).close()
    (tmp_path / ".mdvp").chmod(0o755)
    with pytest.raises(StorageError, match="open to other users"):
        Root(tmp_path)


def test_what_root_has_made_and_a_user_has_moved_there_is_not_the_state(tmp_path: Path) -> None:
    (tmp_path / ".mdvp").touch()
    with driver_on(tmp_path) as driver:
        driver.create("vol")
    (ours,) = tmp_path.glob(".mdvp-*")
    for name, mode in ((".mdvp-0", 0o777), (".mdvp-1", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    with driver_on(tmp_path) as driver:
        assert [volume.name for volume, _ in driver.list()] == ["vol"]
    assert (ours / "key").exists()
    assert not (tmp_path / ".mdvp-1" / "key").exists()


@pytest.mark.parametrize("kind", ["file", "link to a directory", "dangling link", "somebody's"])
def test_what_a_user_has_made_where_the_state_would_be_is_in_the_way_of_no_start(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "somebody's":
        (tmp_path / ".mdvp").mkdir(mode=0o700)
        os.chown(tmp_path / ".mdvp", 12345, 12345)
    else:
        in_the_way(tmp_path / ".mdvp", kind)
    before = os.lstat(tmp_path / ".mdvp")
    with driver_on(tmp_path) as driver:
        driver.create("vol")
    assert os.lstat(tmp_path / ".mdvp") == before
    (folder,) = tmp_path.glob(".mdvp-*")
    assert f"keeps its state in {folder.name}" in caplog.text
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # It is found again, whether or not that is still there.
    for _ in range(2):
        with driver_on(tmp_path) as driver:
            assert [volume.name for volume, _ in driver.list()] == ["vol"]
        if kind == "file":
            (tmp_path / ".mdvp").unlink(missing_ok=True)


def test_a_root_in_which_a_group_can_rename_everything_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o1775)
    Root(tmp_path).close()
    assert "can put other things" not in caplog.text
    os.chown(tmp_path, -1, 1000)
    tmp_path.chmod(0o775)
    Root(tmp_path).close()
    assert f"{tmp_path} is writable for group 1000, who can put other things" in caplog.text


def test_a_database_that_lost_its_end_gets_the_volume_that_came_after_one_it_has(
    tmp_path: Path,
) -> None:
    database = tmp_path / ".mdvp" / "state.db"
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        driver.mount("vol", "id of a container that is gone")
    earlier = database.read_bytes()
    with driver_on(tmp_path) as driver:
        driver.unmount("vol", "id of a container that is gone")
        driver.remove("vol")
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("precious")
    database.write_bytes(earlier)
    database.with_name("state.db-wal").touch()  # as there is one where it was not closed
    with driver_on(tmp_path) as driver:
        assert driver.get("vol").claims.free
        driver.mount("vol", "id")
    assert (tmp_path / "vol" / "file").read_text() == "precious"


def test_a_database_of_a_later_version_is_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="schema 99, this mdvp knows 5"):
        Store(tmp_path / "db")


# A crash at each step. The steps of the disk and of the database are the methods below; the process
# ends by SIGKILL right before or right after one of them, and the next process finds what is left.

STEPS = {
    "create": ["make", "label", "add", "place"],
    "create_in_vain": ["delete_record", "delete"],
    "adopt": ["void_records", "add", "settle"],
    "remove": ["set_aside", "delete_record", "delete"],
    "rename": ["set_aside", "rename", "label", "place", "rename_kept"],
    # What is done is undone: for the second step of that name in the list it has to be done.
    "rename_in_vain": ["rename", "label", "place"],
    "change": ["change", "give", "settle", "relabel"],
    "mount": ["put_leases"],
    "mount_of_a_vanished_one": ["make", "label", "replace", "place"],
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(base: type, method: str, moment: str, survived: int = 0) -> type:
    """Return a subclass of `base` that dies right before or right after `method`.

    So many calls of it are survived before.
    """
    calls = count()

    def deadly(self: object, *arguments: object, **named: object) -> object:
        is_last = next(calls) == survived
        if is_last and moment == "before":
            die()
        result = getattr(super(subclass, self), method)(*arguments, **named)
        if is_last:
            die()
        return result

    subclass = type(f"Dying{base.__name__}", (base,), {method: deadly})
    return subclass


def crash(  # noqa: PLR0913  # all that can be said of a crash
    path: Path,
    step: str,
    moment: str,
    operation: Callable[[Driver], object],
    root_class: type[Root] = Root,
    *,
    survived: int = 0,
) -> None:
    """Do `operation` in a process that dies at `step`, the first time or after so many."""
    method = step.removesuffix("_record")
    # `Store` and `Root` both have a `delete`.
    of_store = hasattr(Store, method) and (method != "delete" or step == "delete_record")
    root = root_class if of_store else dying(root_class, method, moment, survived)
    store = dying(Store, method, moment, survived) if of_store else Store
    child = os.fork()
    if child == 0:
        try:
            with driver_on(path, root, store) as driver:
                operation(driver)
        finally:
            os._exit(0)  # not reached: the step is part of the operation
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{step} is no step of this operation"


def crashes(operation: str) -> pytest.MarkDecorator:
    points = [(step, moment) for step in STEPS[operation] for moment in ("before", "after")]
    return pytest.mark.parametrize(("step", "moment"), points)


def assert_nothing_is_left_aside(path: Path) -> None:
    assert not any((path / ".mdvp" / "new").iterdir())
    assert not any((path / ".mdvp" / "trash").iterdir())


@crashes("create")
def test_a_crash_in_create_leaves_all_of_the_volume_or_nothing(
    tmp_path: Path, step: str, moment: str
) -> None:
    crash(tmp_path, step, moment, lambda driver: driver.create("vol"))
    with driver_on(tmp_path) as driver:
        listed = [volume.name for volume, _ in driver.list()]
        assert listed == (["vol"] if (tmp_path / "vol").exists() else [])
        driver.create("vol")
        driver.mount("vol", "id")
        assert (tmp_path / "vol").is_dir()
    assert_nothing_is_left_aside(tmp_path)


@crashes("create_in_vain")
def test_a_crash_while_a_create_is_taken_back_leaves_nothing_of_it(
    tmp_path: Path, step: str, moment: str
) -> None:
    crash(tmp_path, step, moment, lambda driver: driver.create("vol"), Overtaken)
    (tmp_path / "vol").unlink()
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        driver.mount("vol", "id")
        driver.unmount("vol", "id")
        driver.remove("vol")
    assert_nothing_is_left_aside(tmp_path)


@crashes("adopt")
def test_a_crash_in_adopt_leaves_a_volume_with_its_owner_or_a_directory_as_it_was(
    tmp_path: Path, step: str, moment: str
) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol" / "file").write_text("content")
    crash(tmp_path, step, moment, lambda driver: driver.create("vol", Options(adopt=True, uid=12)))
    with driver_on(tmp_path) as driver:
        owner = 12 if driver.list() else os.geteuid()
        assert (tmp_path / "vol").stat().st_uid == owner
        driver.create("vol", Options(adopt=True, uid=12))
        assert (tmp_path / "vol").stat().st_uid == 12
    assert (tmp_path / "vol" / "file").read_text() == "content"


@crashes("remove")
def test_a_crash_in_remove_leaves_all_of_the_volume_or_nothing(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
    crash(tmp_path, step, moment, lambda driver: driver.remove("vol"))
    with driver_on(tmp_path) as driver:
        if driver.list():
            assert (tmp_path / "vol" / "file").read_text() == "content"
            driver.mount("vol", "id")
        else:
            assert not (tmp_path / "vol").exists()
            driver.create("vol")
    assert_nothing_is_left_aside(tmp_path)


def assert_has_one_name(path: Path, driver: Driver) -> str:
    """Return by which of two names there is a volume: by one, with its content and usable."""
    ((volume, _),) = driver.list()
    (other,) = {"old", "new"} - {volume.name}
    assert (path / volume.name / "file").read_text() == "content"
    assert not (path / other).exists()
    assert ATTRIBUTE in os.listxattr(path / volume.name)
    assert f'"{volume.name}"' in os.getxattr(path / volume.name, ATTRIBUTE).decode()
    driver.mount(volume.name, "id")
    driver.unmount(volume.name, "id")
    with pytest.raises(NoSuchVolumeError):
        driver.get(other)
    return volume.name


@crashes("rename")
def test_a_crash_in_rename_leaves_the_volume_by_one_name(
    on_disk: Path, step: str, moment: str
) -> None:
    with driver_on(on_disk) as driver:
        driver.create("old", Options(gid=5, protect=True))
        (on_disk / "old" / "file").write_text("content")
        driver.mount("old", "id of a container that is gone")
        driver.unmount("old", "id of a container that is gone")
    crash(on_disk, step, moment, lambda driver: driver.rename("old", "new"))
    with driver_on(on_disk) as driver:
        name = assert_has_one_name(on_disk, driver)
        driver.rename(name, "another")
        assert written(driver.get("another").volume) == {
            "access": "exclusive",
            "gid": "5",
            "protect": "true",
        }
        driver.create("old")
        driver.create("new")
    assert_nothing_is_left_aside(on_disk)


@crashes("rename")
def test_a_crash_in_rename_that_takes_the_database_with_it_leaves_the_volume(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("old", Options(uid=1000, protect=True))
        (tmp_path / "old" / "file").write_text("content")
    crash(tmp_path, step, moment, lambda driver: driver.rename("old", "new"))
    for file in (tmp_path / ".mdvp").glob("state.db*"):
        file.unlink()
    with driver_on(tmp_path) as driver:
        name = assert_has_one_name(tmp_path, driver)
        assert driver.get(name).volume.protect
    assert_nothing_is_left_aside(tmp_path)


def test_who_shows_a_renamed_volume_or_is_yet_to_get_its_content_follows(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    others = {
        "reader": Volume("reader", now, NO_DIRECTORY, Access.SHARED, reader_of="old"),
        "filling": Volume("filling", now, Identity(1, 1), origin="old"),
        "copy": Volume("copy", now, Identity(2, 2), origin="old", means=Means.COPY),
    }
    with closing(Root(tmp_path)) as root, closing(Store(root.database)) as store:
        for volume in (Volume("old", now, Identity(3, 3)), *others.values()):
            store.add(volume)
        store.rename("old", "new")
        assert store.volumes() == [
            others["copy"],
            replace(others["filling"], origin="new"),
            Volume("new", now, Identity(3, 3)),
            replace(others["reader"], reader_of="new"),
        ]


class OvertakenOnce(Root):
    """A root in which somebody takes the place of `new` when a volume is to come there."""

    def place(self, aside: Aside, name: str) -> None:
        if name == "new":
            (self.path / "new").mkdir()
        super().place(aside, name)


@crashes("rename_in_vain")
def test_a_crash_while_a_rename_is_taken_back_leaves_the_volume_by_its_name(
    on_disk: Path, step: str, moment: str
) -> None:
    with driver_on(on_disk) as driver:
        driver.create("old")
        (on_disk / "old" / "file").write_text("content")
    crash(on_disk, step, moment, lambda it: it.rename("old", "new"), OvertakenOnce, survived=1)
    (on_disk / "new").rmdir()
    with driver_on(on_disk) as driver:
        name = assert_has_one_name_at_last(on_disk, driver)
        assert name == ("new" if (step, moment) == ("rename", "before") else "old")
    assert_nothing_is_left_aside(on_disk)


def assert_has_one_name_at_last(path: Path, driver: Driver) -> str:
    """Do that, after whatever was aside has come to its place: when it is wanted."""
    ((volume, _),) = driver.list()
    driver.mount(volume.name, "id")
    driver.unmount(volume.name, "id")
    return assert_has_one_name(path, driver)


def test_a_rename_to_a_place_taken_at_the_last_moment_changes_nothing(on_disk: Path) -> None:
    with driver_on(on_disk, OvertakenOnce) as driver:
        driver.create("old")
        (on_disk / "old" / "file").write_text("content")
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.rename("old", "new")
        (on_disk / "new").rmdir()
        assert assert_has_one_name(on_disk, driver) == "old"
    assert_nothing_is_left_aside(on_disk)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exchanged_at_the_last_moment_gets_no_volumes_name(
    tmp_path: Path, kind: str
) -> None:
    exchanged = type("ExchangedFor", (Exchanged,), {"kind": kind})
    with driver_on(tmp_path, exchanged) as driver:
        driver.create("old")
        (tmp_path / "old" / "file").write_text("content")
        with pytest.raises(ConflictError, match="has just been moved away"):
            driver.rename("old", "new")
        assert not os.path.lexists(tmp_path / "new")
        assert [volume.name for volume, _ in driver.list()] == ["old"]
        assert_nothing_is_left_aside(tmp_path)
    assert os.path.lexists(tmp_path / "old")
    assert (tmp_path / "elsewhere" / "file").read_text() == "content"


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@crashes("change")
def test_a_crash_in_change_leaves_a_volume_that_is_changed_or_is_not(
    on_disk: Path, step: str, moment: str
) -> None:
    before = {"uid": "1000", "gid": "1000", "mode": "0750"}
    with driver_on(on_disk) as driver:
        driver.create("vol", options.read(before))
    after = {"uid": "1001", "gid": "", "mode": "2770", "access": "shared", "protect": "true"}
    crash(on_disk, step, moment, lambda driver: driver.change("vol", options.changes(after)))
    with driver_on(on_disk) as driver:
        shown = written(driver.get("vol").volume)
        if (step, moment) == ("change", "before"):
            assert shown == {"access": "exclusive", **before}
            assert owner_and_mode(on_disk / "vol") == (1000, 1000, 0o750)
        else:
            assert shown == {name: text for name, text in after.items() if text}
            assert owner_and_mode(on_disk / "vol") == (1001, os.getegid(), 0o2770)
        assert json.dumps(shown) in os.getxattr(on_disk / "vol", ATTRIBUTE).decode()
    # What is done is not done again: a container may have changed it since.
    os.chown(on_disk / "vol", 7, 7)
    with driver_on(on_disk) as driver:
        driver.mount("vol", "id")
        assert owner_and_mode(on_disk / "vol")[:2] == (7, 7)


def test_what_a_change_has_left_due_is_given_before_anybody_gets_the_volume(
    on_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with driver_on(on_disk) as driver:
        driver.create("vol")
    crash(on_disk, "change", "after", lambda it: it.change("vol", options.changes({"uid": "9"})))
    (on_disk / "vol").rename(on_disk / "moved")
    with driver_on(on_disk) as driver:
        assert "volume vol was changed, and its directory is not as it is to be yet" in caplog.text
        (on_disk / "moved").rename(on_disk / "vol")
        assert (on_disk / "vol").stat().st_uid == 0
        driver.mount("vol", "id")
        assert (on_disk / "vol").stat().st_uid == 9


@crashes("mount")
def test_a_crash_in_mount_leaves_a_lease_or_none(tmp_path: Path, step: str, moment: str) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
    crash(tmp_path, step, moment, lambda driver: driver.mount("vol", "id"))
    with driver_on(tmp_path) as driver:
        held = [lease.mount_id for lease in driver.get("vol").claims.living]
        assert held == (["id"] if moment == "after" else [])


@crashes("mount_of_a_vanished_one")
def test_a_crash_while_a_directory_is_made_again_leaves_a_volume_that_mounts(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol")
    (tmp_path / "vol").rmdir()
    crash(tmp_path, step, moment, lambda driver: driver.mount("vol", "id"))
    with driver_on(tmp_path) as driver:
        driver.mount("vol", "id")
        assert (tmp_path / "vol").is_dir()
    assert_nothing_is_left_aside(tmp_path)


class Glance:
    """A look at the host that shows these."""

    def __init__(self, holders: list[Holder]) -> None:
        self._holders = holders

    def holders(self, *_: object, readers: bool = False) -> list[Holder]:  # noqa: ARG002
        return self._holders

    def shown_in(self, _folder: bytes) -> set[bytes]:
        return set()

    def has_of_host(self, _holder: Holder) -> bool:
        return False

    def begun(self, _since: float) -> list[Holder]:
        return []

    def lives(self, _engine: Engine) -> bool:
        return True

    def at_work(
        self,
        _engine: Engine,
        _paths: Collection[bytes],
        *,
        readers: bool = False,  # noqa: ARG002
    ) -> bool:
        return False


class Forgetful(Kernel):
    """A view of the kernel that remembers a time when nobody had the volume."""

    def __init__(self, root: int) -> None:
        super().__init__(root)
        self.afresh = 0

    def look(self, *, fresh: bool = False) -> Glance:  # type: ignore[override]  # one is enough
        self.afresh += fresh
        container = Holder("c" * 64, "c" * 64, 1, "sh", datetime.now(UTC), 0.0)
        return Glance([container] if fresh else [])


def test_nobody_gets_their_turn_on_what_was_seen_before(tmp_path: Path) -> None:
    with (
        closing(Root(tmp_path)) as root,
        closing(Store(root.database)) as store,
        closing(Driver(root, store, Forgetful(root.descriptor), grace=0, end=no_end)) as driver,
    ):
        driver.create("vol", Options(wait=1))
        driver.mount("vol", "one")
        with pytest.raises(ConflictError, match=r"container cccccccccccc has had it .* has waited"):
            driver.mount("vol", "two")


def test_no_volume_is_taken_from_anybody_on_what_was_seen_before(tmp_path: Path) -> None:
    with (
        closing(Root(tmp_path)) as root,
        closing(Store(root.database)) as store,
        closing(
            Driver(root, store, kernel := Forgetful(root.descriptor), grace=0, end=no_end)
        ) as driver,
    ):
        driver.create("vol")
        driver.mount("vol", "one")
        assert kernel.afresh == 0
        for operation in (lambda: driver.mount("vol", "two"), lambda: driver.remove("vol")):
            with pytest.raises(ConflictError, match="container cccccccccccc has had it"):
                operation()
        assert kernel.afresh == 2


class Late(Kernel):
    """A view of the kernel in which, for this thread, a container may not have come yet."""

    is_late = True

    def look(self, *, fresh: bool = False) -> Glance:  # type: ignore[override]  # noqa: ARG002
        container = Holder("c" * 64, "c" * 64, 1, "sh", datetime.now(UTC), 1e9)
        misses = self.is_late and current_thread() is main_thread()
        return Glance([] if misses else [container])


def test_nothing_is_put_on_record_when_volumes_are_counted_by_a_look_from_before(
    tmp_path: Path,
) -> None:
    with (
        closing(Root(tmp_path)) as root,
        closing(Store(root.database)) as store,
        closing(Driver(root, store, kernel := Late(root.descriptor), 60, end=no_end)) as driver,
    ):
        driver.create("vol")
        driver.mount("vol", "one")
        kernel.is_late = False
        driver.get("vol")
        boot = clock.now().boot
        before = store.seen("vol", boot), store.leases("vol")
        assert before[0] == {"c" * 64}

        kernel.is_late = True
        Overview(root, store, kernel, driver).figures()
        assert (store.seen("vol", boot), store.leases("vol")) == before


def test_a_full_disk_does_not_keep_volumes_from_being_unmounted_and_removed(
    tmp_path: Path,
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], check=True)
    try:
        tmp_path.chmod(0o755)
        with driver_on(tmp_path) as driver:
            driver.create("vol")
            with (tmp_path / "vol" / "file").open("wb", buffering=0) as file:
                for size in (1 << 16, 1):
                    with pytest.raises(OSError, match="No space left"):
                        file.writelines(repeat(b"x" * size))
            with patch.object(Kernel, "look", return_value=None):  # so many would take long
                for _ in range(1000):
                    driver.mount("vol", "id")
                    driver.unmount("vol", "id")
            driver.remove("vol")
            driver.create("another")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
