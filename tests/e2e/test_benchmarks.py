"""The benchmarks measure all that they say, in their quick mode; how fast it is, is not tested.

The mode is one of those that docs/benchmarks.md shows.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.conftest import REPOSITORY, Docker
from e2e.engine import PrivateEngine
from support import eventually

from benchmarks.life import report as life_report
from benchmarks.life import results as life_results
from benchmarks.life import run as life
from benchmarks.life.results import Cell as LifeCell
from benchmarks.life.results import Results as LifeResults
from benchmarks.mirror import both_ways, existing, measures
from benchmarks.mirror import report as mirror_report
from benchmarks.mirror import run as mirror
from benchmarks.mirror.contenders import INOTIFYWAIT, KINDS, SYNC, WATCHDOG, is_ours
from benchmarks.mirror.load import name, value
from benchmarks.mirror.results import Comparison
from benchmarks.mirror.results import Results as MirrorResults
from benchmarks.mirror.server import serving
from benchmarks.report import Report, into_page, marks, save
from benchmarks.samples import percentile
from benchmarks.trees import report as trees_report
from benchmarks.trees import run as trees
from benchmarks.volumes import report as volumes_report
from benchmarks.volumes import run as volumes
from benchmarks.volumes.access import ENGINE, SOCKET
from benchmarks.volumes.results import Results
from benchmarks.volumes.subjects import LOCAL, PLUGIN, PROCESS, RCLONE

ON_SOCKET = {"create", "inspect", "inspect, new connection", "mount", "unmount", "remove", "list"}
THROUGH_ENGINE = {"create", "inspect", "mount and unmount", "remove", "list"} | {
    "container start",
    "container stop",
}
IN_EXISTING = {
    f"mdvp-sync to {servers}{streamed}"
    for servers in ("a server", "a server with 2 replicas", "Sentinels", "a cluster")
    for streamed in ("", existing.STREAMED)
}
IN_LIFE = {
    *(life_results.REMOVE, life_results.RM, life_results.RESTORE, life_results.CLONE),
    *(life_results.CP, life_results.DOCKER_CP, life_results.STATUS, life_results.LIST),
    *(life_results.COMMAND, life_results.DU),
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
    return volumes.run(docker.engine, volumes.QUICK, print)


def test_every_cell_is_filled(results: Results) -> None:
    expected = {
        (level, operation, subject, size, containers)
        for level, operations, subjects in (
            (ENGINE, THROUGH_ENGINE, (LOCAL, PLUGIN, RCLONE)),
            (SOCKET, ON_SOCKET, (PLUGIN, PROCESS, RCLONE)),
        )
        for operation in operations
        for subject in subjects
        for size in volumes.QUICK.sizes
        for containers in ((0, volumes.QUICK.containers) if operation in BESIDE_OTHERS else (0,))
    }
    found = {
        (cell.level, cell.operation, cell.subject, cell.volumes, cell.containers)
        for cell in results.samples
    }
    assert found == expected
    assert all(min(samples) > 0 for samples in results.samples.values())


def test_memory_start_and_sizes_are_measured(results: Results) -> None:
    assert set(results.resident) == {
        (subject, size) for subject in (PLUGIN, PROCESS, RCLONE) for size in volumes.QUICK.sizes
    }
    # No interpreter is smaller, and none of these programs needs that much.
    assert all(5 << 20 < resident < 500 << 20 for resident in results.resident.values())
    assert set(results.enable) == set(volumes.QUICK.sizes)
    assert 30_000_000 < results.rootfs < 500_000_000
    assert set(results.remove) == {LOCAL, PLUGIN}


def test_nothing_is_left_on_the_engine(docker: Docker, results: Results) -> None:
    assert results.samples
    assert PLUGIN not in docker("plugin", "ls", "--format", "{{.Name}}")
    assert docker("ps", "--all", "--quiet") == ""
    assert docker("volume", "ls", "--quiet") == ""
    assert docker.in_tmp() == []


@pytest.fixture(scope="module")
def lived() -> LifeResults:
    """Return what one quick run has measured of a volume's life."""
    return life.run(life.QUICK, print)


def test_a_volumes_life_is_measured_on_each_file_system(lived: LifeResults) -> None:
    measured = {cell for cell in lived.samples if "while" not in cell.operation}
    assert measured == {LifeCell(each, kind) for each in IN_LIFE for kind in life.KINDS}
    assert all(min(samples) > 0 for samples in lived.samples.values())
    turns = [len(each) for each in lived.of(life_results.RESTORE).values()]
    assert turns == [life.QUICK.turns] * len(life.KINDS)
    assert lived.means == {"btrfs": "snapshot", "xfs": "reflink", "ext4": "copy"}


def test_what_a_volumes_life_took_is_told(lived: LifeResults, tmp_path: Path) -> None:
    report = life_report.report(lived)
    assert len(report.aims) == 4 + len(life.KINDS) - 1  # a plain copy takes what it takes
    assert all(f"\n| {operation} | " in report.markdown for operation in IN_LIFE)
    assert "|  |" not in report.markdown
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert report.markdown in into_page(page, "life", report.markdown)
    save(report, tmp_path / "numbers.json")
    assert json.loads((tmp_path / "numbers.json").read_text())["files"] == life.QUICK.files


def traces() -> set[str]:
    """Return the directories that runs of the mirror's benchmark have, and their processes."""
    place = "/dev/shm/mirror-"  # noqa: S108
    found = set(map(str, Path("/dev/shm").glob("mirror-*")))  # noqa: S108
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            found |= {command} if place in command else set()
    return found


@pytest.fixture(scope="module")
def traces_before() -> set[str]:
    """Return what other runs have left."""
    return traces()


@pytest.fixture(scope="module")
def mirrored(traces_before: set[str]) -> MirrorResults:  # noqa: ARG001
    """Return what one quick run of the mirror's benchmark has measured."""
    return mirror.run(mirror.QUICK, mirror.PARTS, print)


def test_the_mirror_is_measured_beside_all_others(mirrored: MirrorResults) -> None:
    plan, everyone = mirror.QUICK, {kind.name for kind in KINDS}
    assert everyone == {"mdvp-sync", "watchdog script", "inotifywait loop"}
    assert {name: len(each) for name, each in mirrored.visible.items()} == dict.fromkeys(
        everyone, plan.samples
    )
    assert all(0 <= min(each) < max(each) < 5 for each in mirrored.visible.values())
    assert set(mirrored.idle) == everyone
    assert all(1 << 20 < each.resident < 500 << 20 for each in mirrored.idle.values())
    assert all(0 <= each.cpu < each.seconds for each in mirrored.idle.values())
    assert mirrored.idle[SYNC.name].cpu > 0  # it gives signs of life
    assert {name: len(each) for name, each in mirrored.bursts.items()} == {
        kind.name: times for kind, times in plan.bursts.items()
    }
    for burst in (each for bursts in mirrored.bursts.values() for each in bursts):
        # The last look at whether it was equal came after the writer's end, and found it so.
        assert 0 < burst.followed.written < (burst.followed.equal or 0) == burst.followed.quiet
    assert all(0 < seconds < 5 for seconds in mirrored.writer)


def test_what_the_mirror_does_alone_is_measured(mirrored: MirrorResults) -> None:
    plan = mirror.QUICK
    assert list(mirrored.scans) == list(plan.scans)
    for scan in mirrored.scans.values():
        assert all(min(each) > 0 for each in (scan.read, scan.piped, scan.first, scan.restart))
    assert len(mirrored.empty_start) == len(mirrored.rewrites) == plan.repeats
    # The last content is a command at least, and no rewrite needs as many as a hundred.
    assert all(0 < each.commands < 100 * plan.rewrites for each in mirrored.rewrites)
    assert all(0 <= each.last < 5 for each in mirrored.rewrites)
    assert len(mirrored.renames) == len(mirrored.moved) == plan.renames
    assert all(0 < seconds < 5 for seconds in mirrored.renames)
    assert all(moved > 0 for moved in mirrored.moved)
    assert len(mirrored.peaks) == 2
    assert all(peak > 1 << 20 for peak in mirrored.peaks.values())


def test_changes_in_redis_are_measured(mirrored: MirrorResults) -> None:
    plan, measured = mirror.QUICK.both_ways, mirrored.both_ways
    pulling = {kind.name for kind in both_ways.PULLING}
    assert {name: len(each) for name, each in measured.visible.items()} == dict.fromkeys(
        pulling, plan.samples
    )
    assert {name: len(each) for name, each in measured.undone.items()} == dict.fromkeys(
        (both_ways.CHANGED, both_ways.DELETED), plan.undone
    )
    samples = [*measured.visible.values(), *measured.undone.values()]
    assert all(0 <= min(each) < max(each) < 5 for each in samples)
    assert set(measured.bursts) == pulling
    for burst in (each for bursts in measured.bursts.values() for each in bursts):
        assert burst.followed.written > 0
        assert 0 < (burst.followed.equal or 0) == burst.followed.quiet


def test_what_other_clients_pay_is_measured(mirrored: MirrorResults) -> None:
    plan, busy = mirror.QUICK.both_ways, mirrored.both_ways.busy
    assert [(each.load, each.service) for each in busy] == [
        (str(load), service)
        for load in plan.loads
        for service in (both_ways.ALONE, *(kind.name for kind in both_ways.BESIDE))
    ]
    assert all(len(each.rates) == plan.repeats and min(each.rates) > 0 for each in busy)
    for each in busy:
        is_beside = each.service != both_ways.ALONE
        assert len(each.cpu) == is_beside * plan.repeats
        assert len(each.visible) == is_beside * plan.meanwhile


def test_the_redis_that_people_run_is_measured(mirrored: MirrorResults) -> None:
    plan, measured = mirror.QUICK.existing, mirrored.existing
    assert {name: len(each) for name, each in measured.visible.items()} == dict.fromkeys(
        IN_EXISTING, plan.samples
    )
    assert all(0 <= min(each) < max(each) < 5 for each in measured.visible.values())
    assert {name: len(each) for name, each in measured.bursts.items()} == dict.fromkeys(
        IN_EXISTING, plan.bursts
    )
    for burst in (each for bursts in measured.bursts.values() for each in bursts):
        assert 0 < burst.followed.written < (burst.followed.equal or 0) == burst.followed.quiet
    assert set(measured.turns) == set(measured.works) == IN_EXISTING
    works = [
        each for works in (*measured.turns.values(), *measured.works.values()) for each in works
    ]
    assert all(0 < each.service < 5 and 0 <= each.server < 5 for each in works)
    (waits,) = measured.waits.values()
    assert len(waits.nothing) == len(waits.file) == plan.waits
    assert len(waits.command) == len(waits.interpreter) == plan.commands
    # A command is an interpreter, and a wait in it.
    assert 0 < min(waits.nothing) < min(waits.interpreter) < min(waits.command) < 5


def test_failovers_are_measured(mirrored: MirrorResults) -> None:
    plan, measured = mirror.QUICK.existing, mirrored.existing
    assert {name: len(each) for name, each in measured.failovers.items()} == dict.fromkeys(
        ("mdvp-sync to Sentinels", "mdvp-sync to a cluster"), plan.failovers
    )
    for each in (each for failovers in measured.failovers.values() for each in failovers):
        # A server counts as down after a second; its place is taken, then it gets what is written.
        assert 0.5 < each.promoted <= each.written <= each.equal < 60
        assert 0.5 < each.told <= each.written


def test_every_contender_was_right_in_the_end(mirrored: MirrorResults) -> None:
    compared = [(measure, contender) for measure, contender, _ in mirrored.compared]
    everyone = {kind.name for kind in (*KINDS, *both_ways.PULLING, *both_ways.BESIDE)}
    assert {contender for _, contender in compared} == everyone | IN_EXISTING
    for kind in (SYNC, WATCHDOG, INOTIFYWAIT):
        assert ("single files", kind.name) in compared
        assert (f"a burst of {mirror.QUICK.burst:,} files", kind.name) in compared
    for files in mirror.QUICK.scans:
        assert (f"first reconcile of {files:,} files", SYNC.name) in compared
        assert (f"restart with {files:,} files", SYNC.name) in compared
    for kind in both_ways.PULLING:
        assert ("single keys", kind.name) in compared
        assert (f"a burst of {mirror.QUICK.both_ways.keys:,} keys", kind.name) in compared
    for contender in IN_EXISTING:
        assert ("single files", contender) in compared
        assert (f"a burst of {mirror.QUICK.existing.burst:,} files", contender) in compared
    assert [measure for measure, _ in compared].count("a failover") == 2
    # So few events lose none of it, for anybody.
    assert [each for each in mirrored.compared if not each[2].equal] == []
    assert mirror_report.report(mirrored).wrong == []


def test_only_what_our_own_program_did_wrong_is_a_failure(mirrored: MirrorResults) -> None:
    wrong = Comparison(files=3, right=1, wrong=1, extra=2)
    theirs = replace(mirrored, compared=[("a burst", WATCHDOG.name, wrong)])
    ours = replace(mirrored, compared=[("a burst", both_ways.SAFE.name, wrong)])
    assert is_ours(both_ways.SAFE.name)
    assert mirror_report.report(theirs).wrong == []
    assert mirror_report.report(ours).wrong == [
        "a burst: of 3 files 1 are right in Redis, 1 have another content there, "
        "2 keys have no file"
    ]
    assert mirror_report.aims(ours)[-1].missed == "1 times"


def test_every_file_is_compared_with_its_key(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with serving(short_path) as server:
        for number in range(3):
            (root / name(number)).write_bytes(value(number))
            server.client.set(name(number), value(number))
        server.client.set("/what no file can have as its name", "")
        assert server.compared(root) == Comparison(files=3, right=3, wrong=0, extra=0)
        assert server.holds(3)
        server.client.set(name(0), value(1))
        server.client.delete(name(1))
        server.client.set("no file", "")
        assert server.compared(root) == Comparison(files=3, right=1, wrong=1, extra=1)
        assert server.holds(3) is None
        server.client.set("before0000001", value(1))
        server.client.set("before/what no file can have as its name", "")
        server.client.set("before no file", "")
        assert server.compared(root, b"before") == Comparison(files=3, right=1, wrong=0, extra=1)
        assert server.holds(2, prefix=b"before") is None
        server.client.set("before0000000", value(0))
        assert server.holds(2, prefix=b"before")


def test_a_directory_is_equal_when_its_last_file_came(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with serving(short_path) as server:
        began, ended = measures.load("sets", server.socket, 1_500)
        assert began < ended
        assert server.holds(1_500)
    measures.load("write", root, 2)
    assert both_ways.written(root, 2) is None  # it was written to just now
    last = max(each.stat().st_ctime for each in root.iterdir())
    eventually(lambda: both_ways.written(root, 2), last)
    assert both_ways.written(root, 3) is None
    (root / name(0)).write_bytes(value(1))
    assert both_ways.written(root, 2) is None


def test_trees_are_measured_and_right_in_the_end(traces_before: set[str]) -> None:
    measured = trees.run(trees.QUICK, trees.PARTS, print)
    ours = [each for _, contender, each in measured.compared if contender == SYNC.name]
    assert len(ours) >= len(trees.PARTS)
    assert [each for each in ours if not each.equal] == []
    assert trees_report.report(measured).wrong == []
    assert traces() <= traces_before


def test_the_mirror_leaves_no_files_and_no_processes(
    traces_before: set[str], mirrored: MirrorResults
) -> None:
    assert mirrored.machine
    assert traces() - traces_before == set()


@pytest.fixture(params=["volumes", "mirror"])
def benchmark(request: pytest.FixtureRequest) -> str:
    """Return the name of each benchmark."""
    return str(request.param)


@pytest.fixture
def report(benchmark: str, request: pytest.FixtureRequest) -> Report:
    """Return what there is to say about the quick run of each benchmark."""
    if benchmark == "volumes":
        return volumes_report.report(request.getfixturevalue("results"))
    return mirror_report.report(request.getfixturevalue("mirrored"))


def test_the_page_gets_the_tables_between_its_marks(benchmark: str, report: Report) -> None:
    begin, end = marks(benchmark)
    page = into_page(f"before\n{begin}\nold\n{end}\nafter\n", benchmark, report.markdown)
    assert page.startswith(f"before\n{begin}\n")
    assert page.endswith(f"{end}\nafter\n")
    assert "old" not in page
    assert all(aim.text in page for aim in report.aims)
    rows = [line for line in page.splitlines() if re.match(r"\| [^-]", line)]
    assert not [line for line in rows if "|  |" in line.removeprefix("| ")]
    with pytest.raises(ValueError, match="marked lines"):
        into_page("no marks", benchmark, report.markdown)


def test_the_docs_have_a_place_for_the_tables(benchmark: str) -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert "\n\nnew\n\n" in into_page(page, benchmark, "new")


def test_a_chart_has_a_bar_for_each(mirrored: MirrorResults) -> None:
    charts = re.findall(r"```mermaid\n(.*?)\n```", mirror_report.markdown(mirrored), re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        assert chart.startswith("xychart-beta\n")
        names = re.search(r"x-axis \[(.*)\]", chart)
        bars = re.search(r"bar \[([\d., ]+)\]\n?", chart)
        top = re.search(r'y-axis ".+" 0 --> ([\d.]+)$', chart, re.MULTILINE)
        assert names
        assert bars
        assert top
        heights = [float(height) for height in bars[1].split(", ")]
        assert len(heights) == len(names[1].split(", ")) >= 3
        assert 0 < max(heights) < float(top[1])


def test_the_numbers_are_kept_for_later_comparison(report: Report, tmp_path: Path) -> None:
    save(report, tmp_path / "new" / "numbers.json")
    kept = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert kept["machine"]
    assert kept == json.loads(json.dumps(report.document))


def test_percentiles_are_samples_by_nearest_rank() -> None:
    samples = [float(number) for number in range(200, 0, -1)]
    assert percentile(samples, 50) == 100
    assert percentile(samples, 99) == 198
    assert percentile([7.0], 99) == 7.0


def test_a_part_is_told_without_the_others(mirrored: MirrorResults) -> None:
    alone = mirror_report.report(MirrorResults("a machine", existing=mirrored.existing))
    assert "`mdvp-sync wait`" in alone.markdown
    assert "watchdog" not in alone.markdown
    assert "keyspace" not in alone.markdown
    assert any("SYNC_STREAM" in aim.text for aim in alone.aims)
