"""Limits of what is in a directory: those of btrfs, which are of whole subvolumes.

Failure model. A limit is the file system's, which keeps it, also while mdvp is away. Whoever may
can take it off behind our back, and turning quotas off takes all of them: so those on record are
set again when mdvp starts and when a container is given the volume.
"""

import errno

from mdvp.core.errors import UnavailableError
from mdvp.disk import btrfs


def limit(fd: int, size: int | None, root: str) -> None:
    """Let there be at most `size` bytes in an open directory below `root`; None: any number.

    Raises UnavailableError, with what is missing and how to get it.
    """
    try:
        # Of a directory that is none, the limit would be that of the subvolume around it.
        if btrfs.subvolume(fd) is not None:
            btrfs.limit(fd, size)
        elif size is not None:
            raise UnavailableError(_why_no_subvolume(fd, root))
    except OSError as error:
        if size is None and error.errno in _NO_QUOTAS:
            return
        raise UnavailableError(_why_not(error, root)) from error


# Without quotas: ENOTCONN, on kernels before 6.0 EINVAL. They are there, but not for this: ENOENT.
_NO_QUOTAS = (errno.ENOTCONN, errno.EINVAL, errno.ENOENT)


def _why_no_subvolume(fd: int, root: str) -> str:
    if btrfs.is_here(fd):
        return (
            "the directory is no subvolume of btrfs, which alone can have a limit; a copy is one: "
            "`docker volume create -d mdvp -o from=VOLUME -o size=SIZE NAME`"
        )
    return (
        f"{root} is not on btrfs, whose quotas are the only limits that mdvp knows: move the "
        "volumes to a file system of that kind, or leave size out"
    )


def _why_not(error: OSError, root: str) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "mdvp may not set limits: that takes CAP_SYS_ADMIN, which a plugin has that was built "
            "with scripts/build_plugin.sh --sys-admin, and a service of systemd by "
            "systemd/limits.conf (docs/security.md says what it costs)"
        )
    if error.errno in _NO_QUOTAS:
        return (
            f"btrfs keeps no account of what subvolumes have: `btrfs quota enable {root}`, on the "
            "host, turns that on"
        )
    return f"btrfs takes no limit: {error.strerror}"
