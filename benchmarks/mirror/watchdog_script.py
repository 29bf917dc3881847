"""A mirror with watchdog, as people write it: watchdog_script.py DIRECTORY REDIS-SOCKET."""

import os
import sys
from pathlib import Path

import redis
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Mirror(FileSystemEventHandler):
    """Does in Redis at once what an event says."""

    def __init__(self, client: redis.Redis) -> None:
        """Mirror to the server of `client`."""
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
        self._redis.delete(name_of(event.src_path))

    def on_moved(self, event: FileSystemEvent) -> None:
        """Set the key that a file has from now on, in place of the one that it had."""
        self.on_deleted(event)
        self._set(event.dest_path)

    def _set(self, path: bytes | str) -> None:
        try:
            content = Path(os.fsdecode(path)).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return
        self._redis.set(name_of(path), content)


def name_of(path: bytes | str) -> str:
    """Return the key of the file at `path`."""
    return Path(os.fsdecode(path)).name


def main() -> None:
    """Mirror until the process is ended."""
    directory, socket = sys.argv[1:]
    observer = Observer()
    observer.schedule(Mirror(redis.Redis(unix_socket_path=socket)), directory)
    observer.start()
    observer.join()


if __name__ == "__main__":
    main()
