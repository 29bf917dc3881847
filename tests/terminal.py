"""A terminal for tests: a process that runs on one, and what somebody would see there."""

import os
import termios
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pexpect
import pyte
from support import DEADLINE, eventually

CTRL_C, CTRL_Z = "\x03", "\x1a"


class Terminal:
    """A terminal with a process on it, for the time of a block.

    Attributes:
        process: the process.
        written: all bytes that it has written so far.

    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, columns: int, rows: int
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self.process: pexpect.spawn[bytes] = pexpect.spawn(
            *(command[0], list(command[1:])),
            env={"PATH": os.environ["PATH"], "TERM": "xterm", **environ},
            dimensions=(rows, columns),
        )
        self.mode = self._mode()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.close(force=True)

    def rows(self) -> list[str]:
        """Return what is to be seen, without the white space at the end of each row."""
        self._read()
        return [row.rstrip() for row in self._screen.display]

    def text(self) -> str:
        return "\n".join(self.rows())

    def shows(self, *words: str) -> bool:
        text = self.text()
        return all(word in text for word in words)

    def until_shows(self, *words: str, deadline: float = DEADLINE) -> None:
        missing: list[str] = []
        try:
            eventually(lambda: [word for word in words if not self.shows(word)], missing, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; but:\n{self.text()}") from error

    def press(self, keys: str) -> None:
        self.process.send(keys)

    def resize(self, *, columns: int, rows: int) -> None:
        self._read()
        self._screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def status(self) -> int | None:
        """Return the exit status once the process has ended; None if a signal has ended it."""
        eventually(self._has_ended, True)
        return self.process.exitstatus

    def is_as_before(self) -> bool:
        """Say whether the terminal works as it did before the process, cursor and all."""
        self._read()
        modes = {b"?1049": b"l", b"?25": b"h", b"?7": b"h"}
        last = {
            mode: self.written[self.written.rfind(b"\x1b[" + mode) :][len(mode) + 2 :][:1]
            for mode in modes
        }
        return self._mode() == self.mode and last == modes

    def is_as_before_at_the_end(self, status: int) -> bool:
        """Say the same once the process has ended, as it has to with this exit status."""
        assert self.status() == status, self.text()
        return self.is_as_before()

    def _mode(self) -> list[Any]:
        return termios.tcgetattr(self.process.child_fd)

    def _has_ended(self) -> bool:
        self._read()
        return not self.process.isalive()

    def _read(self) -> None:
        try:
            while read := self.process.read_nonblocking(1 << 16, timeout=0):
                self.written += read
                self._stream.feed(read)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
