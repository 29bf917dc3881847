"""What a volume's directory says of itself, in an extended attribute, should the database be lost.

The attribute is JSON and a signature. It is input like any other: the directory's owner can write
it, and so can root in a container that has the volume. So it is believed when it is of the
directory that carries it and the signature is ours. When our key is lost, too, a directory of
root's is taken for what it says, but for the access: exclusive is the safe one.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mdvp.core import options
from mdvp.core.errors import BadRequestError
from mdvp.core.volume import Access, Identity, Means, Volume, check_name

ATTRIBUTE = "user.mdvp"
_VERSION = 1


class BadRecordError(Exception):
    """A directory's record is not to be believed; the text says why."""


def encode(volume: Volume, key: bytes) -> bytes:
    """Return the record of `volume`, signed with `key`."""
    text = json.dumps({"version": _VERSION, **in_fields(volume)}).encode()
    return _signature(text, key) + b" " + text


def decode(
    record: bytes, key: bytes, name: str | None, identity: Identity, *, trusted: bool = False
) -> Volume:
    """Return the volume that a record found on the directory `name` with `identity` is about.

    Without a name, it can be that of any. `trusted` spares it the signature; its access is then
    exclusive. Raises BadRecordError.
    """
    signature, _, text = record.partition(b" ")
    signed = hmac.compare_digest(signature, _signature(text, key))
    if not signed and not trusted:
        raise BadRecordError("it is not signed by this mdvp")
    try:
        fields = json.loads(text)
        if fields["version"] != _VERSION:
            raise ValueError(f"version {fields['version']}")
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadRecordError(f"it cannot be read: {error!r}") from error
    volume = of_fields(fields)
    if not signed:
        volume = replace(volume, access=Access.EXCLUSIVE)
    if volume.name != (name or volume.name) or volume.identity != identity:
        raise BadRecordError(f"it is that of another directory, {volume.name}")
    return volume


def in_fields(volume: Volume) -> dict[str, Any]:
    """Write a volume for JSON; `of_fields` understands it."""
    return {
        "name": volume.name,
        "created_at": volume.created_at.isoformat(),
        "inode": volume.identity.inode,
        "born": volume.identity.born,
        "options": options.written(volume),
        "means": volume.means and volume.means.value,
    }


def of_fields(fields: Mapping[str, Any]) -> Volume:
    """Read a volume as `in_fields` has written it; raise BadRecordError when it is not so."""
    try:
        volume = options.volume(
            check_name(fields["name"]),
            datetime.fromisoformat(fields["created_at"]).astimezone(UTC),
            Identity(fields["inode"], fields["born"]),
            options.read(fields["options"]),
        )
        means = fields.get("means")
        return replace(volume, means=None if means is None else Means(means))
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise BadRecordError(f"it cannot be read: {error!r}") from error
    except BadRequestError as error:
        raise BadRecordError(str(error)) from error


def _signature(text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, text, "sha256").hex().encode()
