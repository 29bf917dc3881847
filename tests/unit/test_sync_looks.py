import pytest

from sync.core import looks
from sync.core.changes import Appeared, Moved, PlaceChange, Vanished
from sync.core.looks import Look, Looks

A, B, C, D = b"a/", b"b/", b"c/", b"d/"
MANY = 1000  # more than any of these tests has


def after(*changes: PlaceChange) -> Looks:
    """Return what is to be looked into after some changes."""
    new = Looks()
    new.add(changes)
    return new


def taken(waiting: Looks) -> list[Look]:
    """Take, and end, one look after the other until there is none."""
    found: list[Look] = []
    for _ in range(MANY):
        if not (look := waiting.take()):
            return found
        found.append(look)
        waiting.current = None
    raise AssertionError("there is no end of looks")


class TestAppeared:
    def test_nothing_is_to_be_looked_into_at_first(self) -> None:
        new = Looks()
        assert not new
        assert new.take() is None
        assert new.take_gone(MANY) == []

    def test_a_directory_is_looked_into_once_however_often_it_was_told(self) -> None:
        assert taken(after(Appeared(A), Appeared(A))) == [Look((A,))]

    def test_all_are_looked_into_together_in_the_order_in_which_they_were_told(self) -> None:
        assert taken(after(*map(Appeared, (C, A, D, B)))) == [Look((C, A, D, B))]

    def test_but_not_more_than_a_number_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(looks, "_TOGETHER", 2)
        assert taken(after(*map(Appeared, (A, B, C)))) == [Look((A, B)), Look((C,))]

    def test_one_is_looked_into_with_the_one_above_that_waits_too(self) -> None:
        waiting = after(*map(Appeared, (b"d/e/f/", b"d/e/", b"d/", b"c/")))
        assert taken(waiting) == [Look((D, C))]

    def test_one_is_looked_into_with_the_one_above_that_has_moved(self) -> None:
        assert taken(after(Appeared(b"d/e/"), Moved(A, D))) == [Look((D,), (A,))]

    def test_one_of_a_similar_name_is_none_above(self) -> None:
        names = (b"de/", b"c/d/", b"d/")
        assert taken(after(*map(Appeared, names))) == [Look(names)]

    def test_again_one_is_looked_into_again(self) -> None:
        waiting = after(Appeared(A))
        taken(waiting)
        waiting.add([Appeared(A)])
        assert taken(waiting) == [Look((A,))]


class TestMoved:
    def test_two_are_looked_into_one_after_the_other(self) -> None:
        assert taken(after(Moved(A, B), Moved(C, D))) == [Look((B,), (A,)), Look((D,), (C,))]

    def test_twice_one_may_be_held_under_either_place_the_last_first(self) -> None:
        assert taken(after(Moved(A, B), Moved(B, C)))[-1] == Look((C,), (B, A))

    def test_with_one_above_it_may_be_held_under_the_place_where_that_was(self) -> None:
        waiting = after(Moved(A, B), Moved(b"b/e/f/", C))
        assert taken(waiting)[-1] == Look((C,), (b"b/e/f/", b"a/e/f/"))

    def test_to_where_another_went_before_it_may_be_either(self) -> None:
        assert taken(after(Moved(A, C), Moved(B, C))) == [Look((C,), (B, A))]

    def test_back_it_is_not_looked_for_at_its_own_place(self) -> None:
        assert Look((A,), (B,)) in taken(after(Moved(A, B), Moved(B, A)))

    def test_on_and_on_only_the_last_places_are_remembered(self) -> None:
        places = [b"%d/" % number for number in range(10)]
        waiting = after(*map(Moved, places, places[1:]))
        assert taken(waiting)[-1] == Look((b"9/",), (b"8/", b"7/", b"6/", b"5/"))

    def test_before_it_was_looked_into_it_is_looked_into_at_both_places(self) -> None:
        found = taken(after(Appeared(A), Moved(A, B)))
        assert [look.places for look in found] == [(A,), (B,)]
        assert found[-1].origins == (A,)


class TestCurrent:
    def test_is_what_was_taken_last(self) -> None:
        waiting = after(Moved(A, B), Moved(C, D))
        assert waiting.current is None
        for expected in (Look((B,), (A,)), Look((D,), (C,)), None):
            assert waiting.take() == expected
            assert waiting.current == expected

    def test_counts_as_something_to_look_into(self) -> None:
        waiting = after(Appeared(A))
        waiting.take()
        assert waiting
        waiting.current = None
        assert not waiting

    def test_that_moves_is_dropped_and_put_in_again(self) -> None:
        waiting = after(Appeared(A))
        waiting.take()
        waiting.add([Moved(A, B)])
        assert waiting.current is None
        found = taken(waiting)
        assert [look.places for look in found] == [(A,), (B,)]
        assert found[-1].origins == (A,)

    def test_that_moves_with_one_above_is_put_in_where_it_is_by_now(self) -> None:
        waiting = after(Appeared(b"d/e/"))
        waiting.take()
        waiting.add([Moved(D, C)])
        assert waiting.current is None
        found = taken(waiting)
        assert [look.places for look in found] == [(b"d/e/",), (b"c/e/",), (C,)]
        assert [look.origins for look in found[1:]] == [(b"d/e/",), (D,)]

    def test_that_moves_again_may_still_be_held_where_it_was_at_first(self) -> None:
        waiting = after(Moved(A, B))
        waiting.take()
        waiting.add([Moved(B, C)])
        assert taken(waiting)[-1] == Look((C,), (B, A))

    def test_that_had_moved_and_moves_with_one_above_may_still_be_held_where_it_was(self) -> None:
        waiting = after(Moved(A, b"d/e/"))
        waiting.take()
        waiting.add([Moved(D, C)])
        assert Look((b"c/e/",), (b"d/e/", A)) in taken(waiting)

    def test_of_which_one_moves_is_put_in_again_with_all_others(self) -> None:
        waiting = after(Appeared(A), Appeared(B))
        waiting.take()
        waiting.add([Moved(A, C)])
        found = taken(waiting)
        assert sorted(place for look in found for place in look.places) == [A, B, C]
        assert Look((C,), (A,)) in found

    @pytest.mark.parametrize("moved", [Moved(B, C), Moved(b"a/d/", C), Moved(B, b"a/d/")])
    def test_goes_on_when_another_moves(self, moved: Moved) -> None:
        waiting = after(Appeared(A))
        look = waiting.take()
        waiting.add([moved])
        assert waiting.current is look

    def test_goes_on_when_it_is_told_again_and_is_looked_into_again_later(self) -> None:
        waiting = after(Appeared(A))
        look = waiting.take()
        waiting.add([Appeared(A)])
        assert waiting.current is look
        assert waiting.take() == look


class TestGone:
    def test_come_after_those_that_have_moved(self) -> None:
        waiting = after(Vanished(A), Appeared(B), Moved(C, D))
        for _ in range(2):
            assert waiting.take_gone(MANY) == []
            assert waiting.take()
        assert waiting.take() is None
        assert waiting
        assert waiting.take_gone(MANY) == [A, C]
        assert not waiting

    def test_are_the_places_that_were_left_by_moving_too(self) -> None:
        waiting = after(Moved(A, B), Moved(B, C))
        taken(waiting)
        assert waiting.take_gone(MANY) == [A, B]

    def test_are_each_taken_once(self) -> None:
        waiting = after(Vanished(A), Vanished(A))
        assert [waiting.take_gone(MANY) for _ in range(2)] == [[A], []]

    def test_are_taken_some_at_a_time(self) -> None:
        waiting = after(*map(Vanished, (A, B, C)))
        assert [waiting.take_gone(2) for _ in range(3)] == [[A, B], [C], []]

    def test_are_looked_through_with_those_above_that_are_gone_too(self) -> None:
        waiting = after(*map(Vanished, (b"d/e/f/", b"d/e/", b"de/", b"d/")))
        assert waiting.take_gone(MANY) == [b"de/", b"d/"]


def test_after_a_clear_there_is_none() -> None:
    waiting = after(Appeared(A), Appeared(B), Moved(C, D), Vanished(A))
    waiting.take()
    waiting.clear()
    assert waiting.current is None
    assert not waiting
    assert waiting.take() is None
    assert waiting.take_gone(MANY) == []
