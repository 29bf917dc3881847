"""A hold: what somebody accepts is about what would be removed, and about nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from integration.conftest import SYNC
from support import eventually

from sync.core.decision import Mode, Side

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

COUNT = 300
BOTH = (Mode.TWO_WAY_SAFE, Mode.TWO_WAY_RESOLVED)


def says(service: Service, *command: str) -> str:
    done = subprocess.run(
        (*SYNC, *command), env=service.environ, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def has_stopped(service: Service) -> None:
    """Stop it as soon as it remembers what there is."""
    eventually(lambda: service.redis.client.hexists("/mdvp-sync/state", "directory"), True)
    service.process.kill()
    service.process.wait()


def accepts(service: Service, side: Side) -> None:
    eventually(lambda: service.says("holding"), True)
    assert "the service goes on" in says(service, "accept", side.value)
    eventually(lambda: service.says(" equals "), True)


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


@pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
@pytest.mark.parametrize("mode", BOTH, ids=lambda mode: mode.value)
def test_keys_that_are_gone_take_no_change_with_them(
    redis_server: RedisServer, root: Path, start: Start, mode: Mode, side: Side
) -> None:
    for number in range(COUNT):
        (root / f"f{number}").write_text("as it was")
    has_stopped(start(in_step=True, SYNC_MODE=mode.value))
    client = redis_server.client
    client.delete(*(f"f{number}" for number in range(200)))
    (root / "f0").write_text("changed on disk, and gone from Redis")
    (root / "f200").write_text("changed on disk")
    client.set("f201", "changed in Redis")
    client.set("new-key", "new")
    (root / "new-file").write_text("new")

    service = start(SYNC_MODE=mode.value)
    accepts(service, side)
    assert client.get("f200") == b"changed on disk"
    eventually((root / "f201").read_text, "changed in Redis")
    eventually((root / "new-key").read_text, "new")
    assert client.get("new-file") == b"new"
    assert (root / "f0").read_text() == "changed on disk, and gone from Redis"
    assert (root / "f1").exists() is (side is Side.DISK)
    assert len(names(root)) == (COUNT if side is Side.DISK else 101) + 2
    if mode is Mode.TWO_WAY_SAFE:
        assert says(service, "conflicts").startswith("f0 ")
        assert client.get("f0") is None


@pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
def test_files_that_are_gone_take_no_change_with_them(
    redis_server: RedisServer, root: Path, start: Start, side: Side
) -> None:
    for number in range(COUNT):
        (root / f"f{number}").write_text("as it was")
    has_stopped(start(in_step=True, SYNC_MODE=Mode.TWO_WAY_SAFE.value))
    root.rename(root.with_name("another"))
    root.mkdir()
    (root / "f1").write_text("changed on disk")
    client = redis_server.client
    client.set("f0", "changed in Redis, and gone from the disk")

    service = start(SYNC_MODE=Mode.TWO_WAY_SAFE.value)
    accepts(service, side)
    assert client.get("f1") == b"changed on disk"
    assert client.get("f0") == b"changed in Redis, and gone from the disk"
    assert says(service, "conflicts").startswith("f0 ")
    left = {"f1"} if side is Side.DISK else {f"f{number}" for number in range(1, COUNT)}
    assert names(root) == left
