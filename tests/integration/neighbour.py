"""A user of the host who does harm wherever they can, until they are killed.

Run as `python neighbour.py ROOT OUTSIDE SEED`: works in the volumes below ROOT, and would have what
is in OUTSIDE touched. What it makes has a limit: this is no attack on the disk's size. Should it
get to something in mdvp's own folder, be it by a directory that it has held open since that was a
volume's, it says so in the file `reached` in its own directory.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_THINGS_MAX = 50_000
_DIRECTORIES_OPEN = 40


class Neighbour:
    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        self._root = root
        self._outside = outside
        self._random = random.Random(seed)  # noqa: S311  # not for secrets
        self._made = 0
        self._open: list[int] = []
        self._own = root / f"of-neighbour-{seed}"
        self._own.mkdir()

    def work(self) -> None:
        deeds: list[Callable[[int], object]] = [
            *(self._fill, self._dig, self._link, self._swap, self._swap_many, self._rename),
            *(self._change_mode, self._exchange_a_volume, self._reach, self._bait),
        ]
        while True:
            self._find_directories()
            for _ in range(100):
                with suppress(OSError, IndexError):
                    self._random.choice(deeds)(self._somewhere())

    def _find_directories(self) -> None:
        """Open directories; what was open before is kept for a while, wherever it is by now."""
        while len(self._open) > _DIRECTORIES_OPEN:
            os.close(self._open.pop(self._random.randrange(len(self._open))))
        for path in self._volumes():
            with suppress(OSError):
                self._open.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        for fd in self._random.sample(self._open, min(len(self._open), 20)):
            with suppress(OSError, IndexError):
                name = self._random.choice(os.listdir(fd))
                self._open.append(
                    os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                )

    def _volumes(self) -> Iterator[Path]:
        yield self._own
        yield from self._root.glob("vol-*")

    def _somewhere(self) -> int:
        return self._random.choice(self._open)

    def _name(self) -> str:
        return f"n{self._random.randrange(200)}"

    def _make(self, make: Callable[[], object]) -> None:
        if self._made < _THINGS_MAX:
            with suppress(FileExistsError):
                make()
                self._made += 1

    # The deeds, each in an open directory.

    def _fill(self, fd: int) -> None:
        for _ in range(50):
            self._make(lambda: self._touch(self._name(), fd))

    def _touch(self, name: str, fd: int) -> None:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=fd))

    def _dig(self, fd: int) -> None:
        path = "."
        for _ in range(self._random.randrange(40)):
            path += f"/{self._name()}"
            self._make(lambda path=path: os.mkdir(path, dir_fd=fd))  # type: ignore[misc]

    def _link(self, fd: int) -> None:
        target = self._random.choice([self._outside, *self._outside.iterdir()])
        self._make(lambda: os.symlink(target, self._name(), dir_fd=fd))
        self._make(lambda: os.mkfifo(self._name(), dir_fd=fd))

    def _swap(self, fd: int) -> None:
        """Put a link to the outside in the place of whatever is there."""
        name = self._random.choice(os.listdir(fd))
        os.rename(name, f"{name}.was", src_dir_fd=fd, dst_dir_fd=fd)
        os.symlink(self._outside, name, dir_fd=fd)

    def _swap_many(self, fd: int) -> None:
        """Make files of all directories, as fast as can be."""
        for name in os.listdir(fd)[:200]:
            with suppress(OSError):
                os.rename(name, f"{name}.was", src_dir_fd=fd, dst_dir_fd=fd)
                self._touch(name, fd)

    def _rename(self, fd: int) -> None:
        name = self._random.choice(os.listdir(fd))
        os.rename(name, self._name(), src_dir_fd=fd, dst_dir_fd=self._somewhere())

    def _change_mode(self, fd: int) -> None:
        os.fchmod(fd, self._random.choice([0, 0o777, 0o777, 0o777, 0o1777, 0o2777]))

    def _exchange_a_volume(self, _fd: int) -> None:
        """Rename a volume's own directory, put another thing there, and perhaps all back."""
        volume = self._random.choice(list(self._root.glob("vol-*")))
        away = self._own / volume.name
        volume.rename(away)
        match self._random.randrange(3):
            case 0:
                volume.symlink_to(self._outside)
            case 1:
                volume.mkdir()
            case 2:
                volume.write_text("a neighbour's")
        if self._random.random() < 0.5:
            volume.rename(self._own / f"{volume.name}.{self._random.random()}")
            away.rename(volume)

    def _reach(self, fd: int) -> None:
        """Get from a directory, wherever it is by now, to what is beside it; and by the paths."""
        up = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
        try:
            where = Path(f"/proc/self/fd/{up}").readlink()
            if ".mdvp" in where.parts:
                self._take(up, "volume")
                self._take(up, "record.json")
        finally:
            os.close(up)
        for folder in ("removed", "new", "trash", "."):
            with suppress(OSError):
                self._tell(os.listdir(self._root / ".mdvp" / folder))

    def _take(self, folder: int, name: str) -> None:
        with suppress(OSError):
            os.close(os.open(name, os.O_RDONLY, dir_fd=folder))
            self._tell([name])
        with suppress(OSError):
            os.rename(name, self._own / name, src_dir_fd=folder)
            self._tell([name])

    def _tell(self, reached: list[str]) -> None:
        (self._own / "reached").write_text(f"{reached}")

    def _bait(self, fd: int) -> None:
        """Put a link to a file outside in the place of a file, and that back: for who copies it."""
        name = self._name()
        self._make(lambda: self._touch(name, fd))
        os.symlink(self._outside / "of-0" / "file", f"{name}.bait", dir_fd=fd)
        os.rename(name, f"{name}.was", src_dir_fd=fd, dst_dir_fd=fd)
        os.rename(f"{name}.bait", name, src_dir_fd=fd, dst_dir_fd=fd)
        os.rename(f"{name}.was", name, src_dir_fd=fd, dst_dir_fd=fd)


if __name__ == "__main__":
    os.umask(0)
    Neighbour(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).work()
