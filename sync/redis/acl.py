"""The least rights that a user of Redis needs for mdvp-sync: plain values in, lines out.

Each command is here because what the documentation promises needs it, with the settings that it is
for; `mdvp-sync verify`, `conflicts`, `resolve`, `accept` and `wait` work as the same user. One is
left out on purpose: CONFIG GET, which would show the passwords that the server is configured with.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sync.core.decision import Mode
from sync.redis.url import CLUSTER, SENTINEL

_PASSWORD = b"PASSWORD"
_GLOB = b"\\*?[]"
_PLAIN = re.compile(rb"[!#-&(-~]+")  # what redis-cli takes without quotes

_ALWAYS = (
    *("multi", "exec", "watch", "unwatch"),  # a transaction, void if another service has begun
    *("get", "incrby"),  # the epoch, and the lease
    *("hget", "hmget", "hlen", "hscan", "hexists", "hset", "hdel"),  # the records, and the notes
    *("set", "del"),  # values
    *("rename", "persist", "pexpire"),  # values that are moved, or are large
    *("exists", "strlen", "mget", "getrange", "pttl"),  # what there is
    *("rpush", "blpop"),  # `mdvp-sync wait`
    "info",  # memory, what was evicted, which run of the server it is
)
_FOR_A_COPY = ("mset",)  # where a key has no time to live that somebody has given it
_FOR_KEYS = ("scan", "type", "hincrby")  # keys that become files, and values that lost
_FOR_HEARING = ("client|id", "client|tracking", "subscribe", "ping")
_INVALIDATIONS = b"__redis__:invalidate"
_FOR_A_STREAM = ("xadd", "xinfo|stream")
_FOR_A_DATABASE = ("select",)
_FOR_A_CLUSTER = ("cluster|info", "cluster|slots")
_FOR_SENTINELS = ("sentinel|master",)


class Needs(NamedTuple):
    """What the rights depend on.

    mode      which side follows which
    prefix    what all keys begin with
    listens   whether it hears of what others change in Redis
    tells     whether there is a stream of changes
    database  its number
    by        who says where the server is: SENTINEL, CLUSTER, or "" for nobody
    """

    mode: Mode
    prefix: bytes = b""
    listens: bool = True
    tells: bool = False
    database: int = 0
    by: str = ""


def lines(user: str, needs: Needs) -> list[str]:
    """Return what makes `user` one with just the rights that are needed, as redis-cli takes it.

    The first line is for the server, or each node of the cluster; a second for each Sentinel.
    """
    found = [_line(user, rules(needs))]
    if needs.by == SENTINEL:
        found.append(_line(user, _rules([], _FOR_SENTINELS)))
    return found


def rules(needs: Needs, password: bytes = _PASSWORD) -> list[bytes]:
    """Return the rules of ACL SETUSER that give a user with a password what is needed."""
    channels = [_INVALIDATIONS] if needs.listens else []
    where = [b"~" + _pattern(needs.prefix) + b"*", *(b"&" + each for each in channels)]
    return _rules(where, _commands(needs), password)


def _rules(
    where: Iterable[bytes], commands: Iterable[str], password: bytes = _PASSWORD
) -> list[bytes]:
    # Redis 6.2 resets a user to all channels.
    first = [b"reset", b"on", b">" + password, b"resetchannels"]
    return [*first, *where, *(f"+{command}".encode() for command in commands)]


def _commands(needs: Needs) -> Iterator[str]:
    yield from _ALWAYS
    if needs.mode is Mode.ONE_WAY_REPLICA:
        yield from _FOR_A_COPY
    if needs.mode.writes_files:
        yield from _FOR_KEYS
    if needs.listens:
        yield from _FOR_HEARING
    if needs.tells:
        yield from _FOR_A_STREAM
    if needs.database:
        yield from _FOR_A_DATABASE
    if needs.by == CLUSTER:
        yield from _FOR_A_CLUSTER


def _line(user: str, rules: Iterable[bytes]) -> str:
    words = [user.encode(errors="surrogateescape"), *rules]
    return " ".join(["ACL SETUSER", *map(_quoted, words)])


def _pattern(prefix: bytes) -> bytes:
    """Return a pattern for a prefix: but for white space, which it cannot have, nothing else's."""
    return b"".join(map(_literal, (prefix[at : at + 1] for at in range(len(prefix)))))


def _literal(byte: bytes) -> bytes:
    if byte.isspace() or byte == b"\0":
        return b"?"
    return b"\\" + byte if byte in _GLOB else byte


def _quoted(word: bytes) -> str:
    """Write a word as redis-cli takes it."""
    if _PLAIN.fullmatch(word):
        return word.decode()
    return f'"{"".join(map(_escaped, word))}"'


def _escaped(byte: int) -> str:
    is_plain = 32 <= byte < 127 and byte not in b'"\\'  # noqa: PLR2004  # ASCII that is printed
    return chr(byte) if is_plain else f"\\x{byte:02x}"
