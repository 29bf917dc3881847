"""Who takes part with trees: each mirrors what is below a directory, seen from outside.

Those that are not installed are left out. All but lsyncd mirror to the Redis server that each
contender has; lsyncd mirrors to a directory, and its server does nothing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.mirror.contenders import SYNC, WATCHDOG, Contender, Kind
from benchmarks.mirror.results import Comparison
from benchmarks.mirror.server import until
from benchmarks.trees.replica import Replica

_HERE = Path(__file__).parent
_PROBE = "ready/ready"
_PATIENCE = 20.0  # seconds; far more than any needs until it sees its first file


TREE = Kind(SYNC.name, lambda root, socket: ("env", "SYNC_TREE=1", *SYNC.command(root, socket)))
RECURSIVE_WATCHDOG = Kind(
    "watchdog script", lambda root, socket: (*WATCHDOG.command(root, socket), "--recursive")
)
RECURSIVE_INOTIFYWAIT = Kind(
    "inotifywait script", lambda root, socket: _script("inotifywait", root, socket)
)
WATCHMAN = Kind("watchman script", lambda root, socket: _script("watchman", root, socket))
LSYNCD = Kind(
    "lsyncd, to a directory",
    # By itself it waits for 15 s before it copies anything; it counts in whole seconds.
    lambda root, socket: (
        *("lsyncd", "-nodaemon", "-delay", "1"),
        *("-rsync", str(root), str(_copy(socket))),
    ),
)
PEERS = (RECURSIVE_WATCHDOG, RECURSIVE_INOTIFYWAIT, WATCHMAN, LSYNCD)
_PROGRAMS = {WATCHMAN: "watchman", LSYNCD: "lsyncd"}  # those that Debian may not have


class Mirrored(Protocol):
    """What a contender mirrors to: its Redis server, or a directory."""

    def value(self, key: str) -> bytes | None:
        """Return what it has for a file; None if it has none."""

    def changes(self) -> int:
        """Return a number that differs when it has changed."""

    def holds(self, files: int, each: int) -> float | None:
        """Return when it was seen to hold all files of `load.tree`; None if it does not."""

    def compared(self, root: Path) -> Comparison:
        """Compare it with the files below `root`."""


def is_there(kind: Kind) -> bool:
    """Say whether the program of a contender is installed."""
    return kind not in _PROGRAMS or shutil.which(_PROGRAMS[kind]) is not None


def mirrored(contender: Contender) -> Mirrored:
    """Return what a contender mirrors to."""
    if contender.kind == LSYNCD:
        return Replica(_copy(contender.server.socket))
    return contender.server


def get_ready(contender: Contender) -> None:
    """Wait until it follows what happens below the root: until a file comes, and goes."""
    probe, copy = contender.root / _PROBE, mirrored(contender)
    probe.parent.mkdir()

    def came() -> bool:
        contender.says("")
        probe.write_bytes(b"yes")  # again: it may not have been watching yet
        return copy.value(_PROBE) == b"yes"

    until(came, _PATIENCE, 0.05, f"a file in a directory, mirrored by {contender.kind.name},")
    probe.unlink()
    until(lambda: copy.value(_PROBE) is None)


def _script(name: str, root: Path, socket: Path) -> Sequence[str]:
    return sys.executable, str(_HERE / f"{name}_script.py"), str(root), str(socket)


def _copy(socket: Path) -> Path:
    return socket.with_name("copy")
