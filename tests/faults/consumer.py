"""A consumer of the stream of changes: that of the example in the docs, which ends all the time."""

import importlib.util
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import redis
from integration.drift import DriftError

from sync.core.manifest import NOTHING, Entries
from sync.redis.keys import MANIFEST

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "change-feed" / "follow.py"


def _example() -> ModuleType:
    found = importlib.util.spec_from_file_location("follow", _EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Consumer:
    """Knows of the directory what the stream tells, by way of a file and of Redis alone."""

    def __init__(self, socket: Path, key: str, index: Path) -> None:
        """Read the stream that is under `key`, and remember in `index`."""
        self._example: Any = _example()
        self._client = redis.Redis(
            unix_socket_path=str(socket), decode_responses=True, encoding_errors="surrogateescape"
        )
        self._key = key
        self._socket = str(socket)
        self._index = index

    def close(self) -> None:
        """Let go of Redis."""
        self._client.close()

    def read_some(self) -> None:
        """Read what there is, once, as a process of its own that is then killed."""
        next(self._follow()[0])

    def comes_to_know_what_is_held(self, deadline: float) -> None:
        """Wait until it knows of all names that Redis has on record. Raises DriftError."""
        self.comes_to_know(self._held, deadline)

    def _held(self) -> dict[bytes, int]:
        """Return the names that both sides had alike, with the sizes of their files then."""
        entries, found = Entries(trimmed=False, digests=True), {}
        with closing(redis.Redis(unix_socket_path=self._socket)) as client:
            for record in [MANIFEST, *client.scan_iter(match=MANIFEST + b"/*", count=10_000)]:
                place = record[len(MANIFEST) + 1 :]
                fields: Any = client.hgetall(record)
                for name, entry in fields.items():
                    signature = entries.decode(entry)
                    if signature and not name.endswith(b"/") and entries.digest(entry) != NOTHING:
                        found[place + name] = signature.size
        return found

    def comes_to_know(self, what: Callable[[], dict[bytes, int]], deadline: float) -> None:
        """Wait until it knows of just these names, and how large each is. Raises DriftError."""
        began = time.monotonic()
        steps, index = self._follow()
        for is_all in steps:
            sizes = what()
            known = {os.fsencode(name): size for name, size in index.sizes.items()}
            if is_all and known == sizes:
                return
            if time.monotonic() - began > deadline:
                differing = {
                    name: f"{sizes.get(name)} B is there, {known.get(name)} by the stream"
                    for name in known.keys() | sizes.keys()
                    if known.get(name) != sizes.get(name)
                }
                differing = differing or {b"(the stream)": "is not whole"}
                raise DriftError(differing, time.monotonic() - began)

    def _follow(self) -> tuple[Any, Any]:
        index = self._example.Index(self._index)
        stream = self._example.Stream(self._client, self._key, "/mdvp-sync/feed")
        return self._example.follow(stream, index, 20), index
