"""The results of changes in Redis in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.mirror.both_ways import ALONE, SAFE
from benchmarks.mirror.contenders import is_ours
from benchmarks.mirror.results import BothWays, Burst, Busy
from benchmarks.mirror.tables import all_there, burst_table, equal_after, visible_table
from benchmarks.report import Aim, at_most, bar_chart, ratio, rounded, table
from benchmarks.samples import median, percentile

_SEEN = "One key set until its file is there"
_UNDONE = 5.0  # ms


def aims(results: BothWays) -> Iterator[Aim]:
    """Compare the results with what mdvp-sync aims at."""
    samples = results.visible[SAFE.name]
    p50, p99 = (percentile(samples, percent) * 1e3 for percent in (50, 99))
    yield at_most("one key set until its file is there, p50, under 1 ms", p50, 1, "ms")
    yield ratio("the same, p99 under 3 times p50", p99, p50, 3, "ms")
    for name, bursts in results.bursts.items():
        if is_ours(name):
            yield from _burst_aims(name, bursts, median(results.writer))
    for done, samples in results.undone.items():
        took = percentile(samples, 99) * 1e3
        yield at_most(f"a key that others have {done}: undone in under 5 ms, p99", took, 5, "ms")


def _burst_aims(name: str, bursts: Sequence[Burst], alone: float) -> Iterator[Aim]:
    keys = f"{bursts[0].files:,} keys by pipeline, {name}"
    yield all_there(keys, bursts)
    if (equal := equal_after(bursts)) is not None:
        yield ratio(f"{keys}: in at most 3 times the writing loop's time", equal, alone, 3, "s")


def parts(results: BothWays) -> Iterator[str]:
    """Yield what there is to say, as parts of a page in Markdown."""
    keys = next(iter(results.bursts.values()))[0].files
    yield f"#### {_SEEN}"
    yield visible_table("program", results.visible)
    heights = {name: median(samples) * 1e3 for name, samples in results.visible.items()}
    yield bar_chart(f"{_SEEN}, p50", "ms", heights)
    yield f"#### {keys:,} keys set by pipeline"
    alone = median(results.writer)
    yield f"The loop that only writes these files takes {rounded(alone)} s."
    yield burst_table(results.bursts, alone, "the loop")
    yield "#### A mirrored key that somebody else changes, until that is undone"
    yield visible_table("what was done to it", results.undone)
    yield "#### What other clients' keys cost on a busy server"
    yield _busy(results.busy)


def _busy(busy: Sequence[Busy]) -> str:
    return table(
        (
            "other clients",
            "beside",
            "their SETs/s",
            "of what they do alone",
            "service's CPU, ms for 1,000",
            "a file until visible, p50 / p99, ms",
        ),
        (_busy_row(each, _alone(busy, each.load)) for each in busy),
    )


def _busy_row(busy: Busy, alone: float) -> Sequence[str]:
    rate = median(busy.rates)
    seen = (rounded(percentile(busy.visible, each) * 1e3) for each in (50, 99) if busy.visible)
    return (
        busy.load,
        busy.service,
        f"{rate:,.0f}",
        f"{rate / alone:.2f}",
        rounded(median(busy.cpu) * 1e6) if busy.cpu else "-",
        " / ".join(seen) or "-",
    )


def _alone(busy: Sequence[Busy], load: str) -> float:
    return median(next(each.rates for each in busy if (each.load, each.service) == (load, ALONE)))
