"""The command `mdvp-sync`: reads the environment, puts the parts together, and runs them."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from types import FrameType
from typing import NoReturn

from sync.errors import SettingsError, SyncError
from sync.heartbeat import Heartbeat, ailment
from sync.log import set_up
from sync.settings import Settings

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status: 0, 1 when it failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="mdvp-sync", description="Keep Redis equal to a directory: a file is a key."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "run", help="mirror the directory SYNC_ROOT to the Redis at REDIS_URL until stopped"
    ).set_defaults(command=run)
    commands.add_parser(
        "health", help="say whether the service that beats to SYNC_HEARTBEAT does its job"
    ).set_defaults(command=health)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        parser.error(str(error))
    return int(options.command(settings))


def run(settings: Settings) -> int:
    """Mirror until SIGTERM or SIGINT."""
    # Here, so that `health`, which runs every few seconds, does not load what it does not need.
    from sync.files import Directory  # noqa: PLC0415
    from sync.mirror import Mirror  # noqa: PLC0415
    from sync.service import Service  # noqa: PLC0415
    from sync.target import Target  # noqa: PLC0415
    from sync.watch import Watch  # noqa: PLC0415

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        set_up(settings.log_level, settings.log_file)
        with (
            closing(Target(settings.redis_url, settings.password)) as target,
            closing(Directory(settings.root)) as directory,
            closing(Watch(settings.root)) as watch,
        ):
            heartbeat = Heartbeat(settings.heartbeat)
            mirror = Mirror(directory, target, trim_newline=settings.trim)
            log.info("mirroring %s to Redis at %s", settings.root, target)
            Service(directory, watch, target, mirror, heartbeat).run()
    except SyncError as error:
        log.error("%s", error)
        return 2 if isinstance(error, SettingsError) else 1
    except SystemExit:
        log.info("stopped")
        raise
    except Exception:  # the log that an operator reads must say why it ended
        log.exception("ended by a defect")
        return 1


def health(settings: Settings) -> int:
    """Say what is wrong with the service, or that nothing is."""
    if settings.heartbeat is None:
        print("mdvp-sync: set SYNC_HEARTBEAT to the file that the service was given in it")
        return 2
    wrong = ailment(settings.heartbeat, time.monotonic())
    print(wrong or "in step: Redis equals the directory")
    return 1 if wrong else 0


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Redis does a transaction whole or not at all, so any instant is a good one to stop at.
    sys.exit(0)
