"""What becomes of a removed volume: deleted, kept where it is, or in the trash for a time."""

import errno
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads
from unittest.mock import patch

import pytest
from filesystems import file_system
from integration.locks import is_locked
from integration.plugin import serving
from support import DEADLINE, eventually

from mdvp.core import options
from mdvp.core.clock import Clock, Moment
from mdvp.core.errors import ConflictError, NoSuchVolumeError
from mdvp.core.options import Options
from mdvp.core.volume import DELETE, Access, Fate, Identity, OnRemove, Volume, timestamp
from mdvp.disk.entry import Found, listed
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Removal, Trash
from mdvp.driver import Driver
from mdvp.host import clock
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
    path: Path,
    time: Clock | None = None,
    *,
    root_class: type[Root] = Root,
    store_class: type[Store] = Store,
    on_remove: OnRemove = DELETE,
) -> Iterator[Driver]:
    with (
        closing(root_class(path)) as root,
        closing(store_class(root.database, root.volumes)) as store,
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


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(base: type, method: str, moment: str) -> type:
    """Return a subclass of `base` that dies right before or right after `method`."""

    def deadly(self: object, *arguments: object, **named: object) -> object:
        if moment == "before":
            die()
        result = getattr(super(subclass, self), method)(*arguments, **named)
        die()
        return result

    subclass = type(f"Dying{base.__name__}", (base,), {method: deadly})
    return subclass


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
    lose_database(tmp_path)
    with driver_on(tmp_path) as driver:
        assert driver.list() == []
        driver.create("vol", asked(restore="vol"))
    assert (tmp_path / "vol" / "file").read_text() == "content"


def test_what_is_asked_for_when_it_is_restored_counts(root: Path) -> None:
    with driver_on(root) as driver:
        driver.create("vol", asked(on_remove="trash", access="shared", uid="1000", wait="30s"))
        driver.remove("vol")
        driver.create("vol", asked(restore="vol", uid="2000", mode="02770", access="exclusive"))
        status = (root / "vol").stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (2000, 0o2770)
        assert options.written(driver.get("vol").volume) == {
            "access": "exclusive",
            "uid": "2000",
            "mode": "2770",
            "on-remove": "trash:7d",
            "wait": "30s",
        }
        # As the engine does when it has missed the answer.
        driver.create("vol", asked(restore="vol", uid="2000", mode="02770", access="exclusive"))


def lose_database(root: Path) -> None:
    for file in (root / ".mdvp").glob("state.db*"):
        file.unlink()


def contents(root: Path, name: str) -> str:
    return (root / name / "file").read_text()


def removed(driver: Driver, root: Path, name: str, content: str, **given: str) -> None:
    """Remove a volume that has some content."""
    driver.create(name, asked(**{"on_remove": "trash", **given}))
    (root / name / "file").write_text(content)
    driver.remove(name)


def test_the_last_of_a_name_is_restored_or_that_of_a_moment(tmp_path: Path) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        for content in ("first", "second", "third"):
            removed(driver, tmp_path, "vol", content)
            removed(driver, tmp_path, "other", content)
            time.passes(86400)
        labels = [entry.label for entry in driver.trash.entries()]
        assert labels[3:] == [f"vol@2026-{day}T12:00:00Z" for day in ("12-01", "11-30", "11-29")]
        with pytest.raises(ConflictError, match=r"at 2027: those .* are vol@2026-12-01T12:00:00Z,"):
            driver.create("new", asked(restore="vol@2027"))
        with pytest.raises(ConflictError, match="no removed volume 'vo' is in the trash"):
            driver.create("new", asked(restore="vo"))
        for label, content in (("vol@2026-11-30", "second"), ("vol", "third"), ("vol", "first")):
            driver.create("new", asked(restore=label))
            assert contents(tmp_path, "new") == content
            driver.create("x", asked(restore="other"))
            driver.remove("x")
            driver.remove("new")
            driver.create("gone", asked(restore=f"new@{timestamp(time.now.utc)}"))
            driver.remove("gone")
            time.passes(1)


def test_the_last_is_the_last_whatever_the_calendar_said(tmp_path: Path) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "first")
        time.passes(1)
        time.is_set(datetime(2001, 1, 1, tzinfo=UTC))
        removed(driver, tmp_path, "vol", "last")
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "last"


def test_nothing_is_restored_to_where_something_is(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", uid="1000")
        (tmp_path / "taken").write_text("somebody's")
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("taken", asked(restore="vol"))
        assert driver.list() == []
        assert (tmp_path / "taken").read_text() == "somebody's"
        driver.create("vol", asked(restore="vol"))
    assert (tmp_path / "vol").stat().st_uid == 1000


def test_a_place_taken_at_the_last_moment_leaves_the_trash_as_it_was(tmp_path: Path) -> None:
    class Overtaken(Root):
        def place(self, aside: Aside, name: str) -> None:
            (self.path / name).write_text("somebody's")
            super().place(aside, name)

    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", uid="1000", mode="0700")
    with driver_on(tmp_path, root_class=Overtaken) as driver:
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("vol", asked(restore="vol", uid="2000", mode="0777"))
        assert driver.list() == []
        assert [entry.name for entry in driver.trash.entries()] == ["vol"]
    (tmp_path / "vol").unlink()
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(restore="vol"))
    status = (tmp_path / "vol").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1000, 0o700)
    assert contents(tmp_path, "vol") == "content"


def test_a_protected_volume_is_not_removed(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(protect="true"))
    with driver_on(tmp_path) as driver:
        with pytest.raises(ConflictError, match="is protected: `mdvp change vol -o protect=false`"):
            driver.remove("vol")
        driver.change("vol", options.changes({"protect": "false"}))
        driver.remove("vol")
        assert driver.list() == []


@pytest.mark.parametrize("default", ["delete", "keep", "trash:1h"])
@pytest.mark.parametrize("own", [None, "delete", "keep", "trash"])
def test_what_becomes_of_it_is_its_own_option_or_the_setting(
    tmp_path: Path, default: str, own: str | None
) -> None:
    with driver_on(tmp_path, on_remove=options.on_remove(default)) as driver:
        driver.create("vol", options.read({} if own is None else {"on-remove": own}))
        (tmp_path / "vol" / "file").write_text("content")
        driver.remove("vol")
        assert driver.list() == []
        fate = (own or default).partition(":")[0]
        assert (tmp_path / "vol").exists() == (fate == "keep")
        kept = [entry.kept for entry in driver.trash.entries()]
    assert kept == {"delete": [], "keep": [True], "trash": [False]}[fate]
    assert os.listdir(tmp_path / ".mdvp" / "trash") == []


# What stays where it is.


def test_a_kept_directory_is_a_volume_again_whoever_owns_it(root: Path) -> None:
    with driver_on(root) as driver:
        driver.create("vol", asked(on_remove="keep", uid="1000", mode="0700", access="shared"))
        (root / "vol" / "file").write_text("content")
        driver.remove("vol")
        assert driver.list() == []
        with pytest.raises(ConflictError, match="take it over with `-o adopt=true`"):
            driver.create("vol")
        with pytest.raises(ConflictError, match=r"its directory was kept at .*/vol; take it back"):
            driver.create("vol", asked(restore="vol"))
    with driver_on(root) as driver:
        driver.create("vol", asked(adopt="true"))
        assert driver.trash.entries() == []
        volume = driver.get("vol").volume
        assert (volume.access, volume.uid) == (Access.SHARED, 1000)
        assert contents(root, "vol") == "content"
        driver.remove("vol")
        # By another name, too, and with something else asked for.
        (root / "vol").rename(root / "moved")
        driver.create("moved", asked(adopt="true", mode="0755", access="exclusive"))
    status = (root / "moved").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1000, 0o755)
    assert os.listdir(root / ".mdvp" / "removed") == []


def test_only_the_directory_that_was_kept_is_trusted(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="keep", uid="1000"))
        driver.remove("vol")
        (tmp_path / "vol").rename(tmp_path / "elsewhere")
        (tmp_path / "vol").mkdir()
        os.chown(tmp_path / "vol", 1000, 1000)
        with pytest.raises(ConflictError, match="cannot be adopted: it belongs to user 1000"):
            driver.create("vol", asked(adopt="true"))
    with driver_on(tmp_path) as driver:  # it is not where it was to stay
        assert driver.trash.entries() == []


def test_a_kept_directory_is_no_volume_when_the_database_is_lost(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="keep", uid="1000"))
        driver.remove("vol")
    lose_database(tmp_path)
    with driver_on(tmp_path) as driver:
        assert driver.list() == []
        driver.create("vol", asked(adopt="true"))
        assert driver.get("vol").volume.uid == 1000


def test_a_kept_directory_is_kept_from_cleaners_until_it_is_adopted(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="keep"))
        driver.remove("vol")
        assert is_locked(tmp_path / "vol")
    assert not is_locked(tmp_path / "vol")
    with driver_on(tmp_path) as driver:
        assert is_locked(tmp_path / "vol")
        driver.create("vol", asked(adopt="true"))
        driver.change("vol", options.changes({"on-remove": "delete"}))
        fd = os.open(tmp_path / "vol", os.O_RDONLY)
        driver.remove("vol")
        try:
            assert not is_locked(Path(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)


def test_a_kept_directory_that_is_gone_is_not_taken_for_one_with_its_inode(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="keep")
        (kept,) = driver.trash.entries()
        inode, born = kept.volume.identity
        later = replace(kept.volume, name="later", identity=Identity(inode, born + 1))
        driver.trash.add(driver.trash.prepare(later, options.on_remove("keep")))
        assert names(driver) == ["later"]
        assert driver.trash.kept(kept.volume.identity) is None
        assert not is_locked(tmp_path / "vol")


def test_a_kept_directory_that_was_moved_into_a_volume_is_not_deleted_with_it(
    tmp_path: Path,
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="keep"))
        (tmp_path / "vol" / "file").write_text("content")
        driver.remove("vol")
        driver.create("other")
        (tmp_path / "vol").rename(tmp_path / "other" / "moved")
        driver.remove("other")
    with driver_on(tmp_path) as driver:
        assert [entry.kept for entry in driver.trash.entries()] == [True]
    assert contents(tmp_path, "vol") == "content"


# Time.


def test_no_calendar_makes_the_trash_expire(tmp_path: Path) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "content")
        time.is_set(datetime(2126, 11, 29, tzinfo=UTC))
        driver.create("another")
        driver.remove("another")  # which has it look for what is due
    with driver_on(tmp_path, time) as driver:
        (entry,) = driver.trash.entries()
        assert entry.until == time.now.utc + timedelta(days=7)
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"


def test_what_has_been_in_the_trash_for_its_time_is_deleted(root: Path) -> None:
    time = Time()
    with driver_on(root, time) as driver:
        removed(driver, root, "vol", "content", on_remove="trash:1h")
        removed(driver, root, "longer", "content", on_remove="trash:2h")
        time.passes(3599)
        time.is_set(datetime(1999, 1, 1, tzinfo=UTC))
        look_for_what_is_due(driver)
        assert [entry.name for entry in driver.trash.entries()] == ["longer", "vol"]
        time.passes(1)
        look_for_what_is_due(driver)
        eventually(lambda: [entry.name for entry in driver.trash.entries()], ["longer"])
        eventually(lambda: os.listdir(root / ".mdvp" / "trash"), [])
        with pytest.raises(ConflictError, match="no removed volume 'vol'"):
            driver.create("vol", asked(restore="vol"))
        assert len(os.listdir(root / ".mdvp" / "removed")) == 1


def test_it_is_looked_at_when_it_is_due_without_anybody_asking(tmp_path: Path) -> None:
    with driver_on(tmp_path, clock.now) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1s")
        eventually(lambda: names(driver), [])
        eventually(lambda: os.listdir(tmp_path / ".mdvp" / "trash"), [])


def test_what_is_in_the_way_of_what_is_due_is_kept(tmp_path: Path) -> None:
    time = Time()
    with patch("mdvp.driver.Expiry"), driver_on(tmp_path, time) as driver:  # without its thread
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(3600)
        trash = tmp_path / ".mdvp" / "trash"
        (entry,) = driver.trash.due()
        (trash / str(entry.volume.identity.inode)).mkdir()
        driver.trash.expire(entry)
        assert driver.trash.entries() == []
    assert "kept" in {it.name.partition("-")[0] for it in trash.iterdir()}


def test_what_cannot_be_deleted_yet_stays_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    class Failing(Root):
        def doom(self, aside: Aside, sought: Identity) -> None:
            tried.append(sought)
            raise OSError(errno.EIO, f"cannot read {aside.entry}")

    time = Time()
    with driver_on(tmp_path, time, root_class=Failing) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(3600)
        for count in (1, 2):
            look_for_what_is_due(driver)
            eventually(lambda: len(tried) >= count, True)  # noqa: B023
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"
    assert caplog.text.count("is due to be deleted and cannot be") == 1


def look_for_what_is_due(driver: Driver) -> None:
    driver.create("another")
    driver.remove("another")


def names(driver: Driver) -> list[str]:
    return [entry.name for entry in driver.trash.entries()]


def test_time_goes_on_while_mdvp_is_away_but_not_while_it_cannot_be_told(tmp_path: Path) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(600)
    time.passes(600)
    with driver_on(tmp_path, time) as driver:
        assert left(driver, time) == 2400
    # The disk comes to a machine that has been running for long.
    time.boots("another", uptime=1e9)
    with driver_on(tmp_path, time) as driver:
        assert left(driver, time) == 2400
        time.passes(2400)
        look_for_what_is_due(driver)
        eventually(lambda: names(driver), [])


def test_a_run_that_ends_well_has_all_its_time_counted(tmp_path: Path) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(600)
    assert "expiry" not in [it.name for it in enumerate_threads()]
    time.boots("another")
    with driver_on(tmp_path, time) as driver:
        assert left(driver, time) == 3000


def left(driver: Driver, time: Time) -> float:
    (entry,) = driver.trash.entries()
    assert entry.until is not None
    return (entry.until - time.now.utc).total_seconds()


@pytest.mark.parametrize("content", [None, "", "nonsense", '{"boot": "boot", "uptime": 0}', "[]"])
def test_a_lost_odometer_makes_nothing_expire(tmp_path: Path, content: str | None) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "early", "content", on_remove="trash:1h")
        time.passes(600)
        removed(driver, tmp_path, "late", "content", on_remove="trash:1h")
    odometer = tmp_path / ".mdvp" / "odometer"
    odometer.unlink()
    if content is not None:
        odometer.write_text(content)
    time.passes(1e6)
    with driver_on(tmp_path, time) as driver:
        untils = {entry.name: entry.until for entry in driver.trash.entries()}
        # What is certain is what had passed when the last came.
        assert untils == {
            "early": time.now.utc + timedelta(seconds=3000),
            "late": time.now.utc + timedelta(seconds=3600),
        }


@pytest.mark.parametrize("damaged", ["record", "odometer"])
def test_a_damaged_reading_makes_nothing_expire(tmp_path: Path, damaged: str) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(600)
        removed(driver, tmp_path, "other", "content", on_remove="trash:1h")
        (volume,) = [it.volume for it in driver.trash.entries() if it.name == "other"]
    path = tmp_path / ".mdvp" / "odometer"
    if damaged == "record":  # what the odometer then begins at
        path.unlink()
        path = tmp_path / ".mdvp" / "removed" / str(volume.identity.inode) / "record.json"
    text = path.read_text()
    path.write_text(text.replace('"reading": 600', '"reading": 9000'))
    assert path.read_text() != text
    with driver_on(tmp_path, time) as driver:
        assert "vol" in [it.name for it in driver.trash.entries()]
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"


def test_what_was_restored_and_removed_again_meanwhile_has_its_whole_time(tmp_path: Path) -> None:
    time = Time()
    with patch("mdvp.driver.Expiry"), driver_on(tmp_path, time) as driver:  # without its thread
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
        time.passes(3600)
        due = driver.trash.due()
        driver.create("vol", asked(restore="vol"))
        driver.remove("vol")
        for entry in due:
            driver.trash.expire(entry)
        assert left(driver, time) == 3600


def test_a_look_at_what_is_there_takes_nothing_from_a_removal_under_way(tmp_path: Path) -> None:
    @contextmanager
    def listed_before(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with listed(folder) as found:
            yield found
        driver.trash.prepare(new, OnRemove(Fate.TRASH, 60))

    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="keep")
        (entry,) = driver.trash.entries()
        shutil.rmtree(tmp_path / "vol")
        inode, born = entry.volume.identity
        shutil.rmtree(tmp_path / ".mdvp" / "removed" / str(inode))
        # The next directory gets its inode.
        new = replace(entry.volume, name="new", identity=Identity(inode, born + 1))
        with patch("mdvp.disk.trash.listed", listed_before):
            assert driver.trash.entries() == []
        assert (tmp_path / ".mdvp" / "removed" / str(inode) / "record.json").exists()


# What is in the way, and what is strange.


@pytest.mark.parametrize("fate", ["trash", "keep"])
def test_a_removal_that_cannot_be_recorded_leaves_the_volume(tmp_path: Path, fate: str) -> None:
    class Failing(Store):
        def delete(self, name: str) -> None:
            raise sqlite3.OperationalError(f"cannot forget {name}")

    with driver_on(tmp_path, store_class=Failing) as driver:
        with pytest.raises(sqlite3.OperationalError, match="cannot forget vol"):
            removed(driver, tmp_path, "vol", "content", on_remove=fate)
        assert driver.trash.entries() == []
        driver.mount("vol", "id")
    assert contents(tmp_path, "vol") == "content"
    assert_nothing_is_left_over(tmp_path)


class Slow(Trash):
    """A trash whose disk keeps it waiting."""

    prepared, go_on = Event(), Event()

    def prepare(self, volume: Volume, fate: OnRemove) -> Removal:
        removal = super().prepare(volume, fate)
        assert not self.prepared.is_set()  # one at a time
        self.prepared.set()
        assert self.go_on.wait(DEADLINE)
        return removal


@pytest.fixture
def slow() -> Iterator[type[Slow]]:
    fresh = type("FreshSlow", (Slow,), {"prepared": Event(), "go_on": Event()})
    with patch("mdvp.driver.Trash", fresh):
        yield fresh


def test_nobody_waits_for_the_disk_of_another_removal(tmp_path: Path, slow: type[Slow]) -> None:
    with driver_on(tmp_path) as driver, ThreadPoolExecutor() as others:
        for name, given in (("vol", "trash"), ("other", "delete")):
            driver.create(name, asked(on_remove=given))
        removals = [others.submit(driver.remove, "vol") for _ in range(2)]
        assert slow.prepared.wait(DEADLINE)
        driver.mount("other", "id")
        driver.unmount("other", "id")
        driver.remove("other")
        slow.go_on.set()
        # As an engine asks once more that has waited for too long.
        errors = [it.exception(DEADLINE) for it in removals]
        assert [type(it) for it in errors if it is not None] == [NoSuchVolumeError]
        assert names(driver) == ["vol"]


def test_what_comes_between_makes_a_removal_be_refused(tmp_path: Path, slow: type[Slow]) -> None:
    def comes_between(driver: Driver, what: Callable[[], object]) -> BaseException | None:
        slow.prepared.clear()
        slow.go_on.clear()
        with ThreadPoolExecutor() as others:
            removal = others.submit(driver.remove, "vol")
            assert slow.prepared.wait(DEADLINE)
            what()
            slow.go_on.set()
            return removal.exception(DEADLINE)

    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="trash"))
        mounted = comes_between(driver, lambda: driver.mount("vol", "id"))
        assert "is in use" in str(mounted)
        driver.unmount("vol", "id")
        for given in ("keep", "delete"):
            change = options.changes({"on-remove": given})
            changed = comes_between(driver, lambda: driver.change("vol", change))  # noqa: B023
            assert "has just been changed: remove it again" in str(changed)
            driver.change("vol", options.changes({"on-remove": "trash"}))
        assert isinstance(
            comes_between(driver, lambda: driver.rename("vol", "new")), NoSuchVolumeError
        )
        assert names(driver) == []
        assert [volume.name for volume, _ in driver.list()] == ["new"]
    assert_nothing_is_left_over(tmp_path)


@pytest.mark.parametrize("where", ["at its place", "on its way"])
def test_a_power_cut_that_takes_back_how_it_was_moved_leaves_what_can_be_restored(
    root: Path, where: str
) -> None:
    with driver_on(root) as driver:
        removed(driver, root, "vol", "content")
    (folder,) = (root / ".mdvp" / "removed").iterdir()
    way = {"at its place": root / "vol", "on its way": root / ".mdvp" / "trash" / folder.name}
    (folder / "volume").rename(way[where])
    with driver_on(root) as driver:
        assert names(driver) == ["vol"]
        assert not (root / "vol").exists()
        driver.create("vol", asked(restore="vol"))
        assert contents(root, "vol") == "content"


def test_what_was_only_half_copied_is_deleted(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="trash"))
    with closing(Root(tmp_path)) as root, closing(Store(root.database)) as store:
        (volume,) = store.volumes()
        store.replace(replace(volume, origin="other"))
    with driver_on(tmp_path) as driver:
        driver.remove("vol")
        assert driver.trash.entries() == []
    assert_nothing_is_left_over(tmp_path)


def test_a_kept_directory_with_a_mount_on_it_is_still_kept(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="keep", uid="1000")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "vol"], check=True)
    try:
        with driver_on(tmp_path) as driver:
            assert names(driver) == ["vol"]
            with pytest.raises(ConflictError, match="cannot be adopted: it is a mount point"):
                driver.create("vol", asked(adopt="true"))
    finally:
        subprocess.run(["umount", tmp_path / "vol"], check=True)
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(adopt="true"))
    assert contents(tmp_path, "vol") == "content"


def test_what_was_exchanged_at_the_last_moment_is_not_in_the_trash(tmp_path: Path) -> None:
    class Exchanged(Root):
        def set_aside(self, name: str, sought: Identity, *, to_stay: bool = False) -> Aside | None:
            (self.path / name).rename(self.path / "elsewhere")
            (self.path / name).mkdir()
            (self.path / name / "file").write_text("somebody's")
            return super().set_aside(name, sought, to_stay=to_stay)

    with driver_on(tmp_path, root_class=Exchanged) as driver:
        removed(driver, tmp_path, "vol", "content")
        assert driver.list() == []
        assert driver.trash.entries() == []
        with pytest.raises(ConflictError, match="no removed volume 'vol'"):
            driver.create("new", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "somebody's"
    assert contents(tmp_path, "elsewhere") == "content"
    assert os.listdir(tmp_path / ".mdvp" / "removed") == []


@pytest.mark.parametrize("away_at", [1, 2, 3])
def test_what_its_owner_moves_away_and_back_meanwhile_is_not_deleted(
    tmp_path: Path, away_at: int
) -> None:
    class Moving(Root):
        looks = 0

        def find(self, name: str, sought: Identity) -> Found:
            found = super().find(name, sought)
            Moving.looks += name == "vol"
            return Found.FOREIGN if (name, Moving.looks) == ("vol", away_at) else found

    with driver_on(tmp_path, root_class=Moving) as driver:
        driver.create("vol", asked(on_remove="trash"))
        (tmp_path / "vol" / "file").write_text("content")
        Moving.looks = 0
        driver.remove("vol")
        if not (tmp_path / "vol").exists():
            driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"


def test_what_has_a_mount_on_it_in_the_trash_can_be_restored_when_that_is_gone(
    tmp_path: Path,
) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content")
    (folder,) = (tmp_path / ".mdvp" / "removed").iterdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "volume"], check=True)
    try:
        with driver_on(tmp_path) as driver:
            assert driver.trash.entries() == []
    finally:
        for place in (tmp_path / ".mdvp" / "removed").glob("*/volume"):
            subprocess.run(["umount", place], check=True)
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"


@pytest.mark.parametrize("fate", ["trash", "keep"])
def test_a_calendar_that_was_set_back_loses_no_volume_with_the_database(
    tmp_path: Path, fate: str
) -> None:
    time = Time()
    back = asked(restore="vol") if fate == "trash" else asked(adopt="true")
    with driver_on(tmp_path, time) as driver:
        for year in (2040, 2026):
            time.is_set(datetime(year, 1, 1, tzinfo=UTC))
            if year == 2040:
                driver.create("vol", asked(on_remove=fate, uid="1000"))
                (tmp_path / "vol" / "file").write_text("content")
            driver.remove("vol")
            driver.create("vol", back)
    lose_database(tmp_path)
    with driver_on(tmp_path, time) as driver:
        assert [volume.name for volume, _ in driver.list()] == ["vol"]
    assert contents(tmp_path, "vol") == "content"


def test_a_read_only_subvolume_is_a_volume_still(tmp_path: Path) -> None:
    with file_system("btrfs", tmp_path) as root, driver_on(root) as driver:
        driver.create("vol", asked(on_remove="trash"))
        (root / "vol" / "file").write_text("content")
        make_read_only = ["btrfs", "property", "set", str(root / "vol"), "ro"]
        subprocess.run([*make_read_only, "true"], check=True)
        driver.rename("vol", "new")
        driver.rename("new", "vol")
        subprocess.run([*make_read_only, "true"], check=True)
        driver.remove("vol")
        driver.create("vol", asked(restore="vol"))
        assert contents(root, "vol") == "content"


@pytest.mark.parametrize(
    "damage", ["no record", "half a record", "a digit", "another directory", "moved"]
)
def test_what_nobody_can_tell_is_neither_restored_nor_deleted(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content")
    (folder,) = (tmp_path / ".mdvp" / "removed").iterdir()
    match damage:
        case "no record":
            (folder / "record.json").unlink()
        case "half a record":
            record = (folder / "record.json").read_text()
            (folder / "record.json").write_text(record[: len(record) // 2])
        case "a digit":
            record = (folder / "record.json").read_text()
            (folder / "record.json").write_text(record.replace("604800", "604"))
        case "moved":
            folder.rename(folder.with_name("12"))
        case "another directory":
            (folder / "volume").rename(folder / "elsewhere")
            (folder / "volume").mkdir()
            (folder / "volume" / "file").write_text("content")
    for _ in range(2):
        with driver_on(tmp_path) as driver:
            assert driver.trash.entries() == []
            with pytest.raises(ConflictError, match="no removed volume 'vol'"):
                driver.create("vol", asked(restore="vol"))
    (kept,) = (tmp_path / ".mdvp" / "removed").iterdir()
    assert contents(kept, "volume") == "content"
    assert f"it is kept as {kept}, for you to look at" in caplog.text


def test_litter_in_the_trash_is_in_the_way_of_no_start(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content")
    folder = tmp_path / ".mdvp" / "removed"
    (folder / "file").write_text("root's")
    (folder / "12").mkdir()
    (folder / "13").mkdir()
    (folder / "13" / "something").write_text("root's")
    (folder / "link").symlink_to("12")
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(restore="vol"))
    assert sorted(os.listdir(folder)) == ["13", "file", "link"]


def test_what_root_has_taken_out_of_the_trash_is_not_there(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content")
        (folder,) = (tmp_path / ".mdvp" / "removed").iterdir()
        shutil.rmtree(folder)
        with pytest.raises(ConflictError, match="no removed volume 'vol'"):
            driver.create("vol", asked(restore="vol"))
        assert driver.trash.restorable() == 0


def test_a_full_disk_keeps_no_volume_from_staying_one(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], check=True)
    try:
        tmp_path.chmod(0o755)
        with driver_on(tmp_path) as driver:
            driver.create("vol", asked(on_remove="trash"))
            with (tmp_path / "vol" / "file").open("wb", buffering=0) as file:
                for size in (1 << 16, 1):
                    with pytest.raises(OSError, match="No space left"):
                        file.writelines(repeat(b"x" * size))
            with pytest.raises(ConflictError, match="make room, or have it deleted at once"):
                driver.remove("vol")
            assert driver.trash.entries() == []
            assert os.listdir(tmp_path / ".mdvp" / "removed") == []
            driver.mount("vol", "id")
            driver.unmount("vol", "id")
            driver.change("vol", options.changes({"on-remove": "delete"}))
            driver.remove("vol")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# A crash at each step; see test_mdvp_disk.py, which has those of volumes without a trash.

STEPS = {
    "trash": ["prepare", "set_aside", "take", "delete_record", "let_go"],
    "keep": ["prepare", "void_records", "delete_record", "let_go"],
    "restore": ["void_records", "add", "give_aside", "place", "settle", "forget"],
    "adopt": ["void_records", "add", "settle", "forget"],
    "expire": ["doom", "forget", "is_doomed", "delete"],
}


def crashes(operation: str) -> pytest.MarkDecorator:
    points = [(step, moment) for step in STEPS[operation] for moment in ("before", "after")]
    return pytest.mark.parametrize(("step", "moment"), points)


def crash(
    path: Path,
    step: str,
    moment: str,
    operation: Callable[[Driver], object],
    time: Time | None = None,
) -> None:
    """Do `operation` in a process that dies at `step`."""
    method = step.removesuffix("_record")
    of_store = hasattr(Store, method) and (method != "delete" or step == "delete_record")
    of_trash = hasattr(Trash, method)
    child = os.fork()
    if child == 0:
        try:
            trash = dying(Trash, method, moment) if of_trash else Trash
            root = Root if of_store or of_trash else dying(Root, method, moment)
            store = dying(Store, method, moment) if of_store else Store
            with (
                patch("mdvp.driver.Trash", trash),
                driver_on(path, time, root_class=root, store_class=store) as driver,
            ):
                operation(driver)
        finally:
            os._exit(0)  # not reached: the step is part of the operation
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{step} is no step of this operation"


def assert_nothing_is_left_over(path: Path) -> None:
    for folder in ("new", "trash", "removed"):
        assert os.listdir(path / ".mdvp" / folder) == []


@crashes("trash")
def test_a_crash_in_a_removal_leaves_the_volume_or_what_can_be_restored(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="trash"))
        (tmp_path / "vol" / "file").write_text("content")
    crash(tmp_path, step, moment, lambda driver: driver.remove("vol"))
    with driver_on(tmp_path) as driver:
        there = [volume.name for volume, _ in driver.list()]
        assert sorted(there + names(driver)) == ["vol"]
        if not there:
            driver.create("vol", asked(restore="vol"))
        driver.mount("vol", "id")
        assert contents(tmp_path, "vol") == "content"
    assert_nothing_is_left_over(tmp_path)


@crashes("keep")
def test_a_crash_in_a_removal_that_keeps_leaves_the_volume_or_what_can_be_adopted(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="keep", uid="1000"))
        (tmp_path / "vol" / "file").write_text("content")
    crash(tmp_path, step, moment, lambda driver: driver.remove("vol"))
    with driver_on(tmp_path) as driver:
        there = [volume.name for volume, _ in driver.list()]
        assert sorted(there + names(driver)) == ["vol"]
        if not there:
            driver.create("vol", asked(adopt="true"))
        assert driver.get("vol").volume.uid == 1000
        driver.mount("vol", "id")
        assert contents(tmp_path, "vol") == "content"
    assert_nothing_is_left_over(tmp_path)


@crashes("restore")
def test_a_crash_while_a_volume_is_restored_leaves_it_in_the_trash_or_restored(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", uid="1000")
    wanted = asked(restore="vol", uid="2000")
    crash(tmp_path, step, moment, lambda driver: driver.create("new", wanted))
    with driver_on(tmp_path) as driver:
        there = [volume.name for volume, _ in driver.list()]
        assert there == (["new"] if (tmp_path / "new").exists() else [])
        assert names(driver) == ([] if there else ["vol"])
        if not there:
            (directory,) = (tmp_path / ".mdvp" / "removed").glob("*/volume")
            assert directory.stat().st_uid == 1000
        driver.create("new", wanted)
        driver.mount("new", "id")
        assert contents(tmp_path, "new") == "content"
        assert (tmp_path / "new").stat().st_uid == 2000
    assert_nothing_is_left_over(tmp_path)


def test_what_a_crash_has_left_in_the_trash_of_a_volume_waits_for_its_place(
    tmp_path: Path,
) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content")
    crash(tmp_path, "add", "after", lambda driver: driver.create("vol", asked(restore="vol")))
    (tmp_path / "vol").mkdir()
    with driver_on(tmp_path) as driver:
        assert driver.trash.entries() == []
        with pytest.raises(ConflictError, match="was being restored, and something else is at"):
            driver.remove("vol")
        (tmp_path / "vol").rmdir()
        driver.mount("vol", "id")
        driver.unmount("vol", "id")
        driver.remove("vol")
        assert names(driver) == ["vol"]
        driver.create("vol", asked(restore="vol"))
    assert contents(tmp_path, "vol") == "content"
    assert_nothing_is_left_over(tmp_path)


@pytest.mark.parametrize("fate", ["trash", "keep", "delete"])
@pytest.mark.parametrize("operation", ["remove", "rename"])
def test_what_a_crash_has_left_aside_is_not_lost_with_a_removal_while_its_place_is_taken(
    tmp_path: Path, operation: str, fate: str
) -> None:
    with driver_on(tmp_path) as driver:
        driver.create("vol", asked(on_remove="trash"))
        (tmp_path / "vol" / "file").write_text("content")
    work: Callable[[Driver], object] = (
        (lambda driver: driver.remove("vol"))
        if operation == "remove"
        else (lambda driver: driver.rename("vol", "new"))
    )
    crash(tmp_path, "set_aside", "after", work)
    (tmp_path / "vol").mkdir()
    with driver_on(tmp_path) as driver:
        driver.change("vol", options.changes({"on-remove": fate}))
        if fate == "delete":
            driver.remove("vol")
        else:
            with pytest.raises(ConflictError, match=r"something else is at .*: move that away"):
                driver.remove("vol")
            (tmp_path / "vol").rmdir()
            driver.mount("vol", "id")
            assert contents(tmp_path, "vol") == "content"
    assert_nothing_is_left_over(tmp_path)


@crashes("adopt")
def test_a_crash_while_what_was_kept_is_adopted_leaves_it_kept_or_adopted(
    tmp_path: Path, step: str, moment: str
) -> None:
    with driver_on(tmp_path) as driver:
        removed(driver, tmp_path, "vol", "content", uid="1000", on_remove="keep")
    wanted = asked(adopt="true", uid="2000")
    crash(tmp_path, step, moment, lambda driver: driver.create("vol", wanted))
    with driver_on(tmp_path) as driver:
        there = [volume.name for volume, _ in driver.list()]
        assert there + names(driver) == ["vol"]
        assert (tmp_path / "vol").stat().st_uid == (2000 if there else 1000)
        driver.create("vol", wanted)
        assert contents(tmp_path, "vol") == "content"
        assert (tmp_path / "vol").stat().st_uid == 2000
    assert_nothing_is_left_over(tmp_path)


@pytest.mark.parametrize(
    ("operation", "step", "moment"),
    [
        (operation, step, moment)
        for operation in ("trash", "keep", "restore", "adopt")
        for step in STEPS[operation]
        for moment in ("before", "after")
    ],
)
def test_a_crash_that_takes_the_database_with_it_leaves_the_content_to_be_had(
    tmp_path: Path, operation: str, step: str, moment: str
) -> None:
    fate = "keep" if operation in {"keep", "adopt"} else "trash"
    back = asked(restore="vol") if fate == "trash" else asked(adopt="true")
    time = Time()
    with driver_on(tmp_path, time) as driver:
        driver.create("vol", asked(on_remove=fate, uid="1000"))
        (tmp_path / "vol" / "file").write_text("content")
        if operation in {"restore", "adopt"}:
            driver.remove("vol")
    work: Callable[[Driver], object] = (
        (lambda driver: driver.remove("vol"))
        if operation == fate
        else (lambda driver: driver.create("vol", back))
    )
    time.passes(1)
    crash(tmp_path, step, moment, work, time)
    lose_database(tmp_path)
    with driver_on(tmp_path, time) as driver:
        if not driver.list():
            driver.create("vol", back)
        driver.mount("vol", "id")
        assert contents(tmp_path, "vol") == "content"
        assert driver.trash.entries() == []
    assert_nothing_is_left_over(tmp_path)


@crashes("expire")
def test_a_crash_while_the_trash_expires_leaves_all_of_it_or_nothing(
    tmp_path: Path, step: str, moment: str
) -> None:
    time = Time()
    with driver_on(tmp_path, time) as driver:
        removed(driver, tmp_path, "vol", "content", on_remove="trash:1h")
    time.passes(3600)
    crash(tmp_path, step, moment, lambda driver: eventually(lambda: names(driver), []), time)
    expired = not list((tmp_path / ".mdvp" / "removed").glob("*/volume/file"))
    assert expired == ((step, moment) != ("doom", "before"))
    with driver_on(tmp_path, time) as driver:
        eventually(lambda: names(driver), [])
    assert_nothing_is_left_over(tmp_path)


# A real process, and real clocks.


def test_a_real_plugin_deletes_what_is_due_and_counts_what_is_not(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with serving(root, short_path / "mdvp.sock", ON_REMOVE="trash:1h") as plugin:
        for name, opts in (("later", {}), ("soon", {"on-remove": "trash:1s"})):
            plugin.call("Create", Name=name, Opts=opts)
            assert plugin.call("Remove", Name=name).status == 200
        eventually(lambda: plugin.metrics()["mdvp_trash_volumes",], 1)
        eventually(lambda: len(list((root / ".mdvp" / "removed").iterdir())), 1)
        plugin.kill()
    with serving(root, short_path / "mdvp.sock") as plugin:
        answer = plugin.call("Create", Name="again", Opts={"restore": "soon"})
        assert (answer.status, answer.error) == (
            409,
            "no removed volume 'soon' is in the trash: `mdvp ls --trash` shows those that can be "
            "restored",
        )
        assert plugin.call("Create", Name="again", Opts={"restore": "later"}).status == 200
        assert "volume later, removed at" in (log := plugin.stop())
        assert "restored as volume again" in log
