"""What was measured: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.samples import median


@dataclass(frozen=True, slots=True)
class Cell:
    """What a row of samples is of."""

    level: str  # through the engine, or on the bare socket
    operation: str
    subject: str
    volumes: int  # that the subject has besides those of the measurement
    containers: int = 0  # that run besides


@dataclass(slots=True)
class Results:
    """All that one run measured. Times are in seconds, sizes in bytes."""

    machine: str = ""
    samples: dict[Cell, list[float]] = field(default_factory=dict)
    resident: dict[tuple[str, int], int] = field(default_factory=dict)  # by subject and volumes
    enable: dict[int, list[float]] = field(default_factory=dict)  # by volumes
    rootfs: int = 0
    files: int = 0  # in the volume that is removed
    remove: dict[str, float] = field(default_factory=dict)  # of that volume, by subject

    def add(self, cell: Cell, seconds: float) -> None:
        """Take down one sample."""
        self.samples.setdefault(cell, []).append(seconds)

    def median(self, cell: Cell) -> float:
        """Return the median of a cell in seconds."""
        return median(self.samples[cell])
