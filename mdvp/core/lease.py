"""Who has a volume: the leases on record, the containers that the kernel shows, and the rules.

Failure model. The engine does not always call Unmount, so a lease may outlive its container for
ever; it is bookkeeping. The truth is the kernel's: a container has a volume while a process of it
lives in a mount namespace that has the volume's directory mounted. But between the answer to a
Mount and the start of the container the kernel shows nothing. So a lease counts

- while the kernel shows a container with the volume,
- or within the grace period after its last Mount, until its container has once been seen. One that
  has more Mounts open may be for a container that is starting again, whatever was seen before.

A lease that does not count is dead: whoever asks next gets the volume. Where the kernel cannot be
asked, every lease counts until its Unmount.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mdvp.core.clock import Moment, elapsed
from mdvp.core.errors import ConflictError
from mdvp.core.volume import Access, Volume, timestamp

# The kernel rounds the start of a process down to a tick, 1/100 s.
_TICK = 0.01


@dataclass(frozen=True, slots=True)
class Lease:
    """One mount ID's hold on a volume.

    The engine keeps a mount's ID in the container's record, and repeats it: `docker cp` of a
    running container is a second Mount and an Unmount with the ID that the container holds already.

    Attributes:
        mounts: the Mounts it has open.
        since: its last Mount.
        seen: whether the kernel has shown its container since the first.

    """

    mount_id: str
    mounts: int
    since: Moment
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A container, or a process outside of any, that has a volume mounted, as the kernel shows it.

    Attributes:
        container: the container's id, 64 hexadecimal digits; None for a process outside of any.
        pid: a process of it, as the reader of /proc numbers it.
        command: what that process is called.
        since: when that process began.
        began: the same, in seconds since the machine did.

    """

    container: str | None
    pid: int
    command: str
    since: datetime
    began: float

    def __str__(self) -> str:
        """Name it as a user knows it."""
        if self.container is None:
            return f"process {self.pid} ({self.command})"
        return f"container {self.container[:12]}"


# What the kernel shows of one volume; None when it cannot be asked.
Sighting = Sequence[Holder] | None


@dataclass(frozen=True, slots=True)
class Claims:
    """All that is known of who has one volume, at one moment.

    Attributes:
        holders: what the kernel shows.
        living: the leases that count, the oldest first.
        dead: those that do not.

    """

    holders: Sighting
    living: Sequence[Lease]
    dead: Sequence[Lease]

    @property
    def free(self) -> bool:
        """Whether nobody has the volume."""
        return not self.holders and not self.living


def weigh(leases: Sequence[Lease], holders: Sighting, now: Moment, grace: float) -> Claims:
    """Tell the leases that count from the dead. `grace` is in seconds."""
    if holders is None or holders:
        return Claims(holders, leases, ())
    dead = [
        lease
        for lease in leases
        if (lease.seen and lease.mounts == 1) or elapsed(lease.since, now) > grace
    ]
    return Claims(holders, [lease for lease in leases if lease not in dead], dead)


def sighted(leases: Sequence[Lease], holders: Sighting) -> list[Lease]:
    """Return those of `leases` whose container the kernel now shows for the first time.

    Which container belongs to which mount ID nobody says. But when the kernel shows a container of
    its own for each of them, begun after its Mount, then all of them have started.
    """
    waiting = sorted((lease for lease in leases if not lease.seen), key=_uptime, reverse=True)
    begun = sorted((holder.began for holder in holders or ()), reverse=True)
    if len(begun) < len(waiting) or any(
        began + _TICK < lease.since.uptime for lease, began in zip(waiting, begun, strict=False)
    ):
        return []
    return [replace(lease, seen=True) for lease in waiting]


def _uptime(lease: Lease) -> float:
    return lease.since.uptime


def granted(volume: Volume, claims: Claims, mount_id: str, now: Moment, grace: float) -> Lease:
    """Decide on a Mount: the lease that `mount_id` has from now on, or ConflictError."""
    for lease in claims.living:
        if lease.mount_id == mount_id:
            return replace(lease, mounts=lease.mounts + 1, since=now)
    if volume.access is Access.EXCLUSIVE and not claims.free:
        raise ConflictError(
            f"{in_use(volume, claims, now, grace)}; one container at a time may have a volume, "
            "unless it was created with `-o access=shared`"
        )
    return Lease(mount_id, 1, now)


def released(lease: Lease) -> Lease | None:
    """Decide on an Unmount: what is left of `lease`, None when that was its last Mount."""
    return replace(lease, mounts=lease.mounts - 1) if lease.mounts > 1 else None


def in_use(volume: Volume, claims: Claims, now: Moment, grace: float) -> str:
    """Say that a volume that is not free is in use, by whom, and since when."""
    return f"volume {volume.name!r} is in use: {who_has_it(claims, now, grace)}"


def who_has_it(claims: Claims, now: Moment, grace: float) -> str:
    """Say who has a volume that is not free, since when, and for how long if that is known."""
    if claims.holders:
        holder = claims.holders[0]
        return f"{holder} has had it since {timestamp(holder.since)}"
    lease = claims.living[0]
    who = f"mount {lease.mount_id[:12]} has had it since {timestamp(lease.since.utc)}"
    if claims.holders is None:
        return f"{who}, and mdvp cannot see whether its container lives (its log says why)"
    left = max(0.0, grace - elapsed(lease.since, now))
    return (
        f"{who}, for a container that is starting; if it never does, the volume is free again "
        f"in {math.ceil(left)} s"
    )
