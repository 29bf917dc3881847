from datetime import UTC, datetime

import pytest

from mdvp.core.errors import BadRequestError
from mdvp.core.options import Options, differences, in_words, read, written
from mdvp.core.volume import Access, Identity, Volume

ALL = {"access": "shared", "uid": "1000", "gid": "0", "mode": "0770", "adopt": "true"}
VOLUME = Volume("v", datetime.now(UTC), Identity(1, 1), Access.SHARED, 1000, 0, 0o770)


def test_each_option_is_read_and_written_the_same() -> None:
    options = read(ALL)
    assert options == Options(Access.SHARED, 1000, 0, 0o770, adopt=True)
    assert written(options) == ALL
    assert in_words(written(options)) == "access=shared, uid=1000, gid=0, mode=0770, adopt=true"


def test_what_is_not_asked_for_is_not_written() -> None:
    assert written(read({})) == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("access", "exclusive", Access.EXCLUSIVE),
        ("uid", "4294967294", 4294967294),
        ("mode", "7", 0o7),
        ("mode", "1777", 0o1777),
        ("mode", "01777", 0o1777),
        ("adopt", "false", False),
    ],
)
def test_a_good_value_is_read(name: str, text: str, value: object) -> None:
    assert getattr(read({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("access", "both"),
        ("access", "Shared"),
        ("access", ""),
        ("uid", "-1"),
        ("uid", "4294967295"),
        ("uid", "9" * 5000),
        ("uid", "root"),
        ("uid", "1_0"),
        ("uid", "٣"),
        ("gid", " 1"),
        ("mode", "778"),
        ("mode", "17777"),
        ("mode", "0o770"),
        ("mode", "rwx"),
        ("adopt", "yes"),
        ("adopt", True),
        ("uid", 1000),
        ("uid", None),
        ("access", ["shared"]),
    ],
)
def test_a_bad_value_is_refused_with_what_there_is(name: str, text: object) -> None:
    with pytest.raises(BadRequestError, match=f"volume option {name} cannot be .*: it takes ") as e:
        read({name: text})
    for option in ALL:
        assert f"{option}=" in str(e.value)


@pytest.mark.parametrize("name", ["size", "Access", "", "o" * 1000, "\n"])
def test_an_unknown_option_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(BadRequestError, match="unknown volume option ") as refusal:
        read({name: "1G"})
    assert "access=" in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_a_volume_does_not_differ_in_what_is_not_asked_for_nor_in_adopt() -> None:
    assert differences(VOLUME, read({})) == {}
    assert differences(VOLUME, read(ALL)) == {}
    assert differences(VOLUME, read({"mode": "770"})) == {}


def test_a_volume_differs_in_what_it_has_not() -> None:
    asked = read({"access": "exclusive", "uid": "1000", "mode": "0700"})
    assert differences(VOLUME, asked) == {"access": "exclusive", "mode": "0700"}
    plain = Volume("v", datetime.now(UTC), Identity(1, 1))
    assert differences(plain, read({"uid": "0"})) == {"uid": "0"}
