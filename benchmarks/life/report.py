"""The results of a volume's life in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.life.results import (
    CLONE,
    COMMAND,
    CP,
    DOCKER_CP,
    DU,
    LIST,
    LIST_MEANWHILE,
    REMOVE,
    RESTORE,
    RM,
    STATUS,
    STATUS_MEANWHILE,
    Results,
)
from benchmarks.report import Aim, Report, aims_table, at_most, rounded, table
from benchmarks.samples import percentile

_COPY = "copy"
_SECOND = 1_000  # ms
# Each with what else there is for the same.
_ROWS = (
    *(REMOVE, RM, RESTORE, CLONE, CP, DOCKER_CP),
    *(STATUS, STATUS_MEANWHILE, LIST, LIST_MEANWHILE, COMMAND, DU),
)


def report(results: Results) -> Report:
    """Return all that there is to say about one run."""
    return Report(aims(results), markdown(results), document(results))


def aims(results: Results) -> list[Aim]:
    """Compare the results with what is aimed at; the slowest file system counts, and its p99."""
    files = f"{results.files:,} files"
    found = [
        _slowest(results, REMOVE, f"{REMOVE}, of {files} under 100 ms", 100),
        _slowest(results, RESTORE, f"restore of {files} under 1 s", _SECOND),
        _slowest(results, STATUS, f"{STATUS} of {files} under 50 ms", 50),
        _slowest(results, LIST, f"{LIST} with {files} under 50 ms", 50),
    ]
    for kind, means in results.means.items():
        if means == _COPY:  # as long as what there is takes to be read and written
            continue
        seconds = max(results.of(CLONE)[kind])
        text = f"clone of {files} on {kind} ({means}) under 1 s"
        found.append(at_most(text, seconds, 1, "s"))
    return found


def _slowest(results: Results, operation: str, text: str, limit: float) -> Aim:
    times = {kind: percentile(samples, 99) * 1e3 for kind, samples in results.of(operation).items()}
    slowest = max(times, key=lambda kind: times[kind])
    return at_most(text, times[slowest], limit, "ms", f"p99 on {slowest}")


def markdown(results: Results) -> str:
    """Return all results as Markdown, without the two lines that it goes between."""
    kinds = list(results.of(REMOVE))
    return "\n\n".join(
        (
            f"Measured on {results.machine}; a volume with {results.files:,} files of "
            f"{results.size:,} bytes.",
            "### Aims",
            aims_table(aims(results)),
            "### Time of an operation",
            "p50 / p99, or the only time there is. A clone is by "
            + ", ".join(f"{means} on {kind}" for kind, means in results.means.items())
            + ".",
            table(("operation", *kinds), _rows(results, kinds)),
        )
    )


def _rows(results: Results, kinds: Sequence[str]) -> Iterator[Sequence[str]]:
    for operation in _ROWS:
        samples = results.of(operation)
        if samples:
            yield operation, *(_times(samples.get(kind, ())) for kind in kinds)


def _times(samples: Sequence[float]) -> str:
    if not samples:
        return "-"
    if len(samples) == 1:
        return _time(samples[0])
    return " / ".join(_time(percentile(samples, percent)) for percent in (50, 99))


def _time(seconds: float) -> str:
    return f"{rounded(seconds)} s" if seconds >= 1 else f"{rounded(seconds * 1e3)} ms"


def document(results: Results) -> Mapping[str, object]:
    """Return percentiles for JSON: times in seconds, sizes in bytes."""
    return {
        "machine": results.machine,
        "files": results.files,
        "size": results.size,
        "means": results.means,
        "operations": [
            {
                "operation": cell.operation.replace("`", ""),
                "file_system": cell.file_system,
                "samples": len(samples),
                "p50": percentile(samples, 50),
                "p99": percentile(samples, 99),
            }
            for cell, samples in results.samples.items()
        ],
    }
