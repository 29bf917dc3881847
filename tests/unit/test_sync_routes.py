"""What happened to real paths, said of the paths that users know."""

import pytest

from sync.core.changes import (
    Appeared,
    Change,
    Changed,
    Created,
    Moved,
    PlaceChange,
    Renamed,
    Unfinished,
    Vanished,
)
from sync.core.routes import Routes, Way, is_hidden

# a and b lead through ..data to files, c to a plain file; d is a directory through ..data.
WAYS = {
    b"a": Way(b"a", b"..1/a", (b"..data",), (b"..1",)),
    b"b": Way(b"b", b"..1/b", (b"..data",), (b"..1",)),
    b"c": Way(b"c", b"plain"),
    b"d": Way(b"d", b"..1/d", (b"..data",), (b"..1",), is_place=True),
}
ALL = {b"a", b"b", b"d"}


def routes(*, is_tree: bool = True) -> Routes:
    found = Routes(is_tree=is_tree)
    for known, way in WAYS.items():
        found.note(known, way)
    return found


@pytest.mark.parametrize(
    ("change", "singles", "together"),
    [
        (Changed(b"x"), [Changed(b"x")], set()),
        (Changed(b"x/y"), [Changed(b"x/y")], set()),
        (Changed(b"..2/a"), [], set()),
        (Unfinished(b"..1/a"), [Unfinished(b"a")], set()),
        (Created(b"..1/b", is_written=True), [Created(b"b", is_written=True)], set()),
        (Changed(b"plain"), [Changed(b"plain"), Changed(b"c")], set()),
        (Changed(b"c"), [Changed(b"c")], set()),
        (Changed(b"..data"), [], ALL),
        (Renamed(b"..data_tmp", b"..data"), [], ALL),
        (Changed(b"d"), [], {b"d"}),
        (Changed(b"..1/d/x"), [Changed(b"d/x")], set()),
        (Changed(b"..1/d/..x"), [], set()),
        (Renamed(b"..1/d/x", b"..1/d/y/z"), [Renamed(b"d/x", b"d/y/z")], set()),
        (Renamed(b"..1/d/x", b"..1/z"), [Changed(b"d/x")], set()),
        (Renamed(b"..2/z", b"..1/a"), [Changed(b"a")], set()),
        (Renamed(b"c", b"e"), [Renamed(b"c", b"e")], set()),
        (Renamed(b"x", b"..y"), [Changed(b"x")], set()),
    ],
)
def test_what_happened_to_a_file_or_a_link(
    change: Change, singles: list[Change], together: set[bytes]
) -> None:
    followed = routes().follow([change], [])
    assert (followed.changes, followed.places, set(followed.together)) == (singles, [], together)


@pytest.mark.parametrize(
    ("change", "places", "together"),
    [
        (Appeared(b"x/"), [Appeared(b"x/")], set()),
        (Appeared(b"..2/"), [], set()),
        (Vanished(b"..1/"), [], ALL),
        (Moved(b"..1/", b"..3/"), [], ALL),
        (Appeared(b"..1/d/x/"), [Appeared(b"d/x/")], set()),
        (Moved(b"..1/d/x/", b"..1/d/y/"), [Moved(b"d/x/", b"d/y/")], set()),
        (Moved(b"..1/d/x/", b"..y/"), [Vanished(b"d/x/")], set()),
        (Moved(b"..y/", b"..1/d/x/"), [Appeared(b"d/x/")], set()),
        (Vanished(b"..1/d/"), [], {b"d"}),
    ],
)
def test_what_happened_to_a_directory(
    change: PlaceChange, places: list[PlaceChange], together: set[bytes]
) -> None:
    followed = routes().follow([], [change])
    assert (followed.changes, followed.places, set(followed.together)) == ([], places, together)


def test_in_a_flat_directory_a_directory_is_a_name_and_what_is_below_is_none() -> None:
    followed = routes(is_tree=False).follow([Changed(b"x/y")], [Appeared(b"x/"), Vanished(b"..2/")])
    assert (followed.changes, followed.places) == ([Changed(b"x")], [])


def test_what_is_forgotten_depends_on_nothing() -> None:
    found = routes()
    for known in WAYS:
        found.forget(known)
    followed = found.follow([Changed(b"..data"), Changed(b"plain")], [Vanished(b"..1/")])
    assert (followed.changes, set(followed.together)) == ([Changed(b"plain")], set())


def test_what_leads_elsewhere_depends_on_that() -> None:
    found = routes()
    found.note(b"a", Way(b"a", b"plain"))
    followed = found.follow([Changed(b"..data"), Changed(b"plain")], [])
    assert set(followed.together) == {b"b", b"d"}
    assert set(followed.changes) == {Changed(b"plain"), Changed(b"c"), Changed(b"a")}


def test_links_are_shared_but_for_the_one_of_a_file_itself() -> None:
    found = routes()
    assert found.shared(b"a") == {b"..data"}
    assert found.shared(b"c") == set()
    assert found.shared(b"d") == found.shared(b"d/x/y") == {b"..data", b"d"}


@pytest.mark.parametrize("path", [b"..", b"..a", b"a/..b", b"a/..b/c", b"...", b"..a/"])
def test_a_component_with_two_dots_in_front_is_hidden(path: bytes) -> None:
    assert is_hidden(path)


@pytest.mark.parametrize("path", [b"a", b".a", b"a..b", b"a/b..", b".a/.b"])
def test_another_is_not(path: bytes) -> None:
    assert not is_hidden(path)
