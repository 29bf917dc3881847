"""Prefixes of which one begins with the other: who waits, and for whom."""

from __future__ import annotations

import json
from dataclasses import asdict
from unittest import mock

import pytest

from sync.core.errors import OverlapError
from sync.redis.keys import EPOCH, LEASE
from sync.redis.lease import LIFE, Holder, Lease
from sync.redis.overlap import Overlap

OTHER = Holder(host="there", pid=7, machine="n", run="theirs", since=1.5e9)
ITS = json.dumps(asdict(OTHER)).encode()


class Server:
    """What holds some keys, each for as long as a lease."""

    def __init__(self, *keys: bytes, may_look: bool = True) -> None:
        self.keys = set(keys)
        self.may_look = may_look
        self.asked: list[bytes] = []

    def converse(self, *requests: tuple[bytes | int, ...]) -> list[object]:
        return [self._answer(*request) for request in requests]

    def _answer(self, command: object, *keys: object) -> object:
        if not self.may_look:
            return PermissionError("NOPERM")
        if command == b"EXISTS":
            self.asked = [key for key in keys if isinstance(key, bytes)]
            return len(self.keys.intersection(self.asked))
        is_there = keys[0] in self.keys
        return (ITS if is_there else None) if command == b"GET" else LIFE if is_there else -2


def overlap(prefix: bytes, *, in_one_slot: bool = False) -> Overlap:
    return Overlap(prefix, Lease(prefix), in_one_slot=in_one_slot)


@pytest.mark.parametrize("prefix", [b"", b"a", b"a:b"])
def test_one_with_a_shorter_prefix_is_waited_for_while_it_works(prefix: bytes) -> None:
    it, server = overlap(b"a:b:"), Server(prefix + LEASE)
    with pytest.raises(OverlapError, match=f"SYNC_PREFIX='{prefix.decode()}', and this one has"):
        it.check(server)
    server.keys.clear()
    it.check(server)


@pytest.mark.parametrize("prefix", [b"a:b:", b"a:b:c", b"b", b"a:c"])
def test_others_are_not(prefix: bytes) -> None:
    overlap(b"a:b:").check(Server(prefix + LEASE))


def test_nobody_is_waited_for_of_whom_nothing_can_be_known() -> None:
    overlap(b"a:").check(Server(LEASE, may_look=False))


def test_in_a_cluster_only_those_are_asked_for_that_are_in_the_same_slot() -> None:
    server = Server()
    overlap(b"x{a}:b", in_one_slot=True).check(server)
    assert server.asked == [b"x{a}" + LEASE, b"x{a}:" + LEASE]
    overlap(b"x{a}").check(server)
    assert server.asked == [each + LEASE for each in (b"", b"x", b"x{", b"x{a")]


def test_one_with_a_longer_prefix_is_waited_for_if_it_has_not_waited_itself() -> None:
    with mock.patch("sync.redis.overlap.time.monotonic") as clock:
        clock.return_value = 100.0
        it, server = overlap(b"a:"), Server(b"a:b:" + LEASE)
        it.hear([b"x", b"b:" + LEASE])
        clock.return_value = 102.9
        it.hear([b"b:" + LEASE])
        it.check(server)
        clock.return_value = 103.0
        for _ in range(2):  # also before it works again
            with pytest.raises(OverlapError, match="SYNC_PREFIX='a:b:', and this one has 'a:'"):
                it.check(server)
        server.keys.clear()
        it.check(server)
        server.keys = {b"a:b:" + LEASE}
        it.check(server)  # until it is heard of again


def test_one_whose_keys_are_in_the_way_is_waited_for_until_they_are_gone() -> None:
    it, server = overlap(b"a:"), Server(b"a:b:" + EPOCH)
    it.check(server)
    it.keep_out(b"b:")
    with pytest.raises(OverlapError, match="another mdvp-sync has keys with SYNC_PREFIX='a:b:'"):
        it.check(server)
    server.keys.clear()
    it.check(server)
    assert server.asked == [LEASE, b"a" + LEASE, b"a:b:" + EPOCH]
    it.check(server)
    assert server.asked == [LEASE, b"a" + LEASE]
