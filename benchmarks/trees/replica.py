"""A directory that is to become the copy of another, and what can be asked of it from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.mirror.load import branch, name, value
from benchmarks.mirror.results import Comparison
from benchmarks.mirror.server import files_in


class Replica:
    """A copy in a directory, which is made here."""

    def __init__(self, path: Path) -> None:
        """Ask the directory at `path`."""
        path.mkdir(exist_ok=True)
        self._path = path

    def value(self, key: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        try:
            return (self._path / key).read_bytes()
        except FileNotFoundError:
            return None

    def changes(self) -> int:
        """Return how many files and directories its file system has: each one that comes counts."""
        found = os.statvfs(self._path)
        return found.f_files - found.f_ffree

    def holds(self, files: int, each: int) -> float | None:
        """Return when it was seen to hold all files that `load.tree` writes; None if it does not.

        From the last on: it ends at once while there are files to come.
        """
        for number in reversed(range(files)):
            if self.value(f"{branch(number // each)}/{name(number)}") != value(number):
                return None
        return time.time()

    def compared(self, root: Path) -> Comparison:
        """Compare all its files with those below `root`."""
        names, copied = set(files_in(root)), set(files_in(self._path))
        right = sum(self._is_same(root, name) for name in names & copied)
        return Comparison(len(names), right, len(names & copied) - right, len(copied - names))

    def _is_same(self, root: Path, name: bytes) -> bool:
        path = os.fsdecode(name)
        return (root / path).read_bytes() == (self._path / path).read_bytes()
