"""The service against any sequence of operations on a real directory, with a real Redis.

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
from integration.workload import KINDS, NAMES, PLAIN, SIZES, Operation, Workload
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

EXAMPLES = int(os.environ.get("MDVP_DRIFT_EXAMPLES", "35"))
IS_CHECK = "MDVP_DRIFT_EXAMPLES" not in os.environ
DEADLINE = 5.0  # seconds
FOREIGN = {b"theirs": b"not a file's", b"theirs~": b"", b".theirs.swp": b"\xff\n"}

# Most operations meet on a few names.
FEW = PLAIN[:3]
names = (
    st.sampled_from(FEW * 2) | st.sampled_from(FEW) | st.sampled_from(list(dict.fromkeys(NAMES)))
)
operations = st.builds(
    Operation,
    kind=st.sampled_from(KINDS),
    name=names,
    other=names,
    third=names,
    size=st.sampled_from(list(dict.fromkeys(SIZES))),
)
bursts = st.lists(operations, min_size=5, max_size=40)


class Drift(RuleBasedStateMachine):
    """Bursts of random operations, after each of which Redis must become equal."""

    def __init__(self, service: Service, sides: Sides, workload: Workload) -> None:
        super().__init__()
        self.service = service
        self.sides = sides
        self.workload = workload
        sides.client.mset(FOREIGN)
        sides.foreign = FOREIGN

    @initialize()
    def begin(self) -> None:
        for name in FEW:
            self.workload.do(Operation("write", name, size=100))
        # These are rare, and one of them takes the other.
        self.workload.do(Operation("move_down", FEW[0], FEW[0]))
        self.workload.do(Operation("move_up", FEW[0]))

    @rule(burst=bursts)
    def is_followed(self, burst: list[Operation]) -> None:
        for operation in burst:
            self.workload.do(operation)
        assert self.sides.torn(self.workload) == []
        self.becomes_equal()

    @rule(burst=bursts)
    def is_followed_in_one_batch(self, burst: list[Operation]) -> None:
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
        self.sides.client.delete(*FOREIGN)
        self.sides.foreign = {}
        eventually(self.sides.differences, {})


@pytest.mark.timeout(900)  # a failure is made as short as can be before it is shown
def test_redis_is_equal_after_any_burst_of_operations(
    redis_server: RedisServer, root: Path, place: Path, start: Start
) -> None:
    outside = place / "outside"
    outside.mkdir()
    workload = Workload(root, outside)
    service = start(in_step=True, SYNC_RESCAN="0")
    run_state_machine_as_test(
        lambda: Drift(service, Sides(root, redis_server.client), workload),  # type: ignore[arg-type]
        settings=settings(
            max_examples=EXAMPLES,
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
    assert [kind for kind in KINDS if not workload.done[kind]] == []
