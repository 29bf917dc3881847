import os
import re
import sys
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.core.errors import SettingsError
from sync.core.exclude import DEFAULT, Excluded

# What has a meaning to a glob or to gitignore, and bytes that are no characters.
NAMES = st.lists(
    st.sampled_from([bytes([byte]) for byte in b"ab.~#!-[]^&\\\n\xe9"]), min_size=1, max_size=4
).map(b"".join)
GLOBS = st.lists(
    st.sampled_from(
        ["a", "b", ".", "~", "#", "*", "?", "[ab]", "[!a]", "[", "]", "\\", "-", "\udce9"]
    ),
    min_size=1,
    max_size=5,
).map(lambda parts: re.sub(r"\*+", "*", "".join(parts)))


@pytest.mark.parametrize(
    "name",
    [b".key.swp", b".key.swx", b"key~", b"~", b"4913", b".#key", b"#key#", b"##", b"two\nlines~"],
)
def test_what_editors_drop_is_left_out_by_default(name: bytes) -> None:
    assert name in Excluded(DEFAULT)


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"key",
            b"key~1",
            b"key.swp",
            b".key.swap",
            b".swp",
            b"49130",
            b"14913",
            b"#key",
            b"key#",
        ),
        *(b"#", b".key", b"key~\n", b"4913\n"),
    ],
)
def test_what_only_looks_like_it_is_not(name: bytes) -> None:
    assert name not in Excluded(DEFAULT)


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("*", b"", True),
        ("*", b"\xff\n", True),
        ("?", b"\xff", True),
        ("?", "é".encode(), False),  # two bytes
        ("??", "é".encode(), True),
        ("é*", "été".encode(), True),
        ("\udcff", b"\xff", True),  # as the environment has it
        ("[a-c]x", b"bx", True),
        ("[!a-c]x", b"bx", False),
        ("[!a-c]x", b"\xffx", True),
        ("a.b", b"axb", False),  # no regular expression
        ("(a|b)", b"a", False),
        ("[", b"[", True),
        ("A", b"a", False),
        ("a*b*c", b"a" + b"b" * 200, False),
    ],
)
def test_a_glob_sees_bytes(glob: str, name: bytes, *, matches: bool) -> None:
    assert (name in Excluded([glob])) == matches


def test_each_glob_is_one_of_several_and_matches_whole_names() -> None:
    excluded = Excluded(["a*", "b"])
    names = (b"a", b"ab", b"b", b"ba", b"bb", b"cb", b"")
    assert [name for name in names if name in excluded] == [b"a", b"ab", b"b"]


@pytest.mark.parametrize("globs", [(), []])
def test_without_globs_nothing_is_left_out(globs: list[str]) -> None:
    assert b"" not in Excluded(globs)
    assert b"key~" not in Excluded(globs)


def test_a_glob_may_have_any_byte_that_a_name_may() -> None:
    for byte in set(range(1, 256)) - set(b"/*?[!"):
        glob, name = os.fsdecode(bytes([byte])), bytes([byte])
        assert name in Excluded([glob])
        assert name + b"x" not in Excluded([glob])


@given(st.lists(GLOBS, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_a_glob_is_of_the_last_component_of_a_path(globs: list[str], names: list[bytes]) -> None:
    wanted = any(fnmatchcase(names[-1], os.fsencode(glob)) for glob in globs)
    excluded = Excluded(globs)
    path = b"/".join(names)
    assert bool(excluded.match(path)) == bool(excluded.match(path + b"/")) == wanted


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        ("*~", "a~ a~/ d/a~ d/a~/", "a d/ d~/a ~/a"),
        ("*", "a a/ d/a d/e/", ""),
        ("?", "a a/ d/a d/a/", "ab/ ab d/ab d/ab/"),
        ("[!a]", "b b/ a/b", "a a/ b/a bb/"),
        ("b*", "b bb b/ a/b", "b/a ab"),
        ("a?", "ab", "a/ d/a/"),
        ("*[!a]", "ab b/", "a/ d/a/"),
        ("#*#", "#a# d/#a# #a#/", "a d/a"),
        ("a/", "a/ d/a/", "a d/a a/b"),
        ("#*#/", "#a#/ d/#a#/", "#a#"),
        ("/a", "a a/", "d/a d/a/ a/b"),
        ("/a*b", "ab axb", "a/b"),
        ("a/b", "a/b a/b/", "d/a/b a a/b/c"),
        ("#a/b", "#a/b", "a/b"),
        ("d/*", "d/a d/a/", "d d/ d/e/a"),
        ("d/**", "d/a d/a/ d/e/a d/e/f/", "d d/ e/d/a"),
        ("d/**/", "d/a/ d/e/f/", "d/ d/a d/e/a"),
        ("**/a/b", "a/b d/a/b d/e/a/b/", "b a/c/b"),
        ("d/**/a", "d/a d/e/a d/e/f/a/", "a e/d/a da"),
        ("**", "a a/ d/a", ""),
        ("**/", "a/ d/a/", "a d/a"),
        ("a**b", "ab axb d/axxb/", "a/b"),
        (r"\**", "* *a d/*a", r"a \ \a"),
        ("a*/b", "a/b ab/b", "ab b a/c/b"),
        ("d/[!b]", "d/a", "d/b"),
        ("/a[!b]c", "axc", "abc a/c"),
        ("/[+-0]", "+ . 0", "a/ /"),
        ("/[[a&&~|]", "[ a & ~ |", "b"),
        ("/[]a]", "] a", "b"),
        ("/[]&&]", "] &", "b"),
        (r"/\[a]", "[a]", "a"),
        (r"/\*\[", "*[", "a[ *"),
        ("/d?", "d1", "d d/ d12"),
        ("a* !ab", "a axb ab1", "ab ab/ d/ab"),
        ("!ab a*", "ab", "b"),
        ("/a* /b !ab", "ac b", "ab"),
        ("/b /a* !ab", "ac b", "ab"),
        ("!ab", "", "ab a"),
        ("a* !ab* ab1 !/d/ab1", "ac ab1 d/e/ab1", "ab ab2 d/ab1"),
        ("a* !a*/", "ab d/ab", "ab/ d/ab/"),
        ("a **/!b", "a !b d/!b", "b"),
        ("a/* !a/b", "a/c", "a/b"),
    ],
)
def test_a_pattern_is_of_gitignore_unless_it_is_a_glob(
    patterns: str, left_out: str, kept: str
) -> None:
    match = Excluded(patterns.split()).match
    paths = [os.fsencode(path) for path in f"{left_out} {kept}".split()]
    assert [path for path in paths if match(path)] == os.fsencode(left_out).split()


def test_a_path_may_have_any_byte() -> None:
    excluded = Excluded(["/a?/**/b*/", "\udce9/\u00e0/"])
    assert excluded.match(b"a\n/\n\xff/b\n/")
    assert excluded.match(b"\xe9/\xc3\xa0/")
    assert not excluded.match(b"a/\n/b/")


def test_what_is_below_a_directory_that_is_left_out_is_covered() -> None:
    excluded = Excluded(["/a", "*~", "!**/kept", "!c~/"])
    for path in (b"a", b"a/", b"a/b", b"a/b/", b"a/kept", b"d/b~/c/kept"):
        assert excluded.covers(path)
        assert path in excluded
    for path in (b"b", b"kept", b"b/a", b"b/kept/", b"c~/a", b""):
        assert not excluded.covers(path)
        assert path not in excluded
    assert not excluded.match(b"a/b")


@pytest.mark.parametrize("pattern", ["/", "!", "!/", "//", "a//b", "./a", "a/..", "//a", "a//"])
def test_a_pattern_that_no_path_has_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Excluded(["*~", pattern])
    assert str(caught.value) == (
        f"SYNC_EXCLUDE has {pattern!r}, which cannot be used: "
        "write names with one slash between them, such as /a, a/b or !a/"
    )


@pytest.mark.parametrize(
    "pattern",
    [
        *("a/[b", "!a[", "/[!]"),  # sets without an end
        *("a/b\\", "a\\/b"),  # a backslash before nothing
        *("/[z-a]", "/[[:digit:]]", "/[a\\]]", "/[+--]"),  # sets that mean something else to Python
    ],
)
def test_a_pattern_that_cannot_be_translated_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Excluded(["*~", pattern])
    assert str(caught.value) == (
        f"SYNC_EXCLUDE has {pattern!r}, which cannot be used: "
        r"write [ as \[ and \ as \\, but for a set such as [a-z], of bytes and ranges alone"
    )


def test_what_only_gitignores_patterns_need_is_not_loaded_for_globs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pathspec.patterns.gitignore.spec", None)
    assert b"a~" in Excluded(DEFAULT)
    with pytest.raises(ImportError):
        Excluded(["/a"])
