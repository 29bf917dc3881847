"""Says what is to be done about names: looks at all sides, and asks the decision.

Somebody may have decided already: for a name (`mdvp-sync resolve`), or for what would be removed
since the directory or the server is not the one of the last time (`mdvp-sync accept`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sync.core.changes import NONE, Set, Signature
from sync.core.decision import (
    ABSENT,
    LOST,
    UNFIT,
    UNKNOWN,
    Action,
    Mode,
    Side,
    Value,
    accepted,
    decide,
)
from sync.core.manifest import NOTHING, PENDING_GONE, Entries, digest_of
from sync.redis.target import LARGE, Key
from sync.service.absence import Absence
from sync.service.downloads import Downloads


class OnDisk(NamedTuple):
    """What was found on disk under a name.

    value      its digest, ABSENT or UNFIT
    signature  of the file; None if there is none, or if it was changing
    set        what brings it to Redis; None if that is not at hand
    """

    value: Value
    signature: Signature | None = None
    set: Set | None = None


class Case(NamedTuple):
    """What was found under a name on all sides, and what is to be done."""

    name: bytes
    disk: OnDisk
    key: Key
    redis: Value
    ancestor: Value
    action: Action

    @property
    def known(self) -> tuple[Signature, bytes]:
        """The signature and the digest that are remembered; those of nothing if there are none."""
        digest = self.ancestor if isinstance(self.ancestor, bytes) else NOTHING
        return self.disk.signature or NONE, digest


class Judge:
    """What is to be done about names.

    Attributes:
        accepted: the side that somebody has accepted for all names; None if for none.
        decided: the sides that somebody has decided for, by name.

    """

    def __init__(
        self, entries: Entries, mode: Mode, absence: Absence, downloads: Downloads
    ) -> None:
        """Decide for a mode; large values come by way of `downloads`."""
        self._format = entries
        self._mode = mode
        self._absence = absence
        self._downloads = downloads
        self.accepted: Side | None = None
        self.decided: dict[bytes, Side] = {}
        self._accepting: dict[bytes, Side] = {}  # what is still to be done of what was accepted
        self._is_doubtful: bool | None = None

    @property
    def is_taking(self) -> bool:
        """Whether somebody has accepted a side, and there are names for which that is not done."""
        return self.accepted is not None or bool(self._accepting)

    def end(self, left: Iterable[bytes]) -> None:
        """Go by what was accepted no more, but for some names that are left."""
        if self.accepted:
            self._accepting = dict.fromkeys(left, self.accepted)
        self.accepted = None

    def has_ended(self, name: bytes) -> bool:
        """Take note that all is done about a name; say whether somebody had decided about it."""
        self._accepting.pop(name, None)
        return self.decided.pop(name, None) is not None

    def cases(self, found: Mapping[bytes, OnDisk], keys: Sequence[Key]) -> list[Case]:
        """Say what is to be done about names, but for those whose values are to be read first."""
        self._is_doubtful = None
        pairs = zip(found.items(), keys, strict=False)
        cases = (self._case(name, disk, key) for (name, disk), key in pairs)
        return [case for case in cases if case]

    def _case(self, name: bytes, disk: OnDisk, key: Key) -> Case | None:
        """Say what is to be done about a name; None when its value is to be read first."""
        if key.length > LARGE:
            digest = self._downloads.use(name, as_file=self._may_be_file(disk, key))
            if digest is None:
                return None
            redis: Value = digest
        elif key.length < 0:
            redis = UNFIT
        else:
            redis = ABSENT if key.value is None else digest_of(key.value)
        ancestor = self._ancestor(key.entry, disk, redis)
        if redis is ABSENT and ancestor is not ABSENT and disk.value is not ABSENT:
            redis = self._absent()
        sides = (self._mode, ancestor, disk.value, redis)
        take = self.decided.get(name)
        side = None if take else self.accepted or self._accepting.get(name)
        action = accepted(*sides, side) if side else decide(*sides, take)
        return Case(name, disk, key, redis, ancestor, action)

    def _absent(self) -> Value:
        if self._is_doubtful is None:  # asked after the keys were looked at, once for all
            self._is_doubtful = self._mode.writes_files and self._absence.is_doubtful
        return LOST if self._is_doubtful else ABSENT

    def _ancestor(self, entry: bytes | None, disk: OnDisk, redis: Value = UNKNOWN) -> Value:
        """Return what both sides last held alike."""
        if entry is None:
            return ABSENT
        pending = self._format.pending(entry)
        if pending and pending == (PENDING_GONE if disk.value is ABSENT else disk.value):
            return disk.value  # it came from Redis, just before something ended
        digest = self._format.digest(entry)
        if other := self._format.other(entry):  # of the other setting of SYNC_TRIM_NEWLINE
            # Both were equal by that, so what differs now is the setting, and the file counts.
            is_same = _is_of(other[0], disk.signature) and redis == other[1]
            return redis if is_same else UNKNOWN
        if digest is None:  # from a time when only the directory was followed
            held = self._format.decode(entry)
            return disk.value if _is_of(held, disk.signature) else UNKNOWN
        return ABSENT if digest == NOTHING else digest

    def _may_be_file(self, disk: OnDisk, key: Key) -> bool:
        """Say whether a value that is to be read first may become a file."""
        if self._mode is Mode.REDIS_TO_DISK:
            return True
        return self._mode.writes_files and self._ancestor(key.entry, disk) == disk.value


def _is_of(held: Signature | None, has: Signature | None) -> bool:
    """Say whether what is held is of the file that is there, sure or not."""
    return held is not None and has is not None and held in {has, has.unsure()}
