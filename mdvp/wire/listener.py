"""The listening sockets: a Unix socket that only its owner can connect to, or a TCP port.

Failure model. A socket file that a dead process left is replaced; one that somebody answers on is
not. An address that cannot be had is named in the error. TCP knows no owner: whoever can connect
can make and remove volumes, so `TcpAddress.is_loopback` is there to be asked.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from mdvp.core.errors import ListenError

_PORT_MAX = 65535
_TEXT_MAX = 64  # longer than any address; keeps what is not one out of int()
_LOOPBACK: Mapping[int, IPv4Address | IPv6Address] = {
    4: IPv4Address("127.0.0.1"),
    6: IPv6Address("::1"),
}


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An IP address of this machine, and a TCP port."""

    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `127.0.0.1:3004` or `[::1]:3004`; raise ListenError in words for anything else."""
        host, _, port = text[:_TEXT_MAX].rpartition(":")
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= _PORT_MAX):
            raise ListenError(
                f"{text!r} has no port from 1 to {_PORT_MAX} in the end: write 127.0.0.1:3004"
            )
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            ip = IPv6Address(host[1:-1]) if bracketed else ip_address(host)
        except ValueError as error:
            raise ListenError(
                f"{host!r} is no IP address (a name may mean another one tomorrow): "
                "write 127.0.0.1:3004 or [::1]:3004"
            ) from error
        if isinstance(ip, IPv6Address):
            if not bracketed:
                raise ListenError(f"{text!r}: put the IPv6 address in brackets, as in [::1]:3004")
            if ip.scope_id or ip.ipv4_mapped:
                raise ListenError(f"{host!r}: write it without an interface, an IPv4 address as is")
        return cls(ip, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.ip.is_loopback

    @property
    def url(self) -> str:
        """Where the engine on this machine connects to, as a spec file has it."""
        here = TcpAddress(_LOOPBACK[self.ip.version], self.port) if self.ip.is_unspecified else self
        return f"tcp://{here}"

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        ip = f"[{self.ip}]" if isinstance(self.ip, IPv6Address) else str(self.ip)
        return f"{ip}:{self.port}"


@contextlib.contextmanager
def listening_on_socket(path: Path) -> Iterator[socket.socket]:
    """Yield a Unix socket that listens at `path` with mode 0600; remove the file in the end.

    Its directory is made when it is missing, as on a host whose engine has not been started yet.
    Raises ListenError when a live process listens there already.
    """
    with _umask(0o066):  # as the engine makes them: others can pass, and not look around
        path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        _remove_stale(path)
        with _umask(0o177):  # so that there is no instant at which it is open to others
            listener.bind(str(path))
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(path: Path) -> None:
    if path.exists() and not path.is_socket():
        raise ListenError(f"{path} is no socket: move it away, or name another one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise ListenError(f"somebody listens on {path} already: is mdvp running?")


@contextlib.contextmanager
def listening_on_tcp(address: TcpAddress) -> Iterator[socket.socket]:
    """Yield a socket that listens on `address`; raise ListenError when it cannot be had."""
    family = socket.AF_INET6 if isinstance(address.ip, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # Else the port of a run that has just ended could not be had for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Each connection inherits it: no part of an answer is to wait for the one before.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((str(address.ip), address.port))
            listener.listen()
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {_in_words(error)}") from error
        yield listener


def _in_words(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "somebody does already; `ss --listening --tcp --processes` shows who"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` shows those it has"
        case _:
            return str(error.strerror)
