"""mdvp killed at each system call of an operation that changes the disk, on three file systems.

MDVP_CRASH_POINTS=all has each call of each operation on each file system. Else an operation is on
one of them, unless it is another on each; some calls are chosen, and of equal ones in a row the
first, but for renames. mdvp has the capabilities of the plugin, but where it takes one more.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filesystems import file_system
from integration.crash_points import Round, Scene, Stage, fill, removed
from integration.plugin import Answer
from integration.test_mdvp_btrfs import RIGHTS
from support import eventually

KINDS = ("ext4", "btrfs", "xfs")
ALL = os.environ.get("MDVP_CRASH_POINTS") == "all"
SOME = 8  # calls of an operation: of most, each that is another than the one before


def adopted(now: Round) -> None:
    now.path("vol").mkdir()
    fill(now.path("vol"))


def vanished(now: Round) -> None:
    now.made("vol", mode="0700")
    now.path("vol").rename(now.root.parent / f"{now.root.name}-{now.name('gone')}")


def in_the_trash(now: Round, **options: str) -> None:
    now.made("vol", uid="1000", mode="0700", **{"on_remove": "trash", **options})
    now.removed("vol")


def kept(now: Round) -> None:
    in_the_trash(now, on_remove="keep", access="shared")


def gone_from_the_trash(now: Round) -> Answer:
    """Wait until what is in the trash has been deleted, or mdvp is dead."""
    eventually(lambda: now.plugin.process.poll() is not None or not list(removed(now)), True)
    return now.plugin.call("List")


def with_a_reader(now: Round) -> None:
    now.made("vol")
    assert now.create("reader", reader_of=now.name("vol")).status == 200


def is_limited(directory: Path) -> bool:
    """Say whether the kernel lets nobody write 2 MB there."""
    file = directory / "much"
    try:
        file.write_bytes(os.urandom(2 << 20))
    except OSError as error:
        return error.errno == errno.EDQUOT
    else:
        return False
    finally:
        file.unlink()


SCENES = {
    "create": Scene(
        prepare=lambda _: None,
        act=lambda now: now.create("vol", access="shared", uid="1000", mode="0770"),
    ),
    "remove": Scene(
        prepare=lambda now: now.made("vol", uid="1000"),
        act=lambda now: now.remove("vol"),
        again=(404,),
    ),
    "adopt": Scene(
        prepare=adopted,
        act=lambda now: now.create("vol", adopt="true", uid="1000", gid="1001", mode="0700"),
    ),
    "mount what has vanished": Scene(
        prepare=vanished,
        act=lambda now: now.plugin.call("Mount", Name=now.name("vol"), ID="id"),
        half_done=lambda now: now.path("vol").is_dir(),  # and nobody has it yet
    ),
    "remove to the trash": Scene(
        prepare=lambda now: now.made("vol", on_remove="trash", uid="1000"),
        act=lambda now: now.remove("vol"),
        again=(404,),
    ),
    "restore": Scene(
        prepare=in_the_trash,
        act=lambda now: now.create("new", restore=now.name("vol")),
    ),
    "restore with another owner": Scene(
        prepare=in_the_trash,
        act=lambda now: now.create(
            "vol", restore=now.name("vol"), uid="2000", gid="2001", mode="0750", protect="true"
        ),
    ),
    "expire": Scene(
        prepare=lambda now: in_the_trash(now, on_remove="trash:2s"),
        act=gone_from_the_trash,
    ),
    "remove and keep": Scene(
        prepare=lambda now: now.made("vol", on_remove="keep", uid="1000"),
        act=lambda now: now.remove("vol"),
        again=(404,),
    ),
    "adopt what was kept": Scene(
        prepare=kept,
        act=lambda now: now.create("vol", adopt="true", gid="1001"),
    ),
    "change": Scene(
        prepare=lambda now: now.made("vol", uid="1000", mode="0700"),
        act=lambda now: now.change("vol", uid="2000", gid="", mode="0750", on_remove="trash:2h"),
    ),
    "rename": Scene(
        prepare=lambda now: now.made("vol", uid="1000", protect="true"),
        act=lambda now: now.rename("vol", "new"),
        again=(404,),
    ),
    # By a snapshot on btrfs, by reflinks on XFS, and by a copy on ext4.
    "clone": Scene(
        prepare=lambda now: now.made("vol", uid="1000", mode="0700"),
        act=lambda now: now.create("new", from_=now.name("vol")),
    ),
    "make a reader": Scene(
        prepare=lambda now: now.made("vol"),
        act=lambda now: now.create("reader", reader_of=now.name("vol")),
        capable=True,
    ),
    "rename what has a reader": Scene(
        prepare=with_a_reader,
        capable=True,
        act=lambda now: now.rename("vol", "new"),
        again=(404,),
    ),
}
# What is done by other calls on each file system.
DIFFER = ("clone",)
# What only btrfs can.
LIMITED = {
    "create with a limit": Scene(
        prepare=lambda _: None,
        act=lambda now: now.create("vol", size="1M"),
        capable=True,
        check=lambda now: is_limited(now.path("vol")),
    ),
    "lower a limit": Scene(
        prepare=lambda now: now.made("vol", size="1G"),
        act=lambda now: now.change("vol", size="1M"),
        capable=True,
        check=lambda now: is_limited(now.path("vol")),
    ),
    "restore with a limit": Scene(
        prepare=lambda now: in_the_trash(now, size="1G"),
        act=lambda now: now.create("vol", restore=now.name("vol"), size="1M"),
        capable=True,
        check=lambda now: is_limited(now.path("vol")),
    ),
    "clone with a limit": Scene(
        prepare=lambda now: now.made("vol", size="1G"),
        act=lambda now: now.create("new", from_=now.name("vol"), size="1M"),
        capable=True,
        check=lambda now: is_limited(now.path("new")),
    ),
}


@pytest.fixture(scope="module")
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    with TemporaryDirectory(prefix="mdvp-") as place, file_system(request.param, Path(place)) as at:
        yield at


@pytest.fixture(scope="module")
def limiting() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mdvp-") as place, file_system("btrfs", Path(place)) as at:
        subprocess.run(["btrfs", "quota", "enable", at], check=True)
        yield at


def chosen(calls: list[str]) -> list[int]:
    """Return before which calls mdvp is to be killed: all, or some from first to last."""
    if ALL:
        return list(range(len(calls)))
    begins = [
        at
        for at, call in enumerate(calls)
        if at == 0 or call != calls[at - 1] or call.startswith("rename")
    ]
    some = min(SOME, len(begins))
    return [begins[number * (len(begins) - 1) // max(some - 1, 1)] for number in range(some)]


def play(disk: Path, name: str, scene: Scene) -> None:
    prefix = () if scene.capable else RIGHTS
    often = 1 if ALL else 5
    root = disk / name.replace(" ", "-")
    with closing(Stage(root, disk.parent / "mdvp.sock", prefix, often)) as stage:
        calls = stage.play(scene, chosen)
        print(f"{stage.points} of {len(calls)} calls, {stage.starts} starts: {', '.join(calls)}")
        assert stage.points


def pairs() -> list[tuple[str, str]]:
    return [
        (kind, scene)
        for number, scene in enumerate(SCENES)
        for at, kind in enumerate(KINDS)
        if ALL or scene in DIFFER or number % len(KINDS) == at
    ]


@pytest.mark.parametrize(("disk", "scene"), pairs(), indirect=["disk"], scope="module")
def test_an_operation_is_done_or_not_begun_wherever_mdvp_is_killed(disk: Path, scene: str) -> None:
    play(disk, scene, SCENES[scene])


@pytest.mark.parametrize("scene", LIMITED)
def test_so_is_a_limit(limiting: Path, scene: str) -> None:
    play(limiting, scene, LIMITED[scene])
