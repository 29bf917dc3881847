"""What a session is made of, for the settings in force."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sync.core.decision import Mode
from sync.core.errors import CannotBeError, NotAsExpectedError
from sync.core.manifest import DIGEST_SIZE
from sync.disk.files import Directory
from sync.disk.own import Own
from sync.disk.watch import Watch
from sync.disk.writer import Writer
from sync.redis.listener import Listener
from sync.redis.notes import Notes
from sync.redis.target import Target
from sync.redis.waits import Waits
from sync.service.absence import Absence
from sync.service.conflicts import Conflicts
from sync.service.downloads import Downloads, Value
from sync.service.feeding import Feeding
from sync.service.hearing import Hearing
from sync.service.hook import Hook
from sync.service.lacking import Lacking
from sync.service.merge import Merge, Sides
from sync.service.mirror import Mirror
from sync.service.news import News
from sync.service.requests import Requests
from sync.service.skipped import Skipped
from sync.service.standing import Standing
from sync.service.streams import Job, Streams
from sync.service.waiters import Waiters


@dataclass(frozen=True)
class Files:
    """How files are written.

    mode     permissions of new ones
    owner    user and group of new ones; None for those of their directory
    fsync    whether a file is on the disk before it counts
    newline  what ends a file and is no part of the value
    """

    mode: int = 0o644
    owner: tuple[int | None, int | None] = (None, None)
    fsync: bool = False
    newline: bytes = b""


@dataclass
class Parts:
    """Makes the parts of one session after the other.

    Attributes:
        target: the server, the same for all sessions.
        skipped: what is not mirrored, from one session to the next.
        conflicts: what waits for somebody's decision.
        hook: runs somebody's command when something has changed; None if there is none.

    """

    target: Target
    skipped: Skipped
    notes: Notes
    conflicts: Conflicts
    spawn: Callable[[Job], None]
    listener: Listener | None = None
    mode: Mode = Mode.ONE_WAY_REPLICA
    files: Files = field(default_factory=Files)
    keeps_expired: bool = False
    delete_max: float = 0.5
    trim_newline: bool = False
    hook: Hook | None = None
    _absence: Absence | None = None

    def __post_init__(self) -> None:
        """Make what is for both ways, if the mode is."""
        if self.mode is not Mode.ONE_WAY_REPLICA:
            self._absence = Absence(self.notes, keeps_expired=self.keeps_expired)

    def own(self, directory: Directory) -> Own | None:
        """Return what knows what the service itself does on disk; None where that is nothing."""
        return Own(directory) if self._absence else None

    def mirror(
        self,
        directory: Directory,
        news: News,
        wake: Callable[[], None],
        own: Own | None,
        *,
        sparing: bool,
    ) -> Mirror:
        """Return what brings names in line with each other."""
        if self._absence is None or own is None:
            streams = Streams(self.spawn, wake, trim_newline=self.trim_newline)
            return Mirror(
                directory,
                self.target,
                streams,
                news,
                self.skipped,
                trim_newline=self.trim_newline,
                sparing=sparing,
            )
        streams = Streams(
            self.spawn,
            wake,
            trim_newline=self.trim_newline,
            new_digest=partial(hashlib.blake2b, digest_size=DIGEST_SIZE),
        )
        files = self.files
        writer = Writer(
            directory,
            own,
            mode=files.mode,
            owner=(_or_none(files.owner[0]), _or_none(files.owner[1])),
            fsync=files.fsync,
            newline=files.newline,
        )
        downloads = Downloads(self.spawn, wake, partial(self._download, writer))
        sides = Sides(self.mode, writer, self.notes, self._absence, self.conflicts, downloads)
        return Merge(
            directory,
            self.target,
            streams,
            news,
            self.skipped,
            sides,
            trim_newline=self.trim_newline,
            sparing=sparing,
        )

    def _download(self, writer: Writer, name: bytes, as_file: bool) -> Value:
        value = Value(name, self.target.download(name))
        if as_file:
            try:
                value.draft = writer.begin(name)
            except (CannotBeError, NotAsExpectedError):  # whoever finishes it finds out why
                pass
            except OSError as error:
                value.refusal = error
        return value

    def standing(self, directory: Directory) -> Standing:
        """Return what is known of the pair."""
        parts = (self.notes, self._absence, self.mode, self.delete_max)
        return Standing(directory, self.target, *parts)

    def waiters(self, directory: Directory, watch: Watch, news: News, mirror: Mirror) -> Waiters:
        """Return what answers those who wait."""
        lacking = Lacking(directory, watch, news.tells_of, self.skipped, self.conflicts)
        return Waiters(watch, news, mirror, Waits(self.target), lacking)

    def feeding(self, directory: Directory) -> Feeding | None:
        """Return what keeps the stream of changes whole; None if there is none."""
        feed = self.target.feed
        return None if feed is None else Feeding(feed, self.target, directory, self.skipped)

    def hearing(self, directory: Directory, mirror: Mirror, news: News) -> Hearing | None:
        """Return what takes up what others change in Redis; None if nobody listens."""
        if self.listener is None:
            return None
        requests = None
        if isinstance(mirror, Merge):
            requests = Requests(self.notes, mirror.decided)
        parts = (self.listener, directory, self.target, mirror, news, requests, self.mode)
        return Hearing(*parts)


def _or_none(number: int | None) -> int:
    return -1 if number is None else number
