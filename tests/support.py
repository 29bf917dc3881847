"""What tests of all kinds share: waiting for a condition, and processes that end with the test."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Whether models try the same examples each time, and not as many others as the variable says: a
# check says what a change did, a hunt finds what nobody knew.
IS_CHECK = "MDVP_TEST_EXAMPLES" not in os.environ
DEADLINE = 10.0  # seconds; far above what anything takes, so that only a defect reaches it


def eventually(probe: Callable[[], T], expected: object, deadline: float = DEADLINE) -> T:
    """Call `probe` until it returns `expected`; show its last answer if it never does."""
    end = time.monotonic() + deadline
    while (answer := probe()) != expected:
        assert time.monotonic() < end, f"still {answer!r}, not {expected!r}, after {deadline} s"
        time.sleep(0.005)
    return answer


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run `command` for the time of the block; its output is in one pipe, killed in the end."""
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()
