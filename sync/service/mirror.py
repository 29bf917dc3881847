"""Brings names in Redis in line with the disk: the plan meets the two edges here.

Failure model. A batch is one transaction in Redis: it is done or not done. Whatever interrupts the
rest, looking at the same names again is always right, so nothing is undone here, and what became of
a batch is said in an `Outcome`: the caller has looked at again what could not be read yet, or was
being written to. What Redis refuses of one name is that name's alone: a batch that is refused goes
in parts. What it refuses of all ends the session.
"""

import logging
import math
import time
from collections.abc import (
    Callable,
    Collection,
    Container,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from sync.core.changes import (
    NONE,
    Command,
    Confirm,
    Delete,
    Done,
    MovedFile,
    Rename,
    Set,
    Signature,
    place_of,
    shown,
)
from sync.core.decision import Side
from sync.core.errors import RedisAwayError, RedisRefusedError
from sync.core.plan import Plan, settle
from sync.disk.files import (
    Busy,
    Directory,
    Emptied,
    File,
    Found,
    Gone,
    LargeFile,
    Locked,
    Unfit,
    Unreadable,
    can_be_now,
)
from sync.disk.links import Links
from sync.redis.target import Target
from sync.report.log import Lines
from sync.service.news import News
from sync.service.skipped import Skipped
from sync.service.streams import End, Stream, Streams

log = logging.getLogger(__name__)

# One transaction has at most so many names, and about so many bytes: it is held in memory, and
# other clients of Redis wait while it runs.
NAMES_MAX = 1000
_BYTES_MAX = 4 << 20
_BYTES_MAX_SPARING = 1 << 17
_TOGETHER_MAX, _TOGETHER_BYTES_MAX = 10_000, 64 << 20  # the same where more has to go at once

_BULKY = 1 << 16  # bytes; to bring no more than so many takes not much longer than to bring none
_TURN = 0.01  # seconds that a plan has, before what has happened since gets its turn
_PARTS = 0.02  # seconds to find out which of the names in a batch are refused
_CONFIRMED = 100  # names at once: what happens meanwhile waits
_UNSURE_MAX = 50_000  # names remembered, some 15 MB
_MOMENT = 0.01  # seconds
_WHILE = 0.5  # seconds that who publishes files may take to remove what leads nowhere by then
_SELDOM = 30.0  # seconds until another try of what fails for a reason that may last
_REST = 3.0  # times as long as it took, before a large file that changes is brought again
_REST_MIN = 0.1  # seconds
_CHANGING_MAX = 1000  # names remembered
_MOVED_MAX = 20_000  # renames remembered, some 5 MB
_ECHO = 2.0  # seconds in which one's own change is heard of
_ROOM = 1.0  # seconds that the server has to give memory back


@dataclass(slots=True)
class Outcome:
    """What became of names.

    done       what was carried out, in Redis or on disk
    deferred   names to be examined again, and after how many seconds (None: the usual)
    resting    the same, though they are written to: they are large, and it takes long
    free       names to be examined at once: what was in their way is there no more
    held_back  names that a writer is, or may be, at work under: they wait for its close
    others     names of files that were found to have several, or have lost one: to be examined
    overdue    the same, of files for whose writers nobody waits any more
    left       names of a plan for which there was no time
    locked     of those that are deferred: their writer wants nobody to read them now
    is_doubtful  whether something happened under a name that is nobody's by now, and not just to
               the file of which Redis holds the content. It may have been one more name of a
               file, for a moment; then what was written under it has changed a value, and only a
               look at all files tells which.
    """

    done: list[Done] = field(default_factory=list)
    deferred: dict[bytes, float | None] = field(default_factory=dict)
    resting: dict[bytes, float] = field(default_factory=dict)
    free: list[bytes] = field(default_factory=list)
    held_back: list[bytes] = field(default_factory=list)
    others: set[bytes] = field(default_factory=set)
    overdue: set[bytes] = field(default_factory=set)
    left: list[bytes] = field(default_factory=list)
    locked: set[bytes] = field(default_factory=set)
    is_doubtful: bool = False

    def add(self, other: "Outcome") -> None:
        """Add what became of other names."""
        self.done += other.done
        self.deferred |= other.deferred
        self.resting |= other.resting
        self.free += other.free
        self.held_back += other.held_back
        self.others |= other.others
        self.overdue |= other.overdue
        self.left += other.left
        self.locked |= other.locked
        self.is_doubtful |= other.is_doubtful

    def again(self) -> set[bytes]:
        """Return the names that are to be looked at again, since they were not carried out."""
        parts = (self.deferred, self.resting, self.held_back, self.left, self.free)
        again = {*chain.from_iterable(parts)}
        return again - self.done_names() if again else again

    def done_names(self) -> set[bytes]:
        """Return the names of what was carried out."""
        names = {each[0] for each in self.done}
        names.update(each.new for each in self.done if isinstance(each, Rename | MovedFile))
        return names


@dataclass(slots=True)
class Batch:
    """What was found under some names, until it is in Redis.

    homes     the directories through which they were looked up, by place
    racy      names whose entries are to be made sure later, with the signatures they are to have
    unsteady  names of files that were changing
    closed    names of files of which it is known that nobody had them open for writing
    gone      those that are absent, and are no name of anything
    """

    sets: list[Set] = field(default_factory=list)
    absent: list[bytes] = field(default_factory=list)
    racy: dict[bytes, Signature] = field(default_factory=dict)
    unsteady: list[bytes] = field(default_factory=list)
    closed: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    homes: dict[bytes, tuple[int, int] | None] = field(default_factory=dict)
    size: int = 0
    commands: list[Command] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)


_NONE: frozenset[bytes] = frozenset()


class Terms(NamedTuple):
    """How some of the names are looked at; what each means is said of a `Plan`."""

    overdue: Collection[bytes] = _NONE
    heard: Collection[bytes] = _NONE  # those that are overdue, and of whose writer was heard
    alone: Collection[bytes] = _NONE
    vacated: Collection[bytes] = _NONE
    written: Collection[bytes] = _NONE
    seen: bool = False  # all of them are regular files', as a scan has found just now
    part: bool = False  # and that scan is not of all files: others may have names elsewhere


_ORDINARY = Terms()
_NO_ROOM = RedisRefusedError("its maxmemory has no room for it", out_of_memory=True)


class _Turn:
    """Names, as many of them as there is time for."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = iter(names)
        self._ends = time.monotonic() + _TURN

    def __iter__(self) -> Iterator[bytes]:
        """Yield names until the time is over; one at least."""
        for name in self._names:
            yield name
            if time.monotonic() >= self._ends:
                return

    def left(self) -> list[bytes]:
        """Return the other names."""
        return list(self._names)


class Mirror:
    """The files of one directory as the keys of one Redis server.

    Attributes:
        links: the names of files that have several.
        streams: the large files on their way.
        skipped: why a name is not mirrored, by name.
        heard: names of keys that others may have changed; they are compared before they are SET.
        undone: how often what others had changed was set right.

    """

    def __init__(  # noqa: PLR0913  # each is a part that it puts to use
        self,
        directory: Directory,
        target: Target,
        streams: Streams,
        news: News,
        skipped: Skipped,
        *,
        trim_newline: bool = False,
        sparing: bool = False,
    ) -> None:
        """Mirror `directory` to `target`; drop one final newline from each value if asked to.

        What `news` has of a file that was read just now decides whether it counts. What is
        `skipped` already is known, and not said again. A `sparing` mirror sends little at
        once, to a server that is short of memory: what it is sent needs memory too.
        """
        self._bytes_max = _BYTES_MAX_SPARING if sparing else _BYTES_MAX
        self._directory = directory
        self._target = target
        self._news = news
        self._trim_newline = trim_newline
        self.links = Links(directory)
        self.streams = streams
        self.skipped = skipped
        self.heard: set[bytes] = set()
        self.undone = 0
        # New names by old ones, of what was renamed of late: in two parts, the older goes first.
        self._moved: tuple[dict[bytes, bytes], dict[bytes, bytes]] = {}, {}
        self.hears_itself = False  # whether what it writes is heard of, too
        self._arrivals: dict[bytes, float] = {}  # when large values took effect of late (s)
        self._lines = Lines(
            *(log, logging.INFO, "undone", "%(key)s was changed by another: undone"),
            others="other changes by others are undone, too",
        )
        self._begun: Batch | None = None
        self._roomless: dict[bytes, int] = {}  # large files that Redis had no room for: bytes
        # Large files that changed while they were brought, or for which the connection was lost.
        self._changing: set[bytes] = set()
        # Names whose entries in Redis are unsure, with the signatures that they are to have; None
        # when it has come to light that this is not the file's any more.
        self._unsure: dict[bytes, Signature | None] = {}
        self._strays: set[bytes] = set()  # those of which that came to light of late

    @property
    def takes_sides(self) -> bool:
        """Whether what Redis holds counts, too."""
        return False

    @property
    def takes_keys(self) -> bool:
        """Whether a key becomes a file."""
        return False

    def begin(self, take: Side | None) -> None:
        """Begin a session; somebody has decided for a side in its first look, or not."""

    @property
    def is_taking(self) -> bool:
        """Whether somebody has accepted a side, and there are names that could not be read yet."""
        return False

    def is_in_step(self, deferred: Iterable[bytes]) -> None:
        """End the first look of a session, in which some names could not be read yet."""

    def is_open(self, name: bytes) -> bool:
        """Say whether a name is to be looked at though nothing may be remembered of it.

        That is so if Redis has refused its file, or what others had put there was left alone.
        """
        return name in self.skipped and self._directory.signature(name) is not None

    def fit(self, names: Iterable[bytes]) -> Collection[bytes]:
        """Return those of some names of keys that are to be looked at, as files may have them."""
        can_have = self._directory.can_have
        return [name for name in names if can_have(name) and not name.endswith(b"/")]

    def hear(self, names: Collection[bytes]) -> Iterator[Outcome]:
        """Look at names of keys that others may have changed; tell which are to be examined."""
        self.heard.update(names)
        yield Outcome(others=set(names))

    def are_gone(self, places: Collection[bytes]) -> None:
        """Take note that directories are gone, or were when that was told."""

    def tidy(self, place: bytes) -> None:
        """Remove what an earlier session has left in a directory."""

    @property
    def is_due(self) -> bool:
        """Say whether there is something to do for a large value: one has come, or can begin."""
        return self.streams.is_due

    @property
    def due(self) -> float | None:
        """When a large value that rests may begin; None if none does."""
        return None

    @property
    def began(self) -> float:
        """When the large value began that is on its way, or has come (s)."""
        return self.streams.began

    def coming(self) -> set[bytes]:
        """Return the names of which a large value is on its way, or waits."""
        return self.streams.names()

    def close(self) -> None:
        """Let go of what is on its way."""
        self.streams.close()

    @property
    def is_sending(self) -> bool:
        """Say whether a batch was sent of which it is not known yet what became of it."""
        return self._begun is not None

    def follow(self, plan: Plan) -> Iterator[Outcome]:
        """Do in Redis what was done on disk; yield what became of each batch.

        What was sent before has to be settled, by `flush`: what became of it may change the plan.
        """
        missed = yield from self.move(plan.moves)
        terms = Terms(
            plan.overdue, plan.overdue - plan.unheard, plan.alone, plan.vacated, plan.written
        )
        examined = dict.fromkeys(chain(missed, plan.examine))
        turn = _Turn(examined if plan.is_put_back else self._small_first(examined))
        yield from self._batches(turn, terms)
        yield self.flush()
        yield Outcome(left=turn.left())

    def bring_together(
        self, names: Sequence[bytes], is_still: Callable[[], bool], *, overdue: bool
    ) -> Outcome | None:
        """Make Redis hold under all of these names what is on disk, in one transaction.

        Return None, and do nothing, if one of them cannot be read now, or is being written to, and
        is not `overdue`; or if what was found does not count, since it is not `still` so.
        What is more than one transaction may have is left to be examined by itself.
        """
        batch, terms = Batch(), Terms(vacated=frozenset(names))
        outcome = batch.outcome
        for name in names:
            if batch.size >= _TOGETHER_BYTES_MAX or len(batch.sets) >= _TOGETHER_MAX:
                outcome.free.append(name)
                continue
            found = self._directory.read(name, self._target.value_max, later=True, overdue=overdue)
            if isinstance(found, LargeFile):
                try:
                    found = _whole(found, _TOGETHER_BYTES_MAX - batch.size)
                except OSError:  # whoever brings it by itself will say so
                    found = None
                if found is None:
                    outcome.free.append(name)
                    continue
            if isinstance(found, Locked | Busy | Emptied) and not overdue:
                return None
            outcome.others |= self._note_links(name, found, terms)
            self._sort_in(batch, name, found, terms)
        asked = [each.name for each in batch.sets if each.name not in batch.closed]
        if (self._news.of(asked) and not overdue) or not is_still():
            return None
        self._leave_out_what_is_held(batch)
        done = self._begin(batch, terms)
        done.add(self.flush())
        return done

    def _leave_out_what_is_held(self, batch: Batch) -> None:
        encode = self._target.format.encode
        entries = self._target.entries([each.name for each in batch.sets])
        batch.sets = [
            each
            for each, entry in zip(batch.sets, entries, strict=True)
            if not each.signature.is_sure or entry != encode(each.signature)
        ]

    def move(
        self, moves: Mapping[bytes, bytes], *, are_hints: bool = False
    ) -> Generator[Outcome, None, dict[bytes, None]]:
        """Move values in Redis, new name from old one; return the names to examine instead.

        Of moves that are but hints, since a directory has moved, nobody knows what happened to the
        files before: those are done of which Redis surely has the content.
        """
        names = list(dict.fromkeys([*moves.values(), *moves]))
        found = {name: self._directory.look(name) for name in names}
        on_disk = {name: signature for name, (signature, _) in found.items()}
        held = self._held(names)
        if are_hints:
            self._forget_doubtful(held, found)
        settled = settle(moves, held, on_disk)
        missed = dict.fromkeys(settled.missed)
        # A file's own rename gives it another ctime; that of a directory above does not.
        sure = {
            new
            for new, old in moves.items()
            if (had := held[old]) and had.is_sure and had == on_disk[new]
        }
        for renames in _in_batches(settled.renames):
            outcome = self._rename(renames, sure)
            if not outcome.done:
                those = {name for each in renames for name in (each.old, each.new)}
                missed |= dict.fromkeys(those & on_disk.keys())
            yield outcome
        for name in settled.moved:
            signature, links = found[name]
            if name in self._unsure and name not in missed:
                self._unsure[name] = signature
            elif moves[name] == name and signature and signature != held[name]:
                self._remember(name, signature)  # it was renamed, and back: that has changed ctime
            if signature and links > 1:
                self.links.note(name, signature.inode, search=True)
        return missed

    def _forget_doubtful(
        self,
        held: dict[bytes, Signature | None],
        found: Mapping[bytes, tuple[Signature | None, int]],
    ) -> None:
        """Take for unknown what Redis holds of files that may have been written to since."""
        for name, (_, links) in found.items():
            if links > 1 or self._news.has(name):
                held[name] = None

    def examine(self, names: Iterable[bytes], *, alone: bool = False) -> Iterator[Outcome]:
        """Make Redis hold under each of these names what is on disk.

        The other names of a file that has several are told, if these are not to be looked at
        `alone`.
        """
        names = tuple(names)
        yield from self._batches(names, Terms(alone=frozenset(names)) if alone else _ORDINARY)
        yield self.flush()

    def watch(self, names: Sequence[bytes]) -> None:
        """Have it void what is sent for these names when another service changes them meanwhile."""
        self._target.watch(names)

    def examine_files(self, names: Iterable[bytes], *, part: bool = False) -> Iterator[Outcome]:
        """Examine names, each of which was found to be a regular file's just now, alone.

        If they are but `part` of what there is, the other names of their files are told.
        What became of the last batch is told by what is done next, or by `flush`.
        """
        yield from self._batches(names, Terms(seen=True, part=part))

    def examine_skipped(self) -> Iterator[Outcome]:
        """Examine what was skipped so far: it may be gone, or fit."""
        yield from self.examine([name for name in self.skipped if not name.endswith(b"/")])

    def arrive(self) -> Iterator[Outcome]:
        """Have a large file take effect that has come, and begin with the next.

        What was sent before has to be settled, by `flush`.
        """
        if stream := self.streams.take():
            yield self._arrived(stream)
        if turn := self.streams.next():
            name, *flags = turn
            overdue, heard = ([name] if flag else _NONE for flag in flags)
            # Its file's other names, if there are any, have turns of their own.
            yield from self._batches([name], Terms(overdue, heard, alone=[name]))
            yield self.flush()

    def keep_room(self) -> Outcome:
        """See to it that a large file on its way does not take the memory that the server has.

        Have those brought that the server had no room for, and has by now.
        """
        outcome = Outcome()
        for name, size in tuple(self._roomless.items()):
            if name not in self.skipped or self._target.has_room(size):
                del self._roomless[name]
                outcome.free.append(name)
        stream = self.streams.current
        if stream and not stream.end and self._target.is_full():
            self.streams.void(stream.name)
            self._refuse_large(stream.name, stream.signature.size, _NO_ROOM, outcome)
        return outcome

    def flush(self) -> Outcome:
        """Wait for what was sent last, and say what became of it."""
        batch, self._begun = self._begun, None
        if batch is None:
            return Outcome()
        try:
            self._target.finish()
        except RedisRefusedError as error:
            commands = self._remove_first(batch, error)
            if commands:
                self._make_room(error, batch.outcome)
                self._apply(commands, batch.outcome, time.monotonic() + _PARTS)
        else:
            batch.outcome.done = [*batch.commands]
        self._conclude(batch)
        return batch.outcome

    def confirm(self, before: int, pending: Container[bytes]) -> bool:
        """Make sure entries of some names that are unsure; say whether that was all.

        Whatever happened to the files `before` that time (`files.now`) was followed, except for
        what is pending. Nothing may be on its way to Redis (`is_sending`).
        """
        ready = list(
            islice(
                (
                    (name, has)
                    for name, has in self._unsure.items()
                    if has and not can_be_now(has.ctime, before)
                ),
                _CONFIRMED,
            )
        )
        self._forget_strays(pending)
        commands: list[Confirm] = []
        for name, signature in ready:
            # What is written to a file is told of one of its names only.
            names = self.links.names([signature.inode]) | {name}
            is_told = all(map(self._news.tells_of, names - {name}))
            if (
                any(each in pending for each in names)
                or not is_told
                or self._directory.signature(name) != signature
            ):
                self._unsure[name] = None  # what happened to the file is still to be followed
                self._strays.add(name)
            else:
                del self._unsure[name]
                commands.append(Confirm(name, signature))
        if commands:
            try:
                self._make_sure(commands)
            except RedisRefusedError:
                self._target.probe()  # if it is for one of the names, a restart reads those files
        return len(ready) < _CONFIRMED

    def _make_sure(self, commands: Sequence[Confirm]) -> None:
        """Give entries their signatures. Raises RedisRefusedError."""
        self._target.apply(commands)

    def _forget_strays(self, pending: Container[bytes]) -> None:
        """Forget entries that could not be made sure the last time, if no event tells of why."""
        for name in self._strays:
            if self._unsure.get(name, NONE) is None and name not in pending:
                del self._unsure[name]
        self._strays.clear()

    def _small_first(self, names: Collection[bytes]) -> Iterable[bytes]:
        """Return names in an order in which none waits for others that take much longer."""
        if len(names) < 2:  # noqa: PLR2004  # it has nothing to wait for
            return names
        small: list[bytes] = []
        bulky: list[bytes] = []
        # In a tree those of one directory go together: it is opened once for all of them.
        for name in sorted(names) if self._directory.is_tree else names:
            is_bulky = name not in self.heard and self._directory.size(name) > _BULKY
            (bulky if is_bulky else small).append(name)
        return small + bulky

    def _held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        """Return the signature of the file whose content each name surely holds, None if none.

        An entry that an earlier session has left unsure may be that of a rename which was not done.
        """
        return {
            name: signature if signature and (signature.is_sure or name in self._unsure) else None
            for name, signature in self._target.held(names).items()
        }

    def _rename(self, renames: list[Rename], sure: Container[bytes]) -> Outcome:
        try:
            self._target.apply(renames)
        except RedisRefusedError as error:
            outcome = Outcome()
            self._make_room(error, outcome)
            return outcome
        confirmed = self._confirm_renamed([each for each in renames if each.new in sure])
        if len(self._moved[1]) < _MOVED_MAX:
            self._moved[1].update((each.old, each.new) for each in renames)
        for old, new, signature, _ in renames:
            self._unsure.pop(old, None)
            self._unsure.pop(new, None)
            if not (confirmed and new in sure):
                self._remember(new, signature)
            self.links.rename(old, new)
            self.streams.void(old)
            self.streams.void(new)
        self.skipped.clear_of(each.old for each in renames)
        return Outcome(done=list(renames))

    def followed(self, names: Iterable[bytes]) -> list[bytes]:
        """Return names of keys, and those that such values have got of late.

        What others have put under a name just before it was renamed is under the new one.
        """
        earlier, later = self._moved
        found = dict.fromkeys(names)
        if earlier or later:
            for name in [*found]:
                while (new := later.get(name) or earlier.get(name)) and new not in found:
                    found[new] = None
                    name = new  # noqa: PLW2901  # it may have moved on
        return list(found)

    @property
    def has_moved_more(self) -> bool:
        """Whether more was renamed of late than `followed` knows of."""
        return max(map(len, self._moved)) >= _MOVED_MAX

    def forget_moved(self) -> None:
        """Forget what was renamed before the last call of this."""
        self._moved = self._moved[1], {}

    def _confirm_renamed(self, renames: Sequence[Rename]) -> bool:
        """Make sure entries that were so before a rename, which is done; say whether they are."""
        try:
            if renames:
                self._make_sure([Confirm(each.new, each.signature) for each in renames])
        except RedisRefusedError:
            return False
        return True

    def _batches(self, names: Iterable[bytes], terms: Terms) -> Iterator[Outcome]:
        """Carry out what follows from what is found.

        Redis carries out one batch while files are read for the next.
        """
        size_max, seen = self._target.value_max, terms.seen
        several, single, skipped = self.links.inodes, self.links.single, self.skipped
        is_tree = self._directory.is_tree
        batch = Batch()
        for name, looked in self._directory.read_ordinary(names, size_max, seen=seen):
            if is_tree and (place := place_of(name)) and place not in batch.homes:
                batch.homes[place] = self._directory.identity(place)
            ordinary = None if looked is Gone.GONE else looked
            # Unless nobody had it open while it was read, such a name takes a closer look.
            later = name in terms.alone and not (ordinary and ordinary.closed)
            if looked is Gone.GONE and name not in terms.overdue:
                self._note_gone(batch, name)
            elif (
                ordinary
                and ordinary.links <= 1
                and not (later or name in several or name in single or name in skipped)
            ):
                self._add(batch, name, ordinary)
            else:
                found = (not later and ordinary) or self._directory.read(
                    name, size_max, seen=seen, later=later, overdue=name in terms.overdue
                )
                others = self._note_links(name, found, terms)
                if name in terms.heard:
                    batch.outcome.overdue |= others
                else:
                    batch.outcome.others |= others
                if self._is_to_be_searched_for(name, terms):
                    batch.outcome.deferred[name] = None
                    if isinstance(found, LargeFile):
                        found.close()
                elif name in skipped and isinstance(found, File):
                    # What was refused must not have others refused with it. And what was read
                    # must be sent before anybody else has a turn.
                    outcome = self._send(batch, terms)
                    batch = Batch()
                    self._add(batch, name, found)
                    outcome.add(self._send(batch, terms))
                    batch = Batch()
                    yield outcome
                else:
                    self._sort_in(batch, name, found, terms)
            if batch.size >= self._bytes_max or len(batch.sets) + len(batch.absent) >= NAMES_MAX:
                yield self._send(batch, terms)
                batch = Batch()
        batch.outcome.others |= self.links.take_lost()
        yield self._send(batch, terms)

    def _note_gone(self, batch: Batch, name: bytes) -> None:
        self.links.forget(name)
        batch.gone.add(name)
        batch.absent.append(name)

    def _add(self, batch: Batch, name: bytes, file: File) -> None:
        signature, content, _, steady, racy, closed = file
        if closed:
            batch.closed.add(name)
        if racy or not steady:
            if steady:
                batch.racy[name] = signature
            else:
                batch.unsteady.append(name)
            signature = signature.unsure()
        batch.size += len(content)
        if self._trim_newline:
            content = content.removesuffix(b"\n")
        batch.sets.append(Set(name, content, signature))

    def _sort_in(self, batch: Batch, name: bytes, found: Found, terms: Terms) -> None:
        """Add to a batch what was found under a name."""
        outcome = batch.outcome
        match found:
            case File():
                self._add(batch, name, found)
            case LargeFile():
                self._offer(name, found, outcome, terms)
            case Locked():
                outcome.deferred[name] = None
                outcome.locked.add(name)
            case Busy():
                self._hold_back(name, outcome, alone=name in terms.alone)
            case Emptied():
                outcome.deferred[name] = _MOMENT
            case Unreadable(why):
                self.skipped.note(name, why)
                if name in self.skipped:  # the next rescan tries the others
                    outcome.deferred[name] = _SELDOM
            case Unfit(why):
                self._note_unfit(name, why, outcome, terms)
                batch.absent.append(name)
            case None:
                batch.absent.append(name)

    def _note_unfit(self, name: bytes, why: str, outcome: Outcome, terms: Terms) -> None:
        if self._news.groups and name not in terms.alone and name not in self.skipped:
            # Who publishes may be about to take it away; then it is none to be named.
            outcome.deferred[name] = _WHILE
        else:
            self.skipped.note(name, why)

    def _hold_back(self, name: bytes, outcome: Outcome, *, alone: bool) -> None:
        if not alone:  # or nothing has happened since the last look
            self.streams.hold_back(name)
        outcome.held_back.append(name)

    def _note_links(self, name: bytes, found: Found, terms: Terms) -> set[bytes]:
        """Take note of a name of a file with several; return the others, if they matter here."""
        if isinstance(found, File | LargeFile):
            inode, links = found.signature.inode, found.links
        else:  # a name that is left out can be one of a file that is not
            inode, links = self._directory.links(name)
        if links <= 1:
            self.links.forget(name)
            return set()
        is_all = terms.seen and not terms.part
        self.links.note(name, inode, search=not is_all)
        if is_all or name in terms.alone or name not in self.links.inodes:
            return set()
        return self._other_names(name)

    def _is_to_be_searched_for(self, name: bytes, terms: Terms) -> bool:
        """Say whether a file of whose writers nothing was heard may have some under other names."""
        is_unheard = name in terms.overdue and name not in terms.heard
        return is_unheard and self.links.is_sought(name)

    def _send(self, batch: Batch, terms: Terms) -> Outcome:
        """Send what follows from a batch; return what became of the one before.

        If nothing follows, that is told at once.
        """
        if not (batch.sets or batch.absent):
            return batch.outcome  # Redis goes on meanwhile with what was sent last
        self._leave_out_what_has_news(batch, terms)
        return self._begin(batch, terms)

    def _begin(self, batch: Batch, terms: Terms) -> Outcome:
        """Send what follows from a batch; return what became of the one before."""
        outcome = self.flush()
        if self.heard:
            self._leave_out_what_is_right(batch)
        batch.commands = [*batch.sets, *self._deletes(batch, terms)]
        if self.streams.count:
            for name in chain((each.name for each in batch.sets), batch.absent):
                self.streams.void(name)
        if batch.commands:
            self._target.begin(batch.commands)
            self._begun = batch
        else:
            outcome.add(batch.outcome)
        return outcome

    def _leave_out_what_is_right(self, batch: Batch) -> None:
        """Leave out of what was heard of in Redis what it holds all the same, and for ever."""
        some = [each for each in batch.sets if each.name in self.heard]
        self.heard.difference_update(chain((each.name for each in some), batch.absent))
        while some:
            keys = self._target.look([each.name for each in some], watch=False)
            last = self._target.last_for_ever([each.name for each in some[: len(keys)]])
            are_right = {
                each.name: key.value == each.content and lasts
                for each, key, lasts in zip(some, keys, last, strict=False)
            }
            for each, key in zip(some, keys, strict=False):
                if not are_right[each.name] and self._was_right(each, key.entry, batch):
                    self._undo(each.name)
            _leave_out(batch, [name for name, is_right in are_right.items() if is_right])
            some = some[len(keys) :]

    def _was_right(self, found: Set, entry: bytes | None, batch: Batch) -> bool:
        """Say whether Redis was given what the file has, so that another has changed the key."""
        held = self._target.format.decode(entry)
        signature = batch.racy.get(found.name, found.signature)
        return held is not None and held.is_content_of(signature)

    def _undo(self, name: bytes) -> None:
        self.undone += 1
        self._lines.write(key=shown(name))

    def _leave_out_what_has_news(self, batch: Batch, terms: Terms) -> None:
        """Leave out what a writer may have been at work on when it was read.

        That it has closed the file was heard before; if there is news by now, another has begun.
        """
        names = [*(each.name for each in batch.sets), *batch.absent]
        # A file that has several names can be written to through any of them.
        several, heard = self.links.inodes, terms.heard
        inodes = {name: several[name] for name in names if name in several and name not in heard}
        shared = {inode: self.links.names([inode]) for inode in set(inodes.values())}
        told = self._news.of(names, overdue=heard)
        written = {inode for inode, others in shared.items() if self._news.is_heard_of(others)}
        news = {name for name in names if name in told or inodes.get(name) in written}
        news -= batch.closed
        if groups := self._news.groups:  # after what had happened is known
            left = groups.left_to_it(names)
            _leave_out(batch, left)
            news -= left
        if news:
            _leave_out(batch, news)
            batch.outcome.held_back += news
        self._leave_out_what_has_left(batch)

    def _leave_out_what_has_left(self, batch: Batch) -> None:
        """Leave out what was read in a directory that is not at its place any more.

        It may have been read when that was outside of the root already.
        """
        self._directory.forget()
        left = {
            place for place, home in batch.homes.items() if self._directory.identity(place) != home
        }
        if left:
            names = {each.name for each in batch.sets if place_of(each.name) in left}
            batch.outcome.deferred |= dict.fromkeys(names)
            _leave_out(batch, names)

    def _deletes(self, batch: Batch, terms: Terms) -> Iterator[Delete]:
        for name, ours in zip(batch.absent, self._target.are_ours(batch.absent), strict=True):
            self._unsure.pop(name, None)
            if ours:
                yield Delete(name)
            # A key that we did not put there is not ours to delete.
            elif self._directory.has(name):
                continue
            else:
                self.skipped.clear_of([name])
            # Of what was there in between nobody knows which file it was.
            unknown = name in terms.written or not ours
            batch.outcome.is_doubtful |= unknown and name not in terms.vacated

    def _conclude(self, batch: Batch) -> None:
        """Take note of what was done of a batch."""
        outcome = batch.outcome
        refused = outcome.deferred.keys() if len(outcome.done) < len(batch.commands) else _NONE
        if self._unsure:
            for each in batch.sets:
                self._unsure.pop(each.name, None)
        for name, signature in batch.racy.items():
            if name not in refused:
                self._remember(name, signature)
        for name in batch.unsteady:
            outcome.deferred.setdefault(name, None)
        if groups := self._news.groups:
            groups.forget(name for name in batch.absent if name not in refused)
        if self.skipped:
            self.skipped.clear_of(
                each[0]
                for each in outcome.done
                if isinstance(each, Set) or not self._directory.has(each[0])
            )

    def _remove_first(self, batch: Batch, error: RedisRefusedError) -> list[Command]:
        """Delete what can go when the server has no memory; return the other commands."""
        deletes = [each for each in batch.commands if isinstance(each, Delete)]
        if not error.out_of_memory or not deletes:
            return batch.commands
        refused = self._target.remove([each.name for each in deletes])
        for name, why in refused.items():
            self._refuse(name, why, batch.outcome)
        batch.outcome.done += [each for each in deletes if each.name not in refused]
        return [*batch.sets]

    def _make_room(self, error: RedisRefusedError, outcome: Outcome) -> None:
        """See to it that what was refused is not refused for a large file that is on its way.

        Raises RedisAwayError when the server refuses whatever it is sent.
        """
        stream = self.streams.current
        if error.out_of_memory and stream:
            self.streams.void(stream.name)
            self._refuse_large(stream.name, stream.signature.size, error, outcome)
            end = time.monotonic() + _ROOM
            while self._target.is_full() and time.monotonic() < end:
                time.sleep(0.005)  # its thread lets go after the piece that it sends
        self._target.probe()

    def _apply(self, commands: Sequence[Command], outcome: Outcome, deadline: float) -> None:
        """Carry out commands, in parts as far as they are refused together.

        What there is no time for comes later; the first half is tried whatever the time.
        """
        try:
            self._target.apply(commands)
        except RedisRefusedError as error:
            if len(commands) == 1:
                self._refuse(_name(commands[0]), error, outcome)
                return
            middle = len(commands) // 2
            self._apply(commands[:middle], outcome, deadline)
            if time.monotonic() < deadline:
                self._apply(commands[middle:], outcome, deadline)
            else:
                outcome.deferred |= dict.fromkeys(map(_name, commands[middle:]), 0.0)
        else:
            outcome.done += commands

    def _refuse(self, name: bytes, error: Exception, outcome: Outcome) -> None:
        self.skipped.note(
            name, f"is refused by Redis ({error}): its key stays as it is, and it is tried again"
        )
        # Very many would take all the time; those that are not remembered the next rescan tries.
        if name in self.skipped:
            outcome.deferred[name] = _SELDOM * (1 + len(self.skipped) // 1000)

    def _refuse_large(
        self, name: bytes, size: int, error: RedisRefusedError, outcome: Outcome
    ) -> None:
        if error.out_of_memory:
            self._roomless[name] = size
        self._refuse(name, error, outcome)

    def _offer(self, name: bytes, file: LargeFile, outcome: Outcome, terms: Terms) -> None:
        """Have a large file brought, now or later."""
        current = self.streams.current
        if name in self.heard:
            self.heard.discard(name)
            if self._is_echo(name, file):
                file.close()
                return
            held = self._target.held([name])[name]
            if held and held.is_content_of(file.signature):
                self._undo(name)
        overdue, heard = name in terms.overdue, name in terms.heard
        with ExitStack() as unless_it_starts:
            unless_it_starts.callback(file.close)
            if current and current.name == name and current.could_be(file.signature):
                if heard or not (overdue or name in terms.alone):  # or nothing has happened
                    current.heard = heard
            elif current:
                self.streams.wait(name, overdue=overdue, heard=heard)
            elif self._has_news(name, is_heard=heard):
                outcome.held_back.append(name)
            elif not self._target.has_room(file.size):
                self._refuse_large(name, file.size, _NO_ROOM, outcome)
            else:
                unless_it_starts.pop_all()
                upload = self._target.upload(name)
                self.streams.start(name, file, upload, overdue=overdue, heard=heard)

    def _is_echo(self, name: bytes, file: LargeFile) -> bool:
        """Say whether what was heard of a name seems to be what the service has just done itself.

        To compare what is large takes too long, and to bring it again would be heard of again.
        """
        if time.monotonic() - self._arrivals.get(name, -math.inf) > _ECHO:
            return False
        (length,) = self._target.lengths([name])
        return self._target.format.could_be(length, file.signature)

    def _arrived(self, stream: Stream) -> Outcome:
        """Do what follows from how a large file came."""
        outcome, name = Outcome(), stream.name
        if stream.is_void:
            stream.upload.void()
        elif self._has_left(stream):
            stream.upload.void()
            outcome.deferred[name] = None
        elif stream.end is End.WHOLE:
            if self._news.groups and self._news.groups.left_to_it([name]):
                stream.upload.void()
            elif self._is_anothers(stream):
                stream.upload.void()
                outcome.held_back.append(name)
            else:
                self._take_effect(stream, outcome)
        elif isinstance(stream.error, RedisRefusedError):
            self._refuse_large(name, stream.signature.size, stream.error, outcome)
        elif isinstance(stream.error, OSError):
            self.skipped.note(name, f"cannot be read ({stream.error}): its key stays as it is")
            outcome.deferred[name] = _SELDOM
        elif isinstance(stream.error, RedisAwayError):
            self._lose(stream, outcome)
        elif stream.error:
            raise stream.error
        else:
            self._rest(stream, outcome)
        return outcome

    def _has_left(self, stream: Stream) -> bool:
        """Say whether a file is not where it was, since a directory above is not."""
        if b"/" not in stream.name and not self._news.groups:
            return False
        self._directory.forget()
        has = self._directory.signature(stream.name)
        return has is None or has.inode != stream.signature.inode

    def _is_anothers(self, stream: Stream) -> bool:
        """Say whether what has come may be of a writer whose close is still to be waited for.

        When one that is waited for no more is not the only one, what seems to be the beginning of
        a file that grows may be that of a file that was written anew.
        """
        name = stream.name
        if stream.heard:
            return not stream.steady and self._has_news(name, is_heard=True)
        return self._news.has_writer(name, self._other_names(name))

    def _has_news(self, name: bytes, *, is_heard: bool) -> bool:
        """Say whether something has happened to a file, and not just its known writer's writes."""
        if is_heard:
            return bool(self._news.of([name], overdue=[name]))
        return bool(self._news.of([name])) or self._news.is_heard_of(self._other_names(name))

    def _other_names(self, name: bytes) -> set[bytes]:
        inode = self.links.inodes.get(name)
        return set() if inode is None else self.links.names([inode]) - {name}

    def _lose(self, stream: Stream, outcome: Outcome) -> None:
        """Do what follows from the loss of the connection over which a large file came.

        If the server is away, the other connection tells. Servers close what is idle, too.
        """
        if stream.name in self._changing and stream.error:
            self._refuse(stream.name, stream.error, outcome)
        else:
            self._rest(stream, outcome)

    def _take_effect(self, stream: Stream, outcome: Outcome) -> None:
        name, signature = stream.name, stream.signature
        is_sure = stream.steady and not stream.racy
        try:
            arrive = self._target.arrive(
                stream.upload, signature if is_sure else signature.unsure()
            )
        except RedisRefusedError as error:
            self._refuse_large(name, signature.size, error, outcome)
            return
        if arrive is None:  # it has expired, or was evicted
            self._rest(stream, outcome)
            return
        outcome.done.append(arrive)
        self._brought(stream, outcome, is_sure=is_sure)

    def _brought(self, stream: Stream, outcome: Outcome, *, is_sure: bool) -> None:
        """Take note that a large file is in Redis."""
        name, signature = stream.name, stream.signature
        if self.hears_itself:
            if len(self._arrivals) >= _CHANGING_MAX:
                self._arrivals.clear()
            self._arrivals[name] = time.monotonic()
        self.skipped.clear_of([name])
        if stream.steady and self._directory.signature(name) != signature:
            outcome.deferred.setdefault(name, _MOMENT)  # it has changed since, or been replaced
        self._unsure.pop(name, None)
        if not stream.steady:
            self._rest(stream, outcome)
            return
        self._changing.discard(name)
        if not is_sure:
            self._remember(name, signature)

    def _rest(self, stream: Stream, outcome: Outcome) -> None:
        """Have a large file looked at again: soon, and after that when its next turn is fair."""
        rest = _REST_MIN
        if stream.name in self._changing:
            rest = max(rest, _REST * (time.monotonic() - stream.began))
        if len(self._changing) >= _CHANGING_MAX:
            self._changing.clear()
        self._changing.add(stream.name)
        outcome.resting[stream.name] = rest

    def _remember(self, name: bytes, signature: Signature) -> None:
        if len(self._unsure) < _UNSURE_MAX and self._news.tells_of(name):
            self._unsure[name] = signature


def _leave_out(batch: Batch, names: Collection[bytes]) -> None:
    if names:
        batch.sets = [each for each in batch.sets if each.name not in names]
        batch.absent = [name for name in batch.absent if name not in names]
        batch.unsteady = [name for name in batch.unsteady if name not in names]
        for name in names:
            batch.racy.pop(name, None)


def _whole(large: LargeFile, most: int) -> File | None:
    """Read a large file at once, if it is not larger than so many bytes; close it."""
    with closing(large):
        if large.size > most:
            return None
        content = b"".join(large.pieces())
        steady = len(content) == large.size and large.is_unchanged()
        return File(large.signature, content, large.links, steady, large.racy)


def _name(command: Command) -> bytes:
    return command.new if isinstance(command, Rename) else command.name


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
