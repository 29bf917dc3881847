"""Readers and limits of volumes on a real engine, by a plugin that has CAP_SYS_ADMIN for them.

It is built as docs/install.md says, and does what docs/life.md shows.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.conftest import REPOSITORY, Docker
from e2e.pages import blocks, script
from e2e.prompt import Prompt, check
from support import eventually

INSTALL = REPOSITORY / "docs" / "install.md"
LIFE = REPOSITORY / "docs" / "life.md"
PLUGIN = "mdvp-admin"
BASE = "debian:trixie-slim"
# Writes a line every tenth of a second; one that fails ends it.
WRITER = "n=0; while echo line $n >>/data/log; do n=$((n + 1)); sleep 0.1; done"


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    """Yield the directory of the volumes of an enabled plugin, on a btrfs that has quotas."""
    data = docker.engine.tmp.with_name("admin-volumes")
    image = data.with_suffix(".img")
    data.mkdir()
    run = docker.engine.run
    run("truncate", "--size=1G", str(image))
    run("mkfs.btrfs", "--quiet", str(image))
    run("mount", "-o", "loop", str(image), str(data))
    run("btrfs", "quota", "enable", str(data))
    docker.script("build_plugin.sh", "--sys-admin", PLUGIN_NAME=PLUGIN)
    docker("plugin", "set", PLUGIN, f"data.source={data}")
    docker("plugin", "enable", PLUGIN)
    yield Path(f"/proc/{docker.engine.pid}/root{data}")
    docker("plugin", "rm", "--force", PLUGIN)
    run("umount", "--lazy", str(data))


@pytest.fixture
def volume(docker: Docker, data: Path) -> Iterator[str]:
    """Yield the name of a new volume; it goes, and all containers and volumes of the plugin."""
    docker("volume", "create", "-d", PLUGIN, "vol")
    yield "vol"
    for container in docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", container)
    for name in docker("volume", "ls", "--quiet", "--filter", f"driver={PLUGIN}:latest").split():
        docker("volume", "rm", "--force", name)
    assert [path.name for path in data.iterdir()] == [".mdvp"]


@pytest.fixture
def reader(docker: Docker, volume: str) -> str:
    """Return the name of a volume that shows the other."""
    docker("volume", "create", "-d", PLUGIN, "-o", f"reader-of={volume}", "reader")
    return "reader"


@pytest.fixture
def prompt(docker: Docker) -> Iterator[Prompt]:
    """Yield root's shell on the machine."""
    bash = ("bash", "--norc", "--noprofile", "--noediting")
    environ = {k: v for k, v in docker.engine.environ.items() if not k.startswith("DOCKER_")}
    shell = Prompt(docker.engine.inside(*bash), environ)
    yield shell
    shell.close()


def start(docker: Docker, name: str, volume: str, command: str = "sleep infinity") -> None:
    where = f"{volume}:/data"
    docker(
        "run", "--detach", "--init", "--name", name, "--volume", where, BASE, "sh", "-c", command
    )


def status(docker: Docker, volume: str) -> dict[str, object]:
    (inspected,) = json.loads(docker("volume", "inspect", volume))
    result: dict[str, object] = inspected["Status"]
    return result


def views(docker: Docker) -> list[str]:
    """Return where the machine has read-only views of the volumes."""
    mounts = Path(f"/proc/{docker.engine.pid}/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in mounts if line.split()[4].endswith("/.mdvp/readonly")]


def test_readers_are_kept_from_writing_while_the_writer_goes_on(
    docker: Docker, volume: str, reader: str
) -> None:
    start(docker, "writer", volume, WRITER)
    for name in ("one", "two"):
        start(docker, name, reader)
        assert docker.refused("exec", name, "touch", "/data/file").endswith(
            "touch: cannot touch '/data/file': Read-only file system\n"
        )
        assert "read-only" in docker.refused("cp", "/etc/hostname", f"{name}:/data")
        assert " ro,nodiratime" in docker.inside(name, "grep ' /data ' /proc/self/mountinfo")
    docker("cp", "one:/data/log", "-")
    docker("restart", "--time=0", "one")
    lines = int(docker.inside("one", "wc -l </data/log"))
    eventually(lambda: int(docker.inside("two", "wc -l </data/log")) > lines + 5, True)
    error = docker.refused("run", "--rm", "--volume", f"{volume}:/data", BASE, "true")
    assert f"volume '{volume}' is in use: container " in error
    writer = docker("inspect", "--format", "{{.Id}}", "writer")
    assert status(docker, volume)["mounted_by"] == [writer]
    docker("rm", "--force", "writer")
    assert status(docker, volume)["mounted"] is False
    assert f"volume '{volume}' is being read" in docker.refused("volume", "rm", volume)
    docker("run", "--rm", "--volume", f"{volume}:/data", BASE, "rm", "/data/log")
    assert docker.inside("one", "ls /data") == ""


def test_who_may_mount_can_write_and_is_a_holder_from_then_on(
    docker: Docker, volume: str, reader: str
) -> None:
    rights = ("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined")
    command = "mount -o remount,bind,rw /data && touch /data/file && sleep infinity"
    docker(
        *("run", "--detach", "--init", "--name=odd", f"--volume={reader}:/data", *rights),
        *(BASE, "sh", "-c", command),
    )
    eventually(lambda: status(docker, volume)["mounted"], True)
    error = docker.refused("run", "--rm", "--volume", f"{volume}:/data", BASE, "true")
    assert f"volume '{volume}' is in use: container " in error


def test_readers_outlive_the_plugin(docker: Docker, volume: str, reader: str) -> None:
    start(docker, "writer", volume, WRITER)
    start(docker, "one", reader)
    docker.engine.run("pkill", "--signal=KILL", "--full", "mdvp/bin/mdvp serve")
    eventually(lambda: docker.output("volume", "inspect", volume).count("mounted_by"), 1)
    start(docker, "two", reader)
    for name in ("one", "two"):
        assert "Read-only" in docker.refused("exec", name, "touch", "/data/file")
    assert len(status(docker, reader)["mounted_by"]) == 2  # type: ignore[arg-type]
    error = docker.refused("run", "--rm", "--volume", f"{volume}:/data", BASE, "true")
    assert f"volume '{volume}' is in use: container " in error


def test_a_view_goes_with_the_plugin(docker: Docker, volume: str, reader: str) -> None:
    start(docker, "one", reader)
    assert views(docker)
    docker("rm", "--force", "one")
    docker("plugin", "disable", "--force", PLUGIN)
    left = views(docker)
    docker("plugin", "enable", PLUGIN)
    # What the plugin that was killed has left on the host itself; see docs/security.md.
    assert not [place for place in left if "propagated-mount" in place]
    start(docker, "two", reader)
    assert "Read-only" in docker.refused("exec", "two", "touch", f"/data/{volume}")


def test_a_volume_has_a_limit_that_can_be_raised(docker: Docker, volume: str) -> None:
    docker("volume", "create", "-d", PLUGIN, "-o", "size=8M", "small")
    assert status(docker, volume).get("size") is None
    assert status(docker, "small")["size"] == "8M"
    start(docker, "filling", "small")
    write = "dd if=/dev/urandom of=/data/file bs=1M count=16 conv=fsync"
    error = docker.refused("exec", "filling", "sh", "-c", write)
    assert "Disk quota exceeded" in error
    socket = docker.engine.run("sh", "-c", "echo /run/docker/plugins/*/mdvp.sock").stdout.strip()
    change = ("mdvp/mdvp", "change", "--socket", socket, "small", "-o", "size=64M")
    docker("run", "--rm", "--volume=/run/docker/plugins:/run/docker/plugins", *change)
    docker.inside("filling", write)


@pytest.mark.parametrize("words", ["reader-of=diary", "size=8M"])
def test_the_page_shows_what_happens(
    docker: Docker, volume: str, prompt: Prompt, words: str
) -> None:
    assert status(docker, volume)
    (block,) = [it for it in blocks(LIFE) if any(words in step.command for step in it.steps)]
    for step in block.steps:
        command = step.command.replace("-d mdvp ", f"-d {PLUGIN} ")
        check(LIFE.name, replace(step, command=command), prompt)


def test_the_usual_plugin_refuses_both_with_the_way_to_have_them(
    docker: Docker, data: Path, volume: str
) -> None:
    before = data / volume / "file"
    before.write_text("stays")
    try:
        done = docker.script("build_plugin.sh", "--enable", PLUGIN_NAME=PLUGIN)
        assert "note: the plugin before had CAP_SYS_ADMIN" in done.stdout
        for option in (f"reader-of={volume}", "size=8M"):
            error = docker.refused("volume", "create", "-d", PLUGIN, "-o", option, "refused")
            assert "CAP_SYS_ADMIN" in error
            assert "build_plugin.sh --sys-admin" in error
        assert "refused" not in docker("volume", "ls", "--quiet")
    finally:
        name, *arguments = script(INSTALL, "--sys-admin").removeprefix("scripts/").split()
        docker.script(name, *arguments, PLUGIN_NAME=PLUGIN)
    docker("volume", "create", "-d", PLUGIN, "-o", f"reader-of={volume}", "reader")
    shown = docker("run", "--rm", "--volume=reader:/data", BASE, "cat", "/data/file")
    assert shown == "stays"
