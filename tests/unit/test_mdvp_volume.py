from datetime import UTC, datetime, timedelta, timezone

import pytest

from mdvp.errors import BadRequestError, ConflictError
from mdvp.volume import Lease, check_name, granted, released, shown, timestamp

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)


@pytest.mark.parametrize("name", ["a", "9", "redis-vol", "A.b_c-d", "a" * 255, "a.."])
def test_a_name_that_docker_accepts_is_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".mdvp",
        "-a",
        "_a",
        "a/b",
        "../../etc",
        "a/../../b",
        "a\0",
        "a\n",
        "a b",
        "naïve",
        "а",  # noqa: RUF001  # a Cyrillic letter that looks like a Latin one
        "\ud800",
        "a" * 256,
    ],
)
def test_any_other_name_is_refused_with_the_name_and_the_rule(name: str) -> None:
    with pytest.raises(BadRequestError, match="cannot be a volume's name") as refusal:
        check_name(name)
    assert shown(name) in str(refusal.value)


def test_a_long_name_is_cut_in_a_message() -> None:
    assert shown("x" * 10_000_000) == f"'{'x' * 64}'..."


def test_a_free_volume_is_granted() -> None:
    assert granted("v", [], "id", NOW) == Lease("id", 1, NOW)


def test_the_holder_may_mount_again_and_keeps_its_time() -> None:
    assert granted("v", [Lease("id", 1, EARLIER)], "id", NOW) == Lease("id", 2, EARLIER)


def test_another_mount_id_is_refused_and_told_who_and_since_when() -> None:
    holder = Lease("0123456789abcdef", 1, EARLIER)
    with pytest.raises(ConflictError, match="'v' is in use: mount 0123456789ab has had it since"):
        granted("v", [holder], "other", NOW)


def test_a_lease_ends_with_the_last_of_its_mounts() -> None:
    once = released(Lease("id", 2, NOW))
    assert once == Lease("id", 1, NOW)
    assert released(once) is None


def test_a_time_is_written_in_utc_to_the_second() -> None:
    there = datetime(2026, 1, 2, 5, 4, 5, 999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(there) == "2026-01-02T03:04:05Z"
