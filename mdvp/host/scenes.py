"""What can be seen of the mounts from where processes are: one scene for each view.

Failure model. A process may end, or go elsewhere, while its list of mounts is read: then it shows
nothing, and another with the same view may.

To read these lists is most of the work where there are many containers, and a container's mounts
are made when it starts. So a scene that was read through a process that had been there for SETTLED
seconds is believed for FRESH seconds, as long as that process lives. What somebody mounts later, by
hand, is seen that late.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from mdvp.host import proc
from mdvp.host.census import FRESH, SETTLED, Place, View
from mdvp.host.mountinfo import Location, Mount, located, parse, top
from mdvp.host.proc import Process


@dataclass(frozen=True, slots=True)
class Scene:
    """What a view shows of one file system, as read at `read` through a process known `since`.

    Attributes:
        mounts: the mounts of that file system, each with its location.
        top: what the view's own root directory is: a file system, and which directory of it.

    """

    mounts: Sequence[tuple[Mount, Location | None]]
    top: Location | None
    by: Process
    since: float
    read: float

    def holds(self, now: float) -> bool:
        """Say whether this can be believed without another look."""
        return self.read - self.since >= SETTLED and now - self.read < FRESH


Scenes: TypeAlias = Mapping[View, Scene]


class Gallery:
    """The scenes of the last look."""

    def __init__(self) -> None:
        """Have none yet."""
        self._scenes: Scenes = {}

    def see(
        self, places: Mapping[Process, Place], device: bytes, now: float, *, fresh: bool
    ) -> Scenes:
        """Return what each view shows of a file system; `fresh`: no scene of before is believed.

        There is none of a view whose root does not matter.
        """
        known = {} if fresh else self._scenes
        scenes: dict[View, Scene] = {}
        for process, place in places.items():
            if place.view.root is None or place.view in scenes:
                continue
            scene = known.get(place.view)
            if scene is None or scene.by not in places or not scene.holds(now):
                scene = _read(process, place, device, now)
            if scene is not None:
                scenes[place.view] = scene
        self._scenes = scenes
        return scenes


def _read(process: Process, place: Place, device: bytes, now: float) -> Scene | None:
    with suppress(FileNotFoundError, ProcessLookupError):
        mounts = parse(proc.read(f"/proc/{place.thread}/mountinfo"))
        if still_there(place):
            return Scene(located(mounts, device), top(mounts), process, place.since, now)
    return None


def still_there(place: Place) -> bool:
    """Say whether a process has still the view that it had."""
    view = place.view
    return (proc.namespace(place.thread), proc.root(place.thread)) == (view.namespace, view.root)
