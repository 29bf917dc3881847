"""What other clients do on the server meanwhile: redis-benchmark sets keys that no file has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import BenchmarkError
from benchmarks.machine import output
from benchmarks.mirror.load import SIZE
from benchmarks.mirror.server import Server, until

_CLIENTS = 50
_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Load:
    """What these clients do: so many SETs in all, each client so many at once."""

    sets: int
    pipelined: int

    def __str__(self) -> str:
        """Say what it is."""
        return f"{_CLIENTS} clients, {self.pipelined} at once each"

    def rate(self, server: Server) -> float:
        """Have it done; return how many SETs a second the server did."""
        said = output(*self._command(server), "-n", str(self.sets), "--csv")
        for line in said.splitlines():
            words = line.replace('"', "").split(",")
            if words[0] == "SET":
                return float(words[1])
        raise BenchmarkError(f"redis-benchmark did not say what it did: {said}")

    @contextmanager
    def going_on(self, server: Server) -> Iterator[None]:
        """Have it done again and again, for the time of the block."""
        before = server.commands()
        command = (*self._command(server), "-n", str(self.sets), "-l", "-q")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                until(lambda: server.commands() > before + self.pipelined * _CLIENTS)
                yield
            finally:
                process.kill()

    def _command(self, server: Server) -> tuple[str, ...]:
        return (
            *("redis-benchmark", "-s", str(server.socket), "-t", "set", "-d", str(SIZE)),
            *("-r", str(_KEYS), "-c", str(_CLIENTS), "-P", str(self.pipelined)),
        )
