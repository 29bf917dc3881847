"""What cannot be a value: it is said once, Redis has nothing of it, and all else is right."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
from integration.conftest import POWERLESS
from integration.ways import FROM_REDIS, RESOLVED
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

MIB = 1 << 20


def complains_once(service: Service, text: str) -> None:
    eventually(lambda: service.says(f"ERROR sync: {text}"), True)
    service.catches_up()
    assert len(service.lines("ERROR")) == 1


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("inside")


def make_link(path: Path) -> None:
    secret = path.parent.with_name("secret")
    secret.write_text("secret")
    path.symlink_to(secret)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


KINDS = [
    pytest.param(make_directory, "a directory", id="directory"),
    pytest.param(make_link, "a symbolic link", id="symbolic link"),
    pytest.param(os.mkfifo, "a FIFO", id="FIFO"),
    pytest.param(make_socket, "a socket", id="socket"),
]


@pytest.mark.parametrize(("make", "kind"), KINDS)
class TestNoRegularFile:
    def test_is_not_mirrored_until_a_file_replaces_it(
        self, service: Service, place: Path, make: Callable[[Path], None], kind: str
    ) -> None:
        (service.root / "other").write_text("other")
        make(service.root / "X")
        complains_once(service, f"X is {kind}: not mirrored, only files directly in {service.root}")
        (service.root / "X").rename(place / "away")
        (service.root / "X").write_text("one")
        service.catches_up()
        assert service.redis.keys() == {b"X": b"one", b"other": b"other"}

    def test_takes_the_key_with_it_when_it_replaces_a_file(
        self, service: Service, make: Callable[[Path], None], kind: str
    ) -> None:
        (service.root / "X").write_text("one")
        service.catches_up()
        (service.root / "X").unlink()
        make(service.root / "X")
        complains_once(service, f"X is {kind}: not mirrored")


# The kernel does not move a directory over a file.
@pytest.mark.parametrize(("make", "kind"), KINDS[1:])
def test_no_regular_file_takes_the_key_with_it_when_it_is_moved_over_a_file(
    service: Service, place: Path, make: Callable[[Path], None], kind: str
) -> None:
    (service.root / "X").write_text("one")
    (place / "elsewhere").mkdir()
    service.catches_up()
    make(place / "elsewhere" / "Y")
    (place / "elsewhere" / "Y").rename(service.root / "X")
    complains_once(service, f"X is {kind}: not mirrored")


def test_a_link_that_takes_a_files_place_at_the_last_moment_is_not_followed(
    service: Service,
) -> None:
    file, link = service.root / "X", service.root / "link"
    make_link(link)
    file.write_text("one")

    def replace_all_the_time() -> None:
        for number in range(3000):
            new = service.root / "new"
            if number % 2:
                new.write_text("one")
            else:
                new.symlink_to(link.readlink())
            new.rename(file)
            time.sleep(0.0002)  # so that the service looks at it often
        service.catches_up()

    seen = service.redis.commands(replace_all_the_time)
    assert [command for command in seen if "secret" in command] == []


def test_what_is_no_regular_file_at_the_start_is_not_mirrored(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    (root / "other").write_text("other")
    make_directory(root / "directory")
    make_link(root / "link")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    make_socket(root / "socket")
    service = start(in_step=True)
    service.catches_up()
    assert redis_server.keys() == {b"other": b"other"}
    for name in ("directory", "link", "dangling", "fifo", "socket"):
        assert len(service.lines("ERROR", f"{name} is a ")) == 1


def test_a_key_of_a_directory_that_is_renamed_to_a_files_old_name_is_gone(
    service: Service,
) -> None:
    (service.root / "a").write_text("one")
    (service.root / "X").mkdir()
    service.catches_up()
    (service.root / "a").rename(service.root / "b")
    (service.root / "X").rename(service.root / "a")
    eventually(lambda: service.says("ERROR", "a is a directory"), True)
    service.catches_up()
    assert service.redis.keys() == {b"b": b"one"}


def test_of_a_file_that_cannot_be_read_the_key_stays_until_it_can(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    service = start(in_step=True, prefix=POWERLESS if os.geteuid() == 0 else ())
    file = root / "X"
    file.write_text("one")
    eventually(redis_server.keys, {b"X": b"one"})
    locked = root.with_name("locked")
    locked.write_text("two")
    locked.chmod(0)
    locked.rename(file)
    (root / "other").write_text("other")
    eventually(redis_server.keys, {b"X": b"one", b"other": b"other"})
    whose = f"for user {os.geteuid()}"
    said = f"X cannot be read (Permission denied {whose}): its key stays as it is; tried again"
    eventually(lambda: len(service.lines("ERROR", said)), 1)
    file.chmod(0o644)
    file.write_text("three")
    service.catches_up()
    assert len(service.lines("ERROR")) == 1


def test_a_file_that_is_gone_before_it_can_be_read_is_not_spoken_of(service: Service) -> None:
    with service.paused():
        (service.root / "X").write_text("one")
        (service.root / "X").unlink()
    service.catches_up()
    assert not service.says("X")


def test_a_file_larger_than_a_value_can_be_is_mirrored_once_it_has_shrunk(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    redis_server.client.config_set("proto-max-bulk-len", MIB)
    service = start(in_step=True, REDIS_URL=redis_server.url)  # which may ask for that
    (root / "X").write_bytes(b"x" * MIB)
    service.catches_up()
    (root / "X").write_bytes(b"x" * 2 * MIB)
    (root / "other").write_text("other")
    eventually(redis_server.keys, {b"other": b"other"})
    (root / "X").write_bytes(b"y" * 2 * MIB)
    (root / "other").write_text("else")
    eventually(redis_server.keys, {b"other": b"else"})
    assert len(service.lines("ERROR", f"X is larger than the {MIB} bytes that Redis takes")) == 1
    os.truncate(root / "X", MIB)
    eventually(lambda: service.get("X") == b"y" * MIB, True)
    service.catches_up()
    assert len(service.lines("ERROR")) == 1


@pytest.mark.parametrize("mode", [RESOLVED, FROM_REDIS])
def test_a_large_key_that_leads_through_a_file_is_not_fetched_for_ever(
    redis_server: RedisServer, root: Path, start: Start, mode: str
) -> None:
    redis_server.client.mset({"file": "content", "file/below": "large" * MIB})
    (root / "file").write_text("content")
    service = start(in_step=True, SYNC_MODE=mode, SYNC_TREE="1", SYNC_RESCAN="0")
    eventually(lambda: service.says("file/below leads through what is no directory"), True)
    redis_server.client.set("other", "here")
    eventually((root / "other").exists, True)
    redis_server.client.delete("other")  # it does not go before all is known
    eventually((root / "other").exists, False)
    redis_server.client.delete("file")
    eventually((root / "file/below").is_file, True)
