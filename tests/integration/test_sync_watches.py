"""What the kernel tells of the directories of a tree, and what is known of where they are."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.files import write
from integration.mounts import TMPFS, mounted, only_root
from integration.workload import exchange

from sync.core.changes import (
    Appeared,
    Change,
    Changed,
    Created,
    Moved,
    PlaceChange,
    Renamed,
    Unfinished,
    Vanished,
)
from sync.disk import watch as watch_module
from sync.disk.files import Directory
from sync.disk.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyinotify

MANY = 100  # more than it takes until nothing more is told


def directories(root: Path) -> list[bytes]:
    """Return the places of all directories below a root."""
    found = []
    for path, names, _ in os.walk(root):
        below = (Path(path, name) for name in names)
        found += [os.fsencode(each.relative_to(root)) + b"/" for each in below if is_one(each)]
    return sorted(found)


def is_one(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def watches() -> int:
    """Return how many watches the kernel keeps for this process."""
    number = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        except FileNotFoundError:  # it was for the listing
            continue
        number += sum(line.startswith("inotify ") for line in lines)
    return number


class Watched:
    """A tree of directories under watch."""

    def __init__(self, root: Path, directory: Directory, watch: Watch) -> None:
        self.root = root
        self.directory = directory
        self.watch = watch
        self._unseen: list[bytes] = []  # places that were told, and not looked into yet

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def make(self, *names: str) -> None:
        """Make directories, and have them known."""
        for name in names:
            (self.root / name).mkdir(parents=True)
        self.enter()
        self.places()
        self._unseen.clear()
        self.directory.forget()  # or it would not see what is mounted now

    def enter(self) -> None:
        """Look into all directories, as whoever is told of one does."""
        for place in directories(self.root):
            assert self.watch.enter(place)

    def places(self) -> list[PlaceChange]:
        """Return what has happened to directories since the last time."""
        self.watch.read()
        told = self.watch.read_places()
        for each in told:
            if not isinstance(each, Vanished):
                self._unseen.append(each.new if isinstance(each, Moved) else each.place)
        return told

    def changes(self) -> list[Change]:
        """Return what has happened to files since the last time."""
        return self.watch.read()

    def follow(self) -> None:
        """Look into what is told until nothing more is."""
        for _ in range(MANY):
            if not (self.places() or self._unseen):
                return
            for place in self._unseen:
                if self.watch.enter(place):
                    for below in directories(self.root / os.fsdecode(place)):
                        self.watch.enter(place + below)
            self._unseen.clear()
        raise AssertionError("there is no end of what is told")

    def is_right(self) -> None:
        """Make sure that each directory is heard, at its place, and no other one."""
        self.follow()
        places = directories(self.root)
        assert self.watch.unwatched == (0, 1 + len(places))
        assert watches() == 1 + len(places)
        for place in places:
            (self.root / os.fsdecode(place) / "heard").touch()
            heard = {getattr(change, "name", None) for change in self.changes()}
            assert heard == {place + b"heard"}
            (self.root / os.fsdecode(place) / "heard").unlink()
            self.changes()


@pytest.fixture
def tree(root: Path) -> Iterator[Watched]:
    assert watches() == 0
    with (
        closing(Directory(root, is_tree=True)) as directory,
        closing(Watch(directory.handle, directory)) as watch,
    ):
        yield Watched(root, directory, watch)


class TestADirectory:
    def test_that_is_made_has_appeared(self, tree: Watched) -> None:
        (tree / "d").mkdir()
        assert tree.places() == [Appeared(b"d/")]
        tree.is_right()

    def test_that_is_made_below_has_appeared(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d/e/f").mkdir()
        assert tree.places() == [Appeared(b"d/e/f/")]
        tree.is_right()

    def test_is_told_once(self, tree: Watched) -> None:
        (tree / "d").mkdir()
        tree.places()
        assert tree.places() == []

    def test_that_is_made_with_others_below_is_told_and_those_are_when_it_is_looked_into(
        self, tree: Watched
    ) -> None:
        (tree / "d/e/f").mkdir(parents=True)
        assert tree.places() == [Appeared(b"d/")]
        for place in (b"d/", b"d/e/", b"d/e/f/"):
            assert tree.watch.enter(place)
        assert tree.places() == []
        tree.is_right()

    def test_is_heard_from_the_moment_on_in_which_it_was_told(self, tree: Watched) -> None:
        (tree / "d").mkdir()
        tree.places()
        (tree / "d/e").mkdir()
        assert tree.places() == [Appeared(b"d/e/")]

    def test_can_be_looked_into_before_those_above_are_known(self, tree: Watched) -> None:
        (tree / "d/e/f").mkdir(parents=True)
        assert tree.watch.enter(b"d/e/f/")
        assert [tree.watch.is_watched(name) for name in (b"d/a", b"d/e/a", b"d/e/f/a")] == [
            True
        ] * 3

    def test_that_is_not_there_cannot_be_looked_into(self, tree: Watched) -> None:
        (tree / "file").touch()
        for place in (b"d/", b"d/e/", b"file/"):
            assert not tree.watch.enter(place)
        assert tree.watch.enter(b"")

    def test_that_is_removed_has_vanished(self, tree: Watched) -> None:
        tree.make("d", "e")
        (tree / "d").rmdir()
        assert set(tree.places()) == {Vanished(b"d/")}
        assert not tree.watch.enter(b"d/")
        tree.is_right()

    def test_that_is_removed_with_all_below_has_vanished(self, tree: Watched) -> None:
        tree.make("d/e/f", "d/g")
        shutil.rmtree(tree / "d")
        told = set(tree.places())
        assert Vanished(b"d/") in told
        assert told <= {Vanished(place) for place in (b"d/", b"d/e/", b"d/e/f/", b"d/g/")}
        tree.is_right()

    def test_that_came_and_went_has_not_appeared(self, tree: Watched) -> None:
        (tree / "d").mkdir()
        (tree / "d").rmdir()
        assert set(tree.places()) <= {Vanished(b"d/")}
        tree.is_right()


class TestAMove:
    def test_is_told_with_both_places(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d").rename(tree / "g")
        assert tree.places() == [Moved(b"d/", b"g/")]
        tree.is_right()

    @pytest.mark.parametrize(("old", "new"), [("d/e", "e"), ("g", "d/g"), ("d/e", "g/h/e")])
    def test_to_another_directory_is_told_with_both_places(
        self, tree: Watched, old: str, new: str
    ) -> None:
        tree.make("d/e/f", "g/h")
        (tree / old).rename(tree / new)
        assert tree.places() == [Moved(f"{old}/".encode(), f"{new}/".encode())]
        tree.is_right()

    def test_takes_along_all_below_which_is_not_told(self, tree: Watched) -> None:
        tree.make("d/e/f", "d/g")
        (tree / "d").rename(tree / "h")
        assert tree.places() == [Moved(b"d/", b"h/")]
        (tree / "h/e/f/a").touch()
        assert tree.changes() == [Created(b"h/e/f/a"), Changed(b"h/e/f/a")]

    def test_costs_no_watch(self, tree: Watched) -> None:
        tree.make("d/e/f")
        (tree / "d").rename(tree / "h")
        tree.places()
        assert watches() == 4
        tree.is_right()

    def test_that_follows_another_is_told_as_well(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d").rename(tree / "g")
        assert tree.places() == [Moved(b"d/", b"g/")]
        (tree / "g").rename(tree / "h")
        assert tree.places() == [Moved(b"g/", b"h/")]
        tree.is_right()

    def test_that_is_two_by_the_time_of_the_look_is_one(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d").rename(tree / "g")
        (tree / "g").rename(tree / "h")
        told = tree.places()
        assert [each for each in told if each != Vanished(b"g/")] == [Moved(b"d/", b"h/")]
        tree.is_right()

    def test_and_back_has_it_looked_into(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d").rename(tree / "g")
        (tree / "g").rename(tree / "d")
        # What was looked for in it while it was away was not there.
        assert set(tree.places()) - {Vanished(b"g/")} == {Appeared(b"d/")}
        tree.is_right()

    def test_of_two_that_change_places_is_told_of_both(self, tree: Watched) -> None:
        tree.make("d/e", "g/h")
        exchange(tree / "d", tree / "g")
        told = [each for each in tree.places() if each != Appeared(b"g/")]
        assert len(told) == 2
        assert set(told) == {Moved(b"d/", b"g/"), Moved(b"g/", b"d/")}
        tree.is_right()

    def test_of_two_that_change_places_at_different_depths_is_told_of_both(
        self, tree: Watched
    ) -> None:
        tree.make("d/e/f", "g/h")
        exchange(tree / "d/e", tree / "g")
        told = set(tree.places()) - {Appeared(b"g/")}
        assert told == {Moved(b"d/e/", b"g/"), Moved(b"g/", b"d/e/")}
        tree.is_right()

    def test_by_which_a_child_becomes_the_parent_is_right(self, tree: Watched) -> None:
        tree.make("d/e/f")
        (tree / "d/e").rename(tree / "g")
        (tree / "d").rename(tree / "g/f/d")
        (tree / "g").rename(tree / "d")
        tree.is_right()

    def test_below_the_place_where_it_was_is_right(self, tree: Watched) -> None:
        tree.make("d/e")
        (tree / "d/e").rmdir()
        (tree / "d").rename(tree / "away")
        (tree / "d").mkdir()
        (tree / "away").rename(tree / "d/e")
        tree.is_right()

    @pytest.mark.parametrize("heard", [False, True])
    def test_of_one_that_was_just_made_is_right(self, tree: Watched, *, heard: bool) -> None:
        (tree / "d/e").mkdir(parents=True)
        if heard:
            tree.places()
        (tree / "d").rename(tree / "g")
        told = tree.places()
        assert (Moved(b"d/", b"g/") if heard else Appeared(b"g/")) in told
        tree.is_right()


class TestOneThatLeavesTheTree:
    def test_has_vanished(self, tree: Watched, outside: Path) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        assert set(tree.places()) == {Vanished(b"d/")}
        tree.is_right()

    def test_is_not_heard_any_more(self, tree: Watched, outside: Path) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        write(outside / "d/e/a")
        assert tree.changes() == []
        assert watches() == 1
        write(outside / "d/e/a")
        (outside / "d/f").mkdir()
        assert (tree.changes(), tree.places()) == ([], [Vanished(b"d/")])

    def test_has_appeared_when_it_comes_back_later(self, tree: Watched, outside: Path) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        tree.places()
        (outside / "d").rename(tree / "g")
        assert tree.places() == [Appeared(b"g/")]
        tree.is_right()

    def test_is_looked_into_when_it_is_back_before_the_look(
        self, tree: Watched, outside: Path
    ) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        (outside / "d").rename(tree / "d")
        assert tree.places() == [Appeared(b"d/")]
        tree.is_right()

    def test_and_is_back_at_once_has_moved(self, tree: Watched, outside: Path) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        (outside / "d").rename(tree / "g")
        assert tree.places() == [Moved(b"d/", b"g/")]
        tree.is_right()

    @pytest.mark.parametrize("below", ["", "e/"])
    def test_and_is_changed_before_it_is_back_is_as_a_new_one(
        self, tree: Watched, outside: Path, below: str
    ) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        write(outside / f"d/{below}a")
        (outside / "d").rename(tree / "g")
        assert tree.places() == [Vanished(b"d/"), Appeared(b"g/")]
        tree.is_right()

    def test_takes_along_one_that_comes_back_by_itself(self, tree: Watched, outside: Path) -> None:
        tree.make("d/e/f")
        (tree / "d").rename(outside / "d")
        (outside / "d/e").rename(tree / "e")
        told = tree.places()
        assert Vanished(b"d/") in told
        assert Appeared(b"e/") in told
        tree.is_right()


class TestOneThatIsReplaced:
    def test_by_another_has_vanished_and_that_has_appeared(
        self, tree: Watched, outside: Path
    ) -> None:
        tree.make("d/e")
        (tree / "d").rename(outside / "d")
        (tree / "d/g").mkdir(parents=True)
        told = tree.places()
        assert {Appeared(b"d/"), Vanished(b"d/")} == set(told)
        write(outside / "d/e/a")
        assert tree.changes() == []
        tree.is_right()

    def test_by_one_of_the_same_name_after_it_was_removed_is_right(self, tree: Watched) -> None:
        tree.make("d/e")
        for _ in range(3):
            shutil.rmtree(tree / "d")
            (tree / "d/e").mkdir(parents=True)
        assert Appeared(b"d/") in tree.places()
        tree.is_right()

    def test_by_one_that_was_elsewhere_has_vanished(self, tree: Watched) -> None:
        tree.make("d", "g/h")
        (tree / "g").rename(tree / "d")  # which is empty
        told = tree.places()
        assert Moved(b"g/", b"d/") in told
        assert set(told) <= {Moved(b"g/", b"d/"), Vanished(b"d/")}
        tree.is_right()

    def test_by_one_that_was_elsewhere_may_have_moved_as_well(self, tree: Watched) -> None:
        tree.make("d/e", "g/h")
        (tree / "d").rename(tree / "i")
        (tree / "g").rename(tree / "d")
        assert set(tree.places()) >= {Moved(b"d/", b"i/"), Moved(b"g/", b"d/")}
        tree.is_right()

    @pytest.mark.parametrize("is_inside", [False, True])
    def test_by_a_link_has_vanished_and_the_link_is_not_followed(
        self, tree: Watched, outside: Path, *, is_inside: bool
    ) -> None:
        tree.make("d/e", "other/e")
        elsewhere = tree / "other" if is_inside else outside
        (tree / "d").rename(outside / "away")
        (tree / "d").symlink_to(elsewhere)
        assert set(tree.places()) == {Vanished(b"d/")}
        for place in (b"d/", b"d/e/"):
            assert not tree.watch.enter(place)
        tree.is_right()

    def test_by_a_file_has_vanished_and_the_file_is_told(self, tree: Watched) -> None:
        tree.make("d")
        (tree / "d").rmdir()
        (tree / "d").touch()
        assert tree.changes() == [Created(b"d"), Changed(b"d")]
        assert set(tree.places()) == {Vanished(b"d/")}
        tree.is_right()


class TestAFile:
    def test_is_told_by_its_path(self, tree: Watched) -> None:
        tree.make("d/e")
        with (tree / "d/e/a").open("wb", 0) as file:
            assert tree.changes() == [Created(b"d/e/a")]
            file.write(b"1")
            assert tree.changes() == [Unfinished(b"d/e/a")]
        assert tree.changes() == [Changed(b"d/e/a")]
        (tree / "d/e/a").unlink()
        assert tree.changes() == [Changed(b"d/e/a")]

    @pytest.mark.parametrize("heard", [False, True])
    @pytest.mark.parametrize("new", ["h", "g/d"])
    def test_in_a_directory_that_has_moved_is_told_by_where_that_is(
        self, tree: Watched, new: str, *, heard: bool
    ) -> None:
        tree.make("d/e", "g")
        write(tree / "d/e/a")
        if heard:
            tree.changes()
        (tree / "d").rename(tree / new)
        write(tree / f"{new}/e/a", "two")
        name = f"{new}/e/a".encode()
        assert tree.changes()[-2:] == [Unfinished(name), Changed(name)]

    def test_is_another_one_after_another_directory_has_come_to_its_place(
        self, tree: Watched, outside: Path
    ) -> None:
        tree.make("d", "g")
        with (tree / "d/a").open("wb", 0) as one, (tree / "g/a").open("wb", 0) as other:
            tree.changes()
            one.write(b"1")
            (tree / "d").rename(outside / "d")
            (tree / "g").rename(tree / "d")
            other.write(b"2")
            assert tree.changes() == [Unfinished(b"d/a"), Unfinished(b"d/a")]

    @pytest.mark.parametrize(("old", "new"), [("a", "d/a"), ("d/a", "d/e/b"), ("d/e/a", "g/a")])
    def test_that_is_renamed_from_one_directory_to_another_is_one_change(
        self, tree: Watched, old: str, new: str
    ) -> None:
        tree.make("d/e", "g")
        write(tree / old)
        tree.changes()
        (tree / old).rename(tree / new)
        assert tree.changes() == [Renamed(old.encode(), new.encode())]

    def test_that_is_renamed_into_one_that_nobody_has_looked_into_is_gone(
        self, tree: Watched
    ) -> None:
        tree.make("d")
        write(tree / "d/a")
        tree.changes()
        (tree / "g/h").mkdir(parents=True)
        (tree / "d/a").rename(tree / "g/h/a")
        assert tree.changes() == [Changed(b"d/a")]

    def test_in_a_directory_of_any_name_has_that_in_its_path(self, tree: Watched) -> None:
        name = os.fsdecode(b"\xff\n *")
        tree.make(name)
        (tree / name / "a").touch()
        assert tree.changes() == [Created(b"\xff\n */a"), Changed(b"\xff\n */a")]


@only_root
class TestAMount:
    def test_of_the_root_below_itself_must_not_be_looked_into_and_all_others_can(
        self, tree: Watched
    ) -> None:
        tree.make("d/loop", "d/e", "g")
        with mounted("--bind", tree.root, tree / "d/loop"):
            for _ in range(2):
                with pytest.raises(OSError, match="it is the root once more, by a mount") as caught:
                    tree.watch.enter(b"d/loop/")
                assert caught.value.errno == errno.ELOOP
                for place in (b"", b"d/", b"d/e/", b"g/"):
                    assert tree.watch.enter(place)
            (tree / "d/a").touch()
            assert tree.changes() == [Created(b"d/a"), Changed(b"d/a")]
        tree.changes()
        assert tree.watch.enter(b"d/loop/")
        tree.is_right()

    def test_of_the_root_below_itself_takes_the_watch_of_what_it_hides(self, tree: Watched) -> None:
        tree.make("d/loop")
        with mounted("--bind", tree.root, tree / "d/loop"):
            with pytest.raises(OSError, match="by a mount"):
                tree.watch.enter(b"d/loop/")
            tree.changes()
            assert tree.watch.unwatched == (0, 2)
            assert watches() == 2

    def test_of_a_directory_below_itself_must_not_be_looked_into(self, tree: Watched) -> None:
        tree.make("d/e/loop")
        with mounted("--bind", tree / "d", tree / "d/e/loop"):
            with pytest.raises(OSError, match="it is the directory d once more, by a mount"):
                tree.watch.enter(b"d/e/loop/")
            tree.directory.forget()
            assert not tree.directory.has_place(b"d/e/loop/e/")

    @contextmanager
    def twice(self, tree: Watched) -> Iterator[None]:
        """Have a directory at two places for the time of the block, and look into both."""
        tree.make("d/e", "g")
        with mounted("--bind", tree / "d", tree / "g"):
            for place in (b"d/", b"g/", b"g/e/"):
                assert tree.watch.enter(place)
            tree.changes()
            yield
        tree.changes()

    def test_of_a_directory_at_another_place_too_is_heard_at_one_of_them(
        self, tree: Watched
    ) -> None:
        with self.twice(tree):
            names = (b"a", b"d/a", b"d/e/a", b"g/a", b"g/e/a")
            assert [tree.watch.is_watched(name) for name in names] == [True] * 3 + [False] * 2
            (tree / "g/e/a").touch()
            assert tree.changes() == [Created(b"d/e/a"), Changed(b"d/e/a")]

    def test_of_a_directory_at_another_place_too_is_said_to_be_unwatched_and_no_watch_to_be_short(
        self, tree: Watched
    ) -> None:
        with self.twice(tree):
            assert tree.watch.unwatched == (2, 5)
            assert not tree.watch.is_short

    def test_of_a_directory_at_another_place_too_is_no_move_however_often_it_is_looked_into(
        self, tree: Watched
    ) -> None:
        with self.twice(tree):
            tree.places()
            for _ in range(3):
                tree.enter()
                assert tree.places() == []

    def test_of_a_directory_at_another_place_too_is_counted_no_more_when_it_is_found_to_be_gone(
        self, tree: Watched
    ) -> None:
        with self.twice(tree):
            (tree / "d/e").rmdir()
            tree.changes()
            assert not tree.watch.enter(b"g/e/")
            tree.changes()
            assert tree.watch.unwatched == (1, 3)

    def test_of_a_directory_at_another_place_too_leaves_both_heard_when_it_ends(
        self, tree: Watched
    ) -> None:
        with self.twice(tree):
            pass
        tree.enter()
        for name in ("d/a", "g/a"):
            (tree / name).touch()
        created = [each for each in tree.changes() if isinstance(each, Created)]
        assert created == [Created(b"d/a"), Created(b"g/a")]

    def test_of_another_file_system_is_heard_and_its_end_is_told(self, tree: Watched) -> None:
        tree.make("m/beneath")
        with mounted(*TMPFS, tree / "m"):
            (tree / "m/d").mkdir()
            for place in (b"m/", b"m/d/"):
                assert tree.watch.enter(place)
            tree.places()
            (tree / "m/d/a").touch()
            assert tree.changes() == [Created(b"m/d/a"), Changed(b"m/d/a")]
        assert Appeared(b"m/") in tree.places()
        tree.is_right()


class TestWatches:
    def test_of_directories_that_came_and_went_are_none(self, tree: Watched, outside: Path) -> None:
        tree.make("d")
        for number in range(50):
            (tree / f"d/{number}/e/f").mkdir(parents=True)
            if number % 2:
                tree.follow()
            if number % 3:
                (tree / f"d/{number}").rename(outside / f"{number}")
            else:
                shutil.rmtree(tree / f"d/{number}")
            if number % 5:
                tree.follow()
        tree.follow()
        assert watches() == 2
        assert tree.watch.unwatched == (0, 2)

    def test_are_one_for_each_directory_however_often_it_is_looked_into(
        self, tree: Watched
    ) -> None:
        tree.make("d/e")
        for _ in range(5):
            tree.enter()
            assert tree.places() == []
        assert watches() == 3
        assert tree.watch.unwatched == (0, 3)

    def test_end_with_the_watch(self, root: Path) -> None:
        (root / "d/e").mkdir(parents=True)
        with closing(Directory(root, is_tree=True)) as directory:
            with closing(Watch(directory.handle, directory)) as watch:
                watch.enter(b"d/e/")
                assert watches() == 3
            assert watches() == 0


class Kernel(watch_module._Kernel):
    """A kernel that can be out of watches: fs.inotify.max_user_watches."""

    has_some = True

    def __init__(self, manager: pyinotify.WatchManager) -> None:
        super().__init__(manager)
        self._given: set[int] = set()

    def add(self, path: str) -> int:
        wd = super().add(path)
        if not (self.has_some or wd in self._given):  # which has one keeps it
            self.remove(wd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._given.add(wd)
        return wd


class TestTooFewWatches:
    @pytest.fixture(autouse=True)
    def kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch_module, "_Kernel", Kernel)

    @pytest.fixture
    def none_left(self, tree: Watched) -> Iterator[None]:
        """Have there be no more watches than for the root and one directory."""
        tree.make("d")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kernel, "has_some", False)
            yield

    @pytest.mark.usefixtures("none_left")
    def test_are_no_reason_not_to_look_into_a_directory(self, tree: Watched) -> None:
        (tree / "d/e/f").mkdir(parents=True)
        assert tree.places() == [Appeared(b"d/e/")]
        for place in (b"d/e/", b"d/e/f/"):
            assert tree.watch.enter(place)

    @pytest.mark.usefixtures("none_left")
    def test_are_said_of_those_that_get_none(self, tree: Watched) -> None:
        (tree / "d/e/f").mkdir(parents=True)
        assert not tree.watch.is_short
        assert tree.watch.enter(b"d/e/f/")
        assert tree.watch.is_short
        assert tree.watch.unwatched == (2, 4)
        names = (b"a", b"d/a", b"d/e/a", b"d/e/f/a")
        assert [tree.watch.is_watched(name) for name in names] == [True, True, False, False]

    @pytest.mark.usefixtures("none_left")
    def test_are_made_up_for_when_there_are_some_again(
        self, tree: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tree / "d/e").mkdir(parents=True)
        tree.places()
        assert tree.watch.unwatched == (1, 3)
        monkeypatch.setattr(Kernel, "has_some", True)
        tree.is_right()

    @only_root
    @pytest.mark.usefixtures("none_left")
    def test_are_no_reason_to_look_into_the_root_below_itself(self, tree: Watched) -> None:
        with mounted("--bind", tree.root, tree / "d"):
            tree.changes()
            with pytest.raises(OSError, match="it is the root once more, by a mount"):
                tree.watch.enter(b"d/")
