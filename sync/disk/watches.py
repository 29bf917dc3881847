"""Which directories of a tree are watched, and where each of them is by now.

Failure model. What the kernel tells of a directory may be long past. So it is looked up what is at
the place, and the watch tells which directory that is: the kernel gives one number to each, however
often, and by whatever path, it is asked to watch it. One that is gone from its place and is nowhere
else when all has been heard that was under way has left the tree. Where there are no more watches
to be had, nothing is heard of a directory; looks at the whole tree find what happens there.
"""

import errno
from collections.abc import Callable, Iterable, Iterator

from sync.core.changes import Appeared, Moved, PlaceChange, Vanished, place_of, places_above, shown
from sync.disk.places import Ground, Opened
from sync.disk.tree import UNWATCHED, Node, Tree


class Watches:
    """The watches of one tree of directories.

    Attributes:
        tree: the directories that are known.
        told: what has happened to directories.
        is_short: whether there were no more watches to be had.

    """

    def __init__(
        self,
        directory: Ground,
        root: int,
        add: Callable[[str], int],
        remove: Callable[[int], None],
    ) -> None:
        """Watch what is below `directory`, whose own watch has the number `root`.

        `add` watches what is at a path and returns the number of the watch, or raises OSError;
        `remove` ends a watch.
        """
        self._directory = directory
        self._add = add
        self._remove = remove
        self.tree = Tree(root)
        self.is_short = False
        self.told: list[PlaceChange] = []
        # Directories that are gone from their place, and where that was; some of them are nowhere.
        self._adrift: dict[Node, bytes] = {}
        self._disturbed: set[Node] = set()  # of those: something happened in them meanwhile
        self._last: tuple[int, bytes | None] = (UNWATCHED, None)
        self._passed: set[bytes] = set()  # places that were entered, and no event was lost since

    def place(self, wd: int) -> bytes | None:
        """Return the place of the directory that has a watch; None if it is not known, or nowhere.

        Of one that is found later it is then not taken for granted that nothing happened in it.
        """
        if self._last[0] != wd:
            node = self.tree.watched(wd)
            place = self.tree.place(node) if node else None
            if node and place is None:
                self._disturb(node)
            self._last = (wd if place is not None else UNWATCHED), place
        return self._last[1]

    def is_watched(self, path: bytes) -> bool:
        """Say whether the directory of a file is watched."""
        return self._is_watched(place_of(path))

    def _is_watched(self, place: bytes) -> bool:
        node = self.tree.at(place)
        return node is not None and node.wd != UNWATCHED

    def happened(self, place: bytes, *, has_left: bool = False) -> None:
        """Take up that something happened to a directory at a place, now or some time ago.

        If it `has_left`, it has been elsewhere, wherever it is now.
        """
        self._directory.forget()
        before = self.tree.at(place) if has_left else None
        if not self._directory.wants(place) and self.tree.at(place) is None:
            self.told.append(Appeared(place))  # or it is gone: whoever depends on it will see
            return
        try:
            self._look(place, is_news=True)
            if before and before is self.tree.at(place):
                # It has left, and is back: as in `_arrive`.
                self.told.append(Appeared(place))
        except FileNotFoundError:
            if self.tree.at(place) is None:  # it never could be looked into
                self.told.append(Vanished(place))
            self._leave(place)
        except OSError:  # whoever looks into it will find out
            self.told.append(Appeared(place))

    def enter(self, place: bytes, *, is_news: bool = False) -> bool:
        """See to it that a directory is watched before it is looked into; say whether it is there.

        If `is_news`, one that was not known is told, as somebody else is to look into it, too.
        Raises OSError when it cannot be looked into, or must not be.
        """
        try:
            for above in self._unknown_above(place):
                self._look(above, is_news=True)  # nobody else will look into it
            self._look(place, is_news=is_news)
        except FileNotFoundError:
            self._leave(place)
            return False
        return True

    def pass_through(self, place: bytes) -> bool:
        """Do as `enter` does, but take for granted what is known: what becomes of that is told."""
        if place in self._passed and self._is_watched(place):
            return True
        is_there = self.enter(place, is_news=self._directory.wants(place))
        if is_there:
            self._passed.add(place)
        return is_there

    def distrust(self) -> None:
        """Take nothing for granted any more: events were lost."""
        self._passed.clear()

    def listed(self, place: bytes, below: Iterable[bytes]) -> None:
        """Take up which directories were found in one that was listed.

        Of others that are known nobody told that they are gone: events were lost, or none comes.
        """
        node = self.tree.at(place)
        if node and node.below:
            found = set(below)
            for each in [place + name for name in node.below if place + name not in found]:
                self.happened(each)

    def ignored(self, wd: int) -> None:
        """Take up that a watch has ended: its directory is deleted, or unmounted."""
        node = self.tree.watched(wd)
        if node is None:
            return
        place = self.tree.place(node)
        self.tree.watch(node, UNWATCHED)
        self._moved()
        if place is not None:
            self.happened(place)

    def settle(self) -> None:
        """Take for gone what is nowhere: all that was under way has been heard."""
        for node, place in self._adrift.items():
            for wd in self.tree.forget(node):
                self._remove(wd)
            self.told.append(Vanished(place))
        if self._adrift:
            gone = tuple(self._adrift.values())
            self._passed = {each for each in self._passed if not each.startswith(gone)}
        self._adrift.clear()
        self._disturbed.clear()
        self._moved()

    def take(self) -> list[PlaceChange]:
        """Return what has happened to directories since the last call."""
        told, self.told = self.told, []
        return told

    def _unknown_above(self, place: bytes) -> Iterator[bytes]:
        """Yield the places above one of which no directory is known, from the root on."""
        if self.tree.at(place_of(place)) is None:
            above = reversed([*places_above(place)])
            yield from (each for each in above if self.tree.at(each) is None)

    def _look(self, place: bytes, *, is_news: bool) -> None:
        """Take up which directory is at a place.

        Raises FileNotFoundError if there is none, and OSError if nobody knows.
        """
        if not place or self.tree.at(place_of(place)) is None:
            return  # when it is known where that is, it will be looked into
        self._directory.leave_out(place, really=False)
        opened = self._directory.open_at(place)
        node, wd = self.tree.at(place), self._watch(opened)
        if node and node.wd == wd != UNWATCHED:
            return
        if self._is_elsewhere(place, opened, wd):
            wd = UNWATCHED  # it is told under the other place what happens in it
        if was := self.tree.watched(wd):
            self._arrive(was, place)
            return
        if node and node.wd == UNWATCHED:
            self.tree.watch(node, wd)
        else:
            self._leave(place)
            self.tree.make(place, wd)
        if is_news:
            self.told.append(Appeared(place))

    def _watch(self, opened: Opened) -> int:
        try:
            return self._add(f"/proc/self/fd/{opened.fd}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.is_short = True
            return UNWATCHED

    def _is_elsewhere(self, place: bytes, opened: Opened, wd: int) -> bool:
        """Say whether a directory is at another place, too, by a mount.

        Raises OSError if that is above: what is in it would be there without end.
        """
        node = self.tree.watched(wd)
        if node is None and wd != UNWATCHED:
            return False  # it has got its watch just now
        for above in places_above(place):
            if self._is_at(above, opened):
                self._leave(place)
                self._directory.leave_out(place)
                where = f"the directory {shown(above[:-1])}" if above else "the root"
                raise OSError(errno.ELOOP, f"it is {where} once more, by a mount")
        other = self.tree.place(node) if node else None
        return other is not None and other != place and self._is_at(other, opened)

    def _is_at(self, place: bytes, opened: Opened) -> bool:
        try:
            return self._directory.open_at(place).identity == opened.identity
        except OSError:
            return False

    def _leave(self, place: bytes) -> None:
        """Take up that what was known to be at a place is not there."""
        node = self.tree.at(place)
        if node and node is not self.tree.root:
            self.tree.take_off(node)
            self._adrift[node] = place
            self._moved()

    def _arrive(self, node: Node, place: bytes) -> None:
        """Take up that a directory that is known is at another place, or again at its own."""
        left, at = self._adrift.pop(node, None), self.tree.place(node)
        old = left or at
        self._moved()
        if at not in {None, place} and place.startswith(at or b""):
            # It cannot be below itself: what is known of those above is outdated.
            self._leave(at)
            self.told.append(Appeared(at))
            return
        self._leave(place)
        self.tree.take_off(node)
        self.tree.put(node, place)
        if old is None:  # it was in one that is adrift
            self.told.append(Appeared(place))
        elif node in self._disturbed:
            self.told += (Vanished(old), Appeared(place))
        elif old == place:  # it was away: what was looked for below meanwhile was not there
            self.told.append(Appeared(place))
        else:
            self.told.append(Moved(old, place))
        self._disturbed.discard(node)

    def _disturb(self, node: Node) -> None:
        while node.parent is not None:
            node = node.parent
        if node in self._adrift:
            self._disturbed.add(node)

    def _moved(self) -> None:
        self._last = (UNWATCHED, None)
