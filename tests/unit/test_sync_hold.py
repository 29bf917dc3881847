import pytest

from sync.core.hold import Cause, hold


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize(
    ("going", "known", "most"),
    [
        (0, 0, 0.5),
        (0, 1000, 0.0),
        (100, 100, 0.5),  # few, be it all
        (100, 100, 0.0),
        (500, 1000, 0.5),
        (1_000_000, 1_000_000, 1.0),
    ],
)
def test_few_or_the_smaller_part_may_go(cause: Cause, going: int, known: int, most: float) -> None:
    assert hold(cause, going, known, most) is None


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize(
    ("going", "known", "most"),
    [(101, 101, 0.5), (101, 200, 0.5), (501, 1000, 0.5), (101, 1000, 0.0), (996, 1000, 0.995)],
)
def test_more_than_that_does_not_go_unasked(
    cause: Cause, going: int, known: int, most: float
) -> None:
    words = hold(cause, going, known, most) or ""
    ways_out = ["`mdvp-sync accept disk`", "`mdvp-sync accept redis`", "SYNC_DELETE_MAX=100%"]
    assert [way_out for way_out in ways_out if way_out not in words] == []
    assert f"{going:,} of {known:,}" in words


def test_the_words_say_what_was_seen_and_what_becomes_of_what() -> None:
    assert hold(Cause.ANOTHER_DIRECTORY, 600, 1000, 0.5) == (
        "the directory is another one than the last time, and lacks the files of 600 of 1,000 "
        "keys; `mdvp-sync accept disk` removes these keys, and `mdvp-sync accept redis` makes "
        "files of them (with SYNC_DELETE_MAX=100% nobody is asked)"
    )
    assert hold(Cause.REDIS_LACKS_KEYS, 1000, 1000, 0.5) == (
        "Redis has come back empty or older than the last time, and lacks the keys of 1,000 of "
        "1,000 files; `mdvp-sync accept disk` brings these files to it again, and `mdvp-sync "
        "accept redis` removes them (with SYNC_DELETE_MAX=100% nobody is asked)"
    )


def test_where_redis_is_a_copy_nobody_is_told_to_make_files_of_it() -> None:
    assert hold(Cause.ANOTHER_DIRECTORY, 101, 101, 0.5, is_replica=True) == (
        "the directory is another one than the last time, and lacks the files of 101 of 101 "
        "keys; `mdvp-sync accept disk` removes these keys; else put the directory back (with "
        "SYNC_DELETE_MAX=100% nobody is asked)"
    )
