"""The service against any sequence of operations on a real directory or tree, with a real Redis.

What must be is seen by looking: after each burst of operations the directory itself is the model.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from integration.drift import Sides
from integration.shape import FLAT, SHAPES, TREE, Shape
from integration.workload import SIZES, Operation, Workload, weights
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

EXAMPLES = int(os.environ.get("MDVP_DRIFT_EXAMPLES", "35"))
SHARES = {FLAT: 1.0, TREE: 0.6}  # of the examples
IS_CHECK = "MDVP_DRIFT_EXAMPLES" not in os.environ
DEADLINE = 5.0  # seconds
# What needs more to be there than there often is; one takes what another leaves.
RARE = [
    *(Operation(kind, b"a", b"a") for kind in ("move_down", "move_up", "lock", "unlock")),
    *(Operation(kind, b"b") for kind in ("keep_open", "write_on", "close_one")),
]
RARE_IN_TREE = [
    *(Operation(kind, b"new") for kind in ("make_directories", "remove_empty_directory")),
    Operation("rename_chain", b"d/a", b"e/a", b"c"),
    Operation("turn_inside_out", b"d/e/a"),
    Operation("exchange", b"d/a", b"c"),
]


def bursts(shape: Shape) -> st.SearchStrategy[list[Operation]]:
    """Return what draws operations."""
    few = list(shape.few)
    # Most operations meet on a few names.
    names = (
        st.sampled_from(few * 2)
        | st.sampled_from(few)
        | st.sampled_from(list(dict.fromkeys(shape.names)))
    )
    operations = st.builds(
        Operation,
        kind=st.sampled_from(list(weights(shape))),
        name=names,
        other=names,
        third=names,
        size=st.sampled_from(list(dict.fromkeys(SIZES))),
    )
    return st.lists(operations, min_size=5, max_size=40)


class Drift(RuleBasedStateMachine):
    """Bursts of random operations, after each of which Redis must become equal."""

    def __init__(self, service: Service, sides: Sides, workload: Workload) -> None:
        super().__init__()
        self.service = service
        self.sides = sides
        self.workload = workload
        sides.put_foreign_keys()

    @initialize()
    def begin(self) -> None:
        few = self.sides.shape.few
        for name in few:
            self.workload.do(Operation("write", name, size=100))
        for operation in RARE + RARE_IN_TREE * self.sides.shape.is_deep:
            self.workload.do(operation)

    @rule(data=st.data())
    def is_followed(self, data: st.DataObject) -> None:
        burst = data.draw(bursts(self.sides.shape))
        for operation in burst:
            self.workload.do(operation)
        assert self.sides.torn(self.workload) == []
        self.becomes_equal()

    @rule(data=st.data())
    def is_followed_in_one_batch(self, data: st.DataObject) -> None:
        burst = data.draw(bursts(self.sides.shape))
        with self.service.paused():
            for operation in burst:
                self.workload.do(operation)
            self.workload.finish_locked()
        self.becomes_equal()

    def becomes_equal(self) -> None:
        self.workload.finish_locked()
        self.sides.become_equal(DEADLINE)
        self.workload.links.are_known()

    def teardown(self) -> None:
        """The next case begins with nothing."""
        self.workload.clear()
        self.sides.client.delete(*self.sides.foreign)
        self.sides.foreign = {}
        eventually(self.sides.differences, {})


@pytest.mark.timeout(900)  # a failure is made as short as can be before it is shown
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_redis_is_equal_after_any_burst_of_operations(
    redis_server: RedisServer, root: Path, outside: Path, start: Start, shape: Shape
) -> None:
    workload = Workload(root, outside, shape)
    service = start(in_step=True, SYNC_RESCAN="0", **shape.environ)
    sides = Sides(root, redis_server.client, shape)
    run_state_machine_as_test(
        lambda: Drift(service, sides, workload),  # type: ignore[arg-type]
        settings=settings(
            max_examples=round(EXAMPLES * SHARES[shape]),
            stateful_step_count=6,
            deadline=None,
            database=None,
            derandomize=IS_CHECK,  # for what was done not to be chance
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert service.process.poll() is None
    assert not service.says("Traceback")
    # All that can happen did.
    assert [kind for kind in weights(shape) if not workload.done[kind]] == []
