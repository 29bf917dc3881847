"""Mounts that wait their turn, in a real mdvp process and with real containers' namespaces."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.follow import Log, following
from integration.holder import containing, kill, new_container_id
from integration.plugin import Address, Answer, Plugin, connected, serving
from support import eventually

CONTAINER = new_container_id()
REGULAR = 4  # threads that answer
PROMPT = 0.1  # seconds


@pytest.fixture
def root(short_path: Path) -> Path:
    (short_path / "root").mkdir()
    return short_path / "root"


@pytest.fixture
def plugin(root: Path) -> Iterator[Plugin]:
    with serving(root, root.with_name("mdvp.sock"), GRACE="3600") as plugin:
        create(plugin)
        yield plugin


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(120) as pool:
        yield pool


def create(plugin: Plugin, name: str = "data", **options: str) -> None:
    opts = {"wait": "60s", **options}
    assert plugin.call("Create", Name=name, Opts=opts).message == {}


def mount(plugin: Plugin, mount_id: str, name: str = "data") -> Answer:
    return plugin.call("Mount", Name=name, ID=mount_id)


def unmount(plugin: Plugin, mount_id: str, name: str = "data") -> None:
    assert plugin.call("Unmount", Name=name, ID=mount_id).status == 200


def status(plugin: Plugin, name: str = "data") -> dict[str, object]:
    found: dict[str, object] = plugin.call("Get", Name=name).message["Volume"]["Status"]
    return found


def waiting(plugin: Plugin, name: str = "data") -> object:
    return status(plugin, name).get("waiting", 0)


def wait(
    plugin: Plugin, pool: ThreadPoolExecutor, *mount_ids: str, name: str = "data"
) -> list[Future[Answer]]:
    """Have these wait, one behind the other."""
    futures = []
    for mount_id in mount_ids:
        number = int(str(waiting(plugin, name))) + 1
        futures.append(pool.submit(mount, plugin, mount_id, name))
        eventually(lambda: waiting(plugin, name), number)
    return futures


def quickest(operation: Callable[[], object], times: int = 5) -> float:
    """Return the seconds that it takes when the machine has nothing else to do for that long."""

    def took() -> float:
        began = time.perf_counter()
        operation()
        return time.perf_counter() - began

    return min(took() for _ in range(times))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def threads(plugin: Plugin) -> int:
    return len(list(Path(f"/proc/{plugin.process.pid}/task").iterdir()))


def test_ten_have_it_in_the_order_in_which_they_came(
    plugin: Plugin, pool: ThreadPoolExecutor
) -> None:
    mount(plugin, "first")
    names = [f"n{number}" for number in range(10)]
    futures = wait(plugin, pool, *names)
    assert plugin.metrics()["mdvp_mounts_waiting",] == 10
    for before, name, future in zip(["first", *names], names, futures, strict=False):
        assert not future.done()
        unmount(plugin, before)
        assert future.result(10).message == {"Mountpoint": str(plugin.root / "data")}
        assert status(plugin)["mount_ids"] == [name]
    assert waiting(plugin) == 0
    assert plugin.metrics()["mdvp_mounts_waiting",] == 0


def test_one_that_has_it_may_have_it_again_at_once(
    plugin: Plugin, pool: ThreadPoolExecutor
) -> None:
    mount(plugin, "first")
    (second,) = wait(plugin, pool, "second")
    assert mount(plugin, "first").status == 200  # docker cp
    unmount(plugin, "first")
    assert not second.done()
    unmount(plugin, "first")
    assert second.result(10).status == 200


def test_a_shared_volume_is_never_waited_for(plugin: Plugin) -> None:
    create(plugin, "shared", access="shared")
    for mount_id in ("one", "two"):
        assert mount(plugin, mount_id, "shared").status == 200


def test_it_is_refused_in_the_end_in_words(plugin: Plugin) -> None:
    create(plugin, "short", wait="1s")
    mount(plugin, "first", "short")
    answer = mount(plugin, "second", "short")
    assert answer.status == 409
    assert "volume 'short' is in use: mount first has had it since " in answer.error
    assert answer.error.endswith("; this one has waited 1 s for its turn")


@contextmanager
def in_use(root: Path, point: Path, log: Log) -> Iterator[Callable[[], None]]:
    """Have a container with the volume, which mdvp has seen; yield what ends it."""
    seen = log.count("data is mounted in container", CONTAINER[:12])
    with containing(root / "data", point, CONTAINER) as process:
        eventually(lambda: log.count("data is mounted in container", CONTAINER[:12]), seen + 1)
        yield lambda: kill(process)


def test_it_is_granted_soon_after_the_container_ends_whatever_the_engine_says(
    plugin: Plugin, pool: ThreadPoolExecutor, root: Path, point: Path
) -> None:
    with following(plugin) as log:

        def slowest(times: int = 4) -> float:
            return max(hand_on(plugin, pool, root, point, log) for _ in range(times))

        # Four times in a row, while the machine has not too much else to do.
        eventually(lambda: slowest() < PROMPT, True, 60)
        assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 0
        assert not log.says("WARNING")


def hand_on(plugin: Plugin, pool: ThreadPoolExecutor, root: Path, point: Path, log: Log) -> float:
    """Have one container after another; return the seconds from the one's end to the grant."""
    mount(plugin, "one")
    with in_use(root, point, log) as end:
        (future,) = wait(plugin, pool, "next")
        began = time.perf_counter()
        end()
        assert future.result(10).status == 200
        took = time.perf_counter() - began
    # The engine gives back a moment later what has been handed on; that is as it should be.
    unmount(plugin, "one")
    unmount(plugin, "next")
    return took


def test_what_an_engine_that_is_gone_has_left_behind_is_reclaimed_with_a_warning(
    plugin: Plugin, pool: ThreadPoolExecutor, root: Path, point: Path
) -> None:
    gone = "import sys; from integration.plugin import *; " + (
        "Plugin(None, Path(sys.argv[1]), None).call('Mount', Name='data', ID='of another')"
    )
    with following(plugin) as log:
        command = [sys.executable, "-c", gone, str(plugin.socket)]
        subprocess.run(command, cwd=Path(__file__).parents[1], check=True)
        with in_use(root, point, log) as end:
            (future,) = wait(plugin, pool, "second")
            end()
            assert future.result(10).status == 200
        eventually(lambda: log.count("reclaimed from mount of another"), 1)
        assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 1
        unmount(plugin, "of another")
        eventually(lambda: log.count("unmount by of another, which has not mounted it"), 1)


def test_others_are_answered_at_once_while_fifty_wait(
    plugin: Plugin, pool: ThreadPoolExecutor
) -> None:
    before = threads(plugin)
    create(plugin, "other")
    mount(plugin, "first")
    futures = [pool.submit(mount, plugin, f"n{number}") for number in range(50)]
    eventually(lambda: waiting(plugin), 50)
    assert threads(plugin) <= before + 50
    for operation in (
        lambda: plugin.call("List"),
        lambda: plugin.call("Get", Name="data"),
        lambda: plugin.call("Get", Name="other"),
        lambda: mount(plugin, "one", "other"),
        lambda: mount(plugin, "first"),
    ):
        assert quickest(operation) < PROMPT
    # As many at once as ever.
    assert all(pool.submit(plugin.call, "List").result(10).status == 200 for _ in range(REGULAR))
    plugin.process.terminate()
    began = time.perf_counter()
    for future in futures:
        assert "mdvp is being ended while this waits for its turn" in future.result(10).error
    plugin.process.wait(10)
    assert time.perf_counter() - began < 2.0


def test_the_threads_that_stand_in_end_with_the_waiting(
    plugin: Plugin, pool: ThreadPoolExecutor
) -> None:
    create(plugin, "short", wait="1s")
    mount(plugin, "first", "short")
    before = threads(plugin)
    futures = wait(plugin, pool, "one", "two", "three", name="short")
    assert threads(plugin) == before + 3
    for future in futures:
        assert future.result(10).status == 409
    eventually(lambda: threads(plugin), before)
    assert quickest(lambda: plugin.call("List")) < PROMPT


@pytest.mark.parametrize("tcp", [False, True], ids=["", "over TCP"])
def test_who_is_gone_does_not_get_it(root: Path, pool: ThreadPoolExecutor, tcp: bool) -> None:
    address: Address = ("127.0.0.1", free_port()) if tcp else root.with_name("mdvp.sock")
    spec = (f"--spec-dir={root.with_name('spec')}",) if tcp else ()
    with serving(root, address, *spec, GRACE="3600") as plugin:
        create(plugin)
        mount(plugin, "first")
        body = b'{"Name": "data", "ID": "gone"}'
        head = b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n"
        with connected(plugin.address) as client:
            # Something is unread when it goes.
            client.sendall(head % len(body) + body + b"POST")
            eventually(lambda: waiting(plugin), 1)
            (second,) = wait(plugin, pool, "second")
        eventually(lambda: waiting(plugin), 1)
        unmount(plugin, "first")
        assert second.result(10).status == 200
        assert status(plugin)["mount_ids"] == ["second"]
        assert "mount gone waits no more" in plugin.stop()


def test_nothing_is_left_of_who_waited_when_mdvp_is_killed(
    root: Path, pool: ThreadPoolExecutor
) -> None:
    address = root.with_name("mdvp.sock")
    with serving(root, address, GRACE="3600") as plugin:
        create(plugin)
        mount(plugin, "first")
        (second,) = wait(plugin, pool, "second")
        plugin.kill()
        with pytest.raises(ConnectionError):
            second.result(10)
    with serving(root, address, GRACE="3600") as plugin:
        assert status(plugin)["mount_ids"] == ["first"]
        (third,) = wait(plugin, pool, "third")
        unmount(plugin, "first")
        assert third.result(10).status == 200


def test_no_more_wait_than_there_may(plugin: Plugin, pool: ThreadPoolExecutor) -> None:
    mount(plugin, "first")
    for number in range(100):
        pool.submit(mount, plugin, f"n{number}")
    eventually(lambda: waiting(plugin), 100)
    answer = mount(plugin, "one more")
    assert answer.status == 409
    assert answer.error.endswith("and 100 wait already, so this one does not")
    assert quickest(lambda: plugin.call("List")) < PROMPT
    plugin.process.terminate()


def test_who_has_waited_may_make_again_what_has_vanished(
    plugin: Plugin, pool: ThreadPoolExecutor
) -> None:
    mount(plugin, "first")
    one, two = wait(plugin, pool, "one", "two")
    (plugin.root / "data").rmdir()
    (plugin.root / "data").write_text("in its place")
    unmount(plugin, "first")
    for future in (one, two):  # it is no matter of time
        assert "is not the directory that mdvp made" in future.result(10).error
