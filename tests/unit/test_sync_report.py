import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.core.causes import ReconcileCause
from sync.core.changes import (
    NONE,
    Arrive,
    Command,
    Confirm,
    Delete,
    Done,
    MovedFile,
    Removed,
    Rename,
    Set,
    Written,
)
from sync.report.lines import Report
from sync.report.log import LINES_MAX, JsonLines

ROOT = Path("/foo")
SAME = ("time", "level", "logger", "message")  # what is in each line


class Lines(logging.Handler):
    """A log and a clock, and a report that writes to the one and looks at the other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.written: list[str] = []
        self.fields: list[dict[str, object]] = []
        self.log = logging.getLogger("report")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)
        self.log.addHandler(self)
        self.report = Report(self.log, lambda: self.now)

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(record.getMessage())
        fields = json.loads(JsonLines().format(record))
        self.fields.append({name: fields[name] for name in fields if name not in SAME})

    def taken(self) -> list[str]:
        """Return the lines since the last time."""
        written, self.written = self.written, []
        return written


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.log.removeHandler(lines)


def sets(number: int, size: int = 3) -> list[Command]:
    return [Set(b"%d" % each, b"x" * size, NONE) for each in range(number)]


def test_each_change_has_a_line_while_changes_are_few(lines: Lines) -> None:
    lines.report.done([Set(b"key1", b"value1\n", NONE), Delete(b"two\nlines")], 0.0006)
    lines.report.done([Rename(b"a", b"b", NONE)], 0.1)
    lines.report.done([Arrive(b"large", NONE._replace(size=314_572_800))], 0.25)
    assert lines.taken() == [
        "SET key1 (7 B, 0.6 ms)",
        r"DEL two\nlines",
        "RENAME a -> b",
        "SET large (314.6 MB, 250 ms)",
    ]
    assert lines.report.due is None


def test_what_leaves_the_values_as_they_are_is_not_told(lines: Lines) -> None:
    lines.report.done([Confirm(b"a", NONE)] * 20, 0.1)
    lines.report.done([*sets(9), Confirm(b"a", NONE)], 0.1)
    assert lines.report.due is None
    lines.report.done([Delete(b"a")], 0.1)
    assert len(lines.taken()) == 10


def test_what_is_more_in_a_second_is_one_line_at_its_end(lines: Lines) -> None:
    for _ in range(LINES_MAX):
        lines.report.done(sets(1), 0.001)
    assert len(lines.taken()) == LINES_MAX
    lines.now += 0.5
    lines.report.done([*sets(2), Delete(b"a")], 0.1)
    lines.now += 0.3
    lines.report.done([Rename(b"a", b"b", NONE), Confirm(b"a", NONE)], 0.1)
    lines.report.done([Arrive(b"large", NONE._replace(size=1_200_000))], 0.1)
    assert lines.report.due == 101.0
    lines.now = 100.999
    lines.report.tick()
    assert lines.taken() == []
    lines.now = 101.0
    lines.report.tick()
    assert lines.taken() == ["5 changes in 400 ms: 3 SET (1.2 MB), 1 DEL, 1 RENAME"]
    assert lines.report.due is None


def test_a_burst_has_one_line_a_second(lines: Lines) -> None:
    for _ in range(20):
        lines.report.done(sets(1000, size=200), 0.125)
        lines.now += 0.125
    assert lines.taken() == [
        "8,000 changes in 1.0 s: 8,000 SET (1.6 MB)",
        "8,000 changes in 1.0 s: 8,000 SET (1.6 MB)",
    ]
    lines.report.flush()
    assert lines.taken() == ["4,000 changes in 500 ms: 4,000 SET (800.0 kB)"]
    lines.report.flush()
    assert lines.taken() == []


def test_after_a_burst_each_change_has_a_line_again_and_after_the_bursts(lines: Lines) -> None:
    lines.report.done([Delete(b"a")] * 11, 0.1)
    lines.now += 1.0
    lines.report.done([Delete(b"b")], 0.1)
    assert lines.taken() == ["11 changes in 100 ms: 11 DEL", "DEL b"]


def test_a_log_that_is_not_to_have_the_lines_is_not_asked(lines: Lines) -> None:
    lines.log.setLevel(logging.WARNING)
    lines.report.done(sets(11), 0.1)
    assert lines.report.due is None


def test_a_long_reconcile_shows_its_progress_every_two_seconds(lines: Lines) -> None:
    lines.report.begin()
    for _ in range(18):
        lines.now += 0.25
        lines.report.progress(ReconcileCause.START, 120_000, 5_000, 1)
    line = "reconciling: 120,000 files seen, 5,000 transferred, 1 stale key removed so far (start)"
    assert lines.taken() == [line, line]


def test_the_next_reconcile_is_as_quiet_at_first_though_the_last_was_broken_off(
    lines: Lines,
) -> None:
    for _ in range(2):
        lines.report.begin()
        lines.now += 1.9
        lines.report.progress(ReconcileCause.START, 1, 1, 1)
    assert lines.taken() == []


def test_the_end_of_a_reconcile_says_what_was_done_and_why(lines: Lines) -> None:
    lines.report.done([Delete(b"a")] * 11, 0.1)
    lines.report.reconciled("here:6379", ROOT, ReconcileCause.EVENTS_LOST, 1250, 1, 0, 0.012)
    assert lines.taken() == [
        "11 changes in 100 ms: 11 DEL",
        "Redis at here:6379 equals /foo: 1,250 files, 1 transferred, 0 stale keys removed, "
        "12.0 ms (events were lost)",
    ]


@pytest.mark.parametrize(
    ("done", "words", "fields"),
    [
        (Set(b"a", b"xy", NONE), "SET a (2 B, 0.5 ms)", {"event": "set", "bytes": 2}),
        (Arrive(b"a", NONE), "SET a (0 B, 0.5 ms)", {"event": "set", "bytes": 0}),
        (Delete(b"a"), "DEL a", {"event": "delete"}),
        (Rename(b"a", b"b", NONE), "RENAME a -> b", {"event": "rename", "new_key": "b"}),
        (
            Rename(b"a", b"\n", NONE),
            r"RENAME a -> \n",
            {"event": "rename", "new_key": r"\n", "new_key_base64": "Cg=="},
        ),
        (Written(b"a", 3), "a written (3 B, 0.5 ms)", {"event": "write_file", "bytes": 3}),
        (Removed(b"a"), "a removed", {"event": "remove_file"}),
        (MovedFile(b"a", b"b"), "a renamed to b", {"event": "rename_file", "new_key": "b"}),
    ],
)
def test_a_change_has_words_for_people_and_fields_for_programs(
    lines: Lines, done: Done, words: str, fields: dict[str, object]
) -> None:
    lines.report.done([done], 0.0005)
    assert lines.taken() == [words]
    assert lines.fields == [{"key": "a", "seconds": 0.0005, **fields}]


def test_a_summary_has_its_numbers_as_fields(lines: Lines) -> None:
    done: list[Done] = [*sets(9), Arrive(b"l", NONE._replace(size=1000)), Confirm(b"a", NONE)]
    done += [Delete(b"a"), Rename(b"a", b"b", NONE)]
    done += [Written(b"a", 50), Removed(b"a"), MovedFile(b"a", b"b")]
    lines.report.done(done, 0.5)
    lines.report.flush()
    assert lines.taken() == [
        "15 changes in 500 ms: 10 SET (1.0 kB), 1 DEL, 1 RENAME, 1 file written, 1 file removed, "
        "1 file renamed"
    ]
    assert lines.fields == [
        {
            "event": "changes",
            "changes": 15,
            "seconds": 0.5,
            "set": 10,
            "bytes": 1027,
            "delete": 1,
            "rename": 1,
            "write_file": 1,
            "remove_file": 1,
            "rename_file": 1,
        }
    ]


def test_a_reconcile_has_its_numbers_as_fields(lines: Lines) -> None:
    lines.report.begin()
    lines.now += 2
    lines.report.progress(ReconcileCause.REDIS_AWAY, 120_000, 5_000, 1)
    lines.report.reconciled("here:6379", ROOT, ReconcileCause.REDIS_AWAY, 1250, 1, 0, 0.012)
    same = {"cause": "redis_away"}
    assert lines.fields == [
        {**same, "event": "reconciling", "files": 120_000, "transferred": 5_000, "removed": 1},
        {
            **same,
            "event": "reconciled",
            "server": "here:6379",
            "root": "/foo",
            "files": 1250,
            "transferred": 1,
            "removed": 0,
            "seconds": 0.012,
        },
    ]
