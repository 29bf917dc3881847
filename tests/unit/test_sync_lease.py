"""The lease: whose it is, by what its key holds and for how long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from unittest import mock

import pytest

from sync.redis.lease import LIFE, Holder, Lease

ME = Holder(host="here", pid=7, machine="m", run="mine", since=0.0)
OTHER = Holder(host="there", pid=7, machine="n", run="theirs", since=1.5e9)


def on_my_machine(pid: int) -> Holder:
    return replace(OTHER, machine=ME.machine, pid=pid)


def value(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def ended() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen((sys.executable, "-c", "")) as process:
        return process.pid


def test_another_holds_what_it_has_put_there_until_it_expires() -> None:
    assert Lease(b"", ME).other([value(OTHER), 1]) == OTHER
    assert Lease(b"", ME).other([value(OTHER), LIFE]) == OTHER


@pytest.mark.parametrize(
    ("held", "ttl"),
    [
        (None, -2),
        (value(ME), LIFE),
        (value(OTHER), -1),  # it has no end: who would renew it?
        (value(OTHER), LIFE + 1),
        (b"somebody's", LIFE),
        (b"[" * 1500, -1),
        (b"[" * 100_000, LIFE),
        (value(OTHER)[:-1] + b" " * 2_000 + b"}", LIFE),
        (b"{}", LIFE),
        (value(OTHER).replace(b"1500000000.0", b"1e30"), LIFE),
        (value(OTHER).replace(b"1500000000.0", b"NaN"), LIFE),
        (b"[]", LIFE),
        (b"7", LIFE),
        (value(OTHER)[:-1], LIFE),
        (value(OTHER).replace(b"7", b"true"), LIFE),
        (value(OTHER).replace(b'"n"', b"{}"), LIFE),
        (TypeError("WRONGTYPE"), LIFE),
        (PermissionError("NOPERM"), PermissionError("NOPERM")),
    ],
)
def test_nobody_holds_what_is_no_lease_of_another(held: object, ttl: object) -> None:
    assert Lease(b"", ME).other([held, ttl]) is None


def test_a_process_that_has_ended_holds_nothing() -> None:
    gone = on_my_machine(ended())
    assert gone.is_gone(ME)
    assert Lease(b"", ME).other([value(gone), LIFE]) is None
    assert on_my_machine(ME.pid).is_gone(ME)


@pytest.mark.parametrize("pid", [os.getpid(), 1, 1 << 70])
def test_one_that_runs_or_may_run_is_not_gone(pid: int) -> None:
    assert not on_my_machine(pid).is_gone(ME)


def test_nor_is_one_of_which_nothing_is_known() -> None:
    assert not replace(OTHER, pid=ended()).is_gone(ME)


def test_what_is_gone_before_its_time_is_not_free_until_it_would_have_expired() -> None:
    with mock.patch("sync.redis.lease.time.monotonic") as clock:
        lease = Lease(b"", ME)
        clock.return_value = 100.0
        assert not lease.is_free([value(OTHER), LIFE])
        clock.return_value = 103.9
        assert not lease.is_free([None, -2])
        assert not lease.is_free([b"somebody's", -1])
        assert not lease.is_free([value(OTHER), -1])  # somebody has said how long it lasts
        assert not lease.is_free([value(OTHER), LIFE + 1])
        clock.return_value = 104.0
        assert lease.is_free([None, -2])


def test_what_is_given_back_is_free_at_once_and_so_is_that_of_a_process_that_has_ended() -> None:
    for seen in (Lease(b"", OTHER).giving_back()[2], value(on_my_machine(ended()))):
        lease = Lease(b"", ME)
        assert not lease.is_free([value(OTHER), LIFE])
        assert lease.is_free([seen, LIFE])


def test_it_is_renewed_with_whatever_is_sent_but_not_each_time() -> None:
    with mock.patch("sync.redis.lease.time.monotonic") as clock:
        lease = Lease(b"p:", ME)
        clock.return_value = 100.0
        lease.taking()
        assert lease.renewal_due() == ()
        clock.return_value = 110.0
        assert lease.renewal_due() == ()  # somebody else may have it
        lease.is_held = True
        assert lease.renewal_due() == ((b"PEXPIRE", b"p:/mdvp-sync/lease", LIFE),)
        assert lease.renewal_due() == ()


def test_it_says_who_holds_it_in_one_line() -> None:
    assert str(OTHER) == "the one on there, process 7, since 2017-07-14 02:40:00 UTC"
    assert "\n" not in str(replace(OTHER, host="a\nb"))
    assert "on \\xed" in str(replace(OTHER, host="\ud800"))  # as no machine is called
