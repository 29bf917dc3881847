"""The power is cut while a volume is removed, restored, copied, changed or renamed.

What is on the disk then is what the file system had sent to it: a copy of the image behind the loop
device at that moment, mounted anew. Whatever had been written before is in it, by a name and with
the options of before or of after, and nothing is left aside.

MDVP_CRASH_POINTS=all cuts it before each system call that changes the disk, else it is cut when the
operation has come to its end and the journal is written, on one of the file systems,
or on each that does it by other calls.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filesystems import file_system
from integration.crash_points import NEVER, Picture, Round, Scene, aside, picture, unlike
from integration.plugin import Answer, Plugin, serving
from integration.test_mdvp_crash_points import ALL, DIFFER, KINDS, SCENES
from integration.tracer import Tracer
from support import eventually

SIZE = 512 << 20  # bytes of each disk
NAMES = (
    *("remove", "remove to the trash", "restore with another owner", "remove and keep"),
    *("clone", "change", "rename"),
)


def commit(disk: Path) -> None:
    """Have the file system write its journal, so what was done, but not what is in other files."""
    with (disk / "another").open("w") as file:
        file.write("content")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def after_the_cut(image: Path) -> Iterator[Plugin]:
    """Run mdvp on what was on a disk."""
    point = image.with_name("after")
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        with serving(point / "root", image.with_name("mdvp.sock")) as plugin:
            yield plugin
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)


def is_there(image: Path) -> bool:
    """Say whether a loop device has an image still, as one has that was unmounted just now."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it has gone meanwhile
            if backing.read_text().startswith(str(image)):
                return True
    return False


def cut(kind: str, scene: Scene, at: int, place: Path) -> tuple[list[str], list[Picture]]:
    """Cut the power before call `at`; return the calls, and the pictures before and after.

    The last is of what was on the disk.
    """
    image = place / "image"
    with file_system(kind, place, SIZE) as disk:
        root = disk / "root"
        root.mkdir()
        with serving(root, place / "mdvp.sock") as plugin:
            now = Round(plugin, "r-")
            scene.prepare(now)
            pictures = [picture(now)]
            os.sync()  # but for what comes now
            tracer = Tracer(plugin.process.pid, at, root)
            answer: Answer | None = None
            with suppress(OSError, HTTPException):
                answer = scene.act(now)
            if at == NEVER:
                assert answer is not None
                assert answer.status == 200, answer
                eventually(lambda: aside(root), [])
                commit(disk)
            disk_now = ("cp", "--sparse=always", str(place / f"{kind}.img"), str(image))
            subprocess.run(disk_now, check=True)
            if at == NEVER:
                pictures.append(picture(now))
            plugin.process.kill()
            tracer.end()
    # Two of one number: XFS would mount none of them, and btrfs the one that is there.
    eventually(lambda: is_there(place / f"{kind}.img"), False)
    with after_the_cut(image) as plugin:
        eventually(lambda: aside(plugin.root), [])
        return tracer.calls, [*pictures, picture(Round(plugin, "r-"))]


def pairs() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for number, name in enumerate(NAMES)
        for at, kind in enumerate(KINDS)
        if ALL or name in DIFFER or number % len(KINDS) == at
    ]


@pytest.mark.parametrize(("kind", "name"), pairs())
def test_nothing_is_lost_when_the_power_is_cut(kind: str, name: str) -> None:
    with TemporaryDirectory(prefix="mdvp-") as place:
        calls, (before, after, found) = cut(kind, SCENES[name], NEVER, Path(place))
    assert found in (before, after), (unlike(found, before), unlike(found, after))
    for at in range(len(calls)) if ALL else ():
        with TemporaryDirectory(prefix="mdvp-") as place:
            made, (_, found) = cut(kind, SCENES[name], at, Path(place))
        assert found in (before, after), (made, unlike(found, before), unlike(found, after))
