"""What more than one part of a page says of bursts and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.mirror.results import Burst
from benchmarks.report import Aim, rounded, table
from benchmarks.samples import median, percentile


def visible_table(what: str, visible: Mapping[str, Sequence[float]]) -> str:
    """Return how long it took until single files were visible as a table, one line for each."""
    return table(
        (what, "p50, ms", "p99, ms", "most, ms", "samples"),
        (
            (
                name,
                *(rounded(percentile(samples, percent) * 1e3) for percent in (50, 99, 100)),
                f"{len(samples):,}",
            )
            for name, samples in visible.items()
        ),
    )


def burst_table(bursts: Mapping[str, Sequence[Burst]], alone: float, what: str) -> str:
    """Return what came of bursts as a table; `alone` is what `what` takes alone (s)."""

    def row(name: str, bursts: Sequence[Burst]) -> Sequence[str]:
        equal = equal_after(bursts)
        return (
            name,
            f"{median([burst.followed.written for burst in bursts]):.2f}",
            "never" if equal is None else f"{equal:.2f}",
            "-" if equal is None else rounded(equal / alone),
            f"{right(bursts):,.0f}",
            f"{median([burst.followed.quiet for burst in bursts]):.2f}",
            str(len(bursts)),
        )

    return table(
        (
            "program",
            "writer done after, s",
            "equal after, s",
            f"times {what}",
            "files right in the end",
            "at rest after, s",
            "bursts",
        ),
        (row(name, each) for name, each in bursts.items()),
    )


def equal_after(bursts: Sequence[Burst]) -> float | None:
    """Return the median of the times until equal; None when there was a burst that never was."""
    times = [burst.followed.equal for burst in bursts if burst.followed.equal is not None]
    return median(times) if len(times) == len(bursts) else None


def all_there(text: str, bursts: Sequence[Burst]) -> Aim:
    """Compare how often all of a burst was there with always."""
    missing = sum(burst.followed.equal is None for burst in bursts)
    return Aim(
        f"{text}: all there",
        f"{len(bursts) - missing} of {len(bursts)} times",
        f"{missing} times" if missing else "",
    )


def right(bursts: Sequence[Burst]) -> float:
    """Return how many were right in the end, in the median."""
    return median([burst.compared.right for burst in bursts])
