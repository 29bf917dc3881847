"""Containers that wait their turn for a volume: on an engine, which goes on with all else."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.unix_http import UnixConnection
from support import eventually, running

PLUGIN = "mdvp-turns"
VOLUME = "turns"
BASE = "debian:trixie-slim"
PROMPT = 0.1  # seconds
LONG = 60.0  # seconds, for what an engine does on a busy machine
# It is alone in the volume, or it fails.
ALONE = "mkdir /data/taken || exit 9; echo $0 >>/data/order; rmdir /data/taken"


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    data = docker.build_plugin(PLUGIN, "turns-volumes")
    docker("plugin", "enable", PLUGIN)
    docker("volume", "create", "-d", PLUGIN, "-o", "wait=110s", VOLUME)
    yield data / VOLUME
    docker("volume", "rm", VOLUME)
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture(autouse=True)
def clean(docker: Docker, data: Path) -> Iterator[None]:
    """Take away what a test has made."""
    yield
    for container in docker("ps", "--all", "--quiet", "--filter", f"volume={VOLUME}").split():
        docker("rm", "--force", container)
    (data / "order").unlink(missing_ok=True)
    eventually(lambda: status(docker)["mounted"], False, LONG)


def status(docker: Docker) -> dict[str, object]:
    (volume,) = json.loads(docker("volume", "inspect", VOLUME))
    found: dict[str, object] = volume["Status"]
    return found


def waiting(docker: Docker) -> object:
    return status(docker).get("waiting", 0)


def hold(docker: Docker) -> str:
    """Start the container "first", which stays; return its id."""
    container = docker(
        *("run", "--detach", "--init", "--name=first", "--network=none"),
        *(f"--volume={VOLUME}:/data", BASE, "sleep", "infinity"),
    )
    eventually(lambda: status(docker).get("mounted_by"), [container])
    return container


def run(name: str, *options: str) -> Sequence[str]:
    """Return the command for a container that does what it has to, alone in the volume."""
    where = ("--network=none", f"--volume={VOLUME}:/data", BASE, "sh", "-c", ALONE, name)
    return ("docker", "run", f"--name={name}", *options, *where)


@contextmanager
def one_waits(docker: Docker, name: str = "second") -> Iterator[subprocess.Popen[str]]:
    before = waiting(docker)
    assert isinstance(before, int)
    with running(run(name), docker.engine.environ) as process:
        eventually(lambda: waiting(docker), before + 1, LONG)
        yield process


def took(docker: Docker, path: str) -> float:
    """Return the seconds that the engine needs for an answer, at best."""
    engine = Path(docker.engine.environ["DOCKER_HOST"].removeprefix("unix://"))

    def once() -> float:
        with closing(UnixConnection(engine)) as connection:
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            return time.perf_counter() - began

    return min(once() for _ in range(5))


def order(data: Path) -> list[str]:
    return (data / "order").read_text().split()


def ends_well(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=LONG)
    assert (process.returncode, output) == (0, "")


def test_one_waits_for_the_other_and_nobody_else_is_held_up(docker: Docker, data: Path) -> None:
    hold(docker)
    with one_waits(docker) as second:
        for path in (
            "/containers/json?all=1",  # docker ps --all
            "/volumes",  # docker volume ls
            f"/volumes/{VOLUME}",  # docker volume inspect
        ):
            assert took(docker, path) < PROMPT
        docker("cp", "first:/etc/hostname", "-")  # which mounts it once more
        assert second.poll() is None
        docker("stop", "--time=1", "first")
        ends_well(second)
    assert order(data) == ["second"]


def test_ten_have_it_in_the_order_in_which_they_came(docker: Docker, data: Path) -> None:
    hold(docker)
    names = [f"turn-{number}" for number in range(10)]
    with ExitStack() as stack:
        waiters = [stack.enter_context(one_waits(docker, name)) for name in names]
        docker("rm", "--force", "first")
        for waiter in waiters:
            ends_well(waiter)
    assert order(data) == names


def test_a_container_whose_client_is_killed_gets_its_turn_as_with_any_start(
    docker: Docker, data: Path
) -> None:
    hold(docker)
    with one_waits(docker) as second:
        second.kill()
        second.wait()
    assert waiting(docker) == 1  # the engine starts it whether or not somebody waits for that
    docker("rm", "--force", "first")
    eventually((data / "order").exists, True, LONG)
    assert order(data) == ["second"]


def test_a_plugin_that_is_killed_leaves_nobody_waiting(docker: Docker, data: Path) -> None:
    hold(docker)
    with one_waits(docker) as second:
        docker.engine.run("kill", "-KILL", plugin_pid(docker))
        output, _ = second.communicate(timeout=LONG)
    assert "try again" in output
    assert (second.returncode, status(docker)["mounted"], waiting(docker)) == (125, True, 0)
    with one_waits(docker, "third") as third:
        docker("rm", "--force", "first")
        ends_well(third)
    assert order(data) == ["third"]


def plugin_pid(docker: Docker) -> str:
    """Return the process of the plugin, as the machine numbers it."""
    plugin = docker("plugin", "inspect", "--format", "{{.Id}}", PLUGIN)
    find = ("find", "/run/docker/containerd", "-path", f"*/{plugin}/init.pid", "-exec", "cat", "{}")
    return docker.engine.run(*find, ";").stdout


def test_a_plugin_that_is_disabled_answers_who_waits_at_once(docker: Docker) -> None:
    hold(docker)
    with one_waits(docker) as second:
        docker("plugin", "disable", "--force", PLUGIN)
        output, _ = second.communicate(timeout=LONG)
        docker("plugin", "enable", PLUGIN)
    assert "mdvp is being ended while this waits for its turn" in output


def test_an_engine_that_is_killed_leaves_nobody_waiting(docker: Docker, data: Path) -> None:
    hold(docker)
    with one_waits(docker):
        docker.engine.kill()
        docker.engine.start()
    # It ends its containers when it starts again, and the one that waited is not started.
    eventually(lambda: status(docker), {"access": "exclusive", "mounted": False, "wait": "110s"})
    assert docker("inspect", "--format", "{{.State.Running}}", "first", "second") == "false\nfalse"
    docker("rm", "--force", "first", "second")
    with running(run("third"), docker.engine.environ) as third:
        ends_well(third)
    assert order(data) == ["third"]
