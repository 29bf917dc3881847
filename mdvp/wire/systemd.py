"""What a service manager such as systemd hands to the service, and what it is told.

It can hand over a socket that it listens on: that one stays while the service is away, so nobody
else can listen in its place. It is told when the service is ready, so that what comes after it can
rely on it.

Sources: sd_listen_fds(3), sd_notify(3). Without a service manager, nothing is done.
"""

import os
import socket
from collections.abc import Mapping

from mdvp.core.errors import ListenError

_FIRST = 3  # SD_LISTEN_FDS_START
_DIGITS_MAX = 9  # no process has more descriptors; keeps what is no number out of int()


def passed_descriptors(environ: Mapping[str, str]) -> range:
    """Return the descriptors that the service manager has passed to this process, maybe none.

    Call it before anything is opened that could get one of these numbers. Raises ListenError.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)  # there are none, or they are for the process that started this one
    count = environ.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdecimal() and len(count) <= _DIGITS_MAX):
        raise ListenError(
            f"LISTEN_FDS is {count!r}, and should be the number of sockets that are passed: "
            "unset it, together with LISTEN_PID, if nobody passes any"
        )
    return range(_FIRST, _FIRST + int(count))


def notify_ready(environ: Mapping[str, str]) -> None:
    """Say that the service is ready to whom NOTIFY_SOCKET in `environ` names; OSError if away."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # how sd_notify(3) spells an abstract socket
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(address)
        manager.sendall(b"READY=1")
