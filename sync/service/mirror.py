"""Brings names in Redis in line with the disk: the plan meets the two edges here.

Failure model. A batch is one transaction in Redis: it is done or not done. Whatever interrupts the
rest, looking at the same names again is always right, so nothing is undone and nothing is retried
here; `sync.service.session` decides what to do. What cannot be read yet, because its writer has
locked it or does not stop writing, is deferred: the caller has it examined again.
"""

import logging
import time
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice

from sync.core.changes import Arrive, Command, Confirm, Delete, Rename, Set, Signature, shown
from sync.core.plan import Plan, settle
from sync.disk.files import Directory, File, Found, LargeFile, Locked, Unfit, can_be_now
from sync.disk.links import Links
from sync.redis.target import Target
from sync.report.log import LINES_MAX

log = logging.getLogger(__name__)

# One transaction has at most so many names, and about so many bytes: it is held in memory, and
# other clients of Redis wait while it runs.
NAMES_MAX = 1000
_BYTES_MAX = 8 << 20
_BYTES_MAX_SPARING = 1 << 17

_CONFIRMED = 100  # names at once: what happens meanwhile waits
_TRIES = 2  # reads of a large file that changes meanwhile
_UNSURE_MAX = 50_000  # names remembered, some 15 MB
_SKIPPED_MAX = 10_000  # names remembered; the others are not mirrored either, but not listed


@dataclass(frozen=True, slots=True)
class _Shared:
    """Files that have several names: which were found, and under which names."""

    found: set[int] = field(default_factory=set)
    names: set[bytes] = field(default_factory=set)


class Mirror:
    """The files of one directory as the keys of one Redis server.

    Attributes:
        links: the names of files that have several.
        skipped: why a name is not mirrored, by name.
        is_streaming: whether a large file is on its way. Nothing else must be followed then: what
            was found under its name must not arrive after what is found there later.
        streamed: seconds that large files have taken.
        saw_unknown: set when something happened under a name that is nobody's, and that Redis
            holds nothing under. It may have been one more name of a file, for a moment; then what
            was written under it has changed a value, and only a look at all files tells which.

    """

    def __init__(
        self,
        directory: Directory,
        target: Target,
        skipped: dict[bytes, str],
        *,
        trim_newline: bool = False,
        sparing: bool = False,
    ) -> None:
        """Mirror `directory` to `target`; drop one final newline from each value if asked to.

        What is `skipped` already is known, and not said again. A `sparing` mirror sends little at
        once, to a server that is short of memory: what it is sent needs memory too.
        """
        self._bytes_max = _BYTES_MAX_SPARING if sparing else _BYTES_MAX
        self._directory = directory
        self._target = target
        self._trim_newline = trim_newline
        self.links = Links(directory)
        self._deferred: list[bytes] = []
        # Names whose entries in Redis are unsure, with the signatures that they are to have.
        self._unsure: dict[bytes, Signature] = {}
        self.skipped = skipped
        self._complaints, self._complaints_end = 0, 0.0  # in this second, and when it ends
        self.is_streaming = False
        self.saw_unknown = False
        self.streamed = 0.0

    def follow(self, plan: Plan) -> Iterator[Sequence[Command]]:
        """Do in Redis what was done on disk; yield each batch of commands when it is done."""
        renamed = plan.names()
        on_disk = {name: self._directory.signature(name) for name in renamed}
        settled = settle(plan.moves, self._target.held(renamed), on_disk)
        for renames in _in_batches(settled.renames):
            self._target.apply(renames)
            for rename in renames:
                self._unsure.pop(rename.old, None)
                self.links.rename(rename.old, rename.new)
            yield renames
        for name in settled.moved:
            if signature := on_disk[name]:
                self._remember(name, signature)
        yield from self.examine(chain(settled.missed, plan.examine))

    def examine(self, names: Iterable[bytes]) -> Iterator[Sequence[Command]]:
        """Make Redis hold under each of these names what is on disk; yield each batch when done.

        The other names are examined too of a file that has several, or had when it still had one
        of these. Yields an empty batch now and then while a large file is on its way.
        """
        shared = _Shared()
        yield from self._batches(names, shared)
        self.links.look_for(shared.found)
        others = self.links.names(shared.found) - shared.names
        # One of these may have been examined before the file was written to by a name that it lost.
        while others := others | self.links.take_lost():
            yield from self._batches(others, _Shared())
            others = set()

    def examine_files(self, names: Iterable[bytes]) -> Iterator[Sequence[Command]]:
        """Examine these names alone, each of which was found to be a regular file's just now."""
        yield from self._batches(names, _Shared(), seen=True)
        yield from self.examine_lost()

    def examine_lost(self) -> Iterator[Sequence[Command]]:
        """Examine the other names of files that have lost one."""
        yield from self.examine(self.links.take_lost())

    def examine_skipped(self) -> Iterator[Sequence[Command]]:
        """Examine what was skipped so far: it may be gone, or fit."""
        yield from self.examine(tuple(self.skipped))

    def take_deferred(self) -> Sequence[bytes]:
        """Return the names that must be examined again, and forget them."""
        deferred, self._deferred = self._deferred, []
        return deferred

    def confirm(self, before: int, pending: Container[bytes]) -> bool:
        """Make sure entries of some names that are unsure; say whether that was all.

        Whatever happened to the files `before` that time (`files.now`) was followed, except for
        what is pending.
        """
        ready = list(
            islice(
                (name for name, has in self._unsure.items() if not can_be_now(has.ctime, before)),
                _CONFIRMED,
            )
        )
        commands: list[Command] = []
        for name in ready:
            signature = self._unsure.pop(name)
            # What is written to a file is told of one of its names only.
            names = self.links.names([signature.inode]) | {name}
            if any(each in pending for each in names):
                continue
            if self._directory.signature(name) == signature:
                commands.append(Confirm(name, signature))
        if commands:
            self._target.apply(commands)
        return len(ready) < _CONFIRMED

    def _batches(
        self, names: Iterable[bytes], shared: _Shared, *, seen: bool = False
    ) -> Iterator[Sequence[Command]]:
        """Carry out what follows from what is found; note in `shared` what has other names.

        Redis carries out one batch while files are read for the next.
        """
        read, size_max = self._directory.read, self._target.value_max
        several = self.links.inodes
        begun: Sequence[Command] = ()
        sets: list[Command] = []
        absent: list[bytes] = []
        size = 0
        for number, name in enumerate(names, 1):
            found = read(name, size_max, seen=seen)
            if isinstance(found, Unfit) or name in self.skipped:
                self._note(name, found)
            if not isinstance(found, File) or found.links > 1 or name in several:
                self._note_links(name, found, shared)
            if isinstance(found, File):
                sets.append(self._set(name, found))
                size += len(found.content)
            elif isinstance(found, LargeFile):
                with self._streaming(found):
                    if sets or absent:
                        done, begun = begun, self._begin(sets, absent)
                        sets, absent, size = [], [], 0
                        yield done
                    yield from self._stream(name, found)
            elif isinstance(found, Locked):
                self._deferred.append(name)
            else:
                self._unsure.pop(name, None)
                absent.append(name)
            if number % NAMES_MAX == 0 or size >= self._bytes_max:
                done, begun = begun, self._begin(sets, absent)
                sets, absent, size = [], [], 0
                yield done
        if sets or absent:
            done, begun = begun, self._begin(sets, absent)
            yield done
        self._target.finish()
        yield begun

    def _note_links(self, name: bytes, found: Found, shared: _Shared) -> None:
        if isinstance(found, File | LargeFile):
            inode, links = found.signature.inode, found.links
        else:  # a name that is left out can be one of a file that is not
            inode, links = self._directory.links(name)
        had = self.links.inodes.get(name)
        if had is None and links <= 1:
            return
        shared.names.add(name)
        if had not in {None, inode}:
            self.links.forget(name)
        if links > 1:
            shared.found.add(inode)
            self.links.note(name, inode, links)

    def _begin(self, sets: Sequence[Command], absent: Sequence[bytes]) -> Sequence[Command]:
        held = self._target.entries(absent)
        # A key that we did not put there is not ours to delete.
        deletes = [Delete(name) for name, entry in zip(absent, held, strict=True) if entry]
        self.saw_unknown = self.saw_unknown or any(
            entry is None and not self._directory.has(name)
            for name, entry in zip(absent, held, strict=True)
        )
        commands = [*sets, *deletes]
        if commands:
            self._target.begin(commands)
        else:
            self._target.finish()
        return commands

    def _set(self, name: bytes, file: File) -> Set:
        content = file.content.removesuffix(b"\n") if self._trim_newline else file.content
        return Set(name, content, self._signature(name, file, steady=file.steady))

    @contextmanager
    def _streaming(self, file: LargeFile) -> Iterator[None]:
        self.is_streaming = True
        began = time.monotonic()
        try:
            with closing(file):
                yield
        finally:
            self.is_streaming = False
            self.streamed += time.monotonic() - began

    def _stream(self, name: bytes, file: LargeFile) -> Iterator[Sequence[Command]]:
        """Bring a large file; if it does not stop changing, as it was found in the last try."""
        for tries_left in reversed(range(_TRIES)):
            whole = yield from self._bring(file)
            if file.is_locked():
                break
            steady = whole and file.is_unchanged()
            if steady or (whole and not tries_left):
                arrive = Arrive(name, self._signature(name, file, steady=steady))
                self._target.apply([arrive])
                yield [arrive]
                return
            # Writers that lock the file are kept out of the last try.
            file.again(hold=tries_left == 1)
            if not file.is_to_be_brought(self._target.value_max):
                break
        self._deferred.append(name)

    def _bring(self, file: LargeFile) -> Generator[Sequence[Command], None, bool]:
        """Bring the content of a large file; return whether it was as long as it should be."""
        size = file.signature.size
        if self._trim_newline and file.ends_with(b"\n"):
            size -= 1
        self._target.reserve(size)
        brought = 0
        for at, piece in file.pieces():
            self._target.bring(at, piece[: size - at])
            brought += len(piece)
            yield ()
        return brought >= size

    def _signature(self, name: bytes, file: File | LargeFile, *, steady: bool) -> Signature:
        """Return the signature to remember for content that was read."""
        self._unsure.pop(name, None)
        if not steady:
            self._deferred.append(name)
            return file.signature.unsure()
        if file.racy:
            self._remember(name, file.signature)
            return file.signature.unsure()
        return file.signature

    def _remember(self, name: bytes, signature: Signature) -> None:
        if len(self._unsure) < _UNSURE_MAX:
            self._unsure[name] = signature

    def _note(self, name: bytes, found: Found) -> None:
        if not isinstance(found, Unfit):
            self.skipped.pop(name, None)
        elif self.skipped.get(name) != found.why and len(self.skipped) < _SKIPPED_MAX:
            self.skipped[name] = found.why
            self._complain(f"{shown(name)} {found.why}")

    def _complain(self, words: str) -> None:
        """Log an error, but not more than LINES_MAX a second."""
        if time.monotonic() >= self._complaints_end:
            self._complaints_end, self._complaints = time.monotonic() + 1, 0
        self._complaints += 1
        if self._complaints <= LINES_MAX:
            log.error("%s", words)
        elif self._complaints == LINES_MAX + 1:
            log.error("other names are not mirrored either: `mdvp-sync status` says which and why")


def _in_batches(groups: Iterable[Sequence[Rename]]) -> Iterator[list[Rename]]:
    """Put groups that must not be parted together, up to about NAMES_MAX renames."""
    batch: list[Rename] = []
    for group in groups:
        batch += group
        if len(batch) >= NAMES_MAX:
            yield batch
            batch = []
    if batch:
        yield batch
