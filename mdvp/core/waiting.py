"""Who waits for what, and whose turn it is: first come, first served.

Plain values: a moment is a number of seconds on a clock that nobody can set, and is passed in.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits.

    Attributes:
        who: what tells them from others: a mount ID.
        since: when they came.
        until: when they give up.

    """

    who: str
    since: float
    until: float


W = TypeVar("W", bound=Waiter)


class Queue(Generic[W]):
    """All who wait, by the name of what they wait for."""

    def __init__(self, most: int) -> None:
        """Let at most so many wait, for all names together."""
        self._most = most
        self._lines: dict[str, list[W]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._lines.values()))

    @property
    def is_full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self) >= self._most

    def join(self, name: str, waiter: W) -> None:
        """Have somebody wait, behind all who wait for the same."""
        self._lines.setdefault(name, []).append(waiter)

    def leave(self, name: str, waiter: W) -> None:
        """Have somebody wait no more, if they do."""
        line = self._lines.get(name, [])
        if waiter in line:
            line.remove(waiter)
        if not line:
            self._lines.pop(name, None)

    def names(self) -> list[str]:
        """Return what is waited for."""
        return list(self._lines)

    def line(self, name: str) -> list[W]:
        """Return who waits for it, in the order in which they came."""
        return list(self._lines.get(name, ()))

    def ahead(self, name: str, waiter: W) -> int:
        """Return how many are before somebody who waits."""
        return self._lines[name].index(waiter)

    def over(self, name: str, now: float) -> list[W]:
        """Return those who give up."""
        return [waiter for waiter in self.line(name) if waiter.until <= now]
