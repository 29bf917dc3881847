"""The command `mdvp-sync top`: a live view of the service, for a terminal.

Failure model. The picture is made of the file of the status, as `mdvp-sync status` reads it, and of
what Redis says of itself, for which nobody waits: so it is there whatever hangs. Signals only
interrupt the wait between two pictures. So the terminal is left as it was by whatever ends this,
but for SIGKILL.
"""

import io
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from sync.core.errors import SettingsError
from sync.redis.address import Address
from sync.redis.vitals import Pulse, Server, Vitals
from sync.report.health import health
from sync.report.pace import Pace
from sync.report.screen import cannot
from sync.report.top import View, picture
from sync.settings import Settings

_ASKED = 1.0  # seconds between two questions to Redis, at least
_LOOK = 0.05  # seconds between two looks for another status, where one picture takes two
_NEXT = 2.0  # seconds within which there is another one, if all is well
_DEFAULT_SIZE = (80, 24)  # of a terminal that does not know it
_SIZE_MAX = (1000, 500)  # all of a picture is written, and one could say that it is 65535 x 65535
# What ends others with the terminal as they had it.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# A row that is wider than it seemed is cut, and not continued in the next: DECAWM.
_WRAPS_NOT, _WRAPS = "\x1b[?7l", "\x1b[?7h"
_SUSPEND = b"\x1a"  # Ctrl-Z


def top(settings: Settings, status: Path, interval: float, *, once: bool) -> int:
    """Show what the service does until somebody presses q; `once`, write one picture.

    Return 0; `once`, 1 when the service is not well; 2 when it cannot be shown.
    """
    console = Console(highlight=False)
    # Python has none where it is closed.
    has_keys = all(each is not None and each.isatty() for each in (sys.stdin, sys.stdout))
    if not once and (not has_keys or console.is_dumb_terminal):
        return cannot(
            "top needs a terminal (`docker exec -it`, say); `mdvp-sync top --once` writes one "
            "picture to whatever there is"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character for a character: columns stay
    with closing(_Watcher(settings, status, max(interval, _ASKED))) as watcher:
        try:
            if once:
                return _show_once(watcher, console)
            return _show(watcher, console, interval)
        except OSError as error:  # the terminal is gone, say
            return cannot(f"nothing can be shown any more: {error}")


class _Watcher:
    """Looks at the service, and at Redis."""

    def __init__(self, settings: Settings, status: Path, period: float) -> None:
        """Look at a status; ask Redis every `period` seconds, from now on."""
        self._status = status
        self._root = str(settings.root)
        self._pace = Pace()
        self._server, ask = _server(settings)
        self._pulse = Pulse(ask, period)

    def view(self) -> View:
        """Look, and return all that is known by now."""
        now = time.monotonic()
        found = health(self._status, now)
        self._pace.take(found)
        return View(
            health=found,
            rates=self._pace.rates(now),
            course=self._pace.course,
            lags=self._pace.lags,
            redis=self._pulse.last,
            root=self._root,
            server=str(self._server),
            now=time.time(),
        )

    def close(self) -> None:
        """Look no more."""
        self._pulse.close()


def _server(settings: Settings) -> tuple[object, Callable[[], Vitals]]:
    """Return where Redis is, and what asks it."""
    try:
        address = Address(settings.access, settings.prefix)
    except SettingsError as error:
        unusable = error

        def refuse() -> Vitals:
            raise unusable

        return "Redis", refuse
    return address, Server(address).ask


def _show_once(watcher: _Watcher, console: Console) -> int:
    view, end = watcher.view(), time.monotonic() + _NEXT
    # How fast it goes takes two statuses.
    while (view.rates is None or view.redis is None) and time.monotonic() < end:
        time.sleep(_LOOK)
        view = watcher.view()
    console.print(picture(view, console.width, draws=_draws(console)))
    return 1 if view.health.problem else 0


def _show(watcher: _Watcher, console: Console, interval: float) -> int:
    with _Hands() as hands:
        while True:
            with _screen(console, hands.fd) as live:
                while not hands.has_ended and not hands.is_suspended:
                    console.size = _size(hands.fd)
                    live.update(
                        picture(watcher.view(), *console.size, draws=_draws(console)), refresh=True
                    )
                    hands.wait(interval)
            if hands.has_ended:
                return hands.status
            hands.suspend()


@contextmanager
def _screen(console: Console, fd: int) -> Iterator[Live]:
    """Have the terminal to oneself, and leave it as it was."""
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with ExitStack() as stack:
        stack.callback(termios.tcsetattr, fd, termios.TCSADRAIN, termios.tcgetattr(fd))
        stack.callback(_write, _WRAPS)
        stack.callback(live.stop)
        tty.setcbreak(fd)
        _unset(fd, termios.VSUSP, termios.VQUIT)
        _write(_WRAPS_NOT)
        live.start()
        yield live


def _write(sequence: str) -> None:
    sys.stdout.write(sequence)
    sys.stdout.flush()


def _unset(fd: int, *keys: int) -> None:
    """Have keys be keys like others, which stop or end nothing by themselves."""
    mode = termios.tcgetattr(fd)
    for key in keys:
        mode[6][key] = b"\0"  # _POSIX_VDISABLE
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)


def _size(fd: int) -> tuple[int, int]:
    """Return columns and rows; not as rich does, for which the environment comes first."""
    columns, rows = os.get_terminal_size(fd)
    width, height = _DEFAULT_SIZE
    return min(columns or width, _SIZE_MAX[0]), min(rows or height, _SIZE_MAX[1])


def _draws(console: Console) -> bool:
    return not console.options.ascii_only


class _Hands:
    """What somebody does: presses keys, sends signals, resizes the terminal.

    Attributes:
        fd: the terminal.
        has_ended: whether that is to end, and
        status: with which exit status.
        is_suspended: whether that is to stop for now.

    """

    def __init__(self) -> None:
        self.fd = sys.stdin.fileno()
        self.has_ended = self.is_suspended = False
        self.status = 0

    def __enter__(self) -> "_Hands":
        self._wakes, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)  # that it wakes is all
        for number in _ENDS:
            signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.has_ended = True
        self.status = 0 if number == signal.SIGINT else 128 + number

    def wait(self, seconds: float) -> None:
        """Wait until somebody does something, at most so many seconds."""
        ready, _, _ = select.select([self.fd, self._wakes], [], [], seconds)
        if self._wakes in ready:
            os.read(self._wakes, 4096)
        if self.fd in ready:
            self._press(os.read(self.fd, 4096))

    def _press(self, keys: bytes) -> None:
        # When there is nothing to read there is no terminal any more.
        self.has_ended |= not keys or b"q" in keys.lower()
        self.is_suspended |= _SUSPEND in keys

    def suspend(self) -> None:
        """Stop as the shell wants it, until it lets this go on."""
        self.is_suspended = False
        os.kill(0, signal.SIGTSTP)  # which has no effect where there is no shell to go on by
