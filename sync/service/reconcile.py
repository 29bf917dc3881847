"""Makes Redis equal to the directory: scans, compares with what Redis holds, transfers the rest.

A reconcile is done in steps, so that the service can do other things between them; above all it
follows what happens meanwhile. That is safe, since each step makes names equal to what is on disk
at that moment, whatever was done before, and since the watch is older than the scan.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice

from sync.core.changes import Arrive, Delete, Set, Signature
from sync.disk.files import Directory
from sync.redis.target import Target
from sync.service.mirror import NAMES_MAX, Mirror, Outcome
from sync.service.news import News


class Reconcile:
    """One look at the whole directory and at all that Redis holds of it.

    Attributes:
        cause: what it is for.
        seen: how many names it has seen.
        sets: how many values were transferred meanwhile.
        deletes: how many keys were removed by it.

    """

    def __init__(  # noqa: PLR0913  # each is a part, or says what it is for
        self,
        cause: str,
        directory: Directory,
        target: Target,
        mirror: Mirror,
        news: News,
        *,
        values: bool = False,
        in_a_hurry: bool = True,
        at_once: int = NAMES_MAX,
        stale_first: bool = False,
    ) -> None:
        """Prepare it; with `values` it does not take the manifest's word for what keys hold.

        It looks at so many names `at_once`, in a step: what happens meanwhile waits. When it is
        not `in_a_hurry` it does not wait for large files.
        With `stale_first` keys are removed before others are written, and not after.
        """
        self.cause = cause
        self.seen = self.sets = self.deletes = 0
        self._directory = directory
        self._target = target
        self._mirror = mirror
        self._news = news
        self._format = target.format
        self._values = values
        self._in_a_hurry = in_a_hurry
        self._at_once = at_once
        self._stale_first = stale_first
        self._coming: set[bytes] = set()  # large files that it waits for
        self._steps = self._all()
        self._bytes = 0  # of the files that Redis held content of when they were seen

    @property
    def is_waiting(self) -> bool:
        """Say whether only large files are missing that are on their way."""
        self._coming &= self._mirror.streams.names()
        return bool(self._coming)

    def step(self) -> Outcome | None:
        """Do a step; return what became of it, or None at the end."""
        done = next(self._steps, None)
        if done:
            self.count(done)
        return done

    def count(self, outcome: Outcome) -> None:
        """Take note of what was done in it, or for it."""
        kinds = Counter(map(type, outcome.done))
        self.sets += kinds[Set] + kinds[Arrive]
        self.deletes += kinds[Delete]

    def _all(self) -> Iterator[Outcome]:
        self._news.is_new = False
        before = self._target.bytes
        self._target.learn_value_max()
        was_empty = not self._target.count and self._target.has_both_records
        if self._stale_first:
            yield from self._remove_stale()
        yield from self._mirror.examine_skipped()
        equal = yield from self._scan(was_empty=was_empty)
        if self._in_a_hurry:
            self._coming = self._mirror.streams.names()
        while self.is_waiting:
            yield Outcome()
        if not self._stale_first and (self._news.is_new or not self._is_all(equal, was_empty)):
            yield from self._remove_stale()
        self._target.bytes += self._bytes - before

    def _is_all(self, equal: int, was_empty: bool) -> bool:
        """Say whether Redis can hold nothing but what was seen, if nothing happened meanwhile."""
        return self._target.has_both_records and (was_empty or equal == self._target.count)

    def _scan(self, *, was_empty: bool) -> Generator[Outcome, None, int]:
        """Bring files; return of how many of those seen Redis held the content before."""
        held = 0
        for files, others, equal in self._found(was_empty=was_empty):
            self.seen += len(files) + len(others) + equal
            held += equal
            yield from self._mirror.examine_files(files)
            if others:
                yield from self._mirror.examine(others)
            elif not was_empty:
                yield self._mirror.flush()
            yield Outcome()
        yield self._mirror.flush()
        if self._in_a_hurry:
            self._mirror.links.complete()  # names that are left out were not seen
        return held

    def _found(self, *, was_empty: bool) -> Iterator[tuple[list[bytes], list[bytes], int]]:
        """Yield names of files to bring, names of what is no file, how many files are held."""
        if was_empty:  # nothing to compare with
            names = self._directory.names()
            while some := list(islice(names, self._at_once)):
                files = [name for name, is_file in some if is_file]
                yield files, [name for name, is_file in some if not is_file], 0
            return
        scanned = self._directory.files()
        while batch := list(islice(scanned, self._at_once)):
            signatures = {name: signature for name, signature, _ in batch}
            for name, signature, links in batch:
                if links > 1 and signature:
                    self._mirror.links.note(name, signature.inode)
            suspects = self._suspects(signatures)
            files = [name for name in suspects if signatures[name]]
            others = [name for name in suspects if not signatures[name]]
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

    def _remove_stale(self) -> Iterator[Outcome]:
        """Examine what Redis holds and the directory does not have."""
        is_whole = self._target.has_both_records
        for page in self._target.manifest(self._at_once):
            if not is_whole:
                self._target.add_names(tuple(page))
            stale = [name for name in page if self._directory.signature(name) is None]
            self._bytes += sum(self._size(page[name]) for name in stale)
            yield from self._mirror.examine(stale)
            yield Outcome()
        if is_whole:
            return
        for names in self._target.names(self._at_once):
            entries = self._target.entries(names)
            lost = [name for name, entry in zip(names, entries, strict=True) if entry is None]
            yield from self._mirror.examine(lost)
            yield Outcome()

    def _size(self, entry: bytes | None) -> int:
        held = self._format.decode(entry)
        return held.size if held else 0
