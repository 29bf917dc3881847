"""The stream of changes: sees to it that it tells all, and has it begin anew where it may not.

Failure model. What cannot be told is never a reason not to mirror: the stream stands still then,
which is said, and begins anew when it can. While it begins anew what happens is followed, and told,
between two pages of what there is: each page is read and told with nothing in between.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

from sync.core.changes import Delete, Record, shown
from sync.core.errors import RedisRefusedError
from sync.disk.files import Directory
from sync.redis.connection import Request
from sync.redis.feed import Feed, Found
from sync.redis.info import lines_of, run_of
from sync.redis.target import Target
from sync.service.skipped import Skipped

log = logging.getLogger(__name__)

_PAGE = 500  # names that are told of at once
_FILE = (
    "has the name of the stream of changes, so it is not mirrored: rename the file, or set another "
    "SYNC_STREAM"
)
_REFUSED = (
    "is to be the stream of changes, and stands still, since Redis refuses it (%s); it begins anew "
    "when that is over: delete or rename a key that is in its way, give its user the rights that "
    "`mdvp-sync acl` prints, or set another SYNC_STREAM"
)


class Feeding:
    """Keeps the stream of `target` whole for one session."""

    def __init__(self, feed: Feed, target: Target, directory: Directory, skipped: Skipped) -> None:
        """List in `skipped` why there is no stream, or that a file in `directory` has its name."""
        self._feed = feed
        self._target = target
        self._directory = directory
        self._skipped = skipped
        self._run = b""
        self._pages: Iterator[Mapping[bytes, bytes]] | None = None
        self._is_lost = False
        self._told = 0  # names, since it last began anew

    def begin(self, cause: str) -> None:
        """Begin a session: go on with the stream, or begin it anew. Raises RedisAwayError."""
        feed = self._feed
        feed.stop()
        feed.may_trim = False
        *told, noted, stream = self._target.converse(
            (b"INFO", b"server"), (b"INFO", b"replication"), *feed.questions
        )
        self._run = run_of(lines_of(told))
        found = feed.found((noted, stream), self._run)
        found = self._without_key(found)
        if found.is_whole and found.last and self._run:
            feed.go_on(found.last[1], found.added)
            self._add(feed.begun(cause))
        else:
            self._begin_anew(found, cause)
        self._tell()

    def _without_key(self, found: Found) -> Found:
        """Give up the key of the stream's name, if it is a file's from before there was a stream.

        Where Redis may have what no file has, it is left to somebody to look at it.
        """
        name = self._feed.name
        if not self._target.are_ours([name])[0]:
            return found
        is_key = "WRONGTYPE" in found.refusal and not self._target.format.digests
        self._target.apply([Delete(name) if is_key else Record(name, None)])
        return Found() if is_key else found

    def is_in_step(self) -> None:
        """Take note that it is known how many names Redis holds."""
        self._feed.may_trim = True

    @property
    def is_due(self) -> bool:
        """Say whether there is something to tell that is not about a change."""
        return self._is_lost or self._pages is not None

    def beat(self) -> None:
        """Find out whether the stream is as it was left. Raises RedisAwayError."""
        is_begun = self._target.is_begun  # then the last entry is not known yet
        questions = self._feed.questions[: 1 if is_begun else None]
        found = self._feed.found(self._target.converse(*questions), self._run, is_partial=True)
        is_whole = found.is_whole and (is_begun or self._feed.is_at(found))
        self._is_lost |= bool(self._feed.refusal or found.refusal) or not is_whole
        self._tell()

    def step(self) -> None:
        """Tell what is to be told next; nothing may be on its way to Redis.

        Raises RedisAwayError.
        """
        self._target.unwatch()
        if self._is_lost:
            self._is_lost, self._pages = False, None
            feed = self._feed
            found = feed.found(self._target.converse(*feed.questions), self._run)
            self._begin_anew(found)
        elif self._pages:
            self._go_on(self._pages)
        self._tell()

    def _begin_anew(self, found: Found, cause: str | None = None) -> None:
        last = found.last[1] if found.last else 0
        self._feed.go_on(max(last, time.time_ns() // 1000), found.added)
        self._told = 0
        if found.refusal:
            self._stop(found.refusal)
        elif self._add(self._feed.begun_anew(self._run, cause)):
            self._pages = self._held()

    def _go_on(self, pages: Iterator[Mapping[bytes, bytes]]) -> None:
        page = next(pages, None)
        if page is None:
            self._pages = None
            if self._add(self._feed.is_all()):
                told = self._told
                log.info(
                    "the stream %(stream)s has begun anew, with %(names)d names",
                    {"event": "stream_begun", "stream": self._name, "names": told},
                )
            return
        requests = self._feed.held(page, self._target.format)
        self._told += len(requests)
        self._add(requests)

    def _held(self) -> Iterator[Mapping[bytes, bytes]]:
        """Yield all that the manifest has, in pages."""
        places = [b""]
        while places:
            for page in self._target.manifest(places.pop(), _PAGE):
                places += [mark for mark in page if mark.endswith(b"/")]
                yield page

    def _add(self, requests: Sequence[Request]) -> bool:
        """Add to the stream; say whether that was done."""
        if not requests:
            return True
        try:
            answers = self._target.transact(requests)
        except RedisRefusedError as error:
            self._stop(str(error))
            return False
        refusal = next((str(each) for each in answers if isinstance(each, Exception)), None)
        if refusal is not None:
            self._stop(refusal)
            return False
        pairs = zip(requests, answers, strict=True)
        self._feed.take([answer for request, answer in pairs if request[0] == b"XADD"])
        return True

    def _stop(self, refusal: str) -> None:
        self._feed.stop(refusal)
        self._pages = None

    def _tell(self) -> None:
        """Say why there is no stream, or that a file is called like it."""
        feed, directory = self._feed, self._directory
        why = ""
        if feed.refusal:
            self._target.forget_feed()  # it is not whole any more
            why = _REFUSED % feed.refusal
        elif (directory.is_tree or b"/" not in feed.name) and directory.has(feed.name):
            why = _FILE
        self._skipped.note_stream(feed.name, why)

    @property
    def _name(self) -> str:
        return shown(self._feed.key)
