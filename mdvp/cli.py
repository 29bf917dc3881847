"""The command `mdvp`: reads arguments and environment, puts the parts together, and runs them."""

import argparse
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import NoReturn

from prometheus_client import CollectorRegistry, generate_latest

from mdvp import __version__, commands, log
from mdvp.core.errors import MdvpError, SettingsError
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.disk.textfile import Textfile
from mdvp.driver import Driver
from mdvp.host import publication
from mdvp.host.kernel import Kernel
from mdvp.metrics import Gauges
from mdvp.overview import Overview
from mdvp.publisher import Publisher
from mdvp.settings import Settings
from mdvp.sizes import Sizes
from mdvp.wire.api import create_app
from mdvp.wire.commands import commands as own_commands
from mdvp.wire.listener import (
    TcpAddress,
    listening_on_socket,
    listening_on_tcp,
    passed_listener,
)
from mdvp.wire.server import serve
from mdvp.wire.spec import Spec, announced, guarded
from mdvp.wire.systemd import notify_ready, passed_descriptors

_log = logging.getLogger(__name__)

_GRACE_LOW = 10.0  # seconds; a busy machine can take some to start a container


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit status: 0, 1 when it cannot be done, 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is not None:
        return commands.run(options)
    if options.tcp and not (options.tcp.is_loopback or options.allow_remote_control):
        parser.error(
            f"--tcp {options.tcp} is not for this machine alone, and whoever reaches the port can "
            "make and remove volumes as root: use 127.0.0.1 or [::1], or say that you want this "
            "with --allow-remote-control"
        )
    try:
        settings = Settings.read(environ)
    except SettingsError as error:
        if environ.get("LOG_FORMAT") != "json":
            parser.error(str(error))
        log.set_up("INFO", "json")
        _log.error("%(error)s", {"event": "failed", "error": error})
        return 2
    log.set_up(settings.log_level, settings.log_format)
    if settings.grace < _GRACE_LOW:
        _log.warning(
            "GRACE is %(grace)g s: a container whose start leaves no trace in its volume for "
            "longer may find that another has it by then",
            {"event": "grace_low", "grace": settings.grace},
        )
    try:
        _serve(options, settings, environ)
    except MdvpError as error:
        _log.error("%(error)s", {"event": "failed", "error": error})
        return 1
    except OSError as error:
        where = options.tcp or options.socket
        _log.error(
            "cannot serve on %(address)s: %(error)s",
            {"event": "cannot_serve", "address": where, "error": error},
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mdvp", description="Docker volume plugin.")
    parser.add_argument("--version", action="version", version=f"mdvp {__version__}")
    all_commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(all_commands)
    commands.add_to(all_commands)
    return parser


def _add_serve(all_commands: commands.Commands) -> None:
    serve_command = all_commands.add_parser(
        "serve",
        help="serve volumes to the engine; LOG_LEVEL, LOG_FORMAT, GRACE, LOCK_DIRECTORIES, "
        "ON_REMOVE and METRICS_DIR in the environment are settings; a listening socket that a "
        "service manager passes is taken when it is the one asked for",
    )
    serve_command.add_argument(
        "--root",
        type=Path,
        default=Path("/tmp"),  # noqa: S108  # where the volumes are is the product's promise
        help="directory of all volumes (%(default)s)",
    )
    where = serve_command.add_mutually_exclusive_group()
    where.add_argument(
        "--socket",
        type=Path,
        default=Path("/run/docker/plugins/mdvp.sock"),
        help="Unix socket to listen on; only root can connect (%(default)s)",
    )
    where.add_argument(
        "--tcp",
        type=_tcp_address,
        metavar="IP:PORT",
        help="listen on this TCP address instead, such as 127.0.0.1:3004; every user of the "
        "machine can connect, and whoever does can make and remove volumes as root",
    )
    serve_command.add_argument(
        "--spec-dir",
        type=Path,
        default=Path("/etc/docker/plugins"),
        metavar="DIR",
        help="with --tcp: where mdvp.json tells the engine of it while it runs (%(default)s)",
    )
    serve_command.add_argument(
        "--allow-remote-control",
        action="store_true",
        help="with --tcp: take an address that other machines can reach, too; whoever reaches it "
        "can make and remove volumes as root, without a password",
    )
    serve_command.add_argument(
        "--metrics-dir",
        type=Path,
        metavar="DIR",
        help="write metrics to DIR/mdvp.prom while mdvp runs, for the textfile collector of "
        "node_exporter; /dev/null is nowhere (METRICS_DIR, or else nowhere). They are on the "
        "socket in any case: GET /metrics",
    )
    serve_command.set_defaults(run=None)


def _tcp_address(text: str) -> TcpAddress:
    try:
        return TcpAddress.parse(text)
    except MdvpError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _passed(
    options: argparse.Namespace, environ: Mapping[str, str]
) -> AbstractContextManager[socket.socket | None]:
    descriptors = passed_descriptors(environ)
    if not descriptors:
        return nullcontext()
    return passed_listener(descriptors, options.tcp or options.socket)


@contextmanager
def _listening(
    options: argparse.Namespace, passed: socket.socket | None
) -> Iterator[socket.socket]:
    if options.tcp is None:
        with nullcontext(passed) if passed else listening_on_socket(options.socket) as listener:
            yield listener
        return
    spec = Spec.naming(options.tcp.url, options.spec_dir)
    # A port that was passed stays the service manager's; our own needs a guardian.
    with nullcontext(passed) if passed else _guarded(options.tcp, spec) as listener:
        if not options.tcp.is_loopback:
            _log.warning(
                "whoever reaches %(address)s can make and remove volumes as root",
                {"event": "remote_control", "address": options.tcp},
            )
        with announced(spec):
            yield listener


@contextmanager
def _guarded(address: TcpAddress, spec: Spec) -> Iterator[socket.socket]:
    with (
        listening_on_tcp(address) as listener,
        guarded(listener, spec, end=_end),
    ):
        yield listener


def _serve(options: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> None:
    _allow_descriptors()
    signal.signal(signal.SIGTERM, _stop)
    with (
        # Before anything is opened that could have the number of one that is not there after all.
        _passed(options, environ) as passed,
        closing(Root(options.root, lock_directories=settings.lock_directories)) as root,
        closing(Store(root.database, root.volumes)) as store,
        closing(Kernel(root.descriptor)) as kernel,
        closing(
            Driver(root, store, kernel, settings.grace, end=_end, on_remove=settings.on_remove)
        ) as driver,
        closing(Sizes(root, store, driver.custody.lock, _end)) as sizes,
        _listening(options, passed) as listener,
    ):
        where = options.tcp or options.socket
        _log.info(
            "mdvp %(version)s serves the volumes in %(root)s on %(address)s",
            {"event": "started", "version": __version__, "root": options.root, "address": where},
        )
        publication.watch(kernel, start_again=_end)
        notify_ready(environ)
        registry = CollectorRegistry()
        overview = Overview(root, store, kernel, driver)
        Gauges(registry, overview.figures)
        app = create_app(driver, _end, registry, own_commands(driver, overview, sizes))
        with _publishing(options.metrics_dir or settings.metrics_dir, registry):
            serve(app, listener, driver.end_waits)
    _log.info("stopped", {"event": "stopped"})


def _publishing(
    directory: Path | None, registry: CollectorRegistry
) -> AbstractContextManager[object]:
    if directory is None:
        return nullcontext()
    return closing(Publisher(Textfile(directory), lambda: generate_latest(registry), _end))


def _allow_descriptors() -> None:
    # There is one for each volume. The soft limit is low for the sake of programs that use select.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end() -> None:
    """End as if told to; whoever started mdvp starts it again, as this was not asked for."""
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Waitress ends its loop on this, after the requests under way.
    sys.exit(0)
