"""Makes Redis equal to the directory: scans, compares with what Redis holds, transfers the rest.

A reconcile is done in steps, so that the service can do other things between them; above all it
follows what happens meanwhile. That is safe, since each step makes names equal to what is on disk
at that moment, whatever was done before, and since the watch of a directory is older than its scan.
"""

import errno
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from sync.core.causes import ReconcileCause
from sync.core.changes import Arrive, Delete, Removed, Set, Signature, Written, place_of
from sync.core.looks import Look
from sync.core.manifest import digest_of
from sync.disk.files import SCARCE, Directory
from sync.disk.linux import reason
from sync.disk.resolver import NotFollowedError
from sync.redis.target import LARGE, Target
from sync.service.mirror import NAMES_MAX, Mirror, Outcome
from sync.service.news import News
from sync.service.stale import Stale

_EVERYTHING = Look((b"",))
_WAYS_OUT = {
    errno.EMFILE: "; let it have 128 open files or more (ulimit -n)",
    errno.ENFILE: "; raise fs.file-max of the host",
}

_Entry = TypeVar("_Entry", tuple[bytes, Signature | None, int], tuple[bytes, bool])


class Reconcile:
    """One look at a directory, with all that is below, and at all that Redis holds of it.

    Attributes:
        cause: what it is for.
        seen: how many names it has seen.
        sets: how many values were transferred meanwhile.
        deletes: how many keys were removed by it.
        was_empty: whether Redis held nothing when it began.
        knows_all: whether it has found what is to be brought together, or does not look for it.

    """

    def __init__(  # noqa: PLR0913  # each is a part, or says what it is for
        self,
        cause: ReconcileCause,
        directory: Directory,
        target: Target,
        mirror: Mirror,
        news: News,
        *,
        look: Look = _EVERYTHING,
        values: bool = False,
        in_a_hurry: bool = True,
        at_once: int = NAMES_MAX,
        stale_first: bool = False,
        contents: bool = False,
        foreign: bool = False,
    ) -> None:
        """Prepare a `look`; with `values` it does not take the manifest's word for what keys hold.

        It looks at so many names `at_once`, in a step: what happens meanwhile waits. When it is
        not `in_a_hurry` it does not wait for large files.
        With `stale_first` keys are removed before others are written, and not after. With
        `contents` it looks at what keys hold, and not just at how much that is; with `foreign` at
        keys, too, that have no file, and never had one.
        """
        self.cause = cause
        self.seen = self.sets = self.deletes = 0
        self.knows_all = not in_a_hurry
        self._directory = directory
        self._target = target
        self._mirror = mirror
        self._news = news
        self._format = target.format
        self._look = look
        self._values = values
        self._in_a_hurry = in_a_hurry
        self._at_once = at_once
        self._stale_first = stale_first
        self._contents = contents
        self._foreign = foreign
        self.was_empty = False
        self._stale = Stale(directory, target, mirror, at_once)
        self._suspicious: dict[bytes, bool] = {}  # places: whether both records are as long
        self._coming: set[bytes] = set()  # large files that it waits for
        self._is_scarce = False
        self._is_part = look != _EVERYTHING
        self._steps = self._branch() if self._is_part else self._everything()
        self._has_changed = False  # whether Redis is not to be as it was
        self._held = Counter[bytes]()  # by place: how many of its names and marks Redis holds
        self._long: set[bytes] = set()  # places that take more than one step
        self._unmarked: set[bytes] = set()  # places of which Redis has no mark
        # Of the files that Redis held content of when they were seen:
        self._bytes = 0
        self._below = 0  # how many were not at the root, less the marks that are

    @property
    def is_waiting(self) -> bool:
        """Say whether only large files are missing that are on their way."""
        self._coming &= self._mirror.coming()
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
        self.sets += kinds[Set] + kinds[Arrive] + kinds[Written]
        self.deletes += kinds[Delete] + kinds[Removed]

    def _everything(self) -> Iterator[Outcome]:
        self._news.is_new = False
        before, below = self._target.bytes, self._target.below
        self._target.learn_value_max()
        was_empty = self.was_empty = self._target.is_empty
        if self._stale_first:
            yield from self._stale.everywhere()
        yield from self._mirror.examine_skipped()
        yield from self._scan(was_empty=was_empty)
        self.knows_all = True
        if self._in_a_hurry:
            self._mirror.links.complete()  # names that are left out were not seen
            self._coming = self._mirror.coming()
        while self.is_waiting or self._is_group_waiting:
            yield Outcome()
        if not self._stale_first:
            if was_empty and self._news.is_new:
                yield from self._stale.everywhere()
            else:
                yield from self._remove_stale()
        if self._foreign:
            yield from self._keys()
        if self._in_a_hurry:
            self._coming = self._mirror.coming()
        while self.is_waiting:
            yield Outcome()
        self._target.bytes += self._bytes + self._stale.bytes - before
        self._target.below += self._below + self._stale.below - below

    def _keys(self) -> Iterator[Outcome]:
        """Look at keys under whose names there is no file."""
        for names in self._target.scan(self._at_once):
            keys = self._mirror.fit(names)
            new = [name for name in keys if self._directory.signature(name) is None]
            yield from self._mirror.examine(new)
            yield Outcome()

    @property
    def _is_group_waiting(self) -> bool:
        groups = self._news.groups
        if groups is None or not self._in_a_hurry:
            return False
        return groups.is_waiting or groups.has_rest(self._news.has)

    def _branch(self) -> Iterator[Outcome]:
        yield from self._scan(was_empty=False)
        yield from self._remove_stale()

    def steps(self) -> Iterator[Outcome]:
        """Do step by step what there is to do."""
        while (done := self.step()) is not None:
            yield done

    def _remove_stale(self) -> Iterator[Outcome]:
        for place, is_whole in self._suspicious.items():
            yield from self._stale.at(place, is_whole=is_whole)

    def _scan(self, *, was_empty: bool) -> Iterator[Outcome]:
        """Bring files."""
        for files, others, seen in self._found(was_empty=was_empty):
            self.seen += seen
            if self._look.origins:
                files = yield from self._without_moved(files)  # noqa: PLW2901  # the rest of them
            yield from self._mirror.examine_files(files, part=self._is_part)
            if others:
                yield from self._mirror.examine(others)
            elif not was_empty:
                yield self._mirror.flush()
            yield Outcome(is_doubtful=self._is_scarce)
        yield self._mirror.flush()

    def _found(self, *, was_empty: bool) -> Iterator[tuple[Sequence[bytes], list[bytes], int]]:
        """Yield names of files to bring, names of what is no file, and how many were seen."""
        if was_empty:  # nothing to compare with
            for some, _ in self._parts(self._directory.names):
                files = [name for name, is_file in some if is_file]
                others = [name for name, is_file in some if not (is_file or name.endswith(b"/"))]
                yield files, others, len(files) + len(others)
            return
        for batch, ended in self._parts(self._directory.files):
            signatures = {name: signature for name, signature, _ in batch}
            suspects = self._suspects(signatures, ended)
            # Of those in a part of the tree it is noted, when they are read, that there is more.
            noted_later = set(suspects) if self._is_part else set[bytes]()
            for name, signature, links in batch:
                if links > 1 and signature and name not in noted_later:
                    self._mirror.links.note(name, signature.inode)
            files = [name for name in suspects if signatures[name]]
            others = [name for name in suspects if not signatures[name]]
            yield files, others, self._count_files(signatures)

    def _count_files(self, names: Collection[bytes]) -> int:
        if not self._directory.is_tree:
            return len(names)
        return sum(not name.endswith(b"/") for name in names)

    def _parts(
        self, listed: Callable[[bytes], Iterator[_Entry]]
    ) -> Iterator[tuple[list[_Entry], list[bytes]]]:
        """Yield what is listed, directory by directory, in parts; and which are listed then."""
        part: list[_Entry] = []
        ended: list[bytes] = []
        places = [*reversed(self._look.places)]
        while places:
            place = places.pop()
            below: list[bytes] = []
            try:
                if not self._news.enter(place):
                    self._mirror.skipped.clear_of([place])
                    continue
                if self._contents:
                    self._mirror.tidy(place)
                entries = listed(place)
                while some := list(islice(entries, self._at_once - len(part))):
                    part += some
                    if self._directory.is_tree:
                        below += [entry[0] for entry in some if entry[0].endswith(b"/")]
                    if len(part) >= self._at_once:
                        self._long.add(place)
                        yield part, ended
                        part, ended = [], []
                ended.append(place)
                self._mirror.skipped.clear_of([place])
                self._news.listed(place, below)
            except OSError as error:
                self._cannot_list(place, error)
            places += reversed(below)
            if len(part) + len(ended) >= self._at_once:
                yield part, ended
                part, ended = [], []
        if part or ended:
            yield part, ended

    def _cannot_list(self, place: bytes, error: OSError) -> None:
        if isinstance(error, FileNotFoundError | NotFollowedError):
            return  # the link is named anyway
        if error.errno == errno.ELOOP:
            why = f"is not mirrored: {error.strerror}"
        elif error.errno == errno.ENAMETOOLONG:
            why = "is not mirrored: its path is longer than the 4096 bytes that programs can open"
        else:
            why = f"cannot be listed ({reason(error)}): its keys stay as they are; tried again"
            why += _WAYS_OUT.get(error.errno or 0, "")
            self._is_scarce |= error.errno in SCARCE
        self._mirror.skipped.note(place, why)

    def _suspects(
        self, batch: Mapping[bytes, Signature | None], ended: Sequence[bytes]
    ) -> list[bytes]:
        """Return the names under which Redis does not hold, or may not hold, what is on disk.

        Of places that have `ended` all names are in this batch, or were in those before.
        """
        entries, lengths = self._target.records(tuple(batch), ended)
        suspects: list[bytes] = []
        equal: list[tuple[bytes, Signature]] = []
        marks: list[bytes] = []
        encode = self._format.encode
        found = map(self._format.without_digest, entries) if self._format.digests else entries
        for (name, signature), entry in zip(batch.items(), found, strict=True):
            if signature and encode(signature) == entry:
                equal.append((name, signature))
                self._bytes += signature.size
            elif name.endswith(b"/"):
                marks.append(name)
            else:
                suspects.append(name)
                self._bytes += self._size(entry)
        if self._contents:
            suspects += self._of_other_content(equal, dict(zip(batch, entries, strict=True)))
        elif self._values:
            suspects += self._of_other_length(equal)
        self._has_changed |= bool(suspects)
        self._take_count(tuple(batch), entries)
        self._take_marks({name: entries[at] for at, name in enumerate(batch)} if marks else {})
        self._end(ended, lengths)
        return suspects

    def _take_count(self, names: Sequence[bytes], entries: Sequence[bytes | None]) -> None:
        """Take note of how many names and marks of each place Redis holds."""
        if not self._directory.is_tree:
            self._held[b""] += len(entries) - entries.count(None)
            return
        for name, entry in zip(names, entries, strict=True):
            if entry is not None:
                place = place_of(name)
                self._held[place] += 1
                if place and not name.endswith(b"/"):
                    self._below += 1
                elif not place and name.endswith(b"/"):
                    self._below -= 1

    def _take_marks(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Take note of which directories Redis has marks of."""
        marks = [name for name in entries if name.endswith(b"/")]
        self._target.know(name for name in marks if entries[name] is not None)
        self._unmarked.update(name for name in marks if entries[name] is None)

    def _end(self, places: Sequence[bytes], lengths: Sequence[tuple[int, int]]) -> None:
        """Find out of which places, all of whose names were seen, Redis holds something else."""
        for place, (length, known) in zip(places, lengths, strict=True):
            held = self._held.pop(place, 0)
            # What is deleted while one part is looked at makes up for what only Redis has.
            is_sure = place not in self._long or not (self._has_changed or self._news.is_new)
            if length != known or length > held or not is_sure:
                self._suspicious[place] = length == known
            if place in self._unmarked and (length or known):
                self._target.mark([place])
            self._unmarked.discard(place)
            self._long.discard(place)

    def _without_moved(self, names: Sequence[bytes]) -> Generator[Outcome, None, Sequence[bytes]]:
        """Have values moved from where a directory was before; return the names that got none."""
        for origin in self._look.origins:
            at = len(self._look.places[0])
            moves = {name: origin + name[at:] for name in names}
            missed = yield from self._mirror.move(moves, are_hints=True)
            names = [name for name in names if name in missed]
        return names

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

    def _of_other_content(
        self,
        files: Sequence[tuple[bytes, Signature]],
        entries: Mapping[bytes, bytes | None],
    ) -> Iterator[bytes]:
        """Yield the names whose keys may not hold the contents of their files."""
        if not self._format.digests:
            # They are compared with the files, but for large ones.
            small = [name for name, signature in files if signature.size <= LARGE]
            self._mirror.heard.update(small)
            yield from small
            yield from self._of_other_length([each for each in files if each[1].size > LARGE])
            return
        names = [name for name, _ in files]
        while names:
            keys = self._target.look(names, watch=False)
            for name, key in zip(names, keys, strict=False):
                digest = self._format.digest(entries[name])
                if key.value is None or digest_of(key.value) != digest:
                    yield name
            names = names[len(keys) :]

    def _size(self, entry: bytes | None) -> int:
        held = self._format.decode(entry)
        return held.size if held else 0
