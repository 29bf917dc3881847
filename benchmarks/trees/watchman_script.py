"""A mirror with watchman, as people write it: watchman_script.py DIRECTORY REDIS-SOCKET.

Its server is a child of this process, with its files beside the directory; it is ended with it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

_MIRROR = "mirror"


def main() -> None:
    """Mirror until the process is ended."""
    directory, socket = sys.argv[1:]
    client = redis.Redis(unix_socket_path=socket)
    beside = Path(directory).parent
    with _serving(beside):
        _ask(beside, ["watch", directory])
        wanted = {"expression": ["type", "f"], "fields": ["name", "exists"]}
        with _asking(beside, ["subscribe", directory, _MIRROR, wanted], "--persistent") as process:
            for answer in _answers(process):
                for file in answer.get("files", ()):
                    _mirror(client, Path(directory, file["name"]), file["name"], file["exists"])


def _mirror(client: redis.Redis, path: Path, key: str, exists: bool) -> None:
    try:
        content = path.read_bytes() if exists else None
    except FileNotFoundError:
        content = None
    if content is None:
        client.delete(key)
    else:
        client.set(key, content)


def _serving(beside: Path) -> subprocess.Popen[str]:
    files = (f"--{name}={beside / name}" for name in ("statefile", "pidfile", "logfile"))
    command = ("watchman", "--foreground", f"--sockname={beside / 'watchman'}", *files)
    process = subprocess.Popen(command, text=True)
    while not (beside / "watchman").exists():
        time.sleep(0.01)
    return process


def _ask(beside: Path, question: list[object]) -> None:
    with _asking(beside, question) as process:
        for answer in _answers(process):
            if "error" in answer:
                sys.exit(f"watchman says: {answer['error']}")


def _asking(beside: Path, question: list[object], *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        (
            *("watchman", "--no-spawn", "--no-local", "--no-pretty", "--json-command"),
            *(f"--sockname={beside / 'watchman'}", *options),
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None  # noqa: S101  # it is a pipe
    process.stdin.write(json.dumps(question))
    process.stdin.close()
    return process


def _answers(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    return map(json.loads, process.stdout)


if __name__ == "__main__":
    main()
