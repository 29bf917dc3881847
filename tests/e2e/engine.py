"""A real Docker engine for end-to-end tests that no other engine notices.

`PrivateEngine` runs the installed ``dockerd`` in a small machine made of namespaces: its own
mounts, processes, ``/run``, ``/tmp``, network and iptables rules, a changed copy of ``/etc`` and
``/opt``, its containers in a cgroup of their own. It shares the kernel, the rest of the file system
and, through slirp4netns, the way out to the network. It needs root, and no service manager.

Failure model:

* The test process ends without `PrivateEngine.close`, be it by SIGKILL: the machine and
  slirp4netns read a pipe that only the test process can write to. At its end of file the machine's
  pid 1 exits, and the kernel ends every process and mount in it. A directory under ``/var/lib`` and
  empty cgroups stay behind; the next `PrivateEngine` removes them. It tells them from those in use
  by a lock that the test process and its machine hold together.
* ``dockerd`` is killed: its containers run on, its pid files and its socket stay. The next
  `PrivateEngine.start` removes these files first.
* The machine loses power: see `PrivateEngine.cut_power`; disks, cgroups and network devices stay.
* ``dockerd`` does not come up, or not down: `EngineError` shows the end of its log.
* A command fails or does not end in time: `EngineError` shows it and all that it printed.
* A tool is missing, or we are not root: `EngineError` says so before anything is made.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Self

_STATE = Path("/var/lib")
_CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "mdvp-test-"
_DEADLINE = 60.0  # seconds, for whatever has to become true

_PACKAGES = {
    "docker": "docker-cli (in Debian 12 part of docker.io)",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "pgrep": "procps",
    "slirp4netns": "slirp4netns",
    "tini": "tini",
    "unshare": "util-linux",
}

# What pid 1 of the machine does, its stdin being the pipe from the test process.
# - /proc is still the outer one in the first line: that pid is the one we know it by.
# - A /run of its own hides the host's containerd, which dockerd would use, and the host's D-Bus,
#   over which dockerd would have the host's firewalld change the host's rules.
# - dockerd writes /etc/docker/key.json and its containerd makes /opt/containerd. As /etc is a copy,
#   resolv.conf can be replaced even where it is a link into the hidden /run.
# - /tmp, where the plugin keeps volumes, is a directory of the test's; $2, which may be below the
#   host's /tmp, is still to be had at /run/repository.
# - The plugin's mount is "rshared", which wants a shared "/". The host stays unaware: unshare has
#   made all mounts slaves of the host's.
# - tini reaps the shims that a killed dockerd leaves; cat ends when the test process does.
_BOOT = """
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
for dir in etc opt; do
    mkdir -p /run/machine/$dir/upper /run/machine/$dir/work
    mount -t overlay overlay /$dir \
        -o lowerdir=/$dir,upperdir=/run/machine/$dir/upper,workdir=/run/machine/$dir/work
done
mkdir /run/repository
mount --bind "$2" /run/repository
mount --bind "$1" /tmp
rm -f /etc/docker/daemon.json /etc/resolv.conf
echo 'nameserver 10.0.2.3' >/etc/resolv.conf
mount --make-rshared /
echo "$pid"
exec tini -- cat >/dev/null
"""

# What a loss of power does. Spared are pid 1 with its cat, and what _BOOT has made: the mounts,
# whose ids are in $1, and its part of /run.
_LOSE_POWER = """
set -e
spared=" 1 $$ $(pgrep --parent 1 --exact cat) "
left=yes
while [ "$left" ]; do
    left=
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        case $spared in *" $pid "*) continue ;; esac
        left=yes
        kill -KILL "$pid" 2>/dev/null || true
    done
done
while read -r id _ _ _ point _; do
    case " $1 " in *" $id "*) ;; *) printf '%b\\n' "$point" ;; esac
done </proc/self/mountinfo | tac | while read -r point; do
    umount --lazy "$point" 2>/dev/null || true # it may have gone with one that it was a copy of
done
find /run -mindepth 1 -maxdepth 1 ! -name machine ! -name repository \
    -exec rm -r --one-file-system {} +
"""

_REPOSITORY = Path(__file__).parents[2]
_SOCKET = "run/docker.sock"
_PID_FILE = "run/docker.pid"
_CONTAINERD_PID_FILE = "run/docker/containerd/containerd.pid"


class EngineError(RuntimeError):
    """The engine, or a command given to it, failed; the message holds what it printed."""


class PrivateEngine:
    """A running engine; as a context manager, it is closed at the end of the block.

    Attributes:
        environ: the environment for programs that shall use this engine: ours, with its own
            DOCKER_HOST and DOCKER_CONFIG in place of all our DOCKER_* variables.
        log: dockerd's log, over all its starts. It goes with `close`.
        tmp: the machine's ``/tmp``, as we see it.
        pid: pid 1 of the machine as we see it: ``/proc/<pid>/root`` is its file system,
            ``/proc/<pid>/mountinfo`` its mounts.
    """

    def __init__(self, *flags: str) -> None:
        """Makes the machine and starts dockerd in it, as `start` does.

        Raises:
            EngineError: it could not; nothing is left of it.
        """
        _check_machine_can_be_made()
        self._dockerd: subprocess.Popen[bytes] | None = None
        with ExitStack() as stack:
            self._directory, lock = stack.enter_context(_own_directory())
            self.log = self._directory / "dockerd.log"
            self.tmp = self._directory / "tmp"
            self.tmp.mkdir()
            self.tmp.chmod(0o1777)
            stack.callback(self._reap)
            self.pid = stack.enter_context(_machine(self.log, self.tmp, lock))
            self._root = Path(f"/proc/{self.pid}/root")
            self._mounts = " ".join(_mounts(self.pid))
            self.environ = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
            self.environ["DOCKER_HOST"] = f"unix://{self._root / _SOCKET}"
            self.environ["DOCKER_CONFIG"] = str(self._directory / "config")
            self.start(*flags)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *flags: str) -> None:
        """Starts dockerd, with these flags besides its own, and waits until it answers.

        Raises:
            EngineError: it runs already, or it does not answer within a minute.
        """
        if self._running():
            raise EngineError("the engine runs already")
        # Their numbers may by now be those of other processes, which would make dockerd refuse.
        for stale in (_PID_FILE, _CONTAINERD_PID_FILE, _SOCKET):
            (self._root / stale).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._dockerd = subprocess.Popen(
                [
                    *self.inside("dockerd"),
                    f"--data-root={self._directory / 'data'}",
                    "--exec-opt=native.cgroupdriver=cgroupfs",
                    f"--cgroup-parent=/{self._directory.name}",
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        settled = _wait_until(lambda: self._answers() or not self._running())
        if not settled or not self._running():
            raise _failure("dockerd does not answer", self.log)

    def stop(self) -> None:
        """Ends dockerd as a service manager does, which ends its containers (no live-restore).

        Raises:
            EngineError: it has not ended within a minute.
        """
        self._signal("TERM")

    def kill(self) -> None:
        """Ends dockerd and its containerd by SIGKILL; containers and plugins run on."""
        if not self._running():
            return
        containerd = self._root / "proc" / (self._root / _CONTAINERD_PID_FILE).read_text()
        self._signal("KILL")
        # containerd dies of its parent's death, but not at once, and a second one would meet it.
        if not _wait_until(lambda: not containerd.exists()):
            raise _failure("containerd outlives dockerd", self.log)

    def cut_power(self) -> None:
        """Ends every process by SIGKILL, undoes their mounts, empties ``/run``; `start` is next.

        It is kinder than a real loss of power to what was written and not yet synchronised.

        Raises:
            EngineError: something outlives it.
        """
        self.run("sh", "-c", _LOSE_POWER, "sh", self._mounts, timeout=_DEADLINE)
        self._reap()

    def close(self) -> None:
        """Ends every process and mount of the engine and removes all it has; again is harmless."""
        self._resources.close()

    def docker(
        self,
        *args: str,
        check: bool = True,
        timeout: float = 120.0,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Runs the docker client against this engine.

        Args:
            args: the client's arguments.
            check: whether an exit status other than 0 is an error.
            timeout: seconds after which the client is killed, which is an error.
            stdin: what the client reads from its standard input.

        Raises:
            EngineError: the command failed; the message holds all that it printed.
        """
        return _run(["docker", *args], self.environ, check, timeout, stdin)

    def run(
        self, *command: str, check: bool = True, timeout: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the engine's machine, as root.

        The repository is the working directory there; the engine is where docker looks for one.

        Raises:
            EngineError: as `docker` does.
        """
        environ = {k: v for k, v in self.environ.items() if not k.startswith("DOCKER_")}
        inside = self.inside("env", "--chdir=/run/repository", *command)
        return _run(inside, environ, check, timeout)

    def inside(self, *command: str) -> list[str]:
        """The command that runs this one on the engine's machine, as root."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--", *command]

    def _running(self) -> bool:
        return self._dockerd is not None and self._dockerd.poll() is None

    def _answers(self) -> bool:
        with suppress(EngineError):
            return self.docker("version", timeout=_DEADLINE).returncode == 0
        return False

    def _signal(self, name: str) -> None:
        """Sends dockerd a signal to end by; its pid file names it as the machine numbers it."""
        if self._dockerd is None or not self._running():
            return
        pid = (self._root / _PID_FILE).read_text()
        subprocess.run(self.inside("sh", "-c", f"kill -{name} {pid}"), check=True)
        try:
            self._dockerd.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            raise _failure(f"dockerd does not end on SIG{name}", self.log) from None

    def _reap(self) -> None:
        if self._dockerd is not None:
            self._dockerd.wait(_DEADLINE)


def _check_machine_can_be_made() -> None:
    missing = sorted({package for tool, package in _PACKAGES.items() if not shutil.which(tool)})
    if missing:
        raise EngineError(f"an engine of our own needs the Debian packages: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise EngineError("an engine of our own needs root")


@contextmanager
def _own_directory() -> Iterator[tuple[Path, int]]:
    """A fresh locked directory and its lock, after those of dead engines are removed."""
    # Not under /tmp: the plugin binds /tmp, and would bind the engine's own mounts with it.
    with ExitStack() as stack:
        # One process at a time, so that none takes our directory for a dead one's before its lock.
        with _lock(_STATE, fcntl.LOCK_EX):
            for stale in _STATE.glob(f"{_PREFIX}*"):
                with suppress(BlockingIOError, FileNotFoundError), _lock(stale):
                    _remove(stale)
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_STATE))
            lock = stack.enter_context(_lock(directory))
        stack.callback(_remove, directory)
        yield directory, lock


@contextmanager
def _lock(directory: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    """Removes an ended engine's directory and the cgroups that it left."""
    # --cgroup-parent does not hold for plugins: theirs, named by their ids, are below the cgroup
    # that we are in (version 1) or beside it (version 2).
    plugins = directory / "data" / "plugins"
    names = {directory.name, *(path.name for path in plugins.glob("?" * 64))}
    # A cgroup may be busy for a moment after its last process has ended.
    _wait_until(lambda: _remove_cgroups(names))
    shutil.rmtree(directory)


def _remove_cgroups(names: set[str]) -> bool:
    """Removes the cgroups of these names with all below them; says whether that worked."""
    gone = True
    for path, _, _ in os.walk(_CGROUPS, topdown=False):
        if not names.isdisjoint(Path(path).parts):
            try:
                Path(path).rmdir()
            except OSError:
                gone = False
    return gone


@contextmanager
def _machine(log: Path, tmp: Path, lock: int) -> Iterator[int]:
    """Runs the machine and its way out to the network; gives its pid 1 as we number it."""
    with ExitStack() as stack:
        watched, lifeline = _pipe(stack)
        booted, answer = _pipe(stack)
        output = stack.enter_context(log.open("ab"))
        unshare = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation=slave", "--net", "--pid", "--fork"),
                *("--kill-child", "--", "sh", "-c", _BOOT, "sh", str(tmp), str(_REPOSITORY)),
            ],
            stdin=watched,
            stdout=answer,
            stderr=output,
            pass_fds=[lock],
            start_new_session=True,
        )
        stack.callback(_end, unshare, lifeline)
        pid = _reply(booted, answer)
        if not pid:
            raise _failure("the namespaces of the engine cannot be made", log)
        ready, answer = _pipe(stack)
        slirp = subprocess.Popen(
            [
                *("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"),
                *(f"--exit-fd={watched.fileno()}", f"--ready-fd={answer.fileno()}"),
                *(pid, "tap0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[watched.fileno(), answer.fileno()],
            start_new_session=True,
        )
        stack.callback(_end, slirp, lifeline)
        if not _reply(ready, answer):
            raise _failure("slirp4netns does not connect the engine to the network", log)
        yield int(pid)


def _mounts(pid: int) -> list[str]:
    """The ids of the mounts that a process has. Source: proc_pid_mountinfo(5)."""
    return [line.split()[0] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "r")), stack.enter_context(FileIO(writing, "w"))


def _reply(reading: FileIO, writing: FileIO) -> str:
    """What a child writes first to its end of this pipe; empty if it ends or stays silent."""
    writing.close()
    ready, _, _ = select.select([reading], [], [], _DEADLINE)
    return os.read(reading.fileno(), 64).decode().strip() if ready else ""


def _end(process: subprocess.Popen[bytes], lifeline: FileIO) -> None:
    lifeline.close()
    process.wait(_DEADLINE)


def _wait_until(condition: Callable[[], bool]) -> bool:
    """Polls for at most a minute; says whether the condition came true."""
    deadline = time.monotonic() + _DEADLINE
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def _run(
    command: list[str],
    environ: dict[str, str],
    check: bool,
    timeout: float,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )
    except subprocess.CalledProcessError as error:
        raise _command_error(error, f"exit status {error.returncode}") from None
    except subprocess.TimeoutExpired as error:
        raise _command_error(error, f"no end after {timeout:g} s") from None


def _failure(what: str, log: Path) -> EngineError:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return EngineError(f"{what}; the end of its log:\n{tail}")


def _command_error(
    error: subprocess.CalledProcessError | subprocess.TimeoutExpired, how: str
) -> EngineError:
    # What a timed-out command printed comes as bytes, in text mode too.
    printed = [
        part.decode(errors="replace") if isinstance(part, bytes) else part or ""
        for part in (error.stdout, error.stderr)
    ]
    return EngineError(
        f"{shlex.join(error.cmd)}: {how}\nstdout:\n{printed[0]}\nstderr:\n{printed[1]}"
    )
