"""The figures of all volumes at one moment: what of them is shown to whoever watches mdvp."""

from collections import Counter
from dataclasses import dataclass, field

from mdvp.core.lease import Claims
from mdvp.core.volume import Access, Volume


@dataclass(slots=True)
class Figures:
    """How many volumes there are, and how many of them are as somebody may want to know.

    Each volume is counted as it was at one instant, so what is counted of some volumes is never
    more than there are.

    Attributes:
        volumes: how many there are, by access.
        in_use: those that somebody has.
        waiting: leases that count, and whose container has not been seen yet.
        held: leases that count, of a container that was seen.
        warned: volumes of which `docker volume inspect` shows warnings.
        doubled: exclusive volumes that several containers have.
        reclaimed: leases that were ended since mdvp started because nobody lived any more.
        mounts_waiting: Mounts that wait for their turn.
        removed: directories of volumes that were removed, and are not deleted yet.
        restorable: removed volumes that can be restored.
        host_visible: whether the kernel shows who has a volume.

    """

    volumes: Counter[Access] = field(default_factory=Counter)
    in_use: int = 0
    waiting: int = 0
    held: int = 0
    warned: int = 0
    doubled: int = 0
    reclaimed: int = 0
    mounts_waiting: int = 0
    removed: int = 0
    restorable: int = 0
    host_visible: bool = False

    def count(self, volume: Volume, claims: Claims | None, *, doubled: bool, warned: bool) -> None:
        """Count one volume; `claims` is who has it, None for nobody."""
        self.volumes[volume.access] += 1
        self.warned += warned
        self.doubled += doubled
        if claims is not None:
            self.in_use += not claims.free
            held = sum(lease.holder is not None for lease in claims.living)
            self.held += held
            self.waiting += len(claims.living) - held
