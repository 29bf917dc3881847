import os
from collections.abc import Container, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sync.core.exclude import Excluded
from sync.disk import links
from sync.disk.files import Directory
from sync.disk.links import Links

A, B, C, X = b"a", b"b", b"c", b"x~"


class Counted(Directory):
    """A directory that counts how often it is looked through."""

    scans = 0

    def names_of(self, inodes: Container[int]) -> Iterator[tuple[bytes, int]]:
        self.scans += 1
        return super().names_of(inodes)


class Files:
    """A directory with a file that has some names, one of them elsewhere, and what is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.elsewhere = path.with_name("elsewhere")
        self.directory = Counted(path, Excluded(["*~"]))
        self.known = Links(self.directory)

    def link(self, *names: bytes) -> int:
        """Give these names to a new file, which has a name elsewhere too; return its inode."""
        self.elsewhere.write_bytes(b"")
        for name in names:
            os.link(self.elsewhere, self.at(name))
        return self.elsewhere.stat().st_ino

    def at(self, name: bytes) -> Path:
        return self.path / os.fsdecode(name)

    def found(self, name: bytes) -> set[bytes]:
        """Return the names that a file is known to have after it was found under this one."""
        inode, count = self.directory.links(name)
        self.known.note(name, inode, count)
        self.known.look_for([inode])
        return self.known.names([inode])


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    path = tmp_path / "root"
    path.mkdir()
    files = Files(path)
    with closing(files.directory):
        yield files


def test_all_names_of_a_file_are_found_from_one_of_them(files: Files) -> None:
    files.link(A, B, C)
    assert files.found(B) == {A, B, C}


def test_a_name_that_is_left_out_of_the_mirror_is_known_since_writes_go_through_it_too(
    files: Files,
) -> None:
    files.link(A, X)
    assert files.found(A) == {A, X}


def test_a_file_with_a_name_elsewhere_is_looked_for_only_once(files: Files) -> None:
    files.link(A, B)
    for name in (A, B, A):
        assert files.found(name) == {A, B}
    assert files.directory.scans == 1


def test_a_file_all_of_whose_names_were_seen_is_not_looked_for_again(files: Files) -> None:
    inode = files.link(A, B)
    for name in (A, B):
        files.known.note(name, inode, links=3)
    files.known.complete()
    assert files.found(A) == {A, B}
    assert files.directory.scans == 1


def test_a_name_that_it_got_meanwhile_is_found(files: Files) -> None:
    files.link(A, B)
    files.found(A)
    os.link(files.at(A), files.at(C))
    assert files.found(A) == {A, B, C}


def test_a_name_that_it_got_for_one_that_it_lost_is_found(files: Files) -> None:
    files.link(A, B)
    files.found(A)
    files.at(B).rename(files.at(C))
    assert files.found(A) == {A, C}


def test_a_name_that_came_from_elsewhere_is_found(files: Files) -> None:
    files.link(A)
    files.found(A)
    files.elsewhere.rename(files.at(B))
    assert files.found(B) == {A, B}


def test_a_name_that_is_another_files_by_now_is_forgotten(files: Files) -> None:
    files.link(A, B)
    files.found(A)
    files.at(B).unlink()
    files.at(B).write_bytes(b"another")
    assert files.found(A) == {A}
    assert B not in files.known.inodes


def test_a_name_that_is_noted_of_another_file_is_no_longer_the_firsts(files: Files) -> None:
    files.known.note(A, inode=1, links=2)
    files.known.note(A, inode=2, links=2)
    assert files.known.inodes == {A: 2}
    assert files.known.names([1]) == set()


def test_a_renamed_name_is_known_by_its_new_one_and_what_had_that_has_lost_it(
    files: Files,
) -> None:
    for name, inode in ((A, 1), (B, 1), (C, 2)):
        files.known.note(name, inode, links=2)
    files.known.rename(A, C)
    assert files.known.names([1]) == {B, C}
    assert files.known.names([2]) == set()


def test_a_file_of_one_name_takes_a_name_from_one_of_several(files: Files) -> None:
    files.known.note(B, inode=1, links=2)
    files.known.rename(A, B)
    assert files.known.inodes == {}


def test_the_names_of_all_noted_files_are_found_in_one_scan(files: Files, tmp_path: Path) -> None:
    first = files.link(A, B)
    files.elsewhere = tmp_path / "another"
    second = files.link(C)
    files.known.note(A, first, links=3)
    files.known.note(C, second, links=2)
    files.known.complete()
    assert files.known.inodes == {A: first, B: first, C: second}
    files.known.complete()
    assert files.directory.scans == 1


def test_when_there_are_too_many_names_all_are_forgotten_and_found_again(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_NAMES_MAX", 2)
    for name in (A, B, C):
        files.known.note(name, inode=1, links=9)
    assert files.known.inodes == {C: 1}
    assert files.known.names([1]) == {C}
