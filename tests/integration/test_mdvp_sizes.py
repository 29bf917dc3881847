"""How much is in volumes: what du(1) says, at a bounded cost, of the volumes that there are."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import eventually

from mdvp.core.options import Options
from mdvp.core.volume import NO_DIRECTORY, Volume
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.driver import Driver
from mdvp.host.kernel import Kernel
from mdvp.sizes import Measured, Pace, Sizes

NEVER = 3600.0  # seconds
AGAIN = Pace(first=0.0, asked=0.0, unasked=0.0)
ONCE = Pace(first=0.0, asked=NEVER, unasked=NEVER)
WHEN_ASKED = Pace(first=NEVER, asked=NEVER, unasked=NEVER)


def no_end() -> None:
    raise AssertionError


class Failing(Store):
    """A database that has a mind of its own."""

    error: Exception | None = None

    def page(self, after: str, size: int) -> list[tuple[Volume, bool]]:
        if self.error is not None:
            raise self.error
        return super().page(after, size)


@dataclass
class World:
    """Volumes."""

    path: Path
    root: Root
    store: Failing
    driver: Driver
    stack: ExitStack

    def create(self, name: str, files: int = 0) -> Path:
        self.driver.create(name, Options())
        for number in range(files):
            (self.path / name / str(number)).touch()
        return self.path / name

    def count(self, pace: Pace = AGAIN) -> Sizes:
        """Begin to count."""
        lock = self.driver.custody.lock
        sizes = Sizes(self.root, self.store, lock, no_end, pace=pace)
        return self.stack.enter_context(closing(sizes))

    def volume(self, name: str) -> Volume:
        with self.driver.custody.lock:
            volume = self.store.volume(name)
        assert volume is not None
        return volume

    def of(self, sizes: Sizes, name: str) -> Measured:
        """Return how much is in a volume, as soon as it is known."""
        volume = self.volume(name)
        eventually(lambda: sizes.of(volume) is not None, True)
        measured = sizes.of(volume)
        assert measured is not None
        return measured


@contextmanager
def world_in(path: Path) -> Iterator[World]:
    with (
        closing(Root(path)) as root,
        closing(Failing(root.database, root.volumes)) as store,
        closing(kernel := Kernel(root.descriptor)),
        closing(Driver(root, store, kernel, 60.0, end=no_end)) as driver,
        ExitStack() as stack,
    ):
        yield World(path, root, store, driver, stack)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as world:
        yield world


def du(path: Path) -> int:
    command = ("du", "--summarize", "--block-size=1", path)
    return int(subprocess.run(command, check=True, capture_output=True).stdout.split()[0])


def fill(directory: Path) -> int:
    """Put all kinds of things there; return how many of them are no directories."""
    (directory / "deep" / "deeper").mkdir(parents=True)
    (directory / "deep" / "file").write_bytes(b"x" * 100_000)
    (directory / "deep" / "deeper" / "second name").hardlink_to(directory / "deep" / "file")
    (directory / "third name").hardlink_to(directory / "deep" / "file")
    (directory / "link").symlink_to("/usr")
    (directory / "empty").touch()
    os.mkfifo(directory / "pipe")
    with (directory / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    return 7


def test_it_says_what_du_says(world: World) -> None:
    directory = world.create("data")
    files = fill(directory)
    measured = world.of(world.count(), "data")
    assert (measured.files, measured.bytes, measured.missed) == (files, du(directory), 0)


def test_what_is_mounted_below_is_not_touched(world: World) -> None:
    directory = world.create("data", files=3)
    (directory / "point").mkdir()
    before = du(directory)
    subprocess.run(("mount", "-t", "tmpfs", "none", directory / "point"), check=True)
    try:
        (directory / "point" / "file").write_bytes(b"x" * 1_000_000)
        measured = world.of(world.count(), "data")
    finally:
        subprocess.run(("umount", directory / "point"), check=True)
    assert (measured.files, measured.missed) == (3, 1)
    assert measured.bytes <= before


def test_what_changes_is_counted_by_the_next_time(world: World) -> None:
    directory = world.create("data", files=1)
    sizes = world.count()
    first = world.of(sizes, "data")
    (directory / "another").touch()
    volume = world.volume("data")

    def files() -> int:
        measured = sizes.of(volume)
        assert measured is not None
        assert measured.taken.uptime >= first.taken.uptime
        return measured.files

    eventually(files, 2)


def test_a_volume_that_was_removed_is_forgotten_and_another_of_its_name_is_not_taken_for_it(
    world: World,
) -> None:
    world.create("data", files=5)
    sizes = world.count()
    removed = world.volume("data")
    world.of(sizes, "data")
    world.driver.remove("data")
    world.create("data", files=1)
    eventually(lambda: world.of(sizes, "data").files, 1)
    eventually(lambda: sizes.of(removed), None)


def test_what_is_not_the_volumes_directory_is_not_counted(world: World) -> None:
    world.create("data").rename(world.path / "moved")
    (world.path / "data").mkdir()
    (world.path / "data" / "file").touch()
    world.create("other")
    sizes = world.count()
    world.of(sizes, "other")
    assert sizes.of(world.volume("data")) is None


def test_a_volume_without_a_directory_has_no_size(world: World) -> None:
    world.create("other")
    volume = world.volume("other")
    reader = Volume("reader", volume.created_at, NO_DIRECTORY, reader_of="other")
    with world.driver.custody.lock:
        world.store.add(reader)
    (world.path / "reader").mkdir()
    sizes = world.count()
    world.of(sizes, "other")
    assert sizes.of(reader) is None


def test_a_large_volume_does_not_hold_up_the_small(world: World) -> None:
    world.create("a-large-one", files=2500)
    for number in range(4):
        world.create(f"small-{number}", files=number)
    sizes = world.count(ONCE)
    assert [world.of(sizes, f"small-{number}").files for number in range(4)] == [0, 1, 2, 3]
    assert sizes.of(world.volume("a-large-one")) is None


def test_it_is_at_work_for_a_twentieth_of_the_time(world: World) -> None:
    world.create("data", files=2000)
    began = time.monotonic()
    sizes = world.count(ONCE)
    thread = sizes._thread.ident
    assert thread is not None
    clock = time.pthread_getcpuclockid(thread)
    measured = world.of(sizes, "data")
    worked, took = time.clock_gettime(clock), time.monotonic() - began
    assert worked <= took * 0.06
    assert worked <= measured.seconds * 0.08
    assert measured.seconds <= took


def test_no_lock_is_held_meanwhile(world: World) -> None:
    world.create("data", files=2000)
    before = open_files()
    sizes = world.count(ONCE)
    eventually(lambda: open_files() > before, True)
    volume, lock = world.volume("data"), world.driver.custody.lock

    def counted() -> bool:
        assert lock.acquire(blocking=False)
        lock.release()
        return sizes.of(volume) is not None

    eventually(counted, True)


def test_nobody_waits_for_it_to_end_when_mdvp_does(world: World) -> None:
    world.create("data", files=2000)
    before = open_files()
    sizes = world.count(ONCE)
    eventually(lambda: open_files() > before, True)
    began = time.monotonic()
    sizes.close()
    assert time.monotonic() - began < 1.0
    assert sizes.of(world.volume("data")) is None
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_counts_once_and_then_when_somebody_asks_but_not_at_once_again(world: World) -> None:
    world.create("data", files=1)
    idle = world.count(WHEN_ASKED)
    volume = world.volume("data")
    assert idle.of(volume) is None  # that was to ask
    first = world.of(idle, "data")
    (world.path / "data" / "another").touch()
    busy = world.count()
    for _ in range(3):  # while others count again and again
        world.of(busy, "data")
        assert idle.of(volume) == first


@pytest.mark.parametrize(
    ("begun", "asked", "pause"),
    [
        (None, None, 10.0),
        (None, 990.0, 0.0),
        (995.0, 990.0, 55.0),
        (995.0, 401.0, 55.0),
        (995.0, 400.0, 3595.0),
        (995.0, None, 3595.0),
    ],
)
def test_it_counts_each_minute_while_somebody_asks_and_else_each_hour(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    begun: float | None,
    asked: float | None,
    pause: float,
) -> None:
    sizes = world.count(Pace())
    sizes.close()
    monkeypatch.setattr("mdvp.sizes.time.monotonic", lambda: 1000.0)
    sizes._started, sizes._begun, sizes._asked = 1000.0, begun, asked
    assert sizes._rest() == pause


def test_what_fails_is_said_once_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.create("data")
    world.store.error = sqlite3.OperationalError("disk I/O error")
    sizes = world.count()
    eventually(lambda: caplog.text.count("disk I/O error") > 0, True)
    world.store.error = None
    assert world.of(sizes, "data").files == 0
    assert caplog.text.count("OperationalError: disk I/O error") == 1
