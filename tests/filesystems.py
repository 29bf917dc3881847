"""File systems of their own for tests, each in a file on a loop device."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 1 << 30  # bytes, of which what is not written takes no room


@contextmanager
def file_system(kind: str, place: Path, size: int = SIZE) -> Iterator[Path]:
    """Make a file system of a kind (btrfs, xfs, ext4) below `place`; yield where it is mounted."""
    image, point = place / f"{kind}.img", place / kind
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)
        image.unlink()
