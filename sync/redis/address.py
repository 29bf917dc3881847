"""Where a Redis server is, and how one connects to it: the one door to it, whatever REDIS_URL says.

It may be one server, or the master that Sentinels name, or the node of a cluster that has the slot
of all keys: they have one hash tag. Who knows where that is by now is asked at the beginning of
each session, so all its connections go to one server.

Failure model. What others tell of a server it has to confirm: that it is a master, and works as
REDIS_URL says (HELLO: redis.io). One that is master no more, and knows it, refuses what it is asked
(see `connection`). One that does not know it yet, while the Sentinels do, is found by `check`.
"""

import os
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from sync.core.access import Access
from sync.core.errors import RedisAwayError, SettingsError
from sync.redis import tls
from sync.redis.cluster import ClusterNodes
from sync.redis.sentinels import Sentinels
from sync.redis.url import CLUSTER, SENTINEL, Host, Url, parse

_UNLIMITED = 1 << 30  # redis-py counts those that were made, and not those that are open
_TIMEOUT = 10.0  # seconds; no command is so large that it takes one
_ASKED = 1.0  # seconds that who knows where the server is has for an answer
_QUIET: Mapping[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "max_connections": _UNLIMITED,
    "driver_info": None,  # to tell the server what redis-py is takes a right more
}


class Finder(Protocol):
    """Those who know where the server is."""

    def find(self) -> Host:
        """Ask them. Raises RedisAwayError, or SettingsError."""

    def has_moved(self) -> Host | None:
        """Return where it is by now, if they are known to say that it is elsewhere; at once."""

    def __str__(self) -> str:
        """Name them, and what they are asked for."""


class Address:
    """Where a Redis server is, and how one connects to it."""

    def __init__(self, access: Access, prefix: bytes = b"") -> None:
        """Take the server that `access` names; connect nowhere yet.

        In a cluster it is the node of the keys that begin with `prefix`. Raises SettingsError.
        """
        try:
            url = parse(access.url)
            self._options = _options(access, url.plain)
            self._finder = _finder(access, url, prefix, self._options)
            self._mode = b"cluster" if url.by == CLUSTER else b"standalone"
            self._pool = self._pool_of({})
            self.dial()
        except (ValueError, TypeError) as error:
            raise SettingsError(f"REDIS_URL cannot be used: {error}") from error
        self._host: Host | None = None
        if self._options.get("decode_responses"):
            raise SettingsError("REDIS_URL cannot be used: take decode_responses out of it")

    def __str__(self) -> str:
        """Say where the server is, without a password."""
        if self._finder:
            return f"{self._host} ({self._finder})" if self._host else str(self._finder)
        at = self._pool.connection_kwargs
        if path := at.get("path"):
            return str(path)
        return str(Host(at.get("host", "localhost"), at.get("port", 6379)))

    @property
    def is_cluster(self) -> bool:
        """Whether all keys are in one slot of a cluster, and others' may be elsewhere."""
        return self._mode == b"cluster"

    def locate(self) -> None:
        """Find where the server is by now, for all that is dialled from now on.

        Raises RedisAwayError.
        """
        if not self._finder:
            return
        host = self._finder.find()
        if host != self._host:
            self._pool = self._pool_of({"host": host.name, "port": host.port})
            self._host = host

    def dial(self) -> Any:  # noqa: ANN401  # redis-py's connections have no types
        """Return a new connection of redis-py's, which is not connected yet."""
        return self._pool.make_connection()

    def check(self) -> None:
        """Make sure that the server is not known to be elsewhere by now; wait for nobody.

        Raises RedisAwayError.
        """
        if self._finder and (host := self._finder.has_moved()):
            raise RedisAwayError(f"it is no longer the master: that is {host} by now")

    def _pool_of(self, at: Mapping[str, Any]) -> redis.ConnectionPool:
        options = {**self._options, **at, "redis_connect_func": self._shake_hands}
        return redis.ConnectionPool(**options)

    def _shake_hands(self, connection: Any) -> None:  # noqa: ANN401  # as above
        """Have a connection begin, and see that the server is one that was meant."""
        try:
            connection.on_connect()
        except redis.RedisError as error:
            self._judge(connection)  # it refuses what would go without saying, maybe
            if isinstance(connection, SSLConnection) and (why := tls.refused(error)):
                raise RedisAwayError(why) from error
            raise
        self._judge(connection)

    def _judge(self, connection: Any) -> None:  # noqa: ANN401  # as above
        told = getattr(connection, "handshake_metadata", None)
        if not isinstance(told, Mapping):
            return  # it is too old to say, or was asked to speak as of old
        mode = told.get(b"mode", self._mode)
        if mode != self._mode:
            self._refuse(mode)
        if self._finder and told.get(b"role") not in (None, b"master"):
            raise RedisAwayError("it is not the master any more, or not yet")

    def _refuse(self, mode: bytes) -> NoReturn:
        where = str(self)
        if mode == b"cluster":
            raise SettingsError(
                f"Redis at {where} is a node of a cluster: use redis+cluster://, or "
                "rediss+cluster://, in REDIS_URL, and a hash tag in SYNC_PREFIX, such as {app1}:, "
                "so that all keys are in one slot"
            )
        if mode == b"sentinel":
            raise SettingsError(
                f"Redis at {where} is a Sentinel: name the master, too, in REDIS_URL, as in "
                "redis+sentinel://HOST:26379/mymaster"
            )
        raise SettingsError(
            f"Redis at {where} is no node of a cluster: use redis:// or rediss:// in REDIS_URL"
        )


def _options(access: Access, url: str) -> dict[str, Any]:
    """Return what redis-py is to be told of a server, and of those who know where it is."""
    given = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py's
    options = {
        "username": _encoded(access.username),
        "password": _encoded(access.password),
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        **_QUIET,
    }
    return {**options, **tls.options(access, given), **given}


def _encoded(given: str | None) -> bytes | None:
    """Return the bytes that were given: they may be of no encoding, which redis-py would want."""
    return None if given is None else os.fsencode(given)


def _finder(access: Access, url: Url, prefix: bytes, options: Mapping[str, Any]) -> Finder | None:
    if not url.by:
        return None
    told = {**options, "socket_timeout": _ASKED, "socket_connect_timeout": _ASKED, "db": 0}
    if url.by == SENTINEL:
        told |= {
            "username": _encoded(access.sentinel_username),
            "password": _encoded(access.sentinel_password),
        }

    def client(host: Host) -> redis.Redis:
        pool = redis.ConnectionPool(**{**told, "host": host.name, "port": host.port})
        return redis.Redis(connection_pool=pool)

    if url.by == SENTINEL:
        return Sentinels(url.hosts, url.name, client)
    return ClusterNodes(url.hosts, prefix, client)
