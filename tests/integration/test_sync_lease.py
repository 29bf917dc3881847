"""Several services with the same keys: one works, the others stand by until it has ended."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from integration.conftest import paused
from support import eventually

from sync.core.access import Access
from sync.core.changes import Set, Signature
from sync.core.errors import RedisAwayError, StandsByError
from sync.core.manifest import Entries
from sync.redis.address import Address
from sync.redis.keys import EPOCH, LEASE
from sync.redis.lease import LIFE, Holder, Lease
from sync.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

# Processes that do not know each other's numbers, as in two containers or on two hosts.
ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
TAKEN_OVER = 5.0  # seconds that it may take at most
AT_ONCE = 1.0


def state(service: Service) -> str:
    """Return what the service says that it does; "" when it says nothing yet."""
    try:
        with open(service.environ["SYNC_STATUS"], encoding="utf-8") as file:  # noqa: PTH123
            return str(json.load(file)["state"])
    except FileNotFoundError:
        return ""


def pair(start: Start) -> tuple[Service, Service]:
    """Return one service that works, and one that stands by, as if on two hosts."""
    works = start(in_step=True, prefix=ELSEWHERE)
    other = start(prefix=ELSEWHERE)
    eventually(lambda: state(other), "standby")
    return works, other


def signal_elsewhere(service: Service, number: signal.Signals) -> None:
    """Send a signal to a service that runs ELSEWHERE, not to what has started it there."""
    pid = service.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    os.kill(int(child), number)


def takes_over(service: Service, since: float) -> float:
    """Wait until a service works; return how long it took, in seconds."""
    eventually(lambda: service.says(" equals "), True)
    took = time.monotonic() - since
    assert len(service.lines("taking over")) == 1
    service.catches_up()
    return took


@pytest.mark.usefixtures("redis_server")
class TestOneStandsBy:
    def test_and_says_so_and_is_well(self, start: Start) -> None:
        works, other = pair(start)
        status, first = other.health()
        assert status == 0
        assert first.startswith("standby: another mdvp-sync works with the same keys: the one on ")
        assert works.health() == (0, "live: Redis equals the directory")
        assert len(other.lines("standing by: another mdvp-sync works")) == 1
        assert not other.says("ERROR")

    def test_while_the_other_goes_on_as_ever(self, redis_server: RedisServer, start: Start) -> None:
        works, other = pair(start)
        epoch = redis_server.client.get(EPOCH)
        end = time.monotonic() + 6  # longer than a lease lasts
        while time.monotonic() < end:
            works.catches_up()
            assert redis_server.client.pttl(LEASE) > LIFE / 4
        assert redis_server.client.get(EPOCH) == epoch
        assert state(other) == "standby"
        assert not works.says("waiting")

    def test_and_takes_over_at_once_from_one_that_stops(self, start: Start) -> None:
        works, other = pair(start)
        began = time.monotonic()
        signal_elsewhere(works, signal.SIGTERM)
        assert takes_over(other, began) < AT_ONCE + 0.5

    def test_and_takes_over_from_one_that_was_killed(self, start: Start) -> None:
        works, other = pair(start)
        began = time.monotonic()
        works.process.kill()
        assert takes_over(other, began) < TAKEN_OVER

    def test_and_takes_over_at_once_from_one_that_was_killed_beside_it(self, start: Start) -> None:
        works, other = start(in_step=True), start()
        eventually(lambda: state(other), "standby")
        works.process.kill()
        began = time.monotonic()
        works.process.wait()
        assert takes_over(other, began) < AT_ONCE + 0.5

    def test_and_takes_over_from_one_that_hangs_and_changes_nothing_when_it_goes_on(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        works = start(in_step=True)
        other = start()
        eventually(lambda: state(other), "standby")
        with paused(works.process):
            began = time.monotonic()
            (works.root / "a").write_text("one")
            assert takes_over(other, began) < TAKEN_OVER
            epoch = redis_server.client.get(EPOCH)
        eventually(lambda: state(works), "standby")
        other.catches_up()
        assert redis_server.client.get(EPOCH) == epoch

    def test_and_has_what_works_put_its_lease_there_again(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        works, other = pair(start)
        epoch = redis_server.client.get(EPOCH)
        redis_server.client.delete(LEASE)
        eventually(lambda: redis_server.client.exists(LEASE), 1)
        redis_server.client.set(LEASE, "somebody's")
        eventually(lambda: redis_server.client.ttl(LEASE) > 0, True)
        works.catches_up()
        assert (redis_server.client.get(EPOCH), state(other)) == (epoch, "standby")

    def test_when_redis_was_flushed(self, redis_server: RedisServer, start: Start) -> None:
        services = pair(start)
        for number in range(3):
            (services[0].root / f"a{number}").write_text("one")
            redis_server.client.flushall()
            eventually(lambda: one_works(services), True)

    def test_when_redis_has_come_back_empty(self, redis_server: RedisServer, start: Start) -> None:
        services = pair(start)
        (services[0].root / "a").write_text("one")
        redis_server.kill()
        for service in services:
            eventually(lambda: state(service), "waiting")  # noqa: B023  # asked at once
        redis_server.start()
        eventually(lambda: one_works(services), True)

    def test_whatever_begins_at_the_same_instant(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        services = [start(prefix=ELSEWHERE) for _ in range(4)]
        for _ in range(3):
            eventually(lambda: one_works(services), True)
            epoch = redis_server.client.get(EPOCH)
            (worker,) = (each for each in services if state(each) == "live")
            worker.catches_up()
            assert redis_server.client.get(EPOCH) == epoch
            services.remove(worker)
            services.append(start(prefix=ELSEWHERE))
            signal_elsewhere(worker, signal.SIGKILL)


def target(redis_server: RedisServer, host: str) -> Target:
    """Return a target of a process on another host."""
    holder = Holder(host=host, pid=1, machine=host, run=secrets.token_hex(8))
    dial = Address(Access(redis_server.url)).dial
    return Target(dial, Entries(trimmed=False), lease=Lease(b"", holder))


def connects(one: Target, barrier: Barrier) -> bool:
    """Connect when others do; say whether that has got the lease."""
    barrier.wait()
    try:
        one.connect()
    except StandsByError:
        return False
    return True


class TestFencing:
    """What the lease alone does not do."""

    SIGNATURE = Signature(1, 6, 2, 3)

    def test_of_many_that_connect_at_once_one_gets_it(self, redis_server: RedisServer) -> None:
        with ThreadPoolExecutor(4) as threads, ExitStack() as stack:
            targets = [stack.enter_context(closing(target(redis_server, f"{n}"))) for n in range(4)]
            barrier = Barrier(len(targets))
            for _ in range(200):
                redis_server.client.delete(LEASE)
                got = list(threads.map(connects, targets, [barrier] * len(targets)))
                assert got.count(True) == 1
                targets[got.index(True)].check()

    @pytest.mark.parametrize("flushed", [False, True])
    def test_what_one_that_was_deposed_sends_is_void(
        self, redis_server: RedisServer, flushed: bool
    ) -> None:
        with (
            closing(target(redis_server, "old")) as old,
            closing(target(redis_server, "new")) as new,
        ):
            old.connect()
            old.apply([Set(b"a", b"before", self.SIGNATURE)])
            with pytest.raises(StandsByError, match="the one on old, process 1"):
                new.connect()
            # Its lease is over, and it does not know yet.
            redis_server.client.delete(LEASE)
            if flushed:
                redis_server.client.flushall()
            new.connect()
            new.apply([Set(b"a", b"new", self.SIGNATURE)])
            with pytest.raises(StandsByError, match="the one on new"):
                old.apply([Set(b"a", b"late", self.SIGNATURE)])
            with pytest.raises(RedisAwayError):
                old.apply([Set(b"a", b"late", self.SIGNATURE)])
            assert not old.may_take()
            new.check()
            assert redis_server.client.get("a") == b"new"

    def test_one_whose_lease_is_over_goes_on_if_nobody_has_taken_it(
        self, redis_server: RedisServer
    ) -> None:
        with (
            closing(target(redis_server, "old")) as old,
            closing(target(redis_server, "new")) as new,
        ):
            old.connect()
            redis_server.client.delete(LEASE)
            old.apply([Set(b"a", b"value", self.SIGNATURE)])
            old.check()
            with pytest.raises(StandsByError):
                new.connect()
            assert not new.may_take()

    def test_it_lasts_as_long_as_much_is_asked(self, redis_server: RedisServer) -> None:
        with closing(target(redis_server, "old")) as old:
            old.connect()
            redis_server.client.pexpire(LEASE, 1)
            eventually(lambda: redis_server.client.exists(LEASE), 0)
            old.check()  # puts it there again
            redis_server.client.pexpire(LEASE, 1000)

            def lasts() -> bool:
                old.are_there([b"a"])
                return redis_server.client.pttl(LEASE) > 1000

            eventually(lasts, True)

    def test_it_is_given_back_to_nobody_else(self, redis_server: RedisServer) -> None:
        with (
            closing(target(redis_server, "old")) as old,
            closing(target(redis_server, "new")) as new,
        ):
            old.connect()
            redis_server.client.delete(LEASE)
            new.connect()
            before = redis_server.client.get(LEASE)
            old.give_back()
            assert redis_server.client.get(LEASE) == before
            new.give_back()
            with closing(target(redis_server, "third")) as third:
                third.connect()


def one_works(services: Sequence[Service]) -> bool:
    """Say whether one of some services works, and has brought all, and all others stand by."""
    states = sorted(map(state, services))
    is_one = states == ["live", *["standby"] * (len(services) - 1)]
    return is_one and services[0].redis.keys() == services[0].files()


@pytest.mark.parametrize(
    "theirs",
    ["[" * 100_000, '{"host": "\\ud800", "pid": 1, "machine": "", "run": "", "since": 1.0}'],
)
def test_what_somebody_has_put_in_its_place_ends_nobody(
    redis_server: RedisServer, start: Start, theirs: str
) -> None:
    redis_server.client.set(LEASE, theirs, px=2_000)
    service = start(in_step=True)
    redis_server.client.set(LEASE, theirs, px=2_000)
    eventually(lambda: redis_server.client.get(LEASE) == theirs.encode(), False)
    assert service.process.poll() is None
    service.catches_up()


@pytest.mark.usefixtures("redis_server")
class TestWithoutMemory:
    def test_one_works(self, redis_server: RedisServer, root: Path, start: Start) -> None:
        (root / "a").write_text("one")
        first = start(in_step=True)
        first.stop(signal.SIGTERM)
        redis_server.client.delete(LEASE)
        redis_server.client.config_set("maxmemory", 1)
        (root / "a").unlink()
        service = start()
        eventually(redis_server.keys, {})
        redis_server.client.config_set("maxmemory", 0)
        eventually(lambda: redis_server.client.ttl(LEASE) > 0, True)
        service.catches_up()

    def test_the_one_that_works_keeps_its_lease(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        works, other = pair(start)
        (root / "a").write_text("one")
        works.catches_up()
        redis_server.client.config_set("maxmemory", 1)
        (root / "a").unlink()
        eventually(redis_server.keys, {})
        lease = redis_server.client.get(LEASE)
        end = time.monotonic() + 5  # longer than a lease lasts
        while time.monotonic() < end:
            assert redis_server.client.get(LEASE) == lease
            assert state(other) == "standby"


@pytest.mark.usefixtures("redis_server")
class TestOverlap:
    """Prefixes of which one begins with the other."""

    WORDS = "give each a SYNC_PREFIX such that neither begins with the other"

    def waits(self, service: Service, *words: str) -> None:
        eventually(lambda: len(service.lines("waiting for Redis", self.WORDS, *words)), 1)
        assert service.health()[0] == 1

    @pytest.mark.parametrize("prefix", ["", "a", "a:b"])
    def test_the_longer_one_waits(
        self, redis_server: RedisServer, start: Start, prefix: str
    ) -> None:
        shorter = start(in_step=True, SYNC_PREFIX=prefix)
        longer = start(SYNC_PREFIX="a:b:", REDIS_URL=redis_server.url)  # who may do all
        self.waits(longer, f"SYNC_PREFIX='{prefix}'", "'a:b:'")
        shorter.stop(signal.SIGTERM)
        eventually(lambda: longer.says(" equals "), True)
        longer.process.kill()

    def test_those_that_have_nothing_in_common_do_not(self, start: Start) -> None:
        for prefix in ("a:", "b:", "a;"):
            start(in_step=True, SYNC_PREFIX=prefix)

    def test_the_longer_one_waits_when_the_shorter_one_comes_later(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        longer = start(in_step=True, SYNC_PREFIX="a:b:", REDIS_URL=redis_server.url)
        shorter = start(in_step=True, SYNC_PREFIX="a:")
        self.waits(longer, "SYNC_PREFIX='a:'")
        assert not redis_server.client.ttl(b"a:b:" + LEASE) > 1
        assert not shorter.says("waiting")

    def test_the_shorter_one_waits_when_the_longer_one_may_not_look(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        redis_server.client.acl_setuser(
            "blind", enabled=True, nopass=True, keys=["a:b:*"], categories=["+@all"]
        )
        url = redis_server.url.replace("unix://", "unix://blind:none@")
        longer = start(in_step=True, SYNC_PREFIX="a:b:", REDIS_URL=url)
        shorter = start(SYNC_PREFIX="a:")
        self.waits(shorter, "SYNC_PREFIX='a:b:'")
        assert not longer.says("waiting")
        longer.stop(signal.SIGTERM)
        eventually(lambda: len(shorter.lines(" equals ")), 2)

    def test_of_both_ways_the_one_whose_keys_would_be_files_waits(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "a").write_text("one")
        longer = start(in_step=True, SYNC_PREFIX="a:b:")
        shorter = start(SYNC_PREFIX="a:", SYNC_TREE="1", SYNC_MODE="redis-to-disk")
        eventually(lambda: shorter.says("another mdvp-sync has keys", "b:"), True)
        eventually(longer.health, (0, "live: Redis equals the directory"))
        epoch = redis_server.client.get(b"a:b:" + EPOCH)
        eventually(lambda: redis_server.client.exists(b"a:" + LEASE), 0)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert not redis_server.client.exists(b"a:" + LEASE)
        assert redis_server.client.get(b"a:b:" + EPOCH) == epoch
