"""Keeps an index of a directory by the stream of changes alone: which files there are, how large.

    python3 follow.py INDEX [--once]

INDEX is a file of JSON: each name with its size. With --once it ends when it has read all that
there is; else it goes on for ever. Redis is at REDIS_URL, and SYNC_PREFIX and SYNC_STREAM are those
of mdvp-sync. It may be killed at any instant, and be started again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import redis

GROUP, CONSUMER = "index", "index-1"
AT_ONCE = 500  # entries
PATIENCE = 5.0  # seconds until it is asked for again that all is told anew
Entry = tuple[str, dict[str, str]]  # its ID; its fields, none if it was trimmed


class Index:
    """The names and sizes, and the number of the entry that was read last, in one file."""

    def __init__(self, path: Path) -> None:
        """Go on with what is in the file."""
        self._path = path
        self.sizes: dict[str, int] = {}
        self.number: int | None = None
        self.is_whole = False
        if path.exists():
            found = json.loads(path.read_text())
            self.sizes, self.number = found["sizes"], found["number"]
            self.is_whole = found["is_whole"]

    def save(self) -> None:
        """Have the file tell what is known; all of it, whenever this ends."""
        known = {"number": self.number, "is_whole": self.is_whole, "sizes": self.sizes}
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        new.replace(self._path)

    def forget(self) -> None:
        """Know nothing of where the stream was read."""
        self.number, self.is_whole = None, False

    def take(self, fields: dict[str, str]) -> None:
        """Do what an entry tells of; what was read before is passed over."""
        op, number = fields["op"], int(fields["seq"])
        if op == "reset":
            self.sizes, self.is_whole = {}, False
        elif self.number is None or number > self.number + 1:
            self.forget()  # something is missing: nothing counts until all is told anew
            return
        elif number <= self.number:
            return
        self.number = number
        match op:
            case "set":
                self.sizes[fields["name"]] = int(fields["size"])
            case "rename":
                self.sizes.pop(fields["old"], None)
                self.sizes[fields["name"]] = int(fields["size"])
            case "del":
                self.sizes.pop(fields["name"], None)
            case "ready":
                self.is_whole = True


class Stream:
    """The stream, read as one consumer of a group: Redis knows what it has read."""

    def __init__(self, client: Any, key: str, feed: str) -> None:  # noqa: ANN401  # redis-py's own
        """Read `key`; `feed` is the hash beside it."""
        self._client = client
        self._key = key
        self._feed = feed
        self._after = "0"  # first what was read, and not acknowledged; then, ">", what is new

    def read(self, wait_ms: int) -> list[Entry]:
        """Return the next entries; none if there are none for so long.

        Raises ResponseError when there is no such group: the stream is new, or another one.
        """
        given = self._client.xreadgroup(
            GROUP, CONSUMER, {self._key: self._after}, count=AT_ONCE, block=wait_ms
        )
        entries = list(given[0][1]) if given else []
        if self._after == "0" and not entries:
            self._after = ">"
            return self.read(wait_ms)
        return entries

    def done(self, entries: Iterable[Entry]) -> None:
        """Take note that these need not be read again."""
        self._client.xack(self._key, GROUP, *(number for number, _ in entries))

    def begin(self) -> None:
        """Begin at the first entry."""
        try:
            self._client.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._after = "0"

    def ask(self) -> None:
        """Have the service tell all anew."""
        self._client.hdel(self._feed, "run")


def follow(stream: Stream, index: Index, wait_ms: int = 1000) -> Iterator[bool]:
    """Keep the index; yield, after each read, whether it is whole and there was no more to read."""
    asked = 0.0  # when, if all is to be told anew
    while True:
        try:
            entries = stream.read(wait_ms)
        except redis.ResponseError:  # NOGROUP, or UNBLOCKED: it was deleted while it was read
            index.forget()
            stream.begin()
            continue
        for _, fields in entries:
            if not fields:  # it was trimmed
                index.forget()
            else:
                index.take(fields)
        if entries:
            index.save()
            stream.done(entries)
        if index.number is not None:
            asked = 0.0
        elif not asked or (len(entries) < AT_ONCE and time.monotonic() > asked + PATIENCE):
            # Once more, since what came of it was trimmed before it was read, or lost.
            stream.ask()
            asked = time.monotonic()
        yield index.is_whole and not entries


def main() -> None:
    """Follow the stream."""
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    prefix, name = os.environ.get("SYNC_PREFIX", ""), os.environ["SYNC_STREAM"]
    client = redis.Redis.from_url(
        os.environ["REDIS_URL"], decode_responses=True, encoding_errors="surrogateescape"
    )
    index = Index(options.index)
    while True:
        stream = Stream(client, prefix + name, f"{prefix}/mdvp-sync/feed")
        try:
            for is_all in follow(stream, index, 200 if options.once else 1000):
                if is_all and options.once:
                    return
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
            print(f"Redis is away ({error}): trying again", flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
