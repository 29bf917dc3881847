"""The command `mdvp-sync`: reads the environment, puts the parts together, and runs them."""

import argparse
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mdvp import __version__  # of the distribution, which both parts are in
from sync.core.changes import shown
from sync.core.decision import Mode, Side
from sync.core.errors import SettingsError, SyncError
from sync.core.exclude import Excluded
from sync.report.health import health
from sync.report.screen import cannot, write_any_name
from sync.report.status import STARTING, StatusFile
from sync.settings import Settings

if TYPE_CHECKING:
    from sync.disk.files import Directory
    from sync.service.hook import Hook

log = logging.getLogger(__name__)

_SIDES = [side.value for side in Side]
_LONGEST = 1e7  # seconds that `wait` may wait
_SHORTEST = 0.1  # seconds between two pictures of `top`
_NO_STATUS = "set SYNC_STATUS to the file that the service was given in it"


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status: 0, 1 when it failed, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        return _refused(error, options, environ)
    return _carry_out(settings, options)


def _refused(error: SettingsError, options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if options.command != "run" or environ.get("LOG_FORMAT") != "json":
        return cannot(str(error))
    from sync.report.log import to_stderr  # noqa: PLC0415

    to_stderr()
    log.error("%(error)s", {"event": "failed", "error": error})
    return 2


def _carry_out(settings: Settings, options: argparse.Namespace) -> int:
    if options.command == "run":
        return run(settings)
    if options.command == "status":
        return status(settings, as_json=options.json)
    if options.command == "wait":
        from sync.wait import wait  # noqa: PLC0415  # whoever waits has no time to lose

        return wait(settings, options.paths, options.timeout)
    if options.command == "top":
        return top(settings, options.interval, once=options.once)
    # Here, so that `status`, which runs every few seconds, does not load what it does not need.
    from sync.commands import carry_out  # noqa: PLC0415

    return carry_out(settings, options, lambda: _open(settings, _excluded(settings)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mdvp-sync", description="Keep Redis equal to a directory: a file is a key."
    )
    parser.add_argument("--version", action="version", version=f"mdvp-sync {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, dest="command", metavar="COMMAND"
    )
    commands.add_parser(
        "run", help="mirror the directory SYNC_ROOT to the Redis at REDIS_URL until stopped"
    )
    asked = commands.add_parser(
        "status", help="say what the service does that writes its status to SYNC_STATUS"
    )
    asked.add_argument("--json", action="store_true", help="say it for programs")
    watched = commands.add_parser(
        "top", help="show what the service does, and how Redis is, until somebody presses q"
    )
    watched.add_argument(
        "--interval",
        type=_interval,
        default=0.5,
        metavar="S",
        help="look again after S seconds (0.5); what is done in a second is known after one",
    )
    watched.add_argument("--once", action="store_true", help="write one picture, and end")
    check = commands.add_parser(
        "verify", help="compare each file with what Redis holds, and say what differs"
    )
    check.add_argument(
        "path", nargs="?", default="", help="a file or a directory below SYNC_ROOT (all of it)"
    )
    check.add_argument("--repair", action="store_true", help="mend what differs")
    listed = commands.add_parser(
        "conflicts", help="list the names that both sides have changed, and what each side has"
    )
    listed.add_argument(
        "--all", action="store_true", help="list the values that lost and are kept, too"
    )
    listed.add_argument("--json", action="store_true", help="say all of it for programs")
    decided = commands.add_parser("resolve", help="end a conflict, or bring back a value that lost")
    decided.add_argument("name", help="a file below SYNC_ROOT, or as `conflicts` writes it")
    decided.add_argument(
        "--take", required=True, choices=_SIDES, help="the side whose value both are to have"
    )
    decided.add_argument(
        "--number", type=int, help="of the value that lost, as `conflicts --all` writes it"
    )
    ended = commands.add_parser(
        "accept", help="end a hold: say which side is right though much is deleted by it"
    )
    ended.add_argument("side", choices=_SIDES, help="the side that is right")
    awaited = commands.add_parser(
        "wait", help="return when every write that is finished by now is in Redis"
    )
    awaited.add_argument(
        "paths", nargs="*", metavar="PATH", help="a file below SYNC_ROOT (whatever is there)"
    )
    awaited.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="S", help="give up after S seconds (10)"
    )
    allowed = commands.add_parser(
        "acl", help="print the ACL SETUSER line for a user with just the rights that it takes"
    )
    allowed.add_argument("--user", default="mdvp-sync", help="the user's name (mdvp-sync)")
    return parser


def _seconds(given: str) -> float:
    with suppress(ValueError):
        seconds = float(given)
        if 0 <= seconds <= _LONGEST:  # which "nan" is not
            return seconds
    raise argparse.ArgumentTypeError(f"{given!r} is no number of seconds, up to {_LONGEST:.0f}")


def _interval(given: str) -> float:
    seconds = _seconds(given)
    if seconds < _SHORTEST:
        raise argparse.ArgumentTypeError(f"{given!r} is too short: use {_SHORTEST} or more")
    return seconds


def run(settings: Settings) -> int:
    """Mirror until SIGTERM or SIGINT."""
    from sync.core.schedule import Rescan  # noqa: PLC0415
    from sync.reach import reached  # noqa: PLC0415
    from sync.redis.listener import Listener  # noqa: PLC0415
    from sync.redis.notes import Notes  # noqa: PLC0415
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
        set_up(settings.log_level, settings.log_file, settings.log_format)
        address, target = reached(settings)
        excluded, skipped = _excluded(settings), Skipped(log)
        hook = _hook(settings)
        with closing(target), closing(hook) if hook else nullcontext():
            notes = Notes(target)
            conflicts = Conflicts(notes)
            parts = Parts(
                *(target, skipped, notes, conflicts, in_thread),
                listener=Listener(address.dial, settings.prefix, settings.stream)
                if settings.listens
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
                hook=hook,
            )
            board = Board(
                *(StatusFile(settings.status), target, address, skipped.all),
                conflicts=conflicts,
                mode=settings.mode.value,
                root=str(settings.root),
            )
            board.write(STARTING)  # with what the settings say
            _export(settings, board.file)
            log.info("%(_pair)s%(_words)s", _begun(settings, str(address)))
            rescan = Rescan(settings.rescan, settings.rescan_share)
            Service(lambda: _open(settings, excluded), parts, report, board, rescan).run()
    except SyncError as error:
        log.error("%(error)s", {"event": "failed", "error": error})
        return 2 if isinstance(error, SettingsError) else 1
    except SystemExit:
        report.flush()
        log.info("stopped", {"event": "stopped"})
        raise
    except Exception:  # the log that an operator reads must say why it ended
        log.exception("ended by a defect", {"event": "defect"})
        return 1


def _hook(settings: Settings) -> "Hook | None":
    if settings.on_change is None:
        return None
    from sync.service.hook import Hook  # noqa: PLC0415

    return Hook(settings.on_change, {**os.environ, "SYNC_ROOT": str(settings.root)})


def _export(settings: Settings, file: StatusFile) -> None:
    """Have whoever asks at SYNC_METRICS be told what is written to a status file."""
    if settings.metrics is None:
        return
    from sync.report.exporter import PATH, Exporter  # noqa: PLC0415

    Exporter(file, settings.metrics, __version__).start()
    log.info(
        "metrics are at http://%(address)s%(path)s",
        {"event": "metrics_served", "address": str(settings.metrics), "path": PATH},
    )


def _excluded(settings: Settings) -> Excluded:
    return Excluded(settings.exclude, settings.stream)


def _open(settings: Settings, excluded: Excluded) -> "Directory":
    from sync.disk.files import Directory  # noqa: PLC0415

    if not settings.links:
        return Directory(settings.root, excluded, is_tree=settings.tree)
    from sync.disk.linked import LinkedDirectory  # noqa: PLC0415

    return LinkedDirectory(settings.root, excluded, is_tree=settings.tree)


def _begun(settings: Settings, address: str) -> dict[str, object]:
    return {
        "event": "started",
        "_pair": _pair(settings, address),
        "_words": _words(settings),
        "root": settings.root,
        "server": address,
        "mode": settings.mode.value,
        "tree": settings.tree,
        "links": settings.links,
        "prefix": shown(settings.prefix),
        "stream": None if settings.stream is None else shown(settings.prefix + settings.stream),
    }


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
    if settings.stream is not None:
        words += f"; what changes is told to the stream {shown(settings.prefix + settings.stream)}"
    return words


def status(settings: Settings, *, as_json: bool) -> int:
    """Say what the service does; 0 when Redis equals the directory, as far as it knows."""
    if settings.status is None:
        return cannot(_NO_STATUS)
    write_any_name()
    found = health(settings.status, time.monotonic())
    print(found.json() if as_json else found)
    return 1 if found.problem else 0


def top(settings: Settings, interval: float, *, once: bool) -> int:
    """Show what the service does, on a terminal, again every `interval` seconds."""
    if settings.status is None:
        return cannot(_NO_STATUS)
    from sync.top import top  # noqa: PLC0415  # it is alone in what it loads

    return top(settings, settings.status, interval, once=once)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Redis does a transaction whole or not at all, so any instant is a good one to stop at.
    sys.exit(0)
