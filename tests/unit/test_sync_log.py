import logging
from pathlib import Path

from sync.report.log import CappedFile

RECORD = logging.makeLogRecord({"msg": "x" * 9})  # 10 bytes with its newline


def test_a_file_that_becomes_too_large_is_emptied_and_stays_the_same_for_other_writers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    handler = CappedFile(path, size_max=25)
    with path.open("a") as other:
        for _ in range(3):
            handler.emit(RECORD)
        other.write("other\n")
    handler.emit(RECORD)
    handler.close()
    assert path.read_text() == "other\n" + "x" * 9 + "\n"
    assert (tmp_path / "log.1").read_text() == ("x" * 9 + "\n") * 3


def test_a_file_that_cannot_be_copied_is_kept_small_and_does_not_end_the_service(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.1").mkdir()
    handler = CappedFile(path, size_max=15)
    for _ in range(3):
        handler.emit(RECORD)
    handler.close()
    assert path.read_text() == "x" * 9 + "\n"
