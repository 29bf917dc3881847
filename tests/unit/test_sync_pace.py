"""What two statuses tell together."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.report.health import FRESH, Health
from sync.report.pace import Pace, quantile
from sync.report.status import LIVE, Status
from sync.report.tally import LAG_BOUNDS

NO_LAGS = (0,) * (len(LAG_BOUNDS) + 1)


def said(
    at: float, *, started: float = 1.0, lags: Sequence[int] = NO_LAGS, moved: int = 0, **done: int
) -> Health:
    status = Status(state=LIVE, started=started, lags=lags, moved=moved, operations=done)
    return Health(None, status, at)


def pace_of(*healths: Health) -> Pace:
    pace = Pace()
    for health in healths:
        pace.take(health)
    return pace


def test_how_fast_it_goes_takes_two_statuses() -> None:
    assert pace_of().rates(0.0) is None
    assert pace_of(said(100.0, set=3)).rates(100.0) is None
    assert pace_of(said(100.0), said(100.0)).rates(100.0) is None


def test_rates_are_of_the_time_between_two_statuses_the_most_frequent_kind_first() -> None:
    first = said(100.0, set=10, delete=5, rename=1, moved=1000)
    pace = pace_of(first, said(102.0, set=16, delete=15, rename=1, moved=4000))
    rates = pace.rates(103.0)
    assert rates is not None
    assert list(rates.operations.items()) == [("delete", 5.0), ("set", 3.0)]
    assert (rates.total, rates.moved) == (8.0, 1500.0)


def test_a_kind_that_was_not_there_before_counts_from_nothing() -> None:
    rates = pace_of(said(100.0), said(102.0, set=4)).rates(102.0)
    assert rates is not None
    assert rates.operations == {"set": 2.0}


def test_what_is_read_again_and_again_changes_nothing() -> None:
    last = said(101.0, set=7)
    pace = pace_of(said(100.0), last, last, last)
    rates = pace.rates(101.0)
    assert rates is not None
    assert (rates.total, list(pace.course)) == (7.0, [7.0])


def test_only_the_last_two_tell_how_fast_it_goes() -> None:
    pace = pace_of(said(100.0), said(101.0, set=7), said(102.0, set=8), said(103.0, set=8))
    rates = pace.rates(103.0)
    assert rates is not None
    assert (rates.operations, rates.total, list(pace.course)) == ({}, 0.0, [7.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("now", "is_known"),
    [(101.0, True), (101.0 + FRESH, True), (101.1 + FRESH, False), (1.0, False)],
)
def test_of_a_service_that_says_nothing_it_is_not_known(now: float, is_known: bool) -> None:
    pace = pace_of(said(100.0), said(101.0, set=7))
    assert (pace.rates(now) is not None) is is_known


def test_two_that_are_close_to_each_other_tell_of_no_rate() -> None:
    pace = pace_of(said(100.0), said(101.0, set=7), said(101.01, set=8), said(102.0, set=11))
    rates = pace.rates(102.0)
    assert rates is not None
    assert (rates.total, list(pace.course)) == (4.0, [7.0, 4.0])


def test_what_cannot_be_read_meanwhile_changes_nothing() -> None:
    pace = pace_of(said(100.0), Health("it cannot be read"), said(101.0, set=7))
    rates = pace.rates(101.0)
    assert rates is not None
    assert rates.total == 7.0


def test_a_service_that_was_started_anew_is_another() -> None:
    lags = (5,) * len(NO_LAGS)
    pace = pace_of(said(100.0), said(101.0, set=7, lags=lags), said(102.0, started=2.0, set=1))
    assert (pace.rates(102.0), list(pace.course), sum(pace.lags)) == (None, [], 0)
    pace.take(said(103.0, started=2.0, set=3))
    rates = pace.rates(103.0)
    assert rates is not None
    assert rates.total == 2.0


def test_when_the_machines_clock_begins_anew_so_do_the_rates() -> None:
    pace = pace_of(said(100.0), said(101.0, set=5), said(50.0, set=7))
    assert (pace.rates(50.0), list(pace.course)) == (None, [])
    pace.take(said(51.0, set=8))
    rates = pace.rates(51.0)
    assert rates is not None
    assert rates.total == 1.0


def test_lags_are_those_since_the_first_look() -> None:
    lags = [[3, 1, *NO_LAGS[2:]], [4, 1, *NO_LAGS[2:]], [4, 3, *NO_LAGS[2:]]]
    pace = pace_of(*(said(100.0 + number, lags=each) for number, each in enumerate(lags)))
    assert pace.lags == [1, 2, *NO_LAGS[2:]]
    assert pace_of().lags == ()


def test_a_service_that_is_starting_has_no_lags() -> None:
    pace = pace_of(Health("it is starting", Status(), 100.0))
    assert (list(pace.lags), pace.rates(100.0)) == ([], None)


@given(st.lists(st.floats(0, 40), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_first_bound_that_so_many_do_not_exceed(
    lags: list[float], share: float
) -> None:
    bounds = (*LAG_BOUNDS, float("inf"))
    counts = [
        sum(below < lag <= bound for lag in lags)
        for below, bound in zip((-1.0, *LAG_BOUNDS), bounds, strict=True)
    ]
    enough = [bound for bound in bounds if sum(lag <= bound for lag in lags) >= share * len(lags)]
    assert quantile(counts, share) == enough[0]


def test_of_no_lags_there_is_no_quantile() -> None:
    assert quantile(NO_LAGS, 0.5) is None
    assert quantile((), 0.5) is None
