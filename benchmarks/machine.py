"""What was measured on, in general terms: enough to tell one run's conditions from another's."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from e2e.engine import PrivateEngine

from benchmarks.subjects import REPOSITORY


def describe(engine: PrivateEngine) -> str:
    """Return one line about the machine, the engine and the programs."""
    version = engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    (library,) = (REPOSITORY / "plugin/rootfs/usr/lib").glob("python3.*")
    rclone = subprocess.run(
        ["rclone", "version"],  # noqa: S607  # on the PATH, as the run uses it
        capture_output=True,
        text=True,
        check=True,
    )
    parts = [
        f"{os.cpu_count()} cores",
        f"{_memory() / 2**30:.0f} GB of memory",
        f"Linux {'.'.join(platform.release().split('.')[:2])}",
        f"Docker Engine {version}",
        f"Python {library.name.removeprefix('python')} in the plugin and "
        f"{platform.python_version()} beside it",
        rclone.stdout.split()[1].join(("rclone ", "")),
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]
    return ", ".join(parts)


def _memory() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemTotal:")[2].split()[0]) << 10
