"""The command `mdvp-sync wait`: returns when all that was finished before it is in Redis.

Failure model. The service is told by a file that comes and goes in the root, a cookie, and answers
by way of Redis. Either can be lost, so the cookie is made again and again. A service that does not
run, or follows another directory or another prefix, cannot be told from one that is busy: then the
time is over in the end. So it is when Redis is away for a while.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sync.core.changes import shown
from sync.core.errors import RedisAwayError, RedisForbidsError, SyncError
from sync.core.exclude import COOKIE
from sync.reach import reached
from sync.redis.target import Target
from sync.redis.waits import answer_key, decode_answer, encode_paths, paths_key
from sync.report.screen import cannot, write_any_name
from sync.settings import Settings

_AGAIN = 0.5  # seconds without an answer, before the service is told once more
_LEAST = 0.01  # seconds; 0 would be for ever
_LIFE = 60_000  # ms for which the paths are there after the time is over
_PAUSE = 0.1  # seconds between two tries to connect


class _CannotTellError(SyncError):
    """The service cannot be told that somebody waits."""


def wait(settings: Settings, paths: Sequence[str], timeout: float) -> int:
    """Wait until all that was finished before is in Redis, for at most `timeout` seconds.

    Return 0 when it is, and nothing at any of the `paths` is left out; 1 when not; 2 when that
    cannot be known.
    """
    write_any_name()
    deadline = time.monotonic() + timeout
    try:
        asked = {settings.below(path): path for path in paths}
        # All of it is asked for without any.
        names = [] if b"" in asked else list(asked)
        address, target = reached(settings)
        with closing(target), _opened(settings.root) as root:
            problems = _answer(target, root, settings.root, names, deadline)
    except RedisAwayError as error:
        return cannot(f"Redis at {address}: {error}; see REDIS_URL and REDIS_PASSWORD")
    except SyncError as error:
        return cannot(str(error))
    except KeyboardInterrupt:
        return cannot("stopped before all was in Redis")
    if problems is None:
        return _failed(
            f"not all is in Redis at {address} after {timeout:g} s, or no service says so: "
            f"`mdvp-sync status` beside the one that mirrors {settings.root} with this SYNC_PREFIX "
            "says what it does"
        )
    return _failed(*_said(problems, asked)) if problems else 0


def _answer(
    target: Target, root: int, shown_root: Path, names: Sequence[bytes], deadline: float
) -> Mapping[bytes, str] | None:
    """Return why something is not in Redis, by path; None when the time is over.

    Raises RedisAwayError when there was no Redis at first, or is none in the end.
    """
    token = secrets.token_hex(8).encode()
    key = answer_key(target.prefix, token)
    _ask(target, token, names, deadline)
    while True:
        _tell(root, shown_root, token)  # whoever hears of it can find what is asked for by now
        left = max(min(_AGAIN, deadline - time.monotonic()), _LEAST)
        try:
            (answer,) = target.ask((b"BLPOP", key, f"{left:.3f}".encode()))
        except RedisForbidsError:
            raise  # to come back would be of no use
        except RedisAwayError:
            _come_back(target, token, names, deadline)
            answer = None
        if answer:
            with suppress(RedisAwayError):  # they expire, too
                target.ask((b"DEL", key, paths_key(target.prefix, token)))
            return decode_answer(answer[1])
        if time.monotonic() >= deadline:
            return None


def _ask(target: Target, token: bytes, names: Sequence[bytes], deadline: float) -> None:
    """Connect, and have there what is asked for."""
    target.join()
    if names:
        life = _LIFE + int(1000 * max(0.0, deadline - time.monotonic()))
        key = paths_key(target.prefix, token)
        target.ask((b"SET", key, encode_paths(names), b"PX", life))


def _come_back(target: Target, token: bytes, names: Sequence[bytes], deadline: float) -> None:
    """Connect again after the connection was lost, and ask again."""
    while True:
        try:
            _ask(target, token, names, deadline)
        except RedisAwayError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    """Open the directory that is mirrored."""
    try:
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _CannotTellError(
            f"{root} cannot be opened ({error.strerror}): set SYNC_ROOT to where the directory is "
            "that the service mirrors"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _tell(root: int, shown_root: Path, token: bytes) -> None:
    """Have the service hear that somebody waits, after all that was done before."""
    name = COOKIE % token
    try:
        os.close(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
        )
        os.unlink(name, dir_fd=root)
    except OSError as error:
        with suppress(OSError):
            os.unlink(name, dir_fd=root)
        raise _CannotTellError(
            f"no file can be made in {shown_root} ({error.strerror}), which tells the service that "
            "somebody waits: wait where it can be written to, as a user who may"
        ) from error


def _said(problems: Mapping[bytes, str], asked: Mapping[bytes, str]) -> Iterator[str]:
    for path, why in problems.items():
        yield f"{asked.get(path, shown(path))} {why}" if path else why


def _failed(*words: str) -> int:
    for each in words:
        print(f"mdvp-sync: {each}", file=sys.stderr)
    return 1
