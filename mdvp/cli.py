"""The command `mdvp`: reads arguments and environment, puts the parts together, and runs them."""

import argparse
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mdvp import __version__, log
from mdvp.api import create_app
from mdvp.driver import Driver
from mdvp.errors import MdvpError, SettingsError
from mdvp.kernel import Kernel
from mdvp.root import Root
from mdvp.server import listening, serve
from mdvp.settings import Settings
from mdvp.store import Store

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status: 0, 1 when it cannot serve, 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        parser.error(str(error))
    log.set_up(settings.log_level)
    try:
        _serve(options.root, options.socket, settings)
    except MdvpError as error:
        _log.error("%s", error)
        return 1
    except OSError as error:
        _log.error("cannot serve on %s: %s", options.socket, error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mdvp", description="Docker volume plugin.")
    parser.add_argument("--version", action="version", version=f"mdvp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_command = commands.add_parser(
        "serve",
        help="serve volumes to the engine; LOG_LEVEL, GRACE and LOCK_DIRECTORIES in the "
        "environment are settings",
    )
    serve_command.add_argument(
        "--root",
        type=Path,
        default=Path("/tmp"),  # noqa: S108  # where the volumes are is the product's promise
        help="directory of all volumes (%(default)s)",
    )
    serve_command.add_argument(
        "--socket",
        type=Path,
        default=Path("/run/docker/plugins/mdvp.sock"),
        help="Unix socket to listen on (%(default)s)",
    )
    return parser


def _serve(root_path: Path, socket_path: Path, settings: Settings) -> None:
    _allow_descriptors()
    signal.signal(signal.SIGTERM, _stop)
    with (
        closing(Root(root_path, lock_directories=settings.lock_directories)) as root,
        closing(Store(root.database, root.volumes)) as store,
        closing(Driver(root, store, Kernel(root.descriptor), grace=settings.grace)) as driver,
        listening(socket_path) as listener,
    ):
        _log.info("mdvp %s serves the volumes in %s on %s", __version__, root_path, socket_path)
        serve(create_app(driver), listener)
    _log.info("stopped")


def _allow_descriptors() -> None:
    # There is one for each volume. The soft limit is low for the sake of programs that use select.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Waitress ends its loop on this, after the requests under way.
    sys.exit(0)
