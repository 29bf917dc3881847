"""Volumes that begin with the content of another, or of one that was removed.

On an engine, on each kind of file system.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Docker
from support import eventually

PLUGIN = "mdvp-clone"
BASE = "debian:trixie-slim"
MEANS = {"btrfs": "snapshot", "xfs": "reflink", "ext4": "copy"}
WRITES = """
mkdir -p /data/a/b && head -c 3000000 /dev/urandom >/data/a/b/large && ln /data/a/b/large /data/too
chown 1000:1000 /data/a && chmod 2750 /data/a && ln -s /etc/hostname /data/link && touch /data/ready
exec sleep infinity
"""
SHOWS = "cd /data && find . -printf '%p %m %U:%G %s %l\\n' | sort && md5sum a/b/large too"


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    yield docker.build_plugin(PLUGIN, "clone-volumes")
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture(params=MEANS)
def kind(docker: Docker, data: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve volumes on a file system of a kind, which the machine has on a loop device."""
    image = data.with_name(f"clone-{request.param}.img")
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([f"mkfs.{request.param}", "-q", image], check=True, capture_output=True)
    docker.engine.run("mount", "-o", "loop", str(image), str(data))
    docker("plugin", "enable", PLUGIN)
    yield request.param
    for command in ("container ls --all", "volume ls"):
        noun = command.partition(" ")[0]
        for name in docker(*command.split(), "--quiet").split():
            docker(noun, "rm", "--force", name)
    docker("plugin", "disable", "--force", PLUGIN)
    docker.engine.run("umount", "--lazy", str(data))
    image.unlink()


def status(docker: Docker, volume: str) -> dict[str, object]:
    (inspected,) = json.loads(docker("volume", "inspect", volume))
    found: dict[str, object] = inspected["Status"]
    return found


def run(docker: Docker, volume: str, script: str) -> str:
    return docker(
        *("run", "--rm", "--network=none", f"--volume={volume}:/data", BASE, "sh", "-c", script)
    )


def test_a_copy_has_what_the_other_has_and_goes_its_own_way(docker: Docker, kind: str) -> None:
    docker("volume", "create", "-d", PLUGIN, "vol")
    writer = docker(
        *("run", "--detach", "--init", "--network=none", "--volume=vol:/data"),
        *(BASE, "sh", "-c", WRITES),
    )
    eventually(lambda: docker.inside(writer, "ls /data/ready 2>&1 || true"), "/data/ready", 60)
    create = ("volume", "create", "-d", PLUGIN, "-o", "from=vol")
    refusal = docker.refused(*create, "copy")
    assert f"volume 'vol' is in use: container {writer[:12]}" in refusal
    assert "`-o from-live=true`" in refusal
    docker(*create, "-o", "from-live=true", "copy")
    had = docker.inside(writer, SHOWS)
    assert run(docker, "copy", SHOWS) == had
    shown = status(docker, "copy")
    assert (shown["from"], shown["means"], shown["mounted"]) == ("vol", MEANS[kind], False)
    run(docker, "copy", "rm -r /data/a")
    assert docker.inside(writer, SHOWS) == had
    docker("rm", "--force", writer)
    docker(*create, "second")
    docker("volume", "rm", "vol")
    docker("plugin", "disable", "--force", PLUGIN)
    docker("plugin", "enable", PLUGIN)
    assert run(docker, "second", SHOWS) == had


def test_what_was_removed_comes_back_with_all_that_it_had(docker: Docker, kind: str) -> None:
    docker("volume", "create", "-d", PLUGIN, "-o", "on-remove=trash", f"{kind}-vol")
    fills = WRITES.replace("exec sleep infinity", "")
    run(docker, f"{kind}-vol", fills)
    had = run(docker, f"{kind}-vol", SHOWS)
    docker("volume", "rm", f"{kind}-vol")
    assert f"{kind}-vol" not in docker("volume", "ls", "--quiet").split()
    docker("plugin", "disable", "--force", PLUGIN)
    docker("plugin", "enable", PLUGIN)
    docker("volume", "create", "-d", PLUGIN, "-o", f"restore={kind}-vol", "vol")
    assert run(docker, "vol", SHOWS) == had
    assert status(docker, "vol")["on-remove"] == "trash:7d"
