"""Both commands where a module is missing that they need."""

import subprocess
import sys

import pytest

PROGRAM = "import sys; sys.modules[{!r}] = None; from {}.__main__ import main; sys.exit(main())"


def run(part: str, argument: str, missing: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a part without a module."""
    command = (sys.executable, "-c", PROGRAM.format(missing, part), argument)
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("part", "name", "argument", "missing"),
    [("mdvp", "mdvp", "--version", "falcon"), ("sync", "mdvp-sync", "run", "redis")],
)
def test_a_library_is_named_in_one_line(part: str, name: str, argument: str, missing: str) -> None:
    done = run(part, argument, missing)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{name}: the library {missing} is not installed: pip install")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("part", ["mdvp", "sync"])
@pytest.mark.parametrize("missing", ["argparse", "{}.settings"])
def test_what_pip_does_not_have_is_a_defect_that_shows_where(part: str, missing: str) -> None:
    missing = missing.format(part)
    done = run(part, "--version", missing)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f"import of {missing} halted" in done.stderr
