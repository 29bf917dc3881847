"""What was heard of in Redis, until it is looked at: which names, in which order, how many."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, cast

import pytest

from sync.core.decision import Mode
from sync.core.errors import RedisChangedError
from sync.core.plan import Pending
from sync.redis.listener import BY_RESCANS, BY_TRACKING, Heard
from sync.service.hearing import Hearing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sync.disk.files import Directory
    from sync.redis.listener import Listener
    from sync.redis.target import Target
    from sync.service.mirror import Mirror
    from sync.service.news import News
    from sync.service.requests import Requests

AT_ONCE = 700
MANY = [b"%d" % number for number in range(3 * AT_ONCE)]


class Redis:
    """A listener and the server that it listens to."""

    def __init__(self) -> None:
        self.by = BY_TRACKING
        self.has_more = False
        self.heard: list[Heard] = []
        self.manifest: set[bytes] = set()
        self.foreign: set[bytes] = set()
        self.is_flushed = False
        self.beats = 0
        self.requests: list[bytes] = []
        self.overlap = self  # nobody else's keys are in the way
        self.told: list[bytes] = []

    def hear(self, names: Sequence[bytes]) -> None:
        self.told += names

    def read(self) -> Heard:
        return self.heard.pop(0) if self.heard else Heard()

    def beat(self) -> None:
        self.beats += 1

    def check(self) -> None:
        if self.is_flushed:
            raise RedisChangedError("flushed")

    def unknown(self, names: Iterable[bytes]) -> set[bytes]:
        return set(names) - self.foreign

    def ours(self, names: Sequence[bytes]) -> list[bytes]:
        self.foreign |= set(names) - self.manifest
        return [name for name in names if name in self.manifest]

    def take(self) -> dict[bytes, object]:
        taken, self.requests = self.requests, []
        return dict.fromkeys(taken)


class Disk:
    """The disk, and what is known of names there."""

    def __init__(self) -> None:
        self.pending = Pending(0.5, 0.1)
        self.open: set[bytes] = set()
        self.skipped: dict[bytes, str] = {}
        self.moved: dict[bytes, bytes] = {}
        self.has_moved_more = False

    def fit(self, names: Iterable[bytes]) -> list[bytes]:
        return [name for name in names if name != b"misfit"]

    def followed(self, names: Iterable[bytes]) -> list[bytes]:
        found = list(names)
        return found + [self.moved[name] for name in found if name in self.moved]

    def is_open(self, name: bytes) -> bool:
        return name in self.open or name in self.skipped


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def disk() -> Disk:
    return Disk()


def hearing(redis: Redis, disk: Disk, mode: Mode = Mode.TWO_WAY_SAFE) -> Hearing:
    return Hearing(
        cast("Listener", redis),
        cast("Directory", disk),
        cast("Target", redis),
        cast("Mirror", disk),
        cast("News", disk),
        cast("Requests", redis),
        mode,
    )


def hear(it: Hearing, redis: Redis, names: Sequence[bytes]) -> None:
    redis.heard.append(Heard(names))
    it.drain()


class TestBothWays:
    def test_each_name_is_told_once_and_in_its_order(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        hear(it, redis, [b"b", b"a", b"b"])
        hear(it, redis, [b"a", b"misfit", b"c"])
        assert it.is_waiting
        assert redis.told == [b"b", b"a", b"b", b"a", b"misfit", b"c"]  # of other services', maybe
        assert it.take() == [b"b", b"a", b"c"]
        assert it.take() == []
        assert not it.is_waiting

    def test_many_come_in_parts(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        hear(it, redis, MANY)
        taken = [it.take() for _ in range(4)]
        assert [len(each) for each in taken] == [AT_ONCE] * 3 + [0]
        assert list(chain.from_iterable(taken)) == MANY

    def test_those_wait_for_many_that_are_due(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        disk.pending.defer(MANY, 0.0, 0.0)
        hear(it, redis, [b"a"])
        assert it.take() == []
        assert it.is_waiting

    def test_but_not_for_many_that_are_to_be_tried_again_later(
        self, redis: Redis, disk: Disk
    ) -> None:
        it = hearing(redis, disk)
        disk.pending.defer(MANY, 1e9, 30.0)
        hear(it, redis, [b"a"])
        assert it.take() == [b"a"]

    @pytest.mark.parametrize("mode", [Mode.TWO_WAY_SAFE, Mode.ONE_WAY_REPLICA])
    def test_more_than_is_remembered_has_all_looked_at(
        self, redis: Redis, disk: Disk, monkeypatch: pytest.MonkeyPatch, mode: Mode
    ) -> None:
        monkeypatch.setattr("sync.service.hearing._NAMES_MAX", 10)
        it = hearing(redis, disk, mode)
        redis.manifest = set(MANY)
        hear(it, redis, MANY[:10])
        assert not it.has_lost
        hear(it, redis, MANY[:11])
        assert it.has_lost
        assert it.take() == []
        it.has_lost = False
        hear(it, redis, [b"1"])
        assert it.take() == [b"1"]
        assert not it.has_lost

    def test_a_flush_of_this_database_is_no_news_but_a_loss(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        redis.heard.append(Heard(is_all=True))
        it.drain()  # it was another's
        redis.is_flushed = True
        redis.heard.append(Heard(is_all=True))
        with pytest.raises(RedisChangedError):
            it.drain()

    def test_what_somebody_has_decided_is_looked_at(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        redis.requests = [b"a"]
        redis.heard.append(Heard(has_requests=True))
        it.drain()
        assert it.take() == [b"a"]

    def test_without_being_told_where_nothing_tells(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk)
        redis.requests = [b"a"]
        it.beat()
        assert it.take() == []
        redis.by = BY_RESCANS
        it.beat()
        assert it.take() == [b"a"]
        assert redis.beats == 2
        assert not it.hears


class TestOneWay:
    def test_only_what_is_the_mirrors_is_looked_at(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk, Mode.ONE_WAY_REPLICA)
        redis.manifest = {b"a"}
        hear(it, redis, [b"a", b"b", b"theirs"])
        assert it.take() == [b"a"]
        assert redis.foreign == {b"b", b"theirs"}

    def test_what_was_under_a_name_is_looked_at_where_it_was_renamed_to(
        self, redis: Redis, disk: Disk
    ) -> None:
        it = hearing(redis, disk, Mode.ONE_WAY_REPLICA)
        redis.manifest, disk.moved = {b"new"}, {b"old": b"new"}
        hear(it, redis, [b"old"])
        assert it.take() == [b"new"]

    def test_when_too_much_was_renamed_all_is_to_be_compared(
        self, redis: Redis, disk: Disk
    ) -> None:
        it = hearing(redis, disk, Mode.ONE_WAY_REPLICA)
        disk.has_moved_more = True
        hear(it, redis, [b"old"])
        assert it.has_lost

    def test_others_keys_are_not_asked_for_again(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk, Mode.ONE_WAY_REPLICA)
        redis.manifest, redis.foreign = {b"a"}, {b"a"}
        hear(it, redis, [b"a"])
        assert it.take() == []

    def test_it_rests_when_all_was_others(self, redis: Redis, disk: Disk) -> None:
        it = hearing(redis, disk, Mode.ONE_WAY_REPLICA)
        redis.foreign = {b"theirs"}
        hear(it, redis, [b"theirs"])
        assert it.rests_until > 0

    @pytest.mark.parametrize("mode", [Mode.ONE_WAY_SAFE, Mode.ONE_WAY_REPLICA])
    def test_what_is_open_is_looked_at_though_nothing_is_remembered_of_it(
        self, redis: Redis, disk: Disk, mode: Mode
    ) -> None:
        it = hearing(redis, disk, mode)
        disk.skipped = {b"a": "is refused"}
        redis.foreign = {b"a", b"b"}
        hear(it, redis, [b"a", b"b"])
        assert it.take() == [b"a"]

    def test_in_one_way_safe_that_may_be_what_is_in_conflict(
        self, redis: Redis, disk: Disk
    ) -> None:
        disk.open = {b"a"}
        for mode, expected in ((Mode.ONE_WAY_REPLICA, []), (Mode.ONE_WAY_SAFE, [b"a"])):
            it = hearing(redis, disk, mode)
            hear(it, redis, [b"a"])
            assert it.take() == expected
