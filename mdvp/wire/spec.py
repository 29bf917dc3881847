"""The spec file: how the engine finds a plugin that listens on TCP.

Source: "Docker Plugin API" in the Docker Engine manual, Plugin discovery: `NAME.json` in a
directory that the engine looks through, with the plugin's name and address.

Failure model. The file is at its place whole or not at all. One with the same content is what a
run left that had no time to remove it, as in a power cut, and is ours; any other is somebody's, and
is neither replaced nor removed. A file that leads to a port which nobody holds is an invitation to
every user of the machine: `mdvp.wire.guardian` removes it when mdvp is killed.
"""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Self

from mdvp import threads
from mdvp.core.errors import ListenError

log = logging.getLogger(__name__)

NAME = "mdvp"
_FOLDER_MODE = 0o755
_GUARDIAN = Path(__file__).with_name("guardian.py")
_END = 5.0  # seconds for it to end; it takes milliseconds, unless somebody has stopped it


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec file: where it is to be, and what it is to say."""

    file: Path
    content: bytes

    @classmethod
    def naming(cls, url: str, directory: Path) -> Self:
        """Return the spec file in `directory` that names `url`."""
        content = json.dumps({"Name": NAME, "Addr": url}).encode() + b"\n"
        return cls(directory / f"{NAME}.json", content)


@contextmanager
def announced(spec: Spec) -> Iterator[None]:
    """Have the spec file there, its directory made if missing, for the time of the block.

    Raises ListenError when the file is there and says something else, or is a link.
    """
    spec.file.parent.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
    _check(spec)
    try:
        _write(spec)
        yield
    finally:
        if _content(spec.file) == spec.content:
            spec.file.unlink(missing_ok=True)


def _check(spec: Spec) -> None:
    if spec.file.is_symlink():  # to replace it would cut off whoever it was made for
        raise ListenError(
            f"{spec.file} is a link to {spec.file.readlink()}: name the directory of that with "
            "--spec-dir, or remove the link"
        )
    if _content(spec.file) not in (None, spec.content):
        raise ListenError(
            f"{spec.file} is there and names another plugin or address: remove it if nobody needs "
            "it, or name another directory with --spec-dir"
        )


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _write(spec: Spec) -> None:
    # The engine reads files that end in .json or .spec, at any time.
    new = spec.file.with_name(f".{spec.file.name}.new")
    with new.open("wb") as output:
        output.write(spec.content)
        output.flush()
        os.fsync(output.fileno())
    new.chmod(0o644)
    new.replace(spec.file)


@contextmanager
def guarded(listener: socket.socket, spec: Spec, end: Callable[[], object]) -> Iterator[None]:
    """Have a guardian for the time of the block: it keeps `listener` until the spec file is gone.

    It removes the file only when it has this content. Should the guardian die, `end` is called.
    """
    # Isolated, without what is installed: it starts in no time, and nobody can slip it a module.
    what = (str(spec.file.absolute()), os.fsdecode(spec.content))
    command = [sys.executable, "-IS", str(_GUARDIAN), *what]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # which the kernel closes when we end
        stdout=subprocess.DEVNULL,  # whoever reads our log is not to wait for the guardian
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )
    dismissed = Event()

    def watch() -> None:
        status = process.wait()
        if not dismissed.is_set():
            log.error(
                "the process that would keep the port if mdvp were killed has ended (status "
                "%(status)d): mdvp ends, to be started again",
                {"event": "guardian_ended", "status": status},
            )
            end()

    watching = threads.start("guardian", watch, end)
    try:
        yield
    finally:
        dismissed.set()
        if process.stdin:
            process.stdin.close()
        watching.join(_END)
