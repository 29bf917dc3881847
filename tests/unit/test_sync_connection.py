"""Connections to Redis, none of which is opened here."""

import ssl

import redis

from sync.core.access import Access
from sync.redis import tls
from sync.redis.address import Address


def test_a_service_may_connect_anew_for_ever() -> None:
    address = Address(Access("unix:///nowhere"))
    for _ in range(500):
        address.dial()


def test_a_server_that_ends_a_connection_with_tls_at_once_may_want_a_certificate() -> None:
    """It depends on the moment whether one is told so, or finds the connection gone."""
    lost = redis.ConnectionError("lost")
    for cause in (ConnectionResetError(), BrokenPipeError(), ssl.SSLEOFError(1, "EOF")):
        lost.__context__ = cause
        assert "REDIS_TLS_CERT_FILE" in tls.refused(lost)
    assert not tls.refused(redis.AuthenticationError("no such user"))
