"""The shape of what is mirrored: the files directly in a directory, or a whole tree of them.

All that a test of both shapes has to know of the difference is here: how the service is told, which
files are keys, where a write is told of, and which names a load is about.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# What `mdvp-sync` leaves out unless SYNC_EXCLUDE says otherwise.
EXCLUDED = (b".*.sw?", b"*~", b"4913", b".#*", b"#*#")

PLAIN = [bytes([letter]) for letter in b"abcdefgh"]
NASTY = [
    b"latin-1-\xe9",
    b"\xff",
    b"two\nlines",
    b"n" * 255,
    b"*",
    b"?",
    b"[a]",
    b" with  spaces ",
    b"-rf",
    b"\\x0a",
    b"{a}:b$c'\"",
]
DROPPINGS = [b".a.swp", b".b.swx", b"a~", b"4913", b".#a", b"#b#", b"\xff~", b"two\nlines~"]
NEARLY_DROPPINGS = [b".a", b".a.sw", b"a.swp", b"~a", b"4913x", b"#a", b".a.swap"]

# Directories in each other, so that a rename is of all below, and their names are files' too.
_DIRECTORIES = [b"d", b"e", b"d/e", b"d/e/d"]
_DEEP = b"/".join(b"%d" % level for level in range(1, 13))
_IN_DIRECTORIES = [b"%s/%s" % (directory, name) for directory in _DIRECTORIES for name in PLAIN[:2]]


@dataclass(frozen=True, eq=False)
class Shape:
    """Which of the files below a directory are keys.

    Attributes:
        is_deep: whether those in subdirectories are.
        few: names that the operations of a short test meet on, the first of them a file's.
        names: all names; those are in it more often that most operations are to meet on.
        foreign: keys that are not the service's, nor any file's.

    """

    name: str
    is_deep: bool
    few: Sequence[bytes]
    names: Sequence[bytes]
    foreign: Mapping[bytes, bytes]

    def __str__(self) -> str:
        """Return the word for it."""
        return self.name

    @property
    def environ(self) -> dict[str, str]:
        """What tells the service of it."""
        return {"SYNC_TREE": "1"} if self.is_deep else {}

    def files(self, root: Path) -> dict[bytes, int]:
        """Return the files that are keys, and their sizes."""
        return {
            name: entry.stat(follow_symlinks=False).st_size
            for name, entry in self.regular_files(root)
            if not self.is_excluded(name)
        }

    def regular_files(self, root: Path) -> Iterator[tuple[bytes, "os.DirEntry[bytes]"]]:
        """Yield all files, those that are left out too."""
        for name, entry in self.entries(root):
            if entry.is_file(follow_symlinks=False):
                yield name, entry

    def entries(self, root: Path) -> Iterator[tuple[bytes, "os.DirEntry[bytes]"]]:
        """Yield all that is there, a directory before what is in it; follow no link."""
        rest = [b""]
        while rest:
            directory = rest.pop()
            for entry in _listed(root, directory):
                yield directory + entry.name, entry
                if self.is_deep and entry.is_dir(follow_symlinks=False):
                    rest.append(directory + entry.name + b"/")

    def is_excluded(self, name: bytes) -> bool:
        """Say whether a name is left out: a directory is with all that is in it."""
        return any(fnmatchcase(part, pattern) for part in name.split(b"/") for pattern in EXCLUDED)

    def is_watched(self, root: Path, path: Path) -> bool:
        """Say whether who mirrors `root` is told of a write to a file by the name `path`."""
        # Not Path.resolve, which fails where links go in circles.
        directory, top = Path(os.path.realpath(path.parent)), Path(os.path.realpath(root))
        if not self.is_deep or not directory.is_relative_to(top):
            return directory == top
        return not self.is_excluded(bytes(directory.relative_to(top)))


def _listed(root: Path, directory: bytes) -> list["os.DirEntry[bytes]"]:
    """Return what is in a directory; nothing is in a subdirectory that has gone meanwhile."""
    try:
        with os.scandir(bytes(root) + b"/" + directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        if not directory:
            raise
        return []


_FOREIGN = {b"theirs": b"not a file's", b"theirs~": b"", b".theirs.swp": b"\xff\n"}

FLAT = Shape(
    "flat",
    is_deep=False,
    few=PLAIN[:3],
    # A few that most operations meet on, and others.
    names=[*PLAIN * 4, *NASTY, *DROPPINGS, *NEARLY_DROPPINGS],
    foreign=_FOREIGN | {b"*theirs": b"*"},
)
TREE = Shape(
    "tree",
    is_deep=True,
    few=[b"a", b"d/a", b"d/e/a", b"e/a"],
    names=[
        *[b"a", b"b", *_IN_DIRECTORIES] * 4,
        *_DIRECTORIES,
        *[b"%s/%s" % (_DEEP, name) for name in (b"a", b"b")],
        *[b"d/" + name for name in (*NASTY, *DROPPINGS, *NEARLY_DROPPINGS)],
        *[name + b"/a" for name in (*NASTY, *DROPPINGS[:3])],
    ],
    # What has no file is not to go with the directory that it seems to be in.
    foreign=_FOREIGN | {b"*/theirs": b"*", b"d/theirs": b"theirs, too", b"d/e/": b"", b"d//a": b""},
)
SHAPES = (FLAT, TREE)
