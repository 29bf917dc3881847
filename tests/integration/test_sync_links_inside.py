"""Symbolic links to what is in the root: SYNC_LINKS=inside, and how Kubernetes publishes files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

import pytest
from integration.conftest import SYNC
from integration.files import make, write
from support import eventually

from sync.disk.files import Unfit
from sync.disk.linked import LinkedDirectory
from sync.redis.target import Target
from sync.service.groups import Groups
from sync.service.mirror import Mirror, Outcome
from sync.service.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

FLAT = {"SYNC_LINKS": "inside", "SYNC_RESCAN": "0"}
TREE = {**FLAT, "SYNC_TREE": "1"}
NAMES = tuple(f"name-{number}" for number in range(20))
OUTSIDE = "what is outside of the root"


class Publisher:
    """Publishes sets of files as Kubernetes' AtomicWriter does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0
        self.files: dict[str, str] = {}

    def publish(self, files: Mapping[str, str]) -> None:
        self.swap(files)
        self.tidy()

    def swap(self, files: Mapping[str, str]) -> None:
        """Publish all that has a visible link already."""
        self.count += 1
        self.files = dict(files)
        new = self.root / f"..2026_{self.count}"
        for name, content in files.items():
            write(new / name, content)
        (self.root / "..data_tmp").symlink_to(new.name)
        (self.root / "..data_tmp").rename(self.root / "..data")

    def tidy(self) -> None:
        """Make the links that are missing, remove those of what is gone, and what was before."""
        visible = {name.partition("/")[0] for name in self.files}
        there = {each.name for each in self.root.iterdir() if not each.name.startswith("..")}
        for name in sorted(visible - there):
            (self.root / name).symlink_to(Path("..data") / name)
        for name in sorted(there - visible):
            (self.root / name).unlink()
        for old in self.root.glob("..2026_*"):
            if old.name != f"..2026_{self.count}":
                shutil.rmtree(old)

    def keys(self) -> dict[bytes, bytes]:
        """Return what Redis is to hold."""
        return {name.encode(): content.encode() for name, content in self.files.items()}


def version(number: int, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """Return files that all say the same."""
    return dict.fromkeys(names, f"version {number}")


@contextmanager
def reader(server: RedisServer, names: tuple[str, ...]) -> Iterator[set[bytes]]:
    """Read all keys together for the time of the block; fail if any two were of two versions.

    Yields the versions that were seen.
    """
    ended, seen, mixtures = Event(), set[bytes](), list[set[bytes]]()

    def read() -> None:
        while not ended.is_set():
            values = server.client.mget(names)
            versions = {value for value in values if isinstance(value, bytes)}
            seen.update(versions)
            if len(versions) > 1:
                mixtures.append(versions)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(read)
        try:
            yield seen
        finally:
            ended.set()
        done.result()
    assert mixtures == []


def follows(service: Service, publisher: Publisher) -> None:
    eventually(service.redis.keys, publisher.keys())


def skipped(service: Service, name: str) -> str:
    """Return what the status says of a name that is not mirrored."""
    done = subprocess.run(
        (*SYNC, "status"), env=service.environ, capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    return next((line for line in lines if line.startswith(f"{name} ")), "")


def is_said(service: Service, name: str, words: str) -> None:
    eventually(lambda: words in skipped(service, name), True)


@pytest.fixture
def publisher(root: Path) -> Publisher:
    return Publisher(root)


@pytest.fixture
def flat(redis_server: RedisServer, start: Start) -> Service:  # noqa: ARG001
    return start(in_step=True, **FLAT)


@pytest.fixture
def tree(redis_server: RedisServer, start: Start) -> Service:  # noqa: ARG001
    return start(in_step=True, **TREE)


@pytest.fixture
def outside(place: Path) -> Path:
    """Return a directory outside of the root, with a file in it."""
    write(place / "outside" / "file", OUTSIDE)
    return place / "outside"


class TestPublishing:
    @pytest.mark.parametrize(
        ("settings", "names"),
        [
            (FLAT, NAMES),
            (TREE, NAMES),
            (
                TREE,
                tuple(f"{'abc'[at % 3]}/{'d/' * (at % 2)}{name}" for at, name in enumerate(NAMES)),
            ),
        ],
        ids=["flat", "tree", "directories"],
    )
    @pytest.mark.usefixtures("redis_server")
    def test_no_reader_sees_two_versions(
        self, publisher: Publisher, start: Start, settings: dict[str, str], names: tuple[str, ...]
    ) -> None:
        publisher.publish(version(0, names))
        service = start(in_step=True, **settings)
        with reader(service.redis, names) as seen:
            for number in range(1, 201):
                publisher.publish(version(number, names))
                if number % 10 == 0:
                    follows(service, publisher)
        assert len(seen) >= 20

    def test_a_swap_is_one_transaction_with_what_is_gone(
        self, flat: Service, publisher: Publisher
    ) -> None:
        publisher.publish(version(1))
        follows(flat, publisher)

        def swap() -> None:
            publisher.swap(version(2, NAMES[5:]))
            follows(flat, publisher)

        commands = [each.split() for each in flat.redis.commands(swap)]
        writing = [each[0] for each in commands if each[0] in ("MULTI", "MSET", "DEL", "EXEC")]
        assert writing == ["MULTI", "MSET", "DEL", "EXEC"]

    @pytest.mark.parametrize("settings", [FLAT, TREE], ids=["flat", "tree"])
    @pytest.mark.usefixtures("redis_server")
    def test_files_come_and_go(
        self, publisher: Publisher, start: Start, settings: dict[str, str]
    ) -> None:
        service = start(in_step=True, **settings)
        with reader(service.redis, NAMES):
            for number in range(50):
                names = NAMES[number % 7 : 20 - number % 5]
                publisher.publish(version(number, names))
                if number % 3 == 0:
                    follows(service, publisher)
            follows(service, publisher)
        assert not service.says("ERROR")

    def test_directories_come_and_go(self, tree: Service, publisher: Publisher) -> None:
        for files in (
            {"a/b": "1", "a/c/d": "1", "e": "1"},
            {"a/b": "2", "a/c/d": "2", "a/c/f": "2", "g/h": "2"},
            {"a/c/f": "3", "e/i": "3"},
            {"a": "4", "e/j/k": "4"},
        ):
            publisher.publish(files)
            follows(tree, publisher)

    def test_a_large_file_is_swapped_with_the_others(
        self, flat: Service, publisher: Publisher
    ) -> None:
        for number in "1234":
            publisher.publish({"large": number * (3 << 20), "small": number})
            eventually(lambda: flat.get("small"), number.encode())
            assert flat.get("large") == number.encode() * (3 << 20)

    def test_two_sets_beside_each_other_are_swapped_each_by_itself(
        self, tree: Service, root: Path
    ) -> None:
        sets = []
        for name in ("a", "b"):
            (root / name).mkdir()
            sets.append(Publisher(root / name))
            sets[-1].publish(version(1))
        expected = {f"{each}/{name}".encode(): b"version 1" for each in "ab" for name in NAMES}
        eventually(tree.redis.keys, expected)
        sets[0].publish(version(2))
        expected |= {f"a/{name}".encode(): b"version 2" for name in NAMES}
        eventually(tree.redis.keys, expected)

    @pytest.mark.parametrize("settings", [FLAT, TREE], ids=["flat", "tree"])
    @pytest.mark.usefixtures("redis_server")
    def test_no_reader_sees_two_versions_when_the_service_is_killed(
        self,
        publisher: Publisher,
        start: Start,
        settings: dict[str, str],
        redis_server: RedisServer,
    ) -> None:
        publisher.publish(version(0))
        service = start(in_step=True, **settings)
        with reader(redis_server, NAMES):
            for number in range(1, 61):
                publisher.publish(version(number))
                if number % 10 == 0:
                    service.process.send_signal(signal.SIGKILL)
                    publisher.publish(version(100 + number))
                    service = start(in_step=False, **settings)
                if number % 20 == 5:
                    follows(service, publisher)
            follows(service, publisher)

    def test_no_reader_sees_two_versions_of_a_set_that_takes_many_steps_to_find_after_a_start(
        self, redis_server: RedisServer, publisher: Publisher, start: Start
    ) -> None:
        names = tuple(f"name-{number}" for number in range(3000))
        publisher.publish(version(1, names))
        start(in_step=True, **FLAT).stop(signal.SIGKILL)
        publisher.publish(version(2, names))
        with reader(redis_server, names) as seen:
            eventually(lambda: len(seen), 1)
            start(in_step=True, **FLAT)
            eventually(lambda: len(seen), 2)

    def test_what_is_found_counts_only_if_no_link_has_changed_meanwhile(
        self, root: Path, publisher: Publisher
    ) -> None:
        publisher.publish(version(1))
        with closing(LinkedDirectory(root)) as directory:
            groups = Groups(directory)
            groups.add([b"name-0"])
            mirror = create_autospec(Mirror, instance=True)
            looks: list[tuple[set[bytes | None], set[bytes | None], bool]] = []

            def bring(
                names: list[bytes], is_still: Callable[[], bool], **_: bool
            ) -> Outcome | None:
                found = {directory.real(name) for name in names}
                if not looks:
                    publisher.swap(version(2))
                looks.append((found, {directory.real(name) for name in names}, is_still()))
                return Outcome() if is_still() else None

            mirror.bring_together.side_effect = bring
            together = Together(groups, create_autospec(Target, instance=True), mirror)
            together.bring()
            assert groups.is_waiting
            together.bring()
            assert not groups.is_waiting
        old, new = {b"..2026_1/name-0"}, {b"..2026_2/name-0"}
        assert looks == [(old, old, False), (new, new, True)]


class TestFollowing:
    def test_the_key_is_the_path_that_users_know(self, flat: Service, root: Path) -> None:
        write(root / "..hidden" / "file", "1")
        write(root / "plain", "2")
        write(root / "directory" / "file", "3")
        (root / "a").symlink_to("..hidden/file")
        (root / "b").symlink_to("plain")
        (root / "c").symlink_to("directory/../directory/./file")
        (root / "d").symlink_to(root / "directory" / "file")
        (root / "e").symlink_to("a")
        (root / "f").symlink_to("directory")
        (root / "..g").symlink_to("plain")
        eventually(
            flat.redis.keys,
            {b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"3", b"e": b"1", b"plain": b"2"},
        )
        is_said(flat, "f", "is a directory")

    def test_names_that_begin_with_two_dots_are_no_keys_at_any_level(
        self, tree: Service, root: Path
    ) -> None:
        make(root, "..a", "..b/c", "d/..e", "d/..f/g", "...h", "d/i", ".j")
        eventually(tree.redis.keys, {b"d/i": b"content of d/i", b".j": b"content of .j"})

    @pytest.mark.parametrize("target", ["plain", "directory/file", "..hidden/file"])
    def test_what_is_written_to_the_target_is_told(
        self, flat: Service, root: Path, target: str
    ) -> None:
        write(root / target, "1")
        (root / "a").symlink_to(target)
        (root / "b").symlink_to(target)
        eventually(lambda: (flat.get("a"), flat.get("b")), (b"1", b"1"))
        write(root / target, "22")
        eventually(lambda: (flat.get("a"), flat.get("b")), (b"22", b"22"))
        write(root / "new", "333")
        (root / "new").rename(root / target)
        eventually(lambda: (flat.get("a"), flat.get("b")), (b"333", b"333"))
        (root / target).unlink()
        eventually(lambda: (flat.get("a"), flat.get("b")), (None, None))
        write(root / target, "4")
        eventually(lambda: (flat.get("a"), flat.get("b")), (b"4", b"4"))

    def test_what_becomes_of_a_directory_on_the_way_is_told(
        self, flat: Service, root: Path
    ) -> None:
        write(root / "d/e/file", "1")
        (root / "a").symlink_to("d/e/file")
        eventually(flat.redis.keys, {b"a": b"1"})
        (root / "d/e").rename(root / "d/f")
        eventually(flat.redis.keys, {})
        (root / "d").rename(root / "g")
        write(root / "d/e/file", "2")
        eventually(flat.redis.keys, {b"a": b"2"})
        shutil.rmtree(root / "d")
        eventually(flat.redis.keys, {})
        (root / "g" / "f").rename(root / "g" / "e")
        (root / "g").rename(root / "d")
        eventually(flat.redis.keys, {b"a": b"1"})

    def test_a_link_that_is_renamed_is_renamed_in_redis(self, flat: Service, root: Path) -> None:
        write(root / "..hidden", "1")
        (root / "a").symlink_to("..hidden")
        eventually(flat.redis.keys, {b"a": b"1"})

        def rename() -> None:
            (root / "a").rename(root / "b")
            eventually(flat.redis.keys, {b"b": b"1"})

        seen = flat.redis.commands(rename)
        assert "RENAME a b" in seen
        assert not [each for each in seen if each.startswith("MSET")]

    def test_a_new_link_does_not_wait_for_a_writer(self, flat: Service, root: Path) -> None:
        write(root / "..hidden", "1")
        took = []
        for number in range(5):
            began = time.monotonic()
            (root / f"a{number}").symlink_to("..hidden")
            eventually(lambda: flat.get(f"a{number}"), b"1")  # noqa: B023  # asked at once
            took.append(time.monotonic() - began)
        assert min(took) < 0.4  # else a close is waited for, for half a second

    def test_a_directory_has_a_key_for_each_path_that_leads_to_a_file(
        self, tree: Service, root: Path
    ) -> None:
        make(root, "d/e/a", "d/b")
        (root / "link").symlink_to("d")
        (root / "other").symlink_to("link/e")
        content = b"content of d/e/a"
        expected = dict.fromkeys((b"d/e/a", b"link/e/a", b"other/a"), content)
        expected |= dict.fromkeys((b"d/b", b"link/b"), b"content of d/b")
        eventually(tree.redis.keys, expected)
        write(root / "d/e/f/c", "new")
        expected |= dict.fromkeys((b"d/e/f/c", b"link/e/f/c", b"other/f/c"), b"new")
        eventually(tree.redis.keys, expected)
        (root / "d/e/f").rename(root / "d/e/g")
        expected = {name.replace(b"f/", b"g/"): has for name, has in expected.items()}
        eventually(tree.redis.keys, expected)
        (root / "link").unlink()
        eventually(lambda: sorted(tree.redis.keys()), [b"d/b", b"d/e/a", b"d/e/g/c"])
        (root / "link").mkdir()
        write(root / "link/e/a", "real")
        eventually(lambda: (tree.get("link/e/a"), tree.get("other/a")), (b"real", b"real"))

    def test_what_is_left_out_is_so_by_the_path_of_the_link(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        write(root / "a.log", "1")
        (root / "a").symlink_to("a.log")
        (root / "b.log").symlink_to("a")
        start(in_step=True, SYNC_LINKS="inside", SYNC_EXCLUDE="*.log")
        assert redis_server.keys() == {b"a": b"1"}


class TestOutside:
    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("../outside/file", "leads out of"),
            ("d/../../outside/file", "leads out of"),
            ("/etc/passwd", "leads out of"),
            ("nothing", "leads to nothing"),
            ("d/file/..", "leads to nothing"),
            ("d/file/", "leads to nothing"),
            ("a", "leads in a circle"),
        ],
    )
    @pytest.mark.parametrize("settings", [FLAT, TREE], ids=["flat", "tree"])
    @pytest.mark.usefixtures("redis_server", "outside")
    def test_what_is_not_within_is_not_mirrored(
        self, root: Path, start: Start, target: str, words: str, settings: dict[str, str]
    ) -> None:
        write(root / "d" / "file", "inside")
        (root / "a").symlink_to(target)
        service = start(in_step=True, **settings)
        assert service.get("a") is None
        eventually(lambda: len(service.lines("ERROR sync: a is", words)), 1)
        (root / "a").unlink()
        (root / "a").symlink_to("d/file")
        eventually(lambda: service.get("a"), b"inside")
        (root / "a").unlink()
        (root / "a").symlink_to(target)
        eventually(lambda: service.get("a"), None)
        eventually(lambda: len(service.lines("ERROR sync: a is", words)), 2)

    def test_what_is_not_mirrored_is_listed_as_long_as_it_is_so(
        self, flat: Service, root: Path
    ) -> None:
        (root / "a").symlink_to("b")
        is_said(flat, "a", "leads to nothing")
        write(root / "b")
        eventually(lambda: flat.get("a"), b"one")
        eventually(lambda: skipped(flat, "a"), "")

    def test_directories_within_themselves_have_an_end(self, tree: Service, root: Path) -> None:
        make(root, "d/a", "e/b")
        (root / "d" / "up").symlink_to("..")
        (root / "d" / "e").symlink_to("../e")
        (root / "e" / "d").symlink_to("../d")
        is_said(tree, "d/up", "leads to a directory that it is in")
        eventually(lambda: sorted(tree.redis.keys()), [b"d/a", b"d/e/b", b"e/b", b"e/d/a"])

    @pytest.mark.parametrize("settings", [FLAT, TREE], ids=["flat", "tree"])
    @pytest.mark.parametrize("swapped", ["..hidden/file", "..hidden", "a"])
    @pytest.mark.usefixtures("redis_server")
    def test_what_is_outside_is_never_a_value(
        self, root: Path, outside: Path, start: Start, swapped: str, settings: dict[str, str]
    ) -> None:
        write(root / "..hidden" / "file", "inside")
        (root / "a").symlink_to("..hidden/file")
        service = start(in_step=True, **settings)
        leads = {"..hidden/file": outside / "file", "..hidden": outside, "a": outside / "file"}
        inside, aside = root / swapped, root / "..aside"

        def swap() -> None:
            for _ in range(500):
                inside.rename(aside)
                inside.symlink_to(leads[swapped])
                inside.unlink()
                aside.rename(inside)
            write(root / "..hidden" / "file", "in the end")
            eventually(lambda: service.get("a"), b"in the end")

        assert not [each for each in service.redis.commands(swap) if OUTSIDE in each]

    def test_a_directory_that_is_swapped_before_it_is_opened_is_not_followed(
        self, root: Path, outside: Path
    ) -> None:
        write(root / "..hidden" / "file", "inside")
        (root / "a").symlink_to("..hidden/file")
        with closing(LinkedDirectory(root)) as directory:

            def swap(place: bytes) -> bool:
                if place == b"..hidden/":
                    (root / "..hidden").rename(root / "..aside")
                    (root / "..hidden").symlink_to(outside)
                return True

            directory.watch_by(swap)
            assert directory.signature(b"a") is None

    def test_a_file_that_is_swapped_before_it_is_opened_is_not_followed(
        self, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(root / "..file", "inside")
        (root / "a").symlink_to("..file")
        really_open = os.open

        def swap(path: bytes, flags: int, **others: int) -> int:
            if path == b"..file":
                (root / "..file").unlink(missing_ok=True)
                (root / "..file").symlink_to(outside / "file")
            return really_open(path, flags, **others)

        with closing(LinkedDirectory(root)) as directory:
            monkeypatch.setattr(os, "open", swap)
            assert isinstance(directory.read(b"a", 1000), Unfit)


class TestSetting:
    def test_a_change_of_it_is_a_change_of_the_keys(
        self, redis_server: RedisServer, publisher: Publisher, start: Start
    ) -> None:
        publisher.publish({"a/b": "1", "c": "1", "d/e/f": "1"})
        hidden = {f"..2026_1/{name}".encode(): b"1" for name in publisher.files}
        for settings, expected in [
            (TREE, publisher.keys()),
            ({"SYNC_TREE": "1"}, hidden),
            (TREE, publisher.keys()),
            (FLAT, {b"c": b"1"}),
            ({}, {}),
            (FLAT, {b"c": b"1"}),
            ({"SYNC_TREE": "1"}, hidden),
            ({}, {}),
        ]:
            service = start(in_step=True, **settings)
            assert redis_server.keys() == expected
            assert service.stop(signal.SIGTERM) == 0

    def test_verify_follows_links_too(self, tree: Service, publisher: Publisher) -> None:
        publisher.publish({"a/b": "1", "c": "1"})
        follows(tree, publisher)
        command = (*SYNC, "verify")
        done = subprocess.run(
            command, env=tree.environ, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "2 files" in done.stdout) == (0, True)
        tree.redis.client.set("a/b", "x")
        done = subprocess.run(
            (*command, "--repair"), env=tree.environ, capture_output=True, text=True, check=False
        )
        assert (done.returncode, tree.get("a/b")) == (0, b"1")
