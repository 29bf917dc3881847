"""Names that are left out: what editors drop beside a file while it is edited."""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable

# Vim's swap files, the copies of many editors, Vim's trial file, Emacs' locks and its autosaves.
DEFAULT = (".*.sw?", "*~", "4913", ".#*", "#*#")


class Excluded:
    """The names that match one of some globs (fnmatch(3)), which see bytes.

    Attributes:
        match: returns something true for a name that is left out.

    """

    def __init__(self, globs: Iterable[str] = ()) -> None:
        """Leave out what matches one of `globs`; nothing if there are none."""
        # latin-1 has a character for each byte: a glob's `?` is one byte of a name.
        patterns = [fnmatch.translate(os.fsencode(glob).decode("latin-1")) for glob in globs]
        # Called for each name of the directory, so it is the regular expression's own method.
        self.match: Callable[[bytes], object] = (
            re.compile("|".join(patterns).encode("latin-1")).match if patterns else _no_match
        )

    def __contains__(self, name: bytes) -> bool:
        """Say whether a name is left out."""
        return bool(self.match(name))


def _no_match(_name: bytes) -> None:
    return None
