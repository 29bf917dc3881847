"""Mounts for a test, which end with it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
TMPFS = ("-t", "tmpfs", "tmpfs")


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """Have something mounted at the path that comes last, for the time of the block."""
    subprocess.run(("mount", *arguments), check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", arguments[-1]), check=False, capture_output=True)
