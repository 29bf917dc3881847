"""Connections to Redis, none of which is opened here."""

from sync.redis.connection import Address


def test_a_service_may_connect_anew_for_ever() -> None:
    address = Address("unix:///nowhere", None)
    for _ in range(500):
        address.dial()
