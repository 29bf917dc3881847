"""Locks of directories, as systemd-tmpfiles looks for them."""

import fcntl
import os
from pathlib import Path


def is_locked(directory: Path) -> bool:
    """Say whether somebody has locked a directory: flock(2)."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
