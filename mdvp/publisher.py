"""A thread that writes the metrics to a file, again and again.

Failure model. Nobody is to be without volumes because of figures: what goes wrong here is logged
once, tried again, and stops nothing else. Figures that are not of now are worse than none, so a
file that cannot be written anew is removed if it can be, and so it is in the end. One that mdvp had
no time to remove shows by its age. A file system that does not answer keeps a thread waiting, and
nobody else: neither those who ask nor the end wait for it.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Protocol

from mdvp import threads
from mdvp.core.errors import MdvpError

log = logging.getLogger(__name__)

_INTERVAL = 15.0  # seconds; Prometheus asks about as often
_REST = 20  # times as long as it took: where there are very many volumes, it is done more seldom
_PATIENCE = 2.0  # seconds; a file system may not answer


class File(Protocol):
    """Where to write; `mdvp.disk.textfile.Textfile` is the real one.

    Its file system may take for ever to answer, so the thread alone calls what is here.
    """

    def is_nowhere(self) -> bool:
        """Say whether what was named as the directory stands for none."""

    def write(self, content: bytes) -> None:
        """Put a new file in the place of the old one; MdvpError says why that cannot be."""

    def remove(self) -> None:
        """Remove the file, if it is ours; raises OSError or MdvpError."""


class Publisher:
    """Writes what `text` returns to `file`, at once and then every `interval` seconds, or later.

    Where the file is nowhere, it writes nothing.
    """

    def __init__(
        self,
        file: File,
        text: Callable[[], bytes],
        end: Callable[[], object],
        *,
        interval: float = _INTERVAL,
    ) -> None:
        """Start the thread; should that itself fail, it calls `end`."""
        self._file = file
        self._text = text
        self._interval = interval
        self._closing = Event()
        self._failure = ""
        self._thread = threads.start("publisher", self._run, end)

    def close(self) -> None:
        """End the thread, and remove the file."""
        self._closing.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        if self._file.is_nowhere():
            return
        rest = 0.0
        while not self._closing.wait(rest):
            began = time.monotonic()
            self._publish()
            rest = max(self._interval, (time.monotonic() - began) * _REST)
        self._remove()

    def _publish(self) -> None:
        try:
            self._file.write(self._text())
        except MdvpError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  # of the figures; whoever asks for a volume meets the same
            self._fail(f"a defect, or {error!r}", error)
        else:
            if self._failure:
                log.info(
                    "the metrics are written to %(file)s again",
                    {"event": "metrics_written_again", "file": str(self._file)},
                )
            self._failure = ""

    def _fail(self, why: str, error: Exception | None = None) -> None:
        # Once is enough; and what is closed beneath the figures in the end is no news.
        if why != self._failure and not self._closing.is_set():
            log.warning(
                "cannot write the metrics to %(file)s: %(reason)s; mdvp serves on, and tries "
                "again every %(interval)g s",
                {
                    "event": "metrics_not_written",
                    "file": str(self._file),
                    "reason": why,
                    "interval": self._interval,
                },
                exc_info=error,
            )
        self._failure = why
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError, MdvpError):
            self._file.remove()
