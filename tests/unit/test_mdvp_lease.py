from datetime import UTC, datetime

import pytest

from mdvp.core.clock import Moment, elapsed
from mdvp.core.errors import ConflictError
from mdvp.core.lease import Claims, Holder, Lease, granted, in_use, released, sighted, weigh
from mdvp.core.volume import Access, Identity, Volume

UTC_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRACE = 60.0
CONTAINER = "c0ffee" * 10 + "beef"


def at(uptime: float, boot: str = "this") -> Moment:
    return Moment(UTC_NOW, boot, uptime)


def volume(access: Access = Access.EXCLUSIVE) -> Volume:
    return Volume("v", UTC_NOW, Identity(1, 1), access)


def holder(container: str | None = CONTAINER, began: float = 100.0) -> Holder:
    return Holder(container, 42, "redis", UTC_NOW, began)


NOW = at(1000.0)
YOUNG = Lease("young" * 5, 1, at(999.0))
OLD = Lease("old", 1, at(100.0))
SEEN = Lease("seen", 1, at(999.0), seen=True)
FREE = Claims((), (), ())
SHARED = volume(Access.SHARED)


def test_time_between_two_boots_is_without_end() -> None:
    assert elapsed(at(1.0), at(3.5)) == 2.5
    assert elapsed(at(1.0, "before"), at(3.5)) == float("inf")


@pytest.mark.parametrize("lease", [YOUNG, OLD, SEEN])
def test_each_lease_counts_while_the_kernel_shows_a_container(lease: Lease) -> None:
    claims = weigh([lease], [holder()], NOW, GRACE)
    assert (claims.living, claims.dead) == ([lease], ())
    assert not claims.free


@pytest.mark.parametrize("lease", [YOUNG, OLD, SEEN])
def test_each_lease_counts_where_the_kernel_cannot_be_asked(lease: Lease) -> None:
    claims = weigh([lease], None, NOW, GRACE)
    assert (claims.living, claims.dead) == ([lease], ())


def test_when_the_kernel_shows_nobody_a_lease_counts_for_the_grace_period_until_seen() -> None:
    earlier_boot = Lease("boot", 1, at(999.0, "before"))
    claims = weigh([OLD, YOUNG, SEEN, earlier_boot], [], NOW, GRACE)
    assert (claims.living, claims.dead) == ([YOUNG], [OLD, SEEN, earlier_boot])
    assert weigh([OLD, SEEN], [], NOW, GRACE).free
    assert weigh([YOUNG], [], at(999.0 + GRACE), GRACE).living == [YOUNG]
    assert weigh([YOUNG], [], at(999.1 + GRACE), GRACE).dead == [YOUNG]


def test_a_container_is_enough_to_have_a_volume_without_any_lease() -> None:
    claims = weigh([], [holder()], NOW, GRACE)
    with pytest.raises(ConflictError, match="container c0ffeec0ffee has had it since 2026-01-02T"):
        granted(volume(), claims, "new", NOW, GRACE)


def test_a_free_volume_is_granted() -> None:
    assert granted(volume(), FREE, "new", NOW, GRACE) == Lease("new", 1, NOW)


def test_a_volume_whose_leases_are_dead_is_granted() -> None:
    claims = weigh([OLD, SEEN], [], NOW, GRACE)
    assert granted(volume(), claims, "new", NOW, GRACE) == Lease("new", 1, NOW)


def test_a_holder_that_was_seen_has_the_grace_period_again_until_it_unmounts() -> None:
    # It may be started again, under the same ID; or it was `docker cp`.
    claims = weigh([SEEN], [holder()], NOW, GRACE)
    again = granted(volume(), claims, "seen", NOW, GRACE)
    assert again == Lease("seen", 2, NOW, seen=True)
    assert weigh([again], [], NOW, GRACE).living == [again]
    assert weigh([again], [], at(1000.1 + GRACE), GRACE).free
    left = released(again)
    assert left is not None
    assert weigh([left], [], NOW, GRACE).free


def test_a_holder_that_is_yet_to_be_seen_may_mount_again_and_is_waited_for_from_then_on() -> None:
    claims = weigh([YOUNG], [], NOW, GRACE)
    assert granted(volume(), claims, YOUNG.mount_id, NOW, GRACE) == Lease(YOUNG.mount_id, 2, NOW)


def test_a_dead_lease_that_is_taken_up_again_counts_from_one() -> None:
    claims = weigh([Lease("seen", 5, at(100.0), seen=True)], [], NOW, GRACE)
    assert granted(volume(), claims, "seen", NOW, GRACE) == Lease("seen", 1, NOW)


@pytest.mark.parametrize("holders", [None, [], [holder()]])
def test_another_mount_id_is_refused_while_a_lease_counts(holders: list[Holder] | None) -> None:
    claims = weigh([YOUNG], holders, NOW, GRACE)
    with pytest.raises(ConflictError, match="volume 'v' is in use"):
        granted(volume(), claims, "new", NOW, GRACE)


@pytest.mark.parametrize("holders", [None, [], [holder()]])
def test_a_shared_volume_is_granted_whoever_has_it(holders: list[Holder] | None) -> None:
    claims = weigh([YOUNG, SEEN], holders, NOW, GRACE)
    assert granted(SHARED, claims, "new", NOW, GRACE) == Lease("new", 1, NOW)


def refusal(claims: Claims, of: Volume) -> str:
    return in_use(of, claims, NOW, GRACE)


def test_a_refusal_names_the_container_since_when_and_how_to_share() -> None:
    with pytest.raises(ConflictError) as refused:
        granted(volume(), weigh([SEEN], [holder()], NOW, GRACE), "new", NOW, GRACE)
    text = str(refused.value)
    assert "container c0ffeec0ffee has had it since 2026-01-02T03:04:05Z" in text
    assert "one container at a time may have a volume" in text
    assert "`-o access=shared`" in text


def test_a_refusal_names_a_process_outside_of_any_container() -> None:
    assert "process 42 (redis) has had it" in refusal(
        weigh([], [holder(None)], NOW, GRACE), volume()
    )


def test_a_refusal_for_a_container_that_is_starting_says_when_it_ends() -> None:
    text = refusal(weigh([YOUNG], [], NOW, GRACE), volume())
    assert "mount youngyoungyo has had it since" in text
    assert "free again in 59 s" in text


def test_a_refusal_without_sight_of_the_kernel_says_so() -> None:
    assert "cannot see whether its container lives" in refusal(
        weigh([OLD], None, NOW, GRACE), volume()
    )


def test_a_lease_ends_with_the_last_of_its_mounts() -> None:
    once = released(Lease("id", 2, NOW, seen=True))
    assert once == Lease("id", 1, NOW, seen=True)
    assert released(once) is None


def test_a_lease_is_seen_when_a_container_has_begun_since() -> None:
    (seen,) = sighted([YOUNG], [holder(began=999.0)])
    assert seen == Lease(YOUNG.mount_id, 1, YOUNG.since, seen=True)
    # The kernel rounds the beginning of a process down to a hundredth of a second.
    assert sighted([YOUNG], [holder(began=998.995)])


@pytest.mark.parametrize("holders", [None, []])
def test_a_lease_is_not_seen_when_the_kernel_shows_nobody(holders: list[Holder] | None) -> None:
    assert sighted([YOUNG], holders) == []


def test_the_container_of_a_mount_before_does_not_count_as_that_of_the_last() -> None:
    # It may be what is left of the container that this Mount is to start again.
    assert sighted([YOUNG], [holder(began=998.9)]) == []


def test_of_several_leases_each_must_have_its_own_container() -> None:
    second = Lease("second", 1, at(998.0))
    first = holder("a" * 64, 998.5)
    assert sighted([YOUNG, second], [first, holder("b" * 64, 999.5)]) != []
    assert sighted([YOUNG, second], [holder("b" * 64, 999.5)]) == []
    assert sighted([YOUNG, second], [first, holder("b" * 64, 998.9)]) == []
