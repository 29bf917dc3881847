from collections.abc import Iterable

import pytest

from sync.changes import Change, Changed, Removed, Rename, Renamed, Signature, Unfinished
from sync.plan import Pending, Plan, Settled, names, plan, settle

A, B, C, T = b"a", b"b", b"c", b"t"
ONE, TWO, THREE = (Signature(inode, 3, 0) for inode in (1, 2, 3))

PATIENCE = 0.5


def pending_after(*changes: Change, at: float = 0.0) -> Pending:
    pending = Pending(PATIENCE)
    for change in changes:
        pending.add([change], at)
    return pending


def settled(
    changes: Iterable[Change],
    held: dict[bytes, Signature],
    on_disk: dict[bytes, Signature],
) -> Settled:
    """Plan and settle; a name that `held` or `on_disk` does not have is not there."""
    planned = plan(changes)
    involved = names(planned.renames)
    return settle(
        planned,
        {name: held.get(name) for name in involved},
        {name: on_disk.get(name) for name in involved},
    )


class TestPending:
    @pytest.mark.parametrize("change", [Changed(A), Removed(A), Renamed(A, B)])
    def test_a_change_is_taken_at_once_and_only_once(self, change: Change) -> None:
        pending = pending_after(change)
        assert pending.due is None
        assert pending.take(0.0) == [change]
        assert pending.take(9.0) == []

    def test_changes_are_taken_in_their_order(self) -> None:
        changes: list[Change] = [Changed(B), Renamed(B, A), Removed(C), Changed(B)]
        pending = Pending(PATIENCE)
        pending.add(changes, 0.0)
        assert pending.take(0.0) == changes

    def test_an_unfinished_file_waits_for_its_patience_and_is_then_taken_as_changed(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        assert pending.due == 10.0 + PATIENCE
        assert pending.take(10.0 + PATIENCE - 0.001) == []
        assert pending.take(10.0 + PATIENCE) == [Changed(A)]
        assert pending.due is None
        assert pending.take(99.0) == []

    def test_a_file_that_is_written_to_all_the_time_does_not_wait_any_longer(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.add([Unfinished(A)], 10.4)
        assert pending.due == 10.0 + PATIENCE

    def test_a_write_after_it_was_taken_waits_anew(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.take(11.0)
        pending.add([Unfinished(A)], 12.0)
        assert pending.due == 12.0 + PATIENCE
        assert pending.take(12.0 + PATIENCE) == [Changed(A)]

    def test_a_file_that_was_taken_is_not_taken_again_with_the_next_one(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.take(11.0)
        pending.add([Unfinished(B)], 12.0)
        assert pending.take(13.0) == [Changed(B)]

    def test_the_close_ends_the_wait(self) -> None:
        pending = pending_after(Unfinished(A), Changed(A))
        assert pending.due is None
        assert pending.take(9.0) == [Changed(A)]

    def test_the_removal_ends_the_wait(self) -> None:
        pending = pending_after(Unfinished(A), Removed(A))
        assert pending.due is None
        assert pending.take(9.0) == [Removed(A)]

    def test_the_rename_of_an_unfinished_file_ends_the_wait_and_takes_the_content_along(
        self,
    ) -> None:
        pending = pending_after(Unfinished(A), Renamed(A, B))
        assert pending.due is None
        taken = pending.take(0.0)
        assert taken == [Changed(A), Renamed(A, B)]
        assert plan(taken) == Plan(renames=(), examine=(A, B))

    def test_a_rename_over_an_unfinished_file_ends_its_wait(self) -> None:
        pending = pending_after(Unfinished(B), Renamed(A, B))
        assert pending.due is None
        assert pending.take(9.0) == [Renamed(A, B)]

    def test_the_close_of_one_file_does_not_end_the_wait_of_another(self) -> None:
        pending = pending_after(Unfinished(A), Unfinished(B), Changed(A))
        assert pending.due == PATIENCE
        assert pending.take(0.0) == [Changed(A)]
        assert pending.take(PATIENCE) == [Changed(B)]


class TestPlan:
    def test_nothing_happened_so_nothing_is_planned(self) -> None:
        assert plan([]) == Plan(renames=(), examine=())

    def test_changes_of_one_name_coalesce(self) -> None:
        coalesced = plan([Changed(A), Changed(B), Removed(A), Changed(A)])
        assert coalesced == Plan(renames=(), examine=(A, B))

    def test_a_file_created_and_deleted_is_looked_at_once(self) -> None:
        assert plan([Changed(A), Removed(A)]) == Plan((), (A,))

    def test_a_rename_is_planned_as_one(self) -> None:
        assert plan([Renamed(A, B)]) == Plan((Renamed(A, B),), ())

    def test_a_pending_write_moves_with_the_file(self) -> None:
        assert plan([Changed(A), Renamed(A, B)]) == Plan((), (A, B))

    def test_a_pending_write_moves_along_a_chain(self) -> None:
        assert plan([Changed(A), Renamed(A, B), Renamed(B, C)]) == Plan((), (A, B, C))

    def test_a_write_after_the_rename_is_looked_at_under_the_new_name(self) -> None:
        assert plan([Renamed(A, B), Changed(B)]) == Plan((Renamed(A, B),), (B,))

    def test_what_was_pending_under_a_name_is_gone_when_another_file_takes_it(self) -> None:
        assert plan([Changed(B), Renamed(A, B)]) == Plan((Renamed(A, B),), ())


class TestSettle:
    def test_a_chain_of_renames_is_done_in_its_order_and_nothing_is_read(self) -> None:
        assert settled([Renamed(A, B), Renamed(B, C)], {A: ONE}, {C: ONE}) == Settled(
            (Rename(A, B, ONE), Rename(B, C, ONE)), ()
        )

    def test_a_swap_by_way_of_a_third_name_is_three_renames_and_nothing_is_read(self) -> None:
        swap = [Renamed(A, T), Renamed(B, A), Renamed(T, B)]
        assert settled(swap, {A: ONE, B: TWO}, {A: TWO, B: ONE}) == Settled(
            (Rename(A, T, ONE), Rename(B, A, TWO), Rename(T, B, ONE)), ()
        )

    def test_an_exchange_cannot_be_done_by_renames_so_both_are_read(self) -> None:
        # renameat2(RENAME_EXCHANGE): the kernel reports two renames, the first over the second.
        done = settled([Renamed(A, B), Renamed(B, A)], {A: ONE, B: TWO}, {A: TWO, B: ONE})
        assert set(done.examine) == {A, B}

    def test_an_exchange_with_what_redis_does_not_hold_moves_no_value_that_may_be_outdated(
        self,
    ) -> None:
        # The second rename follows the file that the first one seems to have replaced.
        exchange: list[Change] = [Changed(A), Renamed(B, A), Renamed(A, B)]
        done = settled(exchange, {A: ONE}, {B: ONE})
        assert done.renames == ()
        assert set(done.examine) == {A, B}

    def test_a_rename_over_another_file_replaces_its_value(self) -> None:
        assert settled([Renamed(A, B)], {A: ONE, B: TWO}, {B: ONE}) == Settled(
            (Rename(A, B, ONE),), ()
        )

    def test_a_file_that_redis_does_not_hold_is_read_instead(self) -> None:
        assert settled([Renamed(A, B)], {}, {B: ONE}) == Settled((), (B,))

    def test_a_file_that_redis_does_not_hold_replaces_what_it_holds_under_the_new_name(
        self,
    ) -> None:
        assert settled([Renamed(A, B)], {B: TWO}, {B: ONE}) == Settled((), (B,))

    def test_a_value_of_another_state_of_the_file_is_not_trusted(self) -> None:
        written_since = ONE._replace(mtime=1)
        assert settled([Renamed(A, B)], {A: ONE}, {B: written_since}).examine == (B,)

    def test_an_old_name_that_is_in_use_again_is_read(self) -> None:
        assert settled([Renamed(A, B)], {A: ONE}, {A: THREE, B: ONE}) == Settled(
            (Rename(A, B, ONE),), (A,)
        )

    def test_a_new_name_that_is_gone_again_is_looked_at(self) -> None:
        assert settled([Renamed(A, B)], {A: ONE}, {}).examine == (B,)

    def test_names_to_examine_are_examined_whatever_the_signatures_say(self) -> None:
        assert settled([Changed(C), Renamed(A, B)], {A: ONE}, {B: ONE}).examine == (C,)


def test_names_gives_each_name_in_the_renames_once() -> None:
    assert names([Renamed(A, B), Renamed(B, C), Renamed(C, A)]) == [A, B, C]
