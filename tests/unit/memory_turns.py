"""Time in memory, and who may go on: the service, its jobs, or all others."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

TICK = 4_000_000  # ns


class Clock:
    """Time passes for those who wait."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ticks = 1_000_000

    def now(self) -> int:
        return self.ticks * TICK + 1  # not a whole second, as file systems have that know no less

    def tick(self) -> None:
        self.ticks += 1

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.ticks += max(1, int(seconds * 1_000_000_000) // TICK)


class Turns:
    """Who may go on: the service until its next step, one of its jobs, or all others.

    A job is what the service does in a thread beside its main loop. Here it is an iterator, and
    goes on by one item now and then. It takes turns of its own at its system calls and when it
    sends; in these the script's others may act, and the main loop may not.

    Attributes:
        others: is called before each step of the service, with whether it is about to wait.
        steps: how many there were.
        pace: how many steps of the main loop there are to one item of a job.
        woken: whether the main loop is to wait no longer; a job that ends sets it.

    """

    def __init__(self) -> None:
        self.others: Callable[[bool], None] = lambda _idle: None
        self.steps = 0
        self.pace = 1
        self.woken = False
        self._jobs: deque[Iterator[object]] = deque()
        self._left = 0
        self._in_job = False

    @property
    def has_jobs(self) -> bool:
        return bool(self._jobs)

    def take(self, *, idle: bool = False) -> None:
        self.steps += 1
        assert self.steps < 100_000, "the service does not come to rest"
        if self._in_job:
            self.others(False)  # the script's next step may be for when the main loop waits
            return
        self.others(idle and not self._jobs)
        self._left -= 1
        if self._jobs and (idle or self._left < 0):
            self._left = self.pace
            self._advance()

    def spawn(self, job: Iterator[object]) -> None:
        self._jobs.append(job)

    def end_jobs(self) -> None:
        """End all jobs where they are, as when the process is killed: nothing is done any more."""
        others, self.others = self.others, lambda _idle: None
        self._in_job = True
        while self._jobs:
            close = getattr(self._jobs.pop(), "close", lambda: None)
            with suppress(Exception):  # as there is nothing any more to do it with
                close()
        self._in_job, self.others = False, others

    def _advance(self) -> None:
        """Have the job go on that has not for longest."""
        job = self._jobs.popleft()
        self._jobs.append(job)
        self._in_job = True
        try:
            next(job)
        except StopIteration:
            self._jobs.remove(job)
            self.woken = True
        except Exception as error:  # what ends the world is none
            raise AssertionError("a job has to see to its own errors") from error
        finally:
            self._in_job = False
