"""What a consumer knows of the directory who reads nothing but the stream of changes."""

from __future__ import annotations

from typing import Any

from support import eventually

OPERATIONS = {"set", "del", "rename", "begin", "reset", "ready"}


class Picture:
    """The names and sizes that the stream tells of, as far as it was read.

    Attributes:
        sizes: name -> bytes; as of the last time that all was told.
        told: the entries, in their order.
        gaps: how often entries were missing.

    """

    def __init__(self, client: Any, key: str = "changes") -> None:  # noqa: ANN401  # redis-py's types are too wide
        self._client = client
        self._key = key
        self._after = "0"
        self._number: int | None = None
        self.sizes: dict[bytes, int] = {}
        self.is_whole = False
        self.told: list[tuple[str, dict[str, bytes]]] = []
        self.gaps = 0

    def read(self) -> dict[bytes, int]:
        """Read on to the end; return what there is."""
        while entries := self._client.xread({self._key: self._after}, count=100):
            for self._after, fields in entries[0][1]:  # how far it was read
                self._take({name.decode(): value for name, value in fields.items()})
        return self.sizes

    def lines(self) -> list[str]:
        """Read on; return what was told since the last time, in words."""
        before = len(self.told)
        self.read()
        return [
            " ".join([op, *(fields[each].decode() for each in _SHOWN if each in fields)])
            for op, fields in self.told[before:]
        ]

    def tells(self, *words: str) -> None:
        """Wait until just these are the entries that come next, in words."""
        told: list[str] = []

        def all_of_them() -> list[str]:
            told.extend(self.lines())
            return told

        eventually(all_of_them, [*words])

    def begins_anew(self, sizes: dict[bytes, int]) -> None:
        """Wait until all is told again since the last time that it was read, and shows these."""
        self.told.clear()
        eventually(lambda: (self.read(), [op for op, _ in self.told].count("reset")), (sizes, 1))
        self.shows(sizes)

    def _take(self, fields: dict[str, bytes]) -> None:
        op, number = fields.pop("op").decode(), int(fields.pop("seq"))
        assert op in OPERATIONS
        if self._number is not None and number != self._number + 1 and op != "reset":
            self.gaps += 1
        self._number = number
        self.told.append((op, fields))
        name, size = fields.get("name", b""), int(fields.get("size", 0))
        match op:
            case "reset":
                self.sizes, self.is_whole = {}, False
            case "ready":
                self.is_whole = True
            case "set":
                self.sizes[name] = size
            case "rename":
                self.sizes.pop(fields["old"], None)
                self.sizes[name] = size
            case "del":
                self.sizes.pop(name, None)

    def shows(self, sizes: dict[bytes, int]) -> None:
        """Wait until it shows just these names and sizes."""
        eventually(lambda: (self.read(), self.is_whole), (sizes, True))


_SHOWN = ("cause", "old", "name", "size")
