"""Deleting what was in a removed volume, whatever it is."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdvp.disk.trash import delete


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "trash" / "vol").mkdir(parents=True)
    fd = os.open(tmp_path / "trash", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def volume(folder: int) -> Path:
    return Path(f"/proc/self/fd/{folder}").readlink() / "vol"


def left(folder: int) -> list[str]:
    return os.listdir(folder)


def test_all_kinds_of_files_go(folder: int, volume: Path) -> None:
    (volume / "file").write_text("content")
    os.mkfifo(volume / "fifo")
    (volume / "dangling").symlink_to("nowhere")
    os.mknod(volume / "socket", stat.S_IFSOCK)
    (volume / "closed").mkdir(mode=0)
    (volume / "closed" / "file").write_text("content")
    (volume / os.fsdecode(b"\xff\n")).write_text("content")
    delete(folder, "vol")
    assert left(folder) == []


def test_no_link_is_followed(folder: int, volume: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (volume / "link").symlink_to(outside)
    delete(folder, "vol")
    assert left(folder) == []
    assert (outside / "file").read_text() == "stays"


def test_no_depth_is_too_deep(folder: int, volume: Path) -> None:
    fd = os.open(volume, os.O_RDONLY)
    for _ in range(3000):  # below it no path can be written down, and no recursion go
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    delete(folder, "vol")
    assert left(folder) == []


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def test_what_is_mounted_below_is_not_entered_and_the_rest_goes(
    folder: int, volume: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    # One of the same file system, which has the same device number.
    (volume / "a" / "bound").mkdir(parents=True)
    (volume / "memory").mkdir()
    (volume / "zz").write_text("goes")
    mount("--bind", outside, volume / "a" / "bound")
    mount("-t", "tmpfs", "tmpfs", volume / "memory")
    (volume / "memory" / "file").write_text("stays")
    try:
        with pytest.raises(OSError, match="is a mount point"):
            delete(folder, "vol")
        assert (outside / "file").read_text() == "stays"
        assert (volume / "memory" / "file").read_text() == "stays"
        assert not (volume / "zz").exists()
        assert sorted(os.listdir(volume)) == ["a", "memory"]
    finally:
        mounted = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
        for line in mounted.splitlines():
            point = line.split(" ")[2]
            if str(volume.parent) in point:
                subprocess.run(["umount", point], check=True)
    for entry in left(folder):
        delete(folder, entry)
    assert left(folder) == []
    assert (outside / "file").read_text() == "stays"


def test_a_directory_that_is_gone_is_no_error(folder: int) -> None:
    delete(folder, "gone")
    assert left(folder) == ["vol"] or left(folder) == []
