"""What happens to Redis, and what the service makes of it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from integration.slow_line import slow_line
from support import eventually

from sync.redis.keys import MANIFEST, UPLOAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

PASSWORD = 'a "secret" with \\ and :@/'  # noqa: S105  # not one


def test_the_service_waits_for_redis_to_come_up(
    idle_redis: RedisServer, root: Path, start: Start
) -> None:
    (root / "a").write_text("one")
    service = start()
    eventually(lambda: len(service.lines("WARNING", "waiting for Redis", idle_redis.url[7:])), 1)
    status, output = service.health()
    assert (status, "waiting for Redis" in output) == (1, True)
    idle_redis.start()
    eventually(idle_redis.keys, {b"a": b"one"})
    eventually(lambda: service.health()[0], 0)
    assert len(service.lines("waiting for Redis")) == 1


def test_sigterm_ends_the_service_while_it_waits_for_redis(start: Start) -> None:
    service = start()
    eventually(lambda: service.says("waiting for Redis"), True)
    assert service.stop(signal.SIGTERM) == 0
    assert service.says("INFO sync: stopped")


@pytest.mark.servers
def test_a_redis_that_was_killed_and_comes_back_empty_has_all_keys_again(
    service: Service,
) -> None:
    for number in range(100):
        (service.root / f"file-{number}").write_text(f"content {number}")
    service.catches_up()
    service.redis.kill()
    (service.root / "file-0").unlink()
    (service.root / "file-1").rename(service.root / "renamed")
    (service.root / "created").write_text("meanwhile")
    eventually(lambda: service.says("waiting for Redis"), True)
    service.redis.start()
    eventually(service.redis.keys, service.files())
    service.catches_up()


def test_a_redis_that_comes_back_empty_at_once_has_all_keys_again(service: Service) -> None:
    (service.root / "a").write_text("one")
    (service.root / "unchanged").write_text("two")
    service.catches_up()
    with service.paused():
        service.redis.kill()
        service.redis.start()
        (service.root / "a").rename(service.root / "b")
    eventually(service.redis.keys, {b"b": b"one", b"unchanged": b"two"})


def test_a_redis_that_was_stopped_for_a_while_is_followed_up(service: Service) -> None:
    (service.root / "a").write_text("one")
    service.catches_up()
    with service.redis.paused():
        (service.root / "a").rename(service.root / "b")
        (service.root / "c").write_text("two")
    service.catches_up()


def test_the_password_opens_a_redis_that_has_one(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    (root / "a").write_text("one")
    redis_server.client.config_set("requirepass", PASSWORD)
    service = start(in_step=True, REDIS_URL=redis_server.url, REDIS_PASSWORD=PASSWORD)
    service.catches_up()
    assert not service.says("secret")


def test_a_password_in_a_file_may_be_of_any_bytes(
    redis_server: RedisServer, root: Path, start: Start, tmp_path: Path
) -> None:
    (root / "a").write_text("one")
    redis_server.client.config_set("requirepass", b"\xff\xfe")
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\n")
    service = start(in_step=True, REDIS_URL=redis_server.url, REDIS_PASSWORD_FILE=str(file))
    service.catches_up()


def test_a_wrong_password_is_said_once_and_the_service_waits_until_it_is_right(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    (root / "a").write_text("one")
    redis_server.client.config_set("requirepass", "another")
    service = start(REDIS_URL=redis_server.url, REDIS_PASSWORD=PASSWORD)
    eventually(lambda: service.says("waiting for Redis", "invalid username-password pair"), True)
    assert service.health()[0] == 1
    redis_server.client.config_set("requirepass", PASSWORD)
    eventually(redis_server.keys, {b"a": b"one"})
    assert len(service.lines("waiting for Redis")) == 1
    assert not service.says("secret")


def test_a_password_that_is_missing_is_said(redis_server: RedisServer, start: Start) -> None:
    redis_server.client.config_set("requirepass", PASSWORD)
    service = start(REDIS_URL=redis_server.url)
    eventually(lambda: service.says("waiting for Redis", "REDIS_PASSWORD"), True)
    assert service.process.poll() is None


def test_a_rename_heals_a_key_that_somebody_else_deleted(service: Service) -> None:
    (service.root / "a").write_text("one")
    service.catches_up()
    service.redis.client.delete("a")
    (service.root / "a").rename(service.root / "b")
    eventually(service.redis.keys, {b"b": b"one"})
    service.catches_up()


@pytest.mark.servers
def test_a_redis_that_refuses_to_write_is_not_pestered_and_followed_up_when_it_does_again(
    service: Service,
) -> None:
    service.redis.client.config_set("maxmemory", 1)
    (service.root / "a").write_text("one")
    eventually(lambda: service.says("ERROR", "'maxmemory'"), True)
    second_over = time.monotonic() + 1.0
    eventually(lambda: time.monotonic() > second_over, True)
    tries = len(service.lines("'maxmemory'"))
    service.redis.client.config_set("maxmemory", 0)
    eventually(service.redis.keys, {b"a": b"one"})
    service.catches_up()
    assert tries <= 20


def test_what_a_file_has_in_it_is_not_in_the_log(service: Service) -> None:
    service.redis.client.config_set("maxmemory", 1)
    (service.root / "a").write_text("secret")
    eventually(lambda: service.says("ERROR", "'maxmemory'"), True)
    assert not service.says("secret")


def test_a_manifest_that_somebody_else_has_overwritten_is_said_and_redis_is_not_pestered(
    service: Service,
) -> None:
    service.redis.client.set(MANIFEST, "theirs")
    (service.root / "a").write_text("one")
    eventually(lambda: service.says("ERROR", "WRONGTYPE"), True)
    second_over = time.monotonic() + 1.0
    eventually(lambda: time.monotonic() > second_over, True)
    tries = len(service.lines("WRONGTYPE"))
    service.redis.client.delete(MANIFEST)
    eventually(service.redis.keys, {b"a": b"one"})
    assert tries <= 20


class TestALargeValue:
    """It is under a key of the service's own for a moment, which a slow line makes longer."""

    VALUE = b"l" * 3_000_000

    @pytest.fixture
    def slow(self, redis_server: RedisServer, start: Start) -> Iterator[Service]:
        with slow_line(redis_server.socket, 30_000_000, delay=0.1) as line:
            yield start(in_step=True, REDIS_URL=line.url)

    def has_come(self, service: Service) -> None:
        (service.root / "a").write_bytes(self.VALUE)
        eventually(lambda: service.redis.client.exists(UPLOAD), 1)

    @pytest.mark.servers
    def test_that_has_come_when_the_service_is_killed_expires_and_is_deleted_by_the_next(
        self, slow: Service, start: Start
    ) -> None:
        self.has_come(slow)
        slow.process.kill()
        slow.process.wait()
        assert 0 < slow.redis.client.ttl(UPLOAD) <= 60
        (slow.root / "a").unlink()
        start(in_step=True).catches_up()
        assert not slow.redis.client.exists(UPLOAD)

    def test_that_comes_when_the_service_is_killed_leaves_nothing(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        with slow_line(redis_server.socket, 5_000_000) as line:
            service = start(in_step=True, REDIS_URL=line.url)
            (root / "a").write_bytes(self.VALUE * 10)
            # What has come is in what the server has read of a command that has not ended.
            eventually(
                lambda: any(is_long(each) for each in redis_server.client.client_list()), True
            )
            service.process.kill()
            service.process.wait()
        (root / "a").unlink()
        start(in_step=True).catches_up()
        eventually(lambda: any(is_long(each) for each in redis_server.client.client_list()), False)
        assert redis_server.keys() == {}
        assert not redis_server.client.exists(UPLOAD)

    @pytest.mark.parametrize("expires", [False, True])
    def test_that_goes_before_it_takes_effect_comes_again_in_the_same_session(
        self, slow: Service, expires: bool
    ) -> None:
        self.has_come(slow)
        client = slow.redis.client
        client.pexpire(UPLOAD, 1) if expires else client.delete(UPLOAD)
        eventually(lambda: slow.get("a") == self.VALUE, True)
        slow.catches_up()
        assert client.ttl("a") == -1  # never
        assert len(slow.lines(" equals ")) == 1


def is_long(client: dict[str, str]) -> bool:
    """Say whether the server has read a megabyte of a command that has not ended."""
    return int(client["qbuf"]) > 1_000_000
