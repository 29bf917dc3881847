"""Volumes that begin with the content of another: by snapshot, by reflink, by copy."""

import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from filesystems import file_system
from integration.mounts import only_root
from integration.plugin import Plugin, serving
from integration.test_mdvp_copy import full, shape
from integration.test_mdvp_disk import assert_nothing_is_left_aside, crash, driver_on, dying
from integration.test_mdvp_limits import fill
from support import eventually

from mdvp import filler, jobs
from mdvp.core.errors import ConflictError, LaterError, NoSuchVolumeError, StorageError
from mdvp.core.options import Options
from mdvp.core.volume import Means, Volume
from mdvp.disk import btrfs
from mdvp.disk.copy import Copy
from mdvp.disk.root import Root
from mdvp.driver import Driver
from mdvp.turns import Somebody

pytestmark = only_root

MEANS = {"btrfs": "snapshot", "xfs": "reflink", "ext4": "copy"}
# What `setpriv` leaves the plugin.
RIGHTS = (
    "setpriv",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+sys_ptrace",
)
# A file's capabilities as linux/capability.h has them (version 2): cap_chown, permitted.
CAN_CHOWN = struct.pack("<IIIII", 0x02000000, 1, 0, 0, 0)
FROM = Options(origin="vol")


@pytest.fixture(scope="module", params=sorted(MEANS))
def disk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with file_system(request.param, tmp_path_factory.mktemp("disk")) as path:
        yield path


@pytest.fixture(scope="module")
def btrfs_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with file_system("btrfs", tmp_path_factory.mktemp("btrfs")) as path:
        yield path


@pytest.fixture
def plugin(short_path: Path, disk: Path, request: pytest.FixtureRequest) -> Iterator[Plugin]:
    root = disk / request.node.name.partition("[")[0]
    root.mkdir()
    with serving(root, short_path / "mdvp.sock", prefix=RIGHTS) as plugin:
        yield plugin


def volume(driver: Driver, name: str) -> Volume | None:
    return next((volume for volume, _ in driver.list() if volume.name == name), None)


def is_full(driver: Driver, name: str = "copy") -> bool:
    found = volume(driver, name)
    return found is not None and not found.is_being_filled


class Gate:
    """Holds up whoever copies a file, until it is opened; `work` is what comes then."""

    def __init__(self) -> None:
        self.work: Callable[..., None] = Copy._copy_file
        self.reached = Event()
        self.open = Event()

    def __call__(self, copy: Copy, *arguments: object) -> None:
        self.reached.set()
        self.open.wait(10)
        self.work(copy, *arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()

    def held_up(copy: Copy, *arguments: object) -> None:
        gate(copy, *arguments)

    monkeypatch.setattr(Copy, "_copy_file", held_up)
    monkeypatch.setattr(filler, "PATIENCE", 0.05)
    yield gate
    gate.open.set()


class Client(Somebody):
    """Somebody who asks; says whether another thread stood in for the one that answered."""

    waited = False

    @contextmanager
    def waits(self) -> Iterator[None]:
        self.waited = True
        yield


@contextmanager
def filling(path: Path, gate: Gate, options: Options = FROM) -> Iterator[Driver]:
    """Have `copy` filled from `vol`, as far as its first file."""
    with driver_on(path) as driver:
        driver.create("vol", Options(uid=7, mode=0o750))
        (path / "vol" / "file").write_text("content")
        client = Client()
        driver.create("copy", options, client)
        assert client.waited
        assert gate.reached.wait(10)
        try:
            yield driver
        finally:
            gate.open.set()


def test_a_volume_gets_all_that_another_has_by_what_the_file_system_can(plugin: Plugin) -> None:
    means = MEANS[plugin.root.parent.name]
    plugin.call("Create", Name="vol", Opts={"uid": "1000", "mode": "0750"})
    full(plugin.root / "vol")
    (plugin.root / "vol").chmod(0o750)
    was = shape(plugin.root / "vol")
    answer = plugin.call("Create", Name="copy", Opts={"from": "vol"})
    assert answer.status == 200, answer.message
    status = plugin.call("Get", Name="copy").message["Volume"]["Status"]
    assert (status["from"], status["means"], "filling" in status) == ("vol", means, False)
    copied = shape(plugin.root / "copy")
    top = copied.pop(".")
    assert top[:3] == was.pop(".")[:3]
    assert copied == was
    assert plugin.call("Create", Name="copy", Opts={"from": "vol"}).status == 200
    assert plugin.call("Remove", Name="vol").status == 200
    assert plugin.call("Mount", Name="copy", ID="id").status == 200
    assert shape(plugin.root / "copy").keys() - {"."} == copied.keys()
    log = plugin.stop()
    assert f"volume copy has the content of vol, by {means}" in log
    assert "Traceback" not in log


def test_what_takes_a_capability_that_the_plugin_lacks_is_left_out_and_said(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    program = plugin.root / "vol" / "program"
    program.touch()
    os.chown(program, 1000, 1001)
    program.chmod(0o2755)
    os.setxattr(program, "security.capability", CAN_CHOWN)
    plugin.call("Create", Name="copy", Opts={"from": "vol"})
    copied = plugin.root / "copy" / "program"
    mode, attributes = copied.stat().st_mode & 0o7777, os.listxattr(copied)
    log = plugin.stop()
    if plugin.root.parent.name == "btrfs":  # a snapshot is made by the kernel
        assert (mode, attributes) == (0o2755, ["security.capability"])
        assert "left out" not in log
    else:
        assert (mode, attributes) == (0o755, [])
        assert "1 attributes left out; 1 permissions to act as the group left out: 'pr" in log


def test_a_copy_has_the_owner_and_permissions_that_it_is_asked_to_have(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "1000", "mode": "0750"})
    (plugin.root / "vol" / "file").write_text("content")
    plugin.call("Create", Name="copy", Opts={"from": "vol", "uid": "5", "mode": "0700"})
    status = (plugin.root / "copy").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (5, 0o700)
    assert (plugin.root / "vol").stat().st_uid == 1000
    assert (plugin.root / "copy" / "file").read_text() == "content"


def test_what_a_copy_is_of_can_change_without_the_copy(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("before")
    plugin.call("Create", Name="copy", Opts={"from": "vol"})
    (plugin.root / "vol" / "file").write_text("after")
    assert (plugin.root / "copy" / "file").read_text() == "before"
    (plugin.root / "copy" / "file").write_text("of the copy")
    assert (plugin.root / "vol" / "file").read_text() == "after"


def test_a_copy_is_found_again_when_the_state_is_lost(disk: Path) -> None:
    root = disk / "lost"
    root.mkdir()
    with driver_on(root) as driver:
        driver.create("vol")
        driver.create("copy", FROM)
        was = driver.list()
    for file in (root / ".mdvp").glob("state.db*"):
        file.unlink()
    with driver_on(root) as driver:
        assert driver.list() == was
        assert is_full(driver)


def test_a_volume_with_subvolumes_in_it_is_copied_with_all_that_they_have(
    btrfs_disk: Path,
) -> None:
    with driver_on(btrfs_disk) as driver:
        driver.create("vol")
        fd = os.open(btrfs_disk / "vol", os.O_RDONLY)
        btrfs.make_subvolume("below", fd)
        os.close(fd)
        (btrfs_disk / "vol" / "below" / "file").write_text("content")
        driver.create("copy", FROM)
        found = volume(driver, "copy")
        assert found is not None
        assert found.means is Means.REFLINK
        assert (btrfs_disk / "copy" / "below" / "file").read_text() == "content"


def test_a_copy_has_the_limit_that_it_is_asked_to_have(short_path: Path, btrfs_disk: Path) -> None:
    subprocess.run(["btrfs", "quota", "enable", btrfs_disk], check=True)
    root, opts = btrfs_disk / "limited", {"from": "vol", "size": "8M"}
    root.mkdir()
    for rights in (RIGHTS, (*RIGHTS[:-1], f"{RIGHTS[-1]},+sys_admin")):
        with serving(root, short_path / "mdvp.sock", prefix=rights) as plugin:
            plugin.call("Create", Name="vol")
            answer = plugin.call("Create", Name="copy", Opts=opts)
            assert answer.status == (501 if rights is RIGHTS else 200), answer.message
            if rights is RIGHTS:
                assert "that takes CAP_SYS_ADMIN" in answer.error
                eventually(lambda: list((root / ".mdvp" / "new").iterdir()), [])
                assert plugin.volumes() == ["vol"]
    assert fill(root / "copy", 16 << 20) == errno.EDQUOT
    assert fill(root / "vol", 16 << 20) is None


def test_what_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    with driver_on(tmp_path) as driver:
        with pytest.raises(NoSuchVolumeError, match="no volume 'vol'"):
            driver.create("copy", FROM)
        driver.create("vol")
        driver.mount("vol", "id")
        with pytest.raises(ConflictError, match=r"in use.*`-o from-live=true`"):
            driver.create("copy", FROM)
        driver.create("copy", Options(origin="vol", live=True))
        assert is_full(driver)
        (tmp_path / "taken").mkdir()
        with pytest.raises(ConflictError, match="exists and is no volume of mdvp"):
            driver.create("taken", Options(origin="vol", live=True))
        driver.unmount("vol", "id")
        (tmp_path / "vol").rename(tmp_path / "elsewhere")
        with pytest.raises(ConflictError, match="its directory is not at"):
            driver.create("other", FROM)
        assert [each.name for each, _ in driver.list()] == ["copy", "vol"]
    assert_nothing_is_left_aside(tmp_path)


def test_a_create_answers_while_the_copy_goes_on_and_nobody_gets_half_of_it(
    tmp_path: Path, gate: Gate
) -> None:
    with filling(tmp_path, gate) as driver:
        report = driver.get("copy")
        assert report.filling == "0 % of 4.1 kB, 1 files"
        assert report.warnings == []
        assert not (tmp_path / "copy").exists()
        with pytest.raises(LaterError, match="'copy' gets the content of 'vol': 0 % of"):
            driver.mount("copy", "id")
        with pytest.raises(ConflictError, match="'copy' is itself being filled: 0 % of"):
            driver.create("third", Options(origin="copy"))
        gate.open.set()
        eventually(lambda: is_full(driver), True)
        driver.mount("copy", "id")
        assert driver.get("copy").filling is None
        status = (tmp_path / "copy").stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (7, 0o750)


def test_a_mount_waits_for_the_copy(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filling(tmp_path, gate) as driver:
        monkeypatch.setattr(filler, "PATIENCE", 10.0)
        had: list[str] = []
        waits = Thread(target=lambda: had.append(driver.mount("copy", "id")))
        waits.start()
        eventually(lambda: driver.turns.waiting("copy"), 1)
        gate.open.set()
        waits.join(10)
        assert had == [str(tmp_path / "copy")]
        assert (tmp_path / "copy" / "file").read_text() == "content"


@pytest.mark.parametrize("live", [None, True])
def test_nobody_changes_what_is_copied_unless_that_was_asked_for(
    tmp_path: Path, gate: Gate, *, live: bool | None
) -> None:
    with filling(tmp_path, gate, Options(origin="vol", live=live)) as driver:
        refusal = "volume 'vol' is being copied to volume 'copy': 0 % of"
        with pytest.raises(ConflictError, match=refusal):
            driver.remove("vol")
        with pytest.raises(ConflictError, match=refusal):
            driver.rename("vol", "other")
        if live:
            driver.mount("vol", "id")
        else:
            with pytest.raises(LaterError, match=refusal):
                driver.mount("vol", "id")
            gate.open.set()
            eventually(lambda: is_full(driver), True)
            driver.mount("vol", "id")


def test_a_volume_being_filled_can_be_removed_and_nothing_is_left(
    tmp_path: Path, gate: Gate
) -> None:
    with filling(tmp_path, gate) as driver:
        driver.remove("copy")
        assert volume(driver, "copy") is None
        driver.mount("vol", "id")  # nobody copies it any more
        driver.unmount("vol", "id")
        driver.create("copy")  # another
        assert any((tmp_path / ".mdvp" / "new").iterdir())  # the copy has not ended yet
        gate.open.set()
        eventually(lambda: list((tmp_path / ".mdvp" / "new").iterdir()), [])
        driver.mount("copy", "id")
        assert list((tmp_path / "copy").iterdir()) == []


def test_all_is_on_disk_before_it_is_on_record_that_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driver_on(tmp_path) as driver:
        seen = []
        monkeypatch.setattr(filler, "sync_file_system", lambda _: seen.append(is_full(driver)))
        driver.create("vol")
        driver.create("copy", FROM)
        assert seen == [False]


def test_how_far_it_is_is_said_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "_STEP", 0)
    caplog.set_level("INFO")
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        for number in range(4):
            (tmp_path / "vol" / f"{number}").write_bytes(b"x" * 4096)
        driver.create("copy", FROM)
    lines = [
        record.args["percent"]
        for record in caplog.records
        if isinstance(record.args, dict) and record.args["event"] == "filling_progress"
    ]
    assert sorted({0, 25, 50, 75} & set(lines)) == [0, 25, 50, 75]
    assert lines == sorted(lines)
    assert "volume copy: 50 % of 16.4 kB, 4 files" in caplog.text
    assert "volume copy has the content of vol, by copy" in caplog.text or "reflink" in caplog.text


def test_a_copy_that_was_cut_off_goes_on_with_the_next_start(tmp_path: Path, gate: Gate) -> None:
    with filling(tmp_path, gate) as driver:
        closing = Thread(target=driver.end_waits)
        closing.start()
        closing.join()
    assert not (tmp_path / "copy").exists()
    with driver_on(tmp_path) as driver:
        eventually(lambda: is_full(driver), True)
        assert (tmp_path / "copy" / "file").read_text() == "content"
    assert_nothing_is_left_aside(tmp_path)


def test_a_copy_that_a_kill_cuts_off_goes_on_and_copies_nothing_twice(
    short_path: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with serving(root, short_path / "mdvp.sock") as plugin:
        plugin.call("Create", Name="vol")
        for number in range(1500):
            (root / "vol" / f"{number}").write_text("content")
        with ThreadPoolExecutor() as pool:
            create = pool.submit(plugin.call, "Create", Name="copy", Opts={"from": "vol"})
            eventually(lambda: len(list((root / ".mdvp" / "new").glob("*/*"))) > 300, True)
            plugin.kill()
            assert create.exception() is not None
        copied = {each.name: each.stat().st_ino for each in (root / ".mdvp" / "new").glob("*/*")}
        assert 300 < len(copied) < 1500
    with serving(root, short_path / "mdvp.sock") as plugin:
        assert plugin.volumes() == ["copy", "vol"]
        assert plugin.call("Mount", Name="copy", ID="id").status == 200
    again = {
        name for name, inode in copied.items() if (root / "copy" / name).stat().st_ino != inode
    }
    assert len(again) <= 1  # the one that was being written
    assert shape(root / "copy") | {".": None} == shape(root / "vol") | {".": None}


def failing(_: Copy, *_arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_copy_that_fails_while_it_is_waited_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Copy, "_copy_file", failing)
    with driver_on(tmp_path) as driver:
        driver.create("vol")
        (tmp_path / "vol" / "file").write_text("content")
        with pytest.raises(StorageError, match=r"'vol': No space left on device: 'file'"):
            driver.create("copy", FROM)
        assert volume(driver, "copy") is None
        eventually(lambda: list((tmp_path / ".mdvp" / "new").iterdir()), [])
        driver.remove("vol")


def test_a_copy_that_fails_later_says_so_and_a_mount_tries_again(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filling(tmp_path, gate) as driver:
        work, gate.work = gate.work, failing
        gate.open.set()
        failed = "failed: No space left on device: 'file'"
        eventually(lambda: driver.get("copy").filling, failed)
        with pytest.raises(LaterError, match=r"failed: No space.*remove the volume"):
            driver.mount("copy", "id")
        eventually(lambda: driver.get("copy").filling, failed)
        gate.work = work
        monkeypatch.setattr(filler, "PATIENCE", 10.0)
        driver.mount("copy", "id")
        assert (tmp_path / "copy" / "file").read_text() == "content"


def test_a_volume_whose_source_is_gone_at_the_next_start_says_so_and_can_be_removed(
    tmp_path: Path, gate: Gate
) -> None:
    with filling(tmp_path, gate) as driver:
        driver.end_waits()
    (tmp_path / "vol").rename(tmp_path / "elsewhere")
    with driver_on(tmp_path) as driver:
        assert "its directory is not at" in str(driver.get("copy").filling)
        with pytest.raises(LaterError, match="its directory is not at"):
            driver.mount("copy", "id")
        driver.remove("copy")
        eventually(lambda: list((tmp_path / ".mdvp" / "new").iterdir()), [])


def test_a_create_for_which_a_snapshot_is_made_has_its_name_meanwhile(
    btrfs_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, real = Event(), Event(), btrfs.snapshot

    def slow(*arguments: object) -> None:
        reached.set()
        go_on.wait(10)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(btrfs, "snapshot", slow)
    root = btrfs_disk / "reserved"
    root.mkdir()
    with driver_on(root) as driver:
        driver.create("vol")
        driver.create("other")
        making = Thread(target=lambda: driver.create("copy", FROM))
        making.start()
        assert reached.wait(10)
        refusals: list[Callable[[], None]] = [
            lambda: driver.create("copy"),
            lambda: driver.create("copy", FROM),
            lambda: driver.remove("vol"),
        ]
        for refused in refusals:
            with pytest.raises(ConflictError, match="a snapshot is being made"):
                refused()
        driver.remove("other")  # and its deletion passes by what is being made
        eventually(lambda: list((root / ".mdvp" / "trash").iterdir()), [])
        go_on.set()
        making.join(10)
        assert is_full(driver)
    assert_nothing_is_left_aside(root)


# What a crash at each step leaves, as in test_mdvp_disk.

STEPS = {
    "snapshot": ["give_aside", "label", "add", "sync", "place"],
    "file by file": ["make", "add", "sync", "give_aside", "label", "replace", "place"],
}
COPY_STEPS = ["count", "run", "_set_mark", "_enter", "_dress", "_remember", "_finish"]


def crash_points(how: str, steps: list[str]) -> pytest.MarkDecorator:
    points = [(step, moment) for step in steps for moment in ("before", "after")]
    return pytest.mark.parametrize(("step", "moment"), points, ids=lambda it: f"{how}-{it}")


def prepared(path: Path) -> None:
    with driver_on(path) as driver:
        driver.create("vol")
        (path / "vol" / "dir").mkdir()
        (path / "vol" / "dir" / "one").write_text("content")
        os.link(path / "vol" / "dir" / "one", path / "vol" / "two")


def assert_done_or_not_begun(path: Path) -> None:
    with driver_on(path) as driver:
        if volume(driver, "copy") is not None:
            eventually(lambda: is_full(driver), True)
        else:
            driver.create("copy", FROM)
        assert shape(path / "copy") | {".": None} == shape(path / "vol") | {".": None}
        driver.mount("copy", "id")
        driver.mount("vol", "id")
        eventually(lambda: list((path / ".mdvp" / "new").iterdir()), [])
    assert_nothing_is_left_aside(path)
    with driver_on(path) as driver:
        assert [each.name for each, _ in driver.list()] == ["copy", "vol"]


@crash_points("snapshot", STEPS["snapshot"])
def test_a_crash_while_a_snapshot_is_made_leaves_all_of_it_or_nothing(
    btrfs_disk: Path, step: str, moment: str
) -> None:
    root = btrfs_disk / f"{step}-{moment}"
    root.mkdir()
    prepared(root)
    crash(root, step, moment, lambda driver: driver.create("copy", FROM))
    assert_done_or_not_begun(root)


@crash_points("copy", STEPS["file by file"])
def test_a_crash_while_a_volume_is_filled_leaves_what_goes_on_or_nothing(
    tmp_path: Path, step: str, moment: str
) -> None:
    prepared(tmp_path)
    crash(tmp_path, step, moment, lambda driver: driver.create("copy", FROM))
    assert_done_or_not_begun(tmp_path)


@crash_points("copy", COPY_STEPS)
def test_a_crash_in_the_middle_of_a_copy_leaves_what_goes_on(
    tmp_path: Path, step: str, moment: str
) -> None:
    prepared(tmp_path)

    def fill(driver: Driver) -> None:
        vars(filler)["Copy"] = dying(Copy, step, moment)  # in a process of its own
        driver.create("copy", FROM)

    crash_in(tmp_path, fill)
    with driver_on(tmp_path) as driver:
        assert volume(driver, "copy") is not None
    assert_done_or_not_begun(tmp_path)


def crash_in(path: Path, operation: Callable[[Driver], object]) -> None:
    child = os.fork()
    if child == 0:
        try:
            with driver_on(path, Root) as driver:
                operation(driver)
        finally:
            os._exit(0)  # not reached: it dies before
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
