"""What a reader of keys is promised of a whole tree: SYNC_TREE=1."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.conftest import POWERLESS, SYNC
from integration.files import make, write
from integration.shape import NASTY
from integration.workload import exchange
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import RedisServer, Service, Start

OWN = b"/mdvp-sync/"
# Gives a service a user namespace of its own, in which so many watches are all that it gets.
WATCHES = 20
FEW_WATCHES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    *(f'echo {WATCHES} >/proc/sys/user/max_inotify_watches && exec "$@"', "sh"),
)


def make_tree(root: Path, width: int, levels: int) -> None:
    """Make directories in each other, so many in each, with some files in each."""
    make(root, "a", "b", "c")
    for number in range(width if levels else 0):
        make_tree(root / f"directory-{number}", width, levels - 1)


def names_of(service: Service) -> list[str]:
    return sorted(map(os.fsdecode, service.redis.keys()))


def told(service: Service, work: Callable[[], object]) -> list[str]:
    """Return what Redis is told until what `work` does to the tree has been followed."""

    def do() -> None:
        work()
        service.catches_up()

    return service.redis.commands(do)


def said_of_status(service: Service) -> str:
    return subprocess.run(
        (*SYNC, "status"), env=service.environ, capture_output=True, text=True, check=False
    ).stdout


def repair(service: Service) -> str:
    """Return what `mdvp-sync verify --repair` says."""
    command = (*SYNC, "verify", "--repair")
    return subprocess.run(
        command, env=service.environ, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def tree(redis_server: RedisServer, start: Start) -> Service:  # noqa: ARG001
    """Return a service that is in step with an empty tree, and is not helped by rescans."""
    return start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0")


class TestFiles:
    @pytest.mark.parametrize("depth", [1, 3, 50])
    def test_at_any_depth_is_a_key(self, tree: Service, depth: int) -> None:
        name = "d/" * depth + "file"
        write(tree.root / name)
        eventually(tree.redis.keys, {name.encode(): b"one"})

    @pytest.mark.parametrize("depth", [1, 3, 50])
    @pytest.mark.usefixtures("redis_server")
    def test_at_any_depth_is_a_key_after_the_start(
        self, root: Path, start: Start, depth: int
    ) -> None:
        name = "d/" * depth + "file"
        write(root / name)
        assert start(in_step=True, SYNC_TREE="1").redis.keys() == {name.encode(): b"one"}

    def test_an_empty_directory_is_no_key_and_no_error(self, tree: Service) -> None:
        (tree.root / "d" / "e").mkdir(parents=True)
        tree.catches_up()
        assert names_of(tree) == []
        assert not tree.says("ERROR")

    def test_that_is_changed_changes_its_key(self, tree: Service) -> None:
        write(tree.root / "d/e/a")
        tree.catches_up()
        write(tree.root / "d/e/a", "another")
        eventually(tree.redis.keys, {b"d/e/a": b"another"})

    def test_that_is_deleted_is_no_key(self, tree: Service) -> None:
        make(tree.root, "d/e/a", "d/e/b", "d/a")
        tree.catches_up()
        (tree.root / "d/e/a").unlink()
        tree.catches_up()
        assert names_of(tree) == ["d/a", "d/e/b"]

    @pytest.mark.parametrize("new", ["d/b", "b", "d/f/g/b"])
    def test_that_is_renamed_within_a_directory_or_to_another_is_renamed_in_redis(
        self, tree: Service, new: str
    ) -> None:
        make(tree.root, "d/a", "e/x", "d/f/x", "d/f/g/x")
        tree.catches_up()
        seen = told(tree, lambda: (tree.root / "d/a").rename(tree.root / new))
        assert f"RENAME d/a {new}" in seen
        assert [command for command in seen if "content of d/a" in command] == []
        assert tree.get(new) == b"content of d/a"

    def test_of_two_directories_can_be_one(self, tree: Service) -> None:
        write(tree.root / "d/a")
        (tree.root / "e").mkdir()
        (tree.root / "e/b").hardlink_to(tree.root / "d/a")
        eventually(tree.redis.keys, {b"d/a": b"one", b"e/b": b"one"})
        write(tree.root / "e/b", "two")
        eventually(tree.redis.keys, {b"d/a": b"two", b"e/b": b"two"})

    def test_of_which_a_name_in_a_new_directory_is_written_to_changes_under_all(
        self, tree: Service
    ) -> None:
        write(tree.root / "d/a")
        tree.catches_up()
        with tree.paused():
            (tree.root / "e/f").mkdir(parents=True)
            (tree.root / "e/f/b").hardlink_to(tree.root / "d/a")
            write(tree.root / "e/f/b", "two")
        eventually(tree.redis.keys, {b"d/a": b"two", b"e/f/b": b"two"})

    def test_in_directories_of_any_name_are_keys(self, tree: Service) -> None:
        for name in NASTY:
            write(tree.root / os.fsdecode(name) / "a")
        tree.catches_up()
        assert tree.redis.keys().keys() == {name + b"/a" for name in NASTY}
        for number, name in enumerate(NASTY):
            (tree.root / os.fsdecode(name)).rename(tree.root / f"{number}\n")
        tree.catches_up()
        assert tree.redis.keys().keys() == {b"%d\n/a" % each for each in range(len(NASTY))}

    def test_that_editors_drop_are_left_out_at_any_depth(self, tree: Service) -> None:
        make(tree.root, "d/e/.a.swp", "d/e/a~", "d/e/a")
        eventually(lambda: names_of(tree), ["d/e/a"])

    def test_that_are_large_come_and_go_with_their_directory(
        self, tree: Service, outside: Path
    ) -> None:
        write(outside / "d/e/large", "x" * (3 << 20))
        (outside / "d").rename(tree.root / "d")
        tree.catches_up()
        (tree.root / "d").rename(tree.root / "f")
        tree.catches_up()
        assert names_of(tree) == ["f/e/large"]


class TestDirectories:
    def test_that_is_moved_is_renames_and_nothing_is_read_again(self, tree: Service) -> None:
        names = [f"d/{below}a-{number}" for below in ("", "e/", "e/f/") for number in range(20)]
        make(tree.root, *names)
        tree.catches_up()
        seen = told(tree, lambda: (tree.root / "d").rename(tree.root / "g"))
        moved = [command for command in seen if command.startswith("RENAME d/")]
        assert sorted(moved) == sorted(f"RENAME {name} g{name[1:]}" for name in names)
        assert [command for command in seen if "content of" in command] == []

    def test_that_is_moved_into_another_and_back_is_right(self, tree: Service) -> None:
        make(tree.root, "d/a", "d/e/a", "f/g/a")
        tree.catches_up()
        (tree.root / "d").rename(tree.root / "f/g/d")
        eventually(lambda: names_of(tree), ["f/g/a", "f/g/d/a", "f/g/d/e/a"])
        write(tree.root / "f/g/d/e/a", "two")
        eventually(lambda: tree.get("f/g/d/e/a"), b"two")
        (tree.root / "f/g/d").rename(tree.root / "d")
        write(tree.root / "d/e/a", "three")
        tree.catches_up()
        assert names_of(tree) == ["d/a", "d/e/a", "f/g/a"]

    def test_that_is_moved_in_brings_all_that_is_below(self, tree: Service, outside: Path) -> None:
        make_tree(outside / "d", 5, 3)
        (outside / "d").rename(tree.root / "d")
        tree.catches_up()
        assert len(names_of(tree)) == 3 * (1 + 5 + 25 + 125)
        write(tree.root / "d/directory-4/directory-4/directory-4/a", "two")
        tree.catches_up()

    def test_that_is_moved_out_takes_all_its_keys(self, tree: Service, outside: Path) -> None:
        make_tree(tree.root / "d", 3, 2)
        make(tree.root, "a")
        tree.catches_up()
        (tree.root / "d").rename(outside / "d")
        write(outside / "d/directory-0/a", "not mirrored")
        eventually(lambda: names_of(tree), ["a"])
        tree.catches_up()

    def test_that_is_moved_out_and_in_again_is_right(self, tree: Service, outside: Path) -> None:
        make(tree.root, "d/e/a", "d/e/b")
        tree.catches_up()
        (tree.root / "d").rename(outside / "d")
        write(outside / "d/e/a", "meanwhile")
        (outside / "d").rename(tree.root / "f")
        tree.catches_up()
        write(tree.root / "f/e/b", "later")
        eventually(tree.redis.keys, {b"f/e/a": b"meanwhile", b"f/e/b": b"later"})

    def test_that_is_removed_takes_all_its_keys(self, tree: Service) -> None:
        make_tree(tree.root / "d", 3, 2)
        make(tree.root, "a")
        tree.catches_up()
        shutil.rmtree(tree.root / "d")
        tree.catches_up()
        assert names_of(tree) == ["a"]

    @pytest.mark.parametrize("gone", ["foo", "[a]"])
    def test_that_is_removed_spares_those_of_similar_names(self, tree: Service, gone: str) -> None:
        spared = ["a/a", "b/a", "fo/a", "foo.a", "foobar/a", "[a]b/a", "**/a", "??/a"]
        make(tree.root, *spared, f"{gone}/a", f"{gone}/b/a")
        theirs = {f"{gone}/theirs".encode(): b"no file's"}
        tree.redis.client.mset(theirs)
        tree.catches_up(theirs)
        shutil.rmtree(tree.root / gone)
        tree.catches_up(theirs)

    def test_that_is_renamed_over_an_empty_one_is_right(self, tree: Service) -> None:
        make(tree.root, "d/a", "d/e/a")
        (tree.root / "f").mkdir()
        tree.catches_up()
        (tree.root / "d").rename(tree.root / "f")
        tree.catches_up()
        write(tree.root / "f/e/a", "two")
        eventually(lambda: tree.get("f/e/a"), b"two")
        assert names_of(tree) == ["f/a", "f/e/a"]

    @pytest.mark.parametrize("paused", [False, True])
    @pytest.mark.parametrize(("one", "other"), [("d", "e"), ("d/f", "e")])
    def test_that_change_places_are_right(
        self, tree: Service, *, one: str, other: str, paused: bool
    ) -> None:
        make(tree.root, "d/a", "d/f/a", "d/f/g/a", "e/a", "e/b", "e/f/b", "e/f/h/a")
        tree.catches_up()
        with paused_if(tree, paused=paused):
            exchange(tree.root / one, tree.root / other)
        tree.catches_up()
        for name in ("d/f/a", "e/a", "e/f/b"):
            if (tree.root / name).parent.is_dir():
                write(tree.root / name, "two")
        tree.catches_up()

    def test_that_change_places_by_a_third_name_are_right(self, tree: Service) -> None:
        make(tree.root, "d/a", "d/f/a", "e/a", "e/b")
        tree.catches_up()
        with tree.paused():
            for old, new in (("d", "third"), ("e", "d"), ("third", "e")):
                (tree.root / old).rename(tree.root / new)
        tree.catches_up()
        write(tree.root / "e/f/a", "two")
        tree.catches_up()
        assert names_of(tree) == ["d/a", "d/b", "e/a", "e/f/a"]

    @pytest.mark.parametrize("paused", [False, True])
    def test_that_go_through_quick_chains_of_renames_are_right(
        self, tree: Service, *, paused: bool
    ) -> None:
        make(tree.root, "a/b/x", "a/b/e/y", "a/z")
        tree.catches_up()
        with paused_if(tree, paused=paused):
            for number in range(20):
                (tree.root / "a/b").rename(tree.root / "c")
                (tree.root / "c").rename(tree.root / "a/d")
                (tree.root / "a").rename(tree.root / "h")
                (tree.root / "h/d").rename(tree.root / "h/b")
                (tree.root / "h").rename(tree.root / "a")
                write(tree.root / "a/b/e/y", f"turn {number}")
        tree.catches_up()
        assert names_of(tree) == ["a/b/e/y", "a/b/x", "a/z"]

    def test_that_is_written_to_between_two_renames_is_right(self, tree: Service) -> None:
        make(tree.root, "d/a", "d/e/a")
        tree.catches_up()
        with tree.paused():
            (tree.root / "d").rename(tree.root / "g")
            write(tree.root / "g/a", "two")
            write(tree.root / "g/e/a", "two")
            (tree.root / "g").rename(tree.root / "h")
        eventually(tree.redis.keys, {b"h/a": b"two", b"h/e/a": b"two"})

    def test_of_which_a_child_becomes_the_parent_is_right(self, tree: Service) -> None:
        make(tree.root, "d/a", "d/e/b", "d/e/f/c")
        tree.catches_up()
        with tree.paused():
            (tree.root / "d/e").rename(tree.root / "g")
            (tree.root / "d").rename(tree.root / "g/f/d")
            (tree.root / "g").rename(tree.root / "d")
        tree.catches_up()
        assert names_of(tree) == ["d/b", "d/f/c", "d/f/d/a"]

    def test_that_is_renamed_while_files_below_are_written_is_right(self, tree: Service) -> None:
        make_tree(tree.root / "d", 2, 2)
        tree.catches_up()

        def write_below() -> None:
            for number in range(150):
                with (
                    open_below(tree.root / f"{'de'[number % 2]}/directory-1") as below,
                    os.fdopen(os.open(f"new-{number % 50}", WRITE, dir_fd=below), "w") as file,
                ):
                    file.write(f"content {number}")

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(write_below)
            while not written.done():
                (tree.root / "d").rename(tree.root / "e")
                (tree.root / "e").rename(tree.root / "d")
            written.result()
        tree.catches_up()

    def test_of_an_archive_that_is_unpacked_are_followed(
        self, tree: Service, outside: Path
    ) -> None:
        for number in range(300):
            make(outside / "all", *(f"{number % 20}/{number}/{each}" for each in range(10)))
        archive = outside / "all.tar"
        subprocess.run(("tar", "-C", outside / "all", "-cf", archive, "."), check=True)
        subprocess.run(("tar", "-C", tree.root, "-xf", archive), check=True)
        tree.catches_up()
        assert len(names_of(tree)) == 3000

    def test_that_are_made_and_removed_at_the_same_time_end_equal(self, tree: Service) -> None:
        with ThreadPoolExecutor(1) as pool:
            for number in range(30):
                (tree.root / "d").mkdir(exist_ok=True)
                removed = pool.submit(shutil.rmtree, tree.root / "d", ignore_errors=True)
                for each in range(20):
                    make_in_spite_of_all(tree.root / f"d/{each % 3}/{each}", f"{number}")
                removed.result()
        tree.catches_up()

    def test_that_takes_a_files_name_takes_its_key(self, tree: Service) -> None:
        make(tree.root, "d/a", "b")
        tree.catches_up()
        (tree.root / "b").unlink()
        (tree.root / "d").rename(tree.root / "b")
        tree.catches_up()
        assert names_of(tree) == ["b/a"]
        shutil.rmtree(tree.root / "b")
        write(tree.root / "b")
        tree.catches_up()
        assert names_of(tree) == ["b"]

    def test_that_cannot_be_read_keeps_its_keys(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        make(root, "d/a", "d/e/a", "b")
        service = start(in_step=True, prefix=POWERLESS, SYNC_TREE="1", SYNC_RESCAN="0.5")
        (root / "d").chmod(0)
        try:
            write(root / "d/a", "two")  # root may
            write(root / "b", "two")
            eventually(lambda: service.get("b"), b"two")
            eventually(lambda: service.says("ERROR", "Permission denied"), True)
            assert redis_server.keys().keys() == {b"d/a", b"d/e/a", b"b"}
        finally:
            (root / "d").chmod(0o755)
        eventually(lambda: redis_server.keys() == service.files(), True)


WRITE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC


@contextmanager
def paused_if(service: Service, *, paused: bool) -> Iterator[None]:
    """Have all that is done in the block be followed in one batch, or as it comes."""
    if paused:
        with service.paused():
            yield
    else:
        yield


@contextmanager
def open_below(directory: Path) -> Iterator[int]:
    """Open a directory, once it is there: it comes and goes."""
    while True:
        try:
            fd = os.open(directory, os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        break
    try:
        yield fd
    finally:
        os.close(fd)


def make_in_spite_of_all(path: Path, text: str) -> None:
    """Write a file if nobody takes away what it is in."""
    with suppress(OSError):
        write(path, text)


class TestLinks:
    """A symbolic link is not followed, wherever it is in the path of a key."""

    @pytest.fixture
    def secret(self, outside: Path) -> Path:
        """Return a directory outside with files that are called as those inside."""
        for name in ("a", "e/a", "e/f/a"):
            write(outside / "secret" / name, "secret")
        return outside / "secret"

    @pytest.mark.parametrize("name", ["d", "d/e", "d/e/f"])
    def test_one_that_takes_a_directorys_place_takes_its_keys(
        self, tree: Service, outside: Path, secret: Path, name: str
    ) -> None:
        make(tree.root, "d/a", "d/e/a", "d/e/f/a", "b")
        tree.catches_up()
        target = secret / Path(name).relative_to("d")

        def replace() -> None:
            (tree.root / name).rename(outside / "away")
            (tree.root / name).symlink_to(target)
            write(tree.root / "b", "two")

        seen = told(tree, replace)
        write(target / "a", "secret, later")
        tree.catches_up()
        assert [command for command in seen if "secret" in command] == []
        assert [each for each in names_of(tree) if each.startswith(f"{name}/")] == []
        eventually(lambda: tree.says(f"{name} is a symbolic link: not mirrored"), True)

    @pytest.mark.parametrize("name", ["d", "d/e"])
    def test_one_that_takes_a_directorys_place_at_the_last_moment_is_not_followed(
        self, tree: Service, secret: Path, name: str
    ) -> None:
        make(tree.root, "d/a", "d/e/a", "d/e/f/a")
        link = secret.with_name("link")
        link.symlink_to(secret / Path(name).relative_to("d"))

        def replace_all_the_time() -> None:
            for number in range(1000):
                write(tree.root / f"{name}/a", f"turn {number}")
                write(tree.root / f"{name}/new-{number}/a")
                exchange(tree.root / name, link)
                time.sleep(0.0004)  # so that the service looks at it often
                exchange(tree.root / name, link)
                shutil.rmtree(tree.root / f"{name}/new-{number}")

        seen = told(tree, replace_all_the_time)
        assert [command for command in seen if "secret" in command] == []

    @pytest.mark.usefixtures("redis_server")
    def test_one_that_takes_a_directorys_place_while_the_service_is_down_takes_its_keys(
        self, root: Path, outside: Path, secret: Path, start: Start
    ) -> None:
        make(root, "d/a", "d/e/a")
        service = start(in_step=True, SYNC_TREE="1")
        service.process.kill()
        service.process.wait()
        (root / "d").rename(outside / "away")
        (root / "d").symlink_to(secret)
        assert start(in_step=True, SYNC_TREE="1").redis.keys() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
class TestMounts:
    @contextmanager
    def mounted(self, *arguments: str | Path) -> Iterator[None]:
        """Have something mounted at the path that comes last."""
        subprocess.run(("mount", *arguments), check=True)
        try:
            yield
        finally:
            subprocess.run(("umount", "--lazy", arguments[-1]), check=False, capture_output=True)

    @pytest.mark.usefixtures("redis_server")
    def test_one_below_is_entered_and_left(self, root: Path, start: Start) -> None:
        (root / "m").mkdir()
        make(root, "m/beneath", "a")
        with self.mounted("-t", "tmpfs", "tmpfs", root / "m"):
            make(root, "m/a", "m/d/a")
            service = start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0")
            assert names_of(service) == ["a", "m/a", "m/d/a"]
            write(root / "m/d/a", "two")
            eventually(lambda: service.get("m/d/a"), b"two")
        eventually(lambda: names_of(service), ["a", "m/beneath"])

    @pytest.mark.usefixtures("redis_server")
    def test_one_that_comes_later_is_found_by_a_rescan(self, root: Path, start: Start) -> None:
        make(root, "m/beneath", "a")
        service = start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0.2", SYNC_RESCAN_CPU="100")
        with self.mounted("-t", "tmpfs", "tmpfs", root / "m"):
            make(root, "m/a", "m/d/a")
            eventually(lambda: names_of(service), ["a", "m/a", "m/d/a"])

    @pytest.mark.usefixtures("redis_server")
    def test_one_of_the_root_below_itself_is_an_error_of_that_place_alone(
        self, root: Path, start: Start
    ) -> None:
        (root / "d/loop").mkdir(parents=True)
        make(root, "a", "d/a")
        with self.mounted("--bind", root, root / "d/loop"):
            service = start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0")
            assert names_of(service) == ["a", "d/a"]
            assert service.says("ERROR", "d/loop")
            write(root / "d/a", "two")
            make(root, "e/a")
            eventually(lambda: service.get("d/a"), b"two")
            eventually(lambda: names_of(service), ["a", "d/a", "e/a"])


class TestRecords:
    """What the service remembers of subdirectories may be lost, as that of the root may."""

    @pytest.mark.parametrize("record", ["manifest", "names"])
    @pytest.mark.parametrize("part", ["", "/d/e/"])
    def test_one_that_is_lost_while_the_service_is_down_keeps_no_key_of_what_has_gone(
        self, tree: Service, start: Start, record: str, part: str
    ) -> None:
        make(tree.root, "a", "b", "d/a", "d/b", "d/e/a", "d/e/b")
        tree.catches_up()
        tree.process.kill()
        tree.process.wait()
        assert tree.redis.client.delete(f"/mdvp-sync/{record}{part}") == 1
        for name in ("a", "d/a", "d/e/a"):
            (tree.root / name).unlink()
        service = start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0")
        assert names_of(service) == ["b", "d/b", "d/e/b"]

    def test_of_directories_that_are_gone_are_gone(self, tree: Service) -> None:
        make_tree(tree.root / "d", 2, 2)
        make(tree.root, "e/a")
        tree.catches_up()
        shutil.rmtree(tree.root / "d")
        (tree.root / "e").rename(tree.root / "f")
        tree.catches_up()
        records = {f"/mdvp-sync/{each}".encode() for each in ("manifest", "names")}
        expected = records | {record + b"/f/" for record in records}
        assert {key for key in own_keys(tree) if key.startswith(tuple(records))} == expected

    def test_after_a_flush_all_is_there_again(self, tree: Service) -> None:
        make_tree(tree.root, 3, 2)
        tree.catches_up()
        tree.redis.client.flushall()
        eventually(lambda: tree.redis.keys() == tree.files(), True)

    def test_of_a_service_that_was_killed_are_followed_up(
        self, tree: Service, start: Start
    ) -> None:
        make_tree(tree.root / "d", 3, 2)
        make(tree.root, "e/f/a", "g/a")
        tree.catches_up()
        tree.process.kill()
        tree.process.wait()
        (tree.root / "d").rename(tree.root / "e/f/d")
        shutil.rmtree(tree.root / "g")
        write(tree.root / "e/f/a", "two")
        make(tree.root, "h/i/j/a")
        service = start(in_step=True, SYNC_TREE="1")
        assert service.redis.keys() == service.files()
        service.catches_up()

    def test_and_verify_finds_what_is_wrong_below_and_mends_it(
        self,
        redis_server: RedisServer,  # noqa: ARG002
        start: Start,
    ) -> None:
        tree = start(in_step=True, SYNC_TREE="1", SYNC_RESCAN="0", SYNC_GUARD="0")
        make(tree.root, "d/e/a", "d/e/b")
        tree.catches_up()
        tree.redis.client.set("d/e/a", "content of d/e/X")
        assert "d/e/a" in repair(tree)
        assert tree.redis.keys() == tree.files()


def own_keys(service: Service) -> set[bytes]:
    return set(service.redis.client.scan_iter(match=OWN + b"*", count=10_000))


class TestShape:
    """SYNC_TREE may be set or not from one run to the next."""

    FILES = ("a", "d/b", "d/e/c")

    @pytest.mark.usefixtures("redis_server")
    def test_without_it_a_directory_is_an_error_and_its_keys_go(
        self, root: Path, start: Start
    ) -> None:
        make(root, *self.FILES)
        service = start(in_step=True, SYNC_TREE="1")
        assert names_of(service) == ["a", "d/b", "d/e/c"]
        service.process.kill()
        service.process.wait()
        flat = start(in_step=True)
        assert names_of(flat) == ["a"]
        assert flat.says("ERROR", "d is a directory: not mirrored, only files directly in")
        assert [key for key in own_keys(flat) if key.endswith(b"/")] == []
        flat.catches_up()

    @pytest.mark.usefixtures("redis_server")
    def test_with_it_what_is_below_comes(self, root: Path, start: Start) -> None:
        make(root, *self.FILES)
        service = start(in_step=True)
        assert names_of(service) == ["a"]
        service.process.kill()
        service.process.wait()
        tree = start(in_step=True, SYNC_TREE="1")
        assert names_of(tree) == ["a", "d/b", "d/e/c"]
        assert not tree.says("ERROR")
        tree.catches_up()

    @pytest.mark.usefixtures("redis_server")
    def test_another_value_ends_the_service(self, start: Start) -> None:
        service = start(SYNC_TREE="yes")
        eventually(lambda: service.says("SYNC_TREE is 'yes'"), True)
        assert service.process.wait(10) == 2


class TestWatches:
    """The kernel gives a user only so many watches: fs.inotify.max_user_watches."""

    @pytest.mark.usefixtures("redis_server")
    def test_too_few_are_said_and_made_up_for_by_rescans(self, root: Path, start: Start) -> None:
        names = [f"d-{number}/a" for number in range(3 * WATCHES)]
        make(root, *names)
        service = start(
            in_step=True,
            prefix=FEW_WATCHES,
            SYNC_TREE="1",
            SYNC_RESCAN="1",
            SYNC_RESCAN_CPU="100",
        )
        assert service.redis.keys() == service.files()
        eventually(lambda: service.says("ERROR", "user.max_inotify_watches of the host to"), True)
        unwatched = f"unwatched   {len(names) + 1 - WATCHES} of {len(names) + 1} directories"
        eventually(lambda: unwatched in said_of_status(service), True)
        for name in names[::2]:
            write(root / name, "two")
        for name in names[1::4]:
            (root / name).parent.rename(root / f"{name.partition('/')[0]}-moved")
        make(root, "d-0/new/a", "new/a")
        eventually(lambda: service.redis.keys() == service.files(), True)
        assert not service.says("Traceback")
