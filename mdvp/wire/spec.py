"""The spec file: how the engine finds a plugin that listens on TCP.

Source: "Docker Plugin API" in the Docker Engine manual, Plugin discovery: `NAME.json` in a
directory that the engine looks through, with the plugin's name and address.

Failure model. The file is at its place whole or not at all. One with the same content is what a
killed run left, and is ours; any other is somebody's, and is neither replaced nor removed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdvp.core.errors import ListenError

NAME = "mdvp"
_FOLDER_MODE = 0o755


@contextmanager
def announced(directory: Path, url: str) -> Iterator[None]:
    """Have a spec file in `directory`, made if missing, that names `url` for the time of the block.

    Raises ListenError when the file is there and says something else.
    """
    file = directory / f"{NAME}.json"
    content = json.dumps({"Name": NAME, "Addr": url}).encode() + b"\n"
    directory.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
    if _content(file) not in (None, content):
        raise ListenError(
            f"{file} is there and names another plugin or address: remove it if nobody needs it, "
            "or name another directory with --spec-dir"
        )
    try:
        _write(file, content)
        yield
    finally:
        if _content(file) == content:
            file.unlink(missing_ok=True)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _write(file: Path, content: bytes) -> None:
    # The engine reads files that end in .json or .spec, at any time.
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    new.chmod(0o644)
    new.replace(file)
