"""What was measured: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

# What mdvp does, by the calls of the engine and of `mdvp ls`.
REMOVE, RESTORE = "`docker volume rm`, to the trash", "restore"
CLONE = "clone"
STATUS, LIST = "`docker volume inspect`", "`mdvp ls`"
STATUS_MEANWHILE, LIST_MEANWHILE = f"{STATUS} while it is copied", f"{LIST} while it is copied"
COMMAND = f"{LIST} with the start of the command"
# What else there is for the same.
CP, DOCKER_CP, RM, DU = "`cp -a`", "`docker run` with `cp -a`", "`rm -rf`", "`du -s`"


@dataclass(frozen=True, slots=True)
class Cell:
    """What a row of samples is of."""

    operation: str
    file_system: str


@dataclass(slots=True)
class Results:
    """All that one run measured. Times are in seconds, sizes in bytes.

    Attributes:
        files: in the volume that all is done with, each with `size` bytes.
        means: by file system: how a clone got its content.

    """

    machine: str = ""
    files: int = 0
    size: int = 0
    samples: dict[Cell, list[float]] = field(default_factory=dict)
    means: dict[str, str] = field(default_factory=dict)

    def add(self, operation: str, file_system: str, seconds: float) -> None:
        """Take down one sample."""
        self.samples.setdefault(Cell(operation, file_system), []).append(seconds)

    def of(self, operation: str) -> dict[str, list[float]]:
        """Return the samples of an operation by file system."""
        return {
            cell.file_system: samples
            for cell, samples in self.samples.items()
            if cell.operation == operation
        }
