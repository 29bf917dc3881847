"""The options of `docker volume create -o`: what there is, how it is read, written and compared."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mdvp.core.errors import BadRequestError
from mdvp.core.volume import Access, Volume, shown

# chown(2) takes -1 for "leave as it is", so the largest 32-bit number is nobody's.
_ID_MAX = (1 << 32) - 2
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Options:
    """What a Create asks for; None where it does not say.

    `uid` and `gid` are the numeric owner of the directory, `mode` its permissions; `adopt` takes
    over a directory that is there already.
    """

    access: Access | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    adopt: bool | None = None


class _Option(NamedTuple):
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


_OPTIONS = {
    "access": _Option(
        "exclusive (one container at a time, the default) or shared (any number)",
        Access,
        lambda access: str(access.value),
    ),
    "uid": _Option("the number of the user who owns the directory", _id, str),
    "gid": _Option("the number of its group", _id, str),
    "mode": _Option("its permissions in octal, such as 0770", _mode, lambda mode: f"{mode:04o}"),
    "adopt": _Option(
        "true (take over the directory of that name that is there, with its content)",
        _truth,
        lambda adopt: str(adopt).lower(),
    ),
}


def read(given: Mapping[str, object]) -> Options:
    """Read the options of a Create; raise BadRequestError, with what there is, for a bad one."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        if (option := _OPTIONS.get(name)) is None:
            raise BadRequestError(f"unknown volume option {shown(name)}: {_all()}")
        try:
            if not isinstance(text, str):
                raise ValueError(text)
            values[name] = option.read(text)
        except ValueError:
            raise BadRequestError(
                f"volume option {name} cannot be {shown(str(text))}: it takes {option.takes}; "
                f"{_all()}"
            ) from None
    return Options(**values)


def _all() -> str:
    return "the options are " + ", ".join(
        f"{name}={option.takes}" for name, option in _OPTIONS.items()
    )


def written(of: Options | Volume) -> dict[str, str]:
    """Write those options that have a value as `-o` takes them; `read` understands it."""
    values = {name: getattr(of, name, None) for name in _OPTIONS}
    return {
        name: _OPTIONS[name].write(value) for name, value in values.items() if value is not None
    }


def in_words(options: Mapping[str, str]) -> str:
    """Write options for a message: `access=shared, uid=1000`."""
    return ", ".join(f"{name}={text}" for name, text in options.items())


def differences(volume: Volume, asked: Options) -> dict[str, str]:
    """Return those of the written options `asked` that `volume` does not have.

    What is not asked for does not count, nor does `adopt`, which only says where a new volume's
    directory comes from.
    """
    has = written(volume)
    return {
        name: text
        for name, text in written(asked).items()
        if name != "adopt" and has.get(name) != text
    }
