from collections.abc import Iterable, Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.core.changes import NONE, Change, Changed, Created, Rename, Renamed, Signature, Unfinished
from sync.core.plan import SPARE, Pending, Plan, Settled, in_order, settle

A, B, C, D, T = b"a", b"b", b"c", b"d", b"t"
ONE, TWO, THREE = (Signature(inode, size=3, mtime=7, ctime=7) for inode in (1, 2, 3))

PATIENCE = 0.5
RETRY = 0.1


def pending_after(*changes: Change, at: float = 0.0) -> Pending:
    pending = Pending(PATIENCE, RETRY)
    for change in changes:
        pending.add([change], at)
    return pending


def bare(plan: Plan) -> Plan:
    """Leave out what is said of the names, and their order."""
    return Plan(plan.moves, tuple(sorted(plan.examine)))


def planned(*changes: Change) -> Plan:
    return bare(pending_after(*changes).take(0.0))


def settled(
    moves: Mapping[bytes, bytes],
    held: Mapping[bytes, Signature],
    on_disk: Mapping[bytes, Signature],
) -> Settled:
    """Settle; a name that `held` or `on_disk` does not have is not there."""
    names = Plan(moves, ()).names()
    return settle(
        moves,
        {name: held.get(name) for name in names},
        {name: on_disk.get(name) for name in names},
    )


class TestWhatIsPlanned:
    def test_nothing_happened_so_nothing_is_planned(self) -> None:
        assert not planned()

    def test_a_change_is_planned_at_once_and_only_once(self) -> None:
        pending = pending_after(Changed(A))
        assert bare(pending.take(0.0)) == Plan({}, (A,))
        assert not pending.take(9.0)

    def test_changes_of_one_name_coalesce(self) -> None:
        assert planned(Changed(A), Changed(B), Changed(A)) == Plan({}, (A, B))

    def test_a_file_created_and_deleted_is_looked_at_once(self) -> None:
        assert planned(Unfinished(A), Changed(A), Changed(A)) == Plan({}, (A,))

    def test_a_rename_moves_the_value_and_leaves_a_name_to_look_at(self) -> None:
        assert planned(Renamed(A, B)) == Plan({B: A}, (A,))

    def test_a_pending_write_moves_with_its_rename(self) -> None:
        assert planned(Changed(A), Renamed(A, B)) == Plan({}, (A, B))

    def test_a_pending_write_moves_along_a_chain(self) -> None:
        assert planned(Changed(A), Renamed(A, B), Renamed(B, C)) == Plan({}, (A, B, C))

    def test_a_chain_is_one_move(self) -> None:
        assert planned(Renamed(A, B), Renamed(B, C)) == Plan({C: A}, (A, B))

    def test_a_write_after_the_rename_makes_the_new_name_one_to_look_at(self) -> None:
        assert planned(Renamed(A, B), Changed(B)) == Plan({}, (A, B))

    @pytest.mark.parametrize("write", [Changed(B), Unfinished(B)])
    def test_a_name_with_a_pending_write_is_looked_at_when_another_file_takes_it(
        self, write: Change
    ) -> None:
        # The file that was written to may have other names.
        assert planned(write, Renamed(A, B)) == Plan({}, (A, B))

    def test_so_is_one_that_was_deferred(self) -> None:
        pending = pending_after()
        pending.defer([B], 0.0)
        pending.add([Renamed(A, B)], 0.0)
        assert bare(pending.take(0.0)) == Plan({}, (A, B))
        assert pending.due is None

    def test_a_name_that_a_rename_left_is_free_for_the_next_one(self) -> None:
        assert planned(Changed(A), Renamed(A, B), Renamed(C, A)) == Plan({A: C}, (B, C))

    def test_a_name_that_is_in_use_again_is_looked_at_and_its_value_moves_all_the_same(
        self,
    ) -> None:
        assert planned(Renamed(A, B), Changed(A)) == Plan({B: A}, (A,))

    def test_a_swap_by_way_of_a_third_name_is_two_moves(self) -> None:
        plan = planned(Renamed(A, T), Renamed(B, A), Renamed(T, B))
        assert plan == Plan({A: B, B: A}, (T,))

    def test_a_file_that_has_its_name_again_keeps_its_value(self) -> None:
        assert planned(Renamed(A, B), Renamed(B, A)) == Plan({A: A}, (B,))

    def test_an_exchange_looks_like_a_rename_and_back_so_one_name_at_least_is_looked_at(
        self,
    ) -> None:
        # renameat2(RENAME_EXCHANGE): the kernel reports two renames, the first over the second.
        # Whether the second brought the same file back is for the disk to say: see TestSettle.
        assert planned(Renamed(A, B), Renamed(B, A)).examine == (B,)

    def test_each_name_of_the_moves_is_asked_for_once(self) -> None:
        assert Plan({A: B, B: A, C: B}, (D,)).names() == [B, A, C]


class TestAnUnfinishedFile:
    def test_waits_for_its_patience_and_is_then_looked_at(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        assert pending.due == 10.0 + PATIENCE
        assert not pending.take(10.0 + PATIENCE - 0.001)
        assert bare(pending.take(10.0 + PATIENCE)) == Plan({}, (A,))
        assert pending.due is None
        assert not pending.take(99.0)

    def test_that_is_written_to_all_the_time_does_not_wait_any_longer(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.add([Unfinished(A)], 10.4)
        assert pending.due == 10.0 + PATIENCE

    def test_that_is_written_to_after_it_was_taken_waits_anew(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.take(11.0)
        pending.add([Unfinished(A)], 12.0)
        assert pending.due == 12.0 + PATIENCE
        assert bare(pending.take(12.0 + PATIENCE)) == Plan({}, (A,))

    def test_that_was_taken_is_not_taken_again_with_the_next_one(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.take(11.0)
        pending.add([Unfinished(B)], 12.0)
        assert bare(pending.take(13.0)) == Plan({}, (B,))

    def test_waits_no_more_once_it_is_closed_or_removed(self) -> None:
        pending = pending_after(Unfinished(A), Changed(A))
        assert pending.due is None
        assert bare(pending.take(9.0)) == Plan({}, (A,))

    def test_that_is_renamed_waits_for_its_writer_under_its_new_name(self) -> None:
        pending = pending_after(Unfinished(A))
        pending.add([Renamed(A, B)], 0.3)
        assert pending.is_unfinished(B)
        assert bare(pending.take(0.3)) == Plan({}, (A,))
        assert pending.take(PATIENCE) == Plan({}, (B,), overdue=frozenset({B}))

    def test_that_is_renamed_is_read_when_its_writer_closes_it(self) -> None:
        pending = pending_after(Unfinished(A), Renamed(A, B), Changed(B))
        assert pending.due is None
        assert bare(pending.take(0.0)) == Plan({}, (A, B))

    def test_over_which_another_is_renamed_waits_no_more(self) -> None:
        pending = pending_after(Unfinished(B), Renamed(A, B))
        assert pending.due is None
        assert bare(pending.take(9.0)) == Plan({}, (A, B))

    def test_waits_although_another_is_closed(self) -> None:
        pending = pending_after(Unfinished(A), Unfinished(B), Changed(A))
        assert pending.due == PATIENCE
        assert bare(pending.take(0.0)) == Plan({}, (A,))
        assert bare(pending.take(PATIENCE)) == Plan({}, (B,))

    def test_of_a_second_writer_waits_for_that_one(self) -> None:
        pending = pending_after(Changed(A), at=10.0)
        pending.add([Unfinished(A)], 10.1)
        assert pending.has_news(A)
        assert not pending.take(10.1)
        assert pending.due == 10.1 + PATIENCE
        assert pending.take(10.1 + PATIENCE) == Plan({}, (A,), overdue=frozenset({A}))

    def test_waits_for_the_last_of_many_that_follow_each_other(self) -> None:
        pending = pending_after(Unfinished(A))
        for tenths in range(1, 20):
            pending.add([Changed(A), Unfinished(A)], tenths / 10)
            assert not pending.take(tenths / 10)
        pending.add([Changed(A)], 2.0)
        assert pending.take(2.0) == Plan({}, (A,))

    def test_waits_anew_when_its_close_may_have_been_lost(self) -> None:
        pending = pending_after(Unfinished(A))
        pending.postpone(0.4)
        assert not pending.take(PATIENCE)
        assert pending.take(0.4 + PATIENCE).overdue == {A}

    def test_waits_anew_only_once_though_there_is_no_end_of_what_is_lost(self) -> None:
        pending = pending_after(Unfinished(A))
        for tenths in range(1, 9):
            pending.postpone(tenths / 10)
            pending.add([Unfinished(A)], tenths / 10)
        assert pending.take(0.1 + PATIENCE).overdue == {A}

    def test_waits_as_long_as_its_own_patience(self) -> None:
        pending = pending_after(Unfinished(A))
        pending.add([Unfinished(B)], 0.4)
        assert pending.take(PATIENCE).examine == (A,)
        assert pending.due == 0.4 + PATIENCE

    def test_that_had_another_name_before_its_write_has_its_value_moved_and_is_read_later(
        self,
    ) -> None:
        pending = pending_after(Renamed(A, B), Unfinished(B))
        assert bare(pending.take(0.0)) == Plan({B: A}, (A,))
        assert pending.has_news(B)
        assert bare(pending.take(PATIENCE)) == Plan({}, (B,))


class TestADeferredName:
    def test_is_looked_at_again_after_a_while(self) -> None:
        pending = pending_after()
        pending.defer([A, B], 10.0)
        assert pending.due == 10.0 + RETRY
        assert not pending.take(10.0 + RETRY - 0.001)
        assert bare(pending.take(10.0 + RETRY)) == Plan({}, (A, B))
        assert pending.due is None

    def test_does_not_hold_up_what_is_known_of_it(self) -> None:
        pending = pending_after()
        pending.defer([A], 10.0)
        pending.add([Changed(A)], 10.0)
        assert bare(pending.take(10.0)) == Plan({}, (A,))

    def test_is_due_before_an_unfinished_file_that_came_with_it(self) -> None:
        pending = pending_after(Unfinished(A), at=10.0)
        pending.defer([B], 10.0)
        assert pending.due == 10.0 + RETRY
        assert bare(pending.take(10.0 + RETRY)) == Plan({}, (B,))
        assert pending.due == 10.0 + PATIENCE

    def test_takes_no_value_along_that_may_be_outdated(self) -> None:
        pending = pending_after()
        pending.defer([A], 0.0)
        pending.add([Renamed(A, B)], 0.0)
        assert bare(pending.take(0.0)) == Plan({}, (A, B))

    def test_has_a_delay_of_its_own(self) -> None:
        pending = pending_after()
        pending.defer([A], 0.0, delay=60.0)
        pending.defer([B], 0.0)
        pending.defer([A], 0.0)  # the later one wins
        assert not pending.has_news(A)
        assert pending.is_quiet
        assert pending.take(RETRY).examine == (B,)
        assert pending.due == 60.0
        pending.look_again([A], 1.0)
        assert pending.due == 1.0

    @pytest.mark.parametrize("before", [[], [Unfinished(A)]])
    def test_that_is_written_to_all_the_time_rests_all_the_same(self, before: list[Change]) -> None:
        pending = pending_after(*before)
        pending.rest(A, 0.0, 60.0)
        pending.look_again([A], 1.0)
        pending.add([Unfinished(A)], 1.0)
        assert pending.has_news(A)
        assert pending.due == 60.0

    @pytest.mark.parametrize("before", [[], [Unfinished(A)]])
    def test_that_does_not_rest_waits_no_longer_when_it_is_written_to(
        self, before: list[Change]
    ) -> None:
        pending = pending_after(*before)
        pending.defer([A], 0.0, delay=60.0)
        pending.add([Unfinished(A)], 1.0)
        assert pending.take(1.0 + PATIENCE).examine == (A,)
        assert pending.due is None

    def test_rests_no_longer_when_its_writer_closes_it(self) -> None:
        pending = pending_after()
        pending.rest(A, 0.0, 60.0)
        pending.add([Changed(A)], 1.0)
        assert pending.take(1.0).examine == (A,)
        pending.defer([A], 1.0, delay=60.0)
        pending.add([Unfinished(A)], 2.0)
        assert pending.due == 2.0 + PATIENCE

    def test_of_many_waits_longer(self) -> None:
        pending = pending_after()
        pending.defer([b"%d" % number for number in range(250)], 0.0)
        assert pending.due == pytest.approx(3 * RETRY)

    def test_that_has_another_name_by_now_has_no_value_to_move(self) -> None:
        pending = pending_after(Renamed(A, B))
        pending.defer([A], 0.0)
        assert bare(pending.take(0.0)) == Plan({}, (A, B))


class TestANameThatIsHeldBack:
    def test_waits_for_a_close_and_its_patience_at_most(self) -> None:
        pending = pending_after()
        pending.hold_back([A, B], 1.0)
        pending.add([Changed(A)], 1.1)
        assert pending.take(1.1) == Plan({}, (A,))
        assert pending.take(1.0 + PATIENCE) == Plan({}, (B,), overdue=frozenset({B}))

    def test_has_nobody_whose_writes_are_known_until_one_is_heard_of(self) -> None:
        pending = pending_after(Unfinished(C))
        pending.hold_back([A, B], 0.0)
        pending.add([Unfinished(A)], 0.3)
        assert [pending.is_heard(each) for each in (A, B, C)] == [True, False, True]
        assert pending.take(PATIENCE).unheard == {B}
        assert pending.take(0.3 + PATIENCE) == Plan({}, (A,), overdue=frozenset({A}))

    def test_stays_ready(self) -> None:
        pending = pending_after(Changed(A))
        pending.hold_back([A], 0.0)
        assert pending.take(0.0) == Plan({}, (A,))

    def test_counts_from_its_first_unfinished_write(self) -> None:
        pending = pending_after(Unfinished(A))
        pending.hold_back([A], 0.3)
        assert pending.due == PATIENCE

    @pytest.mark.parametrize("changes", [[Renamed(A, B)], [Renamed(A, B), Renamed(B, A)]])
    def test_that_has_another_name_by_now_has_no_value_to_move(self, changes: list[Change]) -> None:
        # Redis did not get what was read of the file.
        pending = pending_after(*changes)
        pending.hold_back([A], 0.0)
        assert bare(pending.take(0.0)) == Plan({}, (A, B))


class TestANewName:
    def test_waits_as_one_that_is_held_back(self) -> None:
        pending = pending_after(Created(A), Created(B), Changed(B))
        assert pending.take(0.0).examine == (B,)
        assert pending.is_unfinished(A)
        assert not pending.is_heard(A)
        plan = pending.take(PATIENCE)
        assert plan == Plan({}, (A,), overdue=frozenset({A}))
        assert plan.unheard == {A}
        pending.put_back([A], plan)
        assert pending.take(PATIENCE).unheard == {A}

    @pytest.mark.parametrize("is_written", [False, True])
    def test_has_its_own_patience_though_an_earlier_file_is_still_written_to(
        self, is_written: bool
    ) -> None:
        pending = pending_after(Changed(A), Unfinished(A))
        pending.add([Created(A, is_written=is_written)], 0.3)
        assert pending.due == 0.3 + PATIENCE
        assert pending.is_heard(A) == is_written

    def test_has_its_patience_from_its_first_write_on(self) -> None:
        pending = pending_after(Created(A))
        pending.add([Unfinished(A)], 0.3)
        pending.add([Unfinished(A)], 0.4)
        assert pending.due == 0.3 + PATIENCE
        assert pending.take(0.3 + PATIENCE).unheard == set()


class TestANameOfAFileForWhichNobodyWaits:
    def test_is_examined_at_once_as_its_others_are(self) -> None:
        pending = pending_after()
        pending.hold_back([A], 0.0)
        pending.defer([B], 0.0)
        pending.wait_no_more([A, B, C])
        assert not any(map(pending.has_another, (A, B, C)))
        plan = pending.take(0.0)
        assert set(plan.examine) == plan.overdue == plan.alone == {A, B, C}
        assert not plan.unheard
        assert pending.due is None

    def test_waits_for_a_writer_of_its_own(self) -> None:
        pending = pending_after(Unfinished(A), Changed(B), Created(C))
        pending.wait_no_more([A, B, C])
        assert pending.take(0.0) == Plan({}, (B,))
        assert pending.take(PATIENCE).unheard == {C}


class TestANameThatIsPutBack:
    PLAN = Plan({}, (A, B, C), overdue=frozenset({A}), alone=frozenset({B}), vacated=frozenset({C}))

    def test_is_taken_again_on_the_same_terms_after_what_came_since(self) -> None:
        pending = pending_after()
        pending.put_back(self.PLAN.examine, self.PLAN)
        pending.add([Changed(D)], 0.0)
        assert pending.take(0.0, limit=1) == Plan({}, (D,))
        assert pending.take(0.0) == self.PLAN
        assert not pending.is_ready

    def test_has_its_turn_though_there_is_no_end_of_what_is_new(self) -> None:
        pending = pending_after()
        pending.put_back([A], self.PLAN)
        for name in (B, C):
            pending.add([Changed(name), Changed(D)], 0.0)
            plan = pending.take(0.0, limit=1)
        assert plan.examine == (A,)

    def test_is_not_read_while_a_writer_is_at_work_by_now(self) -> None:
        pending = pending_after(Unfinished(A))
        pending.put_back([A], self.PLAN)
        assert not pending.take(0.0)

    def test_is_what_happened_to_it_since(self) -> None:
        pending = pending_after()
        pending.put_back(self.PLAN.examine, self.PLAN)
        pending.add([Changed(A), Unfinished(B), Renamed(C, D)], 0.0)
        assert bare(pending.take(0.0)) == Plan({}, (A, C, D))
        assert pending.take(PATIENCE) == Plan({}, (B,), overdue=frozenset({B}))

    def test_has_no_value_to_move_if_its_file_has_another_name_by_now(self) -> None:
        pending = pending_after(Renamed(A, B))
        pending.put_back([A], self.PLAN)
        assert not pending.take(0.0).moves


class TestADeferredNameIsLookedAt:
    def test_alone_unless_something_happened(self) -> None:
        pending = pending_after()
        pending.defer([A, B], 0.0, 0.0)
        pending.add([Changed(B)], 0.0)
        plan = pending.take(0.0)
        assert sorted(plan.examine) == [A, B]
        assert plan.alone == {A}


class TestAVacatedName:
    @pytest.mark.parametrize(
        ("changes", "vacated"),
        [
            ([Renamed(A, B)], {A}),
            ([Unfinished(A), Changed(A), Renamed(A, B)], {A}),
            ([Renamed(A, B), Changed(A)], set()),
            ([Renamed(A, B), Renamed(C, A)], {C}),
            ([Renamed(A, B), Changed(B)], {A, B}),
            ([Changed(A), Renamed(A, B), Changed(B)], {A}),
            ([Renamed(A, B), Unfinished(B), Changed(B)], {A}),
            ([Unfinished(A), Changed(A), Changed(A)], set()),
        ],
    )
    def test_is_one_that_a_rename_left_or_brought(
        self, changes: list[Change], vacated: set[bytes]
    ) -> None:
        assert pending_after(*changes).take(0.0).vacated == vacated

    def test_is_so_no_more_when_it_was_taken(self) -> None:
        pending = pending_after(Renamed(A, B))
        pending.take(0.0)
        pending.add([Changed(A)], 0.0)
        assert pending.take(0.0).vacated == frozenset()


MANY = 600


def number(count: int) -> bytes:
    return b"%06d" % count


PAIRS = [Renamed(number(count), b"b" + number(count)) for count in range(MANY)]
CHAIN = [Renamed(number(count), number(count + 1)) for count in reversed(range(MANY))]
RING = [Renamed(number(MANY), T), *CHAIN, Renamed(T, number(0))]
SWAPS = [
    rename
    for count in range(MANY)
    for one, other in [(number(count), b"b" + number(count))]
    for rename in (Renamed(one, T), Renamed(other, one), Renamed(T, other))
]


class TestAPartOfWhatIsPending:
    @pytest.mark.parametrize("limit", [1, 2, 3, 250])
    @pytest.mark.parametrize(
        ("changes", "moves"),
        [(PAIRS, MANY), (CHAIN, MANY), (RING, MANY), (SWAPS, 2 * MANY)],
        ids=["pairs", "chain", "ring", "swaps"],
    )
    def test_moves_what_can_be_moved_and_loses_no_value_before(
        self, changes: list[Renamed], moves: int, limit: int
    ) -> None:
        whole = pending_after(*changes).take(0.0, limit=10 * MANY).moves
        heirs = {old: new for new, old in whole.items()}
        pending = pending_after(*changes)
        moved: set[bytes] = set()
        taken: set[bytes] = set()
        while plan := pending.take(0.0, limit):
            assert len(plan.moves) + len(plan.examine) <= limit
            taken |= {*plan.moves, *plan.examine}
            moved |= plan.moves.keys()
            for name in [*plan.moves, *plan.examine]:
                heir = heirs.get(name, name)
                # One name of a ring that is too long is examined: then nothing is lost.
                assert heir in taken or (changes is RING or (changes is SWAPS and limit == 1))
        assert len(moved) == (MANY if changes is SWAPS and limit == 1 else moves)

    def test_names_that_trade_places_are_not_parted(self) -> None:
        pending = pending_after(Changed(D), Renamed(A, T), Renamed(B, A), Renamed(T, B))
        pending.add([Changed(C)], 0.0)
        plans = [pending.take(0.0, limit=2) for _ in range(3)]
        assert {A: B, B: A} in [plan.moves for plan in plans]

    def test_an_exchange_is_one_until_the_last_of_its_names_is_taken(self) -> None:
        pending = pending_after(Renamed(A, B), Renamed(B, A), Renamed(C, D))
        assert pending.take(0.0, limit=1).examine  # only one of B, C, D and A
        pending.add([Changed(T)], 0.0)
        plans = [pending.take(0.0, limit=1) for _ in range(4)]
        assert [plan.moves for plan in plans] == [{}] * 4

    def test_what_is_due_is_taken_in_parts_too(self) -> None:
        pending = pending_after(Unfinished(A), Unfinished(B), Unfinished(C))
        plans = [pending.take(PATIENCE, limit=2).examine for _ in range(2)]
        assert plans == [(A, B), (C,)]
        assert pending.is_quiet


class TestTooMuch:
    def test_is_forgotten_and_that_is_said(self) -> None:
        pending = Pending(PATIENCE, RETRY, names_max=2)
        pending.add([Changed(A), Unfinished(B)], 0.0)
        assert not pending.overflowed
        pending.defer([C], 0.0)
        assert pending.overflowed
        assert pending.is_quiet
        assert not pending.take(99.0)

    def test_leaves_no_rename_to_be_trusted_before_the_caller_knows(self) -> None:
        pending = Pending(PATIENCE, RETRY, names_max=999)
        many = [Changed(b"%d" % number) for number in range(999)]
        pending.add([Changed(A), *many, Renamed(A, B)], 0.0)
        assert pending.overflowed
        assert bare(pending.take(0.0)) == Plan({}, (A, B))

    def test_is_not_one_name_many_times(self) -> None:
        pending = Pending(PATIENCE, RETRY, names_max=1)
        for _ in range(9):
            pending.add([Unfinished(A), Changed(A)], 0.0)
            pending.defer([A], 0.0)
        assert not pending.overflowed


@pytest.mark.parametrize("name", [A, B])
def test_what_waits_in_any_way_is_pending(name: bytes) -> None:
    assert name not in pending_after()
    assert name in pending_after(Renamed(A, B))
    assert name in pending_after(Unfinished(name))
    deferred = pending_after()
    deferred.defer([name], 0.0)
    assert name in deferred
    deferred.take(RETRY)
    assert name not in deferred


class TestSettle:
    def test_a_rename_of_what_redis_holds_is_one(self) -> None:
        assert settled({B: A}, {A: ONE}, {B: ONE}) == Settled(((Rename(A, B, ONE),),), (B,), ())

    def test_a_rename_over_another_file_replaces_its_value(self) -> None:
        done = settled({B: A}, {A: ONE, B: TWO}, {B: ONE})
        assert done == Settled(((Rename(A, B, ONE),),), (B,), ())

    def test_a_swap_goes_by_way_of_a_spare_name_in_one_group_and_nothing_is_read(self) -> None:
        done = settled({A: B, B: A}, {A: ONE, B: TWO}, {A: TWO, B: ONE})
        assert done == Settled(
            ((Rename(A, SPARE, NONE), Rename(B, A, TWO), Rename(SPARE, B, ONE)),), (A, B), ()
        )

    def test_half_a_swap_is_moved_when_the_other_half_has_to_be_read(self) -> None:
        written_since = ONE._replace(mtime=8)
        done = settled({A: B, B: A}, {A: ONE, B: TWO}, {A: TWO, B: written_since})
        assert done == Settled(((Rename(B, A, TWO),),), (A,), (B,))

    def test_a_file_that_has_its_name_again_costs_nothing(self) -> None:
        assert settled({A: A}, {A: ONE}, {A: ONE}) == Settled((), (A,), ())

    def test_an_exchange_is_no_rename_and_back(self) -> None:
        assert settled({A: A}, {A: ONE, B: TWO}, {A: TWO, B: ONE}) == Settled((), (), (A,))

    def test_a_file_that_redis_does_not_hold_is_read(self) -> None:
        assert settled({B: A}, {B: TWO}, {B: ONE}) == Settled((), (), (B,))

    def test_a_new_name_that_is_gone_again_is_looked_at(self) -> None:
        assert settled({B: A}, {A: ONE}, {}) == Settled((), (), (B,))

    @pytest.mark.parametrize("field", ["inode", "size", "mtime"])
    def test_a_value_of_another_file_or_of_another_state_of_it_is_not_trusted(
        self, field: str
    ) -> None:
        other = ONE._replace(**{field: 99})
        assert settled({B: A}, {A: ONE}, {B: other}).missed == (B,)

    def test_a_rename_changes_ctime_and_the_new_one_is_remembered(self) -> None:
        renamed = ONE._replace(ctime=8)
        done = settled({B: A}, {A: ONE}, {B: renamed})
        assert done.renames == ((Rename(A, B, renamed),),)


class TestInOrder:
    @staticmethod
    def groups(*moves: str) -> list[list[str]]:
        """Write a move and a rename as old name, new name."""
        ordered = in_order({bytes([new]): bytes([old]) for old, new in map(str.encode, moves)})
        return [
            [(old + new).replace(SPARE, b"*").decode() for old, new in group] for group in ordered
        ]

    def test_none_is_over_a_value_that_is_yet_to_be_moved(self) -> None:
        assert self.groups("ab", "bc", "cd") == [["cd", "bc", "ab"]]
        assert self.groups("cd", "bc", "ab") == [["cd", "bc", "ab"]]

    def test_what_has_nothing_to_do_with_each_other_can_be_parted(self) -> None:
        assert self.groups("ab", "cd") == [["ab"], ["cd"]]

    def test_names_that_trade_places_take_one_rename_more(self) -> None:
        assert self.groups("ab", "ba") == [["b*", "ab", "*a"]]
        assert self.groups("ab", "bc", "cd", "da") == [["b*", "ab", "da", "cd", "*c"]]

    def test_each_ring_is_a_group_of_its_own(self) -> None:
        assert self.groups("ab", "ba", "xy", "cd", "dc") == [
            ["xy"],
            ["b*", "ab", "*a"],
            ["d*", "cd", "*c"],
        ]

    def test_what_stays_is_left_out(self) -> None:
        assert self.groups("aa", "bc") == [["bc"]]


class TestHowManyNamesWait:
    NAMES = st.sampled_from([A, B, C, D])
    STEPS = st.one_of(
        st.builds(Changed, NAMES),
        st.builds(Created, NAMES, st.booleans()),
        st.builds(Unfinished, NAMES),
        NAMES,  # is deferred
        st.integers(1, 4),  # are taken
        st.integers(-4, -1),  # are taken, and put back
    )
    RENAMES = st.tuples(NAMES, NAMES).filter(lambda names: names[0] != names[1])

    def after(
        self, steps: Iterable[Change | bytes | int | tuple[bytes, bytes]]
    ) -> Iterator[Pending]:
        pending, now = Pending(PATIENCE, RETRY), 0.0
        for step in steps:
            now += RETRY
            match step:
                case bytes():
                    pending.defer([step], now)
                case int():
                    plan = pending.take(now, abs(step))
                    pending.put_back(plan.examine if step < 0 else (), plan)
                case (old, new):
                    pending.add([Renamed(old, new)], now)
                case _:
                    pending.add([step], now)
            yield pending

    @given(st.lists(STEPS))
    def test_each_counts_once(self, steps: list[Change | bytes | int]) -> None:
        for pending in self.after(steps):
            assert len(pending) == sum(name in pending for name in (A, B, C, D))

    @given(st.lists(st.one_of(STEPS, RENAMES)))
    def test_one_that_is_to_get_a_value_may_count_twice(
        self, steps: list[Change | bytes | int | tuple[bytes, bytes]]
    ) -> None:
        for pending in self.after(steps):
            waiting = sum(name in pending for name in (A, B, C, D))
            assert waiting <= len(pending) <= 2 * waiting
