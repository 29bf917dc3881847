"""One private engine for the whole run, and what the scripts that users run build in it."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.engine import PrivateEngine
from support import eventually

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Docker:
    """A `docker` prompt on the engine's machine."""

    engine: PrivateEngine

    def __call__(self, *arguments: str) -> str:
        """Run a docker command; return what it prints, without the final newline."""
        return self.engine.docker(*arguments).stdout.removesuffix("\n")

    def output(self, *arguments: str) -> str:
        """Run a docker command; return all that it prints, errors included."""
        done = self.engine.docker(*arguments)
        return done.stdout + done.stderr

    def refused(self, *arguments: str) -> str:
        """Run a docker command that must fail; return its error message."""
        done = self.engine.docker(*arguments, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def inside(self, container: str, command: str) -> str:
        """Run a shell command in a container; return what it prints, without the final newline."""
        return self("exec", container, "sh", "-c", command)

    def health(self, container: str) -> str:
        """Return the container's health: starting, healthy or unhealthy."""
        return self("inspect", "--format", "{{.State.Health.Status}}", container)

    def wait_healthy(self, container: str, deadline: float = 10.0) -> None:
        """Wait until the container is healthy."""
        eventually(lambda: self.health(container), "healthy", deadline)

    def in_tmp(self) -> list[str]:
        """Return the names in the machine's `/tmp`, but for what the engine itself leaves there.

        A `docker exec`, such as that of a health check, has its process' description in a file
        there, which stays for ever where the container is removed at that moment (containerd 1.6:
        3 of 1500 removals). And a containerd that was slow to answer has its stacks there, for
        which dockerd asks it then.
        """
        names = (path.name for path in self.engine.tmp.iterdir())
        own = re.compile(r"runc-process.*|containerd\..*\.stacks\.log")
        return sorted(name for name in names if not own.fullmatch(name))

    def build_plugin(self, name: str, folder: str) -> Path:
        """Build a plugin; return the directory of its volumes, which is new and its own."""
        data = self.engine.tmp.with_name(folder)
        data.mkdir()
        self.script("build_plugin.sh", PLUGIN_NAME=name)
        self("plugin", "set", name, f"data.source={data}")
        return data

    def script(
        self, name: str, *arguments: str, check: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of this repository's scripts against the engine."""
        done = subprocess.run(
            [REPOSITORY / "scripts" / name, *arguments],
            env={"MDVP_CACHE": str(REPOSITORY / ".cache"), **self.engine.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test here the time to build images from packages, on a slow machine."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """Yield a prompt on a machine that has nothing of ours."""
    with PrivateEngine() as engine:
        yield Docker(engine)


@pytest.fixture(scope="session")
def image(docker: Docker) -> str:
    """Return the name of the image, built."""
    docker.script("build_image.sh", "redis-sync")
    return "mdvp/redis-sync"
