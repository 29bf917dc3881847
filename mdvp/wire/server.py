"""The server: Waitress, which reads requests in one thread and lets a few others answer them.

Failure model. A client may be slow, silent, gone, or no client at all. It costs a connection and
nothing else: whoever has been silent for longest gives way when there are too many, and no client
can hold up the thread that reads or one of those that answer. While an answer waits for something,
another thread stands in for the one that waits. What is not even HTTP is answered in the protocol's
form too, since the engine shows only that.
"""

import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, cast

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest

from mdvp.core.errors import NoAnswerError
from mdvp.wire.api import CLIENT, MEDIA_TYPE, error_body

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# More than the engine sends at once; each operation is short, and they wait for one another anyway.
_THREADS = 4
# Above this, connections that wait for nothing give way to new ones; the engine has a few.
_CONNECTIONS = 500
# Above this, which is reached when so many wait for an answer, new ones wait to be accepted.
_CONNECTIONS_MAX = 1000
# The engine's has some hundred bytes. One that comes in small pieces is copied with each of them.
_HEAD_MAX = 16 << 10
# The app refuses a body long before this; up to here it is read, so that the client, still busy
# sending, gets the refusal rather than a broken pipe.
_BODY_READ_MAX = 64 << 20
_PAUSE = 1.0  # seconds
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid

log = logging.getLogger(__name__)


class _Parser(HTTPRequestParser):
    """Waitress's parser of one request, with an end to whatever a client may leave open."""

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if not self.completed:
            self._refuse_endless_line()
            return consumed
        # There is no body to come, and so nobody to be told to send it; Waitress would wait for it.
        self.expect_continue = False
        if self.empty or consumed == len(data):
            return consumed
        # A client that does not wait for its answer may never read it, and the thread that writes
        # the next one would wait for that. So such a client gets one answer, and is closed.
        self.headers = {**self.headers, "CONNECTION": "close"}
        return len(data)

    def _refuse_endless_line(self) -> None:
        # Of a chunked body, its data apart; it too is copied with each piece.
        open_line = getattr(self.body_rcv, "control_line", b"") or getattr(
            self.body_rcv, "trailer", b""
        )
        if len(open_line) > _HEAD_MAX:
            self.error = BadRequest(f"a line of the body has more than {_HEAD_MAX} bytes")
            self.completed = True

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of an address or a number, which Waitress does not expect
            raise ParsingError(str(error)) from error


class _JsonErrorTask(ErrorTask):
    """Waitress's own refusals, in the form of the protocol."""

    def execute(self) -> None:
        error = self.request.error  # type: ignore[attr-defined]  # a parser here, with an error
        body = error_body(f"{error.reason}: {error.body}")
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", MEDIA_TYPE)]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Peer:
    """Who has sent a request, and waits for the answer.

    Attributes:
        pid: the id of the process; None where that is not known.

    """

    def __init__(self, channel: HTTPChannel) -> None:
        """Speak of who is at the other end of `channel`."""
        self._channel = channel
        self.pid = _caller(channel.socket)

    def is_gone(self) -> bool:
        """Say whether nobody is there any more to get an answer."""
        client = self._channel.socket
        if client is None or (number := client.fileno()) < 0:  # it was closed here
            return True
        # Whatever it has sent, nothing more is to come: the engine closes both ways at once. To
        # look whether there is something to be read would not show that, behind what is unread.
        poll = select.poll()
        poll.register(number, select.POLLRDHUP)
        return bool(poll.poll(0))

    def waits(self) -> AbstractContextManager[None]:
        """Have another thread answer others, while this one waits, in the block."""
        return cast(_Dispatcher, self._channel.server.task_dispatcher).standing_in()


class _Dispatcher(ThreadedTaskDispatcher):
    """The threads that answer: as many as are wanted, besides those that wait for something."""

    def __init__(self, end_waits: Callable[[], object]) -> None:
        """Call `end_waits` before the threads are to end, to have none of them wait any longer."""
        super().__init__()
        self._end_waits = end_waits
        self._waiting = 0
        self._ending = False
        self._count = Lock()
        self.set_thread_count(_THREADS)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Have one more thread in the block."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._count:
            if not self._ending:
                self.set_thread_count(_THREADS + self._waiting + number)
            self._waiting += number

    def start_new_thread(self, target: Callable[[int], object], thread_no: int) -> None:
        try:
            super().start_new_thread(target, thread_no)
        except BaseException:  # there can be no more; then this is none, and none is to be ended
            self.threads.discard(thread_no)
            raise

    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:
        with self._count:
            self._ending = True
        self._end_waits()
        ended: bool = super().shutdown(cancel_pending, timeout)
        return ended


class _Task(WSGITask):
    """A request for the app."""

    def get_environment(self) -> dict[str, object]:
        """Tell the app who asks, besides what it is told by any server."""
        return {**super().get_environment(), CLIENT: Peer(self.channel)}

    def execute(self) -> None:
        try:
            super().execute()
        except NoAnswerError as error:
            raise ClientDisconnected from error  # for Waitress, a reason to close without a word

    def write(self, data: bytes) -> None:
        if self.wrote_header or not data:
            super().write(data)
            return
        # Head and body in one piece: for the client they are one answer to wait for.
        self.wrote_header = True
        self.channel.write_soon(self.build_response_header() + data)
        self.content_bytes_written += len(data)


class _Channel(HTTPChannel):
    """One connection."""

    parser_class = _Parser
    task_class = _Task
    error_task_class = _JsonErrorTask

    def handle_expt(self) -> None:
        # Urgent data (MSG_OOB), which is no part of HTTP, would wake poll(2) again and again.
        self.handle_close()


class _Server(BaseWSGIServer):
    """The listener, and all connections."""

    channel_class = _Channel
    _deaf_until = 0.0

    def getsockname(self) -> tuple[str, str]:
        return "mdvp", "0"  # what the app could learn of where it runs; it does not ask

    def fix_addr(self, _address: object) -> tuple[str, None]:
        return "client", None  # nor from where it is asked

    def readable(self) -> bool:
        return super().readable() and time.monotonic() >= self._deaf_until

    def accept(self) -> tuple[socket.socket, object] | None:
        try:
            return super().accept()
        except OSError as error:  # no file descriptor, or no memory
            # The client goes on to wait, and poll(2) to say so: without a pause, in a busy loop.
            if idle := self._idle():
                _drop_idlest(idle)
            else:
                log.error(
                    "cannot take another connection for now: %(error)s",
                    {"event": "cannot_accept", "error": error},
                )
                self._deaf_until = time.monotonic() + _PAUSE
            return None

    def handle_accept(self) -> None:
        super().handle_accept()
        # After that, or the new one could have the number of the descriptor that is closed here,
        # and be taken for it in this turn of the loop.
        idle = self._idle()
        if len(self._channels) > _CONNECTIONS and len(idle) > 1:  # more than the new one
            _drop_idlest(idle)

    def _idle(self) -> Sequence[HTTPChannel]:
        return [channel for channel in self._channels.values() if not channel.requests]

    @property
    def _channels(self) -> Mapping[int, HTTPChannel]:
        return cast(Mapping[int, HTTPChannel], self.active_channels)


def _caller(client: socket.socket | None) -> int | None:
    """Return the process that has connected; None where that is not known, as over TCP.

    Source: unix(7), SO_PEERCRED.
    """
    if client is None or client.family != socket.AF_UNIX:
        return None
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid: int = _UCRED.unpack(credentials)[0]
    return pid or None  # 0: in a process namespace that we cannot see into


def _drop_idlest(idle: Sequence[HTTPChannel]) -> None:
    min(idle, key=lambda channel: channel.last_activity).handle_close()


def serve(
    app: "WSGIApplication", listener: socket.socket, end_waits: Callable[[], object] = lambda: None
) -> None:
    """Serve `app` on `listener` until SystemExit or KeyboardInterrupt is raised in this thread.

    Then it calls `end_waits`, for no answer to wait for anything any longer.
    """
    server = _Server(
        app,
        dispatcher=_Dispatcher(end_waits),
        _sock=listener,
        bind_socket=False,
        sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        sockets=[listener],
        ident=None,
        connection_limit=_CONNECTIONS_MAX,
        send_bytes=1,  # at once, by the thread that has the answer
        asyncore_use_poll=True,  # select(2) ends the process at descriptor 1024
        max_request_header_size=_HEAD_MAX,
        max_request_body_size=_BODY_READ_MAX,
        clear_untrusted_proxy_headers=True,
    )
    server.run()
