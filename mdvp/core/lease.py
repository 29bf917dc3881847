"""Who has a volume: the leases on record, what one look at the host shows, and the rules.

Failure model. The engine does not always call Unmount, and when it does, that is its word about a
container and not the container's end. So a lease is a promise on record; who lives is the kernel's
to say. A lease counts

- while its holder lives: a container that the kernel has shown with the volume, and that began
  after the Mount;
- while it waits for its holder, because the engine that asked for it may still be at work. Between
  the answer to a Mount and the start of the container there may be a long copy, or nothing to be
  seen at all. As long as that engine lives, the lease counts for the grace period after the Mount
  and after the last trace of work in the volume; when it is gone, for ORPHANED seconds more, in
  which the runtime ends what it has begun.

A lease that does not count is dead: whoever asks next gets the volume. And who has the volume
counts without any lease: whoever has it mounted, and whoever was once shown with it, for as long as
any process of theirs lives, whatever that has done to its root, its mounts or its namespaces. Where
the kernel cannot be asked, every lease counts until its Unmount.

What is not seen: work that leaves no trace in the volume for longer than the grace period (another
volume of the same container that takes minutes to be mounted), and a runtime that goes on later
than ORPHANED seconds after its engine was killed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mdvp.core.clock import Moment, elapsed
from mdvp.core.errors import LaterError
from mdvp.core.volume import Access, Volume, timestamp

# For how many seconds a lease waits for its holder when the engine is gone; a runtime that was
# started needs some tenths, on a machine that has just killed its engine perhaps some seconds.
ORPHANED = 10.0

# The kernel rounds the start of a process down to a tick, 1/100 s.
_TICK = 0.01


@dataclass(frozen=True, slots=True)
class Engine:
    """The process that asked for a lease: its id, and its start in clock ticks since the boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One mount ID's hold on a volume.

    The engine keeps a mount's ID in the container's record, and repeats it: `docker cp` of a
    running container is a second Mount and an Unmount with the ID that the container holds already.

    Attributes:
        mounts: the Mounts that the engine has not taken back.
        since: its first Mount.
        engine: who asked for it; None where that is not known.
        holder: the `Holder.who` that the kernel has shown to have come by it; None until then.

    """

    mount_id: str
    mounts: int
    since: Moment
    engine: Engine | None = None
    holder: str | None = None

    @property
    def waits(self) -> bool:
        """Whether a holder may be yet to come: for the only Mount, or for one more than its own."""
        return self.mounts > (0 if self.holder is None else 1)


@dataclass(frozen=True, slots=True)
class Holder:
    """A container, or a process outside of any, that has a volume, as the kernel shows it.

    Attributes:
        who: what tells it from any other: the container's id, 64 hexadecimal digits; or the mount
            namespace of a process and when it began.
        container: the container's id; None for a process outside of any.
        pid: a process of it, as the reader of /proc numbers it.
        command: what that process is called.
        since: when that process began.
        began: the same, in seconds since the machine did.
        ready: whether it is set up, with a root directory other than the host's.

    """

    who: str
    container: str | None
    pid: int
    command: str
    since: datetime
    began: float
    ready: bool = True

    def __str__(self) -> str:
        """Name it as a user knows it."""
        if self.container is None:
            return f"process {self.pid} ({self.command})"
        return f"container {self.container[:12]}"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at the host shows of one volume.

    Attributes:
        holders: who has it mounted, and who lives of those that were shown with it before.
        gone: since when the engines that no longer live were found so.
        worked: when work of an engine that lives was last seen in the volume, by mount ID.
        busy: whether such work was seen in this look.

    """

    holders: Sequence[Holder] = ()
    gone: Mapping[Engine, Moment] = field(default_factory=dict)
    worked: Mapping[str, Moment] = field(default_factory=dict)
    busy: bool = False

    def lives(self, who: str | None) -> bool:
        """Say whether that holder is there."""
        return any(holder.who == who for holder in self.holders)


@dataclass(frozen=True, slots=True)
class Claims:
    """All that is known of who has one volume, at one moment.

    Attributes:
        sight: what the kernel shows; None when it cannot be asked.
        living: the leases that count, the oldest first.
        dead: those that do not.
        left: for how many seconds more each that waits for its holder counts, by mount ID.

    """

    sight: Sight | None
    living: Sequence[Lease]
    dead: Sequence[Lease]
    left: Mapping[str, float]

    @property
    def holders(self) -> Sequence[Holder]:
        """Who is known to have the volume."""
        return self.sight.holders if self.sight else ()

    @property
    def free(self) -> bool:
        """Whether nobody has the volume."""
        return not self.holders and not self.living


def weigh(leases: Sequence[Lease], sight: Sight | None, now: Moment, grace: float) -> Claims:
    """Tell the leases that count from the dead. `grace` is in seconds."""
    if sight is None:
        return Claims(None, leases, (), {})
    left = {lease.mount_id: _left(lease, sight, now, grace) for lease in leases if lease.waits}
    living = [
        lease
        for lease in leases
        if sight.lives(lease.holder) or left.get(lease.mount_id, -1.0) >= 0
    ]
    return Claims(sight, living, [lease for lease in leases if lease not in living], left)


def _left(lease: Lease, sight: Sight, now: Moment, grace: float) -> float:
    """Return for how many seconds a lease may wait for its holder; less than 0: no longer."""
    if lease.since.boot != now.boot:
        return -math.inf
    worked = sight.worked.get(lease.mount_id, lease.since)
    left = grace - min(elapsed(lease.since, now), elapsed(worked, now))
    gone = sight.gone.get(lease.engine) if lease.engine else None
    return left if gone is None else min(left, ORPHANED - elapsed(gone, now))


def attributed(claims: Claims, boot: str) -> list[Lease]:
    """Return those leases that get a holder, each with it; `boot` is the present one.

    Who has the volume, and is set up, may be the holder of a lease. Which of them came by which
    Mount nobody says. But a holder belongs to a lease that was there when it began, and none comes
    by a Mount for which the engine is still at work: whoever shows then is a passer-by. And of an
    engine that is not known nobody can tell its own helpers, which are in no container.
    The newest lease has the least choice, so it chooses first: what it takes, an older one could
    have had, too, but what it leaves is of use to the older ones alone. Only when each lease that
    counts finds a holder is any of them taken for started; else one might be given the holder of
    another, and be dead with it before its own has come.

    That leases of a shared volume may have each other's holders does no harm: the volume is in use
    while any of these lives, and a Mount of an ID whose holder has ended waits for another.
    """
    if claims.sight is None or claims.sight.busy:
        return []
    taken = {lease.holder for lease in (*claims.living, *claims.dead)}
    free = [holder for holder in claims.holders if holder.ready and holder.who not in taken]
    dead = [lease for lease in claims.dead if lease.since.boot == boot]
    given = []
    for lease in _newest_first(claims.living) + _newest_first(dead):
        since = lease.since.uptime - _TICK
        holder = next(
            (each for each in free if each.began >= since and (each.container or lease.engine)),
            None,
        )
        if holder is not None:
            free.remove(holder)
            given.append(replace(lease, holder=holder.who))
        elif lease in claims.living:
            return []
    return given


def _newest_first(leases: Sequence[Lease]) -> list[Lease]:
    unheld = [lease for lease in leases if lease.holder is None]
    return sorted(unheld, key=lambda lease: lease.since.uptime, reverse=True)


def granted(  # noqa: PLR0913, PLR0917  # what there is to be judged
    volume: Volume,
    claims: Claims,
    mount_id: str,
    engine: Engine | None,
    now: Moment,
    before: int = 0,
) -> Lease:
    """Decide on a Mount: the lease that `mount_id` has from now on, or LaterError.

    The ID alone gives no right to an exclusive volume: it may be that of a container that lost the
    volume long ago, and whoever has it now is not on its lease. Nor does it come before others who
    wait, `before` in number, unless it has the volume already.
    """
    mine = next((lease for lease in claims.living if lease.mount_id == mount_id), None)
    if volume.access is Access.EXCLUSIVE and _others(claims, mine):
        raise LaterError(
            f"{in_use(volume, claims)}; one container at a time may have a volume, "
            "unless it was created with `-o access=shared`",
            volume.wait or 0,
        )
    if mine is None and before and volume.access is Access.EXCLUSIVE:
        raise LaterError(
            f"volume {volume.name!r} is free, and it is the turn of another: {before} came before",
            volume.wait or 0,
        )
    if mine is None:
        return Lease(mount_id, 1, now, engine)
    if mine.holder is not None and claims.sight and not claims.sight.lives(mine.holder):
        # One of its Mounts has ended with its holder, and this one is for another start.
        return Lease(mount_id, max(1, mine.mounts), now, engine)
    # What its holder came by counts as one, though the engine may have given that back.
    had = mine.mounts if mine.holder is None else max(1, mine.mounts)
    return replace(mine, mounts=had + 1, engine=engine)


def _others(claims: Claims, mine: Lease | None) -> bool:
    """Say whether anybody has the volume besides the holder of `mine`."""
    holder = mine.holder if mine else None
    return any(lease is not mine for lease in claims.living) or any(
        each.who != holder for each in claims.holders
    )


def released(lease: Lease) -> Lease | None:
    """Decide on an Unmount: what is left of `lease`, None when it is over.

    The engine's word ends its waiting. A holder that was shown ends it by its own end.
    """
    if lease.mounts > 1 or lease.holder is not None:
        return replace(lease, mounts=max(0, lease.mounts - 1))
    return None


def in_use(volume: Volume, claims: Claims) -> str:
    """Say that a volume that is not free is in use, by whom, and since when."""
    return f"volume {volume.name!r} is in use: {_who_has_it(claims)}"


def _who_has_it(claims: Claims) -> str:
    if claims.holders:
        holder = claims.holders[0]
        return f"{holder} has had it since {timestamp(holder.since)}"
    lease = claims.living[0]
    who = f"mount {lease.mount_id[:12]} has had it since {timestamp(lease.since.utc)}"
    if claims.sight is None:
        return f"{who}, and mdvp cannot see whether its container lives (its log says why)"
    left = math.ceil(max(0.0, claims.left[lease.mount_id]))
    if lease.engine in claims.sight.gone:
        return (
            f"{who}, and the engine that asked for it is gone; if no container starts with it, "
            f"the volume is free again in {left} s"
        )
    return (
        f"{who}, for a container that is starting, or a copy; if neither comes, the volume is "
        f"free again in {left} s"
    )
