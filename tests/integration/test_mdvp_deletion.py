"""Deleting what was in a removed volume, whatever it is."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest
from support import eventually

from mdvp.core.volume import Identity
from mdvp.disk.deletion import Deleter, delete


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "trash" / "vol").mkdir(parents=True)
    fd = os.open(tmp_path / "trash", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def volume(folder: int) -> Path:
    return Path(f"/proc/self/fd/{folder}").readlink() / "vol"


def left(folder: int) -> list[str]:
    return os.listdir(folder)


def test_all_kinds_of_files_go(folder: int, volume: Path) -> None:
    (volume / "file").write_text("content")
    os.mkfifo(volume / "fifo")
    (volume / "dangling").symlink_to("nowhere")
    os.mknod(volume / "socket", stat.S_IFSOCK)
    (volume / "closed").mkdir(mode=0)
    (volume / "closed" / "file").write_text("content")
    (volume / os.fsdecode(b"\xff\n")).write_text("content")
    delete(folder, "vol")
    assert left(folder) == []


def test_no_link_is_followed(folder: int, volume: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (volume / "link").symlink_to(outside)
    delete(folder, "vol")
    assert left(folder) == []
    assert (outside / "file").read_text() == "stays"


def test_no_depth_is_too_deep(folder: int, volume: Path) -> None:
    fd = os.open(volume, os.O_RDONLY)
    for _ in range(3000):  # below it no path can be written down, and no recursion go
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    delete(folder, "vol")
    assert left(folder) == []


def test_a_turn_comes_to_delete_something_however_deep_it_is(folder: int, volume: Path) -> None:
    fd = os.open(volume, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    turns, asked = 0, 0

    def go_on() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3000 or bool(turns > 20)

    while not delete(folder, "vol", go_on):
        turns, asked = turns + 1, 0
    assert 1 < turns < 10
    assert left(folder) == []


def test_what_is_moved_elsewhere_while_it_is_deleted_leads_nobody_there(
    folder: int, volume: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stays").touch()
    (volume / "a" / "b").mkdir(parents=True)
    (volume / "a" / "b" / "file").touch()

    def go_on() -> bool:
        # Only root can, once the directories are ours.
        if (volume / "a" / "b").exists() and not (volume / "a" / "b" / "file").exists():
            (volume / "a" / "b").rename(outside / "b")
        return True

    with pytest.raises(OSError, match="was moved by root"):
        delete(folder, "vol", go_on)
    assert sorted(os.listdir(outside)) == ["b", "stays"]


def test_what_is_spared_is_moved_out_as_it_is(folder: int, volume: Path) -> None:
    (volume / "a" / "mine" / "sub").mkdir(parents=True)
    (volume / "a" / "mine").chmod(0o755)
    (volume / "a" / "file").touch()
    inode = (volume / "a" / "mine").stat().st_ino
    assert delete(folder, "vol", spared=lambda directory: directory.inode == inode)
    assert left(folder) == [str(inode)]
    kept = volume.parent / str(inode)
    assert os.listdir(kept) == ["sub"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o755


def test_a_directory_full_of_what_cannot_be_deleted(folder: int, volume: Path) -> None:
    for number in range(5):
        (volume / f"{number}" / "sub").mkdir(parents=True)
        (volume / f"{number}" / "file").touch()
    spared_before: list[int] = []

    def refuse(directory: Identity) -> bool:
        spared_before.append(directory.inode)
        raise OSError("cannot tell")

    with pytest.raises(OSError, match="cannot tell"):
        delete(folder, "vol", spared=refuse)
    assert len(spared_before) == 5  # each once
    assert len(os.listdir(volume)) == 5
    assert delete(folder, "vol")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def test_what_is_mounted_below_is_not_entered_and_the_rest_goes(
    folder: int, volume: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    # One of the same file system, which has the same device number.
    (volume / "a" / "bound").mkdir(parents=True)
    (volume / "memory").mkdir()
    (volume / "zz").write_text("goes")
    mount("--bind", outside, volume / "a" / "bound")
    mount("-t", "tmpfs", "tmpfs", volume / "memory")
    (volume / "memory" / "file").write_text("stays")
    try:
        with pytest.raises(OSError, match="is a mount point"):
            delete(folder, "vol")
        assert (outside / "file").read_text() == "stays"
        assert (volume / "memory" / "file").read_text() == "stays"
        assert not (volume / "zz").exists()
        assert sorted(os.listdir(volume)) == ["a", "memory"]
    finally:
        mounted = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
        for line in mounted.splitlines():
            point = line.split(" ")[2]
            if str(volume.parent) in point:
                subprocess.run(["umount", point], check=True)
    for entry in left(folder):
        delete(folder, entry)
    assert left(folder) == []
    assert (outside / "file").read_text() == "stays"


def test_a_directory_that_is_gone_is_no_error(folder: int) -> None:
    delete(folder, "gone")
    assert left(folder) == ["vol"] or left(folder) == []


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_what_is_no_directory_goes_too(folder: int, volume: Path, kind: str) -> None:
    match kind:
        case "file":
            (volume.parent / "it").write_text("content")
        case "link":
            (volume.parent / "it").symlink_to(volume)
        case "fifo":
            os.mkfifo(volume.parent / "it")
    assert delete(folder, "it")
    assert left(folder) == ["vol"]


@contextmanager
def user_in(path: Path) -> Iterator[Callable[[], bool]]:
    """Be another user, too, who has `path` open; yields what says whether they can make a file."""
    asked, answered = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for ours in (asked[1], answered[0]):
            os.close(ours)
        fd = os.open(path, os.O_RDONLY)
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1000)
        while os.read(asked[0], 1):
            try:
                os.symlink("/", "link", dir_fd=fd)
            except OSError:
                os.write(answered[1], b"n")
            else:
                os.unlink("link", dir_fd=fd)
                os.write(answered[1], b"y")
        os._exit(0)
    for theirs in (asked[0], answered[1]):
        os.close(theirs)

    def can() -> bool:
        os.write(asked[1], b"?")
        return os.read(answered[0], 1) == b"y"

    try:
        yield can
    finally:
        os.close(asked[1])
        os.waitpid(child, 0)
        os.close(answered[0])


@pytest.mark.parametrize("below", [".", "a", "a/b"])
def test_nobody_can_change_a_directory_that_is_looked_at(
    folder: int, volume: Path, below: str
) -> None:
    (volume / "a" / "b").mkdir(parents=True)
    for path in (volume, volume / "a", volume / "a" / "b"):
        os.chown(path, 1000, 1000)
        path.chmod(0o777)
    for name in ("one", "two", "three"):
        (volume / below / name).touch()
    before = len(os.listdir(volume / below))
    seen = []

    def about_to_delete() -> bool:
        with suppress(FileNotFoundError):
            if len(os.listdir(volume / below)) < before:
                seen.append(can())
        return True

    with user_in(volume / below) as can:
        assert can()
        assert delete(folder, "vol", about_to_delete)
    assert set(seen) == {False}
    assert left(folder) == []


def test_a_wide_tree_is_deleted_where_it_is(folder: int, volume: Path) -> None:
    for number in range(100):
        (volume / str(number) / "sub").mkdir(parents=True)
    most = 0

    def about_to_delete() -> bool:
        nonlocal most
        most = max(most, len(left(folder)) + len(os.listdir(volume)))
        return True

    delete(folder, "vol", about_to_delete)
    assert most <= 101
    assert left(folder) == []


def test_a_deletion_goes_on_where_it_had_to_stop(folder: int, volume: Path) -> None:
    for number in range(10):
        (volume / str(number)).touch()
    turn = iter([True] * 3)
    assert not delete(folder, "vol", lambda: next(turn, False))
    assert len(os.listdir(volume)) == 7
    assert delete(folder, "vol")
    assert left(folder) == []


class Doomed:
    """Things to be deleted: `deleted` has those that are, `tries` how often each had its turn."""

    def __init__(self, *things: str) -> None:
        self.things = things
        self.deleted: list[str] = []
        self.tries = dict.fromkeys(things, 0)

    def doomed(self) -> list[str]:
        return [thing for thing in self.things if thing not in self.deleted]

    def delete(self, thing: str, go_on: Callable[[], bool]) -> bool:
        self.tries[thing] += 1
        match thing:
            case "endless":
                while go_on():
                    pass
                return False
            case "defect":
                raise ValueError(thing)
            case "busy":
                raise OSError(thing)
        self.deleted.append(thing)
        return True


def must_not_end() -> None:
    pytest.fail("the thread has failed")


def test_what_cannot_be_deleted_is_let_be_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    doomed = Doomed("busy", "defect", "good")
    deleter = Deleter(doomed.doomed, doomed.delete, must_not_end)
    eventually(lambda: doomed.deleted, ["good"])
    doomed.tries["later"] = 0
    doomed.things += ("later",)
    deleter.wake()
    deleter.close(10)
    assert doomed.deleted == ["good", "later"]
    assert doomed.tries == dict.fromkeys(doomed.things, 1)
    said = [record for record in caplog.records if "cannot delete all" in record.message]
    assert len(said) == 2
    assert [bool(record.exc_info) for record in said] == [False, True]  # the defect has its trace


def test_what_has_gone_meanwhile_is_not_remembered_as_undeletable() -> None:
    doomed = Doomed("busy")
    deleter = Deleter(doomed.doomed, doomed.delete, must_not_end)
    eventually(lambda: doomed.tries["busy"], 1)
    doomed.things = ("good",)
    doomed.tries["good"] = 0
    deleter.wake()
    eventually(lambda: doomed.deleted, ["good"])
    doomed.things = ("busy",)  # another of the same name
    deleter.wake()
    eventually(lambda: doomed.tries["busy"], 2)
    deleter.close(10)


def test_a_deletion_without_end_holds_up_nobody() -> None:
    doomed = Doomed("endless", "good")
    deleter = Deleter(doomed.doomed, doomed.delete, must_not_end, turn=0.01)
    eventually(lambda: doomed.deleted, ["good"])
    eventually(lambda: doomed.tries["endless"] > 2, True)
    deleter.close(0.01)
    tries = doomed.tries["endless"]
    deleter.wake()
    assert doomed.tries["endless"] == tries


def test_a_deleter_that_can_find_nothing_ends_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> list[str]:
        raise OSError("no such folder")

    ended = Event()
    Deleter(broken, Doomed().delete, ended.set)
    assert ended.wait(10)
    assert "the thread deleter has failed" in caplog.text
