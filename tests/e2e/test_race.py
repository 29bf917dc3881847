"""Twenty containers at once for one volume, again and again: one gets it, each time."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Docker
from e2e.unix_http import post
from support import eventually

PLUGIN = "mdvp-race"
VOLUME = "contested"
BASE = "debian:trixie-slim"
RUNNERS = 20
ROUNDS = 50
# It is alone in the volume, or it fails; and it stays there until the test has seen it and ends it.
ALONE = (
    "mkdir /data/taken || exit 9; until [ -e /data/end ]; do sleep 0.02; done; rmdir /data/taken"
)
CONTAINER = ("--init", "--network=none", f"--volume={VOLUME}:/data", BASE, "sh", "-c", ALONE)
RUN = ("run", "--rm", *CONTAINER)
END = "end"


@pytest.fixture(scope="module")
def directory(docker: Docker) -> Iterator[Path]:
    """Yield the directory of VOLUME."""
    data = docker.build_plugin(PLUGIN, "contested-volumes")
    docker("plugin", "enable", PLUGIN)
    docker("volume", "create", "-d", PLUGIN, VOLUME)
    yield data / VOLUME
    for container in docker("ps", "--all", "--quiet", "--filter", f"volume={VOLUME}").split():
        docker("rm", "--force", container)
    docker("volume", "rm", VOLUME)
    docker("plugin", "rm", "--force", PLUGIN)


def start(docker: Docker, container: str) -> str | None:
    """Start a container, as `docker start` does but sooner; return why not, if it did not."""
    engine = Path(docker.engine.environ["DOCKER_HOST"].removeprefix("unix://"))
    status, message = post(engine, f"/containers/{container}/start")
    return None if status == 204 else str(message["message"])


def assert_one_wins(refusals: list[str | None]) -> int:
    """Check that one was let in and the others were told why not; return which."""
    winners = [number for number, refusal in enumerate(refusals) if refusal is None]
    assert len(winners) == 1, refusals
    for refusal in filter(None, refusals):
        assert f"volume '{VOLUME}' is in use: " in refusal
    return winners[0]


def settle(docker: Docker, directory: Path) -> None:
    """Wait until the volume is free, with nothing in it."""
    eventually(lambda: mounted(docker), False)
    assert os.listdir(directory) == []


def mounted(docker: Docker) -> object:
    (volume,) = json.loads(docker("volume", "inspect", VOLUME))
    return volume["Status"]["mounted"]


def test_of_docker_run_at_once_one_has_the_volume(docker: Docker, directory: Path) -> None:
    with ThreadPoolExecutor(RUNNERS) as pool:
        for _ in range(ROUNDS):
            runs = [pool.submit(docker.engine.docker, *RUN, check=False) for _ in range(RUNNERS)]
            eventually(partial(still_running, runs), 1, 60.0)
            (directory / END).touch()
            done = [run.result() for run in runs]
            assert_one_wins([None if run.returncode == 0 else run.stderr for run in done])
            (directory / END).unlink()
            settle(docker, directory)


def still_running(runs: Sequence[Future[Any]]) -> int:
    return sum(not run.done() for run in runs)


def test_of_containers_that_start_at_once_one_has_the_volume(
    docker: Docker, directory: Path
) -> None:
    containers = [docker("create", *CONTAINER) for _ in range(RUNNERS)]
    won = set()
    with ThreadPoolExecutor(RUNNERS) as pool:
        for _ in range(ROUNDS // 2):
            refusals = list(pool.map(partial(start, docker), containers))
            winner = containers[assert_one_wins(refusals)]
            won.add(winner)
            eventually((directory / "taken").exists, True)
            (directory / END).touch()
            assert docker("wait", winner) == "0"
            (directory / END).unlink()
            settle(docker, directory)
    docker("rm", *containers)
    # Had it been the same one each time, there would have been no race.
    assert len(won) > 1
