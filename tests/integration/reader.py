"""Who follows an example of the docs, command by command, as it is written there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from integration.conftest import RedisServer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
REDIS_CLI = '#!/bin/sh\nexec {command} -s {socket} "$@"\n'
SOMEBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.org"))
}


class Reader:
    """Who follows an example: has its directory, and the commands that it takes.

    Attributes:
        directory: where the commands are given.
        blocks: the blocks of commands in the example.
        given: those that were given, in the order of the first time.

    """

    def __init__(self, example: str, place: Path, server: RedisServer) -> None:
        text = (EXAMPLES / example / "README.md").read_text()
        self.blocks: list[str] = _blocks(text, "sh")
        self._shown: list[str] = _blocks(text, "text")
        self.given: list[str] = []
        self.directory = place / example
        shutil.copytree(EXAMPLES / example, self.directory)
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

    def _block(self, words: str) -> str:
        (script,) = [block for block in self.blocks if words in block]
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

    def shown(self, words: str) -> str:
        """Return what the example shows that has these words in it."""
        (found,) = [block for block in self._shown if words in block]
        return found


def _blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
