"""What mdvp sees of the kernel, with real mount namespaces, and what follows from it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from integration.follow import following
from integration.holder import (
    BIND,
    OWN_NAMESPACE,
    cgroup,
    holding,
    kill,
    new_container_id,
    ready,
)
from integration.plugin import serving
from support import eventually

from mdvp.core.lease import Holder
from mdvp.host.kernel import Kernel
from mdvp.host.proc import containers_in

# What a path may have in it that a mount table has to escape, or does not.
ODD = [
    b"with space",
    b"back\\slash",
    b"\\040",
    b"line\nend",
    b"tab\tbed",
    b"\rreturn\vand\fothers",
    b"not \xff\xfe UTF-8",
    b"#hash",
    "größe".encode(),
]

AS_USER = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--")

TICK = 0.01  # seconds: the kernel rounds the beginning of a process down to this


@pytest.fixture
def root(short_path: Path) -> Path:
    """Return a root with the directory of a volume in it, `vol`."""
    (short_path / "root" / "vol").mkdir(parents=True)
    return short_path / "root"


@dataclass(frozen=True)
class Eye:
    """A view of the kernel, and the root that it looks at."""

    kernel: Kernel
    root: Path

    def holders(self, *, fresh: bool = False) -> dict[str, list[Holder]]:
        """Return who has each directory in the root, and `vol` if that was there."""
        look = self.kernel.look(fresh=fresh)
        assert look is not None
        path = self.kernel.path
        found = {
            name: look.holders([path(name), path(name, removed=True)])
            for name in {*os.listdir(self.root), "vol"}
        }
        return {name: holders for name, holders in found.items() if holders}


@contextmanager
def looking(root: Path, now: Callable[[], float] = time.monotonic) -> Iterator[Eye]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with closing(Kernel(descriptor, now)) as kernel:
            yield Eye(kernel, root)
    finally:
        os.close(descriptor)


@pytest.fixture
def eye(root: Path) -> Iterator[Eye]:
    with looking(root) as eye:
        yield eye


def seen(eye: Eye) -> dict[str, list[int]]:
    """Return the processes that have each volume."""
    return {name: sorted(holder.pid for holder in of) for name, of in eye.holders().items()}


def only(eye: Eye, name: str = "vol") -> Holder:
    """Return who has `name`, which is one, and no other volume is had by anyone."""
    holders = eye.holders()
    assert list(holders) == [name]
    (holder,) = holders[name]
    return holder


def test_nobody_has_a_volume_that_is_not_mounted(eye: Eye) -> None:
    assert eye.kernel.blind is None
    assert seen(eye) == {}


def test_a_process_that_has_a_volume_mounted_is_its_holder(
    eye: Eye, root: Path, point: Path
) -> None:
    before = datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME)
    with holding(root / "vol", point) as process:
        holder = only(eye)
        after = datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME)
        assert (holder.container, holder.pid, holder.command) == (None, process.pid, "sh")
        assert before[1] - TICK <= holder.began <= after[1]
        assert before[0] - timedelta(seconds=TICK) <= holder.since <= after[0]
        kill(process)
        assert seen(eye) == {}


@pytest.mark.parametrize(
    "script",
    [
        'mount --bind --options ro "$1" "$2"',
        'mount --bind "$1" "$2" && mount --options remount,ro,bind "$2"',
        'mkdir "$1/below" && mount --bind "$1/below" "$2"',
        'echo >"$1/file" && echo >"$2/file" && mount --bind "$1/file" "$2/file"',
        'mount --bind "$1" "$2" && mkdir "$2/deep" && mount --bind "$2/deep" "$2"',
        'mount --bind "$1" "$2" && mount -t tmpfs none "$2"',
    ],
    ids=["read-only", "made read-only", "below", "a file", "twice", "covered"],
)
def test_however_a_volume_is_mounted(eye: Eye, root: Path, point: Path, script: str) -> None:
    with holding(root / "vol", point, f"{{ {script}; }} && echo ready && read -r _") as process:
        assert seen(eye) == {"vol": [process.pid]}


def test_the_root_itself_is_no_volume(eye: Eye, root: Path, point: Path) -> None:
    with holding(root, point), holding(root.parent, point):
        assert seen(eye) == {}


def test_a_name_that_another_begins_with(eye: Eye, root: Path, point: Path) -> None:
    (root / "vol2").mkdir()
    (root.with_name("root2") / "vol").mkdir(parents=True)
    with holding(root / "vol2", point) as process, holding(root.with_name("root2") / "vol", point):
        assert seen(eye) == {"vol2": [process.pid]}


def test_several_have_several(eye: Eye, root: Path, point: Path) -> None:
    (root / "other").mkdir()
    both = 'mount --bind "$1/vol" "$2" && mount --bind "$1/other" "$2" && echo ready && read -r _'
    with holding(root, point, both) as one, holding(root / "vol", point) as two:
        assert seen(eye) == {"vol": sorted([one.pid, two.pid]), "other": [one.pid]}


@pytest.mark.parametrize("odd", ODD)
def test_odd_mount_points(eye: Eye, root: Path, point: Path, odd: bytes) -> None:
    path = os.fsencode(point) + b"/" + odd
    os.mkdir(path)  # noqa: PTH102  # bytes
    with holding(root / "vol", path) as process:
        assert seen(eye) == {"vol": [process.pid]}


@pytest.mark.parametrize("odd", ODD)
def test_odd_roots_and_directories_below_a_volume(short_path: Path, odd: bytes) -> None:
    root = short_path / os.fsdecode(odd)
    below = root / "vol" / os.fsdecode(odd)
    below.mkdir(parents=True)
    with looking(root) as eye, holding(below, short_path) as process:
        assert seen(eye) == {"vol": [process.pid]}


def test_a_directory_that_was_removed_is_held_all_the_same(
    eye: Eye, root: Path, point: Path
) -> None:
    with holding(root / "vol", point) as process:
        # The kernel refuses no removal for a mount in another namespace.
        (root / "vol").rmdir()
        assert f"{root}/vol//deleted" in Path(f"/proc/{process.pid}/mountinfo").read_text()
        assert seen(eye) == {"vol": [process.pid]}


def test_a_directory_that_was_renamed_is_held_by_its_new_name(
    eye: Eye, root: Path, point: Path
) -> None:
    with holding(root / "vol", point) as process:
        (root / "vol").rename(root / "renamed")
        (root / "vol").mkdir()
        assert seen(eye) == {"renamed": [process.pid]}


class Looker:
    """A process that looks at the kernel from a namespace of its own, as the plugin does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def holders(self) -> dict[str, list[list[str | None]]] | None:
        """Return who has each volume: container and command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, list[list[str | None]]] | None
        found = json.loads(self._process.stdout.readline())
        return found

    def beside(self, source: Path, point: Path) -> Sequence[str | Path]:
        """Return the command of a holder whose namespace begins as a copy of the looker's."""
        enter = ("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--")
        return *enter, *OWN_NAMESPACE, "sh", "-c", BIND, "sh", source, point


LOOK = """
import json, logging, os, sys
from mdvp.host.kernel import Kernel
logging.basicConfig(filename=sys.argv[2], level=logging.INFO)
kernel = Kernel(os.open(sys.argv[1], os.O_RDONLY))
print("ready", flush=True)
for line in sys.stdin:
    look = kernel.look()
    holders = look and look.holders([kernel.path("vol")])
    found = holders and [(holder.container, holder.command) for holder in holders]
    print(json.dumps({"vol": found} if found else None if look is None else {}), flush=True)
"""


@contextmanager
def looker(
    root: Path,
    script: str = "",
    *,
    own: Sequence[str] = OWN_NAMESPACE,
    log: str | Path = os.devnull,
) -> Iterator[Looker]:
    """Run a looker at `root`, `$ROOT` to the script that it runs before."""
    look = 'exec "$@"' if own == OWN_NAMESPACE else '"$@"'
    shell = ("sh", "-c", f"set -e; ROOT=$4; {script}\n{look}", "sh")
    command = (*own, *shell, sys.executable, "-c", LOOK, root, log)
    with ready(command) as process:
        yield Looker(process)


IS_A_MOUNT_POINT = 'mount -t tmpfs none "$ROOT"; mkdir "$ROOT/vol"'


@pytest.mark.parametrize(
    "script",
    [
        "",
        IS_A_MOUNT_POINT,
        f"{IS_A_MOUNT_POINT}; {IS_A_MOUNT_POINT}",
        f'mount -t tmpfs none "$ROOT/.."; mkdir "$ROOT"; {IS_A_MOUNT_POINT}',
        'mkdir "$ROOT/a" "$ROOT/a/b" "$ROOT/a/b/vol"; mount --bind "$ROOT/a/b" "$ROOT"',
        'mkdir -p "$ROOT/a/root/vol"; mount --bind "$ROOT/a" "$ROOT/.."',
        'mount --bind "$ROOT" "$ROOT"; mount --bind "$ROOT" "$ROOT"',
        'mount -t tmpfs none "$ROOT/.."; mkdir -p "$ROOT/vol"',
    ],
    ids=[
        "of the file system of the host",
        "a mount point",
        "a mount point twice",
        "a mount point below another",
        "a bind mount",
        "below a bind mount",
        "bound to itself",
        "in a new file system",
    ],
)
def test_a_root_that_is(root: Path, script: str) -> None:
    with looker(root, script) as eye:
        assert eye.holders() == {}
        with ready(eye.beside(root / "vol", root / "vol")):
            assert eye.holders() == {"vol": [[None, "sh"]]}
        assert eye.holders() == {}


def test_what_lies_under_the_root_is_not_in_it(root: Path, point: Path) -> None:
    with looker(root, IS_A_MOUNT_POINT) as eye, holding(root / "vol", point):
        assert eye.holders() == {}


def test_our_own_namespace_does_not_count(root: Path, point: Path) -> None:
    with looker(root, f'mount --bind "$ROOT/vol" {point}') as eye:
        assert eye.holders() == {}


# The looker is on a host of its own, so to say: process 1 of its process namespace.
OWN_HOST = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc", "--")
UNTIL_THE_END = "sh -c 'echo >\"$ROOT/../up\"; exec sleep infinity' &"


@pytest.mark.parametrize("using", [False, True])
@pytest.mark.parametrize("container", [None, new_container_id()], ids=["service", "container"])
def test_a_copy_of_what_the_host_has_mounted_counts_when_a_process_uses_it(
    root: Path, point: Path, container: str | None, using: bool
) -> None:
    with cgroup(container) as enter:
        command = [*enter, *OWN_NAMESPACE, "env", f"--chdir={point if using else '/'}"]
        # What `docker run -v /:/host` has: the host's mount is a copy under another path.
        if container:
            (root.parent / "host").mkdir()
            rebind = f'mount --rbind {root.parent} {root.parent}/host; cd "$0"; exec "$@"'
            place = root.parent / "host" / point.name if using else "/"
            command = [*enter, *OWN_NAMESPACE, "sh", "-c", rebind, str(place)]
        script = f'export ROOT; mount --bind "$ROOT/vol" {point}; {shlex.join(command)} '
        with looker(root, script + UNTIL_THE_END, own=OWN_HOST) as eye:
            eventually((root.parent / "up").exists, True)
            eventually(eye.holders, {"vol": [[container, "sleep"]]} if using else {})


def test_what_a_process_of_the_host_uses_where_the_host_has_it_does_not_count(
    root: Path, point: Path
) -> None:
    program = f'(cd {point}; echo >"$ROOT/../up"; exec sleep infinity) &'
    with looker(root, f'mount --bind "$ROOT/vol" {point}; {program}', own=OWN_HOST) as eye:
        eventually((root.parent / "up").exists, True)
        assert eye.holders() == {}


DEEP = f"""
import os, pathlib, sys, time
sys.path.append({str(Path(__file__).parents[1])!r})
from integration.holder import dig
place = pathlib.Path(sys.argv[1])
folder = dig(place)
up = open(place / "up", "w")
os.fchdir(folder)
os.chroot(".")
up.write("up")
up.close()
time.sleep(600)
"""


def test_a_process_that_is_deeper_than_the_kernel_tells_stops_no_look(
    root: Path, point: Path
) -> None:
    # Its root, its working directory and what it has open; any user can be there.
    program = f"{sys.executable} -c {shlex.quote(DEEP)} {root.parent} &"
    with looker(root, f'mount --bind "$ROOT/vol" {point}; {program}', own=OWN_HOST) as eye:
        up = root.parent / "up"
        eventually(lambda: up.exists() and up.read_text(), "up")
        assert eye.holders() == {}


def test_a_volume_mounted_in_a_service_and_not_on_the_host_counts(root: Path, point: Path) -> None:
    script = f"export ROOT; {' '.join(OWN_NAMESPACE)} "
    mount = UNTIL_THE_END.replace("echo", f'mount --bind "$ROOT/vol" {point} && echo')
    with looker(root, script + mount, own=OWN_HOST) as eye:
        eventually((root.parent / "up").exists, True)
        eventually(eye.holders, {"vol": [[None, "sleep"]]})


def test_a_process_that_was_not_waited_for_is_gone(eye: Eye, root: Path, point: Path) -> None:
    with holding(root / "vol", point) as process:
        process.kill()
        status = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: status.read_text().rpartition(") ")[2][0], "Z")
        assert seen(eye) == {}


def test_a_namespace_lives_on_in_the_processes_that_are_left(
    eye: Eye, root: Path, point: Path
) -> None:
    script = 'mount --bind "$1" "$2"; sleep infinity & echo ready'
    command = (*OWN_NAMESPACE, "sh", "-c", script, "sh", root / "vol", point)
    with ready(command, ends_itself=True) as process:
        assert only(eye).pid != process.pid
    eventually(lambda: seen(eye), {})


def python(program: str) -> str:
    """Return the script of a holder that goes on with a program, `sys.argv[1:]` as in the shell."""
    return f'mount --bind "$1" "$2" && exec {sys.executable} -c \'{program}\' "$@"'


def test_a_process_lives_on_in_the_threads_that_are_left(eye: Eye, root: Path, point: Path) -> None:
    program = """
import ctypes, os, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    with holding(root / "vol", point, python(program)) as process:
        status = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: status.read_text().rpartition(") ")[2][0], "Z")
        assert seen(eye) == {"vol": [process.pid]}


@pytest.mark.parametrize("confined", ["parent", "child"])
def test_a_process_in_a_chroot_does_not_hide_what_others_have(
    eye: Eye, root: Path, point: Path, confined: str
) -> None:
    # The kernel shows of a namespace what is mounted below the root of the process that is asked.
    program = f"""
import os, sys
reading, writing = os.pipe()
role = "parent" if os.fork() else "child"
if role == "{confined}":
    os.mkdir(sys.argv[2] + "/jail")
    os.chroot(sys.argv[2] + "/jail")
    print("ready", flush=True)
sys.stdin.read()
"""
    with holding(root / "vol", point, python(program)):
        assert list(seen(eye)) == ["vol"]


DETACHED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
reading, writing = os.pipe()
if os.fork():
    assert libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0
    os.chroot("/mnt")
    os.write(writing, b".")
else:
    os.read(reading, 1)
    assert libc.umount2(b"/mnt", 2) == 0  # MNT_DETACH
    print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_whose_root_is_a_detached_mount_does_not_hide_what_others_have(
    eye: Eye, root: Path, point: Path
) -> None:
    # The path of its root is "/", too, and it is asked first.
    with holding(root / "vol", point, python(DETACHED)) as process:
        assert str(Path(f"/proc/{process.pid}/root").readlink()) == "/"
        assert list(seen(eye)) == ["vol"]


def test_a_container_is_known_by_its_cgroup(eye: Eye, root: Path, point: Path) -> None:
    container = new_container_id()
    with holding(root / "vol", point, container=container):
        assert only(eye).container == container


def test_a_container_with_several_namespaces_is_one_holder_as_old_as_its_first(
    eye: Eye, root: Path, point: Path
) -> None:
    container = new_container_id()
    script = (
        'mount --bind "$1" "$2"; mkfifo "$3/up";'
        ' unshare --mount sh -c \'echo >"$0/up"; exec sleep infinity\' "$3" &'
        ' read -r _ <"$3/up"; echo ready; read -r _'
    )
    command = (*OWN_NAMESPACE, "sh", "-c", script, "sh", root / "vol", point, root.parent)
    with ready(command, container=container) as process:
        holder = only(eye)
        assert (holder.container, holder.pid) == (container, process.pid)


@pytest.mark.parametrize("container", [None, new_container_id()], ids=["service", "container"])
def test_a_container_that_may_not_be_looked_at_could_have_anything(
    root: Path, short_path: Path, container: str | None
) -> None:
    log = short_path / "log"
    with cgroup(container) as enter:
        # In a user namespace of its own it has all capabilities, and none over processes outside.
        blinded = f'{shlex.join([*enter, "sleep", "infinity"])} & exec unshare -U -r -- "$@"'
        with looker(root, own=(*OWN_HOST, "sh", "-c", blinded, "sh"), log=log) as eye:
            eventually(eye.holders, None if container else {})
    said = "ERROR:mdvp.host.kernel:cannot see which containers have volumes" in log.read_text()
    assert said == (container is not None)


C1, C2 = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("cgroup", "containers"),
    [
        (f"12:pids:/docker/{C1}\n1:name=systemd:/docker/{C1}\n0::/\n", [C1]),
        (f"0::/system.slice/docker-{C1}.scope\n", [C1]),
        (f"0::/docker/{C1}\n", [C1]),
        (f"0::/../../system.slice/docker-{C1}.scope/init.scope\n", [C1]),
        (f"0::/kubepods.slice/kubepods-pod0a1b2c3d.slice/cri-containerd-{C1}.scope\n", [C1]),
        (f"0::/machine.slice/libpod-{C1}.scope/container\n", [C1]),
        (f"4:memory:/docker/{C1}/docker/{C2}\n", [C1, C2]),
        (f"0::/system.slice/docker-{C1}.scope/system.slice/docker-{C2}.scope\n", [C1, C2]),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", []),
        (f"0::/docker/{C1}/user.slice/user-0.slice/libpod-{C2}.scope\n", [C1]),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{C1}.scope\n", []),
        ("9:name=systemd:/\n8:pids:/\n0::/\n", []),
        (f"0::/docker/{C1[:63]}\n", []),
        (f"0::/docker/{C1}0\n", []),
        (f"0::/docker/{C1.upper()}\n", []),
        ("", []),
    ],
)
def test_the_containers_in_a_cgroups_path(cgroup: str, containers: list[str]) -> None:
    assert containers_in(cgroup.encode()) == containers


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a) S 1 (b", "a) S 1 (b"),
        (b"(redis) ", "(redis) "),
        (b"caf\xe9", "caf\\udce9"),
        (b")", ")"),
    ],
)
def test_the_command_may_have_any_name(
    eye: Eye, root: Path, point: Path, name: bytes, shown: str
) -> None:
    program = point.with_name(os.fsdecode(name))
    shutil.copy(str(shutil.which("cat")), program)
    script = 'mount --bind "$1" "$2" && echo ready && exec "$3"'
    command = (*OWN_NAMESPACE, "sh", "-c", script, "sh", root / "vol", point, program)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with ready(command) as process:
        # It says that it is ready before it is a `cat` of another name.
        eventually(lambda: only(eye).command, shown)
        assert only(eye).pid == process.pid
        assert before - TICK <= only(eye).began <= time.clock_gettime(time.CLOCK_BOOTTIME)


# What follows from it at the socket.


def test_a_volume_of_a_dead_container_is_free_at_once_when_it_was_seen(
    root: Path, point: Path
) -> None:
    with (
        serving(root, root.with_name("mdvp.sock"), GRACE="60") as plugin,
        following(plugin) as log,
    ):
        plugin.call("Create", Name="data")
        plugin.call("Mount", Name="data", ID="one")
        with holding(root / "data", point) as process:
            eventually(lambda: log.says(f"volume data is mounted in process {process.pid}"), True)
            refused = plugin.call("Mount", Name="data", ID="two")
            assert refused.status == 409
            assert f"'data' is in use: process {process.pid} (sh) has had it" in refused.error
            kill(process)
            assert plugin.call("Mount", Name="data", ID="two").status == 200
            eventually(lambda: log.says("volume data reclaimed from mount one, which had it"), True)


def test_a_container_that_started_while_mdvp_was_away_is_seen_when_it_is_back(
    root: Path, point: Path
) -> None:
    socket = root.with_name("mdvp.sock")
    with serving(root, socket, GRACE="60") as plugin:
        plugin.call("Create", Name="data")
        plugin.call("Mount", Name="data", ID="one")
        plugin.kill()
    with (
        holding(root / "data", point) as process,
        serving(root, socket, GRACE="60") as plugin,
        following(plugin) as log,
    ):
        eventually(lambda: log.says(f"volume data is mounted in process {process.pid}"), True)
        kill(process)
        assert plugin.call("Mount", Name="data", ID="two").status == 200


def test_a_volume_of_a_container_that_never_started_is_free_after_the_grace_period(
    root: Path,
) -> None:
    with serving(root, root.with_name("mdvp.sock"), GRACE="2") as plugin, following(plugin) as log:
        plugin.call("Create", Name="data")
        begin = time.monotonic()
        plugin.call("Mount", Name="data", ID="one")
        refused = plugin.call("Mount", Name="data", ID="two")
        assert refused.status == 409
        assert "mount one has had it since" in refused.error
        assert "free again in " in refused.error
        assert plugin.call("Remove", Name="data").status == 409
        assert not log.says("reclaimed")
        eventually(lambda: plugin.call("Mount", Name="data", ID="two").status, 200)
        assert time.monotonic() - begin > 2.0
        eventually(lambda: log.says("volume data reclaimed from mount one, which had it"), True)


def test_a_living_container_has_its_volume_whatever_the_records_say(
    root: Path, point: Path
) -> None:
    container = new_container_id()
    with serving(root, root.with_name("mdvp.sock"), GRACE="1") as plugin, ExitStack() as stack:
        plugin.call("Create", Name="data")
        plugin.call("Mount", Name="data", ID="one")
        process = stack.enter_context(holding(root / "data", point, container=container))
        for _ in range(2):
            for refused in (
                plugin.call("Mount", Name="data", ID="two"),
                plugin.call("Remove", Name="data"),
            ):
                assert refused.status == 409
                assert f"container {container[:12]} has had it since 20" in refused.error
            status = plugin.call("Get", Name="data").message["Volume"]["Status"]
            assert status["mounted_by"] == [container]
            plugin.call("Unmount", Name="data", ID="one")
        kill(process)
        assert plugin.call("Get", Name="data").message["Volume"]["Status"]["mounted"] is False
        assert plugin.call("Remove", Name="data").status == 200


BLIND = {
    "no capability": (
        ("setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace", "--"),
        "it needs CAP_SYS_PTRACE",
    ),
    "own process namespace": (
        ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"),
        "mdvp does not share the host's process namespace",
    ),
}


@pytest.mark.parametrize("why", BLIND)
def test_where_the_kernel_cannot_be_asked_the_records_count_and_it_says_so(
    root: Path, point: Path, why: str
) -> None:
    prefix, words = BLIND[why]
    with (
        serving(root, root.with_name("mdvp.sock"), prefix=prefix, GRACE="1") as plugin,
        following(plugin) as log,
    ):
        eventually(
            lambda: log.says("WARNING cannot see which containers have volumes mounted", words),
            True,
        )
        plugin.call("Create", Name="data")
        plugin.call("Mount", Name="data", ID="one")
        with holding(root / "data", point):
            pass
        refused = plugin.call("Mount", Name="data", ID="two")
        assert refused.status == 409
        assert "mdvp cannot see whether its container lives" in refused.error
        status = plugin.call("Get", Name="data").message["Volume"]["Status"]
        (warning,) = status["warnings"]
        assert words in warning
        assert status["mount_ids"] == ["one"]
        plugin.call("Unmount", Name="data", ID="one")
        assert plugin.call("Mount", Name="data", ID="two").status == 200


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settled(root: Path, clock: Clock) -> Iterator[Eye]:
    """Yield a view for which the processes that it shows first will have been there for long."""
    with looking(root, clock) as eye:
        yield eye


MOUNTS_LATER = 'echo ready && read -r _ && mount --bind "$1" "$2" && echo mounted && read -r _'


def mount_now(process: subprocess.Popen[str]) -> None:
    """Have a process that mounts later do so."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "mounted\n"


@pytest.fixture
def late(settled: Eye, clock: Clock, root: Path, point: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that has mounted a volume right after it was seen, at 11 s, without one."""
    with holding(root / "vol", point, MOUNTS_LATER) as process:
        for clock.now in (0.0, 11.0):
            assert seen(settled) == {}
        mount_now(process)
        yield process


@pytest.mark.usefixtures("late")
def test_what_a_process_mounts_late_is_seen_some_seconds_later(settled: Eye, clock: Clock) -> None:
    clock.now = 20.9
    assert seen(settled) == {}
    assert list(settled.holders(fresh=True)) == ["vol"]


def test_what_a_process_mounted_late_is_seen_in_the_end(
    settled: Eye, clock: Clock, late: subprocess.Popen[str]
) -> None:
    clock.now = 21.1
    assert seen(settled) == {"vol": [late.pid]}


def test_what_a_process_mounts_at_its_start_is_seen_at_once(
    settled: Eye, clock: Clock, root: Path, point: Path
) -> None:
    with holding(root / "vol", point, MOUNTS_LATER) as process:
        for clock.now in (0.0, 9.0):
            assert seen(settled) == {}
        mount_now(process)
        assert seen(settled) == {"vol": [process.pid]}


def test_a_holder_of_long_standing_is_gone_as_soon_as_it_ends(
    settled: Eye, clock: Clock, root: Path, point: Path
) -> None:
    with holding(root / "vol", point) as process:
        for clock.now in (0.0, 11.0, 12.0):
            assert seen(settled) == {"vol": [process.pid]}
        kill(process)
        assert seen(settled) == {}


def test_of_a_holder_of_long_standing_the_rest_is_seen_when_its_first_process_ends(
    settled: Eye, clock: Clock, root: Path, point: Path
) -> None:
    two = 'mount --bind "$1" "$2" && { sleep infinity & } && echo ready && read -r _'
    with holding(root / "vol", point, two) as process:
        for clock.now in (0.0, 11.0, 12.0):
            (pids,) = seen(settled).values()
        process.kill()
        process.wait()
        (left,) = seen(settled).values()
        assert left != pids


def test_a_renamed_root_is_found_again(short_path: Path, point: Path) -> None:
    (short_path / "above" / "root" / "vol").mkdir(parents=True)
    with looking(short_path / "above" / "root") as eye:
        assert seen(eye) == {}
        (short_path / "above").rename(short_path / "renamed")
        renamed = Eye(eye.kernel, short_path / "renamed" / "root")
        with holding(renamed.root / "vol", point) as process:
            assert seen(renamed) == {"vol": [process.pid]}


def test_who_has_a_volume_is_seen_when_the_mount_of_the_root_was_taken_away(
    root: Path, point: Path
) -> None:
    other = root.with_name("other")
    other.mkdir()
    subprocess.run(["mount", "--bind", root, other], check=True)
    try:
        with looking(other) as eye:
            assert seen(eye) == {}
            subprocess.run(["umount", "--lazy", other], check=True)
            with holding(root / "vol", point) as process:
                assert seen(eye) == {"vol": [process.pid]}
    finally:
        subprocess.run(["umount", "--quiet", other], check=False)


@pytest.mark.parametrize("container", [None, new_container_id()], ids=["", "its cgroup"])
def test_what_any_user_can_mount_in_a_namespace_of_their_own_does_not_count(
    eye: Eye, root: Path, point: Path, container: str | None
) -> None:
    # In a container, too: what counts there is what root has made for it. And users can have
    # cgroups in which they can make others, of any name.
    alone = ("unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", BIND, "sh")
    for directory in (root.parent, root, root / "vol", point):
        directory.chmod(0o755)
    with ready((*AS_USER, *alone, root / "vol", point), container=container):
        assert seen(eye) == {}


def test_a_service_that_makes_a_namespace_of_users_goes_on_to_count(
    eye: Eye, root: Path, point: Path
) -> None:
    sandbox = " ".join((*AS_USER, "unshare", "--user", "--"))
    script = f'mount --bind "$1" "$2" && exec {sandbox} sh -c "echo ready; read -r _"'
    with holding(root / "vol", point, script) as process:
        assert seen(eye) == {"vol": [process.pid]}


MANY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
for _ in range(14):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
os.mkdir("m")
assert libc.unshare(0x10020000) == 0  # CLONE_NEWUSER, CLONE_NEWNS
for _ in range(5000):
    assert libc.mount(b"m", b"m", None, 4096, None) == 0  # MS_BIND
print("ready", flush=True)
sys.stdin.read()
"""


def test_no_user_makes_a_look_slow_by_what_they_mount(eye: Eye, root: Path, point: Path) -> None:
    for directory in (root.parent, root):
        directory.chmod(0o755)
    point.chmod(0o777)
    with ready((*AS_USER, sys.executable, "-c", MANY, point)) as process:
        assert len(Path(f"/proc/{process.pid}/mountinfo").read_bytes()) > 10_000_000
        before = time.thread_time()
        assert seen(eye) == {}
        assert time.thread_time() - before < 0.1


def test_a_copy_outlasts_what_the_host_had_mounted(root: Path, point: Path) -> None:
    # As a monitoring container has that began while the host had the volume somewhere.
    later = (
        f'read -r _ <"$ROOT/../end"; umount {point}; echo >"$ROOT/../ended"; exec sleep infinity'
    )
    copy = f"{' '.join(OWN_NAMESPACE)} sh -c 'echo >\"$ROOT/../up\"; exec sleep infinity' &"
    script = (
        f'export ROOT; mkfifo "$ROOT/../end"; mount --bind "$ROOT/vol" {point}; {copy} ({later}) &'
    )
    with looker(root, script, own=OWN_HOST) as eye:
        eventually((root.parent / "up").exists, True)
        assert eye.holders() == {}
        (root.parent / "end").write_text("\n")
        eventually((root.parent / "ended").exists, True)
        assert eye.holders() == {}
