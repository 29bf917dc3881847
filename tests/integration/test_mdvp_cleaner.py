"""systemd-tmpfiles, which removes what is old from /tmp, and the volumes there."""

import fcntl
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from integration.locks import is_locked
from integration.plugin import Plugin, serving
from support import eventually


@pytest.fixture
def root(short_path: Path) -> Path:
    (short_path / "tmp").mkdir()
    return short_path / "tmp"


@pytest.fixture
def plugin(root: Path) -> Iterator[Plugin]:
    with serving(root, root.with_name("mdvp.sock")) as plugin:
        yield plugin


def clean(root: Path) -> None:
    """Clean `root` as /tmp is cleaned, but of all that is in it: an age of 0 is any file's."""
    rule = root.with_name("tmp.conf")
    rule.write_text("e /tmp - - - 0\n")
    subprocess.run(
        ["systemd-tmpfiles", "--clean", f"--root={root.parent}", str(rule)], check=True, timeout=60
    )


def fill(directory: Path) -> Path:
    file = directory / "sub" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("content")
    return file


def test_a_cleaner_leaves_volumes_alone_and_nothing_else(root: Path, plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    volume, other = fill(root / "vol"), fill(root / "other")
    clean(root)
    assert volume.read_text() == "content"
    assert not other.exists()
    plugin.call("Mount", Name="vol", ID="id")
    assert plugin.volumes() == ["vol"]


def test_a_cleaner_leaves_volumes_alone_after_a_restart(root: Path, plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    volume = fill(root / "vol")
    plugin.kill()
    with serving(root, plugin.address):
        clean(root)
    assert volume.read_text() == "content"


def test_a_directory_that_was_made_again_is_left_alone_too(root: Path, plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (root / "vol").rmdir()
    plugin.call("Mount", Name="vol", ID="id")
    volume = fill(root / "vol")
    clean(root)
    assert volume.read_text() == "content"


def test_without_locks_a_cleaner_takes_what_is_in_a_volume(root: Path, plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    volume = fill(root / "vol")
    plugin.stop()
    with serving(root, plugin.address, LOCK_DIRECTORIES="0"):
        clean(root)
    assert not volume.exists()


def test_a_removed_volume_is_not_kept_open(root: Path, plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    assert is_locked(root / "vol")
    assert str(root / "vol") in held(plugin)
    plugin.call("Remove", Name="vol")
    # Its thread may be at work on the directory still.
    eventually(lambda: [path for path in held(plugin) if "vol" in path or "trash/" in path], [])


def held(plugin: Plugin) -> list[str]:
    """Return the paths of what the process has open."""
    paths: list[str] = []
    for descriptor in Path(f"/proc/{plugin.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            paths.append(str(descriptor.readlink()))
    return paths


def test_a_directory_that_an_application_has_locked_is_a_volume_all_the_same(
    root: Path, plugin: Plugin
) -> None:
    plugin.call("Create", Name="vol")
    plugin.stop()
    fd = os.open(root / "vol", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with serving(root, plugin.address) as second:
        assert second.call("Mount", Name="vol", ID="id").status == 200
        assert "somebody else has locked its directory" in second.stop()
    os.close(fd)


def test_volumes_beyond_the_limit_of_open_files_work_without_a_lock(
    root: Path, plugin: Plugin
) -> None:
    resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (600, 600))
    for number in range(200):
        assert plugin.call("Create", Name=f"vol{number}").status == 200
    assert len(plugin.volumes()) == 200
    assert is_locked(root / "vol0")
    assert not is_locked(root / "vol199")
    assert plugin.stop().count("their directories are not locked") == 1


def test_a_user_who_locks_a_volume_for_a_while_does_not_leave_it_to_the_cleaner(
    root: Path, plugin: Plugin
) -> None:
    plugin.call("Create", Name="vol")
    volume = fill(root / "vol")
    plugin.kill()
    theirs = os.open(root / "vol", os.O_RDONLY)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    with serving(root, plugin.address) as again:
        again.call("Create", Name="other")
        os.close(theirs)
        # A Mount, of whatever, has mdvp look at once.
        again.call("Mount", Name="other", ID="id")
        eventually(lambda: is_locked(root / "vol"), True)
        clean(root)
        assert volume.read_text() == "content"
        assert again.stop().count("somebody else has locked its directory") == 1
