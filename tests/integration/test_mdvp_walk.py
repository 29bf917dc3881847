"""Going through what is in a volume, whatever that is and whoever works in it meanwhile."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count as count_from
from pathlib import Path

import pytest
from integration.mounts import only_root

from mdvp.disk import walk as module
from mdvp.disk.deletion import delete
from mdvp.disk.walk import Visit, What, walk

pytestmark = only_root


@contextmanager
def top(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def seen(path: Path, at: Callable[[Visit], object] = lambda _: None) -> list[tuple[What, str]]:
    """Walk through `path`, and call `at` at each step."""
    visits = []
    with top(path) as fd, closing(walk(fd)) as way:
        for visit in way:
            visits.append((visit.what, visit.name))
            at(visit)
    return visits


def found(path: Path) -> set[str]:
    return {name for what, name in seen(path) if what is What.FOUND}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_each_thing_is_seen_once_and_what_is_no_directory_first(tmp_path: Path) -> None:
    (tmp_path / "dir" / "below").mkdir(parents=True)
    (tmp_path / "dir" / "file").write_text("content")
    (tmp_path / "dir" / "below" / "deep").write_text("content")
    os.mkfifo(tmp_path / "fifo")
    assert seen(tmp_path) == [
        (What.FOUND, "fifo"),
        (What.ENTERED, "dir"),
        (What.FOUND, "file"),
        (What.ENTERED, "below"),
        (What.FOUND, "deep"),
        (What.LEFT, "below"),
        (What.LEFT, "dir"),
    ]


def test_all_kinds_are_seen_as_they_are_and_none_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")  # whoever opens it waits
    os.mknod(tmp_path / "socket", stat.S_IFSOCK)
    os.mknod(tmp_path / "device", stat.S_IFCHR, os.makedev(250, 250))
    name = os.fsdecode(b"\xff\n")
    (tmp_path / name).write_text("content")
    kinds = {}

    def note(visit: Visit) -> None:
        assert visit.status is not None
        kinds[visit.name] = stat.S_IFMT(visit.status.st_mode)
        assert os.fstat(visit.fd).st_ino == visit.status.st_ino

    seen(tmp_path, note)
    assert kinds == {
        "file": stat.S_IFREG,
        "dangling": stat.S_IFLNK,
        "fifo": stat.S_IFIFO,
        "socket": stat.S_IFSOCK,
        "device": stat.S_IFCHR,
        name: stat.S_IFREG,
    }


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("content")
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol" / "link").symlink_to(tmp_path / "outside")
    assert seen(tmp_path / "vol") == [(What.FOUND, "link")]


def test_a_directory_exchanged_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("content")
    names = {"one", "two"}
    for name in names:
        (tmp_path / "vol" / name).mkdir(parents=True)

    def exchange(visit: Visit) -> None:
        if visit.what is What.ENTERED:  # the names of both are known by now
            (other,) = names - {visit.name}
            (tmp_path / "vol" / other).rmdir()
            (tmp_path / "vol" / other).symlink_to(tmp_path / "outside")

    whats = [what for what, _ in seen(tmp_path / "vol", exchange)]
    assert whats == [What.ENTERED, What.LEFT, What.MISSED]


def test_no_depth_is_too_deep_and_few_descriptors_do(tmp_path: Path) -> None:
    depth = 3000
    (tmp_path / "vol").mkdir()
    fd = os.open(tmp_path / "vol", os.O_RDONLY)
    for _ in range(depth):  # no path can name it, and no recursion go there
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before, most, steps = descriptors(), 0, count_from(1)

    def count(_: Visit) -> None:
        nonlocal most
        if next(steps) % 50 == 0:
            most = max(most, descriptors())

    visits = seen(tmp_path / "vol", count)
    with top(tmp_path) as folder:
        delete(folder, "vol")  # which pytest cannot
    assert [what for what, _ in visits] == [What.ENTERED] * depth + [What.LEFT] * depth
    assert most - before <= 5  # with that of the top, and of the listing of this test
    assert descriptors() == before


def test_what_is_deeper_than_all_is_said_to_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEPTH_MAX", 2)
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    assert [name for what, name in seen(tmp_path) if what is What.MISSED] == ["c"]


def move_out(vol: Path, elsewhere: Path, name: str) -> None:
    (vol / "a" / name).rename(elsewhere / name)


def move_higher(vol: Path, _: Path, name: str) -> None:
    (vol / "a" / name).rename(vol / name)


def move_all(vol: Path, elsewhere: Path, _: str) -> None:
    (vol / "a").rename(elsewhere / "a")


def move_each(vol: Path, elsewhere: Path, name: str) -> None:
    move_out(vol, elsewhere, name)
    move_all(vol, elsewhere, name)
    (vol / "a").mkdir()  # another, of that name


@pytest.mark.parametrize("move", [move_out, move_higher, move_all, move_each])
def test_what_is_moved_elsewhere_while_it_is_seen_leads_nobody_there(
    tmp_path: Path, move: Callable[[Path, Path, str], None]
) -> None:
    vol, elsewhere = tmp_path / "vol", tmp_path / "elsewhere"
    for deep in (vol / "a" / "x" / "c", vol / "a" / "y" / "c", vol / "o", elsewhere / "secret"):
        deep.mkdir(parents=True)
        (deep / f"in-{deep.parent.name}").write_text("content")
    order = []

    def at(visit: Visit) -> None:
        if visit.name in ("in-x", "in-y"):
            order.append(visit.name)
            if len(order) == 1:
                move(vol, elsewhere, visit.name[-1])

    visits = seen(vol, at)
    names = [name for _, name in visits]
    assert "in-elsewhere" not in names
    assert "in-vol" in names
    entered = [name for what, name in visits if what is What.ENTERED]
    left = [name for what, name in visits if what is What.LEFT]
    assert sorted(entered) == sorted(left)
    missed = [name for what, name in visits if what is What.MISSED]
    assert (len(order), missed) == ((1, ["a"]) if move is move_each else (2, []))


def test_what_is_mounted_below_is_not_entered_nor_asked(tmp_path: Path) -> None:
    (tmp_path / "vol" / "mounted").mkdir(parents=True)
    (tmp_path / "vol" / "file").write_text("content")
    (tmp_path / "vol" / "covered").touch()
    (tmp_path / "host").write_text("the host's")
    for source, target in (("tmpfs", "mounted"), (str(tmp_path / "host"), "covered")):
        how = ["-t", "tmpfs"] if source == "tmpfs" else ["--bind"]
        subprocess.run(["mount", *how, source, tmp_path / "vol" / target], check=True)
    errors = {}

    def note(visit: Visit) -> None:
        if visit.error is not None:
            errors[visit.name] = visit.error.errno

    try:
        (tmp_path / "vol" / "mounted" / "secret").write_text("content")
        names = [name for _, name in seen(tmp_path / "vol", note)]
    finally:
        for target in ("mounted", "covered"):
            subprocess.run(["umount", tmp_path / "vol" / target], check=True)
    assert errors == {"mounted": errno.EXDEV, "covered": errno.EXDEV}
    assert sorted(names) == ["covered", "file", "mounted"]


def test_what_has_vanished_meanwhile_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("content")

    def vanish(visit: Visit) -> None:
        if visit.name == "file":
            (tmp_path / "dir").rmdir()

    assert seen(tmp_path, vanish) == [(What.FOUND, "file")]


def test_a_wide_directory_is_seen_whole(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / f"f{number}").touch()
    assert found(tmp_path) == {f"f{number}" for number in range(2000)}


def test_whoever_has_seen_enough_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").touch()
    before = descriptors()
    with top(tmp_path) as fd, closing(walk(fd)) as visits:
        assert next(visits).what is What.ENTERED
        assert next(visits).what is What.FOUND
    assert descriptors() == before
