"""The rooms of `sync` import each other one way: what a reader concludes from the folders is so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import sync

# Each may import those before it.
ROOMS = ("core", "disk", "redis", "report", "service", "verify", "decide")
SOURCE = Path(str(sync.__file__)).parent


def imports(room: str) -> Iterator[tuple[str, str]]:
    """Yield each module of a room with each room that it imports."""
    for path in sorted((SOURCE / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sync."):
                yield path.name, str(node.module).split(".")[1]


def test_each_room_imports_none_that_comes_after_it() -> None:
    found = {room: set(imports(room)) for room in ROOMS}
    assert found["service"], "no imports were found at all"
    for number, room in enumerate(ROOMS):
        assert {each for each in found[room] if each[1] not in ROOMS[: number + 1]} == set()
