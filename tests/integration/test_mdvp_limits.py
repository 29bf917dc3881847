"""Limits of volumes: those of btrfs, by a plugin that may set them."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import product
from operator import methodcaller
from pathlib import Path

import pytest
from filesystems import file_system
from integration.holder import holding
from integration.mounts import only_root
from integration.plugin import Answer, Plugin, serving
from integration.test_mdvp_btrfs import RIGHTS
from integration.test_mdvp_disk import crash, driver_on
from support import eventually

from mdvp.core import options
from mdvp.core.errors import UnavailableError
from mdvp.core.options import Options, written
from mdvp.disk.root import Root
from mdvp.driver import Driver

pytestmark = only_root

SYS_ADMIN = (*RIGHTS[:-1], f"{RIGHTS[-1]},+sys_admin")
MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def root(short_path: Path) -> Iterator[Path]:
    with file_system("btrfs", short_path) as root:
        btrfs("quota", "enable", root)
        yield root


@pytest.fixture
def plugin(short_path: Path, root: Path) -> Iterator[Plugin]:
    with serving(root, short_path / "mdvp.sock", prefix=SYS_ADMIN) as plugin:
        yield plugin


def btrfs(*arguments: str | Path) -> str:
    done = subprocess.run(("btrfs", *arguments), check=True, capture_output=True, text=True)
    return done.stdout


def fill(directory: Path, size: int) -> int | None:
    """Write so many bytes into a directory; return the number of the error that ended that."""
    try:
        with (directory / "content").open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def refusal(plugin: Plugin, **opts: str) -> str:
    """Have a volume refused; return the reason, when nothing of it is left."""
    answer = plugin.call("Create", Name="refused", Opts=opts)
    assert answer.status == 501
    assert "refused" not in plugin.volumes()
    assert not list((plugin.root / ".mdvp" / "new").iterdir())
    return answer.error


def change(plugin: Plugin, **opts: str) -> str:
    """Change volume `vol`; return why that is refused, "" if it is not."""
    body = json.dumps({"Name": "vol", "Opts": opts}).encode()
    answer = plugin.post("/Mdvp.Change", body)
    return "" if answer.status == 200 else answer.error


def warnings(plugin: Plugin, name: str) -> str:
    status = plugin.call("Get", Name=name).message["Volume"]["Status"]
    return "\n".join(status.get("warnings", ()))


def test_what_is_in_a_volume_is_limited_by_the_file_system(plugin: Plugin) -> None:
    assert plugin.call("Create", Name="vol", Opts={"size": "8M"}).status == 200
    assert plugin.call("Create", Name="free").status == 200
    assert fill(plugin.root / "vol", 2 * SIZE) == errno.EDQUOT
    assert fill(plugin.root / "free", 2 * SIZE) is None
    assert plugin.call("Get", Name="vol").message["Volume"]["Status"]["size"] == "8M"


def test_a_change_with_a_limit_that_cannot_be_set_changes_nothing(
    plugin: Plugin, short_path: Path
) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    plugin.stop()
    with serving(plugin.root, short_path / "mdvp.sock", prefix=RIGHTS) as second:
        before = second.call("Get", Name="vol").message["Volume"]["Status"]
        assert "CAP_SYS_ADMIN" in change(second, size="16M", mode="0700", wait="5s")
        assert "CAP_SYS_ADMIN" in change(second, size="")
        assert second.call("Get", Name="vol").message["Volume"]["Status"] == before
        assert second.call("Mount", Name="vol", ID="id").status == 200
        assert (second.root / "vol").stat().st_mode & 0o777 == 0o755
        assert fill(second.root / "vol", 2 * SIZE) == errno.EDQUOT


def test_a_restored_volume_has_its_limit_still_or_the_one_asked_for(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M", "on-remove": "trash"})
    for name, opts, size in (("one", {}, SIZE), ("two", {"size": "16M"}, 2 * SIZE)):
        plugin.call("Remove", Name="vol" if name == "one" else "one")
        removed = "vol" if name == "one" else "one"
        assert plugin.call("Create", Name=name, Opts={"restore": removed, **opts}).status == 200
        assert fill(plugin.root / name, size // 2) is None
        assert fill(plugin.root / name, 2 * size) == errno.EDQUOT


@pytest.mark.parametrize("file_by_file", [False, True], ids=["snapshot", "file by file"])
def test_a_copy_has_the_limit_that_is_asked_for_and_not_that_of_its_source(
    plugin: Plugin, file_by_file: bool
) -> None:
    source = {"adopt": "true"} if file_by_file else {"size": "8M"}
    if file_by_file:
        (plugin.root / "vol").mkdir()
    assert plugin.call("Create", Name="vol", Opts=source).status == 200
    assert fill(plugin.root / "vol", SIZE // 2) is None
    for name, opts in (("free", {}), ("more", {"size": "16M"})):
        assert plugin.call("Create", Name=name, Opts={"from": "vol", **opts}).status == 200
        (plugin.root / name / "content").rename(plugin.root / name / "copied")
    assert fill(plugin.root / "free", 3 * SIZE) is None
    assert fill(plugin.root / "more", 3 * SIZE) == errno.EDQUOT
    for name, size in (("free", None), ("more", "16M")):
        status = plugin.call("Get", Name=name).message["Volume"]["Status"]
        assert status.get("size") == size


def test_a_copy_of_which_the_limit_cannot_be_taken_off_says_that_it_has_it(
    plugin: Plugin, short_path: Path
) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    plugin.stop()
    with serving(plugin.root, short_path / "mdvp.sock", prefix=RIGHTS) as second:
        assert second.call("Create", Name="copy", Opts={"from": "vol"}).status == 200
        assert second.call("Get", Name="copy").message["Volume"]["Status"]["size"] == "8M"
        assert fill(second.root / "copy", 2 * SIZE) == errno.EDQUOT
        answer = second.call("Create", Name="other", Opts={"from": "vol", "size": "9M"})
        assert "CAP_SYS_ADMIN" in answer.error
        eventually(second.volumes, ["copy", "vol"])


def test_a_volume_is_restored_though_its_limit_cannot_be_set_any_more(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M", "on-remove": "trash"})
    plugin.call("Remove", Name="vol")
    btrfs("quota", "disable", plugin.root)
    answer = plugin.call("Create", Name="vol", Opts={"restore": "vol", "size": "9M"})
    assert "`btrfs quota enable" in answer.error
    assert plugin.call("Create", Name="vol", Opts={"restore": "vol"}).status == 200
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert "it has no limit" in warnings(plugin, "vol")


def test_a_limit_that_was_taken_off_is_set_again_at_a_start_and_at_a_mount(
    plugin: Plugin, short_path: Path
) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    btrfs("qgroup", "limit", "none", plugin.root / "vol")
    plugin.stop()
    with serving(plugin.root, short_path / "mdvp.sock", prefix=SYS_ADMIN) as second:
        assert fill(second.root / "vol", 2 * SIZE) == errno.EDQUOT
        btrfs("qgroup", "limit", "none", second.root / "vol")
        assert second.call("Mount", Name="vol", ID="id").status == 200
        assert fill(second.root / "vol", 2 * SIZE) == errno.EDQUOT


def test_a_directory_that_is_made_again_has_the_limit_too(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    (plugin.root / "vol").rmdir()
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert fill(plugin.root / "vol", 2 * SIZE) == errno.EDQUOT
    assert warnings(plugin, "vol") == ""


def test_a_limit_that_cannot_be_kept_is_told_until_it_is(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    assert warnings(plugin, "vol") == ""
    btrfs("quota", "disable", plugin.root)
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert "it has no limit: btrfs keeps no account" in warnings(plugin, "vol")
    assert plugin.metrics()["mdvp_volumes_with_warning",] == 1
    btrfs("quota", "enable", plugin.root)
    plugin.call("Unmount", Name="vol", ID="id")
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert warnings(plugin, "vol") == ""
    log = plugin.stop()
    assert log.count("volume vol has no limit: btrfs keeps no account") == 1


def test_a_limit_that_btrfs_does_not_keep_any_more_can_be_taken_off(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"size": "8M"})
    btrfs("quota", "disable", plugin.root)
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert "it has no limit" in warnings(plugin, "vol")
    assert change(plugin, size="") == ""
    assert warnings(plugin, "vol") == ""


def test_without_the_capability_a_limit_is_refused_with_the_way_to_get_it(
    short_path: Path, root: Path
) -> None:
    with serving(root, short_path / "mdvp.sock", prefix=RIGHTS) as plugin:
        assert "CAP_SYS_ADMIN" in refusal(plugin, size="8M")


def test_without_quotas_a_limit_is_refused_with_the_way_to_have_them(plugin: Plugin) -> None:
    btrfs("quota", "disable", plugin.root)
    assert f"`btrfs quota enable {plugin.root}`" in refusal(plugin, size="8M")


def test_elsewhere_than_on_btrfs_a_limit_is_refused(short_path: Path) -> None:
    with serving(short_path, short_path / "mdvp.sock", prefix=SYS_ADMIN) as plugin:
        assert f"{short_path} is not on btrfs" in refusal(plugin, size="8M")


def test_a_directory_that_is_no_subvolume_is_not_adopted_with_a_limit(plugin: Plugin) -> None:
    (plugin.root / "refused").mkdir()
    btrfs("subvolume", "create", plugin.root / "adopted")
    assert "is no subvolume of btrfs" in refusal(plugin, adopt="true", size="8M")
    assert plugin.call("Create", Name="adopted", Opts={"adopt": "true", "size": "8M"}).status == 200
    assert fill(plugin.root / "adopted", 2 * SIZE) == errno.EDQUOT


def test_a_removed_volume_is_deleted_as_a_whole(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("not to be deleted by itself")
    subprocess.run(("chattr", "+i", plugin.root / "vol" / "file"), check=True)
    plugin.call("Remove", Name="vol")
    eventually(lambda: list((plugin.root / ".mdvp" / "trash").iterdir()), [])


def test_what_is_on_record_in_a_removed_volume_is_not_deleted_with_it(plugin: Plugin) -> None:
    for name in ("vol", "other"):
        plugin.call("Create", Name=name)
        (plugin.root / name / "file").write_text("content")
    (plugin.root / "other").rename(plugin.root / "vol" / "moved")
    plugin.call("Remove", Name="vol")
    trash = plugin.root / ".mdvp" / "trash"
    # Not by what may vanish while it is listed.
    eventually(lambda: [files for _, _, files in os.walk(trash) if files], [["file"]])
    assert plugin.call("Mount", Name="other", ID="id").status == 200
    assert (plugin.root / "other" / "file").read_text() == "content"


def test_a_limit_is_of_the_volume_alone_and_never_of_what_is_around_it(root: Path) -> None:
    (root / "plain").mkdir()
    with closing(Root(root)) as opened:
        aside, _ = opened.make("vol", Options())
        opened.limit_aside(aside, SIZE)
        with pytest.raises(UnavailableError, match="no subvolume"):
            opened.adopt("plain", Options(size=SIZE), lambda it: it, lambda _: False)
    assert fill(root, 2 * SIZE) is None


def test_a_crash_in_create_leaves_a_volume_with_its_limit_or_none(root: Path) -> None:
    wanted = options.read({"size": "8M"})
    for step in ("make", "label", "add", "place"):
        for moment in ("before", "after"):
            name = f"vol-{step}-{moment}"
            crash(root, step, moment, methodcaller("create", name, wanted))
            with driver_on(root) as driver:
                driver.create(name, wanted)
                assert limit_of(root / name) == f"{SIZE}"


def test_a_limit_is_changed_while_the_volume_is_in_use(plugin: Plugin, point: Path) -> None:
    plugin.call("Create", Name="vol", Opts={"size": f"{SIZE}"})
    with holding(plugin.root / "vol", point):
        assert fill(plugin.root / "vol", 4 * SIZE) == errno.EDQUOT
        assert change(plugin, size="1G") == ""
        assert fill(plugin.root / "vol", 4 * SIZE) is None
        assert change(plugin, size=f"{SIZE}") == ""
        assert fill(plugin.root / "vol", 6 * SIZE) == errno.EDQUOT
        assert change(plugin, size="") == ""
        assert fill(plugin.root / "vol", 6 * SIZE) is None
    assert "size" not in plugin.call("Get", Name="vol").message["Volume"]["Status"]


def limit_of(directory: Path) -> str:
    """Return the limit of a subvolume, as btrfs has it: bytes, or none."""
    shown = subprocess.run(
        ("btrfs", "qgroup", "show", "-r", "-f", "--raw", directory),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (row,) = (row.split() for row in shown.splitlines() if row.startswith("0/"))
    return row[3]


def change_size(driver: Driver, name: str, size: str) -> None:
    driver.change(name, options.changes({"size": size}))


@pytest.mark.parametrize(("had", "gets"), [("", "8M"), ("8M", ""), ("8M", "64M")])
def test_after_a_crash_in_a_change_the_limit_is_the_one_on_record(
    root: Path, had: str, gets: str
) -> None:
    limits = {"": "none", "8M": f"{8 * MIB}", "64M": f"{64 * MIB}"}
    found = set()
    for step, moment in product(("change", "limit"), ("before", "after")):
        name = f"{step}-{moment}"
        with driver_on(root) as driver:
            driver.create(name, options.read({"size": had} if had else {}))
        crash(root, step, moment, partial(change_size, name=name, size=gets))
        with driver_on(root) as driver:
            size = written(driver.get(name).volume).get("size", "")
        assert limit_of(root / name) == limits[size]
        found.add(size)
    assert found == {had, gets}


def test_a_volume_that_is_full_beyond_its_limit_is_renamed_and_is_not_half_changed(
    plugin: Plugin,
) -> None:
    plugin.call("Create", Name="vol")
    assert fill(plugin.root / "vol", 4 * SIZE) is None
    assert change(plugin, size=f"{SIZE}") == ""
    refused = post_change(plugin, uid="7", mode="0700", protect="true")
    assert refused.status == 409
    assert "volume 'vol' is as it was" in refused.error
    assert "Disk quota exceeded" in refused.error
    status = plugin.call("Get", Name="vol").message["Volume"]["Status"]
    assert status == {"access": "exclusive", "size": "8M", "mounted": False}
    assert (plugin.root / "vol").stat().st_uid == 0
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    plugin.call("Unmount", Name="vol", ID="id")

    assert change(plugin, uid="7", mode="0700", protect="true", size="1G") == ""
    assert change(plugin, size=f"{SIZE}") == ""
    body = json.dumps({"Name": "vol", "NewName": "new"}).encode()
    assert plugin.post("/Mdvp.Rename", body).message == {}
    assert plugin.call("Mount", Name="new", ID="id").status == 200
    assert (plugin.root / "new").stat().st_uid == 7


def post_change(plugin: Plugin, **opts: str) -> Answer:
    body = json.dumps({"Name": "vol", "Opts": opts}).encode()
    return plugin.post("/Mdvp.Change", body)
