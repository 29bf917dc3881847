"""The listener: Waitress on a Unix socket that only its owner can connect to.

Failure model. A socket file that a dead process left is replaced; one that somebody answers on is
not. What is not even HTTP is answered in the protocol's form too, since the engine shows only that.
"""

import socket
from typing import TYPE_CHECKING

from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from mdvp.api import MEDIA_TYPE, error_body

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# More than the engine sends at once; each operation is short, and they wait for one another anyway.
_THREADS = 4
# The app refuses a body long before this; up to here it is read, so that the client, still busy
# sending, gets the refusal rather than a broken pipe.
_BODY_READ_MAX = 64 << 20


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


class _Channel(HTTPChannel):
    error_task_class = _JsonErrorTask


def serve(app: "WSGIApplication", listener: socket.socket) -> None:
    """Serve `app` on `listener` until SystemExit or KeyboardInterrupt is raised in this thread."""
    server = create_server(
        app,
        sockets=[listener],
        threads=_THREADS,
        ident=None,
        max_request_body_size=_BODY_READ_MAX,
        clear_untrusted_proxy_headers=True,
    )
    server.channel_class = _Channel  # type: ignore[union-attr]  # one listener, so one server
    server.run()
