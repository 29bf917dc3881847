import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.core.changes import NONE, Signature
from sync.core.manifest import PENDING_GONE, Entries, digest_of

WHOLE, TRIMMED = Entries(trimmed=False), Entries(trimmed=True)
BOTH = Entries(trimmed=False, digests=True), Entries(trimmed=True, digests=True)

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


DIGEST, PENDING = digest_of(b"value"), digest_of(b"what comes")


def test_a_digest_tells_values_apart_and_is_never_the_one_of_nothing() -> None:
    assert len({digest_of(b""), DIGEST, PENDING, PENDING_GONE}) == 4
    assert {len(each) for each in (digest_of(b""), DIGEST, PENDING_GONE)} == {16}
    assert digest_of(b"value") == DIGEST


@pytest.mark.parametrize("entries", BOTH, ids=["whole", "trimmed"])
class TestEntriesWithDigests:
    @given(signature=signatures)
    def test_say_what_both_sides_had_last(self, entries: Entries, signature: Signature) -> None:
        entry = entries.encode_with(signature, DIGEST)
        assert entries.decode(entry) == signature
        assert (entries.digest(entry), entries.pending(entry)) == (DIGEST, None)

    @pytest.mark.parametrize("pending", [PENDING, PENDING_GONE])
    def test_say_what_the_service_was_about_to_write(
        self, entries: Entries, pending: bytes
    ) -> None:
        entry = entries.encode_with(SIGNATURE, DIGEST, pending)
        assert entries.decode(entry) == SIGNATURE
        assert (entries.digest(entry), entries.pending(entry)) == (DIGEST, pending)

    def test_without_one_are_of_one_way_and_the_ancestor_is_not_known(
        self, entries: Entries
    ) -> None:
        entry = entries.encode(SIGNATURE)
        assert entries.decode(entry) == SIGNATURE
        assert entries.digest(entry) is entries.pending(entry) is None
        assert not entries.is_same(entry, SIGNATURE)

    def test_tell_all_of_a_file_while_it_has_not_changed_and_nothing_is_pending(
        self, entries: Entries
    ) -> None:
        entry = entries.encode_with(SIGNATURE, DIGEST)
        assert entries.is_same(entry, SIGNATURE)
        assert not entries.is_same(entry, SIGNATURE._replace(ctime=SIGNATURE.ctime + 1))
        assert not entries.is_same(entry, SIGNATURE._replace(inode=4))
        assert not entries.is_same(entries.encode_with(SIGNATURE, DIGEST, PENDING), SIGNATURE)
        assert not entries.is_same(entries.encode_with(SIGNATURE.unsure(), DIGEST), SIGNATURE)
        assert not entries.is_same(None, SIGNATURE)

    def test_of_the_other_setting_and_of_other_forms_are_no_files(self, entries: Entries) -> None:
        (other,) = set(BOTH) - {entries}
        written = [
            other.encode(SIGNATURE),
            other.encode_with(SIGNATURE, DIGEST),
            other.encode_with(SIGNATURE, DIGEST, PENDING),
            *(bytes(length) for length in (0, 15, 16, 31, 34, 47, 50, 63, 66)),
        ]
        for entry in written:
            assert entries.decode(entry) == NONE
            assert entries.digest(entry) is entries.pending(entry) is None
            assert not entries.is_same(entry, SIGNATURE)

    def test_there_are_none_of_no_file(self, entries: Entries) -> None:
        assert entries.decode(None) is None
        assert entries.digest(None) is entries.pending(None) is None

    def test_are_no_files_where_redis_is_the_copy(self, entries: Entries) -> None:
        # There nobody has looked whether Redis still has the value.
        one_way = WHOLE if entries is BOTH[0] else TRIMMED
        assert one_way.decode(entries.encode_with(SIGNATURE, DIGEST)) == NONE
        assert one_way.decode(entries.encode_with(SIGNATURE, DIGEST, PENDING)) == NONE
