"""What happens to Redis, and what the service makes of it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from support import eventually

from sync.redis.keys import MANIFEST

if TYPE_CHECKING:
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
    service = start(in_step=True, REDIS_PASSWORD=PASSWORD)
    service.catches_up()
    assert not service.says("secret")


def test_a_wrong_password_is_said_once_and_the_service_waits_until_it_is_right(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    (root / "a").write_text("one")
    redis_server.client.config_set("requirepass", "another")
    service = start(REDIS_PASSWORD=PASSWORD)
    eventually(lambda: service.says("waiting for Redis", "invalid username-password pair"), True)
    assert service.health()[0] == 1
    redis_server.client.config_set("requirepass", PASSWORD)
    eventually(redis_server.keys, {b"a": b"one"})
    assert len(service.lines("waiting for Redis")) == 1
    assert not service.says("secret")


def test_a_password_that_is_missing_is_said(redis_server: RedisServer, start: Start) -> None:
    redis_server.client.config_set("requirepass", PASSWORD)
    service = start()
    eventually(lambda: service.says("waiting for Redis", "REDIS_PASSWORD"), True)
    assert service.process.poll() is None


def test_a_redis_that_does_not_show_its_configuration_will_do(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    (root / "a").write_text("one")
    redis_server.client.acl_setuser("default", enabled=True, commands=["-config"])
    start(in_step=True).catches_up()


def test_a_rename_heals_a_key_that_somebody_else_deleted(service: Service) -> None:
    (service.root / "a").write_text("one")
    service.catches_up()
    service.redis.client.delete("a")
    (service.root / "a").rename(service.root / "b")
    eventually(service.redis.keys, {b"b": b"one"})
    service.catches_up()


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
