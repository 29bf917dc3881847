"""What is left out: by default, what editors drop beside a file while it is edited.

The patterns see bytes, and are of two kinds, as what was a glob before there were others stays one:

- Without `/`, `**` and a leading `!`, a pattern is a glob (fnmatch(3)) of the last component of a
  path. A backslash in it is a backslash, and `#` begins no comment.
- Any other is one of gitignore(5), but that `#` begins no comment there either. A leading `!` takes
  back in what a pattern before it leaves out; so a name that has one itself is `**/!name`.

Whatever the patterns say, the service's own temporary files are left out, and the cookies of those
who wait for it.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from itertools import groupby

from sync.core.errors import SettingsError

# Vim's swap files, the copies of many editors, Vim's trial file, Emacs' locks and its autosaves.
DEFAULT = (".*.sw?", "*~", "4913", ".#*", "#*#")

# How the service names a file that it writes aside, before it is renamed into its place.
TEMPORARY = b".mdvp-sync-%016x~"
TEMPORARY_BEGINS = b".mdvp-sync-"
_TEMPORARY_GLOB = ".mdvp-sync-" + 16 * "[0-9a-f]" + "~"
_is_temporary = re.compile(rb"\.mdvp-sync-[0-9a-f]{16}~\Z").match

# How the file is named that somebody who waits makes in the root: a message by way of the kernel.
COOKIE = b".mdvp-sync-wait-%b~"
_COOKIE_GLOB = ".mdvp-sync-wait-" + 16 * "[0-9a-f]" + "~"
_cookie = re.compile(rb"\.mdvp-sync-wait-([0-9a-f]{16})~\Z").match

# A component that no name has: where a pattern ends, in the expression that is made of it.
_END = b"/\0"
_END_OF_COMPONENT = re.compile(rb"/|(?<!/)\Z")
# Of what pathspec writes: an escaped byte, its own "all but a slash", and a set of the pattern.
_ESCAPED_OR_SET = re.compile(rb"\\.|\[\^/\]|(\[\^?\]?[^]]*\])", re.DOTALL)
# What means something else in a set of gitignore than in one of a regular expression.
_UNLIKE_IN_SET = re.compile(rb"\\|\[:|--")
_SPECIAL_IN_SET = re.compile(rb"[\[&~|]")


class Excluded:
    """The paths that some patterns leave out; the last pattern that matches a path decides.

    A path is relative to the directory that is mirrored; a directory's ends with a slash.

    Attributes:
        match: returns something true for a path that is itself left out, whatever becomes of the
            directories above it.

    """

    def __init__(self, patterns: Iterable[str] = (), name: bytes | None = None) -> None:
        """Leave out what `patterns` say, what is the service's own, and what has one `name`.

        That is no directory's.

        Raises SettingsError for what is no pattern.
        """
        expression = b""
        # The last one decides. Most often it is one more of many globs, which costs nothing.
        every = (*patterns, _TEMPORARY_GLOB, _COOKIE_GLOB)
        for takes_back, some in groupby(every, lambda pattern: pattern.startswith("!")):
            matches = _any_of(list(some))
            if not takes_back:
                expression = b"%b|%b" % (matches, expression) if expression else matches
            elif expression:
                expression = b"(?!%b)(?:%b)" % (matches, expression)
        if name is not None:
            expression = rb"%b\Z|%b" % (re.escape(name), expression)
        # Called for each name of a directory, so it is the regular expression's own method.
        self.match: Callable[[bytes], object] = re.compile(expression, re.DOTALL).match

    def covers(self, path: bytes) -> bool:
        """Say whether a path or a directory above it is left out."""
        return any(self.match(path[: found.end()]) for found in _END_OF_COMPONENT.finditer(path))

    __contains__ = covers


def is_temporary(path: bytes) -> bool:
    """Say whether a path is one of a temporary file of the service."""
    return path.endswith(b"~") and bool(_is_temporary(path, path.rfind(b"/") + 1))


def token_of(name: bytes) -> bytes | None:
    """Return the token of somebody who waits, if this is the name of a cookie."""
    found = _cookie(name) if name.endswith(b"~") else None
    return found[1] if found else None


def is_own(path: bytes) -> bool:
    """Say whether a path is one of a temporary file, or of a cookie."""
    if not path.endswith(b"~"):  # this is asked of each name that is listed
        return False
    return is_temporary(path) or token_of(path[path.rfind(b"/") + 1 :]) is not None


def _any_of(patterns: list[str]) -> bytes:
    globs = [pattern for pattern in patterns if _is_glob(pattern)]
    others = [_gitignore(pattern) for pattern in patterns if not _is_glob(pattern)]
    return b"|".join([_last_component(globs), *others] if globs else others)


def _is_glob(pattern: str) -> bool:
    return not (pattern.startswith("!") or "/" in pattern or "**" in pattern)


def _last_component(globs: list[str]) -> bytes:
    # latin-1 has a character for each byte: a glob's `?` is one byte of a name.
    latin = [os.fsencode(glob).decode("latin-1") for glob in globs]
    # What ends each of them, `\Z` or from Python 3.14 on `\z`, comes after a directory's slash.
    either = "|".join(fnmatch.translate(glob)[:-2] for glob in latin).encode("latin-1")
    # The directories go first, and are not given back: a name without any is looked through once.
    # What is left has no slash but a directory's, which is not for the glob.
    return rb"(?:[^/]*+/(?!\Z))*+(?:%b)(?<!/)/?\Z" % either


def _gitignore(pattern: str) -> bytes:
    name = pattern.removeprefix("!")
    directory, name = name.endswith("/"), name.removesuffix("/")
    if "/" not in name:
        name = f"**/{name}"  # at any depth
    components = name.removeprefix("/").split("/")
    if {"", ".", ".."} & set(components):
        raise _refusal(pattern, "write names with one slash between them, such as /a, a/b or !a/")
    if components[-1] == "**":
        components.append("*")  # all that is in a directory, and not itself
    # With a leading slash, no pattern is taken for a comment.
    expression = _translated(os.fsencode("/" + "/".join(components)), pattern)
    return expression + (rb"/\Z" if directory else rb"/?\Z")


def _translated(anchored: bytes, pattern: str) -> bytes:
    # Here, so that it is not loaded, which takes 10 ms, where all patterns are globs.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # noqa: PLC0415

    try:
        found, _ = GitIgnoreSpecPattern.pattern_to_regex(anchored + _END)
        if found is None:
            raise ValueError("a set without an end, which git passes over")
        # What pathspec makes matches all that is below a match too: cut at the end, it does not.
        expression = _ESCAPED_OR_SET.sub(_set, found.split(_END)[0])
        re.compile(expression)
    except (ValueError, re.error) as error:
        way_out = (
            r"write [ as \[ and \ as \\, but for a set such as [a-z], of bytes and ranges alone"
        )
        raise _refusal(pattern, way_out) from error
    return expression


def _set(found: re.Match[bytes]) -> bytes:
    if not found[1]:
        return found[0]
    if _UNLIKE_IN_SET.search(found[1]):
        raise ValueError("a set that pathspec does not read as git does")
    # No set has a slash, not even one of all bytes but some.
    return b"(?!/)[" + _SPECIAL_IN_SET.sub(rb"\\\g<0>", found[1][1:])


def _refusal(pattern: str, way_out: str) -> SettingsError:
    return SettingsError(f"SYNC_EXCLUDE has {pattern!r}, which cannot be used: {way_out}")
