"""The guardian: a small process that keeps the port of a killed mdvp until nothing leads there.

When mdvp is killed, the kernel closes its port, and any user of the machine can listen there. The
spec file would lead the engine to that user, who could answer Mount with `/`. So a child of mdvp
has the listening socket too. It waits for mdvp's end, removes the spec file, and only then ends
itself, which lets go of the port. It is a program of its own, not a fork: it has no thread, no lock
and no descriptor of mdvp's but this one. Where a service manager holds the socket there is none.

Failure model. mdvp can end in any way: the kernel closes the pipe between them. Signals that are
meant for mdvp, or for its group or terminal, do not end the guardian. Should it be killed all the
same, mdvp ends too, which removes the spec file. A spec file that cannot be removed keeps the port.
Against SIGKILL to both at once, and against a power cut, it does not help; see `systemd/tcp.conf`.

This file is run by its path, and so needs nothing but the standard library.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

_PAUSE = 1.0  # seconds between two attempts to remove the file
_END = 5.0  # seconds; it takes milliseconds, unless somebody has stopped it

log = logging.getLogger(__name__)


@contextmanager
def guarded(
    listener: socket.socket, file: Path, content: bytes, end: Callable[[], object]
) -> Iterator[None]:
    """Have a guardian for the time of the block: it keeps `listener` until `file` is gone.

    It removes the file only when it has this content. Should the guardian die, `end` is called.
    """
    # Isolated, without what is installed: it starts in no time, and nobody can slip it a module.
    command = [sys.executable, "-IS", __file__, str(file.absolute()), os.fsdecode(content)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # which the kernel closes when we end
        stdout=subprocess.DEVNULL,  # whoever reads our log is not to wait for the guardian
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )
    dismissed = Event()
    watch = Thread(target=_watch, args=(process, dismissed, end), name="guardian", daemon=True)
    watch.start()
    try:
        yield
    finally:
        dismissed.set()
        if process.stdin:
            process.stdin.close()
        watch.join(_END)


def _watch(process: subprocess.Popen[bytes], dismissed: Event, end: Callable[[], object]) -> None:
    status = process.wait()
    if not dismissed.is_set():
        log.error(
            "the process that would keep the port if mdvp were killed has ended (status %d): mdvp "
            "ends, to be started again",
            status,
        )
        end()


def _guard(file: Path, content: bytes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(1):
        pass
    while not _withdrawn(file, content):
        time.sleep(_PAUSE)


def _withdrawn(file: Path, content: bytes) -> bool:
    try:
        if file.read_bytes() == content:
            file.unlink()
    except FileNotFoundError:
        return True
    except OSError:  # such as a file system that has become read-only
        return False
    return True


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), os.fsencode(sys.argv[2]))
