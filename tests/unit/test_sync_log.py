import json
import logging
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from sync.core.changes import shown
from sync.report.figures import Bytes, Count, Seconds
from sync.report.log import LINES_MAX, CappedFile, JsonLines, Lines

RECORD = logging.makeLogRecord({"msg": "x" * 9})  # 10 bytes with its newline


def test_a_file_that_becomes_too_large_is_emptied_and_stays_the_same_for_other_writers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    handler = CappedFile(path, size_max=25)
    with path.open("a") as other:
        for _ in range(3):
            handler.emit(RECORD)
        other.write("other\n")
    handler.emit(RECORD)
    handler.close()
    assert path.read_text() == "other\n" + "x" * 9 + "\n"
    assert (tmp_path / "log.1").read_text() == ("x" * 9 + "\n") * 3


def test_a_file_that_cannot_be_copied_is_kept_small_and_does_not_end_the_service(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.1").mkdir()
    handler = CappedFile(path, size_max=15)
    for _ in range(3):
        handler.emit(RECORD)
    handler.close()
    assert path.read_text() == "x" * 9 + "\n"


def line(words: str, *arguments: object, name: str = "sync.cli", **more: object) -> str:
    record = logging.getLogger(name).makeRecord(
        name, logging.INFO, "", 0, words, arguments, None, extra=None
    )
    record.__dict__.update(more)
    return JsonLines().format(record)


def test_a_line_of_json_has_the_words_and_the_fields() -> None:
    words = "SET %(key)s (%(bytes)s, %(seconds)s)%(_more)s"
    fields = {
        "event": "set",
        "key": shown(b"a"),
        "bytes": Bytes(1200),
        "seconds": Seconds(0.00060000049),
    }
    assert json.loads(line(words, {**fields, "_more": "!"}, created=1.0625)) == {
        "time": "1970-01-01T00:00:01.062Z",
        "level": "INFO",
        "logger": "sync.cli",
        "message": "SET a (1.2 kB, 0.6 ms)!",
        "event": "set",
        "key": "a",
        "bytes": 1200,
        "seconds": 0.0006,
    }


@pytest.mark.parametrize(
    ("name", "is_exact"),
    [
        (b"plain", True),
        ("é \N{SNOWMAN} \N{GRINNING FACE}".encode(), True),
        (b"two\nlines", False),
        (rb"two\nlines", True),
        (b"\"quotes' and \\", True),
        (b"\xff\xfe", False),
        (rb"\xff", True),
        (b"\x1b[31m\x00", False),
        ("\N{LINE SEPARATOR}\N{RIGHT-TO-LEFT OVERRIDE}".encode(), False),
        (b"\xed\xb3\xbf", False),  # a half of a pair, which no text can have
        (b"%(key)s %s {}", True),
    ],
)
def test_a_name_is_as_the_text_shows_it_and_known_to_programs(name: bytes, is_exact: bool) -> None:
    whole = line("DEL %(key)s", {"event": "delete", "key": shown(name)})
    assert whole.isascii()
    assert whole.isprintable()
    said = json.loads(whole)
    assert said["message"] == f"DEL {shown(name)}"
    assert said["key"] == shown(name)
    assert ("key_base64" not in said) == is_exact
    assert b64decode(said.get("key_base64", b64encode(said["key"].encode()))) == name


def test_what_is_no_text_is_one_in_json() -> None:
    fields = {
        "event": "e",
        "error": OSError("why\nso"),
        "root": Path("/\udcff\x00"),
        "files": Count(1234, "file", "files"),
        "list": ["a", OSError("b")],
        "none": None,
        "yes": True,
    }
    said = json.loads(line("%(files)s", fields))
    assert said["message"] == "1,234 files"
    assert {k: v for k, v in said.items() if k in fields} == {
        "event": "e",
        "error": "why\nso",
        "root": r"/\udcff" + "\x00",
        "files": 1234,
        "list": ["a", "b"],
        "none": None,
        "yes": True,
    }


def test_a_line_of_a_library_has_an_event_and_no_fields() -> None:
    said = json.loads(line("depth %(depth)d", {"depth": 3, "time": "now"}, name="waitress"))
    assert (said["event"], said["message"]) == ("other", "depth 3")
    assert said["time"] != "now"
    assert set(said) == {"time", "level", "logger", "message", "event"}


def test_an_exception_is_one_field_of_one_line() -> None:
    try:
        raise OSError("two\nlines \udcff")
    except OSError:
        whole = line("failed", {"event": "e"}, exc_info=sys.exc_info())
    assert whole.isprintable()
    assert json.loads(whole)["exception"].endswith("OSError: two\nlines \\udcff")


def test_of_many_lines_of_a_kind_is_said_that_there_are_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("kind")
    lines = Lines(log, logging.WARNING, "odd", "%(key)s is odd", "others are odd, too")
    for number in range(LINES_MAX + 5):
        lines.write(key=number)
    assert caplog.messages == [
        *(f"{each} is odd" for each in range(LINES_MAX)),
        "others are odd, too",
    ]
    assert [record.args for record in caplog.records] == [
        *({"event": "odd", "key": each} for each in range(LINES_MAX)),
        {"event": "odd_more"},
    ]


PROGRAM = """
import logging, sys, threading, warnings
from pathlib import Path
from sync.report.log import log, set_up
set_up(logging.INFO, Path(sys.argv[2]), sys.argv[1])
warnings.warn("take care")
threading.Thread(target=lambda: 1 / 0).start()
threading.Thread(target=sys.exit).start()  # which is no failure
log.debug("too much", {"event": "debug"})
log.info("information", {"event": "information"})
raise LookupError("never\\ncaught")
"""


def run(form: str, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, form, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_python_says_by_itself_is_json_too_and_in_the_file(tmp_path: Path) -> None:
    done = run("json", tmp_path / "log")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (tmp_path / "log").read_text()
    said = [json.loads(each) for each in done.stdout.splitlines()]
    events = sorted(each["event"] for each in said)
    assert events == ["information", "uncaught", "uncaught", "warning"]
    for words in ("ZeroDivisionError", "LookupError: never\ncaught"):
        assert sum(words in each.get("exception", "") for each in said) == 1


def test_text_is_what_it_was(tmp_path: Path) -> None:
    done = run("text", tmp_path / "log")
    assert re.fullmatch(r"\S{10} \S{12} INFO sync: information\n", done.stdout)
    assert "Traceback" in done.stderr
    assert "{" not in done.stderr


def test_the_entrypoints_say_what_they_have_to_say_in_json() -> None:
    command = (sys.executable, "-I", "-m", "sync.report.say", "ERROR", 'no "such"\nfile %s \udcff')
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stderr)
    assert (said["level"], said["event"]) == ("ERROR", "entrypoint")
    assert said["message"] == 'no "such"\nfile %s \\udcff'
