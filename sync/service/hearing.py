"""What others change in Redis, and is not followed yet.

As with the directory, what is heard says where to look. A name that was heard of is looked at again
like one whose file could not be read: whatever waits for its writer goes on waiting for it.
"""

import logging
import time
from collections.abc import Iterable
from itertools import islice

from sync.core.decision import Mode
from sync.disk.files import Directory
from sync.disk.watch import Watch
from sync.redis.listener import BY_NOTIFICATIONS, BY_RESCANS, BY_TRACKING, Heard, Listener
from sync.redis.target import Target
from sync.report.board import Board
from sync.service.mirror import Mirror
from sync.service.news import News
from sync.service.requests import Requests

log = logging.getLogger(__name__)

_NAMES_MAX = 200_000  # names remembered, some 30 MB
_ASKED_MAX = 2_000  # names of which it is asked at once whether they are the mirror's
_AT_ONCE = 700  # names that are looked at together
# Each wake takes as long as much that is heard at once. When it was all others', what comes next
# most likely is, too.
_PAUSE = 0.002  # seconds
_BEATS = 8  # of so many signs of life one asks the listener: to be woken by the answer takes long
_WAITING_MAX = 2 * _AT_ONCE  # names that wait in the plan; if some are due, these go first
_SAID = {
    BY_NOTIFICATIONS: "it goes by the keyspace notifications that are on there",
    BY_RESCANS: (
        "what others change there is found by rescans only; allow its user +client|tracking, "
        "+client|id, +subscribe and &__redis__:invalidate, or turn on notify-keyspace-events KA"
    ),
}


class Hearing:
    """The names that were heard of, from the listener to the plan.

    Attributes:
        hears: whether it is told at once what others change.
        has_lost: set when more was heard of than is remembered; the caller unsets it, and then
            looks at all.
        rests_until: until when what comes need not be taken up (s).

    """

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        listener: Listener,
        directory: Directory,
        target: Target,
        mirror: Mirror,
        news: News,
        requests: Requests | None,
        mode: Mode,
    ) -> None:
        """Take up what `listener` tells of the keys of `target`, for `mirror` to look at."""
        self._listener = listener
        self._directory = directory
        self._target = target
        self._mirror = mirror
        self._news = news
        self._requests = requests
        self._is_one_way = mode.is_one_way
        self._is_safe = mode is Mode.ONE_WAY_SAFE
        self._unsorted: dict[bytes, None] = {}  # names of which many may be others'
        self._names: dict[bytes, None] = {}
        self.has_lost = False
        self.rests_until = 0.0
        self._beats = 0

    @property
    def hears(self) -> bool:
        """Whether it is told at once what others change."""
        return self._listener.by != BY_RESCANS

    @property
    def is_waiting(self) -> bool:
        """Say whether there are names, or messages, to be taken up."""
        return bool(self._names or self._unsorted) or self._listener.has_more

    @property
    def answered(self) -> int:
        """How often it was made sure that all was heard that had happened by then."""
        return self._listener.answered

    def begin(self, watch: Watch, board: Board) -> None:
        """Listen from now on, and have `watch` wake up for it. Raises RedisAwayError."""
        self._listener.open(self._target)
        board.heard_by = by = self._listener.by
        self._mirror.hears_itself = by == BY_NOTIFICATIONS
        if (fd := self._listener.fd) is not None:
            watch.also(fd)
        if by != BY_TRACKING:
            why = self._listener.why
            log.warning(
                "Redis does not tell what others change (%(reason)s): %(_said)s",
                {"event": "not_told", "reason": why, "_said": _SAID[by], "by": by},
            )
        if self._requests:
            self.look_at(self._requests.take())

    def drain(self) -> None:
        """Take up what was heard. Raises RedisAwayError."""
        heard = self._listener.read()
        if heard.is_all:
            self._target.check()  # raises if it is this database that was flushed
        if heard.has_requests and self._requests:
            self.look_at(self._requests.take())
        if heard.names:
            self._target.overlap.hear(heard.names)
            self._take(heard)
        if self._unsorted:
            self._sort()
        elif heard.names and self._is_one_way and not self._names:
            self.rests_until = time.monotonic() + _PAUSE

    def look_at(self, names: Iterable[bytes]) -> None:
        """Have names looked at, as far as files can have them."""
        self._names.update(dict.fromkeys(self._mirror.fit(names)))

    def _take(self, heard: Heard) -> None:
        if self._is_one_way:
            may_be = self._is_safe or self._mirror.skipped
            open_ones = list(filter(self._mirror.is_open, heard.names)) if may_be else []
            self.look_at(open_ones)
            unknown = self._target.unknown(heard.names).difference(open_ones)
            self._unsorted.update(dict.fromkeys(unknown))
        else:
            self.look_at(heard.names)
        if len(self._names) + len(self._unsorted) > _NAMES_MAX:
            self._names.clear()
            self._unsorted.clear()
            self.has_lost = True

    def _sort(self) -> None:
        """Find the mirror's keys among some names, which on a busy server are few.

        The manifest knows: a key that is not in it by now, after it was changed, is nobody's, or
        will be set to what its file has.
        """
        names = list(islice(self._unsorted, _ASKED_MAX))
        for name in names:
            del self._unsorted[name]
        self._names.update(dict.fromkeys(self._target.ours(self._mirror.followed(names))))
        self.has_lost |= self._mirror.has_moved_more

    def take(self) -> list[bytes]:
        """Return names that are to be looked at, as many as there is room for, and forget them."""
        pending = self._news.pending
        is_full = pending.deferred >= _WAITING_MAX and pending.is_due(time.monotonic())
        if not self._names or is_full:
            return []
        names = list(islice(self._names, _AT_ONCE))
        for name in names:
            del self._names[name]
        return self._mirror.followed(names)

    def beat(self) -> None:
        """Make sure that it still hears, or look itself. Raises RedisAwayError."""
        # With requests there is somebody who goes by how often it has answered.
        self._beats = (self._beats + 1) % _BEATS
        if self._requests or not self._beats:
            self._listener.beat()
        if self._requests and not self.hears:
            self.look_at(self._requests.take())

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
