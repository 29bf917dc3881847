from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mdvp.core.clock import Moment, elapsed
from mdvp.core.errors import ConflictError, LaterError
from mdvp.core.lease import (
    ORPHANED,
    Claims,
    Engine,
    Holder,
    Lease,
    Sight,
    attributed,
    granted,
    in_use,
    released,
    weigh,
)
from mdvp.core.volume import Access, Identity, Volume

UTC_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRACE = 60.0
C1, C2 = "c0ffee" * 10 + "beef", "d" * 64
ENGINE = Engine(7, 700)


def at(uptime: float, boot: str = "this") -> Moment:
    return Moment(UTC_NOW, boot, uptime)


def volume(access: Access = Access.EXCLUSIVE) -> Volume:
    return Volume("v", UTC_NOW, Identity(1, 1), access)


def holder(who: str = C1, began: float = 1000.0, *, outside: bool = False) -> Holder:
    return Holder(who, None if outside else who, 42, "redis", UTC_NOW, began)


NOW = at(1000.0)
YOUNG = Lease("young" * 5, 1, at(999.0), ENGINE)
OLD = Lease("old", 1, at(100.0), ENGINE)
HELD = Lease("held", 1, at(100.0), ENGINE, C1)
SHARED = volume(Access.SHARED)


def claims(
    *leases: Lease, holders: Sequence[Holder] = (), now: Moment = NOW, **sight: object
) -> Claims:
    return weigh(leases, Sight(holders, **sight), now, GRACE)  # type: ignore[arg-type]


def mount(claims: Claims, mount_id: str = "new", of: Volume | None = None) -> Lease:
    return granted(of or volume(), claims, mount_id, ENGINE, NOW)


def test_time_between_two_boots_is_without_end() -> None:
    assert elapsed(at(1.0), at(3.5)) == 2.5
    assert elapsed(at(1.0, "before"), at(3.5)) == float("inf")


# Whose turn it is.


def in_turn(claims: Claims, before: int, mount_id: str = "new", of: Volume | None = None) -> Lease:
    return granted(of or volume(), claims, mount_id, ENGINE, NOW, before)


def test_a_volume_that_is_free_is_for_who_came_first() -> None:
    assert in_turn(claims(), 0).mount_id == "new"
    with pytest.raises(LaterError, match="is free, and it is the turn of another: 3 came before"):
        in_turn(claims(), 3)


def test_who_has_a_volume_may_mount_it_again_whoever_waits() -> None:
    assert in_turn(claims(YOUNG), 3, YOUNG.mount_id).mounts == 2


def test_nobody_waits_for_a_shared_volume() -> None:
    assert in_turn(claims(YOUNG), 3, of=SHARED).mount_id == "new"


@pytest.mark.parametrize("seconds", [None, 30])
def test_a_refusal_says_for_how_long_it_is_worth_to_wait(seconds: int | None) -> None:
    of = replace(volume(), wait=seconds)
    for given, before in ((claims(YOUNG), 0), (claims(), 1)):
        with pytest.raises(LaterError) as refusal:
            in_turn(given, before, of=of)
        assert refusal.value.seconds == (seconds or 0)


# Which leases count.


@pytest.mark.parametrize("lease", [YOUNG, OLD, HELD])
def test_each_lease_counts_where_the_kernel_cannot_be_asked(lease: Lease) -> None:
    blind = weigh([lease], None, NOW, GRACE)
    assert (blind.living, blind.dead) == ([lease], ())
    assert not blind.free


def test_a_lease_counts_while_its_holder_lives_however_old_it_is() -> None:
    assert claims(HELD, holders=[holder(C1)]).living == [HELD]
    assert claims(HELD, holders=[holder(C2)]).dead == [HELD]
    assert claims(HELD).free


def test_a_lease_that_waits_counts_for_the_grace_period() -> None:
    earlier_boot = Lease("boot", 1, at(999.0, "before"), ENGINE)
    assert (claims(OLD, YOUNG, earlier_boot).living) == [YOUNG]
    assert claims(OLD, earlier_boot).free
    assert claims(YOUNG, now=at(999.0 + GRACE)).living == [YOUNG]
    assert claims(YOUNG, now=at(999.1 + GRACE)).dead == [YOUNG]


def test_a_container_in_it_does_not_make_a_lease_of_another_count() -> None:
    assert claims(OLD, holders=[holder(C2, began=50.0)]).dead == [OLD]


def test_work_in_the_volume_begins_the_grace_period_anew() -> None:
    assert claims(OLD, worked={OLD.mount_id: at(990.0)}).living == [OLD]
    assert claims(OLD, worked={OLD.mount_id: at(900.0)}).dead == [OLD]
    assert claims(OLD, worked={YOUNG.mount_id: at(990.0)}).dead == [OLD]


def test_a_lease_whose_engine_is_gone_waits_some_seconds_more_and_never_longer_than_grace() -> None:
    gone = {ENGINE: at(995.0)}
    assert claims(YOUNG, gone=gone).living == [YOUNG]
    assert claims(YOUNG, gone=gone, now=at(995.0 + ORPHANED + 0.1)).dead == [YOUNG]
    assert claims(YOUNG, gone={Engine(7, 701): at(0.0)}).living == [YOUNG]
    assert claims(OLD, gone=gone).dead == [OLD]
    assert claims(HELD, gone={ENGINE: at(1.0)}, holders=[holder()]).living == [HELD]
    unknown = Lease("tcp", 1, at(999.0))
    assert claims(unknown, gone={ENGINE: at(1.0)}).living == [unknown]


def test_a_second_mount_of_a_container_that_has_ended_waits_as_any_other() -> None:
    again = Lease("held", 2, at(999.0), ENGINE, C1)
    assert again.waits
    assert claims(again).living == [again]
    assert claims(again, now=at(2000.0)).dead == [again]


def test_what_the_engine_has_given_back_counts_while_its_holder_lives() -> None:
    left = released(HELD)
    assert left == Lease("held", 0, at(100.0), ENGINE, C1)
    assert not left.waits
    assert claims(left, holders=[holder(C1)]).living == [left]
    assert claims(left).free


def test_a_lease_ends_with_the_last_of_its_mounts_when_nobody_was_shown() -> None:
    once = released(Lease("id", 2, NOW))
    assert once == Lease("id", 1, NOW)
    assert released(once) is None


# What a Mount gets.


def test_a_free_volume_is_granted() -> None:
    assert mount(claims()) == Lease("new", 1, NOW, ENGINE)
    assert mount(claims(OLD, HELD)) == Lease("new", 1, NOW, ENGINE)


def test_a_container_is_enough_to_have_a_volume_without_any_lease() -> None:
    with pytest.raises(ConflictError, match="container c0ffeec0ffee has had it since 2026-01-02T"):
        mount(claims(holders=[holder()]))


@pytest.mark.parametrize("blind", [False, True])
def test_another_mount_id_is_refused_while_a_lease_counts(blind: bool) -> None:
    known = weigh([YOUNG], None, NOW, GRACE) if blind else claims(YOUNG)
    with pytest.raises(ConflictError, match="volume 'v' is in use"):
        mount(known)


def test_the_same_mount_id_may_mount_again() -> None:
    assert mount(claims(YOUNG), YOUNG.mount_id) == Lease(YOUNG.mount_id, 2, at(999.0), ENGINE)
    held = claims(HELD, holders=[holder()])
    assert mount(held, "held") == Lease("held", 2, at(100.0), ENGINE, C1)
    # What its container came by is one of them, though the engine has given that back.
    given_back = claims(replace(HELD, mounts=0), holders=[holder()])
    assert mount(given_back, "held").mounts == 2


def test_a_mount_of_an_id_whose_holder_has_ended_is_for_another() -> None:
    copied = claims(replace(HELD, mounts=2, since=at(990.0)))  # docker cp, which goes on
    assert mount(copied, "held") == Lease("held", 2, NOW, ENGINE)


def test_a_stale_mount_id_is_refused_while_somebody_else_has_the_volume() -> None:
    stranger = [holder(C2, began=50.0)]
    for lease in (YOUNG, OLD, HELD):
        with pytest.raises(ConflictError, match="container dddddddddddd has had it"):
            mount(claims(lease, holders=stranger), lease.mount_id)
    both = claims(HELD, holders=[holder(C1), *stranger])
    with pytest.raises(ConflictError, match="is in use"):
        mount(both, "held")
    with pytest.raises(ConflictError, match="is in use"):
        mount(claims(HELD, YOUNG, holders=[holder(C1)]), YOUNG.mount_id)


def test_a_dead_lease_that_is_taken_up_again_counts_from_one() -> None:
    assert mount(claims(Lease("held", 5, at(100.0), ENGINE, C1)), "held") == Lease(
        "held", 1, NOW, ENGINE
    )


@pytest.mark.parametrize("holders", [[], [holder()]])
def test_a_shared_volume_is_granted_whoever_has_it(holders: list[Holder]) -> None:
    assert mount(claims(YOUNG, HELD, holders=holders), of=SHARED) == Lease("new", 1, NOW, ENGINE)
    assert mount(weigh([YOUNG], None, NOW, GRACE), of=SHARED) == Lease("new", 1, NOW, ENGINE)


# Whose holder it is.


def given(*leases: Lease, holders: Sequence[Holder]) -> dict[str, str | None]:
    found = attributed(claims(*leases, holders=holders), "this")
    return {lease.mount_id: lease.holder for lease in found}


def test_a_lease_gets_the_holder_that_began_after_it() -> None:
    assert given(YOUNG, holders=[holder(began=999.0)]) == {YOUNG.mount_id: C1}
    # The kernel rounds the beginning of a process down to a hundredth of a second.
    assert given(YOUNG, holders=[holder(began=998.995)]) == {YOUNG.mount_id: C1}
    assert given(YOUNG, holders=[holder(began=998.9)]) == {}
    assert given(YOUNG, holders=[]) == {}


def test_who_is_not_set_up_or_shows_while_the_engine_is_at_work_is_on_no_lease() -> None:
    half = replace(holder(began=999.5), ready=False)
    assert given(YOUNG, holders=[half]) == {}
    passer_by = claims(YOUNG, holders=[holder(began=999.5)], busy=True)
    assert attributed(passer_by, "this") == []
    assert attributed(weigh([YOUNG], None, NOW, GRACE), "this") == []


def test_of_an_engine_that_is_not_known_only_a_container_can_be_the_holder() -> None:
    over_tcp = Lease("tcp", 1, at(999.0))
    outside = holder("mnt:[1]@1.100", began=999.5, outside=True)
    assert given(over_tcp, holders=[outside]) == {}
    assert given(over_tcp, holders=[outside, holder(began=999.5)]) == {"tcp": C1}
    assert given(YOUNG, holders=[outside]) == {YOUNG.mount_id: outside.who}


def test_a_lease_of_an_earlier_boot_gets_no_holder() -> None:
    earlier = Lease("boot", 1, at(1.0, "before"), ENGINE)
    assert given(earlier, holders=[holder()]) == {}
    assert given(earlier, YOUNG, holders=[holder(), holder(C2)]) == {YOUNG.mount_id: C1}


def test_a_holder_is_on_one_lease() -> None:
    assert given(HELD, YOUNG, holders=[holder(C1)]) == {}
    assert given(HELD, YOUNG, holders=[holder(C1), holder(C2)]) == {YOUNG.mount_id: C2}


def test_of_several_leases_each_must_have_its_own_holder() -> None:
    second = Lease("second", 1, at(998.0), ENGINE)
    first, late = holder(C1, 998.5), holder(C2, 999.5)
    assert given(YOUNG, second, holders=[first, late]) == {YOUNG.mount_id: C2, "second": C1}
    assert given(YOUNG, second, holders=[late, first]) == {YOUNG.mount_id: C2, "second": C1}
    assert given(YOUNG, second, holders=[late]) == {}
    assert given(YOUNG, second, holders=[first, holder(C2, 998.9)]) == {}


def test_a_lease_that_counts_no_more_gets_what_the_others_leave() -> None:
    assert given(OLD, holders=[holder(C1)]) == {"old": C1}
    assert given(OLD, YOUNG, holders=[holder(C1)]) == {YOUNG.mount_id: C1}
    assert given(OLD, YOUNG, holders=[holder(C1, 500.0)]) == {}


# What is said.


def test_a_refusal_names_the_container_since_when_and_how_to_share() -> None:
    with pytest.raises(ConflictError) as refused:
        mount(claims(HELD, holders=[holder()]))
    text = str(refused.value)
    assert "container c0ffeec0ffee has had it since 2026-01-02T03:04:05Z" in text
    assert "one container at a time may have a volume" in text
    assert "`-o access=shared`" in text


def test_a_refusal_names_a_process_outside_of_any_container() -> None:
    outside = claims(holders=[holder("mnt:[1]@100", outside=True)])
    assert "process 42 (redis) has had it" in in_use(volume(), outside)


def test_a_refusal_for_a_container_that_is_starting_says_when_it_ends() -> None:
    text = in_use(volume(), claims(YOUNG))
    assert "mount youngyoungyo has had it since" in text
    assert "free again in 59 s" in text


def test_a_refusal_for_an_engine_that_is_gone_says_so() -> None:
    text = in_use(volume(), claims(YOUNG, gone={ENGINE: at(995.0)}))
    assert "the engine that asked for it is gone" in text
    assert "free again in 5 s" in text


def test_a_refusal_without_sight_of_the_kernel_says_so() -> None:
    blind = weigh([OLD], None, NOW, GRACE)
    assert "cannot see whether its container lives" in in_use(volume(), blind)
