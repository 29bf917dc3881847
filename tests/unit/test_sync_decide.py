import json

import pytest

from sync.core.decision import Mode
from sync.decide.errors import CannotDecideError
from sync.decide.listing import as_json, conflict_lines, lost_lines, moment
from sync.decide.losers import chosen
from sync.decide.names import meant
from sync.redis.notes import Conflict, Lost

EARLIER = Conflict(1_795_942_800.0, "3 bytes", "no key")
LATER = Conflict(1_795_942_801.9, "no file", "12 bytes")
LOST = [Lost(2, 1_795_942_800, 7, b"a"), Lost(13, 1_795_942_801, 1_200_000, b"b\n\xff")]


class TestTheNameThatIsMeant:
    KNOWN = (b"a/b", b"line\nend", b"odd\xff", b"odd\\xff")

    @pytest.mark.parametrize(
        ("written", "path", "name"),
        [
            ("a/b", b"a/b", b"a/b"),
            ("/foo/a/b", b"a/b", b"a/b"),
            ("line\nend", b"line\nend", b"line\nend"),
            ("line\\nend", b"line\\nend", b"line\nend"),
            ("odd\udcff", b"odd\xff", b"odd\xff"),
            ("odd\\xff", b"odd\\xff", b"odd\\xff"),  # what is called so goes before what looks so
            ("none", b"none", None),
        ],
    )
    def test_is_a_path_or_is_written_as_it_is_shown(
        self, written: str, path: bytes, name: bytes | None
    ) -> None:
        assert meant(written, [path], self.KNOWN) == name

    def test_must_be_clear(self) -> None:
        known = [b"a\n\xff", b"a\\n\xff"]
        with pytest.raises(CannotDecideError, match="2 names are written"):
            meant("a\\n\\xff", [b"a\\n\\xff"], known)


class TestTheListing:
    def test_has_a_line_for_each_conflict_the_oldest_first(self) -> None:
        assert list(conflict_lines({b"b": LATER, b"\n": EARLIER}, Mode.TWO_WAY_SAFE)) == [
            "\\n differs: 3 bytes on disk, no key in Redis, since 2026-11-29 09:00:00 UTC",
            "b differs: no file on disk, 12 bytes in Redis, since 2026-11-29 09:00:01 UTC",
            "2 conflicts: `mdvp-sync resolve NAME --take disk`, or `--take redis`, ends one",
        ]

    @pytest.mark.parametrize("mode", [Mode.TWO_WAY_SAFE, Mode.ONE_WAY_SAFE])
    def test_says_that_there_are_none(self, mode: Mode) -> None:
        assert list(conflict_lines({}, mode)) == ["no conflicts"]

    @pytest.mark.parametrize(
        ("mode", "why"),
        [
            (Mode.ONE_WAY_REPLICA, "Redis is the directory's copy"),
            (Mode.TWO_WAY_RESOLVED, "the disk wins"),
            (Mode.REDIS_TO_DISK, "the directory is Redis' copy"),
        ],
    )
    def test_says_that_there_cannot_be_any(self, mode: Mode, why: str) -> None:
        (line,) = conflict_lines({}, mode)
        assert line.startswith(f"no conflicts: with SYNC_MODE={mode.value} {why}")

    def test_has_a_line_for_each_value_that_lost(self) -> None:
        assert list(lost_lines(LOST)) == [
            "lost 2     2026-11-29 09:00:00 UTC        7 B  a",
            "lost 13    2026-11-29 09:00:01 UTC     1.2 MB  b\\n\\xff",
            "2 values that lost are kept: `mdvp-sync resolve NAME --take redis [--number N]` "
            "brings one back",
        ]
        assert list(lost_lines([])) == ["no values that lost are kept"]

    def test_is_the_same_for_programs(self) -> None:
        found = json.loads(as_json(Mode.TWO_WAY_SAFE, {b"b": LATER, b"\n": EARLIER}, LOST[1:]))
        assert found == {
            "mode": "two-way-safe",
            "conflicts": [
                {"name": "\\n", "since": EARLIER.since, "disk": "3 bytes", "redis": "no key"},
                {"name": "b", "since": LATER.since, "disk": "no file", "redis": "12 bytes"},
            ],
            "lost": [{"number": 13, "at": 1_795_942_801, "size": 1_200_000, "name": "b\\n\\xff"}],
        }

    @pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e30, -1e30])
    def test_bears_a_moment_that_somebody_else_has_written(self, seconds: float) -> None:
        assert moment(seconds) == "an unknown time"


class TestTheValueThatIsBroughtBack:
    VALUES = (Lost(1, 5, 1, b"a"), Lost(2, 6, 1, b"b"), Lost(3, 7, 1, b"a"))

    @pytest.mark.parametrize(("number", "found"), [(None, 3), (1, 1), (3, 3), (2, None)])
    def test_is_the_last_of_the_name_or_the_one_of_a_number(
        self, number: int | None, found: int | None
    ) -> None:
        value = chosen(self.VALUES, b"a", number)
        assert (value.number if value else None) == found
