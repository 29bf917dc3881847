"""A real mdvp process, and a client that speaks to it as the engine does."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client.parser import text_string_to_metric_families
from support import DEADLINE, eventually, running

Address: TypeAlias = Path | tuple[str, int]  # a Unix socket's, or a TCP port's


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Address) -> None:
        super().__init__("plugin")
        self._address = address

    def connect(self) -> None:
        self.sock = connected(self._address)


def connected(address: Address, timeout: float = 10) -> socket.socket:
    """Return a connection to a Unix or a TCP socket; its operations time out after so long."""
    if isinstance(address, tuple):
        client = socket.create_connection(address, timeout)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the engine does
        return client
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout)
        client.connect(str(address))
    except BaseException:
        client.close()
        raise
    return client


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
    """A running mdvp: its root, its process, and where it listens."""

    root: Path
    address: Address
    process: subprocess.Popen[str]

    @property
    def socket(self) -> Path:
        assert isinstance(self.address, Path), f"on TCP at {self.address}"
        return self.address

    def call(self, endpoint: str, **message: object) -> Answer:
        return self.post(f"/VolumeDriver.{endpoint}", json.dumps(message).encode())

    def own(self, command: str, **message: object) -> Answer:
        """Ask what no engine does: `mdvp ls`, `mdvp change` and so on."""
        return self.post(f"/Mdvp.{command}", json.dumps(message).encode())

    def post(self, path: str, body: bytes, method: str = "POST", **headers: str) -> Answer:
        connection = _Connection(self.address)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(
                response.status,
                response.getheader("Content-Type", ""),
                json.loads(response.read()),
            )
        finally:
            connection.close()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Return what `GET /metrics` says: the name and the labels' values of each sample."""
        connection = _Connection(self.address)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status == 200, text
        finally:
            connection.close()
        return samples(text)

    def raw(self, request: bytes) -> bytes:
        with connected(self.address) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    def answers(self) -> bool:
        try:
            return self.post("/Plugin.Activate", b"").status == 200
        except OSError:
            return False

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


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Read metrics: the name and the labels' values of each sample."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def serving(
    root: Path, address: Address, *arguments: str, prefix: Sequence[str] = (), **environ: str
) -> Iterator[Plugin]:
    mdvp = command(root, address)
    with running([*prefix, *mdvp, *arguments], {**os.environ, **environ}) as process:
        plugin = Plugin(root, address, process)
        eventually(lambda: process.poll() is not None or plugin.answers(), True)
        yield plugin
        if isinstance(address, tuple):
            # Or its guardian would still be at work where the test has what it now removes.
            process.terminate()
            process.wait(DEADLINE)


def command(root: Path, address: Address) -> Sequence[str]:
    """Return what runs mdvp."""
    where = (
        f"--socket={address}" if isinstance(address, Path) else f"--tcp={_ip_and_port(*address)}"
    )
    return (sys.executable, "-m", "mdvp", "serve", f"--root={root}", where)


def _ip_and_port(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
