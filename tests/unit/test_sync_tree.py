import pytest

from sync.disk.tree import UNWATCHED, Node, Tree

ROOT = 1


def known(tree: Tree, place: bytes) -> Node:
    """Return the directory at a place, which must be known."""
    node = tree.at(place)
    assert node is not None
    return node


def tree_of(**places: int) -> Tree:
    """Return a tree of directories and their watches; `_` is for the slash between two names."""
    tree = Tree(ROOT)
    for name, wd in places.items():
        tree.make(name.replace("_", "/").encode() + b"/", wd)
    return tree


def places_of(tree: Tree, *wds: int) -> list[bytes | None]:
    """Return where the directories are that have some watches; None if nowhere."""
    nodes = map(tree.watched, wds)
    return [tree.place(node) if node else None for node in nodes]


class TestMake:
    def test_the_root_is_known_from_the_beginning(self) -> None:
        tree = tree_of()
        assert tree.at(b"") is tree.watched(ROOT) is tree.root
        assert tree.place(tree.root) == b""
        assert (len(tree), tree.unwatched) == (1, 0)

    def test_a_directory_is_found_by_its_place_and_by_its_watch(self) -> None:
        tree = tree_of(d=2, d_e=3)
        assert tree.at(b"d/e/") is tree.watched(3)
        assert places_of(tree, 2, 3) == [b"d/", b"d/e/"]

    @pytest.mark.parametrize("place", [b"e/", b"d/d/", b"d/e/f/", b"f/e/"])
    def test_there_is_none_where_none_was_made(self, place: bytes) -> None:
        assert tree_of(d=2, d_e=3).at(place) is None

    def test_a_name_is_bytes_of_any_kind(self) -> None:
        tree = Tree(ROOT)
        for wd, place in enumerate((b"\xff\n/", b"\xff\n/ /", b"\xff\n/ /./"), 2):
            tree.make(place, wd)
        assert places_of(tree, 2, 3, 4) == [b"\xff\n/", b"\xff\n/ /", b"\xff\n/ /./"]


class TestMove:
    def move(self, tree: Tree, old: bytes, new: bytes) -> None:
        node = known(tree, old)
        tree.take_off(node)
        tree.put(node, new)

    def test_takes_along_all_that_is_below(self) -> None:
        tree = tree_of(d=2, d_e=3, d_e_f=4, g=5)
        self.move(tree, b"d/", b"g/h/")
        assert places_of(tree, 2, 3, 4) == [b"g/h/", b"g/h/e/", b"g/h/e/f/"]
        assert known(tree, b"g/h/e/f/").wd == 4

    def test_leaves_nothing_at_the_old_place_and_the_others_there(self) -> None:
        tree = tree_of(d=2, d_e=3, d_g=4)
        self.move(tree, b"d/e/", b"e/")
        assert tree.at(b"d/e/") is None
        assert places_of(tree, 2, 3, 4) == [b"d/", b"e/", b"d/g/"]

    def test_changes_no_count(self) -> None:
        tree = tree_of(d=2, d_e=3, g=UNWATCHED)
        self.move(tree, b"d/", b"g/d/")
        assert (len(tree), tree.unwatched) == (4, 1)

    def test_of_the_only_one_below_leaves_room_for_another(self) -> None:
        tree = tree_of(d=2, d_e=3)
        self.move(tree, b"d/e/", b"e/")
        tree.make(b"d/e/", 4)
        assert places_of(tree, 3, 4) == [b"e/", b"d/e/"]


class TestTakeOff:
    def test_the_place_of_it_and_of_all_below_is_not_known(self) -> None:
        tree = tree_of(d=2, d_e=3, d_e_f=4)
        tree.take_off(known(tree, b"d/e/"))
        assert places_of(tree, 2, 3, 4) == [b"d/", None, None]
        assert tree.at(b"d/e/f/") is None

    def test_its_watch_still_tells_which_it_is(self) -> None:
        tree = tree_of(d=2)
        node = known(tree, b"d/")
        tree.take_off(node)
        assert tree.watched(2) is node
        assert len(tree) == 2

    def test_twice_is_as_once(self) -> None:
        tree = tree_of(d=2)
        node = known(tree, b"d/")
        for _ in range(2):
            tree.take_off(node)
        assert tree.place(node) is None

    def test_of_one_below_what_is_taken_off_already_parts_both(self) -> None:
        tree = tree_of(d=2, d_e=3)
        above, node = known(tree, b"d/"), known(tree, b"d/e/")
        tree.take_off(above)
        tree.take_off(node)
        tree.put(above, b"g/")
        assert places_of(tree, 2, 3) == [b"g/", None]


class TestForget:
    def test_yields_the_watches_of_all_that_is_below(self) -> None:
        tree = tree_of(d=2, d_e=3, d_e_f=4, d_g=5, h=6)
        node = known(tree, b"d/")
        tree.take_off(node)
        assert sorted(tree.forget(node)) == [2, 3, 4, 5]
        assert places_of(tree, 1, 2, 3, 4, 5, 6) == [b"", None, None, None, None, b"h/"]
        assert (len(tree), tree.unwatched) == (2, 0)

    def test_counts_those_that_have_no_watch(self) -> None:
        tree = tree_of(d=2, d_e=UNWATCHED, d_e_f=4, g=UNWATCHED)
        assert (len(tree), tree.unwatched) == (5, 2)
        node = known(tree, b"d/")
        tree.take_off(node)
        assert sorted(tree.forget(node)) == [2, 4]
        assert (len(tree), tree.unwatched) == (2, 1)

    def test_spares_what_was_taken_off_before(self) -> None:
        tree = tree_of(d=2, d_e=3)
        above, node = known(tree, b"d/"), known(tree, b"d/e/")
        tree.take_off(node)
        tree.take_off(above)
        assert list(tree.forget(above)) == [2]
        tree.put(node, b"e/")
        assert places_of(tree, 2, 3) == [None, b"e/"]


class TestWatch:
    def test_one_that_has_lost_its_watch_keeps_its_place_and_counts_as_unwatched(self) -> None:
        tree = tree_of(d=2, d_e=3)
        node = known(tree, b"d/")
        tree.watch(node, UNWATCHED)
        assert tree.watched(2) is None
        assert tree.place(node) == b"d/"
        assert places_of(tree, 3) == [b"d/e/"]
        assert (len(tree), tree.unwatched) == (3, 1)

    def test_one_that_gets_another_is_found_by_that_alone(self) -> None:
        tree = tree_of(d=2)
        tree.watch(known(tree, b"d/"), 7)
        assert places_of(tree, 2, 7) == [None, b"d/"]
        assert tree.unwatched == 0

    def test_without_one_is_not_found_by_it(self) -> None:
        tree = tree_of(d=UNWATCHED)
        assert tree.watched(UNWATCHED) is None
        assert (len(tree), tree.unwatched) == (2, 1)
