"""What a command shows: lines, and below them, on a terminal, a progress bar.

There is too little to a bar, which is one line that is written again and again, to load rich for
it: that takes longer than a small comparison does, and rich's bar cannot share a terminal with
lines that go to another stream.
"""

import io
import sys
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 30  # characters
_PERIOD = 0.1  # seconds between two looks of the bar
_CLEAR = "\r\x1b[K"  # to the start of the line, and erase it: ECMA-48, EL


class Screen:
    """Writes lines to one stream and shows a bar on another.

    Attributes:
        has_bar: whether the other is a terminal; no bar is shown if not.

    """

    def __init__(
        self, lines: TextIO, bar: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to `lines` and show the bar on `bar`; `clock` returns seconds."""
        self.has_bar = bar.isatty()
        self._lines = lines
        self._bar = bar
        self._clock = clock
        self._due = clock()
        self._shown = False

    def tell(self, line: str) -> None:
        """Write a line, where the bar was."""
        self.clear()
        print(line, file=self._lines)

    def show(self, share: float, words: str) -> None:
        """Show that this share of 1 is done, and words for it, if it is time to."""
        if not self.has_bar or self._clock() < self._due:
            return
        self._due = self._clock() + _PERIOD
        share = min(share, 1.0)
        bar = ("#" * int(share * _WIDTH)).ljust(_WIDTH)
        self._bar.write(f"{_CLEAR}[{bar}] {share:4.0%} {words}")
        self._bar.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._bar.write(_CLEAR)
            self._bar.flush()
            self._shown = False

    def close(self) -> None:
        """Take the bar away for good."""
        self.clear()


def write_any_name() -> None:
    """Have names be written as well as can be: they are in any language, terminals in some."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def cannot(why: str) -> int:
    """Say why a command cannot do what it was told; return the exit status for that."""
    print(f"mdvp-sync: {why}", file=sys.stderr)
    return 2
