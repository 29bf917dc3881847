"""Large values from Redis: whose turn it is, and whether what has come is still what is there."""

from __future__ import annotations

import errno
import hashlib
from typing import TYPE_CHECKING, cast

import pytest

from sync.core.errors import RedisAwayError
from sync.core.manifest import DIGEST_SIZE
from sync.service.downloads import Downloads, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sync.disk.writer import Draft
    from sync.redis.download import Download
    from sync.service.streams import Job

PIECES = [b"one ", b"two"]


def digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_SIZE).digest()


class Source:
    """A value that comes in pieces, over a connection that is closed in the end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_same = True
        self.is_closed = False

    def pieces(self) -> Iterator[bytes]:
        yield from PIECES
        if self.error:
            raise self.error

    def is_still(self) -> bool:
        return self.is_same

    def close(self) -> None:
        self.is_closed = True


class Aside:
    """What a value is written to."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.written = b""
        self.is_full = is_full
        self.is_closed = False

    def write(self, piece: bytes) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += piece

    def close(self) -> None:
        self.is_closed = True


class World:
    """Downloads, whose jobs are done when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.woken = 0
        self.sources: dict[bytes, Source] = {}
        self.drafts: dict[bytes, Aside] = {}
        self.downloads = Downloads(self.jobs.append, self._wake, self._begin)

    def _wake(self) -> None:
        self.woken += 1

    def _begin(self, name: bytes, as_file: bool) -> Value:
        source = self.sources.setdefault(name, Source())
        draft = self.drafts.setdefault(name, Aside()) if as_file else None
        return Value(name, cast("Download", source), cast("Draft | None", draft))

    def comes(self) -> bytes | None:
        """Have the one whose turn it is come; return its name as it is told."""
        assert self.downloads.next() is None
        for job in self.jobs:
            for _ in job:
                pass
        self.jobs.clear()
        return self.downloads.next()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def downloads(world: World) -> Downloads:
    return world.downloads


def test_one_comes_after_the_other(world: World, downloads: Downloads) -> None:
    downloads.want(b"a", as_file=True)
    downloads.want(b"b", as_file=False)
    assert downloads.names() == {b"a", b"b"}
    assert downloads.is_due
    assert world.comes() == b"a"
    assert world.woken == 1
    assert downloads.next() is None  # a name is told once
    assert not downloads.is_due or downloads.waiting
    assert downloads.use(b"a", as_file=True) == digest(b"one two")
    assert world.drafts[b"a"].written == b"one two"
    downloads.drop()
    assert world.comes() == b"b"
    assert b"b" not in world.drafts
    downloads.drop()
    assert downloads.names() == set()
    assert not downloads.is_due
    assert world.sources[b"a"].is_closed
    assert world.sources[b"b"].is_closed


def test_the_next_is_due_while_one_that_was_told_is_there(
    world: World, downloads: Downloads
) -> None:
    downloads.want(b"a", as_file=False)
    world.comes()
    assert not downloads.is_due
    downloads.want(b"b", as_file=False)
    assert downloads.is_due  # whoever is told so lets go of the first


def test_what_has_changed_meanwhile_is_brought_again_and_rests_before(
    world: World, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("sync.service.downloads.time.monotonic", lambda: clock[0])
    downloads.want(b"a", as_file=False)
    assert downloads.next() is None
    assert downloads.current
    downloads.current.began = clock[0]
    clock[0] += 0.5  # so long it takes
    assert world.comes() == b"a"
    world.sources[b"a"].is_same = False
    assert downloads.use(b"a", as_file=False) is None
    assert downloads.names() == {b"a"}
    assert not downloads.is_due
    downloads.want(b"b", as_file=False)
    assert world.comes() == b"b"  # it is in nobody's way
    downloads.drop()
    clock[0] += 1.4
    assert not downloads.is_due
    clock[0] += 0.2
    assert downloads.is_due


def test_it_can_be_used_once(world: World, downloads: Downloads) -> None:
    downloads.want(b"a", as_file=False)
    world.comes()
    assert downloads.use(b"a", as_file=False)
    assert downloads.use(b"a", as_file=False) is None
    assert b"a" in downloads.waiting


def test_one_that_may_become_a_file_once_is_written_aside(
    world: World, downloads: Downloads
) -> None:
    downloads.want(b"a", as_file=True)
    downloads.want(b"a", as_file=False)
    world.comes()
    assert world.drafts[b"a"].written == b"one two"


def test_what_the_disk_does_not_take_is_told(world: World, downloads: Downloads) -> None:
    world.drafts[b"a"] = Aside(is_full=True)
    downloads.want(b"a", as_file=True)
    assert world.comes() == b"a"
    assert isinstance(downloads.error, OSError)
    downloads.drop()
    assert world.drafts[b"a"].is_closed  # it has the last bytes of the disk
    assert downloads.error is None
    assert downloads.names() == set()


def test_so_is_a_connection_that_was_lost(world: World, downloads: Downloads) -> None:
    world.sources[b"a"] = Source(RedisAwayError("gone"))
    downloads.want(b"a", as_file=False)
    assert world.comes() == b"a"
    assert isinstance(downloads.error, RedisAwayError)
    assert downloads.use(b"a", as_file=False) is None


def test_one_that_nobody_wants_any_more_is_closed_when_its_thread_ends(
    world: World, downloads: Downloads
) -> None:
    downloads.want(b"a", as_file=True)
    assert downloads.next() is None
    (job,) = world.jobs
    next(job)
    downloads.drop()
    assert not world.sources[b"a"].is_closed  # its thread still reads
    assert list(job) == []
    assert world.sources[b"a"].is_closed
    assert world.drafts[b"a"].is_closed


def test_nobody_waits_for_what_has_come_and_was_told(world: World) -> None:
    """Whoever was told may need nothing of it any more, and does not say so."""
    world.downloads.want(b"a", as_file=True)
    assert world.downloads.names() == {b"a"}
    assert world.comes() == b"a"
    assert world.downloads.names() == set()
    assert world.downloads.found(b"a") is not None
