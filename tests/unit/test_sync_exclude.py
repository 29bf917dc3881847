import os

import pytest

from sync.core.exclude import DEFAULT, Excluded


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
    for byte in set(range(1, 256)) - set(b"/*?["):
        glob, name = os.fsdecode(bytes([byte])), bytes([byte])
        assert name in Excluded([glob])
        assert name + b"x" not in Excluded([glob])
