"""The protocol, asked of a real mdvp process over its socket, as the engine asks it."""

import http.client
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.plugin import Plugin, serving
from support import eventually

MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"


@pytest.fixture
def plugin(short_path: Path) -> Iterator[Plugin]:
    root = short_path / "root"
    root.mkdir()
    with serving(root, short_path / "mdvp.sock") as plugin:
        yield plugin


@pytest.fixture(scope="module")
def hardened() -> Iterator[Plugin]:
    """Yield one plugin for all bad requests: none of them may change what the next one meets."""
    with (
        tempfile.TemporaryDirectory(prefix="mdvp-") as path,
        serving(Path(path), Path(path, "mdvp.sock")) as plugin,
    ):
        yield plugin
        assert plugin.volumes() == []
        assert "Traceback" not in plugin.stop()


def test_activate_names_the_driver_and_the_media_type(plugin: Plugin) -> None:
    answer = plugin.post("/Plugin.Activate", b"")
    assert answer.message == {"Implements": ["VolumeDriver"]}
    assert answer.content_type == MEDIA_TYPE


def test_the_scope_is_local(plugin: Plugin) -> None:
    assert plugin.call("Capabilities").message == {"Capabilities": {"Scope": "local"}}


def test_only_the_owner_can_connect(plugin: Plugin) -> None:
    assert stat.S_IMODE(plugin.socket.stat().st_mode) == 0o600


def test_the_state_is_kept_where_only_the_owner_can_look(plugin: Plugin) -> None:
    assert stat.S_IMODE((plugin.root / ".mdvp").stat().st_mode) == 0o700


def test_a_volume_from_create_to_remove(plugin: Plugin) -> None:
    directory = plugin.root / "vol"

    assert plugin.call("Create", Name="vol", Opts=None).message == {}
    assert directory.is_dir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert plugin.call("Path", Name="vol").message == {"Mountpoint": str(directory)}
    volume = plugin.call("Get", Name="vol").message["Volume"]
    assert volume["Mountpoint"] == str(directory)
    assert volume["CreatedAt"].endswith("Z")
    assert volume["Status"] == {"access": "exclusive", "mounted": False}

    assert plugin.call("Mount", Name="vol", ID="one").message == {"Mountpoint": str(directory)}
    status = plugin.call("Get", Name="vol").message["Volume"]["Status"]
    assert (status["mounted"], status["mount_ids"]) == (True, ["one"])
    (listed,) = plugin.call("List").message["Volumes"]
    assert (listed["Name"], listed["Mountpoint"]) == ("vol", str(directory))

    assert plugin.call("Unmount", Name="vol", ID="one").message == {}
    assert plugin.call("Remove", Name="vol").message == {}
    assert not directory.exists()
    assert plugin.volumes() == []
    eventually(lambda: list((plugin.root / ".mdvp" / "trash").iterdir()), [])


def test_create_again_leaves_the_volume_as_it_is(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("content")
    assert plugin.call("Create", Name="vol", Opts={}).status == 200
    assert (plugin.root / "vol" / "file").read_text() == "content"


def test_a_second_mount_id_is_refused_until_the_first_has_unmounted(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Mount", Name="vol", ID="one")

    refused = plugin.call("Mount", Name="vol", ID="two")
    assert refused.status == 409
    assert "'vol' is in use: mount one has had it since" in refused.error
    assert plugin.call("Remove", Name="vol").status == 409
    assert (plugin.root / "vol").is_dir()

    plugin.call("Unmount", Name="vol", ID="two")  # has nothing to give back
    assert plugin.call("Mount", Name="vol", ID="two").status == 409
    plugin.call("Unmount", Name="vol", ID="one")
    assert plugin.call("Mount", Name="vol", ID="two").status == 200


def test_docker_cp_does_not_end_the_lease_of_the_container(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Mount", Name="vol", ID="container")
    plugin.call("Mount", Name="vol", ID="container")  # docker cp begins
    plugin.call("Unmount", Name="vol", ID="container")  # docker cp ends
    assert plugin.call("Mount", Name="vol", ID="other").status == 409
    plugin.call("Unmount", Name="vol", ID="container")
    assert plugin.call("Mount", Name="vol", ID="other").status == 200


def test_volumes_and_leases_survive_a_restart_and_a_kill(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Mount", Name="vol", ID="one")
    before = plugin.call("Get", Name="vol").message

    plugin.stop()
    with serving(plugin.root, plugin.socket) as second:
        assert second.call("Get", Name="vol").message == before
        second.kill()  # leaves its socket file behind
    with serving(plugin.root, plugin.socket) as third:
        assert third.call("Get", Name="vol").message == before
        assert third.call("Mount", Name="vol", ID="two").status == 409


@pytest.mark.parametrize("endpoint", ["Get", "Path", "Remove", "Mount", "Unmount"])
def test_an_unknown_volume_is_named(hardened: Plugin, endpoint: str) -> None:
    answer = hardened.call(endpoint, Name="nope", ID="id")
    assert answer.status == 404
    assert "no volume 'nope'" in answer.error


@pytest.mark.parametrize(
    "name", ["../../etc", "..", ".mdvp", "a/b", "a\0b", "a\n", "b" * 256, "/etc", "é"]
)
@pytest.mark.parametrize("endpoint", ["Create", "Get", "Path", "Remove", "Mount", "Unmount"])
def test_a_bad_name_is_refused_and_touches_nothing(
    hardened: Plugin, endpoint: str, name: str
) -> None:
    before = sorted(hardened.root.rglob("*"))
    answer = hardened.call(endpoint, Name=name, ID="id")
    assert answer.status == 400
    assert "cannot be a volume's name" in answer.error
    assert sorted(hardened.root.rglob("*")) == before


def test_an_option_is_refused_by_name(hardened: Plugin) -> None:
    answer = hardened.call("Create", Name="vol", Opts={"colour": "red"})
    assert answer.status == 400
    assert "'colour'" in answer.error
    assert not (hardened.root / "vol").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"", "needs 'Name'"),
        (b"{}", "needs 'Name'"),
        (b'{"Name": ""}', "needs 'Name'"),
        (b'{"Name": 5}', "needs 'Name'"),
        (b'{"Name": ["vol"]}', "needs 'Name'"),
        (b'{"Name": "vol", "Opts": 5}', "'Opts'"),
        (b'{"name": "vol"}', "needs 'Name'"),
    ],
)
def test_a_bad_request_is_explained_and_the_next_one_works(
    hardened: Plugin, body: bytes, words: str
) -> None:
    answer = hardened.post("/VolumeDriver.Create", body)
    assert answer.status == 400
    assert answer.content_type == MEDIA_TYPE
    assert words in answer.error
    assert hardened.call("List").status == 200


def test_a_mount_without_an_id_is_refused(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    assert "needs 'ID'" in plugin.call("Mount", Name="vol").error
    half_a_pair = plugin.post("/VolumeDriver.Mount", b'{"Name": "vol", "ID": "\\ud800"}')
    assert half_a_pair.status == 400


def test_a_file_in_the_sockets_place_is_left_alone(short_path: Path) -> None:
    file = short_path / "mdvp.sock"
    file.write_text("somebody's")
    with serving(short_path, file) as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    assert f"ERROR {file} is no socket" in log
    assert file.read_text() == "somebody's"


def test_an_unknown_endpoint_is_named(hardened: Plugin) -> None:
    answer = hardened.post("/VolumeDriver.Snapshot", b"{}")
    assert answer.status == 404
    assert "no endpoint '/VolumeDriver.Snapshot'" in answer.error


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_method_is_refused_in_json(hardened: Plugin, method: str) -> None:
    answer = hardened.post("/VolumeDriver.List", b"", method)
    assert answer.status == 405
    assert "use POST" in answer.error


@pytest.mark.parametrize("size", [10 << 20, 65 << 20])
def test_a_huge_body_is_refused_in_json_and_the_next_call_works(
    hardened: Plugin, size: int
) -> None:
    head = f"POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode()
    # One that says that it is too long for anyone is refused before it is sent.
    answer = hardened.raw(head + (b"x" * size if size < 64 << 20 else b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"Err": ' in answer
    assert hardened.call("List").status == 200


@pytest.mark.parametrize(
    "request_",
    [b"junk\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"\0\xff\r\n\r\n"],
)
def test_what_is_not_http_is_answered_in_json(hardened: Plugin, request_: bytes) -> None:
    answer = hardened.raw(request_)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert b'{"Err": ' in answer
    assert hardened.call("List").status == 200


def test_the_log_tells_the_story_of_a_volume(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.call("Mount", Name="vol", ID="one")
    plugin.call("Mount", Name="vol", ID="two")
    plugin.call("Unmount", Name="vol", ID="one")
    plugin.call("Remove", Name="vol")
    log = plugin.stop()
    story = [
        f"INFO volume vol created at {plugin.root / 'vol'}",
        "INFO volume vol mounted by one",
        "WARNING volume vol refused to mount two: volume 'vol' is in use",
        "INFO volume vol unmounted by one",
        "INFO volume vol removed",
        "INFO stopped",
    ]
    at = -1
    for line in story:
        at = log.index(line, at + 1)
        assert log.count(line) == 1


def test_sigterm_ends_it_cleanly(plugin: Plugin) -> None:
    plugin.stop()
    assert plugin.process.returncode == 0
    assert not plugin.socket.exists()


def test_two_of_them_do_not_share_a_root(plugin: Plugin, short_path: Path) -> None:
    with serving(plugin.root, short_path / "second.sock") as second:
        log, _ = second.process.communicate(timeout=10)
    assert second.process.returncode == 1
    assert f"ERROR another mdvp serves the volumes in {plugin.root}" in log
    assert plugin.call("List").status == 200


def test_two_of_them_do_not_share_a_socket(plugin: Plugin, short_path: Path) -> None:
    with serving(short_path, plugin.socket) as second:
        log, _ = second.process.communicate(timeout=10)
    assert second.process.returncode == 1
    assert f"ERROR somebody listens on {plugin.socket} already" in log
    assert plugin.call("List").status == 200


def test_a_bad_log_level_is_refused_with_the_choice(short_path: Path) -> None:
    with serving(short_path, short_path / "mdvp.sock", LOG_LEVEL="loud") as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    assert plugin.process.returncode == 2
    assert "LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR" in log


def test_a_missing_root_is_named(short_path: Path) -> None:
    with serving(short_path / "nope", short_path / "mdvp.sock") as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    assert plugin.process.returncode == 1
    assert f"ERROR cannot use {short_path / 'nope'} as the root of volumes" in log


def test_removing_a_volume_follows_no_link_out_of_it(plugin: Plugin, short_path: Path) -> None:
    outside = short_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "link").symlink_to(outside)
    (plugin.root / "vol" / "deep").mkdir(mode=0o000)
    os.mkfifo(plugin.root / "vol" / "fifo")
    assert plugin.call("Remove", Name="vol").status == 200
    eventually(lambda: list((plugin.root / ".mdvp" / "trash").iterdir()), [])
    assert (outside / "file").read_text() == "stays"


def test_a_database_that_is_damaged_under_way_gets_no_answer_and_is_mended_at_the_next_start(
    plugin: Plugin,
) -> None:
    plugin.call("Create", Name="vol")
    plugin.stop()
    database = plugin.root / ".mdvp" / "state.db"
    names = [f"many{number}-{'x' * 150}" for number in range(15_000)]
    with sqlite3.connect(database) as db:  # more than SQLite keeps in memory
        db.executemany(
            "INSERT INTO volumes (name, created_at, inode, born) VALUES (?, ?, ?, 0)",
            [(name, "2026-01-01T00:00:00+00:00", at) for at, name in enumerate(names)],
        )
    db.close()
    with serving(plugin.root, plugin.socket) as running:
        database.write_bytes(b"\xff" * database.stat().st_size)
        # An error would have the engine forget the volume.
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            running.call("Get", Name=names[0])
        running.process.wait(10)
    with serving(plugin.root, plugin.socket) as mended:
        assert mended.volumes() == ["vol"]
        mended.call("Remove", Name="vol")


def test_a_get_without_a_body_gets_no_answer(plugin: Plugin) -> None:
    # The engine repeats a Get that got no answer without its body, and takes any error as final.
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        plugin.post("/VolumeDriver.Get", b"")
    assert plugin.call("Get", Name="nope").status == 404
