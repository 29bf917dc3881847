"""Users of the host who work in directories that mdvp works in, to stop it or to lead it astray."""

import os
import random
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from integration import neighbour
from integration.plugin import Plugin, serving
from support import eventually

SECONDS = float(os.environ.get("MDVP_NEIGHBOUR_SECONDS", "30"))
USER = 1000
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
STARTED_WITHIN = 2.0  # seconds

pytestmark = pytest.mark.timeout(SECONDS + 120)


@contextmanager
def process(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command, with pipes to it, for the time of the block."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    ) as started:
        try:
            yield started
        finally:
            started.kill()
            started.wait()


@pytest.fixture
def root(short_path: Path) -> Path:
    short_path.chmod(0o755)
    path = short_path / "root"
    path.mkdir()
    path.chmod(0o1777)
    return path


def trash(root: Path) -> list[str]:
    return os.listdir(root / ".mdvp" / "trash")


# Row by row: one trick each.

SWAP = """
import os
os.umask(0)
os.mkdir("sub")
os.chdir("sub")
for number in range(20_000):
    os.mkdir(str(number))
print("ready", flush=True)
while True:
    for number in map(str, range(20_000)):
        try:
            os.rename(number, "x" + number)
            os.close(os.open(number, os.O_CREAT))
        except OSError:
            pass
"""


def test_a_user_who_swaps_directories_for_files_while_they_are_deleted(root: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(serving(root, root.parent / "mdvp.sock"))
        options = {"uid": str(USER), "mode": "0777"}
        assert first.call("Create", Name="vol", Opts=options).status == 200
        command = (*AS_USER, sys.executable, "-c", SWAP)
        user = stack.enter_context(process(*command, cwd=root / "vol"))
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
        assert first.call("Remove", Name="vol").status == 200
        eventually(lambda: trash(root), [], 60)  # they do not make it easy
        first.kill()
    with serving(root, root.parent / "mdvp.sock") as second:
        assert second.volumes() == []
        assert "cannot" not in second.stop()


FUSE = """
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
if libc.mount(b"fuse", sys.argv[1].encode(), b"fuse", 6, options.encode()) != 0:
    raise OSError(ctypes.get_errno(), "mount")
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def hung(path: Path, inside: Sequence[str]) -> Iterator[None]:
    """Mount a file system that never answers; it is gone with the process that has it."""
    with process(*inside, sys.executable, "-c", FUSE, str(path)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield


@pytest.fixture
def inside() -> Iterator[Sequence[str]]:
    """Return what runs a command in a mount namespace of its own, the same for all."""
    private = ("unshare", "--mount", "--propagation", "private", "--")
    with process(*private, "sh", "-c", "echo ready; read end") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield ("nsenter", f"--target={holder.pid}", "--mount", f"--wd={Path.cwd()}", "--")


def test_nobody_waits_for_a_file_system_that_a_user_has_mounted_on_their_volume(
    root: Path, inside: Sequence[str]
) -> None:
    socket = root.parent / "mdvp.sock"
    with ExitStack() as stack:
        first = stack.enter_context(serving(root, socket, prefix=inside))
        for name in ("top", "below"):
            first.call("Create", Name=name, Opts={"uid": str(USER)})
        (root / "below" / "sub").mkdir()
        (root / "below" / "file").touch()
        for path in ("top", "below/sub"):
            stack.enter_context(hung(root / path, inside))
        for operation in ("Mount", "Remove"):
            refused = first.call(operation, Name="top", ID="id")
            assert refused.status == 409
            assert "top is a mount point on the host: unmount it first" in refused.error
        assert first.call("Get", Name="top").status == 200
        assert first.call("Get", Name="nothing").status == 404
        first.kill()
        (root / ".mdvp" / "state.db").unlink()  # so that all directories are looked at
        second = stack.enter_context(serving(root, socket, prefix=inside))
        assert second.volumes() == ["below"]
        assert "exists and is no volume" in second.call("Create", Name="top").error
        adopted = second.call("Create", Name="top", Opts={"adopt": "true"})
        assert "cannot be adopted: it is a mount point" in adopted.error
        assert second.call("Remove", Name="below").status == 200
        (left,) = (root / ".mdvp" / "trash").iterdir()
        eventually(lambda: os.listdir(left), ["sub"])
        assert "'sub'; the rest stays in mdvp's folder" in second.stop()
    with serving(root, socket) as third:
        eventually(lambda: trash(root), [])
        assert third.volumes() == []


HOLDS = """
import os, sys
here = os.open(".", os.O_RDONLY)
print("ready", flush=True)
for line in sys.stdin:
    up = os.open("..", os.O_PATH, dir_fd=here)
    reached = []
    for way in (
        lambda: os.listdir(f"/proc/self/fd/{up}"),
        lambda: os.open("record.json", os.O_RDONLY, dir_fd=up),
        lambda: os.open("..", os.O_RDONLY, dir_fd=up),
        lambda: os.open("../..", os.O_RDONLY, dir_fd=up),
        lambda: os.mkdir("mine", dir_fd=up),
        lambda: os.rename("volume", "/tmp/stolen", src_dir_fd=up),
        lambda: os.symlink("/", "link", dir_fd=up),
    ):
        try:
            reached.append(way())
        except PermissionError:
            pass
    print(os.readlink(f"/proc/self/fd/{up}"), reached, flush=True)
"""


def test_a_user_who_holds_a_removed_volume_open_gets_nowhere_from_it(root: Path) -> None:
    with (
        serving(root, root.parent / "mdvp.sock") as plugin,
        ExitStack() as stack,
    ):
        for name in ("vol", "other"):
            opts = {"uid": str(USER), "on-remove": "trash"}
            assert plugin.call("Create", Name=name, Opts=opts).status == 200
        (root / "other" / "file").write_text("precious")
        command = (*AS_USER, sys.executable, "-c", HOLDS)
        user = stack.enter_context(process(*command, cwd=root / "vol"))
        assert user.stdout is not None
        assert user.stdin is not None
        assert user.stdout.readline() == "ready\n"
        for name in ("other", "vol"):
            assert plugin.call("Remove", Name=name).status == 200
        user.stdin.write("go\n")
        user.stdin.flush()
        where, _, reached = user.stdout.readline().partition(" ")
        assert Path(where).parent == root / ".mdvp" / "removed"
        assert reached == "[]\n"
        opts = {"restore": "other"}
        assert plugin.call("Create", Name="other", Opts=opts).status == 200
        assert (root / "other" / "file").read_text() == "precious"


BAIT = """
import os, sys
os.umask(0)
for number in range(200):
    os.close(os.open(str(number), os.O_CREAT))
os.mkdir("sub")
os.close(os.open("sub/secret", os.O_CREAT))
print("ready", flush=True)
while True:
    for number in map(str, range(200)):
        os.symlink(sys.argv[1] + "/secret", "bait")
        os.rename("bait", number)
        os.close(os.open("file", os.O_CREAT))
        os.rename("file", number)
    os.rename("sub", "was")
    os.symlink(sys.argv[1], "sub")
    os.unlink("sub")
    os.rename("was", "sub")
"""


def test_a_user_who_baits_whoever_copies_their_volume_gets_nothing_of_root(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o600)
    with ExitStack() as stack:
        plugin = stack.enter_context(serving(root, root.parent / "mdvp.sock"))
        opts = {"uid": str(USER), "mode": "0777"}
        assert plugin.call("Create", Name="vol", Opts=opts).status == 200
        command = (*AS_USER, sys.executable, "-c", BAIT, str(outside))
        user = stack.enter_context(process(*command, cwd=root / "vol"))
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
        for number in range(10):
            name = f"copy-{number}"
            answer = plugin.call("Create", Name=name, Opts={"from": "vol", "from-live": "true"})
            assert answer.status == 200, answer
            files = [path for path in (root / name).rglob("*") if not path.is_symlink()]
            assert len(files) > 10
            assert not [path for path in files if path.is_file() and path.read_bytes()]
        assert user.poll() is None


# All tricks at once, for a while.


def snapshot(path: Path) -> object:
    """Return all that is below `path`: owners, permissions, and content."""
    found = []
    for each in (path, *sorted(path.rglob("*"))):
        status = each.lstat()
        content = each.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((each, status.st_uid, status.st_gid, status.st_mode, status.st_ino, content))
    return found


def sentinels(path: Path) -> Path:
    """Make a tree of root's and another user's files, which nobody is to touch."""
    for owner in (0, USER + 1):
        folder = path / f"of-{owner}" / "sub"
        folder.mkdir(parents=True)
        for name in ("file", "sub/file"):
            file = folder.parent / name
            file.write_text(f"{owner}'s")
            file.chmod(0o640)
        for each in (folder.parent, *folder.parent.rglob("*")):
            os.chown(each, owner, owner)
    return path


class Engine:
    """Makes, mounts, unmounts and removes volumes, restores, copies, changes and renames them.

    No operation of its fails as mdvp does.
    """

    OPTIONS = ({"uid": str(USER), "mode": "0777"}, {"mode": "0777"}, {"uid": str(USER)})
    FATES = ("delete", "trash:1h", "trash:1s")

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # not for secrets
        self._ids = map(str, count())
        self.done: Counter[str] = Counter()

    def work(self, plugin: Plugin, root: Path, until: float) -> None:
        deeds = [*(self._create, self._mount, self._remove) * 2, self._restore, self._clone]
        deeds += [self._change, self._rename]
        while time.monotonic() < until:
            self._random.choice(deeds)(plugin, root)

    def _name(self) -> str:
        return f"vol-{self._random.randrange(8)}"

    def _create(self, plugin: Plugin, root: Path) -> None:
        name = self._name()
        opts = {**self._random.choice(self.OPTIONS), "on-remove": self._random.choice(self.FATES)}
        if self._call(plugin, "Create", Name=name, Opts=opts):
            fill(root / name)
        elif name not in plugin.volumes():
            clear_the_way(root / name)

    def _mount(self, plugin: Plugin, _root: Path) -> None:
        name, mount_id = self._name(), next(self._ids)
        if self._call(plugin, "Mount", Name=name, ID=mount_id):
            self._call(plugin, "Unmount", Name=name, ID=mount_id)

    def _remove(self, plugin: Plugin, _root: Path) -> None:
        self._call(plugin, "Remove", Name=self._name())

    def _restore(self, plugin: Plugin, _root: Path) -> None:
        self._call(plugin, "Create", "restore", Name=self._name(), Opts={"restore": self._name()})

    def _clone(self, plugin: Plugin, _root: Path) -> None:
        opts = {"from": self._name(), "on-remove": self._random.choice(self.FATES)}
        # What neighbours make meanwhile can be much to copy. Removed, it ends.
        with suppress(TimeoutError):
            self._call(plugin, "Create", "clone", Name=self._name(), Opts=opts)

    def _change(self, plugin: Plugin, _root: Path) -> None:
        opts = {"mode": self._random.choice(("0777", "0700"))}
        self._call(plugin, "Change", Name=self._name(), Opts=opts)

    def _rename(self, plugin: Plugin, _root: Path) -> None:
        self._call(plugin, "Rename", Name=self._name(), NewName=self._name())

    def _call(self, plugin: Plugin, endpoint: str, what: str = "", **message: object) -> bool:
        own = endpoint in ("Change", "Rename")
        answer = (plugin.own if own else plugin.call)(endpoint, **message)
        assert answer.status in {200, 404, 409}, answer
        self.done[what or endpoint.lower()] += answer.status == 200
        return answer.status == 200


def fill(volume: Path) -> None:
    """Put directories and files into a volume as a container would, which cannot be led astray."""
    with suppress(OSError), ExitStack() as stack:  # a neighbour may have been faster

        def opened(name: Path | str, folder: int | None = None) -> int:
            fd = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            stack.callback(os.close, fd)
            return fd

        top = opened(volume)
        for number in range(20):
            os.mkdir(f"d{number}", dir_fd=top)
            folder = opened(f"d{number}", top)
            os.fchmod(folder, 0o777)
            for file in range(5):
                os.close(os.open(str(file), os.O_CREAT | os.O_EXCL, dir_fd=folder))


def clear_the_way(path: Path) -> None:
    """Take away what a neighbour has put where a volume could be, as an administrator would."""
    with suppress(OSError):
        path.rename(path.parent.parent / f"taken-away-{time.monotonic_ns()}")


@contextmanager
def neighbours(root: Path, outside: Path, number: int) -> Iterator[None]:
    source = Path(neighbour.__file__).read_text()
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                process(*AS_USER, sys.executable, "-c", source, str(root), str(outside), str(seed))
            )
            for seed in range(number)
        ]
        yield
        assert [each.poll() for each in started] == [None] * number


def started_in_time(root: Path, socket: Path) -> Iterator[Plugin]:
    with ExitStack() as stack:
        before = time.monotonic()
        plugin = stack.enter_context(serving(root, socket))
        assert time.monotonic() - before < STARTED_WITHIN
        yield plugin


def test_neighbours_who_do_all_the_harm_they_can(root: Path) -> None:
    socket = root.parent / "mdvp.sock"
    outside = sentinels(root.parent / "outside")
    inside = sentinels(root / "inside")
    before = snapshot(outside), snapshot(inside)
    engine = Engine(seed=1)
    end = time.monotonic() + SECONDS
    with neighbours(root, outside, 2):
        while time.monotonic() < end:
            with serving(root, socket, LOG_LEVEL="ERROR") as plugin:
                engine.work(plugin, root, time.monotonic() + 1.5)
                plugin.kill()
    assert not list(root.glob("of-neighbour-*/reached"))
    with contextmanager(started_in_time)(root, socket) as plugin:
        restore_all(plugin)
        for name in plugin.volumes():
            assert not outsiders(root / name)
            shown = plugin.call("Get", Name=name).message["Volume"]["Status"]
            for mount_id in shown.get("mount_ids", ()):
                assert plugin.call("Unmount", Name=name, ID=mount_id).status == 200
            assert plugin.own("Change", Name=name, Opts={"on-remove": "delete"}).status == 200
            assert plugin.call("Remove", Name=name).status == 200
        assert plugin.volumes() == []
        eventually(lambda: trash(root), [], 60)
        eventually(lambda: os.listdir(root / ".mdvp" / "removed"), [])
    assert (snapshot(outside), snapshot(inside)) == before
    for each in ("create", "mount", "remove", "restore", "clone", "change", "rename"):
        assert engine.done[each], engine.done


def restore_all(plugin: Plugin) -> None:
    """Have back all that is in the trash, but for what is due meanwhile."""
    for number, each in enumerate(plugin.own("Removed").message["Volumes"]):
        opts = {"restore": each["restore"], "mode": "0700"}
        answer = plugin.call("Create", Name=f"back-{number}", Opts=opts)
        assert answer.status == 200 or each["options"]["on-remove"] == "trash:1s", answer


def outsiders(volume: Path) -> list[Path]:
    """Return the files in a volume that have the content of a sentinel."""
    contents = {b"0's", f"{USER + 1}'s".encode()}
    return [
        path
        for path in volume.rglob("*")
        if not path.is_symlink() and path.is_file() and path.read_bytes() in contents
    ]
