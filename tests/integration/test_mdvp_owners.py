"""What who owns a volume's directory can make of it on btrfs, and what stands nobody in the way."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import file_system
from integration.mounts import only_root
from integration.plugin import Plugin, serving
from integration.test_mdvp_btrfs import RIGHTS
from integration.test_mdvp_limits import MIB, SYS_ADMIN, btrfs, fill
from support import eventually

from mdvp.disk import record

pytestmark = only_root


@pytest.fixture(params=[RIGHTS, SYS_ADMIN], ids=["usual", "sys-admin"])
def plugin(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Plugin]:
    with (
        file_system("btrfs", short_path) as root,
        serving(root, short_path / "mdvp.sock", prefix=request.param) as plugin,
    ):
        yield plugin


@pytest.fixture
def limited(short_path: Path) -> Iterator[Plugin]:
    with file_system("btrfs", short_path) as root:
        btrfs("quota", "enable", root)
        with serving(root, short_path / "mdvp.sock", prefix=SYS_ADMIN) as plugin:
            yield plugin


def make_read_only(directory: Path) -> None:
    btrfs("property", "set", "-ts", directory, "ro", "true")


def create(plugin: Plugin, name: str, **opts: str) -> None:
    answer = plugin.call("Create", Name=name, Opts=opts)
    assert answer.status == 200, answer.error


def test_a_directory_that_its_owner_made_read_only_is_renamed_changed_and_deleted(
    plugin: Plugin,
) -> None:
    create(plugin, "vol", uid="1000")
    btrfs("subvolume", "create", plugin.root / "vol" / "below")
    (plugin.root / "vol" / "below" / "file").touch()
    for directory in (plugin.root / "vol" / "below", plugin.root / "vol"):
        os.chown(directory, 1000, 1000)
        make_read_only(directory)
    assert plugin.own("Rename", Name="vol", NewName="other").status == 200
    make_read_only(plugin.root / "other")
    assert plugin.own("Change", Name="other", Opts={"mode": "0700"}).status == 200
    make_read_only(plugin.root / "other")
    assert plugin.call("Remove", Name="other").status == 200
    eventually(lambda: list((plugin.root / ".mdvp" / "trash").iterdir()), [])


def test_a_read_only_directory_goes_to_the_trash_and_comes_back(plugin: Plugin) -> None:
    create(plugin, "vol", **{"on-remove": "trash"})
    make_read_only(plugin.root / "vol")
    assert plugin.call("Remove", Name="vol").status == 200
    make_read_only(next((plugin.root / ".mdvp" / "removed").glob("*/volume")))
    create(plugin, "vol", restore="vol", mode="0700")


def overfill(plugin: Plugin, **opts: str) -> None:
    """Make a volume with more in it than its limit is by now."""
    create(plugin, "vol", size="8M", **opts)
    fill(plugin.root / "vol", 4 * MIB)
    assert plugin.own("Change", Name="vol", Opts={"size": "1M"}).status == 200
    subprocess.run(["sync", "-f", plugin.root], check=True)


def test_a_volume_over_its_limit_can_be_restored(limited: Plugin) -> None:
    overfill(limited, **{"on-remove": "trash"})
    assert limited.call("Remove", Name="vol").status == 200
    create(limited, "vol", restore="vol")
    assert limited.call("Remove", Name="vol").status == 200
    create(limited, "vol", restore="vol", uid="5", size="16M")
    assert (limited.root / "vol").stat().st_uid == 5


def test_a_volume_over_its_limit_can_be_adopted_again(limited: Plugin) -> None:
    overfill(limited, **{"on-remove": "keep"})
    assert limited.call("Remove", Name="vol").status == 200
    create(limited, "vol", adopt="true")


@pytest.mark.parametrize("size", [{}, {"size": "1M"}])
def test_a_volume_over_its_limit_can_be_copied(limited: Plugin, size: dict[str, str]) -> None:
    overfill(limited)
    create(limited, "copy", **{"from": "vol", "uid": "5", **size})
    assert (limited.root / "copy").stat().st_uid == 5
    records = [os.getxattr(limited.root / name, record.ATTRIBUTE) for name in ("vol", "copy")]
    assert records[0] != records[1]
