"""A real mdvp that dies at each system call that changes the disk, one after the other.

A scene is an operation, with what there is before it. It is gone through once to the end, which
gives the picture of the disk before and after, and the calls that it makes. Then again and again,
each time with SIGKILL before another of these calls; mdvp is started again, and what is there then
must be the picture of before or of after, with nothing left aside, and that of after if the
operation was answered. Whoever asks for it again gets it.

The pictures are made of the disk and of what mdvp says; names that are of one round only are cut.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any

from integration.plugin import Answer, Plugin, command, serving
from integration.tracer import Tracer
from support import eventually, running

NEVER = -1  # no call has this number
# What differs from one round to the next, and need not be compared.
VOLATILE = ("since",)


@dataclass
class Round:
    """One go through a scene: the plugin of now, and what this round's names begin with."""

    plugin: Plugin
    prefix: str

    @property
    def root(self) -> Path:
        return self.plugin.root

    def name(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def path(self, name: str) -> Path:
        return self.root / self.name(name)

    def create(self, name: str, **options: str) -> Answer:
        """Make a volume; `_` in an option's name is `-` in the engine's, and none at its end."""
        return self.plugin.call("Create", Name=self.name(name), Opts=_options(options))

    def remove(self, name: str) -> Answer:
        return self.plugin.call("Remove", Name=self.name(name))

    def change(self, name: str, **options: str) -> Answer:
        return self.plugin.own("Change", Name=self.name(name), Opts=_options(options))

    def rename(self, name: str, new: str) -> Answer:
        return self.plugin.own("Rename", Name=self.name(name), NewName=self.name(new))

    def made(self, name: str, **options: str) -> None:
        """Make a volume with something in it."""
        answer = self.create(name, **options)
        assert answer.status == 200, answer
        fill(self.path(name))

    def removed(self, name: str) -> None:
        answer = self.remove(name)
        assert answer.status == 200, answer


def _options(given: Mapping[str, str]) -> Mapping[str, str]:
    return {name.rstrip("_").replace("_", "-"): text for name, text in given.items()}


@dataclass(frozen=True)
class Scene:
    """An operation, and what there is before it.

    Attributes:
        prepare: makes what there is before.
        act: asks for it; returns the answer.
        settled: says whether it has come to its end, in the background, too.
        capable: whether it takes capabilities that the plugin does not have.
        again: what a second time may be answered when the first was done.
        check: says whether it is true of the disk what the picture says when it is done.
        half_done: says whether it is done but for something that the second time does.

    """

    prepare: Callable[[Round], object]
    act: Callable[[Round], Answer]
    settled: Callable[[Round], bool] = lambda _: True
    capable: bool = False
    again: tuple[int, ...] = (200,)
    check: Callable[[Round], bool] = lambda _: True
    half_done: Callable[[Round], bool] = lambda _: False


def fill(folder: Path) -> None:
    """Put some of everything into a volume."""
    (folder / "file").write_text("content")
    (folder / "file").chmod(0o640)
    os.chown(folder / "file", 1000, 1001)
    (folder / "below" / "deep").mkdir(parents=True)
    (folder / "below" / "deep" / "larger").write_bytes(bytes(range(256)) * 64)
    os.link(folder / "file", folder / "below" / "hard")
    (folder / "link").symlink_to("below/deep/larger")
    os.mkfifo(folder / "fifo")


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that is in a directory, and how it is itself."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = sha256(path.read_bytes()).hexdigest()[:16]
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        shown = (status.st_mode, status.st_uid, status.st_gid, content)
        found[str(path.relative_to(folder))] = shown
    return found


def own_folder(root: Path) -> Path:
    return root / ".mdvp"


def aside(root: Path) -> list[str]:
    """Return what is not at a place and not in the trash for good."""
    return [
        f"{folder}/{name}"
        for folder in ("new", "trash")
        for name in os.listdir(own_folder(root) / folder)
    ]


Picture = Mapping[str, object]


def picture(now: Round) -> Picture:
    """Return all there is of this round's names."""
    cut = now.prefix
    directories = {path.name.removeprefix(cut): tree(path) for path in now.root.glob(f"{cut}*")}
    return {
        "volumes": {name.removeprefix(cut): status for name, status in volumes(now)},
        "directories": directories,
        "removed": sorted(map(str, removed(now))),
    }


def unlike(found: Picture, expected: Picture) -> list[str]:
    """Say in what two pictures differ."""
    return [
        f"{key}: {found[key]} and not {expected[key]}"
        for key in found
        if found[key] != expected[key]
    ]


def volumes(now: Round) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name in now.plugin.volumes():
        if name.startswith(now.prefix):
            volume = now.plugin.call("Get", Name=name).message["Volume"]
            status = {key: _cut(it, now.prefix) for key, it in volume["Status"].items()}
            yield name, {key: it for key, it in status.items() if key not in VOLATILE}


def removed(now: Round) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield what can be restored: the name it had, and its content."""
    folder = own_folder(now.root) / "removed"
    for entry in folder.iterdir() if folder.exists() else ():
        with suppress(FileNotFoundError):  # it goes just now
            record = (entry / "record.json").read_text()
            name = record.partition(f'"{now.prefix}')[2].partition('"')[0]
            if name:
                yield name, tree(entry / "volume") if (entry / "volume").exists() else {}


def _cut(value: object, prefix: str) -> object:
    return value.replace(prefix, "") if isinstance(value, str) else value


class Stage:
    """Where a scene is gone through, again and again, in a root of its own.

    Attributes:
        points: how many times mdvp was killed at work.
        starts: how many times it was killed when it was started again after that.

    """

    def __init__(self, root: Path, socket: Path, prefix: Sequence[str], often: int = 1) -> None:
        """Run mdvp by `prefix`; each so `often`th start after a kill is killed, too."""
        self.points = 0
        self.starts = 0
        self._root = root
        self._root.mkdir()
        self._socket = socket
        self._prefix = prefix
        self._often = often
        self._rounds = (f"r{number}-" for number in count())
        self._running = ExitStack()
        self._plugin = self._start()
        self._kill_start_at = 0

    def close(self) -> None:
        self._running.close()

    def play(self, scene: Scene, chosen: Callable[[list[str]], list[int]]) -> list[str]:
        """Kill mdvp before each call that is `chosen` of all; return them all."""
        now = self._begin(scene)
        tracer = self._trace(now, NEVER)
        answer = self._act(scene, now, tracer)
        assert answer is not None
        assert answer.status == 200, answer
        after = picture(now)
        assert scene.check(now)
        for at in chosen(tracer.calls):
            self._play_killed(scene, at, after)
        return tracer.calls

    def _begin(self, scene: Scene) -> Round:
        now = Round(self._plugin, next(self._rounds))
        scene.prepare(now)
        return now

    def _play_killed(self, scene: Scene, at: int, after: Picture) -> None:
        now = self._begin(scene)
        before = picture(now)
        tracer = self._trace(now, at)
        answer = self._act(scene, now, tracer)
        found = picture(now)
        moment = f"killed before call {at} of {tracer.calls}" if tracer.killed else "to its end"
        is_half_done = found not in (before, after) and scene.half_done(now)
        if found not in (before, after) and not is_half_done:
            raise AssertionError((moment, unlike(found, before), unlike(found, after)))
        assert answer is None or answer.status == 200, (moment, answer)
        assert answer is None or found == after, (moment, "answered, and not done")
        assert found != after or scene.check(now), moment
        self._ask_again(scene, now, done=found == after)
        assert picture(now) == after, (moment, unlike(picture(now), after))
        assert scene.check(now), moment

    def _trace(self, now: Round, at: int) -> Tracer:
        return Tracer(now.plugin.process.pid, at, self._root)

    def _act(self, scene: Scene, now: Round, tracer: Tracer) -> Answer | None:
        """Ask for it, and start mdvp again when it is over; return the answer, if there is one."""
        answer = None
        with suppress(OSError, HTTPException):
            answer = scene.act(now)
        eventually(lambda: not tracer.watches() or self._is_settled(scene, now), True)
        now.plugin.process.kill()
        tracer.end()
        if tracer.killed:
            if self.points % self._often == 0:
                self._start_and_die()
            self.points += 1
        now.plugin = self._plugin = self._start()
        eventually(lambda: aside(self._root), [])
        return answer

    def _start_and_die(self) -> None:
        """Start mdvp, which has to mend what is there, and kill it at work, each time later."""
        self._running.close()
        mdvp = (*self._prefix, *command(self._root, self._socket))
        with running(mdvp, os.environ) as process:
            tracer = Tracer(process.pid, self._kill_start_at, self._root)
            plugin = Plugin(self._root, self._socket, process)
            eventually(lambda: not tracer.watches() or self._has_mended(plugin), True)
            process.kill()
            tracer.end()
        self.starts += tracer.killed
        self._kill_start_at = self._kill_start_at + 1 if tracer.killed else 0

    def _has_mended(self, plugin: Plugin) -> bool:
        return plugin.answers() and not aside(self._root)

    def _start(self) -> Plugin:
        self._running.close()
        serve = serving(self._root, self._socket, prefix=self._prefix)
        return self._running.enter_context(serve)

    def _is_settled(self, scene: Scene, now: Round) -> bool:
        return not aside(self._root) and scene.settled(now)

    def _ask_again(self, scene: Scene, now: Round, *, done: bool) -> None:
        answer = scene.act(now)
        assert answer.status in (scene.again if done else (200,)), answer
        eventually(lambda: self._is_settled(scene, now), True)
