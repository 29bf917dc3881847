"""mdvp against plain models of who may have what, and against many clients at once.

A container is a process that has the volume mounted in a namespace of its own: in a cgroup and with
a root of its own, as an engine's have, or neither. The models know who has what, for it is they who
start and end all of it; they never look at how mdvp does. The engine is the process of the test.

The first has an engine that may do nothing for an hour, so time does not matter in it. In the
second, time does: a lease lasts a second, and as long as the engine is at work.
"""

import ctypes
import fcntl
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Lock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from integration.follow import Log, following
from integration.holder import (
    BIND_AND_HIDE,
    HIDE,
    OWN_NAMESPACE,
    containing,
    hide_now,
    holding,
    new_container_id,
    ready,
)
from integration.plugin import Answer, Plugin, serving
from support import eventually

FOR_EVER = 3600  # seconds of grace: longer than any test
SHORT = 1  # the least there is
CLONE_NEWNS = 0x20000  # linux/sched.h


class World:
    """A root, and an mdvp that serves it, which can be killed and started again."""

    def __init__(self, place: Path, grace: int = FOR_EVER) -> None:
        self.root = place / "root"
        self.root.mkdir()
        self.point = place / "point"
        self.point.mkdir()
        self.bound = place / "bound"
        self.bound.mkdir()
        self.log = Log()
        self.plugin: Plugin
        self._grace = grace
        self._socket = place / "mdvp.sock"
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        serve = serving(self.root, self._socket, GRACE=str(self._grace))
        self.plugin = self._running.enter_context(serve)
        self._running.enter_context(following(self.plugin, self.log))

    def kill(self) -> None:
        self._running.close()

    def call(self, endpoint: str, **message: object) -> Answer:
        return self.plugin.call(endpoint, **message)

    def status(self, name: str) -> Mapping[str, object]:
        status = self.call("Get", Name=name).message["Volume"]["Status"]
        assert isinstance(status, dict)
        return status


@contextmanager
def world(place: Path, grace: int = FOR_EVER) -> Iterator[World]:
    world = World(place, grace)
    try:
        yield world
    finally:
        world.kill()


@contextmanager
def own_world(place: Path, grace: int = FOR_EVER) -> Iterator[World]:
    """Make a world of its own: what one run leaves when it fails is in no other's way."""
    with TemporaryDirectory(dir=place) as own, world(Path(own), grace) as made:
        yield made


class Container:
    """A container that runs with a volume.

    Attributes:
        name: what Status calls it, and `called` what a refusal does.
        mount_id: that of the Mount that it was started for; None for one that just passes by, with
            a bind mount of the operator's.
        in_cgroup: whether it is in a cgroup, and with a root of its own.
        hidden: whether it shows no mount of the volume any more.

    """

    def __init__(self, directory: Path, point: Path, way: str | None, mount_id: str | None) -> None:
        """Start it; `way` is how it can hide, None for a process outside of any cgroup."""
        self.mount_id = mount_id
        self.in_cgroup = way is not None
        self.hidden = False
        self._running = ExitStack()
        if way is None:
            self._process = self._running.enter_context(holding(directory, point, BIND_AND_HIDE))
            self.name = self.called = f"process {self._process.pid} (sh)"
        else:
            self.name = new_container_id()
            self.called = f"container {self.name[:12]}"
            contained = containing(directory, point, self.name, HIDE[way])
            self._process = self._running.enter_context(contained)
        # The kernel rounds that moment by 1/100 s. What is next must be later by more.
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        eventually(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > begun + 0.02, True)

    def hide(self) -> None:
        hide_now(self._process)
        self.hidden = True

    def end(self) -> None:
        self._running.close()


@contextmanager
def using_what_the_host_has(directory: Path, point: Path) -> Iterator[str]:
    """Run a process, as a service may be, with a file open in what the host has bind-mounted.

    It has the volume, but not by any Mount. Yield its name.
    """
    subprocess.run(["mount", "--bind", directory, point], check=True)
    try:
        script = 'exec 3>>"$1/log" && echo ready && read -r _'
        with ready((*OWN_NAMESPACE, "sh", "-c", script, "sh", point)) as process:
            yield f"process {process.pid} (sh)"
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)


# How a container can hide: one in a cgroup in several ways.
ways = st.sampled_from([None, *HIDE])


@contextmanager
def file_open(directory: Path, point: Path) -> Iterator[None]:
    assert point.is_dir()  # the other kind needs it
    with (directory / "copy").open("w"):
        yield


@contextmanager
def mounted_in_a_thread(directory: Path, point: Path) -> Iterator[None]:
    """Have it mounted as newer engines do for `docker cp`: only one thread of theirs can see it."""

    def mount() -> int:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", directory, point], check=True)
        return threading.get_native_id()

    with ThreadPoolExecutor(1) as thread:
        number = thread.submit(mount).result()
        yield
    # It may be on its way out.
    eventually(lambda: Path(f"/proc/self/task/{number}").exists(), False)


# What an engine, here this process, does in a volume before a container starts, and for a copy.
Work = Callable[[Path, Path], AbstractContextManager[None]]
works = st.sampled_from([file_open, mounted_in_a_thread])


def begun(work: Work, directory: Path, point: Path) -> ExitStack:
    running = ExitStack()
    running.enter_context(work(directory, point))
    return running


@dataclass
class Lease:
    mounts: int
    since: int
    holder: int | None = None  # when the container that is on it began

    @property
    def waits(self) -> bool:
        return self.mounts > (0 if self.holder is None else 1)


@dataclass(frozen=True)
class Choice:
    """Leases, by mount ID, that got a holder at once: each one of these, nobody says which."""

    leases: frozenset[str]
    containers: frozenset[int]


@dataclass
class Volume:
    """What the model knows of a volume; times are numbers of steps."""

    options: dict[str, str]
    token: str
    leases: dict[str, Lease] = field(default_factory=dict)
    containers: dict[int, Container] = field(default_factory=dict)  # by when they began
    copies: dict[str, ExitStack] = field(default_factory=dict)  # by mount ID
    choices: list[Choice] = field(default_factory=list)

    @property
    def exclusive(self) -> bool:
        return self.options["access"] == "exclusive"

    @property
    def living(self) -> dict[str, Lease]:
        return {
            mount_id: lease
            for mount_id, lease in self.leases.items()
            if lease.waits or lease.holder in self.containers
        }

    @property
    def free(self) -> bool:
        return not self.containers and not self.living

    def started(self) -> set[str | None]:
        """Return the mount IDs that containers were started for which run."""
        return {container.mount_id for container in self.containers.values()}

    def attribute(self) -> None:
        """Put on each lease that waits for one a container that began since; on all, or none.

        Nobody gets there while the engine is at work.
        """
        waiting = {each: lease for each, lease in self.leases.items() if lease.holder is None}
        free = sorted(set(self.containers) - {lease.holder for lease in self.leases.values()})
        fitting = [
            order
            for order in permutations(free, len(waiting))
            if all(lease.since < it for lease, it in zip(waiting.values(), order, strict=True))
        ]
        if not waiting or self.copies or not fitting:
            return
        for lease, it in zip(waiting.values(), fitting[0], strict=True):
            lease.holder = it
        if len(fitting) > 1:
            self.choices.append(Choice(frozenset(waiting), frozenset().union(*fitting)))

    def is_unsure(self, mount_id: str) -> bool:
        """Say whether it depends on mdvp's choice if the container on a lease has ended."""
        return any(
            mount_id in choice.leases
            and not choice.containers.isdisjoint(self.containers)
            and not choice.containers <= set(self.containers)
            for choice in self.choices
        )

    def is_known(self, began: int) -> bool:
        """Say whether a container is on a lease, whatever mdvp's choice was."""
        return any(lease.holder == began for lease in self.leases.values()) and all(
            len(choice.leases) == len(choice.containers)
            for choice in self.choices
            if began in choice.containers
        )


class Volumes(RuleBasedStateMachine):
    """Random operations, in random order, each of which must end as the model says."""

    names = st.sampled_from(["one", "two"])
    ids = st.sampled_from(["a", "b", "c"])
    options = st.sampled_from(
        [{}, {"access": "shared"}, {"access": "exclusive"}, {"access": "shared", "uid": "1000"}]
    )

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.world = self.closing.enter_context(own_world(place))
        self.volumes: dict[str, Volume] = {}
        self.granted: set[tuple[str, str]] = set()
        self.step = 0
        self.restarts = 0

    # What can happen.

    @initialize(one=options, two=options)
    def begin(self, one: dict[str, str], two: dict[str, str]) -> None:
        self.create("one", one)
        self.create("two", two)

    @rule(name=names, options=options)
    def create_of_any(self, name: str, options: dict[str, str]) -> None:
        self.create(name, options)

    def create(self, name: str, options: dict[str, str]) -> None:
        answer = self.world.call("Create", Name=name, Opts=options)
        volume = self.volumes.get(name)
        if volume is None:
            assert answer.status == 200
            token = secrets.token_hex()
            self.volumes[name] = Volume({"access": "exclusive", **options}, token)
            # Neither to write nor to read it this process has to open it, which would be work.
            (self.world.root / name / "token").symlink_to(token)
            return
        differing = {key for key, text in options.items() if volume.options.get(key) != text}
        if not differing:
            assert answer.status == 200
        else:
            assert answer.status == 409
            assert f"volume '{name}' exists with access=" in answer.error

    @rule(name=names, mount_id=ids)
    def mount_by_any(self, name: str, mount_id: str) -> None:
        self.mount(name, mount_id)

    @precondition(lambda self: self.mounted())
    @rule(data=st.data())
    def mount_again(self, data: st.DataObject) -> None:
        self.mount(*data.draw(st.sampled_from(self.mounted())))

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def given_back_and_mounted_again(self, data: st.DataObject) -> None:
        """As when an engine was stopped, and started again, and its container has lived on."""
        name, mount_id = data.draw(st.sampled_from(self.held()))
        while self.volumes[name].leases[mount_id].mounts:
            self.unmount(name, mount_id)
        self.mount(name, mount_id)

    def held(self) -> list[tuple[str, str]]:
        """Return the leases whose container runs."""
        return [
            (name, mount_id)
            for name, volume in self.volumes.items()
            for mount_id, lease in volume.leases.items()
            if lease.holder in volume.containers
        ]

    @precondition(lambda self: self.stale())
    @rule(data=st.data())
    def mount_by_one_that_lost_it(self, data: st.DataObject) -> None:
        self.mount(*data.draw(st.sampled_from(self.stale())))

    def stale(self) -> list[tuple[str, str]]:
        """Return who once had an exclusive volume that somebody else has."""
        return [
            (name, mount_id)
            for name, mount_id in sorted(self.granted)
            if (volume := self.volumes.get(name)) is not None
            if volume.exclusive and not volume.free and mount_id not in volume.living
        ]

    def mount(self, name: str, mount_id: str) -> None:
        volume = self.volumes.get(name)
        if volume is not None and volume.is_unsure(mount_id):
            return
        answer = self.world.call("Mount", Name=name, ID=mount_id)
        if volume is None:
            assert answer.status == 404
            return
        living = volume.living
        mine = living.get(mount_id)
        strangers = set(volume.containers) - {mine.holder if mine else None}
        alone = not strangers and all(each == mount_id for each in living)
        if not alone and volume.exclusive:
            self.is_refused(answer, name)
            return
        assert answer.message == {"Mountpoint": str(self.world.root / name)}
        if mine is None:
            mine = Lease(1, self.step)
        elif mine.holder is not None and mine.holder not in volume.containers:
            # One of its Mounts has ended with its container, and this one is for another start.
            mine = Lease(max(1, mine.mounts), self.step)
        else:
            # A container that runs has come by one, though that may have been given back.
            mine.mounts = 1 + max(mine.mounts, 0 if mine.holder is None else 1)
        volume.leases = {**living, mount_id: mine}
        self.granted.add((name, mount_id))

    def is_refused(self, answer: Answer, name: str) -> None:
        """Check that it is, because of somebody who has the volume."""
        volume = self.volumes[name]
        assert answer.status == 409
        assert f"volume '{name}' is in use: " in answer.error
        having = [each.called for each in volume.containers.values()]
        assert any(each in answer.error for each in having or volume.living)

    @rule(name=names, data=st.data())
    def unmount_by_any(self, name: str, data: st.DataObject) -> None:
        granted = sorted(self.granted)  # most of which is given back, or lost
        self.unmount(*data.draw(st.sampled_from([*self.mounted(), *granted, (name, "nobody")])))

    def mounted(self) -> list[tuple[str, str]]:
        return [(name, each) for name, of in self.volumes.items() for each in of.leases]

    def unmount(self, name: str, mount_id: str) -> None:
        volume = self.volumes.get(name)
        if volume is not None and mount_id in volume.copies:
            self.end_copy(volume, mount_id)
        answer = self.world.call("Unmount", Name=name, ID=mount_id)
        assert answer.status == (404 if volume is None else 200)
        if volume is None or mount_id not in volume.leases:
            return
        lease = volume.leases[mount_id]
        lease.mounts = max(0, lease.mounts - 1)
        if not lease.mounts and lease.holder is None:
            del volume.leases[mount_id]

    @precondition(lambda self: self.copyable())
    @rule(data=st.data(), work=works, way=ways)
    def copy_begins(self, data: st.DataObject, work: Work, way: str | None) -> None:
        name, mount_id = data.draw(st.sampled_from(self.copyable()))
        directory = self.world.root / name
        self.volumes[name].copies[mount_id] = begun(work, directory, self.world.point)
        self.pass_by_for_a_moment(name, way)  # which is not whom it is copied for

    def copyable(self) -> list[tuple[str, str]]:
        return [
            (name, mount_id)
            for name, volume in self.volumes.items()
            for mount_id, lease in volume.leases.items()
            if lease.waits and mount_id not in volume.copies
        ]

    @precondition(lambda self: self.copying())
    @rule(data=st.data())
    def copy_ends(self, data: st.DataObject) -> None:
        name, mount_id = data.draw(st.sampled_from(self.copying()))
        self.end_copy(self.volumes[name], mount_id)

    def copying(self) -> list[tuple[str, str]]:
        return [(name, each) for name, of in self.volumes.items() for each in of.copies]

    def end_copy(self, volume: Volume, mount_id: str) -> None:
        volume.copies.pop(mount_id).close()
        # Before anything else happens mdvp looks, as the invariant has it do otherwise.
        volume.attribute()
        self.look()

    @precondition(lambda self: self.startable())
    @rule(data=st.data(), way=ways)
    def container_starts(self, data: st.DataObject, way: str | None) -> None:
        name, mount_id = data.draw(st.sampled_from(self.startable()))
        self.start(name, mount_id, way)

    def startable(self) -> list[tuple[str, str]]:
        """Return those who were granted a volume, and whose container has not started.

        Who passes by may be on their lease. Left out are those whose own was there and has ended:
        a lease has one holder in its life.
        """
        return [
            (name, mount_id)
            for name, volume in self.volumes.items()
            if not volume.exclusive or volume.started() <= {None}
            for mount_id, lease in volume.living.items()
            if mount_id not in volume.started()
            if lease.holder is None or self.passes_by(volume, lease.holder)
        ]

    def passes_by(self, volume: Volume, began: int) -> bool:
        container = volume.containers.get(began)
        return container is not None and container.mount_id is None

    @precondition(lambda self: len(self.passing()) < 2)
    @rule(name=names, way=ways)
    def somebody_passes_by(self, name: str, way: str | None) -> None:
        if name in self.volumes:
            self.start(name, None, way)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), way=ways)
    def somebody_passes_by_for_a_moment(self, data: st.DataObject, way: str | None) -> None:
        self.pass_by_for_a_moment(data.draw(st.sampled_from(self.waiting())), way)

    def pass_by_for_a_moment(self, name: str, way: str | None) -> None:
        began, volume = self.step, self.volumes[name]
        self.start(name, None, way)
        assert volume.containers[began].name in shown(self.look()[name], "mounted_by")
        volume.attribute()
        volume.containers.pop(began).end()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def somebody_uses_for_a_moment_what_the_host_has(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.waiting()))
        with using_what_the_host_has(self.world.root / name, self.world.bound) as user:
            assert user in shown(self.look()[name], "mounted_by")

    def waiting(self) -> list[str]:
        """Return the volumes that wait for a container."""
        return [
            name
            for name, volume in self.volumes.items()
            if any(lease.holder is None for lease in volume.leases.values())
        ]

    def passing(self) -> list[int]:
        return [
            began
            for volume in self.volumes.values()
            for began in volume.containers
            if self.passes_by(volume, began)
        ]

    def start(self, name: str, mount_id: str | None, way: str | None) -> None:
        container = Container(self.world.root / name, self.world.point, way, mount_id)
        self.closing.callback(container.end)
        self.volumes[name].containers[self.step] = container

    @precondition(lambda self: self.visible())
    @rule(data=st.data())
    def container_hides(self, data: st.DataObject) -> None:
        name, began = data.draw(st.sampled_from(self.visible()))
        self.volumes[name].containers[began].hide()

    def visible(self) -> list[tuple[str, int]]:
        """Return who has not hidden, and of whom mdvp knows so well that it does not matter."""
        return [
            (name, began)
            for name, volume in self.volumes.items()
            for began, container in volume.containers.items()
            if not container.hidden and volume.is_known(began)
        ]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def container_dies(self, data: st.DataObject) -> None:
        name, began = data.draw(st.sampled_from(self.running()))
        self.volumes[name].containers.pop(began).end()

    def running(self) -> list[tuple[str, int]]:
        return [(name, each) for name, of in self.volumes.items() for each in of.containers]

    @rule(name=names)
    def remove(self, name: str) -> None:
        answer = self.world.call("Remove", Name=name)
        volume = self.volumes.get(name)
        if volume is None:
            assert answer.status == 404
        elif volume.free:
            assert answer.status == 200
            assert not (self.world.root / name).exists()
            del self.volumes[name]
        else:
            self.is_refused(answer, name)

    @precondition(lambda self: self.restarts < 1 and self.mounted())
    @rule()
    def mdvp_is_killed_and_starts_again(self) -> None:
        self.restarts += 1
        self.world.kill()
        self.world.start()

    # What is true after each.

    def look(self) -> dict[str, Mapping[str, object]]:
        return {name: self.world.status(name) for name in self.volumes}

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.step += 1
        assert set(self.world.plugin.volumes()) == set(self.volumes)
        for name, status in self.look().items():
            volume = self.volumes[name]
            volume.attribute()
            containers = volume.containers.values()
            assert {key: status.get(key) for key in volume.options} == volume.options
            assert status["mounted"] is not volume.free
            having = [container.name for container in containers]
            assert sorted(shown(status, "mounted_by")) == sorted(having)
            starting = [] if having else volume.living
            assert sorted(shown(status, "mount_ids")) == sorted(starting)
            several = volume.exclusive and sum(each.in_cgroup for each in containers) > 1
            warned = any("several containers" in each for each in shown(status, "warnings"))
            assert warned is several
            assert str((self.world.root / name / "token").readlink()) == volume.token
            assert not volume.exclusive or len(volume.started() - {None}) <= 1
        self.figures_are_as_the_model_says()

    def figures_are_as_the_model_says(self) -> None:
        found = self.world.plugin.metrics()
        volumes = self.volumes.values()
        exclusive = sum(volume.exclusive for volume in volumes)
        assert found["mdvp_volumes", "exclusive"] == exclusive
        assert found["mdvp_volumes", "shared"] == len(volumes) - exclusive
        assert found["mdvp_volumes_in_use",] == sum(not volume.free for volume in volumes)
        several = [
            volume
            for volume in volumes
            if volume.exclusive and sum(it.in_cgroup for it in volume.containers.values()) > 1
        ]
        assert found["mdvp_volumes_had_twice",] == len(several)
        leases = [lease for volume in volumes for lease in volume.living.values()]
        held = sum(lease.holder is not None for lease in leases)
        assert found["mdvp_leases", "held"] == held
        assert found["mdvp_leases", "waiting"] == len(leases) - held

    def teardown(self) -> None:
        with self.closing:
            self.all_can_be_removed()
        assert not self.world.log.says("Traceback")

    def all_can_be_removed(self) -> None:
        for name, volume in self.volumes.items():
            for copy in volume.copies.values():
                copy.close()
            for container in volume.containers.values():
                container.end()
            volume.containers.clear()
            for mount_id, lease in volume.living.items():
                for _ in range(lease.mounts):
                    self.world.call("Unmount", Name=name, ID=mount_id)
            assert self.world.call("Remove", Name=name).status == 200
        assert self.world.plugin.volumes() == []


def shown(status: Mapping[str, object], key: str) -> list[str]:
    found = status.get(key, [])
    assert isinstance(found, list)
    return found


class Copies(RuleBasedStateMachine):
    """One exclusive volume, a lease that lasts a second, and an engine that takes its time.

    Whoever has the volume has it because the engine is at work for them, or by a container that
    runs. When neither is so any more, it is waited for that nobody has it.
    """

    NAME = "data"
    ids = st.sampled_from(["a", "b", "c"])

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.world = self.closing.enter_context(own_world(place, SHORT))
        assert self.world.call("Create", Name=self.NAME).status == 200
        self.directory = self.world.root / self.NAME
        self.copied_for: str | None = None
        self.copy = ExitStack()
        self.into_running = False  # the copy was begun while a container ran, which it is for
        self.container: Container | None = None
        self.waits = 0
        self.restarts = 0

    @property
    def owner(self) -> str | None:
        """Whose the volume is: the mount ID; None when it is nobody's."""
        return self.copied_for or (self.container.mount_id if self.container else None)

    def mount(self, mount_id: str) -> Answer:
        return self.world.call("Mount", Name=self.NAME, ID=mount_id)

    def unmount(self, mount_id: str) -> None:
        assert self.world.call("Unmount", Name=self.NAME, ID=mount_id).status == 200

    # What can happen.

    @rule(mount_id=ids, work=works)
    def engine_copies(self, mount_id: str, work: Work) -> None:
        """For a container that is to start, or to one that runs, or for one that may not have it.

        For the latter it may also be one that had the volume, or is copied for.
        """
        answer = self.mount(mount_id)
        if self.owner not in (None, mount_id):
            assert answer.status == 409
        elif self.copied_for == mount_id:
            assert answer.status == 200
            self.unmount(mount_id)
        else:
            assert answer.status == 200
            self.copied_for = mount_id
            self.into_running = self.container is not None
            self.copy = begun(work, self.directory, self.world.point)
            self.closing.callback(self.copy.close)

    @precondition(lambda self: self.is_without_a_sign() and self.waits < 2)
    @rule()
    def grace_period_is_over(self) -> None:
        self.waits += 1
        time.sleep(1.2 * SHORT)

    def is_without_a_sign(self) -> bool:
        """Say whether somebody has the volume, and no mount of theirs shows that."""
        hidden = self.container is not None and self.container.hidden
        return hidden or (self.container is None and self.copied_for is not None)

    @precondition(lambda self: self.copied_for)
    @rule(way=ways)
    def somebody_passes_by(self, way: str | None) -> None:
        """They have it, but are not whom the engine works for."""
        passing = Container(self.directory, self.world.point, way, None)
        self.closing.callback(passing.end)
        assert passing.name in shown(self.world.status(self.NAME), "mounted_by")
        passing.end()

    @precondition(lambda self: self.copied_for and not (self.container or self.into_running))
    @rule(way=ways, hides=st.booleans())
    def container_starts(self, way: str | None, hides: bool) -> None:
        """Not by a Mount by which a running one was copied into: a lease has one holder, ever."""
        container = Container(self.directory, self.world.point, way, self.copied_for)
        self.closing.callback(container.end)
        self.container = container
        self.end_copy()
        self.it_is_whose_the_model_says()
        if hides:
            container.hide()

    def end_copy(self) -> None:
        self.copy.close()
        self.copied_for = None

    @precondition(lambda self: self.container and not self.container.hidden)
    @rule()
    def container_hides(self) -> None:
        assert self.container
        self.container.hide()

    @precondition(lambda self: self.container)
    @rule()
    def container_dies(self) -> None:
        assert self.container
        self.container.end()
        self.container = None

    @precondition(lambda self: self.copied_for)
    @rule(first=st.booleans())
    def engine_unmounts(self, first: bool) -> None:
        """As after any copy; `first`: it is not through with it."""
        assert self.copied_for
        if first:
            self.unmount(self.copied_for)
            self.end_copy()
        else:
            mount_id = self.copied_for
            self.end_copy()
            self.unmount(mount_id)

    @precondition(lambda self: self.copied_for and not self.container and self.waits < 2)
    @rule()
    def engine_gives_up(self) -> None:
        self.waits += 1
        since = time.monotonic()
        assert self.world.status(self.NAME)["mounted"] is True  # it was seen at work at this moment
        self.end_copy()
        eventually(lambda: self.world.status(self.NAME)["mounted"], False)
        assert time.monotonic() >= since + SHORT

    @precondition(lambda self: self.restarts < 1 and self.owner)
    @rule()
    def mdvp_is_killed_and_starts_again(self) -> None:
        self.restarts += 1
        self.world.kill()
        self.world.start()

    # What is true after each.

    @invariant()
    def it_is_whose_the_model_says(self) -> None:
        status = self.world.status(self.NAME)
        assert status["mounted"] is bool(self.owner)
        assert shown(status, "mounted_by") == ([self.container.name] if self.container else [])
        if self.owner:
            assert self.mount("other").status == 409
            assert self.world.call("Remove", Name=self.NAME).status == 409

    def teardown(self) -> None:
        with self.closing:
            self.copy.close()
        assert not self.world.log.says("Traceback")


def run(machine: Callable[[], RuleBasedStateMachine], runs: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # it is only called
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)  # a failure is made as short as can be before it is shown
def test_volumes_are_who_the_model_says_they_are(short_path: Path) -> None:
    run(lambda: Volumes(short_path), runs=16, steps=60)


@pytest.mark.timeout(600)
def test_a_volume_is_whose_it_is_copied_for_however_long_that_takes(short_path: Path) -> None:
    run(lambda: Copies(short_path), runs=5, steps=25)


CLIENTS = 64
VISITS = 10
SHARED = "shared"
CONTESTED = ["red", "green", "blue", SHARED]


class Client:
    """A client that does as it likes with the volumes, and looks whether it is alone in its own."""

    def __init__(self, world: World, number: int, tally: dict[str, int], lock: Lock) -> None:
        self.world = world
        self.id = f"client{number}"
        self.random = Random(number)  # noqa: S311
        self.tally = tally
        self.lock = lock

    def run(self) -> None:
        for _ in range(VISITS):
            name = self.random.choice(CONTESTED)
            self.random.choice([self.create, self.remove, self.visit, self.visit])(name)

    def call(self, endpoint: str, name: str, refusals: Mapping[int, str], **more: object) -> bool:
        """Call; say whether it was done. No other refusal than these is right."""
        answer = self.world.call(endpoint, Name=name, **more)
        with self.lock:
            key = f"{endpoint} {answer.status}"
            self.tally[key] = self.tally.get(key, 0) + 1
        if answer.status == 200:
            return True
        assert refusals[answer.status] in answer.error
        return False

    def create(self, name: str) -> None:
        access = "shared" if name == SHARED else "exclusive"
        self.call("Create", name, {}, Opts={"access": access})

    def remove(self, name: str) -> None:
        self.call("Remove", name, {404: "no volume", 409: "is in use"})

    def visit(self, name: str) -> None:
        refusals = {404: "no volume"} if name == SHARED else {404: "no volume", 409: "is in use"}
        if not self.call("Mount", name, refusals, ID=self.id):
            return
        directory = self.world.root / name
        descriptor = os.open(directory / "owner", os.O_CREAT | os.O_RDONLY)
        try:
            how = fcntl.LOCK_SH if name == SHARED else fcntl.LOCK_EX
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)  # BlockingIOError: two of them at once
            if self.random.random() < 0.3:  # docker cp
                assert self.call("Mount", name, {}, ID=self.id)
                assert self.call("Unmount", name, {}, ID=self.id)
            assert self.call("Get", name, {})
            # It was not removed, either.
            assert (directory / "owner").stat().st_ino == os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        assert self.call("Unmount", name, {}, ID=self.id)


def test_many_clients_at_once_are_one_at_a_time(short_path: Path) -> None:
    tally: dict[str, int] = {}
    with world(short_path) as earth:
        lock = Lock()
        clients = [Client(earth, number, tally, lock) for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(Client.run, clients))
        for name in earth.plugin.volumes():
            assert earth.call("Remove", Name=name).status == 200
        assert earth.plugin.volumes() == []
        assert not earth.log.says("ERROR")
        assert not earth.log.says("Traceback")
    # All that can happen did.
    for each in ("Create 200", "Remove 200", "Remove 404", "Remove 409", "Mount 409", "Mount 404"):
        assert tally.get(each), tally
