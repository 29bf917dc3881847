"""A consumer of the stream of changes: that of the example in the docs, which ends all the time."""

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import redis
from integration.drift import DriftError

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

    def __init__(self, client: Callable[..., redis.Redis], key: str, index: Path) -> None:
        """Read the stream that is under `key` by a new `client` each time; remember in `index`.

        What is in the key before the last colon is the prefix of all keys.
        """
        self._example: Any = _example()
        self._client = client
        self._key = key
        self._index = index

    def read_some(self) -> None:
        """Read what there is, once, as a process of its own that is then killed."""
        next(self._follow()[0])

    def comes_to_know(self, sizes: dict[bytes, int], deadline: float) -> None:
        """Wait until it knows of just these names, and how large each is. Raises DriftError."""
        began = time.monotonic()
        steps, index = self._follow()
        for is_all in steps:
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
        client = self._client(decode_responses=True, encoding_errors="surrogateescape")
        prefix, _, _ = self._key.rpartition(":")
        feed = f"{prefix and prefix + ':'}/mdvp-sync/feed"
        stream = self._example.Stream(client, self._key, feed)
        return self._example.follow(stream, index, 20), index
