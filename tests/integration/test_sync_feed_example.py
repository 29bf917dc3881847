"""docs/examples/change-feed/README.md, command by command, with its consumer killed at times."""

import importlib
import json
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis
from integration.conftest import RedisServer, Service, Start
from integration.reader import Reader
from support import eventually

pytestmark = pytest.mark.waits


@pytest.fixture
def reader(place: Path, redis_server: RedisServer) -> Reader:
    """Return who has made the pages, and has set what the service is to do."""
    reader = Reader("change-feed", place, redis_server)
    reader.does("mkdir pages")
    reader.sets("export SYNC_STREAM")
    return reader


@pytest.fixture
def service(reader: Reader, start: Start) -> Service:
    """Return the service that the example has in another terminal."""
    return start(in_step=True, **reader.environ)


def index(reader: Reader) -> tuple[dict[str, int], bool]:
    """Return what the consumer knows, and whether that is all."""
    try:
        found = json.loads((reader.directory / "index.json").read_text())
    except FileNotFoundError:
        return {}, False
    return found["sizes"], found["is_whole"]


def pages(reader: Reader) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (reader.directory / "pages").iterdir()}


def test_what_the_example_says_is_so(
    reader: Reader, service: Service, redis_server: RedisServer
) -> None:
    # The service follows at once; the example does not wait for it.
    assert "seq" in reader.does("xrevrange")
    eventually(lambda: reader.does("grep -v number"), reader.shown('"welcome": 8'))
    reader.does("mv pages")
    again = reader.shown('"welcome": 16')
    eventually(lambda: reader.does("--once\ngrep -A9"), again)
    reader.does("flushall")
    eventually(lambda: reader.does("tail -n"), again)
    reader.does("hdel")
    run = ("site:/mdvp-sync/feed", "run")
    eventually(lambda: redis_server.client.hexists(*run), True)
    eventually(lambda: reader.does("tail -n"), again)
    assert service.process.poll() is None
    assert reader.given == reader.blocks, "some of the example was not run"


@pytest.mark.usefixtures("service")
def test_the_consumer_can_be_killed(reader: Reader, redis_server: RedisServer) -> None:
    command = (sys.executable, "follow.py", "index.json")
    chance = random.Random(3)  # noqa: S311  # not for secrets
    root = reader.directory / "pages"
    for _ in range(6):
        with subprocess.Popen(
            command, cwd=reader.directory, env=reader.environ, stdout=subprocess.DEVNULL
        ) as consumer:
            for number in range(30):
                page = root / f"{chance.randrange(8)}"
                if chance.random() < 0.3:
                    page.unlink(missing_ok=True)
                elif chance.random() < 0.3 and page.exists():
                    page.rename(root / f"{chance.randrange(8)}")
                else:
                    page.write_bytes(b"." * number)
            time.sleep(chance.random() / 4)  # so that it is killed at work, too
            consumer.kill()
    redis_server.client.xtrim("site:changes", maxlen=0, approximate=False)
    with subprocess.Popen(command, cwd=reader.directory, env=reader.environ) as consumer:
        try:
            eventually(lambda: index(reader), (pages(reader), True))
        finally:
            consumer.kill()


@pytest.mark.usefixtures("service")
def test_the_consumer_asks_again_if_nothing_comes_of_it(
    reader: Reader, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(reader.directory)
    example = importlib.import_module("follow")
    monkeypatch.setattr(example, "PATIENCE", 0.2)
    (reader.directory / "pages" / "a").write_bytes(b"one")
    url = reader.environ["REDIS_URL"]
    with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        stream = example.Stream(client, "site:changes", "site:/mdvp-sync/feed")
        eventually(lambda: "'a'" in str(client.xrevrange("site:changes", count=1)), True)
        client.xtrim("site:changes", maxlen=1, approximate=False)
        ask, lost = stream.ask, [1]
        monkeypatch.setattr(stream, "ask", lambda: lost.pop() if lost else ask())
        index = example.Index(place / "its.json")
        steps = example.follow(stream, index, 20)
        eventually(lambda: (next(steps), index.sizes), (True, pages(reader)))
