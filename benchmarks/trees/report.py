"""The results of trees in words. A part that was not measured is not in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from benchmarks.mirror.report import (
    compared_document,
    compared_table,
    right_aim,
    spread,
    wrongs,
)
from benchmarks.mirror.results import Burst
from benchmarks.mirror.tables import equal_after, visible_table
from benchmarks.report import MB, Aim, Report, aims_table, at_most, bar_chart, ratio, rounded, table
from benchmarks.samples import median, percentile
from benchmarks.trees.contenders import TREE
from benchmarks.trees.results import Memory, Renames, Results, Tree, Walks
from benchmarks.trees.run import DEEP, FLAT

_WALK = "walking loop"


def report(results: Results) -> Report:
    """Return all that there is to say about one run."""
    return Report(
        aims(results), markdown(results), document(results), list(wrongs(results.compared))
    )


def aims(results: Results) -> list[Aim]:
    """Compare the results with what mdvp-sync aims at."""
    return [
        *(_walk_aims(results.walks) if results.walks else ()),
        *(_burst_aims(results.burst, results) if results.burst else ()),
        *(_visible_aims(results.visible) if results.visible else ()),
        *(_rename_aims(results.renames) if results.renames else ()),
        *(_memory_aims(results.memory) if results.memory else ()),
        right_aim(results.compared),
    ]


def _walk_aims(walks: Walks) -> Iterator[Aim]:
    text = f"first reconcile of {walks.tree} in at most 2 times the {_WALK}'s time"
    yield ratio(text, median(walks.first), median(walks.walked), 2, "s")


def _burst_aims(tree: Tree, results: Results) -> Iterator[Aim]:
    text = f"a burst of {tree}: equal in at most 2.5 times what the writer alone takes"
    bursts = results.bursts.get(TREE.name, ())
    if bursts and (equal := equal_after(bursts)) is not None:
        yield ratio(text, equal, median(results.writer), 2.5, "s")
    else:
        yield Aim(text, "never equal", "it was never equal")


def _visible_aims(visible: Mapping[str, Sequence[float]]) -> Iterator[Aim]:
    for percent in (50, 99):
        flat, deep = (percentile(visible[where], percent) * 1e3 for where in (FLAT, DEEP))
        text = f"one file closed {DEEP} until it is visible, p{percent}, in at most 1.2 times"
        yield ratio(f"{text} what it is flat", deep, flat, 1.2, "ms")


def _rename_aims(renames: Renames) -> Iterator[Aim]:
    text = f"rename of a directory of {renames.files:,} files"
    yield at_most(f"{text} visible in under 1 s", median(renames.seconds), 1, "s")
    yield at_most(f"{text} sends under 3 MB", max(renames.received) / MB, 3, "MB")


def _memory_aims(memory: Memory) -> Iterator[Aim]:
    yield at_most(f"under 150 MB resident with {memory.tree}", memory.resident / MB, 150, "MB")


def markdown(results: Results) -> str:
    """Return all results as Markdown, without the two lines that it goes between."""
    return "\n\n".join(
        [
            f"Measured on {results.machine}.",
            "#### Aims of trees",
            aims_table(aims(results)),
            *(_walks(results.walks) if results.walks else ()),
            *(_bursts(results.burst, results) if results.burst else ()),
            *(_visible(results.visible) if results.visible else ()),
            *(_renames(results.renames) if results.renames else ()),
            *(_memory(results.memory) if results.memory else ()),
            "#### Whether the trees were right",
            "After each measure every file was compared with its key, or with its copy.",
            compared_table(results.compared),
        ]
    )


def _walks(walks: Walks) -> Iterator[str]:
    files = walks.tree.files
    took = {
        _WALK: median(walks.walked),
        "first reconcile": median(walks.first),
        "restart": median(walks.restart),
    }
    yield f"#### {walks.tree} that are there before"
    yield table(
        ("program", "s", "files/s", f"rate : {_WALK}'s"),
        (
            (name, rounded(each), f"{files / each:,.0f}", f"{took[_WALK] / each:.2f}")
            for name, each in took.items()
        ),
    )
    yield bar_chart(
        f"Files a second, of {walks.tree} that are there before",
        "files/s",
        {name: files / each for name, each in took.items()},
    )


def _bursts(tree: Tree, results: Results) -> Iterator[str]:
    alone = median(results.writer)
    yield f"#### A burst of {tree}"
    yield f"The writer alone takes {rounded(alone)} s."
    yield table(
        (
            "program",
            "writer done after, s",
            "equal after, s",
            "times the writer alone",
            "missed",
            "at rest after, s",
            "bursts",
        ),
        (_burst(name, bursts, alone) for name, bursts in results.bursts.items()),
    )
    if results.left_out:
        yield f"Not installed, and left out: {', '.join(results.left_out)}."
    yield bar_chart(
        f"A burst of {tree}: files right in the end",
        "files",
        {
            name: median([each.compared.right for each in bursts])
            for name, bursts in results.bursts.items()
        },
    )


def _burst(name: str, bursts: Sequence[Burst], alone: float) -> Sequence[str]:
    equal = equal_after(bursts)
    missed = max(burst.files - burst.compared.right for burst in bursts)
    return (
        name,
        f"{median([burst.followed.written for burst in bursts]):.2f}",
        "never" if equal is None else f"{equal:.2f}",
        "-" if equal is None else rounded(equal / alone),
        f"{missed:,}" if missed else "none: all there",
        f"{median([burst.followed.quiet for burst in bursts]):.2f}",
        str(len(bursts)),
    )


def _visible(visible: Mapping[str, Sequence[float]]) -> Iterator[str]:
    yield "#### One file closed in a tree until its content is visible"
    yield visible_table("where", visible)


def _renames(renames: Renames) -> Iterator[str]:
    seconds = " / ".join(rounded(percentile(renames.seconds, each)) for each in (50, 100))
    received = " / ".join(f"{percentile(renames.received, each) / MB:.2f}" for each in (50, 100))
    content = renames.files * renames.size / MB
    yield f"#### A directory of {renames.files:,} files renamed"
    yield table(
        ("what", "p50 / most"),
        (
            ("until the last key is visible, s", seconds),
            (f"the server gets, MB (its files have {rounded(content)})", received),
        ),
    )


def _memory(memory: Memory) -> Iterator[str]:
    yield f"#### Memory with {memory.tree}"
    yield table(
        (TREE.name, "MB resident"),
        (
            ("at rest", f"{memory.resident / MB:.1f}"),
            ("at most, until then", f"{memory.peak / MB:.1f}"),
        ),
    )


def document(results: Results) -> Mapping[str, object]:
    """Return all results for JSON; of the many samples of one file, percentiles."""
    visible = {where: spread(samples) for where, samples in results.visible.items()}
    compared = compared_document(results.compared)
    return {**asdict(results), "visible": visible, "compared": compared}
