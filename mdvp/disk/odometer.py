"""How many seconds have certainly passed while machines ran, whatever is done to the calendar.

Failure model. What is promised for seven days is kept for seven days of this clock, which nobody
can set. It goes on with the clock of the boot (CLOCK_BOOTTIME), and begins anew, from what is on
disk, at the first reading in another boot: what has passed in between, be it that the disk has come
to a machine that runs for a year, does not count. What a crash has kept from the disk does not
count, either; a file that is lost or damaged (it has a checksum) has the clock begin at `floor`, a
reading that there was. So all that goes wrong makes it slow, and nothing makes it fast.
"""

import logging
import math
import os
from contextlib import suppress
from pathlib import Path

from mdvp.core.clock import Clock, Moment
from mdvp.disk.sealed import sealed, unsealed

log = logging.getLogger(__name__)


class Odometer:
    """The clock. Thread-safe, as nothing changes once it is there."""

    def __init__(self, path: Path, now: Clock, floor: float = 0.0) -> None:
        """Go on from what is in the file at `path`, which need not be there, at least `floor`."""
        self._path = path
        self._now = now
        began = now()
        self._boot = began.boot
        self._uptime, total = _kept(path, began)
        self._total = max(total, floor)

    def reading(self) -> float:
        """Return how many seconds have passed since it was first there."""
        return self._at(self._now().uptime)

    def _at(self, uptime: float) -> float:
        return self._total + max(0.0, uptime - self._uptime)

    def keep(self) -> None:
        """Write it to disk, for the next boot; what cannot be written does not count there."""
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            uptime = self._now().uptime
            text = sealed({"boot": self._boot, "uptime": uptime, "reading": self._at(uptime)})
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            log.debug(
                "cannot keep how long removed volumes have been kept: %(error)s",
                {"event": "odometer_not_kept", "error": error},
            )


def _kept(path: Path, began: Moment) -> tuple[float, float]:
    """Return from which uptime on is to be counted, and what was counted before."""
    with suppress(OSError, ValueError, TypeError, LookupError):
        kept = unsealed(path.read_bytes())
        uptime, reading = float(kept["uptime"]), float(kept["reading"])
        if math.isfinite(reading) and reading >= 0:
            same = kept["boot"] == began.boot and 0 <= uptime <= began.uptime
            return uptime if same else began.uptime, reading
    return began.uptime, 0.0
