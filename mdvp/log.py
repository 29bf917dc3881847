"""The log: one line an event, on the stream whose level the engine understands; text, or JSON.

The engine copies a plugin's standard output into its own log at level info and the standard error
at level error, with the time. So warnings and errors go to standard error, the rest to standard
output, and no line of text repeats the time.

A call of a log has one argument, a mapping, of which the words are made: `log.info("volume
%(volume)s removed", {"event": "removed", "volume": name})`. As JSON, what is in the mapping are the
line's fields, but for what has an underscore before its name: that is there for the words alone.
The event says what the line is about, and is the same for ever: docs/logs.md has them all.
"""

import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FOREIGN = {"py.warnings": "warning"}  # events of lines that are not ours, by their loggers

log = logging.getLogger(__name__)


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
            log_data.update({k: _plain(v) for k, v in given.items() if not k.startswith("_")})
        else:  # a library's line
            log_data["event"] = _FOREIGN.get(record.name, "other")
        if "exc_info" in message_dict:
            log_data["exception"] = _plain(message_dict["exc_info"])


def _plain(value: object) -> object:
    """Return what JSON has for a value; a text without what is no character, which readers refuse.

    Python has such for bytes that are no UTF-8, as in paths.
    """
    match value:
        case None | int() | float():
            return value
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return str(value).encode(errors="backslashreplace").decode()


def set_up(level: str, form: str = "text") -> None:
    """Log from `level`, one of LEVELS, upwards, in one of FORMATS.

    As JSON the log has what Python would write by itself, too: warnings, and what nobody caught.
    """
    low = logging.StreamHandler(sys.stdout)
    low.addFilter(lambda record: record.levelno < logging.WARNING)
    high = logging.StreamHandler(sys.stderr)
    high.setLevel(logging.WARNING)
    formatter = logging.Formatter("%(levelname)s %(message)s")
    if form == "json":
        formatter = JsonLines()
        _take_all()
    for handler in (low, high):
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[low, high])
    # Waitress warns whenever a request waits for a free thread, which is no news here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _take_all() -> None:
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)
    threading.excepthook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, at: TracebackType | None
) -> None:
    if error is not None and not isinstance(error, SystemExit):
        log.critical("not caught", {"event": "uncaught"}, exc_info=(kind, error, at))
