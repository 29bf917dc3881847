"""What one look at the host has shown: who has a directory, who lives, and who is at work.

A directory is given by its paths in its file system, as mountinfo has them. What is asked of a
process is how it is when it is asked; one that has gone by then does nothing any more.

What the host has bind-mounted itself is copied wherever its mounts are copied: into services, into
containers that have `/` mounted, and for a moment into each container that starts. Such a copy is
known by its location, which is the original's, and it counts only while a process uses it.
"""

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from mdvp.core.lease import Engine, Holder
from mdvp.host import proc
from mdvp.host.census import Place, View
from mdvp.host.mountinfo import Location, Mount, Mounts, is_in, located, moved, parse, top
from mdvp.host.proc import Process
from mdvp.host.scenes import Scene, Scenes, still_there

Member: TypeAlias = tuple[Process, Place]
Located: TypeAlias = tuple[Mount, Location | None]

_GONE = (FileNotFoundError, ProcessLookupError)
_OF_ANY_CONTAINER = (b"/dev", b"/proc", b"/sys")


class Look:
    """A look at the host."""

    def __init__(
        self, places: Mapping[Process, Place], scenes: Scenes, device: bytes, host: str | None
    ) -> None:
        """Show where processes are, and what of the file system `device` is mounted there.

        `host` is a process in the host's mount namespace, if there is one that we may look at.
        """
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
    ) -> list[Holder]:
        """Return who has a directory, or what is below it; and of those `known`, who lives.

        The `engines` do not count, nor what they start to do their work.
        """
        found: dict[str, Holder] = {}
        for member, ready in chain(self._mounting(paths), self._using(paths)):
            if not self._works_for(member, engines):
                self._add(found, member, ready=ready)
        # A process outside of containers is known by how its namespace was when it was first shown.
        for who in known:
            if (holder := self._living(who)) is not None:
                found[_name(who)] = holder
        return list(found.values())

    def _mounting(self, paths: Collection[bytes]) -> Iterator[tuple[Member, bool]]:
        """Yield who has a directory mounted on their own, and whether they are set up."""
        for view, scene in self._scenes.items():
            if self._own(scene, paths):
                for member in self._by_view[view]:
                    yield member, self._is_set_up(scene) or member[1].container is None

    def _using(self, paths: Collection[bytes]) -> Iterator[tuple[Member, bool]]:
        """Yield who uses a directory where the host has mounted it, or through a copy of that."""
        on_host = _points(self._on_host, paths)
        for view, members in self._by_view.items() if on_host else ():
            scene = self._scenes.get(view)
            points = on_host if scene is None else _points(scene.mounts, paths)
            if scene is None or not self._own(scene, paths):
                for member in members:
                    # We have each directory open ourselves, and are nobody's container.
                    if member[0].pid != str(os.getpid()) and _uses(member[1].thread, points):
                        yield member, False

    def _own(self, scene: Scene, paths: Collection[bytes]) -> bool:
        """Say whether a scene has more of a directory than copies of what the host has mounted.

        What is mounted in the root file system of a container is its own: for `docker cp` some
        engines mount it there for themselves, too.
        """
        shown = [each for each in scene.mounts if _shows(each[0], paths)]
        if not shown:
            return False
        originals = {(mount.root, location) for mount, location in self._on_host}
        own = scene.top[0] if scene.top and self._is_set_up(scene) else None
        return any(
            location is None or location[0] == own or (mount.root, location) not in originals
            for mount, location in shown
        )

    def _is_set_up(self, scene: Scene) -> bool:
        """Say whether a view is more than a copy of the host's, as a container's is at first."""
        return scene.top != self._host_top

    @cached_property
    def _host_mounts(self) -> Mounts:
        if self._host is None:
            return {}
        # Now, after all others: what was copied from it was there before.
        return parse(proc.read(f"/proc/{self._host}/mountinfo"))

    @cached_property
    def _on_host(self) -> Sequence[Located]:
        return located(self._host_mounts, self._device)

    @cached_property
    def _host_top(self) -> Location | None:
        return top(self._host_mounts)

    def _works_for(self, member: Member, engines: Collection[Engine]) -> bool:
        """Say whether a process outside of containers runs the program of one of the engines.

        An engine starts itself again under other names to do its work, such as docker-untar.
        """
        place = member[1]
        if place.container is not None or not engines:
            return False
        with suppress(*_GONE, PermissionError):
            return proc.program(place.thread) in {proc.program(str(each.pid)) for each in engines}
        return False

    def _add(self, found: dict[str, Holder], member: Member, *, ready: bool) -> None:
        place = member[1]
        name = place.container or (
            place.view.namespace if place.view.root else f"process {member[0].pid}"
        )
        known = found.get(name)
        # A container that has several views is set up when one of them is.
        if known is not None and (known.ready or not ready):
            return
        with suppress(*_GONE):
            if place.container is None and not _is_roots(place):
                return
            # What is held must be so now: the process may have ended, or gone elsewhere.
            if place.view.root is None or still_there(place):
                members = self._members(name) if place.view.root or place.container else [member]
                found[name] = _describe(members, ready=ready)

    # Who lives.

    def _living(self, who: str) -> Holder | None:
        """Return the holder that was once shown as `who`, if a process of it lives."""
        living = [member for member in self._members(_name(who)) if _lives(member, who)]
        with suppress(*_GONE):
            return replace(_describe(living, ready=True), who=who)
        return None

    def lives(self, engine: Engine) -> bool:
        """Say whether an engine is there, and is the process that it was."""
        with suppress(*_GONE, PermissionError):
            proc.living(str(engine.pid))
            return proc.command_and_start(str(engine.pid))[1] == engine.started
        return False

    def begun(self, since: float) -> list[Holder]:
        """Return the containers that began after a moment, in seconds since the machine did."""
        containers = {place.container for place in self._places.values() if place.container}
        found = []
        for container in sorted(containers):
            with suppress(*_GONE):
                found.append(_describe(self._members(container), ready=True))
        return [holder for holder in found if holder.began >= since]

    def has_of_host(self, holder: Holder) -> bool:
        """Say whether a container has been handed something that the host has.

        What an engine mounts for any container does not count: its root, what is in /dev, /proc and
        /sys, and files such as /etc/hosts, which are in a directory of the container's id.
        """
        devices = {mount.device for mount in self._host_mounts.values()}
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

    def at_work(self, engine: Engine, paths: Collection[bytes]) -> bool:
        """Say whether an engine, or what it has started, has a directory open or mounted.

        It may work in a thread of its own namespace, or by a process that it has started.
        """
        with suppress(*_GONE, PermissionError):
            return self._has_open(str(engine.pid), paths) or any(
                self._works_for(member, [engine]) for member, _ in self._mounting(paths)
            )
        return False

    def _has_open(self, pid: str, paths: Collection[bytes]) -> bool:
        mounts = located(parse(proc.read(f"/proc/{pid}/mountinfo")), self._device)
        if _uses(pid, [*_points(mounts, paths), *_reaching(mounts, paths)]):
            return True
        ours = proc.namespace(pid)
        for thread in proc.threads(pid):
            with suppress(*_GONE):
                if proc.namespace(thread) == ours:
                    continue
                shown = located(parse(proc.read(f"/proc/{thread}/mountinfo")), self._device)
                if _points(shown, paths):
                    return True
        return False

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


def _shows(mount: Mount, paths: Collection[bytes]) -> bool:
    return any(is_in(mount.root, path) for path in paths)


def _points(mounts: Sequence[Located], paths: Collection[bytes]) -> list[bytes]:
    """Return where a directory, or what is below it, is mounted."""
    return [mount.point for mount, _ in mounts if _shows(mount, paths)]


def _reaching(mounts: Sequence[Located], paths: Collection[bytes]) -> list[bytes]:
    """Return by which paths a directory can be reached through what is mounted above it."""
    return [
        moved(path, mount.root, mount.point)
        for mount, _ in mounts
        for path in paths
        if is_in(path, mount.root)
    ]


def _uses(thread: str, points: Collection[bytes]) -> bool:
    """Say whether a process is in one of these places, or has a file there open."""
    with suppress(*_GONE):
        return any(
            is_in(os.fsencode(path), point) for path in proc.used(thread) for point in points
        )
    return False


def _is_roots(place: Place) -> bool:
    """Say whether a process is where root, or who runs mdvp, can have put it.

    Any user can make namespaces, and mount in them what they can read.
    """
    return proc.owner_of_users(place.thread) in (0, os.geteuid())


def _outside(place: Place, began: int) -> str:
    """Return what tells a process outside of containers from any other, and those it starts."""
    number = proc.number_of_namespace(place.thread)
    return f"{place.view.namespace}@{number}.{began}"


def _lives(member: Member, who: str) -> bool:
    process, place = member
    with suppress(*_GONE):
        thread, _ = proc.living(process.pid)
        if place.container is not None:
            return True
        number, _, began = who.partition("@")[2].partition(".")
        same = proc.number_of_namespace(thread) == int(number)
        return same and proc.command_and_start(process.pid)[1] >= int(began)
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
