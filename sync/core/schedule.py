"""When what is done that nothing asks for: signs of life, and the looks at the whole directory."""

import math
from dataclasses import dataclass

_BEAT = 1.0  # seconds between two signs of life
_SOON = 2.0  # seconds before a rescan for which there is a reason
_STEP = 0.0002  # seconds of work for a step beside the step itself


@dataclass(frozen=True)
class Rescan:
    """When the whole directory is looked at although nothing was lost.

    inotify does not tell of writes through mmap(2), or of those on another host.
    """

    interval: float  # seconds; 0 is never
    share: float  # of one core, that it may take


class Schedule:
    """The times on the caller's clock, in seconds, at which something is due.

    Attributes:
        beat: when the next sign of life is.
        step: when the next step of a reconcile is, or the first one of the next.

    """

    def __init__(self, rescan: Rescan) -> None:
        """Have both due at once."""
        self._rescan = rescan
        self._is_wanted = False  # whether there is a reason for a rescan
        self._is_needed = False  # and one that counts even where there are none
        self.beat = 0.0
        self.step = 0.0

    def beaten(self, now: float) -> None:
        """Take note of a sign of life."""
        self.beat = now + _BEAT

    def begun(self, now: float) -> None:
        """Take note that a reconcile has begun: what there was a reason for is being done."""
        self._is_wanted = self._is_needed = False
        self.step = now

    def stepped(self, now: float, worked: float) -> None:
        """Take note of a step of a rescan, which took `worked` seconds of a core."""
        self.step = now + (worked + _STEP) / self._rescan.share

    def ended(self, now: float) -> None:
        """Take note that a reconcile has ended."""
        self.step = now + (self._rescan.interval or math.inf)
        self._plan(now)

    def want_rescan(self, now: float, *, in_reconcile: bool, is_needed: bool = False) -> None:
        """Have a rescan begin soon, or after the reconcile that is going on.

        Where there are none, that is so only if it `is_needed`: something was lost.
        """
        self._is_wanted = True
        self._is_needed |= is_needed
        if not in_reconcile:
            self._plan(now)

    def _plan(self, now: float) -> None:
        if self._is_wanted and (self._rescan.interval or self._is_needed):
            self.step = min(self.step, now + _SOON)
