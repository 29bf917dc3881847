"""What the service has done since it started, and the status that says so."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from sync.core.causes import ReconcileCause
from sync.core.changes import shown
from sync.core.decision import Mode
from sync.redis.target import Target
from sync.report.status import NAMED_MAX, Status, StatusFile
from sync.report.tally import Tally


@dataclass
class Board:
    """The figures, from one session to the next.

    Attributes:
        state: what it does, as it was written last, and `since` when (s since the epoch).
        where: the server; `str` says where it is by now.
        root: the directory, as it was named.
        started: when the service began (s since the epoch).
        tally: what was done.
        pending: how many names wait to be looked at.
        lag: seconds from the arrival of the oldest change of the last batch to its being in Redis.
        arriving: how many large files are on their way, or wait.
        directories: how many directories there are, with the root.
        unwatched: of how many of them nothing is heard, for want of watches.
        mode: which side follows which, as in SYNC_MODE.
        heard_by: by what Redis' changes are heard of, as in `Status`; "" if they are not.
        undone: how many changes that others made to keys of files were undone.
        conflicts: the names in conflict, each with words that complete a sentence about it.

    """

    file: StatusFile
    target: Target
    where: object
    skipped: Mapping[bytes, str]
    root: str = ""
    started: float = field(default_factory=time.time)
    tally: Tally = field(default_factory=Tally)
    pending: int = 0
    reconciles: Counter[ReconcileCause] = field(default_factory=Counter)
    lag: float | None = None
    arriving: int = 0
    directories: int = 1
    unwatched: int = 0
    mode: str = Mode.ONE_WAY_REPLICA.value
    heard_by: str = ""
    undone: int = 0
    conflicts: Mapping[bytes, str] = field(default_factory=dict)
    state: str = ""
    since: float = 0.0

    def followed(self, lag: float) -> None:
        """Take note that changes are in Redis, `lag` seconds after the oldest of them came."""
        self.lag = lag
        self.tally.lag(lag)

    def write(self, state: str, detail: str = "") -> None:
        """Write the status: `state`, `detail`, and all the rest."""
        if state != self.state:
            self.state, self.since = state, time.time()
        self.file.write(
            Status(
                state=state,
                since=self.since,
                detail=detail,
                mode=self.mode,
                root=self.root,
                server=str(self.where),
                started=self.started,
                heard_by=self.heard_by,
                files=self.target.count,
                bytes=max(0, self.target.bytes),
                commands=self.target.commands,
                pending=self.pending,
                operations=dict(self.tally.operations),
                moved=self.tally.moved,
                recent=self.tally.recent(),
                lags=tuple(self.tally.lags),
                lag_sum=self.tally.lag_sum,
                lag=self.lag,
                arriving=self.arriving,
                directories=self.directories,
                unwatched=self.unwatched,
                reconciles={cause.value: number for cause, number in self.reconciles.items()},
                undone=self.undone,
                conflicts=_first(self.conflicts),
                conflicts_count=len(self.conflicts),
                skipped=_first(self.skipped),
                skipped_count=len(self.skipped),
            )
        )


def _first(names: Mapping[bytes, str]) -> dict[str, str]:
    return {shown(name): words for name, words in islice(names.items(), NAMED_MAX)}
