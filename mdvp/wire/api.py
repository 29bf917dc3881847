"""The wire: Docker's volume plugin protocol as a Falcon app over a `Driver`.

Source: "Docker volume plugins" and "Docker Plugin API" in the Docker Engine manual. An endpoint
decodes the request, calls one method of the driver and encodes the answer. Every failure, the
client's or ours, is answered as `{"Err": "..."}` with a fitting status; the engine shows that text
at the `docker` prompt.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import BoundedSemaphore
from typing import Any, TypeAlias

import falcon
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mdvp.core import options
from mdvp.core.errors import (
    BadRequestError,
    BusyError,
    ConflictError,
    LaterError,
    MdvpError,
    NoAnswerError,
    NoSuchVolumeError,
    UnavailableError,
)
from mdvp.core.options import Options
from mdvp.core.volume import Volume, shown, timestamp
from mdvp.disk.store import is_damage
from mdvp.driver import Driver, Report
from mdvp.metrics import Outcome, Requests
from mdvp.turns import SOMEBODY, Client

MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
# The longest request that makes sense is a Create with options: some kilobytes.
BODY_MAX = 1 << 20
# Where a server puts, in the environment of a request, who has sent it.
CLIENT = "mdvp.client"
_GET = "/VolumeDriver.Get"
_METRICS = "/metrics"
_NOTHING: Mapping[str, Any] = {}  # the message of a request without a body
_MOUNT_ID_MAX = 1024
# Requests for metrics that are answered at once. Where there are many volumes one takes seconds,
# and a thread of the server's four.
_METRICS_AT_ONCE = 2

log = logging.getLogger(__name__)

Message: TypeAlias = Mapping[str, Any]
# What to do with a message, and who has sent it.
Operation: TypeAlias = Callable[[Message, Client], Message]

_NO_COMMANDS: Mapping[str, Operation] = {}

_STATUS: Mapping[type[MdvpError], str] = {
    BadRequestError: falcon.HTTP_400,
    NoSuchVolumeError: falcon.HTTP_404,
    ConflictError: falcon.HTTP_409,
    BusyError: falcon.HTTP_503,
    LaterError: falcon.HTTP_409,
    UnavailableError: falcon.HTTP_501,
}
# What is answered so is for the client to put right, or to wait for.
_REFUSALS: tuple[type[Exception], ...] = (*_STATUS, falcon.HTTPError)


def create_app(
    driver: Driver,
    start_again: Callable[[], object],
    registry: CollectorRegistry,
    commands: Mapping[str, Operation] = _NO_COMMANDS,
) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the WSGI app that speaks the protocol for `driver`, and shows what is in `registry`.

    To that it adds the requests, counted; `commands` are answered like those of the protocol. It
    calls `start_again` when something is wrong that the next start of mdvp puts right: a damaged
    state database. It raises NoAnswerError where no answer is better than an error.
    """
    app = falcon.App(media_type=MEDIA_TYPE)
    protocol = {**operations(driver), **commands}
    requests = Requests(registry, map(_operation_name, protocol))
    for path, operation in protocol.items():
        note = partial(requests.note, _operation_name(path))
        app.add_route(path, Endpoint(operation, note))
    app.add_route(_METRICS, Metrics(registry))
    app.add_error_handler(MdvpError, _answer_refusal)
    app.add_error_handler(Exception, partial(_answer_failure, start_again))
    # Last, as Falcon asks the newest handler first, and an HTTPError is an Exception too.
    app.add_error_handler(falcon.HTTPError, _answer_http_error)
    return app


def operations(driver: Driver) -> Mapping[str, Operation]:
    """Return the whole protocol: what each path does with a request's message."""

    def create(message: Message, client: Client) -> Message:
        driver.create(text(message, "Name"), _options(message), client)
        return {}

    def remove(message: Message, _client: Client) -> Message:
        driver.remove(text(message, "Name"))
        return {}

    def mount(message: Message, client: Client) -> Message:
        return {"Mountpoint": driver.mount(text(message, "Name"), _mount_id(message), client)}

    def unmount(message: Message, _client: Client) -> Message:
        driver.unmount(text(message, "Name"), _mount_id(message))
        return {}

    def path(message: Message, _client: Client) -> Message:
        return {"Mountpoint": driver.path(text(message, "Name"))}

    def get(message: Message, _client: Client) -> Message:
        if message is _NOTHING:
            # How the engine repeats one that got no answer: it has sent the body already. An error
            # now would be as bad as it would have been then.
            raise NoAnswerError("a Get without a name")
        report = driver.get(text(message, "Name"))
        return {"Volume": {**_volume(report.volume, report.mountpoint), "Status": _status(report)}}

    def list_volumes(_message: Message, _client: Client) -> Message:
        # Without Status: `docker volume ls` does not show it, and there may be many.
        return {"Volumes": [_volume(volume, mountpoint) for volume, mountpoint in driver.list()]}

    return {
        "/Plugin.Activate": lambda *_: {"Implements": ["VolumeDriver"]},
        "/VolumeDriver.Create": create,
        "/VolumeDriver.Remove": remove,
        "/VolumeDriver.Mount": mount,
        "/VolumeDriver.Unmount": unmount,
        "/VolumeDriver.Path": path,
        _GET: get,
        "/VolumeDriver.List": list_volumes,
        "/VolumeDriver.Capabilities": lambda *_: {"Capabilities": {"Scope": "local"}},
    }


def _operation_name(path: str) -> str:
    whose, _, name = path.strip("/").lower().rpartition(".")
    return f"{whose}_{name}" if whose == "mdvp" else name


class Endpoint:
    """One path of the protocol: decode the message, do the operation, encode the answer."""

    def __init__(self, operation: Operation, note: Callable[[Outcome, float], object]) -> None:
        """Serve `operation`; `note` is told of each request what became of it, and the seconds."""
        self._operation = operation
        self._note = note

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Answer a request."""
        began, outcome = time.perf_counter(), Outcome.FAILED
        try:
            _refuse_web_page(request)
            client = request.env.get(CLIENT, SOMEBODY)
            response.data = _encode(self._operation(_decode(request), client))
            outcome = Outcome.OK
        except _REFUSALS:
            outcome = Outcome.REFUSED
            raise
        finally:
            self._note(outcome, time.perf_counter() - began)

    def on_options(self, _request: falcon.Request, _response: falcon.Response) -> None:
        """Refuse as any other method is refused; Falcon would answer it with success."""
        raise falcon.HTTPMethodNotAllowed(["POST"])


class Metrics:
    """What there is to be known of mdvp, as Prometheus reads it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Show what is in `registry`."""
        self._registry = registry
        self._free = BoundedSemaphore(_METRICS_AT_ONCE)

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        """Answer with all metrics, in the format that is asked for.

        Not when others are being answered: the engine is not to wait for a thread.
        """
        _refuse_web_page(request)
        if not self._free.acquire(blocking=False):
            raise falcon.HTTPServiceUnavailable(
                description="others are being answered; ask again", retry_after=1
            )
        try:
            self._answer(request, response)
        finally:
            self._free.release()

    def _answer(self, request: falcon.Request, response: falcon.Response) -> None:
        accepted = request.get_header("Accept") or ""
        try:
            encode, response.content_type = choose_encoder(accepted)
        except TypeError:  # it compares a version that is no number
            encode, response.content_type = choose_encoder("")
        response.data = encode(self._registry)

    def on_options(self, _request: falcon.Request, _response: falcon.Response) -> None:
        """Refuse as any other method is refused."""
        raise falcon.HTTPMethodNotAllowed(["GET"])


def _refuse_web_page(request: falcon.Request) -> None:
    # A page in a browser on this machine can post to a TCP port here, though it comes from
    # elsewhere. A browser then says where the page is from, which nothing else does.
    if request.get_header("Origin") is not None:
        raise falcon.HTTPForbidden(description="a web page may not ask for volumes")


def _decode(request: falcon.Request) -> Message:
    # The engine sends no Content-Type, so the body is JSON whatever it says it is.
    body = request.bounded_stream.read(BODY_MAX + 1)
    if len(body) > BODY_MAX:
        raise falcon.HTTPContentTooLarge(description=f"a request has at most {BODY_MAX} bytes")
    if not body:
        return _NOTHING
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the request is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadRequestError("the request is not a JSON object")
    return message


def text(message: Message, field: str) -> str:
    """Return a field that is a text; raise BadRequestError when it is none, or empty."""
    if message is _NOTHING:
        raise BadRequestError(
            f"the request needs {field!r}, and is empty: so the engine repeats one that was cut "
            "off as mdvp ended; try again"
        )
    value = message.get(field)
    if not isinstance(value, str) or not value or not _is_unicode(value):
        raise BadRequestError(f"the request needs {field!r}, a text that is not empty")
    return value


def _mount_id(message: Message) -> str:
    mount_id = text(message, "ID")
    # It goes into the log and into messages as it is. The engine's has 64 characters.
    if len(mount_id) > _MOUNT_ID_MAX or not mount_id.isprintable():
        raise BadRequestError(
            f"'ID' in the request must be a text of at most {_MOUNT_ID_MAX} printable characters"
        )
    return mount_id


def _is_unicode(text: str) -> bool:
    # JSON can spell half a surrogate pair, which can be neither stored nor logged.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _options(message: Message) -> Options:
    return options.read(given_options(message))


def given_options(message: Message) -> Mapping[str, object]:
    """Return the options of a request, as they are; raise BadRequestError when it is none."""
    # The engine sends null when there are none.
    given = message.get("Opts") or {}
    if not isinstance(given, dict):
        raise BadRequestError("'Opts' in the request must be an object of texts")
    return given


def _volume(volume: Volume, mountpoint: str) -> Message:
    return {
        "Name": volume.name,
        "Mountpoint": mountpoint,
        "CreatedAt": timestamp(volume.created_at),
    }


def _status(report: Report) -> Message:
    """Return what `docker volume inspect` shows under Status."""
    claims = report.claims
    status: dict[str, object] = {**options.written(report.volume), "mounted": not claims.free}
    if report.volume.means is not None:
        status["means"] = report.volume.means.value
    if report.filling is not None:
        status["filling"] = report.filling
    if claims.holders:
        status["mounted_by"] = [holder.container or str(holder) for holder in claims.holders]
        status["since"] = timestamp(min(holder.since for holder in claims.holders))
    elif claims.living:
        # Its container is not to be seen: it is starting, or we cannot see at all.
        status["mount_ids"] = [lease.mount_id for lease in claims.living]
        status["since"] = timestamp(claims.living[0].since.utc)
    if report.waiting:
        status["waiting"] = report.waiting
    if report.warnings:
        status["warnings"] = list(report.warnings)
    return status


def _encode(message: Message) -> bytes:
    return json.dumps(message).encode()


def error_body(text: str) -> bytes:
    """Return the body of an answer that says what went wrong."""
    return _encode({"Err": text})


def _answer_refusal(
    _request: falcon.Request, response: falcon.Response, error: MdvpError, _params: object
) -> None:
    response.status = _STATUS.get(type(error), falcon.HTTP_500)
    response.data = error_body(str(error))


def _answer_failure(
    start_again: Callable[[], object],
    request: falcon.Request,
    response: falcon.Response,
    error: Exception,
    _params: object,
) -> None:
    if isinstance(error, NoAnswerError):
        raise error
    failed = {"event": "request_failed", "path": request.path}
    log.error("%(path)s failed", failed, exc_info=error)
    if is_damage(error):
        log.error(
            "the state database is damaged: mdvp ends, for its next start to mend that",
            {"event": "state_damaged_ends"},
        )
        start_again()
    if request.path == _GET:
        # The engine takes any error of a Get for "no such volume": it would forget whose the volume
        # is, and give the next container a local one. Without an answer it asks again.
        raise NoAnswerError from error
    # What the disk or the database says helps the user; what a defect says helps only us.
    known = isinstance(error, OSError | sqlite3.Error)
    reason = str(error) if known else "a defect in mdvp; its log has the details"
    response.status = falcon.HTTP_500
    response.data = error_body(f"mdvp could not do it: {reason}")


def _answer_http_error(
    request: falcon.Request, response: falcon.Response, error: falcon.HTTPError, _params: object
) -> None:
    response.status = error.status
    response.set_headers(dict(error.headers or {}))
    response.data = error_body(_in_words(request, error))


def _in_words(request: falcon.Request, error: falcon.HTTPError) -> str:
    if isinstance(error, falcon.HTTPNotFound):
        return f"mdvp has no endpoint {shown(request.path)}"
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        method = "GET" if request.path == _METRICS else "POST"
        return f"{shown(request.method)} is not for {shown(request.path)}: use {method}"
    return f"{error.title}: {error.description}" if error.description else str(error.title)
