"""A large key that can be no file is read once, and stands in nobody's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.files import write
from integration.ways import BOTH, beat, skipped
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Start

LARGE = b"large" * 600_000


@pytest.mark.parametrize("name", ["d/a", ".b.swx/a"], ids=["in a file", "left out"])
@pytest.mark.parametrize("mode", BOTH)
def test_it_is_not_read_again_and_again(
    redis_server: RedisServer, root: Path, start: Start, name: str, mode: str
) -> None:
    write(root / "d")
    client = redis_server.client
    client.mset({name: LARGE, "other": "other"})
    service = start(in_step=True, SYNC_TREE="1", SYNC_MODE=mode, SYNC_RESCAN="0")
    eventually(lambda: name in skipped(service), True)
    assert (root / "other").read_bytes() == b"other"
    beat(service)
    seen = redis_server.commands(lambda: beat(service))
    assert [command for command in seen if command.startswith("GETRANGE")] == []
