"""The benchmarks measure all that they say, in their quick mode; how fast it is, is not tested."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.engine import PrivateEngine

from benchmarks.access import ENGINE, SOCKET
from benchmarks.report import BEGIN, END, aims, into_page, markdown, save
from benchmarks.results import Results, percentile
from benchmarks.subjects import LOCAL, PLUGIN, PROCESS, RCLONE
from benchmarks.volumes import QUICK, run

ON_SOCKET = {"create", "inspect", "inspect, new connection", "mount", "unmount", "remove", "list"}
THROUGH_ENGINE = {"create", "inspect", "mount and unmount", "remove", "list"} | {
    "container start",
    "container stop",
}
BESIDE_OTHERS = (ON_SOCKET | THROUGH_ENGINE) - {"create", "remove", "list"}


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Yield a prompt on a machine of its own: an engine goes on to ask a driver that is gone."""
    with PrivateEngine() as engine:
        yield Docker(engine)


@pytest.fixture(scope="module")
def results(docker: Docker) -> Results:
    """Return what one quick run has measured."""
    return run(docker.engine, QUICK, print)


def test_every_cell_is_filled(results: Results) -> None:
    expected = {
        (level, operation, subject, size, containers)
        for level, operations, subjects in (
            (ENGINE, THROUGH_ENGINE, (LOCAL, PLUGIN, RCLONE)),
            (SOCKET, ON_SOCKET, (PLUGIN, PROCESS, RCLONE)),
        )
        for operation in operations
        for subject in subjects
        for size in QUICK.sizes
        for containers in ((0, QUICK.containers) if operation in BESIDE_OTHERS else (0,))
    }
    found = {
        (cell.level, cell.operation, cell.subject, cell.volumes, cell.containers)
        for cell in results.samples
    }
    assert found == expected
    assert all(min(samples) > 0 for samples in results.samples.values())


def test_memory_start_and_sizes_are_measured(results: Results) -> None:
    assert set(results.resident) == {
        (subject, size) for subject in (PLUGIN, PROCESS, RCLONE) for size in QUICK.sizes
    }
    # No interpreter is smaller, and none of these programs needs that much.
    assert all(5 << 20 < resident < 500 << 20 for resident in results.resident.values())
    assert set(results.enable) == set(QUICK.sizes)
    assert 30_000_000 < results.rootfs < 500_000_000
    assert set(results.remove) == {LOCAL, PLUGIN}


def test_nothing_is_left_on_the_engine(docker: Docker, results: Results) -> None:
    assert results.samples
    assert PLUGIN not in docker("plugin", "ls", "--format", "{{.Name}}")
    assert docker("ps", "--all", "--quiet") == ""
    assert docker("volume", "ls", "--quiet") == ""
    assert os.listdir(docker.engine.tmp) == []


def test_the_page_gets_the_tables_between_its_marks(results: Results) -> None:
    page = into_page(f"before\n{BEGIN}\nold\n{END}\nafter\n", markdown(results))
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert all(aim.text in page for aim in aims(results))
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert not [line for line in tables if "|  |" in line.replace("| --- |", "")]
    with pytest.raises(ValueError, match="marked lines"):
        into_page("no marks", markdown(results))


def test_the_numbers_are_kept_for_later_comparison(results: Results, tmp_path: Path) -> None:
    save(results, tmp_path / "new" / "numbers.json")
    kept = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert len(kept["operations"]) == len(results.samples)
    assert kept["machine"] == results.machine


def test_percentiles_are_samples_by_nearest_rank() -> None:
    samples = [float(number) for number in range(200, 0, -1)]
    assert percentile(samples, 50) == 100
    assert percentile(samples, 99) == 198
    assert percentile([7.0], 99) == 7.0
