"""What Moby expects of a managed volume plugin: that it comes, stays and goes with the engine.

Moby's own tests say what that is: integration-cli's docker_cli_daemon_plugins_test.go and
docker_cli_plugins_test.go; each test here names the one that it follows. Those that need a registry
(installation, upgrade) or are about the engine alone (its lists, its metrics) are left out.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Docker
from support import eventually

PLUGIN = "mdvp-managed"
BASE = "debian:trixie-slim"


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    """Yield the directory of the volumes of a plugin named PLUGIN."""
    yield docker.build_plugin(PLUGIN, "managed")
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture
def plugin(docker: Docker, data: Path) -> Iterator[str]:
    """Yield the name of an enabled plugin without volumes, and leave the engine as it was."""
    docker("plugin", "enable", PLUGIN)
    yield PLUGIN
    restart(docker)
    for name in docker("volume", "ls", "--quiet", "--filter", f"driver={PLUGIN}:latest").split():
        docker("volume", "rm", name)
    if is_enabled(docker):
        docker("plugin", "disable", PLUGIN)
    assert [path.name for path in data.iterdir()] == [".mdvp"]


def restart(docker: Docker, *flags: str) -> None:
    docker.engine.stop()
    docker.engine.start(*flags)


def is_enabled(docker: Docker) -> bool:
    return docker("plugin", "inspect", "--format", "{{.Enabled}}", PLUGIN) == "true"


def processes(docker: Docker) -> list[str]:
    """Return the pids of the plugins that run, as the engine's machine numbers them."""
    return docker.engine.run("pgrep", "--full", "mdvp/bin/mdvp", check=False).stdout.split()


def test_one_container_sees_what_another_wrote(docker: Docker, plugin: str) -> None:
    """Moby: TestVolumePlugin."""
    docker("volume", "create", "-d", plugin, "vol")
    assert f"{plugin}:latest vol" in docker(
        "volume", "ls", "--format", "{{.Driver}} {{.Name}}"
    ).split("\n")
    docker("run", "--rm", "--volume=vol:/data", BASE, "touch", "/data/file")
    assert docker("run", "--rm", "--volume=vol:/data", BASE, "ls", "/data") == "file"


def test_an_enabled_plugin_ends_with_the_engine_and_is_back_with_it(
    docker: Docker, plugin: str
) -> None:
    """Moby: TestDaemonRestartWithPluginEnabled, TestDaemonShutdownWithPlugins."""
    docker("volume", "create", "-d", plugin, "vol")
    assert processes(docker)
    docker.engine.stop()
    assert processes(docker) == []
    docker.engine.start()
    assert processes(docker)
    assert is_enabled(docker)
    docker("run", "--rm", "--volume=vol:/data", BASE, "true")


def test_a_disabled_plugin_stays_disabled_and_its_volumes_stay_where_they_are(
    docker: Docker, data: Path, plugin: str
) -> None:
    """Moby: TestDaemonRestartWithPluginDisabled, TestPluginInstallDisableVolumeLs."""
    docker("volume", "create", "-d", plugin, "vol")
    docker("plugin", "disable", "--force", plugin)
    restart(docker)
    assert not is_enabled(docker)
    docker("volume", "ls")
    assert (data / "vol").is_dir()
    docker("plugin", "enable", plugin)
    docker("run", "--rm", "--volume=vol:/data", BASE, "true")


@pytest.mark.parametrize(
    ("flags", "end"), [((), "kill"), (("--live-restore",), "kill"), (("--live-restore",), "stop")]
)
def test_a_plugin_outlives_an_engine_that_is_killed_or_lets_containers_live(
    docker: Docker, plugin: str, flags: tuple[str, ...], end: str
) -> None:
    """Moby: TestDaemonKillWithPlugins, TestDaemon{Kill,Shutdown}LiveRestoreWithPlugins.

    What the plugin is good for afterwards is not asked here: an engine that was killed without
    live-restore starts it anew, and may then take away the new one's mount, thinking of the old one
    (Moby: pkg/plugin, Manager.HandleExitEvent).
    """
    restart(docker, *flags)
    docker("volume", "create", "-d", plugin, "vol")
    docker("run", "--rm", "--detach", "--init", "--name=bystander", BASE, "sleep", "infinity")
    before = processes(docker)
    getattr(docker.engine, end)()
    assert processes(docker) == before != []
    docker.engine.start(*flags)
    eventually(lambda: len(processes(docker)), len(before))
    assert docker("volume", "ls", "--quiet", "--filter", f"driver={plugin}:latest") == "vol"
    # With --rm, it is gone already where it ended with the engine.
    docker("rm", "--force", "bystander")


@pytest.mark.parametrize("flags", [(), ("--live-restore",)])
def test_a_plugin_with_volumes_is_not_disabled_after_a_restart_either(
    docker: Docker, plugin: str, flags: tuple[str, ...]
) -> None:
    """Moby: TestPluginActive, TestPluginVolumeRemoveOnRestart."""
    docker("volume", "create", "-d", plugin, "vol")
    assert "in use" in docker.refused("plugin", "disable", plugin)
    restart(docker, *flags)
    assert "in use" in docker.refused("plugin", "disable", plugin)
    docker("volume", "rm", "vol")
    docker("plugin", "disable", plugin)


def test_a_refused_volume_does_not_count_as_one_of_the_plugins(docker: Docker, plugin: str) -> None:
    """Moby: TestDefererencePluginOnCreateError."""
    docker.refused("volume", "create", "-d", plugin, "-o", "no=such", "bad")
    docker("plugin", "disable", plugin)


def test_the_plugin_is_listed_as_a_volume_driver(docker: Docker, plugin: str) -> None:
    """Moby: TestPluginListFilterCapability."""

    def names(capability: str) -> list[str]:
        listed = docker(
            *("plugin", "ls", "--filter", f"capability={capability}", "--format", "{{.Name}}")
        )
        return listed.split()

    assert f"{plugin}:latest" in names("volumedriver")
    assert f"{plugin}:latest" not in names("authz")


def test_nothing_is_left_of_a_plugin_removed_by_force_but_its_volumes(docker: Docker) -> None:
    """Moby: TestPluginForceRemove, TestPluginBasicOps."""
    data = docker.build_plugin("goes", "goes")
    mounts = Path(f"/proc/{docker.engine.pid}/mountinfo")
    before = len(mounts.read_text().splitlines())
    docker("plugin", "enable", "goes")
    assert "is enabled" in docker.refused("plugin", "rm", "goes")
    docker("volume", "create", "-d", "goes", "vol")
    (plugin,) = json.loads(docker("plugin", "inspect", "goes"))
    files = Path(docker("info", "--format", "{{.DockerRootDir}}")) / "plugins" / plugin["Id"]
    assert files.is_dir()
    docker("plugin", "rm", "--force", "goes")
    assert not files.exists()
    assert len(mounts.read_text().splitlines()) == before
    assert (data / "vol").is_dir()


def test_volumes_can_be_had_after_an_idle_engine_that_lets_containers_live_is_restarted(
    docker: Docker, data: Path, plugin: str
) -> None:
    """Moby: TestDaemonShutdownLiveRestoreWithPlugins, and then a container.

    With no container running, the engine lets the plugin live but takes away the mount over which
    containers get its volumes (Moby: pkg/plugin, Manager.Shutdown). A plugin that ends is started
    again, with that mount.
    """
    restart(docker, "--live-restore")
    docker("volume", "create", "-d", plugin, "vol")
    restart(docker, "--live-restore")
    docker("run", "--rm", "--volume=vol:/data", BASE, "touch", "/data/file")
    # An engine that cannot ask the plugin would have made a volume of its own, by the same name.
    assert (data / "vol" / "file").exists()
