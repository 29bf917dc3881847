"""The load, and what is compared with: each a process of its own, and its time is taken in it.

python -m benchmarks.mirror.load write DIRECTORY FILES     new files, one after the other
python -m benchmarks.mirror.load rewrite DIRECTORY TIMES   one file, over and over
python -m benchmarks.mirror.load large DIRECTORY BYTES     one file
python -m benchmarks.mirror.load read DIRECTORY FILES      reads what `write` wrote, no more

Each prints two times of the clock that the Redis server has too, in seconds: when it began, and
when it ended (for `rewrite`: when it began to close the file for the last time).
"""

import os
import sys
from time import time

LARGE = "large"
REWRITTEN = "rewritten"
SIZE = 64  # bytes of a small file
_PIECE = 1 << 20


def name(number: int) -> str:
    """Return the name of a small file."""
    return f"{number:07}"


def value(number: int) -> bytes:
    """Return the content of a small file, which no other has."""
    return (name(number) * SIZE)[:SIZE].encode()


def write(directory: str, files: str) -> float:
    """Open, write and close one file after the other; return when that was done."""
    for number in range(int(files)):
        close = _written(directory, name(number), value(number))
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
        descriptor = os.open(f"{directory}/{name(number)}", os.O_RDONLY)
        os.read(descriptor, os.fstat(descriptor).st_size + 1)
        os.close(descriptor)
    return time()


def _written(directory: str, file: str, content: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    descriptor = os.open(f"{directory}/{file}", flags, 0o644)
    os.write(descriptor, content)
    return descriptor


if __name__ == "__main__":
    work = {"write": write, "rewrite": rewrite, "large": large, "read": read}[sys.argv[1]]
    began = time()
    ended = work(*sys.argv[2:])
    print(began, ended, flush=True)
