"""The packages, made once for the whole run."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Packages:
    """What a package index would be given."""

    wheel: Path
    sdist: Path
    said: str


def packages_in(directory: Path) -> Packages:
    """Make the packages in a directory; fails when an index would not take them."""
    made = subprocess.run(
        (REPOSITORY / "scripts/packages.sh", directory),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    return Packages(wheel, sdist, made.stdout)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Return the packages of the sources as they are."""
    return packages_in(tmp_path_factory.mktemp("dist"))
