"""What a volume's directory says of itself, in an extended attribute, should the database be lost.

The attribute is JSON and a signature. It is input like any other: whoever owns the directory can
write it. So it is believed when it is of the directory that carries it, and if besides the
signature is ours or the directory belongs to us, as then nobody else could write it.
"""

import hmac
import json
from datetime import datetime

from mdvp import options
from mdvp.errors import BadRequestError
from mdvp.options import Options
from mdvp.volume import Access, Identity, Volume, check_name

ATTRIBUTE = "user.mdvp"
_VERSION = 1


class BadRecordError(Exception):
    """A directory's record is not to be believed; the text says why."""


def encode(volume: Volume, key: bytes) -> bytes:
    """Return the record of `volume`, signed with `key`."""
    text = json.dumps(
        {
            "version": _VERSION,
            "name": volume.name,
            "created_at": volume.created_at.isoformat(),
            "inode": volume.identity.inode,
            "born": volume.identity.born,
            "options": options.written(volume),
        }
    ).encode()
    return _signature(text, key) + b" " + text


def decode(
    record: bytes, key: bytes, name: str, identity: Identity, *, trusted: bool = False
) -> Volume:
    """Return the volume that a record found on the directory `name` with `identity` is about.

    `trusted` spares it the signature. Raises BadRecordError.
    """
    signature, _, text = record.partition(b" ")
    if not trusted and not hmac.compare_digest(signature, _signature(text, key)):
        raise BadRecordError("it is not signed by this mdvp, and the directory is not root's")
    try:
        fields = json.loads(text)
        if fields["version"] != _VERSION:
            raise ValueError(f"version {fields['version']}")
        asked: Options = options.read(fields["options"])
        volume = Volume(
            check_name(fields["name"]),
            datetime.fromisoformat(fields["created_at"]),
            Identity(fields["inode"], fields["born"]),
            asked.access or Access.EXCLUSIVE,
            asked.uid,
            asked.gid,
            asked.mode,
        )
        zone = volume.created_at.utcoffset()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadRecordError(f"it cannot be read: {error!r}") from error
    except BadRequestError as error:
        raise BadRecordError(str(error)) from error
    if volume.name != name or volume.identity != identity or zone is None:
        raise BadRecordError(f"it is that of another directory, {volume.name}")
    return volume


def _signature(text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, text, "sha256").hex().encode()
