"""What mdvp tells Prometheus: requests as they were counted, and figures when they are asked for.

A registry is passed in, and nothing is kept outside of it. No volume's name is a label: there can
be any number of them, and they are nobody's business but the engine's.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from mdvp import __version__
from mdvp.core.figures import Figures
from mdvp.core.volume import Access

# Seconds. Most operations take some tenths of a millisecond; the engine gives up after two minutes.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0)


class Outcome(Enum):
    """What became of a request."""

    OK = "ok"
    REFUSED = "refused"  # for a reason that is the client's, or somebody else has the volume
    FAILED = "failed"  # for one that is ours: the disk, the database, a defect


class Requests:
    """The requests that were answered, how, and how long that took. Thread-safe."""

    def __init__(self, registry: CollectorRegistry, operations: Iterable[str]) -> None:
        """Show in `registry` how often each of these operations was asked for: not yet."""
        names = list(operations)
        self._total = Counter(
            "mdvp_requests",
            "Requests of the engine that were answered, by operation and outcome.",
            ("operation", "outcome"),
            registry=None,
        )
        self._seconds = Histogram(
            "mdvp_request_duration_seconds",
            "Time from a request to its answer, by operation.",
            ("operation",),
            buckets=_BUCKETS,
            registry=None,
        )
        # To look for them by their labels each time would take longer than to count.
        self._counted = {
            (name, outcome): self._total.labels(name, outcome.value)
            for name in names
            for outcome in Outcome
        }
        self._timed = {name: self._seconds.labels(name) for name in names}
        registry.register(self)

    def note(self, operation: str, outcome: Outcome, seconds: float) -> None:
        """Count one request."""
        self._counted[operation, outcome].inc()
        self._timed[operation].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield both, without when each of their series began, which would double the lines."""
        for each in (self._total, self._seconds):
            for metric in each.collect():
                metric.samples = [it for it in metric.samples if not it.name.endswith("_created")]
                yield metric


class Gauges:
    """What there is at the moment when somebody asks."""

    def __init__(self, registry: CollectorRegistry, figures: Callable[[], Figures]) -> None:
        """Show in `registry` what `figures` returns whenever they are asked for."""
        self._figures = figures
        self._started = time.time()
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield all of them."""
        figures = self._figures()
        yield InfoMetricFamily("mdvp_build", "Which mdvp this is.", {"version": __version__})
        yield _gauge("mdvp_start_time_seconds", "When it started (Unix time).", self._started)
        volumes = GaugeMetricFamily("mdvp_volumes", "Volumes, by access.", labels=["access"])
        for access in Access:
            volumes.add_metric([access.value], figures.volumes[access])
        yield volumes
        yield _gauge("mdvp_volumes_in_use", "Volumes that somebody has.", figures.in_use)
        leases = GaugeMetricFamily(
            "mdvp_leases",
            "Leases that count: waiting for their containers to be seen, or held by them.",
            labels=["state"],
        )
        leases.add_metric(["waiting"], figures.waiting)
        leases.add_metric(["held"], figures.held)
        yield leases
        yield _gauge(
            "mdvp_mounts_waiting",
            "Mounts that wait for their turn to have a volume.",
            figures.mounts_waiting,
        )
        yield _gauge(
            "mdvp_volumes_with_warning",
            "Volumes of which `docker volume inspect` shows warnings.",
            figures.warned,
        )
        yield _gauge(
            "mdvp_volumes_had_twice",
            "Exclusive volumes that several containers have.",
            figures.doubled,
        )
        yield CounterMetricFamily(
            "mdvp_leases_reclaimed",
            "Leases that were ended because nobody lived any more who had them.",
            figures.reclaimed,
        )
        yield _gauge(
            "mdvp_trash_directories",
            "Directories of volumes that were removed, and are not deleted yet.",
            figures.removed,
        )
        yield _gauge(
            "mdvp_trash_volumes", "Removed volumes that can be restored.", figures.restorable
        )
        yield _gauge(
            "mdvp_host_visible",
            "1 when the kernel shows who has a volume, 0 when it does not.",
            figures.host_visible,
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)
