"""Where the directories are that are known: plain values, no system calls.

Each is a node; where it is follows from what it is in. So a directory that moves takes all along
that is below, however much that is, in one step.
"""

from collections.abc import Iterator

from sync.core.changes import place_of

UNWATCHED = -1


class Node:
    """A directory.

    Attributes:
        name: its name in the directory that it is in, with a slash behind it.
        parent: that directory; None for the root, and for one of which nobody knows where it is.
        wd: its watch's number, or UNWATCHED.
        seen: the number of the last look at the whole tree in which it was there.

    """

    __slots__ = ("below", "name", "parent", "seen", "wd")

    def __init__(self, name: bytes, parent: "Node | None", wd: int) -> None:
        """Make a node that is in nothing yet."""
        self.name = name
        self.parent = parent
        self.wd = wd
        self.seen = 0
        self.below: dict[bytes, Node] | None = None  # most have none


class Tree:
    """The directories from one root on.

    Attributes:
        root: the root.
        unwatched: how many directories have no watch.

    """

    def __init__(self, wd: int) -> None:
        """Know of a root that has the watch `wd`, and of nothing below."""
        self.root = Node(b"", None, wd)
        self._by_wd = {wd: self.root}
        self._count = 1

    def __len__(self) -> int:
        """Return how many directories are known."""
        return self._count

    @property
    def unwatched(self) -> int:
        """How many of them have no watch."""
        return self._count - len(self._by_wd)

    def watched(self, wd: int) -> Node | None:
        """Return the directory that has a watch."""
        return self._by_wd.get(wd)

    def at(self, place: bytes) -> Node | None:
        """Return the directory at a place."""
        node: Node | None = self.root
        for name in place.split(b"/")[:-1]:
            if node is None or node.below is None:
                return None
            node = node.below.get(name + b"/")
        return node

    def place(self, node: Node) -> bytes | None:
        """Return where a directory is, None when that is not known."""
        names = []
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return b"".join(reversed(names)) if node is self.root else None

    def put(self, node: Node, place: bytes) -> None:
        """Have a directory be at a place, with all that is below; nothing may be there."""
        parent = self.at(place_of(place))
        assert parent is not None  # noqa: S101  # the caller's defect
        node.name, node.parent = place[place.rfind(b"/", 0, -1) + 1 :], parent
        if parent.below is None:
            parent.below = {}
        parent.below[node.name] = node

    def make(self, place: bytes, wd: int) -> None:
        """Know of a new directory."""
        node = Node(b"", None, UNWATCHED)
        self.put(node, place)
        self._count += 1
        self.watch(node, wd)

    def take_off(self, node: Node) -> None:
        """Know no more where a directory is; it keeps what is below."""
        if node.parent is not None:
            below = node.parent.below
            if below is not None:
                below.pop(node.name, None)
                if not below:
                    node.parent.below = None
            node.parent = None

    def watch(self, node: Node, wd: int) -> None:
        """Take note of the watch of a directory; UNWATCHED when it has lost it."""
        self._by_wd.pop(node.wd, None)
        node.wd = wd
        if wd != UNWATCHED:
            self._by_wd[wd] = node

    def unseen(self, look: int) -> list[bytes]:
        """Return the places of those that were not there in a look at the whole tree.

        Of what is below them nothing is said.
        """
        unseen: list[bytes] = []
        left = [self.root]
        while left:
            for node in (left.pop().below or {}).values():
                if node.seen == look:
                    left.append(node)
                elif (place := self.place(node)) is not None:
                    unseen.append(place)
        return unseen

    def forget(self, node: Node) -> Iterator[int]:
        """Forget a directory that was taken off, and all below; yield the watches of all."""
        left = [node]
        while left:
            node = left.pop()
            self._count -= 1
            if node.wd != UNWATCHED:
                del self._by_wd[node.wd]
                yield node.wd
            left += (node.below or {}).values()
