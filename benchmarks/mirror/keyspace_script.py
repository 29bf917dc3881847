"""A mirror with keyspace notifications, as people write it: keyspace_script.py ROOT SOCKET."""

import sys
from pathlib import Path

import redis

_EVENTS = "__keyspace@0__:"


def main() -> None:
    """Mirror until the process is ended."""
    directory, socket = Path(sys.argv[1]), sys.argv[2]
    client = redis.Redis(unix_socket_path=socket)
    client.config_set("notify-keyspace-events", "KA")
    events = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    events.psubscribe(f"{_EVENTS}*")
    for message in events.listen():
        key = message["channel"].decode().removeprefix(_EVENTS)
        _mirror(client, directory / key, key, message["data"])


def _mirror(client: redis.Redis, path: Path, key: str, event: bytes) -> None:
    if event == b"set":
        content = client.get(key)
        if isinstance(content, bytes):  # it was not deleted meanwhile
            path.write_bytes(content)
    elif event == b"del":
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
