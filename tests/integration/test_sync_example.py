"""docs/examples/feature-flags/README.md, command by command, with the service that it is about."""

import re
from pathlib import Path

import pytest
from integration.conftest import RedisServer, Service, Start
from integration.reader import Reader
from support import eventually


@pytest.fixture
def reader(place: Path, redis_server: RedisServer) -> Reader:
    """Return who has made the flags, and has set what the service is to do."""
    reader = Reader("feature-flags", place, redis_server)
    reader.does("git init")
    reader.sets("export SYNC_MODE")
    return reader


@pytest.fixture
def service(reader: Reader, start: Start) -> Service:
    """Return the service that the example has in another terminal."""
    return start(in_step=True, **reader.environ)


def test_what_the_example_says_is_so(
    reader: Reader, service: Service, redis_server: RedisServer
) -> None:
    def key(name: str) -> object:
        return redis_server.client.get(f"flag:{name}")

    def reads(name: str) -> str:
        return (reader.directory / "flags" / name).read_text()

    assert reader.does("python3 shop.py 2") == reader.shown("on\npaid, by the new")
    assert reader.does("--broken") == reader.shown("the bank does not answer")
    eventually(lambda: reads("new-checkout"), "off\n")
    assert reader.does("diff --unified=0").endswith(reader.shown("-on\n+off"))

    reader.does("checkout --quiet")
    eventually(lambda: key("new-checkout"), b"on")
    assert reader.does("python3 shop.py 1") == "paid, by the new checkout\n"
    reader.does("redis-cli rename")
    eventually(lambda: reader.does("status --short"), reader.shown(" D dark-mode"))
    assert reads("night-mode") == "off\n"

    with service.paused():
        reader.does("redis-cli set flag:night-mode dimmed")
    eventually(lambda: key("night-mode"), b"on")
    assert reads("night-mode") == "on\n"
    kept = reader.does("mdvp-sync resolve night-mode")
    assert re.search(r"^lost 1 .* night-mode$", kept, re.MULTILINE), kept
    eventually(lambda: reads("night-mode"), "dimmed\n")
    assert key("night-mode") == b"dimmed"

    assert reader.given == reader.blocks, "some of the example was not run"
