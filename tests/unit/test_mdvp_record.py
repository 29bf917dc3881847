import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mdvp.core.volume import Access, Fate, Identity, Means, OnRemove, Volume
from mdvp.disk.record import BadRecordError, decode, encode

KEY = b"k" * 32
HERE = Identity(7, 8)
VOLUME = Volume("vol", datetime(2026, 1, 2, tzinfo=UTC), HERE, Access.SHARED, 1000, 0, 0o770)
RECORD = encode(VOLUME, KEY)


def changed(**fields: object) -> bytes:
    """Return the record with other fields, under the signature of what it was."""
    signature, _, text = RECORD.partition(b" ")
    return signature + b" " + json.dumps(json.loads(text) | fields).encode()


def test_a_record_says_what_the_volume_is() -> None:
    assert decode(RECORD, KEY, "vol", HERE) == VOLUME
    plain = Volume("vol", VOLUME.created_at, HERE)
    assert decode(encode(plain, KEY), KEY, "vol", HERE) == plain


def test_a_record_has_all_that_was_asked_for_of_a_volume() -> None:
    fate = OnRemove(Fate.TRASH, 60)
    copied = replace(
        VOLUME, on_remove=fate, protect=True, wait=30, size=1000, origin="a", means=Means.REFLINK
    )
    assert decode(encode(copied, KEY), KEY, "vol", HERE) == copied


@pytest.mark.parametrize(
    "record", [encode(VOLUME, b"other" * 8), changed(options={}), b"", b"x", RECORD[:-1]]
)
def test_a_record_that_is_not_signed_by_us_is_not_believed(record: bytes) -> None:
    with pytest.raises(BadRecordError, match="not signed by this mdvp"):
        decode(record, KEY, "vol", HERE)


def test_what_is_trusted_without_a_signature_is_exclusive() -> None:
    believed = decode(RECORD, b"other" * 8, "vol", HERE, trusted=True)
    assert believed == replace(VOLUME, access=Access.EXCLUSIVE)
    assert decode(RECORD, KEY, "vol", HERE, trusted=True) == VOLUME


@pytest.mark.parametrize(("name", "identity"), [("vol2", HERE), ("vol", Identity(7, 9))])
@pytest.mark.parametrize("trusted", [False, True])
def test_the_record_of_another_directory_is_not_believed(
    name: str, identity: Identity, trusted: bool
) -> None:
    with pytest.raises(BadRecordError, match="another directory"):
        decode(RECORD, KEY, name, identity, trusted=trusted)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b" ",
        b" {",
        b" []",
        b" null",
        b" " + b"[" * 100_000,
        b" \xff",
        changed(version=2),
        changed(name="../vol"),
        changed(name=5),
        changed(created_at="yesterday"),
        changed(created_at="0001-01-01T00:00:00+14:00"),
        changed(created_at=None),
        changed(inode="7"),
        changed(options=None),
        changed(options={"quota": "1G"}),
        changed(means="magic"),
        changed(options={"uid": "-1"}),
    ],
)
def test_what_is_no_record_is_not_believed_even_of_ours(record: bytes) -> None:
    with pytest.raises(BadRecordError):
        decode(record, KEY, "vol", HERE, trusted=True)
