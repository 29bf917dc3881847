"""The mirror's results in words. A part that was not measured is not in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby

from benchmarks.mirror import both_ways_report, existing_report
from benchmarks.mirror.contenders import INOTIFYWAIT, SYNC, WATCHDOG, is_ours
from benchmarks.mirror.results import Compared, Comparison, Results
from benchmarks.mirror.tables import all_there, burst_table, equal_after, right, visible_table
from benchmarks.report import MB, Aim, Report, aims_table, at_most, bar_chart, ratio, rounded, table
from benchmarks.samples import median, percentile

_READ, _PIPED = "read-only loop", "redis-cli --pipe"
_FIRST, _RESTART = "first reconcile", "restart"
_NOTHING_MOVED = 10_000  # bytes: what a few commands and answers take, and no file does


def report(results: Results) -> Report:
    """Return all that there is to say about one run."""
    return Report(
        aims(results), markdown(results), document(results), list(wrongs(results.compared))
    )


def aims(results: Results) -> list[Aim]:
    """Compare the results with what mdvp-sync aims at."""
    return [
        *(_files_aims(results) if results.visible else ()),
        *(both_ways_report.aims(results.both_ways) if results.both_ways.visible else ()),
        *(existing_report.aims(results.existing) if results.existing.visible else ()),
        right_aim(results.compared),
    ]


def _files_aims(results: Results) -> Iterator[Aim]:
    yield from _visible_aims(results)
    yield from _burst_aims(results)
    yield from _scan_aims(results)
    yield from _single_file_aims(results)
    yield from _frugality_aims(results)


def _visible_aims(results: Results) -> Iterator[Aim]:
    p50 = {name: median(samples) * 1e3 for name, samples in results.visible.items()}
    p99 = percentile(results.visible[SYNC.name], 99) * 1e3
    ours = p50[SYNC.name]
    text = "one file closed until it is visible, p50, in at most"
    for other, limit, words in ((WATCHDOG, 1 / 2, "1/2"), (INOTIFYWAIT, 1 / 15, "1/15")):
        yield ratio(f"{text} {words} of the {other.name}'s", ours, p50[other.name], limit, "ms")
    yield ratio("the same, p99 within 3 times p50", p99, ours, 3, "ms")


def _burst_aims(results: Results) -> Iterator[Aim]:
    bursts = results.bursts[SYNC.name]
    files = f"a burst of {bursts[0].files:,} files"
    yield all_there(files, bursts)
    text = f"{files}: equal in at most 2 times what the writer alone takes"
    if (equal := equal_after(bursts)) is None:
        yield Aim(text, "never equal", "it was never equal")
    else:
        yield ratio(text, equal, median(results.writer), 2, "s")


def _scan_aims(results: Results) -> Iterator[Aim]:
    for files, scan in results.scans.items():
        text = f"first reconcile of {files:,} files in at most 2 times the {_READ}'s time"
        yield ratio(text, median(scan.first), median(scan.read), 2, "s")
    most = max(results.scans)
    scan = results.scans[most]
    text = f"restart with {most:,} files in at most 1/3 of the first reconcile's time"
    yield ratio(text, median(scan.restart), median(scan.first), 1 / 3, "s")


def _single_file_aims(results: Results) -> Iterator[Aim]:
    times, commands, last = _rewritten(results)
    yield at_most(
        f"one file rewritten {times:,} times: fewer commands than that", commands, times, "commands"
    )
    yield at_most("the same: the last content is there within 50 ms", last * 1e3, 50, "ms")
    renamed = f"rename of a file of {_mb(results.large)} MB"
    yield at_most(f"{renamed} visible in under 5 ms", median(results.renames) * 1e3, 5, "ms")
    yield at_most(f"{renamed} moves no bytes", max(results.moved), _NOTHING_MOVED, "bytes")


def _frugality_aims(results: Results) -> Iterator[Aim]:
    idle = results.idle[SYNC.name]
    yield at_most("idle: under 0.1 % of a core", 100 * idle.cpu / idle.seconds, 0.1, "%")
    yield at_most("idle: under 40 MB resident", idle.resident / MB, 40, "MB")
    for load, peak in results.peaks.items():
        yield at_most(f"under 100 MB resident while {load}", peak / MB, 100, "MB")


def right_aim(compared: Sequence[Compared]) -> Aim:
    """Compare how often mdvp-sync was right with always."""
    wrong = list(wrongs(compared))
    checks = sum(is_ours(name) for _, name, _ in compared)
    return Aim(
        "every value right after each of these",
        f"{checks - len(wrong)} of {checks} times",
        f"{len(wrong)} times" if wrong else "",
    )


def wrongs(compared: Iterable[Compared]) -> Iterator[str]:
    """Yield what mdvp-sync did wrong."""
    for measure, name, found in compared:
        if is_ours(name) and not found.equal:
            yield (
                f"{measure}: of {found.files:,} files {found.right:,} are right in Redis, "
                f"{found.wrong:,} have another content there, {found.extra:,} keys have no file"
            )


def markdown(results: Results) -> str:
    """Return all results as Markdown, without the two lines that it goes between."""
    return "\n\n".join(
        [
            f"Measured on {results.machine}.",
            "#### Aims",
            aims_table(aims(results)),
            *(_files_parts(results) if results.visible else ()),
            *(both_ways_report.parts(results.both_ways) if results.both_ways.visible else ()),
            *(existing_report.parts(results.existing) if results.existing.visible else ()),
            "#### Whether it was right",
            "After each measure every file was compared with its key.",
            compared_table(results.compared),
        ]
    )


def _files_parts(results: Results) -> Iterator[str]:
    files = next(iter(results.bursts.values()))[0].files
    yield "#### One file closed until its content is visible"
    yield visible_table("program", results.visible)
    yield bar_chart(
        "One file closed until its content is visible, p50",
        "ms",
        {name: median(samples) * 1e3 for name, samples in results.visible.items()},
    )
    yield f"#### A burst of {files:,} files"
    yield f"The writer alone takes {rounded(median(results.writer))} s."
    yield burst_table(results.bursts, median(results.writer), "the writer alone")
    yield bar_chart(
        f"Of {files:,} files in a burst, right in Redis in the end",
        "files",
        {name: right(bursts) for name, bursts in results.bursts.items()},
    )
    yield "#### Files that are there before"
    yield _scans(results)
    yield bar_chart(
        f"Files a second, of {max(results.scans):,} that are there before",
        "files/s",
        {name: files / took for files, name, took in _scanned(results, max(results.scans))},
    )
    yield "#### One file rewritten, a large one renamed"
    yield _single_files(results)
    yield "#### Idle, and memory"
    yield _frugality(results)


def _scans(results: Results) -> str:
    return table(
        ("files", "program", "s", "files/s", f"rate : {_READ}'s"),
        (
            (
                f"{files:,}",
                name,
                rounded(took),
                f"{files / took:,.0f}",
                f"{median(scan.read) / took:.2f}",
            )
            for files, scan in results.scans.items()
            for _, name, took in _scanned(results, files)
        ),
    )


def _scanned(results: Results, files: int) -> Iterator[tuple[int, str, float]]:
    scan = results.scans[files]
    yield files, _READ, median(scan.read)
    yield files, _PIPED, median(scan.piped)
    yield files, _FIRST, median(scan.first)
    yield files, _RESTART, median(scan.restart)


def _single_files(results: Results) -> str:
    times, commands, last = _rewritten(results)
    written = median([each.written for each in results.rewrites])
    renames = " / ".join(rounded(percentile(results.renames, each) * 1e3) for each in (50, 100))
    size = _mb(results.large)
    return table(
        ("what", "measured"),
        (
            (f"{times:,} rewrites: their writer takes", f"{rounded(written)} s"),
            (f"{times:,} rewrites: commands that the server gets", f"{commands:,.0f}"),
            (f"{times:,} rewrites: last close until visible", f"{rounded(last * 1e3)} ms"),
            (f"rename of {size} MB until visible, p50 / most", f"{renames} ms"),
            (f"rename of {size} MB: the server gets", f"{median(results.moved):,.0f} bytes"),
        ),
    )


def _rewritten(results: Results) -> tuple[int, float, float]:
    """Return how often the file was rewritten, the commands that took, and the last one's delay."""
    return (
        results.rewrites[0].times,
        median([each.commands for each in results.rewrites]),
        median([each.last for each in results.rewrites]),
    )


def _frugality(results: Results) -> str:
    idle = table(
        ("idle", "% of a core", "MB resident"),
        (
            (name, rounded(100 * each.cpu / each.seconds), f"{each.resident / MB:.1f}")
            for name, each in results.idle.items()
        ),
    )
    peaks = table(
        (f"{SYNC.name} while", "MB resident at most"),
        ((load, f"{peak / MB:.1f}") for load, peak in results.peaks.items()),
    )
    start = rounded(median(results.empty_start))
    return f"{idle}\n\n{peaks}\n\nThe start of {SYNC.name} with no files takes {start} s."


def compared_table(compared: Sequence[Compared]) -> str:
    """Return what all comparisons found as a table."""

    def rows() -> Iterator[Sequence[str]]:
        # In the order in which they came; a measure's repeats came one after the other.
        for (measure, name), group in groupby(
            sorted(compared, key=lambda each: _order(compared, each)),
            key=lambda each: each[:2],
        ):
            found = [each[2] for each in group]
            equal = sum(each.equal for each in found)
            worst = min(found, key=lambda each: each.right - each.extra)
            yield measure, name, f"{equal} of {len(found)} times", _keys(worst)

    return table(("after", "program", "equal", "least of the times"), rows())


def _order(compared: Sequence[Compared], each: Compared) -> int:
    return next(i for i, other in enumerate(compared) if other[:2] == each[:2])


def _keys(found: Comparison) -> str:
    parts = [f"{found.right:,} of {found.files:,} right"]
    parts += [f"{found.wrong:,} wrong"] if found.wrong else []
    parts += [f"{found.extra:,} without a file"] if found.extra else []
    return ", ".join(parts)


def _mb(size: int) -> str:
    return f"{size / MB:.0f}"


def document(results: Results) -> Mapping[str, object]:
    """Return all results for JSON; of the many samples of one file, percentiles."""
    visible = {name: spread(samples) for name, samples in results.visible.items()}
    compared = compared_document(results.compared)
    return {**asdict(results), "visible": visible, "compared": compared}


def spread(samples: Sequence[float]) -> Mapping[str, float]:
    """Return percentiles of many samples for JSON."""
    return {
        "samples": len(samples),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


def compared_document(compared: Iterable[Compared]) -> Sequence[Mapping[str, object]]:
    """Return what all comparisons found for JSON."""
    return [
        {"after": measure, "contender": name, **asdict(found), "equal": found.equal}
        for measure, name, found in compared
    ]
