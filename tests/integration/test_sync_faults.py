"""A minute of the fault test (`tests/faults`), with another seed each time."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SECONDS = 60
COMMAND = (sys.executable, "-m", "faults", "--minutes", str(SECONDS / 60))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.timeout(SECONDS + 120)  # the last episode may take long, above all when it fails
def test_redis_is_equal_after_any_faults() -> None:
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        COMMAND,
        cwd=TESTS.parent,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            with suppress(ProcessLookupError):  # and all that it started
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    assert re.search(r"^[1-9]\d* episodes, no drift", output, re.MULTILINE), output
