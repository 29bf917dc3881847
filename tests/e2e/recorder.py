"""Test equipment: writes down what the engine asks of an mdvp, and what mdvp answers.

The engine finds the recorder's socket among those of its plugins. Each request goes on to a real
mdvp process on the engine's machine as it came, and the answer back as it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Lock, Thread
from typing import Any

from e2e.engine import PrivateEngine
from e2e.unix_http import UnixConnection
from support import eventually, running

_CHANGES = ("Create", "Mount", "Unmount", "Remove")


@dataclass(frozen=True)
class Call:
    """A request and its answer; the endpoint is without its prefix."""

    endpoint: str
    message: dict[str, Any]
    answer: dict[str, Any]


class Recorder:
    """The calls that came in, and the way to call mdvp past the engine."""

    def __init__(self, mdvp: Path) -> None:
        """Speak to the mdvp that listens on the Unix socket `mdvp`."""
        self._mdvp = mdvp
        self._calls: list[Call] = []
        self._lock = Lock()

    def calls(self, *endpoints: str) -> list[Call]:
        """Return the calls of these endpoints since the last `forget`, in order."""
        with self._lock:
            return [call for call in self._calls if call.endpoint in endpoints]

    def count(self, endpoint: str) -> int:
        """Return how often an endpoint was called since the last `forget`."""
        return len(self.calls(endpoint))

    def changes(self) -> list[str]:
        """Return the calls that are not only questions, by their names, in order."""
        return [call.endpoint for call in self.calls(*_CHANGES)]

    def mount_ids(self) -> list[str]:
        """Return the IDs of the calls of Mount and Unmount, in order."""
        return [call.message["ID"] for call in self.calls("Mount", "Unmount")]

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._calls.clear()

    def past_the_engine(self, endpoint: str, **message: object) -> dict[str, Any]:
        """Call mdvp itself, which the engine does not notice; return the answer."""
        body = json.dumps(message).encode()
        answer: dict[str, Any] = json.loads(self.forward(f"/VolumeDriver.{endpoint}", body)[2])
        return answer

    def answers(self) -> bool:
        """Say whether mdvp is up."""
        try:
            return self.forward("/Plugin.Activate", b"")[0] == HTTPStatus.OK
        except OSError:
            return False

    def forward(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """Post a request to mdvp; return the answer's status, content type and body."""
        with closing(UnixConnection(self._mdvp)) as connection:
            connection.request("POST", path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()

    def record(self, path: str, body: bytes, answer: bytes) -> None:
        """Write down a request and its answer."""
        call = Call(path.rpartition(".")[2], json.loads(body or b"{}"), json.loads(answer))
        with self._lock:
            self._calls.append(call)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True  # the engine keeps its connections open

    def __init__(self, path: Path, recorder: Recorder) -> None:
        self.recorder = recorder
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        recorder = self.server.recorder
        status, content_type, answer = recorder.forward(self.path, body, dict(self.headers))
        # Before the engine has the answer, so that a test never looks too early.
        recorder.record(self.path, body, answer)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be silent: the calls are on record."""


@contextmanager
def recording(engine: PrivateEngine, driver: str, root: Path) -> Iterator[Recorder]:
    """Run an mdvp with its volumes in `root` as the engine's volume driver `driver`."""
    machine = Path(f"/proc/{engine.pid}/root")
    recorder = Recorder(machine / f"run/{driver}-mdvp.sock")
    command = [
        *("nsenter", f"--target={engine.pid}", "--mount", "--net", "--pid", "--"),
        # nsenter waits for its child, and it is nsenter that gets killed in the end.
        *("setpriv", "--pdeathsig=KILL", "env", "--chdir=/run/repository"),
        *(".venv/bin/python", "-m", "mdvp", "serve"),
        *(f"--root={root}", f"--socket=/run/{driver}-mdvp.sock"),
    ]
    plugins = machine / "run/docker/plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    path = plugins / f"{driver}.sock"
    with running(command, engine.environ) as process:
        eventually(lambda: process.poll() is not None or recorder.answers(), True)
        with _Server(path, recorder) as server:
            Thread(target=server.serve_forever, args=(0.05,)).start()
            try:
                yield recorder
            finally:
                server.shutdown()
                path.unlink()
