"""The service, Redis and a mounted directory, and all that can happen to them.

A fault is a context manager: it happens on entry and is over on exit. A fault of one subject begins
when the one before is over, while faults of different subjects may overlap.
"""

import ctypes
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from random import Random
from threading import Event
from types import MappingProxyType
from typing import Any, BinaryIO

import redis
from faults.consumer import Consumer
from integration.conftest import POWERLESS, SYNC, TO_FILE, RedisServer, paused
from integration.drift import Sides
from integration.shape import SHAPES, Shape
from integration.workload import MIB, Workload, operations
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import eventually, running

from sync.redis.keys import EPOCH, MANIFEST, NAMES

# A pause longer than this and the connection is given up.
SOCKET_TIMEOUT = 1  # seconds
STREAM = b"changes"
TEXT: Any = {
    "decode_responses": True,
    "encoding_errors": "surrogateescape",
    "socket_timeout": 2,
}
_QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
_STORM_MAX = 200_000  # events
_END_MAX = 5.0  # seconds that the service may take to end when it is told to
_UNREADABLE_MAX = 100  # files
# Removes one of two records, unless it is the only one that has all names: who has lost both cannot
# tell whose a key is when its file goes.
_REMOVE_RECORD = """
for _, name in ipairs(redis.call("HKEYS", KEYS[1])) do
  if redis.call("HEXISTS", KEYS[2], name) == 0 then return 0 end
end
return redis.call("DEL", KEYS[1])
"""


class World:
    """What there is, and what is known of it.

    The directory is in a volume, which is mounted; its files are in `store`.

    Attributes:
        shape: whether it is mirrored alone, or with all that is below it.
        sides: the directory and Redis, and the foreign keys that must be there.
        workload: what is done to the directory.
        process: the service, None while it does not run.
        environ: what the service is told beside what all are.
        prefix: what all keys begin with.

    """

    prefix = b""

    def __init__(
        self,
        place: Path,
        shape: Shape,
        running_all: ExitStack,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start everything in `place`, an empty directory; `running_all` ends it."""
        self.shape = shape
        self.environ = environ
        self._place = place
        self._numbers = count(1)
        self._running_service = running_all.enter_context(ExitStack())
        self._mount = place / "volume"
        self._mount.mkdir()
        self._store = self._new_store()
        self._mount_store()
        running_all.callback(self._leave_store)
        running_all.callback(self._unmount)
        self.root = self._mount / "root"
        self.workload = Workload(self.root, self._mount / "outside", shape)
        directory = place / "redis"
        directory.mkdir()
        self.redis = self._make_redis(directory, running_all)
        self._start_redis()
        self._saved: dict[bytes, bytes] = {}  # the foreign keys in the RDB file
        self._rdb = directory / "dump.rdb"
        self.sides = Sides(self.root, self.redis.client, shape, stream=STREAM)
        self.consumer = Consumer(self._text_client(), self.prefix, STREAM, place / "index.json")
        running_all.callback(self.consumer.close)
        self.process: subprocess.Popen[str] | None = None
        self.output = place
        self.start_service()

    # Redis.

    @staticmethod
    def _make_redis(directory: Path, running_all: ExitStack) -> RedisServer:
        server = RedisServer(directory)
        running_all.callback(server.close)
        return server

    def new_client(self) -> redis.Redis:
        """Return a client that tries nothing again."""
        return redis.Redis(unix_socket_path=str(self.redis.socket), retry=Retry(NoBackoff(), 0))

    def _text_client(self) -> Any:  # noqa: ANN401  # of one of several classes
        """Return a client for what is text to it."""
        return redis.Redis(unix_socket_path=str(self.redis.socket), **TEXT)

    @property
    def _access(self) -> dict[str, str]:
        """What tells the service where Redis is."""
        return {"REDIS_URL": f"unix://app:any@{self.redis.socket}?socket_timeout={SOCKET_TIMEOUT}"}

    def _start_redis(self) -> None:
        self.redis.start()
        self.redis.client.config_set("loglevel", "warning")  # nobody reads its output
        self._allow("*")

    def _allow(self, keys: str) -> None:
        """Let the service use these keys, and no others."""
        self.redis.client.acl_setuser(
            "app",
            enabled=True,
            nopass=True,
            reset_keys=True,
            keys=[keys],
            channels=["*"],
            categories=["+@all"],
        )

    @contextmanager
    def redis_killed_and_empty(self, _: Random) -> Iterator[None]:
        self.redis.kill()
        yield
        self._rdb.unlink(missing_ok=True)
        self.sides.foreign = {}
        self._start_redis()

    @contextmanager
    def redis_killed_and_back_as_it_was(self, random: Random) -> Iterator[None]:
        with self.redis_saved(random):
            self.redis.kill()
        yield
        self._start_redis()

    @contextmanager
    def redis_killed_and_back_as_it_was_once(self, _: Random) -> Iterator[None]:
        self.redis.kill()
        yield
        self.sides.foreign = dict(self._saved) if self._rdb.exists() else {}
        self._start_redis()

    @contextmanager
    def redis_saved(self, _: Random) -> Iterator[None]:
        """Have it write the RDB file; no fault, but one may follow."""
        self.redis.client.save()
        self._saved = dict(self.sides.foreign)
        yield

    @contextmanager
    def redis_paused(self, _: Random) -> Iterator[None]:
        with self.redis.paused():
            yield

    @contextmanager
    def redis_flushed(self, random: Random) -> Iterator[None]:
        flush = random.choice([self.redis.client.flushall, self.redis.client.flushdb])
        flush(asynchronous=random.random() < 0.5)
        self.sides.foreign = {}
        yield

    @contextmanager
    def redis_read_only(self, _: Random) -> Iterator[None]:
        self.redis.client.replicaof("127.0.0.1", 1)
        yield
        self.redis.client.replicaof("NO", "ONE")

    @contextmanager
    def redis_out_of_memory(self, random: Random) -> Iterator[None]:
        used = int(self.redis.client.info("memory")["used_memory"])
        self.redis.client.config_set("maxmemory", random.choice([1, used + MIB, used + 3 * MIB]))
        yield
        self.redis.client.config_set("maxmemory", 0)

    @contextmanager
    def redis_connections_killed(self, _: Random) -> Iterator[None]:
        self.redis.client.client_kill_filter(_type="normal", skipme=True)
        yield

    @contextmanager
    def redis_refusing_some_names(self, _: Random) -> Iterator[None]:
        self._allow("[^abcd]*")
        yield
        self._allow("*")
        # What is refused is tried again seldom, but by each connection.
        self.redis.client.client_kill_filter(_type="normal", skipme=True)

    @contextmanager
    def redis_record_deleted(self, random: Random) -> Iterator[None]:
        """Have one of the service's own keys deleted."""
        client = self.redis.client
        if random.random() < 0.2:
            client.delete(EPOCH)
        else:
            pair = [record + self._some_part(random) for record in (MANIFEST, NAMES)]
            client.eval(_REMOVE_RECORD, 2, *random.sample(pair, 2))
        yield

    def _some_part(self, random: Random) -> bytes:
        """Return which part of the records one is: the directory's own, or a subdirectory's."""
        records: list[bytes] = list(self.redis.client.scan_iter(match=NAMES + b"/*"))
        return random.choice([b"", *(each.removeprefix(NAMES) for each in sorted(records))])

    @contextmanager
    def redis_ending_transactions(self, _: Random) -> Iterator[None]:
        """Have connections end where a transaction has begun, as that of a large value does."""
        over = Event()

        def end() -> None:
            client = self.redis.client
            while not over.wait(0.003):
                for each in client.client_list():
                    if each["multi"] != "-1":
                        client.client_kill_filter(_id=each["id"])

        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(end)
            try:
                yield
            finally:
                over.set()
            ending.result()

    # The service.

    def start_service(self, shape: Shape | None = None) -> None:
        """Start it, for this shape if it is not to be for the world's own."""
        self.output = self._place / f"output-{next(self._numbers)}"
        environ = {
            **os.environ,
            "SYNC_ROOT": str(self.root),
            "SYNC_RESCAN": "0",  # what it finds has been missed before
            "SYNC_DELETE_MAX": "100%",  # directories are replaced, and it is to follow
            "SYNC_STREAM": STREAM.decode(),
            "SYNC_STREAM_MAXLEN": "100",  # so that consumers miss some
            **self._access,
            "OUTPUT": str(self.output),
            "PYTHONFAULTHANDLER": "1",  # says where it is, when aborted
            **(shape or self.shape).environ,
            **self.environ,
        }
        command = running((*TO_FILE, *POWERLESS, *SYNC, "run"), environ)
        self.process = self._running_service.enter_context(command)

    def _end_service(self) -> None:
        self._running_service.close()
        self.process = None

    @contextmanager
    def service_killed(self, _: Random) -> Iterator[None]:
        self.check_service()
        self._end_service()
        yield
        self.start_service()

    @contextmanager
    def service_of_another_shape(self, _: Random) -> Iterator[None]:
        """Have one run that mirrors the subdirectories, too, or does not."""
        (other,) = (shape for shape in SHAPES if shape is not self.shape)
        for shape in (other, None):
            self.check_service()
            self._end_service()
            self.start_service(shape)
            if shape:
                yield

    @contextmanager
    def service_ended(self, _: Random) -> Iterator[None]:
        self.check_service()
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(_END_MAX)
        # Python itself ends by the signal until the service says what else to do.
        assert status in (0, -signal.SIGTERM), f"told to end, it ended with status {status}"
        self._end_service()
        yield
        self.start_service()

    @contextmanager
    def service_paused(self, _: Random) -> Iterator[None]:
        assert self.process is not None
        with paused(self.process):
            yield

    @contextmanager
    def service_overflown(self, random: Random) -> Iterator[None]:
        """Have more happen than the kernel keeps, while the service does not look."""
        with self.service_paused(random):
            file = self.root / "storm"
            events = min(int(_QUEUE.read_text()), _STORM_MAX)
            with suppress(OSError):  # the directory may be away
                for _ in range(events // 2):
                    os.mknod(file)
                    file.unlink()
            with self._somebody_else(self._mount, random):
                yield

    def check_service(self) -> None:
        """Raise AssertionError if the service ended by itself, or went wrong and says so."""
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"the service ended by itself with status {status}"
        assert "Traceback" not in self.said(), "the service says Traceback"

    def said(self) -> str:
        """Return what the service said since it was last started."""
        return self.output.read_text(errors="backslashreplace") if self.output.is_file() else ""

    def end_where_it_is(self) -> str:
        """Abort the service; return what it said last, and where in the code it was."""
        assert self.process is not None
        said = len(self.said())
        if (status := self.process.poll()) is not None:
            return f"it has ended, with status {status}"
        self.process.send_signal(signal.SIGABRT)
        self.process.wait(_END_MAX)
        return self.said()[said:]

    def memory(self) -> int:
        """Return how many bytes of the service were in memory at most since it was started."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    # The directory.

    def _new_store(self, *, own_file_system: bool = False) -> Path:
        store = self._place / f"store-{next(self._numbers)}"
        store.mkdir()
        if own_file_system:
            _run("mount", "-t", "tmpfs", "tmpfs", store)
        for name in ("root", "outside"):
            (store / name).mkdir()
        return store

    def _leave_store(self) -> None:
        if self._store.is_mount():
            _run("umount", "--lazy", self._store)

    def _mount_store(self) -> None:
        _run("mount", "--bind", self._store, self._mount)

    def _unmount(self) -> None:
        # The service has the directory open, and the workload has files open in it.
        _run("umount", "--lazy", self._mount)

    @contextmanager
    def _somebody_else(self, volume: Path, random: Random) -> Iterator[None]:
        """Have others work on the volume, too."""
        workload = Workload(volume / "root", volume / "outside", self.shape)
        workload.links, workload.log = self.workload.links, self.workload.log
        for operation in islice(operations(random, self.shape), 30):
            workload.do(operation)
        yield
        workload.close()

    @contextmanager
    def directory_unmounted(self, random: Random) -> Iterator[None]:
        """Have the volume away; meanwhile it changes, as somebody else has it mounted too."""
        self._unmount()
        beneath = self._mount / "root"
        if random.random() < 0.5:
            beneath.mkdir()
        with self._somebody_else(self._store, random):
            yield
        if beneath.exists():
            _remove(beneath)
        self._mount_store()

    @contextmanager
    def directory_on_a_new_volume(self, random: Random) -> Iterator[None]:
        self._unmount()
        self._leave_store()
        self._store = self._new_store(own_file_system=random.random() < 0.7)
        yield
        self._mount_store()

    @contextmanager
    def directory_covered(self, random: Random) -> Iterator[None]:
        """Have another file system mounted over it."""
        _run("mount", "-t", "tmpfs", "tmpfs", self.root)
        if random.random() < 0.5:
            self.root.joinpath("a").write_text("covering")
        yield
        _run("umount", "--lazy", self.root)

    @contextmanager
    def directory_replaced(self, _: Random) -> Iterator[None]:
        self._move_away()
        self.root.mkdir()
        yield

    @contextmanager
    def directory_replaced_and_back(self, _: Random) -> Iterator[None]:
        away = self._move_away()
        self.root.mkdir()
        yield
        self._move_away()
        away.rename(self.root)

    @contextmanager
    def directory_removed(self, _: Random) -> Iterator[None]:
        _remove(self._move_away())
        yield
        self.root.mkdir()

    @contextmanager
    def files_unreadable(self, random: Random) -> Iterator[None]:
        with ExitStack() as opened:
            files = [opened.enter_context(file) for file in self._some_files(random)]
            modes = [os.fstat(file.fileno()).st_mode for file in files]
            for file in files:
                os.fchmod(file.fileno(), 0)
            yield
            for file, mode in zip(files, modes, strict=True):
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
                # What cannot be read is tried again seldom, but when something happens to it.
                with suppress(OSError), Path(f"/proc/self/fd/{file.fileno()}").open("ab"):
                    pass

    @contextmanager
    def directories_unreadable(self, random: Random) -> Iterator[None]:
        """Have the service neither list subdirectories nor open what is in them."""
        with ExitStack() as opened:
            directories = [opened.enter_context(each) for each in self._some_directories(random)]
            modes = [os.fstat(fd).st_mode for fd in directories]
            for fd in directories:
                os.fchmod(fd, 0)
            yield
            for fd, mode in zip(directories, modes, strict=True):
                os.fchmod(fd, stat.S_IMODE(mode))
        # What cannot be read is tried again seldom, but by each session, and this begins one.
        self._move_away().rename(self.root)

    def _some_files(self, random: Random) -> Iterator[BinaryIO]:
        """Yield about half of the files that are mirrored, open."""
        for name, _ in islice(self.shape.regular_files(self.root), 2 * _UNREADABLE_MAX):
            if random.random() < 0.5:
                with suppress(OSError):  # it is gone
                    yield open(self.root / os.fsdecode(name), "rb", opener=_open_file)  # noqa: SIM115

    def _some_directories(self, random: Random) -> Iterator[AbstractContextManager[int]]:
        """Yield about half of the subdirectories, open."""
        for name, entry in islice(self.shape.entries(self.root), 2 * _UNREADABLE_MAX):
            if entry.is_dir(follow_symlinks=False) and random.random() < 0.5:
                with suppress(OSError):
                    yield _open_directory(self.root / os.fsdecode(name))

    def _move_away(self) -> Path:
        away = self._mount / f"was-{next(self._numbers)}"
        self.root.rename(away)
        return away


Fault = Callable[[Any, Random], AbstractContextManager[None]]  # of a world, or one of its kind
Faults = Mapping[str, Mapping[Fault, int]]
# By subject: which faults there are, and how often each is to be.
FAULTS: Faults = {
    "redis": {
        World.redis_killed_and_empty: 2,
        World.redis_killed_and_back_as_it_was: 2,
        World.redis_killed_and_back_as_it_was_once: 4,
        World.redis_saved: 4,
        World.redis_paused: 3,
        World.redis_flushed: 3,
        World.redis_read_only: 2,
        World.redis_out_of_memory: 3,
        World.redis_connections_killed: 2,
        World.redis_refusing_some_names: 3,
        World.redis_record_deleted: 3,
        World.redis_ending_transactions: 2,
    },
    "service": {
        World.service_killed: 4,
        World.service_of_another_shape: 1,
        World.service_ended: 1,
        World.service_paused: 2,
        World.service_overflown: 5,
    },
    "directory": {
        World.directory_unmounted: 2,
        World.directory_on_a_new_volume: 2,
        World.directory_covered: 2,
        World.directory_replaced: 2,
        World.directory_replaced_and_back: 2,
        World.directory_removed: 2,
        World.files_unreadable: 3,
        World.directories_unreadable: 2,
    },
}


def have_own_mounts() -> None:
    """Have this process, and all that it starts, mount what nobody else sees: unshare(2).

    What it mounts is gone with it, however it ends. Raises OSError.
    """
    clone_newns = 0x00020000
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newns):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _run("mount", "--make-rprivate", "/")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _open_file(path: str, flags: int) -> int:
    """Open a regular file, and nothing else."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError
    return fd


@contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove(directory: Path) -> None:
    """Remove a directory and all in it, whatever is done in it meanwhile."""

    def gone() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    eventually(gone, True)
