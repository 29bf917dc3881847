"""Volumes on btrfs, where each directory is a subvolume."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from filesystems import file_system
from integration.plugin import Plugin, serving
from support import eventually

from mdvp.disk import btrfs
from mdvp.disk.entry import identity

# What `setpriv` leaves the plugin.
RIGHTS = (
    "setpriv",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+sys_ptrace",
)


@pytest.fixture
def root(short_path: Path) -> Iterator[Path]:
    with file_system("btrfs", short_path) as root:
        yield root


@pytest.fixture
def plugin(short_path: Path, root: Path) -> Iterator[Plugin]:
    with serving(root, short_path / "mdvp.sock", prefix=RIGHTS) as plugin:
        yield plugin


def number(path: Path) -> int | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return btrfs.subvolume(fd)
    finally:
        os.close(fd)


def test_a_volume_is_a_subvolume_and_lives_like_any_other(plugin: Plugin) -> None:
    assert plugin.call("Create", Name="vol", Opts={"uid": "1000", "mode": "0700"}).status == 200
    directory = plugin.root / "vol"
    assert number(directory) is not None
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (1000, 0o700)
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert plugin.call("Mount", Name="vol", ID="other").status == 409
    (directory / "below").mkdir()
    (directory / "below" / "file").write_text("content")
    assert plugin.call("Unmount", Name="vol", ID="id").status == 200
    assert plugin.call("Remove", Name="vol").status == 200
    assert not directory.exists()
    eventually(lambda: list((plugin.root / ".mdvp" / "trash").iterdir()), [])


def test_a_volume_is_found_again_when_the_state_is_lost(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("content")
    plugin.kill()
    for file in (plugin.root / ".mdvp").glob("state.db*"):
        file.unlink()
    with serving(plugin.root, plugin.address, prefix=RIGHTS) as second:
        assert second.volumes() == ["vol"]
        assert second.call("Mount", Name="vol", ID="id").status == 200


def test_a_snapshot_is_another_directory_than_what_it_is_of(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    btrfs.make_subvolume("one", fd)
    source = os.open("one", os.O_RDONLY, dir_fd=fd)
    btrfs.snapshot(source, "two", fd)
    copy = os.open("two", os.O_PATH, dir_fd=fd)
    assert identity(source).born == identity(copy).born
    assert identity(source) != identity(copy)
    for each in (fd, source, copy):
        os.close(each)


def test_a_full_file_system_keeps_no_volume_from_being_used_and_removed(short_path: Path) -> None:
    address = short_path / "mdvp.sock"
    with file_system("btrfs", short_path, size=200 << 20) as root:
        with serving(root, address, prefix=RIGHTS) as plugin:
            for name in ("one", "two", "three"):
                plugin.call("Create", Name=name)
            os.sync()  # so that what is written next goes elsewhere, if it is not written in place
            fill(root / "three")
            assert plugin.call("Mount", Name="one", ID="id").status == 200
            assert plugin.call("Unmount", Name="one", ID="id").status == 200
            assert plugin.own("Rename", Name="one", NewName="new").status == 200
            assert plugin.call("Remove", Name="two").status == 200
            plugin.stop()
        with serving(root, address, prefix=RIGHTS) as plugin:
            assert plugin.volumes() == ["new", "three"]


@pytest.mark.usefixtures("plugin")
def test_what_is_in_a_volume_is_written_as_elsewhere(root: Path) -> None:
    for folder in ("new", "trash", "removed"):  # in which a directory comes to be a volume's
        (root / ".mdvp" / folder / "directory").mkdir()
        command = ["lsattr", "-d", str(root / ".mdvp" / folder / "directory")]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "C" not in found.split()[0]


def fill(folder: Path) -> None:
    """Write until there is no room for a byte."""
    for size in (1 << 20, 1 << 12, 1):
        with suppress(OSError):
            for number in count():
                with (folder / f"{size}-{number}").open("wb") as file:
                    file.write(bytes(size))
                    os.fsync(file.fileno())
