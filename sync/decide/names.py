"""Which name somebody means, and how it is written."""

from collections.abc import Collection

from sync.core.changes import shown
from sync.decide.errors import CannotDecideError


def meant(written: str, paths: Collection[bytes], known: Collection[bytes]) -> bytes | None:
    """Return the known name that is one of `paths`, or that is `written` so; None if none is.

    A name is written as `shown` writes it: with a backslash for what is no text. Raises
    CannotDecideError when several are written so.
    """
    for path in paths:
        if path in known:
            return path
    found = [name for name in known if shown(name) == written]
    if len(found) > 1:
        raise CannotDecideError(f"{len(found)} names are written {written}: give the path itself")
    return found[0] if found else None
