"""How a server is, as it says so itself, and how it is asked."""

from collections.abc import Iterator
from threading import Event

import pytest
from support import eventually

from sync.core.errors import RedisAwayError
from sync.redis import vitals as module
from sync.redis.info import lines_of
from sync.redis.vitals import Pulse, Vitals, vitals

REDIS = b"""# Server\r
redis_version:8.0.2\r
redis_mode:standalone\r
# Replication\r
role:master\r
# Clients\r
connected_clients:3\r
# Memory\r
used_memory:1234567\r
maxmemory:67108864\r
maxmemory_policy:noeviction\r
# Stats\r
instantaneous_ops_per_sec:2406\r
evicted_keys:5\r
"""
KNOWN = Vitals("Redis", "8.0.2", "master", 1234567, 67108864, "noeviction", 3, 2406, 5)


def test_a_server_tells_how_it_is() -> None:
    assert vitals(lines_of([REDIS])) == KNOWN


def test_one_of_another_name_has_its_own_version() -> None:
    told = lines_of([REDIS, b"server_name:valkey\r\nvalkey_version:8.1.3\r\n"])
    assert vitals(told)[:2] == ("Valkey", "8.1.3")
    assert vitals(lines_of([REDIS, b"server_name:other\r\n"]))[:2] == ("Other", "8.0.2")


def test_what_is_not_told_is_left_out() -> None:
    assert vitals({}) == Vitals("Redis", "", "", 0, 0, "", 0, 0, 0)
    assert vitals({b"role": b"\xff", b"maxmemory": b"much"})[2:5] == (r"\xff", 0, 0)
    assert vitals({b"used_memory": b"9" * 400, b"maxmemory": b"9" * 5000})[3:5] == (0, 0)


class Asked:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = Event()
        self.answer: Vitals | Exception = KNOWN
        self.times = 0

    def __call__(self) -> Vitals:
        self.times += 1
        self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    asked.may_answer.set()


@pytest.fixture
def pulse(asked: Asked) -> Iterator[Pulse]:
    pulse = Pulse(asked, 0.01)
    yield pulse
    pulse.close()


def test_nobody_waits_for_the_first_answer(pulse: Pulse, asked: Asked) -> None:
    assert pulse.last is None
    asked.may_answer.set()
    eventually(lambda: pulse.last, KNOWN)


@pytest.mark.parametrize(
    "error",
    [RedisAwayError("refused"), ValueError("refused"), AttributeError("get: refused")],
)
def test_a_server_that_is_away_is_asked_again(pulse: Pulse, asked: Asked, error: Exception) -> None:
    asked.answer = error
    asked.may_answer.set()
    eventually(lambda: "refused" in str(pulse.last), True)
    asked.answer = KNOWN
    eventually(lambda: pulse.last, KNOWN)


def test_a_server_that_hangs_does_not_answer_whatever_it_said_before(
    pulse: Pulse, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    asked.may_answer.set()
    eventually(lambda: pulse.last, KNOWN)
    asked.may_answer.clear()
    eventually(lambda: pulse.last, "does not answer (for 0 s)")
    asked.may_answer.set()
    eventually(lambda: pulse.last, KNOWN)


def test_it_is_asked_no_more_in_the_end_and_not_before_its_time(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)  # an answer counts for as long as none is awaited
    asked.may_answer.set()
    pulse = Pulse(asked, 3600.0)
    eventually(lambda: pulse.last, KNOWN)
    pulse.close()
    eventually(lambda: pulse.is_asking, False)
    assert asked.times == 1
