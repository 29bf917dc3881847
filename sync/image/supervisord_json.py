"""Runs supervisord with its own lines as JSON, like those of the service: for LOG_FORMAT=json.

supervisord has no setting for that, but a format for each of its outputs, which it applies by `%`
to what there is to write. Those of what the programs write are left as they are: it is passed on.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from supervisor import loggers, supervisord

_LEVELS = {"BLAT": "DEBUG", "TRAC": "DEBUG", "DEBG": "DEBUG", "INFO": "INFO", "WARN": "WARNING"}


class _Json:
    """A format."""

    def __mod__(self, record: Mapping[str, str]) -> str:
        # The record's own, which is the local time, for the line to be the same in each output.
        local = datetime.strptime(record["asctime"], "%Y-%m-%d %H:%M:%S,%f").astimezone()
        moment = local.astimezone(UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.removesuffix("+00:00") + "Z",
            "level": _LEVELS.get(record["levelname"], "ERROR"),
            "logger": "supervisord",
            "message": record["message"],
            "event": "supervisord",
        }
        return f"{json.dumps(line)}\n"


def _set_format(handler: loggers.Handler, words: str) -> None:
    handler.fmt = _Json() if "%(levelname)s" in words else words


loggers.Handler.setFormat = _set_format
supervisord.main()
