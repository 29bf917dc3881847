"""A session: an open directory and a connection to Redis, until one of the two is lost.

It makes Redis equal to the directory (reconcile) and follows what happens in it. Both at once: what
happens during a reconcile is followed between its steps, so that no change waits for long and the
kernel's queue of events does not fill up.

Failure model. What is lost ends the session with an exception, and nothing of it is kept. Events
that the kernel drops are no loss of that kind: another reconcile finds what they were about.
"""

import logging
import time
from collections.abc import Container, Iterable, Iterator
from typing import NoReturn

from sync.core.causes import ReconcileCause
from sync.core.changes import Appeared, Changed
from sync.core.looks import Look
from sync.core.schedule import Rescan, Schedule
from sync.disk.files import Directory
from sync.disk.watch import Watch, watches_max
from sync.redis.target import Target
from sync.report.board import Board
from sync.report.figures import Count
from sync.report.lines import Report
from sync.report.status import LIVE, RECONCILING
from sync.service.feeding import Feeding
from sync.service.hearing import Hearing
from sync.service.hook import Hook
from sync.service.mirror import NAMES_MAX, Mirror, Outcome
from sync.service.news import News
from sync.service.reconcile import Reconcile
from sync.service.stale import Stale
from sync.service.standing import Standing
from sync.service.together import Together
from sync.service.waiters import Waiters

log = logging.getLogger(__name__)

_RESCAN = ReconcileCause.RESCAN
_LOST = ReconcileCause.EVENTS_LOST
_RESCANNED = 50  # names that a rescan looks at in a step
_GONE = 1000  # directories that are gone, in a step
_SELDOM = 30.0  # seconds until another look into a directory that could not be looked into
_TURN = 0.01  # seconds that looks into directories have, before what has happened since
_SEARCHED = 1000  # names among which a step of a search looks for those of a file with several


class Session:
    """Mirrors one open directory over one connection."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        directory: Directory,
        watch: Watch,
        news: News,
        target: Target,
        mirror: Mirror,
        report: Report,
        board: Board,
        rescan: Rescan,
        standing: Standing,
        waiters: Waiters,
        hearing: Hearing | None = None,
        together: Together | None = None,
        feeding: Feeding | None = None,
        hook: Hook | None = None,
    ) -> None:
        """Mirror `directory` by way of `mirror` to `target`; `news` is what `watch` tells of it.

        The `waiters` are told when all that they wait for is in Redis. What others change there
        comes by way of `hearing`, and what links make depend on each other goes by way of
        `together`. The stream of changes is kept whole by `feeding`, and `hook` runs somebody's
        command.
        """
        self._directory = directory
        self._watch = watch
        self._news = news
        self._pending = news.pending
        self._target = target
        self._mirror = mirror
        self._standing = standing
        self._waiters = waiters
        self._hearing = hearing
        self._together = together
        self._feeding = feeding
        self._hook = hook
        self._report = report
        self._board = board
        self._schedule = Schedule(rescan)
        self._is_idle = False  # whether nothing happened in the last wait
        self._has_unsure = False  # whether there are entries to confirm
        self._reconcile: Reconcile | None = None
        self._branch: Iterator[Outcome] | None = None  # the steps of a look into directories
        self._looked: Look | None = None  # the one; None when they are gone
        self._gone: list[bytes] = []  # those that are gone of which keys are being removed
        self._has_removed = False  # whether the last look was for what is gone
        self._unwatched = 0
        self._again = 0.0  # when to look again into directories that could not be looked into
        self._began = 0.0
        self._has_compared = True  # whether what others have changed before is undone
        self._undone = board.undone  # in earlier sessions
        self._has_missed = False  # whether more was heard of than is remembered
        self._may_hear = True  # whether the last wait does not tell that nothing was
        self.in_step = False  # whether Redis has been equal to the directory

    def run(self, cause: ReconcileCause, *, stale_first: bool) -> NoReturn:
        """Mirror until something is lost. Raises RedisAwayError or DirectoryGoneError.

        The first reconcile is for `cause`; it removes keys first if told to.
        """
        try:
            self._target.connect()
            if cause is ReconcileCause.TAKEOVER:
                log.warning(
                    "taking over: no other service works any more", {"event": "taking_over"}
                )
            self._mirror.begin(self._standing.begin(self._board, self._still))
            if self._feeding:
                self._feeding.begin(cause)
            else:
                self._target.forget_feed()
            if self._hearing:
                self._hearing.begin(self._watch, self._board)
            self._begin(cause, stale_first=stale_first)
            while True:
                self._beat_if_due()
                self._wait()
                self._report.tick()
                self._news.drain()
                self._hear()
                self._follow()
                self._bring_together()
                self._look()
                self._arrive()
                self._search()
                self._confirm()
                self._feed()
                self._step()
                self._answer()
        finally:
            self._mirror.close()
            if self._hearing:
                self._hearing.close()
            # What waited the next session finds by itself: it looks at the whole directory.
            self._board.pending = self._board.arriving = 0
            self._board.undone = self._undone + self._mirror.undone

    def _still(self) -> None:
        """Make sure that both are there. Raises RedisAwayError or DirectoryGoneError."""
        self._directory.rest()
        self._directory.wake()
        self._target.check()

    def _wait(self) -> None:
        """Wait until something happens, or until there is something to do though nothing does."""
        self._may_hear = True
        # What came while the last of it was followed is taken up already.
        if self._pending.is_ready or self._is_looking or self._mirror.is_due:
            return
        if self._can_begin_anew() or self._can_confirm() or self._can_search():
            return
        if self._hearing and self._hearing.is_waiting:
            return
        if self._feeding and self._feeding.is_due:
            return
        times = [self._schedule.beat, self._pending.due, self._report.due, self._due_together]
        times.append(self._mirror.due)
        if not self._waits_for_large_files():
            times.append(self._schedule.step)
        seconds = min(each for each in times if each is not None) - time.monotonic()
        if seconds <= 0:
            return
        self._directory.forget()
        if self._is_idle:
            self._directory.rest()
        rest = self._hearing.rests_until - time.monotonic() if self._hearing else 0.0
        if rest > 0:
            self._is_idle = False
            self._watch.wait(min(seconds, rest), alone=True)
        else:
            self._is_idle = not self._watch.wait(seconds)
            self._may_hear = self._watch.has_others
        self._directory.wake()

    def _follow(self) -> None:
        taken = time.monotonic()
        if not self._pending.is_due(taken):
            return
        self._settle()
        plan = self._pending.take(taken)
        if not plan:
            return
        arrived = self._news.arrived or taken
        if not self._pending.is_ready:
            self._news.arrived = None
        again: set[bytes] = set()
        for outcome in self._accounted(self._mirror.follow(plan), plan.owed):
            self._pending.put_back(outcome.left, plan)
            again |= outcome.again()
            lag = time.monotonic() - arrived
            self._board.followed(lag)
            self._report.done(outcome.done, lag)
        self._waiters.followed(plan, again)

    def _answer(self) -> None:
        """Answer those who wait, if what they wait for is in Redis."""
        self._waiters.answer(self._settle, self._places, is_unknown=self._is_reconciling())

    def _places(self) -> set[bytes]:
        """Return the directories that are to be looked into, or are being looked into."""
        return self._news.looks.places() | {*self._gone}

    def _hear(self) -> None:
        """Take up what others have changed in Redis."""
        if self._hearing is None or not self._may_hear:
            return
        self._hearing.drain()
        if self._hearing.has_lost and not self._mirror.takes_sides:
            self._hearing.has_lost, self._has_missed = False, True
            self._has_compared = False
            is_at_work = self._reconcile is not None
            self._schedule.want_rescan(time.monotonic(), in_reconcile=is_at_work, is_needed=True)
        names = self._hearing.take()
        if names:
            self._settle()
            began = time.monotonic()
            for outcome in self._accounted(self._mirror.hear(names)):
                self._report.done(outcome.done, time.monotonic() - began)

    @property
    def _due_together(self) -> float | None:
        """When a group is to be brought: not before a scan has found all that is in it."""
        groups = self._news.groups
        is_unknown = self._reconcile is not None and not self._reconcile.knows_all
        return None if groups is None or is_unknown else groups.due

    def _bring_together(self) -> None:
        """Bring what links make depend on each other, if it is to be brought."""
        due = self._due_together
        if self._together is None or due is None or due > time.monotonic():
            return
        self._settle()
        arrived = self._news.arrived or due
        outcome, places = self._together.bring()
        self._news.looks.add(places)
        for each in self._accounted([outcome]):
            if self._reconcile:
                self._reconcile.count(each)
            if not self._is_reconciling():
                self._report.done(each.done, time.monotonic() - arrived)

    def _look(self) -> None:
        """Do a step of a look into directories that are new, or have moved, or are gone."""
        looks = self._news.looks
        if not self._is_looking:
            return
        if self._looked is not looks.current:  # it has moved since
            self._branch = None
        if self._branch is None:
            self._branch = self._next_branch()
        if self._branch is None:
            return
        self._settle()
        arrived = self._news.arrived or time.monotonic()
        ends = time.monotonic() + _TURN
        while True:
            outcome = next(self._branch, None)
            if outcome is None:
                self._branch = self._looked = looks.current = None
                self._gone = []
                self._tell_unwatched()
                return
            for each in self._accounted([outcome]):
                if not self._is_reconciling():
                    self._report.done(each.done, time.monotonic() - arrived)
            if time.monotonic() >= ends or self._looked is not looks.current:
                return

    @property
    def _is_looking(self) -> bool:
        return self._branch is not None or bool(self._news.looks)

    def _next_branch(self) -> Iterator[Outcome] | None:
        looks = self._news.looks
        gone = [] if self._has_removed else looks.take_gone(_GONE)
        self._has_removed = bool(gone)  # the next turn is of what is there
        self._gone = gone
        if gone:
            return Stale(self._directory, self._target, self._mirror, NAMES_MAX).gone(gone)
        self._looked = look = looks.take()
        if look:
            parts = (self._directory, self._target, self._mirror, self._news)
            return Reconcile(_RESCAN, *parts, look=look).steps()
        return None

    def _tell_unwatched(self) -> None:
        """Log of how many directories nothing is heard, if that is news."""
        unwatched, directories = self._watch.unwatched
        self._board.unwatched, self._board.directories = unwatched, directories
        if unwatched and not self._unwatched:
            way_out = "each is mounted at another place in the tree, too"
            if self._watch.is_short:
                setting, most = watches_max()
                way_out = f"raise {setting} of the host to {most + unwatched} or more"
            log.error(
                "%(unwatched)s of %(directories)s cannot be watched, and are followed by rescans "
                "only: %(_way_out)s",
                {
                    "event": "unwatched",
                    "unwatched": Count(unwatched),
                    "directories": Count(directories, "directory", "directories"),
                    "_way_out": way_out,
                },
            )
        self._unwatched = unwatched

    def _settle(self) -> None:
        """See what became of what a reconcile has sent last, before anything else is done."""
        if self._mirror.is_sending:
            for outcome in self._accounted([self._mirror.flush()]):
                if self._reconcile and not self._branch:
                    self._reconcile.count(outcome)

    def _feed(self) -> None:
        """Tell of what there is, where the stream of changes begins anew."""
        if self._feeding and self._feeding.is_due:
            self._settle()
            self._feeding.step()

    def _arrive(self) -> None:
        """Take up large files that have come, and begin with the next."""
        if not self._mirror.is_due:
            return
        self._settle()
        began, owed = self._mirror.began, self._waiters.owed()
        for outcome in self._accounted(self._mirror.arrive(), owed):
            self._waiters.arrived(outcome, began)
            if self._reconcile:
                self._reconcile.count(outcome)
            if not self._is_reconciling():
                self._report.done(outcome.done, time.monotonic() - began)

    def _can_begin_anew(self) -> bool:
        return self._watch.lost and (not self._is_reconciling() or self._waits_for_large_files())

    def _can_search(self) -> bool:
        reads_on = self._is_reconciling() and not self._waits_for_large_files()
        return self._mirror.links.is_searching and not reads_on

    def _search(self) -> None:
        """Look on for the other names of files that were found to have some."""
        if self._can_search():
            self._settle()
            found = self._mirror.links.search(_SEARCHED)
            for outcome in self._accounted(self._mirror.examine(found, alone=True)):
                self._report.done(outcome.done, 0.0)

    def _accounted(
        self, outcomes: Iterable[Outcome], owed: Container[bytes] | None = None
    ) -> Iterator[Outcome]:
        """Yield what became of names, and see to the rest of the service after each.

        It may be known which of the names are `owed`, that is, something under them is finished.
        """
        for outcome in outcomes:
            yield outcome
            self._account(outcome, owed)
            self._news.drain()
            self._beat_if_due()

    def _account(self, outcome: Outcome, owed: Container[bytes] | None = None) -> None:
        """Have looked at again what has to be."""
        now = time.monotonic()
        self._waiters.account(outcome, owed)
        self._board.tally.add(outcome.done)
        if self._hook:
            self._hook.changed(outcome.done)
        for name, delay in outcome.deferred.items():
            self._pending.defer([name], now, delay)
        for name, seconds in outcome.resting.items():
            self._pending.rest(name, now, seconds)
        self._pending.add(
            [Changed(name) for name in outcome.free if not self._pending.has_news(name)], now
        )
        self._pending.hold_back(outcome.held_back, now)
        self._pending.wait_no_more(outcome.overdue)
        self._pending.look_again(outcome.others, now)
        if outcome.is_doubtful or self._mirror.links.doubt:
            self._mirror.links.doubt = False
            self._schedule.want_rescan(now, in_reconcile=self._reconcile is not None)

    def _beat_if_due(self) -> None:
        now = time.monotonic()
        if now < self._schedule.beat:
            return
        self._directory.rest()
        self._directory.wake()  # tells whether it is still the same
        self._target.check()  # when idle, the only way to notice that Redis was away or flushed
        if self._feeding:
            self._feeding.beat()
        self._account(self._mirror.keep_room())
        self._mirror.forget_moved()
        if self._hearing:
            self._standing.end_take(is_taking=self._mirror.is_taking)
            self._standing.beat(self._hearing.answered, is_quiet=self._is_quiet())
            self._hearing.beat()
        if now >= self._again:
            self._again = now + _SELDOM
            unlisted = [name for name in self._mirror.skipped if name.endswith(b"/")]
            self._news.looks.add(map(Appeared, unlisted))
        state, detail = LIVE, ""
        if self._reconcile and self._is_reconciling():
            state, detail = RECONCILING, f"{self._reconcile.seen:,} files so far"
        self._board.arriving = len(self._mirror.coming())
        self._board.pending = len(self._pending)
        self._board.undone = self._undone + self._mirror.undone
        self._board.write(state, detail)
        self._schedule.beaten(now)
        self._has_unsure = True

    def _is_quiet(self) -> bool:
        """Say whether all that was heard of Redis has been looked at."""
        waiting = self._hearing is not None and self._hearing.is_waiting
        return not (waiting or self._pending.deferred or self._mirror.coming())

    def _can_confirm(self) -> bool:
        # Events that were lost may have been about these files: a reconcile reads them again.
        lost = self._watch.lost or self._is_reconciling() or self._is_looking
        is_busy = self._mirror.is_sending or (self._hearing and self._hearing.is_waiting)
        return self._has_unsure and not lost and not is_busy

    def _confirm(self) -> None:
        """Make entries sure while nothing happens, so that a restart need not read the files."""
        if self._can_confirm() and not self._watch.wait(0, alone=True):
            self._has_unsure = not self._mirror.confirm(self._news.drained, self._pending)

    def _begin(self, cause: ReconcileCause, *, stale_first: bool = False) -> None:
        if cause != _RESCAN:
            self._news.looks.clear()  # it looks into all directories
        self._reconcile = Reconcile(
            cause,
            self._directory,
            self._target,
            self._mirror,
            self._news,
            # What the kernel has dropped is about files.
            values=cause != _LOST,
            in_a_hurry=cause != _RESCAN,
            at_once=_RESCANNED if cause == _RESCAN else NAMES_MAX,
            stale_first=stale_first,
            contents=self._is_to_be_compared(cause),
            foreign=self._mirror.takes_keys and cause != _LOST and self._is_unheard(cause),
        )
        self._has_missed = False
        self._began = time.monotonic()
        self._schedule.begun(self._began)
        if cause != _RESCAN:
            self._report.begin()
            self._schedule.beat = self._began  # to say so

    def _is_unheard(self, cause: ReconcileCause) -> bool:
        """Say whether nobody has told what others have changed before a look for this cause."""
        hears = self._hearing is not None and self._hearing.hears and not self._has_missed
        return cause != _RESCAN or not hears

    def _is_to_be_compared(self, cause: ReconcileCause) -> bool:
        """Say whether a look compares what keys hold, and not just whether they can hold it."""
        if self._mirror.takes_sides:
            return cause != _LOST and self._is_unheard(cause)
        if self._hearing is None or cause != _RESCAN:
            return False  # what is slow comes later
        is_first, self._has_compared = not self._has_compared, True
        return is_first or not self._hearing.hears

    def _step(self) -> None:
        """Do the next step of a reconcile, when it is time for it, or begin one."""
        if self._can_begin_anew():
            self._watch.lost = False  # before the directory is looked at: they may be lost again
            log.warning(
                "the kernel's queue of file events overflowed: looking at the whole directory",
                {"event": "events_lost"},
            )
            self._begin(_LOST)
        elif self._hearing and self._hearing.has_lost and not self._is_reconciling():
            self._hearing.has_lost = False
            log.warning(
                "others change more keys than can be followed: looking at all of them",
                {"event": "news_lost"},
            )
            self._begin(ReconcileCause.MESSAGES_LOST)
        elif time.monotonic() < self._schedule.step or self._waits_for_large_files():
            return
        elif self._reconcile:
            self._go_on(self._reconcile)
        else:
            self._begin(_RESCAN)

    def _waits_for_large_files(self) -> bool:
        return self._reconcile is not None and self._reconcile.is_waiting

    def _is_reconciling(self) -> bool:
        """Say whether there is a reconcile that is not just a rescan, which may take its time."""
        return self._reconcile is not None and self._reconcile.cause != _RESCAN

    def _go_on(self, reconcile: Reconcile) -> None:
        began = time.thread_time()
        outcome = reconcile.step()
        if outcome is None:
            self._end(reconcile)
            return
        self._account(outcome)
        if reconcile.cause == _RESCAN:
            self._schedule.stepped(time.monotonic(), time.thread_time() - began)
        else:
            self._report.progress(
                reconcile.cause, reconcile.seen, reconcile.sets, reconcile.deletes
            )

    def _end(self, reconcile: Reconcile) -> None:
        self._reconcile = None
        self._tell_unwatched()
        self._board.reconciles[reconcile.cause] += 1
        if reconcile.cause == _RESCAN:
            if reconcile.sets or reconcile.deletes:
                log.info(
                    "rescan: %(transferred)d values brought, %(removed)d keys removed",
                    {
                        "event": "rescanned",
                        "transferred": reconcile.sets,
                        "removed": reconcile.deletes,
                    },
                )
        elif not self._watch.lost:  # or the next one begins at once
            self._is_in_step(reconcile)
        self._schedule.ended(time.monotonic())

    def _is_in_step(self, reconcile: Reconcile) -> None:
        self.in_step = True
        self._mirror.is_in_step(self._pending.deferred_names())
        self._standing.is_in_step(is_taking=self._mirror.is_taking)
        if self._feeding:
            self._feeding.is_in_step()
        if self._hearing and not (reconcile.was_empty or self._mirror.takes_sides):
            self._has_compared = False
            self._schedule.want_rescan(time.monotonic(), in_reconcile=False)
        self._schedule.beat = 0.0  # to say so
        self._report.reconciled(
            str(self._board.where),
            self._directory.path,
            reconcile.cause,
            self._target.count,
            reconcile.sets,
            reconcile.deletes,
            time.monotonic() - self._began,
        )
