"""Those who wait for the service, from the cookies that they make to the answers that they get."""

import logging
import time
from collections.abc import Callable, Collection, Container, Iterable

from sync.core.errors import RedisRefusedError
from sync.core.plan import Plan
from sync.disk.watch import Watch
from sync.redis.waits import Waits
from sync.report.log import Lines
from sync.service.barrier import Barriers, Waiting
from sync.service.lacking import Lacking
from sync.service.mirror import Mirror, Outcome
from sync.service.news import News

log = logging.getLogger(__name__)


class Waiters:
    """Those who wait for what a session follows."""

    def __init__(
        self, watch: Watch, news: News, mirror: Mirror, waits: Waits, lacking: Lacking
    ) -> None:
        """Hear of them by `watch`, and answer by way of `waits` what is `lacking` for good.

        What happens comes by `news`, and goes by way of `mirror`.
        """
        self._watch = watch
        self._news = news
        self._pending = news.pending
        self._mirror = mirror
        self._waits = waits
        self._lacking = lacking
        self._barriers = Barriers()
        self._lines = Lines(
            log,
            logging.ERROR,
            "wait_unanswered",
            "Redis refuses what tells `mdvp-sync wait` that all is there (%(reason)s): "
            "`mdvp-sync acl` prints what a user needs",
            "others who wait are not answered either",
        )

    def account(self, outcome: Outcome, among: Container[bytes] | None = None) -> None:
        """Take note of what is to be looked at again because of what became of names.

        Of those that were looked at only some were finished, if it is said `among` which.
        """
        again = outcome.again()
        owed = again - outcome.locked if among is None else set(filter(among.__contains__, again))
        owed |= outcome.others | set(outcome.free)
        if owed:  # mostly all was carried out
            owed -= outcome.done_names()
            self._pending.owe(owed)
            self._barriers.owe(owed)

    def followed(self, plan: Plan, again: Collection[bytes]) -> None:
        """Take note that all of a plan was looked at, but for what is to be looked at `again`."""
        coming = self._mirror.coming()
        self._pending.owe(plan.owed & coming)
        if self._barriers:
            names = {*plan.examine, *plan.moves, *plan.moves.values()}
            self._barriers.brought(names - set(again) - coming)

    def arrived(self, outcome: Outcome, began: float) -> None:
        """Take note of a large file that has come, which was begun with at some time (s)."""
        done = outcome.done_names()
        self._barriers.brought(done - outcome.resting.keys())
        self._barriers.brought(done & outcome.resting.keys(), began)  # it has changed since

    def owed(self) -> set[bytes]:
        """Return the names of which something finished is to be followed."""
        coming = self._mirror.coming()
        owed = self._pending.owed(coming) | (coming - self._mirror.streams.overdue())
        return owed - self._given_up(owed)

    def _given_up(self, names: Iterable[bytes]) -> set[bytes]:
        """Return those of some names that cannot be mirrored, and are tried again for ever."""
        skipped, has_news = self._mirror.skipped, self._pending.has_news
        return {name for name in names if name in skipped and not has_news(name)}

    def answer(
        self,
        settle: Callable[[], None],
        places: Callable[[], Collection[bytes]],
        *,
        is_unknown: bool,
    ) -> None:
        """Answer those for whom all is in Redis. Raises RedisAwayError.

        What was sent to Redis last is settled first, by `settle`. The directories that are to be
        looked into `places` returns: they may be many, and mostly nobody waits. All is to be looked
        at if it `is_unknown` what has happened.
        """
        now = time.monotonic()
        self._barriers.add(self._watch.take_cookies(), now)
        if not self._barriers:
            return
        settle()
        groups = self._news.groups
        is_together = groups is not None and groups.is_waiting
        waiting = Waiting(
            is_unknown or self._watch.lost,
            places(),
            is_together or self._mirror.links.is_searching,
            self._pending.is_ready,
            self.owed,
            self._among,
        )
        for token in self._barriers.take(waiting, now):
            if refusal := self._waits.answer(token, self._problems(token)):
                self._lines.write(reason=refusal)

    def _problems(self, token: bytes) -> dict[bytes, str]:
        try:
            return self._lacking.at(self._waits.paths(token))
        except RedisRefusedError as error:
            return {b"": f"Redis refuses to tell the service what is waited for: {error}"}

    def _among(self, names: Iterable[bytes]) -> set[bytes]:
        names = set(names)
        waiting = self._pending.among(names) | (names & self._mirror.coming())
        return waiting - self._given_up(waiting)
