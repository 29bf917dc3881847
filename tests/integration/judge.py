"""Judges a mode at rest: is each name as it must be, and is every value there that must be?

At rest nothing happens any more, and all that was done has been followed. What a look shows then is
compared with what the mode promises: `complaints` are about names and may go by themselves, so they
are polled for; `losses` are about values, and final.
"""

import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import redis
from integration.drift import DriftError
from integration.hands import ON_ONE_SIDE, DiskHand
from integration.history import History
from integration.history import digest as _digest

from sync.core.changes import shown
from sync.core.decision import Mode, Side
from sync.redis.keys import CONFLICTS, LOST, LOST_VALUE

TEMPORARY = b".mdvp-sync-"  # what the name of a file that is being written begins with
LOST_MAX, LOST_BYTES_MAX = 1000, 64_000_000
_OWN = b"/mdvp-sync/"
_NAME_MAX, _PATH_MAX = 255, 3000
_SETTLED = 50_000_000  # ns; what was changed longer ago has another ctime when it changes again
_POLL = 0.01  # seconds
_SOON = 1000  # milliseconds
_PATIENCE = 1.0  # seconds
_STATUS = 6.0  # seconds; it is written every other second
# All keys with their TTLs: of strings the digest and the length, of others the type.
_LOOK = """
local found = {}
for _, name in ipairs(redis.call("KEYS", "*")) do
  local type = redis.call("TYPE", name).ok
  if type == "string" then
    local value = redis.call("GET", name)
    table.insert(found, {name, redis.sha1hex(value), redis.call("PTTL", name), #value})
  else
    table.insert(found, {name, type, redis.call("PTTL", name)})
  end
end
return found
"""
Mark: TypeAlias = tuple[int, ...]  # what tells whether a file was changed


@dataclass(frozen=True, slots=True)
class Key:
    """A string: the digest of its value, for how many milliseconds it is there, and its length."""

    digest: bytes
    left: int
    length: int


@dataclass
class Seen:
    """What a look has shown.

    files       what is mirrored: path -> digest
    others      what is there and is no regular file
    no_ways     what is neither a file nor a directory
    elsewhere   digests of the files that are not mirrored, with those outside
    left        temporary files
    keys        strings that are not the service's own
    types       keys of other types
    expiring    keys of all types that will soon be gone
    conflicts   the names on the list
    lost        digests of the values that lost
    """

    files: dict[bytes, bytes] = field(default_factory=dict)
    others: set[bytes] = field(default_factory=set)
    no_ways: set[bytes] = field(default_factory=set)
    elsewhere: set[bytes] = field(default_factory=set)
    left: list[bytes] = field(default_factory=list)
    keys: dict[bytes, Key] = field(default_factory=dict)
    types: set[bytes] = field(default_factory=set)
    expiring: set[bytes] = field(default_factory=set)
    conflicts: set[bytes] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)

    def key(self, name: bytes) -> bytes | None:
        """Return the digest of a key's value, None if it is no string."""
        return self.keys[name].digest if name in self.keys else None

    def equal(self) -> set[bytes]:
        """Return the names that are equal on both sides: those of what is on neither are not."""
        return {name for name, value in self.files.items() if value == self.key(name)}

    def is_blocked(self, name: bytes) -> bool:
        """Say whether something that is no file is at a name, or on the way to it."""
        parts = name.split(b"/")
        ways = [b"/".join(parts[:number]) for number in range(1, len(parts))]
        return name in self.others or any(way in self.files or way in self.no_ways for way in ways)


class Judge:
    """Looks at both sides, and judges."""

    def __init__(self, mode: Mode, files: DiskHand, client: redis.Redis, history: History) -> None:
        """Judge a service of this mode, in the directory of the hand on `files`."""
        self.mode = mode
        self.shape = files.shape
        self._root = files.root
        self._outside = files.outside
        self._client: Any = client
        self._history = history
        self._digests: dict[bytes, tuple[Mark, bytes]] = {}  # of files, by path
        self.stream: bytes | None = None  # the key of the stream of changes
        self.is_flushed: Callable[[], bool] = lambda: False  # whether Redis has ever lost keys

    # What is there.

    def look(self) -> Seen:
        """Look at all."""
        seen = Seen()
        self._look_at_files(seen)
        self._look_at_keys(seen)
        return seen

    def look_at_files(self) -> set[bytes]:
        """Return the digests of all files, those that are not mirrored too."""
        seen = Seen()
        self._look_at_files(seen)
        return {*seen.files.values(), *seen.elsewhere}

    def _look_at_files(self, seen: Seen) -> None:
        digests: dict[bytes, tuple[Mark, bytes]] = {}
        for top in (bytes(self._root), bytes(self._outside)):
            for path, status in _walk(top):
                name = path[len(top) + 1 :]
                is_inside = top == bytes(self._root)
                if path.rpartition(b"/")[2].startswith(TEMPORARY):
                    seen.left.append(path)
                elif stat.S_ISREG(status.st_mode):
                    value = self._digest_of(path, status, digests)
                    if value and is_inside and self.is_fit(name):
                        seen.files[name] = value
                    elif value:
                        seen.elsewhere.add(value)
                elif is_inside:
                    seen.others.add(name)
                    if not stat.S_ISDIR(status.st_mode):
                        seen.no_ways.add(name)
        self._digests = digests

    def _digest_of(
        self, path: bytes, status: os.stat_result, digests: dict[bytes, tuple[Mark, bytes]]
    ) -> bytes | None:
        mark = mark_of(status)
        if path in self._digests and self._digests[path][0] == mark:
            digests[path] = self._digests[path]
            return digests[path][1]
        with suppress(OSError):
            value = _digest(Path(os.fsdecode(path)).read_bytes())
            if time.time_ns() - status.st_ctime_ns > _SETTLED:
                digests[path] = mark, value
            return value
        return None

    def _look_at_keys(self, seen: Seen) -> None:
        found = self._client.eval(_LOOK, 0)
        for name, what, left, *length in found:
            if 0 <= left < _SOON:
                seen.expiring.add(name)
            if name.startswith(LOST_VALUE):
                seen.lost.add(what)
            elif name.startswith(_OWN) or name == self.stream:
                continue
            elif length:
                seen.keys[name] = Key(what, left, *length)
            else:
                seen.types.add(name)
        seen.conflicts = set(self._client.hkeys(CONFLICTS))

    def is_fit(self, name: bytes) -> bool:
        """Say whether a name can be a mirrored file's."""
        parts = name.split(b"/")
        return (
            (self.shape.is_deep or len(parts) == 1)
            and all(0 < len(part) <= _NAME_MAX and part not in (b".", b"..") for part in parts)
            and len(name) < _PATH_MAX
            and b"\0" not in name
            and not self.shape.is_excluded(name)
        )

    # What must be true of names.

    def complaints(self, seen: Seen) -> dict[bytes, str]:
        """Return which names are not as they must be at rest, and how so."""
        found = dict.fromkeys(seen.left, "a temporary file is left")
        names = {*seen.files, *filter(self.is_fit, {*seen.keys, *seen.types}), *seen.conflicts}
        of_mode = {
            Mode.ONE_WAY_REPLICA: self._of_replica,
            Mode.ONE_WAY_SAFE: self._of_safe,
            Mode.TWO_WAY_SAFE: self._of_both,
            Mode.TWO_WAY_RESOLVED: self._of_both,
            Mode.REDIS_TO_DISK: self._of_copy,
        }[self.mode]
        for name in names:
            if wrong := of_mode(seen, name) or self._of_list(seen, name):
                found[name] = wrong
        return found

    def _of_list(self, seen: Seen, name: bytes) -> str | None:
        if name not in seen.conflicts:
            return None
        if self.mode not in {Mode.ONE_WAY_SAFE, Mode.TWO_WAY_SAFE}:
            return "a conflict, in a mode that has none"
        if name in seen.types or seen.is_blocked(name):
            return None  # one side cannot have what the other has
        if seen.files.get(name) == seen.key(name):
            return f"a conflict, and equal: {seen.keys.get(name)}"
        return None

    def _of_replica(self, seen: Seen, name: bytes) -> str | None:
        if name not in seen.files:
            return self._of_somebodys_key(seen, name)
        if name in seen.keys and seen.keys[name].left >= 0:
            return "the key expires"
        return _differ(seen, name)

    def _of_safe(self, seen: Seen, name: bytes) -> str | None:
        if name not in seen.files:
            return self._of_somebodys_key(seen, name)
        if name in seen.conflicts or name in seen.types:
            return None
        return _differ(seen, name)

    def _of_both(self, seen: Seen, name: bytes) -> str | None:
        if name in seen.conflicts or name in seen.types or seen.is_blocked(name):
            return None
        return _differ(seen, name)

    def _of_copy(self, seen: Seen, name: bytes) -> str | None:
        if name in seen.types or seen.is_blocked(name):
            return None
        if name not in seen.keys:
            value = seen.files.get(name, b"")
            is_theirs = self._history.names_of(Side.DISK, value)  # it may have several
            return None if is_theirs or self.is_flushed() else "a file, and no key"
        return _differ(seen, name)

    def _of_somebodys_key(self, seen: Seen, name: bytes) -> str | None:
        value = seen.key(name)
        if (
            value is None
            or self._history.is_doubtful
            or self._history.was_put(Side.REDIS, name, value)
        ):
            return None
        return "a key that nobody made, and no file"

    # What must be true of values.

    def losses(self, seen: Seen) -> dict[bytes, str]:
        """Return which values are lost, or nobody's, and how so; by name."""
        found = {}
        keys = {each.digest for each in seen.keys.values()}
        files = {*seen.files.values(), *seen.elsewhere}
        for value, written, where in self._required(files, keys, seen.lost):
            if value not in where:
                hole = ", in a file that was replaced" if self._history.holes[value] else ""
                traces = "; ".join(self._history.traces(value))
                found[written.name] = f"{written}{hole}: lost ({traces})"
        values = [*seen.files.items(), *((n, k.digest) for n, k in seen.keys.items() if k.length)]
        for name, value in values:
            if value not in self._history.known and not self._history.is_doubtful:
                found[name] = "has what nobody wrote"
        return found

    def _required(
        self, files: Collection[bytes], keys: Collection[bytes], lost: Collection[bytes]
    ) -> Iterator[tuple[bytes, Any, Collection[bytes]]]:
        """Yield values that must be somewhere, and where they may be."""
        required = self._history.required
        if self.mode in {Mode.TWO_WAY_SAFE, Mode.TWO_WAY_RESOLVED}:
            anywhere = {*files, *keys, *lost}
            yield from ((*each, anywhere) for each in required())
        if self.mode.is_one_way:
            yield from ((*each, files) for each in required(Side.DISK))
        if self.mode is Mode.ONE_WAY_SAFE:  # a decision may have brought it to the disk
            anywhere = {*files, *keys}
            yield from ((*each, anywhere) for each in required() if each[1].side is Side.REDIS)
        if self.mode is Mode.REDIS_TO_DISK:
            yield from ((*each, keys) for each in required(Side.REDIS))
        # What is on the side that does not count, and has nothing to do with the other.
        if self.mode is Mode.ONE_WAY_REPLICA:
            yield from ((*each, keys) for each in self._apart(Side.REDIS))
        if self.mode is Mode.REDIS_TO_DISK:
            yield from ((*each, files) for each in self._apart(Side.DISK))

    def _apart(self, side: Side) -> Iterator[tuple[bytes, Any]]:
        for value, written in self._history.required(side):
            if self._history.names_of(side, value) <= set(ON_ONE_SIDE[side]):
                yield value, written

    # At rest.

    def rest(self, deadline: float, also: Callable[[Seen], dict[bytes, str]] | None = None) -> Seen:
        """Wait until nothing is complained of, and all has been followed; return what is seen.

        `also` complains of more. Raises DriftError.
        """
        began = time.monotonic()

        def wrong(seen: Seen) -> dict[bytes, str]:
            return self.complaints(seen) | (also(seen) if also else {})

        self._wait(wrong, began, deadline)
        self._wait_until_followed(began, deadline)
        return self._wait(wrong, began, deadline)

    def _wait(
        self, wrong: Callable[[Seen], dict[bytes, str]], began: float, deadline: float
    ) -> Seen:
        found: dict[bytes, str] = {}
        while True:
            try:
                found = wrong(seen := self.look())
            except redis.RedisError as error:
                found = {b"(Redis)": repr(error)}
            else:
                if not found:
                    return seen
            if time.monotonic() - began > deadline:
                raise DriftError(found, time.monotonic() - began)
            time.sleep(_POLL)

    def _wait_until_followed(self, began: float, deadline: float) -> None:
        name = f"marker-{secrets.token_hex(4)}"
        path = self._root / name
        if self.mode is not Mode.REDIS_TO_DISK:
            path.write_bytes(b"here")
            self._until(lambda: self._client.get(name), b"here", name, began, deadline)
            path.unlink()
            self._until(lambda: self._client.get(name), None, name, began, deadline)
        if self.mode.writes_files:
            self._follow_key(name, path, began, deadline)

    def _follow_key(self, name: str, path: Path, began: float, deadline: float) -> None:
        while True:
            self._client.set(name, b"there")
            self._until(lambda: _content(path), b"there", name, began, deadline)
            self._client.delete(name)
            # What goes while Redis is looked through, after a loss, may be lost as well: it stays.
            patience = _PATIENCE if self.is_flushed() else deadline
            try:
                self._until(lambda: _content(path), None, name, time.monotonic(), patience)
            except DriftError:
                if time.monotonic() - began > deadline:
                    raise
            else:
                return

    def _until(
        self,
        probe: Callable[[], bytes | None],
        expected: bytes | None,
        name: str,
        began: float,
        deadline: float,
    ) -> None:
        while (found := probe()) != expected:
            if time.monotonic() - began > deadline:
                wrong = f"a marker, {expected!r} was not followed: {found!r} is there"
                raise DriftError({os.fsencode(name): wrong}, time.monotonic() - began)
            time.sleep(_POLL)

    def check_store(self) -> None:
        """Raise AssertionError if the store of losers is larger than it may be, or torn."""
        entries = [each for each in self._client.hkeys(LOST) if each.isdigit()]
        values = [LOST_VALUE + number for number in entries]
        sizes = [self._client.strlen(value) for value in values]
        assert len(entries) <= LOST_MAX, f"{len(entries)} losers"
        assert sum(sizes) <= LOST_BYTES_MAX, f"{sum(sizes)} bytes of losers"
        stored = set(self._client.scan_iter(match=LOST_VALUE + b"*", count=10_000))
        if not self._client.info("stats")["evicted_keys"]:  # or the server has taken some itself
            assert stored == set(values), "losers and their list differ"

    def check_status(self, path: Path, seen: Seen) -> None:
        """Raise AssertionError unless the status says that all is well, and what is skipped."""
        wanted = {shown(name) for name in self._to_be_listed(seen)}
        end = time.monotonic() + _STATUS
        while True:
            said = json.loads(path.read_text())
            missing = sorted(wanted - {*said["skipped"]})
            if said["skipped_count"] > len(said["skipped"]):
                missing = []  # there are more than it names
            if said["state"] == "live" and not missing:
                return
            assert time.monotonic() < end, (
                f"{said['state']} {said['detail']}, not listed as skipped: {missing}"
            )
            time.sleep(_POLL)

    def _to_be_listed(self, seen: Seen) -> Iterable[bytes]:
        if self.mode is Mode.ONE_WAY_SAFE:
            return seen.types & seen.files.keys()
        if not self.mode.writes_files:
            return ()
        excluded = self.shape.is_excluded
        unfit = {n for n in seen.keys if not self.is_fit(n) or seen.is_blocked(n)}
        return {name for name in unfit | seen.types if not excluded(name)} - seen.conflicts


def _differ(seen: Seen, name: bytes) -> str | None:
    on_disk, in_redis = seen.files.get(name), seen.key(name)
    if on_disk == in_redis and name not in seen.types:
        return None
    there = "something else" if name in seen.types else in_redis
    return f"{on_disk!r} is on disk, {there!r} in Redis"


def _walk(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield all that is below a directory; follow no link."""
    rest = [top]
    while rest:
        directory = rest.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    yield entry.path, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        rest.append(entry.path)


def mark_of(status: os.stat_result) -> Mark:
    """Return what tells whether a file was changed."""
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return status.st_ino, status.st_size, *times, status.st_mode, status.st_uid


def marks(top: Path) -> Mapping[bytes, Mark]:
    """Return what tells whether anything below a directory was changed, directories too."""
    return {path: mark_of(status) for path, status in _walk(bytes(top))}


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None
