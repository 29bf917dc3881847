"""The crash matrix: after each fault, which volumes are free and which are not.

Each row of MATRIX is a fault, and it is real: signals to processes, files cut and removed. Each is
gone through with every kind of holder of a volume that there can be:

* one that dies of it, or while it lasts: its volume mounts at the first try;
* one that lives on: its volume is refused, every time, until it ends, and then is free at once;
* one that lives on and hides, with a file of the volume open: the same, by faults after which the
  plugin has to remember who had it, for the kernel does not show that any more;
* one whose start is cut off between its Mount and its first process, which the plugin cannot tell
  from one that is still to start: its volume is free some seconds after the engine is gone, however
  long the grace period is.

Whatever happened, `docker volume ls` and the files are as before. So is what a removed volume had,
if it is in the trash, unless that itself is deleted, and what was copied from it.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.engine import PrivateEngine
from support import eventually, running

PLUGIN = "mdvp-crash"
BASE = "debian:trixie-slim"

# Grace periods, in seconds.
OUTLASTS_EVERYTHING = 600  # so what is free is so without waiting
IS_OVER_SOON = 1

# Seconds in which a start that has lost its engine may go on, and some for the engine's own start.
ORPHANED = 10 + 5

# What a holder runs. One that hides goes, on SIGHUP, to where it has no path to its volume.
STAYS = "exec sleep infinity"
HIDES = """exec perl -e '
    open(my $file, ">>", "/data/file") or die;
    $SIG{HUP} = sub { chroot("/mnt") and chdir("/") };
    sleep(1) while 1;
'"""

# What containers start by when they are to be caught starting: an OCI runtime that never does.
NEVER_STARTS = """#!/bin/sh
case " $* " in
    *" create "*) exec sleep 98765 ;;
    *) exec runc "$@" ;;
esac
"""


@dataclass
class Machine:
    """A machine with an engine and the plugin, to be hurt."""

    docker: Docker
    data: Path
    runtime: Path
    flags: tuple[str, ...] = ()
    grace: int = 0

    @property
    def engine(self) -> PrivateEngine:
        return self.docker.engine

    @property
    def state(self) -> Path:
        """The plugin's own folder."""
        return self.data / ".mdvp"

    def set_up(self, flags: tuple[str, ...], grace: int) -> None:
        """Have the engine run with these flags, and the plugin with this grace period."""
        if flags != self.flags:
            self.engine.stop()
            self.flags = flags
            self.start()
        if grace != self.grace:
            self.set(f"GRACE={grace}")
            self.grace = grace

    def set(self, setting: str) -> None:
        """Change a setting of the plugin."""
        self.docker("plugin", "disable", "--force", PLUGIN)
        # What the engine mounted for the plugin it unmounts soon after, be it enabled by then.
        eventually(lambda: "/propagated-mount " in self.engine.run("mount").stdout, False)
        self.docker("plugin", "set", PLUGIN, setting)
        self.docker("plugin", "enable", PLUGIN)

    def start(self) -> None:
        """Start the engine as it was, which starts the plugin."""
        self.engine.start(*self.flags, f"--add-runtime=never-starts={self.runtime}")

    def plugin_pid(self) -> int:
        """Return the plugin's process as the machine numbers it, 0 for none."""
        found = self.engine.run("pgrep", "--full", "--oldest", "mdvp/bin/mdvp", check=False)
        return int(found.stdout or 0)

    def kill(self, pid: int) -> None:
        """Send SIGKILL to a process, by the machine's number."""
        self.engine.run("kill", "-KILL", str(pid))

    def log(self) -> list[str]:
        """Return the log of engine and plugin."""
        return self.engine.log.read_text(errors="replace").splitlines()

    def volumes(self) -> tuple[str, dict[str, tuple[int, bytes]]]:
        """Return the list of volumes, and what is on the disk: permissions and content."""
        listed = self.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}")
        on_disk = {
            str(path.relative_to(self.data)): (
                path.stat().st_mode,
                path.read_bytes() if path.is_file() else b"",
            )
            for volume in self.data.glob("[!.]*")
            for path in (volume, *volume.rglob("*"))
        }
        return listed, on_disk

    def hold(self, restart: str = "no", program: str = STAYS) -> str:
        """Start the container "holder", with a file in the volume "vol"; return its id.

        It has the volume and the plugin knows it, as is so soon after the start of any container.
        """
        # An init would go on to show the volume.
        init = () if program == HIDES else ("--init",)
        container = self.docker(
            *("run", "--detach", "--name", "holder", "--restart", restart, *init),
            *("--volume", "vol:/data", BASE),
            *("sh", "-c", f"echo precious >/data/file && {program}"),
        )
        seen = f"volume vol is mounted in container {container[:12]}"
        eventually(lambda: any(seen in line for line in self.log()), True)
        return container

    def hide_holder(self) -> None:
        """Have a holder that HIDES do so; the kernel shows no mount of its volume any more."""
        pid = self.holder_pid()
        eventually(lambda: self._shows_volume(pid), False)

    def _shows_volume(self, pid: int) -> bool:
        # Before it has set up what it does on it, it ignores the signal.
        self.docker("kill", "--signal=HUP", "holder")
        return " /data " in self.engine.run("cat", f"/proc/{pid}/mountinfo").stdout

    def holder_runs(self) -> bool:
        return self.docker("inspect", "--format", "{{.State.Running}}", "holder") == "true"

    def holder_pid(self) -> int:
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", "holder"))

    def use(self) -> str:
        """Try to use the volume "vol" in another container; return the error, "" for none."""
        done = self.engine.docker(
            *("run", "--rm", "--volume", "vol:/data", BASE, "cat", "/data/file"), check=False
        )
        assert done.returncode == 0 or "VolumeDriver.Mount: " in done.stderr, done.stderr
        assert done.returncode != 0 or done.stdout == "precious\n"
        return done.stderr

    def is_refused(self, container: str, seconds: float) -> None:
        """Try to use the volume "vol" for this time, and be refused, for what `container` has."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert f"volume 'vol' is in use: container {container[:12]} " in self.use()


# A fault is there for the time of the block, and after it all runs again.
Fault = Callable[[Machine], AbstractContextManager[None]]


@contextmanager
def dockerd_killed(machine: Machine) -> Iterator[None]:
    machine.engine.kill()
    yield
    machine.start()


@contextmanager
def plugin_killed(machine: Machine) -> Iterator[None]:
    killed = machine.plugin_pid()
    machine.kill(killed)
    yield
    # The engine starts it again by itself.
    eventually(lambda: machine.plugin_pid() not in (0, killed), True, 60.0)


@contextmanager
def both_killed(machine: Machine) -> Iterator[None]:
    # Dockerd goes first, or it might start the plugin again.
    machine.engine.kill()
    machine.kill(machine.plugin_pid())
    yield
    machine.start()


@contextmanager
def plugin_disabled(machine: Machine) -> Iterator[None]:
    machine.docker("plugin", "disable", "--force", PLUGIN)
    yield
    machine.docker("plugin", "enable", PLUGIN)


@contextmanager
def engine_restarted(machine: Machine) -> Iterator[None]:
    machine.engine.stop()
    yield
    machine.start()


@contextmanager
def power_lost(machine: Machine) -> Iterator[None]:
    machine.engine.cut_power()
    yield
    machine.start()


Harm = Callable[[Machine], None]


def database_deleted(machine: Machine) -> None:
    for file in machine.state.glob("state.db*"):
        file.unlink()


def folder_deleted(machine: Machine) -> None:
    shutil.rmtree(machine.state)


def database_cut(machine: Machine) -> None:
    if machine.plugin_pid():
        # What is in the database by then, and not still in the file that SQLite writes to first.
        with plugin_disabled(machine):
            pass
    cut_off(machine.state / "state.db")


def latest_changes_cut(machine: Machine) -> None:
    # The file that SQLite writes to first; it goes when the database is closed.
    cut_off(machine.state / "state.db-wal")


def cut_off(file: Path) -> None:
    written = len(file.read_bytes().rstrip(b"\0"))  # the rest is room for more
    os.truncate(file, written // 2)


def under_the_plugin(harm: Harm) -> Fault:
    """Do `harm` while the plugin runs, which then is killed."""

    @contextmanager
    def fault(machine: Machine) -> Iterator[None]:
        harm(machine)
        with plugin_killed(machine):
            yield

    return fault


def without_the_plugin(harm: Harm) -> Fault:
    """Do `harm` while the plugin is disabled."""

    @contextmanager
    def fault(machine: Machine) -> Iterator[None]:
        with plugin_disabled(machine):
            harm(machine)
            yield

    return fault


# What the plugin says in its log of a database that is not as it was.
FOUND_AGAIN = "they were found again by what their directories say of themselves"
DAMAGED = "the state database is damaged"


@dataclass(frozen=True)
class Row:
    """A row of the matrix.

    Attributes:
        fault: what happens.
        live_restore: whether the engine is one whose containers run on without it.
        restarts: whether the fault ends all containers: one that lives on is then one that the
            engine starts again, and one that dies need not be killed besides.
        loses: what the plugin says of what it lost.
        has_trash: whether it leaves the trash alone, which is in the plugin's folder.

    """

    fault: Fault
    live_restore: bool = False
    restarts: bool = False
    loses: str = ""
    has_trash: bool = True

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--live-restore",) if self.live_restore else ()

    @property
    def holder_is_known(self) -> bool:
        """Whether the plugin can tell the mounts of a container that has lived on from another's.

        Not without its lease. And the engine gives a container that lived on without it new mount
        IDs after the first, and never unmounts what the container itself has (Moby: volume/mounts,
        MountPoint.Cleanup).
        """
        return not self.loses and (self.restarts or not self.live_restore)


MATRIX = {
    "dockerd killed": Row(dockerd_killed, restarts=True),
    "plugin killed": Row(plugin_killed),
    "both killed": Row(both_killed, restarts=True),
    "plugin disabled": Row(plugin_disabled),
    "engine restarted": Row(engine_restarted, restarts=True),
    "power lost": Row(power_lost, restarts=True),
    "database deleted, plugin killed": Row(under_the_plugin(database_deleted), loses=FOUND_AGAIN),
    "database deleted, plugin disabled": Row(
        without_the_plugin(database_deleted), loses=FOUND_AGAIN
    ),
    "state folder deleted, plugin killed": Row(
        under_the_plugin(folder_deleted), loses=FOUND_AGAIN, has_trash=False
    ),
    "state folder deleted, plugin disabled": Row(
        without_the_plugin(folder_deleted), loses=FOUND_AGAIN, has_trash=False
    ),
    "database cut, plugin killed": Row(under_the_plugin(database_cut), loses=DAMAGED),
    "database cut, plugin disabled": Row(without_the_plugin(database_cut), loses=DAMAGED),
    "latest changes cut, plugin killed": Row(
        under_the_plugin(latest_changes_cut), loses=FOUND_AGAIN
    ),
    "dockerd killed, live-restore": Row(dockerd_killed, live_restore=True),
    "both killed, live-restore": Row(both_killed, live_restore=True),
    "engine restarted, live-restore": Row(engine_restarted, live_restore=True),
    "power lost, live-restore": Row(power_lost, live_restore=True, restarts=True),
}


# A start is cut off by what takes the engine away and not the rest of it.
STARTING = [
    name for name, row in MATRIX.items() if row.fault in (dockerd_killed, both_killed, power_lost)
]
# What a container lives through, and its lease, by which alone the plugin knows of one that hides.
HIDING = [
    "dockerd killed, live-restore",
    "both killed, live-restore",
    "plugin killed",
    "plugin disabled",
]


def rows(names: Sequence[str] = tuple(MATRIX)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [MATRIX[name] for name in names], ids=names)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Yield a machine with the plugin, in which no other test has anything."""
    with PrivateEngine() as engine:
        docker = Docker(engine)
        runtime = engine.tmp.with_name("never-starts")
        runtime.write_text(NEVER_STARTS)
        runtime.chmod(0o755)
        data = docker.build_plugin(PLUGIN, "volumes")
        docker("plugin", "enable", PLUGIN)
        engine.stop()
        machine = Machine(docker, data, runtime)
        machine.start()
        yield machine


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Take away what a test has made."""
    yield
    remove_all(machine)
    assert [path.name for path in machine.data.iterdir()] == [".mdvp"]


def remove_all(machine: Machine) -> None:
    for container in machine.docker("ps", "--all", "--quiet").split():
        machine.docker("rm", "--force", container)
    for volume in machine.docker("volume", "ls", "--quiet").split():
        machine.docker("volume", "rm", volume)


def create(machine: Machine, *volumes: str) -> None:
    """Make volumes; what begins with `-o=` is an option of all."""
    options = [each for each in volumes if each.startswith("-o=")]
    for volume in volumes:
        if volume not in options:
            machine.docker("volume", "create", "-d", PLUGIN, *options, volume)


@rows()
def test_the_volume_of_a_dead_holder_is_free_at_once(machine: Machine, row: Row) -> None:
    machine.set_up(row.flags, OUTLASTS_EVERYTHING)
    create(machine, "vol")
    machine.hold()
    machine.docker("cp", "holder:/data/file", "-")
    pid = machine.holder_pid()
    copy_and_remove(machine)
    create(machine, "latest")
    before, said = machine.volumes(), len(machine.log())
    with row.fault(machine):
        if not row.restarts:
            machine.kill(pid)
    eventually(machine.holder_runs, False)
    assert machine.use() == ""
    assert machine.volumes() == before
    assert_says(machine.log()[said:], row.loses)
    assert_is_restored(machine, row)


def copy_and_remove(machine: Machine) -> None:
    """Have a volume in the trash, and a copy of it."""
    create(machine, "removed", "-o=on-remove=trash")
    file = machine.data / "removed" / "file"
    file.write_text("precious, too\n")
    file.chmod(0o640)
    create(machine, "copy", "-o=from=removed")
    machine.docker("volume", "rm", "removed")


def assert_is_restored(machine: Machine, row: Row) -> None:
    """Check that the copy and what is in the trash are as they were, and that this can be had."""
    restored = ("volume", "create", "-d", PLUGIN, "-o", "restore=removed", "restored")
    copy, there = machine.data / "copy" / "file", machine.data / "restored" / "file"
    if row.has_trash:
        machine.docker(*restored)
        assert there.read_text() == "precious, too\n"
        assert (there.stat().st_mode, there.stat().st_uid) == (
            copy.stat().st_mode,
            copy.stat().st_uid,
        )
    else:
        assert "no removed volume 'removed' is in the trash" in machine.docker.refused(*restored)
    assert copy.read_text() == "precious, too\n"


@rows()
def test_the_volume_of_a_living_holder_is_refused_until_it_ends(machine: Machine, row: Row) -> None:
    machine.set_up(row.flags, IS_OVER_SOON)
    create(machine, "vol")
    container = machine.hold(restart="always" if row.restarts else "no")
    pid = machine.holder_pid()
    create(machine, "latest")
    before, said = machine.volumes(), len(machine.log())
    with row.fault(machine):
        pass
    eventually(machine.holder_runs, True)
    assert (machine.holder_pid() != pid) == row.restarts
    machine.is_refused(container, seconds=IS_OVER_SOON + 1)
    assert machine.volumes() == before
    assert_says(machine.log()[said:], row.loses)

    # For this the engine mounts the volume and unmounts it, twice.
    machine.engine.docker(
        *("cp", str(machine.runtime), "holder:/data/copied"), check=row.holder_is_known
    )
    machine.is_refused(container, seconds=IS_OVER_SOON + 1)

    machine.docker("rm", "--force", "holder")
    assert machine.use() == ""


@rows(HIDING)
def test_the_volume_of_a_holder_that_hides_is_refused_until_it_ends(
    machine: Machine, row: Row
) -> None:
    machine.set_up(row.flags, IS_OVER_SOON)
    create(machine, "vol")
    container = machine.hold(program=HIDES)
    machine.hide_holder()
    pid = machine.holder_pid()
    before = machine.volumes()
    with row.fault(machine):
        pass
    assert machine.holder_pid() == pid
    machine.is_refused(container, seconds=IS_OVER_SOON + 1)
    assert machine.volumes() == before

    machine.docker("rm", "--force", "holder")
    assert machine.use() == ""


@rows(STARTING)
def test_the_volume_of_a_holder_cut_off_at_its_start_is_free_soon_after_the_engine_is_gone(
    machine: Machine, row: Row
) -> None:
    machine.set_up(row.flags, OUTLASTS_EVERYTHING)
    create(machine, "vol", "latest")
    (machine.data / "vol" / "file").write_text("precious\n")
    before = machine.volumes()
    with starting(machine), row.fault(machine):
        machine.engine.run("pkill", "--full", "sleep 98765", check=False)
    latest = time.monotonic()
    while error := machine.use():
        assert "the engine that asked for it is gone" in error
        assert time.monotonic() < latest + ORPHANED
    assert machine.volumes() == before


@contextmanager
def starting(machine: Machine) -> Iterator[None]:
    """Have a container start for the time of the block, with its Mount answered."""
    command = (
        "docker",
        "run",
        "--rm",
        "--runtime=never-starts",
        "--volume=vol:/data",
        BASE,
        "true",
    )
    with running(command, machine.engine.environ):
        eventually(lambda: "mount_ids" in machine.docker("volume", "inspect", "vol"), True)
        yield


def assert_says(log: Sequence[str], loses: str) -> None:
    """Check that the plugin says what it has lost, and only where it has."""
    said = [line for line in log if "the state database" in line]
    assert any(loses in line for line in said) if loses else not said


@pytest.fixture
def bare(machine: Machine) -> Iterator[Path]:
    """Yield the root of the volumes, on a file system whose files cannot have attributes."""
    machine.set_up((), IS_OVER_SOON)
    path = machine.data.with_name("bare")
    path.mkdir()
    machine.engine.run("mount", "-t", "ramfs", "ramfs", str(path))
    machine.set(f"data.source={path}")
    yield Path(f"/proc/{machine.engine.pid}/root{path}")
    remove_all(machine)
    machine.set(f"data.source={machine.data}")
    machine.engine.run("umount", str(path))


def test_without_attributes_a_lost_database_is_made_good_by_adopting_the_directories(
    machine: Machine, bare: Path
) -> None:
    create(machine, "vol")
    container = machine.hold()
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(bare / "vol", "user.mdvp", b"")
    for file in (bare / ".mdvp").glob("state.db*"):
        file.unlink()
    with plugin_killed(machine):
        pass
    # It is not a volume, and the engine forgets it at the first answer that says so.
    machine.docker.refused("volume", "inspect", "vol")
    assert "-o adopt=true" in machine.docker.refused("volume", "create", "-d", PLUGIN, "vol")
    assert (bare / "vol" / "file").read_text() == "precious\n"

    machine.docker("volume", "create", "-d", PLUGIN, "-o", "adopt=true", "vol")
    machine.is_refused(container, seconds=IS_OVER_SOON + 1)
    machine.docker("rm", "--force", "holder")
    assert machine.use() == ""
