"""Moments: in the calendar, to be shown, and on a clock that nobody can set, to be compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment: `utc` for people; `boot` and `uptime` (seconds since that boot) for reckoning."""

    utc: datetime
    boot: str
    uptime: float


# What tells this moment.
Clock: TypeAlias = Callable[[], Moment]


def elapsed(since: Moment, until: Moment) -> float:
    """Return the seconds between two moments; infinity when the machine was started in between."""
    return until.uptime - since.uptime if since.boot == until.boot else math.inf
