"""What the stream of changes tells of commands, and whether it goes on."""

from redis import ResponseError

from sync.core.changes import (
    NONE,
    Arrive,
    Command,
    Confirm,
    Delete,
    Keep,
    Record,
    Rename,
    Set,
    Signature,
)
from sync.core.manifest import NOTHING, Entries
from sync.core.plan import SPARE
from sync.redis.feed import Feed, Found

OF_3, OF_5 = Signature(1, 3, 2, 2), Signature(2, 5, 2, 2)
RUN = b"this run"


def live(most: int = 0) -> Feed:
    feed = Feed(b"changes", most, b"app:")
    feed.go_on(10)
    return feed


def fields(*requests: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return what is told, without what all of it has."""
    return [request[request.index(b"*") + 2 :] for request in requests]


def told(*commands: Command) -> list[tuple[object, ...]]:
    return fields(*live().told(commands, 0))


class TestTold:
    def test_is_what_names_hold(self) -> None:
        assert told(Set(b"a", b"one", OF_3), Arrive(b"b", OF_5), Delete(b"c")) == [
            (b"set", b"name", b"a", b"size", 3, b"seq", 11),
            (b"set", b"name", b"b", b"size", 5, b"seq", 12),
            (b"del", b"name", b"c", b"seq", 13),
        ]

    def test_is_what_both_sides_hold(self) -> None:
        assert told(Record(b"a", OF_3, b"d"), Record(b"b", None)) == [
            (b"set", b"name", b"a", b"size", 3, b"seq", 11),
            (b"del", b"name", b"b", b"seq", 12),
        ]

    def test_is_nothing_that_is_no_news(self) -> None:
        about_to_be = Record(b"a", OF_3, b"d", pending=b"e")
        as_before = Record(b"a", OF_3, b"d", is_news=False)
        assert told(about_to_be, as_before, Confirm(b"a", OF_3), Keep(b"a", 1, 2, 3)) == []

    def test_is_a_rename_with_both_names(self) -> None:
        assert told(Rename(b"a", b"b", OF_3)) == [
            (b"rename", b"name", b"b", b"old", b"a", b"size", 3, b"seq", 11)
        ]

    def test_knows_no_spare_key(self) -> None:
        ring = [Rename(b"a", SPARE, NONE), Rename(b"b", b"a", OF_5), Rename(SPARE, b"b", OF_3)]
        assert told(*ring, Rename(b"c", b"d", OF_5)) == [
            (b"set", b"name", b"a", b"size", 5, b"seq", 11),
            (b"set", b"name", b"b", b"size", 3, b"seq", 12),
            (b"rename", b"name", b"d", b"old", b"c", b"size", 5, b"seq", 13),
        ]

    def test_is_counted_when_it_is_done(self) -> None:
        feed = live()
        assert feed.told([Delete(b"a")], 0) == feed.told([Delete(b"a")], 0)
        feed.take([b"1-1"])
        assert fields(*feed.told([Delete(b"a")], 0)) == [(b"del", b"name", b"a", b"seq", 12)]
        assert feed.is_at(Found(last=(b"1-1", 11)))
        assert not feed.is_at(Found(last=(b"1-2", 12)))

    def test_ends_when_it_is_refused(self) -> None:
        feed = live()
        feed.take([ResponseError("WRONGTYPE")])
        assert feed.refusal == "WRONGTYPE"
        assert feed.told([Delete(b"a")], 0) == []

    def test_is_trimmed_once_it_is_known_how_much_there_is(self) -> None:
        feed, commands = live(10), [Delete(b"a"), Delete(b"b")]
        assert not any(b"MAXLEN" in request for request in feed.told(commands, 100))
        feed.may_trim = True
        first, last = feed.told(commands, 100)
        assert b"MAXLEN" not in first
        assert last[:5] == (b"XADD", b"app:changes", b"MAXLEN", b"~", 202)
        assert feed.told(commands, 0)[-1][4] == 10


def test_all_that_there_is_has_a_value() -> None:
    entries = Entries(trimmed=False, digests=True)
    page = {
        b"a": entries.encode_with(OF_3, b"d" * 16),
        b"to come": entries.encode_with(NONE, NOTHING, b"d" * 16),
        b"directory/": b"",
    }
    found = fields(*live().held(page, entries))
    assert found == [(b"set", b"name", b"a", b"size", 3, b"seq", 11)]


class TestItGoesOn:
    LAST = (b"last-generated-id", b"5-1", b"last-entry", [b"5-1", [b"op", b"del", b"seq", b"7"]])

    def test_where_all_is_as_it_was(self) -> None:
        for stream in ([*self.LAST], dict(zip(self.LAST[::2], self.LAST[1::2], strict=True))):
            found = live().found([[RUN, b"changes", None], stream], RUN)
            assert (found.is_whole, found.last) == (True, (b"5-1", 7))

    def test_not_of_another_run_or_name_or_half_way(self) -> None:
        for noted in (
            [None, b"changes", None],
            [b"another", b"changes", None],
            [RUN, b"others", None],
            [RUN, b"changes", b"1"],
        ):
            assert not live().found([noted, [*self.LAST]], RUN).is_whole

    def test_not_where_the_last_entry_is_not_the_last_that_was(self) -> None:
        noted = [RUN, b"changes", None]
        for generated, entry in (
            (b"5-2", [b"5-1", [b"seq", b"7"]]),  # that was deleted
            (b"5-1", None),
            (b"5-1", [b"5-1", [b"seq", b"seven"]]),
            (b"5-1", [b"5-1", [b"seq", b"9" * 5000]]),
            (b"5-1", [b"5-1", [b"op", b"del"]]),
        ):
            stream = [b"last-generated-id", generated, b"last-entry", entry]
            assert live().found([noted, stream], RUN).last is None

    def test_only_while_all_that_was_added_is_ours(self) -> None:
        feed = live()
        feed.go_on(7, added=3)
        feed.take([b"5-2"])
        last = (b"5-2", 8)
        assert feed.is_at(Found(last=last, added=4))
        assert not feed.is_at(Found(last=last, added=5))  # somebody else has
        assert not feed.is_at(Found(last=last, added=1))  # it was deleted
        assert feed.is_at(Found(last=last, added=None))  # nobody knows
        assert not feed.is_at(Found(last=None, added=4))

    def test_not_where_there_is_none_or_no_stream(self) -> None:
        noted = [RUN, b"changes", None]
        found = live().found([noted, ResponseError("no such key")], RUN)
        assert (found.last, found.refusal) == (None, "")
        assert live().found([noted, ResponseError("WRONGTYPE it is")], RUN).refusal
