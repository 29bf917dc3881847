"""Fixtures that tests of all kinds share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a new directory with a short name: the path of a Unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="mdvp-"))
    yield path
    shutil.rmtree(path)
