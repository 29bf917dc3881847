"""The listening sockets: a Unix socket that only its owner can connect to, or a TCP port.

Failure model. A socket file that a dead process left is replaced; one that somebody answers on is
not. An address that cannot be had is named in the error. TCP knows no owner: whoever can connect
can make and remove volumes, so `TcpAddress.is_loopback` is there to be asked. A socket that a
service manager passes is the manager's, and its file too: it is taken as it is, or refused.
"""

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from mdvp.core.errors import ListenError

_GUARDIAN = 2.0  # seconds; the guardian of a killed mdvp needs milliseconds to let go of the port
_PAUSE = 0.01  # seconds between two attempts to have it
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
    with _patiently(address) as listener:
        yield listener


def _patiently(address: TcpAddress) -> socket.socket:
    end = time.monotonic() + _GUARDIAN
    while True:
        try:
            return _listen(address)
        except OSError as error:
            # It may be the guardian of a run that was killed just now: see `mdvp.wire.guardian`.
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise ListenError(f"cannot listen on {address}: {_in_words(error)}") from error
        time.sleep(_PAUSE)


def _listen(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if isinstance(address.ip, IPv6Address) else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else the port of a run that has just ended could not be had for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _do_not_delay(listener)
        listener.bind((str(address.ip), address.port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _do_not_delay(listener: socket.socket) -> None:
    # Each connection inherits it: no part of an answer is to wait for the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _in_words(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "somebody does already; `ss --listening --tcp --processes` shows who"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` shows those it has"
        case _:
            return str(error.strerror)


def passed_listener(descriptors: Sequence[int], wanted: TcpAddress | Path) -> socket.socket:
    """Return the listening socket that a service manager has passed.

    Raises ListenError unless it is one, and the one that is wanted.
    """
    if len(descriptors) != 1:
        raise ListenError(
            f"{len(descriptors)} sockets were passed, and mdvp takes one: have a single "
            "ListenStream= in its socket unit (an empty one takes back those before it)"
        )
    try:
        listener = socket.socket(fileno=descriptors[0])
    except OSError as error:
        raise ListenError(
            f"LISTEN_FDS says that descriptor {descriptors[0]} is a socket to listen on, but it "
            f"is none: {error.strerror}"
        ) from error
    try:
        _check_passed(listener, wanted)
        listener.set_inheritable(False)
        if isinstance(wanted, TcpAddress):
            _do_not_delay(listener)
    except BaseException:
        listener.close()
        raise
    return listener


def _check_passed(listener: socket.socket, wanted: TcpAddress | Path) -> None:
    found = _address(listener)
    if not _is_same(found, wanted):
        raise ListenError(
            f"a socket at {found} was passed, but mdvp was told to listen on {wanted}: have the "
            "same in its socket unit (ListenStream=) and in its arguments"
        )
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.type != socket.SOCK_STREAM or not listens:
        raise ListenError(
            f"the socket at {found} that was passed is none that listens for connections: have "
            "ListenStream= and Accept=no in its socket unit"
        )
    if isinstance(wanted, Path):
        _check_file(wanted)


def _address(listener: socket.socket) -> TcpAddress | Path | str:
    """Return where a socket is bound; in words where mdvp could not be told to listen."""
    name = listener.getsockname()
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        return TcpAddress(ip_address(name[0]), name[1])
    is_path = listener.family == socket.AF_UNIX and isinstance(name, str) and name
    return Path(name) if is_path else f"no path and no TCP address ({name!r})"


def _is_same(found: TcpAddress | Path | str, wanted: TcpAddress | Path) -> bool:
    if isinstance(found, Path) and isinstance(wanted, Path):
        return found.resolve() == wanted.resolve()  # /var/run is /run
    return found == wanted


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ListenError(
            f"a socket at {path} was passed, but its file is gone, and nobody could connect: "
            "start its socket unit again"
        ) from error
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # The manual's default of SocketMode= is 0666.
        raise ListenError(
            f"others can connect to {path} (owner {status.st_uid}, mode "
            f"{stat.S_IMODE(status.st_mode):04o}), and whoever does can make and remove volumes as "
            "root: have SocketMode=0600 in its socket unit"
        )
