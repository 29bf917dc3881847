"""The two ways to a volume driver: through the engine, and on the driver's own socket.

Each says which requests an operation is, so that they can be built before they are timed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from benchmarks.volumes.wire import Connection, WireError, request

ENGINE, SOCKET = "through the engine", "on the bare socket"
NEW_CONNECTION = ", new connection"  # ends the name of an operation that is timed so
HELD = "held-"  # begins the name of a volume that a container has, ends with the plugin's
IMAGE = "debian:trixie-slim"


class Access(Protocol):
    """A way to a driver."""

    level: str
    connection: Connection

    def operations(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield operations in an order in which they work, each with its requests for `names`."""

    def uses(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield those of these operations that leave the volumes there, all but the list."""

    def create(self, name: str) -> bytes:
        """Return the request that makes a volume."""

    def remove(self, name: str) -> bytes:
        """Return the request that removes a volume."""

    def close(self) -> None:
        """Give up what was made on this way."""


class SocketAccess:
    """VolumeDriver.* calls."""

    level = SOCKET

    def __init__(self, path: Path, options: Mapping[str, str]) -> None:
        """Speak to the driver that listens at `path`; volumes are created with `options`."""
        self.connection = Connection(path)
        self._options = dict(options) or None

    def operations(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield every call; a mount is one call and an unmount another."""
        yield "create", [self.create(name) for name in names]
        yield from self.uses(names)
        yield "remove", [self.remove(name) for name in names]
        yield "list", [_call("List")]

    def uses(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield Get, and Mount and Unmount by IDs as the engine makes them."""
        inspect = [_call("Get", Name=name) for name in names]
        yield "inspect", inspect
        yield f"inspect{NEW_CONNECTION}", inspect
        ids = {name: name.encode().hex().ljust(64, "0")[:64] for name in names}
        yield "mount", [_call("Mount", Name=name, ID=ids[name]) for name in names]
        yield "unmount", [_call("Unmount", Name=name, ID=ids[name]) for name in names]

    def create(self, name: str) -> bytes:
        """Return the request that makes a volume."""
        return _call("Create", Name=name, Opts=self._options)

    def remove(self, name: str) -> bytes:
        """Return the request that removes a volume."""
        return _call("Remove", Name=name)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _call(operation: str, **message: object) -> bytes:
    return request("POST", f"/VolumeDriver.{operation}", message)


class EngineAccess:
    """Calls of the engine's API; the engine calls the driver.

    The engine has no call that only mounts. Two that do little else stand for it: a look at a path
    in a container that does not run (what `docker cp` begins with), for which the engine mounts the
    container's volume and unmounts it again, and the start and stop of one that does nothing.
    """

    level = ENGINE

    def __init__(self, engine: Path, driver: str, options: Mapping[str, str]) -> None:
        """Use the engine that listens at `engine`, which knows the driver as `driver`."""
        self.connection = Connection(engine)
        self._driver = driver
        self._options = dict(options)
        plugin, _, _ = driver.partition(":")
        self._holder = f"holder-{plugin}"
        self._volume = f"{HELD}{plugin}"

    def operations(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield every operation; a mount and its unmount are one."""
        yield "create", [self.create(name) for name in names]
        yield from self.uses(names)
        yield "remove", [self.remove(name) for name in names]
        driver = {"filters": json.dumps({"driver": [self._driver]})}
        yield "list", [request("GET", f"/volumes?{urlencode(driver)}")]

    def uses(self, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield the inspection, and as many looks into the container that has a volume."""
        yield "inspect", [request("GET", f"/volumes/{name}") for name in names]
        look = request("HEAD", f"/containers/{self._holder}/archive?path=/data")
        yield "mount and unmount", [look for _ in names]

    def life(self) -> Iterator[tuple[str, list[bytes]]]:
        """Yield the start and the stop of a container that has a volume."""
        yield "container start", [request("POST", f"/containers/{self._holder}/start")]
        yield "container stop", [request("POST", f"/containers/{self._holder}/stop?t=0")]

    def create(self, name: str) -> bytes:
        """Return the request that makes a volume."""
        message = {"Name": name, "Driver": self._driver, "DriverOpts": self._options}
        return request("POST", "/volumes/create", message)

    def remove(self, name: str) -> bytes:
        """Return the request that removes a volume."""
        return request("DELETE", f"/volumes/{name}")

    def hold(self) -> None:
        """Make the container, and the volume that it has."""
        self.connection.exchange(self.create(self._volume))
        container = sleeper() | {
            "HostConfig": {"Binds": [f"{self._volume}:/data"], "NetworkMode": "none"}
        }
        path = f"/containers/create?name={self._holder}"
        self.connection.exchange(request("POST", path, container))

    def close(self) -> None:
        """Remove the container and its volume; close the connection."""
        with suppress(WireError):  # it may be there in part, or not at all
            self.connection.exchange(request("DELETE", f"/containers/{self._holder}?force=1"))
            self.connection.exchange(self.remove(self._volume))
        self.connection.close()


def sleeper() -> dict[str, object]:
    """Return the description of a container that does nothing and ends at once when told to."""
    return {
        "Image": IMAGE,
        "Cmd": ["sleep", "infinity"],
        "StopSignal": "KILL",
        "HostConfig": {"NetworkMode": "none"},
    }
