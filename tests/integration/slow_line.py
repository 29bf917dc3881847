"""A line to Redis that is slow: a process between two Unix sockets that lets so much through.

    python slow_line.py HERE THERE RATE DELAY

Each connection to HERE has a line of its own to THERE, which takes RATE bytes a second. Answers
come at full speed, DELAY seconds late. So a test can meet a large value that is on its way.
"""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from support import eventually, running

CHUNK = 1 << 14  # bytes: some milliseconds on any line that is worth its name


@dataclass(frozen=True)
class SlowLine:
    """A line that takes `rate` bytes a second of each connection to `socket`."""

    socket: Path
    rate: int

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"


@contextmanager
def slow_line(there: Path, rate: int, delay: float = 0.0) -> Iterator[SlowLine]:
    """Lead to the socket `there` by a slow line for the time of the block.

    Bytes a second to it; answers are `delay` seconds late.
    """
    here = there.with_name(f"{there.name}.slow")
    command = (sys.executable, __file__, str(here), str(there), str(rate), str(delay))
    with running(command, {"PYTHONPATH": str(Path(__file__).parents[1])}):
        eventually(lambda: _answers(here), True)
        yield SlowLine(here, rate)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def serve(here: str, there: str, rate: float, delay: float) -> None:
    """Let through what comes, until killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(here)
        listener.listen(64)
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(there)
            Thread(target=_requests, args=(near, far, rate), daemon=True).start()
            Thread(target=_answers_late, args=(far, near, delay), daemon=True).start()


def _requests(near: socket.socket, far: socket.socket, rate: float) -> None:
    due = 0.0
    with near, far, suppress(OSError):
        try:
            while data := near.recv(CHUNK):
                # What an idle line did not carry is lost: it is never faster than its rate.
                due = max(due, time.monotonic()) + len(data) / rate
                time.sleep(max(0.0, due - time.monotonic()))
                far.sendall(data)
        finally:
            far.shutdown(socket.SHUT_RDWR)  # a close would wait for who receives from it


def _answers_late(far: socket.socket, near: socket.socket, delay: float) -> None:
    with suppress(OSError):
        while data := far.recv(1 << 18):
            time.sleep(delay)
            near.sendall(data)
    for each in (near, far):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
