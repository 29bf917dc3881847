from datetime import datetime, timedelta, timezone

import pytest

from mdvp.core.errors import BadRequestError
from mdvp.core.volume import check_name, shown, timestamp


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


def test_a_time_is_written_in_utc_to_the_second() -> None:
    there = datetime(2026, 1, 2, 5, 4, 5, 999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(there) == "2026-01-02T03:04:05Z"
