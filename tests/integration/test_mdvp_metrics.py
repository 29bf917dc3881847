"""What mdvp tells of itself: on its socket, and in a file for node_exporter."""

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from integration.follow import following
from integration.holder import (
    BIND,
    ROOT,
    containing,
    holding,
    new_container_id,
)
from integration.plugin import Plugin, samples, serving
from integration.prometheus import promtool
from support import DEADLINE, eventually

from mdvp.core.errors import StorageError
from mdvp.disk.textfile import Textfile
from mdvp.publisher import Publisher

USER = 4711
BLIND = ("setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace", "--")


@pytest.fixture
def root(short_path: Path) -> Path:
    (short_path / "root").mkdir()
    return short_path / "root"


@pytest.fixture
def plugin(root: Path) -> Iterator[Plugin]:
    with serving(root, root.with_name("mdvp.sock")) as plugin:
        yield plugin


@pytest.fixture
def folder(short_path: Path) -> Path:
    """Return the directory for the file."""
    path = short_path / "metrics"
    path.mkdir()
    return path


def requests(plugin: Plugin, operation: str) -> list[float]:
    """Return how many requests of an operation were done, refused, and failed."""
    found = plugin.metrics()
    counted = [
        found["mdvp_requests_total", operation, outcome] for outcome in ("ok", "refused", "failed")
    ]
    assert found["mdvp_request_duration_seconds_count", operation] == sum(counted)
    return counted


def check(text: bytes) -> None:
    assert promtool("check", "metrics", given=text.decode()) == (0, "")


def get(plugin: Plugin, path: str = "/metrics", method: str = "GET", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.0", *(f"{key}: {text}" for key, text in headers.items())]
    return plugin.raw("\r\n".join([*lines, "", ""]).encode())


# On the socket.


def test_they_are_as_prometheus_wants_them(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    head, _, body = get(plugin).partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    check(body)
    assert b"vol" not in body.replace(b"volume", b"")


def test_they_are_openmetrics_for_who_asks_for_that(plugin: Plugin) -> None:
    answer = get(plugin, Accept="application/openmetrics-text")
    assert b"Content-Type: application/openmetrics-text" in answer
    assert answer.endswith(b"# EOF\n")


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
def test_they_are_text_for_who_asks_for_a_version_that_is_none(plugin: Plugin, kind: str) -> None:
    answer = get(plugin, Accept=f"{kind};version=new")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in answer
    assert "ERROR" not in plugin.stop()


def test_they_follow_a_volume_from_create_to_remove(plugin: Plugin) -> None:
    def figures() -> dict[str, float]:
        found = plugin.metrics()
        return {
            "exclusive": found["mdvp_volumes", "exclusive"],
            "shared": found["mdvp_volumes", "shared"],
            "in use": found["mdvp_volumes_in_use",],
            "waiting": found["mdvp_leases", "waiting"],
        }

    assert figures() == {"exclusive": 0, "shared": 0, "in use": 0, "waiting": 0}
    plugin.call("Create", Name="vol")
    plugin.call("Create", Name="many", Opts={"access": "shared"})
    assert figures() == {"exclusive": 1, "shared": 1, "in use": 0, "waiting": 0}
    plugin.call("Mount", Name="vol", ID="one")
    for mount_id in ("one", "two", "three"):
        plugin.call("Mount", Name="many", ID=mount_id)
    assert figures() == {"exclusive": 1, "shared": 1, "in use": 2, "waiting": 4}
    assert plugin.call("Mount", Name="vol", ID="two").status == 409
    assert figures() == {"exclusive": 1, "shared": 1, "in use": 2, "waiting": 4}
    plugin.call("Unmount", Name="vol", ID="one")
    assert figures() == {"exclusive": 1, "shared": 1, "in use": 1, "waiting": 3}
    plugin.call("Remove", Name="vol")
    assert figures() == {"exclusive": 0, "shared": 1, "in use": 1, "waiting": 3}
    eventually(lambda: plugin.metrics()["mdvp_trash_directories",], 0)


def test_what_is_removed_and_cannot_be_deleted_is_counted(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    below = plugin.root / "vol" / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    removed = plugin.call("Remove", Name="vol")
    assert removed.message == {}
    (trashed,) = (plugin.root / ".mdvp" / "trash").iterdir()
    try:
        assert plugin.metrics()["mdvp_trash_directories",] == 1
        # What is kept for somebody to look at is not on its way out.
        (trashed.parent / "kept-1").mkdir()
        assert plugin.metrics()["mdvp_trash_directories",] == 1
    finally:
        subprocess.run(["umount", "--lazy", trashed / "below"], check=True)


def test_each_request_is_counted_by_what_became_of_it(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Create", Name="../vol")
    plugin.call("Create", Name="vol", Opts={"access": "shared"})
    plugin.call("Mount", Name="vol", ID="one")
    plugin.call("Mount", Name="vol", ID="two")
    plugin.call("Mount", Name="nope", ID="two")
    plugin.call("Path", Name="vol")
    plugin.call("Get", Name="vol")
    plugin.call("List")
    plugin.call("Capabilities")
    plugin.call("Remove", Name="vol")
    plugin.call("Unmount", Name="vol", ID="one")
    plugin.call("Remove", Name="vol")
    plugin.post("/VolumeDriver.List", b"{")
    plugin.post("/VolumeDriver.List", b"", Origin="http://example.com")
    plugin.call("Snapshot")
    assert requests(plugin, "create") == [1, 2, 0]
    assert requests(plugin, "mount") == [1, 2, 0]
    assert requests(plugin, "path") == [1, 0, 0]
    assert requests(plugin, "get") == [1, 0, 0]
    assert requests(plugin, "list") == [1, 2, 0]
    assert requests(plugin, "capabilities") == [1, 0, 0]
    assert requests(plugin, "remove") == [1, 1, 0]
    assert requests(plugin, "unmount") == [1, 0, 0]
    assert requests(plugin, "activate")[1:] == [0, 0]  # the test has asked until it was answered


def test_what_mdvp_could_not_do_has_failed(plugin: Plugin) -> None:
    (plugin.root / ".mdvp" / "new").rmdir()
    assert plugin.call("Create", Name="vol").status == 500
    assert requests(plugin, "create") == [0, 0, 1]


def test_a_get_without_an_answer_has_failed(plugin: Plugin) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        plugin.post("/VolumeDriver.Get", b"")
    assert requests(plugin, "get") == [0, 0, 1]


def test_a_web_page_may_not_read_them(plugin: Plugin) -> None:
    answer = get(plugin, Origin="http://example.com")
    assert b" 403 " in answer
    assert b"mdvp_volumes" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
def test_another_method_is_told_the_right_one(plugin: Plugin, method: str) -> None:
    answer = plugin.post("/metrics", b"", method)
    assert answer.status == 405
    assert f"'{method}' is not for '/metrics': use GET" in answer.error


def test_over_tcp_they_are_had_as_all_else(root: Path, short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = ("127.0.0.1", probe.getsockname()[1])
    with serving(root, address, f"--spec-dir={short_path}") as plugin:
        assert plugin.metrics()["mdvp_volumes_in_use",] == 0


def test_a_container_that_is_seen_holds_its_lease(
    plugin: Plugin, short_path: Path, point: Path
) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Mount", Name="vol", ID="one")

    def leases() -> tuple[float, float]:
        found = plugin.metrics()
        return found["mdvp_leases", "waiting"], found["mdvp_leases", "held"]

    assert leases() == (1, 0)
    with containing(plugin.root / "vol", point, new_container_id(), prepare=ROOT):
        eventually(leases, (0, 1))
        assert plugin.metrics()["mdvp_volumes_had_twice",] == 0
        second = short_path / "second"
        second.mkdir()
        with containing(plugin.root / "vol", second, new_container_id(), prepare=ROOT):
            eventually(lambda: plugin.metrics()["mdvp_volumes_had_twice",], 1)
            assert plugin.metrics()["mdvp_volumes_with_warning",] == 1
            assert plugin.metrics()["mdvp_volumes_in_use",] == 1
    eventually(leases, (0, 0))


def test_who_has_a_volume_without_a_lease_is_counted(plugin: Plugin, point: Path) -> None:
    for name in ("vol", "other"):
        plugin.call("Create", Name=name)
    (plugin.root / "vol" / "below").mkdir()
    with holding(plugin.root / "vol" / "below", point, BIND):
        eventually(lambda: plugin.metrics()["mdvp_volumes_in_use",], 1)
    eventually(lambda: plugin.metrics()["mdvp_volumes_in_use",], 0)


def test_leases_that_are_reclaimed_are_counted(root: Path) -> None:
    with serving(root, root.with_name("mdvp.sock"), GRACE="1") as plugin:
        for name in ("one", "two"):
            plugin.call("Create", Name=name)
            plugin.call("Mount", Name=name, ID="a")
        assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 0
        eventually(lambda: plugin.call("Mount", Name="one", ID="b").status, 200)
        assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 1
        eventually(lambda: plugin.call("Remove", Name="two").status, 200)
        assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 2


def test_where_nothing_can_be_seen_that_is_shown(root: Path) -> None:
    with serving(root, root.with_name("mdvp.sock"), prefix=BLIND) as plugin:
        for name in ("one", "two"):
            plugin.call("Create", Name=name)
        plugin.call("Mount", Name="one", ID="a")
        found = plugin.metrics()
        assert found["mdvp_host_visible",] == 0
        assert found["mdvp_volumes_with_warning",] == 2
        assert found["mdvp_volumes_in_use",] == found["mdvp_leases", "waiting"] == 1


def test_a_volume_with_a_warning_is_counted(root: Path) -> None:
    root.chmod(0o1777)
    with serving(root, root.with_name("mdvp.sock")) as plugin:
        plugin.call("Create", Name="ours")
        plugin.call("Create", Name="theirs", Opts={"uid": str(USER)})
        assert plugin.metrics()["mdvp_host_visible",] == 1
        assert plugin.metrics()["mdvp_volumes_with_warning",] == 1


def test_more_volumes_than_are_read_at_a_time_are_counted_once_each(plugin: Plugin) -> None:
    for number in range(120):
        plugin.call("Create", Name=f"vol{number}")
        if number % 3 == 0:
            plugin.call("Mount", Name=f"vol{number}", ID="a")
    found = plugin.metrics()
    assert found["mdvp_volumes", "exclusive"] == 120
    assert found["mdvp_volumes_in_use",] == found["mdvp_leases", "waiting"] == 40


# In a file.


@contextmanager
def writing(root: Path, folder: Path, *arguments: str, **environ: str) -> Iterator[Plugin]:
    with serving(root, root.with_name("mdvp.sock"), *arguments, **environ) as plugin:
        eventually((folder / "mdvp.prom").exists, True)
        yield plugin


@pytest.mark.parametrize("by", ["argument", "setting", "both"])
def test_the_file_is_there_as_long_as_mdvp_runs(
    root: Path, folder: Path, short_path: Path, by: str
) -> None:
    arguments = [f"--metrics-dir={folder}"] if by != "setting" else []
    environ = {"setting": str(folder), "both": str(short_path)}
    with writing(root, folder, *arguments, METRICS_DIR=environ.get(by, "")) as plugin:
        file = folder / "mdvp.prom"
        check(file.read_bytes())
        assert samples(file.read_text())["mdvp_host_visible",] == 1
        status = file.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o644)
        assert os.listdir(folder) == ["mdvp.prom"]
        log = plugin.stop()
    assert os.listdir(folder) == []
    assert "WARNING" not in log


def test_what_a_killed_run_left_is_replaced(root: Path, folder: Path) -> None:
    with writing(root, folder, METRICS_DIR=str(folder)) as plugin:
        plugin.kill()
    file = folder / "mdvp.prom"
    assert file.exists()
    os.utime(file, (1, 1))
    (folder / ".mdvp.prom.new").write_text("half a")
    with writing(root, folder, METRICS_DIR=str(folder)) as plugin:
        eventually(lambda: file.stat().st_mtime > 1, True)
        assert os.listdir(folder) == ["mdvp.prom"]


def test_the_null_device_is_nowhere(root: Path) -> None:
    with serving(root, root.with_name("mdvp.sock"), METRICS_DIR="/dev/null") as plugin:
        plugin.call("Create", Name="vol")
        log = plugin.stop()
    assert "metrics" not in log


def test_a_directory_that_is_missing_keeps_nobody_from_volumes(root: Path, folder: Path) -> None:
    missing = folder / "missing"
    with (
        serving(root, root.with_name("mdvp.sock"), METRICS_DIR=str(missing)) as plugin,
        following(plugin) as log,
    ):
        words = f"cannot write the metrics to {missing}/mdvp.prom: there is no such directory"
        eventually(lambda: log.says("WARNING", words), True)
        assert plugin.call("Create", Name="vol").status == 200
        assert plugin.metrics()["mdvp_volumes", "exclusive"] == 1
    assert os.listdir(folder) == []


@pytest.fixture
def silent(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield what puts, in the place of the directory, a file system that never answers."""
    device = os.open("/dev/fuse", os.O_RDWR)

    def silence() -> None:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
        command = ["mount", "--internal-only", "-t", "fuse", "-o", options, "none", str(folder)]
        subprocess.run(command, check=True, pass_fds=[device])

    yield silence
    os.close(device)  # which ends all waiting
    subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_a_file_system_that_does_not_answer_holds_up_nobody(
    root: Path, folder: Path, silent: Callable[[], None], when: str
) -> None:
    if when == "from the start":
        silent()
    with serving(root, root.with_name("mdvp.sock"), METRICS_DIR=str(folder)) as plugin:
        if when == "later":
            eventually((folder / "mdvp.prom").exists, True)
            silent()
        assert plugin.call("Create", Name="vol").status == 200
        assert plugin.metrics()["mdvp_volumes", "exclusive"] == 1
        assert "INFO stopped" in plugin.stop()
        assert plugin.process.returncode == 0


# What can be in the way of the file, and how it is said.


def refusal(folder: Path) -> str:
    with pytest.raises(StorageError) as refused:
        Textfile(folder).write(b"figures\n")
    return str(refused.value)


def test_a_link_in_the_place_of_the_directory_is_not_followed(
    folder: Path, short_path: Path
) -> None:
    link = short_path / "link"
    link.symlink_to(folder)
    (folder / "below").mkdir()
    for way in (link, link / "below"):
        assert "a link is on the way" in refusal(way)
    assert os.listdir(folder) == ["below"]


@pytest.mark.parametrize("name", ["mdvp.prom", ".mdvp.prom.new"])
def test_a_link_in_the_place_of_the_file_is_not_followed(folder: Path, name: str) -> None:
    other = folder / "other"
    other.write_text("somebody's")
    (folder / name).symlink_to(other)
    assert f"{name} is there and is no regular file" in refusal(folder)
    with pytest.raises(StorageError):
        Textfile(folder).remove()
    assert other.read_text() == "somebody's"
    assert (folder / name).is_symlink()


@pytest.mark.parametrize("kind", ["directory", "pipe", "socket"])
def test_what_is_no_file_stays(folder: Path, kind: str) -> None:
    place = folder / "mdvp.prom"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "directory":
                place.mkdir()
            case "pipe":
                os.mkfifo(place)
            case _:
                listener.bind(str(place))
        before = place.lstat()
        assert "no regular file" in refusal(folder)
        assert place.lstat() == before
    assert os.listdir(folder) == ["mdvp.prom"]


def test_a_file_of_another_user_stays(folder: Path) -> None:
    file = folder / "mdvp.prom"
    file.write_text("somebody's")
    os.chown(file, USER, USER)
    assert f"is user {USER}'s" in refusal(folder)
    with pytest.raises(StorageError):
        Textfile(folder).remove()
    assert file.read_text() == "somebody's"


def test_a_file_has_the_same_mode_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        Textfile(folder).write(b"figures\n")
    finally:
        os.umask(before)
    assert (folder / "mdvp.prom").stat().st_mode & 0o7777 == 0o644


def test_who_reads_sees_a_whole_file(folder: Path) -> None:
    file = Textfile(folder)
    file.write(b"old\n")
    with (folder / "mdvp.prom").open("rb") as reading:
        file.write(b"new\n" * 10_000)
        assert reading.read() == b"old\n"
    assert (folder / "mdvp.prom").read_bytes() == b"new\n" * 10_000


def test_a_directory_of_another_user_can_be_written_to_with_what_the_plugin_may(
    root: Path, folder: Path
) -> None:
    os.chown(folder, USER, USER)
    few = ("setpriv", "--bounding-set=-all,+chown,+dac_override,+fowner,+sys_ptrace", "--")
    socket_path = root.with_name("mdvp.sock")
    with serving(root, socket_path, prefix=few, METRICS_DIR=str(folder)) as plugin:
        eventually((folder / "mdvp.prom").exists, True)
        plugin.stop()
    assert os.listdir(folder) == []


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    """Yield a file system of a few kilobytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_directory_has_no_file_rather_than_half_of_one(small: Path) -> None:
    Textfile(small).write(b"figures\n")
    with pytest.raises(StorageError, match="its file system is full: make room"):
        Textfile(small).write(b"x" * 100_000)
    assert (small / "mdvp.prom").read_bytes() == b"figures\n"
    assert os.listdir(small) == ["mdvp.prom"]


def test_a_read_only_directory_is_called_so(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert "it is mounted read-only" in refusal(small)


# The thread that writes it.


class Text:
    """What there is to write; it can be had to fail."""

    def __init__(self) -> None:
        self.number = 0
        self.fails = False

    def __call__(self) -> bytes:
        if self.fails:
            raise ValueError("no figures today")
        self.number += 1
        return b"figures %d\n" % self.number


@contextmanager
def publishing(folder: Path, text: Text) -> Iterator[None]:
    ended: list[bool] = []
    publisher = Publisher(Textfile(folder), text, lambda: ended.append(True), interval=0.01)
    with closing(publisher):
        yield
    assert not ended


def grows(file: Path) -> bool:
    """Say whether it is written anew."""
    before = file.read_bytes()
    return eventually(lambda: file.read_bytes() != before, True)


def test_figures_that_take_long_are_asked_for_more_seldom(folder: Path) -> None:
    asked: list[float] = []

    def slow() -> bytes:
        asked.append(time.monotonic())
        time.sleep(0.02)  # the work that it is
        return b"figures\n"

    with closing(Publisher(Textfile(folder), slow, lambda: None, interval=0.01)):
        eventually(lambda: len(asked) > 1, True)
    assert asked[1] - asked[0] > 20 * 0.02


def test_the_file_is_written_again_and_again_and_goes_in_the_end(folder: Path) -> None:
    with publishing(folder, Text()):
        file = folder / "mdvp.prom"
        eventually(file.exists, True)
        assert grows(file)
        assert grows(file)
    assert os.listdir(folder) == []


def test_a_directory_that_goes_and_comes_back_is_written_to_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = Text()
    with publishing(folder, text):
        eventually((folder / "mdvp.prom").exists, True)
        away = folder.with_name("away")
        folder.rename(away)
        number = text.number
        eventually(lambda: text.number > number + 5, True)
        shutil.rmtree(away)
        folder.mkdir()
        eventually((folder / "mdvp.prom").exists, True)
        eventually(lambda: "written to" in caplog.text, True)
        number = text.number
        eventually(lambda: text.number > number + 5, True)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(f" {folder}")[0] for line in lines] == [
        "cannot write the metrics to",
        "the metrics are written to",
    ]
    assert lines[0].endswith(
        "there is no such directory: make it; mdvp serves on, and tries again every 0.01 s"
    )


def test_figures_that_cannot_be_had_are_not_shown_as_they_were(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = Text()
    file = folder / "mdvp.prom"
    with publishing(folder, text):
        eventually(file.exists, True)
        text.fails = True
        eventually(file.exists, False)
        text.fails = False
        eventually(file.exists, True)
    assert caplog.text.count("no figures today'); mdvp serves on") == 1


@pytest.mark.parametrize("name", ["mdvp.prom", ".mdvp.prom.new"])
def test_a_neighbour_who_swaps_what_is_there_gets_nothing_written_elsewhere(
    folder: Path, short_path: Path, name: str
) -> None:
    os.chown(folder, USER, USER)
    treasure = short_path / "treasure"
    treasure.write_text("root's")
    treasure.chmod(0o600)
    # As fast as it can, a user who owns the directory puts links where mdvp is about to write.
    script = f"""
while :; do
  ln -s {treasure} swap 2>/dev/null; mv -fT swap {name}; rm -f {name}
done
"""
    command = ("setpriv", f"--reuid={USER}", "--clear-groups", "--", "sh", "-c", script)
    text = Text()
    short_path.chmod(0o755)
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as neighbour:
        try:
            with publishing(folder, text):
                eventually(lambda: text.number > 200, True, 3 * DEADLINE)
        finally:
            neighbour.kill()
    assert treasure.read_text() == "root's"
    assert treasure.stat().st_mode & 0o7777 == 0o600
