"""Moments: in the calendar, to be shown, and on a clock that nobody can set, to be compared."""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment: `utc` for people; `boot` and `uptime` (seconds since that boot) for reckoning."""

    utc: datetime
    boot: str
    uptime: float


def now() -> Moment:
    """Return this moment. Source: proc(5), random/boot_id; clock_gettime(2), CLOCK_BOOTTIME."""
    return Moment(
        datetime.now(UTC), _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)
    )


def elapsed(since: Moment, until: Moment) -> float:
    """Return the seconds between two moments; infinity when the machine was started in between."""
    return until.uptime - since.uptime if since.boot == until.boot else math.inf
