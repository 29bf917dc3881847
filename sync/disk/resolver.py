"""Follows symbolic links, component by component, as far as they stay within the root.

Failure model. Whoever can write to the directory can change it between two steps. So nothing is
ever opened by way of a link: a link is read (readlinkat(2)) relative to the open directory that it
is in, what it says is walked in the same way from there, and the path that comes out has no link in
it. Should somebody put one there meanwhile, to open that path fails: `places` follows none. A path
never leads above the root, since `..` takes away a component of the path that was walked.

Each directory is watched before it is looked into, so that whatever changes on a way afterwards is
told; `Routes` says which known paths that is about.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sync.core.changes import place_of, shown
from sync.core.routes import PLACES_MAX, Routes, Way
from sync.disk.places import Opened, Places, too_long

_STEPS_MAX = 4096  # on one way
_LINKS_MAX = 40  # on one way, as the kernel has it: path_resolution(7)
_NOWHERE = "is a symbolic link that leads to nothing: not mirrored until it does"
_CIRCLE = f"is a symbolic link that leads in a circle, or over {_LINKS_MAX} others: not mirrored"
_WITHIN_ITSELF = "leads to a directory that it is in: not mirrored, there would be no end of keys"
_TOO_MANY = f"is not mirrored: links lead to {PLACES_MAX:,} directories already"


class NotFollowedError(OSError):
    """A link leads to nothing that is mirrored; `why` completes a sentence about its path."""

    def __init__(self, why: str) -> None:
        """Say why."""
        super().__init__(errno.ELOOP, why)
        self.why = why


class Link(NamedTuple):
    """A symbolic link as it was read: its inode, ctime (ns) and target."""

    inode: int
    ctime: int
    target: bytes


class Resolver:
    """Finds out where known paths lead.

    Attributes:
        watch: is called with the place of each directory before it is looked into; says whether
            there is one, or raises OSError.

    """

    def __init__(
        self, root: bytes, places: Places, excluded: Callable[[bytes], object], routes: Routes
    ) -> None:
        """Resolve from the root of `places` on, which links name as `root`.

        Directories that are `excluded` are not there. What is found is noted in `routes`.
        """
        self._root = root.rstrip(b"/") + b"/"
        self._outside = f"is a symbolic link that leads out of {shown(root)}: not mirrored"
        self._places = places
        self._excluded = excluded
        self._routes = routes
        self._is_tree = routes.is_tree
        self._read: dict[bytes, Link] | None = None  # for a moment, in which links do not change
        self.watch: Callable[[bytes], bool] = lambda _: True

    @contextmanager
    def moment(self) -> Iterator[dict[bytes, Link]]:
        """Have no link change for the time of the block: each is read but once.

        Yields the links that were read, by their real paths. What was found counts if they are
        `still` the same in the end.
        """
        self._read = {}
        try:
            yield self._read
        finally:
            self._read = None

    def is_still(self, moment: dict[bytes, Link]) -> bool:
        """Say whether links are still what they were in a moment."""
        return all(self.link_at(real) == link for real, link in moment.items())

    def link_at(self, real: bytes) -> Link | None:
        """Return the link that has a real path now, None if there is none."""
        try:
            return self._read_now(real)
        except OSError:
            return None

    def resolve(self, path: bytes) -> bytes:
        """Return the real path of what a known path leads to; that of the root is empty.

        A path that ends with a slash is a directory's. Raises FileNotFoundError if there is no
        such path, NotFollowedError if it ends with a link that is not followed, or OSError when
        nobody knows.
        """
        if too_long(path):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if b"/" in path and not self._is_tree:
            raise no_such_file()
        real, above = b"", [b""]
        parts = path.rstrip(b"/").split(b"/")
        for number, part in enumerate(parts, 1):
            known = b"/".join(parts[:number])
            is_end = number == len(parts)
            if part.startswith(b".."):
                raise no_such_file()
            if not is_end and self._excluded(known + b"/"):
                raise no_such_file()
            real = self._step(known, real, part, above, is_end=is_end)
            above.append(real)
        return real

    def _step(
        self, known: bytes, start: bytes, part: bytes, above: list[bytes], *, is_end: bool
    ) -> bytes:
        """Go from a real directory on to a component of a known path; return its real path."""
        trace = _Trace(start, part)
        try:
            self._follow(trace)
            is_place = self._is_place(trace, above, is_known=known in self._routes)
        except FileNotFoundError as error:
            if not trace.links:
                raise  # the last way counts until Redis has nothing of it
            self._routes.note(known, trace.way(is_place=False))
            raise (NotFollowedError(_NOWHERE) if is_end else error) from None
        except NotFollowedError:
            if trace.links:
                self._routes.note(known, trace.way(is_place=False))
            if not is_end:
                raise no_such_file() from None
            raise
        if trace.links:
            self._routes.note(known, trace.way(is_place=is_place))
        else:
            self._routes.forget(known)
        return trace.at

    def _is_place(self, trace: "_Trace", above: list[bytes], *, is_known: bool) -> bool:
        """Say whether links lead to a directory that is mirrored where they are."""
        if trace.at in above:
            raise NotFollowedError(_WITHIN_ITSELF)
        if not (trace.links and self._is_tree and self._is_directory(trace.at)):
            return False
        if not (is_known or self._routes.has_room):
            raise NotFollowedError(_TOO_MANY)
        return True

    def _follow(self, trace: "_Trace") -> None:
        """Walk on from where a trace begins, until nothing is left to be walked.

        Raises FileNotFoundError where there is nothing, with the trace there.
        """
        while trace.left:
            name = trace.left.pop()
            trace.steps += 1
            directory = self.enter(_place(trace.at)).fd
            if name == b"..":
                if not trace.at:
                    raise NotFollowedError(self._outside)
                trace.at = trace.at[: max(trace.at.rfind(b"/"), 0)]
            elif name != b".":
                trace.pass_by(name)
                if link := self._link(trace.at, name, directory):
                    self._turn(trace, link)

    def _turn(self, trace: "_Trace", link: Link) -> None:
        """Go on from the directory of a link, or from the root, to where it leads."""
        trace.count += 1
        if trace.count > _LINKS_MAX or trace.steps > _STEPS_MAX:
            raise NotFollowedError(_CIRCLE)
        target, place = link.target, place_of(trace.at)
        trace.links[trace.at] = None
        trace.at = place[:-1]
        if target.startswith(b"/"):
            if not (target + b"/").startswith(self._root):
                raise NotFollowedError(self._outside)
            trace.at, target = b"", target[len(self._root) :]
        names = [name for name in target.split(b"/") if name]
        if target.endswith(b"/"):
            names.append(b".")  # it has to be a directory
        trace.left += reversed(names)

    def enter(self, place: bytes) -> Opened:
        """Return a real directory, which is watched; raise FileNotFoundError if it is none."""
        if not self.watch(place):
            raise no_such_file()
        return self._places.at(place)

    def _is_directory(self, real: bytes) -> bool:
        try:
            self.enter(_place(real))
        except FileNotFoundError:
            return False
        return True

    def _link(self, real: bytes, name: bytes, directory: int) -> Link | None:
        """Return the link of a name, None if that is another thing; raises FileNotFoundError."""
        if self._read is None:
            return _link(name, directory)
        if real not in self._read:
            link = _link(name, directory)
            if link is None:
                return None
            self._read[real] = link
        return self._read[real]

    def _read_now(self, real: bytes) -> Link | None:
        place = place_of(real)
        return _link(real[len(place) :], self._places.at(place).fd)


class _Trace:
    """A walk from one component of a known path on: where it is, what is left, what was passed."""

    def __init__(self, start: bytes, part: bytes) -> None:
        self.own = start + b"/" + part if start else part
        self.at = start
        self.left = [part]
        self.count = self.steps = 0
        self.links: dict[bytes, None] = {}
        self.places: dict[bytes, None] = {}
        self._start = start + b"/"

    def pass_by(self, name: bytes) -> None:
        """Go on to what has a name in the directory where it is."""
        at = self.at
        # What happens to those above its start is told of them, and of all below.
        if at and self.links and not self._start.startswith(at + b"/"):
            self.places[at] = None
        self.at = at + b"/" + name if at else name

    def way(self, *, is_place: bool) -> Way:
        links = tuple(link for link in self.links if link != self.own)
        return Way(self.own, self.at, links, tuple(self.places), is_place)


def _place(real: bytes) -> bytes:
    return real + b"/" if real else real


def _link(name: bytes, directory: int) -> Link | None:
    try:
        target = os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return Link(status.st_ino, status.st_ctime_ns, target)


def no_such_file() -> FileNotFoundError:
    """Return the error of a path that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
