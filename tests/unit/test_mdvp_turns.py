"""Turns for a thing that one can have at a time, by a clock that stands still unless it is set."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event, Lock

import pytest
from support import eventually

from mdvp.core.errors import ConflictError, LaterError, NoSuchVolumeError
from mdvp.turns import SOMEBODY, Client, Somebody, Turn, Turns

WAIT = 30.0  # seconds


class Peer(Somebody):
    """A client that can go, and of which is known whether another thread stands in for it."""

    def __init__(self) -> None:
        self.gone = False
        self.waiting = 0

    def is_gone(self) -> bool:
        return self.gone

    @contextmanager
    def waits(self) -> Iterator[None]:
        self.waiting += 1
        yield
        self.waiting -= 1


class World:
    """One thing, who has it, and the turns for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.owner: str | None = "first"
        self.had: list[str] = []
        self.error: Exception | None = None
        self.patience: dict[str, float] = {}  # of who would not wait for WAIT
        self.now = 0.0
        self.looks = 0
        self.looking: Exception | None = None
        self.ended = Event()
        self.pool = ThreadPoolExecutor(200)
        self.turns = Turns(self.lock, self.look, self.ended.set, lambda: self.now)

    def look(self) -> None:
        self.looks += 1
        if self.looking is not None:
            raise self.looking

    def attempt(self, who: str, turn: Turn) -> str:
        assert self.lock.locked()
        if self.error is not None:
            raise self.error
        if self.owner == who:
            return f"{who} again"
        if self.owner is not None or turn.before:
            raise LaterError(
                f"{self.owner} has it, {turn.before} before", self.patience.get(who, WAIT)
            )
        self.owner = who
        self.had.append(who)
        return who

    def take(self, who: str, client: Client = SOMEBODY) -> str:
        return self.turns.take("it", who, lambda turn: self.attempt(who, turn), client)

    def wait(self, *who: str, client: Client = SOMEBODY) -> list[Future[str]]:
        """Have these wait, one behind the other."""
        futures = []
        for each in who:
            before = self.turns.waiting("it")
            futures.append(self.pool.submit(self.take, each, client))
            eventually(lambda: self.turns.waiting("it"), before + 1)
        return futures

    def free(self) -> None:
        with self.lock:
            self.owner = None


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.turns.close()
    world.pool.shutdown()
    assert not world.ended.is_set()


def test_what_is_free_is_had_at_once_and_nobody_looks(world: World) -> None:
    world.free()
    assert world.take("one") == "one"
    assert world.looks == 0


def test_who_would_not_wait_is_refused_at_once(world: World) -> None:
    world.patience["one"] = 0
    with pytest.raises(LaterError, match=r"^first has it, 0 before$"):
        world.take("one")


def test_each_has_it_in_turn_though_nobody_tells_that_it_is_free(world: World) -> None:
    names = [f"n{number}" for number in range(10)]
    futures = world.wait(*names)
    for name, future in zip(names, futures, strict=True):
        world.free()
        assert future.result(10) == name
    assert world.had == names
    assert world.turns.waiting("it") == 0


def test_who_is_told_looks_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdvp.turns._INTERVAL", 3600.0)
    (future,) = world.wait("one")
    eventually(lambda: world.looks, 1)
    world.free()
    world.turns.wake("other")
    assert not future.done()
    world.turns.wake("it")
    assert future.result(10) == "one"


def test_nobody_overtakes_even_when_it_is_free_at_that_moment(world: World) -> None:
    (first,) = world.wait("one")
    with world.lock:  # the turn of nobody, for now
        world.owner = None
        late = world.pool.submit(world.take, "two")
    assert first.result(10) == "one"
    eventually(lambda: world.turns.waiting("it"), 1)
    world.free()
    assert late.result(10) == "two"
    assert world.had == ["one", "two"]


def test_who_has_it_may_have_it_again_whoever_waits(world: World) -> None:
    world.wait("one")
    assert world.take("first") == "first again"


def test_who_waits_twice_has_it_twice_in_one_turn(world: World) -> None:
    one, two, again = world.wait("one", "two", "one")
    world.free()
    assert (one.result(10), again.result(10)) == ("one", "one again")
    assert not two.done()
    world.free()
    assert two.result(10) == "two"


def test_it_gives_up_in_time_and_says_how_things_are_by_then(world: World) -> None:
    world.patience["one"] = 40.0
    one, two = world.wait("one", "two")
    with world.lock:
        world.owner = "another"
    world.now = WAIT - 0.1
    looks = world.looks
    eventually(lambda: world.looks > looks + 1, True)
    assert not two.done()
    world.now = WAIT
    with pytest.raises(LaterError) as refusal:
        two.result(10)
    waited = "this one has waited 30 s for its turn"
    assert str(refusal.value) == f"another has it, 1 before; {waited}, and 1 came before it"
    assert not one.done()
    world.now = 40.0
    with pytest.raises(
        LaterError, match=r"^another has it, 0 before; this one has waited 40 s .*n$"
    ):
        one.result(10)


def test_it_waits_for_as_long_as_it_is_said_to_be_worth_by_now(world: World) -> None:
    (one,) = world.wait("one")
    world.patience["one"] = 100.0
    looks = world.looks
    eventually(lambda: world.looks > looks + 1, True)
    world.now = WAIT + 1
    eventually(lambda: world.looks > looks + 3, True)
    assert not one.done()
    world.patience["one"] = 31.0
    with pytest.raises(LaterError, match="has waited 31 s"):
        one.result(10)


def test_whose_client_is_gone_does_not_get_it_and_holds_nobody_up(world: World) -> None:
    peer = Peer()
    one, two = world.wait("one", client=peer) + world.wait("two")
    with world.lock:
        peer.gone = True
        world.owner = None
    assert two.result(10) == "two"
    with pytest.raises(LaterError, match="who asked for it is gone"):
        one.result(10)
    assert world.had == ["two"]


def test_another_thread_stands_in_while_it_waits(world: World) -> None:
    peer = Peer()
    (one,) = world.wait("one", client=peer)
    eventually(lambda: peer.waiting, 1)
    world.free()
    one.result(10)
    assert peer.waiting == 0


def test_an_error_is_of_who_has_waited_and_the_next_is_tried(world: World) -> None:
    one, two = world.wait("one", "two")
    with world.lock:
        world.error = NoSuchVolumeError("it")
    for future in (one, two):
        with pytest.raises(NoSuchVolumeError):
            future.result(10)


def test_all_are_answered_at_once_when_it_ends_and_nobody_waits_any_more(world: World) -> None:
    futures = world.wait("one", "two")
    world.turns.close()
    for future in futures:
        with pytest.raises(ConflictError, match="mdvp is being ended"):
            future.result(10)
    with pytest.raises(ConflictError, match="mdvp is being ended"):
        world.take("three")


def test_no_more_wait_than_there_may(world: World) -> None:
    world.wait(*map(str, range(100)))
    with pytest.raises(LaterError, match=r"^first has it, 100 before; and 100 wait already"):
        world.take("one more")


def test_it_looks_once_for_all_who_wait_and_not_when_nobody_does(world: World) -> None:
    turns: list[object] = []

    def attempt(turn: Turn) -> None:
        turns.append(turn.waited)
        raise LaterError("never", WAIT)

    for name in ("a", "b", "c"):
        world.pool.submit(world.turns.take, name, "me", attempt)
        eventually(partial(world.turns.waiting, name), 1)
    with world.lock:
        turns.clear()
        looks = world.looks
    eventually(lambda: len(turns) > 30, True)
    with world.lock:
        assert world.looks - looks <= len(turns) / 3 + 2
        world.now = WAIT
    eventually(lambda: [world.turns.waiting(name) for name in "abc"], [0, 0, 0])

    def rest() -> bool:
        looks = world.looks
        return not world.ended.wait(0.2) and world.looks == looks

    eventually(rest, True)


def test_a_look_that_fails_is_not_the_last_and_it_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.looking = OSError("no more files")
    (one,) = world.wait("one")
    eventually(lambda: world.looks > 3, True)
    world.looking = None
    world.free()
    assert one.result(10) == "one"
    assert caplog.text.count("OSError: no more files") == 1
