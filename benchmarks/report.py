"""Results in words: what was aimed at, Markdown for the docs, JSON to compare one run with another.

What the benchmarks share of it; each has a report of its own results.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

MB = 1_000_000
_THREE_DIGITS = 100
_HEADROOM = 1.1  # above the highest bar of a chart


@dataclass(frozen=True, slots=True)
class Aim:
    """What was aimed at, what came of it, and by how much it was missed (empty: it was met)."""

    text: str
    measured: str
    missed: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of a benchmark has to say."""

    aims: Sequence[Aim]
    markdown: str
    document: Mapping[str, object]  # as JSON: times in seconds, sizes in bytes
    wrong: Sequence[str] = ()  # what our own program did wrong while it was measured


def at_most(text: str, measured: float, limit: float, unit: str, basis: str = "") -> Aim:
    """Compare a figure with the limit that it is to stay below; `basis` says where it is from."""
    missed = f"by {rounded(measured - limit)} {unit}" if measured >= limit else ""
    shown = f"{rounded(measured)} {unit}"
    return Aim(text, f"{shown} ({basis})" if basis else shown, missed)


def ratio(text: str, measured: float, basis: float, limit: float, unit: str) -> Aim:
    """Compare a figure with another one, of which it is to be less than `limit` times."""
    of = f"{rounded(measured)} : {rounded(basis)} {unit}"
    # On a busy machine a contender can have a file before its writer gets to close it.
    return at_most(text, measured / basis if basis else inf, limit, "times", of)


def aims_table(aims: Iterable[Aim]) -> str:
    """Return the aims as a table."""
    return table(
        ("aim", "measured", "missed"),
        ((aim.text, aim.measured, aim.missed or "no") for aim in aims),
    )


def rounded(number: float) -> str:
    """Return a number with three digits, and no exponent where more are before the point."""
    return f"{number:,.0f}" if abs(number) >= _THREE_DIGITS else f"{number:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""

    def lines() -> Iterator[Sequence[str]]:
        yield head
        yield ["---"] * len(head)
        yield from rows

    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines())


def bar_chart(title: str, unit: str, bars: Mapping[str, float]) -> str:
    """Return a chart in Mermaid's language, which GitHub draws; its axis begins at 0."""
    # Its numbers have no exponents.
    names = ", ".join(f'"{name}"' for name in bars)
    heights = ", ".join(f"{height:.3f}" for height in bars.values())
    return "\n".join(
        (
            "```mermaid",
            "xychart-beta",
            f'    title "{title}"',
            f"    x-axis [{names}]",
            f'    y-axis "{unit}" 0 --> {max(bars.values()) * _HEADROOM:.3f}',
            f"    bar [{heights}]",
            "```",
        )
    )


def into_page(page: str, benchmark: str, text: str) -> str:
    """Return the page with `text` between the marks of a benchmark, in place of what was there."""
    begin, end = marks(benchmark)
    before, found, rest = page.partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise ValueError("the page has no place for the results: its two marked lines are missing")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def marks(benchmark: str) -> tuple[str, str]:
    """Return the lines of a page between which the results of a benchmark are."""
    return (
        f"<!-- {benchmark}: begin. What is from here to its end is written by scripts/bench.sh -->",
        f"<!-- {benchmark}: end -->",
    )


def save(report: Report, path: Path) -> None:
    """Write what was measured as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.document, indent=1) + "\n")
