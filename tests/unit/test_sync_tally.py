"""What is counted equals what a naive count says, whatever is done, and however it is cut."""

import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.core.changes import (
    NONE,
    Arrive,
    Confirm,
    Delete,
    Done,
    Keep,
    MovedFile,
    Record,
    Removed,
    Rename,
    Set,
    Written,
)
from sync.report.tally import LAG_BOUNDS, OPERATIONS, RECENT_MAX, Change, Tally, change

NAMES = st.sampled_from([b"a", b"b\n", "\u6f22".encode(), b"\xff"])
SIZES = st.integers(0, 1 << 40)
SILENT = (Confirm, Record, Keep)
DONE: st.SearchStrategy[Done] = st.one_of(
    st.builds(Set, NAMES, st.binary(max_size=9), st.just(NONE)),
    st.builds(Arrive, NAMES, SIZES.map(lambda size: NONE._replace(size=size))),
    st.builds(Delete, NAMES),
    st.builds(Rename, NAMES, NAMES, st.just(NONE)),
    st.builds(Written, NAMES, SIZES),
    st.builds(Removed, NAMES),
    st.builds(MovedFile, NAMES, NAMES),
    st.builds(Confirm, NAMES, st.just(NONE)),
    st.builds(Record, NAMES, st.none()),
    st.builds(Keep, NAMES, st.just(1), SIZES, st.just(0)),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def naive(batches: Sequence[Sequence[Done]]) -> tuple[dict[str, int], int, list[Change]]:
    """Return how often each was done, the bytes that moved, and all changes, one by one."""
    counts, moved, changes = dict.fromkeys(OPERATIONS.values(), 0), 0, []
    for number, batch in enumerate(batches):
        for done in batch:
            found = change(done, float(number))
            if found is None:
                continue
            counts[found.operation] += 1
            moved += found.size or 0
            changes.append(found)
    return counts, moved, changes


@given(st.lists(st.lists(DONE, max_size=2 * RECENT_MAX), max_size=6))
def test_the_tally_is_what_a_naive_count_says(batches: list[list[Done]]) -> None:
    clock = Clock()
    tally = Tally(clock)
    for number, batch in enumerate(batches):
        clock.now = float(number)
        tally.add(batch)
    counts, moved, changes = naive(batches)
    assert (dict(tally.operations), tally.moved) == (counts, moved)
    assert tally.recent() == changes[-RECENT_MAX:]


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (Set(b"a\n", b"value", NONE), Change(7.0, "set", r"a\n", size=5)),
        (Set(b"a", b"", NONE), Change(7.0, "set", "a", size=0)),
        (Arrive(b"a", NONE._replace(size=9)), Change(7.0, "set", "a", size=9)),
        (Delete(b"\xff"), Change(7.0, "delete", r"\xff")),
        (Rename(b"a", b"\x1b[2J", NONE), Change(7.0, "rename", "a", r"\x1b[2J")),
        (Written(b"a", 3), Change(7.0, "write_file", "a", size=3)),
        (Removed(b"a"), Change(7.0, "remove_file", "a")),
        (MovedFile(b"a", b"b"), Change(7.0, "rename_file", "a", "b")),
        (Confirm(b"a", NONE), None),
        (Record(b"a", None), None),
        (Keep(b"a", 1, 3, 0), None),
    ],
)
def test_each_is_told_in_its_own_words(done: Done, told: Change | None) -> None:
    assert change(done, 7.0) == told


def test_what_leaves_both_sides_as_they_are_is_not_counted() -> None:
    tally = Tally()
    tally.add([Confirm(b"a", NONE), Record(b"a", None), Keep(b"a", 1, 1 << 20, 0)])
    assert (set(tally.operations.values()), tally.moved, tally.recent()) == ({0}, 0, [])
    assert OPERATIONS.keys().isdisjoint(SILENT)


def test_what_is_not_told_does_not_displace_what_is() -> None:
    tally = Tally()
    tally.add([Delete(b"a"), *[Confirm(b"b", NONE)] * (2 * RECENT_MAX)])
    assert [each.name for each in tally.recent()] == ["a"]


def test_no_value_is_held_for_being_among_the_last() -> None:
    tally = Tally()
    tracemalloc.start()
    try:
        tally.add([Set(b"%d" % number, bytes(1 << 20), NONE) for number in range(RECENT_MAX)])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tally.recent()) == RECENT_MAX
    assert held < 1 << 20


@given(st.lists(st.floats(0, 100)))
def test_each_lag_is_in_the_first_class_whose_bound_it_does_not_exceed(lags: list[float]) -> None:
    tally = Tally()
    for lag in lags:
        tally.lag(lag)
    below = [sum(lag <= bound for lag in lags) for bound in LAG_BOUNDS]
    assert [sum(tally.lags[: end + 1]) for end in range(len(LAG_BOUNDS))] == below
    assert sum(tally.lags) == len(lags)
    assert tally.lag_sum == pytest.approx(sum(lags))
