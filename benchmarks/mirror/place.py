"""Where a run takes place: in memory where there is room, with a directory for each use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.report import MB

FILE_NEEDS = 6 << 10  # bytes of memory: a page, an inode and a name, and the same in Redis


@contextmanager
def place(room: int) -> Iterator[Path]:
    """Make a directory with so many bytes of room, in memory if there is any; remove it."""
    for parent in (Path("/dev/shm"), Path(tempfile.gettempdir())):  # noqa: S108
        if parent.is_dir() and shutil.disk_usage(parent).free > room:
            made = Path(tempfile.mkdtemp(prefix="mirror-", dir=parent))
            try:
                yield made
            finally:
                shutil.rmtree(made)
            return
    raise BenchmarkError(
        f"there is no room for the files: make {room / MB:,.0f} MB free in /dev/shm, or set TMPDIR "
        "to a directory that has as much"
    )


@contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """Make a directory that is in another, for what else is needed; remove both."""
    outer = Path(tempfile.mkdtemp(dir=parent))
    (outer / "root").mkdir()
    try:
        yield outer / "root"
    finally:
        shutil.rmtree(outer)
