"""What is left out, beside what git ignores by the same patterns in the same tree."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sync.core.exclude import Excluded

DIRECTORIES = ("a", "b", "ab")
FILES = (b"c", b"a.b", b"!a", b"-", b"[", b"\xff", "é".encode(), b"a\nb")
DEPTH = 3

_PARTS = st.sampled_from(
    [*"abc.!é\udcff", "*", "?", r"\a", r"\[", "[ab]", "[!a]", "[^a-b]", "[!-]", "[]!]", "[*-a]"]
)
# Two asterisks together only as a whole component: git's own shortcut for a beginning without
# wildcards has it take `ab**/c` for more than it says.
_COMPONENTS = st.one_of(
    st.lists(_PARTS, min_size=1, max_size=3).map(lambda parts: re.sub(r"\*+", "*", "".join(parts))),
    st.just("**"),
)
_GITIGNORE = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(_COMPONENTS, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["", "/"]),
)
# These mean the same to both, though the one takes them for globs.
_GLOBS = st.sampled_from(["*", "a*", "?", "*b", "a.b", "c"])


def _is_the_same_to_git(pattern: str) -> bool:
    """Say whether a pattern is one of gitignore to us too, and one that is not refused."""
    names = pattern.removeprefix("!").removeprefix("/").removesuffix("/").split("/")
    is_glob = not (pattern.startswith("!") or "/" in pattern or "**" in pattern)
    return not is_glob and not {"", ".", ".."} & set(names)


_PATTERNS = st.lists(
    st.one_of(_GITIGNORE.filter(_is_the_same_to_git), _GLOBS), min_size=1, max_size=4
)


def _grow(directory: Path, depth: int) -> None:
    for file in FILES:
        (directory / os.fsdecode(file)).touch()
    for below in DIRECTORIES if depth else ():
        (directory / below).mkdir()
        _grow(directory / below, depth - 1)


def _paths(root: Path) -> Iterator[bytes]:
    for path in root.rglob("*"):
        yield os.fsencode(path.relative_to(root)) + (b"/" if path.is_dir() else b"")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    root = tmp_path_factory.mktemp("tree")
    _grow(root, DEPTH)
    paths = list(_paths(root))  # without what git has there
    subprocess.run(["git", "init", "--quiet", "--template=", str(root)], check=True)
    (root / ".git/info").mkdir()
    return root, paths


def _ignored(root: Path, paths: list[bytes], patterns: list[str]) -> set[bytes]:
    (root / ".git/info/exclude").write_bytes(os.fsencode("\n".join(patterns) + "\n"))
    found = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=root,
        input=b"\0".join(path.removesuffix(b"/") for path in paths),
        stdout=subprocess.PIPE,
        check=False,  # it fails when it has found none
    )
    assert found.returncode in (0, 1)
    return set(found.stdout.split(b"\0")) - {b""}


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(_PATTERNS)
@example(["a*", "!ab/", "ab/c"])
@example(["/**", "!**/", "!*.b"])
@example(["a/**/b/", "a/[!b]b"])
@example(["/a*/b", "/b", "!b/"])
def test_patterns_leave_out_what_git_ignores_by_them(
    tree: tuple[Path, list[bytes]], patterns: list[str]
) -> None:
    root, paths = tree
    excluded = Excluded(patterns)
    found = {path.removesuffix(b"/") for path in paths if excluded.covers(path)}
    assert found == _ignored(root, paths, patterns)
