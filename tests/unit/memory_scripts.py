"""What tests in memory share: how scripts are drawn, and what has to be so when one is over."""

import os
from itertools import product

from hypothesis import strategies as st
from unit.memory import Disk
from unit.memory_redis import UPLOAD
from unit.memory_world import REST, Choice, Go, Operation, Step, World

EXAMPLES = int(os.environ.get("MDVP_TEST_EXAMPLES", "500")) // 4

# Small ones, large ones, and one that is too large for Redis.
CONTENTS: list[object] = [b"", b"2", b"44", b"666", b"88888", b"too large"]
BOOLEANS: list[object] = [True, False]
# From before the service does anything to after it has done everything.
ANYWHERE = [*map(Go, range(100)), Go()]


def operations(*choices: Choice) -> list[Operation]:
    return [(method, arguments) for method, lists in choices for arguments in product(*lists)]


def done(*operations: tuple[object, ...]) -> list[Step]:
    """Write operations as their names with their arguments."""
    methods = {**vars(Disk), **vars(World)}
    return [(methods[str(name)], tuple(arguments)) for name, *arguments in operations]


def steps(groups: list[list[Choice]]) -> st.SearchStrategy[Step]:
    operation: list[st.SearchStrategy[Step]] = [
        st.sampled_from(operations(*group)) for group in groups
    ]
    some = st.sampled_from([Go(steps) for steps in (1, 2, 3, 5, 8, 13, 21, 34)])
    go: list[st.SearchStrategy[Step]] = [some, some, some, some, st.just(Go()), st.just(Go())]
    # A turn of the service for every three operations.
    return st.one_of(*operation, *go)


def scripts(groups: list[list[Choice]], begins: list[list[Step]]) -> st.SearchStrategy[list[Step]]:
    """Draw scripts of operations, which begin with nothing or with one of some beginnings."""
    # A list of lists has some 25 steps on average, and yet shrinks to none; a list would have 5.
    parts = st.lists(st.lists(steps(groups), max_size=10), max_size=10)
    return st.tuples(st.sampled_from([[], *begins]), parts).map(
        lambda drawn: [step for each in (drawn[0], *drawn[1]) for step in each]
    )


def swarm(groups: list[list[Choice]], begins: list[list[Step]]) -> st.SearchStrategy[list[Step]]:
    """Draw scripts of few kinds of operations each, so that those of one kind meet more often."""
    numbers = st.lists(st.sampled_from(range(len(groups))), min_size=1, max_size=6, unique=True)
    return numbers.flatmap(lambda some: scripts([groups[each] for each in some], begins))


def has(script: list[Step], operation: object) -> bool:
    return any(step[0] is operation for step in script if not isinstance(step, Go))


def check(
    script: list[Step], rescan: float = 0, rest: float = REST, *, is_tree: bool = False
) -> None:
    world = World(rescan, rest=rest, is_tree=is_tree)
    world.play(script)
    check_end(world)


def check_end(world: World) -> None:
    assert world.torn == []
    assert world.robbed == []
    assert world.restless == []
    assert world.server.values() == world.expected()
    world.check_records()
    assert UPLOAD not in world.server.keys
    files = world.disk.files()
    unsure = world.server.manifest().keys() - world.sure()
    assert {name for name in unsure if not files[name].is_touched} == set()

    world.server.given.clear()
    world.rest = REST
    world.play([])
    assert {name for name, _ in world.server.given} <= unsure
    assert world.server.values() == world.expected()
    world.check_records()
    world.check_marks()
