"""A reader of keys that looks as often as it can, in a process of its own, and forgets nothing.

    python beholder.py SOCKET NAME...

It says that it looks, and when its input ends, all values that it has seen, by length and checksum.
"""

import json
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import redis


class Value(NamedTuple):
    """What tells one value from another: its length, -1 where there is none, and a checksum."""

    length: int
    checksum: int

    @classmethod
    def of(cls, content: bytes | None) -> "Value":
        return cls(-1, 0) if content is None else cls(len(content), zlib.crc32(content))


@dataclass
class Seen:
    """How often each value was seen; to be read after the block."""

    values: Counter[Value] = field(default_factory=Counter)

    def other_than(self, values: set[Value]) -> str:
        """Return what was seen beside these values, in words; none when there is nothing."""
        others = {each: number for each, number in self.values.items() if each not in values}
        if not others:
            return ""
        lengths = sorted({value.length for value in others})[:10]
        return (
            f"{sum(others.values())} of {self.values.total()} looks saw another value, "
            f"{len(others)} different ones, of lengths {lengths}"
        )


@contextmanager
def beheld(server: Path, *names: str) -> Iterator[Seen]:
    """Look at keys all the time for the time of the block; what was seen is known after it."""
    seen = Seen()
    with subprocess.Popen(
        (sys.executable, __file__, str(server), *names),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "looking\n"
            yield seen
            output, _ = process.communicate(timeout=10)
            for length, checksum, number in json.loads(output):
                seen.values[Value(length, checksum)] += number
        finally:
            process.kill()


def look(server: str, names: list[str]) -> None:
    """Look until the input ends; write what was seen."""
    seen: Counter[bytes | None] = Counter()
    told: Counter[Value] = Counter()
    ends = Thread(target=sys.stdin.read, daemon=True)
    ends.start()
    with redis.Redis(unix_socket_path=server) as client:
        sys.stdout.write("looking\n")
        sys.stdout.flush()
        while ends.is_alive():
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.get(name)
            seen.update(pipeline.execute())
            if len(seen) > 1000:  # they may be large
                _tell(seen, told)
        _tell(seen, told)
    sys.stdout.write(json.dumps([(*value, number) for value, number in told.items()]))


def _tell(seen: Counter[bytes | None], told: Counter[Value]) -> None:
    for content, number in seen.items():
        told[Value.of(content)] += number
    seen.clear()


if __name__ == "__main__":
    look(sys.argv[1], sys.argv[2:])
