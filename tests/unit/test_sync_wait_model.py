"""Whoever waits, between a disk and a Redis in memory: nobody is told too early, and all are told.

As in `test_sync_model`, but what counts is what Redis has when somebody is told that all is there.
"""

import pytest
from hypothesis import given, settings
from support import IS_CHECK
from unit.memory import Disk
from unit.memory_scripts import ANYWHERE, EXAMPLES, done, has, scripts, swarm
from unit.memory_world import Choice, Go, Step, World
from unit.test_sync_model import GROUPS as FLAT
from unit.test_sync_model import MIRRORED
from unit.test_sync_model_tree import GROUPS as DEEP
from unit.test_sync_model_tree import ONE, SOME

pytestmark = pytest.mark.timeout(900)  # with many examples

WAIT: Step = (World.wait, ())
OFTEN: list[list[Choice]] = [[(World.wait, [])]] * 3


def check(script: list[Step], *, is_tree: bool = False) -> None:
    world = World(is_tree=is_tree)
    world.play(script)
    assert world.early == []
    # Whatever has happened: who waits now is told soon.
    answered = world.answered
    world.play([Go(), WAIT, Go()])
    assert world.early == []
    assert world.answered > answered


def is_known(script: list[Step]) -> bool:
    """Say whether all is found without a look at everything: names of files that come and go."""
    return not (has(script, Disk.link) or has(script, World.flush))


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(scripts(FLAT + OFTEN, [MIRRORED]))
def test_nobody_is_told_too_early(script: list[Step]) -> None:
    check([step for step in script if is_known([step])])


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(swarm(DEEP + OFTEN, [ONE, SOME]))
def test_nobody_is_told_too_early_of_a_tree(script: list[Step]) -> None:
    check([step for step in script if is_known([step])], is_tree=True)


@pytest.mark.parametrize(
    "before",
    [
        done(("write", b"a", b"55")),
        done(("write", b"a", b"88888")),
        done(("write", b"a", b"88888"), ("begin", b"a", b"77777")),
        done(("write", b"a", b"3"), ("rename", b"a", b"c")),
        done(("replace", b"a", b"33")),
        done(("remove", b"b"), ("write", b"a", b"55"), ("overflow",), ("write", b"c", b"1")),
        done(("write", b"a", b"55"), ("lock", b"a", b"77")),
    ],
)
def test_nobody_is_told_too_early_wherever_the_service_is(before: list[Step]) -> None:
    for steps in ANYWHERE:
        check([*MIRRORED, *before[:-1], steps, *before[-1:], WAIT])
        check([*MIRRORED, *before, WAIT, steps, *done(("write", b"a", b"666"))])
        check([*MIRRORED, *before, steps, WAIT])


@pytest.mark.parametrize(
    "before",
    [
        done(("bring", b"f", ((b"a", b"2"), (b"e/a", b"3")))),
        done(("rename", b"d", b"f"), ("write", b"f/a", b"55")),
        done(("rename", b"d", b"e/d")),
        done(("move_out", b"d"), ("write", b"a", b"55")),
        done(("mkdir", b"e/d"), ("write", b"e/d/a", b"3")),
    ],
)
def test_nobody_is_told_too_early_of_a_directory(before: list[Step]) -> None:
    for steps in ANYWHERE:
        check([*ONE, *before[:-1], steps, *before[-1:], WAIT], is_tree=True)
        check([*ONE, *before, steps, WAIT], is_tree=True)


@pytest.mark.parametrize("content", [b"55", b"77777"])
def test_nobody_is_told_too_early_of_a_file_s_other_names(content: bytes) -> None:
    links = done(("link", b"a", b"c"))
    for steps in ANYWHERE:
        check([*MIRRORED, *links, steps, WAIT])
        check([*MIRRORED, *links, Go(), *done(("write", b"a", content)), steps, WAIT])
        check([*MIRRORED, *links, Go(), *done(("write", b"c", content)), WAIT, steps])
        check([*MIRRORED, *links, steps, *done(("write", b"a", content)), WAIT])
