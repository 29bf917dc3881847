"""The manual pages and the completions: as the parsers are, without a flaw, of use to shells."""

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from release.conftest import REPOSITORY
from support import DEADLINE

from mdvp.cli import _parser as mdvp_parser
from sync.cli import _parser as sync_parser

SHARE = REPOSITORY / "share"
COMMANDS = {"mdvp": mdvp_parser, "mdvp-sync": sync_parser}
SETTINGS = {"mdvp": "mdvp/settings.py", "mdvp-sync": "sync/settings.py"}
ENVIRON = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)}
each_command = pytest.mark.parametrize("name", sorted(COMMANDS))


def files(directory: Path) -> dict[str, str]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_text() for path in found}


def test_they_are_what_the_parsers_and_settings_say(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts/manual.py"
    subprocess.run((sys.executable, script, tmp_path), env=ENVIRON, check=True)
    kept = {
        name: text
        for name, text in files(SHARE).items()
        if name != "package.md" and not name.startswith("man/sections/")
    }
    made = files(tmp_path)
    assert sorted(made) == sorted(kept)
    old = [name for name in made if made[name] != kept[name]]
    assert old == [], "the parsers or settings have changed: run scripts/manual.sh"


@each_command
def test_the_page_is_without_a_flaw(name: str) -> None:
    page = SHARE / f"man/man1/{name}.1"
    for checks in (("groff", "-man", "-Tutf8", "-ww", "-z"), ("mandoc", "-Tlint", "-Wwarning")):
        done = subprocess.run(
            (*checks, page), env=ENVIRON, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def shown(name: str) -> str:
    """Return the page as man shows it, wide enough that no line is broken."""
    page = SHARE / f"man/man1/{name}.1"
    environ = {**ENVIRON, "MANWIDTH": "1000", "MANROFFSEQ": "", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(("man", "-l", page), env=environ, capture_output=True, check=True)
    return done.stdout.decode()


@each_command
def test_the_page_has_the_sections_that_one_looks_for(name: str) -> None:
    headings = re.findall("^[A-Z].*$", shown(name), re.MULTILINE)[1:]
    assert headings[:5] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS"]
    assert headings[5:] == ["ENVIRONMENT", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"]


def commands(name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with its options."""
    for action in COMMANDS[name]()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, parser in action.choices.items():
                options = [text for each in parser._actions for text in each.option_strings]
                yield command, [text for text in options if text not in ("-h", "--help")]


@each_command
def test_the_page_names_all_commands_and_options(name: str) -> None:
    text = shown(name)
    found = dict(commands(name))
    assert found
    for command, options in found.items():
        assert f"\n   {name} {command}\n" in text
        part = text.partition(f"\n   {name} {command}\n")[2].partition(f"\n   {name} ")[0]
        assert [option for option in options if option not in part] == []


def read(source: Path) -> set[str]:
    """Return the names that the settings are read by: such words as are passed to a call."""
    calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)]
    words = [each.value for call in calls for each in call.args if isinstance(each, ast.Constant)]
    upper = {word for word in words if re.fullmatch("[A-Z]+(_[A-Z]+)*", str(word))}
    return {str(word) for word in upper} - {"INFO"}


@each_command
def test_the_page_names_all_settings(name: str) -> None:
    environment = shown(name).partition("\nENVIRONMENT\n")[2].partition("\nEXIT STATUS\n")[0]
    found = read(REPOSITORY / SETTINGS[name])
    assert "LOG_LEVEL" in found
    # Where a description begins on the line of a short name, it is in lower case.
    lines = re.findall("^ {7}([A-Z_, ]+)(?: .*)?$", environment, re.MULTILINE)
    named = {name for line in lines for name in line.strip().split(", ")}
    assert found - named == set()


CASES = pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("mdvp-sync st", "mdvp-sync status "),
        ("mdvp-sync verify --re", "mdvp-sync verify --repair "),
        ("mdvp-sync accept di", "mdvp-sync accept disk "),
        ("mdvp-sync wait a-fi", "mdvp-sync wait a-file "),
        ("mdvp serve --root a-di", "mdvp serve --root a-directory/"),
        ("mdvp ren", "mdvp rename "),
        ("mdvp ls --js", "mdvp ls --json "),
    ],
)


def _first(typed: str) -> str:
    return typed.partition(" ")[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-directory").mkdir()
    (tmp_path / ".zshrc").touch()  # or zsh asks a new user for one
    return tmp_path


@CASES
@pytest.mark.parametrize(
    ("shell", "begin"),
    [
        ("bash --norc --noprofile", f". {SHARE}/bash-completion/completions/$name"),
        (
            "zsh -o NO_GLOBAL_RCS",
            f"fpath=({SHARE}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u",
        ),
    ],
    ids=["bash", "zsh"],
)
def test_a_tab_completes(shell: str, begin: str, typed: str, whole: str, directory: Path) -> None:
    environ = {**ENVIRON, "TERM": "dumb", "HOME": str(directory), "name": _first(typed)}
    command, *options = shell.split()
    with pexpect.spawn(
        command, options, env=environ, cwd=directory, encoding="utf-8", timeout=DEADLINE
    ) as terminal:
        terminal.sendline(f"{begin}; PS1='rea''dy> '")
        terminal.expect_exact("ready> ")
        terminal.send(f"{typed}\t")
        terminal.expect_exact(whole)


@CASES
def test_fish_completes(typed: str, whole: str, directory: Path) -> None:
    completions = SHARE / f"fish/vendor_completions.d/{_first(typed)}.fish"
    done = subprocess.run(
        ("fish", "--no-config", "-c", f"source {completions}; complete -C '{typed}'"),
        env={**ENVIRON, "HOME": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        whole.split(" ", typed.count(" "))[-1].strip()
    ]
