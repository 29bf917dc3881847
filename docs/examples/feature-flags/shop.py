"""A shop that asks Redis at each checkout whether to use the new one, and turns off what fails.

    python3 shop.py NUMBER [--broken]

does so many checkouts; with --broken, the new one fails. Redis is at REDIS_URL.
"""

import argparse
import os
from collections.abc import Callable

import redis


class Flags:
    """What people turn on and off in files, and programs in Redis: `flag:NAME` is on or off."""

    def __init__(self, client: redis.Redis) -> None:
        """Ask `client`."""
        self._client = client

    def is_on(self, name: str) -> bool:
        """Say whether a flag is on, at this moment; one that is not there is off."""
        return self._client.get(f"flag:{name}") == b"on"

    def turn_off(self, name: str) -> None:
        """Turn a flag off, for all that ask from now on."""
        self._client.set(f"flag:{name}", "off")


class Shop:
    """Takes money, the new way if that is switched on and works."""

    FAILURES = 3  # in a row, until the new way is switched off

    def __init__(self, flags: Flags, new_checkout: Callable[[], None]) -> None:
        """Use `new_checkout` where `flags` say so."""
        self._flags = flags
        self._new_checkout = new_checkout
        self._failures = 0

    def checkout(self) -> str:
        """Take money; say how that went."""
        if not self._flags.is_on("new-checkout"):
            return "paid, by the old checkout"
        try:
            self._new_checkout()
        except ConnectionError as error:
            return self._failed(error)
        self._failures = 0
        return "paid, by the new checkout"

    def _failed(self, error: Exception) -> str:
        self._failures += 1
        words = f"the new checkout has failed ({error}): paid, by the old one"
        if self._failures == self.FAILURES:
            self._flags.turn_off("new-checkout")
            words += ", which it will be from now on"
        return words


def _works() -> None:
    """Stand for the new checkout."""


def _is_broken() -> None:
    raise ConnectionError("the bank does not answer")


def main() -> None:
    """Open the shop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", type=int)
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        shop = Shop(Flags(client), _is_broken if options.broken else _works)
        for _ in range(options.checkouts):
            print(shop.checkout())


if __name__ == "__main__":
    main()
