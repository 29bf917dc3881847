"""A directory in which symbolic links are followed, as far as they lead to what is within it.

Failure model. That of `files`, and that of `resolver`: a link that leads elsewhere, or nowhere, is
no file, and the words say why. Where it leads is found out anew for each look, so a look may find
what another one did not; what changed in between is told, since all that was passed is watched.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sync.core.changes import Signature, place_of
from sync.core.exclude import Excluded
from sync.core.routes import Routes, is_hidden
from sync.disk.files import Directory
from sync.disk.places import Opened, Places
from sync.disk.resolver import Link, Resolver, no_such_file


class LinkedDirectory(Directory):
    """A directory, in which files are looked up by the paths that users know.

    These may lead through links; what a real path is, see `routes`. A component that begins with
    two dots is in no known path. What is excluded is so by its known path.

    Attributes:
        routes: what was found on the ways of links.

    """

    def __init__(
        self, path: Path, excluded: Excluded | None = None, *, is_tree: bool = False
    ) -> None:
        """Open the directory at `path`; raise DirectoryGoneError if there is none."""
        super().__init__(path, excluded, is_tree=is_tree)
        match = self._excluded
        self._excluded = lambda path: is_hidden(path) or match(path)
        self.routes = Routes(is_tree=is_tree)
        self._places = Places(lambda _: False)
        assert self._identity  # noqa: S101  # it is open
        self._places.begin(self._fd, self._identity)
        self._resolver = Resolver(os.fsencode(path), self._places, self._excluded, self.routes)

    @property
    def ground(self) -> "Ground":
        """The real directories."""
        return Ground(self._places, self._wants)

    def _wants(self, place: bytes) -> bool:
        ends = (end + 1 for end, byte in enumerate(place) if byte == ord("/"))
        return self.is_tree and not any(self._excluded(place[:end]) for end in ends)

    def watch_by(self, enter: Callable[[bytes], bool]) -> None:
        """Have real directories watched by `enter` before they are looked into."""
        self._resolver.watch = enter

    def moment(self) -> AbstractContextManager[dict[bytes, Link]]:
        """Have no link change for the time of a block, as `Resolver.moment` does."""
        return self._resolver.moment()

    def is_still(self, moment: dict[bytes, Link]) -> bool:
        """Say whether links are still what they were in a moment."""
        return self._resolver.is_still(moment)

    def link_at(self, real: bytes) -> Link | None:
        """Return the link that has a real path now, None if there is none."""
        return self._resolver.link_at(real)

    def real(self, path: bytes) -> bytes | None:
        """Return the real path of what a known path leads to, None if nobody knows."""
        try:
            return self._resolver.resolve(path)
        except OSError:
            return None

    def leads_to_place(self, path: bytes) -> bool:
        """Say whether a known path is a link to a directory that is mirrored as if it were here."""
        real = self.real(path)
        if real is None or path not in self.routes:
            return False
        return self.routes.is_place(path)

    def open_at(self, place: bytes) -> Opened:
        """Return the directory that a known place leads to, as `Directory.open_at` does."""
        return self._resolver.enter(self.real_place(place))

    def real_place(self, place: bytes) -> bytes:
        """Return the place of the directory that a known place leads to; raises as `open_at`."""
        if not place:
            return place
        if self._excluded(place):
            raise no_such_file()
        real = self._resolver.resolve(place)
        return real + b"/" if real else real

    def _at(self, path: bytes) -> tuple[int, int, bytes]:
        real = self._resolver.resolve(path)
        place = place_of(real)
        fd, salt, _ = self._places.at(place)
        return fd, salt, real[len(place) :] or b"."

    def _stat(self, path: bytes) -> tuple[os.stat_result, int]:
        fd, salt, name = self._at(path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False), salt

    def names(self, place: bytes = b"") -> Iterator[tuple[bytes, bool]]:
        """Yield what `Directory.names` does; a link is what it leads to."""
        for name, status, _ in self._entries(place):
            if not self._excluded(name):
                yield name, status is not None and stat.S_ISREG(status.st_mode)

    def files(self, place: bytes = b"") -> Iterator[tuple[bytes, Signature | None, int]]:
        """Yield what `Directory.files` does; a link is what it leads to."""
        for name, status, salt in self._entries(place):
            if self._excluded(name):
                continue
            if status is not None and stat.S_ISREG(status.st_mode):
                yield name, Signature.of(status, salt), status.st_nlink
            else:
                yield name, None, 0

    def _inodes(self, place: bytes) -> Iterator[tuple[bytes, int]]:
        for name, status, salt in self._entries(place):
            if status is not None:
                yield name, status.st_ino ^ salt

    def _entries(self, place: bytes) -> Iterator[tuple[bytes, os.stat_result | None, int]]:
        """Yield all paths at a place, each with its file's status, if it is known, and salt."""
        with self._scan(place) as (entries, of_place):
            for entry in entries:
                name, status, salt = place + os.fsencode(entry.name), None, of_place
                if entry.name.startswith(".."):
                    continue
                try:
                    if entry.is_symlink():
                        status, salt = self._stat(name)
                    else:
                        status = entry.stat(follow_symlinks=False)
                    if self.is_tree and stat.S_ISDIR(status.st_mode):
                        self._resolver.resolve(name)  # raises if it is one above it once more
                        name += b"/"
                except FileNotFoundError:
                    continue
                except OSError:  # one bad entry says nothing of the others
                    status = None
                yield name, status, salt

    def has(self, path: bytes) -> bool:
        """Say what `Directory.has` does; a link is there wherever it leads."""
        if not self.is_there(path):
            return False
        try:
            mode = self._stat(path)[0].st_mode
        except OSError:
            return True
        return not (self.is_tree and stat.S_ISDIR(mode))

    def is_there(self, path: bytes) -> bool:
        """Say whether there is anything of a known path, be it a link that leads nowhere."""
        place = place_of(path)
        name = path[len(place) :]
        if name.startswith(b".."):
            return False
        try:
            os.stat(name, dir_fd=self.open_at(place).fd, follow_symlinks=False)
        except OSError:
            return False
        return True


class Ground:
    """The real directories below a root, of any name, for whoever watches them."""

    def __init__(self, places: Places, wants: Callable[[bytes], bool]) -> None:
        """Look them up in `places`; those that it `wants` are watched when they appear."""
        self._places = places
        self.wants = wants
        self.open_at = places.at
        self.forget = places.forget

    def leave_out(self, place: bytes, *, really: bool = True) -> None:
        """Have nothing looked up at a place, or have it looked up again."""
        (self._places.left_out.add if really else self._places.left_out.discard)(place)
