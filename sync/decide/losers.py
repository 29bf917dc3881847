"""Brings back values that lost.

Failure model. It is one transaction, which is void when somebody changes the key or the value that
lost meanwhile, and tried again then. What the key held is kept as a value that lost in its turn, so
whatever is brought back, nothing is lost.
"""

import time
from collections.abc import Sequence

from sync.core.changes import shown
from sync.decide.errors import CannotDecideError
from sync.redis.connection import refused
from sync.redis.notes import Lost, Notes
from sync.redis.target import Target

_TRIES = 100


def chosen(lost: Sequence[Lost], name: bytes, number: int | None) -> Lost | None:
    """Return the value of this number that lost under a name, or the last one; None if none is."""
    found = [each for each in lost if each.name == name and number in {None, each.number}]
    return found[-1] if found else None


def bring_back(target: Target, notes: Notes, lost: Lost) -> None:
    """Give a name a value that lost; the service brings it to the disk as any change of Redis.

    `target` watches nothing afterwards. Raises CannotDecideError and RedisAwayError.
    """
    for _ in range(_TRIES):
        if _try_to(target, notes, lost):
            notes.trim()
            return
    raise CannotDecideError(f"{shown(lost.name)} changes in Redis all the time: try it again")


def _try_to(target: Target, notes: Notes, lost: Lost) -> bool:
    value, key = notes.value_keys(lost)
    _, _, kept, kind = target.ask(
        (b"UNWATCH",), (b"WATCH", value, key), (b"EXISTS", value), (b"TYPE", key)
    )
    if not kept:
        raise CannotDecideError(
            f"value {lost.number} of {shown(lost.name)} is not kept any more; `mdvp-sync conflicts "
            "--all` lists those that are"
        )
    if kind not in {b"string", b"none"}:
        raise CannotDecideError(
            f"{shown(lost.name)} is a {kind.decode()} in Redis: delete or rename that key first"
        )
    requests = notes.bring_back(lost.number, lost.name)
    if kind == b"string":
        (size,) = target.ask((b"STRLEN", key))
        (number,) = notes.new_numbers()
        requests = notes.keep(lost.name, number, size, time.time()) + requests
    answers = target.converse((b"MULTI",), *requests, (b"EXEC",))
    done = answers[-1]
    if error := refused([*answers, *(done if isinstance(done, list) else ())]):
        raise CannotDecideError(f"Redis refuses to bring it back: {error}")
    return done is not None
