"""A mirror with watchdog, as people write it: watchdog_script.py DIRECTORY SOCKET [--recursive]."""

import os
import sys
from pathlib import Path

import redis
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Mirror(FileSystemEventHandler):
    """Does in Redis at once what an event says."""

    def __init__(self, directory: str, client: redis.Redis) -> None:
        """Mirror a directory to the server of `client`."""
        self._above = directory + "/"
        self._redis = client

    def on_created(self, event: FileSystemEvent) -> None:
        """Set the key of a new file."""
        self._set(event.src_path)

    def on_modified(self, event: FileSystemEvent) -> None:
        """Set the key of a file that was written to."""
        self._set(event.src_path)

    def on_closed(self, event: FileSystemEvent) -> None:
        """Set the key of a file whose writer is done."""
        self._set(event.src_path)

    def on_deleted(self, event: FileSystemEvent) -> None:
        """Delete the key of a file."""
        self._redis.delete(self._key(event.src_path))

    def on_moved(self, event: FileSystemEvent) -> None:
        """Set the key that a file has from now on, in place of the one that it had."""
        self.on_deleted(event)
        self._set(event.dest_path)

    def _set(self, path: bytes | str) -> None:
        try:
            content = Path(os.fsdecode(path)).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return
        self._redis.set(self._key(path), content)

    def _key(self, path: bytes | str) -> str:
        return os.fsdecode(path).removeprefix(self._above)


def main() -> None:
    """Mirror until the process is ended."""
    directory, socket, *more = sys.argv[1:]
    observer = Observer()
    mirror = Mirror(directory, redis.Redis(unix_socket_path=socket))
    observer.schedule(mirror, directory, recursive="--recursive" in more)
    observer.start()
    observer.join()


if __name__ == "__main__":
    main()
