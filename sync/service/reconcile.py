"""Makes Redis equal to the directory: scans, compares with what Redis holds, transfers the rest.

A reconcile is done in steps, so that the service can do other things between them; above all it
follows what happens meanwhile. That is safe, since each step makes names equal to what is on disk
at that moment, whatever was done before, and since the watch is older than the scan.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice

from sync.core.changes import Arrive, Command, Delete, Set, Signature
from sync.disk.files import Directory
from sync.redis.target import Target
from sync.service.mirror import NAMES_MAX, Mirror


class Reconcile:
    """One look at the whole directory and at all that Redis holds of it.

    Attributes:
        cause: what it is for.
        seen: how many names it has seen.
        sets: how many values it has transferred.
        deletes: how many keys it has removed.
        disturbed: to be set when something was followed meanwhile.

    """

    def __init__(  # noqa: PLR0913  # each is a part, or says what it is for
        self,
        cause: str,
        directory: Directory,
        target: Target,
        mirror: Mirror,
        *,
        values: bool = False,
        at_once: int = NAMES_MAX,
        stale_first: bool = False,
    ) -> None:
        """Prepare it; with `values` it does not take the manifest's word for what keys hold.

        It looks at so many names `at_once`, in a step: what happens meanwhile waits.
        With `stale_first` keys are removed before others are written, and not after.
        """
        self.cause = cause
        self.seen = self.sets = self.deletes = 0
        self.disturbed = False
        self._directory = directory
        self._target = target
        self._mirror = mirror
        self._format = target.format
        self._values = values
        self._at_once = at_once
        self._stale_first = stale_first
        self._steps = self._all()
        self._bytes = 0  # of the files that Redis held content of when they were seen

    def step(self) -> Sequence[Command] | None:
        """Do a step; return what was done, which may be nothing, or None at the end."""
        done = next(self._steps, None)
        if done:
            self.sets += sum(isinstance(command, Set | Arrive) for command in done)
            self.deletes += sum(isinstance(command, Delete) for command in done)
        return done

    def _all(self) -> Iterator[Sequence[Command]]:
        before = self._target.bytes
        self._target.learn_value_max()
        if self._stale_first:
            yield from self._remove_stale()
        yield from self._mirror.examine_skipped()
        held = yield from self._scan()
        # When Redis holds as many names as there are, and they are held, there is none to remove.
        # Of files with several names one may have been counted twice.
        doubtful = self.disturbed or self._mirror.links.inodes
        if not self._stale_first and (doubtful or held != self._target.files):
            yield from self._remove_stale()
        self._target.bytes += self._bytes - before

    def _scan(self) -> Generator[Sequence[Command], None, int]:
        """Bring files; return of how many of those seen Redis holds the content then."""
        held = 0
        for files, others, equal in self._found():
            self.seen += len(files) + len(others) + equal
            sets = self.sets
            yield from self._mirror.examine_files(files)
            yield from self._mirror.examine(others)
            held += equal + self.sets - sets
            yield ()
        self._mirror.links.complete()
        yield from self._mirror.examine_lost()
        return held

    def _found(self) -> Iterator[tuple[list[bytes], list[bytes], int]]:
        """Yield names of files to bring, names of what is no file, how many files are held."""
        if not self._target.files:  # nothing to compare with
            names = self._directory.names()
            while some := list(islice(names, self._at_once)):
                files = [name for name, is_file in some if is_file]
                yield files, [name for name, is_file in some if not is_file], 0
            return
        scanned = self._directory.files()
        while batch := list(islice(scanned, self._at_once)):
            signatures = {name: signature for name, signature, _ in batch}
            suspects = self._suspects(signatures)
            files = [name for name in suspects if signatures[name]]
            others = [name for name in suspects if not signatures[name]]
            known = self._mirror.links
            for name, signature, links in batch:
                if links > 1 and signature and name not in known.inodes:
                    known.note(name, signature.inode, links)
            yield files, others, len(signatures) - len(suspects)

    def _suspects(self, batch: Mapping[bytes, Signature | None]) -> list[bytes]:
        """Return the names under which Redis does not hold, or may not hold, what is on disk."""
        entries = self._target.entries(tuple(batch))
        suspects: list[bytes] = []
        equal: list[tuple[bytes, Signature]] = []
        encode = self._format.encode
        for (name, signature), entry in zip(batch.items(), entries, strict=True):
            if signature and encode(signature) == entry:
                equal.append((name, signature))
                self._bytes += signature.size
            else:
                suspects.append(name)
                self._bytes += self._size(entry)
        if self._values:
            suspects += self._of_other_length(equal)
        return suspects

    def _of_other_length(self, files: Sequence[tuple[bytes, Signature]]) -> Iterator[bytes]:
        """Yield the names whose keys cannot hold the contents of their files."""
        empty: list[bytes] = []
        lengths = self._target.lengths([name for name, _ in files])
        for (name, signature), length in zip(files, lengths, strict=True):
            if not self._format.could_be(length, signature):
                yield name
            elif length == 0:
                empty.append(name)
        for name, is_there in zip(empty, self._target.are_there(empty), strict=True):
            if not is_there:
                yield name

    def _remove_stale(self) -> Iterator[Sequence[Command]]:
        for page in self._target.manifest(self._at_once):
            stale = [name for name in page if self._directory.signature(name) is None]
            self._bytes += sum(self._size(page[name]) for name in stale)
            yield from self._mirror.examine(stale)
            yield ()

    def _size(self, entry: bytes | None) -> int:
        held = self._format.decode(entry)
        return held.size if held else 0
