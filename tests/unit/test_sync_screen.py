from io import StringIO

import pytest

from sync.report.screen import Screen

CLEAR = "\r\x1b[K"


class Terminal(StringIO):
    """What is written to it; a terminal, as it says."""

    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def screen(terminal: Terminal, clock: Clock) -> Screen:
    return Screen(terminal, terminal, clock)


@pytest.mark.parametrize(
    ("share", "bar"),
    [
        (0.0, f"[{' ' * 30}]   0%"),
        (0.5, f"[{'#' * 15}{' ' * 15}]  50%"),
        (1.0, f"[{'#' * 30}] 100%"),
        (1.1, f"[{'#' * 30}] 100%"),  # there was more to do than there seemed to be
    ],
)
def test_the_bar_shows_how_much_is_done(
    screen: Screen, terminal: Terminal, share: float, bar: str
) -> None:
    screen.show(share, "3 files")
    assert terminal.getvalue() == f"{CLEAR}{bar} 3 files"


def test_a_line_takes_the_place_of_the_bar(screen: Screen, terminal: Terminal) -> None:
    screen.show(0.0, "so far")
    before = terminal.getvalue()
    screen.tell("a line")
    screen.tell("another")
    assert terminal.getvalue() == f"{before}{CLEAR}a line\nanother\n"


def test_the_bar_is_written_ten_times_a_second_at_most(
    screen: Screen, terminal: Terminal, clock: Clock
) -> None:
    for _ in range(16):
        screen.show(0.0, "once")
        clock.now += 0.025
    assert terminal.getvalue().count("once") == 4


def test_in_the_end_nothing_is_left_of_the_bar(screen: Screen, terminal: Terminal) -> None:
    screen.show(0.0, "so far")
    screen.close()
    screen.close()
    assert terminal.getvalue().endswith(f"so far{CLEAR}")


def test_what_is_no_terminal_gets_the_lines_alone(clock: Clock) -> None:
    lines, bar = StringIO(), StringIO()
    screen = Screen(lines, bar, clock)
    screen.show(0.0, "so far")
    screen.tell("a line")
    screen.close()
    assert (lines.getvalue(), bar.getvalue(), screen.has_bar) == ("a line\n", "", False)
