import pytest

from sync.changes import shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain.txt", "plain.txt"),
        (b"with a space", "with a space"),
        ("süß €".encode(), "süß €"),
        (b"two\nlines", r"two\nlines"),
        (b"\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb\u0085".encode(), r"a\u202eb\x85"),  # turns the text around; ends the line
        (b"latin-\xe9", r"latin-\xe9"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate, which UTF-8 cannot have
    ],
)
def test_a_name_is_shown_on_one_line_and_without_characters_that_a_terminal_obeys(
    name: bytes, text: str
) -> None:
    assert shown(name) == text
