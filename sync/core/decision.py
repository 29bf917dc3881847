"""What is to be done about a name, from what both sides hold and what they last held alike.

The three-way merge of one value. The ancestor is what both sides had when they were last equal;
what differs from it has changed since. It is one pure function, so that whatever was lost on the
way (a message, a connection, the service itself) makes no difference: the three are looked up, and
decide.
`docs/modes.md` has the table of all cases, and a test compares the two.

What holds in every mode: a key that the server may have evicted takes no file with it, also if
somebody asks for it; nothing is written over what is no value, on disk never, in Redis only by
one-way-replica or if somebody asks for it.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, TypeAlias


class Mode(Enum):
    """Which side follows which, and what becomes of what both have changed: SYNC_MODE."""

    __hash__ = object.__hash__  # by its name takes longer, and of decisions there are very many

    ONE_WAY_REPLICA = "one-way-replica"  # Redis is the directory's copy
    ONE_WAY_SAFE = "one-way-safe"  # the same, but what somebody changed in Redis stays
    TWO_WAY_SAFE = "two-way-safe"  # what both have changed stays as it is on both
    TWO_WAY_RESOLVED = "two-way-resolved"  # there the disk wins, and Redis' value is kept aside
    REDIS_TO_DISK = "redis-to-disk"  # the directory is Redis' copy

    @property
    def writes_files(self) -> bool:
        """Say whether what is in Redis becomes a file without being asked for."""
        return not self.is_one_way

    @property
    def is_one_way(self) -> bool:
        """Say whether only the directory is followed."""
        return self is Mode.ONE_WAY_REPLICA or self is Mode.ONE_WAY_SAFE


class Without(Enum):
    """What a side has that is no value."""

    __hash__ = object.__hash__  # as of a mode

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

    __hash__ = object.__hash__  # as of a mode

    NOTHING = auto()  # all is as it was
    RECORD = auto()  # both are equal: that is the ancestor from now on
    TO_REDIS = auto()  # make Redis hold what the disk does, or nothing
    TO_DISK = auto()  # make the disk hold what Redis does, or nothing
    KEEP_TO_REDIS = auto()  # the same as TO_REDIS, but keep what Redis holds aside first
    CONFLICT = auto()  # leave both as they are, and have somebody decide
    LEAVE = auto()  # leave both as they are: one has what the other cannot have


_TO_REDIS = {Action.TO_REDIS, Action.KEEP_TO_REDIS}


def decide(
    mode: Mode, ancestor: Value, disk: Value, redis: Value, take: Side | None = None
) -> Action:
    """Say what is to be done about a name; with `take`, somebody has decided for that side.

    The ancestor is a digest, ABSENT or UNKNOWN; the disk has a digest, ABSENT or UNFIT; Redis has
    a digest, ABSENT, UNFIT or LOST. A `take` that cannot be done makes no difference, nor does one
    in one-way-replica, nor of a key that is none of a one-way mode's.
    """
    file = ABSENT if mode.is_one_way and disk is UNFIT else disk  # its key is removed if it is ours
    key = ABSENT if redis is LOST else redis
    if file == key and file is not UNFIT:
        return Action.NOTHING if ancestor == file else Action.RECORD
    if mode.is_one_way and ancestor is file is ABSENT:
        return Action.NOTHING  # somebody's own key
    if mode is not Mode.ONE_WAY_REPLICA:
        if take is Side.DISK and file is not UNFIT:
            return _disk_taken(mode, ancestor, redis)
        if take is Side.REDIS and {UNFIT, LOST}.isdisjoint({disk, redis}):
            return Action.TO_DISK
    return _RULES[mode](ancestor, file, redis)


def accepted(mode: Mode, ancestor: Value, disk: Value, redis: Value, side: Side) -> Action:
    """Say what is to be done about a name when somebody has ended a hold for that side.

    That is about what would be removed, and the side decides whether it is. Whatever else has
    happened meanwhile is no part of it: a change on the other side is not lost by it.
    """
    action = decide(mode, ancestor, disk, redis)
    if action is Action.TO_DISK:
        removes = redis is ABSENT
    else:
        removes = disk is ABSENT and action in _TO_REDIS
    return decide(mode, ancestor, disk, redis, side) if removes else action


def _disk_taken(mode: Mode, ancestor: Value, redis: Value) -> Action:
    loses = isinstance(redis, bytes) and redis != ancestor
    return Action.KEEP_TO_REDIS if loses and mode is Mode.TWO_WAY_RESOLVED else Action.TO_REDIS


# The rules of the modes, for two sides that differ.


def _one_way_replica(_ancestor: Value, _disk: Value, _redis: Value) -> Action:
    return Action.TO_REDIS


def _one_way_safe(ancestor: Value, _disk: Value, redis: Value) -> Action:
    if redis is UNFIT:
        return Action.LEAVE
    # What was deleted is nothing that could be overwritten.
    return Action.TO_REDIS if redis in {ancestor, ABSENT, LOST} else Action.CONFLICT


def _two_way_safe(ancestor: Value, disk: Value, redis: Value) -> Action:
    return _unless_both_changed(ancestor, disk, redis) or Action.CONFLICT


def _two_way_resolved(ancestor: Value, disk: Value, redis: Value) -> Action:
    wins = Action.TO_REDIS if redis is ABSENT else Action.KEEP_TO_REDIS
    return _unless_both_changed(ancestor, disk, redis) or wins


def _unless_both_changed(ancestor: Value, disk: Value, redis: Value) -> Action | None:
    """Say what is to be done, None if both sides have changed."""
    if disk is UNFIT or redis is UNFIT:
        return Action.LEAVE
    if redis == ancestor or redis is LOST:
        return Action.TO_REDIS
    return Action.TO_DISK if disk == ancestor else None


def _redis_to_disk(ancestor: Value, disk: Value, redis: Value) -> Action:
    if UNFIT in {disk, redis} or redis is LOST or ancestor is redis is ABSENT:
        return Action.LEAVE  # the file stays: Redis has not said that it is to go
    return Action.TO_DISK


_RULES: Mapping[Mode, Callable[[Value, Value, Value], Action]] = {
    Mode.ONE_WAY_REPLICA: _one_way_replica,
    Mode.ONE_WAY_SAFE: _one_way_safe,
    Mode.TWO_WAY_SAFE: _two_way_safe,
    Mode.TWO_WAY_RESOLVED: _two_way_resolved,
    Mode.REDIS_TO_DISK: _redis_to_disk,
}
