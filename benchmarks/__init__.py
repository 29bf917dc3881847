"""Benchmarks, each beside what else there is for the same, measured in one run.

volumes  mdvp beside the engine's own driver and rclone's
life     a volume with a million files: into the trash and back, copied, shown
mirror   mdvp-sync beside an inotifywait loop, a watchdog script, and what is possible at all
trees    mdvp-sync with whole trees beside an inotifywait script, watchdog, watchman and lsyncd

`scripts/bench.sh volumes|mirror|trees` runs one and writes its tables into docs/benchmarks.md.
"""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


class BenchmarkError(RuntimeError):
    """There is no measuring under these conditions; the message says which."""
