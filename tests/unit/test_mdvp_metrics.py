"""What is counted, and how that is shown, from plain values."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event, Semaphore

import falcon
import pytest
from falcon.testing import TestClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support import DEADLINE

from mdvp.core.clock import Moment
from mdvp.core.figures import Figures
from mdvp.core.lease import Claims, Holder, Lease, Sight
from mdvp.core.volume import Access, Identity, Volume
from mdvp.metrics import Gauges, Outcome, Requests
from mdvp.wire.api import Metrics

NOW = datetime(2026, 11, 29, tzinfo=UTC)
OPERATIONS = ("create", "mount")
EXCLUSIVE = Volume("one", NOW, Identity(1, 1))
SHARED = Volume("two", NOW, Identity(2, 2), Access.SHARED)


def lease(mount_id: str, holder: str | None = None) -> Lease:
    return Lease(mount_id, 1, Moment(NOW, "boot", 1.0), None, holder)


def claims(leases: Sequence[Lease], holders: Sequence[Holder] = ()) -> Claims:
    return Claims(Sight(holders), leases, (), {})


def shown(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return all samples, each by its name and the values of its labels, as a reader reads them."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_volume_that_nobody_has_is_counted_and_no_more() -> None:
    figures = Figures()
    figures.count(EXCLUSIVE, None, doubled=False, warned=False)
    assert figures == Figures(volumes=Counter({Access.EXCLUSIVE: 1}))


def test_a_lease_waits_until_its_holder_was_seen() -> None:
    figures = Figures()
    leases = [lease("a"), lease("b", "container"), lease("c", "other")]
    figures.count(SHARED, claims(leases), doubled=False, warned=True)
    assert (figures.waiting, figures.held, figures.in_use) == (1, 2, 1)
    assert (figures.warned, figures.doubled) == (1, 0)


def test_who_has_a_volume_without_a_lease_has_it() -> None:
    figures = Figures()
    holder = Holder("who", None, 1, "command", NOW, 1.0)
    figures.count(EXCLUSIVE, claims([], [holder]), doubled=True, warned=True)
    assert (figures.waiting, figures.held, figures.in_use) == (0, 0, 1)
    assert (figures.warned, figures.doubled) == (1, 1)


def test_dead_leases_are_not_counted() -> None:
    figures = Figures()
    figures.count(
        EXCLUSIVE, Claims(Sight(), (), [lease("a", "dead")], {}), doubled=False, warned=False
    )
    assert figures == Figures(volumes=Counter({Access.EXCLUSIVE: 1}))


def test_each_figure_has_its_name() -> None:
    registry = CollectorRegistry()
    figures = Figures(
        Counter({Access.EXCLUSIVE: 20, Access.SHARED: 3}),
        in_use=4,
        waiting=5,
        held=6,
        warned=7,
        doubled=8,
        reclaimed=9,
        mounts_waiting=11,
        removed=10,
        restorable=11,
        host_visible=True,
    )
    Gauges(registry, lambda: figures)
    found = shown(registry)
    assert found.pop(("mdvp_start_time_seconds",)) > NOW.timestamp() / 10
    assert found.pop(next(it for it in found if it[0] == "mdvp_build_info")) == 1
    assert found == {
        ("mdvp_volumes", "exclusive"): 20,
        ("mdvp_volumes", "shared"): 3,
        ("mdvp_volumes_in_use",): 4,
        ("mdvp_leases", "waiting"): 5,
        ("mdvp_leases", "held"): 6,
        ("mdvp_volumes_with_warning",): 7,
        ("mdvp_volumes_had_twice",): 8,
        ("mdvp_leases_reclaimed_total",): 9,
        ("mdvp_mounts_waiting",): 11,
        ("mdvp_trash_directories",): 10,
        ("mdvp_trash_volumes",): 11,
        ("mdvp_host_visible",): 1,
    }


def test_figures_are_counted_when_asked_for_and_only_then() -> None:
    asked = 0

    def count() -> Figures:
        nonlocal asked
        asked += 1
        return Figures(in_use=asked)

    registry = CollectorRegistry()
    Gauges(registry, count)
    assert asked == 0
    assert shown(registry)["mdvp_volumes_in_use",] == 1
    assert shown(registry)["mdvp_volumes_in_use",] == 2


def test_requests_that_nobody_has_made_yet_are_none() -> None:
    registry = CollectorRegistry()
    Requests(registry, OPERATIONS)
    found = shown(registry)
    for operation in OPERATIONS:
        assert found["mdvp_request_duration_seconds_count", operation] == 0
        for outcome in ("ok", "refused", "failed"):
            assert found["mdvp_requests_total", operation, outcome] == 0


def test_when_a_series_began_is_not_shown() -> None:
    registry = CollectorRegistry()
    Requests(registry, OPERATIONS).note("create", Outcome.OK, 0.1)
    assert b"_created" not in generate_latest(registry)


NOTES = st.tuples(
    st.sampled_from(OPERATIONS),
    st.sampled_from(Outcome),
    st.floats(0, 100) | st.sampled_from((0.0005, 0.001, 60.0)),
)


@given(st.lists(NOTES))
def test_any_requests_are_counted_by_operation_outcome_and_duration(
    notes: list[tuple[str, Outcome, float]],
) -> None:
    registry = CollectorRegistry()
    requests = Requests(registry, OPERATIONS)
    for note in notes:
        requests.note(*note)
    found = shown(registry)
    for operation in OPERATIONS:
        for outcome in Outcome:
            expected = sum(note[:2] == (operation, outcome) for note in notes)
            assert found["mdvp_requests_total", operation, outcome.value] == expected
        seconds = [note[2] for note in notes if note[0] == operation]
        name = "mdvp_request_duration_seconds"
        assert found[f"{name}_count", operation] == len(seconds)
        assert found[f"{name}_sum", operation] == pytest.approx(sum(seconds))
        buckets = [it for it in found if it[0] == f"{name}_bucket" and operation in it]
        assert len(buckets) > 10
        for bucket in buckets:
            (limit,) = (float(label) for label in bucket[1:] if label != operation)
            assert found[bucket] == sum(each <= limit for each in seconds)


class Slow:
    """A collector that is done when it is let go."""

    def __init__(self) -> None:
        self.begun = Semaphore(0)
        self.go_on = Event()

    def collect(self) -> Iterator[Metric]:
        self.begun.release()
        assert self.go_on.wait(DEADLINE)
        yield from ()


def test_requests_for_metrics_leave_the_engine_threads_of_the_server() -> None:
    registry, slow = CollectorRegistry(auto_describe=False), Slow()
    registry.register(slow)
    app = falcon.App()
    app.add_route("/metrics", Metrics(registry))
    client = TestClient(app)
    with ThreadPoolExecutor() as others:
        asked = [others.submit(client.simulate_get, "/metrics") for _ in range(2)]
        try:
            assert all(slow.begun.acquire(timeout=DEADLINE) for _ in asked)
            refused = others.submit(client.simulate_get, "/metrics").result(DEADLINE)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
        finally:
            slow.go_on.set()
        assert [each.result(DEADLINE).status_code for each in asked] == [200, 200]
    assert client.simulate_get("/metrics").status_code == 200
