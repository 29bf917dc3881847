"""The results with the Redis that people run in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.mirror.existing import STREAM, STREAMED
from benchmarks.mirror.results import Existing, Failover, Waits, Work
from benchmarks.mirror.tables import all_there, equal_after
from benchmarks.report import Aim, at_most, ratio, rounded, table
from benchmarks.samples import median, percentile

_STREAM_MAX = 1.1  # times what a change takes without
_WAIT_MAX = 5.0  # ms


def aims(results: Existing) -> Iterator[Aim]:
    """Compare the results with what mdvp-sync aims at."""
    for name, samples in results.visible.items():
        if (plain := name.removesuffix(STREAMED)) != name:
            text = f"one file closed until it is visible, p50, {plain}: with SYNC_STREAM at most "
            with_it, without = (median(each) * 1e3 for each in (samples, results.visible[plain]))
            yield ratio(f"{text}{_STREAM_MAX} times", with_it, without, _STREAM_MAX, "ms")
    for name, bursts in results.bursts.items():
        yield all_there(f"a burst of {bursts[0].files:,} files, {name}", bursts)
    for waits in results.waits.values():
        for what, samples in (("nothing", waits.nothing), ("a file", waits.file)):
            took = percentile(samples, 99) * 1e3
            yield at_most(f"`mdvp-sync wait` for {what}: under 5 ms, p99", took, _WAIT_MAX, "ms")


def parts(results: Existing) -> Iterator[str]:
    """Yield what there is to say, as parts of a page in Markdown."""
    files = next(iter(results.bursts.values()))[0].files
    load = " and ".join(f"{each:.1f}" for each in results.load)
    yield "#### One file closed until its content is visible, in the Redis that people run"
    yield f"The machine had a load of {load} when this began and when it had ended."
    yield _visible(results)
    yield f"#### A burst of {files:,} files, into the Redis that people run"
    yield _bursts(results)
    yield "#### `mdvp-sync wait`, and nothing else goes on"
    yield _waits(results.waits)
    yield "#### Seconds without writes when the server dies that has the keys"
    yield _failovers(results.failovers)


def _visible(results: Existing) -> str:
    basis = next(iter(results.visible.values()))
    rows = []
    for name, samples in results.visible.items():
        plain = results.visible[name.removesuffix(STREAMED)]
        turns = results.turns[name]
        rows.append(
            (
                name,
                *(rounded(percentile(samples, percent) * 1e3) for percent in (50, 99)),
                *(f"{median(samples) / median(each):.2f}" for each in (basis, plain)),
                *(rounded(each * 1e3) for each in _works(turns)),
                f"{len(samples):,}",
            )
        )
    ratios = ("p50 : the first's", f"p50 : without {STREAM}")
    return table(
        (
            *("program", "p50, ms", "p99, ms", *ratios),
            *("service's CPU, ms", "server's CPU, ms", "samples"),
        ),
        rows,
    )


def _bursts(results: Existing) -> str:
    basis = equal_after(next(iter(results.bursts.values())))
    rows = []
    for name, each in results.bursts.items():
        equal = equal_after(each)
        plain = equal_after(results.bursts[name.removesuffix(STREAMED)])
        rows.append(
            (
                name,
                "never" if equal is None else f"{equal:.2f}",
                *(f"{equal / other:.2f}" if equal and other else "-" for other in (basis, plain)),
                *(f"{work:.2f}" for work in _works(results.works[name])),
                str(len(each)),
            )
        )
    ratios = ("equal : the first's", f"equal : without {STREAM}")
    return table(
        (
            *("program", "equal after, s", *ratios),
            *("service's CPU, s", "server's CPU, s", "bursts"),
        ),
        rows,
    )


def _works(works: Sequence[Work]) -> tuple[float, float]:
    """Return the medians of the service's work, and of the server's."""
    return median([each.service for each in works]), median([each.server for each in works])


def _waits(waits: Mapping[str, Waits]) -> str:
    return table(
        ("what", "p50, ms", "p99, ms", "most, ms", "samples"),
        (
            (
                words,
                *(rounded(percentile(samples, percent) * 1e3) for percent in (50, 99, 100)),
                f"{len(samples):,}",
            )
            for each in waits.values()
            for words, samples in (
                ("a wait, in a process that runs", each.nothing),
                ("the same, right after a file was closed", each.file),
                ("the whole command, right after a file was closed", each.command),
                ("Python alone, which does nothing", each.interpreter),
            )
        ),
    )


def _failovers(failovers: Mapping[str, Sequence[Failover]]) -> str:
    def cell(seconds: Sequence[float]) -> str:
        return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"

    return table(
        (
            "program",
            "another master after, s",
            "that is known after, s",
            "it has a file after, s",
            "equal after, s",
            "times",
        ),
        (
            (
                name,
                cell([each.promoted for each in times]),
                cell([each.told for each in times]),
                cell([each.written for each in times]),
                cell([each.equal for each in times]),
                str(len(times)),
            )
            for name, times in failovers.items()
        ),
    )
