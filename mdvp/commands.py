"""The commands that ask a running mdvp: `mdvp ls`, `mdvp change` and `mdvp rename`.

They work on the host and in a container alike: all they need is the socket. What answers there is
not trusted: it can be anything, and what is printed of it tells a terminal nothing to do.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mdvp.core.errors import MdvpError
from mdvp.core.options import in_size
from mdvp.wire import client

# What argparse's add_subparsers returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_TITLES = ("NAME", "ACCESS", "USED BY", "SINCE", "SIZE", "FILES", "LIMIT", "OPTIONS")
_TITLES_OF_TRASH = ("NAME", "REMOVED", "UNTIL", "TAKEN BACK BY")
_ID_SHOWN = 12  # characters of a container's id, as docker shows it
_ID = re.compile("[0-9a-f]{64}")
_KIB = 1024
# What has a column of its own.
_IN_COLUMNS = ("access", "size")


def add_to(commands: Commands) -> None:
    """Add the commands to a parser's; each has a function `run`, which returns the exit status."""
    _add_ls(commands)
    _add_change(commands)
    _add_rename(commands)


def _add_ls(commands: Commands) -> None:
    ls = commands.add_parser(
        "ls", help="list all volumes: who has each and since when, its size, limit and options"
    )
    ls.add_argument(
        "--json", action="store_true", help="write a list of objects of JSON, for programs"
    )
    ls.add_argument(
        "--trash",
        action="store_true",
        help="list the removed volumes whose content is kept instead, and until when",
    )
    _add_socket(ls)
    ls.set_defaults(run=_ls)


def _add_change(commands: Commands) -> None:
    change = commands.add_parser(
        "change",
        help="change options of a volume; access, owner and permissions while nobody has it",
    )
    change.add_argument("volume", metavar="NAME", help="the volume")
    change.add_argument(
        "-o",
        "--option",
        dest="options",
        type=_option,
        action="append",
        required=True,
        metavar="OPTION=VALUE",
        help="access, uid, gid, mode, on-remove, protect, wait or size; OPTION= takes it off. Can "
        "be given several times",
    )
    _add_socket(change)
    change.set_defaults(run=_change)


def _add_rename(commands: Commands) -> None:
    rename = commands.add_parser(
        "rename", help="give a volume that nobody has another name; its content is not touched"
    )
    rename.add_argument("volume", metavar="NAME", help="the volume")
    rename.add_argument("new_name", metavar="NEW_NAME", help="what it is to be called")
    _add_socket(rename)
    rename.set_defaults(run=_rename)


def _add_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--socket",
        type=Path,
        help=f"the socket of mdvp (the one that is there in {client.PLUGINS}, of a plugin or of an "
        "mdvp on the host)",
    )


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE")
    return name, value


def run(options: argparse.Namespace) -> int:
    """Run the command that was asked for; return its exit status: 0, or 1 with the reason said."""
    try:
        for line in _lines(options):
            print(line)
        sys.stdout.flush()
    except MdvpError as error:
        print(f"mdvp: {_plain(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads this has seen enough
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # for what is to be flushed at exit
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1
    return 0


def _lines(options: argparse.Namespace) -> Sequence[str]:
    try:
        return [_plain(line) for line in options.run(options)]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise client.UnreachableError(
            f"what answers is no mdvp, or not of this version: {error!r}"
        ) from error


def _plain(text: str) -> str:
    """Return a line of text without what a terminal would obey, each such character escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _ask(options: argparse.Namespace, endpoint: str, **message: object) -> Mapping[str, Any]:
    return client.ask(options.socket or client.found(), endpoint, **message)


def _change(options: argparse.Namespace) -> Sequence[str]:
    _ask(options, "/Mdvp.Change", Name=options.volume, Opts=dict(options.options))
    return [options.volume]


def _rename(options: argparse.Namespace) -> Sequence[str]:
    _ask(options, "/Mdvp.Rename", Name=options.volume, NewName=options.new_name)
    return [options.new_name]


def _ls(options: argparse.Namespace) -> Sequence[str]:
    volumes = _ask(options, "/Mdvp.Removed" if options.trash else "/Mdvp.List")["Volumes"]
    if not isinstance(volumes, list):
        raise TypeError(volumes)
    if options.json:
        return json.dumps(volumes, indent=2).split("\n")
    if options.trash:
        return _table([_TITLES_OF_TRASH, *map(_row_of_trash, volumes)])
    return _table([_TITLES, *map(_row, volumes)])


def _row_of_trash(volume: Mapping[str, Any]) -> Sequence[str]:
    return (
        volume["name"],
        volume["removed_at"],
        volume["until"] or "for good",
        f"-o restore={volume['restore']}" if volume["restore"] else "-o adopt=true",
    )


def _row(volume: Mapping[str, Any]) -> Sequence[str]:
    options = [f"{k}={v}" for k, v in volume["options"].items() if k not in _IN_COLUMNS]
    return (
        volume["name"],
        volume["access"],
        _users(volume),
        volume["since"] or "-",
        "-" if volume["size"] is None else _in_words(volume["size"]),
        "-" if volume["files"] is None else str(volume["files"]),
        "-" if volume["limit"] is None else in_size(volume["limit"]),
        (",".join(options) or "-") + (f" ({volume['filling']})" if volume["filling"] else ""),
    )


def _users(volume: Mapping[str, Any]) -> str:
    """Say who has a volume, and how many wait for it."""
    users = ", ".join(map(_short, volume["used_by"])) or "-"
    return f"{users} (waiting: {volume['waiting']})" if volume["waiting"] else users


def _short(who: str) -> str:
    """Name a holder as `docker ps` does: a container's id is 64 hexadecimal digits."""
    return _ID.sub(lambda found: found[0][:_ID_SHOWN], who)


def _in_words(size: int) -> str:
    """Write a number of bytes as people read it, with three digits: 1.21M."""
    value, unit = float(size), ""
    for larger in "KMGTPE":
        if value < _KIB:
            break
        value, unit = value / _KIB, larger
    return f"{value:.3g}{unit}" if unit else str(size)


def _table(rows: Sequence[Sequence[str]]) -> Sequence[str]:
    """Align columns; the last is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
