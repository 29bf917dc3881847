"""The service between a tree of directories and a Redis in memory, as in `test_sync_model`."""

from errno import EIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import IS_CHECK
from unit.memory import Disk
from unit.memory_redis import EPOCH, MANIFEST
from unit.memory_redis import NAMES as RECORD
from unit.memory_scripts import ANYWHERE, BOOLEANS, EXAMPLES, check, check_end, done, has, swarm
from unit.memory_world import KILL, Choice, Go, Step, World

pytestmark = pytest.mark.timeout(900)  # with many examples

RARELY = 1000.0  # seconds; in a test there is no rescan but one that the service wants sooner
OFTEN = 10.0  # seconds; and here one after the other
REST_LONG = 60.0  # seconds; what is tried again seldom was tried by then, and all was looked at

# Few, so that operations meet; where there is a directory in one script, there is a file in others.
DIRECTORIES: list[object] = [b"d", b"e", b"d/e", b"e/d", b"d/e/d"]
FILES: list[object] = [b"a", b"d/a", b"d/b", b"e/a", b"d/e/a", b"e/d/a", b"d/e/d/a"]
BOTH: list[object] = [*DIRECTORIES[:4], b"d~", b"a", b"d/a", b"d/x~"]
CONTENTS: list[object] = [b"", b"2", b"44", b"666", b"too large"]
FULL: list[object] = [
    ((b"a", b"2"), (b"b", b"44")),
    ((b"a", b"666"), (b"e/a", b"3"), (b"e/d/a", b"4")),
]
GROUPS: list[list[Choice]] = [
    [(Disk.tick, []), (World.stall, [[1.0, 61.0]]), (World.pace, [[1, 3, 30]])],
    [(Disk.write, [FILES, CONTENTS]), (Disk.begin, [FILES, CONTENTS])],
    [(Disk.rewrite, [FILES, BOOLEANS])],
    [(Disk.write_back, [FILES, CONTENTS]), (Disk.truncate, [FILES])],
    [(Disk.more, [CONTENTS]), (Disk.close_all, []), (Disk.finish, [FILES, CONTENTS])],
    [(Disk.lock, [FILES, CONTENTS]), (Disk.unlock_all, [])],
    [(Disk.link, [FILES, FILES])],
    [(Disk.symlink, [BOTH]), (Disk.remove, [FILES])],
    [(Disk.mkdir, [DIRECTORIES])],
    [(Disk.mkdir, [DIRECTORIES])],
    [(Disk.bring, [DIRECTORIES, FULL])],
    [(Disk.rmdir, [DIRECTORIES]), (Disk.remove_one, [DIRECTORIES])],
    [(Disk.rename, [FILES, FILES])],
    [(Disk.rename, [DIRECTORIES, DIRECTORIES])],
    [(Disk.rename, [DIRECTORIES, DIRECTORIES])],
    [(Disk.rename_in_halves, [BOTH, BOTH])],
    [(Disk.exchange, [DIRECTORIES, DIRECTORIES])],
    [(Disk.exchange, [BOTH, BOTH]), (Disk.swap, [DIRECTORIES, DIRECTORIES, DIRECTORIES])],
    [(Disk.move_out, [DIRECTORIES]), (Disk.move_in, [DIRECTORIES])],
    [(Disk.move_out, [BOTH]), (Disk.move_in, [BOTH])],
    [(World.kill, [])],
    [(Disk.overflow, []), (World.lose_connection, []), (World.flush, [])],
    [(World.lag, [[1, 2, 99]])],
]
RECORDS: list[bytes] = [b"", b"/d/", b"/e/", b"/d/e/"]
# What only a rescan finds, and what is tried again seldom.
FAULTS: list[list[Choice]] = [
    [(Disk.break_, [BOTH, [EIO]]), (Disk.deny, [DIRECTORIES]), (Disk.mend, [])],
    [(Disk.limit_watches, [[0, 1, 2, None]])],
    [(World.delete_key, [FILES]), (World.append_to_key, [FILES])],
    [
        (
            World.delete_own,
            [[EPOCH, *(kind + each for kind in (MANIFEST, RECORD) for each in RECORDS)]],
        )
    ],
    [(World.refuse, [FILES]), (World.allow, [])],
    [(World.limit_memory, [[15, 17, 20, None]])],
]
# Directories whose files Redis holds: one beside one that is empty, and some with the same names.
ONE: list[Step] = [
    *done(("bring", b"d", FULL[1]), ("write", b"a", b"2"), ("mkdir", b"e")),
    *[Go(), *done(("tick",)), Go()],
]
SOME: list[Step] = [
    *done(("bring", b"d", FULL[1]), ("bring", b"e", FULL[0]), ("bring", b"e/d", FULL[0])),
    *[Go(), *done(("tick",)), Go()],
]


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(swarm(GROUPS, [ONE, SOME]))
def test_redis_ends_equal_to_a_tree_and_a_restart_has_nothing_to_do(script: list[Step]) -> None:
    check(script, RARELY if has(script, Disk.link) else 0, is_tree=True)


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(swarm(GROUPS + FAULTS, [ONE, SOME]), st.booleans())
def test_redis_ends_equal_to_a_tree_though_redis_and_the_disk_fail_meanwhile(
    script: list[Step], has_leases: bool
) -> None:
    world = World(OFTEN, has_leases=has_leases, rest=REST_LONG, is_tree=True)
    world.play(script)
    if not has_leases:
        world.torn.clear()
    check_end(world)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A directory moves: alone, over an empty one, in parts, and in turns with others.
        (ONE, done(("rename", b"d", b"e/d"))),
        (ONE, done(("rename", b"d", b"e"))),
        (ONE, done(("rename_in_halves", b"d", b"f"))),
        ([*ONE, *done(("rename", b"d", b"f"))], done(("rename", b"f", b"e/d"))),
        ([*ONE, *done(("rename", b"d/e", b"f"))], done(("rename", b"d", b"f/d"))),
        (SOME, done(("exchange", b"d", b"e"))),
        ([*SOME, *done(("exchange", b"e/d", b"d"))], done(("exchange", b"d", b"e"))),
        ([*SOME, *done(("swap", b"d", b"e", b"f"))], done(("rename", b"e/d", b"d/d"))),
        # Meanwhile files in it are written, or others take its place.
        ([*ONE, *done(("rewrite", b"d/a", True))], done(("rename", b"d", b"f"))),
        (
            # In the tick in which it was read, and the event finds the directory nowhere.
            done(("bring", b"d", FULL[0])),
            done(("rename", b"d", b"f"), ("rewrite", b"f/a", True), ("rename", b"f", b"g")),
        ),
        # It is away for a moment, in which a file in it is looked for.
        (
            [*ONE, *done(("rewrite", b"d/a", True)), Go(1), *done(("rename", b"d", b"f"))],
            done(("rename", b"f", b"d")),
        ),
        ([*ONE, *done(("rename", b"d", b"f"))], done(("write", b"f/a", b"44"))),
        ([*ONE, *done(("rename", b"d", b"f"))], done(("rename", b"f/a", b"f/e/a"))),
        ([*ONE, *done(("rename", b"d", b"f"), ("mkdir", b"d"))], done(("write", b"d/a", b"44"))),
        # It leaves, and comes back; a link is there instead; it is deleted from within.
        ([*ONE, *done(("move_out", b"d"))], done(("move_in", b"f"))),
        (ONE, done(("move_out", b"d"), ("symlink", b"d"))),
        ([*ONE, *done(*[("remove_one", b"d")] * 3)], done(*[("remove_one", b"d")] * 4)),
        # It is new, with what is in it.
        ([*ONE, *done(("bring", b"e/d", FULL[1]))], done(("write", b"e/d/a", b"44"))),
        ([*ONE, *done(("mkdir", b"f"), ("mkdir", b"f/d"))], done(("write", b"f/d/a", b"44"))),
        (ONE, done(("mkdir", b"f"), ("link", b"d/a", b"f/a"), ("write", b"f/a", b"44"))),
        # Something is lost.
        ([*ONE, *done(("rename", b"d", b"f"))], [KILL, *done(("rename", b"f", b"e/f"))]),
        ([*ONE, *done(("rename", b"d", b"f"))], done(("overflow",), ("rename", b"f", b"d"))),
        ([*ONE, *done(("rename", b"d", b"f"))], done(("flush",))),
    ],
)
def test_redis_ends_equal_to_a_tree_wherever_the_service_is_when_something_happens(
    before: list[Step], after: list[Step]
) -> None:
    for steps in ANYWHERE:
        check([*before, steps, *after], is_tree=True)


@pytest.mark.parametrize(
    ("fault", "then"),
    [
        (done(("limit_watches", 0)), done(("limit_watches", None))),
        (done(("deny", b"d")), done(("mend",))),
        (done(("break_", b"d", EIO)), done(("mend",))),
    ],
)
def test_what_happens_in_a_directory_that_cannot_be_looked_into_is_found_later(
    fault: list[Step], then: list[Step]
) -> None:
    happens = done(("bring", b"f", FULL[1]), ("write", b"d/a", b"44"), ("remove", b"d/e/a"))
    for steps in ANYWHERE[::2]:
        script = [*ONE, *fault, *happens, steps, *done(("rename", b"f", b"d/f")), *then]
        check(script, OFTEN, REST_LONG, is_tree=True)


@pytest.mark.parametrize(
    "script",
    [
        [
            *done(("bring", b"d", FULL[1]), ("mkdir", b"e"), ("begin", b"d/b", b"666")),
            *[
                Go(),
                Go(),
                *done(("rename", b"d", b"e/d"), ("mkdir", b"d"), ("begin", b"d/b", b"2")),
            ],
        ],
        [
            *[*SOME[:4], *done(("rewrite", b"e/d/a", False)), Go(2)],
            *done(("exchange", b"e", b"d/e"), ("rewrite", b"e/d/a", False)),
        ],
    ],
)
def test_a_writer_in_another_directory_of_the_same_place_is_waited_for(script: list[Step]) -> None:
    check(script, is_tree=True)
