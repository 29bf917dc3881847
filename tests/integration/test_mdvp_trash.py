"""What becomes of a removed volume: deleted, kept where it is, or in the trash for a time."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filesystems import file_system

from mdvp.core import options
from mdvp.core.clock import Moment
from mdvp.core.options import Options
from mdvp.core.volume import DELETE, Access, OnRemove
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.driver import Driver
from mdvp.host.kernel import Kernel


def no_end() -> None:
    raise AssertionError


class Time:
    """Clocks that are set by hand: the calendar, and that of the boot."""

    def __init__(self) -> None:
        self.now = Moment(datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC), "boot", 1000.0)

    def __call__(self) -> Moment:
        return self.now

    def passes(self, seconds: float) -> None:
        utc, uptime = self.now.utc + timedelta(seconds=seconds), self.now.uptime + seconds
        self.now = replace(self.now, utc=utc, uptime=uptime)

    def is_set(self, utc: datetime) -> None:
        self.now = replace(self.now, utc=utc)

    def boots(self, boot: str, uptime: float = 10.0) -> None:
        self.now = replace(self.now, boot=boot, uptime=uptime)


@contextmanager
def driver_on(
    path: Path, time: Time | None = None, *, on_remove: OnRemove = DELETE
) -> Iterator[Driver]:
    with (
        closing(Root(path)) as root,
        closing(Store(root.database, root.volumes)) as store,
        closing(
            Driver(
                root,
                store,
                Kernel(root.descriptor),
                60.0,
                time or Time(),
                end=no_end,
                on_remove=on_remove,
            )
        ) as driver,
    ):
        yield driver


def asked(**given: str) -> Options:
    return options.read({name.replace("_", "-"): text for name, text in given.items()})


@pytest.fixture(params=["here", "btrfs", "xfs", "ext4"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "here":
        yield tmp_path
        return
    with file_system(request.param, tmp_path) as place:
        yield place


def test_a_volume_is_restored_from_the_trash_as_it_was(root: Path) -> None:
    with driver_on(root) as driver:
        driver.create("vol", asked(on_remove="trash", access="shared", uid="1000", mode="0750"))
        (root / "vol" / "file").write_text("content")
        before = (root / "vol").stat()
        driver.remove("vol")
        assert not (root / "vol").exists()
        assert driver.list() == []
        (entry,) = driver.trash.entries()
        assert (entry.name, entry.kept) == ("vol", False)
        assert entry.until is not None
        assert entry.until - entry.removed_at == timedelta(days=7)

        driver.create("again", asked(restore="vol"))
        assert (root / "again" / "file").read_text() == "content"
        assert driver.trash.entries() == []
        volume = driver.get("again").volume
        assert volume.access is Access.SHARED
        assert (volume.uid, volume.mode) == (1000, 0o750)
        driver.mount("again", "id")
    after = (root / "again").stat()
    assert (after.st_uid, after.st_mode, after.st_ino) == (1000, before.st_mode, before.st_ino)
    assert os.listdir(root / ".mdvp" / "removed") == []
    with driver_on(root) as driver:
        assert [volume.name for volume, _ in driver.list()] == ["again"]


def test_what_is_in_the_trash_outlives_a_restart_and_a_lost_database(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="trash"))
        (tmp_path / "vol" / "file").write_text("content")
        driver.remove("vol")
    for file in (tmp_path / ".mdvp").glob("state.db*"):
        file.unlink()
    with driver_on(tmp_path) as driver:
        assert driver.list() == []
        driver.create("vol", asked(restore="vol"))
    assert (tmp_path / "vol" / "file").read_text() == "content"
