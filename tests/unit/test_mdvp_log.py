import json
import logging
import subprocess
import sys
import warnings

import pytest

from mdvp import log
from mdvp.core.errors import MdvpError


def line(words: str, *arguments: object, name: str = "mdvp.driver", **more: object) -> str:
    record = logging.getLogger(name).makeRecord(
        name, logging.INFO, "", 0, words, arguments, None, extra=None
    )
    record.__dict__.update(more)
    return log.JsonLines().format(record)


def test_a_line_has_the_words_and_the_fields() -> None:
    words = "volume %(volume)s mounted by %(mount_id)s (open mounts: %(mounts)d)%(_more)s"
    fields = {"event": "mounted", "volume": "v", "mount_id": 'a"b', "mounts": 2, "_more": "!"}
    assert json.loads(line(words, fields, created=1.0625)) == {
        "time": "1970-01-01T00:00:01.062Z",
        "level": "INFO",
        "logger": "mdvp.driver",
        "message": 'volume v mounted by a"b (open mounts: 2)!',
        "event": "mounted",
        "volume": "v",
        "mount_id": 'a"b',
        "mounts": 2,
    }


def test_what_is_a_text_for_nobody_else_is_one_there() -> None:
    fields = {
        "event": "e",
        "error": MdvpError("why\nso"),
        "options": {"uid": "1"},
        "holders": [MdvpError("who")],
        "root": "/\udcff\x00",
        "none": None,
    }
    assert {k: v for k, v in json.loads(line("", fields)).items() if k in fields} == {
        "event": "e",
        "error": "why\nso",
        "options": {"uid": "1"},
        "holders": ["who"],
        "root": r"/\udcff" + "\x00",
        "none": None,
    }


def test_a_line_of_a_library_has_an_event_and_no_fields() -> None:
    said = json.loads(line("depth %(depth)d", {"depth": 3, "time": "now"}, name="waitress"))
    assert (said["event"], said["message"]) == ("other", "depth 3")
    assert said["time"] != "now"
    assert set(said) == {"time", "level", "logger", "message", "event"}


def test_an_exception_is_one_field_of_one_line() -> None:
    try:
        raise MdvpError("two\nlines")
    except MdvpError:
        whole = line("failed", {"event": "e"}, exc_info=sys.exc_info())
    assert "\n" not in whole
    assert json.loads(whole)["exception"].endswith("MdvpError: two\nlines")


PROGRAM = """
import sys, threading, warnings
from mdvp import log
log.set_up("INFO", {form!r})
warnings.warn("take care")
threading.Thread(target=lambda: 1 / 0).start()
threading.Thread(target=sys.exit).start()  # which is no failure
log.log.debug("too much", {{"event": "debug"}})
log.log.info("to standard output", {{"event": "information"}})
class Hostile:
    def __del__(self):
        raise ValueError("in the end")
Hostile()
raise LookupError("never\\ncaught")
"""


def run(form: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(form=form)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_python_says_by_itself_is_json_too() -> None:
    done = run("json")
    assert done.returncode == 1
    assert [json.loads(each)["event"] for each in done.stdout.splitlines()] == ["information"]
    said = [json.loads(each) for each in done.stderr.splitlines()]
    assert sorted(each["event"] for each in said) == ["uncaught", "uncaught", "uncaught", "warning"]
    for words in ("ZeroDivisionError", "ValueError: in the end", "LookupError: never\ncaught"):
        assert sum(words in each.get("exception", "") for each in said) == 1
    assert sum("UserWarning: take care" in each["message"] for each in said) == 1


def test_text_is_what_it_was() -> None:
    done = run("text")
    assert done.stdout == "INFO to standard output\n"
    assert "Traceback" in done.stderr
    assert "{" not in done.stderr


@pytest.mark.parametrize("words", ["plain", "100 %(percent)s"])
def test_a_line_of_text_needs_not_all_fields(words: str) -> None:
    with warnings.catch_warnings(action="error"):
        record = logging.makeLogRecord({"msg": words, "args": {"percent": "%", "event": "e"}})
    assert logging.Formatter("%(message)s").format(record) == words.replace("%(percent)s", "%")
