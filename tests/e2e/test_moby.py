"""What Moby expects of a volume driver, shown with mdvp on an engine of this module's own.

Moby's own tests say what that is, most of all integration-cli's DockerExternalVolumeSuite; each
test here names the one that it follows. They are about a driver's calls: which ones the engine
makes for a command, and that the answers are what it can work with. A recorder between the engine
and mdvp has seen them.

Left out are those of Moby's tests that ask nothing of a driver (one that is down does not block
others, the API's handling of bad JSON, Swarm, subpaths, how a bind is shared), and the one for a
driver that answers Get with nothing, which mdvp cannot.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Docker
from e2e.engine import PrivateEngine
from e2e.recorder import Recorder, recording
from support import eventually

DRIVER = "recorded"
BASE = "debian:trixie-slim"
SLEEPER = ("run", "--detach", "--init", "--name")
RUN_ONCE = ("run", "--rm")


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Yield a prompt on an engine that may be restarted, and has the base image."""
    with PrivateEngine() as engine:
        docker = Docker(engine)
        docker.script("base_image.sh")
        yield docker


@pytest.fixture(scope="module")
def root(docker: Docker) -> Path:
    """Return the directory of all volumes of the recorded mdvp."""
    root = docker.engine.tmp.with_name("volumes")
    root.mkdir()
    return root


@pytest.fixture(scope="module")
def recorder(docker: Docker, root: Path) -> Iterator[Recorder]:
    with recording(docker.engine, DRIVER, root) as recorder:
        yield recorder


@pytest.fixture
def mdvp(docker: Docker, root: Path, recorder: Recorder) -> Iterator[Recorder]:
    """Yield the recorder of an mdvp without volumes; there are none after the test either."""
    recorder.forget()
    yield recorder
    remove_all(docker)
    assert recorder.past_the_engine("List") == {"Volumes": []}
    assert [path.name for path in root.iterdir()] == [".mdvp"]


@pytest.fixture
def volume(docker: Docker, mdvp: Recorder) -> str:
    """Return the name of a new volume; its Create is not on record any more."""
    docker("volume", "create", "-d", DRIVER, "vol")
    mdvp.forget()
    return "vol"


def remove_all(docker: Docker) -> None:
    for container in docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", "--volumes", container)
    for name in docker("volume", "ls", "--quiet").split():
        docker("volume", "rm", name)


def volume_of(docker: Docker, name: str) -> dict[str, Any]:
    (inspected,) = json.loads(docker("volume", "inspect", name))
    result: dict[str, Any] = inspected
    return result


def mounts_of(docker: Docker, container: str) -> list[tuple[str, str]]:
    """Return the volumes that a container has, and the drivers that `inspect` shows for them."""
    mounts = json.loads(docker("inspect", "--format", "{{json .Mounts}}", container))
    return [(mount["Name"], mount["Driver"]) for mount in mounts]


def listed(docker: Docker, *filters: str) -> list[tuple[str, ...]]:
    """Return the rows of `docker volume ls`: driver and name."""
    shown = docker(
        *("volume", "ls", "--format", "{{.Driver}} {{.Name}}"),
        *(f"--filter={each}" for each in filters),
    )
    return [tuple(row.split()) for row in shown.splitlines()]


def restart(docker: Docker, *flags: str) -> None:
    docker.engine.stop()
    docker.engine.start(*flags)


# Calls per operation.


def test_a_named_volume_is_made_mounted_unmounted_and_removed_once(
    docker: Docker, root: Path, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverNamed, TestExternalVolumeDriverMountID."""
    command = ("sh", "-c", "echo hi >/data/file && cat /data/file")
    named = ("--volume", "named:/data", "--volume-driver", DRIVER)
    assert docker(*RUN_ONCE, *named, BASE, *command) == "hi"
    assert (root / "named" / "file").read_text() == "hi\n"
    docker("volume", "rm", "named")
    assert not (root / "named").exists()
    assert mdvp.changes() == ["Create", "Mount", "Unmount", "Remove"]
    assert [call.message["Name"] for call in mdvp.calls("Mount", "Unmount")] == ["named"] * 2
    mounted, unmounted = mdvp.mount_ids()
    assert mounted == unmounted != ""


def test_a_volume_without_a_name_goes_with_its_container(docker: Docker, mdvp: Recorder) -> None:
    """Moby: TestExternalVolumeDriverUnnamed."""
    docker(*RUN_ONCE, "--volume", "/data", "--volume-driver", DRIVER, BASE, "true")
    assert mdvp.changes() == ["Create", "Mount", "Unmount", "Remove"]
    assert listed(docker) == []


def test_a_volume_without_a_name_is_removed_with_a_container_that_ended(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverDeleteContainer."""
    docker("run", "--name=ended", "--volume=/data", "--volume-driver", DRIVER, BASE, "true")
    assert mdvp.changes() == ["Create", "Mount", "Unmount"]
    docker("rm", "--force", "--volumes", "ended")
    assert mdvp.changes() == ["Create", "Mount", "Unmount", "Remove"]


def test_a_named_volume_outlives_its_container(docker: Docker, mdvp: Recorder) -> None:
    """Moby: TestRunNamedVolumeNotRemoved."""
    docker(*RUN_ONCE, "--volume=stays:/data", "--volume-driver", DRIVER, BASE, "true")
    docker("run", "--name=ended", "--volume=stays:/data", BASE, "true")
    docker("rm", "--volumes", "ended")
    assert listed(docker) == [(DRIVER, "stays")]
    assert mdvp.count("Remove") == 0


def test_each_start_of_a_container_is_a_mount_with_an_id_of_its_own(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestContainerRestartWithVolumes."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    docker("restart", "holder")
    docker("stop", "holder")
    docker("start", "holder")
    assert mdvp.changes() == ["Mount", "Unmount", "Mount", "Unmount", "Mount"]
    first, first_ended, second, second_ended, third = mdvp.mount_ids()
    assert (first, second) == (first_ended, second_ended)
    assert len({first, second, third}) == 3
    assert mounts_of(docker, "holder") == [(volume, DRIVER)]


def test_capabilities_are_asked_for_once_and_make_a_volume_local(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverCapabilities."""
    restart(docker)
    mdvp.forget()
    for name in ("one", "two", "three"):
        docker("volume", "create", "-d", DRIVER, name)
        assert volume_of(docker, name)["Scope"] == "local"
        assert mdvp.count("Activate") == mdvp.count("Capabilities") == 1


def test_what_get_and_list_answer_saves_the_engine_from_asking_for_paths(
    docker: Docker, root: Path, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverPathCalls."""
    docker("volume", "create", "-d", DRIVER, "vol")
    listed(docker)
    docker(*RUN_ONCE, "--volume=vol:/data", BASE, "true")
    assert volume_of(docker, "vol")["Mountpoint"] == str(root / "vol")
    assert mdvp.count("Path") == 0


def test_a_refused_mount_is_not_unmounted(docker: Docker, mdvp: Recorder, volume: str) -> None:
    """Moby: TestExternalVolumeDriverUnmountOnMountFail."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    mdvp.forget()
    docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")
    assert mdvp.changes() == ["Mount"]
    # With a directory on the volume to work in, the engine mounts it before there is a container.
    docker.refused(*RUN_ONCE, "--workdir=/data", "--volume", f"{volume}:/data", BASE, "true")
    assert mdvp.changes() == ["Mount", "Mount"]
    docker("stop", "holder")
    docker(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")


def test_a_container_that_gets_one_of_two_volumes_gives_it_back(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverUnmountOnMountFail, for a container with two volumes."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    docker("volume", "create", "-d", DRIVER, "other")
    mdvp.forget()
    both = ("--volume=other:/a", "--volume", f"{volume}:/b")
    assert volume in docker.refused(*RUN_ONCE, *both, BASE, "true")
    names = [call.message["Name"] for call in mdvp.calls("Unmount")]
    assert names == ["other"] * len(names)
    docker(*RUN_ONCE, "--volume=other:/a", BASE, "true")


def test_a_container_that_cannot_start_gives_its_volume_back(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverUnmountOnMountFail, for a failure after the mount."""
    docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "/no/such/command")
    assert mdvp.changes() == ["Mount", "Unmount"]
    docker(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")


# docker cp.


def test_docker_cp_mounts_with_the_id_of_the_running_container(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverUnmountOnCp."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    docker("cp", "holder:/etc/hostname", "-")
    assert mdvp.changes() == ["Mount", "Mount", "Unmount"]
    docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")
    mdvp.forget()
    docker("kill", "holder")
    assert mdvp.changes() == ["Unmount"]
    docker(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")


def test_docker_cp_reads_and_writes_the_volume_of_a_stopped_container(
    docker: Docker, root: Path, mdvp: Recorder, volume: str, tmp_path: Path
) -> None:
    """Moby: TestCpVolumePath."""
    docker("create", "--name=stopped", "--volume", f"{volume}:/data", BASE, "true")
    (tmp_path / "in").write_text("hi\n")
    docker("cp", str(tmp_path / "in"), "stopped:/data/file")
    assert (root / volume / "file").read_text() == "hi\n"
    docker("cp", "stopped:/data/file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "hi\n"
    assert mdvp.count("Mount") == mdvp.count("Unmount") > 0
    docker(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")


def test_docker_cp_leaves_no_mount_behind(docker: Docker, mdvp: Recorder, volume: str) -> None:
    """Moby: TestContainerCopyLeaksMounts."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    mounts = Path(f"/proc/{docker.engine.pid}/mountinfo")
    before = len(mounts.read_text().splitlines())
    docker("cp", "holder:/data", "-")
    assert len(mounts.read_text().splitlines()) == before
    assert mdvp.count("Mount") == 2


# --volumes-from.


def test_volumes_from_a_container_that_ended_are_mounted_once_more(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverVolumesFrom, TestRunWithVolumesFromExited."""
    write = ("sh", "-c", "echo hi >/data/file")
    docker("run", "--name=first", "--volume=/data", "--volume-driver", DRIVER, BASE, *write)
    shown = docker(*RUN_ONCE, "--volumes-from=first", BASE, "cat", "/data/file")
    assert shown == "hi"
    docker("rm", "--force", "--volumes", "first")
    assert mdvp.changes() == ["Create", *(["Mount", "Unmount"] * 2), "Remove"]
    first, _, second, _ = mdvp.mount_ids()
    assert first != second


def test_volumes_from_a_running_container_are_refused_while_access_is_exclusive(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestRunVolumesFromInReadWriteMode, with a driver that lets one container in."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    error = docker.refused(*RUN_ONCE, "--volumes-from=holder", BASE, "true")
    granted, refused = mdvp.calls("Mount")
    assert granted.message["ID"] != refused.message["ID"]
    assert refused.answer["Err"] in error
    assert volume in refused.answer["Err"]
    docker("stop", "holder")
    docker(*RUN_ONCE, "--volumes-from=holder", BASE, "true")


# Restart of the engine.


def test_a_volume_is_the_drivers_after_a_restart_too(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverWithDaemonRestart."""
    restart(docker)
    docker("run", "--name=user", "--volume", f"{volume}:/data", BASE, "true")
    assert mounts_of(docker, "user") == [(volume, DRIVER)]
    assert mdvp.changes() == ["Mount", "Unmount"]


def test_what_containers_have_is_not_removed_after_a_restart(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestDaemonRestartWithVolumesRefs, TestDaemonRestartRmVolumeInUse."""
    docker("create", "--name=user", "--volume", f"{volume}:/data", BASE, "true")
    restart(docker)
    assert "in use" in docker.refused("volume", "rm", volume)
    docker("rm", "user")
    docker("volume", "rm", volume)
    assert mdvp.changes() == ["Remove"]


@pytest.fixture
def live_restore(docker: Docker) -> Iterator[None]:
    restart(docker, "--live-restore")
    yield
    remove_all(docker)
    restart(docker)


@pytest.mark.usefixtures("live_restore")
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_container_that_outlives_the_engine_keeps_its_volume(
    docker: Docker, mdvp: Recorder, volume: str, end: str
) -> None:
    """Moby: testLiveRestoreVolumeReferences."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    getattr(docker.engine, end)()
    docker.engine.start("--live-restore")
    assert "in use" in docker.refused("volume", "rm", volume)
    docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")
    docker("stop", "holder")
    docker(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")
    assert mdvp.changes() == ["Mount", "Mount", "Unmount", "Mount", "Unmount"]


# Lists, questions and texts.


def test_list_is_asked_for_once_and_shown_with_the_drivers_name(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverList."""
    docker("volume", "create", "-d", DRIVER, "vol")
    assert docker("volume", "ls").split() == ["DRIVER", "VOLUME", "NAME", DRIVER, "vol"]
    assert mdvp.count("List") == 1


def test_an_unknown_volume_is_no_such_volume_and_a_known_one_shows_its_status(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestExternalVolumeDriverGet."""
    docker("volume", "create", "-d", DRIVER, "vol")
    mdvp.forget()
    assert "no such volume" in docker.refused("volume", "inspect", "dummy").lower()
    (asked,) = mdvp.calls("Get")
    assert asked.message == {"Name": "dummy"}
    # What else the Status says is mdvp's own affair; the engine shows all of it.
    answer = mdvp.past_the_engine("Get", Name="vol")["Volume"]
    shown = volume_of(docker, "vol")
    assert shown["Status"] == answer["Status"] != {}
    assert shown["CreatedAt"] == answer["CreatedAt"] != ""


def test_a_container_shows_the_volume_and_its_driver(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverBindExternalVolume."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    assert mounts_of(docker, "holder") == [(volume, DRIVER)]
    assert mdvp.count("Create") == 0


def test_a_refusal_reaches_the_prompt_in_the_drivers_words(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestVolumeRequestError."""
    mdvp.past_the_engine("Mount", Name=volume, ID="a" * 64)
    refusals = {
        "Create": docker.refused("volume", "create", "-d", DRIVER, "-o", "no=such", "bad"),
        "Mount": docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true"),
        "Remove": docker.refused("volume", "rm", volume),
    }
    for endpoint, error in refusals.items():
        assert mdvp.calls(endpoint)[0].answer["Err"] in error
    mdvp.past_the_engine("Unmount", Name=volume, ID="a" * 64)


def test_volumes_can_be_filtered_by_driver_and_by_whether_a_container_has_them(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestVolumeCLILsFilterDrivers, TestVolumeCLILsFilterDangling."""
    docker("volume", "create", "elsewhere")
    docker("volume", "create", "-d", DRIVER, "free")
    docker("create", "--volume=taken:/data", "--volume-driver", DRIVER, BASE, "true")
    assert listed(docker, f"driver={DRIVER}") == [(DRIVER, "free"), (DRIVER, "taken")]
    assert listed(docker, f"driver={DRIVER}", "dangling=true") == [(DRIVER, "free")]
    assert listed(docker, f"driver={DRIVER}", "dangling=false") == [(DRIVER, "taken")]
    assert mdvp.count("List") == 3


def test_labels_are_shown_and_survive_a_restart(docker: Docker, mdvp: Recorder) -> None:
    """Moby: TestVolumeCLICreateLabel, TestVolumeCLILsFilterLabels, TestRestore."""
    docker("volume", "create", "-d", DRIVER, "--label", "team=blue", "vol")
    restart(docker)
    assert volume_of(docker, "vol")["Labels"] == {"team": "blue"}
    assert listed(docker, "label=team=blue") == [(DRIVER, "vol")]
    assert mdvp.calls("Create")[0].message == {"Name": "vol", "Opts": None}


def test_a_volumes_life_shows_in_the_engines_events(docker: Docker, mdvp: Recorder) -> None:
    """Moby: TestVolumeEvents."""
    since = docker("system", "info", "--format", "{{.SystemTime}}")
    docker("volume", "create", "-d", DRIVER, "seen")
    docker(*RUN_ONCE, "--volume=seen:/data", BASE, "true")
    docker("volume", "rm", "seen")
    until = docker("system", "info", "--format", "{{.SystemTime}}")
    events = docker(
        *("events", "--since", since, "--until", until, "--format"),
        *("{{.Action}} {{.Actor.Attributes.driver}}", "--filter=type=volume"),
    )
    expected = [f"{action} {DRIVER}" for action in ("create", "mount", "unmount", "destroy")]
    # Engine 20.10 says "create" again for a container with a volume that is there already.
    assert list(dict.fromkeys(events.splitlines())) == expected
    assert mdvp.changes() == ["Create", "Mount", "Unmount", "Remove"]


# Names and removal.


def test_a_name_belongs_to_one_driver_and_can_be_created_again_with_it(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestVolumeCLICreateOptionConflict."""
    docker("volume", "create", "elsewhere")
    assert "must be unique" in docker.refused("volume", "create", "-d", DRIVER, "elsewhere")
    assert "must be unique" in docker.refused("volume", "create", "-d", "local", volume)
    assert docker("volume", "create", "-d", DRIVER, volume) == volume
    assert mdvp.changes() == []


def test_a_volume_that_only_the_driver_knows_is_taken_over_with_the_labels_given(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestCreateKeepOptsLabelsWhenExistsRemotely. The engine does not call Create then."""
    mdvp.past_the_engine("Create", Name="remote")
    assert listed(docker) == [(DRIVER, "remote")]
    docker("volume", "create", "-d", DRIVER, "--label", "team=blue", "remote")
    assert volume_of(docker, "remote")["Labels"] == {"team": "blue"}
    assert mdvp.changes() == []


def test_a_volume_that_a_container_has_is_not_removed_even_by_force(
    docker: Docker, root: Path, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestVolumeCLIRmForceInUse, TestVolumesRemove."""
    docker("create", "--name=user", "--volume", f"{volume}:/data", BASE, "true")
    for _ in range(2):
        assert "in use" in docker.refused("volume", "rm", "--force", volume)
        assert listed(docker) == [(DRIVER, volume)]
    assert (root / volume).is_dir()
    docker("rm", "user")
    docker("volume", "rm", "--force", volume)
    assert mdvp.changes() == ["Remove"]


def test_prune_leaves_the_drivers_volumes_alone(
    docker: Docker, root: Path, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestServicePrune."""
    (root / volume / "file").write_text("stays")
    docker("volume", "prune", "--force")
    assert listed(docker) == [(DRIVER, volume)]
    assert (root / volume / "file").read_text() == "stays"
    assert mdvp.changes() == []


# Deletion out of band: by somebody else than the engine.


def test_a_volume_deleted_out_of_band_can_be_created_again(
    docker: Docker, root: Path, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverOutOfBandDelete."""
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    docker("volume", "create", "-d", DRIVER, "--label", "second=yes", volume)
    shown = volume_of(docker, volume)
    assert (shown["Driver"], shown["Labels"]) == (DRIVER, {"second": "yes"})
    assert (root / volume).is_dir()
    assert mdvp.changes() == ["Create"]


def test_the_name_of_a_volume_deleted_out_of_band_is_free_for_another_driver(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverOutOfBandDelete."""
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    docker("volume", "create", "-d", "local", volume)
    assert listed(docker) == [("local", volume)]


def test_a_volume_deleted_out_of_band_is_neither_listed_nor_in_the_way(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestVolumeCLIRmForce."""
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    assert listed(docker) == []
    assert "no such volume" in docker.refused("volume", "inspect", volume).lower()
    docker("volume", "rm", "--force", volume)
    docker("volume", "create", "-d", DRIVER, volume)
    assert listed(docker) == [(DRIVER, volume)]


def test_a_container_whose_volume_was_deleted_out_of_band_says_so_and_starts_once_it_is_back(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestRemoveContainerWithRemovedVolume; its advice is to remove by force."""
    docker("create", "--name=user", "--volume", f"{volume}:/data", BASE, "true")
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    assert "no such volume" in docker.refused("start", "user").lower()
    docker("volume", "rm", "--force", volume)
    docker("volume", "create", "-d", DRIVER, volume)
    docker("start", "--attach", "user")
    assert mdvp.changes() == ["Create", "Mount", "Unmount"]
    assert mdvp.past_the_engine("Get", Name=volume)["Volume"]["Name"] == volume


# What the engine does with a volume's content.


def test_an_empty_volume_gets_the_images_files_and_one_with_content_does_not(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestRunNamedVolumeCopyImageData, TestRunCopyVolumeContent."""
    copied = docker(*RUN_ONCE, "--volume", f"{volume}:/etc/apt", BASE, "ls", "/etc/apt")
    assert "sources.list.d" in copied.split()
    shown = docker(*RUN_ONCE, "--volume", f"{volume}:/etc/dpkg", BASE, "ls", "/etc/dpkg")
    assert shown == copied
    # The copy is a mount of its own, with an ID of its own, before the container's.
    assert mdvp.changes() == ["Mount", "Unmount"] * 4
    assert len(set(mdvp.mount_ids())) == 4


def test_the_copy_of_the_images_files_can_be_declined(
    docker: Docker, root: Path, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestRunVolumeCopyFlag."""
    command = ("sh", "-c", "ls -A /etc/apt && touch /etc/apt/file")
    assert docker(*RUN_ONCE, "--volume", f"{volume}:/etc/apt:nocopy", BASE, *command) == ""
    assert [path.name for path in (root / volume).iterdir()] == ["file"]
    assert mdvp.changes() == ["Mount", "Unmount"]


def test_a_volume_mounted_read_only_cannot_be_written(
    docker: Docker, root: Path, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestRunVolumesMountedAsReadonly, TestRunVolumesFromInReadonlyModeFails."""
    (root / volume / "file").write_text("hi\n")
    write = ("sh", "-c", "echo >/data/file")
    docker("create", "--name=reader", "--volume", f"{volume}:/data:ro", BASE, "true")
    assert "Read-only" in docker.refused(*RUN_ONCE, "--volumes-from=reader", BASE, *write)
    assert docker(*RUN_ONCE, "--volumes-from=reader", BASE, "cat", "/data/file") == "hi"
    assert (root / volume / "file").read_text() == "hi\n"
    assert mdvp.changes() == ["Mount", "Unmount"] * 2


# A driver that comes late.


def test_a_container_waits_for_a_driver_that_is_not_there_yet(docker: Docker, root: Path) -> None:
    """Moby: TestExternalVolumeDriverRetryNotImmediatelyExists."""
    late = root.with_name("late")
    late.mkdir()
    named = ("--volume=vol:/data", "--volume-driver=late")
    with ExitStack() as stack:
        run = subprocess.Popen(
            ["docker", *RUN_ONCE, *named, BASE, "true"], env=docker.engine.environ
        )
        stack.callback(run.kill)
        eventually(lambda: "Unable to locate plugin: late" in docker.engine.log.read_text(), True)
        mdvp = stack.enter_context(recording(docker.engine, "late", late))
        assert run.wait(60) == 0
        docker("volume", "rm", "vol")
        assert mdvp.count("Activate") == 1
        assert mdvp.changes() == ["Create", "Mount", "Unmount", "Remove"]


# Options, and the access that one of them gives to several containers.


def test_options_reach_the_driver_and_are_shown_after_a_restart_too(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestVolumeCLICreateWithOpts, TestVolumeCliInspectWithVolumeOpts, TestRestore."""
    options = {"access": "shared", "uid": "1000"}
    given = [f"--opt={name}={value}" for name, value in options.items()]
    docker("volume", "create", "-d", DRIVER, *given, "vol")
    assert mdvp.calls("Create")[0].message == {"Name": "vol", "Opts": options}
    assert volume_of(docker, "vol")["Options"] == options
    restart(docker)
    assert volume_of(docker, "vol")["Options"] == options


def test_a_volume_made_with_a_container_gets_the_options_of_its_mount(
    docker: Docker, root: Path, mdvp: Recorder
) -> None:
    """Moby: TestContainerVolumeAnonymous, for a volume with a name."""
    mount = f"type=volume,src=vol,dst=/data,volume-driver={DRIVER},volume-opt=uid=1000"
    docker(*RUN_ONCE, "--mount", mount, BASE, "true")
    assert mdvp.calls("Create")[0].message == {"Name": "vol", "Opts": {"uid": "1000"}}
    assert volume_of(docker, "vol")["Options"] == {"uid": "1000"}
    assert (root / "vol").stat().st_uid == 1000


def test_a_volume_made_again_after_its_deletion_out_of_band_has_its_new_options(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverOutOfBandDelete."""
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    docker("volume", "create", "-d", DRIVER, "-o", "access=shared", volume)
    shown = volume_of(docker, volume)
    assert shown["Options"] == {"access": "shared"}
    assert shown["Status"]["access"] == "shared"
    assert mdvp.past_the_engine("Remove", Name=volume) == {}
    docker("volume", "create", "-d", "local", volume)
    shown = volume_of(docker, volume)
    assert (shown["Driver"], shown["Options"] or {}) == ("local", {})


def test_the_status_tells_the_truth_where_the_engine_shows_options_that_it_kept_to_itself(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestCreateKeepOptsLabelsWhenExistsRemotely. The engine does not call Create then."""
    mdvp.past_the_engine("Create", Name="remote")
    docker("volume", "create", "-d", DRIVER, "-o", "access=shared", "remote")
    shown = volume_of(docker, "remote")
    assert mdvp.changes() == []
    assert shown["Options"] == {"access": "shared"}
    assert shown["Status"]["access"] == "exclusive"


def test_volumes_from_a_running_container_are_had_by_both_with_shared_access(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestRunVolumesFromInReadWriteMode, TestExternalVolumeDriverVolumesFrom."""
    docker("volume", "create", "-d", DRIVER, "-o", "access=shared", "feed")
    mdvp.forget()
    docker(*SLEEPER, "first", "--volume=feed:/data", BASE, "sleep", "infinity")
    docker(*SLEEPER, "second", "--volumes-from=first", BASE, "sleep", "infinity")
    docker.inside("first", "echo one >/data/file")
    docker.inside("second", "echo two >>/data/file")
    assert docker.inside("first", "cat /data/file") == "one\ntwo"
    first, second = mdvp.mount_ids()
    assert first != second
    ids = docker("ps", "--quiet", "--no-trunc").split()
    assert sorted(volume_of(docker, "feed")["Status"]["mounted_by"]) == sorted(ids)
    docker("stop", "first")
    docker("stop", "second")
    assert mdvp.mount_ids() == [first, second, first, second]
    assert mdvp.changes() == ["Mount", "Mount", "Unmount", "Unmount"]
    docker("rm", "first", "second")
    docker("volume", "rm", "feed")


def test_one_container_can_have_a_volume_with_shared_access_in_two_places(
    docker: Docker, mdvp: Recorder
) -> None:
    """Moby: TestContainerMultipleMountsSamePath, for two paths. That is two mount IDs."""
    docker("volume", "create", "-d", DRIVER, "-o", "access=shared", "feed")
    mdvp.forget()
    places = ("--volume=feed:/a", "--volume=feed:/b")
    assert docker(*RUN_ONCE, *places, BASE, "sh", "-c", "echo hi >/a/file; cat /b/file") == "hi"
    assert mdvp.changes() == ["Mount", "Mount", "Unmount", "Unmount"]
    assert len(set(mdvp.mount_ids())) == 2


def test_the_status_and_a_refusal_name_the_container_that_has_the_volume(
    docker: Docker, mdvp: Recorder, volume: str
) -> None:
    """Moby: TestExternalVolumeDriverGet, for a Status that says something."""
    docker(*SLEEPER, "holder", "--volume", f"{volume}:/data", BASE, "sleep", "infinity")
    holder = docker("inspect", "--format", "{{.Id}}", "holder")
    status = volume_of(docker, volume)["Status"]
    assert status["access"] == "exclusive"
    assert status["mounted_by"] == [holder]
    assert status["since"]
    error = docker.refused(*RUN_ONCE, "--volume", f"{volume}:/data", BASE, "true")
    assert f"container {holder[:12]}" in error
    assert mdvp.changes() == ["Mount", "Mount"]
