"""Keys that are called like another service's own: which are, and which are just called so."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from sync.core.errors import RedisChangedError
from sync.redis.neighbours import Neighbours, is_like_epoch, is_like_own

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync.redis.target import Target

EPOCH, MANIFEST, STATE = b"x/mdvp-sync/epoch", b"x/mdvp-sync/manifest", b"x/mdvp-sync/state"


class Database:
    """What is in Redis: strings, and hashes, which have no value; and the files there are."""

    prefix = b"p:"

    def __init__(self, **keys: bytes | None) -> None:
        self.keys = {name.encode(): value for name, value in keys.items()}
        self.files: set[bytes] = set()
        self.manifest: set[bytes] = set()
        self.asked = 0
        self.kept_out: list[bytes] = []

    def keep_out(self, prefix: bytes) -> None:
        self.kept_out.append(prefix)

    def entries(self, names: Sequence[bytes]) -> list[bytes | None]:
        return [b"entry" if name in self.manifest else None for name in names]

    def converse(self, *requests: Sequence[bytes | int]) -> list[object]:
        self.asked += 1
        return [self._answer(request) for request in requests]

    def _answer(self, request: Sequence[bytes | int]) -> object:
        command, key = request[:2]
        assert isinstance(key, bytes)
        assert key.startswith(self.prefix)
        name = key.removeprefix(self.prefix)
        value = self.keys.get(name, b"")
        if command == b"TYPE":
            kind = b"hash" if value is None else b"string"
            return kind if name in self.keys else b"none"
        return TypeError("WRONGTYPE") if value is None else value

    def neighbours(self) -> Neighbours:
        return Neighbours(cast("Target", self), self.files.__contains__)


def database(**keys: bytes | None) -> Database:
    return Database(**{f"x/mdvp-sync/{name}": value for name, value in keys.items()})


def test_a_name_that_is_not_like_one_of_a_services_own_is_nobodys() -> None:
    it = database(epoch=b"7", manifest=None)
    names = [b"a", b"mdvp-sync/epoch", b"x/mdvp-sync/conf", b"x/mdvp-sync/epochs", b"/mdvp-sync/"]
    assert it.neighbours().keys(names) == []
    assert it.asked == 0


def test_a_number_and_a_record_are_a_service() -> None:
    it = database(epoch=b"7", manifest=None)
    with pytest.raises(RedisChangedError, match="another mdvp-sync has keys that begin with x"):
        it.neighbours().keys([MANIFEST])
    assert it.kept_out == [b"x"]  # and the lease is let go of
    with pytest.raises(RedisChangedError):
        database(epoch=b"7", state=None).neighbours().keys([b"x/mdvp-sync/manifest/a/"])


def test_a_number_alone_is_left_alone() -> None:
    it = database(epoch=b"7", manifest=b"a string")
    assert it.neighbours().keys([EPOCH, MANIFEST, b"a"]) == [EPOCH, MANIFEST]


@pytest.mark.parametrize("epoch", [b"", b"seven", b"-7", b"9" * 21, None])
def test_what_is_no_number_is_no_epoch(epoch: bytes | None) -> None:
    assert database(epoch=epoch, manifest=None).neighbours().keys([EPOCH, MANIFEST]) == []


def test_what_a_file_is_called_is_no_services() -> None:
    it = database(epoch=b"7", manifest=None)
    it.files = {EPOCH}
    assert it.neighbours().keys([EPOCH, MANIFEST, STATE]) == []
    it.files = {MANIFEST}
    assert it.neighbours().keys([MANIFEST]) == []


def test_nor_what_one_was_called_when_both_sides_were_equal() -> None:
    it = database(epoch=b"7", manifest=None)
    it.manifest = {EPOCH, STATE}
    assert it.neighbours().keys([EPOCH, MANIFEST, STATE]) == []


def test_a_name_can_be_anothers_in_more_than_one_way() -> None:
    it = Database(**{"a/mdvp-sync/names/mdvp-sync/epoch": b"1", "a/mdvp-sync/epoch": b"text"})
    name = b"a/mdvp-sync/names/mdvp-sync/lost"
    assert it.neighbours().keys([name]) == [name]


def test_many_are_asked_for_in_parts() -> None:
    names = {f"{number}/mdvp-sync/epoch": b"7" for number in range(700)}
    it = Database(**names)
    assert it.neighbours().keys(list(it.keys)) == list(it.keys)
    assert it.asked == 3


def test_names_are_told_apart_by_their_look() -> None:
    assert [is_like_own(name) for name in (EPOCH, b"x/mdvp-sync/conf", b"x/mdvp-sync")] == [
        *(True, True, False)
    ]
    assert [is_like_epoch(name) for name in (EPOCH, MANIFEST)] == [True, False]
