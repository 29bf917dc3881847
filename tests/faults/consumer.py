"""A consumer of the stream of changes: that of the example in the docs, which ends all the time."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import redis
from integration.drift import DriftError

from sync.core.manifest import NOTHING, Entries
from sync.redis.keys import FEED, MANIFEST

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "change-feed" / "follow.py"
_READ = 20  # ms that a read waits
_PAUSE = 0.1  # seconds


def _example() -> ModuleType:
    found = importlib.util.spec_from_file_location("follow", _EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Consumer:
    """Knows of the directory what the stream tells, by way of a file and of Redis alone."""

    def __init__(self, client: Any, prefix: bytes, stream: bytes, index: Path) -> None:  # noqa: ANN401  # of several classes
        """Read the `stream`, and remember in `index`; all is text to the client."""
        self._example: Any = _example()
        self._client = client
        self._prefix = prefix
        self._keys = [(prefix + each).decode() for each in (stream, FEED)]
        self._index = index

    def close(self) -> None:
        """Let go of Redis."""
        self._client.close()

    def read_some(self) -> None:
        """Read what there is, once, as a process of its own that is then killed."""
        with suppress(redis.RedisError):
            next(self._follow()[0])

    def comes_to_know_what_is_held(
        self, new_client: Callable[[], redis.Redis], deadline: float
    ) -> None:
        """Wait until it knows of all names that Redis has on record. Raises DriftError."""
        self.comes_to_know(partial(self._held, new_client), deadline)

    def _held(self, new_client: Callable[[], redis.Redis]) -> dict[bytes, int]:
        """Return the names that both sides had alike, with the sizes of their files then."""
        entries, found = Entries(trimmed=False, digests=True), {}
        first = self._prefix + MANIFEST
        with closing(new_client()) as client:
            for record in [first, *client.scan_iter(match=first + b"/*", count=10_000)]:
                place = record[len(first) + 1 :]
                fields: Any = client.hgetall(record)
                for name, entry in fields.items():
                    signature = entries.decode(entry)
                    if signature and not name.endswith(b"/") and entries.digest(entry) != NOTHING:
                        found[place + name] = signature.size
        return found

    def comes_to_know(self, what: Callable[[], dict[bytes, int]], deadline: float) -> None:
        """Wait until it knows of just these names, and how large each is. Raises DriftError."""
        end = time.monotonic() + deadline
        while True:
            try:
                return self._comes_to_know(what, end)
            except redis.RedisError as error:
                if time.monotonic() > end:
                    raise DriftError({b"(the stream)": repr(error)}, deadline) from error
                time.sleep(_PAUSE)

    def _comes_to_know(self, what: Callable[[], dict[bytes, int]], end: float) -> None:
        began = time.monotonic()
        steps, index = self._follow()
        for is_all in steps:
            sizes = what()
            known = {os.fsencode(name): size for name, size in index.sizes.items()}
            if is_all and known == sizes:
                return
            if time.monotonic() > end:
                differing = {
                    name: f"{sizes.get(name)} B is there, {known.get(name)} by the stream"
                    for name in known.keys() | sizes.keys()
                    if known.get(name) != sizes.get(name)
                }
                differing = differing or {b"(the stream)": "is not whole"}
                raise DriftError(differing, time.monotonic() - began)

    def _follow(self) -> tuple[Iterator[bool], Any]:
        index = self._example.Index(self._index)
        stream = self._example.Stream(self._client, *self._keys)
        return self._example.follow(stream, index, _READ), index
