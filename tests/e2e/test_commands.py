"""`mdvp ls`, `change` and `rename` by one line of docker, and what the engine makes of it.

What the engine does with a name that a volume had is what docs/life.md says.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.conftest import Docker

BASE = "debian:trixie-slim"
SOCKETS = "/run/docker/plugins:/run/docker/plugins"
MDVP = ("run", "--rm", "--volume", SOCKETS, "mdvp/mdvp")


@pytest.fixture(scope="module", autouse=True)
def plugin(docker: Docker) -> Iterator[None]:
    docker.script("base_image.sh")
    docker.script("build_plugin.sh", "--enable")
    yield
    docker("plugin", "rm", "--force", "mdvp")


@pytest.fixture
def volume(docker: Docker) -> Iterator[str]:
    """Yield a volume with a file in it, and a container that has had it and is stopped."""
    docker("volume", "create", "--driver", "mdvp", "old")
    script = "echo hello >/data/greeting"
    docker("run", "--name", "stopped", "--volume", "old:/data", BASE, "sh", "-c", script)
    yield "old"
    docker.engine.docker("rm", "--force", "running", "stopped", check=False)
    for name in docker("volume", "ls", "--quiet").split():
        docker("volume", "rm", name)


def listed(docker: Docker) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(docker(*MDVP, "ls", "--json"))}


def volumes(docker: Docker) -> list[str]:
    return docker("volume", "ls", "--format", "{{.Name}} {{.Driver}}").splitlines()


def greeting(docker: Docker, volume: str) -> str:
    return docker("run", "--rm", "--volume", f"{volume}:/data", BASE, "cat", "/data/greeting")


def test_a_volume_is_listed_changed_and_renamed(docker: Docker, volume: str) -> None:
    running = ("run", "--detach", "--name", "running", "--volume", f"{volume}:/data", BASE)
    container = docker(*running, "sleep", "infinity")
    found = listed(docker)[volume]
    assert (found["mounted"], found["used_by"]) == (True, [container])
    assert container[:12] in docker(*MDVP, "ls")
    for arguments in (("rename", volume, "new"), ("change", volume, "-o", "access=shared")):
        assert f"container {container[:12]} has had it" in docker.refused(*MDVP, *arguments)
    docker("rm", "--force", "running")

    assert docker(*MDVP, "rename", volume, "new") == "new"
    assert docker(*MDVP, "change", "new", "-o", "access=shared", "-o", "mode=0750") == "new"
    assert volumes(docker) == ["new mdvp:latest"]
    shown = docker("volume", "inspect", "--format", "{{json .Status}}", "new")
    assert json.loads(shown) == {"access": "shared", "mode": "0750", "mounted": False}
    assert docker("volume", "inspect", "--format", "{{.Mountpoint}}", "new").endswith("/new")
    container = docker(*running[:-2], "new:/data", BASE, "sleep", "infinity")
    assert greeting(docker, "new") == "hello"  # beside the one that runs: it is shared
    assert listed(docker)["new"]["used_by"] == [container]


def test_what_the_engine_makes_of_a_name_that_a_volume_had(docker: Docker, volume: str) -> None:
    docker(*MDVP, "rename", volume, "new")
    # A container that was made with that name does not start, and takes nothing else for it.
    assert "no such volume" in docker.refused("start", "stopped")
    assert "no such volume" in docker.refused("volume", "inspect", "old")
    assert volumes(docker) == ["new mdvp:latest"]
    # Renamed back, it does.
    docker(*MDVP, "rename", "new", "old")
    docker("start", "--attach", "stopped")
    assert greeting(docker, "old") == "hello"
    # For any other container it is a new name, which the engine gives to a volume of its own.
    docker(*MDVP, "rename", "old", "new")
    docker("run", "--rm", "--volume", "old:/data", BASE, "true")
    assert volumes(docker) == ["new mdvp:latest", "old local"]
