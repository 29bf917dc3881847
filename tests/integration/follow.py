"""What a running mdvp says, as it says it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from integration.plugin import Plugin


@dataclass(frozen=True)
class Log:
    """The lines so far, of one process or of several in a row."""

    lines: list[str] = field(default_factory=list)

    def says(self, *words: str) -> bool:
        return self.count(*words) > 0

    def count(self, *words: str) -> int:
        """Return how many lines have all these words in them."""
        return sum(all(word in line for word in words) for line in self.lines)


@contextmanager
def following(plugin: Plugin, log: Log | None = None) -> Iterator[Log]:
    """Keep the log of `plugin`, which is killed at the end of the block."""
    log = log or Log()
    assert plugin.process.stdout is not None
    # A pipe that nobody reads would stop a plugin that has much to say.
    thread = Thread(target=log.lines.extend, args=(plugin.process.stdout,))
    thread.start()
    try:
        yield log
    finally:
        plugin.kill()
        thread.join(10)
