import json
from pathlib import Path

import pytest

from sync.heartbeat import FRESH, LIVE, Heartbeat, ailment

NOW = 1000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


def beat(state: str, at: float) -> str:
    return json.dumps({"state": state, "at": at})


@pytest.mark.parametrize("age", [0.0, 1.0, FRESH])
def test_a_fresh_sign_of_life_of_a_service_in_step_is_no_ailment(path: Path, age: float) -> None:
    path.write_text(beat(LIVE, NOW - age))
    assert ailment(path, NOW) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (beat("waiting for Redis: refused", NOW), ["not in step", "waiting for Redis: refused"]),
        (beat(LIVE, NOW - FRESH - 0.1), ["no sign of life", "over 5 s", f"last was: {LIVE}"]),
        # From before the machine started anew, and its clock with it.
        (beat(LIVE, NOW + 0.1), ["no sign of life"]),
        ('{"state": "live", "at": NaN}', ["no sign of life"]),
        ("", ["cannot be read"]),
        ('{"state": "live"', ["cannot be read"]),
        ('{"state": "live"}', ["cannot be read", "at"]),
        ('{"state": "live", "at": "soon"}', ["cannot be read", "soon"]),
        ('{"state": "live", "at": null}', ["cannot be read"]),
        ("[]", ["cannot be read"]),
    ],
)
def test_any_other_sign_of_life_is_an_ailment_in_words(
    path: Path, text: str, words: list[str]
) -> None:
    path.write_text(text)
    wrong = ailment(path, NOW)
    assert wrong is not None
    assert [word for word in words if word not in wrong] == []


def test_bytes_that_are_no_text_are_an_ailment(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\0")
    assert "cannot be read" in (ailment(path, NOW) or "")


def test_a_directory_in_its_place_is_an_ailment(path: Path) -> None:
    path.mkdir()
    assert "cannot be read" in (ailment(path, NOW) or "")


def test_no_sign_of_life_is_a_service_that_has_not_started(path: Path) -> None:
    assert ailment(path, NOW) == "the sync service has not started"


def test_a_beat_replaces_the_one_before_and_leaves_nothing_else_behind(path: Path) -> None:
    heartbeat = Heartbeat(path)
    heartbeat.beat("a state with a long description")
    heartbeat.beat(LIVE)
    assert json.loads(path.read_text())["state"] == LIVE
    assert list(path.parent.iterdir()) == [path]


def test_a_heartbeat_without_a_file_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Heartbeat(None).beat(LIVE)
    assert list(tmp_path.iterdir()) == []
