"""The compose files in docs/, as they are, with the compose of Debian 12 and that of Debian 13."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from e2e.conftest import REPOSITORY, Docker
from support import eventually

Compose: TypeAlias = Callable[..., str]

# On Debian 13 `docker-compose` is version 2 by itself.
TRIXIE = """FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends docker-compose
"""
TRIXIE_IMAGE = "mdvp-test/compose"


@pytest.fixture(scope="module", params=["of this machine", "of Debian 13"])
def program(request: pytest.FixtureRequest, docker: Docker) -> list[str]:
    """Return the command that is `docker-compose`."""
    if request.param == "of this machine":
        return ["docker-compose"]
    docker.script("base_image.sh")
    docker.engine.docker("build", "--tag", TRIXIE_IMAGE, "-", stdin=TRIXIE)
    # Where the directory is the same for the engine, which binds the secret's file.
    return ["docker", "run", "--rm", "--volume=/run/docker.sock:/run/docker.sock"]


@pytest.fixture
def compose(
    program: list[str], docker: Docker, request: pytest.FixtureRequest
) -> Iterator[Compose]:
    """Run commands in a project of its own that has the files of docs/, until it is taken down."""
    place = docker.engine.tmp.with_name(
        "compose"
    )  # not below /tmp, which the machine has its own of
    place.mkdir()
    for file in (REPOSITORY / "docs").glob("compose*.yaml"):
        shutil.copy(file, place)
    (place / "redis_password.txt").write_text("it's secret\n")
    file = request.param

    def run(*arguments: str) -> str:
        own = [] if len(program) == 1 else [f"-v={place}:{place}", TRIXIE_IMAGE, "docker-compose"]
        done = subprocess.run(
            [*program, *own, "-p", "shop", "-f", f"{place}/{file}", *arguments],
            env=docker.engine.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    try:
        yield run
    finally:
        run("down", "--volumes", "--timeout=2")
        shutil.rmtree(place)


@pytest.fixture(scope="module", autouse=True)
def images(docker: Docker) -> None:
    docker.script("build_image.sh")
    # No registry may be reachable: what has a redis-server, and runs a command that is given.
    docker("tag", "mdvp/redis-sync", "redis:8")


@pytest.fixture(scope="module")
def plugin(docker: Docker) -> Iterator[None]:
    docker.script("build_plugin.sh", "--enable")
    yield
    docker("plugin", "rm", "--force", "mdvp")
    shutil.rmtree(docker.engine.tmp / ".mdvp")  # its state, which the quickstart would keep


def containers(docker: Docker) -> list[str]:
    return docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=shop").split()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("compose", ["compose.yaml"], indirect=True)
def test_an_application_reads_the_files_of_a_volume_of_the_plugin(
    docker: Docker, compose: Compose
) -> None:
    compose("up", "-d")
    directory: Path = docker.engine.tmp / "app-config"
    (directory / "greeting").write_text("hello")
    eventually(lambda: "hello" in compose("logs", "application"), True, 20)
    assert "secret" not in compose("logs")
    before = containers(docker)
    compose("up", "-d")  # version 1.29 refuses that where the driver is called mdvp
    assert containers(docker) == before
    compose("down", "--volumes", "--timeout=2")
    assert not directory.exists()


@pytest.mark.parametrize("compose", ["compose-existing-redis.yaml"], indirect=True)
def test_a_directory_is_mirrored_to_a_redis_that_keeps_what_it_has(
    docker: Docker, compose: Compose
) -> None:
    compose("up", "-d")
    compose("exec", "-T", "mirror", "sh", "-c", "echo hello >/foo/greeting")
    get = ("exec", "-T", "redis", "redis-cli", "get", "app:greeting")
    eventually(lambda: compose(*get), "hello\n\n", 20)
    compose("restart", "--timeout=2", "redis")
    eventually(lambda: compose(*get), "hello\n\n", 20)
    before = containers(docker)
    compose("up", "-d")
    assert containers(docker) == before
