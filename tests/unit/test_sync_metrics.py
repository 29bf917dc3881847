"""What the service has said of itself, as metrics."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from sync.core.causes import ReconcileCause
from sync.redis.connection import _CAUSES
from sync.report.exporter import App, StatusCollector
from sync.report.health import FRESH, health
from sync.report.metrics import STATES, families
from sync.report.status import (
    HELD,
    LIVE,
    RECONCILING,
    STANDBY,
    STARTING,
    WAITING,
    Said,
    Status,
    StatusFile,
)
from sync.report.tally import LAG_BOUNDS, OPERATIONS

NOW = 1000.0
STATUS = Status(
    state=LIVE,
    mode="two-way-safe",
    started=1.7e9,
    files=3,
    bytes=1234567,
    commands=17,
    pending=4,
    operations={"set": 5, "rename_file": 6},
    moved=70,
    lags=(1, 0, 2, *[0] * (len(LAG_BOUNDS) - 3), 1),
    lag_sum=60.5,
    arriving=8,
    directories=9,
    unwatched=2,
    reconciles={"start": 1, "Redis was away": 2},
    undone=11,
    conflicts_count=12,
    skipped={"X": "is a directory"},
    skipped_count=13,
)
Samples = dict[str, float]


def samples(found: Iterable[Metric]) -> Samples:
    """Return each sample by its name, with its labels as Prometheus writes them."""
    return {
        sample.name
        + (
            "{" + ",".join(f'{name}="{value}"' for name, value in sample.labels.items()) + "}"
            if sample.labels
            else ""
        ): sample.value
        for family in found
        for sample in family.samples
    }


def said(status: Status = STATUS, age: float = 0.0) -> Samples:
    return samples(families(Said(status, NOW - age, os.getpid()), NOW, "1.2.3"))


def test_each_figure_of_the_status_is_a_metric() -> None:
    found = said(age=0.5)
    assert {name: value for name, value in found.items() if "{" not in name} == {
        "mdvp_sync_healthy": 1,
        "mdvp_sync_status_age_seconds": 0.5,
        "mdvp_sync_start_time_seconds": 1.7e9,
        "mdvp_sync_files": 3,
        "mdvp_sync_bytes": 1234567,
        "mdvp_sync_directories": 9,
        "mdvp_sync_unwatched_directories": 2,
        "mdvp_sync_pending_names": 4,
        "mdvp_sync_large_files_pending": 8,
        "mdvp_sync_moved_bytes_total": 70,
        "mdvp_sync_redis_commands_total": 17,
        "mdvp_sync_undone_changes_total": 11,
        "mdvp_sync_conflicts": 12,
        "mdvp_sync_skipped_names": 13,
        "mdvp_sync_lag_seconds_count": 4,
        "mdvp_sync_lag_seconds_sum": 60.5,
    }
    assert found['mdvp_sync_build_info{version="1.2.3"}'] == 1
    assert found['mdvp_sync_mode_info{mode="two-way-safe"}'] == 1


def labelled(found: Samples, name: str) -> dict[str, float]:
    """Return the figures of a metric by the value of its only label."""
    kept = {re.fullmatch(rf'{name}{{\w+="(.*)"}}', each): each for each in found}
    return {match[1]: found[each] for match, each in kept.items() if match}


def test_each_operation_has_a_figure_from_the_start() -> None:
    none = dict.fromkeys(OPERATIONS.values(), 0.0)
    assert labelled(said(Status()), "mdvp_sync_operations_total") == none
    assert labelled(said(), "mdvp_sync_operations_total") == none | {"set": 5, "rename_file": 6}


def test_each_cause_of_a_reconcile_has_a_figure_from_the_start() -> None:
    none = {
        "start": 0,
        "rescan": 0,
        "takeover": 0,
        "events_lost": 0,
        "messages_lost": 0,
        "directory_away": 0,
        "redis_away": 0,
        "redis_changed": 0,
        "redis_out_of_memory": 0,
        "redis_read_only": 0,
        "keys_in_the_way": 0,
    }
    assert labelled(said(Status()), "mdvp_sync_reconciles_total") == none
    found = labelled(said(), "mdvp_sync_reconciles_total")
    assert found == none | {"start": 1, "redis_away": 2}


def test_what_is_no_cause_has_no_figure() -> None:
    found = said(replace(STATUS, reconciles={"a name": 1}))
    assert set(labelled(found, "mdvp_sync_reconciles_total").values()) == {0}


def test_whatever_can_end_a_session_is_a_cause_that_has_a_figure() -> None:
    errors = Path(ReconcileCause.__module__.replace(".", "/")).with_name("errors.py")
    tree = ast.parse((Path(__file__).parents[2] / errors).read_text())
    assigned = [
        ast.unparse(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "cause"
    ]
    assert len(assigned) > 3
    assert {each.partition(".")[0] for each in assigned} == {"ReconcileCause"}
    assert {type(each) for each in _CAUSES.values()} == {ReconcileCause}


@pytest.mark.parametrize("state", STATES)
def test_the_state_is_the_one_that_is_1(state: str) -> None:
    states = labelled(said(replace(STATUS, state=state)), "mdvp_sync_state")
    assert states == dict.fromkeys(STATES, 0) | {state: 1}


def test_the_states_are_those_of_a_status() -> None:
    assert set(STATES) == {STARTING, LIVE, RECONCILING, WAITING, HELD, STANDBY}


def test_the_lags_add_up_to_the_last_class() -> None:
    found = labelled(said(), "mdvp_sync_lag_seconds_bucket")
    assert list(found) == [
        *("0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5"),
        *("1.0", "2.5", "5.0", "10.0", "30.0", "+Inf"),
    ]
    assert list(found.values()) == [1, 1, *[3] * (len(LAG_BOUNDS) - 2), 4]


def test_without_a_lag_all_classes_are_there() -> None:
    found = labelled(said(Status()), "mdvp_sync_lag_seconds_bucket")
    assert set(found.values()) == {0}
    assert len(found) == len(LAG_BOUNDS) + 1


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("age", [-0.1, 0.0, FRESH, FRESH + 0.1])
def test_it_is_healthy_when_the_command_says_so(tmp_path: Path, state: str, age: float) -> None:
    path = tmp_path / "status.json"
    file = StatusFile(path)
    file.write(replace(STATUS, state=state))
    by_command = health(path, file.last.at + age).problem is None
    found = samples(families(file.last, file.last.at + age, ""))
    assert bool(found["mdvp_sync_healthy"]) is by_command
    assert found["mdvp_sync_healthy"] == (state in {LIVE, STANDBY} and 0 <= age <= FRESH)
    assert found["mdvp_sync_status_age_seconds"] == pytest.approx(max(0.0, age))


def test_what_was_said_last_is_told_whether_there_is_a_file_or_not() -> None:
    file = StatusFile(None)
    before = file.last
    assert before.status == Status()
    file.write(STATUS)
    assert file.last.status == STATUS
    assert file.last.at > before.at
    assert samples(StatusCollector(file, "1.2.3").collect())["mdvp_sync_files"] == 3


def test_what_was_said_last_is_told_though_its_file_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    file = StatusFile(path)
    path.unlink()
    path.mkdir()
    file.write(STATUS)
    assert file.last.status == STATUS


def test_it_is_not_healthy_when_the_command_finds_an_old_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    path = tmp_path / "status.json"
    file = StatusFile(path)
    file.write(STATUS)
    (tmp_path / "status.json.new").mkdir()  # or a disk that is full
    for now[0], is_well in ((NOW + FRESH, 1), (NOW + FRESH + 0.1, 0)):
        file.write(replace(STATUS, files=4))
        assert bool(is_well) is (health(path, now[0]).problem is None)
        told = samples(StatusCollector(file, "1.2.3").collect())
        assert told["mdvp_sync_healthy"] == is_well
        # What there is to tell is told all the same.
        assert (told["mdvp_sync_files"], told["mdvp_sync_status_age_seconds"]) == (4, 0)


Ask = Callable[..., tuple[str, dict[str, str], bytes]]


@pytest.fixture
def ask() -> Ask:
    """Return what asks the app, and returns the status, the headers and the body."""
    file = StatusFile(None)
    file.write(STATUS)
    registry = CollectorRegistry()
    registry.register(StatusCollector(file, "1.2.3"))
    app = App(registry)

    def ask(path: str = "/metrics", method: str = "GET") -> tuple[str, dict[str, str], bytes]:
        answered: list[tuple[str, dict[str, str]]] = []

        def respond(status: str, headers: list[tuple[str, str]], _error: object = None) -> object:
            answered.append((status, dict(headers)))
            return None

        environ = {"PATH_INFO": path, "REQUEST_METHOD": method}
        body = b"".join(app(environ, respond))  # type: ignore[arg-type]  # it is enough of both
        ((status, headers),) = answered
        return status, headers, body

    return ask


def test_who_asks_is_told_in_the_words_of_prometheus(ask: Ask) -> None:
    status, headers, body = ask()
    assert status == "200 OK"
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Length"] == str(len(body))
    text = body.decode()
    found = samples(text_string_to_metric_families(text))
    assert found["mdvp_sync_files"] == 3
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    helped = {line.split()[2] for line in text.splitlines() if re.match(r"# HELP \S+ [A-Z1]", line)}
    assert names == helped


def test_the_head_alone_has_the_length_of_all(ask: Ask) -> None:
    status, headers, body = ask(method="HEAD")
    assert (status, body) == ("200 OK", b"")
    # But for the age of the status, whose digits may be more or less by then.
    assert int(headers["Content-Length"]) == pytest.approx(len(ask()[2]), abs=20)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/METRICS", "/metricsx", "", "/favicon.ico"])
def test_elsewhere_there_is_nothing_but_the_way(ask: Ask, path: str) -> None:
    status, headers, body = ask(path)
    assert (status, body) == (
        "404 Not Found",
        b"There is nothing here: the metrics are at /metrics.\n",
    )
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "\xff"])
def test_metrics_can_only_be_asked_for(ask: Ask, method: str) -> None:
    status, headers, body = ask(method=method)
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")
    assert body == b"Metrics can only be asked for: use GET or HEAD.\n"


def test_nobody_pays_for_metrics_who_does_not_ask_for_them() -> None:
    code = (
        "import sys, sync.cli, sync.commands, sync.reach, sync.service.service, sync.report.board\n"
        "print({'prometheus_client', 'waitress'} & sys.modules.keys())"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
