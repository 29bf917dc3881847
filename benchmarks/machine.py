"""What was measured on, in general terms: enough to tell one run's conditions from another's."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def describe(*programs: str) -> str:
    """Return one line about the machine and the programs on it."""
    parts = [
        f"{os.cpu_count()} cores",
        f"{_memory() / 2**30:.0f} GB of memory",
        f"Linux {'.'.join(platform.release().split('.')[:2])}",
        *programs,
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]
    return ", ".join(parts)


def output(*command: str, check: bool = True) -> str:
    """Return what a program on the PATH prints; raise CalledProcessError if it must not fail."""
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout


def _memory() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemTotal:")[2].split()[0]) << 10
