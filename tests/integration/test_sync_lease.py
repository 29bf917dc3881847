"""Several services with the same keys: one works, the others stand by until it has ended."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.conftest import paused
from support import eventually

from sync.redis.keys import EPOCH

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start

# Processes that do not know each other's numbers, as in two containers or on two hosts.
ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
TAKEN_OVER = 5.0  # seconds that it may take at most
AT_ONCE = 1.0


def state(service: Service) -> str:
    """Return what the service says that it does; "" when it says nothing yet."""
    try:
        with open(service.environ["SYNC_STATUS"], encoding="utf-8") as file:  # noqa: PTH123
            return str(json.load(file)["state"])
    except FileNotFoundError:
        return ""


def pair(start: Start) -> tuple[Service, Service]:
    """Return one service that works, and one that stands by, as if on two hosts."""
    works = start(in_step=True, prefix=ELSEWHERE)
    other = start(prefix=ELSEWHERE)
    eventually(lambda: state(other), "standby")
    return works, other


def signal_elsewhere(service: Service, number: signal.Signals) -> None:
    """Send a signal to a service that runs ELSEWHERE, not to what has started it there."""
    pid = service.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    os.kill(int(child), number)


def takes_over(service: Service, since: float) -> float:
    """Wait until a service works; return how long it took, in seconds."""
    eventually(lambda: service.says(" equals "), True)
    took = time.monotonic() - since
    assert len(service.lines("taking over")) == 1
    service.catches_up()
    return took


@pytest.mark.usefixtures("redis_server")
class TestOneStandsBy:
    def test_and_says_so_and_is_well(self, start: Start) -> None:
        works, other = pair(start)
        status, first = other.health()
        assert status == 0
        assert first.startswith("standby: another mdvp-sync works with the same keys: the one on ")
        assert works.health() == (0, "live: Redis equals the directory")
        assert len(other.lines("standing by: another mdvp-sync works")) == 1
        assert not other.says("ERROR")

    def test_while_the_other_goes_on_as_ever(self, redis_server: RedisServer, start: Start) -> None:
        works, other = pair(start)
        epoch = redis_server.client.get(EPOCH)
        end = time.monotonic() + 6  # longer than a lease lasts
        while time.monotonic() < end:
            works.catches_up()
        assert redis_server.client.get(EPOCH) == epoch
        assert state(other) == "standby"
        assert not works.says("waiting")

    def test_and_takes_over_at_once_from_one_that_stops(self, start: Start) -> None:
        works, other = pair(start)
        began = time.monotonic()
        signal_elsewhere(works, signal.SIGTERM)
        assert takes_over(other, began) < AT_ONCE + 0.5

    def test_and_takes_over_from_one_that_was_killed(self, start: Start) -> None:
        works, other = pair(start)
        began = time.monotonic()
        works.process.kill()
        assert takes_over(other, began) < TAKEN_OVER

    def test_and_takes_over_at_once_from_one_that_was_killed_beside_it(self, start: Start) -> None:
        works, other = start(in_step=True), start()
        eventually(lambda: state(other), "standby")
        works.process.kill()
        began = time.monotonic()
        works.process.wait()
        assert takes_over(other, began) < AT_ONCE + 0.5

    def test_and_takes_over_from_one_that_hangs_and_changes_nothing_when_it_goes_on(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        works = start(in_step=True)
        other = start()
        eventually(lambda: state(other), "standby")
        with paused(works.process):
            began = time.monotonic()
            (works.root / "a").write_text("one")
            assert takes_over(other, began) < TAKEN_OVER
            epoch = redis_server.client.get(EPOCH)
        eventually(lambda: state(works), "standby")
        other.catches_up()
        assert redis_server.client.get(EPOCH) == epoch
