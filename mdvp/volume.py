"""The values that mdvp decides about, and the rules that need nothing but them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mdvp.errors import BadRequestError, ConflictError

# What Docker accepts as a volume's name (moby, volume/names), which its engine does not check for a
# plugin: "../../etc" arrives as it is. A name is one path component, so 255 bytes is NAME_MAX.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_NAME_MAX = 255
_SHOWN_MAX = 64


class Identity(NamedTuple):
    """What tells one directory from any other, whatever its name: inode, and time of birth in ns.

    The inode alone does not: the next directory that is made may get that of one just deleted. The
    time is 0 where the file system does not record it.
    """

    inode: int
    born: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on record, and the identity of its directory."""

    name: str
    created_at: datetime
    identity: Identity


@dataclass(frozen=True, slots=True)
class Lease:
    """One mount ID's hold on a volume: how many Mounts it has open, and since when (UTC).

    The engine keeps a mount's ID in the container's record, and repeats it: `docker cp` of a
    running container is a second Mount and an Unmount with the ID that the container holds already.
    """

    mount_id: str
    mounts: int
    since: datetime


def check_name(name: str) -> str:
    """Return `name` if a volume may be called so; raise BadRequestError if not."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            f"{shown(name)} cannot be a volume's name: use letters, digits, '_', '.' and '-', "
            "and begin with a letter or a digit"
        )
    if len(name) > _NAME_MAX:
        raise BadRequestError(
            f"{shown(name)} cannot be a volume's name: it has {len(name)} bytes, "
            f"{_NAME_MAX} is the most"
        )
    return name


def shown(text: str) -> str:
    """Quote hostile text for a message: escaped, and cut when it is long."""
    return ascii(text) if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]!a}..."


def granted(name: str, leases: Sequence[Lease], mount_id: str, now: datetime) -> Lease:
    """Decide on a Mount: the lease that `mount_id` has from now on, or ConflictError.

    `leases` are those on volume `name` now, `now` is in UTC.
    """
    for lease in leases:
        if lease.mount_id == mount_id:
            return Lease(mount_id, lease.mounts + 1, lease.since)
    if leases:
        raise in_use(name, leases[0])
    return Lease(mount_id, 1, now)


def released(lease: Lease) -> Lease | None:
    """Decide on an Unmount: what is left of `lease`, None when that was its last Mount."""
    return Lease(lease.mount_id, lease.mounts - 1, lease.since) if lease.mounts > 1 else None


def in_use(name: str, holder: Lease) -> ConflictError:
    """Return the refusal that names the holder."""
    return ConflictError(
        f"volume {name!r} is in use: mount {holder.mount_id[:12]} has had it since "
        f"{timestamp(holder.since)}, and one container at a time may have a volume; "
        f"`docker ps --filter volume={name}` shows who that is"
    )


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the second, as the engine shows it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
