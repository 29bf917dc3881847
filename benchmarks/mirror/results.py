"""What was measured: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many files there are, and how many keys have their content, another, or no file."""

    files: int
    right: int
    wrong: int  # another content: an older one, say
    extra: int

    @property
    def equal(self) -> bool:
        """Whether Redis has all files and nothing else."""
        return self.right == self.files and not self.extra


Compared = tuple[str, str, Comparison]  # after which measure, of which contender


@dataclass(frozen=True, slots=True)
class Followed:
    """When a burst was followed. After this time from the beginning of its writer, ..."""

    written: float  # ... the writer was done
    equal: float | None  # ... the copy was seen to have all of it; None: it never was
    quiet: float  # ... the copy had all, or had changed for the last time


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of many new files, or keys, one right after the other."""

    files: int
    followed: Followed
    compared: Comparison  # in the end


@dataclass(slots=True)
class Scan:
    """How long it took to look at many files that were there, by who did so."""

    read: list[float] = field(default_factory=list)  # the loop that only reads them
    piped: list[float] = field(default_factory=list)  # `redis-cli --pipe`, which reads none
    first: list[float] = field(default_factory=list)  # mdvp-sync, Redis empty
    restart: list[float] = field(default_factory=list)  # mdvp-sync, nothing changed


@dataclass(frozen=True, slots=True)
class Rewrites:
    """What came of one file that was rewritten over and over."""

    times: int
    written: float  # after this time the writer was done
    last: float  # from the last close until Redis had the last content
    commands: int  # that the server got


@dataclass(frozen=True, slots=True)
class Idle:
    """What a contender takes when nothing happens."""

    seconds: float  # that was looked at
    cpu: float  # of these, on a processor
    resident: int


@dataclass(slots=True)
class Busy:
    """What other clients' load did to one service, and that to them."""

    load: str  # what they did
    service: str  # beside what: a contender, or nothing
    rates: list[float] = field(default_factory=list)  # of their SETs a second
    cpu: list[float] = field(default_factory=list)  # of the service, for each of these SETs
    visible: list[float] = field(default_factory=list)  # meanwhile, from the close of one file on


@dataclass(slots=True)
class BothWays:
    """What comes of changes in Redis. Times are in seconds; by contender's name."""

    visible: dict[str, list[float]] = field(default_factory=dict)  # from the answer to SET on
    writer: list[float] = field(default_factory=list)  # of as many files, alone
    bursts: dict[str, list[Burst]] = field(default_factory=dict)  # of keys
    undone: dict[str, list[float]] = field(default_factory=dict)  # by what was done to a key
    busy: list[Busy] = field(default_factory=list)


@dataclass(slots=True)
class Waits:
    """How long it took until `mdvp-sync wait` knew that all was in Redis; nothing else went on."""

    nothing: list[float] = field(default_factory=list)  # had been written before
    file: list[float] = field(default_factory=list)  # one had been closed just before
    command: list[float] = field(default_factory=list)  # the whole command, for that
    interpreter: list[float] = field(default_factory=list)  # Python alone, which does nothing


@dataclass(frozen=True, slots=True)
class Failover:
    """What came of the death of the server that had the keys. After this time, ..."""

    promoted: float  # ... another one had taken its place
    told: float  # ... those who are asked where it is said so
    written: float  # ... that had a file which was closed right after the death
    equal: float  # ... that was equal to the directory, which had changed all the time


@dataclass(frozen=True, slots=True)
class Work:
    """The processor time that so much took."""

    service: float
    server: float  # that has the keys


@dataclass(slots=True)
class Existing:
    """What comes of the Redis that people run. Times are in seconds; by contender's name."""

    load: tuple[float, float] = (0.0, 0.0)  # average of the machine's, when it began and ended
    visible: dict[str, list[float]] = field(default_factory=dict)  # from the close of one file on
    turns: dict[str, list[Work]] = field(default_factory=dict)  # for each of these, by turns
    bursts: dict[str, list[Burst]] = field(default_factory=dict)
    works: dict[str, list[Work]] = field(default_factory=dict)  # for each of these
    waits: dict[str, Waits] = field(default_factory=dict)
    failovers: dict[str, list[Failover]] = field(default_factory=dict)


@dataclass(slots=True)
class Results:
    """All that one run measured. Times are in seconds, sizes in bytes; by contender's name."""

    machine: str = ""
    visible: dict[str, list[float]] = field(default_factory=dict)  # from the close of one file on
    idle: dict[str, Idle] = field(default_factory=dict)
    writer: list[float] = field(default_factory=list)  # alone, for the files of a burst
    bursts: dict[str, list[Burst]] = field(default_factory=dict)
    scans: dict[int, Scan] = field(default_factory=dict)  # by files
    empty_start: list[float] = field(default_factory=list)  # mdvp-sync, no files
    rewrites: list[Rewrites] = field(default_factory=list)
    large: int = 0  # size of the file that is renamed
    renames: list[float] = field(default_factory=list)  # from rename(2) until it was done in Redis
    moved: list[int] = field(default_factory=list)  # bytes that the server got for it
    peaks: dict[str, int] = field(default_factory=dict)  # mdvp-sync's resident memory, by load
    both_ways: BothWays = field(default_factory=BothWays)
    existing: Existing = field(default_factory=Existing)
    compared: list[Compared] = field(default_factory=list)
