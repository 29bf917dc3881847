"""What there is to decide, written for people and for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from sync.core.changes import shown
from sync.core.decision import Mode
from sync.redis.notes import Conflict, Lost
from sync.report.figures import counted, size

# Why a mode has no conflicts. What an earlier one has left of them counts no more.
NEVER = {
    Mode.ONE_WAY_REPLICA: "Redis is the directory's copy, and what others do to it is undone",
    Mode.TWO_WAY_RESOLVED: "the disk wins, and the value that loses is kept",
    Mode.REDIS_TO_DISK: "the directory is Redis' copy, and what Redis has counts",
}


def why_never(mode: Mode) -> str:
    """Say why a mode has no conflicts, at the end of a sentence; nothing if it may have some."""
    return f": with SYNC_MODE={mode.value} {NEVER[mode]}" if mode in NEVER else ""


def conflict_lines(conflicts: Mapping[bytes, Conflict], mode: Mode) -> Iterator[str]:
    """Yield a line for each name in conflict, and one about all of them."""
    if not conflicts:
        yield f"no conflicts{why_never(mode)}"
        return
    for name, conflict in _oldest_first(conflicts):
        yield f"{shown(name)} {conflict}, since {moment(conflict.since)}"
    way_out = "`mdvp-sync resolve NAME --take disk`, or `--take redis`, ends one"
    yield f"{counted(len(conflicts), 'conflict', 'conflicts')}: {way_out}"


def lost_lines(lost: Sequence[Lost]) -> Iterator[str]:
    """Yield a line for each value that lost and is kept, and one about all of them."""
    for each in lost:
        number = f"lost {each.number}"
        yield f"{number:<10} {moment(each.at)}  {size(each.size):>9}  {shown(each.name)}"
    if not lost:
        yield "no values that lost are kept"
        return
    values = counted(len(lost), "value that lost is", "values that lost are")
    way_out = "`mdvp-sync resolve NAME --take redis [--number N]` brings one back"
    yield f"{values} kept: {way_out}"


def as_json(mode: Mode, conflicts: Mapping[bytes, Conflict], lost: Sequence[Lost]) -> str:
    """Write both for programs: names as people see them, times in seconds since 1970."""
    said = {
        "mode": mode.value,
        "conflicts": [
            {"name": shown(name), "since": each.since, "disk": each.disk, "redis": each.redis}
            for name, each in _oldest_first(conflicts)
        ],
        "lost": [
            {"number": each.number, "at": each.at, "size": each.size, "name": shown(each.name)}
            for each in lost
        ],
    }
    return json.dumps(said, indent=2)


def moment(seconds: float) -> str:
    """Write a moment, which is given in seconds since 1970."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # somebody else has written it
        return "an unknown time"


def _oldest_first(conflicts: Mapping[bytes, Conflict]) -> list[tuple[bytes, Conflict]]:
    return sorted(conflicts.items(), key=lambda each: (each[1].since, each[0]))
