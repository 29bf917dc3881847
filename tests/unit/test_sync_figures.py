import pytest

from sync.report.figures import counted, duration, size


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0 B"),
        (7, "7 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),  # not 1000.0 kB
        (314_572_800, "314.6 MB"),
        (1 << 64, "18.4 EB"),
    ],
)
def test_bytes_have_the_prefix_that_keeps_them_short(number: int, written: str) -> None:
    assert size(number) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.00004, "0.0 ms"),
        (0.0006, "0.6 ms"),
        (0.09994, "99.9 ms"),
        (0.09996, "100 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (61.24, "61.2 s"),
    ],
)
def test_times_have_no_more_digits_than_one_reads(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_one_thing_is_one_and_thousands_are_parted() -> None:
    assert [counted(number, "file", "files") for number in (0, 1, 1250)] == [
        "0 files",
        "1 file",
        "1,250 files",
    ]
