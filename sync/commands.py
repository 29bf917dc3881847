"""The commands that work beside a service: verify, conflicts, resolve, accept; and acl.

But for the last they work by way of Redis. `wait` has a module of its own, which is loaded quickly.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from redis.connection import parse_url

from sync.core.decision import Mode, Side
from sync.core.errors import RedisAwayError, SettingsError, SyncError
from sync.decide.listing import NEVER, as_json, conflict_lines, lost_lines
from sync.decide.resolution import Answer, Resolution
from sync.disk.files import Directory
from sync.reach import reached
from sync.redis.acl import Needs, lines
from sync.redis.address import Address
from sync.redis.notes import Notes
from sync.redis.target import Target
from sync.redis.url import parse
from sync.report.figures import counted
from sync.report.health import health
from sync.report.screen import Screen, cannot, write_any_name
from sync.service.mirror import Mirror
from sync.service.news import NoNews
from sync.service.skipped import Skipped
from sync.service.streams import Streams, at_once
from sync.settings import Settings
from sync.verify.comparison import Comparison
from sync.verify.verification import Tally, Verification

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds that a decision waits for the service, which takes milliseconds


def carry_out(
    settings: Settings, options: argparse.Namespace, open_directory: Callable[[], Directory]
) -> int:
    """Carry out a command with its options; return its exit status, 2 when it could not."""
    write_any_name()
    match options.command:
        case "verify":
            return verify(settings, options.path, open_directory, repair=options.repair)
        case "conflicts":
            return conflicts(settings, everything=options.all, for_programs=options.json)
        case "resolve":
            return resolve(settings, options.name, Side(options.take), options.number)
        case "acl":
            return acl(settings, options.user)
    return accept(settings, Side(options.side))


def verify(
    settings: Settings, path: str, open_directory: Callable[[], Directory], *, repair: bool
) -> int:
    """Compare all, or what is at a path below the root.

    Return 0 when all is equal, perhaps by repair, 1 when not, 2 when it could not look.
    """
    if repair and settings.mode is not Mode.ONE_WAY_REPLICA:
        return cannot(
            f"with SYNC_MODE={settings.mode.value} the service alone mends what differs: leave out "
            "--repair, and see `mdvp-sync conflicts` and `mdvp-sync resolve`"
        )
    logging.getLogger("sync").addHandler(logging.NullHandler())  # what there is to say is printed
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # as in `run`

    def verified(target: Target, address: Address) -> int:
        with (
            closing(Screen(sys.stdout, sys.stderr)) as screen,
            closing(open_directory()) as directory,
        ):
            verification = _verification(settings, directory, target, screen, repair=repair)
            target.join()
            found = verification.run(settings.below(path))
        if verification.is_nothing and not found.differences + found.mended:
            return cannot(
                f"there is nothing to compare: {path} is no file or directory that is mirrored "
                f"from {settings.root}, and no key"
            )
        return _tell(
            found, f"Redis at {address}", settings.root / path, _way_out(settings, repair=repair)
        )

    return _beside(settings, verified, "all was compared")


def _verification(
    settings: Settings, directory: Directory, target: Target, screen: Screen, *, repair: bool
) -> Verification:
    newline = settings.trim
    streams = Streams(at_once, lambda: None, trim_newline=newline)
    news = NoNews(directory)
    mirror = Mirror(directory, target, streams, news, Skipped(log), trim_newline=newline)
    comparison = Comparison(directory, target, settings.mode, trim_newline=newline)
    return Verification(
        *(directory, target, comparison, screen, mirror if repair else None),
        takes_keys=settings.mode.writes_files,
    )


def _way_out(settings: Settings, *, repair: bool) -> str:
    if settings.mode is not Mode.ONE_WAY_REPLICA:
        return "; `mdvp-sync conflicts` lists what somebody has to decide"
    return "" if repair else "; mend that with `mdvp-sync verify --repair`"


def _tell(found: Tally, redis: str, root: Path, way_out: str) -> int:
    if found.differences:
        differences = counted(found.differences, "difference", "differences")
        print(f"{redis} differs from {root}: {differences}, {found}{way_out}")
        return 1
    if found.unsure:
        print(f"{redis} equals {root}, but for what could not be compared: {found}")
        return 2
    print(f"{redis} equals {root}: {found}")
    return 0


def conflicts(settings: Settings, *, everything: bool, for_programs: bool) -> int:
    """List the names in conflict; with `everything` the values that lost and are kept, too.

    Return 0 when no name is in conflict, 1 when some are.
    """

    def listed(target: Target, _: Address) -> int:
        target.join()
        notes = Notes(target)
        found = {} if settings.mode in NEVER else notes.conflicts()
        lost = notes.lost() if everything or for_programs else []
        if for_programs:
            print(as_json(settings.mode, found, lost))
            return 1 if found else 0
        for line in conflict_lines(found, settings.mode):
            print(line)
        for line in lost_lines(lost) if everything else ():
            print(line)
        return 1 if found else 0

    return _beside(settings, listed, "all was listed")


def resolve(settings: Settings, written: str, side: Side, number: int | None) -> int:
    """Have the service take one side's value of a name, or bring back one that lost.

    Return 0 when that is done, 1 when the name is still in conflict, 2 when it is not done yet.
    """

    def decided(resolution: Resolution) -> Answer:
        paths = (os.fsencode(written), settings.below(written))
        return resolution.resolve(written, paths, side, number)

    return _decide(settings, decided)


def accept(settings: Settings, side: Side) -> int:
    """End a hold of the service; return 0 when it goes on, 2 when it does not."""
    if side is Side.REDIS and settings.mode is Mode.ONE_WAY_REPLICA:
        return cannot(
            f"with SYNC_MODE={settings.mode.value} nothing in Redis becomes a file: put the "
            "directory back, or accept the disk"
        )
    if settings.status and health(settings.status, time.monotonic()).problem is None:
        return cannot("the service does not hold, so there is nothing to accept")
    return _decide(settings, lambda resolution: resolution.accept(side))


def _decide(settings: Settings, decide: Callable[[Resolution], Answer]) -> int:
    def decided(target: Target, _: Address) -> int:
        target.join()
        answer = decide(Resolution(target, Notes(target), settings.mode, _PATIENCE))
        print(answer.words)
        return answer.status

    return _beside(settings, decided, "it was done")


def needs_of(settings: Settings) -> Needs:
    """Return what the rights of the service's user depend on. Raises SettingsError."""
    try:
        url = parse(settings.access.url)
        database = parse_url(url.plain).get("db")  # type: ignore[no-untyped-call]  # redis-py's
    except ValueError as error:
        raise SettingsError(f"REDIS_URL cannot be used: {error}") from error
    return Needs(
        settings.mode,
        settings.prefix,
        listens=settings.listens,
        tells=settings.stream is not None,
        database=int(database or 0),
        by=url.by,
    )


def acl(settings: Settings, user: str) -> int:
    """Print what gives a user of Redis just the rights that are needed; return 0."""
    if not user or any(each.isspace() for each in user):
        return cannot(f"--user is {user!r}: use a name without white space")
    try:
        found = lines(user, needs_of(settings))
    except SettingsError as error:
        return cannot(str(error))
    for line in found:
        print(line)
    print(
        "Put a password in the place of PASSWORD, and tell mdvp-sync that and the name of the user "
        "in REDIS_PASSWORD and REDIS_USERNAME.",
        file=sys.stderr,
    )
    if len(found) > 1:
        print(
            "The second line is for the Sentinels: REDIS_SENTINEL_PASSWORD and "
            "REDIS_SENTINEL_USERNAME.",
            file=sys.stderr,
        )
    return 0


def _beside(settings: Settings, act: Callable[[Target, Address], int], ends: str) -> int:
    """Have `act` do its work with a target, and where that is; return what it does.

    When it could not, say so: that it was stopped before `ends`, or why.
    """
    try:
        address, target = reached(settings)
        with closing(target):
            return act(target, address)
    except RedisAwayError as error:
        return cannot(f"Redis at {address}: {error}; see REDIS_URL and REDIS_PASSWORD")
    except SyncError as error:
        return cannot(str(error))
    except KeyboardInterrupt:
        return cannot(f"stopped before {ends}")
    except OSError as error:  # nobody reads what it prints, say
        return cannot(f"stopped before {ends}: {error}")
