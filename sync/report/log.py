"""The log: to standard output, and to a file if one was named; as text, or as JSON.

A call of a log has one argument, a mapping, of which the words are made: `log.info("DEL %(key)s",
{"event": "delete", "key": shown(name)})`. As JSON, what is in the mapping are the line's fields,
but for what has an underscore before its name: that is there for the words alone. The event says
what the line is about, and is the same for ever: docs/logs.md has them all.
"""

import logging
import shutil
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from sync.core.changes import Shown
from sync.core.errors import SettingsError

LINES_MAX = 10  # so many of a kind at once get a line each; more are logged in one line
_FILE_SIZE_MAX = 10 << 20
_FOREIGN = {"py.warnings": "warning"}  # events of lines that are not ours, by their loggers

log = logging.getLogger(__name__)


class Lines:
    """Lines of one kind, not more than LINES_MAX a second."""

    def __init__(
        self, log: logging.Logger, level: int, event: str, words: str, others: str
    ) -> None:
        """Write to `log` the `words` with what is given for each line.

        Of those that get no line is said what `others` says, as an event of its own.
        """
        self._log = log
        self._level = level
        self._event = event
        self._words = words
        self._others = others
        self._count, self._second_ends = 0, 0.0  # written in this second, and when it ends

    def write(self, **fields: object) -> None:
        """Write a line, if there were not too many."""
        if time.monotonic() >= self._second_ends:
            self._second_ends, self._count = time.monotonic() + 1, 0
        self._count += 1
        if self._count <= LINES_MAX:
            self._log.log(self._level, self._words, {"event": self._event, **fields})
        elif self._count == LINES_MAX + 1:
            self._log.log(self._level, self._others, {"event": f"{self._event}_more"})


class JsonLines(JsonFormatter):
    """Writes each record as a line of JSON: ASCII, and one line, whatever is in it."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put in `log_data` what is to be in the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["time"] = moment.removesuffix("+00:00") + "Z"
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = _plain(record.message)
        given = record.args if isinstance(record.args, Mapping) else {}
        if "event" in given:
            log_data.update(_fields(given))
        else:  # a library's line
            log_data["event"] = _FOREIGN.get(record.name, "other")
        if "exc_info" in message_dict:
            log_data["exception"] = _plain(message_dict["exc_info"])


def _fields(given: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for field, value in given.items():
        if field.startswith("_"):
            continue
        yield field, _plain(value)
        # Another name could look the same, or it is no text at all.
        if isinstance(value, Shown) and value.encode() != value.name:
            yield f"{field}_base64", b64encode(value.name).decode()


def _plain(value: object) -> object:
    """Return what JSON has for a value; a text without what is no character, which readers refuse.

    Python has such for bytes that are no UTF-8, as in paths.
    """
    match value:
        case None | int():
            return value
        case float():
            return round(value, 6)  # seconds, to the microsecond
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return str(value).encode(errors="backslashreplace").decode()


class Patient(logging.Handler):
    """Goes on where a line cannot be written, for want of room, say; there is nothing to say it to.

    Python's handlers write a traceback to standard error then, for each line: the log's readers do
    not expect that, and the reason is plain, or there is another log.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # as logging has it
        """Leave out a line that cannot be written; what is wrong with a line is a defect."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class Stream(Patient, logging.StreamHandler[TextIO]):
    """Writes to a stream."""


class CappedFile(Patient, logging.FileHandler):
    """Appends to a file that others append to as well, and keeps it small.

    When the file has more than `size_max` bytes, they are copied to a file with `.1` after its name
    and this one is emptied: it stays the same file, so that nobody has to open it again. The
    rotation of logging, and supervisord's own, would leave the other writer with the old one.
    """

    def __init__(self, path: Path, size_max: int = _FILE_SIZE_MAX) -> None:
        """Append to `path`, to `size_max` bytes; raise OSError if that cannot be done."""
        super().__init__(path)
        self._size_max = size_max

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and empty the file if it has become too large."""
        super().emit(record)
        # With a disk that is full the service goes on.
        with suppress(OSError):
            self._keep_small()

    def _keep_small(self) -> None:
        stream = self.stream
        if stream is not None and stream.tell() > self._size_max:
            with suppress(OSError):  # then there is no copy, and the file is small all the same
                shutil.copyfile(self.baseFilename, f"{self.baseFilename}.1")
            stream.truncate(0)


def set_up(level: int, file: Path | None, form: str = "text") -> None:
    """Log from `level` upwards, as `form`: text, or json. Raises SettingsError.

    As JSON the log has what Python would write by itself, too: warnings, and what nobody caught.
    """
    handlers: list[logging.Handler] = [Stream(sys.stdout)]
    if file is not None:
        try:
            handlers.append(CappedFile(file))
        except OSError as error:
            if form == "json":
                to_stderr()
            raise SettingsError(f"SYNC_LOG_FILE cannot be written: {error}") from error
    if form == "json":
        _log_as_json(level, handlers)
    else:
        words = "%(asctime)s %(levelname)s sync: %(message)s"
        logging.basicConfig(level=level, format=words, handlers=handlers)


def to_stderr() -> None:
    """Log to standard error alone, as JSON: what is said before the log is what it is to be."""
    _log_as_json(logging.INFO, [Stream(sys.stderr)])


def _log_as_json(level: int, handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=handlers)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)
    threading.excepthook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, at: TracebackType | None
) -> None:
    if error is not None and not isinstance(error, SystemExit):
        log.critical("not caught", {"event": "uncaught"}, exc_info=(kind, error, at))
