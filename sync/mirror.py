"""Brings names in Redis in line with the disk: the plan meets the two edges here.

Failure model. A batch is one transaction in Redis: it is done or not done. Whatever interrupts the
rest, looking at the same names again is always right, so nothing is undone and nothing is retried
here; `sync.service` decides where to begin again.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

from sync.changes import Change, Command, Delete, Set, shown
from sync.files import Directory, File, Found, Unfit
from sync.log import LINES_MAX
from sync.plan import names, plan, settle
from sync.target import Target

log = logging.getLogger(__name__)

# One transaction has at most so many names, and about so many bytes: it is held in memory, and
# other clients of Redis wait while it runs.
_NAMES_MAX = 1000
_BYTES_MAX = 8 << 20


class Mirror:
    """The files of one directory as the keys of one Redis server."""

    def __init__(self, directory: Directory, target: Target, *, trim_newline: bool = False) -> None:
        """Mirror `directory` to `target`; drop one final newline from each value if asked to."""
        self._directory = directory
        self._target = target
        self._trim_newline = trim_newline
        self._unfit: dict[bytes, str] = {}  # why a name is not mirrored, so as to say it once

    def follow(self, changes: Iterable[Change]) -> Iterator[Sequence[Command]]:
        """Do in Redis what `changes` did on disk; yield each batch of commands when it is done."""
        planned = plan(changes)
        renamed = names(planned.renames)
        settled = settle(
            planned,
            self._target.held(renamed),
            {name: self._directory.signature(name) for name in renamed},
        )
        if settled.renames:
            self._target.apply(settled.renames)
            yield settled.renames
        yield from self.examine(settled.examine)

    def examine(self, suspects: Iterable[bytes]) -> Iterator[Sequence[Command]]:
        """Make Redis hold under each of these names what is on disk; yield each batch when done."""
        commands: list[Set] = []
        absent: list[bytes] = []
        size = 0
        for name in suspects:
            found = self._directory.read(name, self._target.value_max)
            self._note(name, found)
            if isinstance(found, File):
                commands.append(Set(name, self._value(found.content), found.signature))
                size += len(found.content)
            else:
                absent.append(name)
            if len(commands) + len(absent) >= _NAMES_MAX or size >= _BYTES_MAX:
                yield self._carry_out(commands, absent)
                commands, absent, size = [], [], 0
        if commands or absent:
            yield self._carry_out(commands, absent)

    def stale(self) -> Iterator[bytes]:
        """Yield the names that Redis holds content of and that are no regular file (any more)."""
        for page in self._target.manifest():
            for name in page:
                if self._directory.signature(name) is None:
                    yield name

    def _carry_out(self, sets: Sequence[Set], absent: Sequence[bytes]) -> Sequence[Command]:
        held = self._target.held(absent)
        # A key that we did not put there is not ours to delete.
        commands: list[Command] = list(sets)
        commands += (Delete(name) for name in absent if held[name] is not None)
        if commands:
            self._target.apply(commands)
        _report_gone([name for name in absent if held[name] is None and name not in self._unfit])
        return commands

    def _value(self, content: bytes) -> bytes:
        return content.removesuffix(b"\n") if self._trim_newline else content

    def _note(self, name: bytes, found: Found) -> None:
        if not isinstance(found, Unfit):
            self._unfit.pop(name, None)
        elif self._unfit.get(name) != found.why:
            self._unfit[name] = found.why
            log.error("%s %s", shown(name), found.why)


def _report_gone(names: Sequence[bytes]) -> None:
    if len(names) > LINES_MAX:
        log.info("%d files were gone before they could be read", len(names))
        return
    for name in names:
        log.info("%s was gone before it could be read", shown(name))
