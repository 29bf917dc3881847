"""The metrics of the managed plugin: on its socket, and in a file that node_exporter reads.

The commands are those of docs/monitoring.md, for a plugin and a directory of its own.
"""

import http.client
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.unix_http import UnixConnection
from support import eventually

PLUGIN = "mdvp-metrics"
NOWHERE = "/dev/null"
PROMETHEUS = 4711  # a user who is not root


@pytest.fixture(scope="module")
def installed(docker: Docker) -> Iterator[Path]:
    """Yield the directory of the volumes of a plugin named PLUGIN, which is not enabled."""
    data = docker.build_plugin(PLUGIN, "volumes-metrics")
    yield data
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture
def folder(docker: Docker) -> Iterator[Path]:
    """Yield a directory of another user's on the engine's machine."""
    folder = docker.engine.tmp.with_name("node-exporter")
    folder.mkdir(exist_ok=True)
    os.chown(folder, PROMETHEUS, PROMETHEUS)
    yield folder
    folder.rmdir()


@contextmanager
def enabled(docker: Docker, source: Path | str) -> Iterator[None]:
    """Have the plugin enabled for the time of the block, with metrics on the host at `source`."""
    docker("plugin", "set", PLUGIN, f"metrics.source={source}")
    docker("plugin", "enable", PLUGIN)
    yield
    docker("plugin", "disable", "--force", PLUGIN)


def on_socket(docker: Docker, short_path: Path) -> str:
    identity = docker("plugin", "inspect", "--format", "{{.Id}}", PLUGIN)
    path = short_path / "mdvp.sock"
    # By a short name, as the path of a socket has at most 107 bytes.
    path.symlink_to(f"/proc/{docker.engine.pid}/root/run/docker/plugins/{identity}/mdvp.sock")
    with closing(UnixConnection(path)) as connection:
        connection.request("GET", "/metrics")
        answer: http.client.HTTPResponse = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """Run one that reads `folder`; yield where it shows what it has read."""
    command = [
        *("prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile"),
        *(f"--collector.textfile.directory={folder}", "--web.listen-address=127.0.0.1:0"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"address=(127\.0\.0\.1:\d+)", line) for line in process.stderr)
            address = next(match[1] for match in found if match)
            yield f"http://{address}/metrics"
        finally:
            process.kill()


@pytest.mark.usefixtures("installed")
def test_without_a_directory_nothing_is_written_and_all_is_on_the_socket(
    docker: Docker, short_path: Path
) -> None:
    before = len(docker.engine.log.read_text())
    with enabled(docker, NOWHERE):
        docker("volume", "create", "-d", PLUGIN, "vol")
        text = on_socket(docker, short_path)
        docker("volume", "rm", "vol")
    assert 'mdvp_volumes{access="exclusive"} 1.0' in text
    assert 'mdvp_requests_total{operation="create",outcome="ok"} 1.0' in text
    assert "mdvp_host_visible 1.0" in text
    assert "metrics" not in docker.engine.log.read_text()[before:]


@pytest.mark.usefixtures("installed")
def test_node_exporter_shows_what_the_plugin_writes_to_the_directory_that_is_set(
    docker: Docker, folder: Path
) -> None:
    file = folder / "mdvp.prom"
    with enabled(docker, folder), node_exporter(folder) as url:
        docker("volume", "create", "-d", PLUGIN, "-o", "access=shared", "vol")

        def shown() -> bool:
            with urllib.request.urlopen(url) as answer:  # noqa: S310  # ours
                text = answer.read().decode()
            assert "node_textfile_scrape_error 0" in text
            return 'mdvp_volumes{access="shared"} 1' in text

        eventually(shown, True, deadline=30.0)  # it is written every 15 s
        status = file.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o644)
        docker("volume", "rm", "vol")
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("installed")
def test_the_setting_can_be_changed_from_a_directory_to_none_and_back(
    docker: Docker, folder: Path
) -> None:
    for source in (folder, NOWHERE, folder):
        with enabled(docker, source):
            eventually((folder / "mdvp.prom").exists, source != NOWHERE)
        assert list(folder.iterdir()) == []
