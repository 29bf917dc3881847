import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sync.core.changes import UNSURE, Signature, shown

FILE = Signature(inode=1, size=2, mtime=3, ctime=4)


class TestSignature:
    def test_is_a_files_inode_size_and_times_in_ns(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"content")
        os.utime(path, ns=(1, 1_700_000_000_123_456_789))
        status = path.stat()
        assert Signature.of(status) == Signature(
            status.st_ino, 7, 1_700_000_000_123_456_789, status.st_ctime_ns
        )

    def test_of_a_renamed_file_is_of_the_same_content(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"content")
        before = Signature.of(path.stat())
        renamed = path.rename(tmp_path / "renamed")
        assert Signature.of(renamed.stat()).is_content_of(before)

    @pytest.mark.parametrize("field", ["inode", "size", "mtime"])
    def test_that_differs_in_more_than_ctime_is_of_other_content(self, field: str) -> None:
        assert not FILE._replace(**{field: 99}).is_content_of(FILE)

    def test_that_is_unsure_is_no_files_but_still_of_the_same_content(self) -> None:
        assert FILE.unsure() != FILE
        assert (FILE.is_sure, FILE.unsure().is_sure) == (True, False)
        assert FILE.unsure().is_content_of(FILE)

    @pytest.mark.parametrize("ctime", [0, UNSURE])
    def test_of_a_file_is_sure_whatever_its_file_system_says(self, ctime: int) -> None:
        status = SimpleNamespace(st_ino=1, st_size=2, st_mtime_ns=3, st_ctime_ns=ctime)
        signature = Signature.of(cast("os.stat_result", status))
        assert signature.is_sure
        assert signature != signature.unsure()


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
