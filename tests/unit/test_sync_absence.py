"""Whether what is missing in Redis was deleted: the server's counters, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from sync.redis.notes import ServerFigures, State
from sync.service.absence import Absence

if TYPE_CHECKING:
    from sync.redis.notes import Notes

FIGURES = ServerFigures(b"run 1", 3, 5, "noeviction", 200)
STATE = State(b"root", b"run 1", 3, 5, 100)


class Server:
    """A server that tells what it is to tell."""

    def __init__(self) -> None:
        self.figures: ServerFigures | None = FIGURES

    def server(self) -> ServerFigures | None:
        return self.figures

    def does(self, **figures: object) -> None:
        self.figures = FIGURES._replace(**figures)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Server:
    return Server()


def absence(server: Server, *, keeps_expired: bool = False) -> Absence:
    return Absence(cast("Notes", server), keeps_expired=keeps_expired)


class TestAtTheStart:
    @pytest.mark.parametrize(
        ("figures", "is_doubtful"),
        [
            pytest.param({}, False, id="nothing has happened"),
            pytest.param({"expired": 9}, False, id="keys have expired"),
            pytest.param({"evicted": 4}, True, id="a key was evicted"),
            pytest.param({"run": b"run 2"}, True, id="another run"),
            pytest.param({"run": b"run 2", "evicted": 0}, True, id="another run, evicted none"),
            pytest.param({"policy": "allkeys-lru"}, True, id="it may evict"),
            pytest.param({"policy": "allkeys-lru", "evicted": 0}, True, id="its count was reset"),
            pytest.param({"evicted": 0}, True, id="its count was reset, and it evicts no more"),
            pytest.param({"commands": 7}, True, id="its counts were reset, and none was evicted"),
        ],
    )
    def test_what_is_missing_is_lost_unless_nothing_can_have_been_evicted(
        self, server: Server, figures: dict[str, object], *, is_doubtful: bool
    ) -> None:
        server.does(**figures)
        it = absence(server)
        it.begin(STATE)
        assert it.is_doubtful is is_doubtful

    def test_nothing_is_known_when_nothing_is_remembered(self, server: Server) -> None:
        it = absence(server)
        assert it.is_doubtful
        it.begin(None)
        assert it.is_doubtful

    def test_nor_when_the_server_tells_nothing(self, server: Server) -> None:
        server.figures = None
        it = absence(server)
        it.begin(STATE)
        assert it.is_doubtful

    def test_what_has_expired_is_lost_if_it_is_to_be_kept(self, server: Server) -> None:
        it = absence(server, keeps_expired=True)
        it.begin(STATE)
        assert not it.is_doubtful
        server.does(expired=6)
        assert it.is_doubtful


class TestLater:
    def test_all_is_known_after_the_first_look(self, server: Server) -> None:
        server.does(run=b"run 2", policy="allkeys-lru")
        it = absence(server)
        it.begin(STATE)
        it.is_known(STATE._replace(server=b"run 2"))
        assert not it.is_doubtful

    def test_an_eviction_is_known_once_all_was_heard_and_looked_at(self, server: Server) -> None:
        it = absence(server)
        it.begin(STATE)
        server.does(evicted=4)
        assert it.beat(1, is_quiet=True) is None  # asked now: what was heard by then is not known
        assert it.beat(1, is_quiet=True) is None  # nothing was made sure of since
        assert it.is_doubtful
        assert it.beat(2, is_quiet=True) == State(b"", b"run 1", 4, 5, 200)
        assert not it.is_doubtful

    def test_but_not_while_something_waits(self, server: Server) -> None:
        it = absence(server)
        it.begin(STATE)
        server.does(evicted=4)
        it.beat(1, is_quiet=True)
        assert it.beat(2, is_quiet=False) is None
        assert it.is_doubtful
        assert it.beat(3, is_quiet=True) is not None
        assert not it.is_doubtful

    def test_nor_what_is_evicted_meanwhile(self, server: Server) -> None:
        it = absence(server)
        it.begin(STATE)
        server.does(evicted=4)
        it.beat(1, is_quiet=True)
        server.does(evicted=5)
        it.beat(2, is_quiet=True)
        assert it.is_doubtful

    def test_nothing_is_remembered_that_is_no_news(self, server: Server) -> None:
        it = absence(server)
        it.begin(STATE)
        server.does(evicted=4)
        it.beat(1, is_quiet=True)
        assert it.beat(2, is_quiet=True)
        assert it.beat(3, is_quiet=True) is None

    def test_what_was_asked_in_another_session_counts_no_more(self, server: Server) -> None:
        it = absence(server)
        it.begin(STATE)
        server.does(evicted=4)
        it.beat(1, is_quiet=True)
        it.begin(STATE)
        assert it.beat(2, is_quiet=True) is None
        assert it.is_doubtful
