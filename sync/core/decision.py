"""What is to be done about a name, from what both sides hold and what they last held alike.

The three-way merge of one value. The ancestor is what both sides had when they were last equal; what
differs from it has changed since. It is one pure function, so that whatever was lost on the way (a
message, a connection, the service itself) makes no difference: the three are looked up, and decide.
`docs/modes.md` has the table of all cases, and a test compares the two.
"""

from enum import Enum, auto
from typing import Final, TypeAlias


class Mode(Enum):
    """Which side follows which, and what becomes of what both have changed: SYNC_MODE."""

    ONE_WAY_REPLICA = "one-way-replica"  # Redis is the directory's copy
    ONE_WAY_SAFE = "one-way-safe"  # the same, but what somebody changed in Redis stays
    TWO_WAY_SAFE = "two-way-safe"  # what both have changed stays as it is on both
    TWO_WAY_RESOLVED = "two-way-resolved"  # there the disk wins, and Redis' value is kept aside
    REDIS_TO_DISK = "redis-to-disk"  # the directory is Redis' copy

    @property
    def writes_files(self) -> bool:
        """Say whether what is in Redis becomes a file."""
        return self in _WRITES_FILES

    @property
    def is_one_way(self) -> bool:
        """Say whether only the directory is followed."""
        return self in {Mode.ONE_WAY_REPLICA, Mode.ONE_WAY_SAFE}


_WRITES_FILES = {Mode.TWO_WAY_SAFE, Mode.TWO_WAY_RESOLVED, Mode.REDIS_TO_DISK}


class Without(Enum):
    """What a side has that is no value."""

    ABSENT = auto()  # nothing
    UNFIT = auto()  # something that is no value: on disk no regular file, in Redis no string
    LOST = auto()  # nothing in Redis, but nobody need have deleted it: the server may evict keys
    UNKNOWN = auto()  # as an ancestor: there was a value, and nobody knows which


ABSENT: Final = Without.ABSENT
UNFIT: Final = Without.UNFIT
LOST: Final = Without.LOST
UNKNOWN: Final = Without.UNKNOWN

Value: TypeAlias = bytes | Without  # a value is known by its digest


class Side(Enum):
    """One of the two."""

    DISK = "disk"
    REDIS = "redis"


class Action(Enum):
    """What is to be done about a name."""

    NOTHING = auto()  # all is as it was
    RECORD = auto()  # both are equal: that is the ancestor from now on
    TO_REDIS = auto()  # make Redis hold what the disk does, or nothing
    TO_DISK = auto()  # make the disk hold what Redis does, or nothing
    KEEP_TO_REDIS = auto()  # the same as TO_REDIS, but keep what Redis holds aside first
    CONFLICT = auto()  # leave both as they are, and have somebody decide
    LEAVE = auto()  # leave both as they are: one has what the other cannot have


def decide(
    mode: Mode, ancestor: Value, disk: Value, redis: Value, take: Side | None = None
) -> Action:
    """Say what is to be done about a name; with `take`, somebody has decided for that side.

    The ancestor is a digest, ABSENT or UNKNOWN; the disk has a digest, ABSENT or UNFIT; Redis has
    a digest, ABSENT, UNFIT or LOST.
    """
    there = ABSENT if redis is LOST else redis
    if mode.is_one_way and disk is UNFIT:
        disk = ABSENT  # as without a file, the key is removed if it is ours
    if disk == there and disk is not UNFIT:
        return Action.NOTHING if ancestor == disk else Action.RECORD
    if take:
        return _taken(take, disk, there)
    if mode is Mode.ONE_WAY_REPLICA:
        return Action.NOTHING if ancestor is disk is ABSENT else Action.TO_REDIS
    if mode.is_one_way and ancestor is disk is ABSENT:
        return Action.NOTHING  # somebody's own key
    if UNFIT in {disk, there}:
        return Action.LEAVE
    if mode is Mode.REDIS_TO_DISK:
        return _from_redis(ancestor, redis)
    if redis is LOST:
        return Action.TO_REDIS
    if ancestor == there:
        return Action.TO_REDIS
    if mode is Mode.ONE_WAY_SAFE:
        # What was deleted is nothing that could be overwritten.
        return Action.TO_REDIS if there is ABSENT else Action.CONFLICT
    if ancestor == disk:
        return Action.TO_DISK
    if mode is Mode.TWO_WAY_SAFE:
        return Action.CONFLICT
    return Action.TO_REDIS if there is ABSENT else Action.KEEP_TO_REDIS


def _taken(take: Side, disk: Value, redis: Value) -> Action:
    if take is Side.DISK:
        return Action.LEAVE if disk is UNFIT else Action.TO_REDIS
    return Action.LEAVE if UNFIT in {disk, redis} else Action.TO_DISK


def _from_redis(ancestor: Value, redis: Value) -> Action:
    if redis is LOST or (ancestor is ABSENT and redis is ABSENT):
        return Action.LEAVE  # the file stays: Redis has not said that it is to go
    return Action.TO_DISK
