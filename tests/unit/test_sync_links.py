import os
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sync.core.errors import DirectoryGoneError
from sync.core.exclude import Excluded
from sync.disk import links
from sync.disk.files import Directory
from sync.disk.links import Links

A, B, C, X = b"a", b"b", b"c", b"x~"
MANY = 1000  # more names than any of these directories has


class Counted(Directory):
    """A directory that counts how often it is looked through, and can fail at that."""

    scans = 0
    fails_after: int | None = None

    def inodes(self) -> Iterator[tuple[bytes, int]]:
        self.scans += 1
        for number, found in enumerate(super().inodes()):
            if number == self.fails_after:
                raise DirectoryGoneError("it is gone")
            yield found


class Files:
    """A directory of files that have a name elsewhere too, and what is known of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = Counted(path, Excluded(["*~"]))
        self.known = Links(self.directory)

    def link(self, *names: bytes) -> int:
        """Give these names to a new file, which has a name elsewhere too; return its inode."""
        elsewhere = self.path.with_name(f"elsewhere-{os.fsdecode(names[0])}")
        elsewhere.write_bytes(b"")
        for name in names:
            os.link(elsewhere, self.at(name))
        return elsewhere.stat().st_ino

    def at(self, name: bytes) -> Path:
        return self.path / os.fsdecode(name)

    def searched(self, at_once: int = MANY) -> list[bytes]:
        """Search until all is found; return the names in the order in which they were."""
        found: list[bytes] = []
        for _ in range(MANY):
            if not self.known.is_searching:
                return found
            found += sorted(self.known.search(at_once))
        raise AssertionError("the search does not end")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    path = tmp_path / "root"
    path.mkdir()
    files = Files(path)
    with closing(files.directory):
        yield files


@pytest.fixture
def known(files: Files) -> Links:
    """Return what is known of names of an empty directory."""
    return files.known


def noted(known: Links, **inodes: int) -> None:
    for name, inode in inodes.items():
        known.note(name.encode(), inode)


class TestNote:
    def test_two_names_of_a_file_are_known_as_one_files(self, known: Links) -> None:
        noted(known, a=1, b=1, c=2)
        assert known.inodes == {A: 1, B: 1}
        assert known.single == {C: 2}
        assert known.names([1]) == {A, B}

    def test_a_name_alone_is_known_but_not_as_one_of_several(self, known: Links) -> None:
        noted(known, a=1)
        assert known.inodes == {}
        assert known.names([1]) == {A}
        assert (known.names([1]), known.names([2])) == ({A}, set())

    def test_a_third_name_joins_the_others(self, known: Links) -> None:
        noted(known, a=1, b=1, c=1)
        assert known.inodes == {A: 1, B: 1, C: 1}
        assert known.names([1]) == {A, B, C}

    def test_a_name_that_is_noted_again_changes_nothing(self, known: Links) -> None:
        noted(known, a=1, b=1)
        noted(known, a=1, b=1)
        assert known.names([1]) == {A, B}
        assert known.take_lost() == set()

    def test_a_name_that_is_noted_of_another_file_is_no_longer_the_firsts(
        self, known: Links
    ) -> None:
        noted(known, a=1, b=1)
        noted(known, a=2)
        assert known.names([1]) == {B}
        assert known.names([2]) == {A}
        assert known.inodes == {}
        assert known.take_lost() == {B}

    def test_it_looks_at_nothing(self, files: Files) -> None:
        noted(files.known, a=1, b=1)
        assert not files.known.is_searching
        assert files.directory.scans == 0


class TestForget:
    def test_the_names_that_are_left_are_to_be_examined_once(self, known: Links) -> None:
        noted(known, a=1, b=1, c=1)
        known.forget(A)
        assert known.take_lost() == {B, C}
        assert known.take_lost() == set()
        assert known.names([1]) == {B, C}

    def test_the_last_name_is_no_longer_one_of_several_here(self, known: Links) -> None:
        noted(known, a=1, b=1)
        known.forget(A)
        assert (known.inodes, known.single) == ({}, {B: 1})
        noted(known, c=1)
        assert known.inodes == {B: 1, C: 1}

    def test_a_name_alone_is_forgotten_with_its_file(self, known: Links) -> None:
        noted(known, a=1)
        known.forget(A)
        assert not known.names([1])
        assert known.single == {}
        assert known.take_lost() == set()

    def test_a_name_that_nobody_knows_is_nothing_to_forget(self, known: Links) -> None:
        noted(known, a=1, b=1)
        known.forget(C)
        assert known.take_lost() == set()
        assert known.inodes == {A: 1, B: 1}

    def test_all_that_is_forgotten_gives_its_memory_back(
        self, known: Links, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_NAMES_MAX", 5)
        monkeypatch.setattr(links, "_BYTES_MAX", 4)
        for _ in range(10):
            noted(known, a=1, b=1)
            known.rename(A, C)
            for name in (B, C):
                known.forget(name)
        assert not known.doubt


class TestRename:
    def test_the_new_name_is_known_and_what_had_it_before_has_lost_it(self, known: Links) -> None:
        noted(known, a=1, b=1, c=2, d=2)
        known.rename(A, C)
        assert known.inodes == {B: 1, C: 1}
        assert known.single == {b"d": 2}
        assert known.take_lost() == {b"d"}

    def test_a_name_alone_is_known_by_its_new_one(self, known: Links) -> None:
        noted(known, a=1)
        known.rename(A, B)
        assert known.single == {B: 1}
        noted(known, c=1)
        assert known.inodes == {B: 1, C: 1}

    def test_a_file_of_one_name_takes_a_name_from_one_of_several(self, known: Links) -> None:
        noted(known, b=1)
        known.rename(A, B)
        assert (known.inodes, known.single) == ({}, {})

    def test_a_file_that_has_both_names_keeps_the_new_one(self, known: Links) -> None:
        noted(known, a=1, b=1)
        known.rename(A, B)
        assert known.names([1]) == {B}

    def test_a_name_that_stays_the_same_stays(self, known: Links) -> None:
        noted(known, a=1, b=1)
        known.rename(A, A)
        assert known.inodes == {A: 1, B: 1}


class TestSearch:
    def test_finds_all_names_of_a_file_of_which_nothing_was_known(self, files: Files) -> None:
        inode = files.link(A, B, C)
        files.link(b"other", b"another")
        files.known.note(B, inode, search=True)
        assert files.searched() == [A, C]  # B was found already
        assert files.known.inodes == {A: inode, B: inode, C: inode}

    def test_finds_names_that_are_left_out_of_the_mirror_since_writes_go_through_them_too(
        self, files: Files
    ) -> None:
        files.known.note(A, files.link(A, X), search=True)
        assert files.searched() == [X]
        assert set(files.known.inodes) == {A, X}

    def test_is_not_wanted_for_a_file_that_is_known(self, files: Files) -> None:
        inode = files.link(A, B)
        files.known.note(A, inode)
        files.known.note(B, inode, search=True)
        assert not files.known.is_searching

    def test_is_not_wanted_again_for_a_file_whose_other_names_are_elsewhere(
        self, files: Files
    ) -> None:
        inode = files.link(A)
        for _ in range(3):
            files.known.note(A, inode, search=True)
            files.searched()
        assert files.directory.scans == 1

    def test_goes_on_in_steps_of_so_many_names(self, files: Files) -> None:
        names = [f"{number:03}".encode() for number in range(10)]
        files.known.note(names[0], files.link(*names), search=True)
        steps = [files.known.search(4) for _ in range(3)]
        assert max(len(step) for step in steps) <= 4
        assert set().union(*steps) == {*names[1:]}
        assert not files.known.is_searching

    def test_ends_also_when_the_last_step_is_a_full_one(self, files: Files) -> None:
        files.known.note(A, files.link(A, B, C, b"d"), search=True)
        assert sorted(files.searched(at_once=2)) == [B, C, b"d"]
        assert files.known.search(2) == set()
        assert files.directory.scans == 1

    def test_looks_for_many_files_in_one_scan(self, files: Files) -> None:
        files.known.note(A, files.link(A, B), search=True)
        files.known.note(C, files.link(C, X), search=True)
        assert files.searched() == [B, X]
        assert files.directory.scans == 1

    def test_looks_in_another_scan_for_what_is_wanted_since_one_began(self, files: Files) -> None:
        first, second = files.link(A, B), files.link(C, X)
        files.known.note(A, first, search=True)
        found = files.known.search(3)
        files.known.note(C, second, search=True)
        found |= files.known.search(MANY)
        assert found == {B}
        assert files.known.is_searching
        assert files.searched() == [X]
        assert files.directory.scans == 2

    def test_finds_the_others_of_a_name_that_is_gone_by_then(self, files: Files) -> None:
        files.known.note(A, files.link(A, B), search=True)
        files.at(A).unlink()
        files.known.forget(A)
        assert files.searched() == [B]

    def test_begins_anew_after_the_directory_could_not_be_listed(self, files: Files) -> None:
        files.known.note(A, files.link(A, B), search=True)
        files.directory.fails_after = 1
        with pytest.raises(DirectoryGoneError):
            files.known.search(MANY)
        files.directory.fails_after = None
        assert files.known.is_searching
        assert files.searched() == [B]

    def test_completes_what_a_scan_of_the_files_has_found(self, files: Files) -> None:
        inode, other = files.link(A, X), files.link(B)
        files.known.note(A, inode)
        files.known.note(B, other)
        assert not files.known.is_searching
        files.known.complete()
        assert files.searched() == [X]
        assert files.known.inodes == {A: inode, X: inode}
        assert files.directory.scans == 1

    def test_does_nothing_when_nothing_is_wanted(self, files: Files) -> None:
        assert files.known.search(MANY) == set()
        assert files.directory.scans == 0


class TestMemory:
    COUNT = 150_000

    def test_that_many_files_with_a_name_elsewhere_are_remembered_and_never_looked_for(
        self, files: Files
    ) -> None:
        known = files.known
        tracemalloc.start()
        try:
            for number in range(self.COUNT):
                known.note(b"some-name-%030d" % number, (1 << 40) + number)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for number in range(0, self.COUNT, 100):
            known.note(b"some-name-%030d" % number, (1 << 40) + number, search=True)
        assert (known.doubt, known.is_searching, files.directory.scans) == (False, False, 0)
        assert held < 32e6, held

    @pytest.mark.parametrize("per_file", [1, 2, 1000])
    @pytest.mark.parametrize("length", [10, 255])
    def test_is_bounded_whatever_there_is(self, known: Links, per_file: int, length: int) -> None:
        tracemalloc.start()
        try:
            for number in range(200_000):
                name, inode = b"%0*d" % (length, number), (1 << 40) + number // per_file
                known.note(name, inode, search=True)
                if known.doubt:
                    break
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert known.doubt
        assert held < 36e6, held

    def test_what_is_too_much_is_not_remembered_and_said(
        self, known: Links, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_NAMES_MAX", 2)
        noted(known, a=1, b=2, c=1)
        assert not known.doubt  # nothing has happened to it
        known.note(C, 1, search=True)
        assert known.doubt
        assert known.single == {A: 1, B: 2}

    def test_a_file_for_which_there_is_no_memory_is_not_looked_for(
        self, known: Links, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_NAMES_MAX", 1)
        noted(known, a=1)
        known.note(B, 2, search=True)
        assert known.doubt
        assert not known.is_searching

    def test_a_file_that_is_remembered_causes_no_doubt_later(
        self, known: Links, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_NAMES_MAX", 1)
        noted(known, a=1)
        known.note(A, 1, search=True)
        assert not known.doubt

    def test_files_that_are_looked_for_count(
        self, known: Links, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_NAMES_MAX", 10)
        for inode in range(20):
            known.note(A, inode, search=True)  # each time another file has the name
        assert known.doubt
