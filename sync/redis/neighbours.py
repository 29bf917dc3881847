"""Other services that work in the same database, by the keys of their own that they have there."""

from collections.abc import Iterable

from sync.core.changes import shown
from sync.core.errors import RedisChangedError
from sync.redis.keys import EPOCH, OWN


def without_theirs(names: Iterable[bytes]) -> list[bytes]:
    """Return those of some names that are no other service's own keys.

    Raises RedisChangedError when one works on keys that are among this one's: what one makes of a
    key would be a key of the other's, and so on without end.
    """
    found = []
    for name in names:
        if OWN not in name:
            found.append(name)
        elif name.endswith(EPOCH):
            theirs = shown(name.removesuffix(EPOCH))
            raise RedisChangedError(
                f"another mdvp-sync has keys that begin with {theirs} here, and these are among "
                "this one's; give each a SYNC_PREFIX such that neither begins with the other, or a "
                f"database of its own; if it is gone, delete the keys under {theirs}{OWN.decode()}"
            )
    return found
