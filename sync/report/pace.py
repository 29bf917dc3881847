"""How fast it goes: what the statuses of a service tell together that no single one tells."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sync.report.health import FRESH, Health
from sync.report.status import Status
from sync.report.tally import LAG_BOUNDS

_COURSE_MAX = 200  # rates that are remembered
_LEAST = 0.5  # seconds: two statuses that are closer to each other tell of no rate


class Rates(NamedTuple):
    """What was done in a second, between two statuses.

    operations  of each kind that there was any of, the most frequent first
    total       all of them
    moved       bytes of values that went from one side to the other
    """

    operations: Mapping[str, float]
    total: float
    moved: float


class Pace:
    """The statuses of one service, as long as they are looked at.

    Attributes:
        course: operations in a second, one number for each two statuses, the last at the end.

    """

    def __init__(self) -> None:
        """Begin to look."""
        self.course: deque[float] = deque(maxlen=_COURSE_MAX)
        self._rates: Rates | None = None
        self._first: Status | None = None
        self._last: Status | None = None
        self._at = 0.0  # when that was said
        self._base = Status(), 0.0  # what the next rate begins with, and when it was said

    def take(self, health: Health) -> None:
        """Take up what the service said last; the same thing twice counts once."""
        status, at = health.status, health.at
        if status is None or at is None:
            return
        # A time that is earlier is one of the machine's next start.
        if self._last is None or at < self._at or not _goes_on(self._last, status):
            self._first, self._rates, self._base = status, None, (status, at)
            self.course.clear()
        base, began = self._base
        if at - began >= _LEAST:
            self._rates, self._base = _rates(base, status, at - began), (status, at)
            self.course.append(self._rates.total)
        self._last, self._at = status, at

    def rates(self, now: float) -> Rates | None:
        """Return how fast it goes; None if that is not known by `now`, on CLOCK_MONOTONIC."""
        return self._rates if 0 <= now - self._at <= FRESH else None

    @property
    def lags(self) -> Sequence[int]:
        """How many lags there were in each class of LAG_BOUNDS since the first look."""
        if self._first is None or self._last is None:
            return ()
        return [now - then for now, then in zip(self._last.lags, self._first.lags, strict=False)]


def quantile(lags: Sequence[int], share: float) -> float | None:
    """Return what at least a `share` of the lags do not exceed: a bound in seconds, or infinity.

    None if there are no lags.
    """
    total, passed = sum(lags), 0
    for bound, number in zip((*LAG_BOUNDS, float("inf")), lags, strict=False):
        passed += number
        if total and passed >= share * total:
            return bound
    return None


def _goes_on(last: Status, status: Status) -> bool:
    """Say whether both are of one run of the service."""
    return last.started == status.started and len(last.lags) == len(status.lags)


def _rates(last: Status, status: Status, seconds: float) -> Rates:
    done = {
        operation: (number - last.operations.get(operation, 0)) / seconds
        for operation, number in status.operations.items()
    }
    most = sorted(done.items(), key=lambda each: -each[1])
    return Rates(
        {operation: rate for operation, rate in most if rate > 0},
        sum(done.values()),
        (status.moved - last.moved) / seconds,
    )
