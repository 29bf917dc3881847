"""HTTP on a Unix socket: the engine's interface, and a plugin's."""

import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """A connection to the Unix socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def post(socket_path: Path, path: str, **message: object) -> tuple[int, Any]:
    """Post a message, if there is one, to `path`; return the status, and the answer's message."""
    sent = json.dumps(message) if message else None
    with closing(UnixConnection(socket_path)) as connection:
        connection.request("POST", path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    return answer.status, json.loads(body) if body else None
