"""What Redis remembers of each mirrored name, as bytes: an entry of the manifest.

An entry is the signature of the file whose content the key holds, and a mark when the content went
through `SYNC_TRIM_NEWLINE`. What has the other mark, or is of another version's format, is held but
equals no file's: it is transferred again.
"""

import struct
from collections.abc import Sequence

from sync.core.changes import NONE, Signature

_ENTRY = struct.Struct("<QQqq")
_TRIMMED = b"\n"


class Entries:
    """The entries of one setting of SYNC_TRIM_NEWLINE."""

    def __init__(self, *, trimmed: bool) -> None:
        """Mark entries as of `trimmed` contents or of whole ones."""
        self._mark = _TRIMMED if trimmed else b""

    def encode(self, signature: Signature) -> bytes:
        """Return the entry for content with this signature; equal entries are of equal content."""
        try:
            return _ENTRY.pack(*signature) + self._mark
        except struct.error:
            return _ENTRY.pack(*signature[:2], *map(_wrapped, signature[2:])) + self._mark

    def encode_all(self, signatures: Sequence[Signature]) -> list[bytes]:
        """Return the entries for contents with these signatures."""
        pack, mark = _ENTRY.pack, self._mark
        try:
            return [pack(*signature) + mark for signature in signatures]
        except struct.error:
            return [self.encode(signature) for signature in signatures]

    def decode(self, entry: bytes | None) -> Signature | None:
        """Return the signature in an entry, None when there is no entry."""
        if entry is None:
            return None
        if len(entry) != _ENTRY.size + len(self._mark):
            return NONE
        return Signature(*_ENTRY.unpack_from(entry))

    def could_be(self, length: int, signature: Signature) -> bool:
        """Say whether a value of so many bytes can be the content of the file of a signature."""
        return length == signature.size or (bool(self._mark) and length == signature.size - 1)


def _wrapped(time: int) -> int:
    """Return a time that has room: a file's owner may set one that is later than 2262."""
    return (time + (1 << 63)) % (1 << 64) - (1 << 63)
