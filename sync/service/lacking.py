"""Why Redis lacks what is at a path, though nothing waits for its turn."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Iterator, Mapping

from sync.core.changes import shown
from sync.disk.files import Directory
from sync.disk.watch import Watch
from sync.report.figures import counted


class Lacking:
    """Says what is not mirrored, for those who ask."""

    def __init__(
        self,
        directory: Directory,
        watch: Watch,
        tells_of: Callable[[bytes], bool],
        skipped: Mapping[bytes, str],
        conflicts: Container[bytes],
    ) -> None:
        """Say what of `directory` is `skipped`, or in `conflicts`, or nothing is heard of.

        What the `watch` hears of it `tells_of` says, by path.
        """
        self._directory = directory
        self._watch = watch
        self._tells_of = tells_of
        self._skipped = skipped
        self._conflicts = conflicts
        self._sorted: list[bytes] = []  # the names that are skipped

    def at(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return words that complete a sentence about each of some paths of which Redis lacks some.

        For no paths, return them of the whole directory, under an empty one.
        """
        self._sorted = sorted(self._skipped)  # once: there may be very many of both
        found = {path: next(self._why(path), None) for path in paths or [b""]}
        return {path: why for path, why in found.items() if why}

    def _why(self, path: bytes) -> Iterator[str]:
        if not path:
            yield from self._unwatched()
            return
        yield from self._skipped_at(path)
        directory = self._directory
        if any(map(directory.excludes, _path_and_above(path))):
            yield "is left out: see SYNC_EXCLUDE"
        if b"/" in path and not directory.is_tree:
            yield "is in a directory of its own, and only SYNC_TREE=1 mirrors these"
        is_place = directory.is_tree and directory.has_place(path + b"/")
        if not self._tells_of(path + b"/-" if is_place else path):
            yield "is in a directory that cannot be watched: rescans follow it"
        if path in self._conflicts:
            yield "is in conflict: see `mdvp-sync conflicts`"

    def _unwatched(self) -> Iterator[str]:
        unwatched, directories = self._watch.unwatched
        if unwatched:
            of_all = counted(directories, "directory", "directories")
            yield f"{unwatched:,} of {of_all} cannot be watched: rescans follow them"

    def _skipped_at(self, path: bytes) -> Iterator[str]:
        """Yield why a path is not mirrored, or what is below or above it."""
        for name in (path, path + b"/"):
            if name in self._skipped:
                yield self._skipped[name]
        below = path + b"/"
        at = bisect_left(self._sorted, below)
        above = [each for each in _path_and_above(path) if each.endswith(b"/")]
        for name in (*above, *self._sorted[at : at + 1]):
            if name in self._skipped and (name in above or name.startswith(below)):
                yield f"is not there as a whole: {shown(name)} {self._skipped[name]}"


def _path_and_above(path: bytes) -> Iterator[bytes]:
    yield path
    for at in range(len(path)):
        if path[at : at + 1] == b"/":
            yield path[: at + 1]
