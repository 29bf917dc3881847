from mdvp.core.waiting import Queue, Waiter


def waiter(who: str, until: float = 30.0) -> Waiter:
    return Waiter(who, 0.0, until)


def queue(*who: str, most: int = 9) -> tuple[Queue[Waiter], list[Waiter]]:
    """Return a queue in which these wait for "vol", in this order."""
    made: Queue[Waiter] = Queue(most)
    waiters = [waiter(each) for each in who]
    for each in waiters:
        made.join("vol", each)
    return made, waiters


def test_who_comes_first_is_first() -> None:
    made, (one, two, three) = queue("one", "two", "three")
    assert made.line("vol") == [one, two, three]
    assert [made.ahead("vol", each) for each in (one, two, three)] == [0, 1, 2]
    made.leave("vol", one)
    assert made.line("vol") == [two, three]
    assert made.ahead("vol", three) == 1


def test_who_leaves_from_the_middle_holds_nobody_up() -> None:
    made, (one, two, three) = queue("one", "two", "three")
    made.leave("vol", two)
    assert made.line("vol") == [one, three]


def test_who_leaves_twice_or_never_came_changes_nothing() -> None:
    made, (one, two) = queue("one", "two")
    made.leave("vol", one)
    made.leave("vol", one)
    made.leave("other", two)
    assert made.line("vol") == [two]


def test_two_of_one_name_are_two() -> None:
    made, (one, again) = queue("one", "one")
    made.leave("vol", again)
    assert made.line("vol") == [one]
    assert made.line("vol")[0] is one


def test_lines_are_of_their_own() -> None:
    made, (one,) = queue("one")
    made.join("other", two := waiter("two"))
    assert made.names() == ["vol", "other"]
    assert made.ahead("other", two) == 0
    made.leave("vol", one)
    assert (made.names(), made.line("vol")) == (["other"], [])


def test_it_is_full_when_as_many_wait_as_may_for_all_names_together() -> None:
    made, (one,) = queue("one", most=2)
    assert not made.is_full
    made.join("other", waiter("two"))
    assert made.is_full
    assert len(made) == 2
    made.leave("vol", one)
    assert not made.is_full


def test_who_gives_up_is_who_has_waited_for_as_long_as_they_would() -> None:
    made, _ = queue()
    made.join("vol", short := waiter("short", until=10.0))
    made.join("vol", waiter("long", until=20.0))
    assert made.over("vol", 9.9) == []
    assert made.over("vol", 10.0) == [short]
    assert len(made.over("vol", 20.0)) == 2


def test_what_is_shown_of_a_line_is_how_it_was() -> None:
    made, (one, _) = queue("one", "two")
    shown = made.line("vol")
    made.leave("vol", one)
    assert len(shown) == 2
