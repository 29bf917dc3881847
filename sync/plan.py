"""The core: from changes to what must be done. Plain values in and out, no I/O, no clock.

The rule that makes it right: an event says where to look, not what is there. A changed name is
examined, that is, the file is read when the command is made, and the state of the disk at that
moment decides between SET and DEL. So a plan may be late but never wrong, and events of one name
coalesce.

Renames are the exception, since a RENAME moves a value that nobody reads again. They come first and
in their order, and only where Redis holds the value of the very file that was renamed: `settle`
compares what Redis would hold after them with what is on disk, and every name that differs is
examined after all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sync.changes import Change, Changed, Rename, Renamed, Signature, Unfinished


class Pending:
    """Changes that wait for their turn.

    A file is mirrored when its writer closes it. For one that stays open (a log, say) or that is
    never closed (a hard link) the wait ends `patience` seconds after the first such change.
    """

    def __init__(self, patience: float) -> None:
        """Hold unfinished files back for `patience` seconds."""
        self._patience = patience
        self._ready: list[Change] = []
        self._unfinished: dict[bytes, None] = {}  # a set that keeps the order
        self.due: float | None = None  # when the unfinished ones are to be taken

    def add(self, changes: Iterable[Change], now: float) -> None:
        """Add changes in their order; `now` is in seconds on the caller's clock."""
        for change in changes:
            if isinstance(change, Unfinished):
                self._unfinished[change.name] = None
                continue
            if isinstance(change, Renamed):
                if change.old in self._unfinished:
                    # Redis does not have its content yet, so there is nothing to rename.
                    self._ready.append(Changed(change.old))
                self._unfinished.pop(change.old, None)
                self._unfinished.pop(change.new, None)
            else:
                self._unfinished.pop(change.name, None)
            self._ready.append(change)
        if not self._unfinished:
            self.due = None
        elif self.due is None:
            self.due = now + self._patience

    def take(self, now: float) -> list[Change]:
        """Return what is to be done by `now`, in order, and forget it."""
        taken, self._ready = self._ready, []
        if self.due is not None and self.due <= now:
            taken.extend(map(Changed, self._unfinished))
            self._unfinished.clear()
            self.due = None
        return taken


@dataclass(frozen=True, slots=True)
class Plan:
    """Keys to rename, in this order, and then names to examine."""

    renames: tuple[Renamed, ...]
    examine: tuple[bytes, ...]


def plan(changes: Iterable[Change]) -> Plan:
    """Coalesce changes, given in the order in which they happened."""
    renames: list[Renamed] = []
    examine: dict[bytes, None] = {}
    for change in changes:
        if not isinstance(change, Renamed):
            examine[change.name] = None
        elif change.old in examine:
            # What is pending moves with the file. Redis' value is outdated: nothing to rename.
            examine[change.new] = None
        else:
            renames.append(change)
            examine.pop(change.new, None)
    return Plan(tuple(renames), tuple(examine))


@dataclass(frozen=True, slots=True)
class Settled:
    """The renames that Redis can do, in this order, and then all names to examine."""

    renames: tuple[Rename, ...]
    examine: tuple[bytes, ...]


def settle(
    planned: Plan,
    held: Mapping[bytes, Signature | None],
    on_disk: Mapping[bytes, Signature | None],
) -> Settled:
    """Check a plan's renames against what is so.

    For each name in the renames, `held` has the signature of the file whose content Redis holds
    under it, and `on_disk` that of the regular file of that name now; None where there is none.
    """
    after = dict(held)
    renames: list[Rename] = []
    missed: dict[bytes, None] = {}  # new names that Redis does not have the file's content under
    for renamed in planned.renames:
        signature = after[renamed.old]
        if signature is None or renamed.old in missed:
            missed[renamed.new] = None
        else:
            renames.append(Rename(renamed.old, renamed.new, signature))
            after[renamed.old], after[renamed.new] = None, signature
            missed.pop(renamed.new, None)
    differing = (name for name in after if after[name] != on_disk[name])
    return Settled(tuple(renames), tuple(dict.fromkeys([*planned.examine, *missed, *differing])))


def names(renames: Iterable[Renamed]) -> list[bytes]:
    """Return each name in the renames once."""
    return list(dict.fromkeys(name for each in renames for name in (each.old, each.new)))
