"""The service between a disk and a Redis in memory, under any sequence of operations at any lag.

What runs is the service's own session with all that it is made of, on the system calls, the Redis
and the clock of `unit.memory`. A script says what others do, and for how many steps the service
goes on before they do more.
"""

from errno import EIO, ESTALE

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import IS_CHECK
from unit.memory import Disk
from unit.memory_redis import EPOCH, MANIFEST, UPLOAD
from unit.memory_redis import NAMES as RECORD
from unit.memory_scripts import (
    ANYWHERE,
    BOOLEANS,
    CONTENTS,
    EXAMPLES,
    check,
    check_end,
    done,
    has,
    scripts,
)
from unit.memory_world import FOREIGN, KILL, Choice, Go, Step, World

pytestmark = pytest.mark.timeout(900)  # with many examples
RARELY = 1000.0  # seconds; in a test there is no rescan but one that the service wants sooner
OFTEN = 10.0  # seconds; and here one after the other
REST_LONG = 60.0  # seconds; what is tried again seldom was tried by then, and all was looked at


NAMES: list[object] = [b"a", b"b", b"c", b"x~"]  # few, so that operations meet
GROUPS: list[list[Choice]] = [
    [(Disk.tick, []), (World.stall, [[1.0, 61.0, 600.0]]), (World.pace, [[1, 3, 30]])],
    [(Disk.write, [NAMES, CONTENTS]), (Disk.begin, [NAMES, CONTENTS])],
    [(Disk.rewrite, [NAMES, BOOLEANS])],
    [(Disk.rewrite, [NAMES, BOOLEANS])],
    [(Disk.write_back, [NAMES, CONTENTS])],
    [(Disk.more, [CONTENTS]), (Disk.close_all, [])],
    [(Disk.truncate, [NAMES]), (Disk.finish, [NAMES, CONTENTS])],
    [(Disk.lock, [NAMES, CONTENTS]), (Disk.lock_and_write, [NAMES, CONTENTS])],
    [(Disk.unlock_all, [])],
    [(Disk.link, [NAMES, NAMES])],
    [(Disk.symlink, [NAMES]), (Disk.remove, [NAMES])],
    [(Disk.rename, [NAMES, NAMES])],
    [(Disk.rename_in_halves, [NAMES, NAMES])],
    [(Disk.exchange, [NAMES, NAMES]), (Disk.swap, [NAMES, NAMES, NAMES])],
    [(Disk.replace, [NAMES, CONTENTS])],
    [(Disk.move_out, [NAMES]), (Disk.move_in, [NAMES])],
    [(World.kill, [])],
    [(Disk.overflow, []), (World.lose_connection, []), (World.flush, [])],
    [(World.lag, [[1, 2, 99]]), (Disk.break_leases, [])],
]
# What only a rescan finds, and what is tried again seldom.
FAULTS: list[list[Choice]] = [
    [(Disk.break_, [NAMES, [EIO, ESTALE]]), (Disk.mend, [])],
    [(Disk.link_elsewhere, [NAMES]), (Disk.unlink_elsewhere, [NAMES])],
    [(Disk.write_elsewhere, [NAMES, CONTENTS])],
    [(World.delete_key, [NAMES]), (World.append_to_key, [NAMES])],
    [(World.delete_own, [[MANIFEST, RECORD, EPOCH, UPLOAD]])],
    [(World.refuse, [NAMES]), (World.allow, [])],
    [(World.limit_memory, [[15, 17, 20, None]])],
]
# Two files that Redis holds, one of them from the same tick of the clock as what comes next.
MIRRORED: list[Step] = [(Disk.write, (b"b", b"44")), Go(), (Disk.write, (b"a", b"2")), Go()]


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(scripts(GROUPS, [MIRRORED]))
# Written to in the tick in which it was read, by a writer that keeps it open; when the service has
# had the time to confirm what it read, it is killed, before it looks again.
@example(
    [
        (Disk.write, (b"a", b"2")),
        *[Go()] * 6,
        (Disk.rewrite, (b"a", True)),
        Go(),
        (Disk.rewrite, (b"a", False)),
        *[Go()] * 4,
        (World.kill, ()),
    ]
)
# A large file that one writer keeps open is on its way when another writes it anew, and closes it.
@example(
    [
        *MIRRORED,
        (Disk.write, (b"b", b"666")),
        (Disk.rewrite, (b"b", False)),
        Go(21),
        (Disk.write, (b"b", b"88888")),
    ]
)
# The first half of a large file has come when it is written anew in the same tick.
@example([Go(), (Disk.write, (b"a", b"666")), Go(34), (Disk.rewrite, (b"a", True))])
# Nobody writes to a name that is new and waits for a close that does not come; then somebody does.
@example(
    [*MIRRORED, (Disk.link, (b"b", b"c")), Go(), (World.stall, (1.0,)), (Disk.truncate, (b"c",))]
)
@example(
    [
        *[Go(), (Disk.write, (b"b", b"too large")), (Disk.link, (b"b", b"a")), Go(), Go()],
        (Disk.begin, (b"a", b"")),
    ]
)
# A late look at both halves of an exchange of files that are told apart by their inodes alone.
@example(
    [
        (Disk.write, (b"a", b"2")),
        (Disk.write, (b"b", b"3")),
        Go(),
        (World.lag, (1,)),
        (Disk.exchange, (b"a", b"b")),
    ]
)
# An exchange reports a rename over a file that is not gone. Redis holds nothing of the link.
@example(
    [
        (Disk.write, (b"a", b"2")),
        (Disk.symlink, (b"b",)),
        Go(),
        (Disk.write, (b"a", b"3")),
        (Disk.exchange, (b"b", b"a")),
    ]
)
# Written anew within one tick of the clock, and renamed before that is looked at.
@example(
    [
        (Disk.write, (b"a", b"2")),
        Go(),
        (Disk.rewrite, (b"a", False)),
        (Disk.rename, (b"a", b"b")),
    ]
)
# The file has its old name again, and other content with the same signature, when the first rename
# is looked at.
@example(
    [
        (Disk.write, (b"a", b"2")),
        Go(),
        (World.lag, (1,)),
        (Disk.rename, (b"a", b"b")),
        (Disk.rewrite, (b"b", True)),
        (Disk.rename, (b"b", b"a")),
    ]
)
def test_redis_ends_equal_to_the_disk_and_a_restart_has_nothing_to_do(script: list[Step]) -> None:
    # What was written through a name that was a file's for a moment only a look at all files finds.
    check(script, RARELY if has(script, Disk.link) else 0)


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(scripts(GROUPS + FAULTS, [MIRRORED]), st.booleans())
# A rescan holds back what may be being written to; half a second later another writer is.
@example(script=[*MIRRORED, Go(), (Disk.begin, (b"b", b""))], has_leases=False)
# What is to be deleted is refused, by a server that has no memory either.
@example(
    script=[
        *[*MIRRORED, (Disk.write, (b"a", b"")), (Disk.write, (b"b", b"too large"))],
        *[(World.refuse, (b"b",)), (World.limit_memory, (15,)), Go()],
    ],
    has_leases=True,
)
def test_redis_ends_equal_though_redis_and_the_disk_fail_meanwhile(
    script: list[Step], has_leases: bool
) -> None:
    world = World(OFTEN, has_leases=has_leases, rest=REST_LONG)
    world.play(script)
    if has(script, World.lag) and not has_leases:
        world.torn.clear()
    check_end(world)


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(scripts(GROUPS, [MIRRORED]), st.booleans())
def test_a_reader_sees_whole_values(script: list[Step], has_leases: bool) -> None:
    world = World(has_leases=has_leases or has(script, World.lag))
    world.play(script)
    assert world.torn == []


@pytest.mark.parametrize(
    ("old", "new"), [(b"44", b"55"), (b"6666", b"7777"), (b"88888", b"999"), (b"999", b"88888")]
)
def test_a_value_is_never_torn_by_a_write_wherever_the_service_is_in_its_work(
    old: bytes, new: bytes
) -> None:
    for steps in ANYWHERE:
        world = World()
        world.play([(Disk.write, (b"a", old)), steps, (Disk.tick, ()), (Disk.write, (b"a", new))])
        assert set(world.server.given) <= {(b"a", old), (b"a", new)}
        assert world.server.values() == {b"a": new, **FOREIGN}


SMALL_FILE = done(("write", b"a", b"2"))
LARGE_FILE = done(("write", b"a", b"88888"))
THREE_FILES = done(*(("write", name, b"2") for name in (b"a", b"b", b"c")))
THREE_NAMES = [*THREE_FILES[:1], *done(("link", b"a", b"b"), ("link", b"a", b"c"))]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # In the tick in which it was read; then its event is lost.
        (SMALL_FILE, done(("rewrite", b"a", True), ("kill",))),
        (LARGE_FILE, done(("rewrite", b"a", True), ("kill",))),
        (SMALL_FILE, [*done(("rewrite", b"a", True), ("overflow",)), Go()]),
        (SMALL_FILE, done(("overflow",), ("rewrite", b"a", True), ("tick",))),
        # While it was renamed. The scan of the directory has passed its new name, or not.
        ([*THREE_FILES, Go(), KILL, *done(("write", b"c", b"44"))], done(("rename", b"c", b"a"))),
        ([*THREE_FILES, Go(), KILL, *done(("write", b"a", b"44"))], done(("rename", b"a", b"c"))),
        ([*THREE_FILES, Go(), KILL], done(("rename_in_halves", b"c", b"a"))),
        ([*THREE_FILES, Go()], done(("swap", b"a", b"b", b"d"), ("rename", b"a", b"c"))),
        ([*THREE_FILES, Go(), *done(("rename", b"a", b"d"))], done(("rename", b"d", b"a"))),
        ([*THREE_FILES, Go(), *done(("exchange", b"a", b"b"))], done(("exchange", b"a", b"b"))),
        # While a large file is on its way, something else happens to it, or to another.
        (LARGE_FILE, done(("replace", b"a", b"2"))),
        (LARGE_FILE, done(("remove", b"a"))),
        (LARGE_FILE, done(("rename", b"a", b"b"))),
        (LARGE_FILE, done(("tick",), ("write", b"a", b"666"))),
        (LARGE_FILE, done(("tick",), ("write", b"a", b"too large"))),
        (LARGE_FILE, done(("write", b"b", b"77777"))),
        ([*THREE_FILES, *done(("write", b"d", b"666"))], done(("write", b"c", b"44"))),
        # Its writer locks it, and is at work for some time.
        (SMALL_FILE, [*done(("lock", b"a", b"33")), Go(30), *done(("rename", b"a", b"b")), Go(30)]),
        (LARGE_FILE, [*done(("lock", b"a", b"99999")), *[Go()] * 3]),
        (SMALL_FILE, [*done(("lock_and_write", b"a", b"33")), *[Go()] * 5]),
        (LARGE_FILE, [*done(("lock_and_write", b"a", b"99999")), *[Go()] * 5]),
        (LARGE_FILE, [*done(("lock", b"a", b"99999")), Go(20), *done(("unlock_all",))]),
        # What has several names is written to through one of them, which goes.
        (THREE_NAMES, done(("write", b"b", b"44"))),
        ([*THREE_NAMES, Go()], done(("write", b"b", b"44"), ("remove", b"b"))),
        ([*THREE_NAMES, Go()], done(("write", b"b", b"44"), ("replace", b"b", b"2"))),
        (
            [*THREE_NAMES, *done(("write", b"d", b"666")), Go()],
            done(("write", b"b", b"44"), ("rename", b"d", b"b")),
        ),
        ([*THREE_NAMES, Go(), KILL], done(("write", b"b", b"44"), ("remove", b"b"))),
        (
            [*THREE_NAMES, Go(), *done(("rename", b"b", b"d")), Go()],
            done(("write", b"d", b"44"), ("remove", b"d")),
        ),
        (
            [*SMALL_FILE, *done(("link", b"a", b"x~")), Go(), KILL, Go()],
            done(("write", b"x~", b"44"), ("remove", b"x~")),
        ),
        # A name is no file's any more, or never was one.
        (SMALL_FILE, done(("remove", b"a"))),
        (SMALL_FILE, done(("symlink", b"foreign"))),
        # Something is lost.
        ([*THREE_FILES, Go()], [*done(("overflow",), ("remove", b"a")), Go()]),
        ([*THREE_FILES, Go(), KILL, *done(("remove", b"b"))], done(("write", b"b~", b"3"))),
        ([*THREE_FILES, Go(), KILL, *done(("remove", b"b"))], done(("remove", b"a"))),
        (THREE_FILES, done(("remove", b"a"), ("kill",))),
        # Killed when it has taken up some of the events, and has confirmed what it could.
        (
            [
                *[*SMALL_FILE, Go(), *done(("lag", 1))],
                *done(("write", b"b", b"3"), ("write", b"c", b"4"), ("write", b"d", b"5")),
                *done(("rewrite", b"a", True), ("stall",)),
            ],
            done(("kill",)),
        ),
        (THREE_FILES, done(("lose_connection",))),
        (LARGE_FILE, done(("flush",))),
        (LARGE_FILE, done(("delete_own", UPLOAD))),
        (LARGE_FILE, done(("kill",))),
        ([*THREE_FILES, Go()], done(("flush",), ("rename", b"a", b"d"))),
        ([*THREE_FILES, Go()], done(("delete_key", b"a"), ("rename", b"a", b"d"))),
    ],
)
def test_redis_ends_equal_wherever_the_service_is_when_something_happens(
    before: list[Step], after: list[Step]
) -> None:
    for steps in ANYWHERE:
        check([*before, steps, *after])


def test_what_was_written_through_a_name_of_a_moment_is_found() -> None:
    moment = done(("link", b"a", b"b"), ("write", b"b", b"44"), ("remove", b"b"))
    for steps in ANYWHERE:
        check([*SMALL_FILE, steps, *moment], rescan=RARELY)


@pytest.mark.parametrize("seconds", [61.0, 600.0])
@pytest.mark.parametrize("then", [[], [("write", b"b", b"3")]])
def test_redis_ends_equal_wherever_the_service_is_frozen(
    seconds: float, then: list[tuple[object, ...]]
) -> None:
    for steps in ANYWHERE:
        check([*LARGE_FILE, steps, *done(("stall", seconds), *then)])


@pytest.mark.parametrize("large", [b"88888", b"44"])
def test_what_redis_has_no_memory_for_is_that_name_s_alone(large: bytes) -> None:
    for steps in ANYWHERE:
        limit = len(FOREIGN[b"foreign"]) + 1
        files = done(("limit_memory", limit), ("write", b"a", large), ("write", b"b", b"2"))
        follows = [*[Go()] * 10, *done(("expect", b"b", b"2"), ("expect", b"a", None))]
        check([steps, *files, *follows], rest=REST_LONG)


@pytest.mark.parametrize("content", [b"88888", b"44"])
def test_a_key_that_redis_refuses_is_that_name_s_alone(content: bytes) -> None:
    for steps in ANYWHERE:
        files = done(("refuse", b"a"), ("write", b"a", content), ("write", b"b", b"2"))
        follows = [*[Go()] * 10, *done(("expect", b"b", b"2"), ("expect", b"a", None))]
        check([steps, *files, *follows], rest=REST_LONG)


@pytest.mark.parametrize("has_leases", BOOLEANS)
@pytest.mark.parametrize("between", [0, 1, 2, 5, 13, 34])
@pytest.mark.parametrize("content", [b"55", b"77777"])
def test_a_reader_sees_no_file_that_the_next_writer_has_truncated(
    has_leases: bool, between: int, content: bytes
) -> None:
    first, second = done(("write", b"a", content), ("truncate", b"a"))
    for steps in ANYWHERE:
        world = World(has_leases=has_leases)
        last = done(("finish", b"a", b"666"))
        world.play([*SMALL_FILE, Go(), first, steps, second, Go(between), *last])
        assert world.torn == []
        check_end(world)


@pytest.mark.parametrize("error", [EIO, ESTALE])
@pytest.mark.parametrize("file", [SMALL_FILE, LARGE_FILE])
def test_a_file_that_cannot_be_read_keeps_its_key_and_is_read_later(
    error: int, file: list[Step]
) -> None:
    breaks = done(("tick",), ("write", b"a", b"44"), ("break_", b"a", error))
    for steps in ANYWHERE:
        check([*file, steps, *breaks, *[Go()] * 5], rest=REST_LONG)
        check([*file, Go(), KILL, *breaks, steps], rest=REST_LONG)


@pytest.mark.parametrize("record", [MANIFEST, RECORD])
def test_the_key_of_a_file_that_went_is_known_though_one_record_of_it_is_lost(
    record: bytes,
) -> None:
    lost = [(World.lose_record, (record,)), *done(("remove", b"b"))]
    for steps in ANYWHERE:
        check([*THREE_FILES, Go(), KILL, *lost, steps])
        check([*THREE_FILES, steps, *lost], rescan=OFTEN, rest=REST_LONG)
