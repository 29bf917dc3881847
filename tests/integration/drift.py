"""Is Redis equal to the directory? Every name, and every byte of every value."""

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import redis
from integration.shape import FLAT, Shape
from integration.workload import Workload

from sync.redis.keys import MANIFEST, NAMES

_SHOWN = 64  # bytes of a value
_PAGE = 100
_POLL = 0.005  # seconds
_OWN = MANIFEST[:1]  # what a key of the service's own begins with, and no file's name


class DriftError(AssertionError):
    """Redis did not become equal to the directory in time.

    Attributes:
        names: what differs, and how.

    """

    def __init__(self, names: Mapping[bytes, str], seconds: float) -> None:
        """Say what differs after so many seconds."""
        lines = [f"  {name!r}: {how}" for name, how in list(names.items())[:10]]
        super().__init__(
            "\n".join([f"{len(names)} names differ after {seconds:.1f} s, among them", *lines])
        )
        self.names = names


@dataclass
class Sides:
    """A directory and the Redis that is to be equal to it, but for keys that others put there."""

    root: Path
    client: redis.Redis
    shape: Shape = FLAT
    foreign: dict[bytes, bytes] = field(default_factory=dict)
    stream: bytes = b""  # the key of the stream of changes

    def put_foreign_keys(self) -> None:
        """Have keys in Redis that must stay."""
        self.foreign = dict(self.shape.foreign)
        self.client.mset(self.foreign)

    def differences(self) -> dict[bytes, str]:
        """Return for each name that differs how it does."""
        sizes = {name: len(value) for name, value in self.foreign.items()} | self.shape.files(
            self.root
        )
        lengths = self._lengths()
        differing = {
            name: f"{_size(sizes.get(name))} is there, {_size(lengths.get(name))} in Redis"
            for name in sizes.keys() | lengths.keys()
            if sizes.get(name) != lengths.get(name)
        }
        return differing or self._other_contents(list(sizes))

    def _lengths(self) -> dict[bytes, int]:
        names = [
            name
            for name in self.client.scan_iter(count=10_000)
            if name[:1] != _OWN and name != self.stream
        ]
        with self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.strlen(name)
            return dict(zip(names, pipeline.execute(), strict=True))

    def _other_contents(self, names: Sequence[bytes]) -> dict[bytes, str]:
        found = {}
        for first in range(0, len(names), _PAGE):
            page = names[first : first + _PAGE]
            for name, value in zip(page, self.client.mget(page), strict=True):
                content = self.foreign.get(name)
                if content is None:
                    content = (self.root / os.fsdecode(name)).read_bytes()
                if value != content:
                    found[name] = _compared(content, value)
        return found

    def torn(self, workload: Workload) -> list[bytes]:
        """Return the names of locked files of which Redis has what is half written."""
        names = list(workload.half_written())
        values = self.client.mget(names) if names else []
        half = workload.half_written()  # still; what is locked since then was not seen
        return [
            name
            for name, value in zip(names, values, strict=True)
            if value is not None and value == half.get(name)
        ]

    def become_equal(self, deadline: float) -> float:
        """Wait until both are equal, and stay so; return how many seconds it took.

        Raises DriftError.
        """
        began = time.monotonic()
        self._wait_until_equal(began, deadline)
        took = time.monotonic() - began
        self._wait_until_followed(began, deadline + 5.0)
        if differing := self.differences():
            raise DriftError(
                {name: f"{how}, having been equal" for name, how in differing.items()},
                time.monotonic() - began,
            )
        return took

    def _wait_until_equal(self, began: float, deadline: float) -> None:
        differing = {b"(Redis)": "was not asked"}
        while time.monotonic() - began < deadline:
            try:
                differing = self.differences()
                unlike = self._unlike_records() if not differing else {}
            except redis.RedisError as error:
                differing = {b"(Redis)": repr(error)}
            else:
                differing = differing or unlike
                if not differing:
                    return
            time.sleep(_POLL)
        raise DriftError(differing, time.monotonic() - began)

    def _unlike_records(self) -> dict[bytes, str]:
        """Return for each record of the service's that has not the names of all files, how so."""
        files = set(self.shape.files(self.root))
        found = {}
        for record in (MANIFEST, NAMES):
            names = self._names_in(record)
            if names != files:
                found[record] = (
                    f"lacks {list(files - names)[:5]}, has {list(names - files)[:5]} too much"
                )
        return found

    def _names_in(self, record: bytes) -> set[bytes]:
        """Return the files that a record has, with its parts for subdirectories."""
        parts = [record, *self.client.scan_iter(match=record + b"/*", count=10_000)]
        return {
            part[len(record) + 1 :] + name
            for part in parts
            for name in cast("list[bytes]", self.client.hkeys(part))
            if not name.endswith(b"/")
        }

    def _wait_until_followed(self, began: float, deadline: float) -> None:
        """Wait until all that was done to the directory before has been followed, and only that."""
        marker = self.root / f"marker-{secrets.token_hex(4)}"
        for content in (b"here", None):
            if content is None:
                marker.unlink()
            else:
                marker.write_bytes(content)
            while (value := self._value(marker.name)) != content:
                if time.monotonic() - began > deadline:
                    raise DriftError(
                        {os.fsencode(marker): f"{content!r} was not followed, Redis has {value!r}"},
                        time.monotonic() - began,
                    )
                time.sleep(_POLL)

    def _value(self, name: str) -> object:
        with suppress(redis.RedisError):
            return self.client.get(name)
        return "no answer"


def _size(size: int | None) -> str:
    return "nothing" if size is None else f"{size} B"


def _compared(content: bytes, value: object) -> str:
    if not isinstance(value, bytes):
        return "no value in Redis"
    at = next(
        (
            at
            for at in range(0, len(content), _SHOWN)
            if content[at : at + _SHOWN] != value[at : at + _SHOWN]
        ),
        0,
    )
    part = slice(at, at + _SHOWN)
    return f"{content[part]!r} is there about byte {at}, {value[part]!r} in Redis"
