"""`mdvp-sync conflicts`, `resolve` and `accept`: what they say, ask for and bring back."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest
from support import eventually

from sync import commands
from sync.cli import main
from sync.core.access import Access
from sync.core.decision import Mode, Side
from sync.core.manifest import Entries
from sync.decide.errors import CannotDecideError
from sync.decide.resolution import DONE, NOT_DONE, NOT_YET, Answer, Resolution
from sync.redis.address import Address
from sync.redis.notes import Conflict, Notes
from sync.redis.target import Target
from sync.report.status import HELD, LIVE, Status, StatusFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

ODD = b"odd\n\xff"
CONFLICT = Conflict(1_795_942_800.0, "3 bytes", "no key")


def connected(server: RedisServer, prefix: bytes = b"") -> Target:
    entries = Entries(trimmed=False, digests=True)
    target = Target(Address(Access(server.url)).dial, entries, prefix)
    target.join()
    return target


@pytest.fixture(params=[b"", b"app1:"], ids=["bare", "prefix"])
def target(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Target]:
    with closing(connected(redis_server, request.param)) as target:
        yield target


@pytest.fixture
def notes(target: Target) -> Notes:
    return Notes(target)


class World:
    """A resolution, and a service beside it that does what it is told to in each pause."""

    def __init__(self, target: Target, notes: Notes) -> None:
        self.target = target
        self.notes = notes
        self.mode = Mode.TWO_WAY_SAFE
        self.patience = 10.0
        self.service: Callable[[], object] = lambda: None

    @property
    def resolution(self) -> Resolution:
        def pause(_: float) -> object:
            return self.service()

        return Resolution(self.target, self.notes, self.mode, self.patience, pause)

    def resolve(self, name: bytes, side: Side, number: int | None = None) -> Answer:
        return self.resolution.resolve(os.fsdecode(name), [name], side, number)

    def has_lost(self, name: bytes, value: bytes) -> int:
        """Have a value lose; return its number."""
        (number,) = self.notes.new_numbers()
        key = self.target.prefix + name
        requests = self.notes.keep(name, number, len(value), 1_795_942_800)
        self.target.ask((b"SET", key, value), *requests)
        return number

    def values(self) -> dict[int, bytes | None]:
        """Return the values that lost, by number."""
        return {each.number: self.notes.lost_value(each.number) for each in self.notes.lost()}


@pytest.fixture
def world(target: Target, notes: Notes) -> World:
    return World(target, notes)


class TestAConflict:
    @pytest.mark.parametrize(
        ("side", "words"), [(Side.DISK, "what the disk has"), (Side.REDIS, "what Redis has")]
    )
    def test_is_ended_by_the_service(self, world: World, side: Side, words: str) -> None:
        def serve() -> None:
            assert world.notes.requests() == {ODD: side}
            world.notes.clear_conflicts([ODD])
            world.notes.done([ODD])

        world.notes.note_conflicts({ODD: CONFLICT, b"other": CONFLICT})
        world.service = serve
        answer = world.resolve(ODD, side)
        assert answer == Answer(f"odd\\n\\xff is in conflict no more: {words} counts", DONE)
        assert world.notes.conflicts().keys() == {b"other"}

    def test_may_be_named_as_it_was_shown(self, world: World) -> None:
        def serve() -> None:
            world.notes.clear_conflicts(world.notes.requests())
            world.notes.done(world.notes.requests())

        world.notes.note_conflicts({ODD: CONFLICT})
        world.service = serve
        written = "odd\\n\\xff"
        answer = world.resolution.resolve(written, [os.fsencode(written)], Side.DISK, None)
        assert answer.status == DONE
        assert world.notes.conflicts() == {}

    def test_that_is_one_still_is_said(self, world: World) -> None:
        world.notes.note_conflicts({b"a": CONFLICT})
        world.service = lambda: world.notes.done([b"a"])
        assert world.resolve(b"a", Side.DISK) == Answer(
            "a is still in conflict: it differs: 3 bytes on disk, no key in Redis", NOT_DONE
        )

    def test_waits_for_a_service_that_does_not_run(self, world: World) -> None:
        world.notes.note_conflicts({b"a": CONFLICT})
        world.patience = 0.0
        answer = world.resolve(b"a", Side.DISK)
        assert answer.status == NOT_YET
        assert "it will when it runs" in answer.words
        assert world.notes.requests() == {b"a": Side.DISK}

    def test_has_no_number(self, world: World) -> None:
        world.notes.note_conflicts({b"a": CONFLICT})
        with pytest.raises(CannotDecideError, match="a is in conflict: leave out --number"):
            world.resolve(b"a", Side.REDIS, 1)

    @pytest.mark.parametrize("side", Side)
    def test_must_be_there(self, world: World, side: Side) -> None:
        with pytest.raises(CannotDecideError, match=r"a is not in conflict; `mdvp-sync conflicts"):
            world.resolve(b"a", side)
        assert world.notes.requests() == {}

    @pytest.mark.parametrize(
        ("mode", "why"),
        [
            (Mode.ONE_WAY_REPLICA, "Redis is the directory's copy"),
            (Mode.REDIS_TO_DISK, "the directory is Redis' copy"),
            (Mode.TWO_WAY_RESOLVED, "the disk wins"),
        ],
    )
    def test_counts_no_more_in_a_mode_that_has_none(
        self, world: World, mode: Mode, why: str
    ) -> None:
        world.notes.note_conflicts({b"a": CONFLICT})
        world.mode = mode
        with pytest.raises(CannotDecideError, match=f"with SYNC_MODE={mode.value} {why}"):
            world.resolve(b"a", Side.DISK)


class TestAValueThatLost:
    @pytest.fixture
    def resolved(self, world: World) -> World:
        world.mode = Mode.TWO_WAY_RESOLVED
        return world

    def test_comes_back_and_what_it_replaces_is_kept(self, resolved: World) -> None:
        resolved.has_lost(ODD, b"one")
        resolved.has_lost(ODD, b"two")
        key = resolved.target.prefix + ODD
        resolved.target.ask((b"SET", key, b"now", b"EX", 100))
        answer = resolved.resolve(ODD, Side.REDIS)
        assert answer.status == DONE
        assert answer.words.startswith("odd\\n\\xff has the value again that lost at 2026-11-29 09")
        assert resolved.target.ask((b"GET", key), (b"TTL", key)) == [b"two", -1]
        assert [value for _, value in sorted(resolved.values().items())] == [b"one", b"now"]

    def test_comes_back_by_its_number(self, resolved: World) -> None:
        first, second = (resolved.has_lost(b"a", value) for value in (b"one", b"two"))
        assert resolved.resolve(b"a", Side.REDIS, first).status == DONE
        assert resolved.target.values([b"a"]) == [b"one"]
        assert resolved.values() == {second: b"two"}

    def test_that_is_large_is_not_transferred(
        self, resolved: World, redis_server: RedisServer
    ) -> None:
        resolved.has_lost(b"a", b"x" * 10_000_000)
        told = redis_server.client.info("stats")
        resolved.resolve(b"a", Side.REDIS)
        now = redis_server.client.info("stats")
        sent = now["total_net_output_bytes"] - told["total_net_output_bytes"]
        received = now["total_net_input_bytes"] - told["total_net_input_bytes"]
        assert max(sent, received) < 1_000_000
        assert resolved.target.lengths([b"a"]) == [10_000_000]

    def test_of_another_number_or_name_is_not_taken_for_it(self, resolved: World) -> None:
        number = resolved.has_lost(b"b", b"value")
        resolved.has_lost(b"a", b"value")
        with pytest.raises(CannotDecideError, match=f"no value {number} of a is kept"):
            resolved.resolve(b"a", Side.REDIS, number)

    def test_is_no_news_for_the_side_that_won(self, resolved: World) -> None:
        resolved.has_lost(b"a", b"value")
        with pytest.raises(CannotDecideError, match="what the disk has counts already"):
            resolved.resolve(b"a", Side.DISK)

    def test_stays_where_redis_is_not_followed(self, world: World) -> None:
        number = world.has_lost(b"a", b"value")
        world.mode = Mode.ONE_WAY_SAFE
        with pytest.raises(CannotDecideError, match="nothing that changes in Redis becomes a file"):
            world.resolve(b"a", Side.REDIS)
        assert world.values() == {number: b"value"}

    def test_does_not_replace_what_is_no_value(self, resolved: World) -> None:
        number = resolved.has_lost(b"a", b"value")
        resolved.target.ask((b"RPUSH", resolved.target.prefix + b"a", b"x"))
        with pytest.raises(CannotDecideError, match="a is a list in Redis: delete or rename"):
            resolved.resolve(b"a", Side.REDIS)
        assert resolved.values() == {number: b"value"}

    def test_that_is_gone_is_not_waited_for(
        self, resolved: World, redis_server: RedisServer
    ) -> None:
        number = resolved.has_lost(b"a", b"value")
        redis_server.client.delete(resolved.target.prefix + b"/mdvp-sync/lost/%d" % number)
        with pytest.raises(CannotDecideError, match=f"value {number} of a is not kept any more"):
            resolved.resolve(b"a", Side.REDIS)

    def test_comes_back_over_a_key_that_others_change_meanwhile(
        self, resolved: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolved.has_lost(b"a", b"value")
        redis_server.client.set(resolved.target.prefix + b"a", "before")
        new_numbers, left = resolved.notes.new_numbers, [b"one", b"two"]

        def meanwhile(count: int = 1) -> range:
            if left:
                redis_server.client.set(resolved.target.prefix + b"a", left.pop(0))
            return new_numbers(count)

        monkeypatch.setattr(resolved.notes, "new_numbers", meanwhile)
        assert resolved.resolve(b"a", Side.REDIS).status == DONE
        assert resolved.target.values([b"a"]) == [b"value"]
        assert list(resolved.values().values()) == [b"two"]


class TestAHold:
    @pytest.mark.parametrize(
        ("side", "words"), [(Side.DISK, "what the directory has"), (Side.REDIS, "what Redis has")]
    )
    def test_is_ended_by_the_service(self, world: World, side: Side, words: str) -> None:
        def serve() -> None:
            assert world.notes.accepted() is side
            world.notes.forget_accept()

        world.service = serve
        assert world.resolution.accept(side) == Answer(
            f"the service goes on, and {words} counts", DONE
        )

    def test_that_nobody_ends_is_not_accepted_for_later(self, world: World) -> None:
        world.patience = 0.0
        answer = world.resolution.accept(Side.DISK)
        assert answer.status == NOT_YET
        assert "so it is taken back" in answer.words
        assert world.notes.accepted() is None


class Run(Protocol):
    """Runs the command with arguments; returns its exit status, what it says, and its error."""

    def __call__(self, *arguments: str, **environ: str) -> tuple[int, list[str], str]: ...


@pytest.fixture
def run(
    redis_server: RedisServer,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setattr(commands, "_PATIENCE", 0.0)

    def run(*arguments: str, **environ: str) -> tuple[int, list[str], str]:
        complete = {
            "SYNC_ROOT": str(root),
            "REDIS_URL": redis_server.url,
            "SYNC_MODE": "two-way-safe",
            **environ,
        }
        code = main(arguments, complete)
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


class TestTheCommand:
    @pytest.fixture
    def target(self, redis_server: RedisServer) -> Iterator[Target]:
        with closing(connected(redis_server)) as target:
            yield target

    def test_lists_nothing(self, run: Run) -> None:
        assert run("conflicts") == (0, ["no conflicts"], "")
        assert run("conflicts", "--all") == (
            *(0, ["no conflicts", "no values that lost are kept"], ""),
        )

    def test_lists_what_is_in_conflict_and_what_lost(self, run: Run, world: World) -> None:
        world.notes.note_conflicts({ODD: CONFLICT})
        number = world.has_lost(b"a", b"value")
        code, lines, error = run("conflicts")
        assert (code, len(lines), error) == (1, 2, "")
        assert lines[0].startswith("odd\\n\\xff differs: 3 bytes on disk, no key in Redis, since ")
        code, lines, _ = run("conflicts", "--all")
        assert (code, len(lines)) == (1, 4)
        code, lines, _ = run("conflicts", "--json")
        said = json.loads("\n".join(lines))
        assert code == 1
        assert [each["name"] for each in said["conflicts"]] == ["odd\\n\\xff"]
        assert [each["number"] for each in said["lost"]] == [number]

    def test_does_not_list_what_an_earlier_mode_has_left(self, run: Run, world: World) -> None:
        world.notes.note_conflicts({b"a": CONFLICT})
        code, lines, _ = run("conflicts", SYNC_MODE="one-way-replica")
        assert (code, len(lines)) == (0, 1)
        assert lines[0].startswith("no conflicts: with SYNC_MODE=one-way-replica")

    @pytest.mark.parametrize("name", ["d/a", "./d//a", "{root}/d/a"])
    def test_takes_a_path_as_people_write_it(
        self, run: Run, world: World, root: Path, name: str
    ) -> None:
        world.notes.note_conflicts({b"d/a": CONFLICT})
        code, lines, _ = run("resolve", name.format(root=root), "--take", "redis")
        assert code == NOT_YET
        assert lines[0].startswith("d/a waits for the service")
        assert world.notes.requests() == {b"d/a": Side.REDIS}

    def test_refuses_what_is_not_there(self, run: Run, world: World) -> None:
        code, lines, error = run("resolve", "a", "--take", "disk")
        assert (code, lines) == (2, [])
        assert error.startswith("mdvp-sync: a is not in conflict; `mdvp-sync conflicts --all`")
        assert "/b is not below" in run("resolve", "/b", "--take", "disk")[2]
        assert world.notes.requests() == {}

    def test_brings_back_what_lost(self, run: Run, world: World) -> None:
        number = world.has_lost(b"a", b"value")
        code, _, error = run("resolve", "a", "--take", "redis", "--number", str(number))
        assert (code, error) == (0, "")
        assert world.target.values([b"a"]) == [b"value"]

    def test_accepts_nothing_where_nothing_is_held(
        self, run: Run, world: World, place: Path
    ) -> None:
        path = place / "status"
        StatusFile(path).write(Status(state=LIVE))
        code, _, error = run("accept", "disk", SYNC_STATUS=str(path))
        assert (code, error) == (
            *(2, "mdvp-sync: the service does not hold, so there is nothing to accept\n"),
        )
        StatusFile(path).write(Status(state=HELD, detail="much would go"))
        code, lines, _ = run("accept", "disk", SYNC_STATUS=str(path))
        assert code == NOT_YET
        assert lines[0].startswith("no service has taken it")
        assert world.notes.accepted() is None

    def test_accepts_no_redis_that_is_a_copy(self, run: Run, world: World) -> None:
        code, _, error = run("accept", "redis", SYNC_MODE="one-way-replica")
        assert code == 2
        assert "with SYNC_MODE=one-way-replica nothing in Redis becomes a file" in error
        assert world.notes.accepted() is None

    def test_does_not_mend_where_both_sides_count(self, run: Run, root: Path) -> None:
        (root / "a").write_text("value")
        code, _, error = run("verify", "--repair")
        assert code == 2
        assert "with SYNC_MODE=two-way-safe the service alone mends what differs" in error
        code, lines, _ = run("verify")
        assert code == 1
        assert lines[0] == "a is missing in Redis"
        assert lines[1].endswith("`mdvp-sync conflicts` lists what somebody has to decide")

    @pytest.mark.parametrize(
        "arguments", [("conflicts",), ("resolve", "a", "--take", "disk"), ("accept", "disk")]
    )
    def test_says_that_redis_is_away(
        self, run: Run, redis_server: RedisServer, arguments: tuple[str, ...]
    ) -> None:
        redis_server.kill()
        code, lines, error = run(*arguments)
        assert (code, lines) == (2, [])
        assert error.startswith(f"mdvp-sync: Redis at {redis_server.socket}: ")

    @pytest.mark.parametrize(
        "arguments", [("resolve", "a"), ("resolve", "a", "--take", "both"), ("accept",)]
    )
    def test_wants_to_be_told_the_side(self, run: Run, arguments: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2


def change_both(service: Service, path: Path) -> None:
    """Have both sides change what they had alike, before the service looks."""
    path.write_text("before")
    eventually(lambda: service.get(path.name), b"before")
    with service.paused():
        path.write_text("of the disk")
        service.redis.client.set(path.name, "of Redis")


@pytest.mark.parametrize("side", ["disk", "redis"])
def test_a_service_ends_a_conflict_as_somebody_has_decided(
    start: Start, root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(commands, "_PATIENCE", 10.0)
    service = start(in_step=True, SYNC_MODE="two-way-safe")
    change_both(service, root / "a")
    eventually(lambda: run("conflicts")[0], 1)
    code, lines, _ = run("resolve", "a", "--take", side)
    assert code == 0
    assert lines[0].startswith("a is in conflict no more")
    value = {"disk": "of the disk", "redis": "of Redis"}[side]
    assert ((root / "a").read_text(), service.get("a")) == (value, value.encode())
    assert run("conflicts")[:2] == (0, ["no conflicts"])


def test_a_service_brings_a_value_that_lost_back_to_the_disk(
    start: Start, root: Path, run: Run
) -> None:
    service = start(in_step=True, SYNC_MODE="two-way-resolved")
    change_both(service, root / "a")
    eventually(lambda: service.get("a"), b"of the disk")
    mode = {"SYNC_MODE": "two-way-resolved"}
    assert run("resolve", "a", "--take", "redis", **mode)[0] == 0
    eventually((root / "a").read_text, "of Redis")
    said = json.loads("\n".join(run("conflicts", "--json", **mode)[1]))
    assert [(each["name"], each["size"]) for each in said["lost"]] == [("a", 11)]


@pytest.mark.parametrize("mode", ["one-way-replica", "two-way-safe"])
def test_a_service_on_another_directory_holds_until_somebody_accepts_it(
    start: Start, root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    names = [f"file-{number}" for number in range(101)]
    for name in names:
        (root / name).write_text("value")
    start(in_step=True, SYNC_MODE=mode).stop(signal.SIGTERM)
    root.rename(root.with_name("moved"))
    root.mkdir()
    service = start(SYNC_MODE=mode)
    eventually(lambda: service.health()[0] == 1 and "service holds" in service.health()[1], True)
    words = "lacks the files of 101 of 101 keys; `mdvp-sync accept disk` removes these keys"
    assert words in service.health()[1]
    assert len(service.redis.keys()) == 101
    monkeypatch.setattr(commands, "_PATIENCE", 10.0)
    environ = {"SYNC_MODE": mode, "SYNC_STATUS": service.environ["SYNC_STATUS"]}
    assert run("accept", "disk", **environ)[:2] == (
        *(0, ["the service goes on, and what the directory has counts"]),
    )
    eventually(service.redis.keys, {})
    eventually(lambda: service.health()[0], 0)
    assert run("accept", "disk", **environ)[0] == 2


def test_a_service_makes_files_of_what_another_directory_lacks_if_somebody_says_so(
    start: Start, root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"file-{number}": f"value {number}" for number in range(101)}
    for name, value in files.items():
        (root / name).write_text(value)
    start(in_step=True, SYNC_MODE="two-way-safe").stop(signal.SIGTERM)
    root.rename(root.with_name("moved"))
    root.mkdir()
    service = start(SYNC_MODE="two-way-safe")
    eventually(lambda: "accept redis" in service.health()[1], True)
    monkeypatch.setattr(commands, "_PATIENCE", 10.0)
    assert run("accept", "redis")[0] == 0
    eventually(lambda: {path.name: path.read_text() for path in root.glob("file-*")}, files)
    assert len(service.redis.keys()) == 101


def test_a_service_fills_another_directory_that_is_a_copy_and_asks_nobody(
    start: Start, root: Path, redis_server: RedisServer
) -> None:
    values = {f"file-{number}": f"value {number}" for number in range(101)}
    redis_server.client.mset(values)
    start(in_step=True, SYNC_MODE="redis-to-disk").stop(signal.SIGTERM)
    root.rename(root.with_name("moved"))
    root.mkdir()
    start(SYNC_MODE="redis-to-disk")
    eventually(lambda: {path.name: path.read_text() for path in root.glob("file-*")}, values)
    assert len(redis_server.keys()) == 101
