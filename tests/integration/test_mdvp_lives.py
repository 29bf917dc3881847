"""A lease ends with its container's life, whatever the container does meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from integration.follow import Log, following
from integration.holder import (
    BIND,
    HIDE,
    OWN_NAMESPACE,
    ROOT,
    containing,
    dig,
    hide_now,
    holding,
    kill,
    new_container_id,
    ready,
)
from integration.plugin import Plugin, serving
from support import eventually

CONTAINER = new_container_id()


@pytest.fixture
def root(short_path: Path) -> Path:
    (short_path / "root").mkdir()
    return short_path / "root"


@contextmanager
def served(root: Path) -> Iterator[tuple[Plugin, Log]]:
    with (
        serving(root, root.with_name("mdvp.sock"), GRACE="3600") as plugin,
        following(plugin) as log,
    ):
        yield plugin, log


def mount(plugin: Plugin, mount_id: str) -> str:
    """Ask for the volume; return why it is refused, "" if it is not."""
    answer = plugin.call("Mount", Name="data", ID=mount_id)
    return "" if answer.status == 200 else answer.error


@contextmanager
def container(
    root: Path, point: Path, hide: str, prepare: str = ROOT
) -> Iterator[subprocess.Popen[str]]:
    with containing(root / "data", point, CONTAINER, hide, prepare) as process:
        yield process


@pytest.mark.parametrize("restart", [False, True], ids=["", "mdvp restarted"])
@pytest.mark.parametrize("way", HIDE)
def test_a_container_that_hides_its_view_has_its_volume_until_it_ends(
    root: Path, point: Path, way: str, restart: bool
) -> None:
    with ExitStack() as stack:
        plugin, log = stack.enter_context(served(root))
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        process = stack.enter_context(container(root, point, HIDE[way]))
        eventually(lambda: log.says("data is mounted in container", CONTAINER[:12]), True)
        hide_now(process)
        if restart:
            plugin.kill()
            plugin, _ = stack.enter_context(served(root))
        assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
        # The engine's word does not end it, either.
        plugin.call("Unmount", Name="data", ID="one")
        assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
        kill(process)
        assert mount(plugin, "two") == ""


def test_a_container_that_is_being_set_up_is_not_taken_for_started(root: Path, point: Path) -> None:
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        # It has the host's root yet, and what it shows may be but a copy of what the host has.
        with holding(root / "data", point, container=CONTAINER) as process:
            for _ in range(3):
                status = plugin.call("Get", Name="data").message["Volume"]["Status"]
                assert status["mounted_by"] == [CONTAINER]
            kill(process)
        assert "mount one has had it" in mount(plugin, "two")
        assert not log.says("is mounted in")


def test_a_container_has_its_volume_when_the_directory_is_renamed(root: Path, point: Path) -> None:
    with served(root) as (plugin, _):
        plugin.call("Create", Name="data")
        # Without a lease, too: the directory is known by what it is, not by its name.
        with holding(root / "data", point, container=CONTAINER) as process:
            (root / "data").rename(root / "moved")
            assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
            assert not (root / "data").exists()
            kill(process)
        assert mount(plugin, "two") == ""


def test_a_volume_that_was_moved_to_where_nobody_can_tell_is_its_containers(
    root: Path, point: Path
) -> None:
    with served(root) as (plugin, log):
        for name in ("data", "other"):
            plugin.call("Create", Name=name)
        assert mount(plugin, "one") == ""
        with container(root, point, "") as process:
            eventually(lambda: log.says("data is mounted in container", CONTAINER[:12]), True)
            os.rename(root / "data", "moved", dst_dir_fd=dig(root.parent))
            assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
            kill(process)
        eventually(lambda: log.count("ERROR volume data: its directory has been moved to"), 1)
        # Of the others is known what there is to be known, and none is stuck.
        for name in ("data", "other"):
            assert plugin.call("Remove", Name=name).status == 200
        assert not log.says("Traceback")


def test_a_stale_mount_id_does_not_get_what_somebody_else_has(root: Path, point: Path) -> None:
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        assert mount(plugin, "stale") == ""
        with holding(root / "data", point) as own:
            eventually(lambda: log.says("data is mounted in process"), True)
            with holding(root / "data", point, container=CONTAINER):
                kill(own)
                # It lives on its own, and the ID is that of one that has ended.
                assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "stale")


def test_two_containers_with_an_exclusive_volume_are_an_error_once(root: Path, point: Path) -> None:
    other = new_container_id()
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        with (
            holding(root / "data", point, container=CONTAINER),
            holding(root / "data", point, container=other),
        ):
            for _ in range(3):
                status = plugin.call("Get", Name="data").message["Volume"]["Status"]
            assert set(status["mounted_by"]) == {CONTAINER, other}
            assert "several containers" in status["warnings"][0]
            both = CONTAINER[:12], other[:12]
            eventually(lambda: log.count("ERROR volume data is exclusive", *both), 1)


def test_what_is_put_in_the_place_of_a_volume_while_a_container_starts_is_an_error(
    root: Path, point: Path
) -> None:
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        (root / "data").rename(root / "moved")
        (root / "data").symlink_to("/etc")
        with holding("/etc", point, BIND, container=CONTAINER):
            eventually(lambda: log.count("ERROR volume data: what is at", "(mount one)"), 1)


HANDED = "ERROR volume data was mounted for a container that does not show (mount one)"


@pytest.mark.parametrize("source", ["/etc", None], ids=["something else", "nothing"])
def test_a_container_that_was_handed_something_else_for_a_moment_is_an_error(
    root: Path, point: Path, source: str | None
) -> None:
    script = ROOT.replace('"$1"', source) if source else ROOT[: ROOT.rindex("mount")]
    with served(root) as (plugin, log):
        root.chmod(0o1777)  # where its owner can put something else in the volume's place
        plugin.call("Create", Name="data", Opts={"uid": "1000"})
        assert mount(plugin, "one") == ""
        with container(root, point, "", script):
            if source:
                eventually(lambda: log.count(HANDED, f"container {CONTAINER[:12]}, which"), 1)
            else:  # until a second one shows that it would have been said
                other = new_container_id()
                with holding("/etc", point, container=other):
                    eventually(lambda: log.count(HANDED), 1)
                    assert log.count(HANDED, f" {other[:12]}, which") == 1


# While the engine, here this process, is at work in the volume.


@contextmanager
def working(root: Path) -> Iterator[None]:
    with (root / "data" / "copy").open("w"):
        yield


def test_a_mount_that_was_given_back_and_asked_for_again_waits(root: Path, point: Path) -> None:
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        with container(root, point, "") as process:
            eventually(lambda: log.says("data is mounted in container", CONTAINER[:12]), True)
            # As at a clean stop of an engine whose containers live on.
            plugin.call("Unmount", Name="data", ID="one")
            assert mount(plugin, "one") == ""
            kill(process)
        with working(root):
            assert "mount one has had it" in mount(plugin, "two")
        plugin.call("Unmount", Name="data", ID="one")
        assert mount(plugin, "two") == ""


def test_who_passes_by_while_the_engine_is_at_work_is_not_whom_it_works_for(
    root: Path, point: Path
) -> None:
    with served(root) as (plugin, log):
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        with working(root):
            with container(root, point, ""):
                assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
            assert "mount one has had it" in mount(plugin, "two")
        assert not log.says("is mounted in")


def test_a_container_is_known_that_starts_by_the_id_of_one_that_has_ended(
    root: Path, point: Path
) -> None:
    other = new_container_id()
    with served(root) as (plugin, log), ExitStack() as stack:
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        first = stack.enter_context(containing(root / "data", point, CONTAINER))
        eventually(lambda: log.says("data is mounted in container", CONTAINER[:12]), True)
        # docker cp, and then container and engine are killed; it is started again.
        assert mount(plugin, "one") == ""
        kill(first)
        assert mount(plugin, "one") == ""
        hide = HIDE["chroot with a file open"]
        second = stack.enter_context(containing(root / "data", point, other, hide))
        eventually(lambda: log.says("data is mounted in container", other[:12]), True)
        assert mount(plugin, "one") == ""  # docker cp
        hide_now(second)
        assert f"container {other[:12]} has had it" in mount(plugin, "two")


def test_a_container_is_known_though_another_has_taken_its_lease(root: Path, point: Path) -> None:
    with served(root) as (plugin, log), ExitStack() as stack:
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        with holding(root / "data", point) as passing:
            eventually(lambda: log.says("data is mounted in"), True)
            hide = HIDE["chroot with a file open"]
            own = stack.enter_context(containing(root / "data", point, CONTAINER, hide))
            eventually(lambda: CONTAINER in holders(plugin), True)
            hide_now(own)
            kill(passing)
        assert f"container {CONTAINER[:12]} has had it" in mount(plugin, "two")
        kill(own)
        assert mount(plugin, "two") == ""


def holders(plugin: Plugin) -> list[str]:
    shown = plugin.call("Get", Name="data").message["Volume"]["Status"].get("mounted_by", [])
    assert isinstance(shown, list)
    return shown


def test_a_container_is_known_that_came_by_a_shared_lease_of_another(
    root: Path, point: Path
) -> None:
    with served(root) as (plugin, log), ExitStack() as stack:
        plugin.call("Create", Name="data", Opts={"access": "shared"})
        names = [new_container_id() for _ in range(3)]
        for mount_id in ("a", "b"):
            assert mount(plugin, mount_id) == ""
        first, second = (
            stack.enter_context(containing(root / "data", point, name)) for name in names[:2]
        )
        eventually(lambda: log.says("data is mounted in container"), True)
        kill(first)
        plugin.call("Unmount", Name="data", ID="a")
        assert mount(plugin, "a") == ""
        hide = HIDE["chroot with a file open"]
        third = stack.enter_context(containing(root / "data", point, names[2], hide))
        eventually(lambda: names[2] in holders(plugin), True)
        hide_now(third)
        kill(second)
        for mount_id in ("a", "b"):
            plugin.call("Unmount", Name="data", ID=mount_id)
        assert f"container {names[2][:12]} has had it" in plugin.call("Remove", Name="data").error
        kill(third)
        assert plugin.call("Remove", Name="data").status == 200


def test_an_engine_that_is_gone_does_not_make_a_holder_of_what_another_has_started(
    root: Path, point: Path
) -> None:
    ask = """
import json, sys
from pathlib import Path
from integration.plugin import Plugin
Plugin(Path(), Path(sys.argv[1]), None).call("Mount", Name="data", ID="old")
"""
    untar = """
import subprocess, sys
subprocess.run(["mount", "--bind", *sys.argv[1:]], check=True)
print("ready", flush=True)
sys.stdin.read()
"""
    with served(root) as (plugin, log), ExitStack() as stack:
        plugin.call("Create", Name="data", Opts={"access": "shared"})
        path = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", ask, str(plugin.address)], env=path, check=True)
        other = point.with_name("other")
        other.mkdir()
        stack.enter_context(container(root, point, ""))
        eventually(lambda: log.says("data is mounted in container", CONTAINER[:12]), True)
        assert mount(plugin, "new") == ""
        command = (*OWN_NAMESPACE, sys.executable, "-c", untar, root / "data", other)
        with ready(command):
            status = plugin.call("Get", Name="data").message["Volume"]["Status"]
            assert status["mounted_by"] == [CONTAINER]


def test_an_engine_that_may_not_be_looked_at_is_not_gone(root: Path) -> None:
    # In a user namespace of its own mdvp has all capabilities, and none over processes outside.
    prefix = ("unshare", "--user", "--map-root-user", "--")
    socket = root.with_name("mdvp.sock")
    with serving(root, socket, prefix=prefix, GRACE="3600") as plugin:
        plugin.call("Create", Name="data")
        assert mount(plugin, "one") == ""
        # Where there are containers, it may not look at these, either, and so knows nothing.
        refusal = mount(plugin, "two")
        assert "mount one has had it" in refusal
        assert "is gone" not in refusal
