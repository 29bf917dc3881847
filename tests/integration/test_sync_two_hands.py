"""Each mode with two hands at work, on the directory and in Redis: see `two_hands`.

In a check some seconds of each mode; MDVP_HANDS_SECONDS says how many seconds each has in a hunt.
"""

import os
import secrets
import time
from pathlib import Path

import pytest
from integration.conftest import RedisServer, Service, Start
from integration.drift import DriftError
from integration.shape import SHAPES, Shape
from integration.two_hands import TwoHands
from support import eventually

from sync.core.decision import Mode

pytestmark = pytest.mark.waits

SECONDS = float(os.environ.get("MDVP_HANDS_SECONDS", "4"))
SEED = int(os.environ.get("MDVP_HANDS_SEED", "0")) or secrets.randbelow(10**9)
DEADLINE = float(os.environ.get("MDVP_HANDS_DEADLINE", "15"))  # seconds
OPERATIONS = 150  # of each hand, until all comes to rest
TURNS = 5


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_two_hands_lose_nothing(  # noqa: PLR0913, PLR0917  # what there is
    redis_server: RedisServer, root: Path, outside: Path, start: Start, mode: Mode, shape: Shape
) -> None:
    environ = {"SYNC_MODE": mode.value, "SYNC_DELETE_MAX": "100%", "SYNC_RESCAN": "0"}
    service = start(in_step=True, **environ, **shape.environ)
    hands = TwoHands(mode, shape, root, outside, redis_server.client, seed=SEED, deadline=DEADLINE)
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            hands.in_turns(TURNS)
            hands.at_once(OPERATIONS)
            hands.decide()
        hands.judge.check_status(Path(service.environ["SYNC_STATUS"]), hands.judge.look())
    except DriftError as error:
        output = Path(service.environ["OUTPUT"]).read_text().splitlines()[-20:]
        story = "\n".join([hands.story(error.names), "the service said:", *output])
        pytest.fail(f"MDVP_HANDS_SEED={SEED}, {hands.done} operations: {error}\n{story}")
    finally:
        hands.close()
    assert service.process.poll() is None
    assert not service.says("Traceback")
    print(
        f"\n{mode.value}, {shape}: {hands.done} operations, {hands.conflicts} conflicts, "
        f"{hands.losers} losers, at rest after {hands.slowest:.2f} s at most"
    )


@pytest.mark.parametrize(
    "mode",
    [Mode.TWO_WAY_SAFE, Mode.TWO_WAY_RESOLVED, Mode.REDIS_TO_DISK],
    ids=lambda mode: mode.value,
)
def test_no_file_goes_with_a_key_that_is_evicted(
    redis_server: RedisServer, start: Start, mode: Mode
) -> None:
    client = redis_server.client
    service = start(in_step=True, SYNC_MODE=mode.value, SYNC_DELETE_MAX="100%", SYNC_RESCAN="0")
    values = {f"file-{number}": b"%d" % number * 500 for number in range(300)}
    client.mset(values)
    eventually(lambda: len(list(service.root.glob("file-*"))), 300)
    _follows(service)
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 60_000)
    eventually(lambda: int(client.info("stats")["evicted_keys"]) > 0, True)
    client.config_set("maxmemory", 0)
    _follows(service)
    files = {path.name: path.read_bytes() for path in service.root.glob("file-*")}
    assert files == values


def _follows(service: Service) -> None:
    """Wait until what is SET becomes a file: what was heard before has been followed by then."""
    name = f"marker-{secrets.token_hex(4)}"
    service.redis.client.set(name, b"there")
    eventually((service.root / name).exists, True)
    (service.root / name).unlink()
