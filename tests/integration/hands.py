"""Two hands: what programs do to files, and what clients do to keys, with a memory of the values.

Both do `Operation`s, which are drawn without a look at what is there, and note in a `History` what
they wrote and what they destroyed by it. What they destroyed is known exactly: of a file it is read
by the descriptor that is then written to, of a key in the transaction that changes it.

Of what `Workload` does, the hand on files does what leaves whole files behind: programs that keep a
file open for long are the one-way tests' affair.
"""

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import redis
from integration.history import History
from integration.shape import PLAIN, Shape
from integration.witness import Witness
from integration.workload import MIB, Operation, Workload

from sync.core.decision import Side
from sync.core.exclude import is_temporary

# Few are large: both sides hold all of them, and the store of losers has room for 64 MB.
SIZES = [*[8, 9, 30, 100] * 60, *[0, 3] * 6, *[4096, 60_000] * 20, MIB, MIB + 1, 2 * MIB, 5 * MIB]

DISK_WEIGHTS = {
    "write": 14,
    "append": 5,
    "truncate": 2,
    "rewrite_in_place": 4,
    "rewrite_in_one_tick": 2,
    "rewrite_with_old_time": 2,
    "replace_by_rename": 8,
    "rename": 10,
    "rename_chain": 3,
    "swap": 3,
    "exchange": 3,
    "link": 2,
    "link_and_write": 1,
    "appear_by_link": 2,
    "delete": 9,
    "make_directory": 1,
    "remove_directory": 3,
    "move_in": 3,
    "move_out": 3,
    "move_down": 1,
    "move_up": 1,
    "replace_by_symlink": 2,
    "replace_by_fifo": 1,
    "edit_as_vim_does": 2,
    "edit_as_emacs_does": 2,
    "wait": 3,
}
DISK_TREE_WEIGHTS = {
    "write": 30,
    "make_directories": 3,
    "remove_empty_directory": 3,
    "rename_directory": 4,
    "rename_onto_empty_directory": 1,
    "exchange_directories": 2,
    "turn_inside_out": 1,
    "move_directory_in": 1,
    "move_directory_out": 1,
    "directory_becomes_link": 1,
    "link_becomes_directory": 2,
}
REDIS_WEIGHTS = {
    "set": 24,
    "set_same": 2,
    "delete": 10,
    "rename": 10,
    "rename_chain": 2,
    "swap_keys": 2,
    "copy": 2,
    "expire_late": 2,
    "persist": 4,
    "append_to": 6,
    "set_range": 5,
    "become_hash": 2,
    "become_list": 2,
    "become_string": 4,
    "set_many": 2,
    "transaction": 4,
    "wait_a_little": 3,
}
# A key that expires takes with it what has been written to its file meanwhile: a TTL is kept.
EXPIRING_WEIGHTS = {"set_with_ttl": 2, "expire": 3}
FLUSH = Operation("flush")
FLUSHED = 0.0015  # of the operations

# Keys that no file can have as its name.
CANNOT_BE = [
    *(b"", b".", b"..", b"a\0b", b"x" * 256, b"/absolute", b"../escaped", b"a/../../escaped"),
    *(b"./a", b"a/.", b"d//b", b"d/", b"//", b"/", b"d/" + b"y" * 256, b"z/" * 2100 + b"z"),
]
# What nothing but one of the sides has.
ON_ONE_SIDE = {Side.DISK: [b"only-a-file", b"only-another-file"], Side.REDIS: [b"theirs", b"*t"]}

_SERIAL = count(1)
_REMEMBERED = 20_000  # operations
_SHORT, _LONG = 250, 10_000_000  # milliseconds until a key expires
_MANY = 60  # keys of a pipeline
_FLUSH = """
local found = {}
for _, name in ipairs(redis.call("KEYS", "*")) do
  if redis.call("TYPE", name).ok == "string" then
    table.insert(found, redis.sha1hex(redis.call("GET", name)))
  end
end
redis.call(ARGV[1])
return found
"""

Entry = tuple[float, Operation, str]


def disk_operations(random: Random, shape: Shape) -> Iterator[Operation]:
    """Yield random operations on files for ever."""
    often = DISK_WEIGHTS | DISK_TREE_WEIGHTS if shape.is_deep else DISK_WEIGHTS
    return _operations(random, often, [*_names(shape), *ON_ONE_SIDE[Side.DISK]])


def redis_operations(random: Random, shape: Shape, *, expire: bool = False) -> Iterator[Operation]:
    """Yield random operations on keys for ever; keys `expire` soon only if told to."""
    names = [*_names(shape), *CANNOT_BE, *ON_ONE_SIDE[Side.REDIS], b"a/b", b"d"]
    often = REDIS_WEIGHTS | EXPIRING_WEIGHTS if expire else REDIS_WEIGHTS
    for each in _operations(random, often, names):
        yield FLUSH if random.random() < FLUSHED else each


def _names(shape: Shape) -> list[bytes]:
    """Return the names of a shape, those that most operations are to meet on far more often."""
    often = len(shape.names) // (2 * len(shape.few))
    return [*list(shape.few) * often, *shape.names]


def _operations(
    random: Random, often: dict[str, int], names: Sequence[bytes]
) -> Iterator[Operation]:
    while True:
        (kind,) = random.choices(list(often), list(often.values()))
        name, other, third = random.choices(names, k=3)
        yield Operation(kind, name, other, third, random.choice(SIZES))


def _content(mark: bytes, size: int) -> bytes:
    """Return content that there was none of before, if it is of `LEAST` bytes or more."""
    unit = mark + b"%08d\n" % next(_SERIAL)
    return (unit[-size:] if size < len(unit) else unit * (size // len(unit) + 1))[:size]


class DiskHand(Workload):
    """What is done to files, with a memory of what became of their contents."""

    def __init__(self, root: Path, outside: Path, shape: Shape, history: History) -> None:
        """Work in `root`, as `Workload`; note in `history`."""
        super().__init__(root, outside, shape)
        self._history = history
        self._witness = Witness()

    def close(self) -> None:
        super().close()
        self._witness.close()

    # How it is done: all that changes a file's content, or removes one.

    def _content(self, size: int) -> bytes:
        return _content(b"D", size)

    def truncate(self, what: Operation) -> None:
        with self._opened(self._regular(what.name), os.O_WRONLY) as fd:
            os.ftruncate(fd, what.size)

    def replace_by_fifo(self, what: Operation) -> None:
        self._unlink(self._at(what.name))
        with suppress(FileExistsError):
            super().replace_by_fifo(what)

    @contextmanager
    def _opened(self, path: Path, how: int) -> Iterator[int]:
        if not how & (os.O_WRONLY | os.O_RDWR):
            with super()._opened(path, how) as fd:
                yield fd
            return
        # What is there is read, by the same descriptor, before it is written to.
        is_nameless = how & os.O_TMPFILE == os.O_TMPFILE
        readable = how & ~(os.O_WRONLY | os.O_TRUNC) | os.O_RDWR
        with super()._opened(path, readable) as fd:
            before = _read_regular(fd)
            if not is_nameless and not os.fstat(fd).st_nlink:
                raise FileNotFoundError  # it was replaced meanwhile
            if how & os.O_TRUNC:
                os.ftruncate(fd, 0)
            try:
                yield fd
            except OSError:
                self._history.destroyed_by(Side.DISK, before)
                raise
            self._changed(path, before, fd, is_nameless=is_nameless)

    def _changed(self, path: Path, before: bytes, fd: int, *, is_nameless: bool) -> None:
        after = _read_regular(fd)
        if after != before:
            self._history.destroyed_by(Side.DISK, before)
        key = self._history.wrote(Side.DISK, self._name(path), after)
        if not is_nameless and not os.fstat(fd).st_nlink:
            self._history.holes[key] += 1

    def _rename(self, source: Path, target: Path) -> None:
        with self._destroying(target, arrivals=1):
            super()._rename(source, target)
        self._note_moved(target)

    def _exchange(self, one: Path, other: Path) -> None:
        super()._exchange(one, other)
        self._note_moved(one)
        self._note_moved(other)

    def link(self, what: Operation) -> None:
        super().link(what)
        self._note_moved(self._at(what.other))

    def _unlink(self, path: Path, *, missing_ok: bool = True) -> None:
        with self._destroying(path, arrivals=0):
            super()._unlink(path, missing_ok=missing_ok)

    def _put(self, new: Path, name: bytes) -> None:
        try:
            self._rename(new, self._at(name))
        finally:
            self._unlink(new)

    @contextmanager
    def _destroying(self, path: Path, arrivals: int) -> Iterator[None]:
        """Note what is destroyed at a path by the system call in the block.

        That is a file's content, if this was its only name. When more came to be there than the
        call itself puts there, that may have been destroyed, and nobody has read it.
        """
        with self._witness.looking_at(path) as sight:
            fd = _open_regular(path)
            try:
                before = None if fd is None else _read_regular(fd)
                yield
                if fd is not None and not os.fstat(fd).st_nlink:
                    self._history.destroyed_by(Side.DISK, before)
            finally:
                if fd is not None:
                    os.close(fd)
        if sight.arrivals > arrivals:
            self._history.give_up_recent(Side.REDIS, self._name(path))

    def _note_moved(self, path: Path) -> None:
        """Note that a file has this name by this hand, or those that are in a directory have."""
        paths = [path]
        if path.is_dir() and not path.is_symlink():
            paths = [Path(parent, name) for parent, _, names in os.walk(path) for name in names]
        for each in paths:
            fd = None if is_temporary(bytes(each)) else _open_regular(each)
            if fd is not None:
                with suppress(OSError):
                    self._history.wrote(Side.DISK, self._name(each), _read_regular(fd))
                os.close(fd)

    def _name(self, path: Path) -> bytes:
        top = bytes(self.root) + b"/"
        return bytes(path).removeprefix(top)


def _open_regular(path: Path) -> int | None:
    """Open a regular file for reading; return None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _read_regular(fd: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError
    return os.pread(fd, status.st_size, 0)


class RedisHand:
    """What clients do to keys, with a memory of what became of the values.

    Attributes:
        done: how many operations of each kind could be done.
        log: the last operations: when (`time.monotonic`), which, and what prevented it.
        is_lossy: whether keys may be gone that nobody deleted.

    """

    def __init__(self, client: redis.Redis, history: History, root: Path) -> None:
        """Work by way of `client`; `root` is looked at where it is not known what was there."""
        self.done: Counter[str] = Counter()
        self.log: deque[Entry] = deque(maxlen=_REMEMBERED)
        self.is_lossy = False
        self._client: Any = client
        self._history = history
        self._root = root

    def do(self, operation: Operation) -> None:
        """Do it, if it can be done."""
        began = time.monotonic()
        prevented = ""
        try:
            getattr(self, operation.kind)(operation)
            self.done[operation.kind] += 1
        except redis.ResponseError as error:
            prevented = str(error)
        except redis.RedisError as error:
            prevented = type(error).__name__
            self._doubt(operation)
        self.log.append((began, operation, prevented))

    def set(self, what: Operation) -> None:
        self._do([what.name], ("SET", what.name, _content(b"R", what.size)))

    def set_same(self, what: Operation) -> None:
        value = self._client.get(what.name)
        if value is not None:
            self._do([what.name], ("SET", what.name, value))

    def set_with_ttl(self, what: Operation) -> None:
        content = _content(b"R", what.size)
        self._do([what.name], ("SET", what.name, content, "PX", _soon(what)))

    def delete(self, what: Operation) -> None:
        self._do([what.name], (["DEL", "UNLINK", "GETDEL"][what.size % 3], what.name))

    def rename(self, what: Operation) -> None:
        names = [what.name, what.other]
        self._do(names, ("RENAME", what.name, what.other), over=[what.other])

    def rename_chain(self, what: Operation) -> None:
        self._do(
            [what.name, what.other, what.third],
            ("RENAME", what.other, what.third),
            ("RENAME", what.name, what.other),
            over=[what.other, what.third],
        )

    def swap_keys(self, what: Operation) -> None:
        self._do(
            [what.name, what.other],
            ("RENAME", what.name, b"swapped"),
            ("RENAME", what.other, what.name),
            ("RENAME", b"swapped", what.other),
        )

    def copy(self, what: Operation) -> None:
        names = [what.name, what.other]
        self._do(names, ("COPY", what.name, what.other, "REPLACE"), over=[what.other])

    def expire(self, what: Operation) -> None:
        self._do([what.name], ("PEXPIRE", what.name, _soon(what)))

    def expire_late(self, what: Operation) -> None:
        self._do([what.name], ("PEXPIRE", what.name, _LONG))

    def persist(self, what: Operation) -> None:
        self._do([what.name], ("PERSIST", what.name))

    def append_to(self, what: Operation) -> None:
        self._do([what.name], ("APPEND", what.name, _content(b"R", min(what.size, 60_000))))

    def set_range(self, what: Operation) -> None:
        content = _content(b"R", min(what.size, 60_000))
        self._do([what.name], ("SETRANGE", what.name, what.size % 23, content))

    def become_hash(self, what: Operation) -> None:
        self._do([what.name], ("DEL", what.name), ("HSET", what.name, "field", "value"))

    def become_list(self, what: Operation) -> None:
        # As it is refused on a string, and when nothing is there.
        self._do([what.name], ("LPUSH", what.name, "one", "two"))

    def become_string(self, what: Operation) -> None:
        """Set a key to a string that is something else."""
        for name in (what.name, what.other, what.third, *PLAIN):
            if self._client.type(name) not in (b"string", b"none"):
                self._do([name], ("SET", name, _content(b"R", what.size)))

    def set_many(self, what: Operation) -> None:
        """Set many keys by a pipeline that is no transaction."""
        names = [b"%s-%d" % (what.name[:100], number) for number in range(what.size % _MANY)]
        contents = [_content(b"R", what.size % 5000) for _ in names]
        if what.size % 4 == 0:
            self._pipeline([("GETDEL", name) for name in names], names, [None] * len(names))
            return
        commands = [("SET", *pair, "GET") for pair in zip(names, contents, strict=True)]
        self._pipeline(commands, names, contents)

    def transaction(self, what: Operation) -> None:
        size = min(what.size, 60_000)
        self._do(
            [what.name, what.other, what.third],
            ("SET", what.name, _content(b"R", size)),
            ("DEL", what.other),
            ("SET", what.third, _content(b"R", size)),
            ("APPEND", what.name, _content(b"R", size)),
        )

    def flush(self, what: Operation) -> None:
        command = "FLUSHALL" if what.size % 2 else "FLUSHDB"
        self._history.give_up(self._client.eval(_FLUSH, 0, command))

    def wait_a_little(self, what: Operation) -> None:
        time.sleep((what.size % 101) / 5000)  # at most 20 ms

    def _do(
        self, names: Sequence[bytes], *commands: tuple[object, ...], over: Sequence[bytes] = ()
    ) -> None:
        """Do it in one transaction, which tells what these names had before and have after it.

        What the names `over` had is destroyed, even if the same has been moved there.
        """
        names = list(dict.fromkeys(names))
        self._mind_losses(names)
        with self._client.pipeline(transaction=True) as pipeline:
            for name in names:
                pipeline.get(name)
            for command in commands:
                pipeline.execute_command(*command)
            for name in names:
                pipeline.get(name)
                pipeline.pttl(name)
            answers = pipeline.execute(raise_on_error=False)
        ends = answers[len(names) + len(commands) :]
        refused = [each for each in answers[len(names) :][: len(commands)] if _is_refusal(each)]
        moved = {each for each in ends[::2] if isinstance(each, bytes)}
        for name, before, after, left in zip(
            names, answers[: len(names)], ends[::2], ends[1::2], strict=True
        ):
            if before not in moved or (name in over and not refused):
                self._destroyed(before)
            self._changed(name, before, after, left)
        for refusal in refused:
            raise refusal

    def _destroyed(self, value: object) -> None:
        """Note that a value is; what is no string was answered with an error, or None."""
        if isinstance(value, bytes):
            self._history.destroyed_by(Side.REDIS, value)

    def _changed(self, name: bytes, before: object, after: object, left: int) -> None:
        """Note what a name has now, for `left` milliseconds if that is not below 0."""
        if isinstance(after, bytes) and after != before:
            self._history.wrote(Side.REDIS, name, after)
        if left >= 0:
            self._destroyed(after)  # sooner or later
        self._mind_losses([name])

    def _mind_losses(self, names: Sequence[bytes]) -> None:
        """Give up what the files have, if it cannot be known what the keys had."""
        for name in names if self.is_lossy else ():
            self._give_up_file(name)

    def _pipeline(
        self,
        commands: Sequence[tuple[object, ...]],
        names: Sequence[bytes],
        values: Sequence[bytes | None],
    ) -> None:
        self._mind_losses(names)
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command, get=True)  # else SET is answered by a bool
            answers = pipeline.execute(raise_on_error=False)
        for name, before, after in zip(names, answers, values, strict=True):
            if not _is_refusal(before):
                self._destroyed(before)
                self._changed(name, before, after, -1)

    def _doubt(self, what: Operation) -> None:
        """Nobody knows whether it was done, so what was there may be destroyed."""
        self._history.is_doubtful = True
        for name in (what.name, what.other, what.third):
            self._history.give_up_recent(Side.REDIS, name)
            self._give_up_file(name)

    def _give_up_file(self, name: bytes) -> None:
        with suppress(OSError, ValueError):
            fd = _open_regular(self._root / os.fsdecode(name))
            if fd is not None:
                self._history.destroyed_by(Side.REDIS, _read_regular(fd))
                os.close(fd)


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, redis.RedisError)


def _soon(what: Operation) -> int:
    return what.size % _SHORT + 1
