"""What both sides last held alike, as far as entries tell: after a crash, too."""

from typing import cast

import pytest

from sync.core.changes import NONE, Signature
from sync.core.decision import ABSENT, Action, Mode, Value
from sync.core.manifest import NOTHING, PENDING_GONE, Entries, digest_of
from sync.redis.target import Key
from sync.service.absence import Absence
from sync.service.downloads import Downloads
from sync.service.judge import Judge, OnDisk

FORMAT = Entries(trimmed=False, digests=True)
ONE, TWO, THREE = (digest_of(value) for value in (b"one", b"two", b"three"))
FILE = Signature(1, 3, 2, 3)


class Sure:
    """Tells that no key has gone by itself."""

    is_doubtful = False


def action(entry: bytes | None, disk: Value, redis: bytes | None) -> Action:
    judge = Judge(FORMAT, Mode.TWO_WAY_SAFE, cast("Absence", Sure()), cast("Downloads", None))
    on_disk = OnDisk(disk, None if disk is ABSENT else FILE)
    key = Key(entry, len(redis or b""), redis)
    (case,) = judge.cases({b"a": on_disk}, [key])
    return case.action


@pytest.mark.parametrize("before", [(NONE, NOTHING), (FILE, ONE)], ids=["new", "over another"])
def test_what_was_about_to_be_written_is_nobodys_change(before: tuple[Signature, bytes]) -> None:
    pending = FORMAT.encode_with(*before, TWO)
    assert action(pending, TWO, b"three") is Action.TO_DISK
    assert action(pending, TWO, None) is Action.TO_DISK
    assert action(pending, THREE, b"two") is Action.CONFLICT


def test_what_was_about_to_be_removed_is_nobodys_change() -> None:
    pending = FORMAT.encode_with(FILE, ONE, PENDING_GONE)
    assert action(pending, ABSENT, b"two") is Action.TO_DISK
    assert action(pending, ONE, None) is Action.TO_DISK


def test_without_that_it_is_a_conflict() -> None:
    assert action(FORMAT.encode_with(FILE, ONE), TWO, b"three") is Action.CONFLICT
    assert action(FORMAT.encode_with(FILE, ONE), ABSENT, b"two") is Action.CONFLICT
