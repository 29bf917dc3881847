"""The log: one line an event, on the stream whose level the engine understands.

The engine copies a plugin's standard output into its own log at level info and the standard error
at level error, with the time. So warnings and errors go to standard error, the rest to standard
output, and no line repeats the time.
"""

import logging
import sys

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def set_up(level: str) -> None:
    """Log from `level`, one of LEVELS, upwards."""
    low = logging.StreamHandler(sys.stdout)
    low.addFilter(lambda record: record.levelno < logging.WARNING)
    high = logging.StreamHandler(sys.stderr)
    high.setLevel(logging.WARNING)
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", handlers=[low, high])
    # Waitress warns whenever a request waits for a free thread, which is no news here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
