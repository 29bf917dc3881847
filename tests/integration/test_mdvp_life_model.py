"""The life of volumes against a plain model: removed, restored, kept, copied, changed, renamed.

The model knows what content each volume has, by a token that is put into it when it is made, and
which options; and so of what was removed and can be had back. It never looks at how mdvp does that.
Whoever has a volume has it by a Mount of this process, which stands for an engine; containers are
in the other models. mdvp is killed and started again between operations, and may lose its database:
all volumes are there again by what their directories say, and what is in the trash is untouched.
"""

import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from integration.plugin import Answer
from integration.test_mdvp_model import own_world, run
from support import eventually

USUAL_MODE = "0755"
WAITS = "30s"  # longer than anything here takes


@dataclass
class Volume:
    """What the model knows of a volume, or of what is left of one that was removed.

    A clone has the owner and permissions of its source, and not as options of its own.
    """

    options: dict[str, str]
    token: str
    owner: str = str(os.geteuid())
    mode: str = USUAL_MODE
    held_by: set[str] = field(default_factory=set)

    @property
    def exclusive(self) -> bool:
        return self.options["access"] == "exclusive"

    @property
    def is_protected(self) -> bool:
        return self.options.get("protect") == "true"

    @property
    def fate(self) -> str:
        return self.options.get("on-remove", "delete")

    def with_options(self, options: Mapping[str, str]) -> "Volume":
        """Return it as it is with these options, of which an empty one is as if not given."""
        merged = {**self.options, **options}
        return replace(
            self,
            options={"access": "exclusive"} | {name: it for name, it in merged.items() if it},
            owner=options.get("uid", self.owner) or str(os.geteuid()),
            mode=options.get("mode", self.mode) or USUAL_MODE,
        )


class Lives(RuleBasedStateMachine):
    """Random operations, in random order, each of which must end as the model says."""

    names = st.sampled_from(["one", "two", "three"])
    ids = st.sampled_from(["a", "b"])
    fates = st.sampled_from(["delete", "keep", "trash:1h", "trash:1h"])
    options = st.fixed_dictionaries(
        {},
        optional={
            "on-remove": fates,
            "protect": st.sampled_from(["true", "false"]),
            "mode": st.sampled_from(["0700", "0770"]),
            "uid": st.sampled_from(["1000", "2000"]),
            "wait": st.just(WAITS),
        },
    )
    changes = st.one_of(
        st.fixed_dictionaries({"protect": st.sampled_from(["true", "false", ""])}),
        st.fixed_dictionaries({"on-remove": st.one_of(fates, st.just(""))}),
        st.fixed_dictionaries({"wait": st.sampled_from([WAITS, ""])}),
        st.fixed_dictionaries({"mode": st.sampled_from(["0700", "0750", ""])}),
        st.fixed_dictionaries({"uid": st.sampled_from(["2000", ""])}),
        st.fixed_dictionaries({"access": st.sampled_from(["shared", "exclusive"])}),
    )

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.world = self.closing.enter_context(own_world(place))
        self.volumes: dict[str, Volume] = {}
        self.kept: dict[str, Volume] = {}
        self.trash: dict[str, list[Volume]] = {}  # by name, the last removed last
        self.expiries = 0
        self.restarts = 0
        self.losses = 0

    # What can happen.

    @initialize(one=options, two=options)
    def begin(self, one: dict[str, str], two: dict[str, str]) -> None:
        for name in ("one", "one", "two"):
            self.create(name, {"on-remove": "trash:1h"})
            self.remove(name)
        self.create("one", one)
        self.create("two", two)

    @rule(name=names, options=options)
    def create(self, name: str, options: dict[str, str]) -> None:
        answer = self.ask("Create", name, Opts=options)
        if name in self.volumes:
            has = {"protect": "false"} | self.volumes[name].options
            same = all(has.get(each) == text for each, text in options.items())
            self.is_answered(answer, None if same else "exists with")
        elif name in self.kept:
            self.is_answered(answer, "exists and is no volume")
        else:
            self.is_answered(answer)
            self.volumes[name] = Volume({}, secrets.token_hex()).with_options(options)
            (self.world.root / name / "token").symlink_to(self.volumes[name].token)

    @rule(name=names)
    def remove(self, name: str) -> None:
        answer = self.ask("Remove", name)
        volume = self.volumes.get(name)
        if volume is None:
            self.is_answered(answer, "no volume", status=404)
        elif volume.is_protected or volume.held_by:
            assert answer.status == 409
            assert "is protected" in answer.error or "is in use" in answer.error
        else:
            self.is_answered(answer)
            self.put_away(name, self.volumes.pop(name))

    def put_away(self, name: str, volume: Volume) -> None:
        if volume.fate == "keep":
            self.kept[name] = volume
        elif volume.fate != "delete":
            self.trash.setdefault(name, []).append(volume)

    @precondition(lambda self: self.expiries < 2)
    @rule(name=names)
    def expires(self, name: str) -> None:
        """What is in the trash for a second is there for a second, and then is not."""
        volume = self.volumes.get(name)
        if volume is None or volume.is_protected or volume.held_by:
            return
        self.expiries += 1
        self.is_answered(self.own("Change", Name=name, Opts={"on-remove": "trash:1s"}))
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        before = len(self.removed(name))
        self.is_answered(self.ask("Remove", name))
        del self.volumes[name]
        eventually(lambda: len(self.removed(name)), before)
        assert time.clock_gettime(time.CLOCK_BOOTTIME) >= began + 1
        eventually(lambda: os.listdir(self.world.root / ".mdvp" / "trash"), [])

    @rule(of=names, name=names, options=options)
    def restore(self, of: str, name: str, options: dict[str, str]) -> None:
        if name in self.volumes:
            return  # a Create of what is there is another rule
        answer = self.ask("Create", name, Opts={**options, "restore": of})
        if name in self.kept:
            assert answer.status == 409
        elif not self.trash.get(of):
            assert answer.status == 409
            assert "is not in the trash" in answer.error or "no removed volume" in answer.error
        else:
            self.is_answered(answer)
            self.volumes[name] = self.trash[of].pop().with_options(options)

    @rule(name=names, options=options)
    def adopt(self, name: str, options: dict[str, str]) -> None:
        if name in self.volumes:
            return
        answer = self.ask("Create", name, Opts={**options, "adopt": "true"})
        if name not in self.kept:
            self.is_answered(answer, "to adopt")
        else:
            self.is_answered(answer)
            self.volumes[name] = self.kept.pop(name).with_options(options)

    @rule(of=names, name=names, options=options, live=st.booleans())
    def clone(self, of: str, name: str, options: dict[str, str], *, live: bool) -> None:
        if name in self.volumes:
            return
        wanted = {**options, "from": of, **({"from-live": "true"} if live else {})}
        answer = self.ask("Create", name, Opts=wanted)
        source = self.volumes.get(of)
        if source is None:
            assert answer.status in {404, 409}
        elif name in self.kept:
            self.is_answered(answer, "exists and is no volume")
        elif source.held_by and not live:
            assert answer.status == 409
            assert "from-live=true" in answer.error
        else:
            self.is_answered(answer)
            alike = Volume({}, source.token, source.owner, source.mode)
            self.volumes[name] = alike.with_options(options)

    @rule(name=names, changes=changes)
    def change(self, name: str, changes: dict[str, str]) -> None:
        answer = self.own("Change", Name=name, Opts=changes)
        volume = self.volumes.get(name)
        if volume is None:
            self.is_answered(answer, "no volume", status=404)
        elif volume.held_by and self.needs_it(volume, changes):
            self.is_answered(answer, "while nobody has it")
        else:
            self.is_answered(answer)
            self.volumes[name] = volume.with_options(changes)

    def needs_it(self, volume: Volume, changes: dict[str, str]) -> bool:
        """Say whether nobody is to have a volume for that change."""
        access = changes.get("access", volume.options["access"])
        return access != volume.options["access"] or bool(changes.keys() & {"mode", "uid"})

    @rule(name=names, new=names)
    def rename(self, name: str, new: str) -> None:
        if name == new:
            return
        answer = self.own("Rename", Name=name, NewName=new)
        volume = self.volumes.get(name)
        if volume is None:
            self.is_answered(answer, "no volume", status=404)
        elif new in self.volumes or new in self.kept or volume.held_by:
            assert answer.status == 409
        else:
            self.is_answered(answer)
            self.volumes[new] = self.volumes.pop(name)

    @rule(name=names, mount_id=ids)
    def mount(self, name: str, mount_id: str) -> None:
        volume = self.volumes.get(name)
        if volume is not None and mount_id in volume.held_by:
            return  # how often somebody mounts is in the other models
        if volume is not None and volume.exclusive and volume.held_by:
            self.refused_or_waits(name, volume, mount_id)
            return
        answer = self.ask("Mount", name, ID=mount_id)
        if volume is None:
            self.is_answered(answer, "no volume", status=404)
        else:
            self.is_answered(answer)
            volume.held_by.add(mount_id)

    def refused_or_waits(self, name: str, volume: Volume, mount_id: str) -> None:
        if "wait" not in volume.options:
            self.is_answered(self.ask("Mount", name, ID=mount_id), "is in use")
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.ask, "Mount", name, ID=mount_id)
            eventually(lambda: self.world.status(name).get("waiting"), 1)
            self.gets_it_next(name, volume, mount_id, waiting)

    def gets_it_next(
        self, name: str, volume: Volume, mount_id: str, waiting: "Future[Answer]"
    ) -> None:
        assert not waiting.done()
        for holder in sorted(volume.held_by):
            self.unmount(name, holder)
        self.is_answered(waiting.result(5))
        volume.held_by.add(mount_id)

    @rule(name=names, mount_id=ids)
    def unmount(self, name: str, mount_id: str) -> None:
        answer = self.ask("Unmount", name, ID=mount_id)
        volume = self.volumes.get(name)
        assert answer.status == (404 if volume is None else 200)
        if volume is not None:
            volume.held_by.discard(mount_id)

    @precondition(lambda self: self.restarts < 2)
    @rule()
    def mdvp_is_killed_and_starts_again(self) -> None:
        self.restarts += 1
        self.world.kill()
        self.world.start()

    @precondition(lambda self: self.losses < 1)
    @rule()
    def the_database_is_lost(self) -> None:
        self.losses += 1
        self.world.kill()
        for file in (self.world.root / ".mdvp").glob("state.db*"):
            file.unlink()
        for volume in self.volumes.values():
            volume.held_by.clear()  # and it is said in the log that nobody can know
        self.world.start()

    # How it is asked, and what is true after each.

    def ask(self, endpoint: str, name: str, **more: object) -> Answer:
        return self.world.call(endpoint, Name=name, **more)

    def own(self, command: str, **message: object) -> Answer:
        return self.world.plugin.own(command, **message)

    def is_answered(self, answer: Answer, refusal: str | None = None, status: int = 409) -> None:
        """Check that it was done, or refused with these words."""
        if refusal is None:
            assert answer.status == 200, answer
        else:
            assert answer.status == status, answer
            assert refusal in answer.error, answer

    def removed(self, name: str) -> list[Mapping[str, object]]:
        """Return what is in the trash of that name, the first removed first."""
        listed = self.own("Removed").message["Volumes"]
        return [it for it in listed if it["name"] == name and not it["kept"]][::-1]

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        assert set(self.world.plugin.volumes()) == set(self.volumes)
        for name, volume in self.volumes.items():
            status = self.world.status(name)
            shown = {each: status.get(each) for each in (*volume.options, "protect", "wait")}
            assert shown == {"protect": None, "wait": None, **volume.options}
            assert status["mounted"] is bool(volume.held_by)
        self.the_disk_has_all_of_it()
        self.the_trash_is_as_the_model_says()

    def the_disk_has_all_of_it(self) -> None:
        root = self.world.root
        there = {**self.volumes, **self.kept}
        assert {each.name for each in root.iterdir()} == {".mdvp", *there}
        for name, volume in there.items():
            assert str((root / name / "token").readlink()) == volume.token
            status = (root / name).stat()
            assert status.st_mode & 0o7777 == int(volume.mode, 8)
            assert status.st_uid == int(volume.owner)

    def the_trash_is_as_the_model_says(self) -> None:
        listed = self.own("Removed").message["Volumes"]
        assert {it["name"] for it in listed if it["kept"]} == set(self.kept)
        for name, volumes in self.trash.items():
            found = [it["options"] for it in self.removed(name)]
            assert [self.comparable(each) for each in found] == [
                self.comparable(volume.options) for volume in volumes
            ]
        found_in_all = sum(not it["kept"] for it in listed)
        assert found_in_all == sum(map(len, self.trash.values()))

    def comparable(self, options: object) -> Mapping[str, str]:
        """Return options without what only says how a volume was made."""
        assert isinstance(options, dict)
        return {each: text for each, text in options.items() if not each.startswith("from")}

    def teardown(self) -> None:
        self.closing.close()
        assert not self.world.log.says("Traceback")


@pytest.mark.timeout(600)  # a failure is made as short as can be before it is shown
def test_the_life_of_volumes_is_as_the_model_says(short_path: Path) -> None:
    run(lambda: Lives(short_path), runs=8, steps=30)
