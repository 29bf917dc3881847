"""What the service itself has just done to files, so that it is not told of it as of news.

A rename by the service is told as anybody's. It tells nothing new if the name is still as the
service left it: whatever others do to the file after that has events of its own. But that has to be
looked up, as the kernel makes one event of two that are alike and follow each other: inotify(7).
"""

from sync.disk.files import Directory

_NAMES_MAX = 100_000  # of more it is forgotten what was done: they are examined once more


class Own:
    """What the service has done since all events were last read."""

    def __init__(self, directory: Directory) -> None:
        """Have done nothing in a directory yet."""
        self._directory = directory
        self._inodes: dict[bytes, int] = {}  # of what was put there, salted; 0: it was taken
        self._moves: dict[tuple[bytes, bytes], int] = {}

    def put(self, name: bytes, inode: int) -> None:
        """Remember that a file was put there; its inode is salted as in a signature."""
        if len(self._inodes) >= _NAMES_MAX:
            self._inodes.clear()
        self._inodes[name] = inode

    def took(self, name: bytes) -> None:
        """Remember that what was there was taken away."""
        self.put(name, 0)

    def moved(self, old: bytes, new: bytes, inode: int) -> None:
        """Remember that a file was renamed."""
        if len(self._moves) >= _NAMES_MAX:
            self._moves.clear()
        self._moves[old, new] = inode

    def clear(self) -> None:
        """Forget all: all has been told that was done until now."""
        if self._inodes:
            self._inodes.clear()
        if self._moves:
            self._moves.clear()

    def has_left(self, name: bytes) -> bool:
        """Say whether a name is as the service left it."""
        inode = self._inodes.get(name)
        return inode is not None and self._inode_at(name) == inode

    def has_moved(self, old: bytes, new: bytes) -> bool:
        """Say whether the service has renamed a file so, and it still has its new name.

        That is asked once for each rename: another one of the same names is somebody else's.
        """
        inode = self._moves.pop((old, new), None)
        return inode is not None and self._inode_at(new) == inode

    def _inode_at(self, name: bytes) -> int:
        return self._directory.links(name)[0]
