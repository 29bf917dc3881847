"""What one look at the host has shown: who has a directory, who lives, and who is at work.

A directory is given by its paths in its file system, as mountinfo has them. What is asked of a
process is how it is when it is asked; one that has gone by then does nothing any more.

What the host has bind-mounted itself is copied wherever its mounts are copied: into services, into
containers that have `/` mounted, and for a moment into each container that starts. Such a copy is
known by its location, which is the original's, and it counts only while a process uses it. What
processes do that are where the host is does not count, there or in the volumes' own place: who may
use a volume from the host is for the host to say, and any user could keep it in use.

Who reads a volume through the read-only view (`mdvp.readers`) has a mount of its directory, too. It
is told from others by its mark, as long as nothing else can have that: else it counts as any other.
"""

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from mdvp.core.lease import Engine, Holder
from mdvp.host import proc
from mdvp.host.census import Place, View
from mdvp.host.mountinfo import Location, Mount, Mounts, is_in, located, moved, parse
from mdvp.host.proc import Process
from mdvp.host.scenes import Scene, Scenes, still_there

Member: TypeAlias = tuple[Process, Place]
Located: TypeAlias = tuple[Mount, Location | None]
# What tells a mount and its copies: the directory that they show, and where the original is.
Original: TypeAlias = tuple[bytes, Location | None]

# A view that shows a directory, what else it shows, and the mounts that show the directory.
Showing: TypeAlias = tuple[View, Scene, list[Located]]

_GONE = (FileNotFoundError, ProcessLookupError)
_OF_ANY_CONTAINER = (b"/dev", b"/proc", b"/sys")


@dataclass(frozen=True, slots=True)
class Host:
    """What the host itself has mounted; nothing where we may not look at that.

    Attributes:
        mounts: all of it.
        top: what is at its `/`.
        originals: of the volumes' file system, and of what it had before if there are copies yet.
        marks: whether nothing but a reader's mount has the mark of one.

    """

    mounts: Mounts
    top: Location | None
    originals: Set[Original]
    marks: bool = True


class Look:
    """A look at the host."""

    def __init__(
        self, places: Mapping[Process, Place], scenes: Scenes, device: bytes, host: Host
    ) -> None:
        """Show where processes are, and what of the volumes' file system is mounted there."""
        self._places = places
        self._scenes = scenes
        self._device = device
        self._host = host

    # Who has a directory.

    def holders(
        self,
        paths: Collection[bytes],
        engines: Collection[Engine] = (),
        known: Collection[str] = (),
        *,
        readers: bool = False,
    ) -> list[Holder]:
        """Return who has a directory, or what is below it; and of those `known`, who lives.

        With `readers` it is who reads it. The `engines` do not count, nor what they start to do
        their work.
        """
        found: dict[str, Holder] = {}
        showing = self._showing(paths, readers)
        for member, ready in chain(self._mounting(showing), self._using(showing)):
            if not self._works_for(member, engines):
                self._add(found, member, ready=ready)
        # A process outside of containers is known by how its namespace was when it was first shown.
        for who in known:
            if (holder := self._living(who)) is not None:
                found[_name(who)] = holder
        return list(found.values())

    def shown_in(self, folder: bytes) -> set[bytes]:
        """Return the names in a directory of what is mounted somewhere, or has that below it."""
        (prefix,) = _prefixes([folder])
        return {
            mount.root.removeprefix(prefix).partition(b"/")[0]
            for scene in self._scenes.values()
            for mount, _ in scene.mounts
            if mount.root.startswith(prefix)
        }

    def _showing(self, paths: Collection[bytes], readers: bool) -> list[Showing]:
        """Return the views that show a directory, each with the mounts that do."""
        prefixes = _prefixes(paths)
        return [
            (view, scene, shown)
            for view, scene in self._scenes.items()
            if (
                shown := [
                    each
                    for each in scene.mounts
                    if _shows(each, paths, prefixes) and self._is_readers(each[0]) is readers
                ]
            )
        ]

    def _is_readers(self, mount: Mount) -> bool:
        return self._host.marks and mount.is_readers

    def _mounting(self, showing: Iterable[Showing]) -> Iterator[tuple[Member, bool]]:
        """Yield who has a directory mounted on their own, and whether they are set up."""
        for view, scene, shown in showing:
            if self._own(scene, shown):
                for member in self._by_view[view]:
                    yield member, self._is_set_up(scene) or member[1].container is None

    def _using(self, showing: Iterable[Showing]) -> Iterator[tuple[Member, bool]]:
        """Yield who uses a directory through a copy of what the host has mounted."""
        for view, scene, shown in showing:
            if not self._own(scene, shown):
                points = [mount.point for mount, _ in shown]
                for member in self._by_view[view]:
                    if _uses(member[1].thread, points):
                        yield member, False

    def _own(self, scene: Scene, shown: Sequence[Located]) -> bool:
        """Say whether a scene has more of a directory than copies of what the host has mounted.

        What is mounted in the root file system of a container is its own: for `docker cp` some
        engines mount it there for themselves, too.
        """
        own = scene.top[0] if scene.top and self._is_set_up(scene) else None
        return any(
            place is None or place[0] == own or (mount.root, place) not in self._host.originals
            for mount, place in shown
        )

    def _is_set_up(self, scene: Scene) -> bool:
        """Say whether a view is more than a copy of the host's, as a container's is at first."""
        return scene.top != self._host.top

    def _works_for(self, member: Member, engines: Collection[Engine]) -> bool:
        """Say whether a process outside of containers runs the program of one of the engines.

        An engine starts itself again under other names to do its work, such as docker-untar.
        """
        place = member[1]
        if place.container is not None:
            return False
        with suppress(*_GONE, PermissionError):
            program = proc.program(place.thread)
            return program is not None and any(self._runs(each, program) for each in engines)
        return False

    def _runs(self, engine: Engine, program: str) -> bool:
        with suppress(*_GONE, PermissionError):
            return self.lives(engine) and proc.program(str(engine.pid)) == program
        return False

    def _add(self, found: dict[str, Holder], member: Member, *, ready: bool) -> None:
        place = member[1]
        name = place.container or place.view.namespace
        earlier = found.get(name)
        # A container that has several views is set up when one of them is.
        if earlier is not None and (earlier.ready or not ready):
            return
        with suppress(*_GONE):
            # What is held must be so now: the process may have ended, or gone elsewhere.
            if still_there(place):
                found[name] = _describe(self._members(name), ready=ready)

    # Who lives.

    def _living(self, who: str) -> Holder | None:
        """Return the holder that was once shown as `who`, if a process of it lives."""
        living = [member for member in self._members(_name(who)) if _lives(member, who)]
        with suppress(*_GONE):
            return replace(_describe(living, ready=True), who=who)
        return None

    def lives(self, engine: Engine) -> bool:
        """Say whether an engine is there, and is the process that it was."""
        with suppress(*_GONE):
            with suppress(PermissionError):  # when it began, anybody may know
                proc.living(str(engine.pid))
            return proc.command_and_start(str(engine.pid))[1] == engine.started
        return False

    def begun(self, since: float) -> list[Holder]:
        """Return the containers that began after a moment, in seconds since the machine did."""
        members = defaultdict(list)
        for process, place in self._places.items():
            if place.container:
                members[place.container].append((process, place))
        found = []
        for container in sorted(members):
            with suppress(*_GONE):
                found.append(_describe(members[container], ready=True))
        # The kernel rounds the beginning of a process down to a tick.
        return [holder for holder in found if holder.began > since - 1 / proc.TICKS]

    def has_of_host(self, holder: Holder) -> bool:
        """Say whether a container has been handed something that the host has.

        What an engine mounts for any container does not count: its root, what is in /dev, /proc and
        /sys, and files such as /etc/hosts, which are in a directory of the container's id.
        """
        devices = {mount.device for mount in self._host.mounts.values()}
        with suppress(*_GONE, PermissionError):
            return any(
                mount.device in devices
                and not any(is_in(mount.point, each) for each in _OF_ANY_CONTAINER)
                and (holder.container or "").encode() not in mount.root
                for mount in parse(proc.read(f"/proc/{holder.pid}/mountinfo")).values()
                if mount.point != b"/"
            )
        return False

    # Who is at work.

    def at_work(self, engine: Engine, paths: Collection[bytes], *, readers: bool = False) -> bool:
        """Say whether an engine, or what it has started, has a directory open or mounted.

        It may work in a thread of its own namespace, or by a process that it has started. One that
        we may not look at could be at any work.
        """
        try:
            return self._has_open(str(engine.pid), paths, readers) or any(
                self._works_for(member, [engine])
                for member, _ in self._mounting(self._showing(paths, readers))
            )
        except PermissionError:
            return True
        except _GONE:
            return False

    def _has_open(self, pid: str, paths: Collection[bytes], readers: bool) -> bool:
        mounts = self._mounts(pid, readers)
        prefixes = _prefixes(paths)
        points = [each[0].point for each in mounts if _shows(each, paths, prefixes)]
        if _uses(pid, [*points, *_reaching(mounts, paths)]):
            return True
        ours = proc.namespace(pid)
        for thread in proc.threads(pid):
            with suppress(*_GONE):
                if proc.namespace(thread) == ours:
                    continue
                shown = self._mounts(thread, readers)
                if any(_shows(each, paths, prefixes) for each in shown):
                    return True
        return False

    def _mounts(self, thread: str, readers: bool) -> list[Located]:
        """Return the mounts of the volumes' file system where a thread is: readers', or others."""
        shown = located(parse(proc.read(f"/proc/{thread}/mountinfo")), self._device)
        return [each for each in shown if self._is_readers(each[0]) is readers]

    # The processes.

    @cached_property
    def _by_view(self) -> Mapping[View, Sequence[Member]]:
        found = defaultdict(list)
        for process, place in self._places.items():
            found[place.view].append((process, place))
        return found

    def _members(self, who: str) -> list[Member]:
        """Return the processes of a container, or those outside of any in a namespace."""
        return [
            (process, place)
            for process, place in self._places.items()
            if who == (place.container or place.view.namespace)
        ]


def _name(who: str) -> str:
    """Return the container of a holder, or the namespace of one outside of any."""
    return who.partition("@")[0]


def _prefixes(paths: Collection[bytes]) -> tuple[bytes, ...]:
    """Return how the paths begin of what is below a directory."""
    return tuple(path.rstrip(b"/") + b"/" for path in paths)


def _shows(each: Located, paths: Collection[bytes], prefixes: tuple[bytes, ...]) -> bool:
    """Say whether a mount shows a directory, or what is below it."""
    root = each[0].root
    return root in paths or root.startswith(prefixes)


def _reaching(mounts: Sequence[Located], paths: Collection[bytes]) -> list[bytes]:
    """Return by which paths a directory can be reached through what is mounted above it."""
    return [
        moved(path, mount.root, mount.point)
        for mount, _ in mounts
        for path in paths
        if is_in(path, mount.root)
    ]


def _uses(thread: str, points: Collection[bytes]) -> bool:
    """Say whether a process is in one of these places, or has a file there open.

    One that we may not look at could have any.
    """
    try:
        return any(
            is_in(os.fsencode(path), point) for path in proc.used(thread) for point in points
        )
    except PermissionError:
        return True
    except _GONE:
        return False


def _outside(place: Place, began: int) -> str:
    """Return what tells a process outside of containers from any other, and those it starts."""
    number = proc.number_of_namespace(place.thread)
    return f"{place.view.namespace}@{number}.{began}"


def _lives(member: Member, who: str) -> bool:
    process, place = member
    with suppress(*_GONE):
        try:
            thread, _ = proc.living(process.pid)
        except PermissionError:
            return True  # it is there
        if place.container is not None:
            return True
        number, began = map(int, who.partition("@")[2].split("."))
        start = proc.command_and_start(process.pid)[1]
        # Without a number it could be another namespace of that name: then it must be the process.
        same = proc.number_of_namespace(thread) == number
        return same and (start >= began if number else start == began)
    return False


def _describe(members: Iterable[Member], *, ready: bool) -> Holder:
    """Return a holder by its oldest process; raise ProcessLookupError when all have gone."""
    oldest: tuple[int, str, str, Place] | None = None
    for process, place in members:
        with suppress(*_GONE):
            command, began = proc.command_and_start(process.pid)
            if oldest is None or began < oldest[0]:
                oldest = began, process.pid, command, place
    if oldest is None:
        raise ProcessLookupError
    began, pid, command, place = oldest
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began / proc.TICKS
    return Holder(
        place.container or _outside(place, began),
        place.container,
        int(pid),
        command,
        datetime.now(UTC) - timedelta(seconds=age),
        began / proc.TICKS,
        ready,
    )
