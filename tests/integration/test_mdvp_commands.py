"""`mdvp ls`, `mdvp change` and `mdvp rename`, of a real mdvp process."""

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filesystems import file_system
from integration.holder import containing, holding, kill, new_container_id
from integration.locks import is_locked
from integration.plugin import Plugin, serving
from support import eventually

from mdvp.cli import main
from mdvp.wire import client

# What `setpriv` leaves the plugin.
RIGHTS = (
    "setpriv",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+sys_ptrace",
)
FIELDS = [
    *("name", "mountpoint", "created_at", "access", "mounted", "used_by", "since", "waiting"),
    *("size", "files", "measured_at", "limit", "filling", "options"),
]


@pytest.fixture
def plugin(short_path: Path) -> Iterator[Plugin]:
    (short_path / "root").mkdir()
    with serving(short_path / "root", short_path / "mdvp.sock", prefix=RIGHTS) as plugin:
        yield plugin


class Command:
    """The command `mdvp`, which asks one plugin."""

    def __init__(self, plugin: Plugin, output: pytest.CaptureFixture[str]) -> None:
        self._plugin = plugin
        self._output = output

    def __call__(self, *arguments: str) -> str:
        """Run it; return what it prints."""
        status, printed, error = self._run(arguments)
        assert (status, error) == (0, "")
        return printed

    def refused(self, *arguments: str) -> str:
        """Run it, which must fail; return the error."""
        status, printed, error = self._run(arguments)
        assert (status, printed) == (1, "")
        assert error.count("\n") == 1
        return error

    def _run(self, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        status = main([*arguments, f"--socket={self._plugin.socket}"])
        return status, *self._output.readouterr()


@pytest.fixture
def mdvp(plugin: Plugin, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(plugin, capsys)


def status(plugin: Plugin, name: str = "vol") -> dict[str, Any]:
    shown: dict[str, Any] = plugin.call("Get", Name=name).message["Volume"]["Status"]
    return shown


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


# change


def test_a_change_is_of_the_record_and_of_the_directory_and_stays(
    plugin: Plugin, mdvp: Command
) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "1000"})
    (plugin.root / "vol" / "file").write_text("content")
    options = {"access": "shared", "uid": "7", "gid": "33", "mode": "2770", "protect": "true"}
    more = {"on-remove": "trash:12h", "wait": "30s"}
    arguments = [f"-o{name}={text}" for name, text in {**options, **more}.items()]
    assert mdvp("change", "vol", *arguments) == "vol\n"
    assert status(plugin) == {**options, **more, "mounted": False}
    assert owner_and_mode(plugin.root / "vol") == (7, 33, 0o2770)
    assert (plugin.root / "vol" / "file").read_text() == "content"
    for mount_id in ("one", "two"):
        assert plugin.call("Mount", Name="vol", ID=mount_id).status == 200
    plugin.kill()
    with serving(plugin.root, plugin.address) as second:
        shown = status(second)
        assert {name: shown[name] for name in (*options, *more)} == {**options, **more}


def test_what_is_empty_is_taken_off(plugin: Plugin, mdvp: Command) -> None:
    given = {"access": "shared", "uid": "7", "gid": "33", "mode": "2770", "wait": "30s"}
    plugin.call("Create", Name="vol", Opts={**given, "protect": "true"})
    mdvp("change", "vol", *[f"-o{name}=" for name in (*given, "protect")])
    assert status(plugin) == {"access": "exclusive", "mounted": False}
    assert owner_and_mode(plugin.root / "vol") == (0, 0, 0o755)


def test_access_and_owner_are_changed_while_nobody_has_the_volume_and_the_rest_at_any_time(
    plugin: Plugin, mdvp: Command, point: Path
) -> None:
    plugin.call("Create", Name="vol")
    container = new_container_id()
    with holding(plugin.root / "vol", point, container=container):
        for option in ("access=shared", "uid=7", "gid=7", "mode=0700", "mode="):
            error = mdvp.refused("change", "vol", "-o", option, "-o", "protect=true")
            assert f"volume 'vol' is in use: container {container[:12]} has had it" in error
            assert "can be changed while nobody has it" in error
        assert status(plugin).keys() == {"access", "mounted", "mounted_by", "since"}
        for option in ("protect=true", "wait=5s", "on-remove=keep", "access=exclusive"):
            mdvp("change", "vol", "-o", option)
    assert status(plugin) == {
        "access": "exclusive",
        "on-remove": "keep",
        "protect": "true",
        "wait": "5s",
        "mounted": False,
    }
    assert owner_and_mode(plugin.root / "vol") == (0, 0, 0o755)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("colour=red", "volume option 'colour' cannot be changed: those that can are access, uid"),
        ("from=other", "volume option 'from' cannot be changed"),
        ("adopt=true", "volume option 'adopt' cannot be changed"),
        ("mode=rwx", "volume option mode cannot be 'rwx': it takes its permissions in octal"),
        ("wait=1h", "volume option wait cannot be '1h'"),
    ],
)
def test_what_cannot_be_changed_is_said(
    plugin: Plugin, mdvp: Command, option: str, words: str
) -> None:
    plugin.call("Create", Name="vol")
    assert words in mdvp.refused("change", "vol", "-o", "protect=true", "-o", option)
    assert status(plugin) == {"access": "exclusive", "mounted": False}


def test_what_is_no_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["change", "vol"], ["change", "vol", "-o", "shared"], ["rename", "vol"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    assert "'shared' is not OPTION=VALUE" in capsys.readouterr().err


def test_a_directory_that_is_not_the_volumes_is_not_changed(plugin: Plugin, mdvp: Command) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol").rename(plugin.root / "moved")
    (plugin.root / "vol").mkdir()
    assert "is not the directory that mdvp made" in mdvp.refused("change", "vol", "-ouid=7")
    assert owner_and_mode(plugin.root / "vol")[0] == owner_and_mode(plugin.root / "moved")[0] == 0
    mdvp("change", "vol", "-owait=5s")  # which is no matter of the directory
    assert status(plugin)["wait"] == "5s"


# rename


def test_a_renamed_volume_has_its_content_and_its_options(plugin: Plugin, mdvp: Command) -> None:
    plugin.call("Create", Name="old", Opts={"uid": "1000", "wait": "5s"})
    (plugin.root / "old" / "file").write_text("content")
    inode = (plugin.root / "old").stat().st_ino
    created = plugin.call("Get", Name="old").message["Volume"]["CreatedAt"]
    assert mdvp("rename", "old", "new") == "new\n"
    assert plugin.volumes() == ["new"]
    assert (plugin.root / "new").stat().st_ino == inode
    assert (plugin.root / "new" / "file").read_text() == "content"
    assert status(plugin, "new") == {
        "access": "exclusive",
        "uid": "1000",
        "wait": "5s",
        "mounted": False,
    }
    assert plugin.call("Get", Name="new").message["Volume"]["CreatedAt"] == created
    assert plugin.call("Mount", Name="new", ID="id").message == {
        "Mountpoint": str(plugin.root / "new")
    }
    for endpoint in ("Get", "Mount", "Path", "Remove"):
        assert plugin.call(endpoint, Name="old", ID="id").status == 404
    assert plugin.call("Create", Name="old").status == 200
    assert not list((plugin.root / "old").iterdir())


def test_a_renamed_volume_is_found_again_by_its_new_name(plugin: Plugin, mdvp: Command) -> None:
    plugin.call("Create", Name="old", Opts={"wait": "5s"})
    mdvp("rename", "old", "new")
    mdvp("change", "new", "-o", "wait=6s")
    plugin.kill()
    for path in (plugin.root / ".mdvp").glob("state.db*"):
        path.unlink()
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == ["new"]
        assert status(second, "new")["wait"] == "6s"


def test_a_renamed_volume_is_kept_from_cleaners_and_so_is_the_next_of_its_old_name(
    plugin: Plugin, mdvp: Command
) -> None:
    plugin.call("Create", Name="old")
    mdvp("rename", "old", "new")
    assert is_locked(plugin.root / "new")
    plugin.call("Create", Name="old")
    assert is_locked(plugin.root / "old")
    plugin.call("Remove", Name="new")
    plugin.call("Remove", Name="old")
    assert plugin.call("Create", Name="new").status == 200


def test_what_a_gone_container_has_left_of_its_lease_goes_with_the_old_name(
    plugin: Plugin, mdvp: Command, point: Path
) -> None:
    plugin.call("Create", Name="old")
    plugin.call("Mount", Name="old", ID="id")
    with holding(plugin.root / "old", point, container=new_container_id()):
        assert "is in use: container" in mdvp.refused("rename", "old", "new")
    plugin.call("Unmount", Name="old", ID="id")
    mdvp("rename", "old", "new")
    assert plugin.call("Mount", Name="new", ID="other").status == 200
    plugin.call("Create", Name="old")
    assert status(plugin, "old")["mounted"] is False


def test_a_lease_that_nobody_gave_back_does_not_keep_the_old_name(
    plugin: Plugin, mdvp: Command, point: Path
) -> None:
    plugin.call("Create", Name="old")
    plugin.call("Mount", Name="old", ID="id")
    container = new_container_id()
    with containing(plugin.root / "old", point, container) as process:
        eventually(lambda: status(plugin, "old").get("mounted_by"), [container])
        # It is its holder's from now on, and ends with that.
        eventually(lambda: "is in use: container" in mdvp.refused("rename", "old", "new"), True)
        kill(process)
    mdvp("rename", "old", "new")
    assert status(plugin, "new")["mounted"] is False
    assert plugin.metrics()["mdvp_leases_reclaimed_total",] == 1
    plugin.call("Create", Name="old")
    assert status(plugin, "old")["mounted"] is False


def test_what_was_said_of_the_old_name_is_said_of_the_next_volume_of_that_name(
    plugin: Plugin, mdvp: Command
) -> None:
    plugin.root.chmod(0o1777)
    plugin.call("Create", Name="old", Opts={"uid": "1000"})
    mdvp("rename", "old", "new")
    plugin.call("Create", Name="old", Opts={"uid": "1000"})
    assert plugin.stop().count("WARNING volume old: its directory is user 1000's") == 2


def take(path: Path) -> None:
    path.write_text("somebody's")


def replace(path: Path) -> None:
    path.rmdir()
    path.mkdir()


@pytest.mark.parametrize(
    ("new", "prepare", "words"),
    [
        ("other", lambda _: None, "there is a volume 'other' already"),
        ("old", lambda _: None, "there is a volume 'old' already"),
        ("../new", lambda _: None, "'../new' cannot be a volume's name"),
        ("new", lambda root: take(root / "new"), "/new exists and is no volume of mdvp"),
        ("new", lambda root: replace(root / "old"), "is not the directory that mdvp made"),
    ],
)
def test_a_rename_that_cannot_be_is_refused_and_changes_nothing(
    plugin: Plugin, mdvp: Command, new: str, prepare: Callable[[Path], None], words: str
) -> None:
    plugin.call("Create", Name="old")
    plugin.call("Create", Name="other")
    prepare(plugin.root)
    before = {path: path.lstat().st_ino for path in plugin.root.iterdir()}
    assert words in mdvp.refused("rename", "old", new)
    assert plugin.volumes() == ["old", "other"]
    assert {path: path.lstat().st_ino for path in plugin.root.iterdir()} == before


def test_a_volume_that_is_not_there_is_neither_renamed_nor_changed(
    plugin: Plugin, mdvp: Command
) -> None:
    assert "no volume 'old'" in mdvp.refused("rename", "old", "new")
    assert "no volume 'old'" in mdvp.refused("change", "old", "-owait=5s")
    assert plugin.volumes() == []


def test_a_volume_whose_directory_is_away_waits_for_that(plugin: Plugin, mdvp: Command) -> None:
    plugin.call("Create", Name="old")
    (plugin.root / "old").rename(plugin.root / "moved")
    for command in (("rename", "old", "new"), ("change", "old", "-o", "uid=7")):
        assert "its directory is not at" in mdvp.refused(*command)
    assert sorted(path.name for path in plugin.root.iterdir()) == [".mdvp", "moved"]
    assert status(plugin, "old") == {"access": "exclusive", "mounted": False}
    (plugin.root / "moved").rename(plugin.root / "old")
    mdvp("rename", "old", "new")


def test_a_subvolume_is_changed_and_renamed_like_any_directory(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        file_system("btrfs", short_path) as root,
        serving(root, short_path / "mdvp.sock", prefix=RIGHTS) as plugin,
    ):
        mdvp = Command(plugin, capsys)
        plugin.call("Create", Name="old")
        (root / "old" / "file").write_text("content")
        born = (root / "old").stat().st_ino, (root / "old").stat().st_dev
        mdvp("change", "old", "-o", "uid=7", "-o", "mode=0700")
        mdvp("rename", "old", "new")
        assert owner_and_mode(root / "new") == (7, 0, 0o700)
        assert ((root / "new").stat().st_ino, (root / "new").stat().st_dev) == born
        assert (root / "new" / "file").read_text() == "content"
        assert plugin.call("Mount", Name="new", ID="id").status == 200


# ls


def test_all_volumes_are_listed_with_who_has_them(
    plugin: Plugin, mdvp: Command, point: Path
) -> None:
    assert mdvp("ls").splitlines() == [
        "NAME   ACCESS   USED BY   SINCE   SIZE   FILES   LIMIT   OPTIONS"
    ]
    assert json.loads(mdvp("ls", "--json")) == []
    plugin.call("Create", Name="free", Opts={"uid": "7", "wait": "30s"})
    plugin.call("Create", Name="used", Opts={"access": "shared"})
    plugin.call("Create", Name="waits")
    plugin.call("Mount", Name="waits", ID="f" * 64)
    container = new_container_id()
    with holding(plugin.root / "used", point, container=container):
        # It counts what is in them when somebody asks, and nobody waits for that.
        eventually(lambda: [each["files"] for each in json.loads(mdvp("ls", "--json"))], [0, 0, 0])
        free, used, waits = json.loads(mdvp("ls", "--json"))
        rows = mdvp("ls").splitlines()
    assert [list(each) for each in (free, used, waits)] == [FIELDS] * 3
    assert free == {
        "name": "free",
        "mountpoint": str(plugin.root / "free"),
        "access": "exclusive",
        "created_at": free["created_at"],
        "mounted": False,
        "used_by": [],
        "since": None,
        "waiting": 0,
        "size": (plugin.root / "free").stat().st_blocks * 512,
        "files": 0,
        "measured_at": free["measured_at"],
        "limit": None,
        "filling": None,
        "options": {"access": "exclusive", "uid": "7", "wait": "30s"},
    }
    assert (used["access"], used["mounted"], used["used_by"]) == ("shared", True, [container])
    assert (waits["mounted"], waits["used_by"]) == (True, [f"mount {'f' * 64}"])
    assert free["measured_at"] >= free["created_at"]
    size = rows[1].split()[4]
    assert size in {"0", "4K", "8K"}  # of a directory, by file system
    assert [row.split() for row in rows[1:]] == [
        ["free", "exclusive", "-", "-", size, "0", "-", "uid=7,wait=30s"],
        ["used", "shared", container[:12], used["since"], size, "0", "-", "-"],
        ["waits", "exclusive", "mount", "f" * 12, waits["since"], size, "0", "-", "-"],
    ]
    assert len({row.index("  -", 40) for row in rows[1:]}) == 1  # they are in columns


def test_those_who_wait_for_a_volume_are_counted(plugin: Plugin, mdvp: Command) -> None:
    plugin.call("Create", Name="vol", Opts={"wait": "100s"})
    plugin.call("Mount", Name="vol", ID="a" * 64)
    with ThreadPoolExecutor() as others:
        waits = [others.submit(plugin.call, "Mount", Name="vol", ID=each) for each in "bc"]
        eventually(lambda: json.loads(mdvp("ls", "--json"))[0]["waiting"], 2)
        assert f"mount {'a' * 12} (waiting: 2)" in mdvp("ls")
        mdvp("change", "vol", "-o", "wait=")  # who waits goes by what it is now
        assert [it.result().status for it in waits] == [409, 409]


def test_what_was_removed_and_is_kept_is_listed_with_what_takes_it_back(
    plugin: Plugin, mdvp: Command
) -> None:
    assert mdvp("ls", "--trash") == "NAME   REMOVED   UNTIL   TAKEN BACK BY\n"
    assert json.loads(mdvp("ls", "--trash", "--json")) == []
    for name, fate in (("kept", "keep"), ("bin", "trash:12h"), ("gone", "delete")):
        plugin.call("Create", Name=name, Opts={"on-remove": fate})
        assert plugin.call("Remove", Name=name).status == 200
    trashed, kept = json.loads(mdvp("ls", "--trash", "--json"))
    fields = ["name", "removed_at", "until", "kept", "restore", "options"]
    assert [list(each) for each in (trashed, kept)] == [fields] * 2
    removed_at, until = (datetime.fromisoformat(trashed[it]) for it in ("removed_at", "until"))
    assert abs(until - removed_at - timedelta(hours=12)) <= timedelta(seconds=1)
    assert trashed["restore"] == f"bin@{trashed['removed_at']}"
    assert trashed["options"] == {"access": "exclusive", "on-remove": "trash:12h"}
    assert (kept["until"], kept["kept"], kept["restore"]) == (None, True, None)
    assert [" ".join(row.split()) for row in mdvp("ls", "--trash").splitlines()[1:]] == [
        f"bin {trashed['removed_at']} {trashed['until']} -o restore={trashed['restore']}",
        f"kept {kept['removed_at']} for good -o adopt=true",
    ]
    assert mdvp("ls").count("\n") == 1
    plugin.call("Create", Name="again", Opts={"restore": trashed["restore"]})
    assert [each["name"] for each in json.loads(mdvp("ls", "--trash", "--json"))] == ["kept"]


# Which mdvp is asked.


def socket_at(path: Path) -> socket.socket:
    path.parent.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_the_one_mdvp_that_answers_is_found(short_path: Path) -> None:
    with pytest.raises(client.UnreachableError, match=r"no mdvp runs here, as there is no mdvp\."):
        client.found(short_path)
    socket_at(short_path / "gone" / "mdvp.sock").close()
    with pytest.raises(client.UnreachableError, match=r"no mdvp answers on .*/gone/mdvp.sock: is"):
        client.found(short_path)
    with closing(socket_at(short_path / "id" / "mdvp.sock")):
        assert client.found(short_path) == short_path / "id" / "mdvp.sock"
        with (
            closing(socket_at(short_path / "mdvp.sock")),
            pytest.raises(
                client.UnreachableError,
                match=r"several mdvp run here: say which .* of \S*/id/mdvp.sock, \S*/mdvp.sock",
            ),
        ):
            client.found(short_path)


def test_what_does_not_answer_as_mdvp_does_is_said(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = short_path / "mdvp.sock"
    assert main(["ls", f"--socket={path}"]) == 1
    error = capsys.readouterr().err
    assert error == f"mdvp: no answer from mdvp on {path}: [Errno 2] No such file or directory\n"


VOLUME: dict[str, Any] = {
    **dict.fromkeys(FIELDS),
    "name": "vol",
    "access": "shared",
    "used_by": [],
    "waiting": 0,
    "options": {},
}


def in_json(answer: object, status: str = "200 OK") -> bytes:
    body = json.dumps(answer)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x1b[2Jhello\r\n",
        in_json({}),
        in_json({"Volumes": None}),
        in_json({"Volumes": {"a": 1}}),
        in_json({"Volumes": ["vol"]}),
        in_json({"Volumes": [{"name": "vol"}]}),
        in_json({"Volumes": [{**VOLUME, "size": "large"}]}),
        in_json({"Err": "\x1b]0;title\x07\nand more"}, "409 Conflict"),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    ],
)
def test_whatever_answers_the_command_says_so_in_a_line(
    short_path: Path, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    assert asked_of(answer, short_path / "mdvp.sock") == 1
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("mdvp: ")
    assert error.removesuffix("\n").isprintable()


def test_what_is_printed_tells_a_terminal_nothing(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = [
        {**VOLUME, "name": "a\x1b[2Jb\nc\u202ed"},
        {**VOLUME, "filling": "failed: \x07", "size": 1 << 99},
    ]
    assert asked_of(in_json({"Volumes": volumes}), short_path / "mdvp.sock") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert r"a\x1b[2Jb\nc\u202ed" in lines[1]


def test_who_reads_only_the_beginning_of_a_list_gets_no_error(short_path: Path) -> None:
    path = short_path / "mdvp.sock"
    volumes = [{**VOLUME, "name": f"{n:0100}"} for n in range(5000)]
    with closing(socket_at(path)) as listener, ThreadPoolExecutor() as pool:
        answering = pool.submit(answer_once, listener, in_json({"Volumes": volumes}))
        command = [sys.executable, "-m", "mdvp", "ls", f"--socket={path}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ls:
            assert ls.stdout is not None
            assert ls.stderr is not None
            assert ls.stdout.readline().startswith(b"NAME")
            ls.stdout.close()
            assert ls.stderr.read() == b""
        answering.result()


def asked_of(answer: bytes, path: Path) -> int:
    """Return the exit status of `mdvp ls`, asked of what answers so."""
    with closing(socket_at(path)) as listener, ThreadPoolExecutor() as pool:
        answering = pool.submit(answer_once, listener, answer)
        status = main(["ls", f"--socket={path}"])
        answering.result()
    return status


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with closing(connection):
        asked = b""
        while not asked.endswith(b"}"):  # what is unread at the end makes it a reset
            asked += connection.recv(1 << 16)
        connection.sendall(answer)
