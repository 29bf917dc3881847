"""A mirror both ways: for each name that is looked at it is decided which side follows which.

The ancestor is the name's entry in the manifest, the disk is what was read, and Redis is asked.
What is decided is right for what was found; so that it is carried out on nothing else, keys are
WATCHed until they are SET, and a file is replaced only if it still is the one that was read.

Failure model. Before the disk is written to, the entry says what is about to be there: after a
crash that is known to be ours, and not somebody's change. Whatever was in the way (a key or a file
that has changed meanwhile), the name is looked at again.
"""

import logging
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from sync.core.changes import (
    NONE,
    Command,
    Confirm,
    Delete,
    Keep,
    MovedFile,
    Record,
    Removed,
    Rename,
    Set,
    Signature,
    Written,
    place_of,
    shown,
)
from sync.core.decision import (
    ABSENT,
    LOST,
    UNFIT,
    Action,
    Mode,
    Side,
)
from sync.core.errors import (
    CannotBeError,
    MeanwhileError,
    NotAsExpectedError,
    RedisForbidsError,
    RedisRefusedError,
)
from sync.core.manifest import NOTHING, PENDING_GONE, digest_of
from sync.core.plan import SPARE
from sync.disk.files import Directory, LargeFile
from sync.disk.linux import reason
from sync.disk.writer import Writer
from sync.redis.notes import Notes
from sync.redis.target import LARGE, Key, Target
from sync.report.figures import counted
from sync.report.log import Lines
from sync.service.absence import Absence
from sync.service.conflicts import Conflicts
from sync.service.downloads import Downloads
from sync.service.judge import Case, Judge, OnDisk
from sync.service.made import Made
from sync.service.mirror import Batch, Mirror, Outcome, Terms
from sync.service.misfits import Misfits
from sync.service.news import News
from sync.service.skipped import Skipped
from sync.service.streams import Stream, Streams

log = logging.getLogger(__name__)

# What is done without the content of a file.
_WITHOUT_FILES = (Action.NOTHING, Action.RECORD, Action.TO_DISK)
_WRITTEN = 100  # files that are written before their directories are looked up anew
_WATCHED_MAX = 100  # keys: to watch one takes the longer the more are watched
_TRIES = 3  # decisions about keys that change meanwhile, before something else has a turn
_SOON = 0.01  # seconds
_LATEST = 1.0  # seconds until another look at what is not as it was expected
_AWAY = 1.0  # seconds until another try over a connection that was lost
_WAITS_MAX = 10_000  # names remembered
_SELDOM = 30.0  # seconds until another try of what fails for a reason that may last
_UNFIT_THERE = "is no string in Redis, or may not be read: left alone on both sides"


@dataclass(frozen=True)
class Sides:
    """What it takes to follow both.

    mode       which side follows which
    writer     writes files
    notes      what is remembered in Redis beside the manifest
    absence    tells whether a key that is missing was deleted
    conflicts  what waits for somebody's decision
    downloads  the large values on their way from Redis
    """

    mode: Mode
    writer: Writer
    notes: Notes
    absence: Absence
    conflicts: Conflicts
    downloads: Downloads


@dataclass(slots=True)
class _Work:
    """What follows from the cases of one look, by kind."""

    pushes: list[Case] = field(default_factory=list)
    pulls: list[Case] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    void: list[bytes] = field(default_factory=list)


class Merge(Mirror):
    """The files of one directory and the keys of one Redis server, kept equal."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        directory: Directory,
        target: Target,
        streams: Streams,
        news: News,
        skipped: Skipped,
        sides: Sides,
        *,
        trim_newline: bool = False,
        sparing: bool = False,
    ) -> None:
        """Keep `directory` and `target` equal, as `Mirror` does, but by way of both `sides`."""
        super().__init__(
            directory,
            target,
            streams,
            news,
            skipped,
            trim_newline=trim_newline,
            sparing=sparing,
        )
        self._sides = sides
        self._mode = sides.mode
        self._writer = sides.writer
        self._misfits = Misfits(directory, target, skipped, sides.writer.check)
        self._format = target.format
        self._judge = Judge(target.format, sides.mode, sides.absence, sides.downloads)
        self._directories = Made(sides.writer, sides.notes)
        self._answered: set[bytes] = set()  # of these the requests are not needed any more
        self._waits: dict[bytes, float] = {}
        self._kept = Lines(
            log,
            logging.WARNING,
            "kept",
            "%(key)s was changed on both sides: the file counts, and what Redis had is kept as "
            "number %(number)s (`mdvp-sync conflicts --all`)",
            "other values are kept, too: `mdvp-sync conflicts --all`",
        )

    @property
    def takes_sides(self) -> bool:
        """Whether what Redis holds counts, too."""
        return True

    @property
    def takes_keys(self) -> bool:
        """Whether a key becomes a file."""
        return self._mode.writes_files

    def begin(self, take: Side | None) -> None:
        """Begin a session; somebody has decided for a side in its first look, or not."""
        self._judge.accepted = take
        self._sides.conflicts.begin()
        if self.takes_keys:
            self._directories.begin()

    def is_in_step(self, deferred: Iterable[bytes]) -> None:
        """End the first look of a session, in which some names could not be read yet.

        What was decided for all is still to be done for these.
        """
        self._judge.end((*deferred, *self.coming()))

    @property
    def is_taking(self) -> bool:
        """Whether somebody has accepted a side, and there are names that could not be read yet."""
        return self._judge.is_taking

    def is_open(self, name: bytes) -> bool:
        """Say whether a name is to be looked at though nothing may be remembered of it."""
        is_listed = name in self.skipped or name in self._sides.conflicts
        return is_listed or self._directory.signature(name) is not None

    def fit(self, names: Iterable[bytes]) -> Collection[bytes]:
        """Return those of some names of keys that are to be looked at, as files may have them."""
        names = dict.fromkeys(names)
        fit = self._misfits.without(names) if self.takes_keys else super().fit(names)
        if self._judge.decided or self._sides.conflicts:
            for name in names.keys() - set(fit):
                self._sides.conflicts.settle(name)
                self._decided(name)
            self._tell()
        return fit

    def examine_skipped(self) -> Iterator[Outcome]:
        """Examine what was skipped so far: it may be gone, or fit."""
        yield from super().examine_skipped()
        yield from self.examine([*self._sides.conflicts])  # it may be in no record
        yield from self.examine(self._misfits.look_again())

    def hear(self, names: Collection[bytes]) -> Iterator[Outcome]:
        """Look at names of keys that others may have changed; tell which are to be examined.

        Where nothing has happened on disk, nothing need be read there: there is no file, or the one
        of which the entry surely tells.
        """
        outcome = Outcome()
        left = list(names)
        while left:
            keys = self._target.look(left, watch=False)
            some, left = left[: len(keys)], left[len(keys) :]
            found: dict[bytes, OnDisk] = {}
            for name, key in zip(some, keys, strict=True):
                disk = self._unread(name, key)
                if disk is None:
                    outcome.others.add(name)
                else:
                    found[name] = disk
            known = [key for name, key in zip(some, keys, strict=True) if name in found]
            cases = self._judge.cases(found, known)
            # What is new may be what has left a name whose file is to be read: a rename.
            has_left = any(
                key.entry is not None and key.value is None
                for name, key in zip(some, keys, strict=True)
                if name not in found
            )
            simple = [
                case
                for case in cases
                if case.action in _WITHOUT_FILES and not (has_left and case.disk.value is ABSENT)
            ]
            outcome.others |= found.keys() - {case.name for case in simple}
            outcome.others.update(self._carry_out(simple, outcome))
        yield outcome

    def _unread(self, name: bytes, key: Key) -> OnDisk | None:
        """Return what is on disk, if that is known without reading it."""
        if self._news.has(name) or key.length > LARGE:
            return None
        try:
            status = self._directory.status(name)
        except OSError:
            return None
        if status is False:
            return OnDisk(ABSENT)
        if status is True or not self._format.is_same(key.entry, status):
            return None
        return OnDisk(self._format.digest(key.entry) or ABSENT, status)

    def tidy(self, place: bytes) -> None:
        """Remove what an earlier session has left in a directory."""
        self._writer.take_leftovers(place)

    @property
    def decided(self) -> dict[bytes, Side]:
        """The sides that somebody has decided for, by name."""
        return self._judge.decided

    def are_gone(self, places: Collection[bytes]) -> None:
        """Take note that directories are gone, or were when that was told."""
        self._directories.are_gone(places)

    # Large values, from both sides.

    @property
    def is_due(self) -> bool:
        """Say whether there is something to do for a large value."""
        downloads = self._sides.downloads
        has_come = downloads.current is not None and downloads.is_told  # and may be let go of
        return super().is_due or ((has_come or downloads.is_due) and not self._is_in_use)

    @property
    def _is_in_use(self) -> bool:
        """Whether the value that has come is still to be compared with a large file's."""
        downloads = self._sides.downloads
        current = downloads.current
        return bool(current and downloads.is_told and current.name in self.streams.names())

    @property
    def due(self) -> float | None:
        """When a large value that rests may begin; None if none does."""
        return self._sides.downloads.due

    @property
    def began(self) -> float:
        """When the large value began that is on its way, or has come (s)."""
        current = self._sides.downloads.current
        return super().began or (current.began if current else time.monotonic())

    def coming(self) -> set[bytes]:
        """Return the names of which a large value is on its way, or waits."""
        return super().coming() | self._sides.downloads.names()

    def close(self) -> None:
        """Let go of what is on its way."""
        super().close()
        self._sides.downloads.drop()

    def arrive(self) -> Iterator[Outcome]:
        """Have a large value take effect that has come, and begin with the next."""
        yield from super().arrive()
        downloads = self._sides.downloads
        if downloads.is_told and not self._is_in_use:
            downloads.drop()
        name = downloads.next()
        if name is None:
            return
        if downloads.error:
            yield self._not_come(name, downloads.error)
        else:
            yield from self.examine([name], alone=True)
        if downloads.is_told and not self._is_in_use:
            downloads.drop()

    def _not_come(self, name: bytes, error: Exception) -> Outcome:
        """Do what follows from what has kept a large value from coming."""
        self._sides.downloads.drop()
        if isinstance(error, OSError):
            return self._unwritable(name, error)
        if isinstance(error, RedisForbidsError):
            raise error  # to try it again would be of no use
        return Outcome(deferred={name: _AWAY})

    def _unwritable(self, name: bytes, error: OSError) -> Outcome:
        self.skipped.note(
            name, f"cannot be written ({reason(error)}): the file stays as it is; tried again"
        )
        return Outcome(deferred={name: _SELDOM})

    def _offer(self, name: bytes, file: LargeFile, outcome: Outcome, terms: Terms) -> None:
        """Have a large file brought, if it has changed and Redis may have it."""
        (key,) = self._target.look([name], watch=False)
        if self._format.is_same(key.entry, file.signature) and not file.racy:
            digest = self._format.digest(key.entry)
            with closing(file):
                found = OnDisk(digest or ABSENT, file.signature)
                self._settle({name: found}, outcome)
            if name not in outcome.free:
                return
            outcome.free.remove(name)  # it is to be brought all the same
            again = self._directory.read(name, self._target.value_max, overdue=True)
            if not isinstance(again, LargeFile):
                outcome.deferred[name] = _SOON
                return
            file = again
        if key.length > LARGE and self._sides.downloads.found(name) is None:
            file.close()
            self._sides.downloads.want(name, as_file=False)
            return
        super()._offer(name, file, outcome, terms)

    def _take_effect(self, stream: Stream, outcome: Outcome) -> None:
        signature = stream.signature
        is_sure = stream.steady and not stream.racy
        found = OnDisk(stream.digest, signature if stream.steady else None)
        for _ in range(_TRIES):
            cases = self._judge.cases({stream.name: found}, self._target.look([stream.name]))
            ttl = self._target.ttl(stream.name)
            if not cases:
                stream.upload.void()
                return  # its value is to be read first
            (case,) = cases
            if case.action is not Action.TO_REDIS and case.action is not Action.KEEP_TO_REDIS:
                stream.upload.void()
                self._carry_out([case], outcome)
                return
            try:
                done = self._target.arrive(
                    stream.upload,
                    signature if is_sure else signature.unsure(),
                    digest=stream.digest,
                    ttl=ttl,
                    first=self._keep([case]),
                )
            except MeanwhileError:
                continue
            except RedisRefusedError as error:
                self._refuse_large(stream.name, signature.size, error, outcome)
                return
            if done is None:
                self._rest(stream, outcome)  # what was brought has expired
                return
            outcome.done.append(done)
            self._is_settled(case)
            self._tell()
            self._brought(stream, outcome, is_sure=is_sure)
            return
        stream.upload.void()
        outcome.deferred[stream.name] = _SOON

    # Small ones.

    def _begin(self, batch: Batch, terms: Terms) -> Outcome:
        """Decide about what was found, and carry it out; nothing is left to be flushed."""
        outcome = batch.outcome
        self._note_doubts(batch, terms)
        if self.streams.count:
            for name in [*(each.name for each in batch.sets), *batch.absent]:
                self.streams.void(name)
        found = {each.name: self._file(each, batch) for each in batch.sets}
        for name in batch.absent:
            if self._target.is_stream(name):
                continue  # whatever is on disk
            is_gone = name in batch.gone or not self._directory.has(name)
            found[name] = OnDisk(ABSENT if is_gone else UNFIT)
        self.heard.difference_update(found)  # all are compared, whether it was heard of them or not
        self._settle(found, outcome)
        for name in batch.unsteady:
            outcome.deferred.setdefault(name, None)
        return outcome

    def _note_doubts(self, batch: Batch, terms: Terms) -> None:
        """Tell, as `_deletes` does, of what was there in between nobody knows which file it was."""
        # What was only heard of in Redis, or is looked at once more, tells nothing of files.
        names = [name for name in batch.absent if name not in terms.alone]
        for name, is_ours in zip(names, self._target.are_ours(names), strict=True):
            self._unsure.pop(name, None)
            unknown = (name in terms.written or not is_ours) and not self._directory.has(name)
            batch.outcome.is_doubtful |= unknown and name not in terms.vacated

    def _file(self, found: Set, batch: Batch) -> OnDisk:
        digest = digest_of(found.content)
        signature: Signature | None = found.signature
        if found.name in batch.unsteady:
            signature = None
        elif found.name in batch.racy:
            signature = batch.racy[found.name]
        return OnDisk(digest, signature, found._replace(digest=digest))

    def _settle(self, found: dict[bytes, OnDisk], outcome: Outcome) -> None:
        """Decide about names and carry it out, again for those of which keys change meanwhile."""
        left, tries = list(found), _TRIES
        while left:
            # Of many most are values that come from Redis: nothing depends on their keys then.
            is_watched = len(left) <= _WATCHED_MAX
            keys = self._target.look(left, watch=is_watched)
            some, left = left[: len(keys)], left[len(keys) :]
            cases = self._judge.cases({name: found[name] for name in some}, keys)
            void = self._carry_out(cases, outcome, is_watched=is_watched)
            if void and tries:
                tries -= 1
                left = void + left
            else:
                outcome.deferred |= dict.fromkeys(void, _SOON)

    def _carry_out(
        self, cases: Sequence[Case], outcome: Outcome, *, is_watched: bool = True
    ) -> list[bytes]:
        """Do what is to be done; return the names whose keys have changed meanwhile."""
        work = _Work()
        for case in cases:
            self._sort(case, work, outcome)
        if is_watched:
            self._push(work.pushes, work, outcome)
        else:
            for first in range(0, len(work.pushes), _WATCHED_MAX):
                some = self._watched(work.pushes[first : first + _WATCHED_MAX], work)
                self._push(some, work, outcome)
        self._target.unwatch()
        self._pull(work, outcome)
        try:
            self._record(work.records)
        except RedisRefusedError as error:
            self._make_room(error, outcome)  # the next look finds the same once more
        self._tell()
        if self.skipped:
            outcome.free += self.skipped.below(_without_file(cases))
            outcome.free += [name for name in self._directories.vacated if name in self.skipped]
        self._directories.vacated.clear()
        return work.void

    def _sort(self, case: Case, work: _Work, outcome: Outcome) -> None:
        name, disk, action = case.name, case.disk, case.action
        match action:
            case Action.TO_REDIS | Action.KEEP_TO_REDIS:
                if isinstance(disk.value, bytes) and disk.set is None:
                    outcome.free.append(name)  # a large file: it has to be read
                else:
                    work.pushes.append(case)
                return
            case Action.TO_DISK:
                if isinstance(disk.value, bytes) and disk.signature is None:
                    outcome.deferred[name] = None  # it is being written to
                elif disk.set and not disk.set.signature.is_sure:
                    outcome.deferred[name] = _SOON  # by now it may be another, and look the same
                elif self._can_be(name):
                    work.pulls.append(case)
                return
            case Action.CONFLICT:
                self._sides.conflicts.note(name, _on_disk(case), _in_redis(case))
                self._decided(name)
                return
            case Action.LEAVE:
                self._leave(case)
                self._sides.conflicts.settle(name)
                self._decided(name)
                return
        if action is Action.RECORD or self._is_news(case):
            work.records.append(self._as_it_is(case))
        self._is_settled(case)

    def _can_be(self, name: bytes) -> bool:
        """Say whether there can be a file of that name, before anything is noted about it."""
        try:
            self._writer.check(name)
        except CannotBeError as error:
            self._cannot_be(name, error)
            return False
        return True

    def _cannot_be(self, name: bytes, error: CannotBeError) -> None:
        self.skipped.note(name, f"{error}: the key stays without a file")
        self._decided(name)

    def _is_news(self, case: Case) -> bool:
        """Say whether the entry does not tell yet what there is."""
        entry, disk = case.key.entry, case.disk
        if disk.signature is None:
            return disk.value is ABSENT and entry is not None
        if self._format.is_same(entry, disk.signature):
            return False
        return not (
            disk.set
            and not disk.set.signature.is_sure
            and self._format.is_same(entry, disk.signature.unsure())
        )

    def _as_it_is(self, case: Case) -> Record:
        """Return what both sides hold, as it is to be remembered."""
        name, disk = case.name, case.disk
        if not isinstance(disk.value, bytes):
            return Record(name, None)
        signature = disk.set.signature if disk.set else disk.signature
        return Record(name, signature or NONE, disk.value)

    def _leave(self, case: Case) -> None:
        if case.redis is UNFIT:
            self.skipped.note(case.name, _UNFIT_THERE)
        elif case.disk.value is UNFIT:
            if case.name not in self.skipped:
                self.skipped.note(case.name, "is no regular file: its key is left alone")
        elif case.redis is LOST or case.redis is ABSENT:
            why = "is not in Redis"
            if case.redis is LOST:
                why += ", which may have removed it by itself"
            self.skipped.note(case.name, f"{why}: the file is left alone")

    def _is_settled(self, case: Case) -> None:
        """Take note that both sides are equal under a name, or that it is nobody's business."""
        name, disk = case.name, case.disk
        if disk.value is UNFIT:
            self._decided(name)
            self._sides.conflicts.settle(name)
        else:
            self._is_done(name)
        self._unsure.pop(name, None)
        if disk.signature and disk.set and not disk.set.signature.is_sure:
            self._remember(name, disk.signature)

    def _is_done(self, name: bytes) -> None:
        """Take note that nothing is left to be done about a name."""
        self.skipped.clear_of([name])
        self._waits.pop(name, None)
        self._sides.conflicts.settle(name)
        self._decided(name)

    def _decided(self, name: bytes) -> None:
        if self._judge.has_ended(name):
            self._answered.add(name)

    def _tell(self) -> None:
        """Have Redis hold what is in conflict by now, and then no request that is answered."""
        self._sides.conflicts.write()
        if self._answered:
            self._sides.notes.done(self._answered)
            self._answered.clear()

    # To Redis.

    def _watched(self, cases: Sequence[Case], work: _Work) -> list[Case]:
        """Watch keys; return the cases that are still as they were."""
        disk = {case.name: case.disk for case in cases}
        keys = self._target.look(list(disk))
        found = {case.name: case for case in self._judge.cases(disk, keys)}
        still = [
            found[case.name]
            for case in cases
            if case.name in found and found[case.name][3:] == case[3:]
        ]
        work.void += disk.keys() - {case.name for case in still}
        return still

    def _push(self, cases: Sequence[Case], work: _Work, outcome: Outcome) -> None:
        if not cases:
            return
        commands = self._keep(cases)
        commands += [case.disk.set or Delete(case.name) for case in cases]
        try:
            self._target.apply(_by_kind(commands))
        except MeanwhileError:
            work.void += [case.name for case in cases]
            return
        except RedisRefusedError as error:
            self._push_in_parts(cases, error, outcome)
            return
        outcome.done += commands
        for case in cases:
            self._is_settled(case)
        if any(case.action is Action.KEEP_TO_REDIS for case in cases):
            self._sides.notes.trim()

    def _push_in_parts(
        self, cases: Sequence[Case], error: RedisRefusedError, outcome: Outcome
    ) -> None:
        if len(cases) == 1:
            self._make_room(error, outcome)
            self._refuse(cases[0].name, error, outcome)
            return
        self._make_room(error, outcome)
        middle = len(cases) // 2
        for part in (cases[:middle], cases[middle:]):
            self._settle({case.name: case.disk for case in part}, outcome)

    def _keep(self, cases: Sequence[Case]) -> list[Command]:
        """Return what puts aside the values that lose."""
        losing = [case for case in cases if case.action is Action.KEEP_TO_REDIS]
        if not losing:
            return []
        now = int(time.time())
        numbers = self._sides.notes.new_numbers(len(losing))
        for case, number in zip(losing, numbers, strict=True):
            self._kept.write(key=shown(case.name), number=number)
        return [
            Keep(case.name, number, case.key.length, now)
            for case, number in zip(losing, numbers, strict=True)
        ]

    def _rename(self, renames: list[Rename], sure: Container[bytes]) -> Outcome:
        """Rename keys, if they hold what they are to hold."""
        names = list(dict.fromkeys(name for each in renames for name in (each.old, each.new)))
        digests = self._unchanged(names) if self._mode is not Mode.REDIS_TO_DISK else None
        if digests is None:
            self._target.unwatch()
            return Outcome()
        try:
            outcome = super()._rename(_with_digests(renames, digests), sure)
        except MeanwhileError:
            return Outcome()
        outcome.free += self.skipped.below([each.old for each in renames])
        return outcome

    def _unchanged(self, names: Sequence[bytes]) -> dict[bytes, bytes] | None:
        """Return what keys hold, if all of them hold what is remembered; watch them."""
        digests: dict[bytes, bytes] = {}
        names = [name for name in names if not name.startswith(b"/")]
        keys = self._target.look(names)
        if len(keys) < len(names):
            return None
        for name, key in zip(names, keys, strict=True):
            if key.value is None:
                if key.length or key.entry is not None:
                    return None
                continue
            digest = digest_of(key.value)
            if self._format.digest(key.entry) != digest or self._format.pending(key.entry):
                return None
            digests[name] = digest
        return digests

    def _make_sure(self, commands: Sequence[Confirm]) -> None:
        """Give entries their signatures, where they still are of that file."""
        names = [each.name for each in commands]
        records = []
        for each, entry in zip(commands, self._target.entries(names), strict=True):
            digest = self._format.digest(entry)
            if digest and self._format.is_same(entry, each.signature.unsure()):
                records.append(Record(each.name, each.signature, digest, is_news=False))
        self._record(records)

    def _record(self, records: Sequence[Record]) -> None:
        if records:
            self._target.apply(records)

    # To the disk.

    def _pull(self, work: _Work, outcome: Outcome) -> None:
        writer, cases = self._writer, self._still_absent(work)
        if not cases:
            return
        intents = [self._intent(case) for case in cases]
        try:
            self._record(intents)
        except RedisRefusedError as error:
            self._make_room(error, outcome)
            for case in cases:
                self._refuse(case.name, error, outcome)
            return
        self._directory.forget()  # what is open is perhaps where it was no more
        moved = self._move_files(writer, cases, work, outcome)
        homes = self._homes(cases)
        for number, case in enumerate(cases, 1):
            if case.name not in moved:
                self._try(case, partial(self._to_disk, case, outcome), work, outcome)
            if number % _WRITTEN == 0:
                self._directory.forget()
        self._leave_out_what_has_gone(homes, work, outcome)
        if self._directory.is_tree:
            self._directories.tend([case.name for case in cases if case.redis is ABSENT])

    def _homes(self, cases: Sequence[Case]) -> dict[bytes, tuple[int, int]]:
        """Return the directories of files, by place, as far as there are any."""
        if not self._directory.is_tree:
            return {}
        places = {place for case in cases if (place := place_of(case.name))}
        found = {place: self._directory.identity(place) for place in places}
        return {place: identity for place, identity in found.items() if identity}

    def _leave_out_what_has_gone(
        self, homes: Mapping[bytes, tuple[int, int]], work: _Work, outcome: Outcome
    ) -> None:
        """Have looked at again what was written in directories that have left their places."""
        self._directory.forget()
        gone = {place for place, home in homes.items() if self._directory.identity(place) != home}
        if gone:
            names = {each.name for each in work.records if place_of(each.name) in gone}
            work.records = [each for each in work.records if each.name not in names]
            outcome.deferred |= dict.fromkeys(names, _SOON)

    def _still_absent(self, work: _Work) -> list[Case]:
        """Return what is to be done on disk, without files whose keys have come back."""
        gone = [case.name for case in work.pulls if case.redis is ABSENT]
        there = dict(zip(gone, self._target.are_there(gone), strict=True)) if gone else {}
        back = {name for name, is_there in there.items() if is_there}
        work.void += back
        return [case for case in work.pulls if case.name not in back]

    def _intent(self, case: Case) -> Record:
        signature, digest = case.known
        pending = case.redis if isinstance(case.redis, bytes) else PENDING_GONE
        return Record(case.name, signature, digest, pending)

    def _move_files(
        self, writer: Writer, cases: Sequence[Case], work: _Work, outcome: Outcome
    ) -> set[bytes]:
        """Rename files whose keys were renamed; return the names of which that is done."""
        gone = {
            case.ancestor: case
            for case in cases
            if case.redis is ABSENT and case.disk.value == case.ancestor
        }
        done: set[bytes] = set()
        for new in cases if gone else ():
            old = gone.get(new.redis) if new.disk.value is ABSENT else None
            if old is None or old.disk.signature is None:
                continue
            del gone[new.redis]
            signature = old.disk.signature

            def move(old: bytes = old.name, new: Case = new, has: Signature = signature) -> None:
                now = writer.rename(old, new.name, has)
                self._wrote(new, now, work)
                work.records.append(Record(old, None))
                outcome.done.append(MovedFile(old, new.name))

            if self._try(new, move, work, outcome):
                self._is_done(old.name)
                self._unsure.pop(old.name, None)
                done |= {old.name, new.name}
        return done

    def _to_disk(self, case: Case, outcome: Outcome) -> Record:
        writer, name, expected = self._writer, case.name, case.disk.signature
        if case.redis is ABSENT:
            if expected:
                writer.remove(name, expected)
            outcome.done.append(Removed(name))
            self._unsure.pop(name, None)
            return Record(name, None)
        if case.key.value is not None:
            now = writer.put(name, case.key.value, expected)
            size = len(case.key.value)
        else:
            now, size = self._finish(name, expected)
        outcome.done.append(Written(name, size))
        self._remember(name, now)
        return Record(name, now.unsure(), case.redis if isinstance(case.redis, bytes) else b"")

    def _finish(self, name: bytes, expected: Signature | None) -> tuple[Signature, int]:
        """Have a large value that was written aside be the file's; return how large it is."""
        value = self._sides.downloads.found(name)
        if value and value.refusal:
            raise value.refusal
        if value is None or value.draft is None:
            # Says why it cannot be, if it cannot: else it would be read again and again.
            self._writer.begin(name).close()
            self._sides.downloads.want(name, as_file=True)
            raise NotAsExpectedError("it was not written aside")
        draft, value.draft = value.draft, None
        return self._writer.finish(draft, expected), value.size

    def _wrote(self, case: Case, now: Signature, work: _Work) -> None:
        """Take note of a file that holds what Redis does."""
        digest = case.redis if isinstance(case.redis, bytes) else b""
        work.records.append(Record(case.name, now.unsure(), digest))
        self._remember(case.name, now)

    def _try(
        self, case: Case, do: Callable[[], Record | None], work: _Work, outcome: Outcome
    ) -> bool:
        """Do something on disk; say whether it could be done."""
        name = case.name
        try:
            record = do()
        except NotAsExpectedError:
            outcome.deferred[name] = self._later(name)
            return False
        except CannotBeError as error:
            self._cannot_be(name, error)
            work.records.append(self._forgotten(case))
            return False
        except OSError as error:
            work.records.append(self._forgotten(case))
            outcome.add(self._unwritable(name, error))
            return False
        if record:
            work.records.append(record)
        if self._mode is Mode.REDIS_TO_DISK and case.disk.value != case.ancestor:
            self._undo(name)
        self._is_done(name)
        return True

    def _later(self, name: bytes) -> float:
        """Return after how many seconds a name is to be looked at that is not as it was expected.

        That is the longer the more often it was so: somebody may have the file open for long, and
        when it is closed that is told.
        """
        if len(self._waits) >= _WAITS_MAX:
            self._waits.clear()
        self._waits[name] = wait = min(2 * self._waits.get(name, _SOON / 2), _LATEST)
        return wait

    def _forgotten(self, case: Case) -> Record:
        """Return what is to be remembered when nothing was written after all."""
        signature, digest = case.known
        if digest == NOTHING:
            return Record(case.name, None)
        return Record(case.name, signature.unsure(), digest)


def _without_file(cases: Sequence[Case]) -> list[bytes]:
    """Return the names that no file has, or that one was to be taken from."""
    return [
        case.name
        for case in cases
        if case.disk.value is ABSENT or (case.action is Action.TO_DISK and case.redis is ABSENT)
    ]


def _with_digests(renames: Sequence[Rename], digests: dict[bytes, bytes]) -> list[Rename]:
    """Have renames know which value each moves, by way of the spare key, too."""
    found = []
    for each in renames:
        digest = digests.get(each.old, b"")
        if each.new == SPARE:
            digests[SPARE] = digest
        found.append(each._replace(digest=digest))
    return found


def _by_kind(commands: Sequence[Command]) -> list[Command]:
    """Put commands of one kind together: what is kept is kept before it is overwritten."""
    order = {Keep: 0, Set: 1, Delete: 2}
    return sorted(commands, key=lambda each: order[type(each)])


def _on_disk(case: Case) -> str:
    has = case.disk.signature
    if case.disk.value is ABSENT:
        return "no file"
    if case.disk.value is UNFIT:
        return "what is no file"
    return counted(has.size, "byte", "bytes") if has else "a file that changes"


def _in_redis(case: Case) -> str:
    return "no key" if case.redis is ABSENT else counted(case.key.length, "byte", "bytes")
