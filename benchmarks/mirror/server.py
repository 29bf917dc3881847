"""A Redis server for one contender, and what can be asked of it from outside.

Failure model. A server that does not start, or a wait that takes far longer than anything does, is
a `BenchmarkError`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import redis
from redis.client import Monitor
from support import running

from benchmarks import BenchmarkError
from benchmarks.mirror.load import BRANCHES, SIZE
from benchmarks.mirror.results import Comparison

DEADLINE = 60.0  # seconds; far more than anything takes
_PAGE = 1_000  # names
# One script, so that the answer is of one instant, which it gives in the clock of time(2). It ends
# at once while there are files to come, and takes nothing of the time that they need.
_HOLDS = f"""
local files, each, prefix = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
if redis.call("DBSIZE") < files then return false end
for number = files - 1, 0, -1 do
  local name = string.format("%07d", number)
  local key = name
  if each > 0 then
    local branch = math.floor(number / each)
    local above = math.floor(branch / {BRANCHES})
    key = string.format("%04d/%02d/%s", above, branch % {BRANCHES}, name)
  end
  local content = string.rep(name, {SIZE}):sub(1, {SIZE})
  if redis.call("GET", prefix .. key) ~= content then return false end
end
return redis.call("TIME")
"""


class Server:
    """A running Redis server."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        """Ask the server that listens at `path`."""
        self.socket = path
        self.client = redis.Redis(
            unix_socket_path=str(path), password=password, socket_timeout=DEADLINE
        )
        self._holds = self.client.register_script(_HOLDS)

    def answers(self) -> bool:
        """Say whether it is there."""
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        """Ask no more."""
        self.client.close()

    def monitor(self) -> Monitor:
        """Return what tells of all its commands from when it is entered on."""
        return self.client.monitor()  # type: ignore[no-untyped-call,no-any-return]

    def value(self, key: str) -> bytes | None:
        """Return the value of a key; None if there is none."""
        held = self.client.get(key)
        return held if isinstance(held, bytes) else None  # it is: nothing is decoded here

    def changes(self) -> int:
        """Return how often data was changed since the server started."""
        return int(self.client.info("persistence")["rdb_changes_since_last_save"])

    def commands(self) -> int:
        """Return how many commands it has done, this question not counted."""
        return sum(each["calls"] for each in self.client.info("commandstats").values())

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def received(self) -> int:
        """Return how many bytes its clients have sent it."""
        return int(self.client.info("stats")["total_net_input_bytes"])

    def holds(self, files: int, each: int = 0, prefix: bytes = b"") -> float | None:
        """Return when it was seen to hold all files that a load writes; None if it does not.

        In seconds since the epoch. The load is `load.tree` if it has so many files in `each`
        branch, and else `load.write`; their keys have `prefix` before the files' names.
        """
        answer = self._holds(args=[files, each, prefix])
        return answer and int(answer[0]) + int(answer[1]) / 1e6

    def compared(self, root: Path, prefix: bytes = b"") -> Comparison:
        """Compare all keys but those that no file can have with the files in and below `root`.

        Keys have `prefix` before the files' names; what begins with something else is others'.
        """
        right = wrong = 0
        names = list(files_in(root))
        for start in range(0, len(names), _PAGE):
            page = names[start : start + _PAGE]
            keys = [prefix + name for name in page]
            for name, held in zip(page, self.client.mget(keys), strict=True):
                if held is not None:
                    same = held == (root / os.fsdecode(name)).read_bytes()
                    right, wrong = right + same, wrong + (not same)
        no_names = self._count(prefix + b"/*")  # first: a key that has expired is gone then
        everything = self._count(prefix + b"*") if prefix else self.client.dbsize()
        extra = everything - no_names - right - wrong
        return Comparison(len(names), right, wrong, extra)

    def _count(self, pattern: bytes) -> int:
        return sum(1 for _ in self.client.scan_iter(match=pattern, count=100_000))


def files_in(root: Path) -> Iterator[bytes]:
    """Yield the path of each file in and below `root`, without that of `root` itself."""
    top = os.fsencode(root) + b"/"
    for where, _, names in os.walk(top):
        below = where.removeprefix(top)
        yield from (below + b"/" + name for name in names) if below else names


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Run a server that holds nothing and writes nothing to disk; `directory` has its socket."""
    path = directory / "redis.sock"
    command = [
        *("redis-server", "--port", "0", "--unixsocket", str(path)),
        *("--save", "", "--dir", str(directory), "--logfile", str(directory / "redis.log")),
    ]
    with running(command, os.environ), closing(Server(path)) as server:
        until(server.answers)
        yield server


def until(
    probe: Callable[[], object],
    deadline: float = DEADLINE,
    pause: float = 0.005,
    what: str = "what was waited for",
) -> None:
    """Call `probe` until what it returns is true; raise BenchmarkError after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not probe():
        if time.monotonic() > end:
            raise BenchmarkError(f"{what} did not come within {deadline:.0f} s")
        time.sleep(pause)
