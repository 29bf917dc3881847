"""Tells systemd that the service is ready, so that what comes after it can rely on it.

Source: sd_notify(3). Without a service manager that waits for this, nothing is done.
"""

import socket
from collections.abc import Mapping


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
