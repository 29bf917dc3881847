"""What the kernel tells of a directory, and which changes that is."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sync.core.changes import Changed, Created, Renamed, Unfinished
from sync.disk.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def watch(root: Path) -> Iterator[Watch]:
    (root / "old").write_bytes(b"old")
    with closing(Watch(root)) as watch:
        yield watch


def test_a_new_file_is_one_change_until_it_is_closed(root: Path, watch: Watch) -> None:
    with (root / "a").open("wb", 0) as file:
        assert watch.read() == [Created(b"a")]
        file.write(b"1")
        assert watch.read() == [Unfinished(b"a")]
    assert watch.read() == [Changed(b"a")]
    (root / "b").write_bytes(b"1")
    assert watch.read() == [Created(b"b", is_written=True), Changed(b"b")]


def test_many_writes_are_one_change(root: Path, watch: Watch) -> None:
    with (root / "old").open("ab", 0) as file:
        for _ in range(3):
            file.write(b"1")
        os.ftruncate(file.fileno(), 1)
        assert watch.read() == [Unfinished(b"old")]


@pytest.mark.parametrize("is_written", [False, True])
def test_another_name_of_a_file_is_new_and_whoever_writes_to_it_is_told(
    root: Path, watch: Watch, is_written: bool
) -> None:
    (root / "new").hardlink_to(root / "old")
    if is_written:
        os.truncate(root / "new", 1)
    assert watch.read() == [Created(b"new", is_written=is_written)]


def test_what_is_written_after_a_name_is_anothers_is_told_of_that(root: Path, watch: Watch) -> None:
    with (root / "a").open("wb", 0):
        (root / "a").unlink()
        with (root / "a").open("wb", 0) as second:
            (root / "a").rename(root / "b")
            second.write(b"2")
            os.mknod(root / "a")
    assert watch.read() == [
        *[Created(b"a"), Changed(b"a"), Created(b"a"), Renamed(b"a", b"b"), Unfinished(b"b")],
        *[Created(b"a"), Changed(b"b"), Changed(b"a")],
    ]
