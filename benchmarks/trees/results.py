"""What was measured: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmarks.mirror.results import Burst, Compared


@dataclass(frozen=True, slots=True)
class Tree:
    """How many files there are, and how many of them in each branch."""

    files: int
    each: int

    @property
    def directories(self) -> int:
        """How many directories have files; those above them have none."""
        return -(-self.files // self.each)

    def scaled(self, share: float) -> Tree:
        """Return a tree with a share of the files, as many of them in each branch."""
        return replace(self, files=max(int(self.files * share), self.each))

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.files:,} files in {self.directories:,} directories"


@dataclass(slots=True)
class Walks:
    """How long it took to look at a tree that was there, by who did so."""

    tree: Tree
    walked: list[float] = field(default_factory=list)  # the loop that finds and reads the files
    first: list[float] = field(default_factory=list)  # mdvp-sync, Redis empty
    restart: list[float] = field(default_factory=list)  # mdvp-sync, nothing changed


@dataclass(slots=True)
class Renames:
    """What came of a directory that was renamed, with so many files of so many bytes in it."""

    files: int
    size: int
    seconds: list[float] = field(default_factory=list)  # from rename(2) to the last file's new key
    received: list[int] = field(default_factory=list)  # bytes that the server got for it


@dataclass(frozen=True, slots=True)
class Memory:
    """What mdvp-sync takes with a tree, at rest after its first reconcile."""

    tree: Tree
    resident: int
    peak: int  # the most that it took until then


@dataclass(slots=True)
class Results:
    """All that one run measured; a part that was not to be measured is None, or empty.

    Times are in seconds, sizes in bytes.
    """

    machine: str = ""
    left_out: list[str] = field(default_factory=list)  # contenders that are not installed
    walks: Walks | None = None
    burst: Tree | None = None
    writer: list[float] = field(default_factory=list)  # alone, for a burst
    bursts: dict[str, list[Burst]] = field(default_factory=dict)  # by contender's name
    visible: dict[str, list[float]] = field(default_factory=dict)  # by where the file is
    renames: Renames | None = None
    memory: Memory | None = None
    compared: list[Compared] = field(default_factory=list)
