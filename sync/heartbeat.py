"""The sign of life: the service says what it is doing, and a health check elsewhere reads it.

It is a small file, replaced as a whole. The time in it is CLOCK_MONOTONIC, which all processes of a
machine share and which no one sets. It is written only by the service's own loop, which asks Redis
before it says that it is in step, so that it grows old when either of the two hangs.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

from sync.errors import SettingsError

LIVE = "live"
FRESH = 5.0  # seconds; the loop beats once a second


class Heartbeat:
    """Writes the sign of life to a file; to none when the path is None."""

    def __init__(self, path: Path | None) -> None:
        """Write to `path`; raise SettingsError if that cannot be done."""
        self._path = path
        try:
            self._write("starting")
        except OSError as error:
            raise SettingsError(f"SYNC_HEARTBEAT cannot be written: {error}") from error

    def beat(self, state: str) -> None:
        """Say that the service is in `state` now: LIVE, or words for what it does instead.

        A full disk does not end the service: the sign of life grows old then, and is red by itself.
        """
        with suppress(OSError):
            self._write(state)

    def _write(self, state: str) -> None:
        if self._path is None:
            return
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.write_text(json.dumps({"state": state, "at": time.monotonic()}))
        temporary.replace(self._path)


def ailment(path: Path, now: float) -> str | None:
    """Return what is wrong with the service that beats to `path`; None when it is well.

    `now` is in seconds on CLOCK_MONOTONIC.
    """
    try:
        beat = json.loads(path.read_text())
        state, age = str(beat["state"]), now - float(beat["at"])
    except FileNotFoundError:
        return "the sync service has not started"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the sign of life at {path} cannot be read: {error}"
    if not 0 <= age <= FRESH:  # below 0: it is from before the machine started anew
        return (
            f"no sign of life for over {FRESH:.0f} s: the sync service is down, or it or Redis "
            f"hangs; its last was: {state}"
        )
    return None if state == LIVE else f"the sync service is not in step: {state}"
