"""The managed plugin on a real engine, with its volumes in a directory of the test's."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import REPOSITORY, Docker
from support import eventually

PLUGIN = "mdvp-data"
BASE = "debian:trixie-slim"
SLEEPER = ("run", "--detach", "--init", "--name")


@pytest.fixture(scope="module")
def data(docker: Docker) -> Iterator[Path]:
    """Yield the directory of the volumes of an enabled plugin named PLUGIN."""
    data = docker.build_plugin(PLUGIN, "volumes")
    docker("plugin", "enable", PLUGIN)
    yield data
    docker("plugin", "rm", "--force", PLUGIN)


@pytest.fixture
def volume(docker: Docker, data: Path) -> Iterator[str]:
    """Yield the name of a new volume, which nothing but the test's containers has."""
    docker("volume", "create", "-d", PLUGIN, "vol")
    yield "vol"
    for container in docker("ps", "--all", "--quiet", "--filter", "volume=vol").split():
        docker("rm", "--force", container)
    docker("volume", "rm", "vol")
    assert [path.name for path in data.iterdir()] == [".mdvp"]


def start(docker: Docker, name: str, volume: str) -> None:
    docker(*SLEEPER, name, "--volume", f"{volume}:/data", BASE, "sleep", "infinity")


def assert_taken(docker: Docker, volume: str) -> None:
    error = docker.refused("run", "--rm", "--volume", f"{volume}:/data", BASE, "true")
    assert f"volume '{volume}' is in use: " in error


def assert_free(docker: Docker, volume: str) -> None:
    docker("run", "--rm", "--volume", f"{volume}:/data", BASE, "true")


def status(docker: Docker, volume: str) -> dict[str, object]:
    (inspected,) = json.loads(docker("volume", "inspect", volume))
    result: dict[str, object] = inspected["Status"]
    return result


def test_another_root_is_one_setting(docker: Docker, data: Path, volume: str) -> None:
    docker("run", "--rm", "--volume", f"{volume}:/data", BASE, "sh", "-c", "echo hi >/data/file")
    assert (data / volume / "file").read_text() == "hi\n"
    assert not (docker.engine.tmp / volume).exists()


def test_a_container_has_the_volume_from_its_start_to_its_end(docker: Docker, volume: str) -> None:
    assert status(docker, volume) == {"access": "exclusive", "mounted": False}
    start(docker, "holder", volume)
    assert status(docker, volume)["mounted"] is True
    assert_taken(docker, volume)
    docker("stop", "holder")
    assert status(docker, volume) == {"access": "exclusive", "mounted": False}
    assert_free(docker, volume)


def test_a_restarted_container_has_the_volume_again(docker: Docker, volume: str) -> None:
    start(docker, "holder", volume)
    docker("restart", "holder")
    assert_taken(docker, volume)
    docker("stop", "holder")
    assert_free(docker, volume)
    docker("start", "holder")
    assert_taken(docker, volume)


def test_docker_cp_leaves_the_volume_with_its_container(docker: Docker, volume: str) -> None:
    start(docker, "holder", volume)
    docker.inside("holder", "echo hi >/data/file")
    docker("cp", "holder:/data/file", "-")
    assert_taken(docker, volume)
    docker("stop", "holder")
    assert_free(docker, volume)


def test_a_container_removed_by_force_has_the_volume_no_longer(docker: Docker, volume: str) -> None:
    start(docker, "holder", volume)
    docker("rm", "--force", "holder")
    assert_free(docker, volume)


def test_a_volume_in_use_is_not_removed(docker: Docker, data: Path, volume: str) -> None:
    start(docker, "holder", volume)
    docker.refused("volume", "rm", volume)
    assert (data / volume).is_dir()


def test_volumes_and_leases_survive_a_plugin_that_is_disabled_and_enabled(
    docker: Docker, data: Path, volume: str
) -> None:
    start(docker, "holder", volume)
    docker.inside("holder", "echo hi >/data/file")
    docker("plugin", "disable", "--force", PLUGIN)
    docker("plugin", "enable", PLUGIN)
    assert docker("volume", "ls", "--quiet", "--filter", f"driver={PLUGIN}:latest") == volume
    assert (data / volume / "file").read_text() == "hi\n"
    assert_taken(docker, volume)


@pytest.mark.parametrize("name", ["../../etc", ".mdvp", "a/../../b", "a b", "x" * 256])
def test_a_name_that_the_engine_lets_through_is_refused_by_the_plugin(
    docker: Docker, data: Path, name: str
) -> None:
    before = sorted(data.iterdir())
    error = docker.refused("volume", "create", "-d", PLUGIN, name)
    assert "cannot be a volume's name" in error
    assert sorted(data.iterdir()) == before


def test_an_unknown_option_is_refused_by_name(docker: Docker, data: Path) -> None:
    error = docker.refused("volume", "create", "-d", PLUGIN, "-o", "colour=red", "sized")
    assert "unknown volume option 'colour'" in error
    assert "the options are access, uid, " in error
    assert not (data / "sized").exists()


def test_the_engine_logs_the_story_at_fitting_levels(docker: Docker, volume: str) -> None:
    start(docker, "holder", volume)
    assert_taken(docker, volume)

    def levels() -> tuple[bool, bool]:
        lines = docker.engine.log.read_text().splitlines()
        return (
            any("level=info" in line and "volume vol mounted by" in line for line in lines),
            any("level=error" in line and "volume 'vol' is in use" in line for line in lines),
        )

    eventually(levels, (True, True))


@pytest.mark.usefixtures("data")
def test_the_plugin_has_no_more_rights_than_it_uses(docker: Docker) -> None:
    (plugin,) = json.loads(docker("plugin", "inspect", PLUGIN))
    config = plugin["Config"]
    assert config["Network"]["Type"] == "none"
    assert config["Linux"]["Capabilities"] == ["CAP_SYS_PTRACE"]
    assert not config["Linux"]["AllowAllDevices"]
    # CHOWN, DAC_OVERRIDE, FOWNER and SYS_PTRACE: linux/capability.h.
    proc = process_status(docker, "mdvp/bin/mdvp")
    assert int(proc["CapEff"], 16) == int(proc["CapBnd"], 16) == 1 << 0 | 1 << 1 | 1 << 3 | 1 << 19
    assert proc["NoNewPrivs"] == "1"


def process_id(docker: Docker, command: str) -> str:
    return docker.engine.run("pgrep", "--full", "--oldest", command).stdout.strip()


def process_status(docker: Docker, command: str) -> dict[str, str]:
    text = docker.engine.run("cat", f"/proc/{process_id(docker, command)}/status").stdout
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


@pytest.fixture
def rootfs(data: Path) -> Path:  # noqa: ARG001  # built for it
    """Return the root file system that the plugin was made of."""
    return REPOSITORY / "plugin" / "rootfs"


def test_the_rootfs_has_no_program_that_does_not_run_mdvp(rootfs: Path) -> None:
    programs = {
        f"{directory}/{path.name}"
        for directory in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/mdvp/bin")
        if (rootfs / directory).exists()
        for path in (rootfs / directory).iterdir()
        if not path.name.startswith("python")
    }
    assert programs == {"usr/bin/setpriv", "opt/mdvp/bin/mdvp"}
    names = {path.name for path in rootfs.rglob("*")}
    assert "libc.so.6" in names
    assert not names & {
        *("sh", "bash", "dash", "busybox", "apt", "pip", "gcc"),
        *("hiredis", "pathspec", "pyinotify.py"),  # which the other part alone needs
    }
    setuid = [path for path in rootfs.rglob("*") if path.is_file() and path.stat().st_mode & 0o6000]
    assert not setuid


def test_the_rootfs_is_small(rootfs: Path) -> None:
    size = sum(path.lstat().st_size for path in rootfs.rglob("*") if not path.is_dir())
    assert 10_000_000 < size < 80_000_000


def test_the_rootfs_names_its_packages_and_their_licences(rootfs: Path) -> None:
    assert "trixie" in (rootfs / "etc/os-release").read_text()
    status = (rootfs / "var/lib/dpkg/status").read_text()
    packages = re.findall(r"^Package: (.+)$", status, re.MULTILINE)
    versions = re.findall(r"^Version: .+$", status, re.MULTILINE)
    assert {"libc6", "libsqlite3-0", "python3.13-minimal"} <= set(packages)
    assert len(versions) == len(packages) == status.count("Status: install ok installed\n\n")
    for package in packages:
        assert (rootfs / "usr/share/doc" / package / "copyright").is_file(), package


def test_the_plugin_writes_no_bytecode(docker: Docker, rootfs: Path, volume: str) -> None:
    assert_free(docker, volume)
    pid = process_id(docker, "mdvp/bin/mdvp")
    # Only what the plugin was given, not the volumes that are mounted there.
    found = docker.engine.run("find", f"/proc/{pid}/root/", "-xdev", "-name", "*.pyc").stdout
    running = {line.partition("/root/")[2] for line in found.splitlines()}
    assert running == {str(path.relative_to(rootfs)) for path in rootfs.rglob("*.pyc")}


def test_a_plugin_in_use_is_not_replaced(docker: Docker, volume: str) -> None:
    start(docker, "holder", volume)
    done = docker.script("build_plugin.sh", check=False, PLUGIN_NAME=PLUGIN)
    assert done.returncode == 1
    assert f"{PLUGIN} is in use: container holder has the volume {volume}" in done.stderr
    assert docker("plugin", "inspect", "--format", "{{.Enabled}}", PLUGIN) == "true"
    assert_taken(docker, volume)


def test_a_plugin_not_in_use_is_replaced_and_keeps_its_settings_and_volumes(
    docker: Docker, data: Path, volume: str
) -> None:
    (data / volume / "file").write_text("stays")
    before = docker("plugin", "inspect", "--format", "{{.Id}}", PLUGIN)
    docker.script("build_plugin.sh", "--enable", PLUGIN_NAME=PLUGIN)
    assert docker("plugin", "inspect", "--format", "{{.Id}}", PLUGIN) != before
    assert docker("plugin", "inspect", "--format", "{{.Enabled}}", PLUGIN) == "true"
    shown = docker("run", "--rm", "--volume", f"{volume}:/data", BASE, "cat", "/data/file")
    assert shown == "stays"


# A docker command with which the n-th step of what replaces a plugin fails.
FAILING = """#!/bin/sh
case "$1 $2" in
    "{step}") echo "no $2 today" >&2; exit 1 ;;
    *) exec {docker} "$@" ;;
esac
"""


@pytest.mark.parametrize("step", ["plugin create", "plugin set"])
def test_a_replacement_that_is_cut_off_leaves_the_settings_to_the_next(
    docker: Docker, data: Path, volume: str, tmp_path: Path, step: str
) -> None:
    failing = tmp_path / "docker"
    failing.write_text(FAILING.format(step=step, docker=shutil.which("docker")))
    failing.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = docker.script("build_plugin.sh", check=False, PLUGIN_NAME=PLUGIN, PATH=path)
    assert done.returncode == 1
    assert "today" in done.stderr
    assert "settings" in done.stderr.splitlines()[-1]
    docker.script("build_plugin.sh", "--enable", PLUGIN_NAME=PLUGIN)
    settings = docker("plugin", "inspect", "--format", "{{json .Settings.Mounts}}", PLUGIN)
    assert f'"{data}"' in settings
    assert not any((REPOSITORY / "plugin" / "settings").iterdir())
    assert status(docker, volume) == {"access": "exclusive", "mounted": False}


def test_the_plugin_can_be_created_by_hand(docker: Docker, data: Path, volume: str) -> None:
    docker("plugin", "disable", "--force", PLUGIN)
    docker("plugin", "rm", "--force", PLUGIN)
    docker("plugin", "create", PLUGIN, str(REPOSITORY / "plugin"))
    docker("plugin", "set", PLUGIN, f"data.source={data}", "LOG_LEVEL=DEBUG")
    docker("plugin", "enable", PLUGIN)
    assert status(docker, volume) == {"access": "exclusive", "mounted": False}


@pytest.fixture
def as_json(docker: Docker, volume: str) -> Iterator[str]:
    """Yield the name of a volume of the plugin, which logs as JSON for the time of the test."""
    for form in ("json", "text"):
        docker("plugin", "disable", "--force", PLUGIN)
        docker("plugin", "set", PLUGIN, f"LOG_FORMAT={form}")
        docker("plugin", "enable", PLUGIN)
        if form == "json":
            yield volume


def test_a_line_of_json_is_one_line_of_the_engines_log(docker: Docker, as_json: str) -> None:
    began = docker.engine.log.stat().st_size
    start(docker, "holder", as_json)
    assert_taken(docker, as_json)

    def events() -> set[tuple[str, str]]:
        lines = docker.engine.log.read_bytes()[began:].decode().splitlines()
        said = [re.search(r'level=(\w+) msg=("\{.*\}") plugin=', line) for line in lines]
        found = [(each[1], json.loads(json.loads(each[2]))) for each in said if each]
        return {(level, line["event"]) for level, line in found if line["volume"] == as_json}

    expected = {("info", "mounted"), ("error", "mount_refused")}
    eventually(lambda: events() >= expected, True)


@pytest.mark.usefixtures("data")
def test_a_second_plugin_can_stand_beside_the_first_under_another_name(docker: Docker) -> None:
    docker.script("build_plugin.sh", PLUGIN_NAME="second")
    names = docker("plugin", "ls", "--format", "{{.Name}}").split()
    assert {f"{PLUGIN}:latest", "second:latest"} <= set(names)
    docker("plugin", "rm", "second")


@pytest.fixture(params=["pidhost", "CAP_SYS_PTRACE"])
def blinded(
    request: pytest.FixtureRequest, docker: Docker, data: Path, tmp_path: Path
) -> Iterator[tuple[str, str]]:
    """Yield a plugin that cannot see the host's processes: what it lacks, and its name."""
    lack = str(request.param)
    config = json.loads((REPOSITORY / "plugin" / "config.json").read_text())
    if lack == "pidhost":
        config["pidhost"] = False
    else:
        config["linux"]["capabilities"] = []
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copytree(REPOSITORY / "plugin" / "rootfs", tmp_path / "rootfs", symlinks=True)
    # The engine refuses a second plugin of the very same content.
    (tmp_path / "rootfs" / "etc" / "mdvp-plugin").write_text(f"blinded {lack}\n")
    source = data.with_name(f"blinded-{lack}")
    source.mkdir()
    docker("plugin", "create", "blinded", str(tmp_path))
    docker("plugin", "set", "blinded", f"data.source={source}", "GRACE=1")
    docker("plugin", "enable", "blinded")
    yield lack, "blinded"
    docker("plugin", "rm", "--force", "blinded")


def test_a_plugin_that_cannot_see_processes_says_so_and_goes_by_the_engines_words(
    docker: Docker, blinded: tuple[str, str]
) -> None:
    lack, plugin = blinded
    docker("volume", "create", "-d", plugin, "unseen")
    assert lack in str(status(docker, "unseen")["warnings"])
    assert "cannot see which containers have volumes mounted" in docker.engine.log.read_text()
    start(docker, "holder", "unseen")
    error = docker.refused("run", "--rm", "--volume", "unseen:/data", BASE, "true")
    assert "mdvp cannot see whether its container lives" in error
    docker("rm", "--force", "holder")
    assert_free(docker, "unseen")
    docker("volume", "rm", "unseen")
