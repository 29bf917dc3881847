"""Writes the manual pages and the completions of both commands, from their parsers and settings.

    scripts/manual.py DIRECTORY

DIRECTORY gets what is in share/, under the names by which it is installed. What a parser does not
say is in share/man/sections/, in the language of man(7). The same sources give the same bytes,
whatever the version of Python.
"""

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

import mdvp.cli
import mdvp.settings
import sync.cli
import sync.settings
from mdvp import __version__
from sync.core.exclude import DEFAULT

_DATE = "2026-11-29"  # of this version, as the pages show it
_SECTIONS = Path(__file__).parent.parent / "share/man/sections"
_HERE = re.compile(r"; here [^(]*(?= \()")  # what is said of a field alone
_NAMES = "[A-Z][A-Z_]+"
_SETTING = re.compile(rf"^(?:\w+ +| +)({_NAMES}(?:, {_NAMES})*): (.*)$")
# What a shell completes. The parsers do not say it, so that nothing is needed when they run.
_COMPLETED = {
    "path": shtab.FILE,
    "paths": shtab.FILE,
    "name": shtab.FILE,
    "socket": shtab.FILE,
    "root": shtab.DIRECTORY,
}
_PLACES = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}


class _Plain(argparse.HelpFormatter):
    """Formats a usage without the word, which would be one of the text in a manual page."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = "",
    ) -> None:
        super().add_usage(usage, actions, groups, prefix)


def main() -> int:
    """Write all of it; return the exit status."""
    given = argparse.ArgumentParser(description="Write the manual pages and the completions.")
    given.add_argument("directory", type=Path)
    directory = given.parse_args().directory
    # A usage is one line, for the pager to break.
    os.environ["COLUMNS"] = "10000"
    for parser, settings, does in (
        (mdvp.cli._parser, mdvp.settings.Settings, "Docker volumes for one container at a time"),
        (sync.cli._parser, sync.settings.Settings, "keep Redis equal to a directory"),
    ):
        _write(directory / f"man/man1/{parser().prog}.1", _page(parser(), settings, does))
        for shell, place in _PLACES.items():
            _write(directory / place.format(parser().prog), _completion(parser(), shell))
    return 0


def settings(of: type) -> Iterator[tuple[str, str]]:
    """Yield the names of the variables and what is said of them, from a table of Settings."""
    found: list[tuple[str, str]] = []
    for line in inspect.cleandoc(of.__doc__ or "").split("\n\n")[-1].splitlines():
        if begin := _SETTING.match(line):
            found.append((begin[1], begin[2]))
        else:
            names, words = found.pop()
            found.append((names, f"{words} {line.strip()}"))
    for names, words in found:
        yield names, _HERE.sub("", words)


def _page(parser: argparse.ArgumentParser, given: type, does: str) -> str:
    for each in _parsers(parser):
        each.formatter_class = _Plain
    parser.description = None  # the section has it
    page = Manpage(parser, format="single-commands-section")
    page.description = does
    page.date, page.source, page.manual = _DATE, f"mdvp {__version__}", "mdvp"
    page.add_section("environment", "=", _environment(given))
    page.parse_include(_SECTIONS / f"{parser.prog}.roff")
    text = str(page).replace(_DATE.replace("-", r"\-"), _DATE).replace(".SH\n", ".SH ")
    # Empty lines are no part of the language; where they were is a paragraph.
    text = re.sub(r"\n+(?=\.(?:SH|SS|TP|RE|RS))", "\n", text)
    return re.sub(r"\n\n+", "\n.PP\n", text)


def _environment(given: type) -> str:
    lines = ["What is empty counts as not set, unless it says otherwise."]
    for names, words in settings(given):
        plain = words.replace("`exclude.DEFAULT`", " ".join(DEFAULT)).replace("`", "")
        lines += [".TP", rf"\fB{names}\fR", re.sub(r"([\\-])", r"\\\1", plain)]
    return "\n".join(lines)


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    for each in _parsers(parser):
        for action in each._actions:
            complete = shtab.DIRECTORY if action.metavar == "DIR" else _COMPLETED.get(action.dest)
            if complete:
                action.complete = complete  # type: ignore[attr-defined]  # as shtab wants it
    return shtab.complete(parser, shell)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n")


if __name__ == "__main__":
    sys.exit(main())
