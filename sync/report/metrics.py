"""The metrics: what the service has said of itself last, in the words of Prometheus.

They are made of that, and of how long ago it was, and of nothing else. So they can be asked for by
another thread at any time, and cost nothing where nobody asks. Names and units are by Prometheus'
rules (https://prometheus.io/docs/practices/naming/); each label has a set of values that is closed,
and all of them are there from the start, at 0, so that a rate sees the first of each.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from sync.core.causes import ReconcileCause
from sync.report.health import judge
from sync.report.status import HELD, LIVE, RECONCILING, STANDBY, STARTING, WAITING, Said, Status
from sync.report.tally import LAG_BOUNDS, OPERATIONS

STATES = (STARTING, LIVE, RECONCILING, WAITING, HELD, STANDBY)


def families(said: Said, now: float, version: str, found: Said | None = None) -> Iterator[Metric]:
    """Yield what the service has said last as families of metrics.

    It is judged at `now`, in seconds on CLOCK_MONOTONIC, as `mdvp-sync status` does it, by what
    that has `found`, if it is something else; `version` is the service's.
    """
    yield InfoMetricFamily(
        "mdvp_sync_build", "Which version of mdvp-sync this is.", {"version": version}
    )
    yield InfoMetricFamily(
        "mdvp_sync_mode",
        "Which side follows which, as SYNC_MODE says it.",
        {"mode": said.status.mode},
    )
    yield GaugeMetricFamily(
        "mdvp_sync_healthy",
        "1 when all is well, as `mdvp-sync status` would say it; 0 also when the service hangs.",
        judge(found or said, now).problem is None,
    )
    yield GaugeMetricFamily(
        "mdvp_sync_status_age_seconds",
        "How long ago the service has given a sign of life; it does so each second.",
        max(0.0, now - said.at),
    )
    yield from _doing(said.status)
    yield from _done(said.status)


def _doing(status: Status) -> Iterator[Metric]:
    """Yield what there is by now, and what the service does."""
    yield _by(
        GaugeMetricFamily(
            "mdvp_sync_state",
            "1 for what the service was doing when it said so last, 0 for all else.",
            labels=["state"],
        ),
        {state: int(state == status.state) for state in STATES},
    )
    for name, words, value in (
        (
            "start_time_seconds",
            "When the service began, in seconds since the epoch.",
            status.started,
        ),
        ("files", "Files that Redis holds the content of.", status.files),
        ("bytes", "Size of all files that Redis holds the content of.", status.bytes),
        ("directories", "Directories that are mirrored, with the root.", status.directories),
        (
            "unwatched_directories",
            "Directories that only rescans look into, for want of inotify watches.",
            status.unwatched,
        ),
        ("pending_names", "Names that wait to be looked at.", status.pending),
        (
            "large_files_pending",
            "Large files that are on their way to Redis, or wait for their turn.",
            status.arriving,
        ),
        (
            "conflicts",
            "Names that both sides have changed, until somebody decides.",
            status.conflicts_count,
        ),
        (
            "skipped_names",
            "Names that cannot be mirrored; `mdvp-sync status` says why.",
            status.skipped_count,
        ),
    ):
        yield GaugeMetricFamily(f"mdvp_sync_{name}", words, value)


def _done(status: Status) -> Iterator[Metric]:
    """Yield what was done since the service began."""
    yield _by(
        CounterMetricFamily(
            "mdvp_sync_operations",
            "Changes that were carried out: to keys of Redis, or to files.",
            labels=["operation"],
        ),
        {each: status.operations.get(each, 0) for each in dict.fromkeys(OPERATIONS.values())},
    )
    yield CounterMetricFamily(
        "mdvp_sync_moved_bytes",
        "Bytes of values that went from one side to the other.",
        status.moved,
    )
    yield CounterMetricFamily(
        "mdvp_sync_redis_commands", "Commands that were sent to Redis.", status.commands
    )
    yield CounterMetricFamily(
        "mdvp_sync_undone_changes",
        "Changes that others made to keys of files, and that were undone.",
        status.undone,
    )
    yield _by(
        CounterMetricFamily(
            "mdvp_sync_reconciles",
            "Looks at the whole directory that were finished, by what they were for.",
            labels=["cause"],
        ),
        {cause.slug: status.reconciles.get(cause, 0) for cause in ReconcileCause},
    )
    yield HistogramMetricFamily(
        "mdvp_sync_lag_seconds",
        "Time from the arrival of the oldest change of a batch to its being in Redis.",
        buckets=list(_buckets(status.lags)),
        sum_value=status.lag_sum,
    )


def _by(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int]
) -> GaugeMetricFamily | CounterMetricFamily:
    """Return a family with one label, with a figure for each value of that."""
    for value, figure in values.items():
        family.add_metric([value], figure)
    return family


def _buckets(lags: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Yield the bound of each class of lags, and how many were no longer; these add up."""
    bounds = [*map(floatToGoString, LAG_BOUNDS), "+Inf"]
    yield from zip(bounds, accumulate(lags or [0] * len(bounds)), strict=True)
