"""Volumes that show another's directory: who can write, who counts as what, and what is refused."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from integration.follow import Log, following
from integration.holder import HIDE, ROOT, containing, hide_now, kill, new_container_id
from integration.mounts import TMPFS, mounted, only_root
from integration.plugin import Plugin, serving
from integration.test_mdvp_btrfs import RIGHTS
from integration.test_mdvp_disk import crash, driver_on
from support import eventually

from mdvp.core import options

pytestmark = only_root

VIEW = Path(".mdvp", "readonly")
SYS_ADMIN = (*RIGHTS[:-1], f"{RIGHTS[-1]},+sys_admin")
# How an operator mounts the view.
BY_HAND = ("-o", "bind,ro,nodiratime,private")
# What a container does with its mount of a volume, in /mnt, that may do so.
AS_READ_ONLY = 'mount -o remount,bind,ro "$2/root/mnt"'
AS_READER = 'mount -o remount,bind,ro,nodiratime "$2/root/mnt"'
WRITABLE = 'mount -o remount,bind,rw "$2/root/mnt"'
COVERED = 'mount -t tmpfs none "$2/root/mnt"'


@pytest.fixture
def root(short_path: Path) -> Iterator[Path]:
    root = short_path / "root"
    root.mkdir()
    yield root
    while has_view(root):  # as a mdvp that was killed leaves it
        subprocess.run(("umount", "--lazy", root / VIEW), check=True)


@pytest.fixture
def plugin(root: Path) -> Iterator[Plugin]:
    with served(root) as plugin:
        yield plugin


@pytest.fixture
def log(plugin: Plugin) -> Iterator[Log]:
    with following(plugin) as log:
        yield log


@contextmanager
def served(root: Path, rights: Sequence[str] = SYS_ADMIN) -> Iterator[Plugin]:
    with serving(root, root.with_name("mdvp.sock"), prefix=rights, GRACE="3600") as plugin:
        yield plugin


def has_view(root: Path) -> bool:
    return (root / VIEW).exists() and (root / VIEW).samefile(root)


def create(plugin: Plugin, name: str, **opts: str) -> str:
    """Create a volume; return why it is refused, "" if it is not."""
    answer = plugin.call(
        "Create", Name=name, Opts={k.replace("_", "-"): v for k, v in opts.items()}
    )
    return "" if answer.status == 200 else answer.error


def mount(plugin: Plugin, name: str, mount_id: str) -> str:
    """Ask for a volume; return why it is refused, "" if it is not."""
    answer = plugin.call("Mount", Name=name, ID=mount_id)
    return "" if answer.status == 200 else answer.error


def holders(plugin: Plugin, name: str) -> list[str]:
    status = plugin.call("Get", Name=name).message["Volume"]["Status"]
    found: list[str] = status.get("mounted_by", [])
    return found


@contextmanager
def container(
    plugin: Plugin, name: str, point: Path, then: str = "", hide: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a container with a volume, as an engine does that was told where it is."""
    place = plugin.call("Path", Name=name).message["Mountpoint"]
    who = new_container_id()
    with containing(place, point, who, hide, f"{ROOT}\n{then}\n") as process:
        yield who, process


@pytest.fixture
def points(tmp_path: Path) -> list[Path]:
    """Return places for containers to set themselves up."""
    found = [tmp_path / str(number) for number in range(3)]
    for each in found:
        each.mkdir()
    return found


def test_readers_are_beside_one_writer_and_cannot_write(
    plugin: Plugin, points: list[Path], log: Log
) -> None:
    assert create(plugin, "vol") == ""
    assert create(plugin, "reader", reader_of="vol") == ""
    with ExitStack() as stack:
        assert mount(plugin, "vol", "writer") == ""
        writer, _ = stack.enter_context(container(plugin, "vol", points[0]))
        eventually(lambda: log.says("volume vol is mounted in container", writer[:12]), True)
        readers = []
        for number in (1, 2):
            assert mount(plugin, "reader", f"reader {number}") == ""
            readers.append(stack.enter_context(container(plugin, "reader", points[number])))
        eventually(lambda: sorted(holders(plugin, "reader")), sorted(who for who, _ in readers))
        assert holders(plugin, "vol") == [writer]
        assert f"container {writer[:12]} has had it" in mount(plugin, "vol", "another")
        for _, process in readers:
            seen = Path(f"/proc/{process.pid}/root/mnt/file")
            (plugin.root / "vol" / "file").write_text("of the writer")
            assert seen.read_text() == "of the writer"
            with pytest.raises(OSError, match="Read-only file system") as refused:
                seen.write_text("of a reader")
            assert refused.value.errno == errno.EROFS
        assert plugin.metrics()["mdvp_volumes_in_use",] == 2
    assert mount(plugin, "vol", "another") == ""


def test_who_reads_does_not_keep_a_writer_from_the_volume(
    plugin: Plugin, points: list[Path], log: Log
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "reader", "id")
    with container(plugin, "reader", points[0]) as (reader, _):
        eventually(lambda: holders(plugin, "reader"), [reader])
        assert holders(plugin, "vol") == []
        assert mount(plugin, "vol", "writer") == ""
        with container(plugin, "vol", points[1]) as (writer, _):
            eventually(lambda: log.says("volume vol is mounted in container", writer[:12]), True)
        assert mount(plugin, "vol", "another") == ""


def test_a_container_that_has_a_volume_read_only_has_it(plugin: Plugin, points: list[Path]) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    with container(plugin, "vol", points[0], AS_READ_ONLY) as (who, _):
        eventually(lambda: holders(plugin, "vol"), [who])
        assert holders(plugin, "reader") == []
        assert f"container {who[:12]} has had it" in mount(plugin, "vol", "id")


def test_a_reader_that_can_make_its_mount_writable_has_the_volume(
    plugin: Plugin, points: list[Path], log: Log
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "vol", "writer")
    with (
        container(plugin, "vol", points[0]) as (writer, process),
        container(plugin, "reader", points[1], WRITABLE) as (reader, _),
    ):
        eventually(lambda: sorted(holders(plugin, "vol")), sorted([writer, reader]))
        eventually(lambda: log.says("volume vol is exclusive, and yet several"), True)
        kill(process)
        assert f"container {reader[:12]} has had it" in mount(plugin, "vol", "another")


def test_a_writer_that_passes_itself_off_as_a_reader_has_the_volume_still(
    plugin: Plugin, points: list[Path], log: Log
) -> None:
    create(plugin, "vol")
    mount(plugin, "vol", "id")
    hide = (
        "import subprocess; subprocess.run(['mount', '-o', 'remount,bind,ro,nodiratime', '/mnt'], "
        "check=True)"
    )
    with container(plugin, "vol", points[0], hide=hide) as (who, process):
        eventually(lambda: log.says("volume vol is mounted in container", who[:12]), True)
        hide_now(process)
        assert f"container {who[:12]} has had it" in mount(plugin, "vol", "another")


@pytest.mark.parametrize("then", ["", COVERED], ids=["", "covered"])
def test_neither_a_volume_nor_its_reader_is_removed_while_somebody_reads(
    plugin: Plugin, points: list[Path], then: str
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "reader", "id")
    refusal = "volume 'vol' is being read: volume 'reader' is in use: "
    assert refusal + "mount id has had it" in plugin.call("Remove", Name="vol").error
    with container(plugin, "reader", points[0], then) as (who, process):
        eventually(lambda: holders(plugin, "reader"), [who])
        plugin.call("Unmount", Name="reader", ID="id")
        assert refusal + f"container {who[:12]} has" in plugin.call("Remove", Name="vol").error
        assert "is in use: container" in plugin.call("Remove", Name="reader").error
        kill(process)
    assert plugin.call("Remove", Name="vol").status == 200
    assert "shows 'vol', which is no volume any more" in mount(plugin, "reader", "id")
    assert "which it shows" in str(plugin.call("Get", Name="reader").message)
    assert create(plugin, "vol") == ""
    assert mount(plugin, "reader", "id") == ""
    plugin.call("Unmount", Name="reader", ID="id")
    assert plugin.call("Remove", Name="reader").status == 200
    assert plugin.volumes() == ["vol"]


def test_a_reader_follows_its_volume_to_another_name(plugin: Plugin, points: list[Path]) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "reader", "id")
    with container(plugin, "reader", points[0]) as (who, _):
        eventually(lambda: holders(plugin, "reader"), [who])
        for names in (("vol", "new"), ("reader", "other")):
            body = json.dumps(dict(zip(("Name", "NewName"), names, strict=True))).encode()
            answer = plugin.post("/Mdvp.Rename", body)
            assert (answer.status == 200) is (names[0] == "vol")
        assert holders(plugin, "reader") == [who]
        assert "is being read" in plugin.call("Remove", Name="new").error
    assert mount(plugin, "reader", "another") == ""
    place = plugin.call("Path", Name="reader").message["Mountpoint"]
    assert Path(place).samefile(plugin.root / "new")


def test_a_volume_keeps_its_name_while_a_reader_starts_which_was_told_where_it_is(
    plugin: Plugin,
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "reader", "id")
    body = json.dumps({"Name": "vol", "NewName": "new"}).encode()
    refused = plugin.post("/Mdvp.Rename", body)
    assert (refused.status, refused.error.partition(":")[0]) == (
        409,
        "volume 'vol' is just being given to who reads it",
    )
    plugin.call("Unmount", Name="reader", ID="id")
    assert plugin.post("/Mdvp.Rename", body).status == 200


def test_who_reads_is_listed_with_the_reader(plugin: Plugin, points: list[Path]) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    with container(plugin, "reader", points[0]) as (who, _):
        # By the look alone: it is not on record by then who has it.
        eventually(lambda: plugin.metrics()["mdvp_volumes_in_use",], 1)
        answer = plugin.post("/Mdvp.List", b"{}")
        listed = {it["name"]: (it["used_by"], it["mountpoint"]) for it in answer.message["Volumes"]}
        assert listed == {
            "vol": ([], str(plugin.root / "vol")),
            "reader": ([who], str(plugin.root / VIEW / "vol")),
        }


def test_a_reader_is_not_kept_in_the_trash(root: Path) -> None:
    with serving(root, root.with_name("mdvp.sock"), prefix=SYS_ADMIN, ON_REMOVE="trash") as plugin:
        create(plugin, "vol")
        create(plugin, "reader", reader_of="vol")
        plugin.call("Remove", Name="reader")
        assert "no removed volume" in create(plugin, "again", restore="reader")
        assert os.listdir(root / ".mdvp" / "removed") == []


def test_a_reader_that_hides_its_view_reads_until_it_ends(
    plugin: Plugin, points: list[Path], log: Log
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    mount(plugin, "reader", "id")
    with container(plugin, "reader", points[0], hide=HIDE["chroot"]) as (who, process):
        eventually(lambda: log.says("volume reader is mounted in container", who[:12]), True)
        hide_now(process)
        plugin.call("Unmount", Name="reader", ID="id")
        assert "is being read" in plugin.call("Remove", Name="vol").error
        assert mount(plugin, "vol", "writer") == ""


def test_an_engine_that_works_for_a_reader_works_for_no_other(root: Path) -> None:
    with serving(root, root.with_name("mdvp.sock"), prefix=SYS_ADMIN, GRACE="1") as plugin:
        create(plugin, "vol")
        (root / "vol" / "file").touch()
        create(plugin, "reader", reader_of="vol")
        mount(plugin, "reader", "id")
        mount(plugin, "vol", "writer")
        with (root / VIEW / "vol" / "file").open():  # as the engine does that this test is
            eventually(lambda: mount(plugin, "vol", "another"), "")
            plugin.call("Unmount", Name="vol", ID="another")
            assert "is being read" in plugin.call("Remove", Name="vol").error
        mount(plugin, "vol", "writer")
        with (root / "vol" / "file").open():
            eventually(lambda: plugin.call("Remove", Name="reader").status, 200)
            assert "is in use" in mount(plugin, "vol", "another")


@pytest.mark.parametrize("earlier", [True, False], ids=["earlier", "later"])
def test_what_is_mounted_in_a_volume_is_not_shown_to_its_readers(root: Path, earlier: bool) -> None:
    # As on most hosts, mounts come to wherever the one below them is mounted, too.
    with mounted("-o", "bind,shared", root, root), served(root) as plugin:
        create(plugin, "vol")
        below = root / "vol" / "below"
        below.mkdir()
        if not earlier:
            assert create(plugin, "reader", reader_of="vol") == ""
        with mounted(*TMPFS, below):
            (below / "file").touch()
            if earlier:
                assert create(plugin, "reader", reader_of="vol") == ""
            assert list((root / VIEW / "vol" / "below").iterdir()) == []
        plugin.stop()


def test_there_is_a_view_once_a_reader_was_asked_for_until_mdvp_ends(root: Path) -> None:
    with served(root) as plugin:
        create(plugin, "vol")
        mount(plugin, "vol", "id")
        assert not has_view(root)
        create(plugin, "reader", reader_of="vol")
        assert has_view(root)
        plugin.stop()
        assert not has_view(root)
    with served(root) as plugin:
        assert not has_view(root)
        assert mount(plugin, "reader", "id") == ""
        assert has_view(root)
        plugin.kill()
        assert has_view(root)
    with served(root, RIGHTS) as plugin:  # what was left is as good as a new one
        assert plugin.volumes() == ["reader", "vol"]
        assert mount(plugin, "reader", "id") == ""


def test_a_reader_that_was_shown_is_known_after_mdvp_was_killed(
    root: Path, points: list[Path]
) -> None:
    with ExitStack() as stack:
        with served(root) as plugin, following(plugin) as log:
            create(plugin, "vol")
            create(plugin, "reader", reader_of="vol")
            mount(plugin, "reader", "id")
            hide = HIDE["chroot with a file open"].replace('"w"', '"r"')
            (root / "vol" / "log").touch()
            who, process = stack.enter_context(container(plugin, "reader", points[0], hide=hide))
            eventually(lambda: log.says("volume reader is mounted in", who[:12]), True)
            hide_now(process)
            plugin.kill()
        with served(root) as plugin:
            assert holders(plugin, "reader") == [who]
            assert holders(plugin, "vol") == []
            kill(process)
            assert holders(plugin, "reader") == []


def test_without_the_capability_a_reader_is_refused_unless_there_is_a_view(root: Path) -> None:
    with served(root, RIGHTS) as plugin:
        create(plugin, "vol")
        refusal = create(plugin, "reader", reader_of="vol")
        assert "mdvp cannot mount it (Operation not permitted)" in refusal
        assert "build_plugin.sh --sys-admin" in refusal
        assert "systemd/readers.conf" in refusal
        assert plugin.volumes() == ["vol"]
        with mounted(*BY_HAND, root, root / VIEW):
            assert create(plugin, "reader", reader_of="vol") == ""
            assert mount(plugin, "reader", "id") == ""
            plugin.call("Unmount", Name="reader", ID="id")
        assert "the engine has none" in mount(plugin, "reader", "id")


# Where a service of systemd is: what it mounts is seen by nobody else.
OF_ITS_OWN = ("unshare", "--mount", "--propagation=slave", "--")


def test_a_service_in_a_namespace_of_its_own_has_readers_by_a_view_of_the_hosts(
    root: Path,
) -> None:
    with served(root, (*OF_ITS_OWN, *RIGHTS)) as plugin:
        create(plugin, "vol")
        assert "systemd/readers.conf" in create(plugin, "reader", reader_of="vol")
        with mounted(*BY_HAND, root, root / VIEW):
            assert create(plugin, "reader", reader_of="vol") == ""
            assert mount(plugin, "reader", "id") == ""
            plugin.stop()
            assert has_view(root)


def test_a_view_that_the_engine_does_not_see_is_none(root: Path) -> None:
    with served(root, (*OF_ITS_OWN, *SYS_ADMIN)) as plugin:
        create(plugin, "vol")
        assert "the engine has none" in create(plugin, "reader", reader_of="vol")
        assert f" {root / VIEW} " not in Path(f"/proc/{plugin.process.pid}/mountinfo").read_text()
        with mounted(*BY_HAND, root, root / VIEW):
            assert create(plugin, "reader", reader_of="vol") == ""


@pytest.mark.parametrize(
    "options",
    ["bind,private", "bind,ro,private", "bind,nodiratime,private"],
    ids=["", "without the mark", "writable"],
)
def test_a_view_that_is_not_as_it_has_to_be_is_none(root: Path, options: str) -> None:
    with served(root) as plugin:
        create(plugin, "vol")
        with mounted("-o", options, root, root / VIEW):
            assert create(plugin, "reader", reader_of="vol") != ""
        assert create(plugin, "reader", reader_of="vol") == ""


def test_a_view_of_another_directory_is_none(root: Path, points: list[Path]) -> None:
    with served(root) as plugin:
        create(plugin, "vol")
        with mounted(*BY_HAND, points[0], root / VIEW):
            assert "the engine has none" in create(plugin, "reader", reader_of="vol")


def test_a_root_that_has_the_mark_itself_has_no_readers_and_all_its_holders(
    root: Path, points: list[Path]
) -> None:
    with mounted("-o", "bind,nodiratime", root, root), served(root) as plugin:
        create(plugin, "vol")
        assert "is mounted with nodiratime" in create(plugin, "reader", reader_of="vol")
        with container(plugin, "vol", points[0], AS_READ_ONLY) as (who, _):
            eventually(lambda: holders(plugin, "vol"), [who])
        plugin.stop()


@pytest.mark.parametrize(
    ("opts", "refusal"),
    [
        ({"reader_of": "nothing"}, "no volume 'nothing' to read"),
        ({"reader_of": "reader"}, "is a reader itself: use -o reader-of=vol"),
        ({"reader_of": "vol", "size": "1M"}, "size does not go with reader-of"),
        ({"reader_of": "vol", "access": "exclusive"}, "access does not go with reader-of"),
    ],
)
def test_a_reader_that_cannot_be_is_refused(
    plugin: Plugin, opts: dict[str, str], refusal: str
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    assert refusal in create(plugin, "other", **opts)
    assert plugin.volumes() == ["reader", "vol"]


def test_a_reader_is_what_it_is_made_as(plugin: Plugin) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    assert create(plugin, "reader", reader_of="vol") == ""
    assert "you ask for reader-of=other" in create(plugin, "reader", reader_of="other")
    shown = plugin.call("Get", Name="reader").message["Volume"]
    assert shown["Mountpoint"] == str(plugin.root / VIEW / "vol")
    assert shown["Status"] == {"access": "shared", "reader-of": "vol", "mounted": False}
    assert mount(plugin, "reader", "id") == ""
    assert not (plugin.root / "reader").exists()


def test_what_is_at_the_place_of_a_volume_and_is_not_its_directory_is_not_read(
    plugin: Plugin,
) -> None:
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    (plugin.root / "vol").rename(plugin.root / "elsewhere")
    assert "is not its directory" in mount(plugin, "reader", "id")
    (plugin.root / "vol").symlink_to("/etc")
    assert "is not its directory" in mount(plugin, "reader", "id")


def test_a_directory_called_as_a_reader_is_left_alone(plugin: Plugin) -> None:
    (plugin.root / "reader").mkdir()
    (plugin.root / "reader" / "file").touch()
    create(plugin, "vol")
    create(plugin, "reader", reader_of="vol")
    assert plugin.call("Remove", Name="reader").status == 200
    assert os.listdir(plugin.root / "reader") == ["file"]
    assert os.listdir(plugin.root / ".mdvp" / "trash") == []
    assert "WARNING" not in plugin.stop()


@pytest.mark.parametrize("step", ["add", "sync"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_in_create_leaves_a_reader_or_none(root: Path, step: str, moment: str) -> None:
    with driver_on(root) as driver:
        driver.create("vol")
    wanted = options.read({"reader-of": "vol"})
    crash(root, step, moment, lambda driver: driver.create("reader", wanted))
    with driver_on(root) as driver:
        driver.create("reader", wanted)
        assert driver.mount("reader", "id") == str(root / VIEW / "vol")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_in_remove_leaves_a_reader_or_none(root: Path, moment: str) -> None:
    wanted = options.read({"reader-of": "vol"})
    with driver_on(root) as driver:
        driver.create("vol")
        driver.create("reader", wanted)
    crash(root, "delete_record", moment, lambda driver: driver.remove("reader"))
    with driver_on(root) as driver:
        assert len(driver.list()) == (2 if moment == "before" else 1)
        driver.create("reader", wanted)
        driver.remove("reader")
        assert [volume.name for volume, _ in driver.list()] == ["vol"]
