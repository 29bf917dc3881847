"""Large files on their way to Redis: one at a time, beside everything else.

A thread reads the file and sends it over a connection of its own, so nothing that is small waits
for what is large. The thread decides nothing: when all has come, the service looks at what has
happened meanwhile and has the value take effect, or not.

A file that changes while it is sent could come over half in one state and half in another. So what
was sent has a digest; when the file has changed by the end, it is read once more, and only if those
bytes are still what it has does the value count, as that of a file that grows does.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Thread
from typing import Protocol

from sync.core.changes import Signature
from sync.disk.files import LargeFile
from sync.redis.upload import Upload

Job = Iterator[None]


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""

    def digest(self) -> bytes:
        """Return the digest of all that was taken in."""


class End(Enum):
    """How the bringing of a file ended."""

    WHOLE = auto()  # all of it has come
    CHANGED = auto()  # it has changed meanwhile: what has come never was in the file
    LOCKED = auto()  # its writer has locked it
    FAILED = auto()  # the error says why


@dataclass(eq=False)
class Stream:
    """A file on its way.

    Attributes:
        name: whose value it is to be.
        overdue: whether it counts though a writer may be at work in it.
        heard: whether there was news of that writer; if not, one of whom there is news is another.
        end: how it ended; None while it is on its way.
        error: what ended it, if that was an error.
        signature: of the file whose content has come.
        began_as: its signature when it began to be sent.
        began: when that was (s).
        steady: whether that is the whole file, as it was in the end.
        racy: whether a write after that might not show in the signature.
        digest: of what has come.
        is_void: whether the service has found something else under the name since.

    """

    name: bytes
    file: LargeFile
    upload: Upload
    overdue: bool
    heard: bool
    signature: Signature
    began_as: Signature
    began: float
    end: End | None = None
    error: Exception | None = None
    steady: bool = False
    racy: bool = True
    digest: bytes = b""
    is_void: bool = False

    def could_be(self, signature: Signature) -> bool:
        """Say whether what comes may still be what a file of this signature has, or begins with.

        A file that has grown begins as it did, perhaps; one that was rewritten does not.
        """
        began = self.began_as
        if self.is_void or self.end or signature.inode != began.inode:
            return False
        return signature.mtime == began.mtime or signature.size > began.size


@dataclass
class Streams:
    """The large files that are to be brought.

    Attributes:
        current: the one on its way, or that has come and has not been taken yet.
        waiting: the names whose turn comes later, and whether each is overdue, and heard.

    """

    spawn: Callable[[Job], None]  # has a job done beside what the caller does
    wake: Callable[[], None]  # is called, from there, when it is done
    trim_newline: bool = False
    new_digest: Callable[[], Digest] = hashlib.sha256
    current: Stream | None = None
    waiting: dict[bytes, tuple[bool, bool]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many files are on their way, or wait."""
        return len(self.waiting) + (self.current is not None)

    @property
    def began(self) -> float:
        """When the one began that is on its way (s); 0 when none is."""
        return self.current.began if self.current else 0.0

    def names(self) -> set[bytes]:
        """Return whose values are on their way, or wait."""
        return {*self.waiting, *([self.current.name] if self.current else [])}

    def overdue(self) -> set[bytes]:
        """Return those of these names whose writers may be at work."""
        names = {name for name, (is_overdue, _) in self.waiting.items() if is_overdue}
        return names | ({self.current.name} if self.current and self.current.overdue else set())

    @property
    def is_done(self) -> bool:
        """Say whether the one on its way has ended."""
        return self.current is not None and self.current.end is not None

    @property
    def is_due(self) -> bool:
        """Say whether there is something to do: one has come, or the next can begin."""
        return self.is_done or (self.current is None and bool(self.waiting))

    def start(
        self, name: bytes, file: LargeFile, upload: Upload, *, overdue: bool, heard: bool
    ) -> None:
        """Bring a file, which is closed in the end; nothing else may be on its way."""
        assert self.current is None  # noqa: S101  # the caller's defect
        self.waiting.pop(name, None)
        was = file.signature
        stream = Stream(name, file, upload, overdue, heard, was, was, time.monotonic())
        self.current = stream
        self.spawn(self._job(stream))

    def wait(self, name: bytes, *, overdue: bool, heard: bool) -> None:
        """Have a file looked at again when the one on its way has come."""
        self.waiting[name] = overdue, heard

    def next(self) -> tuple[bytes, bool, bool] | None:
        """Return the name whose turn it is, and forget it; None when there is none yet.

        With it comes whether it is overdue, and whether its writer was heard of.
        """
        if self.current is not None or not self.waiting:
            return None
        name = next(iter(self.waiting))
        return name, *self.waiting.pop(name)

    def void(self, name: bytes) -> None:
        """Take note that something else was found under a name: what comes for it is no use."""
        self.waiting.pop(name, None)
        if self.current and self.current.name == name:
            self.current.is_void = True

    def hold_back(self, name: bytes) -> None:
        """Take note that there is a writer whose close is to be waited for."""
        if self.current and self.current.name == name:
            self.current.heard = False
        if name in self.waiting:
            self.waiting[name] = False, False

    def take(self) -> Stream | None:
        """Return the one that has ended, if one has, and forget it."""
        if not self.is_done:
            return None
        stream, self.current = self.current, None
        return stream

    def close(self) -> None:
        """Let go of what is on its way; its thread ends by itself."""
        if self.current:
            self.current.is_void = True

    def _job(self, stream: Stream) -> Job:
        end = End.FAILED
        try:
            with closing(stream.file):
                end = yield from self._bring(stream)
        except Exception as error:  # noqa: BLE001  # whoever takes the stream raises it
            stream.error = error
        finally:
            if end is not End.WHOLE:
                stream.upload.void()
            stream.end = end
            self.wake()

    def _bring(self, stream: Stream) -> Generator[None, None, End]:
        """Send the file, and say what has come of it."""
        file, upload = stream.file, stream.upload
        size = file.size
        if self.trim_newline and file.ends_with(b"\n"):
            size -= 1
        upload.begin(size)
        digest, sent = self.new_digest(), 0
        early, early_size = b"", 0
        for piece in file.pieces():
            if stream.is_void:
                return End.CHANGED
            part = piece[: size - sent]
            upload.send(part)
            digest.update(part)
            # Later a file that grows cannot be told from one that was rewritten and begins alike.
            if not sent and not stream.overdue and not file.is_unchanged():
                return End.CHANGED
            sent += len(part)
            if file.racy:  # a write in this tick of the clock may leave no trace
                early, early_size = digest.digest(), sent
                file.is_still()
            yield
        if sent < size:
            return End.CHANGED
        upload.end()
        stream.digest = digest.digest()
        if file.is_locked():
            return End.LOCKED
        if file.is_unchanged():
            stream.steady, stream.racy = True, file.racy
            is_same = yield from self._begins_with(stream, early, early_size)
            return End.WHOLE if is_same else End.CHANGED
        return (yield from self._compare(stream, file.size, size, digest.digest()))

    def _compare(
        self, stream: Stream, size: int, sent: int, digest: bytes
    ) -> Generator[None, None, End]:
        """Say whether the first bytes of a file that had `size` bytes are those that were sent."""
        file = stream.file
        file.look()
        if not (yield from self._begins_with(stream, digest, sent)):
            return End.CHANGED
        stream.signature, stream.racy = file.signature, file.racy
        stream.steady = file.size == size and file.is_unchanged()
        return End.WHOLE

    def _begins_with(self, stream: Stream, digest: bytes, size: int) -> Generator[None, None, bool]:
        """Read a file once more; say whether its first bytes, so many, have this digest."""
        if not size:
            return True
        found, read = self.new_digest(), 0
        for piece in stream.file.pieces():
            if stream.is_void or read >= size:
                break
            found.update(piece[: size - read])
            read += len(piece)
            stream.upload.renew()
            yield
        return found.digest() == digest


def in_thread(job: Job) -> None:
    """Do a job in a thread of its own, which does not keep the process from ending."""
    Thread(target=lambda: deque(job, maxlen=0), name="large file", daemon=True).start()


def at_once(job: Job) -> None:
    """Do a job before anything else is done."""
    deque(job, maxlen=0)
