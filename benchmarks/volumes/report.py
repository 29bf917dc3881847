"""The volumes' results in words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from benchmarks.report import MB, Aim, Report, aims_table, at_most, rounded, table
from benchmarks.samples import percentile
from benchmarks.volumes.access import ENGINE, SOCKET
from benchmarks.volumes.results import Cell, Results
from benchmarks.volumes.subjects import LOCAL, PLUGIN, PROCESS, RCLONE

_COLUMNS = {ENGINE: (LOCAL, PLUGIN, RCLONE), SOCKET: (PLUGIN, PROCESS, RCLONE)}


def report(results: Results) -> Report:
    """Return all that there is to say about one run."""
    return Report(aims(results), markdown(results), document(results))


def aims(results: Results) -> list[Aim]:
    """Compare the results with what the plugin aims at."""
    least, most = min(_sizes(results)), max(_sizes(results))
    resident = results.resident[PLUGIN, most] / MB
    enable = percentile(results.enable[most], 50)
    rootfs = results.rootfs / MB
    found = [_aim_against_rclone(results, level) for level in (ENGINE, SOCKET)]
    for level in (ENGINE, SOCKET):
        few, many = (results.median(Cell(level, "create", PLUGIN, size)) for size in (least, most))
        text = f"create with {most:,} volumes in at most 1.2 times as with {least:,}, {level}"
        found.append(at_most(text, many / few, 1.2, "times"))
    for level in (ENGINE, SOCKET):
        listing = results.median(Cell(level, "list", PLUGIN, most)) * 1e3
        found.append(at_most(f"list of {most:,} under 100 ms, {level}", listing, 100, "ms"))
    return [
        *found,
        at_most(f"under 40 MB resident with {most:,} volumes", resident, 40, "MB"),
        at_most(f"enable to first answer under 1 s with {most:,} volumes", enable, 1, "s"),
        at_most("rootfs under 80 MB", rootfs, 80, "MB"),
        at_most(
            f"`docker volume rm` of {results.files:,} files under 100 ms",
            results.remove[PLUGIN] * 1e3,
            100,
            "ms",
        ),
    ]


def _aim_against_rclone(results: Results, level: str) -> Aim:
    ratios = {
        cell: ratio
        for cell in results.samples
        if (cell.level, cell.subject) == (level, PLUGIN)
        and (ratio := _to_rclone(results, cell)) is not None
    }
    slower = {cell: ratio for cell, ratio in ratios.items() if ratio > 1}
    missed = ""
    if slower:
        worst = max(slower, key=lambda cell: slower[cell])
        missed = f"most by {worst.operation}, {_state(worst)}: {slower[worst]:.2f} times rclone's"
    return Aim(
        f"no operation slower than rclone's, {level}",
        f"{len(ratios) - len(slower)} of {len(ratios)} are not",
        missed,
    )


def markdown(results: Results) -> str:
    """Return all results as Markdown, without the two lines that it goes between."""
    parts = [
        f"Measured on {results.machine}.",
        "#### Aims",
        aims_table(aims(results)),
    ]
    for level in (ENGINE, SOCKET):
        parts += [
            f"#### Time of an operation {level}",
            "p50 / p99 in ms; mdvp : rclone is the ratio of the p50.",
            _operations(results, level),
        ]
    parts += [
        "#### Memory and start",
        table(
            (
                "volumes",
                *(f"{name}, MB resident" for name in (PLUGIN, PROCESS, RCLONE)),
                "enable to first answer, s",
            ),
            (
                (
                    f"{size:,}",
                    *(
                        f"{results.resident[name, size] / MB:.1f}"
                        for name in (PLUGIN, PROCESS, RCLONE)
                    ),
                    f"{percentile(results.enable[size], 50):.2f}",
                )
                for size in _sizes(results)
            ),
        ),
        f"The plugin's rootfs has {results.rootfs / MB:.1f} MB.",
        f"#### `docker volume rm` of a volume with {results.files:,} files",
        table(
            ("driver", "returns after"),
            ((name, f"{rounded(seconds * 1e3)} ms") for name, seconds in results.remove.items()),
        ),
    ]
    return "\n\n".join(parts)


def _operations(results: Results, level: str) -> str:
    columns = _COLUMNS[level]
    cells = [cell for cell in results.samples if (cell.level, cell.subject) == (level, PLUGIN)]
    # By operation in the order in which they came, then by what else was there.
    order = list(dict.fromkeys(cell.operation for cell in cells))
    cells.sort(key=lambda cell: (order.index(cell.operation), cell.containers, cell.volumes))
    rows = []
    for operation, group in groupby(cells, key=lambda cell: cell.operation):
        for cell in group:
            shown = [
                _times(results, Cell(level, operation, name, cell.volumes, cell.containers))
                for name in columns
            ]
            ratio = _to_rclone(results, cell)
            rows.append((operation, _state(cell), *shown, f"{ratio:.2f}" if ratio else ""))
    return table(("operation", "with", *columns, "mdvp : rclone"), rows)


def _state(cell: Cell) -> str:
    besides = f", {cell.containers} containers" if cell.containers else ""
    return f"{cell.volumes:,} volumes{besides}"


def _times(results: Results, cell: Cell) -> str:
    samples = results.samples[cell]
    return " / ".join(rounded(percentile(samples, percent) * 1e3) for percent in (50, 99))


def _to_rclone(results: Results, cell: Cell) -> float | None:
    theirs = Cell(cell.level, cell.operation, RCLONE, cell.volumes, cell.containers)
    if theirs not in results.samples:
        return None
    return results.median(cell) / results.median(theirs)


def _sizes(results: Results) -> list[int]:
    return sorted(results.enable)


def document(results: Results) -> Mapping[str, object]:
    """Return percentiles and sizes for JSON: times in seconds, sizes in bytes."""
    cells = [
        {
            "level": cell.level,
            "operation": cell.operation,
            "subject": cell.subject,
            "volumes": cell.volumes,
            "containers": cell.containers,
            "samples": len(samples),
            "p50": percentile(samples, 50),
            "p99": percentile(samples, 99),
        }
        for cell, samples in results.samples.items()
    ]
    return {
        "machine": results.machine,
        "operations": cells,
        "resident": [
            {"subject": name, "volumes": size, "bytes": amount}
            for (name, size), amount in results.resident.items()
        ],
        "enable": {str(size): samples for size, samples in results.enable.items()},
        "rootfs": results.rootfs,
        "remove": {"files": results.files, **results.remove},
    }
