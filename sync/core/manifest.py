"""What Redis remembers of each mirrored name, as bytes: an entry of the manifest.

An entry is the signature of the file whose content the key holds, and a mark when the content went
through `SYNC_TRIM_NEWLINE`. What has the other mark, or is of another version's format, is held but
equals no file's: it is transferred again.

Where both sides may change, the signature does not do: whether Redis has changed must be known too.
There an entry has two parts more, and all lengths differ, by which they are told apart:

    signature (32), mark (0 or 1), digest (16), pending (16)

The digest is of the value that both sides had when they were last equal: the ancestor. What is
pending is the digest of a value that the service is about to write to the file, noted before it
does. So after a crash it is known that the disk may have either, and that nobody else wrote it.
"""

import hashlib
import struct
from collections.abc import Sequence

from sync.core.changes import NONE, Signature

_ENTRY = struct.Struct("<QQqq")
_TRIMMED = b"\n"
DIGEST_SIZE = _DIGEST = 16  # bytes

NOTHING = bytes(_DIGEST)  # in the place of a digest: there was no value
PENDING_GONE = NOTHING  # what is pending when the service is about to remove the file


def digest_of(value: bytes) -> bytes:
    """Return what a value is known by: no two values that anybody can find have the same."""
    return hashlib.blake2b(value, digest_size=_DIGEST).digest()


class Entries:
    """The entries of one setting of SYNC_TRIM_NEWLINE.

    Attributes:
        digests: whether they have digests.

    """

    def __init__(self, *, trimmed: bool, digests: bool = False) -> None:
        """Mark entries as of `trimmed` contents or of whole ones.

        Without `digests` an entry that has one is of another form, and is no file's.
        """
        self.digests = digests
        self._mark = _TRIMMED if trimmed else b""
        self._size = _ENTRY.size + len(self._mark)
        self._lengths = {self._size}
        if digests:
            self._lengths |= {self._size + _DIGEST, self._size + 2 * _DIGEST}

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
        if len(entry) not in self._lengths:
            return NONE
        return Signature(*_ENTRY.unpack_from(entry))

    def encode_with(self, signature: Signature, digest: bytes, pending: bytes = b"") -> bytes:
        """Return the entry for content with this signature, whose value has this digest.

        If something is `pending`, the file may have that value, too.
        """
        return self.encode(signature) + digest + pending

    def digest(self, entry: bytes | None) -> bytes | None:
        """Return the digest of the value that both sides had last; None if that is not known."""
        return self._part(entry, 0)

    def pending(self, entry: bytes | None) -> bytes | None:
        """Return the digest of what the service was about to write; None if it was not.

        It is PENDING_GONE when the service was about to remove the file.
        """
        return self._part(entry, 1)

    def other(self, entry: bytes | None) -> tuple[Signature, bytes] | None:
        """Return signature and digest in an entry of the other setting; None if it is none."""
        size = _ENTRY.size + (1 - len(self._mark)) * len(_TRIMMED)
        if entry is None or len(entry) != size + _DIGEST:
            return None
        return Signature(*_ENTRY.unpack_from(entry)), entry[size:]

    def _part(self, entry: bytes | None, number: int) -> bytes | None:
        if entry is None or len(entry) not in self._lengths:
            return None
        begins = self._size + number * _DIGEST
        return entry[begins : begins + _DIGEST] or None

    def without_digest(self, entry: bytes | None) -> bytes | None:
        """Return what `encode` returns for the file of an entry, if that tells all of it."""
        if entry is None or len(entry) == self._size + _DIGEST:
            return entry and entry[: self._size]
        return b""

    def is_same(self, entry: bytes | None, signature: Signature) -> bool:
        """Say whether an entry tells all of a file: that it is of this signature, and a digest.

        With something pending it does not.
        """
        whole = self._size + _DIGEST
        return (
            entry is not None and len(entry) == whole and entry.startswith(self.encode(signature))
        )

    def could_be(self, length: int, signature: Signature) -> bool:
        """Say whether a value of so many bytes can be the content of the file of a signature."""
        return length == signature.size or (bool(self._mark) and length == signature.size - 1)


def _wrapped(time: int) -> int:
    """Return a time that has room: a file's owner may set one that is later than 2262."""
    return (time + (1 << 63)) % (1 << 64) - (1 << 63)
