"""How whoever waits for the service asks, and is answered, by way of Redis.

That somebody waits the service hears of from the kernel, with a token. Which paths are meant is in
a key of that token, if any are; the answer is put in a list, which the one who waits reads from.

Failure model. Both expire by themselves. An answer that is lost is asked for again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import cast

from sync.core.errors import MeanwhileError, RedisRefusedError
from sync.redis.connection import refused
from sync.redis.keys import WAITS
from sync.redis.target import Target

_LIFE = 10_000  # ms that an answer is there; who waits is there already
_OF = b"/of"


def answer_key(prefix: bytes, token: bytes) -> bytes:
    """Return the key of the list in which there will be an answer."""
    return prefix + WAITS + token


def paths_key(prefix: bytes, token: bytes) -> bytes:
    """Return the key of what is asked for."""
    return answer_key(prefix, token) + _OF


def encode_paths(paths: Sequence[bytes]) -> bytes:
    """Return paths as what is asked for."""
    return json.dumps([*map(os.fsdecode, paths)]).encode()


def decode_paths(said: object) -> list[bytes]:
    """Return the paths in what is asked for; none for what is nothing of the kind."""
    try:
        return [os.fsencode(path) for path in json.loads(cast("bytes", said))]
    except (ValueError, TypeError, RecursionError):
        return []


def encode_answer(problems: Mapping[bytes, str]) -> bytes:
    """Return an answer: why something is not in Redis, by path; nothing when all is."""
    return json.dumps({os.fsdecode(path): why for path, why in problems.items()}).encode()


def decode_answer(said: object) -> dict[bytes, str]:
    """Return what an answer says."""
    try:
        found = json.loads(cast("bytes", said))
        return {os.fsencode(path): str(why) for path, why in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


class Waits:
    """Those who wait, as the service talks to them."""

    def __init__(self, target: Target) -> None:
        """Talk to them by way of `target`."""
        self._target = target

    def paths(self, token: bytes) -> list[bytes]:
        """Return the paths that one of them means; none for all.

        Raises RedisRefusedError when Redis does not say, and RedisAwayError.
        """
        (said,) = answers = self._target.converse((b"GET", paths_key(self._target.prefix, token)))
        if error := refused(answers):
            raise error
        return decode_paths(said) if said else []

    def answer(self, token: bytes, problems: Mapping[bytes, str]) -> str | None:
        """Answer one of them; return what Redis has against it, if it does. Raises RedisAwayError.

        It is void when another service has begun to mirror.
        """
        key, said = answer_key(self._target.prefix, token), encode_answer(problems)
        try:
            self._target.transact([(b"RPUSH", key, said), (b"PEXPIRE", key, _LIFE)])
        except MeanwhileError:
            return None  # it asks again
        except RedisRefusedError as error:
            return str(error)
        return None
