"""mdvp against a plain model of who may have what, and against many clients at once.

A container is a process that has the volume mounted in a namespace of its own.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from integration.holder import holding
from integration.plugin import Answer, Plugin, serving
from support import eventually

FOR_EVER = 3600  # seconds of grace: longer than any test
# A volume that only serves to have mdvp look out for containers at once, by a Mount of it.
BELL = "bell"


class World:
    """A root, and an mdvp that serves it, which can be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self.root.mkdir()
        self.point = place / "point"
        self.point.mkdir()
        self.log = Log()
        self.plugin: Plugin
        self._socket = place / "mdvp.sock"
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        serve = serving(self.root, self._socket, GRACE=str(FOR_EVER))
        self.plugin = self._running.enter_context(serve)
        self._running.enter_context(following(self.plugin, self.log))

    def kill(self) -> None:
        self._running.close()

    def call(self, endpoint: str, **message: object) -> Answer:
        return self.plugin.call(endpoint, **message)


@contextmanager
def world(place: Path) -> Iterator[World]:
    world = World(place)
    try:
        yield world
    finally:
        world.kill()


@dataclass
class Lease:
    mounts: int
    since: int
    holder: int | None = None  # when the container that is on it began

    @property
    def waits(self) -> bool:
        return self.mounts > (0 if self.holder is None else 1)


@dataclass
class Container:
    shown: str
    mount_id: str
    running: ExitStack


@dataclass
class Volume:
    """What the model knows of a volume; times are numbers of steps."""

    options: dict[str, str]
    token: str
    leases: dict[str, Lease] = field(default_factory=dict)
    containers: dict[int, Container] = field(default_factory=dict)  # by when they began


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
        # A world of its own: what one run leaves when it fails is in no other's way.
        own = self.closing.enter_context(TemporaryDirectory(dir=place))
        self.world = self.closing.enter_context(world(Path(own)))
        self.volumes: dict[str, Volume] = {}
        self.step = 0
        self.restarts = 0
        self.sightings = {"one": 0, "two": 0}
        assert self.world.call("Create", Name=BELL).status == 200

    # The model.

    def living(self, volume: Volume) -> dict[str, Lease]:
        return {
            mount_id: lease
            for mount_id, lease in volume.leases.items()
            if lease.waits or lease.holder in volume.containers
        }

    def free(self, volume: Volume) -> bool:
        return not volume.containers and not self.living(volume)

    def look(self, name: str) -> None:
        """Have the model, and mdvp, see which containers have started."""
        volume = self.volumes[name]
        waiting = [lease for lease in volume.leases.values() if lease.holder is None]
        free = set(volume.containers) - {lease.holder for lease in volume.leases.values()}
        orders = permutations(sorted(free), len(waiting)) if waiting else ()
        for order in orders:
            if any(lease.since >= began for lease, began in zip(waiting, order, strict=True)):
                continue
            for lease, began in zip(waiting, order, strict=True):
                lease.holder = began
            self.sightings[name] += 1
            self.world.call("Mount", Name=BELL, ID=BELL)
            self.world.call("Unmount", Name=BELL, ID=BELL)
            eventually(lambda: self.noticed(name), self.sightings[name])
            break

    def noticed(self, name: str) -> int:
        return self.world.log.count(f"INFO volume {name} is mounted in ")

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
            self.volumes[name] = Volume({"access": "exclusive", **options}, secrets.token_hex())
            (self.world.root / name / "token").write_text(self.volumes[name].token)
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

    def mount(self, name: str, mount_id: str) -> None:
        answer = self.world.call("Mount", Name=name, ID=mount_id)
        volume = self.volumes.get(name)
        if volume is None:
            assert answer.status == 404
            return
        living = self.living(volume)
        mine = living.get(mount_id)
        strangers = set(volume.containers) - {mine.holder if mine else None}
        alone = not strangers and all(each == mount_id for each in living)
        if not alone and volume.options["access"] != "shared":
            assert answer.status == 409
            assert f"volume '{name}' is in use: " in answer.error
            for container in list(volume.containers.values())[:1]:
                assert "process " in answer.error, container
            return
        assert answer.message == {"Mountpoint": str(self.world.root / name)}
        if mine:
            mine.mounts += 1
        volume.leases = {**living, mount_id: mine or Lease(1, self.step)}

    @rule(name=names, data=st.data())
    def unmount_by_any(self, name: str, data: st.DataObject) -> None:
        self.unmount(*data.draw(st.sampled_from([*self.mounted(), (name, "nobody")])))

    def mounted(self) -> list[tuple[str, str]]:
        return [(name, each) for name, of in self.volumes.items() for each in of.leases]

    def unmount(self, name: str, mount_id: str) -> None:
        answer = self.world.call("Unmount", Name=name, ID=mount_id)
        volume = self.volumes.get(name)
        assert answer.status == (404 if volume is None else 200)
        if volume is None or mount_id not in volume.leases:
            return
        lease = volume.leases[mount_id]
        lease.mounts = max(0, lease.mounts - 1)
        if not lease.mounts and lease.holder is None:
            del volume.leases[mount_id]
        self.look(name)

    @precondition(lambda self: self.startable())
    @rule(data=st.data())
    def container_starts(self, data: st.DataObject) -> None:
        name, mount_id = data.draw(st.sampled_from(self.startable()))
        volume = self.volumes[name]
        running = ExitStack()
        process = running.enter_context(holding(self.world.root / name, self.world.point))
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        volume.containers[self.step] = Container(f"process {process.pid} (sh)", mount_id, running)
        # The kernel rounds that moment by 1/100 s. What is next must be later by more.
        eventually(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > begun + 0.02, True)
        self.look(name)

    def startable(self) -> list[tuple[str, str]]:
        """Return those who were granted a volume, and whose container has not started."""
        return [
            (name, mount_id)
            for name, volume in self.volumes.items()
            if volume.options["access"] == "shared" or not volume.containers
            for mount_id in self.living(volume)
            if all(mount_id != each.mount_id for each in volume.containers.values())
        ]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def container_dies(self, data: st.DataObject) -> None:
        name, began = data.draw(st.sampled_from(self.running()))
        self.volumes[name].containers.pop(began).running.close()

    def running(self) -> list[tuple[str, int]]:
        return [(name, each) for name, of in self.volumes.items() for each in of.containers]

    @rule(name=names)
    def remove(self, name: str) -> None:
        answer = self.world.call("Remove", Name=name)
        volume = self.volumes.get(name)
        if volume is None:
            assert answer.status == 404
        elif self.free(volume):
            assert answer.status == 200
            assert not (self.world.root / name).exists()
            del self.volumes[name]
        else:
            assert answer.status == 409
            assert f"volume '{name}' is in use: " in answer.error

    @precondition(lambda self: self.restarts < 1)
    @rule()
    def mdvp_is_killed_and_starts_again(self) -> None:
        self.restarts += 1
        self.world.kill()
        self.world.start()

    # What is true after each.

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.step += 1
        assert set(self.world.plugin.volumes()) == {BELL, *self.volumes}
        for name, volume in self.volumes.items():
            status = self.world.call("Get", Name=name).message["Volume"]["Status"]
            assert {key: status.get(key) for key in volume.options} == volume.options
            assert status["mounted"] is not self.free(volume)
            assert sorted(status.get("mounted_by", [])) == sorted(
                container.shown for container in volume.containers.values()
            )
            starting = [] if volume.containers else self.living(volume)
            assert sorted(status.get("mount_ids", [])) == sorted(starting)
            assert (self.world.root / name / "token").read_text() == volume.token
            assert volume.options["access"] == "shared" or len(volume.containers) <= 1

    def teardown(self) -> None:
        with self.closing:
            self.all_can_be_removed()
        assert not self.world.log.says("Traceback")

    def all_can_be_removed(self) -> None:
        for name, volume in self.volumes.items():
            for container in volume.containers.values():
                container.running.close()
            volume.containers.clear()
            for mount_id, lease in self.living(volume).items():
                for _ in range(lease.mounts):
                    self.world.call("Unmount", Name=name, ID=mount_id)
            assert self.world.call("Remove", Name=name).status == 200
        assert self.world.plugin.volumes() == [BELL]


@pytest.mark.timeout(600)  # a failure is made as short as can be before it is shown
def test_volumes_are_who_the_model_says_they_are(short_path: Path) -> None:
    run_state_machine_as_test(
        lambda: Volumes(short_path),  # type: ignore[arg-type]  # it is only called
        settings=settings(
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


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
