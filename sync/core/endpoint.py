"""Where a service listens: an address of this machine, and a port."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self

LOOPBACK = "localhost"

_PORT_MAX = 65535
_LONGEST = 80  # more than any address has; keeps what is none out of int()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen.

    host    an IP address, LOOPBACK for both of this machine alone, or "" for all that it has
    port    the TCP port
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `9121`, `127.0.0.1:9121`, `[::1]:9121` or `localhost:9121`.

        `:9121`, `*:9121` and `[::]:9121` are all addresses, as elsewhere. Raises ValueError in
        words that complete a sentence which begins with what was given.
        """
        host, _, port = text[:_LONGEST].rpartition(":")
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= _PORT_MAX):
            raise ValueError(f"has no port from 1 to {_PORT_MAX} in the end")
        if host in {"", "*", LOOPBACK}:
            return cls(host.removeprefix("*"), int(port))
        is_bracketed = host.startswith("[") and host.endswith("]")
        try:
            ip = IPv6Address(host[1:-1]) if is_bracketed else ip_address(host)
        except ValueError:
            raise ValueError("names no IP address") from None
        if isinstance(ip, IPv6Address) and not is_bracketed:
            raise ValueError("needs brackets around the IPv6 address")
        return cls("" if ip == IPv6Address("::") else str(ip), int(port))

    def __str__(self) -> str:
        """Write it as `parse` reads it: `127.0.0.1:9121`, `[::1]:9121`, `*:9121`."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"
