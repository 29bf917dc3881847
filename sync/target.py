"""Redis' edge: carries commands out, and knows which keys are ours.

Failure model. Beside the values Redis keeps a manifest, the hash `MANIFEST`: for each mirrored name
the signature of the file whose content its key holds. A value and its entry change in one MULTI, so
they agree however the connection or the service ends, and a key that is not in it was put there by
somebody else and is left alone. Every failure is a `RedisAwayError`, a connection that was lost
included: redis-py would repair it silently, but a server that was away may have come back empty, so
only `connect` connects.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sync.changes import Command, Delete, Rename, Set, Signature
from sync.errors import RedisAwayError, SettingsError

MANIFEST = b"/mdvp-sync/manifest"  # no file name has a slash in it
# What a Redis server takes as one value unless it is configured otherwise.
_VALUE_MAX = 512 << 20
_TIMEOUT = 10.0  # seconds; the longest single command, a SET of _VALUE_MAX, takes about one
_PAGE = 1000
_ENTRY = struct.Struct("<QQq")


class Target:
    """The Redis server that mirrors the directory."""

    def __init__(self, url: str, password: str | None) -> None:
        """Talk to the server at `url`, with `password` if the URL has none; connects when used."""
        try:
            self._redis = redis.Redis.from_url(
                url,
                password=password,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                redis_connect_func=self._on_connect,
            )
            self._redis.connection_pool.make_connection()  # connects nowhere; it checks the options
        except (ValueError, TypeError) as error:
            raise SettingsError(f"REDIS_URL cannot be used: {error}") from error
        if self._redis.get_connection_kwargs().get("decode_responses"):
            raise SettingsError("REDIS_URL cannot be used: take decode_responses out of it")
        self._may_connect = False
        self.value_max = _VALUE_MAX

    def _on_connect(self, connection: "redis.connection.AbstractConnection") -> None:
        if not self._may_connect:
            raise redis.ConnectionError("the connection was lost")
        connection.on_connect()  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        """Say where the server is, without a password."""
        at = self._redis.get_connection_kwargs()
        return str(at.get("path") or f"{at.get('host', 'localhost')}:{at.get('port', 6379)}")

    def connect(self) -> None:
        """Connect anew, and learn how large a value may be."""
        self._redis.connection_pool.disconnect()
        self._may_connect = True
        try:
            self.ping()
        finally:
            self._may_connect = False
        with _away():
            self.value_max = self._configured_value_max()

    def _configured_value_max(self) -> int:
        try:
            answer = self._redis.config_get("proto-max-bulk-len")
            return int(answer["proto-max-bulk-len"] or _VALUE_MAX)
        except (redis.ResponseError, KeyError):
            return _VALUE_MAX  # CONFIG is not for everyone

    def ping(self) -> None:
        """Make sure that the server is there."""
        with _away():
            self._redis.ping()

    def held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        """Return the signature of the file whose content each name holds, None if none."""
        if not names:
            return {}
        with _away():
            entries = self._redis.hmget(MANIFEST, list(names))
        return {name: _unpack(entry) for name, entry in zip(names, entries, strict=True)}

    def manifest(self) -> Iterator[list[bytes]]:
        """Yield the names that Redis holds content of, in pages; a name may come more than once."""
        cursor = 0
        while True:
            with _away():
                cursor, page = self._redis.hscan(MANIFEST, cursor, count=_PAGE)
            yield [name for name in page if isinstance(name, bytes)]  # all are: not decoded
            if cursor == 0:
                return

    def apply(self, commands: Iterable[Command]) -> None:
        """Carry out commands in their order, in one transaction."""
        with _away(), self._redis.pipeline(transaction=True) as pipeline:
            for command in commands:
                _queue(pipeline, command)
            pipeline.execute()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


def _queue(pipeline: "redis.client.Pipeline", command: Command) -> None:
    match command:
        case Set(name, content, signature):
            pipeline.set(name, content)
            pipeline.hset(MANIFEST, name, _ENTRY.pack(*signature))
        case Delete(name):
            pipeline.delete(name)
            pipeline.hdel(MANIFEST, name)
        case Rename(old, new, signature):
            pipeline.rename(old, new)
            pipeline.hdel(MANIFEST, old)
            pipeline.hset(MANIFEST, new, _ENTRY.pack(*signature))


def _unpack(entry: object) -> Signature | None:
    if isinstance(entry, bytes) and len(entry) == _ENTRY.size:
        return Signature(*_ENTRY.unpack(entry))
    return None


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except redis.AuthenticationError as error:
        raise RedisAwayError(f"{error} REDIS_PASSWORD must be the server's") from error
    except redis.RedisError as error:
        # Before these words redis-py repeats the command, and with it a file's content.
        reason = str(error).rpartition(" of pipeline caused error: ")[2]
        raise RedisAwayError(reason or type(error).__name__) from error
