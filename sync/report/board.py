"""What the service has done since it started, and the status that says so."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from sync.core.changes import shown
from sync.redis.target import Target
from sync.report.status import SKIPPED_MAX, Status, StatusFile


@dataclass
class Board:
    """The figures, from one session to the next.

    Attributes:
        where: the server, in words.
        lag: seconds from the arrival of the oldest change of the last batch to its being in Redis.
        arriving: how many large files are on their way, or wait.
        directories: how many directories there are, with the root.
        unwatched: of how many of them nothing is heard, for want of watches.

    """

    file: StatusFile
    target: Target
    where: str
    skipped: Mapping[bytes, str]
    reconciles: Counter[str] = field(default_factory=Counter)
    lag: float | None = None
    arriving: int = 0
    directories: int = 1
    unwatched: int = 0

    def write(self, state: str, detail: str = "") -> None:
        """Write the status: `state`, `detail`, and all the rest."""
        self.file.write(
            Status(
                state=state,
                detail=detail,
                files=self.target.count,
                bytes=max(0, self.target.bytes),
                commands=self.target.commands,
                lag=self.lag,
                arriving=self.arriving,
                directories=self.directories,
                unwatched=self.unwatched,
                reconciles=self.reconciles,
                skipped={
                    shown(name): why for name, why in islice(self.skipped.items(), SKIPPED_MAX)
                },
                skipped_count=len(self.skipped),
            )
        )
