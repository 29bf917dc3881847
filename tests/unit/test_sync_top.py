"""The picture of `mdvp-sync top`, at sizes from a stamp's to a wall's."""

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from unicodedata import normalize

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.screen import Screen

from sync import top as command
from sync.core.changes import shown
from sync.redis.vitals import Vitals
from sync.report.health import Health
from sync.report.pace import Rates
from sync.report.status import HELD, LIVE, NOTIFICATIONS, RECONCILING, STANDBY, WAITING, Status
from sync.report.tally import LAG_BOUNDS, OPERATIONS, Change
from sync.report.top import View, picture

NOW = 1_700_000_000.0
REDIS = Vitals("Redis", "8.0.2", "master", 12_345_678, 64_000_000, "noeviction", 3, 2406, 0)
STATUS = Status(
    state=LIVE,
    since=NOW - 7200,
    root="/foo",
    server="/run/redis.sock",
    started=NOW - 7205,
    files=1234,
    bytes=1_234_567,
    pending=3,
    lag=0.0006,
    recent=[
        Change(NOW - 3, "set", "key1", size=7),
        Change(NOW - 2, "rename", "key1", "key2"),
        Change(NOW - 1, "delete", "key2"),
    ],
)
VIEW = View(
    health=Health(None, STATUS, 1.0),
    rates=Rates({"set": 1203.4, "delete": 2.5}, 1205.9, 1_234_567.8),
    course=[0.0, 600.0, 1205.9],
    lags=[98, 1, 1, *[0] * (len(LAG_BOUNDS) - 2)],
    redis=REDIS,
    root="/bar",
    server="redis:6379",
    now=NOW,
)
SIZES = [(40, 10), (80, 24), (120, 30), (250, 70)]
CLOCK = time.strftime("%H:%M:%S", time.localtime(NOW - 2))


@pytest.fixture(autouse=True)
def _no_colours_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def of(status: Status, view: View = VIEW, problem: str | None = None) -> View:
    return replace(view, health=Health(problem, status, 1.0))


def rows(view: View, width: int = 80, height: int | None = 24, *, draws: bool = True) -> list[str]:
    """Return the rows of the picture as text."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as captured:
        console.print(picture(view, width, height, draws=draws))
    return captured.get().splitlines()


def coloured(view: View) -> list[str]:
    """Return the rows of the picture as a terminal gets them, with colours."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with console.capture() as captured:
        console.print(picture(view, 80, 24))
    return captured.get().splitlines()


def text(view: View, width: int = 80, height: int | None = 24) -> str:
    return "\n".join(rows(view, width, height))


def screen(view: View, width: int, height: int) -> list[str]:
    """Return what a terminal of that size shows, each row to its last character."""
    terminal = pyte.Screen(width, height)
    file = io.StringIO()
    Console(
        file=file, width=width, height=height, force_terminal=True, _environ={"TERM": "xterm"}
    ).print(Screen(picture(view, width, height)), end="")  # as rich's Live does
    pyte.Stream(terminal).feed("\x1b[?7l" + file.getvalue().replace("\n", "\r\n"))
    return list(terminal.display)


def test_all_is_there_on_a_usual_terminal() -> None:
    assert [row.rstrip() for row in rows(VIEW)] == [
        "live: Redis equals the directory",
        "one-way-replica  /foo -> /run/redis.sock",
        f"live since {time.strftime('%H:%M:%S', time.localtime(NOW - 7200))}, up 2 h",
        "─" * 80,
        "rate      1,206/s, 1.2 MB/s                 Redis     8.0.2, master",
        "          ▁▄█ up to 1,206/s                 memory    12.3 MB of 64.0 MB (19%)",
        "by kind   SET 1,203/s, DEL 2.5/s            policy    noeviction",
        "lag       0.6 ms (the last)                 evicted   0 keys",
        "          p50 <= 1.0 ms, p99 <= 2.5 ms      clients   3",
        "pending   3 names                           commands  2,406/s",
        "files     1,234 (1.2 MB)",
        "last changes",
        f"  {time.strftime('%H:%M:%S', time.localtime(NOW - 1))}  DEL          key2",
        f"  {CLOCK}  RENAME       key1 -> key2",
        f"  {time.strftime('%H:%M:%S', time.localtime(NOW - 3))}  SET     7 B  key1",
    ]


def test_a_small_terminal_has_what_matters_most() -> None:
    assert [row.rstrip() for row in rows(VIEW, 40, 10)] == [
        "live: Redis equals the directory",
        "one-way-replica  /foo -> /run/redis.sock",
        f"live since {time.strftime('%H:%M:%S', time.localtime(NOW - 7200))}, up 2 h",
        "rate      1,206/s, 1.2 MB/s",
        "by kind   SET 1,203/s, DEL 2.5/s",
        "lag       0.6 ms p99 <= 2.5 ms",
        "pending   3 names",
        "Redis     12.3 MB of 64.0 MB (19%), 2,4…",
        f"  {time.strftime('%H:%M:%S', time.localtime(NOW - 1))}  DEL          key2",
        f"  {CLOCK}  RENAME       key1 -> key2",
    ]


HOSTILE = [b"[red]x[/red]", b"\x1b[2J\x1b[H", "漢字".encode() * 100, b"\n\r\t\x0b", b"\xff\xfe"]
HOSTILE += ["e\u0301".encode() * 200, b"a" * 255, "\u202eabc".encode(), b":smile:", b"\\["]


def hostile(names: Sequence[str]) -> View:
    named = {name: f"is {name}" for name in names}
    status = replace(
        STATUS,
        state=WAITING,
        detail=" ".join(names),
        root=names[0],
        server=names[-1],
        mode=names[0],
        heard_by=names[0],
        recent=[
            change
            for name in names
            for change in (Change(NOW, "set", name, size=1), Change(NOW, "rename", name, name))
        ],
        conflicts=named,
        conflicts_count=len(named),
        skipped=named,
        skipped_count=len(named),
    )
    return of(status, replace(VIEW, redis=names[0]), f"it is not in step: {names[-1]}")


def comparable(row: str) -> str:
    """Return a row as pyte has it: composed, and a wide character has an empty cell behind it."""
    return normalize("NFC", row).replace(" ", "")


@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 6), (7, 3), (1, 1)])
def test_hostile_names_stay_in_their_rows(width: int, height: int) -> None:
    view = hostile([shown(name) for name in HOSTILE])
    found = rows(view, width, height)
    assert len(found) <= height
    terminal = screen(view, width, height)
    expected = [*found, *[""] * (height - len(found))]
    assert [comparable(row) for row in terminal] == [comparable(row) for row in expected]
    if height >= 24:
        assert any("[red]x[/red]" in row for row in found)
        assert any(":smile:" in row for row in found)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=255).map(shown), min_size=1, max_size=9),
    st.integers(1, 130),
    st.integers(1, 40),
)
def test_whatever_the_names_and_the_size_there_are_no_more_rows(
    names: list[str], width: int, height: int
) -> None:
    view = hostile(names)
    found = rows(view, width, height)
    assert len(found) <= height
    console = Console(file=io.StringIO(), width=width)
    assert all(console.measure(row).maximum <= width for row in found if row.isprintable())


def test_what_looks_like_markup_is_a_name() -> None:
    status = replace(
        STATUS,
        recent=[Change(NOW, "rename", "[red]x", "[/red]y")],
        skipped={"[bold]z": "is [link=here]"},
        skipped_count=1,
    )
    found = rows(of(status))
    assert found[-1].endswith("RENAME  [red]x -> [/red]y")
    assert "  [bold]z is [link=here]" in found


def test_what_was_not_escaped_by_others_is_escaped() -> None:
    status = replace(
        STATUS, root="\x1b[2Jroot", server="\x07", skipped={"\x1b": "\x9b"}, skipped_count=1
    )
    view = of(
        replace(status, recent=[Change(NOW, "\x1b]0;", "\x1b", "\x9b")]), problem="\x1b[31m\n"
    )
    found = text(replace(view, redis=REDIS._replace(name="\x1b", version="\x07", policy="\x1b")))
    assert found.replace("\n", "").isprintable()
    assert r"\x1b[2Jroot -> \x07" in found


@pytest.mark.parametrize(
    ("problem", "state", "style"),
    [
        (None, LIVE, "32"),
        (None, STANDBY, "32"),
        ("the sync service is not in step: reconciling: 1 file so far", RECONCILING, "33"),
        ("the sync service is not in step: waiting for Redis", WAITING, "31"),
        ("the sync service holds, and deletes nothing: much", HELD, "31"),
        ("no sign of life: its last was: live", LIVE, "31"),
        ("no sign of life: its last was: reconciling", RECONCILING, "31"),
    ],
)
def test_the_first_row_says_whether_it_is_well_in_words_and_colour(
    problem: str | None, state: str, style: str
) -> None:
    view = of(replace(STATUS, state=state, detail="who"), problem=problem)
    first = coloured(view)[0]
    assert view.health.headline in first
    assert first.startswith(f"\x1b[1;{style}m")


@pytest.mark.parametrize(
    ("used", "colour"), [(79, "0"), (80, "33"), (94, "33"), (95, "1;31"), (100, "1;31")]
)
def test_memory_that_becomes_scarce_is_coloured(used: int, colour: str) -> None:
    view = replace(VIEW, redis=REDIS._replace(used=used, limit=100))
    words = f"{used} B of 100 B ({used}%)"
    (row,) = [row for row in coloured(view) if words in row]
    assert f"\x1b[{colour}m{words}" in row


def test_long_words_are_wrapped_and_leave_room_for_the_rest() -> None:
    words = "the sync service holds: " + "600 of 1,000 files would go " * 20
    found = rows(of(replace(STATUS, state=HELD), problem=words), 80, 24)
    assert sum("would go" in row for row in found) == 6
    assert found[5].endswith("…")
    assert any("last changes" in row for row in found)
    assert " ".join(found[:5]) == words[: len(" ".join(found[:5]))]


def test_what_a_service_has_not_said_is_as_the_settings_have_it() -> None:
    view = replace(VIEW, health=Health("the sync service has not started"), rates=None, lags=())
    found = text(view)
    expected = ["/bar -> redis:6379", "rate      not known", "lag       none yet", "no changes yet"]
    assert [each for each in expected if each not in found] == []
    assert "since" not in found


def test_a_redis_that_does_not_say_how_it_is_has_its_words_in_full() -> None:
    words = "Error 111 connecting to 127.0.0.1:6379. Connection refused. " * 2
    found = text(replace(VIEW, redis=words))
    assert f"Redis: {words.split('. ', maxsplit=1)[0]}" in found
    assert "Redis     no answer" in found
    assert "Redis     not asked yet" in text(replace(VIEW, redis=None))
    assert "Redis: " not in text(replace(VIEW, redis=None))


@pytest.mark.parametrize("height", [10, 24])
def test_what_is_wrong_with_redis_can_be_seen(height: int) -> None:
    redis = REDIS._replace(used=64_000_000, evicted=1)
    found = text(replace(VIEW, redis=redis), 80, height)
    assert "64.0 MB of 64.0 MB (100%)" in found
    assert "1 key" in found
    assert "12.3 MB of no limit" in text(replace(VIEW, redis=REDIS._replace(limit=0)), 80, height)


def test_figures_that_are_not_usual_are_there_when_they_are_to_be_seen() -> None:
    status = replace(
        STATUS, arriving=2, directories=34, unwatched=5, undone=6, heard_by=NOTIFICATIONS
    )
    found = text(of(status), 250, 70)
    expected = [
        "pending   3 names, 2 large files on the way",
        "files     1,234 (1.2 MB) in 34 directories, 5 unwatc",
        "undone    6 changes by others",
    ]
    assert [each for each in expected if each not in found] == []


@pytest.mark.parametrize("operation", OPERATIONS.values())
def test_each_kind_of_change_has_its_words(operation: str) -> None:
    found = text(of(replace(STATUS, recent=[Change(NOW, operation, "name")])))
    assert operation not in found.replace(operation.upper(), "")
    assert found.splitlines()[-1].endswith("  name")


def test_the_last_changes_and_the_names_in_trouble_share_the_room() -> None:
    many = {f"n{number}": "is a directory" for number in range(100)}
    recent = [Change(NOW + number, "set", f"c{number}", size=1) for number in range(20)]
    status = replace(
        STATUS, conflicts=many, conflicts_count=150, skipped=many, skipped_count=101, recent=recent
    )
    found = rows(of(status))
    assert len(found) == 24
    at = [
        next(number for number, row in enumerate(found) if row.startswith(words))
        for words in ("150 names in conflict", "101 names skipped", "last changes")
    ]
    assert [at[1] - at[0], at[2] - at[1], 24 - at[2]] == [3, 3, 7]
    assert found[at[0] + 1] == "  n0 is a directory"
    assert [row.split()[-1] for row in found[at[2] + 1 :]] == [f"c{19 - n}" for n in range(6)]


def test_on_a_tall_terminal_all_of_them_are_there() -> None:
    recent = [Change(NOW + number, "set", f"c{number}", size=1) for number in range(20)]

    def listed(height: int | None) -> list[str]:
        found = rows(of(replace(STATUS, recent=recent)), 80, height)
        return found[found.index("last changes") + 1 :]

    assert len(listed(70)) == 20
    assert len(listed(None)) == 20


def test_a_long_name_leaves_room_for_what_is_said_of_it() -> None:
    status = replace(
        STATUS,
        recent=[Change(NOW, "rename", "a" * 200, "b" * 10), Change(NOW, "rename", "c", "d" * 200)],
        skipped={
            "e" * 200: "is a directory",
            "f" * 60: "is a directory",
            "g" * 200: "is a name of which much is said " * 9,
        },
        skipped_count=3,
    )
    found = rows(of(status), 80, 40)
    assert f"  {'f' * 60} is a directory" in found
    assert any(row.startswith(f"  {'g' * 37}… is a name of which") for row in found)
    assert any(row.endswith("… -> " + "b" * 10) for row in found)
    assert any("c -> ddd" in row for row in found)
    assert any("eee… is a directory" in row for row in found)


def test_a_change_of_another_day_is_told_with_its_day() -> None:
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW - 200_000))
    assert f"live since {day}, up 2 d" in text(
        of(replace(STATUS, since=NOW - 200_000, started=NOW - 200_000))
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"),
     (172_799, "47 h"), (172_800, "2 d")],
)  # fmt: skip
def test_how_long_it_runs_is_rounded_down(seconds: float, words: str) -> None:
    assert f", up {words}\n" in text(of(replace(STATUS, started=NOW - seconds)))


@pytest.mark.parametrize(
    ("lags", "words"),
    [
        ([1, *[0] * 14], "p50 <= 1.0 ms, p99 <= 1.0 ms"),
        ([99, 1, *[0] * 13], "p50 <= 1.0 ms, p99 <= 1.0 ms"),
        ([98, 2, *[0] * 13], "p50 <= 1.0 ms, p99 <= 2.5 ms"),
        ([*[0] * 13, 1, 0], "p50 <= 30.0 s, p99 <= 30.0 s"),
        ([*[0] * 14, 1], "p50 > 30.0 s, p99 > 30.0 s"),
    ],
)
def test_lags_are_told_by_the_bounds_that_they_do_not_exceed(lags: list[int], words: str) -> None:
    assert words in text(replace(VIEW, lags=lags))


def test_without_characters_to_draw_with_there_is_no_course() -> None:
    assert not any("up to" in row for row in rows(VIEW, draws=False))
    assert any("by kind" in row for row in rows(VIEW, draws=False))


def test_the_course_has_no_more_than_fits() -> None:
    row = next(
        row for row in rows(replace(VIEW, course=[9.0, *[1.0] * 99])) if "up to 1.0/s" in row
    )
    assert row.count("█") == 18
    assert "up to" not in text(replace(VIEW, course=[0.0] * 9))


def test_a_rate_of_nothing_is_said_to_be() -> None:
    found = text(replace(VIEW, rates=Rates({}, 0.0, 0.0)))
    assert "rate      0/s, 0 B/s" in found
    assert "by kind   nothing" in found


@pytest.mark.parametrize(
    ("said", "size"),
    [((0, 0), (80, 24)), ((132, 50), (132, 50)), ((65535, 65535), (1000, 500))],
)
def test_a_terminal_may_say_any_size(
    monkeypatch: pytest.MonkeyPatch, said: tuple[int, int], size: tuple[int, int]
) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: said)
    assert command._size(0) == size
