"""The example of feature flags, command by command, with the service that it is about."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from integration.conftest import RedisServer, Service, Start
from support import eventually

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "feature-flags"
BLOCKS: list[str] = re.findall(
    r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
SHOWN: list[str] = re.findall(
    r"^```console\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
REDIS_CLI = '#!/bin/sh\nexec {command} -s {socket} "$@"\n'
SOMEBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.org"))
}


class Reader:
    """Who follows the example: has its directory, and the commands that it takes.

    Attributes:
        given: the blocks of commands that were given, in the order of the first time.

    """

    def __init__(self, place: Path, server: RedisServer) -> None:
        self.given: list[str] = []
        self.directory = place / "feature-flags"
        shutil.copytree(EXAMPLE, self.directory)
        self.flags = self.directory / "flags"
        commands = place / "commands"
        commands.mkdir()
        # On the reader's machine, redis-cli needs no argument.
        client = commands / "redis-cli"
        client.write_text(REDIS_CLI.format(command=shutil.which("redis-cli"), socket=server.socket))
        client.chmod(0o755)
        path = (str(commands), str(Path(sys.executable).parent), os.environ["PATH"])
        self.environ = {
            **os.environ,
            **SOMEBODY,
            "PATH": ":".join(path),
            "REDIS_URL": server.url,
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def does(self, words: str) -> str:
        """Give the commands of the block that has these words; return what they say."""
        return self._run(self._block(words))

    def sets(self, words: str) -> None:
        """Give the commands of a block, which are settings for all that comes."""
        said = self._run(f"{self._block(words)}\nenv -0").rstrip("\0")
        self.environ |= dict(line.split("=", 1) for line in said.split("\0"))

    def reads(self, name: str) -> str:
        return (self.flags / name).read_text()

    def _block(self, words: str) -> str:
        (script,) = [block for block in BLOCKS if words in block]
        if script not in self.given:
            self.given.append(script)
        return script

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def shown(words: str) -> str:
    """Return what the example shows that has these words in it."""
    (found,) = [block for block in SHOWN if words in block]
    return found


@pytest.fixture
def reader(place: Path, redis_server: RedisServer) -> Reader:
    """Return who has made the flags, and has set what the service is to do."""
    reader = Reader(place, redis_server)
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

    assert reader.does("python3 shop.py 2") == shown("on\npaid, by the new")
    assert reader.does("--broken") == shown("the bank does not answer")
    eventually(lambda: reader.reads("new-checkout"), "off\n")
    assert reader.does("diff --unified=0").endswith(shown("-on\n+off"))

    reader.does("checkout --quiet")
    eventually(lambda: key("new-checkout"), b"on")
    assert reader.does("python3 shop.py 1") == "paid, by the new checkout\n"
    reader.does("redis-cli rename")
    eventually(lambda: reader.does("status --short"), shown(" D dark-mode"))
    assert reader.reads("night-mode") == "off\n"

    with service.paused():
        reader.does("redis-cli set flag:night-mode dimmed")
    eventually(lambda: key("night-mode"), b"on")
    assert reader.reads("night-mode") == "on\n"
    kept = reader.does("mdvp-sync resolve night-mode")
    assert re.search(r"^lost 1 .* night-mode$", kept, re.MULTILINE), kept
    eventually(lambda: reader.reads("night-mode"), "dimmed\n")
    assert key("night-mode") == b"dimmed"

    assert reader.given == BLOCKS, "some of the example was not run"
