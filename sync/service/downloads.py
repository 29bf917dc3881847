"""Large values on their way from Redis: one at a time, beside everything else.

A thread reads the value, and writes it aside where it may become a file. It decides nothing: when
all has come, whoever asked for it looks whether the value is still that one.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sync.core.errors import RedisAwayError
from sync.core.manifest import DIGEST_SIZE
from sync.disk.writer import Draft
from sync.redis.download import Download
from sync.service.streams import Job

_REST = 3.0  # times as long as it took, before a value that changes is brought again
_REST_MAX = 5.0  # seconds


@dataclass(eq=False)
class Value:
    """A value on its way, or that has come.

    Attributes:
        name: of its key.
        draft: where it is written aside; None when it can be no file, or is not to be one.
        refusal: what the disk said when it was to be written aside.
        began: when that was (s).
        took: how long it took to come (s).
        digest: of the value; None while it is on its way, and when it could not be read.
        size: how many bytes have come.
        has_ended: whether no more will come.
        error: what ended it, if that was an error.
        is_void: whether nobody wants it any more.
        is_used: whether it was found out already whether the key still holds it.

    """

    name: bytes
    source: Download
    draft: Draft | None = None
    refusal: OSError | None = None
    began: float = field(default_factory=time.monotonic)
    took: float = 0.0
    digest: bytes | None = None
    size: int = 0
    has_ended: bool = False
    error: Exception | None = None
    is_void: bool = False
    is_used: bool = False

    def close(self) -> None:
        """Let go of it."""
        self.is_void = True
        if self.has_ended:
            self.source.close()
            if self.draft:
                self.draft.close()


@dataclass
class Downloads:
    """The large values that are wanted.

    Attributes:
        current: the one on its way, or that has come.
        waiting: the names whose turn comes later, and whether each may become a file.
        is_told: whether the name of the current one was told since it has come.

    """

    spawn: Callable[[Job], None]  # has a job done beside what the caller does
    wake: Callable[[], None]  # is called, from there, when it is done
    begin: Callable[[bytes, bool], Value]  # makes one, to be written aside or not
    current: Value | None = None
    waiting: dict[bytes, bool] = field(default_factory=dict)
    _rests: dict[bytes, float] = field(default_factory=dict)
    is_told: bool = False

    def names(self) -> set[bytes]:
        """Return the names of those that are on their way, or wait, or have come untold."""
        current = self.current if not self.is_told else None
        return {*self.waiting, *([current.name] if current else [])}

    @property
    def error(self) -> Exception | None:
        """What has ended the one that was told last, if that was an error."""
        return self.current.error if self.current and self.is_told else None

    @property
    def is_due(self) -> bool:
        """Say whether there is something to do: one has come, or the next can begin."""
        if self.current is None:
            return self._first() is not None
        return self.current.has_ended and not (self.is_told and self._first() is None)

    @property
    def due(self) -> float | None:
        """When the first of those that rest may begin; None if none waits for that."""
        if self.current or not self._rests:
            return None
        return min(
            (self._rests[name] for name in self.waiting if name in self._rests), default=None
        )

    def want(self, name: bytes, *, as_file: bool) -> None:
        """Have a value brought, `as_file` if it may become one; `next` tells when it has come."""
        current = self.current
        if current and current.name == name:
            if not current.has_ended:
                return
            self.drop()
        self.waiting[name] = as_file or self.waiting.get(name, False)

    def _first(self) -> bytes | None:
        """Return the first name that does not rest."""
        if not self._rests:
            return next(iter(self.waiting), None)
        now = time.monotonic()
        return next((name for name in self.waiting if self._rests.get(name, 0.0) <= now), None)

    def next(self) -> bytes | None:
        """Return the name of the value that has come, once, or begin with the next."""
        if self.current is None and (name := self._first()) is not None:
            self._rests.pop(name, None)
            self.current, self.is_told = self.begin(name, self.waiting.pop(name)), False
            self.spawn(self._job(self.current))
        if self.current and self.current.has_ended and not self.is_told:
            self.is_told = True
            return self.current.name
        return None

    def found(self, name: bytes) -> Value | None:
        """Return the value of a name that has come; it is there until it is dropped."""
        current = self.current
        return current if current and current.name == name and current.has_ended else None

    def use(self, name: bytes, *, as_file: bool) -> bytes | None:
        """Return the digest of what a key holds; None, and have it brought, if it has not come.

        It is what the key holds by now, for whoever watches it already. It can be used once. One
        that has changed meanwhile rests for some times as long as it took to come.
        """
        value = self.found(name)
        if value is None or value.is_used or value.digest is None:
            self.want(name, as_file=as_file)
            return None
        value.is_used = True
        if not value.source.is_still():
            self._rests[name] = time.monotonic() + min(_REST * value.took, _REST_MAX)
            self.want(name, as_file=as_file)
            return None
        return value.digest

    def drop(self) -> None:
        """Let go of what is on its way, or has come."""
        if self.current:
            self.current.close()
            self.current = None
        self.is_told = False

    def _job(self, value: Value) -> Job:
        try:
            found = hashlib.blake2b(digest_size=DIGEST_SIZE)
            for piece in value.source.pieces():
                if value.is_void:
                    return
                found.update(piece)
                value.size += len(piece)
                if value.draft:
                    value.draft.write(piece)
                yield
            value.digest = found.digest()
        except (OSError, RedisAwayError) as error:
            value.error = error
        finally:
            value.took = time.monotonic() - value.began
            value.has_ended = True
            if value.is_void:
                with suppress(OSError):
                    value.close()
            self.wake()
