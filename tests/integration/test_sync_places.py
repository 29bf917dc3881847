"""How the directories of a tree are opened: from the root on, and never through a link."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.mounts import TMPFS, mounted, only_root

from sync.core.exclude import Excluded
from sync.disk.files import Directory
from sync.disk.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_MAX = 64
LONG = "x" * 254  # a name that is nearly as long as one can be


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def opened(*roots: Path) -> list[str]:
    """Return what this process has open at some paths, and below them."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = Path(f"/proc/self/fd/{fd}").readlink()
        except OSError:  # it was for the listing, or is another's, deeper than a path can be long
            continue
        if any(path.is_relative_to(root) for root in roots):
            found.append(str(path))
    return found


@contextmanager
def places_of(root: Path, *patterns: str) -> Iterator[Places]:
    """Open a root for the time of the block, without what matches a pattern."""
    places = Places(Excluded(patterns).match)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        places.begin(fd, identity(root))
        yield places
    finally:
        places.forget()
        os.close(fd)


@pytest.fixture
def places(root: Path) -> Iterator[Places]:
    with places_of(root) as places:
        yield places


class TestAPlace:
    @pytest.mark.parametrize("name", ["", "d/", "d/e/", "d/e/" + "f/" * 100])
    def test_is_that_of_the_directory_at_its_path(
        self, root: Path, places: Places, name: str
    ) -> None:
        (root / name).mkdir(parents=True, exist_ok=True)
        found = places.at(name.encode())
        assert found.identity == identity(root / name)
        assert os.path.samestat(os.fstat(found.fd), (root / name).stat())
        assert found.salt == 0

    @pytest.mark.parametrize("name", [b"e/", b"d/e/f/", b"file/", b"d/file/", b"d/file/e/"])
    def test_is_nobodys_when_no_directory_is_there(
        self, root: Path, places: Places, name: bytes
    ) -> None:
        (root / "d/e").mkdir(parents=True)
        for file in ("file", "d/file"):
            (root / file).touch()
        with pytest.raises(FileNotFoundError):
            places.at(name)

    def test_of_a_name_that_none_can_have_is_nobodys(self, places: Places) -> None:
        with pytest.raises(FileNotFoundError):
            places.at(b"x" * 256 + b"/")

    def test_of_which_nobody_knows_what_is_there_is_no_place_without_a_directory(
        self, root: Path, places: Places
    ) -> None:
        (root / "d").mkdir()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(OSError) as caught:  # noqa: PT011  # its number tells
                places.at(b"d/")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE

    def test_is_looked_up_from_the_directory_above_as_it_was_opened(
        self, root: Path, places: Places
    ) -> None:
        (root / "d/e").mkdir(parents=True)
        places.at(b"d/")
        (root / "d").rename(root / "moved")
        (root / "d/e").mkdir(parents=True)
        assert places.at(b"d/e/").identity == identity(root / "moved/e")

    def test_is_anothers_after_it_was_forgotten(self, root: Path, places: Places) -> None:
        (root / "d").mkdir()
        first = places.at(b"d/").identity
        (root / "d").rename(root / "moved")
        (root / "d").mkdir()
        assert places.at(b"d/").identity == first
        places.forget()
        assert places.at(b"d/").identity == identity(root / "d") != first


class TestALink:
    @pytest.mark.parametrize("name", ["d", "d/e", "d/e/f"])
    @pytest.mark.parametrize("is_inside", [False, True])
    def test_is_followed_at_no_level(
        self, root: Path, outside: Path, places: Places, name: str, *, is_inside: bool
    ) -> None:
        elsewhere = (root if is_inside else outside) / "elsewhere"
        (elsewhere / "e/f").mkdir(parents=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(elsewhere / Path(name).relative_to("d"))
        assert (root / "d/e/f").is_dir()
        with pytest.raises(FileNotFoundError):
            places.at(b"d/e/f/")
        assert opened(elsewhere) == []

    @pytest.mark.parametrize("name", ["d", "d/e", "d/e/f"])
    def test_that_takes_the_place_of_one_that_was_open_is_not_followed(
        self, root: Path, outside: Path, places: Places, name: str
    ) -> None:
        (outside / "elsewhere/e/f").mkdir(parents=True)
        (root / "d/e/f").mkdir(parents=True)
        places.at(b"d/e/f/")
        (root / name).rename(outside / "away")
        (root / name).symlink_to(outside / "elsewhere" / Path(name).relative_to("d"))
        places.forget()
        with pytest.raises(FileNotFoundError):
            places.at(b"d/e/f/")
        assert opened(outside) == []


class TestWhatIsLeftOut:
    @pytest.mark.parametrize("name", [b"x/", b"x/e/", b"d/x/", b"d/x/e/"])
    def test_is_not_there_nor_what_is_below(self, root: Path, name: bytes) -> None:
        for each in ("x/e", "d/x/e"):
            (root / each).mkdir(parents=True)
        with places_of(root, "x") as places:
            with pytest.raises(FileNotFoundError):
                places.at(name)
            assert places.at(b"d/")
        with places_of(root) as places:
            assert places.at(name)

    def test_for_a_while_is_there_again_afterwards(self, root: Path, places: Places) -> None:
        (root / "d/e").mkdir(parents=True)
        places.left_out.add(b"d/")
        for place in (b"d/", b"d/e/"):
            with pytest.raises(FileNotFoundError):
                places.at(place)
        places.left_out.discard(b"d/")
        assert places.at(b"d/e/").identity == identity(root / "d/e")


class TestDescriptors:
    @pytest.mark.parametrize("is_deep", [False, True])
    def test_are_so_many_and_no_more(self, root: Path, places: Places, *, is_deep: bool) -> None:
        names = ["d/" * depth if is_deep else f"{depth}/" for depth in range(1, 4 * OPEN_MAX)]
        most = 0
        for name in names:
            (root / name).mkdir()
            assert places.at(name.encode()).identity == identity(root / name)
            most = max(most, len(opened(root)))
        places.forget()
        assert places.at(names[-1].encode()).identity == identity(root / names[-1])
        most = max(most, len(opened(root)))
        assert most <= OPEN_MAX + 1  # the root's own

    def test_of_places_are_kept_until_they_are_forgotten(self, root: Path, places: Places) -> None:
        (root / "d/e").mkdir(parents=True)
        (root / "g").mkdir()
        first = places.at(b"d/e/")
        places.at(b"g/")
        assert places.at(b"d/e/") is first
        assert sorted(opened(root)) == [str(root / name) for name in ("", "d", "d/e", "g")]
        places.forget()
        assert opened(root) == [str(root)]

    def test_of_a_search_that_ended_before_its_place_are_closed_too(
        self, root: Path, places: Places
    ) -> None:
        (root / "d/e").mkdir(parents=True)
        (root / "d/e/file").touch()
        for name in (b"d/e/f/", b"d/e/file/"):
            with pytest.raises(FileNotFoundError):
                places.at(name)
        places.forget()
        assert opened(root) == [str(root)]

    def test_are_none_while_the_directory_rests(self, root: Path) -> None:
        (root / "d/e").mkdir(parents=True)
        with closing(Directory(root, is_tree=True)) as directory:
            directory.open_at(b"d/e/")
            assert len(opened(root)) == 3
            directory.rest()
            assert opened(root) == []
            directory.wake()
            assert directory.open_at(b"d/e/").identity == identity(root / "d/e")


class TestALongPath:
    def test_is_one_that_no_program_could_open(self, places: Places) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011  # its number tells
            places.at(b"d/" * 2048)
        assert caught.value.errno == errno.ENAMETOOLONG
        with pytest.raises(FileNotFoundError):
            places.at(b"d/" * 2047)

    def test_below_the_root_is_none_though_with_that_it_is_one(
        self, root: Path, places: Places
    ) -> None:
        names = [LONG] * 16
        at = os.open(root, os.O_DIRECTORY)
        for name in names:
            os.mkdir(name, dir_fd=at)
            above, at = at, os.open(name, os.O_DIRECTORY, dir_fd=at)
            os.close(above)
        status = os.fstat(at)
        os.close(at)
        place = "/".join([*names, ""]).encode()
        assert len(os.fsencode(root)) + len(place) > 4096
        assert places.at(place).identity == (status.st_dev, status.st_ino)


@only_root
class TestAMount:
    def test_of_another_file_system_has_its_identity_and_a_salt_of_its_own(
        self, root: Path, places: Places
    ) -> None:
        for name in ("m", "n"):
            (root / name).mkdir()
        with mounted(*TMPFS, root / "m"), mounted(*TMPFS, root / "n"):
            (root / "m/d").mkdir()
            one, other = places.at(b"m/"), places.at(b"n/")
            assert one.identity == identity(root / "m")
            assert len({0, one.salt, other.salt}) == 3
            assert places.at(b"m/d/").salt == one.salt
            places.forget()

    def test_tells_equal_inodes_of_two_file_systems_apart(self, root: Path) -> None:
        for name in ("m", "n"):
            (root / name).mkdir()
        with mounted(*TMPFS, root / "m"), mounted(*TMPFS, root / "n"):
            for name in ("m/a", "n/a"):
                (root / name).touch()
            assert (root / "m/a").stat().st_ino == (root / "n/a").stat().st_ino
            with closing(Directory(root, is_tree=True)) as directory:
                one, other = directory.signature(b"m/a"), directory.signature(b"n/a")
        assert one
        assert other
        assert one.inode != other.inode

    def test_of_the_same_file_system_has_no_salt(
        self, root: Path, outside: Path, places: Places
    ) -> None:
        (root / "m").mkdir()
        with mounted("--bind", outside, root / "m"):
            found = places.at(b"m/")
            assert (found.identity, found.salt) == (identity(outside), 0)
            places.forget()
