"""Results in words: Markdown for the docs, JSON to compare one run with another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.access import ENGINE, SOCKET
from benchmarks.results import Cell, Results, percentile
from benchmarks.subjects import LOCAL, PLUGIN, PROCESS, RCLONE

BEGIN = "<!-- benchmarks: begin. What is between these two lines is written by scripts/bench.sh -->"
END = "<!-- benchmarks: end -->"
_COLUMNS = {ENGINE: (LOCAL, PLUGIN, RCLONE), SOCKET: (PLUGIN, PROCESS, RCLONE)}
_MB = 1_000_000
_THREE_DIGITS = 100


@dataclass(frozen=True, slots=True)
class Aim:
    """What was aimed at, what came of it, and by how much it was missed (empty: it was met)."""

    text: str
    measured: str
    missed: str


def aims(results: Results) -> list[Aim]:
    """Compare the results with what the plugin aims at."""
    least, most = min(_sizes(results)), max(_sizes(results))
    resident = results.resident[PLUGIN, most] / _MB
    enable = percentile(results.enable[most], 50)
    rootfs = results.rootfs / _MB
    found = [_aim_against_rclone(results, level) for level in (ENGINE, SOCKET)]
    for level in (ENGINE, SOCKET):
        few, many = (results.median(Cell(level, "create", PLUGIN, size)) for size in (least, most))
        text = f"create with {most:,} volumes in at most 1.2 times as with {least:,}, {level}"
        found.append(_at_most(text, many / few, 1.2, "times"))
    for level in (ENGINE, SOCKET):
        listing = results.median(Cell(level, "list", PLUGIN, most)) * 1e3
        found.append(_at_most(f"list of {most:,} under 100 ms, {level}", listing, 100, "ms"))
    return [
        *found,
        _at_most(f"under 40 MB resident with {most:,} volumes", resident, 40, "MB"),
        _at_most(f"enable to first answer under 1 s with {most:,} volumes", enable, 1, "s"),
        _at_most("rootfs under 80 MB", rootfs, 80, "MB"),
        _at_most(
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


def _at_most(text: str, measured: float, limit: float, unit: str) -> Aim:
    missed = f"by {_rounded(measured - limit)} {unit}" if measured >= limit else ""
    return Aim(text, f"{_rounded(measured)} {unit}", missed)


def markdown(results: Results) -> str:
    """Return all results as Markdown, without the two lines that it goes between."""
    parts = [
        f"Measured on {results.machine}.",
        "### Aims",
        _table(
            ("aim", "measured", "missed"),
            ((aim.text, aim.measured, aim.missed or "no") for aim in aims(results)),
        ),
    ]
    for level in (ENGINE, SOCKET):
        parts += [
            f"### Time of an operation {level}",
            "p50 / p99 in ms; mdvp : rclone is the ratio of the p50.",
            _operations(results, level),
        ]
    parts += [
        "### Memory and start",
        _table(
            (
                "volumes",
                *(f"{name}, MB resident" for name in (PLUGIN, PROCESS, RCLONE)),
                "enable to first answer, s",
            ),
            (
                (
                    f"{size:,}",
                    *(
                        f"{results.resident[name, size] / _MB:.1f}"
                        for name in (PLUGIN, PROCESS, RCLONE)
                    ),
                    f"{percentile(results.enable[size], 50):.2f}",
                )
                for size in _sizes(results)
            ),
        ),
        f"The plugin's rootfs has {results.rootfs / _MB:.1f} MB.",
        f"### `docker volume rm` of a volume with {results.files:,} files",
        _table(
            ("driver", "returns after"),
            ((name, f"{_rounded(seconds * 1e3)} ms") for name, seconds in results.remove.items()),
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
    return _table(("operation", "with", *columns, "mdvp : rclone"), rows)


def _state(cell: Cell) -> str:
    besides = f", {cell.containers} containers" if cell.containers else ""
    return f"{cell.volumes:,} volumes{besides}"


def _times(results: Results, cell: Cell) -> str:
    samples = results.samples[cell]
    return " / ".join(_rounded(percentile(samples, percent) * 1e3) for percent in (50, 99))


def _to_rclone(results: Results, cell: Cell) -> float | None:
    theirs = Cell(cell.level, cell.operation, RCLONE, cell.volumes, cell.containers)
    if theirs not in results.samples:
        return None
    return results.median(cell) / results.median(theirs)


def _sizes(results: Results) -> list[int]:
    return sorted(results.enable)


def _rounded(number: float) -> str:
    # Three digits, and no exponent for what has more of them before the point.
    return f"{number:,.0f}" if abs(number) >= _THREE_DIGITS else f"{number:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[Sequence[str]]:
        yield head
        yield ["---"] * len(head)
        yield from rows

    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines())


def into_page(page: str, text: str) -> str:
    """Return the page with `text` between its two marked lines, in place of what was there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has no place for the results: its two marked lines are missing")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def save(results: Results, path: Path) -> None:
    """Write percentiles and sizes as JSON: times in seconds, sizes in bytes."""
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
    document = {
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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
