"""Which names one file has: a write through one of them changes the values of all.

The kernel tells of a write only the name that it was made through, and by the time of a look that
name may be gone. So of each file that has several names those in the directory are remembered that
were found, also those that are left out of the mirror. Nothing is computed from how many names a
file has: scans of the directory find them all, and events tell of those that come and go.

Memory is bounded. What it cannot hold is not remembered, and that there is such is told: a look at
all files then finds what has changed under names that nobody knew of.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from sync.core.errors import DirectoryGoneError
from sync.disk.files import Directory

# What is remembered; together at most some 30 MB. With more names a dict would be twice as large.
_NAMES_MAX = 174_000  # names; one of several that a file has here counts as two
_BYTES_MAX = 8 << 20  # their length


class Links:
    """The names of the files in one directory that have several, here or elsewhere.

    Attributes:
        inodes: the file, by name, of names whose file has, or had, others here; to be read only.
        single: the file, by name, of names whose file's others are not here as far as is known;
            to be read only.
        doubt: set when something happened to a file whose other names cannot be known, for want
            of memory: only a look at all files finds what was written to them. Whoever sees to
            that unsets it.

    """

    def __init__(self, directory: Directory) -> None:
        """Know of no names in `directory` yet."""
        self._directory = directory
        self._names: dict[int, bytes | set[bytes]] = {}  # by inode; only a set has several
        self._bytes = 0  # of all names
        self._lost: set[int] = set()  # files that have lost a name
        self._wanted: set[int] = set()  # files whose names the next scan is to find
        self._sought: set[int] = set()  # files whose names the scan that is under way finds
        self._wants_all = self._seeks_all = False  # the same of all files that are known
        self._scan: Iterator[tuple[bytes, int]] | None = None
        self.inodes: dict[bytes, int] = {}
        self.single: dict[bytes, int] = {}
        self.doubt = False

    def note(self, name: bytes, inode: int, *, search: bool = False) -> None:
        """Note that a name was found to be of this file, which has several names.

        With `search` it was found because something happened to it: its other names, which may
        have been there all the while, are looked for if nothing was known of the file.
        """
        if self._inode(name) == inode:
            return
        self.forget(name)
        if self._is_full():
            self.doubt = self.doubt or search
            return
        if search and inode not in self._names:
            self._wanted.add(inode)
        self._add(name, inode)

    def forget(self, name: bytes) -> None:
        """Forget a name: it is nobody's any more, another file's, or its file's only one.

        Cheap when nothing is known of it.
        """
        inode = self._remove(name)
        if inode is not None:
            self._lost.add(inode)

    def rename(self, old: bytes, new: bytes) -> None:
        """Note that what had one name has another; what had that one before has lost it."""
        if old == new:
            return
        self.forget(new)
        inode = self._inode(old)
        if inode is not None:
            self._add(new, inode)
            self._remove(old)

    def take_lost(self) -> set[bytes]:
        """Return the names of files that lost another name since the last call.

        The file may have been written to under the name before it lost it.
        """
        lost, self._lost = self._lost, set()
        return self.names(lost)

    def names(self, inodes: Iterable[int]) -> set[bytes]:
        """Return the known names of these files, which may be others' by now."""
        found: set[bytes] = set()
        for inode in inodes:
            names = self._names.get(inode)
            if isinstance(names, set):
                found |= names
            elif names is not None:
                found.add(names)
        return found

    @property
    def is_searching(self) -> bool:
        """Whether there are files whose names are to be found by `search`."""
        return bool(self._wanted or self._wants_all or self._scan)

    def is_sought(self, name: bytes) -> bool:
        """Say whether there may be other names of a name's file that a search is to find."""
        inode = self.single.get(name)
        if inode is None:
            return False
        is_sought = inode in self._wanted or inode in self._sought
        return is_sought or self._wants_all or self._seeks_all

    def complete(self) -> None:
        """Have all names looked for of the files that are known: a scan saw those that count."""
        self._wants_all = bool(self._names)

    def search(self, at_once: int) -> set[bytes]:
        """Look at so many entries of the directory; return names that are new of files looked for.

        They are to be examined: their file was written to, perhaps under another name. Files that
        are to be looked for since a scan began are found by the next, which begins when that one
        has ended. Raises DirectoryGoneError, after which a scan begins anew.
        """
        if self._scan is None:
            if not self.is_searching:
                return set()
            self._sought, self._wanted = self._wanted, set()
            self._seeks_all, self._wants_all = self._wants_all, False
            self._scan = self._directory.inodes()
        try:
            entries = list(islice(self._scan, at_once))
        except DirectoryGoneError:
            self._wanted |= self._sought
            self._wants_all |= self._seeks_all
            self._end_scan()
            raise
        sought = self._names if self._seeks_all else self._sought
        found = {
            name: inode for name, inode in entries if inode in sought and self._inode(name) != inode
        }
        if len(entries) < at_once:
            self._end_scan()
        for name, inode in found.items():
            self.note(name, inode)
        return set(found)

    def _end_scan(self) -> None:
        self._scan, self._sought, self._seeks_all = None, set(), False

    def _is_full(self) -> bool:
        count = len(self.single) + 2 * len(self.inodes) + len(self._wanted) + len(self._sought)
        return count >= _NAMES_MAX or self._bytes >= _BYTES_MAX

    def _inode(self, name: bytes) -> int | None:
        inode = self.single.get(name)
        return self.inodes.get(name) if inode is None else inode

    def _add(self, name: bytes, inode: int) -> None:
        self._bytes += len(name)
        names = self._names.get(inode)
        if names is None:
            self._names[inode] = name
            self.single[name] = inode
            return
        if not isinstance(names, set):
            self.inodes[names] = self.single.pop(names)
            names = self._names[inode] = {names}
        names.add(name)
        self.inodes[name] = inode

    def _remove(self, name: bytes) -> int | None:
        inode = self.single.pop(name, None)
        if inode is not None:
            del self._names[inode]
        else:
            inode = self.inodes.pop(name, None)
            if inode is None:
                return None
            self._leave(name, inode)
        self._bytes -= len(name)
        return inode

    def _leave(self, name: bytes, inode: int) -> None:
        """Take one name from several of a file; the last that is left is its single one."""
        names = self._names[inode]
        assert isinstance(names, set)  # noqa: S101  # its names are in `inodes`
        names.discard(name)
        if len(names) == 1:
            (last,) = names
            del self.inodes[last]
            self._names[inode] = last
            self.single[last] = inode
