"""A mirror with inotifywait, as people write it: inotifywait_script.py DIRECTORY REDIS-SOCKET."""

import subprocess
import sys
from pathlib import Path

import redis

_WRITTEN = ("CLOSE_WRITE,CLOSE", "MOVED_TO")


def main() -> None:
    """Mirror until the process is ended."""
    directory, socket = sys.argv[1:]
    client = redis.Redis(unix_socket_path=socket)
    command = (
        *("inotifywait", "--quiet", "--monitor", "--recursive", "--format", "%e %w%f"),
        *("--event", "close_write,moved_to,moved_from,delete", directory),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        for line in process.stdout:
            event, _, path = line.removesuffix("\n").partition(" ")
            _mirror(client, event, path, path.removeprefix(directory + "/"))


def _mirror(client: redis.Redis, event: str, path: str, key: str) -> None:
    if event in _WRITTEN:
        try:
            client.set(key, Path(path).read_bytes())
        except FileNotFoundError:
            return
    elif event in ("MOVED_FROM", "DELETE"):
        client.delete(key)


if __name__ == "__main__":
    main()
