"""mdvp killed at each system call of an operation that changes the disk, on three file systems.

MDVP_CRASH_POINTS=all has each call on each file system; else each file system has its share of
them, and what SQLite writes in a row is one.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filesystems import file_system
from integration.crash_points import Round, Scene, Stage, fill

KINDS = ("ext4", "btrfs", "xfs")
ALL = os.environ.get("MDVP_CRASH_POINTS") == "all"


def adopted(now: Round) -> None:
    now.path("vol").mkdir()
    fill(now.path("vol"))


def vanished(now: Round) -> None:
    now.made("vol", mode="0700")
    now.path("vol").rename(now.root.parent / f"{now.root.name}-{now.name('gone')}")


def has_its_old_owner(now: Round) -> bool:
    """Say whether it is recorded, and its directory is still to get its owner."""
    status = now.path("vol").stat()
    return now.name("vol") in now.plugin.volumes() and status.st_uid == os.geteuid()


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
        half_done=has_its_old_owner,
    ),
    "mount what has vanished": Scene(
        prepare=vanished,
        act=lambda now: now.plugin.call("Mount", Name=now.name("vol"), ID="id"),
        half_done=lambda now: now.path("vol").is_dir(),  # and nobody has it yet
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    with TemporaryDirectory(prefix="mdvp-") as place, file_system(request.param, Path(place)) as at:
        yield at


def chosen(calls: list[str], kind: str) -> list[int]:
    if ALL:
        return list(range(len(calls)))
    begins = [at for at, call in enumerate(calls) if at == 0 or call != calls[at - 1]]
    return begins[KINDS.index(kind) :: len(KINDS)]


@pytest.mark.parametrize("scene", SCENES)
def test_an_operation_is_done_or_not_begun_wherever_mdvp_is_killed(disk: Path, scene: str) -> None:
    with closing(Stage(disk / scene.replace(" ", "-"), disk.parent / "mdvp.sock")) as stage:
        calls = stage.play(SCENES[scene], lambda calls: chosen(calls, disk.name))
        print(f"{stage.points} of {len(calls)} calls, {stage.starts} starts: {', '.join(calls)}")
        assert stage.points
