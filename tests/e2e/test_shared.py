"""docs/shared.md, command by command, and what it warns of."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import REPOSITORY, Docker
from e2e.unix_http import post
from support import eventually

BASE = "debian:trixie-slim"
EXAMPLES: list[str] = re.findall(
    r"^```sh\n(.*?)^```$",
    (REPOSITORY / "docs" / "shared.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def example(words: str) -> str:
    """Return the example with these words in it."""
    (found,) = [text for text in EXAMPLES if words in text]
    return found


def run(docker: Docker, script: str) -> str:
    """Run an example as a user does, who stops at the first failure; return what it prints."""
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        env=docker.engine.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def remove_containers(docker: Docker, volume: str) -> None:
    for container in docker("ps", "--all", "--quiet", "--filter", f"volume={volume}").split():
        docker("rm", "--force", "--volumes", container)


@pytest.fixture(scope="module", autouse=True)
def plugin(docker: Docker) -> Iterator[None]:
    """Have the plugin and the image under their names in the examples."""
    docker.script("build_image.sh", "redis-sync")  # again: a test before may have taken it away
    docker.script("build_plugin.sh", "--enable")
    yield
    docker("plugin", "rm", "--force", "mdvp")


@pytest.fixture
def feed(docker: Docker) -> Iterator[str]:
    """Yield the name of the shared volume of the examples."""
    assert run(docker, example("access=shared feed")) == "feed\n"
    yield "feed"
    remove_containers(docker, "feed")
    docker("volume", "rm", "feed")


@pytest.fixture
def private(docker: Docker) -> Iterator[str]:
    """Yield the name of the volume of the examples that user 1000 can write to."""
    create, _ = example("-o mode=0700 private").splitlines()
    assert run(docker, create) == "private\n"
    yield "private"
    docker("volume", "rm", "private")


def in_volume(docker: Docker, volume: str, command: str) -> str:
    return docker("run", "--rm", "--volume", f"{volume}:/feed", BASE, "sh", "-c", command)


def test_a_file_made_in_one_container_is_acted_on_in_another(docker: Docker, feed: str) -> None:
    start, wait, write, ask = example("--name mirror").splitlines()
    run(docker, start)
    run(docker, wait)
    run(docker, write)
    eventually(lambda: run(docker, ask), "hello\n\n")
    for name in ("second", "third"):
        docker("run", "--detach", "--init", f"--name={name}", "-v", f"{feed}:/a", BASE, "cat")
    in_volume(docker, feed, "rm /feed/greeting")
    eventually(lambda: run(docker, ask), "\n")


def test_a_shared_volume_is_not_removed_while_any_container_has_it(
    docker: Docker, feed: str, short_path: Path
) -> None:
    mount = f"--volume={feed}:/feed"
    for name in ("first", "second"):
        docker("run", "--detach", "--init", f"--name={name}", mount, BASE, "sleep", "infinity")
    docker("rm", "--force", "first")
    assert "volume is in use" in docker.refused("volume", "rm", feed)
    # That was the engine, which asked nobody. What does the plugin say, when it is asked?
    status, message = post(plugin_socket(docker, short_path), "/VolumeDriver.Remove", Name=feed)
    second = docker("inspect", "--format", "{{.Id}}", "second")
    assert status == 409
    assert f"volume 'feed' is in use: container {second[:12]} has had it since" in message["Err"]
    assert (docker.engine.tmp / feed).is_dir()


def plugin_socket(docker: Docker, short_path: Path) -> Path:
    """Return a path of the plugin's socket that is short enough for one."""
    plugin = docker("plugin", "inspect", "--format", "{{.Id}}", "mdvp")
    path = short_path / "mdvp.sock"
    machine = Path(f"/proc/{docker.engine.pid}/root")
    path.symlink_to(machine / "run/docker/plugins" / plugin / "mdvp.sock")
    return path


WRITERS = "--name $writer"


def test_two_writers_with_a_lock_lose_no_update(docker: Docker, feed: str) -> None:
    assert run(docker, example(WRITERS)).splitlines()[-3:] == ["0", "0", "2000"]
    remove_containers(docker, feed)


def test_two_writers_without_a_lock_lose_updates(docker: Docker, feed: str) -> None:
    without = example(WRITERS).replace("        flock 9\n", "")
    assert without != example(WRITERS)
    assert int(run(docker, without).splitlines()[-1]) < 2000
    remove_containers(docker, feed)


def test_the_directory_itself_is_locked_already(docker: Docker, feed: str) -> None:
    command = "flock --exclusive --nonblock /feed true && echo free || echo locked"
    assert in_volume(docker, feed, command) == "locked"
    assert in_volume(docker, feed, "flock --shared --nonblock /feed echo shared") == "shared"


def test_a_lock_ends_with_its_container(docker: Docker, feed: str) -> None:
    hold = ("flock", "/feed/lock", "sh", "-c", "echo >/feed/held; sleep infinity")
    docker("run", "--detach", "--name=holder", "--volume", f"{feed}:/feed", BASE, *hold)
    eventually((docker.engine.tmp / feed / "held").exists, True)
    test = "flock --nonblock /feed/lock true && echo free || echo locked"
    assert in_volume(docker, feed, test) == "locked"
    docker("kill", "holder")
    assert in_volume(docker, feed, test) == "free"


def test_a_user_other_than_root_writes_where_the_volume_is_his(
    docker: Docker, private: str
) -> None:
    _, write = example("-o mode=0700 private").splitlines()
    run(docker, write)
    status = (docker.engine.tmp / private).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1000, 0o700)
    file = (docker.engine.tmp / private / "file").stat()
    assert (file.st_uid, file.st_gid) == (1000, 1000)


def test_a_user_other_than_root_does_not_write_to_a_default_volume(docker: Docker) -> None:
    _, write = example("-o mode=0700 private").splitlines()
    docker("volume", "create", "-d", "mdvp", "private")
    try:
        assert "Permission denied" in docker.refused(*write.split()[1:])
    finally:
        docker("volume", "rm", "private")


@pytest.mark.parametrize(("more", "owner"), [("", 0), (":nocopy", 1000)])
def test_a_directory_of_the_image_at_that_place_gives_the_volume_its_owner(
    docker: Docker, private: str, more: str, owner: int
) -> None:
    # /srv is in the image, root's, with mode 0755 and nothing in it.
    docker("run", "--rm", "--volume", f"{private}:/srv{more}", BASE, "true")
    status = (docker.engine.tmp / private).stat()
    mode = 0o755 if owner == 0 else 0o700
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (owner, owner, mode)
