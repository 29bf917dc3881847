"""The least rights that a user of Redis needs for mdvp-sync: plain values in, lines out.

Each command is here because what the documentation promises needs it, with the settings that it is
for; `mdvp-sync verify`, `conflicts`, `resolve`, `accept` and `wait` work as the same user. One is
left out on purpose: CONFIG GET, which would show the passwords that the server is configured with.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sync.core.decision import Mode
from sync.redis.url import CLUSTER, SENTINEL

_PASSWORD = ">PASSWORD"
_GLOB = b"\\*?[]"
_PLAIN = re.compile(rb"[!#-&(-~]+")  # what redis-cli takes without quotes

_ALWAYS = (
    *("multi", "exec", "watch", "unwatch"),  # a transaction, void if another service has begun
    *("get", "incr"),  # the epoch
    *("hget", "hmget", "hlen", "hscan", "hexists", "hset", "hdel"),  # the records, and the notes
    *("set", "mset", "del"),  # values
    *("rename", "persist", "pexpire"),  # values that are moved, or are large
    *("exists", "strlen", "mget", "getrange", "pttl"),  # what there is
    "info",  # memory, what was evicted, which run of the server it is
)
_FOR_KEYS = ("scan", "type", "hincrby")  # keys that become files, and values that lost
_FOR_HEARING = ("client|id", "client|tracking", "subscribe", "ping")
_INVALIDATIONS = "__redis__:invalidate"
_FOR_A_DATABASE = ("select",)
_FOR_A_CLUSTER = ("cluster|info", "cluster|slots")
_FOR_SENTINELS = ("sentinel|master",)


class Needs(NamedTuple):
    """What the rights depend on.

    mode      which side follows which
    prefix    what all keys begin with
    listens   whether it hears of what others change in Redis
    database  its number
    by        who says where the server is: SENTINEL, CLUSTER, or "" for nobody
    """

    mode: Mode
    prefix: bytes = b""
    listens: bool = True
    database: int = 0
    by: str = ""


def lines(user: str, needs: Needs) -> list[str]:
    """Return what makes `user` one with just the rights that are needed, as redis-cli takes it.

    The first line is for the server, or each node of the cluster; a second for each Sentinel.
    """
    keys = b"~" + _pattern(needs.prefix) + b"*"
    channels = [b"&" + _INVALIDATIONS.encode()] if needs.listens else []
    found = [_line(user, [keys, b"resetchannels", *channels], _commands(needs))]
    if needs.by == SENTINEL:
        found.append(_line(user, [b"resetchannels"], _FOR_SENTINELS))
    return found


def _commands(needs: Needs) -> Iterator[str]:
    yield from _ALWAYS
    if needs.mode.writes_files:
        yield from _FOR_KEYS
    if needs.listens:
        yield from _FOR_HEARING
    if needs.database:
        yield from _FOR_A_DATABASE
    if needs.by == CLUSTER:
        yield from _FOR_A_CLUSTER


def _line(user: str, where: list[bytes], commands: Iterator[str] | tuple[str, ...]) -> str:
    may = (f"+{command}".encode() for command in commands)
    words = [user.encode(errors="surrogateescape"), b"reset", b"on", _PASSWORD.encode()]
    return " ".join(["ACL SETUSER", *map(_quoted, [*words, *where, *may])])


def _pattern(prefix: bytes) -> bytes:
    """Return a pattern for a prefix: but for white space, which it cannot have, nothing else's."""
    each = (prefix[at : at + 1] for at in range(len(prefix)))
    return b"".join(
        b"?" if c.isspace() or c == b"\0" else b"\\" + c if c in _GLOB else c for c in each
    )


def _quoted(word: bytes) -> str:
    """Write a word as redis-cli takes it."""
    if _PLAIN.fullmatch(word):
        return word.decode()
    return (
        '"'
        + "".join(f"\\x{c:02x}" if not 32 <= c < 127 or c in b'"\\' else chr(c) for c in word)
        + '"'
    )
