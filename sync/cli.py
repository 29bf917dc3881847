"""The command `mdvp-sync`: reads the environment, puts the parts together, and runs them."""

import argparse
import gc
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from sync.core.changes import shown
from sync.core.decision import Mode
from sync.core.errors import RedisAwayError, SettingsError, SyncError
from sync.report.figures import counted
from sync.report.status import StatusFile, health
from sync.settings import Settings

if TYPE_CHECKING:
    from sync.core.exclude import Excluded
    from sync.disk.files import Directory
    from sync.verify.verification import Tally

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status: 0, 1 when it failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="mdvp-sync", description="Keep Redis equal to a directory: a file is a key."
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser(
        "run", help="mirror the directory SYNC_ROOT to the Redis at REDIS_URL until stopped"
    )
    asked = commands.add_parser(
        "status", help="say what the service does that writes its status to SYNC_STATUS"
    )
    asked.add_argument("--json", action="store_true", help="say it for programs")
    check = commands.add_parser(
        "verify", help="compare each file with what Redis holds, and say what differs"
    )
    check.add_argument(
        "path", nargs="?", default="", help="a file or a directory below SYNC_ROOT (all of it)"
    )
    check.add_argument("--repair", action="store_true", help="mend what differs")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        return _cannot(str(error))
    if options.command == "status":
        return status(settings, as_json=options.json)
    if options.command == "verify":
        return verify(settings, options.path, repair=options.repair)
    return run(settings)


def run(settings: Settings) -> int:
    """Mirror until SIGTERM or SIGINT."""
    # Here, so that `status`, which runs every few seconds, does not load what it does not need.
    from sync.core.exclude import Excluded  # noqa: PLC0415
    from sync.core.manifest import Entries  # noqa: PLC0415
    from sync.core.schedule import Rescan  # noqa: PLC0415
    from sync.redis.connection import Address  # noqa: PLC0415
    from sync.redis.listener import Listener  # noqa: PLC0415
    from sync.redis.notes import Notes  # noqa: PLC0415
    from sync.redis.target import Target  # noqa: PLC0415
    from sync.report.board import Board  # noqa: PLC0415
    from sync.report.lines import Report  # noqa: PLC0415
    from sync.report.log import set_up  # noqa: PLC0415
    from sync.service.conflicts import Conflicts  # noqa: PLC0415
    from sync.service.parts import Files, Parts  # noqa: PLC0415
    from sync.service.service import Service  # noqa: PLC0415
    from sync.service.skipped import Skipped  # noqa: PLC0415
    from sync.service.streams import in_thread  # noqa: PLC0415

    # What a batch is made of is gone when it is done; looking for cycles in it is a tenth of the
    # work, and finds none.
    gc.set_threshold(100_000)
    report = Report(log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    # When a file is opened of which it was asked whether anybody writes to it, the kernel says so.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        set_up(settings.log_level, settings.log_file)
        address = Address(settings.redis_url, settings.password)
        both = settings.mode is not Mode.ONE_WAY_REPLICA
        entries = Entries(trimmed=settings.trim, digests=both)
        target = Target(address.dial, entries, settings.prefix)
        excluded, skipped = Excluded(settings.exclude), Skipped(log)
        with closing(target):
            notes = Notes(target)
            conflicts = Conflicts(notes)
            parts = Parts(
                target,
                skipped,
                notes,
                conflicts,
                in_thread,
                listener=Listener(address.dial, settings.prefix)
                if both or settings.guard
                else None,
                mode=settings.mode,
                files=Files(
                    settings.file_mode,
                    settings.file_owner,
                    fsync=settings.fsync,
                    newline=b"\n" if settings.trim else b"",
                ),
                keeps_expired=settings.keeps_expired,
                delete_max=settings.delete_max,
                trim_newline=settings.trim,
            )
            board = Board(
                StatusFile(settings.status),
                target,
                str(address),
                skipped,
                conflicts=conflicts,
                mode=settings.mode.value,
            )
            log.info("%s%s", _pair(settings, str(address)), _words(settings))
            rescan = Rescan(settings.rescan, settings.rescan_share)
            Service(lambda: _open(settings, excluded), parts, report, board, rescan).run()
    except SyncError as error:
        log.error("%s", error)
        return 2 if isinstance(error, SettingsError) else 1
    except SystemExit:
        report.flush()
        log.info("stopped")
        raise
    except Exception:  # the log that an operator reads must say why it ended
        log.exception("ended by a defect")
        return 1


def _open(settings: Settings, excluded: "Excluded") -> "Directory":
    from sync.disk.files import Directory  # noqa: PLC0415

    if not settings.links:
        return Directory(settings.root, excluded, is_tree=settings.tree)
    from sync.disk.linked import LinkedDirectory  # noqa: PLC0415

    return LinkedDirectory(settings.root, excluded, is_tree=settings.tree)


def status(settings: Settings, *, as_json: bool) -> int:
    """Say what the service does; 0 when Redis equals the directory, as far as it knows."""
    if settings.status is None:
        return _cannot("set SYNC_STATUS to the file that the service was given in it")
    found = health(settings.status, time.monotonic())
    print(found.json() if as_json else found)
    return 1 if found.problem else 0


def verify(settings: Settings, path: str, *, repair: bool) -> int:
    """Compare all, or what is at a path below the root.

    Return 0 when all is equal, perhaps by repair, 1 when not, 2 when it could not look.
    """
    from sync.core.exclude import Excluded  # noqa: PLC0415
    from sync.core.manifest import Entries  # noqa: PLC0415
    from sync.redis.connection import Address  # noqa: PLC0415
    from sync.redis.target import Target  # noqa: PLC0415
    from sync.report.screen import Screen  # noqa: PLC0415
    from sync.service.mirror import Mirror  # noqa: PLC0415
    from sync.service.news import NoNews  # noqa: PLC0415
    from sync.service.skipped import Skipped  # noqa: PLC0415
    from sync.service.streams import Streams, at_once  # noqa: PLC0415
    from sync.verify.comparison import Comparison  # noqa: PLC0415
    from sync.verify.verification import Verification  # noqa: PLC0415

    if isinstance(sys.stdout, io.TextIOWrapper):  # names are in any language, terminals in some
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.getLogger("sync").addHandler(logging.NullHandler())  # what there is to say is printed
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # as in `run`
    entries = Entries(trimmed=settings.trim)
    try:
        address = Address(settings.redis_url, settings.password)
        with (
            closing(Screen(sys.stdout, sys.stderr)) as screen,
            closing(Target(address.dial, entries, settings.prefix)) as target,
            closing(_open(settings, Excluded(settings.exclude))) as directory,
        ):
            streams = Streams(at_once, lambda: None, trim_newline=settings.trim)
            mirror = Mirror(
                directory,
                target,
                streams,
                NoNews(directory),
                Skipped(log),
                trim_newline=settings.trim,
            )
            comparison = Comparison(directory, target, trim_newline=settings.trim)
            verification = Verification(
                directory, target, comparison, screen, mirror if repair else None
            )
            try:
                target.join()
                found = verification.run(_below(settings.root, path))
                if verification.is_nothing and not found.differences + found.mended:
                    return _cannot(
                        f"there is nothing to compare: {path} is no file or directory that is "
                        f"mirrored from {settings.root}, and no key"
                    )
            except RedisAwayError as error:
                return _cannot(f"Redis at {address}: {error}; see REDIS_URL and REDIS_PASSWORD")
    except SyncError as error:
        return _cannot(str(error))
    except KeyboardInterrupt:
        return _cannot("stopped before all was compared")
    except OSError as error:  # nobody reads what it prints, say
        return _cannot(f"stopped before all was compared: {error}")
    return _tell(found, f"Redis at {address}", settings.root / path, repair=repair)


def _below(root: Path, path: str) -> bytes:
    """Return a path as one below the root: it is one, or one of the file system, or the root's own.

    Raises SettingsError.
    """
    parts = Path(path).parts
    if Path(path).is_absolute():
        if not Path(path).is_relative_to(root):
            raise SettingsError(f"{path} is not below {root}")
        parts = Path(path).relative_to(root).parts
    if ".." in parts:
        raise SettingsError(f"{path} has .. in it: name it by its path below {root}")
    return os.fsencode("/".join(parts))


def _pair(settings: Settings, address: str) -> str:
    """Say which side follows which."""
    root, redis, mode = settings.root, f"Redis at {address}", settings.mode
    if mode is Mode.ONE_WAY_REPLICA:
        return f"mirroring {root} to {redis}"
    if mode is Mode.REDIS_TO_DISK:
        return f"mirroring {redis} to {root} ({mode.value})"
    if mode is Mode.ONE_WAY_SAFE:
        return f"mirroring {root} to {redis} ({mode.value})"
    return f"keeping {root} and {redis} equal ({mode.value})"


def _words(settings: Settings) -> str:
    """Say how the keys differ from the names of the files in the directory itself."""
    words = ", with all directories below" if settings.tree else ""
    words += "; links to what is in it are followed" if settings.links else ""
    if settings.prefix:
        words += f"; all keys begin with {shown(settings.prefix)}, others stay as they are"
    return words


def _tell(found: "Tally", redis: str, root: Path, *, repair: bool) -> int:
    if found.differences:
        way_out = "" if repair else "; mend that with `mdvp-sync verify --repair`"
        differences = counted(found.differences, "difference", "differences")
        print(f"{redis} differs from {root}: {differences}, {found}{way_out}")
        return 1
    if found.unsure:
        print(f"{redis} equals {root}, but for what could not be compared: {found}")
        return 2
    print(f"{redis} equals {root}: {found}")
    return 0


def _cannot(why: str) -> int:
    print(f"mdvp-sync: {why}", file=sys.stderr)
    return 2


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Redis does a transaction whole or not at all, so any instant is a good one to stop at.
    sys.exit(0)
