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

This file is run by its path, by `mdvp.wire.spec.guarded`, with the spec file's path and content as
arguments; it needs nothing but the standard library.
"""

import os
import signal
import sys
import time
from pathlib import Path

_PAUSE = 1.0  # seconds between two attempts to remove the file


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
