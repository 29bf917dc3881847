from collections.abc import Callable
from threading import Event

import pytest
from support import eventually

from mdvp.witness import Witness


def no_end() -> None:
    raise AssertionError


def counting(answers: list[bool | Exception]) -> tuple[Callable[[], bool], list[int]]:
    """Return what gives these answers in turn, and where it counts that it was asked."""
    asked: list[int] = []

    def look() -> bool:
        asked.append(len(asked))
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look, asked


def test_it_looks_until_there_is_no_more_to_be_seen_and_again_when_woken() -> None:
    look, asked = counting([True, True, False])
    witness = Witness(look, no_end)
    eventually(lambda: len(asked), 3)
    witness.wake()
    eventually(lambda: len(asked), 4)
    witness.close()
    assert len(asked) == 4


def test_a_look_that_fails_is_not_its_last(caplog: pytest.LogCaptureFixture) -> None:
    failure = OSError("no more files")
    look, asked = counting([failure, failure, True, failure, False])
    witness = Witness(look, no_end)
    eventually(lambda: len(asked), 5)
    witness.close()
    assert caplog.text.count("OSError: no more files") == 2  # once for as long as it lasts


def test_it_ends_at_once_while_it_waits() -> None:
    seen = Event()

    def look() -> bool:
        seen.set()
        return True

    witness = Witness(look, no_end)
    assert seen.wait(10)
    witness.close()
