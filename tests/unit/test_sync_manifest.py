import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.core.changes import NONE, Signature
from sync.core.manifest import Entries

WHOLE, TRIMMED = Entries(trimmed=False), Entries(trimmed=True)

sizes = st.integers(0, (1 << 64) - 1)
times = st.integers(-(1 << 63), (1 << 63) - 1)  # ns: from 1677 to 2262
signatures = st.builds(Signature, sizes, sizes, times, times)
SIGNATURE = Signature(3, 8, 1_795_364_078_541_000_001, 1_795_364_078_541_000_002)


@given(signatures)
def test_what_is_remembered_is_the_signature(signature: Signature) -> None:
    for entries in (WHOLE, TRIMMED):
        assert entries.decode(entries.encode(signature)) == signature


@given(signatures, signatures)
def test_entries_are_equal_when_the_signatures_are(one: Signature, other: Signature) -> None:
    assert (WHOLE.encode(one) == WHOLE.encode(other)) == (one == other)


@pytest.mark.parametrize(
    "time",
    [
        1 << 63,
        13_569_465_600_000_000_000,  # 2400, which a file's owner may set
        -(1 << 63) - 1,
        1 << 64,
    ],
)
def test_a_time_that_has_no_room_in_an_entry_is_told_from_others(time: int) -> None:
    odd = SIGNATURE._replace(mtime=time)
    assert WHOLE.encode(odd) == WHOLE.encode(odd)
    assert WHOLE.encode(odd) != WHOLE.encode(odd._replace(mtime=time + 1))
    assert WHOLE.encode(odd) != WHOLE.encode(SIGNATURE)
    held = WHOLE.decode(WHOLE.encode(odd))
    assert held is not None
    assert held.size == odd.size


def test_no_entry_is_of_no_file() -> None:
    assert WHOLE.decode(None) is None


@pytest.mark.parametrize("entry", [b"", b"\n", b"of another version", bytes(31), bytes(64)])
def test_an_entry_of_another_form_is_held_but_is_no_files(entry: bytes) -> None:
    assert WHOLE.decode(entry) == TRIMMED.decode(entry) == NONE


def test_a_content_that_was_trimmed_is_not_the_whole_one() -> None:
    assert WHOLE.encode(SIGNATURE) != TRIMMED.encode(SIGNATURE)
    assert WHOLE.decode(TRIMMED.encode(SIGNATURE)) == NONE
    assert TRIMMED.decode(WHOLE.encode(SIGNATURE)) == NONE


@pytest.mark.parametrize(
    ("entries", "lengths"), [(WHOLE, {8}), (TRIMMED, {7, 8})], ids=["whole", "trimmed"]
)
def test_a_value_of_another_length_is_not_the_files(entries: Entries, lengths: set[int]) -> None:
    assert {each for each in range(-1, 20) if entries.could_be(each, SIGNATURE)} == lengths
