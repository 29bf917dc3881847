"""The picture of `mdvp-sync top`, made of what is known at one time, for a screen of any size.

Names of files, and what others say, come last in their rows: however wide a terminal draws them,
nothing is beside them that could be moved. Nothing is taken for markup.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from sync.redis.vitals import Vitals
from sync.report.figures import counted, duration, size
from sync.report.health import Health
from sync.report.pace import Rates, quantile
from sync.report.status import LIVE, NOTIFICATIONS, RECONCILING, RESCANS, STARTING, Status
from sync.report.tally import LAG_BOUNDS, WORDS, Change

_STYLES = {LIVE: "bold green", STARTING: "bold yellow", RECONCILING: "bold yellow"}
_ILL = "bold red"
_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 10  # characters of what a figure is called, with the space behind it
_WIDE = 76  # characters: from there on there are two columns of figures
_LEFT = 56  # characters of the left one, at most
_RIGHT = 36  # characters of the right one, at least
_HIGH = 20  # rows: from there on there are all figures
_BESIDE = 16  # characters that are left beside the course of the rate
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one time.

    health  what the service said last, and whether it is well
    rates   how fast it goes, None if that is not known
    course  operations in a second, as they were until now
    lags    how many there were in each class of `tally.LAG_BOUNDS`, since somebody looks
    redis   how the server is; words if it does not say so, None if it was not asked yet
    root    the directory, and
    server  where the server is, both as the settings have it
    now     in seconds since the epoch
    """

    health: Health
    rates: Rates | None
    course: Sequence[float]
    lags: Sequence[int]
    redis: Vitals | str | None
    root: str
    server: str
    now: float


def picture(view: View, width: int, height: int | None = None, *, draws: bool = True) -> Group:
    """Return the picture, in at most `height` rows of `width` characters; None for all there is.

    `draws` says whether the terminal has the characters that lines are drawn with.
    """
    room = 1000 if height is None else height
    is_high = room >= _HIGH
    rows: list[RenderableType] = [*_head(view, width, max(1, room // 4))]
    is_wide = width >= _WIDE and is_high
    left = min(width - _RIGHT, _LEFT) if is_wide else width
    steps = left - _LABEL - _BESIDE if draws else 0
    figures = [*_figures(view, is_high=is_high, steps=steps)]
    redis = [*_redis(view.redis, is_high=is_high)]
    if is_high:
        rows.append(Rule(style="dim"))
    if is_wide:
        rows += _side_by_side(figures, redis, left)
    else:
        rows += [_figure(*each) for each in [*figures, *redis]]
    status = view.health.status or Status()
    rows += _lists(status, width, room - len(rows), is_high=is_high)
    return Group(*rows[:room])


def plain(text: str) -> str:
    """Return a text as one line without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line(*parts: str | tuple[str, str]) -> Text:
    """Return one row, of texts, each with a style or without."""
    row = Text(no_wrap=True, overflow="ellipsis", end="\n")
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        row.append(plain(text), style)
    return row


def _head(view: View, width: int, rows_max: int) -> Iterator[RenderableType]:
    """Yield whether the service is well, of what, and since when."""
    health, status = view.health, view.health.status or Status()
    style = _ILL if health.problem else _STYLES[LIVE]
    if health.problem and status.state in _STYLES and "not in step" in health.problem:
        style = _STYLES[status.state]
    yield from _wrapped(health.headline, style, width, rows_max)
    if isinstance(view.redis, str):
        yield from _wrapped(f"Redis: {view.redis}", _ILL, width, rows_max)
    pair = f"{status.root or view.root} -> {status.server or view.server}"
    yield _line((f"{status.mode}  ", "cyan"), pair)
    if status.started:
        since = f"{status.state} since {_moment(status.since, view.now)}"
        yield _line((f"{since}, up {_span(view.now - status.started)}", "dim"))


def _wrapped(text: str, style: str, width: int, rows_max: int) -> Iterator[Text]:
    """Yield a text in rows; the last one of `rows_max` has what fits of the rest."""
    words = plain(text).split(" ")
    for number in range(1, rows_max + 1):
        row = [words.pop(0)]
        while words and (number == rows_max or Text(" ".join([*row, words[0]])).cell_len <= width):
            row.append(words.pop(0))
        yield _line((" ".join(row), style))
        if not words:
            return


def _figures(view: View, *, is_high: bool, steps: int) -> Iterator[tuple[str, Text]]:
    """Yield what the service does in figures, each with what it is called."""
    status = view.health.status or Status()
    yield "rate", _rate(view.rates)
    if is_high and (course := _course(view.course, steps)):
        yield "", course
    yield "by kind", _by_kind(view.rates)
    if not is_high:
        yield "lag", _lag(status).append(" ").append(_quantiles(view.lags, 99))
        yield "pending", _pending(status)
        return
    yield "lag", _lag(status).append(" (the last)" if status.lag else "")
    if any(view.lags):
        yield "", _quantiles(view.lags, 50, 99)
    yield "pending", _pending(status)
    yield "files", _files(status)
    if status.undone:
        yield "undone", _line(f"{counted(status.undone, 'change', 'changes')} by others")


def _rate(rates: Rates | None) -> Text:
    if rates is None:
        return _line(("not known", "dim"))
    return _line((_per_second(rates.total), "bold"), f", {size(round(rates.moved))}/s")


def _by_kind(rates: Rates | None) -> Text:
    kinds = rates.operations.items() if rates else ()
    said = ", ".join(f"{_word(kind)} {_per_second(rate)}" for kind, rate in kinds)
    return _line(said or ("nothing", "dim"))


def _lag(status: Status) -> Text:
    known = status.lag is not None
    return _line((duration(status.lag or 0), "bold") if known else ("none yet", "dim"))


def _quantiles(lags: Sequence[int], *percents: int) -> Text:
    """Say what so many percent of the lags do not exceed."""
    bounds = {percent: quantile(lags, percent / 100) for percent in percents}
    said = ", ".join(f"p{percent} {_bound(bound)}" for percent, bound in bounds.items() if bound)
    return _line((said, "dim"))


def _bound(seconds: float) -> str:
    last = LAG_BOUNDS[-1]
    return f"<= {duration(seconds)}" if seconds <= last else f"> {duration(last)}"


def _pending(status: Status) -> Text:
    row = _line(counted(status.pending, "name", "names"))
    if status.arriving:
        row.append(
            f", {counted(status.arriving, 'large file', 'large files')} on the way", "yellow"
        )
    return row


def _files(status: Status) -> Text:
    row = _line(f"{status.files:,} ({size(status.bytes)})")
    if status.directories > 1:
        row.append(f" in {status.directories:,} directories")
    if status.unwatched:
        row.append(f", {status.unwatched:,} unwatched", "yellow")
    if status.heard_by in {NOTIFICATIONS, RESCANS}:
        row.append(f", Redis heard by {status.heard_by}", "dim")
    return row


def _redis(redis: Vitals | str | None, *, is_high: bool) -> Iterator[tuple[str, Text]]:
    """Yield how the server is in figures, each with what it is called."""
    if not isinstance(redis, Vitals):
        yield "Redis", _line(("no answer", _ILL) if redis else ("not asked yet", "dim"))
        return
    commands, evicted = f"{redis.operations:,}/s", counted(redis.evicted, "key", "keys")
    if not is_high:
        row = _memory(redis).append(f", {evicted} evicted" if redis.evicted else "", _ILL)
        yield redis.name, row.append(f", {commands}, ").append(_program(redis))
        return
    yield redis.name, _program(redis)
    yield "memory", _memory(redis)
    yield "policy", _line(redis.policy)
    yield "evicted", _line((evicted, _ILL if redis.evicted else ""))
    yield "clients", _line(f"{redis.clients:,}")
    yield "commands", _line(commands)


def _program(redis: Vitals) -> Text:
    return _line((redis.version, "bold"), f", {redis.role}")


def _memory(redis: Vitals) -> Text:
    if not redis.limit:
        return _line(size(redis.used), " of no limit")
    share = redis.used / redis.limit
    style = _ILL if share >= 0.95 else "yellow" if share >= 0.8 else ""  # noqa: PLR2004
    return _line((f"{size(redis.used)} of {size(redis.limit)} ({share:.0%})", style))


def _side_by_side(
    left: Sequence[tuple[str, Text]], right: Sequence[tuple[str, Text]], width: int
) -> Iterator[Text]:
    """Yield rows with two figures each, as long as there are two; the left one of this width."""
    blank = ("", Text())
    for one, other in zip_longest(left, right, fillvalue=blank):
        row = _figure(*one)
        row.truncate(width - 1, overflow="ellipsis", pad=other is not blank)
        yield row if other is blank else row.append(" ").append_text(_figure(*other))


def _figure(name: str, value: Text) -> Text:
    row = _line((plain(name).ljust(_LABEL), "cyan"))
    return row.append_text(value)


def _course(course: Sequence[float], steps: int) -> Text | None:
    """Draw the last rates, so many of them at most; None if there was nothing."""
    last = [*course][-steps:] if steps > 0 else []
    most = max(last, default=0.0)
    if most <= 0:
        return None
    highest = len(_BARS) - 1
    drawn = "".join(_BARS[round(max(rate, 0.0) / most * highest)] for rate in last)
    return _line((drawn, "green"), (f" up to {_per_second(most)}", "dim"))


def _lists(status: Status, width: int, room: int, *, is_high: bool) -> Iterator[Text]:
    """Yield what is listed, for `room` rows: names in trouble, at first, and the last changes."""
    troubles = [
        each
        for each in (
            ("in conflict", status.conflicts, status.conflicts_count),
            ("skipped", status.skipped, status.skipped_count),
        )
        if each[2]
    ]
    # Half of the room is for the last changes; each of the others has the same share of the rest.
    share = room // (2 * len(troubles)) if troubles else 0
    for title, names, count in troubles:
        yield from islice(_troubles(title, names, count, width), max(share, 0))
    yield from _changes(status.recent, width, is_high=is_high)


def _troubles(title: str, names: Mapping[str, str], count: int, width: int) -> Iterator[Text]:
    yield _line((f"{counted(count, 'name', 'names')} {title}", "bold yellow"))
    for name, words in names.items():
        yield _line("  ").append(_cut(name, words, width - 3)).append(f" {plain(words)}")


def _changes(recent: Sequence[Change], width: int, *, is_high: bool) -> Iterator[Text]:
    if is_high:
        yield _line(("last changes" if recent else "no changes yet", "bold"))
    sizes = ["" if each.size is None else size(each.size) for each in recent]
    word = max((len(_word(each.operation)) for each in recent), default=0)
    longest = max(map(len, sizes), default=0)
    for each, bytes_ in zip(reversed(recent), reversed(sizes), strict=True):
        row = _line(
            (time.strftime("  %H:%M:%S  ", time.localtime(each.at)), "dim"),
            (_word(each.operation).ljust(word), "green"),
            f"  {bytes_.rjust(longest)}  " if longest else "  ",
        )
        row.append(_cut(each.name, each.new, width - row.cell_len - 4))
        yield row.append(" -> ").append(plain(each.new), "bold") if each.new else row


def _cut(name: str, words: str, width: int) -> Text:
    """Return a name that leaves room for the words behind it; it has half of the width anyway."""
    found = Text(plain(name), "bold")
    if words:
        found.truncate(max(width // 2, width - cell_len(plain(words)), 1), overflow="ellipsis")
    return found


def _word(operation: str) -> str:
    return WORDS.get(operation, operation)


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s"  # noqa: PLR2004


def _moment(at: float, now: float) -> str:
    """Write a time; with its day, if that is not today."""
    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


def _span(seconds: float) -> str:
    """Write how long it is: `12 s`, `3 min`, `5 h`, `8 d`, always rounded down."""
    whole = max(0, int(seconds))
    for unit, words in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {words}"
    return f"{whole} s"
