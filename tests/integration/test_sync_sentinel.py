"""The master that Sentinels name: found, and followed when it is another one."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis
from integration.files import write
from integration.topology import NAME, PASSWORD, Load, SentinelSet, paused
from integration.ways import REPLICA, RESOLVED
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.conftest import Service, Start

pytestmark = pytest.mark.waits

LONG = 30.0  # seconds; a failover takes two or three


@pytest.fixture
def sentinels(place: Path) -> Iterator[SentinelSet]:
    """Return three Sentinels with three servers."""
    with ExitStack() as stack:
        own = place / "sentinels"
        own.mkdir()
        made = SentinelSet(own)
        stack.callback(made.close)
        yield made


@pytest.fixture
def follow(sentinels: SentinelSet, start: Start) -> Callable[..., Service]:
    """Return what starts a service that is in step with the master."""

    def follow(**environ: str) -> Service:
        return start(in_step=True, **{**sentinels.environ, **environ})

    return follow


def keys(sentinels: SentinelSet) -> dict[bytes, bytes] | None:
    """Return what the master holds, None while there is none."""
    try:
        client = sentinels.client
        names = [n for n in client.scan_iter(count=10_000) if not n.startswith(b"/")]
        values: Any = client.mget(names) if names else []
    except redis.RedisError:
        return None
    return {n: v for n, v in zip(names, values, strict=True) if v is not None}


def is_equal(sentinels: SentinelSet, service: Service) -> None:
    """Wait until the master holds what is in the directory, and follows it."""
    for content in (b"here", None):
        marker = service.root / ".marker"
        if content:
            marker.write_bytes(content)
        else:
            marker.unlink()
        eventually(lambda: (keys(sentinels) or {}).get(b".marker"), content, LONG)
    eventually(lambda: keys(sentinels) == service.files(), True, LONG)


def test_names_the_master_it_has_found(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path
) -> None:
    write(root / "a")
    service = follow()
    assert service.says(f"{sentinels.master.address} ({NAME} by Sentinel) equals {root}")
    is_equal(sentinels, service)


@pytest.mark.parametrize("mode", [REPLICA, RESOLVED])
def test_a_master_that_is_killed_is_followed_by_one_that_lacks_what_was_written_last(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path, mode: str
) -> None:
    for name in "abc":
        write(root / name, "before")
    service = follow(SYNC_MODE=mode)
    with Load(root):
        with sentinels.replication_cut_off() as master:
            write(root / "a", "lost")
            (root / "b").unlink()
            (root / "c").rename(root / "d")
            client = master.client
            eventually(lambda: client.mget("a", "b", "c", "d"), [b"lost", None, None, b"before"])
            master.process.kill()
            master.process.wait()
        sentinels.has_another_master(master)
    assert sentinels.master is not master
    is_equal(sentinels, service)
    assert (root / "a").read_text() == "lost"
    assert not (root / "b").exists()
    master.start()  # as a master, until it is told better
    is_equal(sentinels, service)


def test_what_others_wrote_and_the_new_master_lacks_stays_where_it_has_arrived(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path
) -> None:
    service = follow(SYNC_MODE=RESOLVED)
    sentinels.client.set("a", "old")
    eventually((root / "a").exists, True)
    with sentinels.replication_cut_off() as master:
        master.client.set("a", "lost")
        master.client.set("b", "lost")
        eventually(
            lambda: [(root / n).read_text() for n in "ab" if (root / n).exists()], ["lost"] * 2
        )
        master.process.kill()
        master.process.wait()
    sentinels.has_another_master(master)
    is_equal(sentinels, service)
    assert keys(sentinels) == {b"a": b"lost", b"b": b"lost"}


def test_a_master_that_hangs_gets_nothing_more_when_it_goes_on(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path
) -> None:
    service = follow()
    master = sentinels.master
    with Load(root):
        with paused(master.process):
            sentinels.has_another_master(master)
            write(root / "a", "meanwhile")
            eventually(lambda: (keys(sentinels) or {}).get(b"a"), b"meanwhile", LONG)
        is_equal(sentinels, service)
    is_equal(sentinels, service)


def test_a_master_that_does_not_know_that_it_is_none_any_more_is_left(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path
) -> None:
    """It is cut off from the Sentinels, and takes what it is sent."""
    service = follow()
    with sentinels.hidden_from_sentinels() as master:
        sentinels.has_another_master(master)
        eventually(lambda: service.says("it is no longer the master"), True)
        write(root / "a")
        eventually(lambda: keys(sentinels), {b"a": b"one"}, LONG)
        assert master.client.info("replication")["role"] == "master"
        assert master.client.get("a") is None
    is_equal(sentinels, service)


def test_a_replica_that_is_called_a_master_is_not_written_to(
    sentinels: SentinelSet, start: Start, root: Path
) -> None:
    write(root / "a")
    replica = next(node for node in sentinels.nodes if node is not sentinels.master)
    replica.client.config_set("replica-read-only", "no")
    ask: Any = sentinels.asked.sentinels[0].execute_command
    ask("SENTINEL MONITOR", "other", "127.0.0.1", replica.port, 1)
    ask("SENTINEL SET", "other", "auth-pass", PASSWORD)
    url = sentinels.url.replace(NAME, "other")
    service = start(in_step=False, **{**sentinels.environ, "REDIS_URL": url})
    eventually(lambda: service.says("waiting for", "it is not the master"), True)
    assert replica.client.keys() == []


def test_sentinels_that_hang_or_are_gone_are_passed_over(
    sentinels: SentinelSet, follow: Callable[..., Service], root: Path
) -> None:
    service = follow()
    first, second, third = sentinels.sentinels
    with paused(first):
        second.kill()
        second.wait()
        sentinels.client.client_kill_filter(skipme=True)
        write(root / "a")
        eventually(lambda: (keys(sentinels) or {}).get(b"a"), b"one", LONG)
        third.kill()
        third.wait()
        # As long as the connection lasts nobody has to know where the master is.
        write(root / "b")
        master = sentinels.nodes[0]
        eventually(lambda: master.client.get("b"), b"one")
        master.client.client_kill_filter(skipme=True)
        eventually(lambda: service.says("waiting for", "no Sentinel tells where"), True)
    assert service.stop(signal.SIGTERM) == 0
