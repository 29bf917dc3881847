"""mdvp as a plain service on the engine's machine: on its Unix socket, and on TCP."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.engine import PrivateEngine
from support import eventually

BASE = "debian:trixie-slim"
SOCKET = Path("run/docker/plugins/mdvp.sock")
SPEC = Path("etc/docker/plugins/mdvp.json")
# What starts a service and says its pid. The log is where the test can read it, too.
START = 'setsid "$@" >>/tmp/mdvp.log 2>&1 & echo $!'


@dataclass
class Service:
    """An mdvp that serves the machine's /tmp, and the prompt to use it from."""

    docker: Docker
    arguments: tuple[str, ...]
    sign: Path  # the file by which the engine finds it, there while it runs
    _pid: str = field(default="", init=False)

    @property
    def host(self) -> Path:
        """The machine's file system, as we see it."""
        return Path(f"/proc/{self.docker.engine.pid}/root")

    def start(self) -> None:
        command = (".venv/bin/python", "-m", "mdvp", "serve", "--root", "/tmp", *self.arguments)  # noqa: S108  # the machine's own
        self._pid = self.docker.engine.run("sh", "-c", START, "sh", *command).stdout.strip()
        eventually(lambda: self.shows() or self._ended(), True)
        assert not self._ended(), self.log()

    def shows(self) -> bool:
        return (self.host / self.sign).exists()

    def _ended(self) -> bool:
        return not (self.host / "proc" / self._pid).exists()

    def signal(self, name: str) -> None:
        """Send it a signal, and wait for its end."""
        self.docker.engine.run("kill", f"-{name}", self._pid)
        eventually(self._ended, True)

    def log(self) -> str:
        return (self.docker.engine.tmp / "mdvp.log").read_text()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(((), SOCKET), id="socket"),
        pytest.param((("--tcp", "127.0.0.1:3004"), SPEC), id="tcp"),
        pytest.param((("--tcp", "[::1]:3004"), SPEC), id="tcp6"),
    ],
)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    # An engine of its own, as an engine remembers where it has found a driver.
    with PrivateEngine() as engine:
        service = Service(Docker(engine), *request.param)
        service.docker.script("base_image.sh")
        service.start()
        yield service


def run(service: Service, command: str) -> str:
    return service.docker("run", "--rm", "--volume", "vol:/data", BASE, "sh", "-c", command)


def refused(service: Service) -> str:
    return service.docker.refused("run", "--rm", "--volume", "vol:/data", BASE, "true")


def test_a_volume_has_a_life(service: Service) -> None:
    docker, directory = service.docker, service.docker.engine.tmp / "vol"
    docker("volume", "create", "-d", "mdvp", "vol")
    (inspected,) = json.loads(docker("volume", "inspect", "vol"))
    assert (inspected["Driver"], inspected["Mountpoint"]) == ("mdvp", "/tmp/vol")  # noqa: S108
    assert run(service, "echo hi >/data/file; cat /data/file") == "hi"
    assert (directory / "file").read_text() == "hi\n"
    (directory / "other").write_text("from the host")
    assert run(service, "cat /data/other") == "from the host"
    docker("volume", "rm", "vol")
    assert not directory.exists()
    assert docker("volume", "ls", "--quiet") == ""


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_restart_loses_nothing(service: Service, signal: str) -> None:
    docker = service.docker
    docker("volume", "create", "-d", "mdvp", "vol")
    docker("run", "--detach", "--init", "--name=holder", "--volume=vol:/data", BASE, "sleep", "1d")
    docker.inside("holder", "echo hi >/data/file")
    assert "'vol' is in use" in refused(service)

    service.signal(signal)
    # A dead mdvp's socket file leads nowhere. A spec file would lead to a port that is anybody's.
    eventually(service.shows, signal == "KILL" and service.sign == SOCKET)
    service.start()

    assert docker("volume", "ls", "--quiet") == "vol"
    assert "'vol' is in use" in refused(service)
    assert docker.inside("holder", "cat /data/file") == "hi"
    docker("rm", "--force", "holder")
    assert run(service, "cat /data/file") == "hi"
    docker("volume", "rm", "vol")


def test_an_engine_that_starts_again_finds_the_volumes(service: Service) -> None:
    docker = service.docker
    docker("volume", "create", "-d", "mdvp", "vol")
    docker.engine.stop()
    docker.engine.start()
    assert docker("volume", "ls", "--quiet") == "vol"
    assert run(service, "echo hi") == "hi"
    docker("volume", "rm", "vol")


def test_in_the_end_nothing_says_that_it_is_there(service: Service) -> None:
    service.signal("TERM")
    assert not service.shows()
    assert service.log().endswith("INFO stopped\n")
    assert "ERROR" not in service.log()
