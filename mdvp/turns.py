"""Who asks for what they cannot have yet may wait their turn for it, first come, first served.

Failure model. Whoever waits keeps nothing but a thread and a connection. It ends when it is
granted, when its time is over, when who asked is gone (a killed engine, one that has given up),
when what it waits for is there no more, and when mdvp ends: each time with an answer, and nothing
is on record of it, so nothing is left of it after a SIGKILL. Nobody need tell that something has
become free: it is looked for, twenty times a second while somebody waits, by one look at the host
for all of them. Who is told of it (`Turns.wake`) only sees it sooner.

What is waited for is not known here: it is tried (`Attempt`), under the lock of the driver, and is
had when that does not raise LaterError.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Protocol, TypeAlias, TypeVar

from mdvp import threads
from mdvp.core.errors import ConflictError, LaterError
from mdvp.core.waiting import Queue, Waiter
from mdvp.custody import Look

log = logging.getLogger(__name__)

_MOST = 100  # who wait at a time, each with a thread of its own
_INTERVAL = 0.05  # seconds between looks; what is free is to be granted within a tenth

T = TypeVar("T")


class Client(Protocol):
    """Who asks, and waits for the answer; `mdvp.wire.server.Peer` is the real one."""

    @property
    def pid(self) -> int | None:
        """The id of the process; None where that is not known."""

    def is_gone(self) -> bool:
        """Say whether nobody is there any more to get an answer."""

    def waits(self) -> AbstractContextManager[object]:
        """Have another thread answer others, while this one waits, in the block."""


class Somebody:
    """A client of whom nothing is known."""

    pid = None

    def is_gone(self) -> bool:
        """Say that they are there."""
        return False

    def waits(self) -> AbstractContextManager[object]:
        """Do nothing: who calls the driver itself has no threads to spare."""
        return nullcontext()


SOMEBODY = Somebody()


@dataclass(frozen=True, slots=True)
class Turn:
    """A time to try.

    Attributes:
        before: how many came before, and wait.
        waited: for how many seconds this one has waited; None for who has just come.
        look: the look at the host that serves all who wait; None for who has just come, or if
            nothing is to be seen.

    """

    before: int = 0
    waited: float | None = None
    look: Look | None = None


# What is done under the driver's lock to have it. LaterError: it cannot be had yet.
Attempt: TypeAlias = Callable[[Turn], T]


@dataclass(eq=False, slots=True)
class _Ticket(Waiter):
    """Somebody who waits, and what becomes of it."""

    attempt: Attempt[Any]
    client: Client
    settled: Event = field(default_factory=Event)
    result: Any = None
    error: BaseException | None = None


class Turns:
    """Has those wait who ask for what they cannot have yet. Thread-safe."""

    def __init__(
        self,
        lock: Lock,
        look: Callable[[], Look | None],
        end: Callable[[], object],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Try under `lock`, by what `look` shows; should the thread for that fail, call `end`.

        `now` is in seconds.
        """
        self._lock = lock
        self._look = look
        self._now = now
        self._queue: Queue[_Ticket] = Queue(_MOST)
        self._woken = Event()
        self._closing = False
        self._failing = False
        self._thread = threads.start("turns", self._run, end)

    def take(self, name: str, who: str, attempt: Attempt[T], client: Client = SOMEBODY) -> T:
        """Return what `attempt` does, at once or when it is the turn of `who` to have `name`.

        Raises what that raises. LaterError: it cannot be had, and waiting has been of no use, or
        would have been.
        """
        with self._lock:
            try:
                return attempt(Turn(before=len(self._queue.line(name))))
            except LaterError as refusal:
                ticket = self._join(name, who, attempt, client, refusal)
        self._woken.set()
        try:
            with client.waits():
                ticket.settled.wait()
        finally:
            with self._lock:
                self._queue.leave(name, ticket)
        if ticket.error is not None:
            raise ticket.error
        result: T = ticket.result
        return result

    def wake(self, name: str) -> None:
        """Take note that `name` may be free now."""
        if self._queue.line(name):
            self._woken.set()

    def waiting(self, name: str) -> int:
        """Return how many wait for `name`."""
        return len(self._queue.line(name))

    @property
    def total(self) -> int:
        """How many wait. To be asked by who holds the lock."""
        return len(self._queue)

    def close(self) -> None:
        """Answer all who wait that mdvp ends, at once; from now on nobody can wait."""
        with self._lock:
            self._closing = True
            for name in self._queue.names():
                for ticket in self._queue.line(name):
                    self._settle(name, ticket, error=_ending(name))
        self._woken.set()
        self._thread.join()

    def _join(
        self, name: str, who: str, attempt: Attempt[T], client: Client, refusal: LaterError
    ) -> _Ticket:
        if refusal.seconds <= 0:
            raise refusal
        if self._closing:
            raise _ending(name)
        if self._queue.is_full:
            raise LaterError(f"{refusal}; and {_MOST} wait already, so this one does not")
        now = self._now()
        ticket = _Ticket(who, now, now + refusal.seconds, attempt, client)
        self._queue.join(name, ticket)
        before = self._queue.ahead(name, ticket)
        log.info(
            "volume %(volume)s: mount %(mount_id)s waits for its turn (before it: %(before)d, "
            "seconds at most: %(seconds)g): %(reason)s",
            {
                "event": "waits",
                "volume": name,
                "mount_id": who,
                "before": before,
                "seconds": refusal.seconds,
                "reason": str(refusal),
            },
        )
        return ticket

    # The thread.

    def _run(self) -> None:
        pause: float | None = None
        while True:
            self._woken.wait(pause)
            self._woken.clear()
            if self._closing:
                return
            began = time.monotonic()
            self._round()
            took = time.monotonic() - began
            # Where there is much to look at, half of the time is spent on that at most.
            pause = max(_INTERVAL - took, took) if len(self._queue) else None

    def _round(self) -> None:
        with self._lock:
            names = self._queue.names()
        if not names:
            return
        seen, look = self._see()
        for name in names:
            with self._lock:
                self._drop_gone(name)
                if seen:
                    self._serve(name, look)
                self._end_waits(name, look)

    def _see(self) -> tuple[bool, Look | None]:
        """Return whether a look could be taken, and what it shows."""
        try:
            look = self._look()
        except Exception:  # it is tried again; who waits goes on to wait, and gives up in time
            if not self._failing:  # once is enough
                log.exception(
                    "cannot look for what has become free; trying again and again",
                    {"event": "look_failed"},
                )
            self._failing = True
            return False, None
        self._failing = False
        return True, look

    def _drop_gone(self, name: str) -> None:
        for ticket in self._queue.line(name):
            if ticket.client.is_gone():
                self._give_up(name, ticket, "who asked for it is gone")

    def _serve(self, name: str, look: Look | None) -> None:
        """Try for those whose turn it is."""
        while line := self._queue.line(name):
            if not self._try(name, line[0], look):
                return
            for other in line[1:]:
                if other.who == line[0].who:  # what has it may have it again
                    self._try(name, other, look)

    def _end_waits(self, name: str, look: Look | None) -> None:
        for ticket in self._queue.over(name, self._now()):
            before = self._queue.ahead(name, ticket)
            if not self._try(name, ticket, look):  # it says how things are by now
                others = f", and {before} came before it" if before else ""
                waited = f"this one has waited {self._waited(ticket):.0f} s for its turn"
                self._give_up(name, ticket, "its time is over", f"{ticket.error}; {waited}{others}")

    def _try(self, name: str, ticket: _Ticket, look: Look | None) -> bool:
        """Try for one who waits; return whether that has ended it."""
        before, waited = self._queue.ahead(name, ticket), self._waited(ticket)
        try:
            result = ticket.attempt(Turn(before, waited, look))
        except LaterError as refusal:
            ticket.error = refusal
            ticket.until = ticket.since + refusal.seconds
            return False
        except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
            self._settle(name, ticket, error=error)
            return True
        log.info(
            "volume %(volume)s: it is the turn of mount %(mount_id)s, which has waited "
            "%(seconds).3f s",
            {"event": "got_turn", "volume": name, "mount_id": ticket.who, "seconds": waited},
        )
        self._settle(name, ticket, result)
        return True

    def _give_up(self, name: str, ticket: _Ticket, why: str, error: str = "") -> None:
        log.info(
            "volume %(volume)s: mount %(mount_id)s waits no more, after %(seconds).3f s: "
            "%(reason)s",
            {
                "event": "gave_up",
                "volume": name,
                "mount_id": ticket.who,
                "seconds": self._waited(ticket),
                "reason": why,
            },
        )
        self._settle(name, ticket, error=LaterError(error or f"volume {name!r}: {why}"))

    def _settle(
        self, name: str, ticket: _Ticket, result: object = None, error: Exception | None = None
    ) -> None:
        self._queue.leave(name, ticket)
        ticket.result, ticket.error = result, error
        ticket.settled.set()

    def _waited(self, ticket: _Ticket) -> float:
        return self._now() - ticket.since


def _ending(name: str) -> ConflictError:
    return ConflictError(
        f"volume {name!r}: mdvp is being ended while this waits for its turn; ask again when it "
        "is back"
    )
