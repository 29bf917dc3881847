"""The load, and what is compared with: each a process of its own, and its time is taken in it.

python -m benchmarks.mirror.load write DIRECTORY FILES [SIZE]  new files, one after the other
python -m benchmarks.mirror.load tree DIRECTORY FILES EACH     the same, so many in each new branch
python -m benchmarks.mirror.load rewrite DIRECTORY TIMES       one file, over and over
python -m benchmarks.mirror.load large DIRECTORY BYTES         one file
python -m benchmarks.mirror.load read DIRECTORY FILES          reads what `write` wrote, no more
python -m benchmarks.mirror.load walk DIRECTORY                finds and reads all that is below
python -m benchmarks.mirror.load sets SOCKET KEYS              the same values to Redis, by pipeline

Each prints two times of the clock that the Redis server has too, in seconds: when it began, and
when it ended (for `rewrite`: when it began to close the file for the last time).
"""

import os
import socket
import sys
from collections.abc import Callable
from time import time

LARGE = "large"
REWRITTEN = "rewritten"
SIZE = 64  # bytes of a small file
BRANCHES = 100  # a branch of a tree, which has files, is one of so many in another directory
_PIECE = 1 << 20
_PIPELINE = 1_000  # commands that are sent before their answers are waited for


def name(number: int) -> str:
    """Return the name of a small file."""
    return f"{number:07}"


def value(number: int, size: int = SIZE) -> bytes:
    """Return the content of a small file, which no other has."""
    return (name(number) * size)[:size].encode()


def set_command(number: int) -> bytes:
    """Return the command that gives a key the content of the small file of its name."""
    key, content = name(number).encode(), value(number)
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        *(len(key), key),
        *(len(content), content),
    )


def branch(number: int) -> str:
    """Return the path of a directory of a tree, below its root."""
    return f"{number // BRANCHES:04}/{number % BRANCHES:02}"


def write(directory: str, files: str, size: str = str(SIZE)) -> float:
    """Open, write and close one file after the other; return when that was done."""
    length = int(size)
    for number in range(int(files)):
        close = _written(directory, name(number), value(number, length))
        os.close(close)
    return time()


def tree(directory: str, files: str, each: str) -> float:
    """Make one branch after the other, with so many files in each; return when that was done."""
    for number in range(0, int(files), int(each)):
        place = f"{directory}/{branch(number // int(each))}"
        os.makedirs(place, exist_ok=True)  # noqa: PTH103  # no Path is made in what is measured
        for file in range(number, min(number + int(each), int(files))):
            close = _written(place, name(file), value(file))
            os.close(close)
    return time()


def rewrite(directory: str, times: str) -> float:
    """Open, truncate, write and close one file so often; return when the last close began."""
    for number in range(int(times)):
        close = _written(directory, REWRITTEN, value(number))
        closed = time()
        os.close(close)
    return closed


def large(directory: str, size: str) -> float:
    """Write one file of so many bytes, a multiple of a mebibyte's, in pieces."""
    with open(f"{directory}/{LARGE}", "wb", buffering=0) as file:  # noqa: PTH123
        file.writelines(
            number.to_bytes(8, "big") * (_PIECE // 8) for number in range(int(size) // _PIECE)
        )
    return time()


def read(directory: str, files: str) -> float:
    """Open, fstat, read and close each of so many files that `write` wrote."""
    for number in range(int(files)):
        _read(f"{directory}/{name(number)}")
    return time()


def walk(directory: str) -> float:
    """List each directory, and open, fstat, read and close each file in it."""
    waiting = [directory]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    _read(entry.path)
    return time()


def sets(server: str, keys: str) -> float:
    """Set so many keys to what `write` gives files of their names; return when that was done."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        for start in range(0, int(keys), _PIPELINE):
            numbers = range(start, min(start + _PIPELINE, int(keys)))
            connection.sendall(b"".join(map(set_command, numbers)))
            wanted, answers = b"+OK\r\n" * len(numbers), b""
            while answers != wanted:
                answers += connection.recv(_PIECE)
                if not wanted.startswith(answers):
                    raise ValueError(answers)
        return time()


def _read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, os.fstat(descriptor).st_size + 1)
    os.close(descriptor)


def _written(directory: str, file: str, content: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    descriptor = os.open(f"{directory}/{file}", flags, 0o644)
    os.write(descriptor, content)
    return descriptor


if __name__ == "__main__":
    works: dict[str, Callable[..., float]] = {
        each.__name__: each for each in (write, tree, rewrite, large, read, walk, sets)
    }
    work = works[sys.argv[1]]
    began = time()
    ended = work(*sys.argv[2:])
    print(began, ended, flush=True)
