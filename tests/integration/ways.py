"""Services that follow Redis, too: how tests start them, and what they wait for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from support import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.conftest import Service, Start

T = TypeVar("T")
Redis: TypeAlias = Any  # redis-py's own types are too wide to be of use
REPLICA, ONE_WAY = "one-way-replica", "one-way-safe"
SAFE, RESOLVED, FROM_REDIS = "two-way-safe", "two-way-resolved", "redis-to-disk"
MODES = [SAFE, RESOLVED, FROM_REDIS]
BOTH = [SAFE, RESOLVED]


class Both:
    """Starts services that are not helped by rescans."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def __call__(self, mode: str = SAFE, *, in_step: bool = True, **environ: str) -> Service:
        settings = {"SYNC_RESCAN": "0", "SYNC_MODE": mode, **environ}
        return self._start(in_step=in_step, **settings)


def shortened(value: bytes) -> bytes:
    """Return what tells a value from others, and can be read when a test fails."""
    return value if len(value) < 100 else hashlib.sha256(value).digest()


def contents(root: Path) -> dict[str, bytes]:
    """Return all files below the root, temporary ones, too, with what they hold, `shortened`."""
    return {
        str(path.relative_to(root)): shortened(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def is_there(root: Path, expected: Mapping[str, bytes]) -> None:
    """Wait until the directory has these files, and no others."""
    wanted = {name: shortened(value) for name, value in expected.items()}

    def found() -> object:
        try:
            return _differences(contents(root), wanted)
        except FileNotFoundError:
            return None  # one went while it was looked at

    eventually(found, {})


def is_equal(service: Service, expected: Mapping[str, bytes]) -> None:
    """Wait until both sides have these values, and no others."""
    wanted = {os.fsencode(name): shortened(value) for name, value in expected.items()}

    def found() -> object:
        keys = service.redis.keys()
        return _differences({name: shortened(value) for name, value in keys.items()}, wanted)

    eventually(found, {})
    is_there(service.root, expected)


def _differences(has: Mapping[T, bytes], wanted: Mapping[T, bytes]) -> dict[T, object]:
    """Return what there is, and what there should be, where the two differ."""
    names = dict.fromkeys((*has, *wanted))
    pairs = {name: (has.get(name), wanted.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def has(root: Path, name: str, value: bytes) -> None:
    """Wait until a file has this value, whatever else there is."""
    path = root / name
    eventually(lambda: path.exists() and shortened(path.read_bytes()), shortened(value))


def settled(service: Service) -> None:
    """Wait until the service has done all that was there to do before, from both sides."""
    client: Redis = service.redis.client
    marker = service.root / ".marker"
    client.set(".marker", os.urandom(4))
    eventually(marker.exists, True)
    client.delete(".marker")
    eventually(marker.exists, False)


def stop(service: Service) -> None:
    """End a service as a crash would."""
    service.process.kill()
    service.process.wait()


def status(service: Service) -> dict[str, Any]:
    """Return what it has said of itself last."""
    said: dict[str, Any] = json.loads(Path(service.environ["SYNC_STATUS"]).read_text())
    return said


def beat(service: Service) -> None:
    """Wait for the next time that it says something of itself."""
    last = status(service)["at"]
    eventually(lambda: status(service)["at"] != last, True)


def skipped(service: Service) -> dict[str, str]:
    """Return what is not mirrored, and why, as far as it has a place in the status."""
    said: dict[str, str] = status(service)["skipped"]
    return said
