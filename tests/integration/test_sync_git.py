"""A tree from real life: git goes back and forth between commits of a work tree that is mirrored.

It takes MDVP_GIT_SECONDS. The history is that of this repository, or one that is made if there are
too few commits, as there are where only the last was fetched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from integration.drift import Sides
from integration.shape import TREE
from support import eventually

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start

SECONDS = float(os.environ.get("MDVP_GIT_SECONDS", "6"))
# What a check does is always the same; who looks for longer looks elsewhere.
SEED = secrets.randbelow(10**6) if "MDVP_GIT_SECONDS" in os.environ else 1
DEADLINE = 15.0  # seconds
COMMITS = 30
HERE = Path(__file__).parents[2]
# Whoever owns a repository, and whatever this user has set.
GIT = ("git", "-c", "safe.directory=*", "-c", "user.name=nobody", "-c", "user.email=nobody@nowhere")


class WorkTree:
    """A work tree, with its repository outside."""

    def __init__(self, root: Path, repository: Path, random: Random) -> None:
        """Take the history of this repository if it is long enough."""
        self._root = root
        self._git = (*GIT, f"--git-dir={repository}", f"--work-tree={root}")
        self._random = random
        if subprocess.run(
            (*GIT, "clone", "--quiet", "--bare", HERE, repository), capture_output=True, check=False
        ).returncode:
            self._run("init", "--quiet")
        self._commits = self._log()
        if len(self._commits) < COMMITS:
            self._make_history()
            self._commits = self._log()

    def checkout(self) -> subprocess.Popen[bytes]:
        """Begin to check out any commit."""
        commit = self._random.choice(self._commits)
        return subprocess.Popen((*self._git, "checkout", "--quiet", "--force", commit))

    def _run(self, *arguments: str) -> str:
        environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            (*self._git, *arguments), check=True, capture_output=True, text=True, env=environ
        )
        return done.stdout

    def _log(self) -> list[str]:
        try:
            return self._run("rev-list", "HEAD").split()
        except subprocess.CalledProcessError:  # there is no commit
            return []

    def _make_history(self) -> None:
        """Commit what touches some directories in each other, in many ways."""
        for number in range(COMMITS):
            for _ in range(20):
                self._touch(number)
            self._run("add", "--all")
            self._run("commit", "--quiet", "--allow-empty", "--message", f"{number}")

    def _touch(self, number: int) -> None:
        depth = self._random.randint(0, 5)
        directory = self._root.joinpath(*self._random.choices("abc", k=depth))
        path = directory / f"file-{self._random.randint(0, 9)}"
        if self._random.random() < 0.3:
            path.unlink(missing_ok=True)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n" * self._random.randint(0, 1000))


class Mirror:
    """A service and a Redis, and what can happen to them."""

    def __init__(self, server: RedisServer, start: Start) -> None:
        """Start the service."""
        self._server = server
        self._start = start
        self.service = self._started()

    def _started(self) -> Service:
        return self._start(in_step=False, SYNC_RESCAN="0", **TREE.environ)

    def is_left_alone(self) -> None:
        """Go on."""

    def is_killed(self) -> None:
        """Lose the service, and have another."""
        self.service.process.kill()
        self.service.process.wait()
        assert not self.service.says("Traceback")
        self.service = self._started()

    def is_flushed(self) -> None:
        """Lose what is in Redis."""
        self._server.client.flushall()


@pytest.mark.timeout(SECONDS + 120)
def test_redis_is_equal_to_a_work_tree_after_any_checkouts(
    redis_server: RedisServer, root: Path, place: Path, start: Start
) -> None:
    print(f"seed {SEED}")
    random = Random(SEED)  # noqa: S311  # for a test
    tree = WorkTree(root, place / "repository", random)
    mirror = Mirror(redis_server, start)
    sides = Sides(root, redis_server.client, TREE)
    end = time.monotonic() + SECONDS
    equal = 0
    while time.monotonic() < end:
        happens = random.choice([mirror.is_left_alone] * 3 + [mirror.is_killed, mirror.is_flushed])
        for number in range(times := random.randint(1, 3)):
            with ExitStack() as stack:
                git = stack.enter_context(tree.checkout())
                if number == times - 1:
                    eventually(lambda: git.poll() is not None or random.random() < 0.3, True)  # noqa: B023
                    happens()
            assert git.returncode == 0
        sides.become_equal(DEADLINE)
        assert sides.shape.files(root)
        equal += 1
    print(f"equal {equal} times")
    assert mirror.service.process.poll() is None
    assert not mirror.service.says("Traceback")
