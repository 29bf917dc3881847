from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mdvp.core.errors import BadRequestError
from mdvp.core.options import Options, differences, in_words, read, volume, written
from mdvp.core.volume import NO_DIRECTORY, Access, Identity, Volume

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
    with pytest.raises(BadRequestError, match=f"volume option {name} cannot be .*: it takes .+"):
        read({name: text})


@pytest.mark.parametrize(
    "given",
    [
        {"on-remove": "trash:7d", "protect": "true", "wait": "30s", "size": "10G"},
        {"on-remove": "keep", "wait": "110s", "size": "1"},
        {"on-remove": "delete", "restore": "vol@2026-11-29T19:15:27Z"},
        {"restore": "vol"},
        {"from": "vol", "from-live": "true"},
        {"reader-of": "vol"},
    ],
)
def test_options_are_written_as_they_were_read(given: dict[str, str]) -> None:
    assert written(read(given)) == given


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("on-remove", "trash", "trash:7d"),
        ("on-remove", "trash:48h", "trash:2d"),
        ("wait", "60s", "1m"),
        ("size", "1024K", "1M"),
        ("size", "1000", "1000"),
    ],
)
def test_options_are_written_in_the_largest_unit(name: str, text: str, same: str) -> None:
    assert written(read({name: text})) == {name: same}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"on-remove": "trash:"}, "volume option on-remove cannot be 'trash:'"),
        ({"on-remove": "keep:7d"}, "on-remove cannot be"),
        ({"on-remove": "trash:7"}, "on-remove cannot be"),
        ({"on-remove": "trash:11000000m"}, "on-remove cannot be"),
        ({"wait": "111s"}, "110s at most"),
        ({"wait": "0s"}, "wait cannot be"),
        ({"size": "0"}, "size cannot be"),
        ({"size": "10g"}, "size cannot be"),
        ({"size": "9223372036854775808"}, "size cannot be"),
        ({"from": "../etc"}, "from cannot be"),
        ({"restore": "vol@"}, "restore cannot be"),
        ({"restore": "vol@now"}, "restore cannot be"),
        ({"adopt": "true", "from": "vol"}, "adopt and from do not go together"),
        ({"restore": "a", "reader-of": "b"}, "restore and reader-of do not go together"),
        ({"from-live": "true"}, "it goes with from=VOLUME"),
        ({"reader-of": "vol", "access": "exclusive"}, "access does not go with reader-of"),
        ({"reader-of": "vol", "size": "1G"}, "size does not go with reader-of"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_reason(
    given: dict[str, str], why: str
) -> None:
    with pytest.raises(BadRequestError, match=why):
        read(given)


def test_a_reader_is_for_any_number() -> None:
    reader = volume("v", datetime.now(UTC), NO_DIRECTORY, read({"reader-of": "vol"}))
    assert (reader.access, reader.reader_of) == (Access.SHARED, "vol")


@pytest.mark.parametrize("name", ["quota", "Access", "", "o" * 1000, "\n"])
def test_an_unknown_option_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(BadRequestError, match="unknown volume option ") as refusal:
        read({name: "1G"})
    assert "the options are access, uid, " in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_a_volume_does_not_differ_in_what_is_not_asked_for_nor_in_adopt() -> None:
    assert differences(VOLUME, read({})) == {}
    assert differences(VOLUME, read(ALL)) == {}
    assert differences(VOLUME, read({"mode": "770"})) == {}


def test_a_volume_differs_in_where_its_content_came_from() -> None:
    copied = replace(VOLUME, origin="a", live=True)
    assert differences(copied, read({"from": "a"})) == {}
    assert differences(copied, read({"from": "b", "from-live": "true"})) == {"from": "b"}
    assert differences(VOLUME, read({"from": "a", "protect": "false"})) == {"from": "a"}


def test_a_volume_differs_in_what_it_has_not() -> None:
    asked = read({"access": "exclusive", "uid": "1000", "mode": "0700"})
    assert differences(VOLUME, asked) == {"access": "exclusive", "mode": "0700"}
    plain = Volume("v", datetime.now(UTC), Identity(1, 1))
    assert differences(plain, read({"uid": "0"})) == {"uid": "0"}
