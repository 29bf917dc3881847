"""Whether so much would be deleted at once that somebody has to say first that this is right.

When an empty directory is mounted over the real one, or a server comes back without its data, what
the two sides hold looks as if all had been deleted. So where one of the two is not what it was the
last time, much of the other goes only when somebody has accepted that.
"""

from enum import Enum

_FEW = 100  # so many may always go


class Cause(Enum):
    """Which of the two is not what it was the last time."""

    ANOTHER_DIRECTORY = "another directory"  # keys would go
    REDIS_LACKS_KEYS = "Redis lacks keys"  # files would go


_ANOTHER = (
    "the directory is another one than the last time, and lacks the files of {share} keys; "
    "`mdvp-sync accept disk` removes these keys"
)
_WORDS = {
    Cause.ANOTHER_DIRECTORY: _ANOTHER + ", and `mdvp-sync accept redis` makes files of them",
    Cause.REDIS_LACKS_KEYS: (
        "Redis has come back empty or older than the last time, and lacks the keys of {share} "
        "files; `mdvp-sync accept disk` brings these files to it again, and `mdvp-sync accept "
        "redis` removes them"
    ),
}
_NEVER = " (with SYNC_DELETE_MAX=100% nobody is asked)"


def hold(
    cause: Cause, going: int, known: int, most: float, *, is_replica: bool = False
) -> str | None:
    """Say why the service has to hold, and the way out; None if it need not.

    Of `known` files or keys `going` would be deleted, for this cause. Up to a share of `most` of
    them, or a few, may be. With `is_replica` nothing in Redis ever becomes a file.
    """
    if going <= max(_FEW, known * most):
        return None
    words = _ANOTHER + "; else put the directory back" if is_replica else _WORDS[cause]
    return words.format(share=f"{going:,} of {known:,}") + _NEVER
