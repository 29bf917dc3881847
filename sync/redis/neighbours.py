"""Other services that work in the same database, by the keys of their own that they have there.

A key that is called like one of a service's own need not be one: what is called so is looked at as
any other key where a file has that name, or where there is no epoch, which each service has.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from sync.core.changes import shown
from sync.core.errors import RedisChangedError
from sync.redis.keys import (
    CONFLICTS,
    EPOCH,
    FEED,
    LEASE,
    LOST,
    LOST_VALUE,
    MADE,
    MANIFEST,
    NAMES,
    OWN,
    PROBE,
    REQUESTS,
    STATE,
    UPLOAD,
    UPLOADS,
    WAITS,
)
from sync.redis.target import Target

_KEYS = {MANIFEST, NAMES, EPOCH, PROBE, UPLOAD, CONFLICTS, REQUESTS, LOST, STATE, MADE, FEED}
_KEYS |= {LEASE}
_KEYS_BELOW = (MANIFEST + b"/", NAMES + b"/", UPLOADS, LOST_VALUE, WAITS)
_LENGTH_MAX = max(map(len, _KEYS))
_DIGITS_MAX = 20
_AT_ONCE = 300  # prefixes


class Neighbours:
    """Finds other services' own keys among names."""

    def __init__(self, target: Target, has_file: Callable[[bytes], bool]) -> None:
        """Look in the database of `target`; `has_file` says whether a file has a name."""
        self._target = target
        self._has_file = has_file

    def keys(self, names: Iterable[bytes]) -> list[bytes]:
        """Return those of some names that seem to be of other services' own keys.

        Raises RedisChangedError when one works on keys that are among this one's: what one makes of
        a key would be a key of the other's, and so on without end.
        """
        prefixes = {name: found for name in names if (found := _prefixes(name))}
        prefixes = {name: prefixes[name] for name in self._without_files(list(prefixes))}
        with_epoch = self._with_epoch(dict.fromkeys(chain.from_iterable(prefixes.values())))
        for prefix, is_service in with_epoch.items():
            if is_service:
                self._target.keep_out(prefix)
                raise _refusal(prefix)
        return [name for name, found in prefixes.items() if not with_epoch.keys().isdisjoint(found)]

    def _without_files(self, names: Sequence[bytes]) -> list[bytes]:
        """Return those of some names that no file has, or had when both sides were equal."""
        entries = self._target.entries(names)
        return [
            name
            for name, entry in zip(names, entries, strict=True)
            if entry is None and not self._has_file(name)
        ]

    def _with_epoch(self, prefixes: Collection[bytes]) -> Mapping[bytes, bool]:
        """Return the prefixes that have an epoch, and of each whether it has records, too."""
        found: dict[bytes, bool] = {}
        left = self._without_files([prefix + EPOCH for prefix in prefixes])
        for first in range(0, len(left), _AT_ONCE):
            some = [name.removesuffix(EPOCH) for name in left[first : first + _AT_ONCE]]
            answers = self._target.converse(*chain.from_iterable(map(self._questions, some)))
            parts = (answers[part::3] for part in range(3))
            for prefix, epoch, *kinds in zip(some, *parts, strict=True):
                if isinstance(epoch, bytes) and epoch.isdigit() and len(epoch) <= _DIGITS_MAX:
                    found[prefix] = b"hash" in kinds
        return found

    def _questions(self, prefix: bytes) -> list[tuple[bytes | int, ...]]:
        whole = self._target.prefix + prefix
        return [
            (b"GETRANGE", whole + EPOCH, 0, _DIGITS_MAX),
            (b"TYPE", whole + STATE),
            (b"TYPE", whole + MANIFEST),
        ]


def is_like_own(name: bytes) -> bool:
    """Say whether a name may be of a service's own key."""
    return OWN in name


def is_like_epoch(name: bytes) -> bool:
    """Say whether what other names are may depend on the key of this one."""
    return name.endswith(EPOCH)


def _prefixes(name: bytes) -> list[bytes]:
    """Return the prefixes of services that would have an own key of this name."""
    found, at = [], 0
    while (at := name.find(OWN, at + 1)) >= 0:
        is_key = len(name) - at <= _LENGTH_MAX and name[at:] in _KEYS
        if is_key or name.startswith(_KEYS_BELOW, at):
            found.append(name[:at])
    return found


def _refusal(prefix: bytes) -> RedisChangedError:
    theirs = shown(prefix)
    return RedisChangedError(
        f"another mdvp-sync has keys that begin with {theirs} here, and these are among this "
        "one's; give each a SYNC_PREFIX such that neither begins with the other, or a database of "
        f"its own; if it is gone, delete the keys under {theirs}{OWN.decode()}"
    )
