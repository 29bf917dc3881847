"""The exporter: answers whoever asks for the metrics, over HTTP, in threads of its own.

One thread has all connections, another one makes the answers: Waitress. The service is not asked;
what it has said last is read as it is.

Failure model. Whoever can connect may be slow, silent, or no client at all. None of that reaches
the service, and the next one who asks is answered:
- One connection is one answer, and is closed. Whatever else was sent is not read.
- When there are too many connections the oldest gives way, for those who ask in earnest need
  milliseconds. It also does when it is too old.
- A request has no body, and a short head. What is none is refused.
- Without a file descriptor nobody is answered, until there is one again.
- An address that cannot be had is named at the start, and ends the service, as other settings do.
"""

import errno
import logging
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from sync.core.endpoint import LOOPBACK, Endpoint
from sync.core.errors import SettingsError
from sync.report.metrics import families
from sync.report.status import StatusFile

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

PATH = "/metrics"
CONNECTIONS = 32  # at once; a few are enough, and each can cost a file descriptor
PATIENCE = 10.0  # seconds that a connection has from its beginning to its end
HEAD_MAX = 16 << 10  # bytes of a request; Prometheus' has some hundred
_PAUSE = 1.0  # seconds, where no connection can be taken
_PLAIN = "text/plain; charset=utf-8"
_LACKING = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class StatusCollector(Collector):
    """What the service has said last, for whoever collects metrics."""

    def __init__(self, file: StatusFile, version: str) -> None:
        """Tell of what was written to `file` last by the service, which is of this version."""
        self._file = file
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are by now."""
        # Before the time is taken, or they could be from later.
        said, found = self._file.last, self._file.found
        return families(said, time.monotonic(), self._version, found)


class App:
    """The answers: the metrics of a registry at PATH, and nothing else."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Answer with what `registry` has when somebody asks."""
        self._registry = registry

    def __call__(self, environ: "WSGIEnvironment", respond: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        headers = []
        if environ["PATH_INFO"] != PATH:
            status, kind = "404 Not Found", _PLAIN
            body = f"There is nothing here: the metrics are at {PATH}.\n".encode()
        elif environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            status, kind = "405 Method Not Allowed", _PLAIN
            body = b"Metrics can only be asked for: use GET or HEAD.\n"
            headers = [("Allow", "GET, HEAD")]
        else:
            status, kind = "200 OK", CONTENT_TYPE_PLAIN_0_0_4
            body = generate_latest(self._registry)
        respond(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


class _Parser(HTTPRequestParser):
    """Waitress's parser of a request, of which there is one; and it has no body."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of an address or a number, which Waitress does not expect
            raise ParsingError(str(error)) from error
        # Whatever the client would like: Waitress drops what came behind.
        self.headers = {**self.headers, "CONNECTION": "close"}
        # Nobody is told to send a body, whose lines Waitress would read without a limit.
        self.expect_continue = False
        if self.body_rcv is not None:
            raise ParsingError("metrics are asked for without a body")


class _Channel(HTTPChannel):
    """One connection."""

    parser_class = _Parser

    def handle_expt(self) -> None:
        # Urgent data (MSG_OOB), which is no part of HTTP, would wake poll(2) again and again.
        self.handle_close()


class _Server(TcpWSGIServer):
    """A socket that listens, and the connections that came by it."""

    channel_class = _Channel
    _deaf_until = 0.0

    def readable(self) -> bool:
        return super().readable() and time.monotonic() >= self._deaf_until

    def accept(self) -> tuple[socket.socket, object] | None:
        try:
            return super().accept()
        except OSError:  # no file descriptor, or no memory: poll(2) would say so in a busy loop
            self._deaf_until = time.monotonic() + _PAUSE
            return None

    def handle_accept(self) -> None:
        super().handle_accept()
        if len(self._channels) > CONNECTIONS:
            min(self._channels.values(), key=lambda each: each.creation_time).handle_close()

    def maintenance(self, now: float) -> None:
        """Close what is too old, whatever it does: to be slow is no way to stay."""
        for channel in tuple(self._channels.values()):
            if channel.creation_time < now - PATIENCE:
                channel.handle_close()

    @property
    def _channels(self) -> Mapping[int, HTTPChannel]:
        return cast(Mapping[int, HTTPChannel], self.active_channels)


class Exporter:
    """Listens at an endpoint, and tells what was written to a status file last."""

    def __init__(self, file: StatusFile, endpoint: Endpoint, version: str) -> None:
        """Listen, to tell that it is of this version, too.

        Raises SettingsError if the endpoint cannot be had.
        """
        registry = CollectorRegistry()
        registry.register(StatusCollector(file, version))
        ProcessCollector(registry=registry)
        # What Waitress says of clients is nothing for the log of a mirror.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        settings = Adjustments(
            ident=None,
            threads=1,
            max_request_header_size=HEAD_MAX,
            cleanup_interval=1,
            asyncore_use_poll=True,  # select(2) ends the process at descriptor 1024
        )
        self._map: dict[int, socket.socket] = {}  # or what else has a descriptor
        with ExitStack() as stack:
            sockets = [stack.enter_context(each) for each in _listening(endpoint)]
            dispatcher = ThreadedTaskDispatcher()
            dispatcher.set_thread_count(settings.threads)
            for each in sockets:
                _Server(
                    App(registry),
                    self._map,
                    _sock=each,
                    dispatcher=dispatcher,
                    adj=settings,
                    sockinfo=(each.family, each.type, each.proto, each.getsockname()),
                    bind_socket=False,
                )
            stack.pop_all()  # they are the servers' by now

    def start(self) -> None:
        """Answer from now on, until the process ends."""
        Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        wasyncore.loop(timeout=1.0, use_poll=True, map=self._map)


def _listening(endpoint: Endpoint) -> Iterator[socket.socket]:
    """Yield the sockets that listen, one at least. Raises SettingsError."""
    hosts = [endpoint.host] if endpoint.host != LOOPBACK else ["127.0.0.1", "::1"]
    for number, host in enumerate(hosts):
        try:
            yield _listen(host, endpoint.port)
        except OSError as error:
            if number and error.errno in _LACKING:
                continue  # a machine without IPv6 has one loopback address, and it is taken
            raise SettingsError(
                f"SYNC_METRICS is {endpoint}, where the service cannot listen: {_in_words(error)}"
            ) from error


def _listen(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _in_words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program does, use another port"
    if error.errno in _LACKING:
        return "this machine has no such address, use the port alone for all that it has"
    if error.errno == errno.EACCES:
        return "it lacks the right to ports below 1024, use a higher one"
    return str(error.strerror)
