"""What a lease outlasts, and what a user does to a volume that is removed: on an engine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Docker
from support import eventually, running

PLUGIN = "mdvp-leases"
BASE = "debian:trixie-slim"
MANY = "mdvp-test/many-files"
GRACE = 1  # second: far less than the copy of so many files takes
FILES = 40_000
DOCKERFILE = f"""
FROM {BASE}
RUN mkdir /data && cd /data && for number in $(seq {FILES}); do echo $number >$number; done
"""
# A program with what it needs in a directory of its own, which goes there as its first act.
JAIL = f"""
FROM {BASE}
RUN mkdir -p /jail/bin && cp -a /usr /jail/ && cp -a /bin /lib* /jail/ 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    data = docker.build_plugin(PLUGIN, "leased-volumes")
    docker("plugin", "set", PLUGIN, f"GRACE={GRACE}")
    docker("plugin", "enable", PLUGIN)
    yield data
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture
def volume(docker: Docker, data: Path) -> Iterator[str]:  # noqa: ARG001  # it is there
    docker("volume", "create", "-d", PLUGIN, "leased")
    yield "leased"
    for container in docker("ps", "--all", "--quiet", "--filter", "volume=leased").split():
        docker("rm", "--force", container)
    docker("volume", "rm", "leased")


def use(docker: Docker, volume: str) -> str:
    """Try to use the volume in another container; return the error, "" for none."""
    return docker.engine.docker(
        "run", "--rm", "--network=none", f"--volume={volume}:/other", BASE, "true", check=False
    ).stderr


def test_nobody_gets_a_volume_while_an_images_files_are_copied_into_it(
    docker: Docker, volume: str
) -> None:
    docker.engine.docker("build", "--tag", MANY, "-", stdin=DOCKERFILE, timeout=300)
    create = ("docker", "create", f"--volume={volume}:/data", MANY, "true")
    with running(create, docker.engine.environ) as copying:
        eventually(lambda: '"mounted": true' in docker("volume", "inspect", volume), True)
        tries = []
        while copying.poll() is None:
            tries.append(use(docker, volume))
        # The last try may have been after the end of the copy.
        assert all(f"volume '{volume}' is in use: " in refusal for refusal in tries[:-1]), tries
        assert len(tries) > 3 * GRACE
    assert copying.returncode == 0
    eventually(lambda: use(docker, volume), "")


def test_a_container_that_changes_its_root_at_once_has_its_volume_until_it_ends(
    docker: Docker, volume: str
) -> None:
    docker.engine.docker("build", "--tag", "mdvp-test/jail", "-", stdin=JAIL, timeout=300)
    loop = "while sleep 0.1; do echo here >&3; done"
    holder = docker(
        *("run", "--detach", "--name=jailed", f"--volume={volume}:/data", "mdvp-test/jail"),
        *("sh", "-c", f"exec 3>>/data/log; exec chroot /jail sh -c '{loop}'"),
    )
    eventually(
        lambda: f"is mounted in container {holder[:12]}" in docker.engine.log.read_text(), True
    )
    for _ in range(5):
        assert f"container {holder[:12]} has had it" in use(docker, volume)
    docker("rm", "--force", "jailed")
    assert use(docker, volume) == ""


# As in tests/integration/test_mdvp_neighbour.py, where there are more tricks.
SWAP = """
import os
os.umask(0)
for number in range(5_000):
    os.mkdir(str(number))
print("ready", flush=True)
while True:
    for number in map(str, range(5_000)):
        try:
            os.rename(number, "x" + number)
            os.close(os.open(number, os.O_CREAT))
        except OSError:
            pass
"""


def test_a_user_who_swaps_what_is_being_deleted_does_not_stop_the_plugin(
    docker: Docker, data: Path
) -> None:
    docker("volume", "create", "-d", PLUGIN, "-o", "uid=1000", "-o", "mode=0777", "theirs")
    (data / "theirs" / "sub").mkdir()
    (data / "theirs" / "sub").chmod(0o777)
    user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--")
    command = (*user, sys.executable, "-c", SWAP)
    with subprocess.Popen(
        command, cwd=data / "theirs" / "sub", stdout=subprocess.PIPE, text=True
    ) as swapping:
        try:
            assert swapping.stdout is not None
            assert swapping.stdout.readline() == "ready\n"
            docker("volume", "rm", "theirs")
            # The kernel has both wait in line for the directory: half a second, but for each step
            # a turn of the scheduler where there is more to do, and so a minute on a busy machine.
            eventually(lambda: os.listdir(data / ".mdvp" / "trash"), [], 300)
        finally:
            swapping.kill()
    docker("plugin", "disable", "--force", PLUGIN)
    docker("plugin", "enable", PLUGIN)
    assert "theirs" not in docker("volume", "ls", "--quiet")
