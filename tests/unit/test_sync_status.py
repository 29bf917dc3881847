import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sync.core.changes import NONE, Delete, Set
from sync.core.errors import SettingsError
from sync.redis import listener
from sync.redis.target import Target
from sync.report.board import Board
from sync.report.health import FRESH, health
from sync.report.status import (
    HELD,
    LIVE,
    NAMED_MAX,
    NOTIFICATIONS,
    RECONCILING,
    RESCANS,
    STANDBY,
    TRACKING,
    WAITING,
    Status,
    StatusFile,
)
from sync.report.tally import LAG_BOUNDS, Change, Tally

NOW = 1000.0
STATUS = Status(
    state=LIVE,
    since=1_700_000_001.5,
    root="/foo",
    server="here:6379",
    started=1_700_000_000.5,
    files=3,
    bytes=1234567,
    commands=17,
    pending=2,
    operations={"set": 3, "delete": 1},
    moved=42,
    recent=(
        Change(1_700_000_001.25, "set", "a\\n", size=7),
        Change(1_700_000_002.5, "rename", "a\\n", "b"),
    ),
    lags=(1, 2),
    lag_sum=0.0125,
    lag=0.0006,
    reconciles={"start": 1, "Redis was away": 2},
    skipped={"X": "is a directory"},
    skipped_count=2,
)
CONFLICTING = Status(
    state=LIVE,
    mode="two-way-safe",
    heard_by=TRACKING,
    undone=1,
    conflicts={"a": "differs: 3 bytes on disk, no key in Redis"},
    conflicts_count=3,
)
KEYS = {
    *("mode", "heard_by", "undone", "conflicts", "conflicts_count"),
    *("healthy", "problem", "state", "detail", "files", "bytes", "commands", "lag_ms"),
    *("arriving", "directories", "unwatched", "reconciles", "skipped", "skipped_count"),
    *("root", "server", "started", "pending", "operations", "moved", "recent", "lags", "lag_sum"),
    "since",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def written(path: Path, status: Status = STATUS, age: float = 0.0) -> None:
    """Write a status of `age` at NOW."""
    StatusFile(path).write(status)
    change(path, at=NOW - age)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def clock() -> float:
    return NOW


def gone() -> int:
    """Return the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize("age", [0.0, 1.0, FRESH])
def test_a_service_that_is_live_and_said_so_lately_is_well(path: Path, age: float) -> None:
    written(path, age=age)
    assert health(path, NOW).problem is None


@pytest.mark.parametrize(
    ("state", "detail", "words"),
    [
        (RECONCILING, "1,000 files so far", "reconciling: 1,000 files so far"),
        (WAITING, "Redis at here:6379: refused", "waiting for Redis at here:6379: refused"),
        (WAITING, "", "waiting"),
    ],
)
def test_a_service_that_is_not_live_is_not_in_step(
    path: Path, state: str, detail: str, words: str
) -> None:
    written(path, replace(STATUS, state=state, detail=detail))
    assert health(path, NOW).problem == f"the sync service is not in step: {words}"


def test_a_service_that_has_only_just_started_is_not_in_step(path: Path) -> None:
    StatusFile(path)
    said = json.loads(path.read_text())
    assert str(health(path, said["at"])) == "the sync service is not in step: starting"


@pytest.mark.parametrize(
    "age",
    [
        FRESH + 0.1,
        -0.1,  # from before the machine started anew, and its clock with it
        float("nan"),
    ],
)
def test_a_status_that_is_not_fresh_is_no_sign_of_life(path: Path, age: float) -> None:
    written(path, age=age)
    problem = health(path, NOW).problem or ""
    words = [f"no sign of life of the sync service (process {os.getpid()}) for over 5 s", "live"]
    assert [word for word in words if word not in problem] == []


def test_without_a_sign_of_life_the_process_tells_whether_it_hangs_or_has_ended(
    path: Path,
) -> None:
    written(path, age=FRESH + 1)
    assert "hangs" in (health(path, NOW).problem or "")
    change(path, pid=gone())
    assert "has ended" in (health(path, NOW).problem or "")


@pytest.mark.parametrize(
    "values",
    [
        {"at": "soon"},
        {"at": None},
        {"pid": None},
        {"lag_ms": "soon"},
        {"files": None},
        {"reconciles": ["start"]},
        {"reconciles": {"start": "often"}},
        {"skipped": 3},
        {"conflicts": 3},
        {"undone": "often"},
        {"started": "soon"},
        {"pending": None},
        {"operations": ["set"]},
        {"operations": {"set": "often"}},
        {"moved": "much"},
        {"recent": {"set": 1}},
        {"recent": [{"operation": "set"}]},
        {"recent": [{"at": "soon", "operation": "set", "name": "a", "new": "", "size": 3}]},
        {"recent": [{"at": 1.0, "operation": "set", "name": "a", "new": "", "size": "large"}]},
        {"lags": 3},
        {"lags": ["often"]},
        {"lag_sum": None},
        {"files": -1},
        {"files": float("inf")},
        {"bytes": 10**400},
        {"pid": 10**400},
        {"at": 10**400},
        {"since": float("nan")},
        {"started": float("inf")},
        {"started": 1e300},
        {"lag_ms": float("nan")},
        {"operations": {"set": float("inf")}},
        {"lags": [10**400]},
        {"recent": [{"at": 1e300, "operation": "set", "name": "a", "new": "", "size": 3}]},
        {"recent": [{"at": 1.0, "operation": "set", "name": "a", "new": "", "size": 10**400}]},
    ],
)
def test_a_status_with_other_values_than_it_can_have_cannot_be_read(
    path: Path, values: dict[str, object]
) -> None:
    written(path)
    change(path, **values)
    assert f"the status at {path} cannot be read" in (health(path, NOW).problem or "")


@pytest.mark.parametrize(
    "text",
    [b"", b'{"state": "live"', b'{"state": "live"}', b"[]", b"\xff\0", b"[" * 100_000],
    ids=["empty", "half", "little", "list", "binary", "nested"],
)
def test_what_is_no_status_cannot_be_read(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    assert f"the status at {path} cannot be read" in (health(path, NOW).problem or "")


def test_a_directory_in_its_place_cannot_be_read(path: Path) -> None:
    path.mkdir()
    assert health(path, NOW).problem == f"the status at {path} cannot be read: Is a directory"


def test_without_a_status_the_service_has_not_started(path: Path) -> None:
    assert str(health(path, NOW)) == "the sync service has not started"


@pytest.mark.parametrize("status", [STATUS, CONFLICTING])
def test_all_that_was_written_is_read(path: Path, status: Status) -> None:
    written(path, status)
    assert health(path, NOW).status == status


def test_a_service_that_holds_is_not_well_and_says_the_way_out(path: Path) -> None:
    written(path, replace(STATUS, state=HELD, detail="600 of 1,000 files would go; accept it"))
    assert health(path, NOW).problem == (
        "the sync service holds, and deletes nothing: 600 of 1,000 files would go; accept it"
    )


def test_a_conflict_is_no_problem_but_is_said_and_so_is_what_was_undone(path: Path) -> None:
    written(path, CONFLICTING)
    found = health(path, NOW)
    assert found.problem is None
    lines = str(found).splitlines()
    assert lines[:2] == [
        "live: Redis equals the directory, but for 3 names in conflict",
        "mode        two-way-safe",
    ]
    assert lines[6:] == [
        "undone      1 change that others made to keys of files",
        "conflicts   3: `mdvp-sync resolve NAME --take disk|redis` ends one",
        "  a differs: 3 bytes on disk, no key in Redis",
        "  and 2 more",
        "skipped     0",
    ]


def test_people_read_what_is_missing_and_what_is_in_conflict_together(path: Path) -> None:
    written(path, replace(CONFLICTING, arriving=1, conflicts_count=1))
    assert str(health(path, NOW)).splitlines()[0] == (
        "live: Redis equals the directory, but for 1 large file still on the way and 1 name in "
        "conflict"
    )


@pytest.mark.parametrize(
    ("heard_by", "line"),
    [
        ("", []),
        (TRACKING, []),
        (NOTIFICATIONS, ["keyspace notifications: Redis has no CLIENT TRACKING"]),
        (RESCANS, ["nothing: only rescans find what others change in Redis"]),
    ],
)
def test_people_read_that_redis_does_not_tell_of_its_changes(
    path: Path, heard_by: str, line: list[str]
) -> None:
    written(path, replace(STATUS, heard_by=heard_by))
    lines = str(health(path, NOW)).splitlines()
    assert [each[12:] for each in lines if each.startswith("listens to")] == line


def test_a_status_replaces_the_one_before_and_leaves_nothing_else_behind(path: Path) -> None:
    file = StatusFile(path)
    file.write(replace(STATUS, detail="a state with a long description"))
    file.write(STATUS)
    assert json.loads(path.read_text())["detail"] == ""
    assert list(path.parent.iterdir()) == [path]


def test_a_status_without_a_file_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    StatusFile(None).write(STATUS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_at_the_start_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"SYNC_STATUS cannot be written: .*/none/status"):
        StatusFile(tmp_path / "none" / "status")


def test_a_file_that_cannot_be_written_later_does_not_end_the_service(path: Path) -> None:
    file = StatusFile(path)
    path.unlink()
    path.mkdir()
    file.write(STATUS)
    assert path.is_dir()


def test_people_read_first_whether_all_is_well_and_then_the_figures(path: Path) -> None:
    written(path)
    assert str(health(path, NOW)).splitlines() == [
        "live: Redis equals the directory",
        "mode        one-way-replica",
        "files       3 (1.2 MB)",
        "commands    17 sent to Redis",
        "lag         0.6 ms (the last change)",
        "reconciles  start: 1, Redis was away: 2",
        "skipped     2",
        "  X is a directory",
        "  and 1 more",
    ]


def test_people_read_that_large_files_are_on_their_way(path: Path) -> None:
    written(path, Status(state=LIVE, arriving=2))
    assert str(health(path, NOW)).splitlines()[0] == (
        "live: Redis equals the directory, but for 2 large files still on the way"
    )


def test_figures_that_there_are_not_yet_are_said_in_words(path: Path) -> None:
    written(path, Status(state=LIVE))
    assert str(health(path, NOW)).splitlines()[4:] == [
        "lag         none yet",
        "reconciles  none yet",
        "skipped     0",
    ]


def test_programs_read_the_same(path: Path) -> None:
    written(path)
    assert json.loads(health(path, NOW).json()) == {
        "healthy": True,
        "problem": None,
        "state": "live",
        "since": 1_700_000_001.5,
        "detail": "",
        "mode": "one-way-replica",
        "root": "/foo",
        "server": "here:6379",
        "started": 1_700_000_000.5,
        "heard_by": "",
        "files": 3,
        "bytes": 1234567,
        "commands": 17,
        "pending": 2,
        "operations": {"set": 3, "delete": 1},
        "moved": 42,
        "recent": [
            {"at": 1_700_000_001.25, "operation": "set", "name": "a\\n", "new": "", "size": 7},
            {
                "at": 1_700_000_002.5,
                "operation": "rename",
                "name": "a\\n",
                "new": "b",
                "size": None,
            },
        ],
        "lags": [1, 2],
        "lag_sum": 0.0125,
        "lag_ms": 0.6,
        "arriving": 0,
        "directories": 1,
        "unwatched": 0,
        "reconciles": {"start": 1, "Redis was away": 2},
        "undone": 0,
        "conflicts": {},
        "conflicts_count": 0,
        "skipped": {"X": "is a directory"},
        "skipped_count": 2,
    }


def test_programs_find_the_same_keys_when_nothing_is_known(path: Path) -> None:
    said = json.loads(health(path, NOW).json())
    assert said.keys() == KEYS
    assert (said["healthy"], said["problem"]) == (False, "the sync service has not started")
    assert {said[key] for key in KEYS - {"healthy", "problem"}} == {None}


def test_the_status_knows_all_that_changes_are_heard_by() -> None:
    # It is read every few seconds, and so does not load what talks to Redis.
    heard_by = {listener.BY_TRACKING, listener.BY_NOTIFICATIONS, listener.BY_RESCANS}
    assert heard_by == {TRACKING, NOTIFICATIONS, RESCANS}


def test_the_board_has_the_first_of_the_names_in_conflict(path: Path) -> None:
    target = SimpleNamespace(count=3, bytes=7, commands=9)
    board = Board(StatusFile(path), cast("Target", target), "here", {}, mode="two-way-safe")
    board.conflicts = {b"%d\n" % number: "differs" for number in range(NAMED_MAX + 1)}
    board.undone, board.heard_by = 4, TRACKING
    board.write(LIVE)
    said = json.loads(path.read_text())
    assert (said["mode"], said["heard_by"], said["undone"]) == ("two-way-safe", TRACKING, 4)
    assert said["conflicts_count"] == NAMED_MAX + 1
    assert said["conflicts"] == {f"{number}\\n": "differs" for number in range(NAMED_MAX)}


def test_the_board_has_what_was_done_and_where(path: Path) -> None:
    target = SimpleNamespace(count=3, bytes=7, commands=9)
    board = Board(StatusFile(path), cast("Target", target), "here", {}, "/foo", 12.5, Tally(clock))
    board.tally.add([Set(b"a", b"value", NONE), Delete(b"b")])
    board.followed(0.003)
    board.followed(0.004)
    board.pending = 5
    board.write(LIVE)
    status = health(path, json.loads(path.read_text())["at"]).status
    assert status is not None
    assert (status.root, status.server, status.started, status.pending) == ("/foo", "here", 12.5, 5)
    assert (status.operations["set"], status.operations["delete"], status.moved) == (1, 1, 5)
    assert status.recent == (Change(NOW, "set", "a", size=5), Change(NOW, "delete", "b"))
    assert (sum(status.lags), status.lag_sum, status.lag) == (2, 0.007, 0.004)
    assert len(status.lags) == len(LAG_BOUNDS) + 1


def test_the_board_knows_since_when_it_is_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = cast("Target", SimpleNamespace(count=0, bytes=0, commands=0))
    board = Board(StatusFile(path), target, "here", {})
    told = []
    for now, state in (
        (1.0, RECONCILING),
        (2.0, RECONCILING),
        (3.0, LIVE),
        (4.0, LIVE),
        (5.0, HELD),
    ):
        monkeypatch.setattr(time, "time", lambda: now)  # noqa: B023  # asked at once
        board.write(state, f"at {now}")
        told.append(json.loads(path.read_text())["since"])
    assert told == [1.0, 1.0, 3.0, 3.0, 5.0]


def test_it_is_known_when_a_service_said_what_it_said(path: Path) -> None:
    assert health(path, NOW).at is None
    written(path, age=FRESH + 1)
    assert health(path, NOW).at == NOW - FRESH - 1


def test_where_the_server_is_may_change(path: Path) -> None:
    where = ["here"]
    board = Board(
        StatusFile(path), cast("Target", SimpleNamespace(count=0, bytes=0, commands=0)), where, {}
    )
    board.write(LIVE)
    where[0] = "there"
    board.write(LIVE)
    assert json.loads(path.read_text())["server"] == "['there']"


def test_one_that_stands_by_is_well_and_says_who_works(tmp_path: Path) -> None:
    path = tmp_path / "status"
    file = StatusFile(path)
    file.write(Status(state=STANDBY, detail="the one on there", mode="two-way-safe"))
    found = health(path, json.loads(path.read_text())["at"])
    assert found.problem is None
    assert str(found).splitlines() == [
        "standby: another mdvp-sync works with the same keys: the one on there",
        "mode        two-way-safe",
    ]
    late = health(path, json.loads(path.read_text())["at"] + FRESH + 1)
    assert "its last was: standby: the one on there" in str(late.problem)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_people_read_any_name_on_any_terminal(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "status"
    StatusFile(path).write(replace(STATUS, detail="caf\u00e9 \udcff", skipped={"\u00e9": "is"}))
    given = {"SYNC_STATUS": str(path), "PYTHONIOENCODING": encoding, "PATH": os.environ["PATH"]}
    command = (sys.executable, "-m", "sync", "status")
    done = subprocess.run(command, env=given, capture_output=True, check=False)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert ("\u00e9" if encoding == "utf-8" else "\\xe9").encode() in done.stdout
