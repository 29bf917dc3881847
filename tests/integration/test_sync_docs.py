"""What the docs say that can be reckoned is so."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_of_how_directories_spread_are_what_the_script_prints() -> None:
    command = (sys.executable, str(DOCS / "examples/cluster-spread.py"))
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    written = "\n".join(path.read_text() for path in DOCS.rglob("*.md"))
    assert [line for line in printed.splitlines() if line not in written] == []
    assert printed.count("|\n") == 12
