"""Waits as `mdvp-sync wait` does, once for each line of its standard input, in one process.

Prints how long each wait took, in seconds; ends when one fails. So the start of an interpreter, and
the import of modules, are in none of the times but the first.
"""

import os
import sys
import time

from sync.settings import Settings
from sync.wait import wait

_TIMEOUT = 10.0  # seconds; far more than any takes


def main() -> int:
    """Wait again and again; return the exit status of the last wait."""
    settings = Settings.read(os.environ)
    for _ in sys.stdin:
        began = time.perf_counter()
        status = wait(settings, [], _TIMEOUT)
        took = time.perf_counter() - began
        if status:
            return status
        print(took, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
