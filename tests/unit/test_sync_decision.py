"""What is decided about a name, in every case: as docs/modes.md has it, and as each mode promises.

The promises are told of what both sides have before and after, and know nothing of how it is
decided: the decision is carried out here on a pair of values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest

from sync.core.decision import (
    ABSENT,
    LOST,
    UNFIT,
    UNKNOWN,
    Action,
    Mode,
    Side,
    Value,
    Without,
    accepted,
    decide,
)

A, X, Y = b"a", b"x", b"y"

ANCESTORS: tuple[Value, ...] = (ABSENT, A, UNKNOWN)
ON_DISK: tuple[Value, ...] = (ABSENT, A, X, Y, UNFIT)
IN_REDIS: tuple[Value, ...] = (ABSENT, A, X, Y, UNFIT, LOST)
TAKES = (None, Side.DISK, Side.REDIS)

TWO_WAY = (Mode.TWO_WAY_SAFE, Mode.TWO_WAY_RESOLVED)
BUT_REPLICA = [mode for mode in Mode if mode is not Mode.ONE_WAY_REPLICA]
ONE_WAY = (Mode.ONE_WAY_REPLICA, Mode.ONE_WAY_SAFE)
LISTED = (Action.CONFLICT, Action.LEAVE)
MIRRORED = {Action.TO_REDIS: Action.TO_DISK, Action.TO_DISK: Action.TO_REDIS}

each_mode = pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)


@dataclass(frozen=True)
class State:
    """What there is of a name; `kept` are the values that are kept aside."""

    ancestor: Value
    disk: Value
    redis: Value
    kept: frozenset[Value] = frozenset()

    def decided(self, mode: Mode, take: Side | None = None) -> Action:
        return decide(mode, self.ancestor, self.disk, self.redis, take)

    @property
    def key(self) -> Value:
        return ABSENT if self.redis is LOST else self.redis

    @property
    def values(self) -> set[Value]:
        """All that anybody can still get at."""
        return {self.disk, self.redis, *self.kept}

    def news(self, value: Value) -> bool:
        """Say whether that is a value that may have been written since both sides were equal."""
        return isinstance(value, bytes) and value != self.ancestor


ALL = [State(*each) for each in product(ANCESTORS, ON_DISK, IN_REDIS)]


def carried_out(mode: Mode, action: Action, state: State) -> State:
    """Return what there is when the action is done, as whoever does it would."""
    if action in {Action.TO_REDIS, Action.KEEP_TO_REDIS}:
        assert state.disk is not UNFIT or mode in ONE_WAY, "that cannot be a key's value"
        value = ABSENT if state.disk is UNFIT else state.disk
        kept = {state.redis} if action is Action.KEEP_TO_REDIS else set()
        assert all(isinstance(each, bytes) for each in kept), "that is no value to keep"
        return State(value, state.disk, value, state.kept | kept)
    if action is Action.TO_DISK:
        assert state.disk is not UNFIT, "that would be written over what is no file"
        assert state.redis not in {UNFIT, LOST}, "that cannot be a file"
        return replace(state, ancestor=state.redis, disk=state.redis)
    if action is Action.RECORD:
        return replace(state, ancestor=state.key)
    return state


def outcomes(mode: Mode, *takes: Side | None) -> Iterator[tuple[State, Action, State]]:
    """Yield each state with what is decided, and with what there is then."""
    for before, take in product(ALL, takes or (None,)):
        action = before.decided(mode, take)
        yield before, action, carried_out(mode, action, before)


def is_foreign(mode: Mode, state: State) -> bool:
    """Say whether that is a key which never was a file's, of a mode that does not care for it."""
    return mode in ONE_WAY and state.ancestor is ABSENT and state.disk in {ABSENT, UNFIT}


def are_equal(mode: Mode, state: State) -> bool:
    """Say whether the sides are equal; in one-way modes, what is no file has no key."""
    if state.disk is UNFIT:
        return mode in ONE_WAY and state.key is ABSENT
    return state.disk == state.key


class TestWhatEachModePromises:
    def test_one_way_replica_makes_redis_the_copy_and_touches_no_file(self) -> None:
        for before, _, after in outcomes(Mode.ONE_WAY_REPLICA, *TAKES):
            assert after.disk == before.disk
            assert are_equal(Mode.ONE_WAY_REPLICA, after) or is_foreign(
                Mode.ONE_WAY_REPLICA, before
            )

    def test_one_way_safe_touches_no_file_and_nothing_that_somebody_set_in_redis(self) -> None:
        for before, _, after in outcomes(Mode.ONE_WAY_SAFE):
            assert after.disk == before.disk
            if before.news(before.redis) or before.redis is UNFIT:
                assert after.redis == before.redis

    def test_one_way_safe_undoes_what_somebody_deleted_in_redis(self) -> None:
        for before, _, after in outcomes(Mode.ONE_WAY_SAFE):
            if before.key is ABSENT:
                assert are_equal(Mode.ONE_WAY_SAFE, after)

    @pytest.mark.parametrize("mode", ONE_WAY, ids=lambda mode: mode.value)
    def test_a_one_way_mode_leaves_foreign_keys_alone_whoever_asks(self, mode: Mode) -> None:
        for before, _, after in outcomes(mode, *TAKES):
            if is_foreign(mode, before) and before.key is not ABSENT:
                assert after == before

    def test_two_way_safe_keeps_on_a_side_what_is_news(self) -> None:
        for before, _, after in outcomes(Mode.TWO_WAY_SAFE):
            for value in (before.disk, before.redis):
                if before.news(value):
                    assert value in {after.disk, after.redis}
            assert not after.kept

    def test_two_way_resolved_keeps_what_is_news_and_the_disk_wins(self) -> None:
        for before, action, after in outcomes(Mode.TWO_WAY_RESOLVED):
            assert action is not Action.CONFLICT
            for value in (before.disk, before.redis):
                if before.news(value):
                    assert value in after.values
            if before.disk != before.ancestor:
                assert after.disk == before.disk

    def test_two_way_resolved_keeps_what_somebody_decides_against_in_redis(self) -> None:
        for before, _, after in outcomes(Mode.TWO_WAY_RESOLVED, Side.DISK):
            if before.news(before.redis):
                assert before.redis in after.values

    @each_mode
    def test_only_two_way_resolved_keeps_aside_and_only_what_is_news(self, mode: Mode) -> None:
        for before, _, after in outcomes(mode, *TAKES):
            assert not after.kept or (
                mode is Mode.TWO_WAY_RESOLVED and all(map(before.news, after.kept))
            )

    @pytest.mark.parametrize("mode", TWO_WAY, ids=lambda mode: mode.value)
    def test_a_change_on_one_side_alone_gets_to_the_other(self, mode: Mode) -> None:
        for before, action, after in outcomes(mode):
            if UNFIT in {before.disk, before.redis}:
                continue
            if before.disk == before.ancestor and before.redis is not LOST:
                assert after.disk == after.redis == before.redis
            elif before.redis in {before.ancestor, LOST}:
                assert after.disk == after.key == before.disk
            else:
                assert action is not Action.TO_DISK, "both have changed"

    def test_redis_to_disk_makes_the_disk_the_copy_and_touches_no_key(self) -> None:
        for before, action, after in outcomes(Mode.REDIS_TO_DISK):
            assert after.redis == before.redis
            if isinstance(before.redis, bytes) and before.disk is not UNFIT:
                assert after.disk == before.redis
            assert action is not Action.CONFLICT

    def test_redis_to_disk_keeps_a_file_that_redis_never_had(self) -> None:
        for before, _, after in outcomes(Mode.REDIS_TO_DISK):
            if before.ancestor is ABSENT and before.key is ABSENT:
                assert after.disk == before.disk

    def test_redis_to_disk_removes_a_file_whose_key_was_deleted(self) -> None:
        for before, _, after in outcomes(Mode.REDIS_TO_DISK):
            if before.ancestor is not ABSENT and before.redis is ABSENT:
                assert after.disk in {ABSENT, UNFIT}

    @each_mode
    def test_an_eviction_takes_no_file_with_it_whoever_asks(self, mode: Mode) -> None:
        for before, _, after in outcomes(mode, *TAKES):
            if before.redis is LOST:
                assert after.disk == before.disk

    @each_mode
    def test_what_is_no_file_stays_whoever_asks(self, mode: Mode) -> None:
        for before, _, after in outcomes(mode, *TAKES):
            if before.disk is UNFIT:
                assert after.disk is UNFIT

    @pytest.mark.parametrize("mode", BUT_REPLICA, ids=lambda mode: mode.value)
    def test_what_is_no_string_stays_unless_somebody_asks(self, mode: Mode) -> None:
        for before, _, after in outcomes(mode, None, Side.REDIS):
            if before.redis is UNFIT:
                assert after.redis is UNFIT


class TestWhatIsSoAfterwards:
    @each_mode
    def test_twice_is_the_same_as_once(self, mode: Mode) -> None:
        for _, action, after in outcomes(mode):
            again = after.decided(mode)
            assert again is (action if action in LISTED else Action.NOTHING)

    @each_mode
    @pytest.mark.parametrize("take", Side, ids=lambda side: side.value)
    def test_what_somebody_has_decided_is_done_once(self, mode: Mode, take: Side) -> None:
        for before, action, after in outcomes(mode, take):
            if action in LISTED:
                assert before.decided(mode) is action, "it was listed, and is so still"
            else:
                assert after.decided(mode) is Action.NOTHING

    @each_mode
    def test_both_are_equal_or_the_name_is_listed(self, mode: Mode) -> None:
        for before, action, after in outcomes(mode, *TAKES):
            assert are_equal(mode, after) or action in LISTED or is_foreign(mode, before)

    @each_mode
    def test_what_is_listed_is_not_touched(self, mode: Mode) -> None:
        for before, action, after in outcomes(mode, *TAKES):
            if action in LISTED:
                assert after == before
                assert not are_equal(mode, after)

    @each_mode
    def test_what_is_equal_is_only_recorded(self, mode: Mode) -> None:
        for before, action, after in outcomes(mode, *TAKES):
            if are_equal(mode, before):
                assert (after.disk, after.redis, after.kept) == (
                    before.disk,
                    before.redis,
                    before.kept,
                )
                assert after.ancestor == before.key
                assert action is (
                    Action.NOTHING if before.ancestor == before.key else Action.RECORD
                )

    @each_mode
    def test_nothing_is_a_conflict_that_did_not_change_in_redis(self, mode: Mode) -> None:
        for before, action, _ in outcomes(mode):
            if action is Action.CONFLICT:
                assert before.redis not in {before.ancestor, LOST, UNFIT}
                assert mode in {Mode.TWO_WAY_SAFE, Mode.ONE_WAY_SAFE}


class TestWhatSomebodyDecides:
    @pytest.mark.parametrize("take", Side, ids=lambda side: side.value)
    @pytest.mark.parametrize("mode", BUT_REPLICA, ids=lambda mode: mode.value)
    def test_is_so_afterwards_if_it_can_be(self, mode: Mode, take: Side) -> None:
        for before, _, after in outcomes(mode, take):
            if is_foreign(mode, before):
                continue
            if take is Side.DISK and (before.disk is not UNFIT or mode in ONE_WAY):
                assert are_equal(mode, after)
                assert after.disk == before.disk
            if take is Side.REDIS and {UNFIT, LOST}.isdisjoint({before.disk, before.redis}):
                assert after.disk == after.redis == before.redis

    @each_mode
    def test_does_nothing_else_where_redis_has_lost_the_key(self, mode: Mode) -> None:
        for before in ALL:
            if before.redis is LOST:
                assert before.decided(mode, Side.REDIS) is before.decided(mode)

    def test_is_nobodys_business_in_a_replica(self) -> None:
        for before, take in product(ALL, TAKES):
            replica = Mode.ONE_WAY_REPLICA
            assert before.decided(replica, take) is before.decided(replica)


class TestWhatSomebodyAccepts:
    """What would be removed, and held the service: it goes, or comes back."""

    @staticmethod
    def outcomes(mode: Mode, side: Side) -> Iterator[tuple[State, State, State]]:
        """Yield each state with what there is by itself, and when the side is accepted."""
        for before in ALL:
            action = accepted(mode, before.ancestor, before.disk, before.redis, side)
            usual = carried_out(mode, before.decided(mode), before)
            yield before, usual, carried_out(mode, action, before)

    @pytest.mark.parametrize("mode", BUT_REPLICA, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
    def test_the_side_loses_nothing_that_it_has(self, mode: Mode, side: Side) -> None:
        for before, _, after in self.outcomes(mode, side):
            mine, own = (
                (before.disk, after.disk) if side is Side.DISK else (before.redis, after.redis)
            )
            if isinstance(mine, bytes) and before.disk is not UNFIT:
                assert own is not ABSENT

    @each_mode
    @pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
    def test_whatever_removes_nothing_is_as_ever(self, mode: Mode, side: Side) -> None:
        for before, usual, after in self.outcomes(mode, side):
            gone = {
                was
                for was, then in ((before.disk, usual.disk), (before.redis, usual.redis))
                if was not in {ABSENT, LOST} and then is ABSENT
            }
            assert after == usual or gone

    @each_mode
    @pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
    def test_what_the_side_lacks_goes_as_ever(self, mode: Mode, side: Side) -> None:
        for before, usual, after in self.outcomes(mode, side):
            if (before.disk if side is Side.DISK else before.redis) is ABSENT:
                assert after == usual


class TestSymmetry:
    def test_two_way_safe_makes_no_difference_between_the_sides(self) -> None:
        for state in ALL:
            if state.redis is not LOST:
                action = state.decided(Mode.TWO_WAY_SAFE)
                swapped = replace(state, disk=state.redis, redis=state.disk)
                assert swapped.decided(Mode.TWO_WAY_SAFE) is MIRRORED.get(action, action)

    @each_mode
    def test_one_value_is_as_good_as_another(self, mode: Mode) -> None:
        other: dict[Value, Value] = {X: Y, Y: X}
        for state, take in product(ALL, TAKES):
            disk, redis = (other.get(each, each) for each in (state.disk, state.redis))
            renamed = replace(state, disk=disk, redis=redis)
            assert renamed.decided(mode, take) is state.decided(mode, take)


# The tables of docs/modes.md, cell by cell.

DOCS = Path(__file__).parents[2] / "docs" / "modes.md"
WORDS = {
    "to Redis": Action.TO_REDIS,
    "to disk": Action.TO_DISK,
    "kept, to Redis": Action.KEEP_TO_REDIS,
    "conflict": Action.CONFLICT,
    "left": Action.LEAVE,
    "noted": Action.RECORD,
    "fine": Action.NOTHING,
}
SIGNS = {"-": ABSENT, "?": UNKNOWN, "unfit": UNFIT, "lost": LOST}
AS_ABOVE = "as above"


@dataclass(frozen=True)
class Row:
    """One row: what it is of, and what is decided in each mode."""

    first: str
    signs: tuple[frozenset[str], ...]  # of the ancestor, of the file and of the key
    decided: dict[Mode, str]

    def is_of(self, signs: tuple[str, str, str]) -> bool:
        return all("any" in own or sign in own for own, sign in zip(self.signs, signs, strict=True))


def table(first: str) -> list[Row]:
    """Return the rows of the table whose first column has that title."""
    lines = iter(DOCS.read_text().splitlines())
    titles = next(cells for line in lines if (cells := cells_of(line))[0] == first)
    modes = [Mode(title) for title in titles[4:]]
    assert set(modes) == set(Mode)
    assert next(lines).startswith("|---")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = cells_of(line)
        signs = tuple(frozenset(cell.split()) for cell in cells[1:4])
        rows.append(Row(cells[0], signs, dict(zip(modes, cells[4:], strict=True))))
    return rows


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def signs_of(state: State) -> tuple[str, str, str]:
    """Return how the docs write a state: x is what the file has, y what the key alone has."""
    of = {value: sign for sign, value in SIGNS.items()} | {A: "a"}
    if state.ancestor is not A:
        del of[A]
    ancestor = of[state.ancestor]
    disk = of.get(state.disk, "x")
    key = of.get(state.redis, "x" if state.redis == state.disk else "y")
    return ancestor, disk, key


CASES = table("what happened")
TAKEN = table("take")


def row_of(rows: list[Row], state: State) -> Row:
    """Return the one row that is of the state."""
    found = [row for row in rows if row.is_of(signs_of(state))]
    assert len(found) == 1, f"{len(found)} rows are of {signs_of(state)}"
    return found[0]


class TestTheDocs:
    @each_mode
    def test_say_what_is_decided_in_every_case(self, mode: Mode) -> None:
        for state in ALL:
            assert state.decided(mode) is WORDS[row_of(CASES, state).decided[mode]], state

    @each_mode
    @pytest.mark.parametrize("take", Side, ids=lambda side: side.value)
    def test_say_what_is_done_when_somebody_has_decided(self, mode: Mode, take: Side) -> None:
        rows = [row for row in TAKEN if row.first == take.value]
        for state in ALL:
            words = row_of(CASES, state).decided[mode]
            if WORDS[words] not in {Action.NOTHING, Action.RECORD}:
                taken = row_of(rows, state).decided[mode]
                words = words if taken == AS_ABOVE else taken
            assert state.decided(mode, take) is WORDS[words], state

    @pytest.mark.parametrize("rows", [CASES, TAKEN], ids=["cases", "taken"])
    def test_have_no_sign_for_what_cannot_be(self, rows: list[Row]) -> None:
        possible = {signs_of(state) for state in ALL}
        for row in rows:
            found = [signs for signs in possible if row.is_of(signs)]
            for column, own in enumerate(row.signs):
                assert own <= {"any"} | {signs[column] for signs in found}, row

    def test_have_a_word_for_everything(self) -> None:
        assert set(SIGNS.values()) == set(Without)
        assert set(WORDS.values()) == set(Action)
