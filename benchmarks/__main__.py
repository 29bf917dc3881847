"""The command behind scripts/bench.sh."""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

from e2e.engine import EngineError, PrivateEngine

from benchmarks import REPOSITORY, BenchmarkError
from benchmarks.life import report as life_report
from benchmarks.life import run as life
from benchmarks.mirror import report as mirror_report
from benchmarks.mirror import run as mirror
from benchmarks.report import Report, into_page, save
from benchmarks.trees import report as trees_report
from benchmarks.trees import run as trees
from benchmarks.volumes import report as volumes_report
from benchmarks.volumes import run as volumes

_PAGE = REPOSITORY / "docs" / "benchmarks.md"
_BUILD = REPOSITORY / "build"


def main() -> int:
    """Run the command; return its exit status: 0, or 1 when it could not measure.

    An aim that was missed is a result like any other. A wrong result of ours is none: 1, too.
    """
    parser = _parser()
    options = parser.parse_args()
    parts = _PARTS.get(options.what, ())
    if unknown := set(options.only) - set(parts):
        known = f"parts are {', '.join(parts)}" if parts else "there are no parts"
        parser.error(f"--only {' '.join(sorted(unknown))}: of {options.what} {known}")
    if options.what != "trees" and options.share != 1:
        parser.error("--share is for trees")
    options.only = options.only or parts
    status = 0
    for name, benchmark in _benchmarks(options).items():
        status = max(status, _run(name, benchmark, options))
    return status


def _benchmarks(options: argparse.Namespace) -> "Mapping[str, _Benchmark]":
    """Return what is to be run, by what its place in the page is called."""
    if options.what != "volumes":
        return {options.what: _BENCHMARKS[options.what]}
    return {name: _OF_VOLUMES[part] for part, name in _PLACES.items() if part in options.only}


def _run(name: str, benchmark: "_Benchmark", options: argparse.Namespace) -> int:
    into_page(_PAGE.read_text(), name, "")  # if it has no place for them, say so now
    try:
        report = benchmark(options)
    except (EngineError, BenchmarkError) as error:
        _say(f"the benchmarks cannot go on: {error}")
        return 1
    save(report, options.json or _BUILD / f"benchmarks-{name}.json")
    if options.quick or _is_part(options) or report.wrong:
        print(report.markdown)
    else:
        _PAGE.write_text(into_page(_PAGE.read_text(), name, report.markdown))
        _say(f"wrote {_PAGE}")
    for aim in report.aims:
        _say(
            f"{'MISSED' if aim.missed else 'met'}: {aim.text}: {aim.measured} {aim.missed}".strip()
        )
    for wrong in report.wrong:
        _say(f"WRONG: {wrong}")
    return 1 if report.wrong else 0


def _volumes(options: argparse.Namespace) -> Report:
    with PrivateEngine() as engine:
        plan = volumes.QUICK if options.quick else volumes.FULL
        return volumes_report.report(volumes.run(engine, plan, _say))


def _life(options: argparse.Namespace) -> Report:
    return life_report.report(life.run(life.QUICK if options.quick else life.FULL, _say))


def _mirror(options: argparse.Namespace) -> Report:
    plan = mirror.QUICK if options.quick else mirror.FULL
    return mirror_report.report(mirror.run(plan, options.only, _say))


def _trees(options: argparse.Namespace) -> Report:
    plan = (trees.QUICK if options.quick else trees.FULL).scaled(options.share)
    return trees_report.report(trees.run(plan, options.only, _say))


def _is_part(options: argparse.Namespace) -> bool:
    """Say whether it is only a part of what has one place in the page."""
    if options.what == "volumes":
        return False
    return set(options.only) != set(_PARTS.get(options.what, ())) or options.share != 1


_Benchmark: TypeAlias = Callable[[argparse.Namespace], Report]
# The parts of volumes have each a place of their own.
_PLACES = {"operations": "volumes", "life": "life"}
_OF_VOLUMES: Mapping[str, _Benchmark] = {"operations": _volumes, "life": _life}
_PARTS: Mapping[str, Collection[str]] = {
    "volumes": tuple(_PLACES),
    "mirror": mirror.PARTS,
    "trees": trees.PARTS,
}
_BENCHMARKS: Mapping[str, _Benchmark] = {"mirror": _mirror, "trees": _trees}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument(
        "what",
        choices=list(_PARTS),
        help="volumes: mdvp, local and rclone, and a volume of a million files; mirror: mdvp-sync, "
        "watchdog, inotifywait and, both ways, keyspace notifications, and with a cluster and "
        "Sentinels; trees: mdvp-sync, watchdog, inotifywait, watchman, lsyncd",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="little of everything, and print the tables: shows that all works, not how fast",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="these parts alone, printed but for those of volumes: of "
        + ", of ".join(f"{what} {', '.join(parts)}" for what, parts in _PARTS.items()),
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of trees this share of the files, printed: 0.1"
    )
    parser.add_argument("--json", type=Path, help="where (build/benchmarks-WHAT.json)")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
