"""The options of `docker volume create -o`: what there is, how it is read, written and compared."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, NamedTuple

from mdvp.core.errors import BadRequestError
from mdvp.core.volume import (
    Access,
    Fate,
    Identity,
    OnRemove,
    Volume,
    check_name,
    shown,
)

# chown(2) takes -1 for "leave as it is", so the largest 32-bit number is nobody's.
_ID_MAX = (1 << 32) - 2
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{1,4}", re.ASCII)
_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN_MAX = 10 * 365 * 86400
_TRASH_SPAN = 7 * 86400
_SIZE = re.compile(r"([0-9]{1,18})([KMGTP]?)", re.ASCII)
_SIZE_MAX = (1 << 63) - 1  # what the database takes, and btrfs
_BYTES = {unit: 1 << 10 * power for power, unit in enumerate(["", "K", "M", "G", "T", "P"])}
# The engine gives up a Mount after two minutes, of which it wants some for itself.
WAIT_MAX = 110
_WHEN = re.compile(r"[0-9TZ:+-]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Removed:
    """Which of the removed volumes is meant: the last of that name, or the last of a moment.

    `when` is how its moment begins, as it is shown: `2026-11-29`, or `2026-11-29T19:15:27Z`.
    """

    name: str
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a Create asks for; None where it does not say.

    Those that a volume has, too, are described there (`mdvp.core.volume.Volume`).

    Attributes:
        adopt: whether to take over a directory that is there already.
        restore: which removed volume to take back from the trash.

    """

    access: Access | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    on_remove: OnRemove | None = None
    protect: bool | None = None
    wait: int | None = None
    size: int | None = None
    reader_of: str | None = None
    origin: str | None = None
    live: bool | None = None
    adopt: bool | None = None
    restore: Removed | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be changed of a volume.

    Attributes:
        given: the options that get another value.
        off: the fields of those that are taken off: what they say is as usual again.

    """

    given: Options
    off: frozenset[str] = frozenset()

    def of(self, *names: str) -> bool:
        """Say whether any of these fields is to be changed."""
        return any(name in self.off or getattr(self.given, name) is not None for name in names)


class _Option(NamedTuple):
    field: str  # of Options
    takes: str  # in words for a user
    read: Callable[[str], object]  # raises ValueError
    write: Callable[[Any], str]


def _id(text: str) -> int:
    if not _ID.fullmatch(text) or int(text) > _ID_MAX:
        raise ValueError(text)
    return int(text)


def _mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise ValueError(text)
    return int(text, 8)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _in_truth(value: bool) -> str:  # as every other writer has it
    return str(value).lower()


def span(text: str) -> int:
    """Read a span of time, such as 30s, 12h or 7d, as seconds; raise ValueError for any other."""
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _SPAN_MAX:
        raise ValueError(text)
    return seconds


def in_span(seconds: int) -> str:
    """Write a span of time; `span` understands it."""
    unit = next(unit for unit in reversed(_SECONDS) if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def _wait(text: str) -> int:
    seconds = span(text)
    if seconds > WAIT_MAX:
        raise ValueError(text)
    return seconds


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _BYTES[match[2]] if match else 0
    if not 0 < size <= _SIZE_MAX:
        raise ValueError(text)
    return size


def in_size(size: int) -> str:
    """Write a size in bytes, with the largest unit that makes it a whole number."""
    unit = next(unit for unit in reversed(_BYTES) if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


def on_remove(text: str) -> OnRemove:
    """Read what a Remove is to do: delete, keep, trash or trash:SPAN; raise ValueError."""
    word, colon, rest = text.partition(":")
    fate = Fate(word)
    if fate is Fate.TRASH:
        return OnRemove(fate, span(rest) if colon else _TRASH_SPAN)
    if colon:
        raise ValueError(text)
    return OnRemove(fate)


def in_on_remove(of: OnRemove) -> str:
    """Write what a Remove does; `on_remove` understands it."""
    return f"{of.fate.value}:{in_span(of.seconds)}" if of.fate is Fate.TRASH else of.fate.value


def _name(text: str) -> str:
    try:
        return check_name(text)
    except BadRequestError:
        raise ValueError(text) from None


def _removed(text: str) -> Removed:
    name, at, when = text.partition("@")
    if at and not _WHEN.fullmatch(when):
        raise ValueError(text)
    return Removed(_name(name), when or None)


def _in_removed(of: Removed) -> str:
    return of.name if of.when is None else f"{of.name}@{of.when}"


_OPTIONS = {
    "access": _Option(
        "access",
        "exclusive (one container at a time, the default) or shared (any number)",
        Access,
        lambda access: str(access.value),
    ),
    "uid": _Option("uid", "the number of the user who owns the directory", _id, str),
    "gid": _Option("gid", "the number of its group", _id, str),
    "mode": _Option(
        "mode", "its permissions in octal, such as 0770", _mode, lambda mode: f"{mode:04o}"
    ),
    "on-remove": _Option(
        "on_remove",
        "delete, keep (leave the directory where it is) or trash (it can be restored for 7 days; "
        "trash:12h says for how long)",
        on_remove,
        in_on_remove,
    ),
    "protect": _Option("protect", "true (refuse to remove the volume)", _truth, _in_truth),
    "wait": _Option(
        "wait",
        f"how long a container waits for its turn, such as 30s; {WAIT_MAX}s at most",
        _wait,
        in_span,
    ),
    "size": _Option("size", "the most that may be in it, such as 500M or 10G", _size, in_size),
    "reader-of": _Option(
        "reader_of", "the volume whose content it is to show, read-only", _name, str
    ),
    "from": _Option("origin", "the volume whose content it is to begin with", _name, str),
    "from-live": _Option("live", "true (copy even a volume that is in use)", _truth, _in_truth),
    "adopt": _Option(
        "adopt",
        "true (take over the directory of that name that is there, with its content)",
        _truth,
        _in_truth,
    ),
    "restore": _Option(
        "restore",
        "the removed volume to take back from the trash: NAME, or NAME@WHEN as it is listed",
        _removed,
        _in_removed,
    ),
}

# What a new volume's content comes from: one of these at most.
_SOURCES = ("adopt", "restore", "from", "reader-of")
# What is a matter of the directory, which one that shows another's does not have.
_OF_DIRECTORY = ("access", "uid", "gid", "mode", "on-remove", "size", "wait")
_OF_VOLUME = {field.name for field in fields(Volume)}
_OPTION_FIELDS = [field.name for field in fields(Options) if field.name in _OF_VOLUME]
_USUAL: Mapping[str, Any] = {field.name: field.default for field in fields(Volume)}
# What can be changed of a volume that is there. What it shows, or came from, it does for ever.
_CHANGEABLE = ("access", "uid", "gid", "mode", "on-remove", "protect", "wait", "size")
# What says where a new volume's content comes from, and not how the volume is.
_OF_MAKING = ("adopt", "restore", "from-live")


def read(given: Mapping[str, object]) -> Options:
    """Read the options of a Create; raise BadRequestError, with what there is, for bad ones."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        if (option := _OPTIONS.get(name)) is None:
            raise BadRequestError(
                f"unknown volume option {shown(name)}: the options are {', '.join(_OPTIONS)}"
            )
        try:
            if not isinstance(text, str):
                raise ValueError(text)
            values[option.field] = option.read(text)
        except ValueError:
            raise BadRequestError(
                f"volume option {name} cannot be {shown(str(text))}: it takes {option.takes}"
            ) from None
    options = Options(**values)
    _check_together(options)
    return options


def changes(given: Mapping[str, object]) -> Changes:
    """Read what is to be changed of a volume; what is empty is taken off.

    Raises BadRequestError, with what can be changed.
    """
    if not given:
        raise BadRequestError(f"nothing is to be changed: give {' or '.join(_CHANGEABLE)}")
    for name in given:
        if name not in _CHANGEABLE:
            raise BadRequestError(
                f"volume option {shown(name)} cannot be changed: those that can are "
                f"{', '.join(_CHANGEABLE)}"
            )
    off = {name for name, text in given.items() if text == ""}
    values = read({name: text for name, text in given.items() if name not in off})
    return Changes(values, frozenset(_OPTIONS[name].field for name in off))


def changed(volume: Volume, changes: Changes) -> Volume:
    """Return the volume as it is after `changes`; raise BadRequestError if it cannot be so."""
    asked = {name: getattr(changes.given, name) for name in _OPTION_FIELDS}
    given = {name: value for name, value in asked.items() if value is not None}
    if volume.reader_of is not None:
        _check_together(replace(changes.given, reader_of=volume.reader_of))
    return replace(volume, **{name: _USUAL[name] for name in changes.off}, **given)


def _check_together(options: Options) -> None:
    """Raise BadRequestError when options do not go together."""
    given = written(options)
    sources = [name for name in _SOURCES if given.get(name, "false") != "false"]
    if len(sources) > 1:
        raise BadRequestError(
            f"volume options {' and '.join(sources)} do not go together: each says where the "
            "content comes from"
        )
    if options.live and options.origin is None:
        raise BadRequestError("volume option from-live says how to copy: it goes with from=VOLUME")
    if options.reader_of is not None:
        for name in _OF_DIRECTORY:
            if name in given and given[name] != Access.SHARED.value:
                raise BadRequestError(
                    f"volume option {name} does not go with reader-of: the volume has no "
                    f"directory of its own, but shows that of {options.reader_of!r} to any number "
                    "of readers"
                )


def written(of: Options | Volume) -> dict[str, str]:
    """Write those options that have a value as `-o` takes them; `read` understands it."""
    values = {name: getattr(of, option.field, None) for name, option in _OPTIONS.items()}
    return {
        name: _OPTIONS[name].write(value) for name, value in values.items() if value is not None
    }


def in_words(options: Mapping[str, str]) -> str:
    """Write options for a message: `access=shared, uid=1000`."""
    return ", ".join(f"{name}={text}" for name, text in options.items())


def volume(name: str, created_at: datetime, identity: Identity, options: Options) -> Volume:
    """Return the new volume that is as `options` ask for."""
    asked = {
        field.name: value
        for field in fields(options)
        if field.name in _OF_VOLUME and (value := getattr(options, field.name)) is not None
    }
    if options.reader_of is not None:
        asked["access"] = Access.SHARED
    return Volume(name, created_at, identity, **asked)


def differences(volume: Volume, asked: Options) -> dict[str, str]:
    """Return those of the written options `asked` that `volume` does not have.

    What is not asked for does not count, nor does what only says where a new volume's content
    comes from, but for the volume that it was copied from.
    """
    has = {"protect": "false"} | written(volume)
    return {
        name: text
        for name, text in written(asked).items()
        if name not in _OF_MAKING and has.get(name) != text
    }
