"""Where a Redis server is, and how one connects to it."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sync.core.access import Access
from sync.core.errors import SettingsError

_UNLIMITED = 1 << 30  # redis-py counts those that were made, and not those that are open
_TIMEOUT = 10.0  # seconds; no command is so large that it takes one


class Address:
    """Where a Redis server is, and how one connects to it."""

    def __init__(self, access: Access) -> None:
        """Take the server that `access` names; connect nowhere yet.

        Raises SettingsError.
        """
        try:
            self._pool = redis.ConnectionPool.from_url(
                access.url,
                username=access.username,
                password=access.password,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                max_connections=_UNLIMITED,
            )
            self.dial()
        except (ValueError, TypeError) as error:
            raise SettingsError(f"REDIS_URL cannot be used: {error}") from error
        if self._pool.connection_kwargs.get("decode_responses"):
            raise SettingsError("REDIS_URL cannot be used: take decode_responses out of it")

    def __str__(self) -> str:
        """Say where the server is, without a password."""
        at = self._pool.connection_kwargs
        return str(at.get("path") or f"{at.get('host', 'localhost')}:{at.get('port', 6379)}")

    def dial(self) -> Any:  # noqa: ANN401  # redis-py's connections have no types
        """Return a new connection of redis-py's, which is not connected yet."""
        return self._pool.make_connection()
