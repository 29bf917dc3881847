"""The command behind scripts/bench.sh."""

import argparse
import sys
from pathlib import Path

from e2e.engine import EngineError, PrivateEngine

from benchmarks.report import aims, into_page, markdown, save
from benchmarks.results import Results
from benchmarks.subjects import REPOSITORY
from benchmarks.volumes import FULL, QUICK, run
from benchmarks.wire import WireError

_PAGE = REPOSITORY / "docs" / "benchmarks.md"
_JSON = REPOSITORY / "build" / "benchmarks.json"


def main() -> int:
    """Run the command; return its exit status: 0, or 1 when it could not measure."""
    options = _parser().parse_args()
    try:
        with PrivateEngine() as engine:
            results = run(engine, QUICK if options.quick else FULL, _say)
    except (EngineError, WireError) as error:
        _say(f"the benchmarks cannot go on: {error}")
        return 1
    save(results, options.json)
    if options.quick:
        print(markdown(results))
    else:
        _PAGE.write_text(into_page(_PAGE.read_text(), markdown(results)))
        _say(f"wrote {_PAGE}")
    _print_aims(results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("what", choices=["volumes"], help="volumes: mdvp, local and rclone")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few volumes, few calls, and print the tables: shows that all works, not how fast",
    )
    parser.add_argument("--json", type=Path, default=_JSON, help="where (%(default)s)")
    return parser


def _print_aims(results: Results) -> None:
    for aim in aims(results):
        _say(
            f"{'MISSED' if aim.missed else 'met'}: {aim.text}: {aim.measured} {aim.missed}".strip()
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
