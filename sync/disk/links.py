"""Which names one file has: a write through one of them changes the values of all.

The kernel tells of a write only the name that it was made through, and by the time of a look that
name may be gone. So of each file that has several names the ones in the directory are remembered,
those that are left out of the mirror too. They are found by a scan of the directory, again when
the numbers no longer agree: how many names the file has, how many are known, how many of them are
elsewhere.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from sync.disk.files import Directory

_NAMES_MAX = 100_000  # names remembered, some 30 MB; a rescan makes up for what is forgotten


@dataclass(slots=True)
class _File:
    """A file with several names.

    links      how many it had when it was last seen, here and elsewhere
    names      those that are known
    elsewhere  how many are not in the directory; None until they have been looked for
    """

    links: int = 0
    names: set[bytes] = field(default_factory=set)
    elsewhere: int | None = None


class Links:
    """The names of the files in one directory that have several.

    Attributes:
        inodes: the file that has, or had, a name; to be read only.

    """

    def __init__(self, directory: Directory) -> None:
        """Know of no names in `directory` yet."""
        self._directory = directory
        self._files: dict[int, _File] = {}  # by inode
        self._lost: set[int] = set()  # files that have lost a name
        self.inodes: dict[bytes, int] = {}  # by name

    def note(self, name: bytes, inode: int, links: int) -> None:
        """Note that a file that has so many names has this one."""
        if self.inodes.get(name) != inode:
            self.forget(name)
            if len(self.inodes) >= _NAMES_MAX:
                self.inodes.clear()
                self._files.clear()
            self.inodes[name] = inode
        file = self._files.setdefault(inode, _File())
        file.links = links
        file.names.add(name)

    def forget(self, name: bytes) -> None:
        """Forget a name: it is nobody's any more, or another file's."""
        inode = self._drop(name)
        if inode is not None:
            self._lost.add(inode)

    def take_lost(self) -> set[bytes]:
        """Return the names of files that lost another name since the last call.

        The file may have been written to under the name before it lost it.
        """
        lost, self._lost = self._lost, set()
        return self.names(lost)

    def _drop(self, name: bytes) -> int | None:
        inode = self.inodes.pop(name, None)
        if inode in self._files:
            self._files[inode].names.discard(name)
            if not self._files[inode].names:
                del self._files[inode]
        return inode

    def rename(self, old: bytes, new: bytes) -> None:
        """Note that what had one name has another; what had that one before has lost it."""
        self.forget(new)
        inode = self.inodes.get(old)
        if inode is not None:
            self.note(new, inode, self._files[inode].links)
            self._drop(old)

    def names(self, inodes: Iterable[int]) -> set[bytes]:
        """Return the known names of these files, which may be others' by now."""
        files = (self._files[inode] for inode in inodes if inode in self._files)
        return set[bytes]().union(*(file.names for file in files))

    def look_for(self, inodes: Collection[int]) -> None:
        """See to it that all names of these files are known."""
        for inode in inodes:
            for name in tuple(self.names([inode])):
                if self._directory.links(name)[0] != inode:
                    self.forget(name)
        self._scan({inode for inode in inodes if self._lacks_names(inode)})

    def complete(self) -> None:
        """See to it that all names of all files are known that were noted."""
        self._scan({inode for inode, file in self._files.items() if file.elsewhere is None})

    def _lacks_names(self, inode: int) -> bool:
        file = self._files.get(inode)
        return file is not None and file.links - len(file.names) != file.elsewhere

    def _scan(self, inodes: Collection[int]) -> None:
        if not inodes:
            return
        links = {inode: self._files[inode].links for inode in inodes}
        for name, inode in self._directory.names_of(inodes):
            self.note(name, inode, links[inode])
        for inode in inodes:
            if file := self._files.get(inode):
                file.elsewhere = file.links - len(file.names)
