"""A real mdvp process, and a client that speaks to it as the engine does."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import eventually, running


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("plugin", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    message: Any

    @property
    def error(self) -> str:
        return str(self.message["Err"])


@dataclass(frozen=True)
class Plugin:
    """A running mdvp: its root, its socket and its process."""

    root: Path
    socket: Path
    process: subprocess.Popen[str]

    def call(self, endpoint: str, **message: object) -> Answer:
        return self.post(f"/VolumeDriver.{endpoint}", json.dumps(message).encode())

    def post(self, path: str, body: bytes, method: str = "POST") -> Answer:
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(
                response.status,
                response.getheader("Content-Type", ""),
                json.loads(response.read()),
            )
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(self.socket))
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    def volumes(self) -> list[str]:
        return [volume["Name"] for volume in self.call("List").message["Volumes"]]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> str:
        """End it as the engine does; return its log."""
        self.process.send_signal(signal.SIGTERM)
        log, _ = self.process.communicate(timeout=10)
        return log


@contextmanager
def serving(root: Path, socket_path: Path, **environ: str) -> Iterator[Plugin]:
    command = [sys.executable, "-m", "mdvp", "serve", f"--root={root}", f"--socket={socket_path}"]
    with running(command, {**os.environ, **environ}) as process:
        plugin = Plugin(root, socket_path, process)
        eventually(lambda: process.poll() is not None or _answers(plugin), True)
        yield plugin


def _answers(plugin: Plugin) -> bool:
    try:
        return plugin.post("/Plugin.Activate", b"").status == 200
    except OSError:
        return False
