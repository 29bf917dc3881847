"""Barriers: what somebody waits for, and when that is over."""

from collections.abc import Iterable
from dataclasses import replace

from sync.service.barrier import Barriers, Waiting


def waiting(
    *names: bytes,
    is_unknown: bool = False,
    places: tuple[bytes, ...] = (),
    is_together: bool = False,
) -> Waiting:
    """Return what waits when it is these names, of all of which something is finished."""

    def among(some: Iterable[bytes]) -> set[bytes]:
        return set(some) & set(names)

    return Waiting(
        is_unknown=is_unknown,
        places=places,
        is_together=is_together,
        is_ready=False,
        owed=lambda: set(names),
        among=among,
    )


def begun(*names: bytes, now: float = 10.0) -> Barriers:
    """Return the barriers when one cookie has come, and these names wait."""
    barriers = Barriers()
    barriers.add([b"one"], now)
    assert barriers.take(waiting(*names), now) == ([] if names else [b"one"])
    return barriers


def test_it_is_over_at_once_when_nothing_waits() -> None:
    assert not begun()


def test_it_is_over_when_what_waited_waits_no_more() -> None:
    barriers = begun(b"a", b"b")
    assert barriers.take(waiting(b"b", b"c"), 10.0) == []
    assert barriers.take(waiting(b"c"), 10.0) == [b"one"]
    assert not barriers


def test_what_was_brought_since_is_waited_for_no_more_though_it_waits_again() -> None:
    barriers = begun(b"a")
    barriers.brought([b"a"])
    assert barriers.take(waiting(b"a"), 10.0) == [b"one"]


def test_what_was_looked_at_before_is_not_brought() -> None:
    barriers = begun(b"a", now=10.0)
    barriers.brought([b"a"], since=9.9)
    assert barriers.take(waiting(b"a"), 10.0) == []
    barriers.brought([b"a"], since=10.0)
    assert barriers.take(waiting(b"a"), 10.0) == [b"one"]


def test_what_follows_from_names_is_waited_for() -> None:
    barriers = begun(b"a")
    barriers.owe([b"b"])
    barriers.brought([b"a"])
    assert barriers.take(waiting(b"b"), 10.0) == []
    assert barriers.take(waiting(), 10.0) == [b"one"]


def test_what_waits_is_noted_when_all_is_known_and_anew_when_events_are_lost() -> None:
    barriers = begun(b"a")
    assert barriers.take(waiting(is_unknown=True), 10.0) == []
    assert barriers.take(waiting(b"b"), 10.0) == []
    assert barriers.take(waiting(), 10.0) == [b"one"]


def test_only_the_directories_that_were_to_be_looked_into_are_waited_for() -> None:
    barriers = Barriers()
    barriers.add([b"one"], 10.0)
    assert barriers.take(waiting(places=(b"d/", b"e/")), 10.0) == []
    assert barriers.take(waiting(places=(b"e/", b"f/")), 10.0) == []
    assert barriers.take(waiting(b"f/a", places=(b"f/",)), 10.0) == []
    assert barriers.take(waiting(places=(b"f/",)), 10.0) == [b"one"]


def test_what_has_no_name_is_waited_for() -> None:
    barriers = Barriers()
    barriers.add([b"one"], 10.0)
    assert barriers.take(waiting(is_together=True), 10.0) == []
    assert barriers.take(waiting(), 10.0) == [b"one"]


def test_a_cookie_that_comes_again_changes_nothing_but_that_it_is_heard_of() -> None:
    barriers = begun(b"a")
    barriers.add([b"one"], 14.0)
    barriers.brought([b"a"], since=11.0)
    assert barriers.take(waiting(b"a"), 16.0) == [b"one"]


def test_who_is_not_heard_of_any_more_is_forgotten() -> None:
    barriers = begun(b"a")
    assert barriers.take(waiting(b"a"), 16.0) == []
    assert not barriers


def test_only_so_many_wait_at_the_same_time_and_what_waits_is_asked_for_once() -> None:
    asked: list[int] = []

    def owed() -> set[bytes]:
        asked.append(1)
        return {b"a"}

    barriers = Barriers()
    barriers.add([b"%d" % number for number in range(1000)], 10.0)
    assert barriers.take(replace(waiting(b"a"), owed=owed), 10.0) == []
    assert len(asked) == 1
    barriers.add([b"0", b"later"], 14.0)
    assert len(barriers.take(waiting(), 14.0)) == 100
    barriers.add([b"later"], 14.5)
    assert barriers.take(waiting(), 14.5) == [b"later"]
