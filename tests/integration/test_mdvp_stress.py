"""Many clients at once at the same few names: no volume has two holders, and no content is lost."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Lock

from integration.plugin import Answer, Plugin, serving

CLIENTS = 16
SECONDS = 2.0
NAMES = ["one", "two", "three", "four"]
CHANGES = [
    *({"on-remove": "keep"}, {"on-remove": "trash"}, {"on-remove": ""}),
    *({"uid": "1000", "mode": "0700"}, {"uid": "", "mode": ""}, {"wait": "1s"}, {"wait": ""}),
    *({"protect": "true"}, {"protect": "false"}, {"protect": ""}),
]


class Stress:
    """What the clients do, and what has become of it.

    Attributes:
        written: the names of all files that were written into volumes, each once.
        wrong: what must not be.

    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._lock = Lock()
        self._held: set[tuple[int, int]] = set()
        self.written: set[str] = set()
        self.wrong: list[str] = []

    def client(self, seed: int) -> None:
        random, end = Random(seed), time.monotonic() + SECONDS  # noqa: S311  # no secret
        work: list[Callable[[Random], object]] = [
            lambda random: self._create(random, {}),
            lambda random: self._create(random, {"restore": random.choice(NAMES)}),
            lambda random: self._create(random, {"adopt": "true"}),
            lambda random: self._create(random, {"from": random.choice(NAMES)}),
            lambda random: self._plugin.call("Remove", Name=random.choice(NAMES)),
            lambda random: self._own(random, "Rename", NewName=random.choice(NAMES)),
            lambda random: self._own(random, "Change", Opts=random.choice(CHANGES)),
            lambda _: self._plugin.own("Removed"),
            self._use,
            self._use,
        ]
        while time.monotonic() < end:
            random.choice(work)(random)

    def _create(self, random: Random, options: Mapping[str, str]) -> Answer:
        return self._plugin.call("Create", Name=random.choice(NAMES), Opts=options)

    def _own(self, random: Random, command: str, **message: object) -> Answer:
        return self._plugin.own(command, Name=random.choice(NAMES), **message)

    def _use(self, random: Random) -> None:
        name, who = random.choice(NAMES), os.urandom(8).hex()
        answer = self._plugin.call("Mount", Name=name, ID=who)
        if answer.status != 200:
            return
        place = Path(answer.message["Mountpoint"])
        status = place.stat()
        directory = (status.st_dev, status.st_ino)
        with self._lock:
            if directory in self._held:
                self.wrong.append(f"{name} has two holders")
            self._held.add(directory)
        (place / who).touch()
        time.sleep(random.random() / 100)
        with self._lock:
            if not (place / who).exists():
                self.wrong.append(f"{name} went while it was held")
            self.written.add(who)
            self._held.discard(directory)
        assert self._plugin.call("Unmount", Name=name, ID=who).status == 200


def test_many_clients_at_once_leave_each_volume_one_holder_and_all_content(
    short_path: Path,
) -> None:
    root, address = short_path / "root", short_path / "mdvp.sock"
    root.mkdir()
    with serving(root, address, ON_REMOVE="trash") as plugin:
        stress = Stress(plugin)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(stress.client, range(CLIENTS)))
        plugin.kill()
    with serving(root, address) as plugin:
        assert stress.wrong == []
        assert stress.written
        assert stress.written <= {path.name for path in root.rglob("*")}
        assert all((root / name).is_dir() for name in plugin.volumes())
        assert not any((root / ".mdvp" / "new").iterdir())
        assert not any((root / ".mdvp" / "trash").iterdir())
