"""What time it is. Source: proc(5), random/boot_id; clock_gettime(2), CLOCK_BOOTTIME."""

import time
from datetime import UTC, datetime
from pathlib import Path

from mdvp.core.clock import Moment

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> Moment:
    """Return this moment."""
    return Moment(
        datetime.now(UTC), _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)
    )
