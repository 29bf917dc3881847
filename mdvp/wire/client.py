"""Asks a running mdvp, over its Unix socket, for the commands that work beside it.

Failure model. There may be no mdvp, or several, or one that has just ended and left its socket;
it may not answer, or answer with the reason why it refuses. Each is an error in words.
"""

import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mdvp.core.errors import MdvpError

PLUGINS = Path("/run/docker/plugins")
# Below PLUGINS: of an mdvp on the host, and of managed plugins, each in a folder of its own.
_SOCKETS = ("mdvp.sock", "*/mdvp.sock")
_PATIENCE = 120.0  # seconds; as the engine has it


class UnreachableError(MdvpError):
    """No mdvp answers, or nobody can tell which of several is meant."""


class RefusedError(MdvpError):
    """mdvp has refused what was asked; the text is its own."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("mdvp", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = _connected(self._path)


def _connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(_PATIENCE)
        client.connect(str(path))
    except BaseException:
        client.close()
        raise
    return client


def found(plugins: Path = PLUGINS) -> Path:
    """Return the socket of the one mdvp that runs here; raise UnreachableError if it is not one."""
    there = sorted(path for each in _SOCKETS for path in plugins.glob(each))
    alive = [path for path in there if _listens(path)]
    match alive:
        case [path]:
            return path
        case []:
            raise UnreachableError(_none(plugins, there))
    raise UnreachableError(
        f"several mdvp run here: say which with --socket, one of {_listing(alive)} (`docker plugin "
        "inspect --format '{{.Id}}' NAME` tells the folder of a plugin)"
    )


def _listens(path: Path) -> bool:
    try:
        _connected(path).close()
    except OSError:
        return False
    return True


def _none(plugins: Path, there: Iterable[Path]) -> str:
    if there:
        return f"no mdvp answers on {_listing(there)}: is the plugin enabled, and are you root?"
    return (
        f"no mdvp runs here, as there is no mdvp.sock in {plugins}: enable the plugin, or name its "
        "socket with --socket; in a container, run it with -v "
        f"{PLUGINS}:{PLUGINS}"
    )


def _listing(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def ask(path: Path, endpoint: str, **message: object) -> Mapping[str, Any]:
    """Return the answer of the mdvp on the socket `path` to a message.

    Raises UnreachableError when there is none, and RefusedError with the reason for a refusal.
    """
    try:
        with closing(_Connection(path)) as connection:
            connection.request("POST", endpoint, json.dumps(message))
            response = connection.getresponse()
            answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, RecursionError, ValueError) as error:
        raise UnreachableError(f"no answer from mdvp on {path}: {error}") from error
    if not isinstance(answer, dict):
        raise UnreachableError(f"what answers on {path} is no mdvp")
    if response.status != http.client.OK:
        raise RefusedError(str(answer.get("Err", response.reason)))
    return answer
