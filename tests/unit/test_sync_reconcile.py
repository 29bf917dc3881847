"""What a reconcile asks of Redis and of the disk; what the mirror does where the model seldom is.

That all is equal after a reconcile is for the model.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from unit.memory import NO_LOG, PIECE, Clock, Disk, Server, Turns, in_memory
from unit.memory_redis import UPLOAD, Pool

from sync.core.causes import ReconcileCause
from sync.core.manifest import Entries
from sync.core.plan import Plan
from sync.disk.files import Directory, now
from sync.redis import upload as upload_module
from sync.redis.target import Target
from sync.service import mirror as mirror_module
from sync.service.mirror import Mirror, Outcome
from sync.service.news import News, NoNews
from sync.service.reconcile import Reconcile
from sync.service.skipped import Skipped
from sync.service.streams import Job, Streams
from sync.service.streams import at_once as do_at_once

LARGE = b"7777"


class Logged(Server):
    """A Redis that knows which commands it was asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[bytes] = []

    def do(self, command: bytes, *arguments: bytes) -> object:
        self.log.append(command)
        return super().do(command, *arguments)


class Reconciler:
    """A disk, a Redis, and one reconcile after the other between them."""

    def __init__(self, disk: Disk, directory: Directory, turns: Turns) -> None:
        self.disk = disk
        self.turns = turns
        self.server = Logged()
        pool = Pool(self.server, turns)
        self.target = Target(pool.make_connection, Entries(trimmed=False))
        self.target.connect()
        self.skipped = Skipped(NO_LOG)
        self.directory = directory

    def run(self, *, values: bool = False, stale_first: bool = False) -> Reconcile:
        """Do a reconcile at a time when all that was written is a while ago."""
        reconcile, mirror = self.begin(values=values, stale_first=stale_first)
        while reconcile.step() is not None:
            reconcile.count(mirror.flush())
            for outcome in mirror.arrive():
                reconcile.count(outcome)
        return reconcile

    def begin(
        self,
        *,
        values: bool = False,
        stale_first: bool = False,
        at_once: int = 1000,
    ) -> tuple[Reconcile, Mirror]:
        """Prepare one, and what it works with."""
        self.disk.tick()
        self.server.log.clear()
        news = NoNews(self.directory)
        mirror = self.mirror(news, do_at_once)
        reconcile = Reconcile(
            ReconcileCause.START,
            self.directory,
            self.target,
            mirror,
            news,
            values=values,
            stale_first=stale_first,
            at_once=at_once,
        )
        return reconcile, mirror

    def mirror(self, news: News, spawn: Callable[[Job], None]) -> Mirror:
        streams = Streams(spawn, lambda: None)
        return Mirror(self.directory, self.target, streams, news, self.skipped)


class AnothersNews(NoNews):
    """Nothing, or that another writer than the one who is known has closed each file."""

    is_there = False

    def of(self, names: Iterable[bytes], *, overdue: Container[bytes] = ()) -> set[bytes]:
        return {name for name in names if self.is_there and name in overdue}


@contextmanager
def reconciler(*, is_tree: bool) -> Iterator[Reconciler]:
    clock, turns = Clock(), Turns()
    disk = Disk(clock)
    with (
        in_memory(disk, turns, clock),
        closing(Directory(Path("/memory"), is_tree=is_tree)) as directory,
    ):
        yield Reconciler(disk, directory, turns)


@pytest.fixture
def world() -> Iterator[Reconciler]:
    with reconciler(is_tree=False) as world:
        yield world


@pytest.fixture
def tree() -> Iterator[Reconciler]:
    with reconciler(is_tree=True) as tree:
        yield tree


def test_what_it_saw_and_did_is_counted(world: Reconciler) -> None:
    for name, content in ((b"a", b"1"), (b"b", b""), (b"c", LARGE)):
        world.disk.write(name, content)
    world.disk.symlink(b"d")
    first = world.run()
    assert (first.seen, first.sets, first.deletes) == (4, 3, 0)
    assert (world.target.count, world.target.bytes) == (3, 5)

    world.disk.remove(b"a")
    world.disk.write(b"b", b"22")
    second = world.run()
    assert (second.seen, second.sets, second.deletes) == (3, 1, 1)
    assert (world.target.count, world.target.bytes) == (2, 6)


def test_a_redis_that_holds_nothing_is_not_asked_what_it_holds(world: Reconciler) -> None:
    for name in (b"a", b"b", b"c"):
        world.disk.write(name, b"1")
    world.run()
    assert b"HSCAN" not in world.server.log
    assert world.server.values() == {b"a": b"1", b"b": b"1", b"c": b"1"}


@pytest.mark.parametrize("names_max", [2, 3])
def test_files_are_read_while_redis_works(
    world: Reconciler, monkeypatch: pytest.MonkeyPatch, names_max: int
) -> None:
    monkeypatch.setattr(mirror_module, "NAMES_MAX", names_max)
    for name in (b"a", b"b", b"c", b"d"):
        world.disk.write(name, b"1")
    reconcile, mirror = world.begin(at_once=2)
    brought = []
    while reconcile.step() is not None:
        brought.append((len(world.server.values()), reconcile.sets))
        assert mirror.is_sending == (reconcile.sets < len(world.server.values()))
    # What became of two files is asked for when the next two have been read.
    assert list(dict.fromkeys(brought)) == [(0, 0), (2, 0), (4, 2), (4, 4)]


def test_where_nothing_changed_entries_are_compared_and_that_is_all(world: Reconciler) -> None:
    for name, content in ((b"a", b"1"), (b"b", b"22"), (b"c", LARGE)):
        world.disk.write(name, content)
    world.run()
    world.run()
    assert set(world.server.log) == {b"CONFIG", b"HLEN", b"HMGET"}  # what it takes; what it holds


def test_names_that_are_no_files_any_more_are_looked_for_when_there_are_more_than_files(
    world: Reconciler,
) -> None:
    for name in (b"a", b"b", b"c"):
        world.disk.write(name, b"1")
    world.run()
    world.disk.remove(b"b")
    assert world.run().deletes == 1
    assert world.server.values() == {b"a": b"1", b"c": b"1"}


def test_names_that_are_no_files_any_more_go_first_when_redis_needs_the_room(
    world: Reconciler,
) -> None:
    world.disk.write(b"a", b"1")
    world.run()
    world.disk.remove(b"a")
    world.disk.write(b"b", b"2")
    world.run(stale_first=True)
    log = world.server.log
    assert log.index(b"DEL") < log.index(b"MSET")
    assert world.server.values() == {b"b": b"2"}


def test_a_value_of_another_length_is_found_only_when_lengths_are_asked_for(
    world: Reconciler,
) -> None:
    for name in (b"a", b"b"):
        world.disk.write(name, b"22")
    world.run()
    world.server.keys[b"a"] = b"somebody else's"
    del world.server.keys[b"b"]
    assert world.run().sets == 0
    assert world.run(values=True).sets == 2
    assert world.server.values() == {b"a": b"22", b"b": b"22"}


def test_what_was_skipped_is_so_no_more_when_it_is_gone_or_a_file(world: Reconciler) -> None:
    for name in (b"a", b"b", b"c"):
        world.disk.symlink(name)
    world.run()
    assert world.skipped.keys() == {b"a", b"b", b"c"}
    world.disk.remove(b"a")
    world.disk.remove(b"b")
    world.disk.write(b"b", b"1")
    world.run()
    assert world.skipped.keys() == {b"c"}


def test_what_was_found_is_sent_before_anybody_else_has_a_turn(world: Reconciler) -> None:
    """What was refused is sent by itself; what was found before must not come late by that."""
    world.disk.symlink(b"a")
    world.disk.write(b"b", b"1")
    world.skipped.note(b"a", "is a symbolic link")
    world.skipped.note(b"b", "was refused")
    reconcile, mirror = world.begin()
    while b"a" not in world.server.values() and reconcile.step() is not None:
        mirror.flush()
        if b"b" in world.server.values():
            world.disk.replace(b"a", b"2")
            list(mirror.examine([b"a"]))  # as what has happened is followed
    while reconcile.step() is not None:
        mirror.flush()
    assert world.server.values() == {b"a": b"2", b"b": b"1"}
    assert b"DEL" not in world.server.log  # since it was a link when it was looked at


@pytest.mark.parametrize("is_heard", [False, True])
def test_a_rename_just_when_entries_are_made_sure_moves_the_value(
    world: Reconciler, is_heard: bool
) -> None:
    _, mirror = world.begin()
    world.disk.write(b"a", b"1")
    for _ in mirror.examine([b"a"]):
        pass
    world.disk.tick()
    world.disk.rename(b"a", b"b")
    assert mirror.confirm(now(), [b"b"] if is_heard else [])
    world.server.log.clear()
    for _ in mirror.follow(Plan({b"b": b"a"}, (b"a",))):
        pass
    assert b"RENAME" in world.server.log
    assert b"MSET" not in world.server.log
    assert world.server.values() == {b"b": b"1"}


@pytest.mark.parametrize("is_anothers", [False, True])
def test_what_begins_as_a_large_file_counts_unless_another_writer_has_closed_it(
    world: Reconciler, is_anothers: bool
) -> None:
    jobs: list[Job] = []
    news = AnothersNews(world.directory)
    mirror = world.mirror(news, jobs.append)
    world.disk.write(b"a", LARGE[:-1])
    world.disk.tick()
    for _ in mirror.follow(Plan({}, (b"a",), overdue=frozenset([b"a"]))):
        pass
    next(jobs[0])
    world.disk.write(b"a", LARGE)  # grown, or written anew by somebody else
    do_at_once(jobs[0])
    news.is_there = is_anothers
    held_back = [name for outcome in mirror.arrive() for name in outcome.held_back]
    assert held_back == ([b"a"] if is_anothers else [])
    assert world.server.values() == ({} if is_anothers else {b"a": LARGE[:-1]})


def bring(mirror: Mirror, jobs: list[Job]) -> list[Outcome]:
    """Have a large file come to its end, and take effect or not."""
    do_at_once(jobs.pop())
    return list(mirror.arrive())


def test_a_large_value_that_has_gone_before_it_took_effect_is_brought_again_soon(
    world: Reconciler,
) -> None:
    jobs: list[Job] = []
    world.disk.write(b"a", LARGE)
    world.disk.tick()
    mirror = world.mirror(NoNews(world.directory), jobs.append)
    list(mirror.examine([b"a"]))
    do_at_once(jobs.pop())
    world.server.remove(UPLOAD)
    (outcome,) = mirror.arrive()
    assert (outcome.done, [*outcome.resting]) == ([], [b"a"])
    assert outcome.resting[b"a"] < 1.0
    assert world.server.manifest() == world.server.values() == {}

    list(mirror.examine([b"a"]))
    (outcome,) = bring(mirror, jobs)
    assert [each[0] for each in outcome.done] == [b"a"]
    assert world.server.values() == {b"a": LARGE}


def test_a_large_value_does_not_expire_while_its_file_is_read_once_more(
    world: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "_RENEWED", 0.0)
    jobs: list[Job] = []
    world.disk.write(b"a", LARGE)  # in this very tick
    mirror = world.mirror(NoNews(world.directory), jobs.append)
    list(mirror.examine([b"a"]))
    world.server.log.clear()
    do_at_once(jobs.pop())
    pieces = len(LARGE) // PIECE
    assert world.server.log.count(b"PEXPIRE") == pieces


def moved_out_of_the_root(disk: Disk, *, is_replaced: bool) -> None:
    disk.move_out(b"d")
    if is_replaced:
        disk.bring(b"d", [(b"a", b"2")])


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_was_read_in_a_directory_that_had_left_the_root_is_not_sent(
    tree: Reconciler, is_replaced: bool
) -> None:
    tree.disk.bring(b"d", [(b"a", b"1")])
    tree.disk.write(b"b", b"3")
    tree.disk.tick()
    _, mirror = tree.begin()
    file = tree.disk.files()[b"d/a"]

    def leave(_idle: bool) -> None:
        """Have the directory leave when the file is open, and has not been read."""
        if any(each.inode is file for each in tree.disk.open.values()):
            tree.turns.others = lambda _idle: None
            moved_out_of_the_root(tree.disk, is_replaced=is_replaced)

    tree.turns.others = leave
    outcomes = list(mirror.examine([b"d/a", b"b"]))
    assert tree.disk.outside.entries  # it has left
    assert tree.server.values() == {b"b": b"3"}
    assert {name for outcome in outcomes for name in outcome.deferred} == {b"d/a"}


@pytest.mark.parametrize("happens", ["nothing", "leaves", "is replaced"])
def test_a_large_file_whose_directory_leaves_the_root_while_it_comes_does_not_count(
    tree: Reconciler, happens: str
) -> None:
    jobs: list[Job] = []
    tree.disk.bring(b"d", [(b"a", LARGE)])
    tree.disk.tick()
    mirror = tree.mirror(NoNews(tree.directory), jobs.append)
    list(mirror.examine([b"d/a"]))
    next(jobs[0])
    if happens != "nothing":
        moved_out_of_the_root(tree.disk, is_replaced=happens == "is replaced")
    (outcome,) = bring(mirror, jobs)
    stays = happens == "nothing"
    assert tree.server.values() == ({b"d/a": LARGE} if stays else {})
    assert [*outcome.deferred] == ([] if stays else [b"d/a"])
    assert UPLOAD not in tree.server.keys


def test_what_is_skipped_below_and_in_the_place_of_a_directory_that_is_gone_is_told_once() -> None:
    skipped = Skipped(NO_LOG)
    for name in (b"d", b"d/e", b"d/e/", b"d/f", b"other"):
        skipped.note(name, "is skipped")
    assert skipped.take_below([b"d/", b"d/e/"]) == [b"d", b"d/e", b"d/f"]
    assert [*skipped] == [b"other"]
