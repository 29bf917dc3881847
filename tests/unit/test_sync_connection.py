"""Connections to Redis, none of which is opened here."""

from sync.core.access import Access
from sync.redis.address import Address


def test_a_service_may_connect_anew_for_ever() -> None:
    address = Address(Access("unix:///nowhere"))
    for _ in range(500):
        address.dial()
